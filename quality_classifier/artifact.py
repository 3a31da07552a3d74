"""The folder of a trained classifier: written atomically, verified on load.

    classifier.json      everything but the weights, with their checksum
    weights.safetensors  the weights; other kinds use other files (quality_classifier/kinds)
    trained_on.npy       fingerprints of the training documents
    card.md, figures/    for people; not read here

The fingerprint hashes everything that affects a score: the weights' checksum, the word rules, the
label and the calibration. No pickle anywhere.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from quality_classifier import fingerprints
from quality_classifier.fingerprints import Keys
from quality_classifier.kinds import KINDS
from quality_classifier.kinds.calibration import Calibration, Grades
from quality_classifier.kinds.contract import Model, Scorer
from quality_classifier.kinds.fasttext_model import FastTextModel
from quality_classifier.kinds.user_scorer import UserScorer

FORMAT_VERSION = 1
DESCRIPTION = "classifier.json"
NO_KEYS: Keys = np.empty(0, np.uint64)


@dataclass(frozen=True)
class Artifact:
    """A classifier read from its folder."""

    model: Scorer
    calibration: Calibration
    provenance: Mapping[str, Any]
    card: Mapping[str, Any]
    fingerprint: str
    trained_on: Keys = field(default_factory=lambda: NO_KEYS)
    """Empty for users' classifiers and those of releases that did not store it."""
    grades: Grades | None = None
    """Set for classifiers trained on labels."""


def save(
    folder: Path,
    model: Model,
    calibration: Calibration,
    provenance: Mapping[str, Any],
    card: Mapping[str, Any],
    files: Mapping[str, bytes],
    grades: Grades | None = None,
) -> str:
    """Write the folder under a temporary name, rename it, and return the fingerprint.

    ``provenance`` says how the model was trained and ``card`` summarises its evaluation, both as
    small JSON values; ``files`` holds further files by relative name (``card.md``).

    Raises:
        ValueError: ``folder`` exists and is not an empty folder.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} exists already: remove it or choose another output")
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
        draft = Path(temporary) / folder.name
        draft.mkdir()
        weights = draft / model.weights_file
        model.save(weights)
        scoring = _scoring_part(model, calibration, _checksum(weights), grades)
        fingerprint = _fingerprint(scoring)
        description = {"format": FORMAT_VERSION, **scoring, "fingerprint": fingerprint}
        description |= {"provenance": dict(provenance), "card": dict(card)}
        text = json.dumps(description, indent=2, allow_nan=False) + "\n"
        for name, content in {**files, DESCRIPTION: text.encode()}.items():
            path = draft / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        os.replace(draft, folder)
    return fingerprint


def load(folder: Path) -> Artifact:
    """Read and check a folder that :func:`save` wrote; ValueError names file and problem."""
    path = folder / DESCRIPTION
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
        if description["format"] != FORMAT_VERSION:
            raise ValueError(
                f"format {description['format']!r} is not {FORMAT_VERSION}: written by another"
                " release of this code"
            )
        kind = description["kind"]
        if kind not in KINDS:
            raise ValueError(f"unknown kind {kind!r}: it is one of {', '.join(KINDS)}")
        weights = folder / KINDS[kind].weights_file
        if _checksum(weights) != description["weights_sha256"]:
            raise ValueError(f"{weights.name} does not match its checksum: it was changed")
        model = KINDS[kind].load(weights, description)
        calibration = Calibration.from_json(description["calibration"])
        grades = Grades.from_json(description["grades"]) if "grades" in description else None
        scoring = _scoring_part(model, calibration, description["weights_sha256"], grades)
        if _fingerprint(scoring) != description["fingerprint"]:
            raise ValueError("the fingerprint does not match the contents: the file was edited")
        keys = folder / fingerprints.NAME
        trained_on = np.load(keys, allow_pickle=False) if keys.exists() else NO_KEYS
        provenance, card = dict(description["provenance"]), dict(description["card"])
        fingerprint = description["fingerprint"]
        return Artifact(model, calibration, provenance, card, fingerprint, trained_on, grades)
    except FileNotFoundError as error:
        missing = f"{error.filename} is missing"
        raise ValueError(f"{folder} is not a trained classifier: {missing}") from error
    except OSError as error:
        raise ValueError(f"cannot read {error.filename}: {error.strerror}") from error
    except KeyError as error:
        raise ValueError(f"damaged classifier, {path}: {error} is missing") from error
    except (TypeError, ValueError) as error:
        raise ValueError(f"damaged classifier, {path}: {error}") from error


def user_model(path: Path, label: str | None) -> Artifact:
    """A user's fastText ``.bin`` as a classifier, with unchanged probabilities.

    Raises:
        ValueError: the label is missing or unknown (the message lists them), or the file is bad.
    """
    model = FastTextModel(path, label)
    calibration = Calibration.identity()
    checksum = _checksum(path)
    card = {"kind": model.kind, "label": model.label, "file": path.name, "calibrated": False}
    fingerprint = _fingerprint(_scoring_part(model, calibration, checksum))
    return Artifact(model, calibration, {"weights_sha256": checksum}, card, fingerprint)


def own(path: str) -> Artifact:
    """A user-defined class as a classifier, with unchanged scores; ValueError if it is invalid."""
    scorer = UserScorer(path)
    checksums = scorer.checksums()
    card = {"kind": path, "calibrated": False}
    fingerprint = _fingerprint({"kind": path, "checksums": checksums})
    return Artifact(scorer, Calibration.identity(), {"checksums": checksums}, card, fingerprint)


def _scoring_part(
    model: Model, calibration: Calibration, checksum: str, grades: Grades | None = None
) -> dict[str, Any]:
    """Everything that affects a score, as JSON values."""
    return {
        "kind": model.kind,
        **model.rules(),
        "calibration": calibration.to_json(),
        "weights_sha256": checksum,
        **({"grades": grades.to_json()} if grades else {}),
    }


def _fingerprint(scoring: Mapping[str, Any]) -> str:
    text = json.dumps(scoring, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
