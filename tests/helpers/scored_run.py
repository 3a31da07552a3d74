"""The output of a scoring run, written without one."""

import json

import pyarrow as pa
import pyarrow.parquet

from pipeline.output import schema, shards


def run_folder(folder, write="all"):
    """A run's output, as far as an audit reads it: two shards, one row dropped by a step."""
    batch = {
        "id": ["a", "b", "c", "d"],
        "source": ["web", "web", "wiki", "web"],
        "url": ["http://x.org/", "http://x.org/2", None, "http://y.org/"],
        "text": ["t"] * 4,
        "bytes": [1, 1000, 5000, 100_000],
        "characters": [1] * 4,
        "words": [1] * 4,
        "content_hash": [bytes(16)] * 4,
        "language": ["en", None, "en", "de"],
        "language_score": [None] * 4,
        "quality_score": [0.25, 0.75, 1.0, 1.0],
        "keep_draw": [0.5] * 4,
        "keep_probability": [0.1] * 4,
        "kept": [True, False, True, False],
        "drop_reason": [None, "quality", None, "url_blocked"],
    }
    table = pa.table(batch, schema=schema.shard_schema())
    tasks = []
    for i, rows in enumerate((table.slice(0, 2), table.slice(2, 2))):
        with shards.ShardWriter(
            str(folder / "shards"), f"data-{i}", table.schema, 1 << 20, "lz4"
        ) as writer:
            for part in rows.to_batches():
                writer.write(part)
        tasks.append({"shards": [{"name": shard.name} for shard in writer.shards]})
    config = {"source": {"web": [], "wiki": []}, "filter": ["web"], "write": write}
    (folder / "manifest.json").write_text(json.dumps({"config": config, "tasks": tasks}))
