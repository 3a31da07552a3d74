"""Compiles the kernels for ``winnow warm-up``, by a small run over all formats and steps."""

import gzip
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from pipeline.config import load
from pipeline.core import repeated_lines, task
from pipeline.core.plan import plan_tasks
from pipeline.near_duplicates import components, minhash
from pipeline.rules.decision import Rule
from pipeline.runs import execution, scoring_run
from pipeline.settings.step_settings import STEPS_FILE, resolve_steps
from pipeline.steps import build_steps
from pipeline.steps.words.word_kinds import CHARACTERS, DATATROVE
from quality_classifier import artifact, fingerprints, splits
from quality_classifier.features.hashed_features import FeatureConfig, hashed_features
from quality_classifier.kinds.calibration import Calibration
from quality_classifier.kinds.fasttext_model import FastTextModel
from quality_classifier.kinds.linear import HashedLinear
from winnow.filesystem import storage
from winnow.text import n_grams

LINE = "The river has many arms, one of the longest… It's 2,500 km long.\n- Übersetzung: 日本の川\n"
TEXT = LINE * 12
PAGE = f"<html><body><p>{LINE}</p><script>x = 1</script></body></html>"


def use_kernels(folder: Path) -> None:
    """Read, filter and score a document of each format in an empty folder."""
    inputs = folder / "input"
    inputs.mkdir()
    for name, content in _files().items():
        (inputs / name).write_bytes(content)
    table = pa.table({"text": [TEXT], "url": ["https://a.example/"]})
    pq.write_table(table, inputs / "a.parquet")
    with pa.ipc.new_file(inputs / "a.arrow", table.schema) as file:
        file.write(table)
    model = HashedLinear(FeatureConfig(), np.zeros(FeatureConfig().buckets, np.float32), 0.0)
    artifact.save(folder / "classifier", model, Calibration.identity(), {}, {}, {})
    (folder / "run.yaml").write_text(json.dumps({"steps": _steps(folder)}))
    flags = [f"--source=web={inputs}/*", "--filter=web", "--near-duplicates"]
    flags += [f"--classifier={folder}/classifier", f"--output={folder}/output"]
    config, resume, _ = load([*flags, f"--config={folder}/run.yaml"])
    tasks = plan_tasks(config.source, config.filter, config.split_bytes)
    job, about = scoring_run.describe(config, tasks, resume, say=lambda _: None)
    execution.prepare(config.output, about["key"], tasks, resume)
    for one in tasks:
        work = job.sink.work
        repeated_lines.read_lines(one, job.fields[one.source], job.reading, work)
        keys = np.unique(repeated_lines.load_lines(one, work).keys)
        repeated_lines.save_repeated(work, one.stem, [keys])
        shards = storage.join(config.output, "shards")
        task.run_task(one, job, Rule("all"), shards)
    _count_other_words()
    nodes = np.arange(2, dtype=np.uint64)
    components.join(components.Edges(nodes[1:], nodes[:1]))
    n_grams.n_gram_hashes(nodes, np.array([2]), 2)
    (folder / "model.bin").write_bytes(_fasttext_model())
    fasttext = FastTextModel(folder / "model.bin", "__label__a")
    for kind in (pa.string(), pa.large_string()):  # what training reads
        text = pa.array([TEXT], kind)
        hashed_features(text, FeatureConfig())
        model.margins(text)
        fasttext.margins(text)
        minhash.shingles(text, 2)
        column = pa.chunked_array([text])
        splits.assign(column, 0.1, 0.1)
        fingerprints.of_texts(column)


def _count_other_words() -> None:
    """Run optional parts of steps: words not split by white space, and masks of addresses."""
    settings: dict[str, Any] = {
        name: {"words": DATATROVE} for name in ("gopher", "gopher_repetition", "c4", "fineweb")
    }
    settings["c4"]["remove_lines"] = True
    text = pa.array([f"{TEXT} me@a.example 8.8.8.8"], pa.large_string())
    zeros = {name: np.zeros(1, np.int64) for name in ("bytes", "characters", "words")}
    batch = pa.RecordBatch.from_pydict({"text": text, **zeros})
    built = build_steps(resolve_steps(settings | {"pii": {}}))
    for words, stop_words in (("whitespace", ["die", "der"]), (CHARACTERS, ["日", "本"])):
        built += build_steps(resolve_steps({"gopher": {"words": words, "stop_words": stop_words}}))
    for step in built:
        for name in step.counts:
            batch = batch.append_column(name, pa.array(zeros["bytes"]))
        step(batch)


def _files() -> dict[str, bytes]:
    row = json.dumps({"text": TEXT, "url": "https://a.example/", "id": "1"})
    response = f"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n{PAGE}"
    warc = b"".join(
        _record(kind, body)
        for kind, body in (("conversion", TEXT), ("response", response), ("conversion", TEXT))
    )
    return {
        "a.jsonl": f"{row}\n{json.dumps({'text': 1})}\n".encode(),
        "a.json": f"[{row},\n{row}]".encode(),
        "a.warc.gz": gzip.compress(warc),
        "a.txt": TEXT.encode(),
        "a.html": PAGE.encode(),
        "a.csv": f'text\n"{LINE}"\n'.encode(),
    }


def _fasttext_model() -> bytes:
    """One word, two labels, one dimension, two buckets, parts of two characters (fasttext_file)."""
    head = struct.pack("<14id3i2q", 793712314, 12, *[1] * 5, 2, 3, 3, 2, 2, 2, 1, 0, 3, 1, 2, 1, -1)
    entries = (b"river\0", b"__label__a\0", b"__label__b\0")
    types = (0, 1, 1)
    words = b"".join(e + struct.pack("<qb", 1, t) for e, t in zip(entries, types, strict=True))
    matrices = (struct.pack(f"<?2q{n}f", False, n, 1, *[1.0] * n) for n in (3, 2))
    return head + words + b"".join(matrices)


def _record(kind: str, body: str) -> bytes:
    octets = body.encode()
    head = f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: https://a.example/\r\n"
    media = "text/plain" if kind == "conversion" else "application/http; msgtype=response"
    head += f"Content-Type: {media}\r\nContent-Length: {len(octets)}\r\n\r\n"
    return head.encode() + octets + b"\r\n\r\n"


def _steps(folder: Path) -> dict[str, Any]:
    """All steps, with files for those that need them."""
    written = {"domains": "a.example\n", "words": "bad\n日本\n", "held_out": TEXT}
    path = {}
    for name, content in written.items():
        (folder / f"{name}.txt").write_text(content, encoding="utf-8")
        path[name] = [str(folder / f"{name}.txt")]
    with open(STEPS_FILE, encoding="utf-8") as file:
        steps: dict[str, Any] = dict.fromkeys(yaml.safe_load(file))
    words = path["words"]
    return steps | {
        "url_blocklist": {"domains": path["domains"], "words": words, "substrings": words},
        "c4": {"bad_words": words},
        "decontamination": {"files": path["held_out"]},
        "language": {"languages": []},
    }
