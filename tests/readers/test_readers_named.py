"""CSV, text and HTML files, which only their names tell, and ARC files."""

import csv
import gzip
import io

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.readers import FieldMap, ReadOptions, ReadReport, digest_range, plan_ranges
from pipeline.readers import read_batches as _read_batches

PAGE = "<!doctype html><html><body><article><p>Größe &amp; more of it.</p></article></body></html>"


def read(path, data, fields=None, options=None):
    """Rows, (position, unit, reason) of bad records, and the report."""
    path.write_bytes(data)
    bad, report, rows = [], ReadReport(), []
    for piece in plan_ranges(str(path)):
        for batch in _read_batches(
            piece,
            fields or FieldMap(),
            options or ReadOptions(),
            on_quarantine=bad.append,
            report=report,
        ):
            batch.validate(full=True)
            rows += batch.to_pylist()
        assert digest_range(piece)
    return rows, [(b.position, b.unit, b.reason) for b in bad], report


def texts(rows):
    return [row["text"] for row in rows]


def written(rows, **form):
    out = io.StringIO(newline="")
    csv.writer(out, **form).writerows(rows)
    return out.getvalue().encode()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(*[st.text(st.sampled_from('ab,;\t"\n\ré'), max_size=6)] * 2), max_size=6),
    st.sampled_from(["csv", "csv.gz", "tsv"]),
    st.booleans(),
)
@example([("", "")], "csv", True)
def test_a_table_is_what_was_written(tmp_path_factory, rows, ending, quoted):
    """Against Python's own writer: quotes, delimiters and newlines within values."""
    form = {
        "delimiter": "\t" if ending == "tsv" else ",",
        "quoting": csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL,
    }
    data = written([("id", "text"), *rows], **form)
    data = gzip.compress(data) if ending.endswith("gz") else data
    found, bad, _ = read(tmp_path_factory.mktemp("csv") / f"x.{ending}", data)
    assert [(row["id"], row["text"]) for row in found] == rows
    assert not bad


def test_rows_that_are_no_documents(tmp_path):
    lines = [
        b"id;body;x",
        b"0;zero;",
        b"1;one",
        b'2;"two\n2";',
        b"3;\xff;",
        b"4;too;many;values",
        b"5;five;",
        b"\xff;\xfe",
        b"7;\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80;",
        b'8;"never closed;',
        b"9;lost;",
    ]
    rows, bad, _ = read(
        tmp_path / "x.csv", b"\xef\xbb\xbf" + b"\n".join(lines), FieldMap(text="body")
    )
    assert texts(rows) == ["zero", "two\n2", "five", "é€😀"]
    assert sorted(bad) == [
        (1, "record", "bad_csv"),
        (3, "record", "invalid_utf8"),
        (4, "record", "bad_csv"),
        (6, "record", "bad_csv"),
        (8, "record", "bad_csv"),
    ]


def test_a_table_without_the_text_column_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no column 'text'; it has \['id', 'body'\]"):
        read(tmp_path / "x.csv", b"id,body\n1,a\n")
    with pytest.raises(ValueError, match=r"several columns named \['text'\]"):
        read(tmp_path / "y.csv", b"text,text\n1,a\n")


