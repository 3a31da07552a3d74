"""A short form of tests/faults/run.py: killed, short of room, fed with damaged files."""

import dataclasses
import errno
import json
import os
import pty
import shutil
import subprocess
import sys
import threading

import pytest
from corpora import documents, fingerprints, write_classifier, write_jsonl
from faults import crashes, mutations, trials
from faults.scene import MODES, ROOT, Scene

from pipeline import run
from pipeline.beam import worker
from pipeline.output import output_folder
from winnow.filesystem import storage

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def scene(quick_python, tmp_path_factory):
    folder = tmp_path_factory.mktemp("faults") / "scene"
    return dataclasses.replace(Scene.build(folder, n=24), python=quick_python)


def good(trial):
    return trial.recovered and not trial.wrong


def test_killed_and_resumed_gives_the_same_bytes(scene, tmp_path):
    trial = trials.kill(scene, tmp_path / "output", 1)
    assert good(trial), trial


def test_killed_before_a_change_and_resumed_gives_the_same_bytes(scene, tmp_path):
    trial = crashes.crash(scene, tmp_path / "output", 30)
    assert good(trial), trial


def test_a_full_disk_is_an_error_and_then_there_is_room(scene, tmp_path):
    try:
        trial = trials.full_disk(scene, tmp_path / "output", 0)
    except PermissionError as error:
        pytest.skip(f"no file system can be mounted here: {error}")
    assert good(trial), trial
    assert trial.told, trial.said


def test_a_worker_process_that_hangs_ends_the_run(scene, tmp_path):
    trial = trials.hang(scene, tmp_path / "output", 1)
    assert good(trial), trial
    assert trial.told, trial.said


def test_workers_end_with_their_driver_and_another_config_is_not_disturbed(scene, tmp_path):
    trial = trials.kill_among_workers(scene, tmp_path / "output", 0)
    assert good(trial), trial
    assert "another config, one was stopped" in trial.hit


def test_a_clock_that_jumps_while_beam_starts_is_an_error_that_says_so(scene, tmp_path):
    trial = trials.clock(scene, tmp_path / "output", 3)
    assert good(trial), trial
    assert trial.told, trial.said


def test_the_modes_of_a_scene_are_the_two_graphs(scene):
    assert len({json.dumps(scene.expected[mode]) for mode in MODES}) == 2


@pytest.mark.parametrize("start", [0, 10**9])
def test_damaged_files_of_every_format_are_survived(start):
    report = mutations.run(range(start, start + 750))
    assert report.failures == []
    assert report.outcomes.total() == 750
    assert len(report.outcomes) == 4  # some are read, refused, quarantined, and in part


# What the long form found


@pytest.fixture
def small(tmp_path):
    write_jsonl(tmp_path / "web.jsonl", documents(20))
    write_classifier(tmp_path / "classifier")
    return [f"--source=web={tmp_path}/web.jsonl", f"--classifier={tmp_path}/classifier"]


def test_what_a_run_left_that_was_killed_while_it_cleaned_up_is_removed(small, tmp_path):
    output = tmp_path / "scored"
    run.main([*small, f"--output={output}"])
    expected = fingerprints(output)
    for left in ("_work/run.json", "_work/scored/data-web-00000-of-00001.arrow"):
        (output / left).parent.mkdir(parents=True, exist_ok=True)
        (output / left).write_text("{}")
    run.main([*small, f"--output={output}", "--resume"])
    assert fingerprints(output) == expected
    assert not (output / "_work").exists()


def test_a_run_that_was_killed_on_a_terminal_is_resumed_on_one(quick_python, small, tmp_path):
    output = tmp_path / "scored"
    output_folder.begin(str(output), "key", frozenset())
    (output / "_work" / "progress").mkdir()
    (output / "_work" / "progress" / "7.json").write_text('{"score": {"documents": 1}}')
    reading, writing = pty.openpty()
    command = [quick_python, ROOT / "pipeline" / "run.py", *small, f"--output={output}"]
    done = subprocess.run([*command, "--resume"], stderr=writing, stdout=subprocess.PIPE)
    os.close(writing)
    os.close(reading)
    assert done.returncode == 0
    shutil.rmtree(tmp_path / "scored")


def test_quarantine_of_what_is_no_input_any_more_is_removed(small, tmp_path):
    """As after a kill, when a damaged file was taken away, or mended, before the resume."""
    output_folder.begin(str(tmp_path / "scored"), "key", frozenset({("web", 2)}))
    stale = tmp_path / "scored" / "quarantine" / "data-web-00000-of-00002.jsonl"
    stale.parent.mkdir(parents=True)
    stale.write_text("{}")
    run.main([*small, f"--output={tmp_path}/scored", "--resume"])
    assert not stale.exists()


def test_a_write_without_room_names_its_file(tmp_path):
    with pytest.raises(OSError, match=r"No space left.*shard") as caught:
        with storage.open_output(str(tmp_path / "shard")):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert caught.value.filename == str(tmp_path / "shard")


def test_a_run_waits_for_the_workers_of_one_that_was_killed(small, tmp_path, monkeypatch):
    """One that the kernel did not end, as there may be on other systems."""
    output_folder.begin(str(tmp_path / "scored"), "key", frozenset())
    folder = tmp_path / "scored" / "_work" / "progress"
    folder.mkdir()
    hold = "import fcntl, sys; file = open(sys.argv[1], 'w'); fcntl.flock(file, fcntl.LOCK_SH)"
    hold += "; print(flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", hold, str(folder / worker.LOCK)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        monkeypatch.setattr(worker, "PATIENCE", 0.2)
        flags = [*small, f"--output={tmp_path}/scored", "--resume"]
        with pytest.raises(ValueError, match="workers of a run that was killed"):
            run.main(flags)
        assert list(folder.iterdir()) == [folder / worker.LOCK]
        monkeypatch.setattr(worker, "PATIENCE", 600)
        threading.Timer(1, process.stdin.close).start()
        run.main(flags)
        assert process.wait() == 0
    assert (tmp_path / "scored" / "manifest.json").exists()


def test_a_worker_whose_driver_is_gone_leaves_before_it_works(tmp_path):
    """Beam itself would try for a minute to connect."""
    command = [sys.executable, "-m", "pipeline.beam.worker", "1", str(tmp_path)]
    nobody = {"CONTROL_API_SERVICE_DESCRIPTOR": 'url: "localhost:9"', "PIPELINE_OPTIONS": "{}"}
    done = subprocess.run(command, cwd=ROOT, env=os.environ | nobody, timeout=45)
    assert done.returncode == 1
