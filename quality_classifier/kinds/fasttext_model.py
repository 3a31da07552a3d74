"""The fastText kind: training and prediction.

Made for the ``fasttext-numpy2`` wheel; any build that passes the probe at load time will do. Traps
handled here: fastText scores only the first line of a text, a word ``</s>`` ends a text,
``__label__`` inside a text is read as its label, probabilities can exceed 1, training leaves most
of its matrix uninitialised (the cause of "Encountered NaN"), and several builds give wrong or no
numbers under numpy 2. The binding holds the GIL.
"""

import functools
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit

from quality_classifier.kinds import fasttext_file
from quality_classifier.kinds.contract import Fitting, Labelled, Model
from quality_classifier.kinds.fasttext_file import FastTextFile
from quality_classifier.kinds.fasttext_table import table
from winnow.text.buffers import Octets, Offsets, load_u64, string_buffers
from winnow.text.words import FOLDED, NOT_ASCII, SEPARATOR, TABLE, VERSION, Table, next_entry

CURATED = "__label__curated"
OTHER = "__label__other"

_SMALLEST = 1e-5  # fastText adds it to every probability before the logarithm

_ONES = np.uint64(0x0101010101010101)

_TRAIN = """
import fasttext, json, sys
fasttext.train_supervised(**json.load(sys.stdin)).save_model(sys.argv[1])
"""


@functools.cache
def fasttext_module() -> ModuleType:
    """Import the module ``fasttext``; ValueError if it is missing or another package's.

    Several distributions install a module of that name; ``fasttext-predict`` cannot train.
    """
    install = "pip install --force-reinstall --no-deps fasttext-numpy2"
    try:
        import fasttext
    except ImportError as error:
        raise ValueError(f"the module fasttext can't be imported ({error}): {install}") from error
    if not hasattr(fasttext, "train_supervised") or not hasattr(fasttext, "FastText"):
        owners = importlib.metadata.packages_distributions().get("fasttext", [])
        others = sorted(set(owners) - {"fasttext-numpy2"})
        remove = f"pip uninstall {' '.join(others)}, then " if others else ""
        raise ValueError(
            f"the module fasttext ({fasttext.__file__}) is not fasttext-numpy2's: {remove}{install}"
        )
    return fasttext


@dataclass
class FastTextSettings:
    """fastText's settings; the defaults are DCLM's (bigrams, dim 100, 2M buckets).

    ``repeatable`` trains on one thread: the same seed gives the same bytes. Otherwise all cores are
    used, and bytes differ from run to run.
    """

    dim: int = 100
    word_ngrams: int = 2
    buckets: int = 2_000_000
    epochs: int = 5
    learning_rate: float = 0.1
    min_count: int = 1
    repeatable: bool = True


class FastTextModel(Model):
    """A fastText ``.bin`` and the label whose probability is the score.

    Raises:
        ValueError: the file is not a supervised fastText model, the label is missing or unknown, or
            the installed build of fastText predicts wrongly.
    """

    kind: ClassVar[str] = "fasttext"
    weights_file: ClassVar[str] = "model.bin"

    def __init__(self, path: Path, label: str | None) -> None:
        self.path = path
        file = read_file(path)
        if label is None or label not in file.labels:
            wanted = "name the label of good text" if label is None else f"no label {label!r}"
            raise ValueError(f"{path}: {wanted}; the model's labels are {', '.join(file.labels)}")
        self.label: str = label
        self._table = table(file, label)
        if self._table is None:
            _ = self._library  # to raise its errors now

    @functools.cached_property
    def _library(self) -> Any:
        """The model of fastText itself, probed."""
        model = fasttext_module().load_model(str(self.path))
        _probe(model, model.get_labels(), self.path)
        return model

    def margins(self, text: pa.Array) -> npt.NDArray[np.float64]:
        """Log odds of the label's probability, within +-11.5, of n documents: float64 [n]."""
        if len(text) == 0:
            return np.empty(0)
        lines = one_line(text)
        found = self._table.probabilities(lines) if self._table else self._predict(lines)
        clipped = found.clip(_SMALLEST, 1 - _SMALLEST)
        return np.log(clipped) - np.log1p(-clipped)

    def _predict(self, lines: pa.Array) -> npt.NDArray[np.float64]:
        named, probabilities = self._library.predict(lines.to_pylist(), k=-1)
        found = np.zeros(len(lines))
        for row, names in enumerate(named):
            if self.label in names:  # a hierarchical softmax leaves out what is near 0
                found[row] = probabilities[row][names.index(self.label)]
        return found

    def rules(self) -> dict[str, Any]:
        return {"normaliser": VERSION, "label": self.label}

    def save(self, path: Path) -> None:
        shutil.copyfile(self.path, path)

    @classmethod
    def load(cls, path: Path, rules: Mapping[str, Any]) -> "FastTextModel":
        if rules["normaliser"] != VERSION:
            raise ValueError(f"normaliser version {rules['normaliser']} is not known here")
        return cls(path, rules["label"])

    @classmethod
    def fit(
        cls, train: Labelled, calibration: Labelled, how: Fitting
    ) -> tuple["FastTextModel", dict[str, Any]]:
        """FastText has no document weights: repeat documents in proportion to theirs."""
        how.say(f"training fastText on {len(train.text):,} documents")
        rows = np.repeat(np.arange(len(train.text)), repeats(train.weight, how.seed))
        text, positive = train.text.take(rows), train.positive[rows]
        path = how.folder / cls.weights_file
        model = train_fasttext(
            text.filter(positive), text.filter(~positive), path, how.settings, how.seed
        )
        return model, {"repeatable": how.settings.repeatable, "documents_with_repeats": len(rows)}


