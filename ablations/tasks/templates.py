"""Jinja for task files: templates for prompts, expressions over the fields of a record.

It is sandboxed: a task file reaches nothing but the record. A missing name is an error.
"""

import functools
import re
from collections.abc import Callable, Mapping
from typing import Any

from jinja2 import StrictUndefined, TemplateError, Undefined
from jinja2.sandbox import SandboxedEnvironment

_ERRORS = (TemplateError, TypeError, KeyError, IndexError, ValueError)


class ExpressionError(ValueError):
    """A template or expression that cannot be evaluated on a record."""


def render(template: str, values: Mapping[str, Any]) -> str:
    """The text of a template; an ExpressionError on bad syntax or a missing name."""
    try:
        return _template(template).render(**values)
    except _ERRORS as error:
        raise ExpressionError(f"{template!r}: {error}") from None


def evaluate(expression: str, values: Mapping[str, Any]) -> Any:
    """The value of an expression; errors as in :func:`render`."""
    try:
        value = _expression(expression)(**values)
    except _ERRORS as error:
        raise ExpressionError(f"{expression!r}: {error}") from None
    if isinstance(value, Undefined):
        raise ExpressionError(f"{expression!r} names a field that the record lacks")
    return value


def _wikihow(text: str) -> str:
    """HellaSwag's WikiHow markup as prose, as in lm-evaluation-harness."""
    text = text.strip().replace(" [title]", ". ")
    return re.sub(r"\[.*?\]", "", text).replace("  ", " ")


def _mark_word(text: str, index: int, words: str) -> str:
    """``text`` with the word or words at ``index`` (counted by white space) between asterisks."""
    before = " ".join(text.split()[:index])
    after = text[len(before) + len(words) + bool(before) :]
    return f"{before} *{words}*{after}".lstrip()


def _in_sentence(option: str, place: int) -> str:
    """An option, its leading article or pronoun in lower case if inside a sentence."""
    first = option.split(" ", 1)[0]
    small = first in {"The", "A", "An", "My", "Your", "His", "Her", "Its", "Our", "Their"}
    return option[:1].lower() + option[1:] if small and place > 0 else option


_FILTERS: Mapping[str, Callable[..., Any]] = {
    "wikihow": _wikihow,
    "mark_word": _mark_word,
    "in_sentence": _in_sentence,
    "after": lambda text, head: head + text,
    "fill": lambda text, frame: frame.replace("@placeholder", text),
    "uncapitalise": lambda text: text[:1].lower() + text[1:],
    "capitalise": lambda text: text[:1].upper() + text[1:],
    "each_alone": lambda texts: [[text] for text in texts],
    "spans_of": lambda spans, text: [text[s["start"] : s["end"] + 1] for s in spans],
    "positions_of": lambda texts, wanted: [i for i, text in enumerate(texts) if text in wanted],
}


@functools.cache
def _environment() -> SandboxedEnvironment:
    environment = SandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)
    environment.filters.update(_FILTERS)
    environment.globals["pairs"] = lambda *columns: list(zip(*columns, strict=True))
    return environment


@functools.cache
def _template(source: str) -> Any:
    return _environment().from_string(source)


@functools.cache
def _expression(source: str) -> Any:
    return _environment().compile_expression(source, undefined_to_none=False)
