"""Scores of documents: one classifier's, or several and their combination.

Each of several classifiers has a column, from which ``quality_score`` can be recombined later.
"""

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.output import schema
from quality_classifier.combining import Combination, names_in
from quality_classifier.kinds.calibration import Calibration, log_odds
from quality_classifier.scoring import Classifier, ClassifierSet, load_classifier
from winnow.filesystem import files, storage, tables

Scores = npt.NDArray[np.float32]

CALIBRATION_FORMAT = 1


@dataclass(frozen=True)
class Named:
    """One of several classifiers, by a path that workers can reach."""

    name: str
    path: str
    fingerprint: str
    label: str | None = None


@dataclass(frozen=True)
class Combined:
    """How the scores of classifiers become ``quality_score``. Picklable.

    Attributes:
        names: the classifiers.
        rule: see :class:`quality_classifier.combining.Combination`; ValueError if it does not fit
            the names.
        calibration: of the combination's log odds, if any (``Calibration.to_json``).
        joined: the joined columns that an expression names, and their defaults for missing values.
    """

    names: tuple[str, ...]
    rule: str
    calibration: Mapping[str, Any] | None = None
    joined: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _ = self._combination  # checks them

    @property
    def _combination(self) -> Combination:
        return Combination(self.rule, (*self.names, *self.joined))

    def of(
        self, scores: Mapping[str, Scores], columns: Mapping[str, pa.Array] = MappingProxyType({})
    ) -> Scores:
        """Combine each classifier's scores of n documents (float32 [n]) and joined columns (numbers
        or booleans [n], with nulls) into one score (float32 [n]).
        """
        numbers: dict[str, npt.NDArray[Any]] = {**scores, **self._numbers(columns)}
        combined = self._combination.apply(numbers)
        if self.calibration is None:
            return combined
        return Calibration.from_json(self.calibration).apply(log_odds(combined))

    def again(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Scored documents with ``quality_score`` recombined."""
        scores = {n: batch[schema.score_column(n)].to_numpy() for n in self.names}
        combined = self.of(scores, {n: batch[n] for n in self.joined})
        return tables.replaced(batch, quality_score=combined)

    @property
    def columns(self) -> list[str]:
        """The columns that :meth:`again` reads."""
        return [*map(schema.score_column, self.names), *self.joined]

    def check(self, columns: pa.Schema) -> None:
        """Raise ValueError unless the joined columns of the rule exist and are numbers."""
        for name in self.joined:
            if name not in columns.names:
                known = ", ".join(columns.names)
                raise ValueError(f"--combine names {name}, but the joined columns are {known}")
            kind = columns.field(name).type
            checks = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean)
            if not any(check(kind) for check in checks):
                raise ValueError(f"--combine names {name}, which is {kind} and not a number")

    def _numbers(self, columns: Mapping[str, pa.Array]) -> dict[str, npt.NDArray[np.float64]]:
        found = {}
        for name, missing in self.joined.items():
            numbers = columns[name].cast(pa.float64(), safe=False).fill_null(np.nan).to_numpy()
            found[name] = np.where(np.isnan(numbers), missing, numbers)
        return found


def joined_in(rule: str, joins: Mapping[str, float]) -> dict[str, float]:
    """The joined columns that a rule names, and their ``joins``' defaults for missing values."""
    found = {}
    for column in sorted(names_in(rule)):
        owners = [name for name in joins if column.startswith(f"{name}_")]
        if owners:
            found[column] = joins[max(owners, key=len)]
    return found


def columns(
    text: pa.Array,
    scorer: Classifier | ClassifierSet,
    combined: Combined | None,
    joined: Mapping[str, pa.Array],
) -> dict[str, Scores]:
    """The columns of scores and expected grades of n documents: float32 [n] each."""
    if isinstance(scorer, Classifier):
        score, grade = scorer.score_and_grade(text)
        own = {} if grade is None else {schema.grade_column(): grade}
        return {"quality_score": score, **own}
    assert combined is not None
    found = scorer.scores_and_grades(text)
    scores = {name: score for name, (score, _) in found.items()}
    grades = {schema.grade_column(n): grade for n, (_, grade) in found.items() if grade is not None}
    own = {schema.score_column(name): score for name, score in scores.items()}
    return {"quality_score": combined.of(scores, joined), **own, **grades}


@functools.lru_cache(maxsize=2)
def scorer(path: str, label: str | None, several: tuple[Named, ...]) -> Classifier | ClassifierSet:
    """The classifier or classifiers of a process, possibly none."""
    if path:
        return load_classifier(path, label)
    return ClassifierSet({one.name: load_classifier(one.path, one.label) for one in several})


def load_calibration(path: str, rule: str, fingerprints: Mapping[str, str]) -> Mapping[str, Any]:
    """The calibration in a file of ``winnow calibrate``.

    Raises:
        ValueError: it is not one, or is for other classifiers or another combination.
    """
    if not storage.exists(path):
        raise ValueError(f"--calibration: there is no file {path}: make it with winnow calibrate")
    try:
        value = json.loads(storage.read_bytes(path))
        if value["format"] != CALIBRATION_FORMAT:
            raise ValueError("it has another format version")
        calibration: dict[str, Any] = value["calibration"]
        Calibration.from_json(calibration)
        of, made_for = dict(value["classifiers"]), value["combine"]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"--calibration: {path} is not a calibration file: {error}") from error
    if made_for != rule or of != dict(fingerprints):
        raise ValueError(
            f"--calibration: {path} was fitted to {made_for!r} of earlier {', '.join(sorted(of))}:"
            " calibrate again with these classifiers and this --combine"
        )
    return calibration


def about(
    several: Sequence[Named], combined: Combined, loaded: Mapping[str, Classifier]
) -> dict[str, Any]:
    """The manifest's entry for several classifiers."""
    parts = {
        one.name: {"label": one.label} | about_one(one.path, loaded[one.name]) for one in several
    }
    return recombined({"several": parts}, combined)


def about_one(path: str, classifier: Classifier) -> dict[str, Any]:
    """The manifest's entry for a classifier, with its grades if any."""
    grades = {"grades": classifier.grades.scale()} if classifier.grades else {}
    about = {"path": path, "fingerprint": classifier.fingerprint, "card": dict(classifier.card)}
    return about | grades


def recombined(classifier: Mapping[str, Any], combined: Combined) -> dict[str, Any]:
    """The manifest's entry for combined classifiers."""
    several = classifier["several"]
    prints = {name: one["fingerprint"] for name, one in several.items()}
    calibration = None if combined.calibration is None else dict(combined.calibration)
    joined = [dict(combined.joined)] if combined.joined else []
    paths = [f"{name}={one['path']}" for name, one in several.items()]
    about: dict[str, Any] = {
        "path": ", ".join([*paths, *combined.joined]),
        "fingerprint": files.fingerprint(prints, combined.rule, calibration, *joined),
        "card": {},
    }
    about |= {"several": several, "combine": combined.rule, "calibration": calibration}
    return about | ({"joined": joined[0]} if joined else {})
