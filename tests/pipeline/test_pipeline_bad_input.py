"""Inputs and settings that are wrong: refused before a run, or quarantined, counted and said."""

import json
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpora import documents, write_classifier, write_jsonl
from pipeline_runs import flags, manifest, shards

from pipeline import run
from pipeline.output.run_notes import check_read

pytestmark = pytest.mark.slow


ROWS = [{"text": f"text {i}", "uid": f"u{i}", "link": f"http://a.example/{i}"} for i in range(9)]


def in_form(folder, form, rows):
    path = folder / f"{rows[0]['uid']}.{form}"
    if form == "jsonl":
        write_jsonl(path, rows)
    elif form == "warc":
        path.write_bytes(b"".join(_conversion(row) for row in rows))
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def _conversion(row):
    body = row["text"].encode()
    return (
        (
            f"WARC/1.0\r\nWARC-Type: conversion\r\nWARC-Target-URI: {row['link']}\r\n"
            f"WARC-Record-ID: <{row['uid']}>\r\nContent-Length: {len(body)}\r\n\r\n"
        ).encode()
        + body
        + b"\r\n\r\n"
    )


BLOCK = "steps: {url_blocklist: {domains: [LIST]}}"


@pytest.mark.parametrize("form", ["jsonl", "parquet", "warc"])
@pytest.mark.parametrize(
    ("wrong", "steps"),
    [
        (["--field=id=TYPO"], ""),
        (["--field=id=uid", "--field=text=TYPO"], ""),
        (["--field=web.url=TYPO"], ""),
        (["--metadata=TYPO"], ""),
        (["--metadata=uid", "--metadata=TYPO"], ""),
        ([], BLOCK),
    ],
)
def test_a_field_that_no_input_has_is_an_error(here, tmp_path, form, wrong, steps):
    path = in_form(tmp_path, form, ROWS)
    (tmp_path / "list").write_text("*.b.example")
    config = tmp_path / "steps.yaml"
    config.write_text(steps.replace("LIST", str(tmp_path / "list")) or "{}")
    command = [
        *(f"--source=web={path}", "--filter=web", f"--classifier={here}/classifier"),
        *("--rule=all", f"--output={tmp_path}/scored", f"--config={config}"),
    ]
    if form == "warc":  # records have URLs; which headers they have is seen as they are read
        if steps:
            run.main(command)
            return
        wrong = [flag.replace("=uid", "=WARC-Record-ID") for flag in wrong]
    with pytest.raises(
        ValueError, match=r"no record of web has anything in '(TYPO|url)'|column 'TYPO'"
    ):
        run.main([*command, *wrong])
    assert (tmp_path / "scored").exists() == (form == "warc" and "metadata" in wrong[0])


def test_the_language_is_read_where_a_field_is_named_and_told_of_where_none_is(
    here, tmp_path, capsys
):
    rows = [{**row, "lang": "en" if i else None} for i, row in enumerate(ROWS)]
    path = in_form(tmp_path, "jsonl", rows)
    command = [
        *(f"--source=web={path}", f"--classifier={here}/classifier", "--rule=all"),
        *("--field=id=uid", "--field=url=link", f"--output={tmp_path}/"),
    ]
    run.main([*command[:-1], command[-1] + "without"])
    assert "add --field web.language=lang" in capsys.readouterr().err
    run.main([*command[:-1], command[-1] + "with", "--field=web.language=lang"])
    assert "have nothing in 'lang'" in capsys.readouterr().err
    found = shards(tmp_path / "with")["language"].to_pylist()
    assert sorted(found, key=str) == [None, *["en"] * (len(ROWS) - 1)]


def test_a_field_for_all_sources_that_each_has_its_own_of_is_an_error(here):
    more = ["--field=web.url=url", "--field=wiki.url=url", "--field=url=link"]
    with pytest.raises(ValueError, match="--field url=link is never used"):
        run.main([*flags(here, *more), f"--output={here}/never"])


