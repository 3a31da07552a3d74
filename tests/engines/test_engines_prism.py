"""Beam's Prism, an engine in another process. `make engines` builds it."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from corpora import fingerprints
from engines_services import ROOT, RULES, ended, start_run, started, worker_pool

from pipeline.beam import engine

BUILT = ROOT / "cache" / "engines" / "prism"
PRISM = str(BUILT) if BUILT.exists() else shutil.which("prism")
NEEDS_PRISM = pytest.mark.skipif(PRISM is None, reason="prism is not here: make engines builds it")


def children(process):
    """The Prisms that a run has started and not ended."""
    command = ["pgrep", "-P", str(process.pid), "-x", "prism"]
    found = subprocess.run(command, capture_output=True, text=True)
    return [int(child) for child in found.stdout.split()]


@NEEDS_PRISM
@pytest.mark.slow
@pytest.mark.parametrize("rule", RULES)
def test_prism_writes_what_the_direct_runner_does(inputs, direct, tmp_path, rule):
    prism = ["--runner=PrismRunner", f"--prism_location={PRISM}"]
    run = start_run(*inputs, *RULES[rule], *prism, f"--output={tmp_path}/a")
    code, output, errors = ended(run)
    assert code == 0, errors
    assert "engine: PrismRunner\n" in output
    assert errors == ""
    assert fingerprints(tmp_path / "a") == direct[rule]


@NEEDS_PRISM
@pytest.mark.slow
def test_a_worker_of_a_pool_does_the_work_for_prism(inputs, direct, tmp_path):
    log = tmp_path / "log.txt"
    with worker_pool(log) as pool:
        flags = ["--runner=PrismRunner", f"--prism_location={PRISM}", "--environment_type=EXTERNAL"]
        flags += [*RULES["known"], f"--environment_config={pool}", f"--output={tmp_path}/a"]
        code, _, errors = ended(start_run(*inputs, *flags))
        assert code == 0, errors
    assert started(log) == 1
    assert fingerprints(tmp_path / "a") == direct["known"]


@NEEDS_PRISM
@pytest.mark.slow
def test_a_run_whose_prism_is_killed_is_resumed_elsewhere(inputs, direct, tmp_path):
    flags = [*RULES["solved"], f"--output={tmp_path}/a"]
    one = start_run(*inputs, *flags, "--runner=PrismRunner", f"--prism_location={PRISM}")
    while one.poll() is None and not list(Path(tmp_path / "a").glob("shards/*")):
        time.sleep(0.01)
    for child in children(one):
        os.kill(child, signal.SIGKILL)
    code, _, errors = ended(one)
    if code:  # it may have been done by then
        assert code == 1
        assert errors.splitlines()[-1].endswith("Start the run again with --resume")
        assert "Traceback" not in errors
    assert ended(start_run(*inputs, *flags, "--resume"))[0] == 0
    assert fingerprints(tmp_path / "a") == direct["solved"]


def test_without_prism_a_run_says_how_to_get_it(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ValueError, match=r"needs Beam's prism.*go install .*/prism@v\d"):
        engine.options(["--runner=PrismRunner"])


def test_the_engine_is_named():
    prism = ["--runner=PrismRunner", "--prism_location=/p"]
    assert engine.name(engine.options(prism)) == "PrismRunner"
    assert engine.name(engine.options(["--direct_num_workers=1"])) == (
        "DirectRunner (Beam's FnApiRunner), 1 thread"
    )
    two = ["--direct_num_workers=2", "--direct_running_mode=multi_processing"]
    assert engine.name(engine.options(two)) == "DirectRunner (Beam's FnApiRunner), 2 processes"
