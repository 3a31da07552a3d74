"""Checkpoints: what goes in comes out; damage, bad pickles and full disks."""

import io
import itertools
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ProcessPoolExecutor

import pytest
import torch

from model.training.checkpoints import checkpoint
from model.training.checkpoints.background import Writer
from model.training.checkpoints.checkpoint import MANIFEST
from winnow.filesystem import files, storage

pytestmark = pytest.mark.slow


def content(seed=0):
    random = torch.Generator().manual_seed(seed)
    return {
        "model.a": torch.randn(40, 50, generator=random),
        "model.b": torch.randn(7, generator=random).bfloat16(),
        "optimizer.a.step": torch.tensor(float(seed)),
        "count": torch.arange(5) + seed,
    }


def empty():
    return {name: torch.zeros_like(value) for name, value in content().items()}


def saved(folder, steps=(10, 20)):
    for step in steps:
        checkpoint.save(str(folder), step, content(step), {"step": step, "names": ["é"]})
    return folder


def test_what_goes_in_comes_out(tmp_path):
    saved(tmp_path)
    found = checkpoint.newest(str(tmp_path))
    assert found.state == {"step": 20, "names": ["é"]}
    out = empty()
    checkpoint.load(found, out)
    for name, value in content(20).items():
        assert torch.equal(out[name], value)


def test_nothing_is_there_at_first(tmp_path):
    assert checkpoint.newest(str(tmp_path / "no")) is None
    with pytest.raises(ValueError, match="holds no checkpoint"):
        checkpoint.resolve(str(tmp_path))


@pytest.mark.parametrize("name", [MANIFEST, ".metadata", "__0_0.distcp"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "empty"])
def test_a_damaged_checkpoint_is_refused_and_the_one_before_it_used(tmp_path, capsys, name, damage):
    saved(tmp_path)
    file = tmp_path / "step_000000020" / name
    data = bytearray(file.read_bytes())
    if damage == "remove":
        file.unlink()
    else:
        place = len(data) // 2
        data[place] ^= 0x10
        file.write_bytes({"flip": data, "truncate": data[:place], "empty": b""}[damage])
    with pytest.raises(checkpoint.DamagedError, match="step_000000020"):
        checkpoint.verify(str(tmp_path / "step_000000020"))
    assert checkpoint.newest(str(tmp_path)).state["step"] == 10
    assert "step_000000020" in capsys.readouterr().err
    (tmp_path / "step_000000010" / "__0_0.distcp").write_bytes(b"")
    with pytest.raises(ValueError, match="every checkpoint in"):
        checkpoint.newest(str(tmp_path))


def test_a_damaged_checkpoint_is_written_anew(tmp_path):
    saved(tmp_path)
    (tmp_path / "step_000000020" / ".metadata").write_bytes(b"")
    saved(tmp_path, [20])
    assert checkpoint.newest(str(tmp_path)).state["step"] == 20


def test_other_tensors_than_were_saved_are_refused(tmp_path):
    found = checkpoint.newest(str(saved(tmp_path)))
    with pytest.raises(ValueError, match=r"model\.c"):
        checkpoint.load(found, {**empty(), "model.c": torch.zeros(3)})
    with pytest.raises(ValueError, match=r"can't be loaded.*model\.a"):
        checkpoint.load(found, {**empty(), "model.a": torch.zeros(3)})


def test_only_the_newest_stay_and_litter_goes(tmp_path):
    saved(tmp_path, [1, 2, 3, 4])
    litter = tmp_path / f"{files.TEMPORARY}step_000000009"
    litter.mkdir()
    (litter / "half").write_bytes(b"x")
    (tmp_path / f"{files.TEMPORARY}file").write_bytes(b"x")
    (tmp_path / "notes").write_text("mine")
    checkpoint.prune(str(tmp_path), 2)
    assert sorted(os.listdir(tmp_path)) == ["notes", "step_000000003", "step_000000004"]


def test_what_a_kill_left_half_deleted_goes(tmp_path):
    saved(tmp_path, [1, 2, 3])
    (tmp_path / "step_000000001" / MANIFEST).unlink()
    checkpoint.prune(str(tmp_path), 2)
    assert sorted(os.listdir(tmp_path)) == ["step_000000002", "step_000000003"]


class Evil:
    def __reduce__(self):
        return (os.mkdir, ("evil",))


def forge(folder, index):
    """Give a checkpoint this index, with a manifest that fits it."""
    path = folder / "step_000000020"
    (path / ".metadata").write_bytes(index)
    manifest = storage.read_json(str(path / MANIFEST))
    manifest["files"][".metadata"] = storage.checksum(str(path / ".metadata"))
    storage.write_json(str(path / MANIFEST), manifest)
    return checkpoint.newest(str(folder))


def test_an_index_that_would_run_code_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    saved(tmp_path)
    found = forge(tmp_path, pickle.dumps(Evil()))
    with pytest.raises(ValueError, match=r"names posix\.mkdir: refused"):
        checkpoint.load(found, empty())
    assert not os.path.exists("evil")


def test_an_index_with_objects_beside_tensors_is_refused(tmp_path):
    """torch.distributed.checkpoint would unpickle what such an entry points to."""
    from torch.distributed.checkpoint.metadata import BytesStorageMetadata

    saved(tmp_path)
    metadata = pickle.loads((tmp_path / "step_000000020" / ".metadata").read_bytes())
    metadata.state_dict_metadata["model.a"] = BytesStorageMetadata()
    found = forge(tmp_path, pickle.dumps(metadata))
    with pytest.raises(ValueError, match="BytesStorageMetadata: refused"):
        checkpoint.load(found, empty())


