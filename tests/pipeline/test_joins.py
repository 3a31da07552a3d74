"""Joined columns, against dictionaries, plain loops and the text of RFC 3986."""

import json
from urllib.parse import urljoin

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpora import documents, fingerprints, write_classifier, write_jsonl
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import decide, run
from pipeline.config import load
from pipeline.joins import build as building
from pipeline.joins import tables as joined_tables
from pipeline.joins.build import build
from pipeline.joins.grouping import Values, edges
from pipeline.joins.settings import Join, joins_of, parse
from pipeline.joins.side_files import batches
from pipeline.joins.tables import Lookup, decoded, encoded
from pipeline.output import run_notes
from quality_classifier.audit import AuditConfig, audit_run
from winnow.text.groups import grouped
from winnow.text.urls import canonical


def table(folder, files, **settings):
    """The lookup of a join of files (by name: an Arrow table, or text)."""
    paths = {}
    for name, content in files.items():
        path = folder / name
        if isinstance(content, str):
            path.write_text(content)
        else:
            pq.write_table(content, path)
        paths[str(path)] = name
    made = build("j", Join(list(paths), **settings), paths, str(folder / "work"))
    return Lookup(made, str(folder / "work")), made


def looked_up(lookup, keys):
    return [column.to_pylist() for column in lookup.take(lookup.find(pa.array(keys, pa.string())))]


@pytest.mark.parametrize("bucket_bytes", [1 << 30, 1 << 12])
@pytest.mark.parametrize("alike", [None, 5])
def test_a_lookup_is_that_of_a_dictionary_even_if_hashes_collide(
    tmp_path, monkeypatch, bucket_bytes, alike
):
    monkeypatch.setattr(building, "BUCKET_BYTES", bucket_bytes)
    if alike:  # five different hashes in all

        def few(keys):
            lengths = np.array([hash(key) % alike for key in keys.to_pylist()], np.uint64)
            return lengths << np.uint64(60)

        monkeypatch.setattr(building, "xxh3_64", few)
        monkeypatch.setattr(joined_tables, "xxh3_64", few)
    rng = np.random.default_rng(3)
    keys = [f"k{i}" for i in rng.permutation(500)]
    rows = pa.table({"id": keys, "n": range(500), "l": [[key] for key in keys]})
    files = {"a.parquet": rows.slice(0, 200), "b.parquet": rows.slice(200)}
    lookup, made = table(tmp_path, files)
    assert (len(made.buckets) > 1) == (bucket_bytes < 1 << 20)
    assert made.rows == 500
    known = {key: (n, [key]) for n, key in enumerate(keys)}
    asked = [*(f"k{i}" for i in rng.integers(0, 700, 300)), None, ""]
    found = looked_up(lookup, asked)
    assert list(zip(*found, strict=True)) == [known.get(key, (None, None)) for key in asked]
    met = lookup.find(pa.array(keys))
    assert sorted(met) == list(range(500))  # each row has a number of its own


def test_duplicate_keys_are_an_error_or_as_the_settings_say(tmp_path):
    one = pa.table({"url": ["http://a.example/x", "http://b.example"], "v": [1, 2]})
    two = pa.table({"url": ["https://www.a.example/x#y", None], "v": [3, 4]})
    files = {"a.parquet": one, "b.parquet": two}
    with pytest.raises(
        ValueError, match=r"'a\.example/x' is in .*a\.parquet and .*b\.parquet: lea"
    ):
        table(tmp_path, files, key="url")
    for which, value in (("first", 1), ("last", 3)):
        lookup, made = table(tmp_path, files, key="url", duplicates=which)
        assert (made.rows, made.duplicates, made.without_key) == (2, 1, 1)
        assert looked_up(lookup, ["a.example/x", "b.example/", "c.example/"]) == [[value, 2, None]]


