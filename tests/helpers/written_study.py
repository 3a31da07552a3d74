"""The results of a study, written without training: what `ablations/compare.py` reads."""

import json

import numpy as np
import pyarrow as pa

from ablations.study_files import results
from model.training.outcome import HELDOUT_SCHEMA, bits_per_byte

SOURCES = {"wiki": 1.0, "books": 1.2, "web": 1.4}

GROUPS = {"curated": ["wiki", "books"], "web": ["web"]}

DOCUMENTS = 60


def declare(**changes):
    value = {
        "name": "synthetic",
        "arms": ["unfiltered", "filtered"],
        "seeds": [1, 2, 3, 4, 5],
        "primary": results.Primary("heldout/curated", "unfiltered", "filtered", 0.01),
        "heldout": GROUPS,
        "unigram": dict.fromkeys(SOURCES, 3.0),
    }
    return results.Declaration(**(value | changes))


def heldout_table(shift, seed, seed_sd=0.002):
    """Documents, the same in all runs, whose bits per byte move by ``shift`` (per source)."""
    fixed, noise = np.random.default_rng(0), np.random.default_rng([1, seed])
    tables = []
    for source, base in SOURCES.items():
        size = fixed.integers(500, 4000, DOCUMENTS)
        level = base + 0.1 * fixed.normal(size=DOCUMENTS)
        level = level + shift.get(source, 0.0) + seed_sd * noise.normal()
        level = level + 0.01 * noise.normal(size=DOCUMENTS)
        names = [f"{source}-{i}" for i in range(DOCUMENTS)]
        columns = [[source] * DOCUMENTS, names, level * size, size]
        tables.append(pa.table(columns, schema=HELDOUT_SCHEMA))
    return pa.concat_tables(tables)


def tasks_table(lift, seed):
    noise = np.random.default_rng([2, seed])
    rows = []
    for task, metric, level, guess in (
        ("boolq", "accuracy", 0.5, 0.5),
        ("piqa", "accuracy", 0.8 + lift, 0.5),
        ("squad_v2", "f1", 0.4 + lift, None),
        ("squad_v2", "exact_match", 0.3 + lift, None),
        ("piqa", "gold_bits_per_byte", 0.9, None),
    ):
        for i in range(200):
            score = float(noise.random() < level)
            rows.append((task, 0, metric, f"{i:03d}", f"passage-{i // 2:03d}", score, 1.0, guess))
    columns = [list(column) for column in zip(*rows, strict=True)]
    return pa.table(columns, schema=results.TASKS)


def write_run(study, arm, seed, shift, variant="", lift=0.0, evaluations=4, tasks=True, **changes):
    heldout = heldout_table(shift, 10 * seed + len(arm))
    value = {
        "arm": arm,
        "variant": variant,
        "seed": seed,
        "config_hash": results.config_hash({"arm": arm, "variant": variant}),
        "model": "tiny",
        "parameters_total": 4_000_000,
        "parameters_active": 1_000_000,
        "tokens": 8_000_000,
        "unique_tokens": 4_000_000,
        "epochs": 2.0,
        "flops": 5e13,
        "learning_rate": 0.01,
        "wall_seconds": 60.0,
        "kwh": 0.01,
        "kwh_basis": "estimated",
        "heldout": bits_per_byte(heldout),
    } | changes
    result = results.Result(**value)
    if isinstance(tasks, bool):
        tasks = tasks_table(lift, seed) if tasks else None
    results.write_run(study, result, heldout, tasks)
    folder = results.JobKey(arm, variant, seed).folder(study)
    with open(f"{folder}/metrics.jsonl", "w") as file:
        for k in range(1, evaluations + 1):
            part = k / evaluations
            row = {"step": k, "loss": 3 - part, "tokens": result.tokens * part}
            print(json.dumps(row), file=file)
            row["unique_tokens"] = min(row["tokens"], result.unique_tokens)
            row["flops"] = result.flops * part
            row["heldout"] = {s: v + 1 - part for s, v in result.heldout.items()}
            print(json.dumps(row), file=file)


def write_study(path, effect, declared=None, **changes):
    declared = declared or declare()
    results.write_declaration(path, declared)
    for arm in declared.arms:
        shift = dict.fromkeys(("wiki", "books"), effect if arm == "filtered" else 0.0)
        for seed in declared.seeds:
            write_run(path, arm, seed, shift, **changes)
    return path


def few_shot_table():
    """BoolQ and PIQA with 0 and 1 shots and their own, TriviaQA whose own number is 1."""
    own = {"boolq": 8, "piqa": 32, "triviaqa": 1}
    rows = []
    for task, metric in (("boolq", "accuracy"), ("piqa", "accuracy"), ("triviaqa", "exact_match")):
        for shots in sorted({0, 1, own[task]}):
            # The score tells the shots: 0.1 with none, 0.2 with one, 0.3 with more.
            right = {0: 20, 1: 40}.get(shots, 60)
            rows += [
                (task, shots, metric, f"{i:03d}", f"{i:03d}", float(i < right), 1.0, None)
                for i in range(200)
            ]
    columns = [list(column) for column in zip(*rows, strict=True)]
    return pa.table(columns, schema=results.TASKS)