def test_fields_that_some_documents_lack_are_counted(here, tmp_path, capsys):
    typed = [{**row, "uid": f"v{i}", "kind": "a"} for i, row in enumerate(ROWS)]
    for form, rows in (("jsonl", ROWS), ("parquet", typed)):
        in_form(tmp_path, form, rows)
    plain = tmp_path / "plain.jsonl"
    write_jsonl(plain, [{"text": "without"}])
    command = [
        *(f"--source=web={tmp_path}/u0.jsonl", f"--source=web={tmp_path}/v0.parquet"),
        *(f"--source=plain={plain}", f"--classifier={here}/classifier", "--rule=all"),
        *("--field=web.id=uid", "--field=url=link", "--metadata=kind"),
        f"--output={tmp_path}/scored",
    ]
    run.main(command)
    warnings = [
        "warning: --field url=link: 1 of 1 documents of plain have nothing in 'link'",
        "warning: --metadata kind: 1 of 1 documents of plain have nothing in 'kind'",
        "warning: --metadata kind: 9 of 18 documents of web have nothing in 'kind'",
    ]
    assert sorted(capsys.readouterr().err.splitlines()) == warnings
    run.main([*command, "--resume"])
    assert sorted(capsys.readouterr().err.splitlines()) == warnings


def test_that_no_document_was_cut_short_is_no_error(here, tmp_path, capsys):
    block = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<p>whole</p>"
    head = f"WARC/1.0\r\nWARC-Type: response\r\nContent-Length: {len(block)}\r\n\r\n"
    (tmp_path / "x.warc").write_bytes(head.encode() + block + b"\r\n\r\n")
    command = [
        *(f"--source=web={tmp_path}/x.warc", f"--classifier={here}/classifier", "--rule=all"),
        *("--metadata=WARC-Truncated", f"--output={tmp_path}/scored"),
    ]
    run.main(command)
    assert "WARC-Truncated" not in capsys.readouterr().err


def test_a_field_that_only_the_last_of_many_documents_has_is_found(here, tmp_path):
    many = tmp_path / "many.jsonl"
    filler = [{"text": "word " * 1000}] * 2000
    for last, refused in (({"text": "x", "uid": "1"}, False), ({"text": "x"}, True)):
        write_jsonl(many, [*filler, last])
        command = [
            *(f"--source=web={many}", f"--classifier={here}/classifier", "--rule=all"),
            *("--metadata=uid", f"--output={tmp_path}/{refused}"),
        ]
        if refused:
            with pytest.raises(ValueError, match=r"--metadata uid: .* is complete without it"):
                run.main(command)
        else:
            run.main(command)


def test_damaged_input_is_quarantined_counted_and_named(tmp_path):
    good = documents(30)
    lines = [json.dumps(row).encode() for row in good]
    lines.insert(3, b'{"text": "cut')
    lines.insert(9, b'{"text": "\xff\xfe"}')
    lines.insert(12, b'{"text": null}')
    lines.insert(15, b'{"other": 1}')
    lines.insert(20, b'{"text": 7}')
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "a.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    (tmp_path / "web" / "empty.jsonl").write_bytes(b"")
    write_classifier(tmp_path / "classifier")
    flags_ = [
        f"--source=web={tmp_path}/web/*", "--filter=web", f"--classifier={tmp_path}/classifier",
        f"--output={tmp_path}/scored",
    ]  # fmt: skip
    run.main(flags_)
    account = manifest(tmp_path / "scored")["accounting"]["web"]
    assert account["read"] == 36
    assert account["quarantined"] == 6
    records = [
        json.loads(line)
        for path in sorted((tmp_path / "scored" / "quarantine").iterdir())
        for line in path.read_text().splitlines()
    ]
    assert [record["reason"] for record in records] == [
        "bad_json", "invalid_utf8", "missing_text", "missing_text", "wrong_type", "empty_file",
    ]  # fmt: skip
    content = (tmp_path / "web" / "a.jsonl").read_bytes()
    for record, line in zip(records, [lines[i] for i in (3, 9, 12, 15, 20)], strict=False):
        assert record["path"].endswith("a.jsonl")
        assert content[record["position"] :].startswith(line)


def test_a_source_of_which_nothing_can_be_read_is_an_error_at_the_end(tmp_path):
    """The output is whole, and says why; a second try says so again."""
    write_jsonl(tmp_path / "good.jsonl", documents(30))
    (tmp_path / "odd0.jsonl").write_bytes(b"")
    (tmp_path / "odd1.jsonl").write_text('{"content": "a"}\n{"content": "b"}\n{"text": \n')
    write_classifier(tmp_path / "classifier")
    flags_ = [
        f"--source=web={tmp_path}/good.jsonl", f"--source=odd={tmp_path}/odd*", "--filter=web",
        f"--classifier={tmp_path}/classifier", f"--output={tmp_path}/scored",
    ]  # fmt: skip
    for more in ([], ["--resume"]):
        with pytest.raises(ValueError, match="nothing of source odd could be read") as raised:
            run.main([*flags_, *more])
        said = str(raised.value)
        assert "missing_text (2), empty_file (1), bad_json (1)" in said
        assert f"the first is {tmp_path}/odd0.jsonl, byte 0: empty_file" in said
        assert "--field odd.text=FIELD" in said
        assert f"{tmp_path}/scored/quarantine" in said
        account = manifest(tmp_path / "scored")["accounting"]
        assert account["odd"] == {"read": 4, "quarantined": 4}
        assert account["web"]["read"] == 30
    assert len(list((tmp_path / "scored" / "quarantine").iterdir())) == 2


