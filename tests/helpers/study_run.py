"""A study for tests of its page: runs made here by the contract, with logs as training writes them.

Documents and task items are those of ``written_study``.
"""

import json

import numpy as np
from written_study import GROUPS, SOURCES, heldout_table, tasks_table

from ablations import report
from ablations.reading import read_study
from ablations.study_files import results
from model.training.outcome import bits_per_byte

ARMS = ["unfiltered", "filtered", "threshold", "random"]
EFFECTS = {"unfiltered": 0.0, "filtered": -0.03, "threshold": -0.02, "random": 0.004}
POOL = {
    "web": {"documents": 1000, "targets": 700_000, "bytes": 3_000_000},
    "wiki": {"documents": 200, "targets": 200_000, "bytes": 900_000},
}
KEPT = {"unfiltered": 1.0, "filtered": 0.231, "threshold": 0.23, "random": 0.229}
RULES = {
    "unfiltered": {"rule": "all"},
    "filtered": {"rule": "pareto", "parameter": 9.0},
    "threshold": {"rule": "threshold", "parameter": 0.9},
    "random": {"rule": "random", "parameter": 0.23},
}
LAYERS, EXPERTS = 3, 16


def declare(**changes):
    value = {
        "name": "made up",
        "arms": ARMS,
        "seeds": [1, 2, 3],
        "primary": results.Primary("heldout/curated", "unfiltered", "filtered", 0.01),
        "heldout": GROUPS,
        "unigram": dict.fromkeys(SOURCES, 3.0),
    }
    return results.Declaration(**(value | changes))


def write_study(path, declared=None, skip=(), **changes):
    """Every job that is declared, but those of ``skip`` (arm, variant, seed)."""
    path, declared = str(path), declared or declare()
    results.write_declaration(path, declared)
    for arm in declared.arms:
        for variant in declared.variants:
            for seed in declared.seeds:
                if (arm, variant, seed) not in skip:
                    write_run(path, arm, variant, seed, **changes)
    return path


def write_run(
    path, arm, variant, seed, evaluations=8, routers=True, tasks=True, scale=1.0, **changes
):
    effect = EFFECTS.get(arm, 0.0)
    shift = {"wiki": effect, "books": 0.7 * effect, "web": -0.5 * effect}
    heldout = heldout_table(shift, 10 * seed + len(arm))
    scale = {"": scale, "small": 0.25, "medium": 0.5, "large": 1.0}[variant]
    # Less is left to learn for a larger model.
    bits = scaled(heldout, 1 + 0.05 * np.log2(1 / scale))
    tokens = int(8_000_000 * scale)
    value = {
        "arm": arm,
        "variant": variant,
        "seed": seed,
        "config_hash": results.config_hash({"arm": arm, "variant": variant}),
        "model": f"tiny_{variant or 'main'}",
        "parameters_total": int(4_000_000 * scale),
        "parameters_active": int(1_000_000 * scale),
        "tokens": tokens,
        "unique_tokens": tokens // 2,
        "epochs": 2.0,
        "flops": 5e13 * scale**2,
        "learning_rate": 0.01,
        "wall_seconds": 90.0,
        "kwh": 0.01,
        "kwh_basis": "estimated",
        "heldout": bits_per_byte(bits),
        "provenance": provenance(arm, seed),
    } | changes
    result = results.Result(**value)
    table = tasks_table({"filtered": 0.05}.get(arm, 0.0), seed) if tasks else None
    results.write_run(path, result, bits, table)
    folder = results.JobKey(arm, variant, seed).folder(path)
    with open(f"{folder}/metrics.jsonl", "w") as file:
        for row in metrics(result, evaluations, routers):
            print(json.dumps(row), file=file)


def scaled(heldout, factor):
    index = heldout.schema.get_field_index("bits")
    bits = np.asarray(heldout["bits"]) * factor
    return heldout.set_column(index, heldout.schema.field("bits"), [bits])


def provenance(arm, seed):
    kept = {
        source: {
            name: round(n * (KEPT.get(arm, 1.0) if source == "web" else 1))
            for name, n in of.items()
        }
        for source, of in POOL.items()
    }
    return {
        "commit": "0123456789abcdef",
        "classifier": {"fingerprint": "c1a551f1e2", "kind": "hashed_linear"},
        "corpus": {
            "fingerprint": "c0ffee",
            "shards": {"data-web-00000-of-00001.arrow": "5a4d5a4d"},
            "pool": POOL,
        },
        "arm": {
            "name": arm,
            "definition": RULES.get(arm, {"rule": arm}),
            "fingerprint": f"arm-{arm}",
            "sources": kept,
        },
        "stream": f"stream-{arm}-{seed}",
    }


def page_of(path):
    """The data of a study's page."""
    return report.gather(path, read_study(path), None)


def records(data, name):
    """The rows of one of its figures."""
    found = data["figures"][name]
    return [dict(zip(found["columns"], row, strict=True)) for row in found["rows"]]


def metrics(result, evaluations, routers, lines=40):
    rng = np.random.default_rng([len(result.arm), result.seed])
    tilt = rng.dirichlet(np.full(EXPERTS, 8.0), LAYERS)
    for k in range(1, lines + 1):
        part = k / lines
        row = {"step": k, "tokens": result.tokens * part, "flops": result.flops * part}
        row["loss"] = 3 + 6 * np.exp(-5 * part) + 0.05 * rng.normal()
        if routers:
            if k % 4 == 0:  # only some lines have it
                row["expert_load"] = tilt.tolist()
            row["router_entropy"] = [np.log(EXPERTS) * (1 - 0.1 * part)] * LAYERS
            row["dropped"] = [0.05 * part] * LAYERS
        if evaluations and k % (lines // evaluations) == 0:
            row["unique_tokens"] = min(row["tokens"], result.unique_tokens)
            row["heldout"] = {
                s: v + np.exp(-4 * part) - np.exp(-4) for s, v in result.heldout.items()
            }
        yield row
