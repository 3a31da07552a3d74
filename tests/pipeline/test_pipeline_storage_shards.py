"""Atomic files, locks and shards."""

import ctypes
import errno
import multiprocessing
import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.output import output_folder, shards
from pipeline.output.shards import ShardWriter
from winnow.filesystem import storage, tables

SCHEMA = pa.schema([("text", pa.large_string())])


def batch(*texts: str) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.array(texts, pa.large_string())], schema=SCHEMA)


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = str(tmp_path / "deep" / "file")
    with pytest.raises(ZeroDivisionError), storage.open_output(path) as file:
        file.write(b"half")
        raise ZeroDivisionError
    assert os.listdir(tmp_path / "deep") == []
    with storage.open_output(path) as file:
        file.write(b"whole")
        assert not os.path.exists(path)
    assert storage.read_bytes(path) == b"whole"
    assert os.listdir(tmp_path / "deep") == ["file"]


def test_what_a_killed_writer_left_is_removed(tmp_path):
    folder = tmp_path / "a [run]"
    name = "data-web-00000-of-00001.arrow"

    def die():
        with storage.open_output(str(folder / "shards" / name)) as file:
            file.write(b"half")
            file.flush()
            os._exit(9)

    child = multiprocessing.get_context("fork").Process(target=die)
    child.start()
    child.join()
    assert len(os.listdir(folder / "shards")) == 1
    (folder / "shards" / f".tmp-abcdefgh-{name}.txt").touch()
    output_folder.begin(str(folder), "key", frozenset({("web", 1)}))
    assert os.listdir(folder / "shards") == [f".tmp-abcdefgh-{name}.txt"]


def test_two_runs_cannot_hold_one_folder(tmp_path):
    with storage.lock(str(tmp_path / "deleted")):
        os.remove(tmp_path / "deleted" / ".lock")
        os.rmdir(tmp_path / "deleted")
    with storage.lock(str(tmp_path)):
        with pytest.raises(ValueError, match="another run"), storage.lock(str(tmp_path)):
            pass
    with storage.lock(str(tmp_path)):
        pass
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("before", "during"), [(False, False), (True, False), (False, True)])
def test_a_refused_run_leaves_no_empty_folder_of_its_own(tmp_path, before, during):
    folder = tmp_path / "output"
    if before:
        folder.mkdir()
    with pytest.raises(ValueError, match="refused"), storage.lock(str(folder)):
        if during:
            (folder / "begun").touch()
        raise ValueError("refused")
    assert folder.exists() == (before or during)


def test_a_file_of_the_locks_name_that_is_no_lock_stays(tmp_path):
    (tmp_path / ".lock").write_text("mine")
    with pytest.raises(ValueError, match="not the lock of a run: choose another output"):
        with storage.lock(str(tmp_path)):
            pass
    assert (tmp_path / ".lock").read_text() == "mine"


def test_patterns_that_find_nothing_or_a_directory_are_refused(tmp_path):
    with pytest.raises(ValueError, match="nothing matches"):
        storage.find(str(tmp_path / "*.gz"))
    with pytest.raises(ValueError, match="is a directory"):
        storage.find(str(tmp_path))


def _without_privileges():
    """Root may read everything; not what is started by it without these capabilities."""
    for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP


@pytest.mark.skipif(sys.platform != "linux", reason="capabilities are Linux's")
@pytest.mark.parametrize(
    "pattern", ["locked/*", "locked/a.gz", "*/*.gz", "**/*.gz", "*/locked/a.gz", "open/**/a.gz"]
)
def test_a_folder_that_cannot_be_read_is_not_passed_over(tmp_path, pattern):
    for folder in ("open/locked", "locked"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "a.gz").touch()
        (tmp_path / folder).chmod(0)
    (tmp_path / "open" / "a.gz").touch()
    code = "import sys; from winnow.filesystem import storage; print(storage.find(sys.argv[1]))"
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, f"{tmp_path}/{pattern}"],
            capture_output=True,
            text=True,
            preexec_fn=_without_privileges,
            check=False,
        )
    finally:
        for folder in ("open/locked", "locked"):
            (tmp_path / folder).chmod(0o755)
    assert "PermissionError: [Errno 13] Permission denied" in done.stderr
    assert len(storage.find(str(tmp_path / pattern))) > 0


