"""Local copies of what lies in a bucket: compared, fetched again, shared, and bounded."""

import fcntl
import os
import threading

import pytest
import store_memory
import xxhash

from winnow.filesystem import local_copies
from winnow.filesystem.local_copies import RemoteFile

CONTENTS = {"manifest.json": b"{}", "shards/a": bytes(300), "shards/b": b"b" * 500}


@pytest.fixture
def bucket(monkeypatch, tmp_path):
    monkeypatch.setenv("WINNOW_CACHE", str(tmp_path))
    bucket = store_memory.install(monkeypatch)
    forget(monkeypatch)
    return bucket


def forget(monkeypatch):
    """What another process, or this one started anew, knows of the copies: nothing."""
    for file in local_copies._in_use.values():
        file.close()
    monkeypatch.setattr(local_copies, "_in_use", {})


def put(bucket, folder, contents=CONTENTS):
    """Put files into a folder of the bucket; what asks for them there."""
    bucket.objects |= {f"{folder}/{name}": content for name, content in contents.items()}
    return f"s3://bucket/{folder}", {
        name: RemoteFile(
            f"s3://bucket/{folder}/{name}", len(content), xxhash.xxh3_128_hexdigest(content)
        )
        for name, content in contents.items()
    }


def content_of(folder):
    names = [os.path.join(top, n) for top, _, found in os.walk(folder) for n in found]
    return {os.path.relpath(name, folder): open(name, "rb").read() for name in names}


def test_a_copy_is_made_once_for_all_processes(bucket, monkeypatch):
    asked = put(bucket, "one")
    folder = local_copies.folder(*asked)
    assert content_of(folder) == CONTENTS
    reads = bucket.asked["read"]
    forget(monkeypatch)
    assert local_copies.folder(*asked) == folder
    assert local_copies.folder(*put(bucket, "moved")) == folder  # the same content
    assert bucket.asked["read"] == reads == len(CONTENTS)


@pytest.mark.parametrize("damage", [b"", b"b" * 499, b"b" * 499 + b"c", None])
def test_what_is_half_written_or_damaged_is_fetched_again(bucket, monkeypatch, damage):
    asked = put(bucket, "one")
    folder = local_copies.folder(*asked)
    path = os.path.join(folder, "shards", "b")
    os.remove(path)
    if damage is not None:
        with open(path, "wb") as file:
            file.write(damage)
    open(os.path.join(folder, "shards", ".tmp-of-a-killed-process"), "w").close()
    forget(monkeypatch)
    before = bucket.asked["read"]
    assert content_of(local_copies.folder(*asked)) == CONTENTS
    assert bucket.asked["read"] == before + 1


def test_what_the_bucket_itself_damaged_is_refused(bucket, tmp_path):
    asked = put(bucket, "one")
    bucket.objects["one/shards/a"] = bytes(299) + b"x"
    with pytest.raises(
        local_copies.DamagedError, match=r"one/shards/a does not match its checksum"
    ):
        local_copies.folder(*asked)
    assert not [name for name in content_of(tmp_path) if name.endswith("shards/a")]


def test_an_answer_that_was_broken_once_is_asked_for_again(bucket):
    asked = put(bucket, "one")
    right, broken = bucket.objects["one/shards/a"], []

    def once(kind, key):
        if (kind, key) == ("stat", "one/shards/a"):
            bucket.objects[key] = right if broken else bytes(299) + b"x"
            broken.append(key)

    bucket.before = once
    assert content_of(local_copies.folder(*asked)) == CONTENTS
    assert len(broken) == 2


def test_a_manifest_names_no_file_outside(bucket):
    source, wanted = put(bucket, "one")
    with pytest.raises(local_copies.DamagedError, match="names files outside it"):
        local_copies.folder(source, {"../a": wanted["shards/a"]})


def test_the_least_recently_used_goes_when_room_is_needed(bucket, monkeypatch, tmp_path):
    asked = [put(bucket, f"n{i}", {"file": bytes([i]) * 100}) for i in range(4)]
    monkeypatch.setenv("WINNOW_CACHE_BYTES", "250")
    folders = []
    for which in (0, 1, 0, 2):
        folders.append(local_copies.folder(*asked[which]))
        forget(monkeypatch)
    assert [os.path.exists(f) for f in folders] == [True, False, True, True]
    with open(f"{folders[0]}.use", "a") as elsewhere:
        fcntl.flock(elsewhere, fcntl.LOCK_SH)  # a process that uses 0, which is the oldest now
        third = local_copies.folder(*asked[3])
        assert [os.path.exists(f) for f in (*folders, third)] == [True, False, True, False, True]
        with pytest.raises(ValueError, match=r"needs 100 bytes.* is 250, of which 200 are in"):
            local_copies.folder(*asked[1])
    monkeypatch.setenv("WINNOW_CACHE_BYTES", "99")
    forget(monkeypatch)
    with pytest.raises(ValueError, match="raise WINNOW_CACHE_BYTES"):
        local_copies.folder(*asked[2])


def test_processes_that_ask_at_once_fetch_once(bucket, monkeypatch):
    """Threads here, with locks on files of their own, as processes have them."""
    asked = put(bucket, "one")
    found, together = [], threading.Barrier(3)

    def ask():
        together.wait()
        found.append(local_copies.folder(*asked))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3
    assert len(set(found)) == 1
    assert content_of(found[0]) == CONTENTS
    assert bucket.asked["read"] == len(CONTENTS)
