"""What the page of a study shows of its routers, from the training logs of its runs."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ablations.report_curves import POINTS
from ablations.training_log import Routers, TrainingLog, smooth

Row = dict[str, Any]
Logs = Mapping[tuple[str, str, int], TrainingLog]


def expert_load(logs: Logs) -> list[Row]:
    """Share of tokens that name an expert first, by layer and expert; mean over seeds.

    ``source`` is "training" for the batches of the end of training.
    """
    rows = []
    for (arm, variant), group in _by_arm(logs).items():
        loads = [{"training": log.load, **log.load_by_source} for log in group]
        for source in loads[0]:
            mean = np.mean([load[source] for load in loads if source in load], axis=0)
            rows += [
                {"arm": arm, "variant": variant, "source": source, "layer": layer, "expert": expert}
                | {"share": _short(share), "of_even": _short(share * mean.shape[1])}
                for layer, shares in enumerate(mean)
                for expert, share in enumerate(shares)
            ]
    return rows


def routers(logs: Logs) -> list[Row]:
    """Entropy (1 where all experts are as probable) and dropped choices over tokens.

    Means over layers, of every run.
    """
    rows = []
    for (arm, variant, seed), log in logs.items():
        if (of := log.routers) is None:
            continue
        even = math.log(of.load.shape[1])
        tokens, entropy = smooth(of.tokens, of.entropy.mean(axis=1) / even, POINTS)
        _, dropped = smooth(of.tokens, of.dropped.mean(axis=1), POINTS)
        rows += [
            {"arm": arm, "variant": variant, "seed": seed, "tokens": at}
            | {"entropy": _short(spread), "dropped": _short(lost)}
            for at, spread, lost in zip(tokens, entropy, dropped, strict=True)
        ]
    return rows


def router_layers(logs: Logs) -> list[Row]:
    """The last quarter of training, by layer: mean over seeds."""
    rows = []
    for (arm, variant), group in _by_arm(logs).items():
        for layer in range(group[0].load.shape[0]):
            load = np.mean([log.load[layer] for log in group], axis=0)
            ends = [slice(-max(1, len(log.tokens) // 4), None) for log in group]
            entropy = [log.entropy[end, layer].mean() for log, end in zip(group, ends, strict=True)]
            dropped = [log.dropped[end, layer].mean() for log, end in zip(group, ends, strict=True)]
            rows.append(
                {"arm": arm, "variant": variant, "layer": layer, "experts": len(load)}
                | {"entropy": float(np.mean(entropy)) / math.log(len(load))}
                | {"dropped": float(np.mean(dropped))}
                | {
                    "busiest": float(load.max() * len(load)),
                    "idlest": float(load.min() * len(load)),
                }
                | {"unused": int((load == 0).sum())}
            )
    return rows


def _by_arm(logs: Logs) -> dict[tuple[str, str], list[Routers]]:
    """Routers of the seeds of an arm."""
    out: dict[tuple[str, str], list[Routers]] = {}
    for (arm, variant, _), log in logs.items():
        if log.routers is not None:
            out.setdefault((arm, variant), []).append(log.routers)
    return out


def _short(value: float) -> float:
    """Six significant digits: what a chart can show."""
    return float(f"{value:.6g}")
