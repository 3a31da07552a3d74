"""The jobs of a sweep: one validated config each, and what identifies a job.

Hydra expands the sweep and launches the jobs. This module expands it beforehand, with Hydra's code,
so that every config is checked, planned and declared before anything runs.
"""

import dataclasses
import functools
import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import joblib  # type: ignore[import-untyped]
from hydra import compose
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf, flag_override

from ablations.study.design import trunk
from ablations.study.design.config import AblationConfig, DataRule
from ablations.study_files.results import Declaration, JobKey, Primary
from ablations.study_files.variant_choice import Compare, CompareAt
from ablations.tasks.task import is_harness
from model.data.corpus import Corpus
from model.glam.config import GLaMConfig
from model.training.train_config import DataConfig, TrainConfig, flatten
from winnow.commands import command_line

if TYPE_CHECKING:
    from model.data.stream import TokenStream

SEED = "seed="

SEEDS_OF_MEMBER = 1_000_000
"""Offset between the seeds of two members of a swarm, and of the study that confirms it."""


@dataclass(frozen=True)
class Job:
    """One training run and its evaluation; ``model`` names its size."""

    config: AblationConfig
    model: str

    @property
    def key(self) -> JobKey:
        return JobKey(self.config.arm, self.config.variant, self.config.seed)

    @property
    def name(self) -> str:
        return self.key.name

    @property
    def folder(self) -> str:
        return self.key.folder(self.config.output)

    @property
    def is_arm(self) -> bool:
        """Whether it is compared, unlike a trunk."""
        return not trunk.is_trunk(self.config)

    @property
    def tokens(self) -> int:
        """Tokens to train on, in whole steps."""
        return self.config.steps * self.config.step_tokens

    @property
    def flops(self) -> float:
        from model import sizes  # needs torch, which processes that only start jobs don't load

        model, length = self.config.model, self.config.data.sequence_length
        return self.tokens * sizes.training_flops(model, sizes.count(model), length)


def job_of(config: DictConfig) -> Job:
    """The job of a composed config; a ValueError if a setting is missing or invalid."""
    hydra = HydraConfig.get()
    settings: AblationConfig = trunk.split_schedule(command_line.checked(config))
    return Job(settings, describe(hydra.runtime.choices["model"], settings.model))


def describe(name: str, model: GLaMConfig) -> str:
    """A model as its name in ``conf/model`` with up to two changes; else its shape."""
    named = vars(_named(name))
    changes = {key: value for key, value in vars(model).items() if value != named[key]}
    if len(changes) <= 2:
        return " ".join([name, *(f"{key}={value}" for key, value in changes.items())])
    experts = f", {model.experts} experts" if model.sparse else ""
    return f"{model.layers} layers of width {model.width}{experts}"


@functools.cache
def _named(name: str) -> GLaMConfig:
    model: GLaMConfig = command_line.checked(compose(overrides=[f"+model={name}"]).model)
    return model


def expand(config: DictConfig, name: str) -> list[Job]:
    """All jobs of a sweep in launch order. Hydra must be initialised.

    ``config`` includes the ``hydra`` node; ``name`` is its file's.

    Raises:
        ValueError: two jobs would share a folder.
        hydra.errors.HydraException: a key or a value is invalid.
    """
    overrides = [f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items()]
    given: Any = OmegaConf.to_container(config.hydra.overrides.task, resolve=False)
    overrides += given
    parsed = OverridesParser.create().parse_overrides(overrides)
    current = HydraConfig.instance().cfg
    jobs = []
    composed: dict[tuple[str, ...], Job] = {}  # composing is slow; seeds share a config
    try:
        for job_overrides in BasicSweeper.split_arguments(parsed, None)[0]:
            key = tuple(override for override in job_overrides if not override.startswith(SEED))
            if key not in composed:
                composed[key] = _compose(name, job_overrides)
            job = composed[key]
            seeds = [int(o.removeprefix(SEED)) for o in job_overrides if o.startswith(SEED)]
            seeded = dataclasses.replace(job.config, seed=seeds[0]) if seeds else job.config
            jobs.append(dataclasses.replace(job, config=seeded))
    finally:
        HydraConfig.instance().cfg = current
    for repeated in [key for key, n in Counter(job.key for job in jobs).items() if n > 1]:
        raise ValueError(
            f"the sweep has two jobs called {repeated.name}: name what else is swept, as in"
            " 'variant=experts-${model.experts}'"
        )
    return jobs


