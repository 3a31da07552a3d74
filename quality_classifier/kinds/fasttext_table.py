"""fastText's softmax without its vectors: one number for each word or n-gram and label.

fastText averages the vectors of a text's words and n-grams, and multiplies the mean by a vector for
each label. The product of a mean is the mean of the products, so each vector is multiplied once,
when the model is loaded, and a score is a sum over a small table. The kernels are in
:mod:`quality_classifier.kinds.fasttext_kernel`.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from quality_classifier.kinds import fasttext_kernel as kernel
from quality_classifier.kinds.fasttext_file import SOFTMAX, FastTextFile
from winnow.text.buffers import Octets, string_buffers

MOST_LABELS = 8
"""With more of them the table is no longer much smaller than the vectors."""

_CHUNK_BYTES = 1 << 25
_END = np.frombuffer(b"</s>", np.uint8)


@dataclass(frozen=True)
class FastTextTable:
    """A model with a softmax and a dense input matrix, for the probability of one label.

    Attributes:
        rows: float32 [rows, labels - 1], of each input vector the logits of the other labels minus
            that of ours. A word's row is the sum over the word and its parts.
        counts: int32 [n_words], how many vectors a word's row is the sum of.
        slots: uint64, the hash table of the words (:func:`fasttext_kernel.hash_table`).
        words, offsets: their bytes and bounds, as in :class:`FastTextFile`.
        end: the row of the word that ends every line, or -1.
        rules: how n-grams and parts of words become rows.
    """

    rows: npt.NDArray[np.float32]
    counts: npt.NDArray[np.int32]
    slots: npt.NDArray[np.uint64]
    words: Octets
    offsets: npt.NDArray[np.int64]
    end: int
    rules: kernel.Rules

    def probabilities(self, lines: pa.Array) -> npt.NDArray[np.float64]:
        """P(label) + 1e-5, as fastText has it, of n lines: float64 [n]; 0 if no word is known.

        Args:
            lines: string or large_string [n], in which spaces alone separate words.
        """
        model = (self.rows, self.counts, self.slots, self.words, self.offsets, self.end, self.rules)
        found: npt.NDArray[np.float64] = kernel.probabilities(*string_buffers(lines), *model)
        return found


def table(file: FastTextFile, label: str) -> FastTextTable | None:
    """The table of a model for a label that it has; None if fastText's own code must score.

    Raises:
        ValueError: the vectors hold NaN or infinity.
        OSError: the file can't be read.
    """
    # Other losses look sigmoids up in fastText's table of them, or walk through a tree. Labels with
    # another prefix could occur in a text, where fastText leaves them out.
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