class Attribute:
    """Pickled as ``getattr(owner, name)``, the way of Python before 3.11.4 with enumerations."""

    def __init__(self, owner, name):
        self.owner, self.name = owner, name

    def __reduce__(self):
        return (getattr, (self.owner, self.name))


def read_index(value):
    return checkpoint._IndexUnpickler(io.BytesIO(pickle.dumps(value))).load()


def test_an_index_of_any_python_is_read():
    from torch.distributed.checkpoint.metadata import _MEM_FORMAT_ENCODING as FORMATS

    for member in FORMATS:
        assert read_index(member) is member
        assert read_index(Attribute(FORMATS, member.name)) is member


@pytest.mark.parametrize("name", ["__class__", "__init_subclass__", "mro"])
def test_an_index_that_takes_other_attributes_is_refused(name):
    from torch.distributed.checkpoint.metadata import _MEM_FORMAT_ENCODING, Metadata

    with pytest.raises(ValueError, match="refused"):
        read_index(Attribute(Metadata, name))
    with pytest.raises((ValueError, KeyError)):
        read_index(Attribute(_MEM_FORMAT_ENCODING, name))


FULL = """
import resource, signal, sys, torch
from model.training.checkpoints import checkpoint
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
folder = sys.argv[1]
checkpoint.save(folder, 1, {"a": torch.zeros(1000)}, {})
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
try:
    checkpoint.save(folder, 2, {"a": torch.zeros(1_000_000)}, {})
except OSError as error:
    print(error)
"""


def test_no_room_leaves_older_checkpoints_and_nothing_half_written(quick_python, tmp_path):
    """A limit on the size of files, since a full disk takes a file system of one's own."""
    script, folder = tmp_path / "full.py", tmp_path / "checkpoints"
    script.write_text(FULL)
    run = subprocess.run([quick_python, script, folder], capture_output=True, text=True, check=True)
    assert "step 2 can't be written" in run.stdout
    assert "older checkpoints are intact" in run.stdout
    assert os.listdir(folder) == ["step_000000001"]
    checkpoint.verify(str(folder / "step_000000001"))


CHANGES = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree"}


def write_on_disks_that_stop(folder):
    """A checkpoint in the background instead of the one before it; the n-th disk stops changing
    before the n-th change of a file, as if the process was killed there.
    """
    left = None

    def hook(event, arguments):
        nonlocal left
        if left is None or event not in CHANGES or str(arguments[0]).startswith("/dev"):
            return
        if event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR):
            return
        left -= 1
        if left < 0:
            raise OSError("no more")

    sys.addaudithook(hook)
    for number in itertools.count():
        disk = saved(folder / str(number), [10])
        writer = Writer(str(disk), keep=1, background=True, patience=60)
        left = number
        writer.save(20, content(20), {"step": 20})
        try:
            writer.wait()
        except OSError:
            assert left < 0
        else:
            return
        finally:
            left = None


def test_a_kill_at_any_moment_leaves_a_whole_checkpoint(tmp_path):
    """And the next run goes on from there, leaving nothing behind. No error is swallowed."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        pool.submit(write_on_disks_that_stop, tmp_path).result()
    newest = []
    for number in range(len(os.listdir(tmp_path))):
        folder = str(tmp_path / str(number))
        found = checkpoint.newest(folder)
        newest.append(found.state["step"])
        out = empty()
        checkpoint.load(found, out)
        for name, value in content(newest[-1]).items():
            assert torch.equal(out[name], value)
        Writer(folder, 1, False, 60).save(30, content(30), {"step": 30})
        assert os.listdir(folder) == ["step_000000030"]
    assert newest == sorted(newest)
    assert set(newest) == {10, 20}
    assert len(newest) > 12


def test_what_is_written_is_what_it_was(tmp_path, monkeypatch):
    """The training changes the tensors while the thread has not begun to write."""
    goes = threading.Event()
    save = checkpoint.save
    monkeypatch.setattr(checkpoint, "save", lambda *a: (goes.wait(60), save(*a)))
    writer = Writer(str(tmp_path), 2, True, 60)
    tensors = content(7)
    writer.save(7, tensors, {})
    for value in tensors.values():
        value.zero_()
    goes.set()
    writer.wait()
    out = empty()
    checkpoint.load(checkpoint.newest(str(tmp_path)), out)
    assert all(torch.equal(out[name], value) for name, value in content(7).items())


def test_what_a_thread_could_not_do_is_raised_where_it_is_waited_for(tmp_path):
    saved(tmp_path, [1])
    writer = Writer(str(tmp_path), 2, True, 60)
    (tmp_path / f"{files.TEMPORARY}step_000000002").write_text("in the way")
    writer.save(2, content(2), {})
    with pytest.raises(OSError, match="checkpoint of step 2 can't be written"):
        writer.save(3, content(3), {})
    assert checkpoint.newest(str(tmp_path)).path.endswith("1")
    writer.wait()


def test_one_can_be_named_or_found_in_a_run(tmp_path):
    saved(tmp_path / "checkpoints")
    assert checkpoint.resolve(str(tmp_path)).state["step"] == 20
    assert checkpoint.resolve(str(tmp_path / "checkpoints")).state["step"] == 20
    named = str(tmp_path / "checkpoints" / "step_000000010")
    assert checkpoint.resolve(named).state["step"] == 10
    assert checkpoint.resolve(named + "/").state["step"] == 10
