"""Held-out batches against a packer written with plain Python lists."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokens_scored import key_of

from model.data.held_out import HeldOut


def held_out_documents(corpus, source):
    ours = corpus.source_index == corpus.sources.index(source)
    chosen = np.flatnonzero(ours & corpus.held_out & corpus.reached).tolist()
    return sorted(chosen, key=lambda d: key_of(corpus, d, 0, 0))


@given(length=st.integers(1, 60), batch=st.integers(1, 5), world=st.sampled_from([1, 2]))
@settings(max_examples=40, deadline=None)
def test_held_out_rows_hold_every_target_of_every_document_once(corpus, length, batch, world):
    ranks = [
        HeldOut(corpus, "wiki", length, batch * world, rank=r, world=world) for r in range(world)
    ]
    order = held_out_documents(corpus, "wiki")
    assert ranks[0].documents.tolist() == order
    assert ranks[0].bytes.tolist() == corpus.bytes[order].tolist()
    read = {d: [] for d in range(len(order))}
    for parts in zip(*ranks, strict=True):
        for part in parts:
            assert part.tokens.shape == (batch, length)
            for row in zip(*(x.tolist() for x in part[:3]), part.documents.tolist(), strict=True):
                cells = zip(*row, strict=True)
                for (segment, document), group in itertools.groupby(cells, lambda c: c[2:]):
                    window = list(group)
                    targets = [target for _, target, *_ in window]
                    if segment == 0:
                        assert document == -1
                        assert set(targets) == {-100}
                        continue
                    before = read[document][-1] if read[document] else corpus.boundary_id
                    assert [t for t, *_ in window] == [before, *targets[:-1]]
                    assert len(read[document]) % length == 0
                    read[document] += targets
    for number, document in enumerate(order):
        assert read[number] == [*corpus.tokens(document).tolist(), corpus.boundary_id]


@pytest.mark.parametrize("length", [5, 16, 64])
def test_held_out_rows_are_filled_in_turn(corpus, length):
    held = HeldOut(corpus, "wiki", length, 3)
    windows = []
    for total in (corpus.lengths[held.documents] + 1).tolist():
        windows += [length] * (total // length) + [total % length] * (total % length > 0)
    rows = [[]]
    for size in windows:
        if sum(rows[-1]) + size > length:
            rows.append([])
        rows[-1].append(size)
    found, ends = [], []
    for batch in held:
        found += [np.bincount(row)[1:].tolist() for row in batch.segments.numpy()]
        ended = batch.documents[batch.targets == corpus.boundary_id]
        ends += ended.tolist()
    assert found[: len(rows)] == rows
    assert not any(found[len(rows) :])
    assert ends == list(range(len(held.documents)))


def test_held_out_documents_can_be_limited_and_are_in_no_arm(corpus):
    whole = HeldOut(corpus, "wiki", 32, 4)
    limit = int(whole.bytes[:3].sum())
    few = HeldOut(corpus, "wiki", 32, 4, limit_bytes=limit)
    assert few.documents.tolist() == whole.documents[:3].tolist()
    for arm in ("filtered", "unfiltered"):
        assert not corpus.arm(arm).mask[whole.documents].any()
    # Two at least, however long they are.
    assert HeldOut(corpus, "wiki", 32, 4, limit_bytes=1).documents.tolist() == (
        whole.documents[:2].tolist()
    )
    with pytest.raises(ValueError, match="no source 'news'"):
        HeldOut(corpus, "news", 32, 4)
    with pytest.raises(ValueError, match="cannot be shared"):
        HeldOut(corpus, "wiki", 32, 3, world=2)
