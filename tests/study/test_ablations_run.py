"""Whole sweeps of toy models: skipped when complete, run again when failed, each on its own."""

import csv
import fcntl
import functools
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from tokens_scored import documents, make_corpus

from ablations.reading import read_study
from ablations.study import execute, job_process
from winnow.filesystem import storage

pytestmark = pytest.mark.slow

ROOT = Path(job_process.ROOT)


@pytest.fixture(scope="module")
def run(quick_python):
    return functools.partial(_run, quick_python)


def _run(python, corpus, output, *overrides):
    """The command as people give it, in an empty folder."""
    output.parent.mkdir(exist_ok=True, parents=True)
    toy = ["jobs_at_once=1", "train.tokens=512", "train.batch_rows=4", "evaluate.every=2"]
    toy.append("data.sequence_length=32")
    fixed = ["experiment=smoke", f"corpus={corpus.folder}", f"output={output}", *toy]
    return subprocess.run(
        [python, str(ROOT / "ablations" / "run.py"), *fixed, *overrides],
        capture_output=True,
        text=True,
        cwd=output.parent,
        env=os.environ | {"PYTHONPATH": str(ROOT), "GLIBC_TUNABLES": ""},
        check=False,
    )


def bits(study):
    return {key: run.heldout["bits"].to_pylist() for key, run in study.runs.items()}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("run"), [documents(400, seed=0)])


@pytest.fixture(scope="module")
def whole(run, corpus, tmp_path_factory):
    """A finished sweep of two arms and two seeds."""
    output = tmp_path_factory.mktemp("whole") / "study"
    ended = run(corpus, output, "jobs_at_once=2")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return output, ended


def test_a_sweep_ends_with_a_verdict_and_a_page(whole):
    output, ended = whole
    study = read_study(str(output))
    assert len(study.runs) == 4
    assert not study.failed
    found = json.loads((output / "comparison" / "comparison.json").read_bytes())
    primary = found["primary"]
    values = {
        arm: [
            np.mean([study.runs[arm, "", seed].result.heldout[s] for s in ("web", "wiki")])
            for seed in (1, 2)
        ]
        for arm in ("filtered", "unfiltered")
    }
    differences = np.subtract(values["filtered"], values["unfiltered"])
    assert primary["value"] == pytest.approx(differences.mean(), abs=1e-12)
    assert primary["seed_error"] == pytest.approx(differences.std(ddof=1) / np.sqrt(2), abs=1e-12)
    # Two seeds of toys are nothing to claim equivalence from, whatever the processor makes of them.
    assert found["verdict"]["outcome"] in ("better", "worse", "underpowered")
    assert primary["endpoint"] == "heldout/all"
    assert {run.result.model for run in study.runs.values()} == {"2 layers of width 32, 4 experts"}
    assert found["verdict"]["sentence"] in " ".join(ended.stdout.split())
    assert (output / "report.html").stat().st_size > 10_000
    assert sorted(p.name for p in output.parent.iterdir()) == ["study"]  # no litter
    assert not (output / ".lock").exists()


def test_results_say_what_was_spent_scoring_included(whole, corpus):
    runs = read_study(str(whole[0])).runs
    filtered, unfiltered = (runs[arm, "", 1].result for arm in ("filtered", "unfiltered"))
    scored = corpus.bytes[corpus.pool & corpus.filterable].sum()
    assert filtered.flops - unfiltered.flops == pytest.approx(execute.SCORING_FLOPS * scored)
    assert runs["filtered", "", 1].curve.flops[-1] == pytest.approx(filtered.flops)
    assert filtered.tokens == 512
    assert filtered.kwh == pytest.approx(filtered.wall_seconds * 15 / 3.6e6)
    assert filtered.config_hash == runs["filtered", "", 2].result.config_hash
    assert filtered.config_hash != unfiltered.config_hash


def test_junk_are_held_out_documents_of_low_score(whole, corpus):
    heldout = read_study(str(whole[0])).runs["filtered", "", 1].heldout.to_pydict()
    keys = zip(heldout["source"], heldout["document"], strict=True)
    bits_of = dict(zip(keys, heldout["bits"], strict=True))
    junk = {d: b for (source, d), b in bits_of.items() if source == "junk_of_web"}
    web = {d: b for (source, d), b in bits_of.items() if source == "web"}
    assert 0 < len(junk) < len(web) / 2
    assert all(web[document] == value for document, value in junk.items())
    everything = corpus.ids(np.arange(len(corpus)))
    score = dict(zip(everything, corpus.column("quality_score").tolist(), strict=True))
    assert max(score[d] for d in junk) < min(score[d] for d in web.keys() - junk.keys())