def test_a_source_without_documents_is_no_error_but_said(tmp_path, capsys):
    write_jsonl(tmp_path / "good.jsonl", documents(30))
    record = "WARC/1.0\r\nWARC-Type: request\r\nContent-Length: 1\r\n\r\nx\r\n\r\n"
    (tmp_path / "none.warc").write_text(3 * record)
    write_classifier(tmp_path / "classifier")
    run.main(
        [
            f"--source=web={tmp_path}/good.jsonl", f"--source=none={tmp_path}/none.warc",
            "--filter=web", f"--classifier={tmp_path}/classifier", f"--output={tmp_path}/scored",
        ]
    )  # fmt: skip
    assert "warning: source none has no documents (skipped: request 3)" in capsys.readouterr().err
    written = manifest(tmp_path / "scored")
    written["accounting"] = {"none": written["accounting"]["none"]}
    with pytest.raises(ValueError, match="no document was read: source none has no documents"):
        check_read("scored", written)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--source=web": "--source=web={here}/nothing/*"}, "nothing matches"),
        ({"--source=web": "--source=we/b={here}/web/*"}, "plain name"),
        ({"--filter": "--filter=book"}, "--filter names"),
        ({"--alpha": "--alpha=-1"}, "finite number of 0 or more"),
        ({"--alpha": "--alpha=inf"}, "finite number of 0 or more"),
        ({"--alpha": "--alpha=nan"}, "finite number of 0 or more"),
        ({"--alpha": "--target-fraction=nan"}, "must be in"),
        ({"--seed": "--seed=-1"}, "--seed is from 0"),
        ({"--seed": "--stall-minutes=inf"}, "--stall-minutes must be at most"),
        ({"--seed": "--stall-minutes=nan"}, "--stall-minutes must be at most"),
        ({"--seed": "--split-bytes=99999999999999999999"}, "--split-bytes must be at most"),
        ({"--alpha": "--alpah=1"}, "neither Winnow nor Beam"),
        ({"--classifier": "--classifier={here}/web"}, "web"),
        ({"--seed": "--threshold=0.5"}, "no meaning"),
        ({"--seed": "--steps=gofer"}, "unknown steps"),
        ({"--seed": "--runner=apache_beam.runners.dask.dask_runner.DaskRunner"}, "silently"),
        ({"--seed": "--runner=DataflowRunner"}, "on this machine|the extra"),
        ({"--seed": "--config={here}/steps.yaml"}, "step gopher: min_words"),
        ({"--seed": "--config={here}/web/4.jsonl"}, "4.jsonl"),
        ({"--seed": "--split-bytes=0"}, "--split-bytes must be more than 0"),
        ({"--seed": "--max-document-bytes=-1"}, "--max-document-bytes must be more than 0"),
        ({"--seed": "--shard-bytes=0"}, "--shard-bytes must be more than 0"),
        ({"--seed": "--html-extractor=foo"}, "is one of resiliparse"),
    ],
)
def test_mistakes_are_refused_before_anything_is_written(here, tmp_path, change, message):
    ((name, replacement),) = change.items()
    changed = [f for f in flags(here) if not f.startswith(name)] + [replacement.format(here=here)]
    with pytest.raises((ValueError, OSError), match=message):
        run.main([*changed, f"--output={tmp_path}/scored"])
    assert not (tmp_path / "scored").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_an_error_that_names_it(here, tmp_path):
    secret = tmp_path / "secret.jsonl"
    write_jsonl(secret, documents(3))
    secret.chmod(0)
    flags_ = [f"--source=web={secret}", f"--classifier={here}/classifier", f"--output={tmp_path}/o"]
    with pytest.raises(OSError, match=r"secret\.jsonl"):
        run.main(flags_)
