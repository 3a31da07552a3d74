"""Files in S3 and Google Cloud Storage, on real servers on this machine."""

import contextlib
import gc
import io
import os
import random
import signal
import threading
import time
import uuid

import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from hypothesis import given, settings
from hypothesis import strategies as st
from store_servers import Faulty, at_random, flags, serving

from winnow import heartbeat
from winnow.filesystem import storage
from winnow.object_stores import lease, object_store, store_gcs, store_s3

pytestmark = pytest.mark.slow

LISTED = 10_000


@pytest.fixture(scope="module")
def ports():
    """Both stores. One bucket of each, named many, holds objects enough for ten pages."""
    with serving("s3", LISTED) as s3, serving("gs", LISTED) as gs:
        yield {"s3": s3, "gs": gs}


@pytest.fixture(params=["s3", "gs"])
def scheme(request):
    return request.param


@pytest.fixture
def reach(ports, scheme, monkeypatch):
    """Points this process to the store, or to a proxy before it; a new folder's path."""
    folder = f"{scheme}://bucket/{uuid.uuid4().hex}"

    def reach(port=ports[scheme]):
        object_store.configure(PipelineOptions(flags(scheme, port, monkeypatch.setenv)))
        return folder

    monkeypatch.setattr(store_s3, "WAITS", (0.05, 0.1, 0.2, 0.2, 0.2, 0.2))
    quick = store_gcs.RETRY.with_delay(initial=0.05, maximum=0.2)
    monkeypatch.setattr(store_gcs, "RETRY", quick)
    return reach


@pytest.fixture
def gives_up(reach, monkeypatch):
    """The client of Google Cloud Storage gives up after seconds, not minutes."""
    monkeypatch.setattr(store_gcs, "RETRY", store_gcs.RETRY.with_timeout(4))


@pytest.mark.parametrize("size", [0, 1, 70_000, (17 << 20) + 1])
def test_what_is_written_is_what_is_read(reach, size):
    path = f"{reach()}/file"
    content = random.Random(size).randbytes(size)
    with storage.open_output(path) as file:
        for start in range(0, size, 1 << 20):
            file.write(content[start : start + (1 << 20)])
        assert not storage.exists(path)
    assert storage.exists(path)
    assert storage.size(path) == size
    assert storage.read_bytes(path) == content


def test_a_long_transfer_is_many_heartbeats(reach, monkeypatch):
    beats = []
    monkeypatch.setattr(heartbeat, "beat", lambda: beats.append(time.monotonic()))
    path = f"{reach()}/file"
    with storage.open_output(path) as file:
        file.write(bytes(50 << 20))
        assert not beats
    assert len(beats) >= 4  # 16 MiB each
    beats.clear()
    with storage.open_input(path) as file:
        while file.read(1 << 20):
            pass
    assert len(beats) >= 7  # 8 MiB each


def test_seeking_and_reading_is_that_of_a_file_in_memory(reach, monkeypatch):
    monkeypatch.setattr(object_store, "FIRST_READ", 100)
    monkeypatch.setattr(object_store, "LARGEST_READ", 1000)
    path = f"{reach()}/file"
    content = random.Random(1).randbytes(20_000)
    storage.write_bytes(path, content)
    place = st.tuples(st.sampled_from(["seek", "back"]), st.integers(0, 21_000))
    read = st.tuples(st.just("read"), st.integers(-1, 5000))

    @settings(max_examples=15, deadline=None)
    @given(st.lists(place | read, max_size=6))
    def check(steps):
        with storage.open_input(path) as file:
            memory = io.BytesIO(content)
            for kind, n in steps:
                for f in (file, memory):
                    if kind != "read":
                        f.seek(*((n,) if kind == "seek" else (-min(n, 20_000), io.SEEK_END)))
                assert file.tell() == memory.tell()
                if kind == "read":
                    assert file.read(n) == memory.read(n)

    check()


