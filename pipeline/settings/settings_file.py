"""Reads a YAML file of settings and checks their types."""

import math
from collections.abc import Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, get_args, get_origin

import yaml

from winnow.filesystem import storage

_WORDS = {
    str: "text", int: "a whole number", float: "a number", bool: "true or false",
    NoneType: "nothing", Sequence: "a list", Mapping: "names with values",
}  # fmt: skip


def read(path: str, types: Mapping[str, Any]) -> dict[str, Any]:
    """The settings in a file; keys without ``types`` are not checked.

    Raises:
        ValueError: it is not a YAML mapping, or a value has the wrong type.
        OSError: it cannot be read.
    """
    try:
        settings = yaml.safe_load(storage.read_bytes(path))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {place(error)}") from error
    if not isinstance(settings, dict):
        raise ValueError(f"{path} holds no mapping of keys to values")
    for name, value in settings.items():
        if name in types and not fits(value, types[name]):
            raise ValueError(f"{path}: {name} should be {_words(types[name])}, not {value!r}")
    return settings


def read_given(flag: str, text: str, default: str | None = None) -> Any:
    """The settings in a flag: YAML that begins with a brace, the path of a YAML file, or
    ``default`` for the file ``default``, if given.

    Raises:
        ValueError: it is not YAML, or there is no such file.
    """
    if text.lstrip().startswith("{"):
        try:
            return yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ValueError(f"--{flag} is not YAML: {place(error)}") from error
    path = default if default and text == "default" else text
    if not storage.exists(path):
        others = "neither 'default' nor YAML" if default else "not YAML"
        raise ValueError(
            f"--{flag}: there is no file {path}, and it is {others} that begins with {{"
        )
    return read(path, {})


def place(error: yaml.YAMLError) -> str:
    """A YAML error with its position, in one line."""
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return str(error).splitlines()[0]
    what = getattr(error, "problem", None) or "it cannot be read"
    return f"line {mark.line + 1}, column {mark.column + 1}: {what}"


def as_json(value: Any) -> Any:
    """Settings as JSON values, infinities spelled as in YAML."""
    match value:
        case dict():
            return {key: as_json(item) for key, item in value.items()}
        case list() | tuple():
            return [as_json(item) for item in value]
        case float() if math.isinf(value):
            return ".inf" if value > 0 else "-.inf"
        case _:
            return value


def fits(value: Any, kind: Any) -> bool:
    """Whether a value from YAML has a type: a plain one, a sequence, a mapping, or a union."""
    inner = get_args(kind)
    origin = get_origin(kind)
    if origin is UnionType:
        return any(fits(value, part) for part in inner)
    if origin is Sequence:
        return isinstance(value, list) and all(fits(item, inner[0]) for item in value)
    if origin is Mapping:
        return isinstance(value, dict) and all(
            fits(key, inner[0]) and fits(item, inner[1]) for key, item in value.items()
        )
    if kind is Any:
        return True
    if isinstance(value, bool):  # an int in Python
        return kind is bool
    return isinstance(value, (int, float) if kind is float else kind)


def _words(kind: Any) -> str:
    origin = get_origin(kind)
    if origin is UnionType:
        return " or ".join(_words(part) for part in get_args(kind))
    return _WORDS[origin or kind]
