"""The log of a run: what was said, when, and where it is written."""

import re
import sys
from datetime import datetime, timedelta

import pytest

from winnow import run_log
from winnow.filesystem import storage


@pytest.fixture
def begin(monkeypatch):
    """Begins a log in the test itself, since pytest sets streams of its own before it."""
    monkeypatch.setattr(sys, "argv", ["winnow/run", "--s3_secret=abc"])
    monkeypatch.delenv("WINNOW_PROGRAM", raising=False)
    yield run_log.begin
    run_log.close()


def lines(path):
    found = [re.fullmatch(r"(\S+) (.*)", line).groups() for line in path.read_text().splitlines()]
    now = datetime.now().astimezone()
    assert all(now - datetime.fromisoformat(time) < timedelta(minutes=5) for time, _ in found)
    return [text for _, text in found[1:] if found[0][1].endswith(" started")]


def test_it_has_what_the_terminal_showed(begin, tmp_path, capsys):
    begin()
    print("before", "the folder", sep="\n")
    sys.stderr.write("half ")
    print("of another stream")
    sys.stderr.write("a line\n")
    sys.stderr.write("\r\x1b[K1 of 9")
    sys.stderr.write("\r\x1b[K2 of 9")
    run_log.write_to(str(tmp_path))
    assert sys.stdout.isatty() is False
    said = ["before", "the folder", "of another stream", "half a line"]
    assert lines(tmp_path / "run.log") == said
    sys.stderr.write("\r\x1b[Kwarning: x\n")
    print("done")
    assert lines(tmp_path / "run.log") == [*said, "warning: x", "done"]
    assert "abc" not in (tmp_path / "run.log").read_text()
    shown = capsys.readouterr()
    assert shown.out == "before\nthe folder\nof another stream\ndone\n"
    assert shown.err.startswith("half a line\n\r\x1b[K1 of 9")


def test_a_second_start_adds_to_it(begin, tmp_path):
    begin()
    run_log.write_to(str(tmp_path))
    print("one")
    run_log.close()
    begin()
    print("two")
    run_log.write_to(str(tmp_path))
    text = (tmp_path / "run.log").read_text()
    assert [line.split(" ", 1)[1] for line in text.splitlines()] == [
        "winnow/run started",
        "one",
        "winnow/run started",
        "two",
    ]


def test_in_an_object_store_it_is_written_at_the_end(begin, monkeypatch):
    begin()
    there = {"gs://b/out/run.log": b"earlier\n"}
    monkeypatch.setattr(storage, "exists", there.__contains__)
    monkeypatch.setattr(storage, "read_bytes", there.__getitem__)
    monkeypatch.setattr(storage, "write_bytes", there.__setitem__)
    run_log.write_to("gs://b/out")
    print("said")
    run_log.close()
    first, *rest = there["gs://b/out/run.log"].decode().splitlines()
    assert first == "earlier"
    assert [line.split(" ", 1)[1] for line in rest] == ["winnow/run started", "said"]


def test_a_full_disk_ends_the_log_and_nothing_else(begin, tmp_path, capsys):
    begin()
    run_log.write_to(str(tmp_path))
    file = run_log._log._file

    def full(_):
        raise OSError(28, "No space left on device")

    run_log._log._file = type("Full", (), {"writelines": staticmethod(full)})()
    print("said all the same")
    file.close()
    assert "said all the same" in capsys.readouterr().out
    print("and so is this")
    run_log.close()
