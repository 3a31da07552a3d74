"""The pipeline against its peers on the same documents and cores: MB/s, memory, ratios.

    python -m venv cache/peers && cache/peers/bin/pip install 'datatrove[io,processing]==0.10.1'
    pip install orjson
    python benchmarks/throughput.py --megabytes 200 --rounds 3 --workers 1

The input is real text (benchmarks/real_text.py), repeated with other ids and URLs, as JSONL.gz.
Contenders take turns, each in a new process:

- winnow           pipeline/run.py: score, decide, write Arrow shards, statistics and the page
- winnow-kept      the same with `--write kept`: dropped documents are not written, as by the peers
- winnow-fasttext  winnow with the fastText model of the peers
- datatrove        its reader, fastText filter and JSONL writer
- loop             a plain Python loop: gzip, json, fastText, write JSONL.gz
- read             Winnow's reader alone: decompress and parse to Arrow
- orjson           decompress (ISA-L) and parse with orjson alone

fastText has DCLM's settings (bigrams, dim 100, 2M buckets). MB are of uncompressed text. Times are
of whole processes, start and imports included. Memory is the peak of the largest process.
"""

import argparse
import functools
import gzip
import json
import multiprocessing
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PEERS = ROOT / "cache/peers/bin/python"
"""An interpreter with datatrove."""

FILES = 16


@dataclass(frozen=True)
class Setup:
    """The settings of all contenders."""

    corpus: Path
    classifier: Path
    fasttext: Path
    peers: Path
    workers: int


@dataclass(frozen=True)
class Measurement:
    """One run: wall and CPU seconds, peak resident bytes of the largest process."""

    wall: float
    cpu: float
    memory: int


