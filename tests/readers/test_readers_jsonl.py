"""JSON lines, against Python's own json, line by line."""

import itertools
import json
import sys

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from pipeline.readers import (
    FieldMap,
    ReadOptions,
    ReadReport,
    digest_range,
    document_schema,
    format_of,
    jsonl,
    plan_ranges,
    read_batches,
)
from pipeline.readers.contract import Quarantine, Reading
from pipeline.readers.inflate import Damage
from pipeline.readers.json_scan import MAX_DEPTH

FIELDS = FieldMap(text="text", id="id", url="link", metadata=("n", "text2"))
MAX_BYTES = 300


class Raw(str):
    """The text of a JSON value that is not a string."""


def members(line):
    """Key and value of each member of a JSON object; Raw for what is not a string."""
    decoder = json.JSONDecoder()
    blank = " \t\r\n"

    def skip(i):
        while line[i : i + 1] and line[i] in blank:
            i += 1
        return i

    i = skip(skip(0) + 1)
    while line[i] != "}":
        key, i = decoder.raw_decode(line, i)
        i = skip(skip(i) + 1)
        value, end = decoder.raw_decode(line, i)
        if value is not None and not isinstance(value, str):
            value = Raw(line[i:end])
        yield key, value
        i = skip(end)
        if line[i] == ",":
            i = skip(i + 1)


def reference_line(line, fields, max_bytes):
    """The row of one line, or the reason why there is none, or None for a blank line."""
    if not line.strip(b" \t\r"):
        return None
    if len(line) > max_bytes:
        return "too_long"
    try:
        text = line.decode()
    except UnicodeDecodeError:
        return "invalid_utf8"
    try:
        value = json.loads(text, parse_int=str)
    except (ValueError, RecursionError):
        return "bad_json"
    if not isinstance(value, dict):
        return "not_an_object"
    found = dict(members(text))
    row = tuple(found.get(name) for name in fields.inputs)
    text = found.get(fields.text)
    if text is None:
        return "missing_text"
    if isinstance(text, Raw):
        return "wrong_type"
    try:
        [value.encode() for value in row if value is not None]
    except UnicodeEncodeError:
        return "lone_surrogate"
    return row


def reference(data, fields=FIELDS, max_bytes=MAX_BYTES):
    rows, bad = [], []
    at = 3 if data.startswith(b"\xef\xbb\xbf") else 0
    for line in data[at:].split(b"\n"):
        match reference_line(line, fields, max_bytes):
            case str(reason):
                bad.append((at, reason))
            case tuple(row):
                rows.append(row)
        at += len(line) + 1
    return rows, bad


def read(pieces, fields=FIELDS, max_bytes=MAX_BYTES):
    bad = []
    quarantine = Quarantine("x", bad.append)
    reading = Reading(fields, quarantine, ReadOptions(max_bytes), ReadReport())
    batches = list(jsonl.read_jsonl(pieces, 0, reading))
    for batch in batches:
        batch.validate(full=True)
        assert batch.schema == document_schema(fields.metadata)
    return rows_of(batches), [(b.position, b.reason) for b in bad]


def rows_of(batches):
    return [tuple(row.values()) for batch in batches for row in batch.to_pylist()]


def render(value, draw):
    """Some JSON text of a value, escaped and spaced in any way that JSON allows."""
    space = draw(st.sampled_from(["", "", "", " ", "\t", " \r"]))
    match value:
        case str():
            how = draw(st.sampled_from(["ascii", "plain", "all", "some"]))
            if how in ("ascii", "plain"):
                out = json.dumps(value, ensure_ascii=how == "ascii")
            else:
                units = value.encode("utf-16-be", "surrogatepass")
                units = [units[i : i + 2].hex() for i in range(0, len(units), 2)]
                out = json.dumps(value)[:-1] + "".join(rf"\u{unit}" for unit in units) + '"'
                if how == "all":
                    out = '"' + "".join(rf"\u{unit}" for unit in units) + '"'
        case dict():
            inner = [f"{render(k, draw)}:{render(v, draw)}" for k, v in value.items()]
            if inner and draw(st.booleans()):
                inner.append(inner[0])
            out = "{" + ",".join(inner) + space + "}"
        case list():
            out = "[" + space + ",".join(render(v, draw) for v in value) + "]"
        case _:
            out = json.dumps(value)
    return space + out + space


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(codec=None), max_size=60)
    | st.text('ab\\"/\n\0é中😀\ud83d', max_size=60)
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)
keys = st.sampled_from(["text", "id", "link", "n", "text2", "tex", "other", "", "é"])
documents = st.dictionaries(keys, values, max_size=6) | st.fixed_dictionaries(
    {"text": st.text(max_size=80), "id": st.text(max_size=9)}, optional={"n": values}
)
MORSELS = [*(bytes([i]) for i in range(256)), b'"text":', b"\\u", b"\xed\xa0\x80", b"\xc0\x80"]
MORSELS += [b"NaN", b"-Infinity", b"1e5", b"01", b"1.", b"{}", b"[]", b",", b'"', b"\n", b"\\"] * 3


