"""Training streams against a packer written with plain Python lists."""

import itertools
import json
import re
import sys
from pathlib import Path

import hydra
import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokens_scored import SHARDS, documents, key_of, make_corpus

from model.data.corpus import open_corpus, shard_schema, write_arm
from model.data.order import (
    CYCLE,
    DocumentSequence,
    Interleaving,
    mixture_groups,
    order_keys,
)
from model.data.stream import TokenStream
from winnow.filesystem import storage


def plain_entries(corpus, chosen, seed, count):
    """The first ``count`` entries of the sequence, each with a name of its document's visit."""
    out, epoch = [], 0
    while len(out) < count:
        order = sorted(chosen.tolist(), key=lambda d: key_of(corpus, d, seed, epoch))
        for document in order:
            visit = (epoch, document)
            out.append((corpus.boundary_id, visit))
            out += [(token, visit) for token in corpus.tokens(document).tolist()]
        epoch += 1
    return out[:count]


def plain_rows(entries, length, rows):
    tokens, targets, segments = [], [], []
    for row in range(rows):
        piece = entries[row * length : (row + 1) * length + 1]
        tokens.append([token for token, _ in piece[:-1]])
        targets.append([token for token, _ in piece[1:]])
        names = [name for name, _ in itertools.groupby(piece[:-1], lambda entry: entry[1])]
        segments.append([names.index(visit) + 1 for _, visit in piece[:-1]])
    return tokens, targets, segments


def joined(stream, steps):
    batches = [stream.batch(step) for step in range(steps)]
    return [torch.cat(parts).tolist() for parts in zip(*batches, strict=True)]


@given(
    length=st.integers(1, 70),
    batch=st.integers(1, 6),
    seed=st.integers(0, 2**40),
    arm=st.sampled_from(["filtered", "unfiltered"]),
)
@settings(max_examples=40, deadline=None)
def test_batches_equal_the_plain_packer(corpus, length, batch, seed, arm):
    stream = TokenStream(corpus, arm, seed, length, batch)
    steps = 2 * stream.epoch_targets // (length * batch) + 2
    chosen = np.flatnonzero(corpus.arm(arm).mask)
    entries = plain_entries(corpus, chosen, seed, steps * batch * length + 1)
    expected = plain_rows(entries, length, steps * batch)
    assert joined(stream, min(steps, 400)) == [x[: min(steps, 400) * batch] for x in expected]


def test_under_a_mixture_each_source_is_packed_alone_and_dealt_by_weight(corpus):
    mixture = {"web": 0.5, "wiki": 0.3, "books": 0.2}
    stream = TokenStream(corpus, "unfiltered", 5, 16, 10, mixture)
    tokens, targets, segments = joined(stream, 60)
    next_row, taken = {}, dict.fromkeys(mixture, 0)
    plain = {}
    for source in mixture:
        ours = corpus.source_index == corpus.sources.index(source)
        chosen = np.flatnonzero(corpus.arm("unfiltered").mask & ours)
        entries = plain_entries(corpus, chosen, 5, 600 * 16 + 1)
        plain[source] = list(zip(*plain_rows(entries, 16, 600), strict=True))
        next_row[source] = 0
    for done, row in enumerate(zip(tokens, targets, segments, strict=True), 1):
        source = next(s for s in mixture if plain[s][next_row[s]] == row)
        next_row[source] += 1
        taken[source] += 1
        assert all(abs(taken[s] - mixture[s] * done) <= 1.5 for s in mixture)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("epoch", [0, 3])
