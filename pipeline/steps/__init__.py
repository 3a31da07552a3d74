"""The optional steps before the keep decision, by the names of ``conf/pipeline/steps.yaml``."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from typing import Any

from pipeline.steps.c4 import C4
from pipeline.steps.contract import Step
from pipeline.steps.decontamination import Decontamination
from pipeline.steps.fineweb import FineWeb
from pipeline.steps.gopher import GopherQuality
from pipeline.steps.language import Language
from pipeline.steps.repetition import GopherRepetition
from pipeline.steps.urls import UrlBlocklist
from winnow import storage

__all__ = ["Step", "build_steps", "input_files", "notes"]

_STEPS: Mapping[str, Callable[..., Step]] = {
    "url_blocklist": UrlBlocklist,
    "language": Language,
    "gopher": GopherQuality,
    "gopher_repetition": GopherRepetition,
    "c4": C4,
    "fineweb": FineWeb,
    "decontamination": Decontamination,
}

_INPUT_FILES = {
    "language": ("model",),
    "url_blocklist": ("domains", "words", "substrings"),
    "c4": ("bad_words",),
    "decontamination": ("files",),
}
"""The settings that name files. What a run's output depends on is their content."""


def build_steps(settings: Mapping[str, Mapping[str, Any]]) -> list[Step]:
    """The steps of a run, in the order given.

    Args:
        settings: for each step all of its settings, as ``pipeline.config.resolve_steps`` gives.

    Raises:
        ValueError: a step or setting is unknown, missing or wrong; the message names the step.
    """
    return [_build(name, values) for name, values in settings.items()]


def input_files(settings: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The paths of all files that the steps of a run read, in order; globs are resolved.

    Raises:
        ValueError: a glob matches nothing.
    """
    return [
        path
        for step, values in settings.items()
        for name in _INPUT_FILES.get(step, ())
        for glob in ([values[name]] if isinstance(values[name], str) else values[name])
        if glob
        for path in storage.find(glob)
    ]


def notes(steps: Iterable[Step]) -> list[str]:
    """What a user should be told of the files that the steps have read, a line each."""
    return [note for step in steps if isinstance(step, Decontamination) for note in step.notes]


def _build(name: str, values: Mapping[str, Any]) -> Step:
    if name not in _STEPS:
        raise ValueError(f"unknown step {name!r}; known are {list(_STEPS)}")
    kinds = {field.name: field.type for field in fields(_STEPS[name])}  # type: ignore[arg-type]
    values = {key: _off(value) if kinds.get(key) is int else value for key, value in values.items()}
    if values.keys() != kinds.keys():
        unknown, missing = (
            sorted(values.keys() - kinds.keys()),
            sorted(kinds.keys() - values.keys()),
        )
        wrong = f"no setting {unknown}" if unknown else f"the settings {missing} are missing"
        raise ValueError(f"step {name}: {wrong}; its settings are {list(kinds)}")
    for key, kind in kinds.items():
        if not _fits(values[key], kind):
            raise ValueError(f"step {name}: {key} must be {_WORDS[kind]}, not {values[key]!r}")
    try:
        return _STEPS[name](**values)
    except ValueError as error:
        raise ValueError(f"step {name}: {error}") from error


_LARGEST = (1 << 63) - 1

_WORDS: Mapping[Any, str] = {
    int: "a whole number of 64 bits",
    float: "a number",
    str: "text",
    list[str]: "a list of text",
    list[float]: "a list of numbers",
}


def _off(value: Any) -> Any:
    """The whole number that stands for an infinite one, which switches a rule off."""
    if isinstance(value, float) and math.isinf(value):
        return _LARGEST if value > 0 else -_LARGEST
    return value


def _fits(value: Any, kind: Any) -> bool:
    if kind in (list[str], list[float]):
        return isinstance(value, list) and all(_fits(part, kind.__args__[0]) for part in value)
    if kind is str or isinstance(value, bool):
        return isinstance(value, kind)
    if kind is float and isinstance(value, float):
        return not math.isnan(value)
    return isinstance(value, int) and abs(value) <= _LARGEST