@st.composite
def files(draw):
    """JSON lines as bytes, some of them mutilated."""
    lines = draw(st.lists(documents | values, max_size=6))
    data = "\n".join(render(line, draw) for line in lines)
    data = bytearray(data.encode("utf-8", "surrogatepass"))
    for _ in range(draw(st.sampled_from([0, 0, 1, 2, 5]))):
        at = draw(st.integers(0, len(data)))
        data[at : at + draw(st.integers(0, 2))] = draw(st.sampled_from(MORSELS))
    return draw(st.sampled_from([b"", b"\xef\xbb\xbf"])) + bytes(data)


def cut(data, places):
    ends = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[a:b] for a, b in itertools.pairwise(ends)]


@pytest.fixture(scope="module", autouse=True)
def digits():
    """Python refuses integers of many digits; JSON does not."""
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    yield
    sys.set_int_max_str_digits(before)


@settings(max_examples=120, deadline=None)
@given(files(), st.lists(st.integers(0, 10**6), max_size=4), st.sampled_from([1, 40, 1 << 22]))
@example(b'{"text": "\\ud83d\\ud83d\\ude00"}', [], 1)
@example(b'{"te\\u0078t": "a", "text": "b\\u0000"}\r\n\r\n \n{"text":"c"}', [], 1)
@example(b'{"text": "a", "n": -0.0e-7, "id": 1E400}\n{"text":"","n":[1,{"a":"]"}]}', [], 1)
@example(b'{"text":"a"} {"text":"b"}\n{"text":"a",}\n{"text":"a"', [], 1)
def test_reads_what_json_reads(data, places, block_bytes):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsonl, "_BLOCK_BYTES", block_bytes)
        assert read(cut(data, places)) == reference(data)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.sampled_from(MORSELS) | st.binary(max_size=3), max_size=30))
def test_reads_what_json_reads_in_a_string(morsels):
    data = b'{"text":"' + b"".join(morsels) + b'"}'
    assert read([data]) == reference(data)


@settings(max_examples=120, deadline=None)
@given(st.lists(st.sampled_from(list("0123456789.eE+-")), max_size=8))
def test_reads_numbers_as_json_does(characters):
    data = b'{"text":"a","n":' + "".join(characters).encode() + b"}"
    assert read([data]) == reference(data)


@settings(max_examples=120, deadline=None)
@given(st.binary(max_size=8), st.integers(0, 70))
def test_utf8_at_every_place_of_a_vector(octets, before):
    data = b'{"text":"' + b"x" * before + octets.replace(b"\n", b"") + b'"}'
    assert read([data]) == reference(data)


@pytest.mark.parametrize("start", range(0x80, 0x110000, 0x8000))
def test_every_code_point(start):
    text = "".join(
        chr(c) for c in range(start, min(start + 0x8000, 0x110000)) if not 0xD800 <= c < 0xE000
    )
    for escaped in (False, True):
        line = json.dumps({"text": text}, ensure_ascii=escaped).encode()
        assert read([line], max_bytes=1 << 22) == ([(None, None, text, None, None)], [])


def test_batches_end_where_their_room_ends(monkeypatch):
    monkeypatch.setattr(jsonl, "_MAX_ROWS", 7)
    monkeypatch.setattr(jsonl, "_MAX_BAD", 3)
    lines = [
        b"%d" % i if i % 3 else json.dumps({"text": str(i), "id": i}).encode() for i in range(100)
    ]
    assert read([b"\n".join(lines)]) == reference(b"\n".join(lines))


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_nesting_is_bounded(opening):
    closing = {b"[": b"]"}.get(opening, b"}")
    for depth, good in ((MAX_DEPTH, True), (MAX_DEPTH + 1, False), (10**6, False)):
        line = b'{"text":"a","n":' + opening * depth + b"1" + closing * depth + b"}"
        rows, bad = read([line], max_bytes=1 << 24)
        assert (len(rows), [reason for _, reason in bad]) == (
            (1, []) if good else (0, ["bad_json"])
        )


def test_one_field_for_several_columns():
    fields = FieldMap(text="body", id="u", url="u", metadata=("body",))
    assert read([b'{"body":"a","u":7}'], fields) == ([("7", "7", "a", "a")], [])


NAMES = st.sampled_from(["a", "b", "c", "a.b", "b.c", "a.b.c"])
NESTED = st.recursive(
    st.sampled_from(['"x"', '"y"', "null", "1", "[{}]", "{ }"]),
    lambda values: st.lists(st.tuples(NAMES, values), min_size=1, max_size=4).map(
        lambda pairs: "{" + ",".join(f'"{name}" :{value}' for name, value in pairs) + "}"
    ),
    max_leaves=12,
)


