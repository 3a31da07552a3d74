"""The settings of a run: read from flags (:mod:`pipeline.settings.flags`) and YAML, and checked."""

import dataclasses
import re
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_type_hints

from pipeline.joins import settings as joins
from pipeline.joins.settings import Join
from pipeline.near_duplicates.settings import Settings as NearDuplicates
from pipeline.output import schema
from pipeline.readers import FieldMap, ReadOptions, check_extractor, user_format
from pipeline.settings import flags, group_settings, settings_file, step_settings
from pipeline.settings.classifier_settings import check_classifiers, one_or_named
from pipeline.settings.decision_settings import Decision
from pipeline.settings.group_settings import AnyDecision, decision_of
from winnow import defaults
from winnow.arguments import Parser, nearest

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
LARGEST = (1 << 63) - 1
A_YEAR = 365 * 24 * 60  # minutes


@dataclass(frozen=True)
class PipelineConfig:
    """All settings of ``pipeline/run.py`` except Beam's."""

    source: Mapping[str, Sequence[str]]
    classifier: str | Mapping[str, str]
    output: str
    filter: Sequence[str] = ()
    field: Mapping[str, str] = dataclasses.field(default_factory=dict)
    metadata: Sequence[str] = ()
    list_separator: str | None = None
    html_extractor: str = defaults.HTML_EXTRACTOR
    plain_text: bool = defaults.PLAIN_TEXT
    text_document: str = defaults.TEXT_DOCUMENT
    reader: Sequence[str] = ()
    max_document_bytes: int = defaults.MAX_DOCUMENT_BYTES
    split_bytes: int = defaults.SPLIT_BYTES
    label: str | Mapping[str, str] | None = None
    combine: str | None = None
    calibration: str | None = None
    decision: AnyDecision = dataclasses.field(default_factory=Decision)
    seed: int = flags.DEFAULT_SEED
    tokenizer: str | None = None
    steps: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    join: Mapping[str, Join] = dataclasses.field(default_factory=dict)
    near_duplicates: bool = False
    near_duplicates_bands: int = flags.DEFAULT_NEAR_BANDS
    near_duplicates_rows: int = flags.DEFAULT_NEAR_ROWS
    near_duplicates_words: int = flags.DEFAULT_NEAR_WORDS
    write: str = flags.DEFAULT_WRITE
    shard_bytes: int = flags.DEFAULT_SHARD_BYTES
    compression: str = flags.DEFAULT_COMPRESSION[flags.DEFAULT_FORMAT]
    format: str = flags.DEFAULT_FORMAT
    stall_minutes: float = flags.DEFAULT_STALL_MINUTES

    def __post_init__(self) -> None:
        if not self.source:
            raise ValueError("no input: give at least one --source name=GLOB")
        for name in self.source:
            if not _NAME.fullmatch(name):
                raise ValueError(
                    f"source name {name!r} is not a plain name: it becomes part of file names, so"
                    " use letters, digits, '_', '-' and '.'"
                )
        if unknown := set(self.filter) - set(self.source):
            raise ValueError(
                f"--filter names {sorted(unknown)}, but the sources are {sorted(self.source)}"
            )
        classifiers = check_classifiers(self)
        check_extractor(self.html_extractor)
        ReadOptions.of(self)
        for reader in self.reader:
            user_format(reader)
        _check_positive("max_document_bytes", self.max_document_bytes, LARGEST)
        _check_positive("split_bytes", self.split_bytes, LARGEST)
        if not 0 <= self.seed < 1 << 64:
            raise ValueError(f"--seed is from 0 to 2**64 - 1, not {self.seed}")
        _check_output(self)
        if not self.near_duplicates:
            _check_none_given(self)
        _ = self.near_settings  # it checks them
        decision = group_settings.grouped(self.decision)
        clusters, copies = self.near_duplicates, decision.has_copies
        ours = schema.shard_schema((), clusters, copies, classifiers=classifiers).names
        if clashing := sorted(set(ours) & set(self.metadata)):
            raise ValueError(f"--metadata {clashing} would clash with columns of the shards")
        columns = schema.shard_schema(self.metadata, classifiers=classifiers).names
        # Joined columns are known only once their files are read.
        columns += [name for name in decision.groups.by if joins.is_joined(name, self.join)]
        group_settings.check(self.decision, columns, self.filter)
        maps = field_maps(self)
        step_settings.check(self.steps, all(maps[source].language for source in self.filter))

    @property
    def near_settings(self) -> NearDuplicates | None:
        """Settings of the near-duplicate search; None if it is off."""
        settings = NearDuplicates(
            self.near_duplicates_bands, self.near_duplicates_rows, self.near_duplicates_words
        )
        return settings if self.near_duplicates else None


def _check_none_given(config: PipelineConfig) -> None:
    """Raise ValueError for near-duplicate settings if that search is off."""
    given = vars(config.decision) | vars(config)
    for field in (*dataclasses.fields(PipelineConfig), *dataclasses.fields(Decision)):
        if field.name.startswith("near_duplicates_") and given[field.name] != field.default:
            flag = field.name.replace("_", "-")
            raise ValueError(f"--{flag} has no meaning without --near-duplicates: add that")


def load(arguments: Sequence[str]) -> tuple[PipelineConfig, bool, list[str]]:
    """The config of ``pipeline/run.py``, whether to resume, and Beam's flags.

    Raises:
        ValueError: a key is unknown or a value wrong; the message names it.
    """
    given, resume, rest = _parsed(flags.parser(), arguments)
    for name in ("dry_run", "assume"):  # pipeline.runs.dry_run reads them
        given.pop(name, None)
    file = given.pop("config", None)
    settings = settings_file.read(file, _settings_types()) if file is not None else {}
    for name in ("source", "field"):
        if name in given:
            given[name] = _pairs(name, given[name])
    if "join" in given:
        given["join"] = joins.parse(given["join"])
    for name in ("classifier", "label"):
        if name in given:
            given[name] = one_or_named(name, given[name])
    settings |= given
    if "combine" in settings and "join" in settings:  # a joined column may be the score
        settings.setdefault("classifier", {})
    _check_given(("source", "classifier", "output"), settings, rest)
    return _config(settings), resume, rest