def test_no_more_is_fetched_than_is_wanted(reach, ports, scheme):
    path = f"{reach()}/file"
    storage.write_bytes(path, bytes(30 << 20))
    largest = 0
    with Faulty(ports[scheme], lambda *request: None) as proxy:
        reach(proxy.port)
        with storage.open_input(path) as file:
            file.read(4)
        assert proxy.sent < object_store.FIRST_READ + 10_000
        with storage.open_input(path) as file:
            while file.read(1 << 16):
                largest = max(largest, proxy.largest)
    assert largest <= object_store.LARGEST_READ


@pytest.mark.parametrize("size", [10, 20 << 20])
def test_a_writer_that_fails_leaves_no_object(reach, size):
    folder = reach()
    storage.write_bytes(f"{folder}/old", b"old")
    for name in ("new", "old"):
        with contextlib.suppress(RuntimeError), storage.open_output(f"{folder}/{name}") as file:
            file.write(bytes(size))
            raise RuntimeError
    gc.collect()  # Beam's own streams complete their upload here
    assert storage.listing(folder) == [f"{folder}/old"]
    assert storage.read_bytes(f"{folder}/old") == b"old"


def test_an_upload_that_breaks_off_leaves_nothing(reach, ports, scheme, gives_up):
    folder = reach()

    def second_part(number, method, path):
        return "503" if "partNumber=2" in path or "upload_id" in path else None

    with Faulty(ports[scheme], second_part) as proxy:
        reach(proxy.port)
        with pytest.raises(OSError, match=f"{folder}/file"):
            storage.write_bytes(f"{folder}/file", bytes(20 << 20))
    reach()
    assert storage.listing(folder) == []
    bucket, key = object_store.locate(folder)
    if scheme == "s3":
        answer = bucket._client.list_multipart_uploads(Bucket="bucket", Prefix=key)
        assert "Uploads" not in answer


@pytest.mark.parametrize("scheme", ["s3"])
def test_parts_of_killed_writers_are_dropped(reach):
    folder = reach()
    bucket, key = object_store.locate(folder)
    client = bucket._client
    for name in ("a", "b", "b"):
        at = {"Bucket": "bucket", "Key": f"{key}/{name}"}
        upload = client.create_multipart_upload(**at)["UploadId"]
        client.upload_part(**at, UploadId=upload, PartNumber=1, Body=bytes(5 << 20))
    client.create_multipart_upload(Bucket="bucket", Key=f"{key}-another/c")
    assert storage.listing(folder) == []
    assert not storage.exists(f"{folder}/a")
    client.create_multipart_upload(Bucket="bucket", Key=f"{key}/mine")
    storage.remove_unfinished(folder, lambda name: name in ("a", "b"))
    left = client.list_multipart_uploads(Bucket="bucket", Prefix=key)["Uploads"]
    assert [upload["Key"] for upload in left] == [f"{key}-another/c", f"{key}/mine"]


def test_an_object_that_changes_while_it_is_read_is_an_error(reach):
    path = f"{reach()}/file"
    storage.write_bytes(path, bytes(10 << 20))
    with storage.open_input(path) as file:
        assert file.read(10) == bytes(10)
        storage.write_bytes(path, b"\1" * (10 << 20))
        with pytest.raises(OSError, match=path):
            file.read()


def test_ten_thousand_objects_are_listed_found_and_removed(reach, scheme):
    reach()
    names = [f"{scheme}://many/in/part-{i:05d}.jsonl" for i in range(LISTED)]
    assert storage.listing(f"{scheme}://many/in") == names
    assert storage.find(f"{scheme}://many/in/part-03*[13]7.jsonl") == [
        name for name in names if "part-03" in name and name[-8:-6] in ("17", "37")
    ]
    assert len(storage.listing(f"{scheme}://many/out")) > 1000
    storage.remove(f"{scheme}://many/out")
    assert storage.listing(f"{scheme}://many/out") == []