def lookup(line, name):
    """The value of a field: of that very name, or of the way through objects."""
    found = dict(members(line))
    if name in found:
        return found[name]
    for part in name.split("."):
        found = dict(members(line)) if line.startswith("{") else {}
        value = found.get(part)
        line = value if isinstance(value, Raw) else ""
    return value


@given(
    st.lists(NESTED.filter(lambda line: line.startswith("{")), max_size=8),
    st.permutations(["a", "b", "a.b", "b.c", "a.b.c"]),
)
@settings(deadline=None)
@example(['{"a":{"b":"x"},"a":{}}', '{"a":{"b":"x"},"a.b":null}'], ["a.b", "a", "b", "c", "b.c"])
def test_fields_of_objects(lines, names):
    fields = FieldMap(text="text", id=names[0], url=names[1], metadata=tuple(names[2:]))
    lines = ['{"text":"t",' + line[1:] if line != "{ }" else '{"text":"t"}' for line in lines]
    rows, bad = read(["\n".join(lines).encode()], fields)
    wanted = [tuple(lookup(line, name) for name in fields.inputs) for line in lines]
    assert (rows, bad) == (wanted, [])


@pytest.mark.parametrize("separator", ["\n", "", "a longer one, é"])
@pytest.mark.parametrize("field", ["text", "a.b"])
def test_a_list_of_strings_is_a_text_on_request(separator, field):
    values = [["a", 'b\n"é'], [], "one", ["a", 1], ["a", None], {"a": 1}, ["x"] * 999, [["a"]]]
    lines = [{"text": value} if field == "text" else {"a": {"b": value}} for value in values]
    data = "\n".join(map(json.dumps, lines)).encode()
    rows, bad = read([data], FieldMap(text=field, list_separator=separator), 1 << 20)
    texts = [separator.join(value) for value in (["a", 'b\n"é'], [], ["one"], ["x"] * 999)]
    assert [text for _, _, text in rows] == texts
    assert [reason for _, reason in bad] == [
        "wrong_type",
        "missing_text",
        "wrong_type",
        "wrong_type",
    ]
    assert [reason for _, reason in read([data], FieldMap(text=field), 1 << 20)[1]] == [
        "wrong_type"
    ] * 7


def test_a_long_line_takes_no_more_memory_than_a_document_may():
    """Not measured by the process, whose peak other tests set: by what is gathered."""
    largest = 0
    real = bytearray

    def counting(size):
        nonlocal largest
        largest = max(largest, size)
        return real(size)

    def pieces():
        yield b'{"text":"first"}\n{"text":"'
        for _ in range(300):
            yield b"x" * (1 << 20)
        yield b'"}\n{"text":"last"}\n'

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsonl, "bytearray", counting, raising=False)
        rows, bad = read(pieces(), max_bytes=8 << 20)
    assert [row[2] for row in rows] == ["first", "last"]
    assert bad == [(17, "too_long")]
    assert largest <= 3 * (8 << 20)


def test_damage_ends_a_line_that_is_too_long(monkeypatch):
    monkeypatch.setattr(jsonl, "_BLOCK_BYTES", 100)
    start = b'{"text":"' + b"x" * 1000
    damage = Damage("corrupt_gzip", 7, 1009)
    rows, bad = read([start, b"x" * 1000, damage, b'{"text":"next"}\n'])
    assert [row[2] for row in rows] == ["next"]
    assert bad == [(0, "too_long"), (7, "corrupt_gzip")]


def test_a_long_line_that_fits_is_read():
    text = "long é " * (2 << 20)
    data = json.dumps({"text": text}).encode()
    rows, bad = read(cut(data, range(0, len(data), 1 << 20)), max_bytes=len(data))
    assert rows == [(None, None, text, None, None)]
    assert not bad
    assert read([data], max_bytes=len(data) - 1) == ([], [(0, "too_long")])


@settings(max_examples=30, deadline=None)
@given(files(), st.integers(1, 60), st.sampled_from([5, 1 << 20]))
def test_ranges_add_up_to_the_file(tmp_path_factory, data, split_bytes, read_bytes):
    path = tmp_path_factory.mktemp("ranges") / "x.jsonl"
    path.write_bytes(data)
    if not data:
        return
    assume(format_of(str(path)).name == "jsonl")  # and no array of objects, which is another format
    bad = []
    rows = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsonl, "_READ_BYTES", read_bytes)
        ranges = plan_ranges(str(path), split_bytes=split_bytes)
        assert sum(piece.size for piece in ranges) == len(data)
        for piece in ranges:
            digest = Recorder()
            batches = read_batches(
                piece,
                FIELDS,
                on_quarantine=bad.append,
                options=ReadOptions(MAX_BYTES),
                digest=digest,
            )
            rows += rows_of(batches)
            assert digest_range(piece) == digest_range(piece)
            assert b"".join(digest.pieces) in data
    assert (rows, [(b.position, b.reason) for b in bad]) == reference(data)


class Recorder:
    def __init__(self):
        self.pieces = []

    def update(self, data):
        self.pieces.append(data)
