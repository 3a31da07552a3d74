"""Combine several classifiers' scores by a named rule or an expression over their names.

An expression is arithmetic on names and numbers, such as ``0.7 * quality + 0.3 * edu``. It is
parsed with ``ast`` and evaluated here, node by node; no other Python is allowed.
"""

import ast
import functools
import keyword
import operator
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

NAMED: Mapping[str, Callable[[FloatArray], FloatArray]] = {
    "max": lambda scores: scores.max(axis=0),
    "mean": lambda scores: scores.mean(axis=0),
    "min": lambda scores: scores.min(axis=0),
    "product": lambda scores: scores.prod(axis=0),
}
"""Rules by name, from float64 [classifiers, n] to float64 [n]."""

_INVALID = (SyntaxError, ValueError, RecursionError, MemoryError)

LONGEST = 1000
"""Limit of the characters in an expression."""

_BINARY: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
_UNARY: Mapping[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
}


def check_name(name: str) -> None:
    """Raise ValueError unless expressions can use this as a classifier's name."""
    if not name.isidentifier() or keyword.iskeyword(name):
        raise ValueError(
            f"{name!r} is not a name for a classifier: use letters, digits and '_', a letter first"
        )
    if name in NAMED:
        raise ValueError(f"{name!r} is not a name for a classifier, but a rule that combines them")


def names_in(rule: str) -> set[str]:
    """All names in an expression; empty for a named rule or an invalid expression."""
    if rule in NAMED or len(rule) > LONGEST:
        return set()
    try:
        tree = ast.parse(rule.strip(), mode="eval")
    except _INVALID:
        return set()
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


@dataclass(frozen=True)
class Combination:
    """A rule that combines scores: one of :data:`NAMED`, or an expression over ``names``.

    Names are classifiers and, in an expression, other numbers of a document.

    Raises:
        ValueError: the rule is neither, or uses an unknown name.
    """

    rule: str
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.rule not in NAMED:
            _parse(self.rule, self.names)

    def apply(self, scores: Mapping[str, npt.NDArray[np.floating[Any]]]) -> npt.NDArray[np.float32]:
        """Combine scores (float32 or float64 [n] by name) into float32 [n], clipped to [0, 1].

        ValueError if the expression is not a number for some document.
        """
        exact = {name: scores[name].astype(np.float64) for name in self.names}
        with np.errstate(all="ignore"):
            if self.rule in NAMED:
                combined = NAMED[self.rule](np.stack(list(exact.values())))
            else:
                combined = _compute(_parse(self.rule, self.names), exact)
        if np.isnan(combined).any():
            raise ValueError(
                f"--combine {self.rule!r} gives no number for some documents: does it divide by a"
                " score of 0?"
            )
        return np.clip(combined, 0, 1).astype(np.float32)


@functools.lru_cache(maxsize=16)
def _parse(text: str, names: tuple[str, ...]) -> ast.expr:
    if len(text) > LONGEST:
        raise ValueError(f"--combine is an expression of up to {LONGEST} characters")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except _INVALID as error:
        raise ValueError(
            f"--combine {text!r} is not an expression: give {', '.join(NAMED)}, or one as"
            f" 0.7 * {names[0]} + 0.3 * {names[-1]}"
        ) from error
    if not _names(tree, names):
        raise ValueError(f"--combine {text!r} names no classifier: there are {', '.join(names)}")
    return tree


def _names(node: ast.expr, known: Collection[str]) -> list[str]:
    """The names in an expression; ValueError for anything not allowed in one."""
    match node:
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            return _names(left, known) + _names(right, known)
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _UNARY:
            return _names(operand, known)
        case ast.Name(id=name) if name in known:
            return [name]
        case ast.Name(id=name):
            raise ValueError(
                f"--combine names {name!r}, but the classifiers are {', '.join(known)}"
            )
        case ast.Constant(value=value) if type(value) in (int, float):
            return []
        case ast.Call():
            raise ValueError(
                f"--combine {ast.unparse(node)!r} calls a function: an expression has only names,"
                f" numbers and + - * / **, and {', '.join(NAMED)} are used by themselves"
            )
    raise ValueError(
        f"--combine {ast.unparse(node)!r} is not allowed: an expression has only names, numbers and"
        " + - * / **"
    )


def _compute(node: ast.expr, scores: Mapping[str, FloatArray]) -> FloatArray:
    match node:
        case ast.BinOp(left=left, op=op, right=right):
            return _BINARY[type(op)](_compute(left, scores), _compute(right, scores))
        case ast.UnaryOp(op=op, operand=operand):
            return _UNARY[type(op)](_compute(operand, scores))
        case ast.Name(id=name):
            return scores[name]
        case ast.Constant(value=value):
            return np.float64(str(value))  # type: ignore[return-value]
    raise AssertionError(node)
