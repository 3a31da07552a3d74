"""datatrove's four MinHash stages: a contender of benchmarks/near_duplicates.py.

``OUTPUT/clusters`` then holds pairs of document and cluster for each file of the corpus.
"""

import sys
from pathlib import Path

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import (
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
    MinhashDedupSignature,
)
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter
from datatrove.utils.text import TextNormConfig

WORDS = TextNormConfig(norm_numbers=False)  # as ours
CONFIG = MinhashConfig(n_grams=5, num_buckets=14, hashes_per_bucket=8, norm_config=WORDS)

if __name__ == "__main__":
    corpus, output, workers = sys.argv[1:]
    files = len(list(Path(corpus).glob("*.jsonl.gz")))
    read = JsonlReader(corpus, compression="gzip", glob_pattern="*.jsonl.gz")
    stages = [
        (files, [read, MinhashDedupSignature(f"{output}/signatures", CONFIG, language="eng")]),
        (14, [MinhashDedupBuckets(f"{output}/signatures", f"{output}/pairs", config=CONFIG)]),
        (1, [MinhashDedupCluster(f"{output}/pairs", f"{output}/clusters", CONFIG, True, True)]),
        (files, [read, MinhashDedupFilter(f"{output}/clusters"), JsonlWriter(f"{output}/kept")]),
    ]
    for number, (tasks, steps) in enumerate(stages):
        LocalPipelineExecutor(
            pipeline=steps,
            tasks=tasks,
            workers=int(workers),
            logging_dir=f"{output}/logs/{number}",
        ).run()
