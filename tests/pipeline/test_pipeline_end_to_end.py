"""pipeline/run.py and pipeline/decide.py as users start them, against plain loops."""

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import xxhash
import yaml
from corpora import documents, fingerprints, write_classifier, write_jsonl

from model.data import scored
from model.prepare import PrepareConfig, TokenizerConfig, prepare
from pipeline import calibrate, decide, run
from pipeline.beam import graph
from pipeline.config import load
from pipeline.core import trained_on
from pipeline.core.scores import log_odds
from pipeline.core.unreadable_sources import check_read
from pipeline.output import schema
from pipeline.output.manifest import read_records
from pipeline.rules.decision import Rule
from pipeline.runs import scoring_run
from pipeline.settings.step_settings import resolve_steps
from quality_classifier.scoring import load_classifier

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
RUN = ROOT / "pipeline" / "run.py"


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """Two sources in several files, a classifier, and an undisturbed run of one worker."""
    folder = tmp_path_factory.mktemp("pipeline")
    for i in range(4):
        write_jsonl(folder / "web" / f"{i}.jsonl.gz", documents(150, i))
    write_jsonl(folder / "web" / "4.jsonl", documents(100, 4))
    write_jsonl(folder / "wiki" / "0.jsonl.gz", documents(60, 0, "wiki"))
    learned = [row["text"] for row in documents(150, 2)[:40] + documents(60, 0, "wiki")[:9]]
    write_classifier(folder / "classifier", trained_on=learned)
    (folder / "steps.yaml").write_text("steps: {gopher: {min_words: many}}")
    run.main([*flags(folder), "--direct_num_workers=1", f"--output={folder}/scored"])
    return folder


def flags(folder, *more, alpha="2"):
    return [
        f"--source=web={folder}/web/*.gz",
        f"--source=web={folder}/web/*.jsonl",
        f"--source=wiki={folder}/wiki/*",
        "--filter=web",
        f"--classifier={folder}/classifier",
        f"--alpha={alpha}",
        "--seed=5",
        *more,
    ]


def shards(output):
    paths = sorted((output / "shards").iterdir())
    return pa.concat_tables(pa.ipc.open_file(path).read_all() for path in paths)


def manifest(output):
    return json.loads((output / "manifest.json").read_text())


def test_every_document_is_scored_and_decided_as_a_plain_loop_would(here):
    classifier = load_classifier(str(here / "classifier"))
    expected = {}
    for source in ("web", "wiki"):
        for seed in range(5 if source == "web" else 1):
            n = 60 if source == "wiki" else 100 if seed == 4 else 150
            for row in documents(n, seed, source):
                digest = xxhash.xxh3_128_hexdigest(row["text"].encode())
                key = f"{source}\n{row.get('url', '')}\n{digest}"
                name = row.get("id", xxhash.xxh3_128_hexdigest(key.encode()))
                score = classifier.score(pa.array([row["text"]]))[0]
                draw = (xxhash.xxh3_64_intdigest(name.encode(), 5) >> 11) / 2**53
                kept = source == "wiki" or draw < (2 - float(score)) ** -2.0
                expected[name] = (source, row.get("url"), row["text"], score, draw, kept)
    table = shards(here / "scored")
    assert table.schema.equals(schema.shard_schema())
    found = {
        row["id"]: tuple(
            row[name] for name in ("source", "url", "text", "quality_score", "keep_draw", "kept")
        )
        for row in table.to_pylist()
    }
    assert found == expected
    assert len(table) == len(expected)
    reasons = set(zip(table["kept"].to_pylist(), table["drop_reason"].to_pylist(), strict=True))
    assert reasons == {(True, None), (False, "quality")}