def test_columns_have_the_types_of_their_values(tmp_path):
    lines = ['{"id": 7, "s": 1, "t": "2024-01-01", "u": null}', "", '{"id": "8", "s": 2.5}']
    csv = 'id,n,x,flag,code,text\n1,5,0.5,true,007,"a\nb"\n2,,1,false,1,\n'
    for name, content, expected in (
        ("a.jsonl", lines[0] + "\n", {"s": pa.int64(), "t": pa.string(), "u": pa.null()}),
        ("a.jsonl", lines[2], {"s": pa.float64()}),
        (
            "a.csv",
            csv,
            {
                "n": pa.int64(),
                "x": pa.float64(),
                "flag": pa.bool_(),
                "code": pa.string(),
                "text": pa.string(),
            },
        ),
    ):
        (tmp_path / name).write_text(content)
        (batch,) = batches(str(tmp_path / name), None)
        assert {f.name: f.type for f in batch.schema if f.name != "id"} == expected
    # Files that say less, or the same in another way, are of one type with the others.
    words = pa.array(["a", "b"]).dictionary_encode()
    files = {
        "1.jsonl": lines[0],
        "2.jsonl": lines[2],
        "3.parquet": pa.table({"id": ["x", "y"], "s": pa.array([1, 2], pa.int8()), "t": words}),
    }
    lookup, made = table(tmp_path, files)
    assert made.columns.equals(
        pa.schema([("j_s", pa.float64()), ("j_t", pa.string()), ("j_u", pa.string())])
    )
    assert decoded(encoded(made.columns)).equals(made.columns)
    assert looked_up(lookup, ["7", "8", "y"]) == [
        [1, 2.5, 2],
        ["2024-01-01", None, "b"],
        [None] * 3,
    ]


@pytest.mark.parametrize(
    ("name", "content", "settings", "message"),
    [
        ("a.txt", "x", {}, "is not Parquet, Arrow, JSON lines"),
        ("a.jsonl", '{"id": "1"\n{', {}, "JSON parse error"),
        ("a.csv", "id,a\n1,2,3\n", {}, "Expected 2 columns, got 3"),
        ("a.csv", "id,a\n1,2\n", {"columns": ["b"]}, "has no column b: it has id, a"),
        ("a.jsonl", '{"key": "1", "a": 1}', {}, "no record has 'id': name the field of the id"),
        ("a.jsonl", '{"id": "1", "a": 1}', {"columns": ["b"]}, "no record has b"),
        ("a.jsonl", '{"id": "1"}', {}, "no column besides 'id'"),
        ("a.jsonl.gz", "no gzip", {}, "JSON parse error"),
    ],
)
def test_bad_files_are_named(tmp_path, name, content, settings, message):
    with pytest.raises(ValueError, match=message) as error:
        table(tmp_path, {name: content}, **settings)
    assert str(error.value).startswith("--join j: ")
    assert "\n" not in str(error.value)


def test_settings_of_the_command_line_and_of_yaml_are_the_same():
    given = parse(["b=s3://x/a:b.parquet:key=url:field=page", "a=x.csv:columns=s,t:missing=0.5"])
    assert joins_of(given) == {
        "a": Join(["x.csv"], columns=["s", "t"], missing=0.5),
        "b": Join(["s3://x/a:b.parquet"], "url", "page"),
    }
    assert joins_of(parse(["a=2", "a=1:key=url"])) == {"a": Join(["1", "2"], "url")}
    assert joins_of({"a": "x", "b": ["y"], "c": {"files": "z", "key": "url"}})["c"].key == "url"
    for wrong, message in (
        ({"a": {"files": "x", "key": "text"}}, "--join a: key is one of id, url, host"),
        ({"a": {"files": "x", "keys": "id"}}, "no setting keys"),
        ({"a": {"key": "id"}}, "names no files"),
        ({"a-b": "x"}, "not a name"),
        ({"a": {"files": "x", "missing": 2}}, "from 0 to 1"),
    ):
        with pytest.raises(ValueError, match=message):
            joins_of(wrong)
    for wrong in ("a", "=x", "a=", "a=:key=url", "a=x:key=id:key=url"):
        with pytest.raises(ValueError, match="--join"):
            parse([wrong])


