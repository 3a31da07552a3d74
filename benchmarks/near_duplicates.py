"""Near-duplicates: speed against datatrove's MinHash stages, and recall against exact similarity.

    python -m venv cache/peers
    cache/peers/bin/pip install 'datatrove[io,processing]==0.10.1' spacy
    python benchmarks/near_duplicates.py speed --megabytes 100 --rounds 3
    python benchmarks/near_duplicates.py quality

``speed`` times pipeline/run.py with and without --near-duplicates, and datatrove's four stages
(signatures, buckets, clusters, filter), in turns, on real text; each repeat of a text has a share
of its words (0, 1, 3 or 30 %) replaced.

``quality`` takes the exact Jaccard similarity of all pairs of real documents. Pairs of copies of
one page are not independent, so recall and its interval are over 32 families of hash functions,
each 14 bands of 8. Clusters are compared with datatrove's and, as a yardstick, between families.
"""

import argparse
import gzip
import itertools
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import scipy.sparse as sp
from throughput import HERE, PEERS, ROOT, Measurement, classifier, measure, pipeline, read_texts

from pipeline.near_duplicates import components, minhash
from pipeline.near_duplicates.settings import Settings

FINEWEB = Settings(bands=14, rows=8, words=5)
FAMILIES = 32
FILES = 8
EDGES = (0.1, 0.3, 0.5, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0001)

Pairs = npt.NDArray[np.int64]


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("what", choices=("speed", "quality"))
    parser.add_argument("--text", help="a glob of documents (default: real_text.py's)")
    parser.add_argument("--megabytes", type=int, default=100, help="of text (default: 100)")
    parser.add_argument("--rounds", type=int, default=3, help="(default: 3)")
    parser.add_argument("--workers", type=int, default=1, help="cores for each (default: 1)")
    parser.add_argument("--classifier", type=Path, help="(default: one of real text)")
    parser.add_argument("--work", type=Path, default=ROOT / "cache" / "near_duplicates")
    parser.add_argument("--peers", type=Path, default=PEERS, help="has datatrove")
    flags = parser.parse_args()
    texts = read_texts(flags.text)
    speed(flags, texts) if flags.what == "speed" else quality(flags, texts)


