"""Schemas and writers of a study's files.

    STUDY/
      study.yaml                  the :class:`Declaration`, written before any job runs
      contamination.arrow         task items in training text (:data:`CONTAMINATION`); absent
                                  without tasks
      ARM/seed_N/                 one job; ARM@VARIANT/seed_N where a study has variants
        result.json               one :class:`Result`; written last: the job is complete
        heldout.arrow             held-out documents (HELDOUT_SCHEMA in model.training.outcome),
                                  the same in every run; (source, document) is unique
        tasks.arrow               answered task items (:data:`TASKS`); absent without tasks
        metrics.jsonl             training curve, one JSON object per line (:class:`Curve`)
        failure.json              instead of a result: {"error": …, "traceback": …}

      trunk/seed_N/               the same for a trunk, from which arms start (experiment=anneal)

A *variant* is what a study sweeps besides its arms, such as model sizes or learning rates. Every
arm runs at every variant with every seed. Size and learning rate are in the results, not in folder
names. Other files (checkpoints, logs) are ignored.
"""

import dataclasses
import functools
import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import yaml

from ablations.study_files.swarms import Swarm
from ablations.study_files.variant_choice import ChosenVariants, Compare
from model.training.outcome import HELDOUT, HELDOUT_SCHEMA
from winnow.filesystem import storage, tables

FORMAT = 1

DECLARATION = "study.yaml"
RESULT = "result.json"
FAILURE = "failure.json"
CURVE = "metrics.jsonl"
TASKS_FILE = "tasks.arrow"
CONTAMINATION_FILE = "contamination.arrow"
EVALUATION = "evaluation.json"
TRUNK = "trunk"
"""The name of a trunk among jobs; no arm has it."""

FloatArray = npt.NDArray[np.float64]

TASKS = pa.schema(
    [
        *tables.required(task=pa.string(), shots=pa.int32(), metric=pa.string()),
        *tables.required(item=pa.string(), cluster=pa.string()),
        *tables.required(numerator=pa.float64(), denominator=pa.float64()),
        pa.field("chance", pa.float64()),
    ]
)
"""One item under one metric. A score is the sum of ``numerator`` over that of ``denominator``:

- ``accuracy``, ``exact_match``, ``f1``: the item's score in [0, 1] over 1. ``accuracy`` is under
  the task's scoring rule; other rules are other metrics (``accuracy_sum``, …).
- ``f1a`` (MultiRC): 2·TP over 2·TP + FP + FN, so that the ratio of sums is the F1 of all answers.
- ``gold_bits_per_byte``: bits of the right answer over its bytes.
- ``gold_probability``: probability of the right choice among the choices over 1.
- tasks of lm-evaluation-harness have its metrics (:mod:`ablations.evaluation.harness_scores`).

``cluster`` is the passage that an item shares with others, else the item. ``chance`` is the
expected numerator under guessing, null where guessing has no meaning. (task, shots, metric, item)
is unique. :mod:`ablations.study_files.metrics` says for which metrics lower is better."""

CONTAMINATION = pa.schema(
    [
        *tables.required(task=pa.string(), item=pa.string(), arm=pa.string()),
        pa.field("dirty", pa.bool_()),
    ]
)
"""Whether an item occurs in an arm's training text; ``dirty`` is null for too short items."""

_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.+=-]*$")


class JobKey(NamedTuple):
    """Identifies a job; ``variant`` is empty if only arms and seeds are swept."""

    arm: str
    variant: str
    seed: int

    @property
    def arm_name(self) -> str:
        """Arm and variant, as in the folder name."""
        return f"{self.arm}@{self.variant}" if self.variant else self.arm

    @property
    def name(self) -> str:
        return f"{self.arm_name} seed {self.seed}"

    def folder(self, study: str) -> str:
        return storage.join(study, self.arm_name, f"seed_{self.seed}")


@dataclass(frozen=True)
class Primary:
    """The primary contrast, with error rates declared beforehand.

    ``smallest_difference`` is the smallest difference of interest, in the endpoint's unit.
    ``control`` names an arm with the same kind of text as the baseline: the study is then a
    calibration (:mod:`ablations.analyses.calibration`).
    """

    endpoint: str
    baseline: str
    treatment: str
    smallest_difference: float
    alpha: float = 0.05
    power: float = 0.8
    control: str = ""

    def __post_init__(self) -> None:
        if self.baseline == self.treatment:
            raise ValueError(f"baseline and treatment are both {self.baseline!r}: name two arms")
        if not (self.smallest_difference > 0 and math.isfinite(self.smallest_difference)):
            raise ValueError("smallest_difference must be a positive number")
        if not 0 < self.alpha < 0.5 or not self.alpha < self.power < 1:
            raise ValueError("alpha must lie in (0, 0.5) and power in (alpha, 1)")


