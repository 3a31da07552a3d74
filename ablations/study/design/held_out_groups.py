"""The held-out documents that a study evaluates on, and their groups."""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ablations.near_duplicates import NearDuplicates
from ablations.study.design import arms
from model.data.arms import BoolArray
from model.data.corpus import Corpus, IntArray
from model.data.order import FEWEST, held_out_documents
from model.training.outcome import HELDOUT_SCHEMA

JUNK = "junk_of_"
"""Prefix of a source's junk, itself a source."""

JUNK_SHARE = 0.2
"""The share of a filtered source's held-out documents, lowest scores first, that is junk."""


def heldout_groups(corpus: Corpus, unseen: Sequence[str] = ()) -> dict[str, list[str]]:
    """The held-out sources by group (unseen, known, web, junk), without empty groups."""
    sources, filtered = corpus.evaluated_sources, filtered_sources(corpus)
    groups = {
        "unseen": [name for name in sources if name in unseen],
        "known": [name for name in sources if name not in (*filtered, *unseen)],
        "web": [name for name in sources if name in filtered],
        "junk": [JUNK + name for name in sources if name in filtered],
    }
    return {group: names for group, names in groups.items() if names}


def filtered_sources(corpus: Corpus) -> list[str]:
    """The sources that the filter applies to."""
    return [name for name in corpus.manifest["filtered_sources"] if name in corpus.sources]


def with_junk(heldout: pa.Table, corpus: Corpus) -> pa.Table:
    """Held-out rows (HELDOUT_SCHEMA), with low scores repeated as source ``junk_of_…``."""
    tables = [heldout]
    for source, junk in _junk(corpus).items():
        ids = pa.array(corpus.ids(np.flatnonzero(junk)))
        of_source = pc.equal(heldout["source"], source)
        rows = heldout.filter(pc.and_(of_source, pc.is_in(heldout["document"], ids)))
        names = pa.array([JUNK + source] * len(rows), pa.string())
        tables.append(rows.set_column(0, HELDOUT_SCHEMA.field("source"), names))
    return pa.concat_tables(tables)


def drop_small_sources(heldout: pa.Table) -> pa.Table:
    """The rows of sources with at least :data:`FEWEST` documents."""
    counts = pc.value_counts(heldout["source"])
    large = counts.field("values").filter(pc.greater_equal(counts.field("counts"), FEWEST))
    return heldout.filter(pc.is_in(heldout["source"], large))


def documents_of(corpus: Corpus, limit: int | None, near: NearDuplicates) -> dict[str, IntArray]:
    """The documents of the final evaluation by source, including junk: int64 [n] each.

    Without near-duplicates, up to ``limit`` bytes per source (``evaluate.final_bytes``).
    """
    by_source = {source: np.empty(0, np.int64) for source in corpus.sources}
    for source in corpus.evaluated_sources:
        documents = held_out_documents(corpus, source, limit)
        by_source[source] = documents[~np.isin(documents, near.duplicates)]
    for source, junk in _junk(corpus).items():
        by_source[JUNK + source] = by_source[source][junk[by_source[source]]]
    return by_source


def large_enough(
    groups: Mapping[str, Sequence[str]], documents: Mapping[str, IntArray]
) -> dict[str, list[str]]:
    """The groups without sources of fewer than :data:`FEWEST` documents; empty groups are dropped.

    Unknown sources stay, for a later check to name.
    """
    left = {
        group: [s for s in sources if s not in documents or len(documents[s]) >= FEWEST]
        for group, sources in groups.items()
    }
    return {group: sources for group, sources in left.items() if sources}


def notes(documents: Mapping[str, IntArray]) -> list[str]:
    """A sentence on sources with too few documents, if any."""
    small = [f"{name} ({len(ids)})" for name, ids in documents.items() if len(ids) < FEWEST]
    left_out = f"Left out of the evaluation, with fewer than {FEWEST} held-out documents"
    note = f"{left_out}: {', '.join(small)}. A corpus with a larger held_out has more."
    return [note] if small else []


def _junk(corpus: Corpus) -> dict[str, BoolArray]:
    """The junk of each filtered source: bool [documents]."""
    out = {}
    for source in filtered_sources(corpus):
        held = corpus.evaluated & (corpus.source_index == corpus.sources.index(source))
        if held.any():
            out[source] = arms.lowest(corpus, held, JUNK_SHARE)
    return out
