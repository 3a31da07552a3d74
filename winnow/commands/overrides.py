"""Hydra's command line with plain paths: ``corpus=/data/año (1)/a&b`` needs no inner quotes.

Hydra's grammar allows few characters outside quotes. A value that it cannot parse is quoted here;
in a list, mapping or sweep, each such part. Values that it can parse stay as they are, except
existing paths: ``corpus=a,b`` is then no sweep.
"""

import argparse
import glob
import importlib
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, cast

from hydra._internal import utils as hydra_utils
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from winnow.arguments import check_utf8
from winnow.commands import exits, hydra_help, startup
from winnow.commands.hydra_errors import one_line

FULL_ERROR = "HYDRA_FULL_ERROR"
"""The environment variable that turns Hydra's tracebacks on."""

_OVERRIDE = re.compile(r"(?P<key>(?:\+\+?|~)?[A-Za-z_][\w./@:$-]*=)(?P<value>.*)", re.DOTALL)
_ENTRY = re.compile(r"\s*[\w.-]+\s*:")
_CALL = re.compile(r"(?P<name>\w+)\(")
_CLOSING = {")": "(", "]": "[", "}": "{"}
_INTERPOLATION = re.compile(r"(\\*)\$\{")  # backslashes before one escape it
_BEFORE_QUOTE = re.compile(r"(\\*)('|\Z)")


def run(main: Callable[[], Any] | str, settings: str | None = None, sweeps: bool = False) -> None:
    """Call a ``hydra.main`` function with the quoted command line.

    Args:
        main: the function, or the name of its module, which is not imported for ``--help``.
        settings: ``--help`` shows ``conf/SETTINGS.yaml``; None leaves ``--help`` to Hydra.
        sweeps: whether commas mean a sweep even without ``--multirun``.
    """
    if settings and {"-h", "--help"} & set(sys.argv[1:]):
        print(hydra_help.text(settings))
        return
    try:
        check_utf8(sys.argv[1:])
    except ValueError as error:
        exits.fail(exits.UsageError(str(error)))
    arguments = ["--help" if argument == "--help-all" else argument for argument in sys.argv[1:]]
    sys.argv[1:] = quoted(arguments, sweeps)
    _accept_lazy_help()
    if FULL_ERROR not in os.environ:
        # Hydra's own prints several lines.
        setattr(hydra_utils, "run_and_report", lambda function: function())  # noqa: B010
    try:
        with exits.interruptible("run the same command again"):
            _load(main)()
    except HydraException as error:
        if FULL_ERROR in os.environ:
            raise
        exits.fail(exits.UsageError(one_line(error)))


def _load(main: Callable[[], Any] | str) -> Callable[[], Any]:
    if not isinstance(main, str):
        return main
    with startup.importing():
        return cast(Callable[[], Any], importlib.import_module(main).main)


def _accept_lazy_help() -> None:
    """Let Hydra's lazy help text pass the checks of Python 3.14 (facebookresearch/hydra#3121)."""
    if hasattr(argparse.ArgumentParser, "_check_help"):
        setattr(argparse.ArgumentParser, "_check_help", lambda parser, action: None)  # noqa: B010


def quoted(arguments: Sequence[str], sweeps: bool = False) -> list[str]:
    """Arguments quoted so that Hydra parses them as the user meant."""
    sweeps = sweeps or any(a in ("-m", "--multirun", "hydra.mode=MULTIRUN") for a in arguments)
    return [_quoted(argument, sweeps) for argument in arguments]


def quote(text: str) -> str:
    """A text as a quoted value with interpolation."""
    return "'" + _BEFORE_QUOTE.sub(lambda m: m[1] * 2 + ("\\'" if m[2] else ""), text) + "'"


def literal(text: str) -> str:
    """A text as a quoted value without interpolation."""
    return quote(_INTERPOLATION.sub(lambda m: m[1] * 2 + "\\${", text))


def _quoted(argument: str, sweeps: bool) -> str:
    match = _OVERRIDE.fullmatch(argument)
    if not match:
        return argument
    key, value = match["key"], match["value"]
    parsed = _parse(argument)
    if parsed is not None and _is_meant_as_path(parsed, value, sweeps):
        return key + literal(value)
    if parsed is None or isinstance(parsed.value(), list | dict):
        fixed = key + _fixed(value, sweeps)
        return argument if parsed and parsed.value() == _value(fixed) else fixed
    return argument