def _compose(name: str, overrides: list[str]) -> Job:
    config = compose(name, overrides=overrides, return_hydra_config=True)
    HydraConfig.instance().set_config(config)
    with flag_override(config, ["struct", "readonly"], False):
        del config["hydra"]
    return job_of(config)


def first_batch(jobs: Sequence[Job]) -> int | None:
    """The number of trunks (None without any); a ValueError unless they come first."""
    if not jobs[0].config.trunk:
        return None
    trunks = [job for job in jobs if not job.is_arm]
    if not trunks or any(job.is_arm for job in jobs[: len(trunks)]):
        raise ValueError(
            "trunk=true trains trunks before the arms: sweep data before anything else, and"
            " data=trunk first, as in data=trunk,unfiltered,filtered seed=1,2,3"
        )
    if all(trunk.is_spare(job.config) for job in trunks):
        raise ValueError(f"trunk_seed={jobs[0].config.trunk_seed} is not one of the seeds")
    return len(trunks)


def needed(jobs: Sequence[Job]) -> list[Job]:
    """The jobs that have work to do."""
    return [job for job in jobs if not trunk.is_spare(job.config)]


def declaration(jobs: Sequence[Job], heldout: Mapping[str, Sequence[str]]) -> Declaration:
    """The content of ``study.yaml`` that does not depend on the corpus.

    Raises:
        ValueError: an arm of the contrast has no jobs, the grid of arms, variants and seeds is
            incomplete, jobs disagree on the contrast, or there are no variants to choose from.
    """
    trunks = [job.config for job in jobs if not job.is_arm]
    jobs = [job for job in jobs if job.is_arm] or jobs
    first = jobs[0].config
    for job in jobs:
        if (job.config.primary, job.config.output) != (first.primary, first.output):
            raise ValueError("primary, study and output can't be swept: all jobs share them")
    for arm in (first.primary.baseline, first.primary.treatment):
        if arm not in {job.config.arm for job in jobs}:
            raise ValueError(
                f"no job has the arm {arm!r}: sweep it too, or name the arms to compare with"
                " primary.baseline=… primary.treatment=…"
            )
    axes = [list(dict.fromkeys(values)) for values in zip(*(j.key for j in jobs), strict=True)]
    arms, variants, seeds = axes
    if len(jobs) < len(arms) * len(variants) * len(seeds):
        raise ValueError(
            f"{len(jobs)} jobs don't fill the grid of arms {arms}, variants {variants} and seeds"
            f" {seeds}: what is swept must show in both arm=… and variant=…"
        )
    compare = None
    if first.compare.at != CompareAt.main:
        if len(variants) < 2:
            raise ValueError(
                f"compare.at={first.compare.at} needs several learning rates or passes of each"
                " arm: sweep over them (experiment=learning_rate)"
            )
        compare = Compare(first.compare.at.value, first.compare.selection)
    unseen = "heldout/unseen" if first.unseen else "heldout/known"
    contrast = {**vars(first.primary), "endpoint": first.primary.endpoint or unseen}
    return Declaration(
        name=first.study,
        arms=arms,
        seeds=seeds,
        primary=Primary(**contrast),
        heldout={group: list(sources) for group, sources in heldout.items()},
        variants=variants,
        main=first.main if len(variants) > 1 else variants[0],
        secondary=first.secondary,
        compare=compare,
        shots=[str(shots) for shots in first.tasks.shots],
        budget={
            "tokens": first.train.tokens,
            "model": jobs[0].model,
            **({"trunk_tokens": trunks[0].train.tokens} if trunks else {}),
        },
        notes=[trunk.note(first, trunks[0])] if trunks else [],
    )


def training_config(job: Job, mixture: Mapping[str, float]) -> dict[str, Any]:
    """The full config of ``model/train.py``; ``mixture`` applies unless the job has its own."""
    values: Any = OmegaConf.to_container(OmegaConf.structured(job.config), enum_to_str=True)
    config = {field.name: values[field.name] for field in dataclasses.fields(TrainConfig)}
    data = values["data"]
    config["data"] = {field.name: data[field.name] for field in dataclasses.fields(DataConfig)}
    if not config["data"]["mixture"] and job.config.data.pool_shares:
        config["data"]["mixture"] = dict(mixture)
    config["output"] = os.path.join(job.folder, "training")
    config["seed"] = seed_of(job.config)
    return trunk.with_start(job.config, config)