@dataclass(frozen=True)
class Declaration:
    """``study.yaml``. ``variants`` are [""] where nothing but arms and seeds is swept.

    ``main`` is the variant that the verdict is about. ``heldout`` groups the held-out sources
    ("unseen", "known", "web", "junk"). ``compare`` says where arms are compared (None: at the main
    variant), ``swarm`` which mixtures they read (None: the same). ``secondary`` lists the other
    endpoints to test; None means every other group and every task average. ``shots`` are the
    columns of task results, numbers or ``few`` (GLaM's number for each task). ``budget`` is
    informational.

    Computed before any job runs: ``mixture`` has the default weights of sources in all arms;
    ``unigram`` the bits per byte of each held-out source under a unigram model of the raw pool;
    ``differing`` the share of tokens read that the arms of the primary contrast do not share (None
    if they differ in more than text); ``known`` whether the endpoint's sources may have trained the
    filter's classifier; ``repeats_from`` the tokens after which each arm rereads a source, at the
    main variant. ``first_seeds`` is the number of seeds before more were added after a look at the
    study. ``notes`` are caveats for readers. ``harness`` identifies each task of
    lm-evaluation-harness and its shots: version, seed, items, and a fingerprint of its requests.
    """

    name: str
    arms: Sequence[str]
    seeds: Sequence[int]
    primary: Primary
    heldout: Mapping[str, Sequence[str]]
    variants: Sequence[str] = ("",)
    main: str = ""
    secondary: Sequence[str] | None = None
    shots: Sequence[str] = ("0",)
    budget: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    mixture: Mapping[str, float] = dataclasses.field(default_factory=dict)
    unigram: Mapping[str, float] = dataclasses.field(default_factory=dict)
    differing: float | None = None
    known: bool = False
    repeats_from: Mapping[str, int] = dataclasses.field(default_factory=dict)
    first_seeds: int | None = None
    notes: Sequence[str] = ()
    compare: Compare | None = None
    harness: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    swarm: Swarm | None = None

    def __post_init__(self) -> None:
        for what in ("arms", "seeds", "variants"):
            if not (names := getattr(self, what)) or len(set(names)) != len(names):
                raise ValueError(f"{what} must be a list without repeats, not {list(names)}")
        for name in (*self.arms, *(v for v in self.variants if v)):
            if not _NAME.match(name):
                raise ValueError(f"{name!r} cannot name a folder: use letters, digits and ._+=-")
        primary = self.primary
        if TRUNK in self.arms:
            raise ValueError(f"{TRUNK!r} is what arms start from (trunk=true), not an arm")
        for arm in filter(None, (primary.baseline, primary.treatment, primary.control)):
            if arm not in self.arms:
                raise ValueError(f"the primary contrast names {arm!r}, not one of the arms")
        if self.main not in self.variants:
            known = list(self.variants)
            raise ValueError(f"main: {self.main!r} is not one of the variants {known}")

    def mixture_of(self, arm: str) -> Mapping[str, float]:
        """The weights by which an arm reads its sources."""
        return self.swarm.mixtures.get(arm, self.mixture) if self.swarm else self.mixture


@dataclass(frozen=True)
class Result:
    """``result.json``. ``config_hash`` is of the job's config without its seed.

    ``tokens`` counts training tokens, ``unique_tokens`` each position of the corpus once, so
    ``epochs`` = tokens / unique_tokens. ``flops`` includes scoring the raw pool and the trunk;
    tokens and seconds are the job's alone. ``heldout`` is bits per byte by source, from
    heldout.arrow. ``provenance`` is informational: commit, shards, classifier.
    """

    arm: str
    variant: str
    seed: int
    config_hash: str
    model: str
    parameters_total: int
    parameters_active: int
    tokens: int
    unique_tokens: int
    epochs: float
    flops: float
    learning_rate: float
    wall_seconds: float
    kwh: float
    kwh_basis: str
    heldout: Mapping[str, float]
    provenance: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kwh_basis not in ("measured", "estimated"):
            raise ValueError(f"kwh_basis is {self.kwh_basis!r}: give 'measured' or 'estimated'")
        if min(self.tokens, self.unique_tokens, self.flops, self.learning_rate) <= 0:
            raise ValueError("tokens, unique_tokens, flops and learning_rate must be positive")

    @property
    def key(self) -> JobKey:
        return JobKey(self.arm, self.variant, self.seed)


@dataclass(frozen=True)
class Curve:
    """The lines of metrics.jsonl with ``heldout`` = {source: bits per byte}, in order.

    ``tokens``, ``unique_tokens`` and ``flops`` are cumulative, as in :class:`Result`. Arrays are
    [evaluations].
    """

    tokens: FloatArray
    unique_tokens: FloatArray
    flops: FloatArray
    heldout: Mapping[str, FloatArray]