def main() -> None:
    if sys.argv[1:2] == ["--contender"]:
        _run_inside(*sys.argv[2:])
        return
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--megabytes", type=int, default=200, help="of text (default: 200)")
    parser.add_argument("--rounds", type=int, default=3, help="(default: 3)")
    parser.add_argument("--workers", type=int, default=1, help="cores for each (default: 1)")
    parser.add_argument("--only", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--work", type=Path, default=ROOT / "cache" / "benchmark")
    parser.add_argument("--peers", type=Path, default=PEERS, help="has datatrove")
    flags = parser.parse_args()
    corpus = write_corpus(flags.work / f"corpus_{flags.megabytes}", flags.megabytes * 10**6, FILES)
    fasttext = classifier(flags.work, "fasttext", *FASTTEXT) / "model.bin"
    hashed_linear = classifier(flags.work, "hashed_linear")
    setup = Setup(corpus, hashed_linear, fasttext, flags.peers, flags.workers)
    text, documents = map(int, (setup.corpus / "size.txt").read_text().split())
    runs: dict[str, list[Measurement]] = {name: [] for name in flags.only}
    for round_ in range(flags.rounds):
        for name in flags.only:
            output = flags.work / "output"
            shutil.rmtree(output, ignore_errors=True)
            runs[name].append(measure(_contender(name, setup, output), setup.workers))
            print(f"round {round_ + 1} {name}: {runs[name][-1].wall:.1f} s", file=sys.stderr)
    print(report(runs, text, documents, setup.workers))


def classifier(work: Path, kind: str, *settings: str) -> Path:
    """A classifier of real text, trained unless it exists."""
    text, output = real_text(), work / kind
    if not output.exists():
        train = [sys.executable, str(ROOT / "quality_classifier" / "train.py"), f"kind={kind}"]
        train += [f"positive=[{text}/train/curated.jsonl.gz]"]
        train += [f"negative=[{text}/train/web.warc.gz]", f"output={output}", *settings]
        subprocess.run(train, check=True)
    return output


FASTTEXT = ["fasttext.dim=100", "fasttext.buckets=2000000", "fasttext.word_ngrams=2"]
"""DCLM's settings (Li et al. 2024)."""


def real_text() -> Path:
    """The output of benchmarks/real_text.py, made unless it exists."""
    text = ROOT / "cache" / "real_text"
    if not text.exists():
        subprocess.run([sys.executable, HERE / "real_text.py", "--output", text], check=True)
    return text


def batches_of(pattern: str) -> "Iterator[pa.RecordBatch]":
    from pipeline.core.plan import plan_tasks
    from pipeline.readers import FieldMap, read_batches
    from winnow.filesystem.storage import open_input

    for task in plan_tasks({"all": [pattern]}, [], 1 << 40):
        yield from read_batches(task.input, FieldMap(), open_input=open_input)


def read_texts(pattern: str | None = None) -> list[str]:
    """The texts of a glob's documents, by default of real text."""
    batches = batches_of(pattern or f"{real_text()}/input/*")
    return [text for batch in batches for text in batch["text"].to_pylist()]


def write_corpus(corpus: Path, size: int, files: int) -> Path:
    """Write ``size`` bytes of real text, repeated with other ids and hosts, unless it exists.

    ``files`` JSONL.gz files of similar sizes, and ``size.txt`` with bytes of text and documents.
    """
    if (corpus / "size.txt").exists():
        return corpus
    corpus.mkdir(parents=True, exist_ok=True)
    with multiprocessing.Pool(os.cpu_count(), _share, [read_texts()]) as pool:
        jobs = [(corpus, file, size // files) for file in range(files)]
        written = pool.starmap(_write_file, jobs, chunksize=1)
    text, documents = map(sum, zip(*written, strict=True))
    (corpus / "size.txt").write_text(f"{text} {documents}\n")
    return corpus


_texts: list[str] = []


def _share(texts: list[str]) -> None:
    _texts[:] = texts


def _write_file(corpus: Path, file: int, size: int) -> tuple[int, int]:
    """Write one file, starting at a different document; return bytes of text and documents."""
    written = documents = 0
    with gzip.open(corpus / f"{file:04d}.jsonl.gz", "wb", compresslevel=6) as output:
        while written < size:
            text = _texts[(documents + 997 * file) % len(_texts)]
            name = f"{file}-{documents}"
            line = {"id": name, "url": f"https://{name}.example/", "text": text}
            output.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
            written += len(text.encode())
            documents += 1
    return written, documents


def pipeline(corpus: Path, classifier: Path, workers: int, output: Path) -> list[str]:
    command = [sys.executable, str(ROOT / "pipeline" / "run.py"), "--filter", "web"]
    command += ["--source", f"web={corpus}/*.jsonl.gz", "--output", str(output)]
    return [*command, "--classifier", str(classifier), "--direct_num_workers", str(workers)]


def _contender(name: str, setup: Setup, output: Path) -> list[str]:
    if name.startswith("winnow"):
        model = setup.fasttext.parent if name == "winnow-fasttext" else setup.classifier
        kept = ["--write", "kept"] if name == "winnow-kept" else []
        return [*pipeline(setup.corpus, model, setup.workers, output), *kept]
    command = [sys.executable, __file__, "--contender", name]
    if name == "datatrove":
        command = [str(setup.peers), str(HERE / "peers" / "peer_datatrove.py")]
    return [*command, *map(str, [setup.corpus, setup.fasttext, output, setup.workers])]


CONTENDERS = ("winnow", "winnow-kept", "winnow-fasttext", "datatrove", "loop", "read", "orjson")


def measure(command: Sequence[str], workers: int) -> Measurement:
    """Run a command on the first ``workers`` cores; raise RuntimeError if it fails."""
    cores = set(sorted(os.sched_getaffinity(0))[:workers])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    start = time.perf_counter()
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )
    assert process.stdout is not None
    said = process.stdout.read().decode(errors="replace")
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{said[-4000:]}")
    wall = time.perf_counter() - start
    return Measurement(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


def report(runs: dict[str, list[Measurement]], text: int, documents: int, workers: int) -> str:
    """The table in Markdown: medians, and wall time relative to Winnow."""
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    commit = subprocess.run(git, capture_output=True, text=True).stdout.strip()
    medians = {}
    for name, found in runs.items():
        wall, cpu = (statistics.median(getattr(run, x) for run in found) for x in ("wall", "cpu"))
        medians[name] = Measurement(wall, cpu, max(run.memory for run in found))
    base = medians.get("winnow", next(iter(medians.values()))).wall
    lines = [
        f"{platform.processor() or platform.machine()}, {workers} of {os.cpu_count()} cores,"
        f" commit {commit}, {text / 1e6:.0f} MB of text in {documents:,} documents,"
        f" load {os.getloadavg()[0]:.1f}",
        f"`{' '.join(['python', *sys.argv])}`",
        "",
        "| contender | wall s | CPU s | MB/s | documents/s | peak MB | wall, winnow = 1 |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, one in medians.items():
        lines.append(
            f"| {name} | {one.wall:.1f} | {one.cpu:.1f} | {text / 1e6 / one.wall:.1f}"
            f" | {documents / one.wall:,.0f} | {one.memory / 1e6:.0f} | {one.wall / base:.2f} |"
        )
    return "\n".join(lines)


def _run_inside(name: str, corpus: str, model: str, output: str, workers: str) -> None:
    """Run a contender of this module, one core per file."""
    files = sorted(Path(corpus).glob("*.jsonl.gz"))
    if name == "loop":
        Path(output).mkdir()
        with multiprocessing.Pool(int(workers)) as pool:
            pool.starmap(_loop, [(path, model, output) for path in files], chunksize=1)
        return
    with ThreadPoolExecutor(int(workers)) as threads:
        list(threads.map({"read": _read, "orjson": _orjson}[name], files))


@functools.cache
def _fasttext(model: str) -> Any:
    import fasttext

    return fasttext.load_model(model)


def _loop(path: Path, model: str, output: str) -> None:
    predict = _fasttext(model).predict
    target = Path(output) / path.name
    with gzip.open(path) as source, gzip.open(target, "wb", compresslevel=6) as sink:
        for line in source:
            labels, scores = predict(json.loads(line)["text"].replace("\n", " "), k=-1)
            if dict(zip(labels, scores, strict=True))["__label__curated"] >= 0.5:
                sink.write(line)


def _read(path: Path) -> None:
    for _ in batches_of(str(path)):
        pass


def _orjson(path: Path) -> None:
    import orjson
    from isal import igzip

    with igzip.open(path) as source:
        for line in source:
            orjson.loads(line)


if __name__ == "__main__":
    main()
