"""The GPU command, rehearsed on a CPU: every line of it but those for CUDA."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from gpu_parts.bench import Bench  # noqa: E402


@pytest.mark.slow
def test_all_of_it_runs_and_its_checks_hold(tmp_path):
    command = [sys.executable, "benchmarks/gpu.py", "--device", "cpu", "--tiny", "--out", tmp_path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    results = json.loads((tmp_path / "gpu.json").read_text())
    assert all(check["good"] for check in results["checks"].values())
    assert len(results["checks"]) >= 98
    assert {"errors", "left_out"}.isdisjoint(results)
    assert {"Mixtral, eager", "OLMoE, grouped_mm", "100m_16e", "0.1B/64E"} <= set(results["speed"])
    for row in results["speed"].values():
        assert row["learn_ms"] > 0
        assert 0 < row["of the peak"] < row["of a product"]
    assert f"{len(results['checks'])} of {len(results['checks'])} checks passed" in done.stdout
    assert "| Mixtral, eager |" in done.stdout


def test_what_fails_is_written_down_and_the_next_begins(capsys):
    bench = Bench(torch.device("cpu"), tiny=True, seconds=0.0)
    bench.attempt("broken", lambda: 1 / 0)
    bench.check("not a number", math.nan, 1.0)
    bench.check("on its bound", 1.0, 1.0)
    assert "ZeroDivisionError" in bench.results["errors"]["broken"]
    assert [check["good"] for check in bench.results["checks"].values()] == [False, True]
    assert bench.over
    assert "FAIL not a number" in capsys.readouterr().out
