"""A sweep through stand-ins for Slurm's commands, compared with a sweep without Slurm.

    python tests/engines/slurm_run.py

``sbatch`` runs its script once per job of the array, ``srun`` starts two tasks, as on a node with
two devices. The rest, from Hydra's launcher to the process group of the two, is real. Each job's
losses and answers are compared.
"""

import json
import math
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.extend(
    str(Path(__file__).resolve().parents[2] / folder) for folder in ("", "tests", "tests/helpers")
)
from sharded_asking import write_tasks
from tokens_scored import documents, make_corpus

from ablations.study_files.results import TASKS_FILE
from winnow.filesystem import tables

ROOT = Path(__file__).resolve().parents[2]
TASKS = 2


def sbatch(folder: Path, script: str) -> None:
    """Run the jobs of the array, one after the other; write their states for ``sacct``."""
    first, last = map(int, re.search(r"--array=(\d+)-(\d+)", Path(script).read_text()).groups())
    states = folder / "states"
    states.write_text("".join(f"1_{i}|RUNNING|localhost\n" for i in range(first, last + 1)))
    print("Submitted batch job 1", flush=True)
    if os.fork():
        return
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(null, stream)
    for i in range(first, last + 1):
        env = os.environ | {
            "SLURM_JOB_ID": str(100 + i),
            "SLURM_ARRAY_JOB_ID": "1",
            "SLURM_ARRAY_TASK_ID": str(i),
            "SLURM_NTASKS": str(TASKS),
            "SLURM_JOB_NUM_NODES": "1",
            "SLURM_JOB_NODELIST": "localhost",
            "SLURM_NODEID": "0",
        }
        code = subprocess.run(["bash", script], env=env, check=False).returncode
        state = "FAILED" if code else "COMPLETED"
        states.write_text(states.read_text().replace(f"1_{i}|RUNNING", f"1_{i}|{state}"))
    os._exit(0)


def srun(*arguments: str) -> int:
    """Start the tasks of a job; the largest of their exit codes."""
    command = list(arguments)
    names = {}
    while command[0].startswith("--"):
        flag = command.pop(0)
        if flag in ("--output", "--error"):
            names[flag] = command.pop(0)
    tasks = []
    for i in range(TASKS):
        array = os.environ["SLURM_ARRAY_TASK_ID"]
        paths = [
            name.replace("%A", "1").replace("%a", array).replace("%t", str(i))
            for name in names.values()
        ]
        Path(paths[0]).parent.mkdir(exist_ok=True)  # made a moment after sbatch ends
        out, err = (open(path, "a") for path in paths)  # noqa: SIM115
        env = os.environ | {"SLURM_PROCID": str(i), "SLURM_LOCALID": str(i)}
        tasks.append(subprocess.Popen(command, env=env, stdout=out, stderr=err))
    return max(task.wait() for task in tasks)


def losses(study: Path) -> dict[str, list[float]]:
    """The training losses of every job."""
    return {
        str(path.relative_to(study)): [json.loads(line)["loss"] for line in path.open()]
        for path in sorted(study.glob("*/seed_*/metrics.jsonl"))
    }


def scores(study: Path) -> list[dict]:
    """The scores of all jobs, item by item."""
    paths = sorted(study.glob(f"*/seed_*/{TASKS_FILE}"))
    return [row for path in paths for row in tables.read(str(path)).to_pylist()]


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for command in ("sbatch", "srun", "sacct", "scontrol"):
            path = folder / "bin" / command
            path.parent.mkdir(exist_ok=True)
            program = f"{sys.executable} {__file__} {folder} {command}"
            path.write_text(f'#!/bin/sh\nexec {program} "$@"\n')
            path.chmod(0o755)
        corpus = make_corpus(folder / "corpus", [documents(400, seed=0)])
        common = ["experiment=smoke", f"corpus={corpus.folder}", "train.tokens=1024"]
        common += ["train.batch_rows=4", "data.sequence_length=64", "model.group_rows=1", "seed=1"]
        # Two tasks sum in another order than one, which bfloat16 turns into 2e-4.
        common += ["train.precision=fp32"]
        write_tasks(folder)
        common += ["tasks.names=[piqa,natural_questions]", f"tasks.local={folder}"]
        common += ["tasks.places=[local]", "tasks.shots=[0,1]"]
        slurm = ["hydra/launcher=submitit_slurm", f"hydra.launcher.tasks_per_node={TASKS}"]
        env = os.environ | {
            "PATH": f"{folder}/bin{os.pathsep}{os.environ['PATH']}",
            "OMP_NUM_THREADS": "1",
            "GLOO_SOCKET_IFNAME": "lo",
        }
        for study, more in {"slurm": slurm, "alone": []}.items():
            command = [
                sys.executable,
                "ablations/run.py",
                *common,
                f"output={folder}/{study}",
                *more,
            ]
            subprocess.run(command, cwd=ROOT, env=env, check=True)
        found, alone = losses(folder / "slurm"), losses(folder / "alone")
        assert found.keys() == alone.keys()
        assert len(alone) == 2
        worst = max(
            abs(a / b - 1) for job in alone for a, b in zip(found[job], alone[job], strict=True)
        )
        rows = list(zip(scores(folder / "slurm"), scores(folder / "alone"), strict=True))
        for row, other in rows:
            values = row.pop("numerator"), other.pop("numerator")
            assert row == other
            assert math.isclose(*values, rel_tol=1e-4, abs_tol=1e-6), (row, values)
        print(f"{len(rows)} scores of tasks agree")
        print(f"{len(alone)} jobs of {TASKS} tasks each; losses differ by at most {worst:.1e}")


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    elif sys.argv[2] == "sbatch":
        sbatch(Path(sys.argv[1]), sys.argv[3])
    elif sys.argv[2] == "srun":
        sys.exit(srun(*sys.argv[3:]))
    elif sys.argv[2] == "sacct":
        print("JobID|State|NodeList\n" + (Path(sys.argv[1]) / "states").read_text(), end="")
    elif sys.argv[2] == "scontrol":
        print("localhost")
