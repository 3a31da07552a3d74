"""Train from pairs (``pairs=…``)."""

import tempfile
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components

from quality_classifier import splits
from quality_classifier.evaluation import graded, metrics, pair_card, paired
from quality_classifier.kinds.fitting import fit_calibration
from quality_classifier.kinds.pair_fitting import PAIRED, Pairs
from quality_classifier.splits import SPLITS
from quality_classifier.train_config import TrainConfig
from quality_classifier.training import shared
from winnow.commands import console

LEAST = 10
"""Minimum of pairs per split; a useful classifier needs hundreds."""

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Linked:
    """n pairs of t different texts, in an order that depends only on their content.

    Attributes:
        linked: int64 [t], the set of each text; texts of a pair or a group share a set.
        source: n names.
        equal: number of pairs of two equal texts, left out.
    """

    pairs: Pairs
    linked: Rows
    source: npt.NDArray[np.str_]
    equal: int


def train(config: TrainConfig) -> None:
    """Train, write and print the figures; ValueError for invalid or too few pairs."""
    shared.check_kind(config.kind, PAIRED, "pairs")
    further = {"worse": "worse"} | ({"group": config.group} if config.group else {})
    values = {"pairs": config.pairs}
    records, sources, unreadable = shared.read_documents(config, values, further, text="better")
    complete = records.filter(pc.is_valid(records["worse"]))
    if not len(complete):
        raise ValueError("no record has both texts of a pair: give records with better and worse")
    found = linked_pairs(complete)
    if found.equal:
        shared.say(f"warning: left out {found.equal:,} pairs of two equal texts")
    text = found.pairs.text
    # A set goes to the split of its first text, which depends on content alone.
    first = np.unique(found.linked, return_index=True)[1]
    of_text = splits.assign(pa.chunked_array([text]), config.calibration_share, config.test_share)
    split = of_text[first][found.linked]
    counts = {name: int((split[found.pairs.better] == i).sum()) for i, name in enumerate(SPLITS)}
    check_enough(counts, len(first))
    learnt, chosen, held = (part(found, split, name) for name in SPLITS)
    with tempfile.TemporaryDirectory() as folder, console.doing("fitting") as tell:
        model, fitted = PAIRED[config.kind](learnt, chosen, shared.fitting(config, folder))
        rows, won = chosen.won()
        margin = model.margins(chosen.text)[rows]
        calibration = fit_calibration(margin, won, np.ones(len(rows)), config.calibration)
        shared.say(f"evaluating on {counts['test']:,} held-out pairs")
        tell("evaluating")
        margin = model.margins(held.text)
        own = split == SPLITS.index("test")
        held_rows, held_won = held.won()
        figures: dict[str, Any] = {
            **shared.origin(config),
            "group": config.group,
            "calibration": config.calibration,
            "fitted": fitted,
            "unreadable": unreadable,
            "read": len(records),
            "incomplete": len(records) - len(complete),
            "equal": found.equal,
            "pairs": counts,
            "sizes": graded.sizes(pc.binary_length(text).to_numpy()),
            "all_sets": len(first),
            **paired.evaluate(
                margin,
                pc.binary_length(held.text).to_numpy().astype(np.float64),
                held.better,
                held.worse,
                np.unique(found.linked[own][held.better], return_inverse=True)[1],
                found.source[own[found.pairs.better]],
                config.bootstrap,
                config.seed,
            ),
            "reliability": metrics.reliability(
                calibration.apply(margin)[held_rows], held_won, np.ones(len(held_rows))
            ),
        }
        learned = pa.chunked_array([text.filter(pa.array(~own))])
        summary, files = pair_card.summary(figures), pair_card.files(figures)
        shared.save(config, sources, model, calibration, summary, files, learned)
    print(pair_card.terminal_table(figures) + "\n")


def linked_pairs(records: pa.Table) -> Linked:
    """Number the texts of pairs, and link those that share a pair or a group.

    ``records`` has ``text`` (the better one), ``worse`` and ``source``, and perhaps ``group``.
    """
    n = len(records)
    both = pa.chunked_array(
        [*records["text"].chunks, *records["worse"].cast(pa.large_string()).chunks],
        pa.large_string(),
    )
    content = splits.content_hashes(both)
    _, first, number = np.unique(content, axis=0, return_index=True, return_inverse=True)
    number = number.ravel()
    better, worse = number[:n], number[n:]
    t = len(first)
    groups, group = 0, np.zeros(n, np.int64)
    tied = np.zeros(n, np.bool_)
    if "group" in records.schema.names:
        coded = records["group"].combine_chunks().dictionary_encode()
        groups = len(coded.dictionary)
        tied = coded.indices.is_valid().to_numpy(zero_copy_only=False)
        group = coded.indices.fill_null(0).to_numpy()
    ends = np.concatenate([worse, t + group[tied]]), np.concatenate([better, better[tied]])
    graph = sp.coo_array((np.ones(len(ends[0])), ends), shape=(t + groups, t + groups))
    linked = connected_components(graph, directed=False)[1][:t].astype(np.int64)
    # Sets are numbered by their first text.
    _, order, inverse = np.unique(linked, return_index=True, return_inverse=True)
    linked = np.argsort(np.argsort(order))[inverse.ravel()].astype(np.int64)
    source = np.array(records["source"].to_pylist(), np.str_)
    order = np.lexsort((source, worse, better))
    order = order[better[order] != worse[order]]
    text = shared.whole(both.take(pa.array(first)))
    return Linked(Pairs(text, better[order], worse[order]), linked, source[order], n - len(order))


def part(found: Linked, split: npt.NDArray[np.int8], name: str) -> Pairs:
    """The pairs of one split and their texts, renumbered."""
    own = split == SPLITS.index(name)
    number = np.cumsum(own) - 1
    pairs = found.pairs
    chosen = own[pairs.better]
    text = pairs.text.filter(pa.array(own))
    return Pairs(text, number[pairs.better[chosen]], number[pairs.worse[chosen]])


def check_enough(counts: dict[str, int], sets: int) -> None:
    """Raise ValueError if a split has fewer than LEAST pairs."""
    for name, found in counts.items():
        if found < LEAST:
            raise ValueError(
                f"too few pairs: {sum(counts.values())}, of which {found} are in the {name} split,"
                f" which needs {LEAST}. Pairs that share a text or a group stay together, in {sets}"
                " sets: give pairs of more texts, or a larger calibration_share and test_share"
            )