def test_accounting_and_statistics_are_those_of_the_shards(here):
    table = shards(here / "scored").to_pandas()
    account = manifest(here / "scored")["accounting"]
    for source, group in table.groupby("source"):
        assert account[source]["read"] == len(group)
        assert account[source]["kept"] == group["kept"].sum()
    curves = pq.read_table(here / "scored" / "statistics" / "keep_curves.parquet").to_pandas()
    web = table[table["source"] == "web"]
    for stop in curves[curves["rule"] == "pareto"].itertuples():
        kept = web[web["keep_draw"] < (2 - web["quality_score"].astype(float)) ** -stop.parameter]
        assert (stop.documents, stop.bytes) == (len(kept), kept["bytes"].sum())


def test_other_tools_read_the_shards(here):
    import polars as pl  # here, so that other processes of pytest need not
    from datasets import load_dataset

    pattern = f"{here}/scored/shards/*.arrow"
    table = shards(here / "scored")
    by_datasets = load_dataset("arrow", data_files=pattern, split="train", cache_dir=here / "hf")
    assert by_datasets["id"][:] == table["id"].to_pylist()
    by_polars = pl.concat(
        [pl.read_ipc(path) for path in sorted((here / "scored/shards").iterdir())]
    )
    assert by_polars["text"].to_list() == table["text"].to_pylist()


def test_same_bytes_whatever_the_workers_and_the_order_of_the_inputs(here):
    several = [*reversed(flags(here)[:3]), *flags(here)[3:]]
    run.main([*several, "--direct_num_workers=2", f"--output={here}/again"])
    assert fingerprints(here / "again") == fingerprints(here / "scored")


def test_deciding_anew_is_running_anew(here):
    run.main([*flags(here, alpha="0.7"), f"--output={here}/direct"])
    scored, output = f"--scored={here}/scored", f"--output={here}/anew"
    decide.main([scored, "--rule=pareto", "--alpha=0.7", output])
    for part in ("shards", "statistics"):
        assert fingerprints(here / "anew" / part) == fingerprints(here / "direct" / part)
    assert manifest(here / "anew")["accounting"] == manifest(here / "direct")["accounting"]


