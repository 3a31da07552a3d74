r"""Contamination: evaluation items that occur in an arm's training text, and scores without them.

python ablations/contamination.py corpus=corpus/ output=contamination/ runs.filtered=run/

As in GPT-3 (and FLAN, whose method GLaM is said to use), an item is dirty if any of its word
13-grams (lower case, letters and digits only) occurs in the arm's documents. Dirty items are
reported, not removed; items with fewer than 13 words can't be checked. Writes to ``output``

- ``contamination.arrow`` (:data:`ablations.study_files.results.CONTAMINATION`)
- ``contamination.json``: counts per task and arm, and the scores of all, clean and dirty items

Documents are decoded from the corpus's tokens, so the tokenizer must be lossless. The pipeline's
decontamination step, with the same n-grams, can drop such documents.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import hydra
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig

from ablations.analyses import contamination_scores
from ablations.evaluation.evaluation import EvaluationRequest, gather
from ablations.study_files.results import CONTAMINATION, CONTAMINATION_FILE, TASKS_FILE
from ablations.tasks.data_sources import CACHE, DataSources
from ablations.tasks.task import select
from ablations.tasks.task_set import TaskSet
from model.data import tokenizer
from model.data.arms import BoolArray
from model.data.corpus import Corpus, open_corpus
from pipeline.steps.decontamination import n_gram_set, overlaps
from winnow.commands import command_line, overrides
from winnow.filesystem import storage, tables

N = 13
"""Words of an n-gram: GPT-3's convention."""

BATCH_BYTES = 8 << 20

ABOUT = "contamination.json"


def measure(
    corpus: Corpus, arms: Mapping[str, BoolArray], sets: Sequence[TaskSet], n: int
) -> pa.Table:
    """Which items occur in which arm: :data:`ablations.study_files.results.CONTAMINATION`.

    One pass over the pool finds the few documents that share an n-gram with any item.

    Raises:
        ValueError: the corpus's tokenizer changes text.
    """
    texts = [pa.array([item.text for item in each.items], pa.large_string()) for each in sets]
    try:
        item_n_grams = n_gram_set(pa.concat_arrays(texts), n)
    except ValueError:  # no item has n words
        unknown = [pa.nulls(len(text), pa.bool_()) for text in texts]
        pairs = list(zip(sets, unknown, strict=True))
        return pa.concat_tables(_rows(each, arm, nulls) for arm in arms for each, nulls in pairs)
    hits: list[int] = []
    hit_texts: list[str] = []
    in_any_arm = np.flatnonzero(np.any(list(arms.values()), axis=0))
    for documents, batch in _texts(corpus, in_any_arm):
        matches = np.flatnonzero(overlaps(batch, item_n_grams, n))
        hits += documents[matches].tolist()
        hit_texts += batch.take(pa.array(matches)).to_pylist()
    parts = []
    for arm, mask in arms.items():
        held = [text for document, text in zip(hits, hit_texts, strict=True) if mask[document]]
        seen = n_gram_set(pa.array(held, pa.large_string()), n) if held else None
        for each, text in zip(sets, texts, strict=True):
            dirty = np.zeros(len(text), np.bool_) if seen is None else overlaps(text, seen, n)
            parts.append(_rows(each, arm, pa.array(dirty, mask=~overlaps(text, item_n_grams, n))))
    return pa.concat_tables(parts)


def of_study(
    corpus: Corpus, arms: Mapping[str, str], sets: Sequence[TaskSet], folder: str
) -> pa.Table:
    """The result of :func:`measure` for a study, computed once and stored in its folder.

    ``arms`` has the corpus's name for each arm; items have no demonstrations.
    """
    about = {
        "n": N,
        "corpus": corpus.fingerprint,
        "arms": {name: corpus.arm(arm).fingerprint for name, arm in arms.items()},
        "tasks": {each.name: each.about["items"] for each in sets},
    }
    table, described = (storage.join(folder, name) for name in (CONTAMINATION_FILE, ABOUT))
    if not storage.exists(described) or storage.read_json(described) != about:
        masks = {name: corpus.arm(arm).mask for name, arm in arms.items()}
        tables.write(table, measure(corpus, masks, sets, N))
        storage.write_json(described, about)
    return _read(table)


