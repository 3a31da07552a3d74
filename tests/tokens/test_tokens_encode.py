"""Processes that encode shards: one dies, their parent is killed, the disk is full."""

import multiprocessing
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from tokens_scored import documents, make_corpus, settings, write_scored

from model.data import encode, scored
from model.prepare import prepare

WORKERS = """
import os, sys, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from model.data import encode

if __name__ == "__main__":
    pool = ProcessPoolExecutor(
        1, mp_context=get_context("spawn"), initializer=encode._begin_worker, initargs=(1,)
    )
    print(pool.submit(os.getpid).result(), flush=True)
    time.sleep(600)
"""


def test_a_worker_that_dies_is_no_riddle(tmp_path):
    source = write_scored(tmp_path / "scored", [documents(20), documents(20, seed=1)])

    def kill():
        while not (workers := multiprocessing.active_children()):
            time.sleep(0.001)
        workers[0].kill()

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(ChildProcessError, match="with fewer workers"):
        prepare(settings(source, tmp_path / "other"))
    killer.join()
    assert prepare(settings(source, tmp_path / "other")).fingerprint


def test_workers_end_when_their_parent_is_killed(tmp_path):
    (tmp_path / "main.py").write_text(WORKERS)
    command = [sys.executable, str(tmp_path / "main.py")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        worker = Path("/proc") / process.stdout.readline().strip()
        assert worker.exists()
        process.kill()
    patience = time.monotonic() + 30
    while worker.exists() and "State:\tZ" not in (worker / "status").read_text():
        assert time.monotonic() < patience, "it waits for work that nobody will give"
        time.sleep(0.05)


def test_a_failed_shard_leaves_nothing_behind(tmp_path, monkeypatch):
    corpus = make_corpus(tmp_path, [documents(20)])
    shard = scored.open_scored(str(tmp_path / "scored")).shards[0]

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(encode, "encode_batch", full)
    with pytest.raises(OSError, match="No space left"):
        encode.encode_shard(shard, str(tmp_path / "out"), corpus.tokenizer_path, "<eos>")
    assert list((tmp_path / "out").iterdir()) == []
