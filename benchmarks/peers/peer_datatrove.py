"""datatrove's reader, fastText filter and writer: a contender of benchmarks/throughput.py."""

import sys

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.filters import FastTextClassifierFilter
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter

if __name__ == "__main__":
    corpus, model, output, workers = sys.argv[1:]
    LocalPipelineExecutor(
        pipeline=[
            JsonlReader(corpus, compression="gzip", glob_pattern="*.jsonl.gz"),
            FastTextClassifierFilter(model, keep_labels=("curated", 0.5), newline_replacement=" "),
            JsonlWriter(f"{output}/kept"),
        ],
        tasks=16,
        workers=int(workers),
        logging_dir=f"{output}/logs",
    ).run()