def test_the_filtered_order_is_the_unfiltered_order_with_gaps(corpus, seed, epoch):
    orders = {}
    for arm in ("filtered", "unfiltered"):
        chosen = np.flatnonzero(corpus.arm(arm).mask)
        orders[arm] = DocumentSequence(corpus, chosen, seed).epoch(epoch).documents.tolist()
        assert sorted(orders[arm]) == chosen.tolist()
    kept = set(orders["filtered"])
    assert 0 < len(kept) < len(orders["unfiltered"])
    assert [d for d in orders["unfiltered"] if d in kept] == orders["filtered"]


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    """A corpus of a run with buckets: kept documents are there once, twice or three times."""
    rows = documents(60, seed=9)
    for i, row in enumerate(rows):
        row["copies"] = (1 + i // 2 % 3) * row["kept"]
    return rows, make_corpus(tmp_path_factory.mktemp("copied"), [rows[:25], rows[25:]])


def test_a_document_of_two_copies_is_read_twice_an_epoch_and_counted_so(copied):
    rows, corpus = copied
    times = np.array([row["copies"] for row in rows]) * corpus.pool
    assert (times > 1).any()
    arm = corpus.arm("filtered")
    assert (arm.mask == (times > 0)).all()
    for index, source in enumerate(corpus.sources):
        ours = corpus.source_index == index
        assert arm.about["sources"][source] == {
            "documents": times[ours].sum(),
            "targets": (times * (corpus.lengths + 1))[ours].sum(),
            "bytes": (times * corpus.bytes)[ours].sum(),
        }
    ((_, chosen),) = mixture_groups(corpus, arm, None).values()
    sequence = DocumentSequence(corpus, chosen, 3)
    assert sequence.length == (times * (corpus.lengths + 1)).sum()
    for epoch in (0, 1):
        order = sequence.epoch(epoch).documents
        assert (np.bincount(order, minlength=len(corpus)) == times).all()
        # What is there once stands among itself as it would alone.
        alone = DocumentSequence(corpus, np.flatnonzero(times == 1), 3).epoch(epoch).documents
        assert [d for d in order.tolist() if times[d] == 1] == alone.tolist()


def test_copies_are_no_unique_text(copied):
    _, corpus = copied
    ((_, chosen),) = mixture_groups(corpus, corpus.arm("filtered"), None).values()
    sequence = DocumentSequence(corpus, chosen, 3)
    order = sequence.epoch(0).documents.tolist()
    half = len(order) // 2
    position = int((corpus.lengths[order[:half]] + 1).sum())
    for at, read in ((position, order[:half]), (sequence.length + 5, order)):
        counts = sequence.consumed(at).values()
        unique = set(read)
        assert sum(c["unique_documents"] for c in counts) == len(unique)
        assert sum(c["unique_targets"] for c in counts) == sum(
            corpus.lengths[d] + 1 for d in unique
        )
        assert sorted(sequence.begun(at).tolist()) == sorted(unique)
    assert sum(c["documents"] for c in sequence.consumed(position).values()) == half


def test_orders_are_uniform_and_unrelated_between_seeds_and_epochs():
    hashes = np.random.default_rng(0).integers(0, 2**64, 20_000, np.uint64)
    ranks = [
        np.argsort(np.argsort(order_keys(hashes, seed, epoch)))
        for seed, epoch in [(0, 0), (0, 1), (1, 0), (1, 1)]
    ]
    for a, b in itertools.combinations(ranks, 2):
        assert abs(np.corrcoef(a, b)[0, 1]) < 4 / np.sqrt(len(hashes))
    unit = np.sort(order_keys(np.arange(20_000, dtype=np.uint64), 0, 0) / 2.0**64)
    assert np.abs(unit - (np.arange(20_000) + 0.5) / 20_000).max() < 1.63 / np.sqrt(20_000)
    assert len(np.unique(order_keys(hashes, 7, 0))) == len(np.unique(hashes))


@given(world=st.sampled_from([1, 2, 4]), step=st.integers(0, 300), mixed=st.booleans())
@settings(max_examples=40, deadline=None)
def test_any_world_reads_the_same_global_batch_and_any_step_can_be_resumed(
    corpus, world, step, mixed
):
    mixture = {"web": 3, "wiki": 1, "books": 2} if mixed else None
    whole = TokenStream(corpus, "filtered", 2, 24, 8, mixture)
    whole.batch(0)  # out of order, so that a cached epoch could mislead
    expected = [whole.batch(step), whole.batch(step + 1)]
    ranks = [
        TokenStream(corpus, "filtered", 2, 24, 8, mixture, rank, world) for rank in range(world)
    ]
    for number, batch in enumerate(expected, step):
        parts = [rank.batch(number) for rank in ranks]
        assert all(
            torch.equal(torch.cat(part), global_part)
            for part, global_part in zip(zip(*parts, strict=True), batch, strict=True)
        )


def test_the_mixtures_of_the_configuration_compose():
    with hydra.initialize(version_base="1.3", config_path="../../conf"):
        chosen = {
            name: hydra.compose(overrides=[f"+data/mixture={name}"]).data.mixture
            for name in ("glam", "natural")
        }
    assert sum(chosen["glam"].values()) == pytest.approx(1)
    assert chosen["natural"] == {}


def test_another_stream_is_refused(corpus):
    fingerprint = TokenStream(corpus, "filtered", 0, 16, 4).fingerprint
    mixture = {"web": 1, "wiki": 1, "books": 1}
    for other in [
        TokenStream(corpus, "unfiltered", 0, 16, 4),
        TokenStream(corpus, "filtered", 1, 16, 4),
        TokenStream(corpus, "filtered", 0, 8, 4),
        TokenStream(corpus, "filtered", 0, 16, 8),
        TokenStream(corpus, "filtered", 0, 16, 4, mixture),
    ]:
        with pytest.raises(ValueError, match="another stream"):
            other.check(fingerprint)


@pytest.mark.parametrize("mixture", [None, {"web": 1, "wiki": 2, "books": 3}])
@pytest.mark.parametrize("step", [0, 1, 7, 40, 111])
def test_what_was_consumed_is_counted(corpus, mixture, step):
    stream = TokenStream(corpus, "filtered", 9, 20, 4, mixture)
    groups = [corpus.sources] if mixture is None else [[source] for source in corpus.sources]
    rows = {None: step * 4} if mixture is None else None
    expected, touched = {}, set()
    for group in groups:
        inside = np.isin(corpus.source_index, [corpus.sources.index(s) for s in group])
        chosen = np.flatnonzero(corpus.arm("filtered").mask & inside)
        if rows is None:
            index = sorted(mixture).index(group[0])
            count = int(Interleaving([mixture[s] for s in sorted(mixture)]).before(step * 4)[index])
        else:
            count = rows[None]
        entries = plain_entries(corpus, chosen, 9, count * 20)
        touched |= {document for _, (_, document) in entries}
        total = int((corpus.lengths[chosen] + 1).sum())
        for source in group:
            number = corpus.sources.index(source)
            visits = [v for _, v in entries if corpus.source_index[v[1]] == number]
            expected[source] = {
                "targets": len(visits),
                "unique_targets": len([v for v in visits if v[0] == 0]),
                "documents": len(set(visits)),
                "unique_documents": len({v[1] for v in visits if v[0] == 0}),
                "epochs": count * 20 / total,
            }
    assert stream.consumed(step) == expected
    found = stream.documents(step).tolist()
    assert set(found) == touched
    assert len(found) == len(touched)


@given(st.lists(st.floats(0.001, 1), min_size=1, max_size=7), st.integers(0, 3 * CYCLE))
@settings(max_examples=25, deadline=None)
def test_interleaving_counts_its_rows_and_stays_near_the_weights(weights, row):
    deal = Interleaving(weights)
    counted = np.bincount(deal.groups(0, row), minlength=len(weights))
    assert deal.before(row).tolist() == counted.tolist()
    share = deal.shares / deal.shares.sum()
    assert np.abs(counted - share * row).max() < len(weights)
    assert np.abs(share - np.array(weights) / sum(weights)).max() < 1 / CYCLE
    assert deal.groups(row, 5).tolist() == deal.groups(0, row + 5)[row:].tolist()


def test_streams_that_cannot_be_read_are_explained(corpus):
    with pytest.raises(ValueError, match="fewer than one batch of 1000 x 1000"):
        TokenStream(corpus, "filtered", 0, 1000, 1000)
    with pytest.raises(ValueError, match="cannot be shared by 3 ranks"):
        TokenStream(corpus, "filtered", 0, 8, 4, rank=0, world=3)
    with pytest.raises(ValueError, match="no arm 'best'"):
        TokenStream(corpus, "best", 0, 8, 4)
    for mixture, message in [
        ({"web": 1, "wiki": 1}, "does not name books, of which arm 'filtered'"),
        (
            {"web": 1, "wiki": 1, "books": 1, "news": 1},
            "gives weight to news, of which arm 'filtered'",
        ),
        ({"web": -1, "wiki": 1, "books": 1}, "must be 0 or more"),
        ({"web": 0, "wiki": 0, "books": 0}, "every weight"),
        ({"web": 1, "wiki": 1, "books": 1e-5}, "books in data.mixture are under"),
    ]:
        with pytest.raises(ValueError, match=message):
            TokenStream(corpus, "filtered", 0, 8, 4, mixture)


def test_a_token_beyond_the_vocabulary_is_an_error(tmp_path):
    folder = make_corpus(tmp_path, SHARDS).folder
    path = tmp_path / "corpus" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["tokenizer"]["vocabulary"] = 100
    path.write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="beyond the vocabulary of 100"):
        TokenStream(open_corpus(folder), "filtered", 0, 8, 4).batch(0)


