"""Runs that are killed, cut off or repeated: the same bytes, and nobody else's files touched."""

import json
import random
import resource
import shutil
import signal
import subprocess
import sys
import time

import pytest
from corpora import documents, fingerprints, write_jsonl
from pipeline_runs import RUN, flags, manifest

from pipeline import decide, run
from pipeline.beam import graph
from pipeline.config import load
from pipeline.output.manifest import read_records
from pipeline.rules.decision import Rule
from pipeline.runs import scoring_run

pytestmark = pytest.mark.slow


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
