"""A finished run for tests of the page: documents made here, counted and written as in a run."""

import numpy as np
import pyarrow as pa

from pipeline.core import finish
from pipeline.core.identity import content_hashes
from pipeline.core.task import decide_batch
from pipeline.output import manifest, output_folder, schema, shards, summary_files
from pipeline.output.records import Record, Task
from pipeline.output.summary import TaskSummary
from pipeline.readers import InputRange
from pipeline.rules.decision import keep_draw
from pipeline.rules.groups import to_json
from winnow.filesystem import storage
from winnow.text.counts import measure

FILTERED = {"web", "mail"}

CARD = {
    "kind": "hashed_linear",
    "held_out": {"roc_auc": 0.9712, "average_precision": 0.9655, "brier": 0.0621},
    "per_source": [
        {"source": "web", "documents": 1200, "roc_auc": 0.96, "ece": 0.0213},
        {"source": "wiki", "documents": 300, "roc_auc": 0.98, "ece": 0.0107},
    ],
}


def scored(source, texts, urls, scores, seed=0, reasons=None):
    """Documents as they reach the keep decision."""
    n = len(texts)
    text = pa.array(texts, pa.large_string())
    n_bytes, n_characters, n_words = measure(text)
    ids = pa.array([f"{source}-{i}" for i in range(n)])
    columns = {
        "id": ids,
        "source": pa.array([source] * n),
        "url": pa.array(urls, pa.string()),
        "text": text,
        "bytes": n_bytes,
        "characters": n_characters,
        "words": n_words,
        "content_hash": content_hashes(text),
        "language": pa.nulls(n, pa.string()),
        "language_score": pa.nulls(n, pa.float32()),
        "quality_score": np.asarray(scores, np.float32),
        "keep_draw": keep_draw(ids, seed),
        "keep_probability": np.zeros(n, np.float32),
        "kept": np.zeros(n, np.bool_),
        "drop_reason": pa.array(reasons or [None] * n, pa.string()),
    }
    fields = schema.shard_schema()
    return pa.RecordBatch.from_arrays([pa.array(columns[f.name]) for f in fields], schema=fields)


def invented(source, n, rng, hosts=40):
    """n documents with skewed scores and host names; a tenth was dropped by a step."""
    words = np.array(["the", "of", "and", "buy", "now", "page", "click", "history", "river"])
    texts = [" ".join(rng.choice(words, rng.integers(5, 60))) for _ in range(n)]
    host = (hosts * rng.random(n) ** 2).astype(int)
    urls = [f"https://host{h}.example/{i}" for i, h in enumerate(host)]
    step = rng.random(n)
    reasons = [None if r > 0.1 else "language" if r > 0.03 else "gopher_words" for r in step]
    return scored(source, texts, urls, rng.beta(0.5, 1.2, n), reasons=reasons)


def documents(n=400):
    """Documents of two sources that a run filters and of one that it does not."""
    rng = np.random.default_rng(1)
    return {
        "web": invented("web", n, rng, hosts=300),
        "mail": invented("mail", n // 2, rng),
        "wiki": invented("wiki", n // 4, rng),
    }


def kept_at(batch, rule, filtered=True):
    """Documents, bytes and words of a source that a rule keeps."""
    kept = decide_batch(batch, rule, filtered)
    kept = kept.filter(kept["kept"])
    return [len(kept), sum(kept["bytes"].to_pylist()), sum(kept["words"].to_pylist())]


def write_run(
    output, batches, rule, filtered, quarantined=0, card=CARD, write="all", decision=None
):
    """Decide, count and write ``batches`` (by source) as a run does; returns the manifest."""
    tasks, summaries = [], []
    for order, (source, batch) in enumerate(batches.items()):
        decided = decide_batch(batch, rule, source in filtered)
        summary = TaskSummary(source, source in filtered, rule)
        summary.update(decided)
        summary.quarantine(quarantined)
        place = InputRange(f"input/{source}.jsonl.gz", 0, None, 1000 + order)
        task = Task(source, source in filtered, place, 0, 1, order)
        folder = storage.join(str(output), "shards")
        with shards.ShardWriter(folder, task.stem, batch.schema, 1 << 30, "lz4") as writer:
            writer.write(decided if write == "all" else decided.filter(decided["kept"]))
        summaries.append(storage.join(str(output), "_work", f"{task.stem}.summary.arrow"))
        summary_files.write(summaries[-1], summary.tables())
        tasks.append(Record(task, "key", "0" * 32, tuple(writer.shards), quarantined, None))
    output_folder.begin(str(output), "cafe", frozenset((source, 1) for source in batches))
    finish.write_output(
        str(output),
        code="0.1.0",
        config={
            "source": {source: [f"input/{source}*"] for source in batches},
            "filter": sorted(filtered),
            "classifier": "classifier/",
            "decision": decision
            or {"rule": rule.name, "target_fraction": None, "deduplicate": False},
            "metadata": [],
            "seed": 0,
            "write": write,
        },
        key="cafe",
        rule=to_json(rule),
        classifier={"path": "classifier/", "fingerprint": "f00d", "card": card},
        tasks=tasks,
        summaries=summaries,
        duplicate_ids=0,
    )
    return manifest.read_manifest(str(output))
