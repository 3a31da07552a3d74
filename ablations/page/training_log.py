"""Training loss and router statistics of a run, from ``metrics.jsonl``.

``model/train.py`` logs ``tokens`` and ``loss``; with experts also ``router_entropy`` [L] and
``dropped`` [L], in some lines ``expert_load`` [L, E], and in evaluations ``heldout_expert_load`` =
{source: [L, E]}, with L MoE layers and E experts.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ablations.study_files.results import CURVE, FloatArray, JobKey
from winnow.filesystem import storage

LAST = 0.25
"""The end of a run, over which loads are averaged."""


@dataclass(frozen=True)
class Routers:
    """``tokens`` [lines], ``entropy`` (nats) and ``dropped`` (share of choices) [lines, L].

    ``load`` [L, E] is the share of tokens with an expert as first choice, a mean over the last
    quarter of the run or else the last logged; ``load_by_source`` the same on held-out text.
    """

    tokens: FloatArray
    entropy: FloatArray
    dropped: FloatArray
    load: FloatArray
    load_by_source: Mapping[str, FloatArray]


@dataclass(frozen=True)
class TrainingLog:
    """Training loss in nats per token, over tokens, both [lines]; no routers if dense."""

    tokens: FloatArray
    loss: FloatArray
    routers: Routers | None


def read_log(study: str, job: JobKey) -> TrainingLog | None:
    """The log of a complete job; None without one."""
    path = storage.join(job.folder(study), CURVE)
    if not storage.exists(path):
        return None
    rows = [json.loads(line) for line in storage.read_bytes(path).splitlines()]
    # A loss that was not finite is null: its step was skipped.
    lines = [row for row in rows if row.get("loss") is not None]
    return TrainingLog(_column(lines, "tokens"), _column(lines, "loss"), _routers(rows))


def last_lines(lines: int) -> int:
    """The number of lines in the end of a run."""
    return max(1, round(LAST * lines))


def thin(values: FloatArray, points: int) -> npt.NDArray[np.int64]:
    """At most ``points`` evenly spaced indices of an array, with both ends."""
    return np.unique(np.linspace(0, len(values) - 1, min(points, len(values))).round().astype(int))


def smooth(tokens: FloatArray, loss: FloatArray, points: int) -> tuple[FloatArray, FloatArray]:
    """At most ``points`` means of neighbours, each at its last token count."""
    if not len(tokens):
        return tokens, loss
    edges = np.linspace(0, len(tokens), min(points, len(tokens)) + 1).round().astype(int)
    return tokens[edges[1:] - 1], np.add.reduceat(loss, edges[:-1]) / np.diff(edges)


def _routers(rows: Sequence[Mapping[str, Any]]) -> Routers | None:
    rows = [row for row in rows if "router_entropy" in row]
    last = rows[-last_lines(len(rows)) :]
    loads = [row for row in last if "expert_load" in row]
    loads = loads or [row for row in rows if "expert_load" in row][-1:]
    if not loads:
        return None
    by_source = [row["heldout_expert_load"] for row in last if "heldout_expert_load" in row]
    return Routers(
        _column(rows, "tokens"),
        _column(rows, "router_entropy"),
        _column(rows, "dropped"),
        _column(loads, "expert_load").mean(axis=0),
        {
            source: _column(by_source, source).mean(axis=0)
            for source in (by_source[0] if by_source else ())
        },
    )


def _column(rows: Sequence[Mapping[str, Any]], name: str) -> FloatArray:
    return np.array([row[name] for row in rows], np.float64)
