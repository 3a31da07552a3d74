"""The folder of a trained classifier: written at once or not at all, checked when read."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quality_classifier.calibration import Calibration
from quality_classifier.fasttext_model import FastTextModel
from quality_classifier.linear import HashedLinear

Model = HashedLinear | FastTextModel


@dataclass(frozen=True)
class Artifact:
    """A classifier as read from its folder."""

    model: Model
    calibration: Calibration
    provenance: Mapping[str, Any]
    card: Mapping[str, Any]
    fingerprint: str


def fingerprint(model: Model, calibration: Calibration) -> str:
    """A hash of everything that changes a score: weights, word rules, label, calibration."""
    raise NotImplementedError("interface only")


def save(
    folder: Path,
    model: Model,
    calibration: Calibration,
    provenance: Mapping[str, Any],
    card: Mapping[str, Any],
    files: Mapping[str, bytes],
) -> str:
    """Write the folder under a temporary name, rename it, and return the fingerprint.

    ``provenance`` says how it was trained and ``card`` sums up the evaluation, both as small JSON
    values; ``files`` are further files by relative name (``card.md``, ``figures/roc.svg``).
    """
    raise NotImplementedError("interface only")


def load(folder: Path) -> Artifact:
    """Read and check a folder that :func:`save` wrote; a ValueError names what is wrong."""
    raise NotImplementedError("interface only")