def seed_of(config: AblationConfig) -> int:
    """The training seed, unique in a swarm, so that errors of its regression are independent."""
    member = config.data.member
    if member is None or config.swarm.folder is not None:
        return config.seed
    return SEEDS_OF_MEMBER * (1 + int(member)) + config.seed


def stream_of(training: Mapping[str, Any], corpus: Corpus) -> "TokenStream":
    """The token stream of a job; a ValueError if arm, mixture and batch size are incompatible."""
    # Imported here because it needs torch, which processes that only start jobs don't load.
    from model.data.stream import TokenStream

    data, seed, rows = training["data"], training["seed"], training["train"]["batch_rows"]
    length, mixture = data["sequence_length"], data["mixture"]
    return TokenStream(corpus, data["arm"], seed, length, rows, mixture)


def identity(
    job: Job,
    training: Mapping[str, Any],
    corpus: Corpus,
    trunk_hash: str | None = None,
    harness: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Everything but the seed that a job's result depends on, flat and without paths.

    ``trunk_hash`` is of the settings of an arm's trunk, ``harness`` is ``Declaration.harness``. The
    training part is what ``model/train.py`` compares before it resumes a run, and the token budget,
    which a resumed run may raise.
    """
    schema = OmegaConf.structured(TrainConfig)
    config: TrainConfig = OmegaConf.to_object(OmegaConf.merge(schema, training))  # type: ignore[assignment]
    kept = config.identity()
    del kept["seed"]
    kept["train"] = {**kept["train"], "tokens": training["train"]["tokens"]}
    kept["data"] = {**kept["data"], "corpus": corpus.fingerprint}
    kept["arm_fingerprint"] = corpus.arm(job.config.data.arm).fingerprint
    kept["evaluate"] = training["evaluate"]
    tasks: Any = OmegaConf.to_container(OmegaConf.structured(job.config.tasks))
    kept["tasks"] = {k: v for k, v in tasks.items() if k not in ("local", "cache")}
    kept["tasks"]["names"] = [name for name in tasks["names"] if not is_harness(name)]
    if harness:
        kept["tasks"]["harness"] = harness
    if training["train"]["start"] is not None and not job.config.trunk:
        kept["train"]["start"] = _content(training["train"]["start"])
    if trunk_hash is not None:
        kept["trunk"] = {"settings": trunk_hash, "seed": job.config.trunk_seed}
    return dict(flatten(kept))


@functools.cache
def _content(start: str) -> str:
    """A content hash of a starting checkpoint."""
    from model.training.checkpoints import checkpoint  # torch
    from model.training.checkpoints.start import content

    return content(checkpoint.resolve(start).path)


def differ_by_score(jobs: Sequence[Job]) -> bool:
    """Whether the arms of the primary contrast differ in text selected by score."""
    primary = jobs[0].config.primary
    pair = [job for job in jobs if job.config.arm in (primary.baseline, primary.treatment)]
    texts = {(job.config.data.arm, job.config.data.member) for job in pair}
    return len(texts) > 1 and any(map(uses_scores, pair))


def uses_scores(job: Job) -> bool:
    """Whether selecting the arm's text, or weighting its parts, needs scores."""
    data = job.config.data
    if data.member not in (None, "0") and job.config.swarm.buckets > 1:
        return True
    return data.rule in (DataRule.stored, DataRule.pareto, DataRule.threshold)


def threads_of(config: AblationConfig) -> int:
    """Threads per job: its share of the cores, at most ``OMP_NUM_THREADS``."""
    share = max(1, _cores() // slots_of(config))
    limit = os.environ.get("OMP_NUM_THREADS", "")
    return min(share, int(limit)) if limit.isdigit() and int(limit) else share


def slots_of(config: AblationConfig) -> int:
    """Jobs that run in parallel on this machine."""
    return int(joblib.effective_n_jobs(config.jobs_at_once))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
