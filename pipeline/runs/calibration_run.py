"""Fits and writes a calibration of combined scores. See :mod:`pipeline.calibrate`."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.core import scores
from pipeline.core.joined import of_manifest
from pipeline.core.scores import Combined
from pipeline.output import manifest, run_notes
from pipeline.settings.classifier_settings import missing_in, with_joined
from quality_classifier.kinds.calibration import Calibration, log_odds
from quality_classifier.kinds.fitting import calibrated_loss, fit_calibration
from winnow.commands import console
from winnow.filesystem import storage, tables

_LEAST = 2.0**-24
"""Scores are clipped this far from 0 and 1 in the fit, which needs finite log odds."""


def run(
    scored: str,
    positive: Sequence[str],
    negative: Sequence[str],
    combine: str | None,
    method: str,
    output: str,
) -> None:
    """Calibrate from the scores of a finished run; see ``winnow calibrate --help``.

    Raises:
        ValueError: the run has one classifier or lacks a source, or the output exists.
    """
    if storage.exists(output):
        raise ValueError(f"{output} exists already: choose another --output, or remove it")
    about = manifest.read_manifest(scored)
    classifier = about["classifier"]
    if "several" not in classifier:
        raise ValueError(
            f"{scored} was scored by one classifier, which is calibrated already: run again with"
            " --classifier NAME=PATH for each of several"
        )
    names = tuple(sorted(classifier["several"]))
    combined = with_joined(names, combine or classifier["combine"], missing_in(about))
    columns = [field for one in of_manifest(about.get("joins", {})) for field in one.columns]
    combined.check(pa.schema(columns))
    _check_sources(positive, negative, set(about["accounting"]))
    with console.doing(f"reading the scores of {scored}"):
        good, raw = (
            _combined(scored, about, sources, combined) for sources in (positive, negative)
        )
    calibration, losses = fit(good, raw, method)
    value = {
        "format": scores.CALIBRATION_FORMAT,
        "combine": combined.rule,
        "classifiers": {n: one["fingerprint"] for n, one in classifier["several"].items()},
        "calibration": calibration.to_json(),
        "scored": about["key"],
        "positive": sorted(positive),
        "negative": sorted(negative),
        "documents": {"positive": len(good), "negative": len(raw)},
        "log_loss": losses,
    }
    storage.write_json(output, value)
    for note in run_notes.trained_on(about):
        print(f"warning: {note}", file=sys.stderr)
    print(f"combination:  {combined.rule} of {', '.join(names)}")
    print(f"documents:    {len(good):,} of {', '.join(positive)}, {len(raw):,} of"
          f" {', '.join(negative)}")  # fmt: skip
    print(f"log loss:     {losses['before']:.4f} before, {losses['after']:.4f} calibrated")
    print(f"next: add --calibration {output} to winnow run or winnow decide, and --combine"
          f" {combined.rule!r}")  # fmt: skip


def fit(
    good: npt.NDArray[np.float32], raw: npt.NDArray[np.float32], method: str
) -> tuple[Calibration, dict[str, float]]:
    """Calibrate combined scores of good and raw text; also returns the log loss before and after.

    Both classes weigh the same, as for single classifiers. The losses are those of the fit.

    Raises:
        ValueError: a class is empty, or higher scores do not mean better text.
    """
    for title, found in (("positive", good), ("negative", raw)):
        if not len(found):
            raise ValueError(f"the {title} sources have no documents: nothing can be calibrated")
    score = np.clip(np.concatenate([good, raw]).astype(np.float64), _LEAST, 1 - _LEAST)
    margin = log_odds(score)
    positive = np.arange(len(score)) < len(good)
    n = len(score)
    weight = np.where(positive, n / (2 * len(good)), n / (2 * len(raw)))
    if not (margin[positive].mean() > margin[~positive].mean()):
        raise ValueError(
            "the combination scores positive sources no higher than negative ones: are --positive"
            " and --negative the right way round?"
        )
    calibration = fit_calibration(margin, positive, weight, method)
    losses = {
        name: calibrated_loss(of, margin, positive, weight)
        for name, of in (("before", Calibration.identity()), ("after", calibration))
    }
    return calibration, losses


def _check_sources(positive: Sequence[str], negative: Sequence[str], known: set[str]) -> None:
    if both := sorted(set(positive) & set(negative)):
        raise ValueError(f"{', '.join(both)} can't be both --positive and --negative")
    if unknown := sorted({*positive, *negative} - known):
        raise ValueError(
            f"the run has no source {', '.join(unknown)}: it has {', '.join(sorted(known))}"
        )


def _combined(
    scored: str, about: Mapping[str, Any], sources: Sequence[str], combined: Combined
) -> npt.NDArray[np.float32]:
    """The combined scores of some sources, in the order of shard names."""
    tasks = [task for task in about["tasks"] if task["task"]["source"] in sources]
    names = sorted(shard["name"] for task in tasks for shard in task["shards"])
    parts = [np.empty(0, np.float32)]
    needed = ["quality_score", *combined.columns]
    for name in names:
        batches = tables.batches(storage.join(scored, "shards", name), needed)
        parts += [combined.again(batch)["quality_score"].to_numpy() for batch in batches]
    return np.concatenate(parts)