def test_listing_shows_one_folder_and_removing_takes_one(reach):
    folder = reach()
    for name in ("a", "a/b", "a/b/c", "ab", "a b+c%d/ü#?.txt"):
        storage.write_bytes(f"{folder}/{name}", name.encode())
    assert storage.listing(folder) == [f"{folder}/a", f"{folder}/ab"]
    assert storage.listing(f"{folder}/a b+c%d") == [f"{folder}/a b+c%d/ü#?.txt"]
    assert storage.read_bytes(f"{folder}/a b+c%d/ü#?.txt").decode() == "a b+c%d/ü#?.txt"
    storage.remove(f"{folder}/a")
    assert storage.listing(folder) == [f"{folder}/ab"]
    assert storage.listing(f"{folder}/a") == []
    storage.remove(f"{folder}/nothing")


def test_what_is_not_there(reach, scheme):
    folder = reach()
    assert not storage.exists(f"{folder}/none")
    assert storage.listing(folder) == []
    with pytest.raises(FileNotFoundError, match="none"):
        storage.read_bytes(f"{folder}/none")
    with pytest.raises(ValueError, match="nothing matches"):
        storage.find(f"{folder}/*")
    for attempt in (storage.listing, lambda path: storage.write_bytes(path, b"")):
        with pytest.raises(FileNotFoundError, match="no-such-bucket"):
            attempt(f"{scheme}://no-such-bucket/file")
    for wrong in (f"{scheme}://", f"{scheme}:///file"):
        with pytest.raises(ValueError, match="no bucket"):
            storage.exists(wrong)
    with pytest.raises(ValueError, match="hdfs:// is not known"):
        storage.exists("hdfs://name/file")


def test_names_with_brackets_are_found_as_they_are_written(reach):
    folder = reach()
    for name in ("br[1].x", "br1.x", "d[ab]/q.x", "da/q.x", "a/br[1].x"):
        storage.write_bytes(f"{folder}/{name}", b"")
    for pattern, names in {
        "br[1].x": ["br[1].x"],
        "d[ab]/*.x": ["d[ab]/q.x"],
        "d[a]/*.x": ["da/q.x"],
        "**/br[1].x": ["a/br[1].x", "br[1].x"],
        "br[12].x": ["br1.x"],
    }.items():
        assert storage.find(f"{folder}/{pattern}") == [f"{folder}/{name}" for name in names]


def test_a_classifier_is_copied_with_all_that_is_in_its_folder(reach, tmp_path):
    folder = reach()
    for name in ("c/one", "c/figures/two", "other"):
        storage.write_bytes(f"{folder}/{name}", name.encode())
    with storage.local_copy(f"{folder}/c/") as copy:
        assert sorted(os.listdir(copy)) == ["figures", "one"]
        with open(f"{copy}/figures/two", "rb") as file:
            assert file.read() == b"c/figures/two"
    assert not os.path.exists(copy)
    with storage.local_copy(f"{folder}/other") as copy, open(copy, "rb") as file:
        assert file.read() == b"other"
    with pytest.raises(ValueError, match="nothing at"), storage.local_copy(f"{folder}/none"):
        pass


@pytest.mark.parametrize("scheme", ["s3"])
def test_a_copy_stays_in_its_folder(reach):
    folder = reach()
    bucket, key = object_store.locate(folder)
    bucket.replace(f"{key}/bad/../../up", b"", None)
    with pytest.raises(ValueError, match="not valid paths"), storage.local_copy(f"{folder}/bad"):
        pass


@pytest.mark.parametrize("seed", [1, 2])
def test_a_faulty_store_is_read_and_written_as_a_sound_one(reach, ports, scheme, seed):
    folder = reach()
    rng = random.Random(seed)
    contents = {f"{folder}/{n}": rng.randbytes(n) for n in (0, 1, 1000, 300_000, 9 << 20)}
    with Faulty(ports[scheme], at_random(seed, 0.3)) as proxy:
        reach(proxy.port)
        for path, content in contents.items():
            storage.write_bytes(path, content)
            assert storage.exists(path)
        assert storage.listing(folder) == sorted(contents)
        for path, content in contents.items():
            assert storage.read_bytes(path) == content
        assert sum(n for kind, n in proxy.done.items() if kind) > 3
        storage.remove(folder)
    reach()
    assert storage.listing(folder) == []


