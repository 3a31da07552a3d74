"""What of a corpus's held-out text a study's jobs are evaluated on, and how it is grouped."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ablations import near_duplicates
from ablations.near_duplicates import NearDuplicates
from ablations.study import arms
from model.data.corpus import Corpus
from model.data.order import held_out_documents
from model.training.outcome import HELDOUT_SCHEMA

KEYS = pa.schema([HELDOUT_SCHEMA.field("source"), HELDOUT_SCHEMA.field("document")])

JUNK_SHARE = 0.2
"""The part of a filtered source's held-out documents, of lowest score, that is called junk."""


def heldout_groups(corpus: Corpus) -> dict[str, list[str]]:
    """The held-out sources by group: curated, web, junk; groups without documents are left out."""
    sources, filtered = corpus.evaluated_sources, filtered_sources(corpus)
    groups = {
        "curated": [name for name in sources if name not in filtered],
        "web": [name for name in sources if name in filtered],
        "junk": [junk_name(name) for name in sources if name in filtered],
    }
    return {group: names for group, names in groups.items() if names}


def filtered_sources(corpus: Corpus) -> list[str]:
    """The sources that the pipeline's rule could drop from."""
    return [name for name in corpus.manifest["filtered_sources"] if name in corpus.sources]


def junk_name(source: str) -> str:
    """What a source's junk is called."""
    return f"junk_of_{source}"


def with_junk(heldout: pa.Table, corpus: Corpus) -> pa.Table:
    """Held-out documents, those of low score a second time as a source ``junk_of_…``.

    ``heldout`` begins with the columns ``source`` and ``document`` of held-out documents
    (:data:`model.training.outcome.HELDOUT_SCHEMA`).
    """
    tables = [heldout]
    for source in filtered_sources(corpus):
        ours = corpus.source_index == corpus.sources.index(source)
        held = ours & corpus.evaluated
        if held.any():
            junk = corpus.ids(np.flatnonzero(arms.lowest(corpus, held, JUNK_SHARE)))
            rows = heldout.filter(
                pc.and_(
                    pc.equal(heldout["source"], source),
                    pc.is_in(heldout["document"], pa.array(junk)),
                )
            )
            names = pa.array([junk_name(source)] * len(rows), pa.string())
            tables.append(rows.set_column(0, HELDOUT_SCHEMA.field("source"), names))
    return pa.concat_tables(tables)


def check(corpus: Corpus, training: Mapping[str, Any], near: NearDuplicates) -> None:
    """Whether the evaluations of a job will have documents to measure, and to know an error from.

    Args:
        corpus: of the job.
        training: its settings, as in ``conf/train.yaml``.
        near: the documents that are left out.

    Raises:
        ValueError: a source has no document within ``evaluate.bytes``, or fewer than two in the
            end.
    """
    settings = training["evaluate"]
    if settings["every"]:
        for source in corpus.evaluated_sources:
            held_out_documents(corpus, source, settings["bytes"])
    for source, documents in documents_of(corpus, settings["final_bytes"], near).items():
        if documents < 2:
            limit = settings["final_bytes"]
            within = "" if limit is None else f" within evaluate.final_bytes={limit}"
            raise ValueError(
                f"{source} has {documents} held-out documents to be evaluated on{within}, too few"
                " to know an error from: allow more bytes, or make the corpus with a larger"
                " held_out share"
            )


def documents_of(corpus: Corpus, limit: int | None, near: NearDuplicates) -> dict[str, int]:
    """How many documents of each source, junk among them, a job is evaluated on in the end."""
    tables = []
    for source in corpus.evaluated_sources:
        documents = held_out_documents(corpus, source, limit)
        columns = [[source] * len(documents), corpus.ids(documents)]
        tables.append(pa.table(columns, schema=KEYS))
    left = with_junk(near_duplicates.remove(pa.concat_tables(tables), corpus, near), corpus)
    found = dict(zip(*np.unique(left["source"].to_numpy(), return_counts=True), strict=True))
    names = [name for group in heldout_groups(corpus).values() for name in group]
    return {name: int(found.get(name, 0)) for name in names}