def test_deciding_anew_by_group_and_by_other_scores_is_running_anew(here, capsys):
    """Two classifiers, rules by source and a field, buckets: on two workers, and decided anew."""
    write_classifier(here / "second", seed=1)
    rules = """
    web:
      www.a.example: {rule: pareto, target_fraction: 0.3, target_unit: bytes}
      www.b.example: {rule: top_fraction, target_fraction: 0.2}
      "*": {rule: buckets, copies: [0, 1, 2], target_unit: tokens}
    """
    (here / "rules.yaml").write_text(rules)
    # The host stands in for any column.
    for i in range(2):
        rows = [row | {"host": row.get("url", "").split("/")[2:3]} for row in documents(120, i)]
        rows = [row | {"host": "".join(row["host"])} for row in rows]
        write_jsonl(here / "hosts" / f"{i}.jsonl.gz", rows)
    several = [
        f"--source=web={here}/hosts/*",
        f"--source=wiki={here}/wiki/*",
        "--filter=web",
        "--metadata=host",
        f"--classifier=quality={here}/classifier",
        f"--classifier=edu={here}/second",
        "--seed=5",
    ]
    run.main([*several, "--alpha=4", "--direct_num_workers=1", f"--output={here}/plain"])
    table = shards(here / "plain")
    curated = table["source"].to_numpy() == "wiki"
    odds = log_odds((table["score_edu"].to_numpy() + table["score_quality"].to_numpy()) / 2)
    better = odds[curated].mean() > odds[~curated].mean()
    rule = "(edu + quality) / 2" if better else "1 - (edu + quality) / 2"
    calibrate.main([f"--scored={here}/plain", "--positive=wiki", "--negative=web",
                    f"--combine={rule}", f"--output={here}/calibration.json"])  # fmt: skip
    chosen = [
        f"--combine={rule}",
        f"--calibration={here}/calibration.json",
        f"--rules={here}/rules.yaml",
        "--rules-by=source",
        "--rules-by=host",
    ]
    run.main([*several, *chosen, "--direct_num_workers=2", f"--output={here}/grouped"])
    decide.main([f"--scored={here}/plain", *chosen, "--direct_num_workers=1",
                 f"--output={here}/grouped_again"])  # fmt: skip
    told = capsys.readouterr().out.splitlines()
    assert "rule:   3 rules, by source and host" in told
    *_, kept, repeated = next(line for line in told if "to 1 " in line and "web/*" in line).split()
    assert int(repeated) == 2 * int(kept) > 0
    one, other = (fingerprints(here / name) for name in ("grouped", "grouped_again"))
    assert {n for n in one if one[n] != other[n]} <= {"manifest.json", "README.md", "report.html"}
    used = {*schema.TABLES} - {
        "changes",
        "cluster_sizes",
        "joins",
        "registered_domains",
    }  # of what this run did not do
    assert one.keys() == other.keys() >= {f"statistics/{name}.parquet" for name in used}
    assert manifest(here / "grouped")["rule"] == manifest(here / "grouped_again")["rule"]
    assert (
        manifest(here / "grouped")["classifier"] == manifest(here / "grouped_again")["classifier"]
    )

    table = shards(here / "grouped").filter(pc.field("source") == "web")
    scores = {n: table[f"score_{n}"].to_numpy().astype(float) for n in ("edu", "quality")}
    mean = (scores["edu"] + scores["quality"]) / 2
    fitted = json.loads((here / "calibration.json").read_text())["calibration"]
    odds = log_odds(mean if better else 1 - mean)
    combined = 1 / (1 + np.exp(-(fitted["slope"] * odds + fitted["intercept"])))
    np.testing.assert_allclose(table["quality_score"].to_numpy(), combined, atol=1e-5)
    rest = table.filter(~pc.field("host").isin(["www.a.example", "www.b.example"]))
    words, copies = rest["words"].to_numpy(), rest["copies"].to_numpy()
    for times in range(3):
        assert words[copies == times].sum() / words.sum() == pytest.approx(1 / 3, abs=0.05)
    # What is twice in the training order is counted twice.
    corpus = prepare(
        PrepareConfig(
            str(here / "grouped"), str(here / "corpus"),
            TokenizerConfig(vocabulary=300, sample_bytes=10**6, boundary="<eos>"), 0.1, 1,
        )
    )  # fmt: skip
    arm = corpus.arm("filtered")
    assert (
        arm.about["sources"]["web"]["documents"]
        == corpus.column("copies")[corpus.pool & corpus.filterable].sum()
    )


@pytest.mark.parametrize(
    ("rule", "unit"),
    [("pareto", "documents"), ("pareto", "bytes"), ("threshold", "tokens"), ("random", "bytes")],
)
def test_a_target_fraction_is_met(here, rule, unit):
    output = here / f"target_{rule}_{unit}"
    more = [f"--rule={rule}", "--target-fraction=0.3", f"--target-unit={unit}"]
    run.main([*[f for f in flags(here) if "alpha" not in f], *more, f"--output={output}"])
    web = shards(output).to_pandas().query("source == 'web'")
    weight = {"documents": web["bytes"] ** 0, "bytes": web["bytes"], "tokens": web["words"]}[unit]
    share = weight[web["kept"]].sum() / weight.sum()
    # A solved parameter is as near as one document; a random draw is near in expectation only.
    assert abs(share - 0.3) < (0.06 if rule == "random" else 0.005)


def test_top_fraction_keeps_the_best(here):
    more = ["--rule=top_fraction", "--target-fraction=0.1"]
    flags_ = [f for f in flags(here) if "alpha" not in f]
    run.main([*flags_, *more, f"--output={here}/top"])
    web = shards(here / "top").to_pandas().query("source == 'web'")
    assert web[web["kept"]]["quality_score"].min() > web[~web["kept"]]["quality_score"].max()
    assert web["kept"].mean() == pytest.approx(0.1, abs=0.002)


