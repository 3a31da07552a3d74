"""fastText's softmax without its vectors: one number for each word or n-gram and label.

fastText averages the vectors of a text's words and n-grams, and multiplies the mean by a vector for
each label. The product of a mean is the mean of the products: multiply each vector once, on load,
and a score is a sum over a small table (:mod:`quality_classifier.kinds.fasttext_kernel`).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from quality_classifier.kinds import fasttext_kernel as kernel
from quality_classifier.kinds.fasttext_file import SOFTMAX, FastTextFile
from winnow.text.buffers import Octets, string_buffers

MOST_LABELS = 8
"""With more labels the table is no longer much smaller than the vectors."""

_CHUNK_BYTES = 1 << 25
_END = np.frombuffer(b"</s>", np.uint8)


@dataclass(frozen=True)
class FastTextTable:
    """The probability of one label, under a softmax and a dense input matrix.

    Attributes:
        rows: float32 [rows, labels - 1], per input vector the logits of the other labels minus
            ours. A word's row is the sum over the word and its subwords.
        counts: int32 [n_words], the number of vectors in a word's sum.
        slots: uint64, the hash table of the words (:func:`fasttext_kernel.hash_table`).
        words, offsets: as in :class:`FastTextFile`.
        end: the row of the word that ends every line, or -1.
    """

    rows: npt.NDArray[np.float32]
    counts: npt.NDArray[np.int32]
    slots: npt.NDArray[np.uint64]
    words: Octets
    offsets: npt.NDArray[np.int64]
    end: int
    rules: kernel.Rules

    def probabilities(self, lines: pa.Array) -> npt.NDArray[np.float64]:
        """P(label) + 1e-5, as in fastText, of n lines (string or large_string): float64 [n].

        Only spaces separate words. 0 if no word is known.
        """
        model = (self.rows, self.counts, self.slots, self.words, self.offsets, self.end, self.rules)
        return kernel.probabilities(*string_buffers(lines), *model)


def table(file: FastTextFile, label: str) -> FastTextTable | None:
    """The table of a model for one of its labels; None if fastText's own code must score.

    ValueError if the vectors hold NaN or infinity.
    """
    # Other losses look up tabulated sigmoids or walk a tree. Labels with another prefix could occur
    # in a text, where fastText skips them.
    if (
        file.loss != SOFTMAX
        or len(file.offsets) < 2
        or file.input_at is None
        or not 2 <= len(file.labels) <= MOST_LABELS
        or not all(name.startswith("__label__") for name in file.labels)
    ):
        return None
    rows = _products(file, file.input_at, label)
    slots = kernel.hash_table(file.words, file.offsets)
    end = int(kernel.find(_END, slots, file.words, file.offsets))
    counts = np.ones(len(file.offsets) - 1, np.int32)
    rules = file.word_ngrams, file.buckets, file.min_characters, file.max_characters
    if file.max_characters > 0:
        kernel.add_parts(rows, counts, file.words, file.offsets, end, rules)
    return FastTextTable(rows, counts, slots, file.words, file.offsets, end, rules)


def _products(file: FastTextFile, place: int, label: str) -> npt.NDArray[np.float32]:
    """Each input vector times (output vectors of the other labels - ours)."""
    output = file.output().astype(np.float64)
    ours = file.labels.index(label)
    if not np.isfinite(output).all():
        raise ValueError(f"{file.path} is damaged: its vectors hold NaN or infinity")
    others = np.delete(output - output[ours], ours, 0).T.astype(np.float32)
    rows = np.empty((file.rows, others.shape[1]), np.float32)
    step = max(1, _CHUNK_BYTES // (4 * file.dim))
    with file.path.open("rb") as stream:
        stream.seek(place)
        for first in range(0, file.rows, step):
            part = rows[first : first + step]
            vectors = np.fromfile(stream, "<f4", count=len(part) * file.dim)
            with np.errstate(invalid="ignore", over="ignore"):
                np.matmul(vectors.reshape(-1, file.dim), others, out=part)
    if not np.isfinite(rows).all():
        raise ValueError(f"{file.path} is damaged: its vectors hold NaN or infinity")
    return rows