@pytest.mark.parametrize("kind", ["503", "refused"])
def test_a_store_that_is_down_is_an_error_that_names_the_file(reach, ports, scheme, kind, gives_up):
    folder = reach()
    with Faulty(ports[scheme], lambda *request: kind) as proxy:
        reach(proxy.port)
        with pytest.raises(OSError, match=f"{folder}/file"):
            storage.read_bytes(f"{folder}/file")
        assert proxy.done[kind] > 5
    with pytest.raises(OSError, match=f"{folder}/file"):  # and when nobody listens
        storage.read_bytes(f"{folder}/file")


@pytest.mark.parametrize("kind", ["500", "429", "refused", "cut", "unanswered"])
def test_each_fault_is_survived(reach, ports, scheme, kind):
    folder = reach()
    content = random.Random(0).randbytes(300_000)
    storage.write_bytes(f"{folder}/old", content)
    with Faulty(ports[scheme], lambda number, *request: kind if number % 3 else None) as proxy:
        reach(proxy.port)
        storage.write_bytes(f"{folder}/new", content)
        assert storage.read_bytes(f"{folder}/old") == content
        assert storage.listing(folder) == [f"{folder}/new", f"{folder}/old"]
        assert proxy.done[kind] > 2
    reach()
    assert storage.read_bytes(f"{folder}/new") == content


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(lease, "BEAT", 0.1)
    monkeypatch.setattr(lease, "PATIENCE", 1.5)


def test_a_living_run_keeps_its_output(reach, impatient):
    folder = reach()
    with storage.lock(folder):
        time.sleep(0.5)
        with pytest.raises(ValueError, match="another run"):
            with storage.lock(folder):
                raise AssertionError
    assert storage.listing(folder) == []
    with storage.lock(folder):
        pass


def test_the_lock_of_a_killed_run_is_taken_over_by_one(reach, impatient, capsys):
    folder = reach()
    bucket, key = object_store.locate(f"{folder}/.lock")
    assert lease._Lease(bucket, key).take(folder)  # and never renewed
    had = []

    def take():
        with contextlib.suppress(ValueError), storage.lock(folder):
            had.append(time.monotonic())
            time.sleep(3)

    start = time.monotonic()
    threads = [threading.Thread(target=take) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(had) == 1
    assert had[0] - start > 1.5
    assert "is locked: waiting" in capsys.readouterr().err
    assert storage.listing(folder) == []


@pytest.mark.parametrize("handler", [signal.default_int_handler, signal.SIG_IGN])
def test_a_run_that_was_cut_off_too_long_stops(reach, impatient, handler):
    """At once, also where SIGINT is ignored, as by what a script starts with ``&``."""
    folder = reach()
    bucket, key = object_store.locate(f"{folder}/.lock")
    with pytest.raises(RuntimeError, match="has taken over"):
        with storage.lock(folder):
            before = signal.signal(signal.SIGINT, handler)
            try:
                bucket.delete([key])
                assert bucket.replace(key, b"somebody else", None)
                time.sleep(30)
                raise AssertionError("it went on")
            finally:
                signal.signal(signal.SIGINT, before)
    found = bucket.stat(key)
    assert bucket.read(key, 0, found.size, found.version) == b"somebody else"


def test_the_lock_is_kept_although_answers_are_lost(reach, ports, scheme, impatient):
    folder = reach()
    with Faulty(ports[scheme], at_random(3, 0.4, ("unanswered", "503"))) as proxy:
        reach(proxy.port)
        with storage.lock(folder):
            time.sleep(4)
        assert proxy.done["unanswered"] > 2
    reach()
    assert storage.listing(folder) == []