def test_a_top_fraction_is_met_where_all_scores_are_equal(here, tmp_path):
    write_jsonl(tmp_path / "a.jsonl", [{"id": str(i), "text": "The same."} for i in range(600)])
    write_jsonl(
        tmp_path / "b.jsonl", [{"id": str(i), "text": "The same."} for i in range(600, 1000)]
    )
    inputs = [f"--source=web={tmp_path}/*.jsonl", "--filter=web", f"--classifier={here}/classifier"]
    before = set()
    for fraction in (0.1, 0.5):
        more = ["--rule=top_fraction", f"--target-fraction={fraction}"]
        run.main([*inputs, *more, f"--output={tmp_path}/{fraction}"])
        kept = shards(tmp_path / str(fraction)).filter(pc.field("kept"))["id"].to_pylist()
        assert len(kept) == fraction * 1000
        assert before <= set(kept)
        before = set(kept)
    decide.main([f"--scored={tmp_path}/0.1", *more, f"--output={tmp_path}/anew"])
    assert fingerprints(tmp_path / "anew" / "shards") == fingerprints(tmp_path / "0.5" / "shards")
    assert manifest(tmp_path / "anew")["rule"] == manifest(tmp_path / "0.5")["rule"]


def test_kept_documents_alone_can_be_written_as_parquet(here):
    run.main([*flags(here), "--write=kept", "--format=parquet", f"--output={here}/kept"])
    everything = shards(here / "scored")
    files = sorted((here / "kept/shards").iterdir())
    assert {path.suffix for path in files} == {".parquet"}
    kept = pa.concat_tables([pq.read_table(path) for path in files])
    assert kept.to_pylist() == everything.filter(everything["kept"]).to_pylist()
    account = manifest(here / "scored")["accounting"]
    assert manifest(here / "kept")["accounting"] == account
    with pytest.raises(ValueError, match="--write kept"):
        decide.main([f"--scored={here}/kept", "--alpha=3", f"--output={here}/no"])


def test_exact_duplicates_are_dropped_but_for_the_first(tmp_path):
    rows = [{"url": row.get("url"), "text": row["text"]} for row in documents(40)]
    write_classifier(tmp_path / "classifier")
    score = load_classifier(str(tmp_path / "classifier")).score(pa.array(r["text"] for r in rows))
    best = [rows[i] for i in np.argsort(-score)[:10]]
    write_jsonl(tmp_path / "web" / "a.jsonl", [*rows, *best])
    write_jsonl(tmp_path / "web" / "b.jsonl", best * 4)
    write_jsonl(tmp_path / "wiki" / "a.jsonl", [{"text": rows[3]["text"]}])
    more = ["--rule=all", "--deduplicate"]
    flags_ = [f for f in flags(tmp_path, *more) if "alpha" not in f and ".gz" not in f]
    run.main([*flags_, f"--output={tmp_path}/scored"])
    table = shards(tmp_path / "scored").to_pandas()
    assert table[table["kept"]]["text"].is_unique
    assert set(table[table["kept"]]["text"]) == {row["text"] for row in rows}
    assert table[table["source"] == "wiki"]["kept"].all()
    texts = {row["text"] for row in rows}
    dropped = manifest(tmp_path / "scored")["accounting"]["web"]["duplicate"]
    assert dropped == 90 - (len(texts) - 1)  # one of them is in the wiki, which passes through

    # The fraction is of what is left, at once and later.
    wanted = ["--rule=top_fraction", "--target-fraction=0.3"]
    decide.main([f"--scored={tmp_path}/scored", *wanted, f"--output={tmp_path}/anew"])
    more = [*wanted, "--deduplicate"]
    flags_ = [f for f in flags(tmp_path, *more) if "alpha=2" not in f and ".gz" not in f]
    run.main([*flags_, f"--output={tmp_path}/direct"])
    assert fingerprints(tmp_path / "anew" / "shards") == fingerprints(tmp_path / "direct/shards")
    kept = manifest(tmp_path / "direct")["accounting"]["web"]["kept"]
    assert kept == round(0.3 * (len(texts) - 1))


