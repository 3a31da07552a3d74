"""Scored folders as the pipeline writes them, made by hand for the tests of the token corpus."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from model.prepare import PrepareConfig, TokenizerConfig, prepare
from pipeline.output.schema import shard_schema

WORDS = [
    "the",
    "a",
    "of",
    "winnow",
    "grain",
    "wind",
    "über",
    "漢字",
    "naïve",
    "42",
    "fell,",
    "far\n",
]


def documents(count, seed=0, sources=("web", "wiki")):
    """Rows of random words; about half of the web ones kept, a few dropped by another step."""
    random = np.random.default_rng(seed)
    rows = []
    for i in range(count):
        source = sources[i % len(sources)]
        text = " ".join(random.choice(WORDS, random.integers(0, 40)))
        kept = source != "web" or bool(random.random() < 0.5)
        reason = None if kept else ("language" if random.random() < 0.3 else "quality")
        rows.append({"id": f"{source}-{seed}-{i}", "source": source, "text": text})
        rows[-1] |= {"kept": kept, "drop_reason": reason, "quality_score": random.random()}
    return rows


def to_batch(rows):
    filled = []
    for row in rows:
        data = row["text"].encode()
        filled.append(
            {
                "url": None,
                "bytes": len(data),
                "characters": len(row["text"]),
                "words": len(row["text"].split()),
                "content_hash": xxhash.xxh3_128_digest(data),
                "language": None,
                "language_score": None,
                "quality_score": 0.5,
                "keep_draw": xxhash.xxh3_64_intdigest(row["id"].encode()) / 2**64,
                "keep_probability": 0.5,
                "kept": True,
                "drop_reason": None,
            }
            | row
        )
    return pa.RecordBatch.from_pylist(filled, schema=shard_schema(copies="copies" in rows[0]))


def write_scored(folder, shards, write="all", key="key", form="arrow"):
    """``shards`` is a list of lists of rows; each shard gets batches of at most 7 rows."""
    (folder / "shards").mkdir(parents=True)
    tasks = []
    for index, rows in enumerate(shards):
        name = f"data-mixed-{index:05d}-of-{len(shards):05d}.{form}"
        path = folder / "shards" / name
        new = {"arrow": pa.ipc.new_file, "parquet": pq.ParquetWriter}[form]
        with new(str(path), to_batch(rows[:1]).schema) as writer:
            for start in range(0, len(rows), 7):
                writer.write_batch(to_batch(rows[start : start + 7]))
        shard = {
            "name": name,
            "rows": len(rows),
            "bytes": path.stat().st_size,
            "checksum": xxhash.xxh3_128_hexdigest(path.read_bytes()),
        }
        for source in sorted({row["source"] for row in rows}):
            task = {"source": source, "filtered": source == "web"}
            tasks.append({"task": task, "shards": [shard] if source == rows[0]["source"] else []})
    tasks.sort(key=lambda task: [shard["name"] for shard in task["shards"]])
    manifest = {"format": 1, "key": key, "config": {"write": write}, "tasks": tasks}
    manifest["classifier"] = {"fingerprint": "a classifier"}
    manifest["rule"] = {"name": "pareto", "parameter": 1.0, "ties": 1.0}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def settings(scored, output, vocabulary=300, held_out=0.2, workers=1, **tokenizer):
    trained = {"vocabulary": vocabulary, "sample_bytes": 10**8, "boundary": "<eos>"} | tokenizer
    return PrepareConfig(str(scored), str(output), TokenizerConfig(**trained), held_out, workers)


def make_corpus(folder, shards, **options):
    """A corpus of these rows below ``folder``."""
    scored = write_scored(folder / "scored", shards)
    return prepare(settings(scored, folder / "corpus", **options))


SHARDS = [documents(70, seed=3, sources=("web", "wiki", "books")), documents(50, seed=4)]


def key_of(corpus, document, seed, epoch):
    """SplitMix64's finaliser in Python integers."""
    row_id = corpus.ids(np.array([document]))[0]
    x = xxhash.xxh3_64_intdigest(row_id.encode())
    x ^= xxhash.xxh3_64_intdigest(f"order {seed} {epoch}".encode())
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
    return x ^ (x >> 31)
