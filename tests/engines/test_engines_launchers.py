"""Training and sweeps off one machine: ``torchrun`` on two nodes, and what Slurm is asked for."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from submitit.core.utils import FailedJobError
from training_runs import TINY, corpus_folder, rows, train

from ablations import run
from winnow.defaults import CONF

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


def launch(python: Path, node: int, port: int, *overrides: str) -> subprocess.Popen:
    """The launcher of one node with one process; each node has another loopback address."""
    command = [
        *(python, "-m", "torch.distributed.run"),
        *("--nnodes=2", "--nproc-per-node=1", f"--node-rank={node}", "--rdzv-id=winnow"),
        *("--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{port}"),
        *(f"--local-addr=127.0.0.{node + 1}", f"--rdzv-conf=is_host={int(node == 0)}"),
        *("model/train.py", *overrides),
    ]
    own = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GLIBC_TUNABLES": ""}
    own |= {"GLOO_SOCKET_IFNAME": "lo"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=ROOT, env=os.environ | own, **pipes)


def test_two_launchers_that_meet_over_tcp_train_as_one_process(quick_python, tmp_path):
    corpus = corpus_folder(tmp_path)
    independent = "model.group_rows=1"  # of how rows are spread
    expected = train(corpus, tmp_path / "alone", independent)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    output = tmp_path / "nodes"
    paths = [f"data.corpus={corpus}", f"output={output}", "data.arm=unfiltered"]
    nodes = [launch(quick_python, node, port, *TINY, independent, *paths) for node in range(2)]
    ends = [node.communicate(timeout=300) for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], ends
    assert ["steps skipped" in printed for printed, _ in ends] == [True, False]

    assert len(rows(output)) == len(rows(tmp_path / "alone"))
    for row, alone in zip(rows(output), rows(tmp_path / "alone"), strict=True):
        assert row["step"] == alone["step"]
        assert row["loss"] == pytest.approx(alone["loss"], rel=1e-5)
    found, alone = (
        pa.ipc.open_file(folder / "heldout.arrow").read_all()["bits"].to_pylist()
        for folder in (output, tmp_path / "alone")
    )
    assert found == pytest.approx(alone, rel=1e-5)
    assert expected.steps == rows(output)[-1]["step"]


@pytest.mark.parametrize(
    ("scale", "launcher", "kind"),
    [
        ("cpu", "cores", "JoblibLauncher"),
        ("gpu", "cores", "JoblibLauncher"),
        ("cpu", "submitit_slurm", "SlurmLauncher"),
        ("gpu", "submitit_slurm", "SlurmLauncher"),
        ("paper", "submitit_slurm", "SlurmLauncher"),
    ],
)
def test_a_sweep_of_any_scale_can_be_given_to_slurm(scale, launcher, kind):
    overrides = [f"scale={scale}", f"hydra/launcher={launcher}", "jobs_at_once=3"]
    with initialize_config_dir(CONF, version_base="1.3"):
        found = compose("ablation", overrides, return_hydra_config=True).hydra.launcher
    assert found._target_.endswith(f".{kind}")
    assert found.get("n_jobs") == (3 if launcher == "cores" else None)


def test_the_script_for_slurm_asks_for_the_machines_of_the_paper(tmp_path, monkeypatch):
    """As Hydra's launcher makes it, caught by a ``sbatch`` that refuses every job."""
    script = tmp_path / "script.sh"
    (tmp_path / "sbatch").write_text(f'#!/bin/sh\ncp "$1" {script}\nexit 1\n')
    (tmp_path / "srun").write_text("#!/bin/sh\n")
    for name in ("sbatch", "srun"):
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with initialize_config_dir(CONF, version_base="1.3"):
        overrides = ["experiment=data_quality", "scale=paper", "corpus=corpus"]
        overrides += ["hydra.launcher.partition=gpus", "hydra.launcher.account=us"]
        overrides += [f"hydra.sweep.dir={tmp_path}/sweep"]
        config = compose("ablation", overrides, return_hydra_config=True)
        launcher = instantiate(config.hydra.launcher)
        launcher.setup(hydra_context=None, task_function=run.main, config=config)
        with pytest.raises(FailedJobError):
            launcher.launch([[f"seed={seed}"] for seed in range(12)], initial_job_idx=0)

    text = script.read_text()
    asked = dict(re.findall(r"^#SBATCH --([\w-]+)=(.*)$", text, re.MULTILINE))
    assert {
        "nodes": "8",
        "ntasks-per-node": "8",
        "gpus-per-node": "8",
        "cpus-per-task": "12",
        "partition": "gpus",
        "account": "us",
        "time": "2880",
        "array": "0-11%4",
        "open-mode": "append",  # a requeued job continues its log
    }.items() <= asked.items()
    assert re.match(r"USR\d@\d+", asked["signal"])  # a signal before the time is over
    (command,) = (line for line in text.splitlines() if line.startswith("srun"))
    assert f"{sys.executable} -u -m submitit.core._submit {tmp_path}/sweep" in command
    subprocess.run(["bash", "-n", str(script)], check=True)