def test_killed_and_resumed_gives_the_same_bytes(here, tmp_path):
    """At some moment; at many more in tests/faults/run.py."""
    output = tmp_path / "killed"
    command = [sys.executable, RUN, *flags(here), f"--output={output}"]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    # Wait until the run has begun to write, then some more.
    while child.poll() is None and not (output / "_work").exists():
        time.sleep(0.005)
    time.sleep(random.Random(0).random() * 0.5)
    child.send_signal(signal.SIGKILL)
    child.wait()
    if not (output / "manifest.json").exists():
        with pytest.raises(ValueError, match="--resume"):
            run.main([*flags(here), f"--output={output}"])
    run.main([*flags(here), "--resume", f"--output={output}"])
    assert fingerprints(output) == fingerprints(here / "scored")


def test_a_task_that_ends_after_its_run_leaves_nothing(here, tmp_path):
    """As that of a worker which an engine lost sight of, and gave its tasks to another."""
    output = shutil.copytree(here / "scored", tmp_path / "a")
    config, _, _ = load(flags(here, f"--output={output}"))
    job, _ = scoring_run.describe(config, [], resume=False)
    (record, *_) = read_records(str(output))
    for rule, folder in ((Rule("pareto", 2), "shards"), (None, "_work/scored")):
        [again] = graph.ScoreTask(job, rule, f"{output}/{folder}").process(record.task)
        assert again.task == record.task
        assert fingerprints(output) == fingerprints(here / "scored")
        assert not (output / "_work").exists()


def test_what_is_complete_is_not_done_again_and_what_changed_is(here, tmp_path, monkeypatch):
    for part in ("web", "wiki"):
        shutil.copytree(here / part, tmp_path / part)
    shutil.copytree(here / "classifier", tmp_path / "classifier")
    output = tmp_path / "scored"
    monkeypatch.setattr("pipeline.core.finish.write_output", _fail)
    with pytest.raises(RuntimeError, match="cut off"):
        run.main([*flags(tmp_path), f"--output={output}"])
    monkeypatch.undo()
    before = {path.name: path.stat().st_ino for path in (output / "shards").iterdir()}
    write_jsonl(tmp_path / "web" / "0.jsonl.gz", documents(150, 77))
    run.main([*flags(tmp_path), "--resume", f"--output={output}"])
    after = {path.name: path.stat().st_ino for path in (output / "shards").iterdir()}
    changed = {name for name in after if before[name] != after[name]}
    assert changed == {"data-web-00000-of-00005.arrow"}
    run.main([*flags(tmp_path), f"--output={tmp_path}/fresh"])
    assert fingerprints(output) == fingerprints(tmp_path / "fresh")


STRANGERS = {
    "notes.txt": "",
    "shards/mine.arrow": "",
    "shards/data-web-00000-of-00005.arrow": "",
    "shards/.tmp-abcdefgh-data-web-00000-of-00005.arrow": "",
    "quarantine/data-web-00000-of-00005.jsonl": "",
    "statistics/sources.parquet": "",
    "report.html": "",
    "_work/notes.txt": "",
    "_work/run.json": '{"run": 1}',
    "_work/progress/lock": "",
    "a/deep/.hidden": "",
    "manifest.json": '{"name": "my extension"}',
    ".lock": "mine",
}


@pytest.mark.parametrize("name", STRANGERS)
@pytest.mark.parametrize("command", ["run", "decide"])
def test_a_folder_with_other_peoples_files_is_never_written_to(here, tmp_path, name, command):
    output = tmp_path / "mine"
    (output / name).parent.mkdir(parents=True)
    (output / name).write_text(STRANGERS[name])
    before = fingerprints(output)
    main, arguments = {
        "run": (run.main, flags(here)),
        "decide": (decide.main, [f"--scored={here}/scored", "--alpha=1"]),
    }[command]
    for more in ([], ["--resume"]):
        with pytest.raises(ValueError, match=r"choose another (--)?output") as caught:
            main([*arguments, f"--output={output}", *more])
        assert "--resume" not in str(caught.value)
        assert fingerprints(output) == before