def test_a_table_that_is_cut_off_has_no_half_row(tmp_path):
    whole = written([("text",), *[(f"text {i} " * 50,) for i in range(2000)]])
    packed = gzip.compress(whole)
    rows, bad, _ = read(tmp_path / "x.csv.gz", packed[: len(packed) // 2])
    assert texts(rows) == [f"text {i} " * 50 for i in range(len(rows))]
    assert len(rows) > 500
    assert [reason for _, _, reason in bad] == ["truncated_gzip"]


@given(st.lists(st.text(st.sampled_from("ab \r\té"), max_size=5), max_size=8), st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_document_a_line(tmp_path_factory, lines, ends):
    data = "\n".join(lines).encode() + b"\n" * ends
    path = tmp_path_factory.mktemp("txt") / "x.txt"
    if not data:
        return
    rows, bad, _ = read(path, data, options=ReadOptions(text_document="line"))
    wanted = [line.removesuffix("\r") for line in lines]
    assert texts(rows) == [line for line in wanted if line]
    assert not bad
    rows, _, _ = read(path, data)
    assert texts(rows) == [data.decode()]


def test_bad_lines_and_files_of_text(tmp_path):
    data = b"\xef\xbb\xbfone\n\n\xff\n" + b"x" * 50 + b"\nlast"
    rows, bad, _ = read(tmp_path / "x.txt", data, options=ReadOptions(40, text_document="line"))
    assert texts(rows) == ["one", "last"]
    assert bad == [(2, "record", "invalid_utf8"), (3, "record", "too_long")]
    assert read(tmp_path / "y.txt", data)[1] == [(0, "record", "invalid_utf8")]
    assert read(tmp_path / "y.txt", data, options=ReadOptions(40))[1] == [(0, "byte", "too_long")]
    cut = gzip.compress(b"words " * 99)[:-9]
    rows, bad, _ = read(tmp_path / "z.txt.gz", cut)
    assert not rows
    assert bad[0][1:] == ("compressed byte", "truncated_gzip")


def test_a_text_that_starts_with_a_brace(tmp_path):
    rows, bad, _ = read(tmp_path / "x.txt", b"{braces} are text")
    assert (texts(rows), bad) == (["{braces} are text"], [])


def test_a_text_document_is_a_file_or_a_line():
    with pytest.raises(ValueError, match="'file' or 'line', not 'page'"):
        ReadOptions(text_document="page")


def test_an_html_file_is_a_page(tmp_path):
    rows, bad, report = read(tmp_path / "x.html", PAGE.encode())
    assert (texts(rows), bad, report.kinds) == (["Größe & more of it."], [], {"html": 1})
    rows, bad, report = read(tmp_path / "x.htm.gz", gzip.compress(b"<p>"))
    assert (rows, bad, report.skipped) == ([], [], {"no_text": 1})
    rows, bad, _ = read(tmp_path / "wide.html", PAGE.encode("utf-16"))
    assert (texts(rows), bad) == (["Größe & more of it."], [])
    with pytest.raises(ValueError, match=r"perhaps a failed download.*name it \.html"):
        read(tmp_path / "x.jsonl", PAGE.encode())


@pytest.mark.parametrize("name", ["x.csv", "x.txt", "x.html"])
@pytest.mark.parametrize("data", [b"PK\x03\x04xx", b"version https://git-lfs.github.com/spec/v1"])
def test_a_name_does_not_make_an_archive_readable(tmp_path, name, data):
    with pytest.raises(ValueError, match=r"unpack it|git lfs pull"):
        read(tmp_path / name, data)


PLAIN = "plain text\nhttp://x 1.1.1.1"


def arc(version=1):
    """A file of six records, as Heritrix and the Alexa crawls wrote them."""
    extra = " 200 SUM - 0 x.arc" if version == 2 else ""

    def record(url, kind, block):
        return f"{url} 1.2.3.4 20010203040506 {kind}{extra} {len(block)}\n".encode() + block + b"\n"

    def page(text, kind="text/html", status="200 OK"):
        body = f"<html><body><p>{text}</p></body></html>" if "html" in kind else text
        return f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\n\r\n{body}".encode()

    fields = "URL IP-address Archive-date Content-type Archive-length\n"
    return [
        record("filedesc://x.arc", "text/plain", f"{version} 0 Alexa\n{fields}".encode()),
        record("http://a.example/1?x=a b", "text/html", page("First page")),
        record("dns:a.example", "text/dns", b"20010203 a.example. 1 IN A 1.2.3.4"),
        record("http://a.example/2", "text/plain", page(PLAIN, "text/plain")),
        record("http://a.example/3", "text/html", page("gone", status="404 Not Found")),
        record("https://b.example/4", "text/html", page("Last page")),
    ]


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_arc(tmp_path, version, pack):
    data = b"".join(map(pack, arc(version)))
    fields = FieldMap(metadata=("WARC-Date",))
    rows, bad, report = read(tmp_path / "x", data, fields)
    assert [(row["url"], row["text"]) for row in rows] == [
        ("http://a.example/1?x=a b", "First page"),
        ("http://a.example/2", PLAIN),
        ("https://b.example/4", "Last page"),
    ]
    assert {row["WARC-Date"] for row in rows} == {"2001-02-03T04:05:06Z"}
    assert not bad
    assert report.skipped == {"warcinfo": 1, "not_http": 1, "http_status": 1}
    assert report.kinds == {"html": 2, "plain_text": 1}


@pytest.mark.parametrize("length", [b"3", b"99999", b"x"])
def test_a_wrong_length_costs_one_arc_record(tmp_path, length):
    records = arc()
    line, _, block = records[1].partition(b"\n")
    records[1] = line.rpartition(b" ")[0] + b" " + length + b"\n" + block
    rows, bad, _ = read(tmp_path / "x.arc", b"".join(records))
    assert texts(rows) == [PLAIN, "Last page"]
    assert bad == [(len(records[0]), "byte", "bad_warc")]


def test_a_cut_arc_file(tmp_path):
    data = b"".join(arc())
    rows, bad, _ = read(tmp_path / "x.arc", data[:-30])
    assert texts(rows) == ["First page", PLAIN]
    assert bad == [(len(data) - len(arc()[-1]), "byte", "bad_warc")]


def test_batches_hold_what_a_long_table_has(tmp_path):
    count = 5000
    table = [("id", "text"), *[(str(i), "words " * 400) for i in range(count)]]
    rows, bad, _ = read(tmp_path / "x.csv", written(table))
    assert ([row["id"] for row in rows], bad) == ([str(i) for i in range(count)], [])
    assert pa.array(texts(rows)).value_counts()[0]["counts"].as_py() == count
