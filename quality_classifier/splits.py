"""Deduplicate documents, split them and weigh them.

A split depends only on the text: held-out text stays held out when text is added or seeds change.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from winnow.text.hashing import xxh3_64, xxh3_128

CLASSES = {True: "positive", False: "negative"}

SPLITS = ("train", "calibration", "test")

_SPLIT_KEY = 0x73706C6974  # "split": keeps splits independent of other uses of content hashes

_DUPLICATE_COUNTS = ("read", "repeated", "in_both_classes")

Flags = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Deduplicated:
    """The remaining documents, in an order that depends only on their content.

    ``counts`` has a row per class and source: documents ``read``, ``repeated`` (in their class) and
    ``in_both_classes`` (removed from both, since their class is unclear).
    """

    documents: pa.Table
    counts: pa.Table


def deduplicate(documents: pa.Table) -> Deduplicated:
    """Remove exact duplicates within a class and across the two.

    ``documents`` has ``text`` (large_string), ``positive`` (bool), ``source`` (string) and further
    sortable columns. Of equal texts in a class, the first by source and further columns remains.
    """
    documents = documents.combine_chunks()
    further = [name for name in documents.schema.names if name not in ("text", "positive")]
    order, same_text = ordered_by_text(documents, ["positive", *further])
    positive = documents["positive"].to_numpy()[order]
    group = np.cumsum(~same_text) - 1
    size = np.bincount(group)
    positives = np.bincount(group, positive)
    in_both = ((positives > 0) & (positives < size))[group]
    repeated = same_text & ~in_both

    counted = pa.table(
        {
            "positive": positive,
            "source": documents["source"].take(order),
            "read": np.ones(len(order), np.int64),
            "repeated": repeated.astype(np.int64),
            "in_both_classes": in_both.astype(np.int64),
        }
    )
    groups = counted.group_by(["positive", "source"])
    counts = groups.aggregate([(name, "sum") for name in _DUPLICATE_COUNTS])
    counts = counts.select(["positive", "source", *(f"{name}_sum" for name in _DUPLICATE_COUNTS)])
    counts = counts.rename_columns(["positive", "source", *_DUPLICATE_COUNTS])
    return Deduplicated(
        documents.take(order[~(repeated | in_both)]),
        counts.sort_by([("positive", "descending"), ("source", "ascending")]),
    )


def assign(text: pa.ChunkedArray, calibration: float, test: float) -> npt.NDArray[np.int8]:
    """The split of each of n texts, by a hash of its content: int8 [n], indices into SPLITS.

    ``calibration`` and ``test`` are shares in (0, 1); the rest is for training.
    """
    chunks = [xxh3_64(chunk, _SPLIT_KEY) for chunk in text.chunks]
    draw = np.concatenate([np.empty(0, np.uint64), *chunks]) * 2.0**-64
    return np.select([draw < test, draw < test + calibration], [2, 1], 0).astype(np.int8)


def balanced_weights(positive: Flags, source: npt.NDArray[np.str_], most: float) -> FloatArray:
    """Weights that balance the classes, and the sources in each: float64 [n] with mean 1.

    No document weighs more than ``most`` (at least 1) times its weight if only classes were
    balanced, so a handful of documents never dominates a class.
    """
    weight = np.empty(len(positive), np.float64)
    names = np.unique(source, return_inverse=True)[1]
    for members in (positive, ~positive):
        sizes = np.bincount(names[members])
        fair = members.sum() / (np.count_nonzero(sizes) * np.maximum(sizes, 1))
        weight[members] = np.minimum(fair, most)[names[members]]
        weight[members] *= len(positive) / (2 * weight[members].sum())
    return weight


def ordered_by_text(documents: pa.Table, keys: Sequence[str]) -> tuple[Integers, Flags]:
    """Sort n documents by the hash of their ``text``, then by the columns ``keys``.

    Returns the rows in order (int64 [n]), and which repeat the previous text (bool [n]).
    """
    content = content_hashes(documents["text"])
    columns = {"high": content[:, 0], "low": content[:, 1]}
    columns |= {name: documents[name] for name in keys}
    by = [(name, "ascending") for name in columns]
    order = pc.sort_indices(pa.table(columns), by).to_numpy().astype(np.int64)
    content = content[order]
    same = np.zeros(len(order), np.bool_)
    same[1:] = (content[1:] == content[:-1]).all(axis=1)
    return order, same


def content_hashes(text: pa.ChunkedArray) -> npt.NDArray[np.uint64]:
    """The two halves of the 128-bit hash of each of n texts: uint64 [n, 2]."""
    return np.concatenate([np.empty((0, 2), np.uint64), *(xxh3_128(c) for c in text.chunks)])