def _parsed(parser: Parser, arguments: Sequence[str]) -> tuple[dict[str, Any], bool, list[str]]:
    """Our flags, whether to resume, and Beam's flags."""
    known, rest = parser.parse_known_args(arguments)
    given = vars(known)
    if "rules" in given:
        given["rules"] = settings_file.read_given("rules", given["rules"])
    return given, given.pop("resume", False), rest


def _check_given(needed: Iterable[str], given: Container[str], others: Sequence[str]) -> None:
    """Raise ValueError if a flag is missing; suggest one of ``others`` that may be meant."""
    for name in needed:
        if name not in given:
            near = nearest(f"--{name}", flags.names_of(others), flags.LIKENESS)
            advice = f"is {near} meant to be it?" if near else "see --help"
            raise ValueError(f"--{name} is missing: {advice}")


def _settings_types() -> dict[str, Any]:
    """The types of the keys in a config file, where some have a short form."""
    types = get_type_hints(PipelineConfig) | get_type_hints(Decision)
    del types["decision"]  # its keys are top-level ones
    return types | {
        "source": Mapping[str, str | Sequence[str]],
        "join": Mapping[str, Any],
        "steps": Sequence[str] | Mapping[str, Mapping[str, Any] | None],
        "rules": Mapping[str, Any],
        "rules_by": Sequence[str],
        "languages": str | Mapping[str, Any],
    }


def _config(settings: Mapping[str, Any]) -> PipelineConfig:
    names = {f.name for f in dataclasses.fields(PipelineConfig)} - {"decision"}
    known = names | {*group_settings.NAMES, "languages"}
    if unknown := set(settings) - known:
        raise ValueError(f"unknown keys {sorted(unknown)}; known are {sorted(known)}")
    values = {name: value for name, value in settings.items() if name in names}
    values["source"] = {
        name: [globs] if isinstance(globs, str) else sorted(globs)
        for name, globs in values["source"].items()
    }
    values["join"] = joins.joins_of(values.get("join", {}))
    languages = step_settings.read_languages(settings.get("languages"))
    values["steps"] = step_settings.resolve_steps(values.get("steps", ()), languages)
    _choose_compression(values)
    decision = dict(settings)
    if values.get("near_duplicates"):
        decision.setdefault("near_duplicates_keep", flags.DEFAULT_NEAR_KEEP)
    return PipelineConfig(decision=decision_of(decision), **values)


def field_maps(config: PipelineConfig) -> dict[str, FieldMap]:
    """The input fields of each source's columns."""
    maps = {}
    for source in config.source:
        names = {}
        for column, input_field in config.field.items():
            owner, dot, bare = column.rpartition(".")
            if dot and owner not in config.source:
                raise ValueError(f"--field {column}: {owner!r} is not a source")
            if bare not in ("id", "url", "text", "language"):
                raise ValueError(f"--field {column}: only text, id, url and language can be mapped")
            # A field given for one source wins over one given for all.
            if (dot and owner == source) or (not dot and bare not in names):
                names[bare] = input_field
        language = [names["language"]] if "language" in names else []
        maps[source] = FieldMap(
            **names,
            metadata=tuple(dict.fromkeys([*config.metadata, *language])),
            list_separator=config.list_separator,
        )
    return maps


@dataclass(frozen=True)
class DecideConfig:
    """All settings of ``pipeline/decide.py`` except Beam's."""

    scored: str
    output: str
    decision: AnyDecision
    combine: str | None = None
    calibration: str | None = None
    write: str = PipelineConfig.write
    shard_bytes: int = PipelineConfig.shard_bytes
    compression: str = PipelineConfig.compression
    format: str = PipelineConfig.format
    stall_minutes: float = PipelineConfig.stall_minutes

    def __post_init__(self) -> None:
        _check_output(self)


def load_decide(arguments: Sequence[str]) -> tuple[DecideConfig, bool, list[str]]:
    """The config of ``pipeline/decide.py``, whether to resume, and Beam's flags."""
    given, resume, rest = _parsed(flags.decide_parser(), arguments)
    _check_given(("scored", "output"), given, rest)
    others = {name: value for name, value in given.items() if name not in group_settings.NAMES}
    _choose_compression(others)
    return DecideConfig(decision=decision_of(given), **others), resume, rest


def _choose_compression(given: dict[str, Any]) -> None:
    """Set the default of the format; an unknown format is refused later."""
    if given.get("format") in flags.DEFAULT_COMPRESSION:
        given.setdefault("compression", flags.DEFAULT_COMPRESSION[given["format"]])


def _check_output(config: PipelineConfig | DecideConfig) -> None:
    for name, known in flags.WORDS.items():
        if (value := getattr(config, name)) not in known:
            raise ValueError(f"--{name} is one of {', '.join(known)}, not {value!r}")
    _check_positive("shard_bytes", config.shard_bytes, LARGEST)
    _check_positive("stall_minutes", config.stall_minutes, A_YEAR)


def _check_positive(name: str, value: float, most: float) -> None:
    if not 0 < value <= most:
        span = "must be more than 0" if value <= 0 else f"must be at most {most}"
        raise ValueError(f"--{name.replace('_', '-')} {span}, not {value}")


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
