"""Who may write to a folder on a file system that has no locks, as Lustre without ``flock``."""

import errno
import fcntl
import json
import multiprocessing
import os
import signal
import subprocess
import sys

import pytest

from ablations.study import job_process
from winnow.filesystem import files, owners

FORK = multiprocessing.get_context("fork")


@pytest.fixture(autouse=True)
def no_locks(monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)


def hold(folder, pipe):
    with files.lock(folder):
        pipe.send(sorted(os.listdir(folder)))
        pipe.recv()


@pytest.fixture
def holder(tmp_path):
    """A process that holds a folder, and the folder."""
    here, there = FORK.Pipe()
    process = FORK.Process(target=hold, args=(tmp_path / "out", there))
    process.start()
    assert here.recv() == [files.LOCK, files.OWNER]
    yield process, here, tmp_path / "out"
    process.kill()
    process.join()


def test_one_at_a_time_and_nothing_is_left(holder):
    process, pipe, folder = holder
    with pytest.raises(ValueError, match=f"process {process.pid} on .* delete {folder}/"):
        with files.lock(folder):
            pass
    assert sorted(os.listdir(folder)) == [files.LOCK, files.OWNER]
    pipe.send("done")
    process.join()
    assert not folder.exists()
    with files.lock(folder):
        assert sorted(os.listdir(folder)) == [files.LOCK, files.OWNER]
    assert not folder.exists()


def test_a_killed_process_of_this_machine_blocks_nothing(holder):
    process, _, folder = holder
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert (folder / files.OWNER).exists()
    with files.lock(folder):
        assert json.loads((folder / files.OWNER).read_text())["pid"] == os.getpid()
    assert os.listdir(folder) == []


def leave(path, **changes):
    """What a killed process has left."""
    owner = {**vars(owners.Owner.of(os.getpid())), **changes}
    path.write_text(json.dumps(owner))


@pytest.mark.parametrize(
    ("changes", "environment", "free"),
    [
        ({"begun": "1"}, {}, True),  # another process has the number now
        ({"host": "other"}, {}, False),
        ({"boot": "before"}, {}, False),
        ({"host": "other", "job": "7", "restart": 0}, {"SLURM_RESTART_COUNT": "1"}, True),
        ({"host": "other", "job": "7", "restart": 1}, {"SLURM_RESTART_COUNT": "1"}, False),
        ({"host": "other", "job": "8", "restart": 0}, {"SLURM_RESTART_COUNT": "1"}, False),
    ],
)
def test_what_can_be_known_of_another(tmp_path, monkeypatch, changes, environment, free):
    leave(tmp_path / files.OWNER, **changes)
    for name, value in {"SLURM_JOB_ID": "7", **environment}.items():
        monkeypatch.setenv(name, value)
    if free:
        with files.lock(tmp_path):
            pass
        assert os.listdir(tmp_path) == []
    else:
        with pytest.raises(ValueError, match=r"delete .*lock-owner"):
            with files.lock(tmp_path):
                pass


def test_of_many_that_find_a_dead_owner_one_takes_over(tmp_path):
    """Those that lose must not take the place of the one that has won."""
    path = tmp_path / "owner"
    leave(path, begun="1")
    stale = owners._read(str(path))
    with owners.claim(str(path)):
        winner = path.read_text()
        # One that had read the file before the other took over.
        with pytest.MonkeyPatch.context() as patch:
            reads = iter([stale])
            read = owners._read
            patch.setattr(owners, "_read", lambda p: next(reads, None) or read(p))
            with pytest.raises(ValueError, match="is writing here"):
                with owners.claim(str(path)):
                    pass
        assert path.read_text() == winner
    assert os.listdir(tmp_path) == []


def test_a_half_written_owner_is_one(tmp_path):
    (tmp_path / files.OWNER).write_text("{")
    with pytest.raises(ValueError, match="another process is writing here"):
        with files.lock(tmp_path):
            pass


def test_other_errors_of_locks_stay(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", fail)
    with pytest.raises(OSError, match="Input/output"):
        with files.lock(tmp_path):
            pass


def test_a_process_that_outlived_its_run_is_not_disturbed(tmp_path):
    log = tmp_path / "training.log"
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as orphan:
        with owners.claim(f"{log}.owner") as claim:
            owners.hand_over(claim, orphan.pid)
            left = (tmp_path / "training.log.owner").read_text()
        (tmp_path / "training.log.owner").write_text(left)  # ours was killed
        with pytest.raises(ValueError, match=f"process {orphan.pid} on"):
            job_process.run_python("model/train.py", [], str(log), 1)
        orphan.stdin.close()
        orphan.wait()
    with owners.claim(f"{log}.owner"):
        pass
