"""Grades from labels by people or models: ``4``, ``3.5``, ``[4, 5, 3]`` or ``good``."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from quality_classifier.splits import ordered_by_text

FloatArray = npt.NDArray[np.float64]

MOST_GRADES = 20


@dataclass(frozen=True)
class Scale:
    """K grades, lowest first: names and ascending values (0, 1, … if grades are not numbers)."""

    names: tuple[str, ...]
    values: tuple[float, ...]

    @property
    def numeric(self) -> bool:
        """Whether labels are numbers, which may lie between two grades."""
        return self.names == tuple(f"{value:g}" for value in self.values)

    def position(self, at_least: Any) -> int:
        """The index of a grade, 1 … K - 1; ValueError unless it is one above the lowest."""
        name = f"{at_least:g}" if isinstance(at_least, int | float) else str(at_least)
        if name not in self.names[1:]:
            raise ValueError(
                f"at_least={at_least} is not above the lowest grade: set at_least to one of"
                f" {', '.join(self.names[1:])}"
            )
        return self.names.index(name)


def declared(grades: Sequence[Any]) -> Scale:
    """The scale of the setting ``grades``: ascending numbers, or names from worst to best.

    Raises:
        ValueError: there are fewer than two, one is repeated, or numbers don't rise.
    """
    if len({str(grade) for grade in grades}) < max(len(grades), 2):
        raise ValueError(f"grades={list(grades)} must be two or more, from worst to best")
    if all(isinstance(grade, int | float) for grade in grades):
        values = tuple(map(float, grades))
        if not (np.diff(values) > 0).all():
            raise ValueError(f"grades={list(grades)} must rise: give them from worst to best")
        return Scale(tuple(f"{value:g}" for value in values), values)
    return Scale(tuple(map(str, grades)), tuple(map(float, range(len(grades)))))


def found(values: FloatArray) -> Scale:
    """The whole numbers from the lowest to the highest label: 2 to MOST_GRADES, or ValueError."""
    low, high = math.floor(values.min()), math.ceil(values.max())
    if low == high:
        raise ValueError(f"all labels are {low}: a classifier needs documents of two grades")
    if high - low >= MOST_GRADES:
        raise ValueError(
            f"labels run from {low} to {high}, too many grades: name the ones to tell apart, as"
            f" grades=[{low},{(low + high) // 2},{high}]"
        )
    return declared(list(range(low, high + 1)))


def read_labels(
    text: pa.ChunkedArray, scale: Scale | None, target: str
) -> tuple[npt.NDArray[np.int64], FloatArray, Scale]:
    """The labels in a column of n strings without nulls; a JSON list holds several.

    Returns the row (int64) and value (float64) of each label, and the scale: given, or found.

    Raises:
        ValueError: a label is neither a number nor a named grade, or is out of range.
    """
    coded = text.combine_chunks().dictionary_encode()
    lists = [_several(word) for word in coded.dictionary.to_pylist()]
    words = sorted({word for several in lists for word in several})
    value = _values(words, scale, target)
    scale = scale or found(np.array(list(value.values())))
    out = [word for word in words if not scale.values[0] <= value[word] <= scale.values[-1]]
    if out:
        raise ValueError(
            f"{target} {out[0]!r} is out of range: the grades are {', '.join(scale.names)}"
            " (grades=[…] sets others)"
        )
    values = pa.array([[value[word] for word in several] for several in lists]).take(coded.indices)
    rows = pc.list_parent_indices(values).to_numpy().astype(np.int64)
    return rows, values.flatten().to_numpy(), scale


def numbers(words: pa.Array, scale: Scale | None, target: str) -> FloatArray:
    """The mean label of each of k words, NaN if empty, then a NaN for index -1: [k + 1].

    ValueError for a label that is neither a number nor a named grade.
    """
    lists = [[label for label in _several(word) if label] for word in words.to_pylist()]
    value = _values(sorted({label for several in lists for label in several}), scale, target)
    means = [
        sum(value[label] for label in several) / len(several) if several else math.nan
        for several in lists
    ]
    return np.array([*means, math.nan])


def _several(word: str) -> list[str]:
    """The labels in a field: itself, or the items of its JSON list."""
    if word.startswith("["):
        try:
            return [str(item) for item in json.loads(word)] or [""]
        except ValueError:
            pass
    return [word]


def _values(words: Sequence[str], scale: Scale | None, target: str) -> dict[str, float]:
    if scale is not None and not scale.numeric:
        known = dict(zip(scale.names, scale.values, strict=True))
        if unknown := [word for word in words if word not in known]:
            grades = ", ".join(known)
            raise ValueError(f"{target} {unknown[0]!r} is out of range: the grades are {grades}")
        return known
    out = {}
    for word in words:
        try:
            out[word] = float(word)
        except ValueError:
            raise ValueError(
                f"{target} {word!r} is not a number: name the classes from worst to best, as"
                " grades=[bad,fair,good]"
            ) from None
        if not math.isfinite(out[word]):
            raise ValueError(f"{target} {word!r} is not a finite number: leave such records out")
    return out


def at_or_above(value: FloatArray, scale: Scale) -> FloatArray:
    """How far each of n labels reaches each grade but the lowest: float64 [n, K - 1].

    1 at or above the grade, 0 at or below the previous one, linear between them. The mean over a
    document's labels is the share that reaches the grade.
    """
    low, high = np.array(scale.values[:-1]), np.array(scale.values[1:])
    return np.clip((value[:, None] - low) / (high - low), 0, 1)


@dataclass(frozen=True)
class LabelledDocuments:
    """n different texts, in an order that depends only on their content.

    Attributes:
        documents: the columns of the input, a row per text.
        target: float64 [n, K - 1], the mean of :func:`at_or_above` over a text's labels.
        label: float64 [n], the mean label.
        labels: the text of each of m labels (int64 [m], ascending) and its value (float64 [m]).
        repeated: number of records that repeat a text.
    """

    documents: pa.Table
    target: FloatArray
    label: FloatArray
    labels: tuple[npt.NDArray[np.int64], FloatArray]
    repeated: int


def by_text(
    documents: pa.Table, rows: npt.NDArray[np.int64], value: FloatArray, scale: Scale
) -> LabelledDocuments:
    """Merge the labels of equal texts, so that no text is both trained on and held out.

    ``documents`` has a row per record with ``text`` and ``source``; of equal texts, the first by
    source and further columns remains. Label i, ``value[i]`` (float64 [m]), is of row ``rows[i]``.
    """
    documents = documents.combine_chunks()
    keys = [name for name in documents.schema.names if name != "text"]
    order, repeated = ordered_by_text(documents, keys)
    text_of = np.empty(len(order), np.int64)
    text_of[order] = np.cumsum(~repeated) - 1

    sort = np.lexsort((value, text_of[rows]))
    text, value = text_of[rows][sort], value[sort]
    count = np.bincount(text)
    starts = np.cumsum(count) - count
    target = np.add.reduceat(at_or_above(value, scale), starts, axis=0) / count[:, None]
    label = np.add.reduceat(value, starts) / count
    documents = documents.take(order[~repeated])
    return LabelledDocuments(documents, target, label, (text, value), int(repeated.sum()))
