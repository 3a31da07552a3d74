"""Decontamination: which n-grams documents share with evaluation files, and how those are read."""

import csv
import gzip
import io
import json
import unicodedata

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from step_checks import batch, configured, reasons

from pipeline.readers.decoders import zstd
from pipeline.steps.decontamination import n_gram_set, overlaps
from pipeline.steps.evaluation_files import read_evaluation_file


def normalised(text):
    plain = unicodedata.normalize("NFD", text)
    words = ("".join(c.lower()[0] for c in word if c.isalnum()) for word in plain.split())
    return [word for word in words if word]


def n_grams(text, n):
    words = normalised(text)
    return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}


HINDI = ("\u0958", "\u0915\u093c", "\u0915")  # one letter in both normal forms, and without its dot
HAN = ("한글", "\u1112\u1161\u11ab글")

spaced = st.lists(
    st.sampled_from(
        [*"aAÉéßİc하", "E\u0301", "b,", "(b)", "--", "\n", "日本", "\u2003", *HINDI, *HAN]
    ),
    max_size=25,
).map(" ".join)


@given(st.lists(spaced, min_size=1, max_size=4), st.lists(spaced | st.text(), max_size=5))
@settings(max_examples=120, deadline=None)
def test_every_shared_n_gram_is_found_and_no_other(evaluation, texts):
    for n in (1, 2, 4):
        known = set().union(*(n_grams(text, n) for text in evaluation))
        column = pa.array(["first", *evaluation], pa.large_string())[1:]
        if not known:
            with pytest.raises(ValueError, match="no evaluation text has"):
                n_gram_set(column, n)
            continue
        table = n_gram_set(column, n)
        found = overlaps(pa.array(["a", *texts], pa.large_string())[1:], table, n)
        assert found.tolist() == [bool(n_grams(text, n) & known) for text in texts]


QUESTION = "Which of these two birds, the heron or the wren, builds its nest nearer the water?"


def test_contaminated_documents_are_dropped_whatever_their_punctuation_and_case(tmp_path):
    path = tmp_path / "task.jsonl"
    record = {"id": 1, "question": QUESTION, "choices": [{"text": " ".join("abcdefghijklmn")}]}
    path.write_text(json.dumps(record) + "\n\n")
    texts = [
        "It asks: " + QUESTION.upper().replace(",", " --") + " And so on.",
        "\n".join(QUESTION.split()[2:]),
        " ".join(QUESTION.split()[:12]),
        "so we say a b c d e f g h i j k l m and",
    ]
    rows = batch(text=texts)
    every = configured("decontamination", files=[str(tmp_path / "*.jsonl")])
    hit = "contaminated"
    assert reasons(every, rows)[1] == [hit, hit, None, hit]
    some = configured("decontamination", files=[str(path)], fields=["question"])
    assert reasons(some, rows)[1] == [hit, hit, None, None]
    (tmp_path / "plain.txt").write_text(QUESTION.replace(" ", "\n"))
    plain = configured("decontamination", files=[str(tmp_path / "plain.txt")])
    assert reasons(plain, rows)[1] == [hit, hit, None, None]


def test_evaluation_files_that_cannot_be_read_as_meant_are_errors(tmp_path):
    path = tmp_path / "task.jsonl"
    for content, fields, message in [
        (b'{"a": "x"}\n{"a": ', [], "line 2 of .* is not JSON"),
        (b'{"a": "x"}', ["b"], "no record of .* has the fields \\['b'\\]"),
        (b'["x"]', ["b"], "record 1 of .* has no fields"),
        (b'"\xff"', [], "not UTF-8"),
        (b'"\0"', [], "is not text"),
        (b"[" * 100_000, [], "nested too deeply"),
        (b'{"a": null}', ["a"], "no record of .* has the fields"),
    ]:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            read_evaluation_file(str(path), fields)
    path.write_text('{"a": "x", "b": ["y", {"c": "z", "d": 3}]}')
    assert read_evaluation_file(str(path), []).texts == ["x", "y", "z"]
    path.write_text('"a b"')
    with pytest.raises(ValueError, match=r"no text of .*task.jsonl has 13 words"):
        configured("decontamination", files=[str(path)])
    with pytest.raises(ValueError, match="nothing matches"):
        configured("decontamination", files=[str(tmp_path / "*.none")])


RECORDS = [
    {"question": QUESTION + ' "É\u2028"', "answer": "The heron.", "n": 1},
    {"question": "Too short\nfor it, that is,; ", "answer": " ".join("abcdefghijklmn"), "n": 2},
]