def test_equal_urls_have_one_canonical_form_and_others_have_not():
    same = [
        ["http://a.example", "https://www.A.example/#top", "//a.example:443/", "a.example/?"],
        ["http://a.example/%7eb/%c3%a9?q=%2F", "https://a.example/x/../~b/é?q=%2f"],
        ["http://a.example:8080/x", "https://u:p@a.example:8080/./x"],
        ["http://bücher.example/ a", "http://xn--bcher-kva.example/%20a"],
        ["http://a.example/x/"],
        ["http://a.example/x"],
        ["http://a.example/X"],
        ["http://a.example/x?b=1&a=2"],
        ["http://a.example/x?a=2&b=1"],
        ["http://b.a.example/x"],
        ["http://a.example:443/y"],
        ["https://a.example/y"],
        ["http://[::1]:80/", "http://[0:0:0:0:0:0:0:1]"],
    ]
    forms = [canonical(pa.array(urls)).to_pylist() for urls in same]
    assert all(None not in form and len(set(form)) == 1 for form in forms)
    assert len({form[0] for form in forms}) == len(same)
    assert canonical(pa.array([None, "", "mailto:a@b.example"])).null_count == 3


@given(st.text("ab./~%4é?#: ", max_size=12))
@settings(deadline=None, max_examples=60)
def test_a_canonical_form_is_its_own_and_resolves_as_the_standard_library_does(rest):
    url = f"http://a.example/{rest}"
    (form,) = canonical(pa.array([url])).to_pylist()
    assert canonical(pa.array([f"http://{form}"])).to_pylist() == [form]
    path = rest.partition("#")[0].partition("?")[0]
    if "%" not in path and "//" not in path and path.isascii() and path.strip() == path:
        resolved = urljoin("http://a.example/", path.replace(" ", "%20").replace(":", "%3A"))
        assert form.partition("?")[0] == resolved[len("http://") :].replace("%3A", ":")


def test_hosts_meet_however_they_are_written(tmp_path):
    rows = 'host,v\ncom.au,1\n"au,com,shop",2\nhttps://www.b.example/x,3\nlocalhost,4\n'
    lookup, made = table(tmp_path, {"a.csv": rows}, key="host")
    assert (made.rows, made.without_key) == (3, 1)
    urls = ["http://Shop.com.au/a,b", "http://b.example:80", "http://a.b.example", None, "x"]
    keys = joined_tables.keys_of(pa.array(urls), "host")
    assert looked_up(lookup, keys.to_pylist()) == [[2, 3, None, None, None]]


def test_groups_are_few_whatever_the_values():
    kinds = {
        "few": pa.array([3, 1, None, 3]),
        "many": pa.array([*range(500), None]),
        "score": pa.array([0.0, 0.31, None, 1.0, float("nan")]),
        "text": pa.array([f"t{i}" for i in range(200)]),
        "list": pa.array([["a"], None, ["b"], []]),
        "bytes": pa.array([b"\xff", None]),
        "huge": pa.array([-1e308, 1e308]),
    }
    found = {}
    for name, column in kinds.items():
        seen = Values(column.type)
        seen.add(column)
        found[name] = grouped(column, seen.grouping())
    assert found["few"].to_pylist() == ["3", "1", None, "3"]
    assert set(found["many"].to_pylist()) == {
        None,
        *(f"{i} to {i + 50}" for i in range(0, 500, 50)),
    }
    assert found["score"].to_pylist() == ["0 to 0.1", "0.3 to 0.4", None, "0.9 to 1", "NaN"]
    assert set(found["text"].to_pylist()) == {"(some)"}
    assert found["list"].to_pylist() == ["(some)", None, "(some)", "(some)"]
    assert found["bytes"].to_pylist() == ["(some)", None]
    assert found["huge"].to_pylist() == ["(some)", "(some)"]


