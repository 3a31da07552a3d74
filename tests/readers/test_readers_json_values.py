"""JSON arrays and pretty-printed objects: the documents of the same objects as JSON lines."""

import gzip
import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.readers import FieldMap, InputRange, plan_ranges, read_batches
from pipeline.readers.contract import Quarantine
from pipeline.readers.json_values import value_lines

LETTERS = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
STRINGS = st.sampled_from(["", "a", '"', "\\", "\n", "[", "]", "{", "}", ",", "é\n[{,"]) | LETTERS
VALUES = st.recursive(
    st.none() | st.integers() | STRINGS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(STRINGS, inner, max_size=3),
    max_leaves=6,
)
OBJECTS = st.fixed_dictionaries({"text": STRINGS}, optional={"id": VALUES, "x": VALUES})


def read(data, name="x.json"):
    rows, bad = [], []
    for piece in plan_ranges(name, lambda _: io.BytesIO(data), split_bytes=50):
        for batch in read_batches(
            piece, FieldMap(), on_quarantine=bad.append, open_input=lambda _: io.BytesIO(data)
        ):
            rows += batch.to_pylist()
    return rows, [(record.reason, record.position) for record in bad]


def texts(rows):
    return [row["text"] for row in rows]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(OBJECTS, max_size=4), min_size=1, max_size=3),
    st.sampled_from([None, 0, 2]),
    st.booleans(),
    st.sampled_from(["", "\n", "\r\n ", "\ufeff"]),
)
def test_an_array_has_the_documents_of_its_lines(arrays, indent, ascii_only, between):
    text = between.join(
        json.dumps(objects, indent=indent, ensure_ascii=ascii_only) for objects in arrays
    )
    if between == "\ufeff":  # at the start, where it belongs
        text = between + text.replace(between, "\n")
    expected = [value for objects in arrays for value in objects]
    for data in (text.encode(), gzip.compress(text.encode())):
        rows, bad = read(data)
        assert not bad
        assert texts(rows) == texts(expected)
        for row, value in zip(rows, expected, strict=True):
            identifier = value.get("id")
            if isinstance(identifier, str | None):
                assert row["id"] == identifier
            else:  # as it is written, but for newlines
                assert json.loads(row["id"]) == identifier


@settings(max_examples=60, deadline=None)
@given(st.lists(OBJECTS, min_size=1, max_size=4), st.integers(0, 3), st.booleans())
def test_pretty_printed_objects(objects, indent, ascii_only):
    text = "\n".join(json.dumps(o, indent=indent, ensure_ascii=ascii_only) for o in objects)
    rows, bad = read(text.encode())
    assert (texts(rows), bad) == (texts(objects), [])
    # The last one is cut: all others are read.
    rows, bad = read(text.rstrip("}").encode())
    assert texts(rows) == texts(objects[:-1])
    assert ("bad_json", len(text.rstrip("}").encode())) in bad


@settings(max_examples=80, deadline=None)
@given(st.lists(OBJECTS, max_size=4), st.lists(st.integers(1, 9), max_size=30))
def test_pieces_may_be_cut_anywhere(objects, sizes):
    data = json.dumps(objects, indent=1, ensure_ascii=False).encode()
    pieces, at = [], 0
    for size in sizes:
        pieces.append(data[at : at + size])
        at += size
    bad = []
    quarantine = Quarantine("x", bad.append)
    once = b"".join(value_lines(iter([data]), quarantine))
    assert b"".join(value_lines(iter([*pieces, data[at:]]), quarantine)) == once
    assert len(once) == len(data)
    assert [json.loads(line) for line in once.split(b"\n") if line.strip()] == objects
    assert not bad


def test_a_first_line_that_is_cut_does_not_make_lines_one_object():
    rows, bad = read(b'{"id": "1",\n{"text": "a"}\n{"text": "b"}\n', "x.jsonl")
    assert (texts(rows), bad) == (["a", "b"], [("bad_json", 0)])


def test_bad_values_are_named_by_their_place():
    data = b'[{"text": "a"},\n  {"text": 5},\n 7, [1], {"text": "b"}, {"id": 1}]\n'
    rows, bad = read(data)
    assert texts(rows) == ["a", "b"]
    assert [reason for reason, _ in bad] == [
        "wrong_type",
        "not_an_object",
        "not_an_object",
        "missing_text",
    ]
    assert all(data[at:].lstrip(b", \n").startswith(start) for (_, at), start in zip(
        bad, (b'{"text": 5}', b"7", b"[1]", b'{"id"'), strict=True
    ))  # fmt: skip


@pytest.mark.parametrize("end", [b"", b",", b', {"text": "c'])
def test_an_array_that_ends_too_soon(end):
    data = b'[{"text": "a"}, {"text": "b"}' + end
    rows, bad = read(data)
    assert texts(rows) == ["a", "b"]
    assert ("bad_json", len(data)) in bad
    rows, bad = read(gzip.compress(data)[:-9])
    assert [reason for reason, _ in bad][-1] in ("truncated_gzip", "bad_json")
    assert bad


def test_what_follows_damage_is_lost_with_it():
    first = b'[{"text": "a"}, {"text": "b"}, {"text": "c'
    data = gzip.compress(first)[:-8] + bytes(8) + gzip.compress(b'd"}, {"text": "e"}]')
    rows, bad = read(data)
    assert texts(rows) == ["a", "b"]
    assert [reason for reason, _ in bad] == ["corrupt_gzip"]


def test_lines_of_arrays_among_lines_of_objects():
    data = b'[{"text": "a"}, {"text": "b"}]\n{"text": "c", "id": [1]}\n[1]\n"x"\n{"text": "d"}\n'
    rows, bad = read(data, "x.jsonl")
    assert texts(rows) == ["a", "b", "c", "d"]
    assert [reason for reason, _ in bad] == ["not_an_object", "not_an_object"]
    # A file of lines, of which one is an array, is not an array.
    rows, bad = read(b"[1]\n" + data, "x.jsonl")
    assert texts(rows) == ["c", "d"]
    assert len(bad) == 4


def test_an_array_of_nothing():
    assert read(b"[]") == ([], [])
    assert read(b" [ \n ] \n") == ([], [])


def test_a_long_array_in_blocks():
    data = json.dumps([{"text": f"text {i}", "id": str(i)} for i in range(200_000)], indent=1)
    stored = data.encode()
    piece = InputRange("x.json", 0, None, len(stored))
    batches = list(read_batches(piece, FieldMap(), open_input=lambda _: io.BytesIO(stored)))
    assert [i for batch in batches for i in batch["id"].to_pylist()] == [
        str(i) for i in range(200_000)
    ]
