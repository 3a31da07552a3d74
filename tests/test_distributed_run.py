"""``model/train.py`` under ``torchrun``: as one process, and one goes on where two stopped."""

import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from training_runs import TINY, corpus_folder, rows, train

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
INDEPENDENT = "model.group_rows=1"  # of how rows are spread


def torchrun(corpus, output, *overrides):
    arguments = [f"data.corpus={corpus}", f"output={output}", "data.arm=unfiltered", *overrides]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    return subprocess.run(
        [*command, "model/train.py", *TINY, INDEPENDENT, *arguments],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
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


def test_two_and_then_one(corpus, tmp_path):
    alone, output = tmp_path / "alone", tmp_path / "several"
    expected = train(corpus, alone, INDEPENDENT)
    halfway = torchrun(corpus, output, "train.tokens=256")
    assert halfway.returncode == 0, halfway.stderr
    assert halfway.stdout.count("steps skipped") == 1
    found = train(corpus, output, INDEPENDENT)

    assert_alike(rows(output), rows(alone))
    bits = [pa.ipc.open_file(folder / "heldout.arrow").read_all() for folder in (output, alone)]
    assert bits[0]["document"] == bits[1]["document"]
    assert_alike(bits[0]["bits"].to_pylist(), bits[1]["bits"].to_pylist())
    assert found.steps == expected.steps
    assert_alike(found.heldout, expected.heldout)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_gpus(corpus, tmp_path):
    """With NCCL, in bfloat16, the losses of one CPU."""
    expected = train(corpus, tmp_path / "alone", INDEPENDENT)
    done = torchrun(corpus, tmp_path / "several", "train.device=cuda", "train.precision=bf16")
    assert done.returncode == 0, done.stderr
    losses = [[row["loss"] for row in rows(tmp_path / name)] for name in ("several", "alone")]
    assert losses[0] == pytest.approx(losses[1], rel=0.03)
    assert len(losses[0]) == expected.steps


def test_what_cannot_be_shared_is_said(corpus, tmp_path):
    done = torchrun(corpus, tmp_path / "out", "train.batch_rows=3")
    assert done.returncode != 0
    assert "a batch of 3 rows cannot be shared by 2" in done.stderr