def evaluation_files():
    """The records in every form, by file name."""
    lines = "".join(json.dumps(record) + "\n" for record in RECORDS)
    table = pa.Table.from_pylist(RECORDS)
    sinks = {name: io.BytesIO() for name in ("parquet", "arrow", "stream")}
    pq.write_table(table, sinks["parquet"])
    for name, new in (("arrow", pa.ipc.new_file), ("stream", pa.ipc.new_stream)):
        with new(sinks[name], table.schema) as writer:
            writer.write_table(table)
    text = {
        "a.jsonl": lines,
        "a.JSONL": lines,
        "a.ndjson": lines.replace("\n", "\r\n"),
        "a.json": json.dumps(RECORDS, indent=1),
        "b.json": json.dumps(RECORDS, ensure_ascii=False),
        "no_name": lines,
        "records.txt": lines,
    }
    for name, delimiter in (("a.csv", ","), ("b.CSV", ";"), ("a.tsv", "\t")):
        file = io.StringIO()
        writer = csv.DictWriter(file, RECORDS[0], delimiter=delimiter)
        writer.writeheader()
        writer.writerows(RECORDS)
        text[name] = text[f"{name} by content"] = file.getvalue()
    files = {name: content.encode() for name, content in text.items()}
    files |= {name: sink.getvalue() for name, sink in sinks.items()}
    files |= {f"bom.{name}": b"\xef\xbb\xbf" + content.encode() for name, content in text.items()}
    files["utf16.json"] = text["b.json"].encode("utf-16")
    files |= {f"{name}.gz": gzip.compress(files[name]) for name in list(files)}
    first, last = io.BytesIO(), io.BytesIO()
    for sink, part in ((first, table[:1]), (last, table[1:])):
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(part)
    files["two streams"] = first.getvalue() + last.getvalue()
    files["two.jsonl.gz"] = b"".join(gzip.compress(line) for line in lines.encode().splitlines())
    files["a.jsonl.zst"] = zstd.compress(files["a.jsonl"])
    return files


@pytest.mark.parametrize("name", evaluation_files())
def test_evaluation_files_are_read_by_what_is_in_them(tmp_path, name):
    (tmp_path / name).write_bytes(evaluation_files()[name])
    found = read_evaluation_file(str(tmp_path / name), ["question"])
    assert found.texts == [record["question"] for record in RECORDS]
    texts = read_evaluation_file(str(tmp_path / name), []).texts
    wanted = [record[key] for record in RECORDS for key in ("question", "answer")]
    assert set(texts) - {"1", "2"} == set(wanted)
    with pytest.raises(ValueError, match=r"has the fields \['prompt'\]"):
        read_evaluation_file(str(tmp_path / name), ["prompt"])
    step = configured("decontamination", files=[f"{tmp_path}/*"], fields=["answer"])
    assert step.notes == [
        f"decontamination: {tmp_path}/{name}: 2 13-grams of 2 records",
        f"warning: decontamination: {tmp_path}/{name}: 1 of 2 records have no text of 13 words",
    ]


def test_plain_text_that_looks_like_json_at_first_is_plain_text(tmp_path):
    for text in (
        *("[1] A note.", "[1]\nA note.", "{x} is a set", "{} is one too", "\ufeffplain", ""),
        *('"No," he said.', '"No", he said,\nand, then, left', "Then,there\nwere,two,more"),
    ):
        (tmp_path / "note.txt").write_text(text)
        assert read_evaluation_file(str(tmp_path / "note.txt"), []).texts == [text.strip("\ufeff")]
    with pytest.raises(ValueError, match=r"note.txt is plain text, which has no fields"):
        read_evaluation_file(str(tmp_path / "note.txt"), ["question"])


def test_fields_may_lie_deeper_than_the_record(tmp_path):
    path = tmp_path / "squad.json"
    part = {"paragraphs": [{"context": "c", "qas": [{"question": "q"}, {"question": "r"}]}]}
    path.write_text(json.dumps({"data": [part, {"question": ["s", {"question": "t"}], "x": "u"}]}))
    assert read_evaluation_file(str(path), ["question"]).texts == ["q", "r", "s", "t"]
    path.write_text(json.dumps({"question": "q", "of": {"question": "r"}}))
    assert read_evaluation_file(str(path), ["question"]).texts == ["q"]


def test_records_without_the_field_are_counted(tmp_path):
    path = tmp_path / "task.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in [*RECORDS, {"other": "x"}]))
    step = configured("decontamination", files=[str(path)], fields=["answer"])
    assert step.notes == [
        f"decontamination: {path}: 2 13-grams of 3 records",
        f"warning: decontamination: {path}: 1 of 3 records have no field 'answer'",
        f"warning: decontamination: {path}: 2 of 3 records have no text of 13 words",
    ]


def test_parts_of_a_file_are_not_passed_over(tmp_path):
    for name, content, message in [
        ("a.csv", b"a,b\nx,y, and z\n", "row 2 of .* has 3 cells, not 2"),
        ("a.csv", b'a,b\n"x"y,z\n', "can't be read as CSV"),
        ("a.txt", b'{"a": "x"}\n{"a"', "line 2 of .* is not JSON"),
        ("a.txt", b'[{"a": "x"},\n{"a"', "line 2 of .* is not JSON"),
        ("two", 2 * evaluation_files()["parquet"], "several files in one"),
        ("two", 2 * evaluation_files()["arrow"], "several files in one"),
        ("two", evaluation_files()["stream"] + b"more than that", "can't be read"),
    ]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=message):
            read_evaluation_file(str(tmp_path / name), [])


@pytest.mark.parametrize("cut", ["a.jsonl.gz", "parquet", "arrow"])
def test_a_damaged_evaluation_file_is_an_error(tmp_path, cut):
    (tmp_path / cut).write_bytes(evaluation_files()[cut][:-40])
    with pytest.raises(ValueError, match=f"{cut} (is damaged|can't be read)"):
        read_evaluation_file(str(tmp_path / cut), [])