def test_again_nothing_is_run_what_failed_is_and_a_failure_is_recorded(run, whole, corpus):
    output, _ = whole
    before = bits(read_study(str(output)))
    failing, kept = output / "filtered" / "seed_2", output / "unfiltered" / "seed_1" / "result.json"
    (failing / "result.json").unlink()
    checkpoints = failing / "training" / "checkpoints"
    for manifest in checkpoints.glob("*/manifest.json"):
        manifest.write_text("{}")
    stamp = kept.stat().st_mtime_ns
    broken = run(corpus, output)
    assert broken.returncode == 1
    assert "FAILED filtered seed 2: model/train.py failed: every checkpoint in" in broken.stderr
    record = json.loads((failing / "failure.json").read_bytes())
    assert "every checkpoint in" in record["traceback"]
    assert read_study(str(output)).failed.keys() == {("filtered", "", 2)}

    for path in checkpoints.glob("*"):
        for file in [*path.iterdir()]:
            file.unlink()
        path.rmdir()
    (failing / "training" / "outcome.json").unlink()
    mended = run(corpus, output)
    assert mended.returncode == 0, mended.stdout + mended.stderr
    assert not (failing / "failure.json").exists()
    assert kept.stat().st_mtime_ns == stamp
    # Trained alone, a job comes to the same bits as in company.
    assert bits(read_study(str(output))) == before


def test_other_settings_are_refused_before_anything_runs(run, whole, corpus):
    output, _ = whole
    refused = run(corpus, output, "model.experts=8")
    assert refused.returncode == 1
    assert "model.experts: 4 then, 8 now" in refused.stderr
    assert "choose another output" in refused.stderr
    assert len(read_study(str(output)).runs) == 4


def test_what_a_job_says_of_its_electricity_reaches_the_page_and_survives_a_second_run(
    run, whole, corpus
):
    output, _ = whole
    shutil.rmtree(output / "filtered" / "seed_1")
    stamp = (output / "unfiltered" / "seed_1" / "result.json").stat().st_mtime_ns
    # Recomputing changes no weight, so that the other jobs stay complete.
    first = run(corpus, output, "hardware.co2e_kg_per_kwh=0.1", "train.recompute=true")
    assert first.returncode == 0, first.stdout + first.stderr
    figure = (output / "figures" / "costs.csv").read_bytes()
    result = read_study(str(output)).runs["filtered", "", 1].result
    other = read_study(str(output)).runs["filtered", "", 2].result
    costs = list(csv.DictReader(io.StringIO(figure.decode())))
    (carbon,) = [float(row["co2e_kg_sum"]) for row in costs if row["arm"] == "filtered"]
    assert carbon == pytest.approx(0.1 * result.kwh + 0.445 * other.kwh)
    assert run(corpus, output).returncode == 0
    assert (output / "figures" / "costs.csv").read_bytes() == figure
    assert (output / "unfiltered" / "seed_1" / "result.json").stat().st_mtime_ns == stamp


def test_two_runs_of_a_study_at_once_are_refused(run, whole, corpus):
    with storage.lock(str(whole[0])):
        refused = run(corpus, whole[0])
    assert refused.returncode == 1
    assert "another run is writing" in refused.stderr


def test_a_process_that_outlived_its_run_is_not_disturbed(tmp_path):
    log = tmp_path / "training.log"
    script = "import time; print('up', flush=True); time.sleep(60)"
    with open(log, "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        orphan = subprocess.Popen([sys.executable, "-c", script], stdout=file)
    try:
        with pytest.raises(ValueError, match="of an earlier run that was killed"):
            job_process.run_python("model/train.py", ["--help"], str(log), 1)
    finally:
        orphan.kill()
        orphan.wait()


def test_a_failed_process_is_quoted(tmp_path):
    with pytest.raises(
        job_process.JobFailedError, match=r"model/train\.py failed: data\.arm"
    ) as failed:
        job_process.run_python("model/train.py", [], str(tmp_path / "a.log"), 1)
    assert "missing" in failed.value.log


def test_a_setting_that_is_not_there_is_refused_by_the_commands_beside_a_study(
    quick_python, corpus
):
    for script, *settings in (
        ("near_duplicates.py", f"corpus={corpus.folder}", "+treshold=0.9"),
        ("contamination.py", f"corpus={corpus.folder}", "output=a", "+runz.filtered=a"),
        ("evaluate.py", f"run={corpus.folder}", "+shotz=1"),
    ):
        command = [quick_python, str(ROOT / "ablations" / script), *settings]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        assert ended.returncode == 2
        assert ended.stderr.startswith(f"ablations/{script}: error: there is no setting")


def test_paths_survive_hydras_command_line():
    parser = OverridesParser.create()
    for value in ["a=b@c/seed_1", "it's", "back\\slash", "end\\", "a,b", ["x", "y z"], None, 3]:
        assert parser.parse_override(f"key={execute._quote(value)}").value() == value
