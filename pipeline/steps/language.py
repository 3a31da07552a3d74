"""Language identification with fastText's lid.176.ftz or the user's own fastText model.

lid.176.ftz (Joulin et al. 2016, "Bag of Tricks for Efficient Text Classification"; fasttext.cc,
CC BY-SA 3.0, unchanged) is beside this file. Other models that label whole texts can replace it:
lid.176.bin, GlotLID, OpenLID.
"""

import contextlib
import functools
import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.steps.contract import Codes, Step, first_failing
from quality_classifier.kinds.fasttext_model import fasttext_module, read_file
from winnow.filesystem import storage, tables

LID_176 = Path(__file__).with_name("lid.176.ftz")
_SHA256 = "8f3472cfe8738a7b6099e8e999c3cbfae0dcd15696aac7d7738a8039db603e83"
_PREFIX = "__label__"


@dataclass(frozen=True)
class Language(Step):
    """Labels every document by its first ``max_characters``; drops other languages and low scores.

    Fills the columns ``language`` (the model's label, for lid.176 an ISO 639 code) and
    ``language_score``. Empty ``languages`` drop nothing; an empty ``model`` means lid.176.
    """

    languages: list[str]
    min_score: float
    max_characters: int
    model: str

    reasons: ClassVar[tuple[str, ...]] = ("language", "language_score")
    input_files: ClassVar[tuple[str, ...]] = ("model",)

    def __post_init__(self) -> None:
        known = sorted(label.removeprefix(_PREFIX) for label in _model(self.model).get_labels())
        for code in self.languages:
            if code not in known:
                near = [name for name in known if name[:2] == code[:2]] or known[:10]
                raise ValueError(
                    f"{self.model or 'lid.176'} has no language {code!r}: the nearest of its"
                    f" {len(known)} codes are {', '.join(near)}"
                )

    def __call__(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, Codes]:
        language, score = identify(batch["text"], self.max_characters, self.model)
        batch = tables.replaced(batch, language=language, language_score=score)
        if not self.languages:
            return batch, np.zeros(len(batch), np.int8)
        wanted = pc.is_in(language, pa.array(self.languages)).to_numpy(zero_copy_only=False)
        uncertain = score.to_numpy(zero_copy_only=False) < np.float32(self.min_score)
        return batch, first_failing(~wanted, uncertain)


def identify(text: pa.Array, max_characters: int, model: str = "") -> tuple[pa.Array, pa.Array]:
    """The most likely language of each text and its probability: string and float32 [n].

    Both are null where the model knows no word or n-gram of the text (string or large_string [n]
    without nulls). ``model`` is the path of a fastText model, or empty for lid.176.
    """
    lines = pc.utf8_slice_codeunits(text, 0, max_characters)
    # fastText reads up to a newline, which it needs, or its own end mark.
    lines = pc.replace_substring(lines, "\n", " ")
    lines = pc.replace_substring(lines, "</s>", " ")
    lines = pc.binary_join_element_wise(lines, pa.scalar("\n", text.type), pa.scalar("", text.type))
    labels, scores = _model(model).f.multilinePredict(lines.to_pylist(), 1, 0.0, "strict")
    languages = [row[0].removeprefix(_PREFIX) if row else None for row in labels]
    probabilities = pa.array([row[0] if len(row) else None for row in scores], pa.float32())
    # fastText adds 1e-5 within its logarithms, so a certain language gets a little over 1.
    return pa.array(languages, pa.string()), pc.min_element_wise(
        probabilities, pa.scalar(1, pa.float32()), skip_nulls=False
    )


@functools.lru_cache(maxsize=2)
def _model(path: str) -> Any:
    with _local(path) as file:
        read_file(file)
        return fasttext_module().FastText._FastText(str(file))


@contextlib.contextmanager
def _local(path: str) -> Iterator[Path]:
    if not path:
        if not LID_176.is_file() or hashlib.sha256(LID_176.read_bytes()).hexdigest() != _SHA256:
            raise ValueError(f"{LID_176} is missing or damaged: install Winnow again")
        yield LID_176
    elif storage.scheme(path) is None:
        yield Path(path)
    else:
        with tempfile.NamedTemporaryFile(prefix="winnow-") as copy:
            with storage.open_input(path) as file:
                shutil.copyfileobj(file, copy, 1 << 20)
            copy.flush()
            yield Path(copy.name)
