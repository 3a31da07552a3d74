"""A folder mirrored in a bucket: whole at every moment, whatever request is the last one."""

import dataclasses
import hashlib
import json
import os
import re
import shutil

import pytest
import store_memory

from winnow.filesystem import mirror
from winnow.object_stores import lease

OUTPUT = "s3://bucket/runs/one"
LAYOUT = mirror.Layout(
    ours=re.compile(r"units/.*|log|done|parts/.*"),
    units=re.compile(r"units/\d"),
    single=re.compile(r"parts/.*"),
    last=re.compile(r"done|units/done"),
    sign=re.compile(r"units/\d/manifest\.json"),
)


@pytest.fixture
def bucket(monkeypatch, tmp_path):
    monkeypatch.setenv("WINNOW_CACHE", str(tmp_path / "machine"))
    monkeypatch.setattr(mirror, "POLL", 1000.0)  # uploads are where a test makes them
    return store_memory.install(monkeypatch)


def other_machine(monkeypatch, tmp_path, name="other"):
    monkeypatch.setenv("WINNOW_CACHE", str(tmp_path / name))


def begun(still_ours=lambda: True, layout=LAYOUT):
    one = mirror._Mirror(OUTPUT, mirror.local_folder(OUTPUT), layout, still_ours)
    one.begin()
    return one


