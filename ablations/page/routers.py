"""The routers of a study as rows for its page, from the training logs of its runs."""

import math
from collections.abc import Mapping

import numpy as np

from ablations.page.curves import POINTS
from ablations.page.training_log import Routers, TrainingLog, last_lines, smooth
from ablations.study_files.results import FloatArray, JobKey
from ablations.study_files.table import Row

Logs = Mapping[JobKey, TrainingLog]


def expert_load(logs: Logs) -> list[Row]:
    """Share of tokens whose first choice is an expert, by layer, in each arm's first seed.

    Experts of different seeds are unrelated, so there is no mean over seeds. ``source`` is
    "training" for the last training batches, else a source of held-out text.
    """
    rows = []
    for (arm, variant), group in _by_arm(logs).items():
        seed, router = next(iter(group.items()))
        for source, load in {"training": router.load, **router.load_by_source}.items():
            rows += [
                {"arm": arm, "variant": variant, "seed": seed, "source": source}
                | {"layer": layer, "expert": expert}
                | {"share": _short(share), "of_even": _short(share * len(shares))}
                for layer, shares in enumerate(load)
                for expert, share in enumerate(shares)
            ]
    return rows


def routers(logs: Logs) -> list[Row]:
    """Router entropy (1: uniform) and share of dropped choices during training; layer means."""
    rows = []
    for (arm, variant, seed), log in logs.items():
        if (router := log.routers) is None:
            continue
        even = math.log(router.load.shape[1])
        tokens, entropy = smooth(router.tokens, router.entropy.mean(axis=1) / even, POINTS)
        _, dropped = smooth(router.tokens, router.dropped.mean(axis=1), POINTS)
        rows += [
            {"arm": arm, "variant": variant, "seed": seed, "tokens": at}
            | {"entropy": _short(spread), "dropped": _short(lost)}
            for at, spread, lost in zip(tokens, entropy, dropped, strict=True)
        ]
    return rows


def router_layers(logs: Logs) -> list[Row]:
    """Each layer's router over the last quarter of training: means over seeds.

    ``busiest`` and ``idlest`` are relative to an even share, ``unused`` is the number of experts
    that were no token's first choice.
    """
    rows = []
    for (arm, variant), group in _by_arm(logs).items():
        layers, experts = next(iter(group.values())).load.shape
        columns = [_layers(log) for log in group.values()]
        means = {name: np.mean([each[name] for each in columns], axis=0) for name in columns[0]}
        rows += [
            {"arm": arm, "variant": variant, "seeds": len(group), "layer": layer}
            | {"experts": experts}
            | {name: _short(values[layer]) for name, values in means.items()}
            for layer in range(layers)
        ]
    return rows


def _layers(log: Routers) -> dict[str, FloatArray]:
    """The columns of :func:`router_layers` for one run: float64 [L] each."""
    experts = log.load.shape[1]
    return {
        "entropy": _end(log.entropy) / math.log(experts),
        "dropped": _end(log.dropped),
        "busiest": log.load.max(axis=1) * experts,
        "idlest": log.load.min(axis=1) * experts,
        "unused": (log.load == 0).sum(axis=1).astype(np.float64),
    }


def _end(values: FloatArray) -> FloatArray:
    """The mean over the end of training: [lines, L] to [L]."""
    return np.mean(values[-last_lines(len(values)) :], axis=0)


def _by_arm(logs: Logs) -> dict[tuple[str, str], dict[int, Routers]]:
    out: dict[tuple[str, str], dict[int, Routers]] = {}
    for (arm, variant, seed), log in logs.items():
        if log.routers is not None:
            out.setdefault((arm, variant), {})[seed] = log.routers
    return out


def _short(value: float) -> float:
    """Six significant digits, enough for a chart."""
    return float(f"{value:.6g}")
