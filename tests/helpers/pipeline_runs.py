"""Command lines of small runs of the pipeline, and what they wrote."""

import json
from pathlib import Path

import pyarrow as pa

RUN = Path(__file__).resolve().parents[2] / "pipeline" / "run.py"


def flags(folder, *more, alpha="2"):
    return [
        f"--source=web={folder}/web/*.gz",
        f"--source=web={folder}/web/*.jsonl",
        f"--source=wiki={folder}/wiki/*",
        "--filter=web",
        f"--classifier={folder}/classifier",
        f"--alpha={alpha}",
        "--seed=5",
        *more,
    ]


def shards(output):
    paths = sorted((output / "shards").iterdir())
    return pa.concat_tables(pa.ipc.open_file(path).read_all() for path in paths)


def manifest(output):
    return json.loads((output / "manifest.json").read_text())
