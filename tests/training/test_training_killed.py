"""Training in an object store through a kill and faults: a real command, a real SIGKILL."""

import os
import signal
import subprocess
from pathlib import Path

import pytest
import torch
import training_runs
from apache_beam.options.pipeline_options import PipelineOptions
from store_servers import Faulty, at_random, flags, serving

from model.training.checkpoints import trained
from winnow.filesystem import storage
from winnow.object_stores import lease, object_store, store_s3

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


def weights(folder):
    return trained.load(str(folder), torch.device("cpu"), torch.float32).model.state_dict()


def test_killed_between_a_checkpoint_and_its_manifest(quick_python, tmp_path, monkeypatch):
    """The bucket has the checkpoint before; a machine with an empty disk goes on bit for bit."""
    corpus = training_runs.corpus_folder(tmp_path)
    training_runs.train(corpus, tmp_path / "whole")
    monkeypatch.setattr(lease, "PATIENCE", 2.0)
    monkeypatch.setattr(store_s3, "WAITS", (0.05, 0.1, 0.2, 0.2, 0.2, 0.2))
    run, killed, child = "s3://bucket/run", [], None

    def reach(port):
        object_store.configure(PipelineOptions(flags("s3", port, monkeypatch.setenv)))

    def fault(number, method, path):
        if method == "PUT" and path.endswith("step_000000008/manifest.json"):
            killed.append(path)
            os.kill(child.pid, signal.SIGKILL)
        return "refused" if killed else None

    with serving("s3") as port:
        reach(port)
        for path in corpus.rglob("*"):
            if path.is_file():
                name = path.relative_to(corpus)
                storage.write_bytes(f"s3://bucket/corpus/{name}", path.read_bytes())
        monkeypatch.setenv("WINNOW_CACHE", str(tmp_path / "first"))
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        monkeypatch.setenv("GLIBC_TUNABLES", "")
        asked = ["data.corpus=s3://bucket/corpus", "data.arm=unfiltered", f"output={run}"]
        command = [quick_python, "model/train.py", *training_runs.TINY, *asked]
        with Faulty(port, fault) as proxy:
            reach(proxy.port)
            child = subprocess.Popen(command, cwd=ROOT)
            assert child.wait() == -signal.SIGKILL
        reach(port)
        there = set(storage.tree(run))
        assert "checkpoints/step_000000006/manifest.json" in there
        assert "checkpoints/step_000000008/.metadata" in there
        assert "checkpoints/step_000000008/manifest.json" not in there
        monkeypatch.setenv("WINNOW_CACHE", str(tmp_path / "second"))
        assert weights(run)
        with Faulty(port, at_random(3, 0.1)) as proxy:
            reach(proxy.port)
            training_runs.train("s3://bucket/corpus", run)
            assert sum(n for kind, n in proxy.done.items() if kind) > 3
        reach(port)
        with storage.local_copy(run) as folder:
            copy = Path(folder)
            assert training_runs.rows(copy) == training_runs.rows(tmp_path / "whole")
            heldout = (copy / "heldout.arrow").read_bytes()
            assert heldout == (tmp_path / "whole" / "heldout.arrow").read_bytes()
            ours, wanted = weights(copy), weights(tmp_path / "whole")
    assert all(torch.equal(ours[name], value) for name, value in wanted.items())