@dataclass(frozen=True)
class Sums:
    """Sums over each cluster of a source or task: float64 [clusters]; ``chance`` over all."""

    numerator: FloatArray
    denominator: FloatArray
    chance: float | None = None


@dataclass(frozen=True)
class Run:
    """One complete job. Tables are sorted by their keys; ``curve`` is None if none was written."""

    result: Result
    heldout: pa.Table
    tasks: pa.Table
    curve: Curve | None

    @functools.cached_property
    def documents(self) -> dict[str, Sums]:
        """Bits and bytes of each document, by source."""
        return {
            source: Sums(rows["bits"].to_numpy(), rows["bytes"].to_numpy().astype(np.float64))
            for (source,), rows in tables.runs_of_equal(self.heldout, ["source"])
        }

    @functools.cached_property
    def scores(self) -> dict[tuple[str, str, int], Sums]:
        """Numerators and denominators of each cluster, by (task, metric, shots), in order."""
        keys = ["task", "metric", "shots"]
        table = self.tasks.append_column("items", pa.array(np.ones(len(self.tasks), np.int64)))
        sums = table.group_by([*keys, "cluster"]).aggregate(
            [(name, "sum") for name in ("numerator", "denominator", "chance", "items")]
            + [("chance", "count")]
        )
        sums = sums.sort_by([(key, "ascending") for key in (*keys, "cluster")])
        out = {}
        for (task, metric, shots), rows in tables.runs_of_equal(sums, keys):
            known = rows["chance_count"].to_numpy().sum() == rows["items_sum"].to_numpy().sum()
            out[task, metric, shots] = Sums(
                rows["numerator_sum"].to_numpy(),
                rows["denominator_sum"].to_numpy(),
                float(rows["chance_sum"].to_numpy().sum()) if known else None,
            )
        return out


@dataclass(frozen=True)
class Study:
    """A study as read from disk; every declared job is in exactly one of the four collections.

    ``chosen`` has the variant of each arm, if not the main one
    (:func:`ablations.contrasts.variant_selection.choose`). ``trunks`` are complete; ``failed``
    includes failed ones.
    """

    declared: Declaration
    runs: Mapping[JobKey, Run]
    failed: Mapping[JobKey, str]
    unfinished: Sequence[JobKey]
    missing: Sequence[JobKey]
    contamination: pa.Table = dataclasses.field(default_factory=CONTAMINATION.empty_table)
    chosen: ChosenVariants | None = None
    trunks: Mapping[JobKey, Run] = dataclasses.field(default_factory=dict)

    def seeds(self, arm: str, variant: str | None = None) -> dict[int, Run]:
        """Complete runs of an arm by seed, at its compared variant or another one."""
        arm_and_variant = (arm, self.variant_of(arm) if variant is None else variant)
        return {key.seed: run for key, run in self.runs.items() if key[:2] == arm_and_variant}

    def variant_of(self, arm: str) -> str:
        choice = self.chosen.choices.get(arm) if self.chosen else None
        return choice.variant if choice else self.declared.main


def config_hash(config: Mapping[str, Any]) -> str:
    """Sixteen hex digits of a SHA-256 of a job's config without its seed."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:16]


def write_declaration(study: str, declared: Declaration) -> None:
    value = {"format": FORMAT, **dataclasses.asdict(declared)}
    absent = [name for name in ("compare", "harness", "swarm") if not getattr(declared, name)]
    present = {key: item for key, item in value.items() if key not in absent}
    plain = json.loads(json.dumps(present))  # YAML's lists and mappings alone
    text = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)
    storage.write_bytes(storage.join(study, DECLARATION), text.encode())


def write_run(study: str, result: Result, heldout: pa.Table, tasks: pa.Table | None = None) -> None:
    """Write a job's tables, then its result; remove an earlier failure record."""
    folder = result.key.folder(study)
    for name, table, schema in ((HELDOUT, heldout, HELDOUT_SCHEMA), (TASKS_FILE, tasks, TASKS)):
        if table is not None:
            tables.write(storage.join(folder, name), table.cast(schema))
    if storage.exists(storage.join(folder, FAILURE)):
        storage.remove(storage.join(folder, FAILURE))
    value = {"format": FORMAT, **dataclasses.asdict(result)}
    storage.write_json(storage.join(folder, RESULT), value)


def write_failure(study: str, job: JobKey, error: str, trace: str) -> None:
    path = storage.join(job.folder(study), FAILURE)
    storage.write_json(path, {"format": FORMAT, "error": error, "traceback": trace})
