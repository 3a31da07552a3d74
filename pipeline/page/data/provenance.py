"""The provenance of a run, for its page."""

import json
from collections.abc import Mapping
from typing import Any

from pipeline.page.data.totals import clip

FILES_SHOWN = 200
SETTINGS_BYTES = 100_000


def bounded(value: Any) -> Any:
    """``value``, or a note if too long for the page."""
    if len(json.dumps(value)) <= SETTINGS_BYTES:
        return value
    return "(too long for this page: see manifest.json)"


def provenance(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Code, configuration, inputs, shards and statistics; long lists are cut."""
    tasks = manifest["tasks"]
    inputs = [
        [
            task["task"]["source"],
            clip(part["path"]),
            *(part[name] for name in ("start", "end", "size")),
            task["input_digest"],
        ]
        for task in tasks
        for part in [task["task"]["input"]]
    ]
    shards = [
        [clip(shard["name"]), shard["rows"], shard["bytes"], shard["checksum"]]
        for task in tasks
        for shard in task["shards"]
    ]
    return {
        "code": manifest["code"],
        "key": manifest["key"],
        "seed": manifest["config"]["seed"],
        "config": bounded(manifest["config"]),
        "duplicate_ids": manifest["duplicate_ids"],
        "inputs": inputs[:FILES_SHOWN],
        "n_inputs": len(inputs),
        "input_bytes": sum(row[4] for row in inputs),
        "shards": shards[:FILES_SHOWN],
        "n_shards": len(shards),
        "shard_bytes": sum(row[2] for row in shards),
        "statistics": manifest["statistics"],
    }