def test_a_source_smaller_than_a_row_is_repeated(corpus):
    index = corpus.source_index == corpus.sources.index("books")
    shortest = np.flatnonzero(corpus.pool & index)
    shortest = shortest[np.argsort(corpus.lengths[shortest])][:1]
    mask = corpus.pool & ~index
    mask[shortest] = True
    write_arm(corpus, "one_book", mask, {})
    stream = TokenStream(corpus, "one_book", 0, 64, 2, {"web": 1, "wiki": 1, "books": 8})
    rows = torch.cat([stream.batch(step).tokens for step in range(10)])
    total = int(corpus.lengths[shortest[0]]) + 1
    one = [corpus.boundary_id, *corpus.tokens(int(shortest[0])).tolist()]
    assert (one * 1000)[:64] in rows.tolist()
    assert stream.consumed(10)["books"]["epochs"] == 16 * 64 / total


def write_long_documents(folder, documents, length):
    """In place of a corpus's shards one whose documents have ``length`` tokens each; its size."""
    manifest = json.loads((folder / "manifest.json").read_text())
    schema = shard_schema(pa.uint16())
    tokens = np.random.default_rng(0).integers(1, manifest["tokenizer"]["vocabulary"], length)
    row = {"source": "web", "bytes": length, "quality_score": 0.5, "keep_draw": 0.5, "kept": True}
    path = folder / "shards" / "long.arrow"
    with pa.ipc.new_file(str(path), schema) as writer:
        for document in range(documents):
            name = f"long-{document}"
            row |= {"id": name, "id_hash": document, "content_hash": document.to_bytes(16)}
            row |= {"tokens": tokens.astype(np.uint16)}
            writer.write_batch(pa.RecordBatch.from_pylist([row], schema=schema))
    size = path.stat().st_size
    shard = {"name": path.name, "size": size, "checksum": storage.checksum(str(path))}
    shard |= {"rows": documents, "tokens": documents * length, "sources": ["web"]}
    changes = {"shards": [shard], "held_out": 0.0}
    (folder / "manifest.json").write_text(json.dumps(manifest | changes))
    return size


