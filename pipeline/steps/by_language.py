"""Applies a step with different settings per language.

A document's language is in the column ``language``, from the step ``language`` or an input field.
``*`` means every other language, ``(none)`` documents without one. A document whose language has no
settings passes unchanged and is counted.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.steps.contract import Step
from winnow.text.groups import NONE

ANY: Final = "*"
KEY: Final = "by_language"  # the setting of a step that maps languages to the settings they change

UNSUITED: Final = {
    "language": "it identifies the language",
    "host_lines": "it compares documents of all languages",
}


class ByLanguage:
    """A step that applies the settings of each document's language; attributes as in ``Step``."""

    def __init__(self, steps: Mapping[str, Step]) -> None:
        """``steps`` by language; several may share an object."""
        self._steps = distinct = list({id(step): step for step in steps.values()}.values())
        numbers = {name: distinct.index(step) for name, step in steps.items()}
        others = numbers.pop(ANY, -1)
        self._names = pa.array(list(numbers), pa.string())
        self._numbers = np.array([*numbers.values(), others], np.int64)
        self.reasons = distinct[0].reasons
        self.notes = [note for step in distinct for note in step.notes]
        self.counts = sorted({name for step in distinct for name in step.counts})

    def __call__(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, npt.NDArray[np.integer]]:
        which = self._which(batch["language"])
        codes = np.zeros(len(batch), np.int64)
        present = np.unique(which)
        if len(present) == 1 and present[0] >= 0:  # most batches: nothing is copied
            return self._steps[present[0]](batch)
        parts, places, same = [], [], True
        for number in present:
            rows = np.flatnonzero(which == number)
            part = batch.take(pa.array(rows))
            if number >= 0:
                found, codes[rows] = self._steps[number](part)
                same &= found is part
                part = found
            parts.append(part)
            places.append(rows)
        if same:
            return batch, codes
        order = np.argsort(np.concatenate(places))
        return pa.concat_batches(parts).take(pa.array(order)), codes

    def without(self, batch: pa.RecordBatch) -> dict[str, int]:
        """The number of documents, not dropped yet, whose language has no settings, by language."""
        if self._numbers[-1] >= 0:
            return {}
        rows = (self._which(batch["language"]) < 0) & batch["drop_reason"].is_null().to_numpy(False)
        found = pc.fill_null(batch["language"].filter(pa.array(rows)), NONE).value_counts()
        return {row["values"]: row["counts"] for row in found.to_pylist()}

    def _which(self, language: pa.Array) -> npt.NDArray[np.int64]:
        """The index of each document's step, -1 for none: int64 [n]."""
        known = pc.index_in(pc.fill_null(language.cast(pa.string()), NONE), self._names)
        return self._numbers[pc.fill_null(known, len(self._names)).to_numpy()]


def build(
    name: str, settings: Mapping[str, Any], make: Callable[[str, Mapping[str, Any]], Step]
) -> Step | ByLanguage:
    """A step that ``make`` builds from its name and settings, or one for each of its languages.

    Raises:
        ValueError: the step has no settings by language, or those of a language are wrong.
    """
    if KEY not in settings:
        return make(name, settings)
    if name in UNSUITED:
        raise ValueError(f"step {name} has no settings by language: {UNSUITED[name]}")
    made: dict[str, Step] = {}
    steps = {}
    for language, values in variants(settings).items():
        same = json.dumps(values, sort_keys=True, default=str)
        try:
            steps[language] = made[same] = made.get(same) or make(name, values)
        except ValueError as error:
            raise ValueError(f"language {language}: {error}") from error
    return ByLanguage(steps)


def variants(settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """A step's general settings with each language's changes; ValueError in any other form."""
    general = {name: value for name, value in settings.items() if name != KEY}
    if KEY not in settings:
        return {ANY: general}
    given = settings[KEY]
    if not isinstance(given, Mapping) or not given:
        raise ValueError(f"{KEY} maps languages to settings, as {{de: {{…}}}}, not {given!r}")
    for language, changes in given.items():
        check_name(language)
        if not isinstance(changes, Mapping | None):
            raise ValueError(f"language {language}: expected settings, not {changes!r}")
    return {language: general | dict(changes or {}) for language, changes in given.items()}


def check_name(language: Any) -> None:
    """Raise ValueError if a language is not text."""
    if not isinstance(language, str):
        raise ValueError(
            f"the language {language!r} is not text: put it in quotes (YAML reads no as false)"
        )