def test_what_was_put_into_an_unfinished_run_stays(here, tmp_path, monkeypatch):
    output = tmp_path / "scored"
    monkeypatch.setattr("pipeline.core.finish.write_output", _fail)
    solved = [*flags(here)[:-2], "--target-fraction=0.5", f"--output={output}"]
    with pytest.raises(RuntimeError, match="cut off"):
        run.main(solved)
    monkeypatch.undo()
    mine = ["notes.txt", "shards/x.arrow", "quarantine/x.jsonl", "statistics/x", "a/.tmp-x"]
    mine += ["shards/data-web-00000-of-00004.arrow", "shards/data-books-00000-of-00005.arrow"]
    mine += ["_work/notes.txt", "_work/scored/x.arrow"]
    for name in mine:
        (output / name).parent.mkdir(exist_ok=True)
        (output / name).write_text("mine")
    # Of a killed writer, and of this run when it still had another input.
    for name in (
        ".tmp-a2b4c6d8-README.md",
        "_work/scored/.tmp-a2b4c6d8-data-web-00000-of-00005.arrow",
    ):
        (output / name).write_text("")
    run.main([*solved, "--resume"])
    run.main([*solved[:-1], f"--output={tmp_path}/fresh"])
    fresh = fingerprints(tmp_path / "fresh")
    found = fingerprints(output)
    assert found.keys() == fresh.keys() | set(mine)
    assert {name: found[name] for name in fresh} == fresh
    assert all((output / name).read_text() == "mine" for name in mine)


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


def test_documents_that_the_classifier_has_learned_from_are_counted_and_told(here):
    written = manifest(here / "scored")
    counts = {}
    for task in written["tasks"]:
        source = task["task"]["source"]
        counts[source] = counts.get(source, 0) + task["trained_on"]
    assert counts == {"web": 40, "wiki": 9}
    (line,) = trained_on.notes(written)  # a source that is taken whole may be what it learned from
    assert line.startswith("the classifier was trained on 40 of the 700 documents of web")
    assert scored.learned_share(str(here / "scored")) == {"web": 40 / 700, "wiki": 9 / 60}


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


def test_another_content_of_a_steps_file_is_another_run(here, tmp_path):
    words = tmp_path / "words.txt"
    words.write_text("nowhere\n")
    steps = {"url_blocklist": {"domains": [str(words)]}}
    (tmp_path / "config.yaml").write_text(json.dumps({"steps": steps}))
    command = [*flags(here), f"--config={tmp_path}/config.yaml", f"--output={tmp_path}/scored"]
    run.main(command)
    assert "url_domain" not in manifest(tmp_path / "scored")["accounting"]["web"]
    words.write_text("a.example\n")
    with pytest.raises(ValueError, match="finished run"):
        run.main([*command, "--resume"])


def _fail(*arguments, **named):
    raise RuntimeError("cut off")


def test_a_full_disk_is_an_error_that_leaves_no_half_file(here, tmp_path):
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    command = [sys.executable, RUN, *flags(here), f"--output={tmp_path}/scored"]
    result = subprocess.run(command, capture_output=True, text=True, preexec_fn=limit, check=False)
    assert result.returncode == 1
    assert "File too large" in result.stderr
    assert not (tmp_path / "scored" / "manifest.json").exists()
    assert not list((tmp_path / "scored").rglob(".tmp-*"))
    run.main([*flags(here), "--resume", f"--output={tmp_path}/scored"])
    assert fingerprints(tmp_path / "scored") == fingerprints(here / "scored")


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
        ({"--alpha": "--target-fraction=nan"}, "must lie in"),
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


