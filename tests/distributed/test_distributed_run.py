"""``model/train.py`` under ``torchrun``: as one process, and one goes on where two stopped."""

import functools
import os
import signal
import subprocess
import time
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from training_runs import TINY, corpus_folder, rows, train

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
INDEPENDENT = "model.group_rows=1"  # of how rows are spread


@pytest.fixture
def torchrun(quick_python, corpus):
    return functools.partial(_torchrun, quick_python, corpus)


def _torchrun(python, corpus, output, *overrides):
    arguments = [f"data.corpus={corpus}", f"output={output}", "data.arm=unfiltered", *overrides]
    command = [python, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    return subprocess.Popen(
        [*command, "model/train.py", *TINY, INDEPENDENT, *arguments],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "GLIBC_TUNABLES": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return corpus_folder(tmp_path_factory.mktemp("corpus"))


def assert_alike(value, expected):
    if isinstance(expected, dict):
        assert value.keys() == expected.keys()
        value, expected = value.values(), expected.values()
    if not isinstance(expected, int | float):
        for pair in zip(value, expected, strict=True):
            assert_alike(*pair)
    else:
        assert value == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_two_and_then_one(torchrun, corpus, tmp_path):
    """Two, of which each has a part of every layer, get a SIGTERM, end at one step and save it; one
    goes on from there.
    """
    alone, output = tmp_path / "alone", tmp_path / "several"
    never = ["checkpoint.every=1_000_000", "evaluate.every=0", "log.expert_load_every=1"]
    parts = "train.tensor_parallel=2"
    halfway = torchrun(output, "train.tokens=64_000_000", parts, *never)
    log = output / "metrics.jsonl"
    while halfway.poll() is None and not (log.exists() and log.stat().st_size):
        time.sleep(0.01)
    halfway.send_signal(signal.SIGTERM)
    _, said = halfway.communicate()
    assert "interrupted: the same command resumes" in said
    done = rows(output)[-1]["step"]
    assert os.listdir(output / "checkpoints") == [f"step_{done:09d}"]

    tokens = f"train.tokens={64 * (done + 4)}"
    found = train(corpus, output, INDEPENDENT, tokens, *never)
    expected = train(corpus, alone, INDEPENDENT, tokens, *never)
    assert_alike(rows(output), rows(alone))
    bits = [pa.ipc.open_file(folder / "heldout.arrow").read_all() for folder in (output, alone)]
    assert bits[0]["document"] == bits[1]["document"]
    assert_alike(bits[0]["bits"].to_pylist(), bits[1]["bits"].to_pylist())
    assert found.steps == expected.steps
    assert_alike(found.heldout, expected.heldout)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_gpus(torchrun, corpus, tmp_path):
    """With NCCL, in bfloat16, the losses of one CPU."""
    expected = train(corpus, tmp_path / "alone", INDEPENDENT)
    done = torchrun(tmp_path / "several", "train.device=cuda", "train.precision=bf16")
    _, said = done.communicate()
    assert done.returncode == 0, said
    losses = [[row["loss"] for row in rows(tmp_path / name)] for name in ("several", "alone")]
    assert losses[0] == pytest.approx(losses[1], rel=0.03)
    assert len(losses[0]) == expected.steps


def test_what_cannot_be_shared_is_said(torchrun, tmp_path):
    done = torchrun(tmp_path / "out", "train.batch_rows=3")
    _, said = done.communicate()
    assert done.returncode != 0
    assert "a batch of 3 rows cannot be shared by 2" in said