def write(name, content):
    path = os.path.join(mirror.local_folder(OUTPUT), name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(content)


def make_unit(number, keep=2):
    """As training makes a checkpoint: it appears whole, and those before it go, manifest first."""
    folder = os.path.join(mirror.local_folder(OUTPUT), "units")
    contents = {f"{part}": f"{part} of {number}".encode() * 9 for part in ("a", "b")}
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    made = os.path.join(folder, ".tmp-unit")
    os.makedirs(made)
    for name, content in {**contents, "manifest.json": json.dumps(sums).encode()}.items():
        with open(os.path.join(made, name), "wb") as file:
            file.write(content)
    os.rename(made, os.path.join(folder, str(number)))
    write("log", b"".join(b"line %d\n" % i for i in range(number + 1)))
    for old in sorted(name for name in os.listdir(folder) if name[0] != ".")[:-keep]:
        os.remove(os.path.join(folder, old, "manifest.json"))
        shutil.rmtree(os.path.join(folder, old))


def whole_units(names, read):
    """The units that a reader takes to be whole; fails if one of them is not."""
    found = [int(n.split("/")[-2]) for n in names if re.search(r"units/\d/manifest\.json$", n)]
    for number in found:
        top = next(n for n in names if n.endswith(f"units/{number}/manifest.json"))[:-13]
        for name, checksum in json.loads(read(f"{top}manifest.json")).items():
            assert hashlib.sha256(read(f"{top}{name}")).hexdigest() == checksum
    return sorted(found)


def in_bucket(bucket):
    return whole_units(list(bucket.objects), bucket.objects.__getitem__)


def on_disk():
    top = mirror.local_folder(OUTPUT)
    names = [os.path.join(t, n) for t, _, found in os.walk(top) for n in found]
    return whole_units(names, lambda name: open(name, "rb").read())


def run(last=4):
    """A command that goes on from what is there to the end; yields after each upload."""
    one = begun()
    for number in range(max(on_disk(), default=-1) + 1, last):
        make_unit(number)
        one.upload(complete_only=True)
        yield
    write("done", b"all")
    one.upload()
    one.forget()


def final(bucket):
    return {key: value for key, value in bucket.objects.items() if not key.endswith(".lock")}


def test_cut_off_at_any_request_it_is_whole_and_goes_on_elsewhere(bucket, monkeypatch, tmp_path):
    """At every request in turn, as a kill would."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    list(run())
    wanted, requests = final(bucket), sum(bucket.asked.values())
    assert in_bucket(bucket) == [2, 3]
    assert bucket.objects["runs/one/log"].count(b"\n") == 4
    assert requests > 20
    write_note = mirror._Mirror._write_note
    for moment in range(requests):
        bucket.objects.clear()
        left, newest = [moment], -1

        def cut(kind, key, left=left):
            left[0] -= 1
            if left[0] < 0:
                raise store_memory.Cut

        def note(self, left=left):
            if left[0] >= 0:  # who was killed notes nothing more
                write_note(self)

        monkeypatch.setattr(mirror._Mirror, "_write_note", note)
        other_machine(monkeypatch, tmp_path, f"first-{moment}")
        bucket.before = cut
        with pytest.raises(store_memory.Cut):
            for _ in run():
                assert max(in_bucket(bucket)) > newest
                newest = max(in_bucket(bucket))
        bucket.before = lambda kind, key: None
        monkeypatch.setattr(mirror._Mirror, "_write_note", write_note)
        there = in_bucket(bucket)
        assert max(there, default=-1) >= newest  # never less than what was uploaded
        if moment % 2:
            other_machine(monkeypatch, tmp_path, f"second-{moment}")
            begun()
            assert on_disk() == there
        list(run())
        # An older unit stays where the kill came before its end.
        assert wanted.items() <= final(bucket).items()


def test_the_machine_that_was_killed_goes_on_with_what_it_has(bucket, monkeypatch):
    one = begun()
    make_unit(0)
    one.upload()
    make_unit(1)  # killed before it was uploaded
    reads = bucket.asked["read"]
    again = begun()
    assert on_disk() == [0, 1]
    assert bucket.asked["read"] == reads + 1  # whose turn it is
    sent = bucket.asked["upload"]
    again.upload()
    assert bucket.asked["upload"] == sent + 4  # three files of unit 1, and the log
    assert in_bucket(bucket) == [0, 1]


def test_the_bucket_counts_where_another_machine_has_gone_on(bucket, monkeypatch, tmp_path):
    one = begun()
    make_unit(0)
    one.upload()
    make_unit(1)
    write("log", b"of the first machine")
    other_machine(monkeypatch, tmp_path)
    two = begun()
    for number in (1, 2, 3):
        make_unit(number)
    two.upload()
    other_machine(monkeypatch, tmp_path, "machine")
    begun()
    assert on_disk() == [2, 3]
    bucket.objects.clear()  # by a person, to begin anew
    begun()
    assert on_disk() == []


def test_what_is_settled_is_not_fetched_by_another_machine_and_stays(bucket, monkeypatch, tmp_path):
    settled = re.compile(r"units/done")
    layout = dataclasses.replace(LAYOUT, ours=re.compile(r"units/.*|log"), settled=settled)
    one = begun(layout=layout)
    make_unit(0)
    one.upload()
    write("units/done", b"all")
    one.upload(complete_only=True)
    other_machine(monkeypatch, tmp_path)
    two = begun(layout=layout)
    assert on_disk() == []
    assert os.path.exists(os.path.join(mirror.local_folder(OUTPUT), "units", "done"))
    write("log", b"of the second machine")
    two.upload()
    assert in_bucket(bucket) == [0]
    make_unit(1)
    two.upload()
    assert in_bucket(bucket) == [1]


def test_an_unhealthy_unit_that_goes_here_goes_there(bucket):
    one = begun()
    for number in (0, 1):
        make_unit(number)
    one.upload()
    assert in_bucket(bucket) == [0, 1]
    shutil.rmtree(os.path.join(mirror.local_folder(OUTPUT), "units", "1"))
    one.upload()
    assert in_bucket(bucket) == [0]
    shutil.rmtree(os.path.join(mirror.local_folder(OUTPUT), "units", "0"))
    one.upload()
    assert in_bucket(bucket) == [0]  # until there is another


def test_a_unit_that_goes_while_it_is_uploaded_is_uploaded_whole(bucket):
    one = begun()
    make_unit(0)

    def prunes(kind, key):
        if kind == "upload" and key.endswith("0/a"):
            make_unit(1)
            make_unit(2)

    bucket.before = prunes
    one.upload()
    assert in_bucket(bucket) == [0]
    bucket.before = lambda kind, key: None
    one.upload()
    assert in_bucket(bucket) == [1, 2]


def test_what_is_not_ours_is_left_alone(bucket):
    one = begun()
    make_unit(0)
    one.upload()
    bucket.objects["runs/one/evaluation.json"] = b"of another command"
    two = begun()
    make_unit(1)
    two.upload()
    assert bucket.objects["runs/one/evaluation.json"] == b"of another command"
    bucket.objects.clear()
    bucket.objects["runs/one/evaluation.json"] = b"of another command"
    with pytest.raises(ValueError, match=r"runs/one holds evaluation\.json.*choose another output"):
        begun()


def test_a_store_that_is_away_for_a_while_costs_nothing(bucket, monkeypatch, capsys):
    monkeypatch.setattr(mirror, "POLL", 0.01)
    monkeypatch.setattr(mirror, "PAUSE", 0.01)
    away = []

    def fails(kind, key):
        if kind == "upload" and len(away) < 3:
            away.append(key)
            raise OSError("503 of the store")

    with mirror.working_folder(OUTPUT, LAYOUT) as local:
        assert local == mirror.local_folder(OUTPUT)
        bucket.before = fails
        make_unit(0)
        while in_bucket(bucket) != [0]:
            pass
        make_unit(1)
    assert in_bucket(bucket) == [0, 1]
    assert "not uploaded yet, trying again: 503 of the store" in capsys.readouterr().err
    assert not os.path.exists(mirror.local_folder(OUTPUT))
    assert "runs/one/.lock" not in bucket.objects


def test_an_error_or_an_interrupt_uploads_what_is_whole(bucket):
    with pytest.raises(ValueError, match=rf"^{OUTPUT}/x is wrong$"):
        with mirror.working_folder(OUTPUT, LAYOUT) as local:
            make_unit(0)
            raise ValueError(f"{local}/x is wrong")
    assert in_bucket(bucket) == [0]
    with pytest.raises(KeyboardInterrupt):
        with mirror.working_folder(OUTPUT, LAYOUT):
            make_unit(1)
            raise KeyboardInterrupt
    assert in_bucket(bucket) == [0, 1]


def test_a_run_whose_lease_was_taken_writes_no_more(bucket, monkeypatch):
    monkeypatch.setattr(lease, "BEAT", 0.01)
    with pytest.raises(OSError, match="another run has taken over"):
        with mirror.working_folder(OUTPUT, LAYOUT):
            make_unit(0)
            bucket.objects["runs/one/.lock"] = b'{"holder": "another", "beat": 1}'
            while True:
                pass
    assert in_bucket(bucket) == []
    ours = [True]
    one = begun(lambda: ours[0])
    make_unit(0)
    bucket.after = lambda kind, key: ours.clear() or ours.append(not key.endswith("0/a"))
    one.upload()
    assert in_bucket(bucket) == []
