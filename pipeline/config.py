"""What a run is told: command-line flags and YAML, checked, every default written once, here."""

import argparse
import dataclasses
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_type_hints

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import yaml

from pipeline import schema, settings_file, solve
from pipeline.decision import Rule
from pipeline.readers import HTML_EXTRACTOR, MAX_DOCUMENT_BYTES, FieldMap, check_extractor
from pipeline.shards import COMPRESSIONS

RULES = ("pareto", "threshold", "top_fraction", "random", "all")
STEPS_FILE = os.path.join(os.path.dirname(__file__), os.pardir, "conf", "pipeline", "steps.yaml")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class Decision:
    """The keep rule as the user states it. Its parameter may be left to a wanted yield.

    Raises:
        ValueError: the rule and its parameters do not go together.
    """

    rule: str = "pareto"
    alpha: float | None = None
    threshold: float | None = None
    rate: float | None = None
    target_fraction: float | None = None
    target_unit: str = "documents"
    deduplicate: bool = False

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise ValueError(f"unknown --rule {self.rule!r}: choose one of {', '.join(RULES)}")
        solve.check_unit(self.target_unit)
        takes = {"pareto": "alpha", "threshold": "threshold", "random": "rate"}.get(self.rule)
        for name in ("alpha", "threshold", "rate"):
            if getattr(self, name) is not None and name != takes:
                raise ValueError(f"--{name} has no meaning under --rule {self.rule}: leave it out")
        given = takes is not None and getattr(self, takes) is not None
        if self.target_fraction is not None:
            if self.rule == "all":
                raise ValueError("--target-fraction has no meaning under --rule all: leave it out")
            if given:
                raise ValueError(f"give either --{takes} or --target-fraction, not both")
            if not 0 < self.target_fraction <= 1:
                raise ValueError("--target-fraction must lie in (0, 1]")
        elif self.rule == "top_fraction":
            raise ValueError("--rule top_fraction needs --target-fraction")
        elif takes in ("threshold", "rate") and not given:
            raise ValueError(f"--rule {self.rule} needs --{takes} or --target-fraction")
        self.known_rule()

    def known_rule(self) -> Rule | None:
        """The rule, unless its parameter is to be solved for from the scores."""
        match self.rule:
            case "all":
                return Rule("all")
            case "random":
                # A random draw ignores the score: in expectation every unit is kept at the rate.
                rate = self.rate if self.rate is not None else self.target_fraction
                assert rate is not None
                return Rule("random", rate)
            case "threshold" if self.threshold is not None:
                return Rule("threshold", self.threshold)
            case "pareto" if self.target_fraction is None:
                return Rule("pareto", DEFAULT_ALPHA if self.alpha is None else self.alpha)
            case _:
                return None

    def sketch(self, batches: Iterable[pa.RecordBatch]) -> solve.Sketch:
        """What :meth:`solve` needs of scored documents; those that a step dropped do not count."""
        total = np.zeros(1, np.int64)
        for batch in batches:
            reaches = pc.fill_null(pc.equal(batch["drop_reason"], schema.QUALITY), True)
            reaches = reaches.to_numpy(zero_copy_only=False)
            weight = (
                np.ones(len(batch), np.int64)
                if self.target_unit == "documents"
                else batch[solve.COLUMN[self.target_unit]].to_numpy()
            )
            total = total + solve.sketch(
                self._solved_rule,
                batch["quality_score"].to_numpy()[reaches],
                batch["keep_draw"].to_numpy()[reaches],
                weight[reaches],
            )
        return total

    def solve(self, total: solve.Sketch) -> Rule:
        """The rule whose yield is nearest to the target."""
        assert self.target_fraction is not None
        return solve.solve(self._solved_rule, total, self.target_fraction)

    @property
    def _solved_rule(self) -> str:
        return "pareto" if self.rule == "pareto" else "threshold"


DEFAULT_ALPHA = 9.0
"""GPT-3's alpha. GLaM's is not published."""