def repeats(weight: npt.NDArray[np.float64], seed: int) -> npt.NDArray[np.int64]:
    """How often to show each of n documents to a trainer without weights: int64 [n].

    In proportion to ``weight`` (float64 [n], mean 1), rounded at random so that it is right on
    average. Every document is shown at least once, unless that would more than double the number.
    """
    scale = min(1 / weight.min(), 2.0)
    draw = np.random.default_rng(seed).random(len(weight))
    return np.floor(weight * scale + draw).astype(np.int64)


def train_fasttext(
    positive: pa.Array, negative: pa.Array, output: Path, settings: FastTextSettings, seed: int
) -> FastTextModel:
    """Train on two string arrays and write the file ``output``; ValueError if fastText fails."""
    fasttext_module()  # to raise its errors here, not in the process below
    lines = [f"{CURATED} {line}\n" for line in one_line(positive).to_pylist()]
    lines += [f"{OTHER} {line}\n" for line in one_line(negative).to_pylist()]
    order = np.random.default_rng(seed).permutation(len(lines))
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".txt", newline="\n") as file:
        file.writelines(lines[i] for i in order)
        file.flush()
        options = {
            "input": file.name,
            "dim": settings.dim,
            "wordNgrams": settings.word_ngrams,
            "bucket": settings.buckets if settings.word_ngrams > 1 else 0,
            "epoch": settings.epochs,
            "lr": settings.learning_rate,
            "minCount": settings.min_count,
            "seed": seed,
            "thread": 1 if settings.repeatable else os.cpu_count(),
            "verbose": 0,
        }
        # In another process, with zeroed memory, as fastText expects but does not ensure: glibc
        # fills what it allocates with 255 ^ 255.
        trained = subprocess.run(
            [sys.executable, "-c", _TRAIN, str(output)],
            input=json.dumps(options),
            env=os.environ | {"MALLOC_PERTURB_": "255"},
            capture_output=True,
            text=True,
        )
    if trained.returncode:
        reason = trained.stderr.strip().rpartition("\n")[2]
        raise ValueError(f"fastText could not train with {settings}: {reason}")
    try:
        return FastTextModel(output, CURATED)
    except ValueError as error:
        raise ValueError(f"fastText could not train with {settings}: {error}") from error


def one_line(text: pa.Array) -> pa.Array:
    """Text for fastText, in training and serving: large_string [n].

    Separators of words (``words.py``: white space, line ends, NUL, control characters) become
    spaces, and fastText's own marks lose their meaning. Case and punctuation stay, since models
    trained by others expect them.
    """
    data, offsets = string_buffers(text)
    spaced = _blank_separators(data, offsets, TABLE)
    lines = pa.LargeStringArray.from_buffers(
        len(text),
        pa.py_buffer(np.ascontiguousarray(offsets, np.int64) - offsets[0]),
        pa.py_buffer(spaced),
    )
    unended = pc.replace_substring(lines, "</s>", "< /s>")
    return pc.replace_substring(unended, "__label__", "_label_")


@njit(nogil=True, cache=True)
def _blank_separators(data: Octets, offsets: Offsets, table: Table) -> Octets:
    base, entries = data.ctypes.data, table.ctypes.data
    first = np.int64(offsets[0])
    spaced = data[first : np.int64(offsets[-1])].copy()
    for i in range(len(offsets) - 1):
        position = base + np.int64(offsets[i])
        end = base + np.int64(offsets[i + 1])
        while position < end:
            if position + 8 <= end and _all_plain(load_u64(int(position))):
                position += 8
                continue
            entry, following = next_entry(position, end, entries)
            if entry & FOLDED == SEPARATOR:
                spaced[position - base - first : following - base - first] = 32
            position = following
    return spaced


@njit(nogil=True, cache=True)
def _all_plain(octets: np.uint64) -> bool:
    """Whether eight bytes are all 32 to 126; may be false for such bytes, too."""
    over = (octets + _ONES) | octets
    below = (octets - np.uint64(32) * _ONES) & ~octets
    return (over | below) & NOT_ASCII == 0


def read_file(path: Path) -> FastTextFile:
    """The model's settings and words; ValueError for a damaged file: fastText itself may hang."""
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is not a file: a fastText model is read more than once, from one")
    try:
        return fasttext_file.read(path)
    except OSError as error:
        raise ValueError(f"cannot read the fastText model {path}: {error.strerror}") from error


def _probe(model: Any, labels: list[str], path: Path) -> None:
    """Refuse a build of fastText that predicts wrongly, perhaps only for some list lengths.

    In lists of one, two and three, each text must get every label once, with probabilities that do
    not depend on the list and, under a softmax, sum to 1.
    """
    texts = ["the first known text", "", "another , longer text of the probe ."]
    try:
        single = [_by_label(model, [text])[0] for text in texts]
        sound = all(_by_label(model, texts[:size]) == single[:size] for size in (2, 3))
        if model.f.getArgs().loss.name == "softmax":
            sound &= all(sorted(row) == sorted(labels) for row in single)
            sound &= all(abs(sum(row.values()) - 1) < 1e-3 + 1e-5 * len(labels) for row in single)
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"fastText cannot predict with {path}: {error}") from error
    if not sound:
        raise ValueError(
            f"{path} is damaged, or the installed fastText ({fasttext_module().__file__}) predicts"
            " wrongly: see that it is fasttext-numpy2"
        )


def _by_label(model: Any, texts: list[str]) -> list[dict[str, float]]:
    named, probabilities = model.predict(texts, k=-1)
    return [
        {name: float(p) for name, p in zip(names, row, strict=True)}
        for names, row in zip(named, probabilities, strict=True)
    ]