def _parse(argument: str) -> Override | None:
    try:
        return OverridesParser.create().parse_override(argument)
    except HydraException:
        return None


def _value(argument: str) -> Any:
    parsed = _parse(argument)
    return parsed.value() if parsed else None


def _is_meant_as_path(parsed: Override, value: str, sweeps: bool) -> bool:
    """Whether a value that Hydra parses as something else is a path."""
    meaning = parsed.value()
    if meaning is None or isinstance(meaning, bool):
        return False
    if str(meaning) == value and "${" not in value:
        return False
    if parsed.is_sweep_override() and not sweeps and "/" in value and not _CALL.match(value):
        # A list without its brackets should remain an error.
        return not all(map(glob.glob, _split(value)))
    return _is_path(value)


def _fixed(value: str, sweeps: bool) -> str:
    """A value with quotes where Hydra cannot parse or would misread it."""
    if _is_path(value):
        return literal(value)
    bare = value.strip()
    end = len(bare) - 1
    pairs = _pairs(bare)
    if pairs.get(0) == end and bare[0] == "[":
        return f"[{_fixed_parts(bare[1:-1])}]"
    if pairs.get(0) == end and bare[0] == "{":
        return "{" + ",".join(map(_fixed_entry, _entries(bare[1:-1]))) + "}"
    if _parse(f"x={value}") is not None:
        return value
    call = _CALL.match(bare)
    functions = OverridesParser.create().functions.functions
    if call and call["name"] in functions and pairs.get(call.end() - 1) == end:
        return f"{call[0]}{_fixed_parts(bare[call.end() : -1])})"
    if sweeps and len(_split(bare)) > 1:
        return _fixed_parts(bare)
    # An unexpanded ~ would become a folder of that name.
    if bare.startswith("~"):
        return value
    return quote(value) if re.search(r"\$\{.*\}", value) else literal(value)


def _fixed_entry(entry: str) -> str:
    key, colon, value = entry.partition(":")
    return f"{key}{colon}{_fixed(value.strip(), False)}" if colon else entry


def _entries(text: str) -> list[str]:
    """The entries of a mapping; values may hold commas."""
    entries: list[str] = []
    for part in _split(text):
        if entries and not _ENTRY.match(part):
            entries[-1] += f",{part}"
        else:
            entries.append(part)
    return entries


def _fixed_parts(text: str) -> str:
    """Comma-separated parts; an existing path with commas is one part."""
    parts = _split(text)
    fixed = []
    at = 0
    while at < len(parts):
        for end in range(len(parts), at, -1):
            part = ",".join(parts[at:end]).strip()
            if end == at + 1 or os.path.lexists(part) or glob.glob(part):
                break
        fixed.append(_fixed(part, False))
        at = end
    return ",".join(fixed)


def _split(text: str) -> list[str]:
    """The parts of a text between commas outside brackets and quotes."""
    pairs = _pairs(text)
    parts = [""]
    at = 0
    while at < len(text):
        end = pairs.get(at, at)
        if text[at] == "\\":
            end = at + 1
        if text[at] == ",":
            parts.append("")
        else:
            parts[-1] += text[at : end + 1]
        at = end + 1
    return parts


def _pairs(text: str) -> dict[int, int]:
    """Where each opening bracket or quote closes; unmatched ones are plain characters."""
    pairs: dict[int, int] = {}
    opened: list[int] = []
    at = 0
    while at < len(text):
        letter = text[at]
        if letter == "\\":
            at += 1
        elif letter in "'\"" and re.search(r"(?:^|[,:\[{(])\s*$", text[:at]):
            closed = re.compile(rf"(?:\\.|[^\\{letter}])*{letter}(?=\s*(?:[,:\]}})]|$))", re.DOTALL)
            if end := closed.match(text, at + 1):
                pairs[at] = at = end.end() - 1
        elif letter in "([{":
            opened.append(at)
        elif letter in _CLOSING:
            matching = [i for i in opened if text[i] == _CLOSING[letter]]
            if matching:
                pairs[matching[-1]] = at
                del opened[opened.index(matching[-1]) :]
        at += 1
    return pairs


def _is_path(text: str) -> bool:
    """Whether a path exists, or is in an existing folder with a comma in its name."""
    folder = os.path.dirname(re.split(r"[*?]", text)[0])
    return os.path.lexists(text) or ("," in folder and os.path.lexists(folder))