def test_a_join_that_matches_nothing_is_an_error_that_says_what_to_try():
    task = {"joined": {"edu": {"matched": 0, "without_key": 2}}}
    join = {"key": "url", "rows": 3, "matched_rows": 0}
    manifest = {"accounting": {"web": {"read": 5, "quarantined": 1}}, "tasks": [task, task]}
    manifest["joins"] = {"edu": join}
    with pytest.raises(ValueError, match=r"no document has the url of any of its 3 rows.*by id"):
        run_notes.joins(manifest)
    task["joined"]["edu"]["matched"] = 1
    (line,) = run_notes.joins(manifest)
    assert line == ("edu: 2 of 4 documents matched, 4 have no url; 3 of 3 rows matched no document")


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
@settings(deadline=None, max_examples=60)
def test_bins_hold_the_range(low, span):
    bounds = edges(low, low + span)
    assert bounds[0] <= low + 1e-9 * span
    assert bounds[-1] >= (low + span) - 1e-9 * abs(low + span)
    assert len(bounds) <= 13
    assert np.all(np.diff(bounds) > 0)


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A run whose documents are joined by id and by URL."""
    folder = tmp_path_factory.mktemp("joins")
    web, wiki = documents(60), documents(20, 0, "wiki")
    write_jsonl(folder / "web.jsonl", web)
    write_jsonl(folder / "wiki.jsonl", wiki)
    write_classifier(folder / "classifier")
    ids = [row["id"] for row in web if "id" in row][:30]
    scores = pa.array([i / 30 for i in range(30)], pa.float32())
    names = pa.array(["news", "shop"] * 15 + ["news"])
    rows = {"id": [*ids, "nobody"], "score": pa.concat_arrays([scores, scores[:1]]), "topic": names}
    pq.write_table(pa.table(rows), folder / "edu.parquet")
    pages = [row["url"].replace("https://www.", "http://") for row in web if "url" in row][:20]
    lines = [{"page": page, "robots": bool(i % 2)} for i, page in enumerate(pages)]
    write_jsonl(folder / "robots.jsonl", lines)
    return folder


def flags(here, output, *more):
    return [
        f"--source=web={here}/web.jsonl",
        f"--source=wiki={here}/wiki.jsonl",
        "--filter=web",
        f"--classifier={here}/classifier",
        f"--join=edu={here}/edu.parquet",
        f"--join=robots={here}/robots.jsonl:key=url:field=page",
        "--direct_num_workers=1",
        f"--output={here}/{output}",
        *more,
    ]


def shards(output):
    paths = sorted((output / "shards").iterdir())
    return pa.concat_tables(pa.ipc.open_file(path).read_all() for path in paths)


def test_a_run_joins_and_counts_and_decides_by_what_was_joined(here, capsys):
    rules = '{news: {rule: threshold, threshold: 0.5}, "*": {rule: all}}'
    run.main(flags(here, "scored", f"--rules={rules}", "--rules-by=edu_topic"))
    told = capsys.readouterr().out
    rows = shards(here / "scored")
    annotated = {row["id"]: row for row in pq.read_table(here / "edu.parquet").to_pylist()}
    verdicts = {
        canonical(pa.array([row["page"]]))[0].as_py(): row["robots"]
        for row in map(json.loads, (here / "robots.jsonl").read_text().splitlines())
    }
    met = set()
    for row in rows.to_pylist():
        mine = annotated.get(row["id"], {})
        assert (row["edu_score"], row["edu_topic"]) == (mine.get("score"), mine.get("topic"))
        page = canonical(pa.array([row["url"]], pa.string()))[0].as_py()
        assert row["robots_robots"] == verdicts.get(page)
        met |= {page} & verdicts.keys()
        kept = row["source"] == "wiki" or mine.get("topic") != "news"
        assert row["kept"] == (kept or row["quality_score"] >= 0.5)
    assert rows.schema.field("edu_score").type == pa.float32()
    written = json.loads((here / "scored" / "manifest.json").read_text())
    assert {n: (j["rows"], j["matched_rows"]) for n, j in written["joins"].items()} == {
        "edu": (31, 30),
        "robots": (20, len(met)),
    }
    assert "edu: 30 of 80 documents matched; 1 of 31 rows matched no document" in told
    counts = pq.read_table(here / "scored" / "statistics" / "joins.parquet").to_pylist()
    for row in counts:
        own = rows.filter(pa.compute.equal(rows["source"], row["source"]))
        column = own["edu_score" if row["join"] == "edu" else "robots_robots"]
        assert row["documents"] == len(own)
        assert row["matched"] == len(own) - column.null_count
    table = pq.read_table(here / "scored" / "statistics" / "groups.parquet").to_pylist()
    topics = {r["value"]: r["documents"] for r in table if r["column"] == "edu_topic"
              and r["source"] == "web"}  # fmt: skip
    assert topics == {"news": 15, "shop": 15, "(none)": 30}
    page = (here / "scored" / "report.html").read_text()
    assert "Joined columns" in page
    assert "edu_topic" in page

    card = (here / "scored" / "README.md").read_text()
    assert "| `edu_score` | float | of join edu, by the document's id |" in card

    audited, _ = audit_run(AuditConfig(f"{here}/scored", ["edu_score", "robots_robots"], 1.0, 0.5))
    known = {(r["column"], r["value"]): r["documents"] for r in table if r["source"] == "web"}
    shown = [row for row in audited.to_pylist() if row["column"] != "(all)"]
    assert len({row["value"] for row in shown if row["column"] == "edu_score"}) == 11
    assert all(row["documents"] == known[row["column"], row["value"]] for row in shown)

    decide.main([f"--scored={here}/scored", f"--rules={rules}", "--rules-by=edu_topic",
                 "--direct_num_workers=1", f"--output={here}/again"])  # fmt: skip
    one, two = (fingerprints(here / name) for name in ("scored", "again"))
    assert {n: h for n, h in one.items() if n.startswith(("shards", "statistics"))} == {
        n: h for n, h in two.items() if n.startswith(("shards", "statistics"))
    }


def test_a_joined_number_decides_alone_or_beside_a_classifier(here):
    own = [f for f in flags(here, "by_number") if not f.startswith("--classifier")]
    rule = ["--rule=threshold", "--threshold=0.5", "--source=wiki=" + str(here / "wiki.jsonl")]
    files = f"--join=edu={here}/edu.parquet:missing=0.75"
    own = [f for f in own if not f.startswith(("--join=edu", "--source=wiki"))]
    run.main([*own, *rule, files, "--combine=edu_score * 0.9 + 0.1 * robots_robots"])
    rows = shards(here / "by_number").to_pylist()
    for row in rows:
        score = 0.75 if row["edu_score"] is None else row["edu_score"]
        expected = np.float32(score * 0.9 + 0.1 * (row["robots_robots"] or 0))
        assert row["quality_score"] == pytest.approx(expected, abs=1e-7)
        assert row["kept"] == (row["source"] == "wiki" or row["quality_score"] >= 0.5)
    decide.main([f"--scored={here}/by_number", "--combine=1 - edu_score", "--rule=threshold",
                 "--threshold=0.5", "--direct_num_workers=1",
                 f"--output={here}/by_number_again"])  # fmt: skip
    for row in shards(here / "by_number_again").to_pylist():
        score = 0.75 if row["edu_score"] is None else row["edu_score"]
        assert row["quality_score"] == pytest.approx(1 - score, abs=1e-7)


def test_what_cannot_be_joined_is_said_before_the_run(here):
    for more, message in (
        (["--rules={a: {rule: all}}", "--rules-by=edu_kind"], "no such column"),
        ([f"--join=text={here}/edu.parquet:columns=nothing"], "has no column nothing"),
    ):
        with pytest.raises(ValueError, match=message):
            run.main(flags(here, "never", *more))
    unscored = [f for f in flags(here, "never") if not f.startswith("--classifier")]
    for rule, message in (("edu_kind", "names edu_kind"), ("edu_topic", "string and not a number")):
        with pytest.raises(ValueError, match=message):
            run.main([*unscored, f"--combine={rule}"])
    with pytest.raises(ValueError, match="no classifier"):
        run.main([*unscored, "--combine=mean"])
    with pytest.raises(ValueError, match="edu_kind"):
        load([f for f in flags(here, "x", "--rules={a: {rule: all}}", "--rules-by=edu_kind")
              if not f.startswith("--join")])  # fmt: skip
