"""The optional steps before the keep decision: :data:`STEPS`, and user-defined classes.

``conf/pipeline/steps.yaml`` has the names and defaults of the built-in steps. Others are named by
their class, ``my_package.my_module.MyStep``; its fields have the defaults.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, get_type_hints

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.steps import by_language
from pipeline.steps.by_language import ByLanguage
from pipeline.steps.contract import Step as Step
from pipeline.steps.decontamination import Decontamination
from pipeline.steps.heuristics.c4 import C4
from pipeline.steps.heuristics.fineweb import FineWeb
from pipeline.steps.heuristics.gopher import GopherQuality
from pipeline.steps.heuristics.repetition import GopherRepetition
from pipeline.steps.host_lines import NAME as HOST_LINES
from pipeline.steps.host_lines import HostLines
from pipeline.steps.language import Language
from pipeline.steps.pii import Pii
from pipeline.steps.urls import UrlBlocklist
from winnow import own_code
from winnow.filesystem import storage

STEPS: dict[str, type[Step]] = {
    "url_blocklist": UrlBlocklist,
    "language": Language,
    "gopher": GopherQuality,
    "gopher_repetition": GopherRepetition,
    "c4": C4,
    "fineweb": FineWeb,
    "decontamination": Decontamination,
    "pii": Pii,
    HOST_LINES: HostLines,
}

AnyStep = Step | ByLanguage

STEP_OF = {reason: name for name, step in STEPS.items() for reason in getattr(step, "reasons", ())}
"""The built-in step of each drop reason."""


def step_class(name: str) -> type[Step]:
    """The class of a step, by name or dotted path; ValueError if there is none."""
    if name in STEPS:
        return STEPS[name]
    if "." not in name:
        raise ValueError(f"unknown step {name!r}; known are {list(STEPS)} and MODULE.CLASS")
    found = own_code.load(name, "step")
    is_step = isinstance(found, type) and issubclass(found, Step)
    if not (is_step and hasattr(found, "__dataclass_fields__")):
        raise ValueError(f"step {name}: it is not a dataclass derived from pipeline.steps.Step")
    return found


def defaults(name: str) -> dict[str, Any]:
    """The defaults of a step class's fields."""
    out = {}
    for field in dataclasses.fields(step_class(name)):  # type: ignore[arg-type]
        if field.default is not dataclasses.MISSING:
            out[field.name] = field.default
        elif field.default_factory is not dataclasses.MISSING:
            out[field.name] = field.default_factory()
    return out


def build_steps(settings: Mapping[str, Mapping[str, Any]]) -> list[AnyStep]:
    """The steps of a run, in order, from the settings of each.

    Raises:
        ValueError: a step or setting is unknown, missing or wrong; the message names the step.
    """
    return [by_language.build(name, values, _build) for name, values in settings.items()]


def input_files(settings: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The paths of all files that steps read, in order; ValueError if a glob matches nothing."""
    paths = [
        path
        for step, given in settings.items()
        for values in by_language.variants(given).values()
        for name in step_class(step).input_files
        for glob in ([values[name]] if isinstance(values[name], str) else values[name])
        if glob
        for path in storage.find(glob)
    ]
    return list(dict.fromkeys(paths))


def own_modules(settings: Mapping[str, Any]) -> dict[str, str]:
    """The source files of user-defined steps, by step."""
    return {name: own_code.source(name) for name in settings if name not in STEPS}


def apply(
    name: str, step: AnyStep, batch: pa.RecordBatch
) -> tuple[pa.RecordBatch, npt.NDArray[np.integer]]:
    """A step's result for n documents: the batch, and the code of each (integers [n]).

    Raises:
        RuntimeError: a user-defined step raised an error or returned something else.
    """
    if name in STEPS:
        return step(batch)
    try:
        found, codes = step(batch)
    except Exception as error:
        raise RuntimeError(f"step {name}: {type(error).__name__}: {error}") from error
    n, most = len(batch), len(step.reasons)
    if not (isinstance(found, pa.RecordBatch) and found.schema.equals(batch.schema)):
        raise RuntimeError(f"step {name}: it must return the batch with the same columns")
    kind = getattr(codes, "dtype", None)
    if kind is None or kind.kind not in "iu" or codes.shape != (n,) or len(found) != n:
        given = f"{kind} {list(codes.shape)}" if kind is not None else type(codes).__name__
        raise RuntimeError(
            f"step {name}: for {n} documents it must return {n} documents and integer codes [{n}],"
            f" but returned {len(found)} and {given}"
        )
    if n and not 0 <= (low := codes.min()) <= (high := codes.max()) <= most:
        raise RuntimeError(
            f"step {name}: codes go from 0 to {most}, but it returned {low} to {high}"
        )
    return found, codes


def _build(name: str, values: Mapping[str, Any]) -> Step:
    kind_of_step = step_class(name)
    hints = get_type_hints(kind_of_step)
    kinds = {f.name: hints[f.name] for f in dataclasses.fields(kind_of_step)}  # type: ignore[arg-type]
    values = defaults(name) | {
        key: _off(value) if kinds.get(key) is int else value for key, value in values.items()
    }
    if values.keys() != kinds.keys():
        missing = sorted(kinds.keys() - values.keys())
        wrong = f"the settings {missing} are missing"
        if unknown := sorted(values.keys() - kinds.keys()):
            wrong = f"no setting {unknown}"
        raise ValueError(f"step {name}: {wrong}; its settings are {list(kinds)}")
    for key, kind in kinds.items():
        if kind not in _WORDS:
            raise ValueError(f"step {name}: {key} is declared as {kind}, which YAML cannot express")
        if not _fits(values[key], kind):
            raise ValueError(f"step {name}: {key} must be {_WORDS[kind]}, not {values[key]!r}")
    try:
        return kind_of_step(**values)
    except ValueError as error:
        raise ValueError(f"step {name}: {error}") from error


_LARGEST = (1 << 63) - 1

_WORDS: Mapping[Any, str] = {
    bool: "true or false",
    int: "a whole number of 64 bits",
    float: "a number",
    str: "text",
    list[str]: "a list of text",
    list[float]: "a list of numbers",
}


def _off(value: Any) -> Any:
    """An infinite threshold, which switches a rule off, as the largest int."""
    if isinstance(value, float) and math.isinf(value):
        return _LARGEST if value > 0 else -_LARGEST
    return value


def _fits(value: Any, kind: Any) -> bool:
    if kind in (list[str], list[float]):
        return isinstance(value, list) and all(_fits(part, kind.__args__[0]) for part in value)
    if kind in (bool, str) or isinstance(value, bool):
        return isinstance(value, kind)
    if kind is float and isinstance(value, float):
        return not math.isnan(value)
    return isinstance(value, int) and abs(value) <= _LARGEST