@pytest.mark.parametrize("compression", ["none", "lz4", "zstd"])
def test_shards_hold_what_was_written_and_state_their_checksum(tmp_path, compression):
    batches = [batch(f"{i}" * 100, "ü" * i) for i in range(50)]
    with ShardWriter(str(tmp_path), "data", SCHEMA, 4000, compression) as writer:
        for one in batches:
            writer.write(one)
        writer.write(batch())
    names = [shard.name for shard in writer.shards]
    assert names[:2] == ["data.arrow", "data.1.arrow"]
    assert sorted(names) == sorted(os.listdir(tmp_path))
    read = [one for name in names for one in tables.batches(str(tmp_path / name))]
    assert pa.Table.from_batches(read).equals(pa.Table.from_batches(batches))
    for shard in writer.shards:
        content = (tmp_path / shard.name).read_bytes()
        assert shard.bytes == len(content)
        assert shard.checksum == storage.checksum(str(tmp_path / shard.name))
        assert shard.checksum == xxhash.xxh3_128_hexdigest(content)
    assert sum(shard.rows for shard in writer.shards) == 100


TEXTS = pa.schema([("bytes", pa.int64()), ("text", pa.large_string())])


def texts(lengths):
    values = [chr(97 + i % 26) * n for i, n in enumerate(lengths)]
    return pa.record_batch(
        [pa.array(lengths, pa.int64()), pa.array(values, pa.large_string())], schema=TEXTS
    )


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(st.integers(0, 900), min_size=1, max_size=40),
    st.integers(1, 12),
    st.sampled_from([1000, 1 << 30]),
)
def test_parquet_has_the_same_bytes_however_its_rows_come_in_batches(
    tmp_path, monkeypatch, lengths, n, limit
):
    monkeypatch.setattr(shards, "ROW_GROUP_BYTES", 1000)
    whole, found = texts(lengths), []
    for size in (n, len(whole)):
        folder = tmp_path / str(size)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        with ShardWriter(str(folder), "data", TEXTS, limit, "none", "parquet") as writer:
            for start in range(0, len(whole), size):
                writer.write(whole.slice(start, size))
        found.append(writer.shards)
        read = [one for shard in writer.shards for one in tables.batches(str(folder / shard.name))]
        assert pa.Table.from_batches(read).equals(pa.Table.from_batches([whole]))
        # As a plain loop would cut: a group is full with the row that reaches its size.
        groups = [[]]
        for length in lengths:
            if sum(groups[-1]) >= 1000:
                groups.append([])
            groups[-1].append(length)
        assert [len(one) for one in read] == [len(group) for group in groups]
    assert found[0] == found[1]
    files = [pq.ParquetFile(tmp_path / str(n) / shard.name) for shard in found[0]]
    assert [file.metadata.num_rows for file in files] == [shard.rows for shard in found[0]]


def test_nothing_is_left_of_a_shard_whose_task_failed(tmp_path):
    with pytest.raises(ZeroDivisionError):
        with ShardWriter(str(tmp_path), "data", SCHEMA, 1 << 30, "none") as writer:
            writer.write(batch("a"))
            raise ZeroDivisionError
    assert os.listdir(tmp_path) == []
    with ShardWriter(str(tmp_path), "data", SCHEMA, 1 << 30, "none") as writer:
        pass
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("form", ["arrow", "parquet"])
def test_a_disk_that_is_full_at_the_very_end_is_named_with_its_file(tmp_path, monkeypatch, form):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match=rf"No space left.*data\.{form}"):
        with ShardWriter(str(tmp_path), "data", TEXTS, 1 << 30, "none", form) as writer:
            writer.write(texts([10]))
            if form == "parquet":  # its only row group is written at the end
                monkeypatch.setattr(shards._ChecksumFile, "write", lambda _, data: full(data))
            else:
                writer._writer = SimpleNamespace(close=lambda: full(None))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("form", ["arrow", "parquet"])
def test_a_damaged_shard_is_refused_by_name(tmp_path, form):
    with ShardWriter(str(tmp_path), "data", TEXTS, 1 << 30, "none", form) as writer:
        writer.write(texts([1000]))
    path = tmp_path / f"data.{form}"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=rf"data\.{form}"):
        list(tables.batches(str(path)))