def write(folder: Path, texts: list[str]) -> Path:
    """Write documents to JSONL.gz files, with consecutive ids across files."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    share = -(-len(texts) // FILES)
    for file in range(FILES):
        with gzip.open(folder / f"{file:04d}.jsonl.gz", "wt", encoding="utf-8") as out:
            for i, text in enumerate(texts[file * share : (file + 1) * share], file * share):
                out.write(json.dumps({"id": str(i), "text": text}) + "\n")
    return folder


def speed(flags: argparse.Namespace, texts: list[str]) -> None:
    model = flags.classifier or classifier(flags.work, "hashed_linear")
    corpus = write(flags.work / "corpus", list(_again(texts, flags.megabytes * 10**6)))
    output = flags.work / "output"
    plain = pipeline(corpus, model, flags.workers, output)
    contenders = {
        "winnow": plain,
        "winnow, near-duplicates": [*plain, "--near-duplicates"],
        "datatrove": peer(flags, corpus, output),
    }
    runs: dict[str, list[Measurement]] = {name: [] for name in contenders}
    for number, (name, command) in itertools.product(range(flags.rounds), contenders.items()):
        shutil.rmtree(output, ignore_errors=True)
        runs[name].append(measure(command, flags.workers))
        print(f"round {number + 1} {name}: {runs[name][-1].cpu:.1f} CPU s", file=sys.stderr)
    medians = {name: statistics.median(run.cpu for run in found) for name, found in runs.items()}
    base = medians["winnow, near-duplicates"]
    more = base - medians["winnow"]
    print(f"{flags.megabytes} MB of text, {flags.workers} workers, load {os.getloadavg()[0]:.1f}\n")
    print("| contender | CPU s | wall s | peak MB | CPU, near-duplicates = 1 |")
    print("|---" * 5 + "|")
    for name, found in runs.items():
        wall = statistics.median(run.wall for run in found)
        peak = max(run.memory for run in found) / 1e6
        cpu = medians[name]
        print(f"| {name} | {cpu:.1f} | {wall:.1f} | {peak:.0f} | {cpu / base:.2f} |")
    times = medians["datatrove"] / more
    print(f"\nnear-duplicates alone: {more:.1f} CPU s; datatrove takes {times:.0f} times as long")


def peer(flags: argparse.Namespace, corpus: Path, output: Path) -> list[str]:
    script = HERE / "peers" / "peer_datatrove_minhash.py"
    return [*map(str, [flags.peers, script, corpus, output, flags.workers])]


def _again(texts: list[str], size: int) -> Iterator[str]:
    rng = random.Random(0)
    written = 0
    for number in itertools.count():
        for text in texts:
            if number:
                share = rng.choice([0.0, 0.01, 0.03, 0.3, 0.3])
                words = text.split(" ")
                edited = (f"w{rng.randrange(10**6)}" if rng.random() < share else w for w in words)
                text = " ".join(edited)
            yield text
            written += len(text.encode())
            if written >= size:
                return


def quality(flags: argparse.Namespace, texts: list[str]) -> None:
    """Print recall by similarity, then the agreement of clusters."""
    column = pa.array(texts, pa.large_string())
    pairs, similarity = exact(column)
    many = Settings(bands=FINEWEB.bands * FAMILIES, rows=FINEWEB.rows, words=FINEWEB.words)
    hashes, compared = minhash.band_hashes(column, many)
    families = np.split(hashes, FAMILIES, axis=1)
    chance = 1 - (1 - similarity**FINEWEB.rows) ** FINEWEB.bands
    met = np.stack([(f[pairs[:, 0]] == f[pairs[:, 1]]).any(axis=1) for f in families])
    print(f"{len(texts):,} documents, {compared.sum():,} compared; {len(pairs):,} pairs share an"
          " n-gram\n")  # fmt: skip
    print("| Jaccard | pairs | found | ± 95 % | 1-(1-s^8)^14 |\n|---|---|---|---|---|")
    bins = np.digitize(similarity, EDGES)
    for k, (low, high) in enumerate(itertools.pairwise(EDGES), 1):
        mine = bins == k
        if mine.any():
            found = met[:, mine].mean(axis=1)
            row(f"{low:g} to {min(high, 1):g}", mine.sum(), found, chance[mine].mean())
    print("\n| of what is found | pairs | share | ± 95 % | expected |\n|---|---|---|---|---|")
    for least in (0.5, 0.7, 0.8):
        alike = similarity >= least
        precision = met[:, alike].sum(axis=1) / met.sum(axis=1)
        row(f"s >= {least}", int(met[0].sum()), precision, chance[alike].sum() / chance.sum())
    ours = [clusters(family, compared) for family in families]
    corpus = write(flags.work / "quality", texts)
    output = flags.work / "output"
    shutil.rmtree(output, ignore_errors=True)
    subprocess.run(peer(flags, corpus, output), check=True, capture_output=True)
    theirs = read_clusters(output / "clusters", len(texts))
    between = [agreement(a, b) for a, b in itertools.pairwise(ours)]
    beside = [agreement(a, theirs) for a in ours]
    sizes = [dropped(labels) for labels in ours]
    print(f"\ndropped of {len(texts):,}: ours {interval(sizes)}, datatrove {dropped(theirs):,}")
    print(f"pairs in one cluster that are so in both, of those that are so in either: families of"
          f" ours {interval(between)}, ours and datatrove {interval(beside)}")  # fmt: skip
    for least in (0.8, 0.9, 0.95):
        a, b = pairs[similarity >= least].T
        together = [(labels[a] == labels[b]).mean() for labels in ours]
        print(
            f"of {len(a):,} pairs with s >= {least}, in one cluster: ours {interval(together)},"
            f" datatrove {(theirs[a] == theirs[b]).mean():.4f}"
        )


def exact(column: pa.Array) -> tuple[Pairs, npt.NDArray[np.float64]]:
    """All pairs of documents (int64 [n, 2]) with a common n-gram, and their Jaccard similarity."""
    sets = minhash.shingles(column, FINEWEB.words)
    counts = np.array([len(found) for found in sets])
    _, names = np.unique(np.concatenate(sets), return_inverse=True)
    ends = np.concatenate([[0], counts.cumsum()])
    ones = np.ones(len(names), np.int32)
    holds = sp.csr_array((ones, names, ends), shape=(len(sets), int(names.max()) + 1))
    common = sp.triu(holds @ holds.T, k=1).tocoo()
    pairs = np.stack([common.row, common.col], axis=1).astype(np.int64)
    return pairs, common.data / (counts[pairs].sum(axis=1) - common.data)


def clusters(bands: npt.NDArray[np.uint64], compared: npt.NDArray[np.bool_]) -> Pairs:
    nodes = np.flatnonzero(compared).astype(np.uint64)
    hashes = bands[compared].ravel()
    star = components.join(components.share_a_band(hashes, np.repeat(nodes, bands.shape[1])))
    labels = np.arange(len(bands))
    labels[star.child.astype(np.int64)] = star.parent.astype(np.int64)
    return labels


def read_clusters(folder: Path, documents: int) -> Pairs:
    """The same for datatrove."""
    share = -(-documents // FILES)
    labels = np.arange(documents)
    for path in folder.glob("*.clusters"):
        first = int(path.stem) * share
        rows = np.fromfile(path, "<u4").reshape(-1, 2)
        labels[first + rows[:, 0]] = documents + rows[:, 1]
    return labels


def dropped(labels: Pairs) -> int:
    """The number of documents dropped if one per cluster stays."""
    return len(labels) - len(np.unique(labels))


def agreement(a: Pairs, b: Pairs) -> float:
    """The Jaccard index of the pairs of documents that share a cluster."""

    def pairs(labels: Pairs) -> int:
        counts = np.unique(labels, return_counts=True, axis=-1)[1]
        return int((counts * (counts - 1)).sum() // 2)

    both = pairs(np.stack([a, b], axis=1) @ np.array([4 * len(a), 1]))
    return both / (pairs(a) + pairs(b) - both)


def interval(values: Sequence[float] | npt.NDArray[np.float64]) -> str:
    """The mean and its 95 % interval over families (t of 31 degrees of freedom: 2.04)."""
    half = 2.04 * np.std(values, ddof=1) / np.sqrt(len(values))
    return f"{np.mean(values):.4f} ± {half:.4f}"


def row(name: str, pairs: int, shares: npt.NDArray[np.float64], expected: float) -> None:
    share, half = interval(shares).split(" ± ")
    print(f"| {name} | {pairs:,} | {share} | {half} | {expected:.4f} |")


if __name__ == "__main__":
    main()