@dataclass(frozen=True)
class PipelineConfig:
    """Everything that ``pipeline/run.py`` is told, but for Beam's own options."""

    source: Mapping[str, Sequence[str]]
    classifier: str
    output: str
    filter: Sequence[str] = ()
    field: Mapping[str, str] = dataclasses.field(default_factory=dict)
    metadata: Sequence[str] = ()
    html_extractor: str = HTML_EXTRACTOR
    max_document_bytes: int = MAX_DOCUMENT_BYTES
    split_bytes: int = 256 << 20
    label: str | None = None
    decision: Decision = dataclasses.field(default_factory=Decision)
    seed: int = 0
    steps: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    write: str = "all"
    shard_bytes: int = 512 << 20
    compression: str = "lz4"
    stall_minutes: float = 10.0

    def __post_init__(self) -> None:
        if not self.source:
            raise ValueError("no input: give at least one --source name=GLOB")
        for name in self.source:
            if not _NAME.fullmatch(name):
                raise ValueError(
                    f"source name {name!r} is no plain name: it becomes part of file names, so use"
                    " letters, digits, '_', '-' and '.'"
                )
        strangers = set(self.filter) - set(self.source)
        if strangers:
            raise ValueError(
                f"--filter names {sorted(strangers)}, but the sources are {sorted(self.source)}"
            )
        check_extractor(self.html_extractor)
        _check_positive("max_document_bytes", self.max_document_bytes)
        _check_positive("split_bytes", self.split_bytes)
        _check_output(self.write, self.compression, self.shard_bytes, self.stall_minutes)
        taken = set(schema.shard_schema().names) & set(self.metadata)
        if taken:
            raise ValueError(f"--metadata {sorted(taken)} would clash with columns of the shards")