def test_a_finished_run_is_not_overwritten_and_two_runs_do_not_mix(quick_python, here, tmp_path):
    with pytest.raises(ValueError, match="finished run"):
        run.main([*flags(here), f"--output={here}/scored"])
    run.main([*flags(here), "--resume", f"--output={here}/scored"])  # complete: nothing to do
    commands = [[quick_python, RUN, *flags(here), f"--output={tmp_path}/scored"]] * 2
    children = [subprocess.Popen(c, stderr=subprocess.PIPE, text=True) for c in commands]
    ends = [(child.communicate()[1], child.returncode) for child in children]
    assert sorted(code for _, code in ends) == [0, 1]
    assert any("another run is writing" in said or "finished run" in said for said, _ in ends)
    assert fingerprints(tmp_path / "scored") == fingerprints(here / "scored")


def test_every_rule_can_be_switched_off(here, tmp_path):
    """As steps.yaml says: by .inf for a max and -.inf for a min, of which JSON has neither."""
    off = {}
    for step in ("gopher", "gopher_repetition", "c4", "fineweb"):
        for name, value in resolve_steps([step])[step].items():
            infinite = {"max": float("inf"), "min": float("-inf")}.get(name[:3])
            if infinite is not None:
                several = [infinite] * len(value) if isinstance(value, list) else infinite
                off.setdefault(step, {})[name] = several
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"steps": off}))
    command = [f"--source=web={here}/web/4.jsonl", "--filter=web", "--rule=all"]
    command += [f"--classifier={here}/classifier", f"--config={tmp_path}/config.yaml"]
    run.main([*command, f"--output={tmp_path}/scored"])
    run.main([*command, f"--output={tmp_path}/scored", "--resume"])
    found = json.loads((tmp_path / "scored" / "manifest.json").read_text(), parse_constant=_fail)
    assert found["config"]["steps"]["gopher"]["max_words"] == ".inf"
    assert found["config"]["steps"]["gopher"]["min_words"] == "-.inf"
    assert found["config"]["steps"]["gopher_repetition"]["max_top_n_gram"] == [".inf"] * 3
    reasons = found["accounting"]["web"].keys() - {"read", "kept"}
    assert reasons <= {"c4_lorem_ipsum", "c4_curly_bracket"}  # these have no threshold


def test_yaml_says_the_same_as_flags(here, tmp_path):
    config = {
        "source": {"web": [f"{here}/web/*.gz", f"{here}/web/*.jsonl"], "wiki": f"{here}/wiki/*"},
        "filter": ["web"],
        "classifier": f"{here}/classifier",
        "alpha": 9,
        "seed": 5,
    }
    (tmp_path / "config.yaml").write_text(json.dumps(config))
    output = f"--output={tmp_path}/scored"
    run.main([f"--config={tmp_path}/config.yaml", "--alpha=2", output])
    assert fingerprints(tmp_path / "scored" / "shards") == fingerprints(here / "scored" / "shards")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_an_error_that_names_it(here, tmp_path):
    secret = tmp_path / "secret.jsonl"
    write_jsonl(secret, documents(3))
    secret.chmod(0)
    flags_ = [f"--source=web={secret}", f"--classifier={here}/classifier", f"--output={tmp_path}/o"]
    with pytest.raises(OSError, match=r"secret\.jsonl"):
        run.main(flags_)


def test_help_names_every_flag(capsys):
    with pytest.raises(SystemExit):
        run.main(["--help"])
    said = capsys.readouterr().out
    for flag in ("--source", "--filter", "--rule", "--alpha", "--target-fraction", "--resume"):
        assert flag in said


def test_draws_are_uniform_over_a_run(here):
    draws = np.sort(shards(here / "scored")["keep_draw"].to_numpy())
    assert (
        np.abs(draws - (np.arange(len(draws)) + 0.5) / len(draws)).max() < 1.63 / len(draws) ** 0.5
    )