def _rows(each: TaskSet, arm: str, dirty: pa.Array) -> pa.Table:
    ids, n = [item.id for item in each.items], len(each.items)
    return pa.table([[each.name] * n, ids, [arm] * n, dirty], schema=CONTAMINATION)


def _texts(
    corpus: Corpus, documents: npt.NDArray[np.int64]
) -> Iterator[tuple[npt.NDArray[np.int64], pa.Array]]:
    """Batches of a few megabytes: numbers of documents and their texts (large_string)."""
    codec = tokenizer.load(corpus.tokenizer_path, corpus.manifest["tokenizer"]["boundary"])
    batch = np.cumsum(corpus.bytes[documents]) // BATCH_BYTES
    for part in np.split(documents, np.flatnonzero(np.diff(batch)) + 1):
        tokens = [corpus.tokens(document).tolist() for document in part.tolist()]
        texts = codec.tokenizer.decode_batch(tokens, skip_special_tokens=False)
        sizes = np.array([len(text.encode()) for text in texts], np.int64)
        if (sizes != corpus.bytes[part]).any():
            lossless = "to measure contamination, use a lossless one"
            raise ValueError(f"the tokenizer of {corpus.folder} changes text: {lossless}")
        yield part, pa.array(texts, pa.large_string())


@dataclass
class ContaminationConfig:
    """Settings of the command, explained in ``conf/contamination.yaml``."""

    corpus: str = MISSING
    output: str = MISSING
    arms: list[str] | None = None
    tasks: list[str] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    local: str | None = None
    cache: str = CACHE
    n: int = N
    runs: dict[str, str] = field(default_factory=dict)


def report(config: ContaminationConfig) -> dict[str, Any]:
    """Measure, write both files, return ``contamination.json``; a ValueError on unknown names."""
    corpus = open_corpus(config.corpus)
    names = corpus.arms() if config.arms is None else config.arms
    if unknown := sorted(config.runs.keys() - set(names)):
        raise ValueError(f"runs names unknown arms {unknown}: choose from {names}")
    where = DataSources(config.places, config.local, config.cache)
    sets, not_run = gather(EvaluationRequest(select(config.tasks)), where)
    if not sets:
        raise ValueError(f"none of the tasks has data: {not_run}")
    table = measure(corpus, {name: corpus.arm(name).mask for name in names}, sets, config.n)
    about = {
        "n": config.n,
        "corpus": corpus.fingerprint,
        "counts": contamination_scores.counts(table),
        "not_run": not_run,
        "scores": {
            arm: contamination_scores.split_scores(_read(storage.join(run, TASKS_FILE)), table, arm)
            for arm, run in config.runs.items()
        },
    }
    tables.write(storage.join(config.output, CONTAMINATION_FILE), table)
    storage.write_json(storage.join(config.output, ABOUT), about)
    return about


def _read(path: str) -> pa.Table:
    if not storage.exists(path):
        raise ValueError(f"{path} is missing: run ablations/evaluate.py first")
    return tables.read(path)


ConfigStore.instance().store(name="contamination_schema", node=ContaminationConfig)


@hydra.main(version_base="1.3", config_path="../conf", config_name="contamination")
def main(config: DictConfig) -> None:
    command_line.run(_report_and_print, config)


def _report_and_print(config: ContaminationConfig) -> None:
    about = report(config)
    print(f"{'task':18} {'arm':16} {'items':>6} {'dirty':>6} too short for {about['n']} words")
    for row in about["counts"]:
        print("{task:18} {arm:16} {items:6} {dirty:6} {too_short:6}".format(**row))
    for name, reason in about["not_run"].items():
        print(f"{name:18} not run: {reason}")


if __name__ == "__main__":
    overrides.run(main, "contamination")