def parser() -> argparse.ArgumentParser:
    """The flags of ``pipeline/run.py``, grouped. Each is also a key of the YAML."""
    out = argparse.ArgumentParser(
        prog="pipeline/run.py",
        description="Raw web text in; scored, sampled Arrow shards, statistics and a page out.",
        epilog="Every other flag goes to Beam, among them --runner, --direct_num_workers,"
        " --direct_running_mode, --project, --region, --temp_location and --staging_location;"
        " see the Beam documentation of your runner. Flags may be spelled with - or _.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    out.add_argument("--config", metavar="YAML", help="a file with any of these flags; flags win")
    _input_flags(out.add_argument_group("input"))
    group = out.add_argument_group("classifier")
    group.add_argument("--classifier", help="a trained folder, or a fastText .bin")
    group.add_argument("--label", help="for a fastText .bin: the good label, as __label__hq")
    group = out.add_argument_group("keep decision (filtered sources only)")
    _decision_flags(group)
    _flag(
        group,
        "seed",
        type=int,
        metavar="N",
        help=f"keys the draws (default: {_defaults(PipelineConfig)['seed']})",
    )
    _step_flags(out.add_argument_group("steps before the decision (filtered sources only)"))
    _output_flags(out.add_argument_group("output"))
    return out


def decide_parser() -> argparse.ArgumentParser:
    """The flags of ``pipeline/decide.py``."""
    out = argparse.ArgumentParser(
        prog="pipeline/decide.py",
        description="Decides anew from the scores and draws that a run has stored.",
        epilog="Every other flag goes to Beam. Flags may be spelled with - or _.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    out.add_argument("--scored", metavar="DIR", help="the output folder of a run with --write all")
    _decision_flags(out.add_argument_group("keep decision (filtered sources only)"))
    _output_flags(out.add_argument_group("output"))
    return out


def _input_flags(group: argparse._ArgumentGroup) -> None:
    default = _defaults(PipelineConfig)
    _flag(
        group,
        "source",
        action="append",
        metavar="NAME=GLOB",
        help="an input; may be repeated,"
        " also for one name. WET, WARC, JSONL (plain, gz, zst), Parquet, Arrow, by content",
    )
    _flag(
        group,
        "filter",
        action="append",
        metavar="NAME",
        help="a source whose documents the"
        " steps and the keep rule may drop; the others are taken whole",
    )
    _flag(
        group,
        "field",
        action="append",
        metavar="[SOURCE.]COLUMN=FIELD",
        help="the input field that holds text, id or url, as text=content or web.id=uid",
    )
    _flag(
        group,
        "metadata",
        action="append",
        metavar="FIELD",
        help="a further input field to carry along as a string column",
    )
    _flag(
        group,
        "html_extractor",
        metavar="NAME",
        help=f"how text is taken from WARC pages (default: {default['html_extractor']})",
    )
    _flag(
        group,
        "max_document_bytes",
        type=int,
        metavar="N",
        help=f"longer records are quarantined (default: {default['max_document_bytes']})",
    )
    _flag(
        group,
        "split_bytes",
        type=int,
        metavar="N",
        help="splittable files are cut into ranges of"
        f" about this size (default: {default['split_bytes']})",
    )


def _decision_flags(group: argparse._ArgumentGroup) -> None:
    default = _defaults(Decision)
    _flag(group, "rule", metavar="RULE", help=f"{', '.join(RULES)} (default: {default['rule']})")
    _flag(
        group,
        "alpha",
        type=float,
        metavar="A",
        help=f"pareto: keep if draw < (2 - score)^-alpha (default: {DEFAULT_ALPHA:g}, GPT-3's)",
    )
    _flag(group, "threshold", type=float, metavar="T", help="threshold: keep if score >= T")
    _flag(
        group, "rate", type=float, metavar="R", help="random: keep this share, whatever the score"
    )
    _flag(
        group,
        "target_fraction",
        type=float,
        metavar="F",
        help="solve for alpha or the threshold"
        " so that this share of what reaches the decision is kept",
    )
    _flag(
        group,
        "target_unit",
        metavar="UNIT",
        help="the share is of documents, bytes or tokens"
        f" (white-space words stand for tokens; default: {default['target_unit']})",
    )


def _step_flags(group: argparse._ArgumentGroup) -> None:
    _flag(
        group,
        "steps",
        action="append",
        metavar="NAME",
        help="a step of conf/pipeline/steps.yaml to apply, in the order given",
    )
    group.add_argument(
        "--deduplicate",
        action=argparse.BooleanOptionalAction,
        help="drop exact duplicates of a text within the run (default: no)",
    )


def _output_flags(group: argparse._ArgumentGroup) -> None:
    default = _defaults(PipelineConfig)
    _flag(group, "output", metavar="DIR", help="a new folder, local or in s3:// or gs://")
    _flag(
        group,
        "write",
        metavar="WHAT",
        help="all: dropped documents stay in the shards, flagged;"
        f" kept: only kept ones are written (default: {default['write']})",
    )
    _flag(
        group,
        "shard_bytes",
        type=int,
        metavar="N",
        help=f"start another shard beyond this size (default: {default['shard_bytes']})",
    )
    _flag(
        group,
        "compression",
        metavar="NAME",
        help=f"of the shards: {', '.join(COMPRESSIONS)} (default: {default['compression']})",
    )
    _flag(
        group,
        "stall_minutes",
        type=float,
        metavar="N",
        help="end a run on this machine when nothing has moved for so long: no batch, no block of a"
        f" file (default: {default['stall_minutes']:g})",
    )
    group.add_argument(
        "--resume",
        action="store_true",
        help="finish an interrupted run: skip what is complete, do the rest",
    )


def _flag(group: argparse._ArgumentGroup, name: str, **kwargs: Any) -> None:
    spellings = dict.fromkeys([f"--{name.replace('_', '-')}", f"--{name}"])
    group.add_argument(*spellings, dest=name, **kwargs)


def _defaults(kind: type) -> dict[str, Any]:
    return {f.name: f.default for f in dataclasses.fields(kind)}


def load(arguments: Sequence[str]) -> tuple[PipelineConfig, bool, list[str]]:
    """The config of ``pipeline/run.py``, whether to resume, and the flags that are for Beam.

    Raises:
        ValueError: a key is unknown or a value wrong; the message names it.
    """
    known, rest = parser().parse_known_args(arguments)
    flags = vars(known)
    resume = flags.pop("resume", False)
    settings = (
        settings_file.read(flags.pop("config"), _settings_types()) if "config" in flags else {}
    )
    for name in ("source", "field"):
        if name in flags:
            flags[name] = _pairs(name, flags[name])
    settings |= flags
    for name in ("source", "classifier", "output"):
        if name not in settings:
            raise ValueError(f"--{name} is missing; see --help")
    return _config(settings), resume, rest


def _settings_types() -> dict[str, Any]:
    """The types of the keys in a file of settings; some may be shorter there than in the config."""
    types = get_type_hints(PipelineConfig) | get_type_hints(Decision)
    del types["decision"]  # its keys stand among the others
    return types | {
        "source": Mapping[str, str | Sequence[str]],
        "steps": Sequence[str] | Mapping[str, Mapping[str, Any] | None],
    }


def _config(settings: Mapping[str, Any]) -> PipelineConfig:
    decision_names = {f.name for f in dataclasses.fields(Decision)}
    names = {f.name for f in dataclasses.fields(PipelineConfig)} - {"decision"}
    strangers = set(settings) - decision_names - names
    if strangers:
        raise ValueError(
            f"unknown keys {sorted(strangers)}; known are {sorted(decision_names | names)}"
        )
    values = {name: value for name, value in settings.items() if name in names}
    values["source"] = {
        name: [globs] if isinstance(globs, str) else sorted(globs)
        for name, globs in values["source"].items()
    }
    values["steps"] = resolve_steps(values.get("steps", ()))
    decision = {name: value for name, value in settings.items() if name in decision_names}
    return PipelineConfig(decision=Decision(**decision), **values)


def resolve_steps(wanted: Sequence[str] | Mapping[str, Any]) -> dict[str, Any]:
    """The settings of each wanted step, in order, from ``conf/pipeline/steps.yaml``.

    ``wanted`` is a list of names, or a mapping from names to settings that override the file's.
    """
    if not wanted:
        return {}
    with open(STEPS_FILE, encoding="utf-8") as file:
        known: dict[str, Any] = yaml.safe_load(file)
    chosen = wanted if isinstance(wanted, Mapping) else dict.fromkeys(wanted)
    strangers = [name for name in chosen if name not in known]
    if strangers:
        raise ValueError(f"unknown steps {strangers}; known are {list(known)}")
    return {name: {**known[name], **(settings or {})} for name, settings in chosen.items()}


def field_maps(config: PipelineConfig) -> dict[str, FieldMap]:
    """Which input fields each source's columns come from."""
    maps = {}
    for source in config.source:
        names = {}
        for column, input_field in config.field.items():
            owner, dot, bare = column.rpartition(".")
            if dot and owner not in config.source:
                raise ValueError(f"--field {column}: {owner!r} is no source")
            if bare not in ("id", "url", "text"):
                raise ValueError(f"--field {column}: only text, id and url can be mapped")
            # A field given for one source wins over one given for all.
            if (dot and owner == source) or (not dot and bare not in names):
                names[bare] = input_field
        maps[source] = FieldMap(**names, metadata=tuple(config.metadata))
    return maps


@dataclass(frozen=True)
class DecideConfig:
    """Everything that ``pipeline/decide.py`` is told, but for Beam's own options."""

    scored: str
    output: str
    decision: Decision
    write: str = PipelineConfig.write
    shard_bytes: int = PipelineConfig.shard_bytes
    compression: str = PipelineConfig.compression
    stall_minutes: float = PipelineConfig.stall_minutes

    def __post_init__(self) -> None:
        _check_output(self.write, self.compression, self.shard_bytes, self.stall_minutes)


def load_decide(arguments: Sequence[str]) -> tuple[DecideConfig, bool, list[str]]:
    """The config of ``pipeline/decide.py``, whether to resume, and the flags that are for Beam."""
    known, rest = decide_parser().parse_known_args(arguments)
    flags = vars(known)
    resume = flags.pop("resume", False)
    for name in ("scored", "output"):
        if name not in flags:
            raise ValueError(f"--{name} is missing; see --help")
    names = {f.name for f in dataclasses.fields(Decision)}
    decision = Decision(**{name: flags.pop(name) for name in list(flags) if name in names})
    return DecideConfig(decision=decision, **flags), resume, rest


def _check_output(write: str, compression: str, shard_bytes: int, stall_minutes: float) -> None:
    if write not in ("all", "kept"):
        raise ValueError(f"--write is 'all' or 'kept', not {write!r}")
    if compression not in COMPRESSIONS:
        raise ValueError(f"--compression is one of {', '.join(COMPRESSIONS)}, not {compression!r}")
    _check_positive("shard_bytes", shard_bytes)
    _check_positive("stall_minutes", stall_minutes)


def _check_positive(name: str, value: float) -> None:
    if not value > 0:
        raise ValueError(f"--{name.replace('_', '-')} must be more than 0, not {value:g}")


def _pairs(flag: str, values: Sequence[str]) -> dict[str, Any]:
    """``name=value`` flags as a mapping; ``source`` may repeat a name."""
    out: dict[str, Any] = {}
    for text in values:
        name, equals, value = text.partition("=")
        if not equals or not name or not value:
            raise ValueError(f"--{flag} {text!r} is not of the form NAME=VALUE")
        if flag == "source":
            out.setdefault(name, []).append(value)
        else:
            out[name] = value
    return out