def memory_of_its_own():
    """Bytes of this process that no file stands behind, and those of them that Arrow holds."""
    status = Path("/proc/self/status").read_text()
    anonymous = re.search(r"^RssAnon:\s+(\d+) kB$", status, re.MULTILINE)
    return 1024 * int(anonymous[1]), pa.total_allocated_bytes()


@pytest.mark.skipif(sys.platform != "linux", reason="/proc/self/status is Linux's")
def test_tokens_are_read_where_they_lie_in_the_file(tmp_path):
    """All of a corpus is checked and read, and next to nothing of it becomes memory of ours."""
    folder = Path(make_corpus(tmp_path, [documents(10)]).folder)
    size = write_long_documents(folder, documents=48, length=500_000)
    assert size > 48_000_000
    resident, allocated = memory_of_its_own()

    corpus = open_corpus(str(folder))
    corpus.verify()
    write_arm(corpus, "long", corpus.pool, {})
    stream = TokenStream(corpus, "long", 0, 1024, 128)
    steps = range(stream.epoch_targets // (1024 * 128))
    total = sum(int(stream.batch(step).tokens.sum()) for step in steps)

    assert total > 10 * stream.epoch_targets  # they were read
    now_resident, now_allocated = memory_of_its_own()
    assert now_allocated - allocated < size / 100
    assert now_resident - resident < size / 4
