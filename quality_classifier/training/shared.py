"""Shared parts of training from classes, labels and pairs."""

import functools
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.readers import ReadOptions
from quality_classifier import artifact, fingerprints
from quality_classifier.kinds import KINDS
from quality_classifier.kinds.calibration import Calibration, Grades
from quality_classifier.kinds.contract import Fitting, Model
from quality_classifier.train_config import TrainConfig
from quality_classifier.training.documents import Input, Source, find_sources, read
from winnow.commands import console
from winnow.filesystem import inputs
from winnow.version import code_version

INPUTS = ("positive", "negative", "labels", "pairs")


def check_kind(kind: str, known: Collection[str], role: str) -> None:
    """Raise ValueError if a kind of classifier can't learn from data of this role."""
    if kind not in known:
        raise ValueError(f"kind={kind} can't learn from {role}: choose one of {', '.join(known)}")


def read_documents(
    config: TrainConfig,
    values: Mapping[str, Any],
    further: Mapping[str, str],
    text: str | None = None,
) -> tuple[pa.Table, list[Source], list[dict[str, Any]]]:
    """The documents of the roles in ``values``, their sources, and counts of unreadable records.

    ``further`` maps columns to input fields; ``text`` overrides the field of the text.

    Raises:
        ValueError: the input can't be read with these settings, or the output exists.
    """
    if os.path.exists(config.output):
        raise ValueError(f"{config.output} exists already: choose another output, or remove it")
    find = functools.partial(inputs.find, say=say)
    field = config.field if text is None else config.field | {"text": text}
    sources = find_sources(values, field, find, say)
    options = ReadOptions.of(config)
    how = Input(options, tuple(config.metadata), config.list_separator, further)
    documents, unreadable = read(sources, how, say)
    return documents, sources, unreadable


def fitting(config: TrainConfig, folder: str) -> Fitting:
    """The configured fitting of a model; fastText needs ``folder`` for its files."""
    settings = getattr(config, config.kind)
    return Fitting(settings, config.calibration, config.seed, Path(folder), say)


def origin(config: TrainConfig) -> dict[str, Any]:
    """The kind, seed and code of a classifier, for its card."""
    return {"kind": config.kind, "seed": config.seed, "code": code_version()}


def save(
    config: TrainConfig,
    sources: Sequence[Source],
    model: Model,
    calibration: Calibration,
    card: Mapping[str, Any],
    files: Mapping[str, bytes],
    learned: pa.ChunkedArray,
    grades: Grades | None = None,
) -> None:
    """Write the folder of a classifier (:func:`artifact.save`), trained on ``learned`` texts."""
    provenance = {
        "code": card["code"],
        "settings": settings(config),
        "sources": {
            role: {s.name: list(s.paths) for s in sources if s.role == role}
            for role in INPUTS
            if getattr(config, role) is not None
        },
    }
    files = {**files, fingerprints.NAME: fingerprints.dumps(fingerprints.of_texts(learned))}
    artifact.save(Path(config.output), model, calibration, provenance, card, files, grades)


def settings(config: TrainConfig) -> dict[str, Any]:
    """The settings that affect the classifier."""
    out = asdict(config)
    for name in (*INPUTS, "output", *(set(KINDS) - {config.kind})):
        del out[name]
    if config.labels is None:
        for name in ("target", "grades", "at_least"):
            del out[name]
    if config.labels is None and config.pairs is None:
        del out["group"]
    return out


def whole(text: pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays(text.chunks) if text.num_chunks else pa.array([], text.type)


def say(line: str) -> None:
    """Report progress, with the seconds since the start."""
    console.say(f"{console.elapsed():6.1f} s  {line}")
