"""Measures how time, memory, files and manifest of the pipeline grow with its input.

    python benchmarks/scale.py --megabytes 10 100 1000 10000 --workers 1 2

The input is real text (benchmarks/real_text.py), repeated with other ids and hosts, in JSONL.gz
files of 50 MB of text, a third of a Common Crawl WET file. No two documents share a host: the worst
case for the statistics. Each run is a new process, start-up and imports included, on as many cores
as workers. Memory is the peak of the largest process. MB are of uncompressed text.
"""

import argparse
import os
import platform
import shutil
import sys
from pathlib import Path

from throughput import ROOT, classifier, measure, pipeline, write_corpus

FILE_BYTES = 50_000_000


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--megabytes", type=int, nargs="+", default=[10, 100, 1000, 10000])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--work", type=Path, default=ROOT / "cache" / "benchmark")
    flags = parser.parse_args()
    scorer = classifier(flags.work, "hashed_linear")
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores")
    print(f"`{' '.join(['python', *sys.argv])}`\n")
    counts = "text MB | documents | input files | workers"
    speeds = "wall s | CPU s | MB/s | documents/s | peak MB"
    print(f"| {counts} | {speeds} | shards | output MB | statistics MB | manifest kB |")
    print("|" + "---|" * 13)
    output = flags.work / "scale_output"
    for megabytes in flags.megabytes:
        size = megabytes * 10**6
        files = max(1, size // FILE_BYTES)
        corpus = write_corpus(flags.work / f"scale_{megabytes}", size, files)
        text, documents = map(int, (corpus / "size.txt").read_text().split())
        for workers in flags.workers:
            shutil.rmtree(output, ignore_errors=True)
            one = measure(pipeline(corpus, scorer, workers, output), workers)
            shards = [path.stat().st_size for path in (output / "shards").iterdir()]
            statistics = sum(path.stat().st_size for path in (output / "statistics").iterdir())
            print(
                f"| {text / 1e6:.0f} | {documents:,} | {files} | {workers} | {one.wall:.1f}"
                f" | {one.cpu:.1f} | {text / 1e6 / one.wall:.1f} | {documents / one.wall:,.0f}"
                f" | {one.memory / 1e6:.0f} | {len(shards)} | {sum(shards) / 1e6:.0f}"
                f" | {statistics / 1e6:.1f}"
                f" | {(output / 'manifest.json').stat().st_size / 1e3:.0f} |",
                flush=True,
            )
    shutil.rmtree(output, ignore_errors=True)


if __name__ == "__main__":
    main()
