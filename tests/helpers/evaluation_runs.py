"""A trained run and local tasks to evaluate it on."""

import json

from ablations.evaluate import EvaluateConfig

SENTENCES = ["the wind fell far", "a grain of wind", "winnow the grain", "42 grain fell, far"]


def write_lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def local_data(folder):
    write_lines(
        folder / "piqa.jsonl",
        [
            {"goal": s, "sol1": "wind", "sol2": "the grain", "label": i % 2}
            for i, s in enumerate(SENTENCES)
        ],
    )
    write_lines(
        folder / "piqa.train.jsonl",
        [{"goal": "TRAIN", "sol1": "far", "sol2": "of", "label": 0}] * 3,
    )
    write_lines(
        folder / "natural_questions_open.jsonl",
        [{"question": s, "answer": ["wind", "the wind"]} for s in SENTENCES],
    )
    return folder


def config(run, data, output, **changes):
    values = {
        "run": str(run / "trained"),
        "output": str(output),
        "tasks": ["piqa", "natural_questions", "race_h"],
        "shots": 0,
        "seed": 0,
        "places": ["local"],
        "local": str(data),
        "cache": str(output),
        "device": "cpu",
        "precision": "fp32",
        "batch_tokens": 1024,
        "length": 128,
    }
    return EvaluateConfig(**values | changes)
