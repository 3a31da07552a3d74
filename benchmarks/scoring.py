"""Scoring alone, on one core: the hashed-linear kernel against fastText and scikit-learn.

    python benchmarks/scoring.py --positive 'curated/*.jsonl.gz' --negative 'web/*.jsonl.gz'

Reads any format of the pipeline. Half of the documents, by a hash of their text, train each
contender, unweighted; the other half gives its ROC-AUC, unweighted and with classes and sources
balanced. Then the contenders take turns to score all documents. Times are CPU seconds from text in
memory to margins: Arrow arrays for Winnow, prepared one-line Python strings for the others. Figures
are medians over rounds, ratios those of speeds within a round. The last lines show the effect of
word order, by documents with shuffled words.
"""

import argparse
import itertools
import os
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import scipy.sparse as sp
from scipy.stats import spearmanr
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from pipeline.readers import ReadOptions
from quality_classifier import splits
from quality_classifier.features.hashed_features import FeatureConfig, hashed_features
from quality_classifier.kinds.fasttext_model import FastTextSettings, one_line, train_fasttext
from quality_classifier.kinds.linear import HashedLinear
from quality_classifier.training import documents as train_documents
from winnow.filesystem import storage

Margins = npt.NDArray[np.float64]

DCLM = FastTextSettings()
SMALL = FastTextSettings(dim=64, buckets=500_000)
PENALTY = 10.0  # scikit-learn's C: the inverse strength of the L2 penalty


@dataclass(frozen=True)
class Documents:
    """n documents: text (large_string), the same as Python strings, class and source."""

    text: pa.Array
    lines: list[str]
    positive: npt.NDArray[np.bool_]
    source: npt.NDArray[np.str_]

    def part(self, chosen: npt.NDArray[np.bool_]) -> "Documents":
        """The documents where ``chosen`` (bool [n]) is true."""
        text, lines = self.text.filter(pa.array(chosen)), itertools.compress(self.lines, chosen)
        return Documents(text, list(lines), self.positive[chosen], self.source[chosen])


Scorer = Callable[[Documents], Margins]


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--positive", nargs="+", required=True, metavar="GLOB")
    parser.add_argument("--negative", nargs="+", required=True, metavar="GLOB")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    documents = read(arguments.positive, arguments.negative)
    held_out = splits.assign(pa.chunked_array([documents.text]), 0.25, 0.25) > 0
    train, test = documents.part(~held_out), documents.part(held_out)
    with tempfile.TemporaryDirectory() as folder:
        contenders: dict[str, Scorer] = {
            "winnow, 2^20, bigrams": winnow(train, FeatureConfig(20, 2)),
            "winnow, 2^18, bigrams": winnow(train, FeatureConfig(18, 2)),
            "winnow, 2^20, words": winnow(train, FeatureConfig(20, 1)),
            "fastText, DCLM": fasttext(train, DCLM, Path(folder)),
            "fastText, dim 64, 500k": fasttext(train, SMALL, Path(folder)),
            "scikit-learn, bigrams": scikit_learn(train),
        }
        speeds = time_all(contenders, documents, arguments.rounds)
        report(contenders, speeds, documents, test)
        report_shuffled(contenders, test)


def read(positive: list[str], negative: list[str]) -> Documents:
    """Read all documents, without exact duplicates."""
    globs = {"positive": positive, "negative": negative}
    sources = train_documents.find_sources(globs, {"text": "text"}, storage.find, print)
    how = train_documents.Input(ReadOptions(), metadata=())
    table, _ = train_documents.read(sources, how, print)
    table = splits.deduplicate(table).documents.combine_chunks()
    text = table["text"].combine_chunks()
    source = np.array(table["source"].to_pylist())
    return Documents(text, one_line(text).to_pylist(), table["positive"].to_numpy(), source)


def winnow(train: Documents, config: FeatureConfig) -> Scorer:
    weights, bias = fit(hashed_features(train.text, config), train.positive)
    model = HashedLinear(config, weights, bias)
    return lambda documents: model.margins(documents.text)


def fasttext(train: Documents, settings: FastTextSettings, folder: Path) -> Scorer:
    positive, negative = (train.text.filter(pa.array(train.positive == v)) for v in (True, False))
    output = folder / f"{settings.dim}.bin"
    trained = train_fasttext(positive, negative, output, settings, seed=0)
    model, label = trained._library, trained.label

    def score(documents: Documents) -> Margins:
        named, probabilities = model.predict(documents.lines, k=2)
        rows = zip(named, probabilities, strict=True)
        return np.array([row[names.index(label)] for names, row in rows], np.float64)

    return score


def scikit_learn(train: Documents) -> Scorer:
    """HashingVectorizer with words and bigrams, and logistic regression."""
    vectorizer = HashingVectorizer(ngram_range=(1, 2), alternate_sign=False)
    weights, bias = fit(vectorizer.transform(train.lines), train.positive)
    return lambda documents: vectorizer.transform(documents.lines) @ weights + bias


def fit(
    features: sp.csr_array, positive: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.float32], float]:
    """Logistic regression: weights float32 [buckets] and bias."""
    model = LogisticRegression(C=PENALTY, max_iter=1000).fit(features, positive)
    return model.coef_[0].astype(np.float32), float(model.intercept_[0])


def time_all(
    contenders: dict[str, Scorer], documents: Documents, rounds: int
) -> dict[str, list[float]]:
    """MB of UTF-8 text per CPU second, by contender and round."""
    size = documents.text.get_total_buffer_size() / 1e6
    head = documents.part(np.arange(len(documents.text)) < 10)
    speeds: dict[str, list[float]] = {name: [] for name in contenders}
    for score in contenders.values():
        score(head)  # compiles
    for _ in range(rounds):
        for name, score in contenders.items():
            start = time.process_time()
            score(documents)
            speeds[name].append(size / (time.process_time() - start))
    return speeds


def report(
    contenders: dict[str, Scorer],
    speeds: dict[str, list[float]],
    documents: Documents,
    test: Documents,
) -> None:
    size = documents.text.get_total_buffer_size() / 1e6
    count = len(documents.text)
    balance = splits.balanced_weights(test.positive, test.source, np.inf)
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"\n{count:,} documents, {size:.1f} MB; {len(test.text):,} held out")
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load {load}\n")
    print(f"{'':24}  MB/s    documents/s  times DCLM's  AUC     AUC, sources balanced")
    base = speeds["fastText, DCLM"]
    for name, values in speeds.items():
        speed = statistics.median(values)
        ratio = statistics.median(v / b for v, b in zip(values, base, strict=True))
        scores = contenders[name](test)
        plain = roc_auc_score(test.positive, scores)
        even = roc_auc_score(test.positive, scores, sample_weight=balance)
        rate = speed * count / size
        print(f"{name:24}  {speed:6.1f}  {rate:11,.0f}  {ratio:12.1f}  {plain:.4f}  {even:.4f}")


def report_shuffled(contenders: dict[str, Scorer], test: Documents) -> None:
    draw = random.Random(0)
    shuffled = []
    for line in test.lines:
        words = line.split()
        draw.shuffle(words)
        shuffled.append(" ".join(words))
    mixed = Documents(pa.array(shuffled, pa.large_string()), shuffled, test.positive, test.source)
    print("\nWords shuffled: rank correlation with the original's scores; AUC")
    for name, score in contenders.items():
        correlation = spearmanr(score(test), score(mixed)).statistic
        auc = roc_auc_score(test.positive, score(mixed))
        print(f"{name:24}  {correlation:.3f}  {auc:.4f}")


if __name__ == "__main__":
    main()
