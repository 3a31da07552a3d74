"""Flink and Spark as clusters of processes, from what ``make engines`` fetched.

A cluster has a master, workers that can be killed one by one, and Beam's job server before them.
All are on this machine's loopback; or, where there are others (:mod:`engines_machines`), each
worker is on one of its own, with a pool for its Python. Each process writes its log beside the
cluster's files.

A cluster that is ``quick`` saves CPU time at each job: Beam's archives are on its own class path,
so that its job server sends none (:file:`engines/Archives.java`), and its Python workers are forks
(:file:`engines/forking_pool.py`).
"""

import contextlib
import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engines_machines import Machine
from engines_services import POOL, ROOT, free_port, listens, path_to

FETCHED = ROOT / "cache" / "engines"
JAVA = shutil.which("java")
PROGRAMS = ROOT / "tests" / "engines"
START_SECONDS = 240
POOL_PORT = 50000
HERE = Machine()

# What Flink 1.19 and Spark 3.5 need of a Java newer than they are, as their own scripts have it.
_OPENS = [
    f"--add-{what}={module}/{package}=ALL-UNNAMED"
    for what, module, packages in (
        ("exports", "java.base", "sun.net.util"),
        ("exports", "java.rmi", "sun.rmi.registry"),
        (
            "opens",
            "java.base",
            "java.lang java.lang.invoke java.lang.reflect java.io java.net java.nio java.text"
            " java.time java.util java.util.concurrent java.util.concurrent.atomic"
            " java.util.concurrent.locks sun.nio.ch sun.nio.cs sun.security.action"
            " sun.util.calendar",
        ),
    )
    for package in packages.split()
]


def missing(engine: str) -> str | None:
    """Why a cluster of this engine cannot be started here; None if it can."""
    if JAVA is None:
        return "Java is not here"
    for part in ("distribution", "job_server"):
        if not (FETCHED / engine / part).is_dir():
            return f"{engine}'s {part.replace('_', ' ')} is not here: make engines fetches it"
    return None


@dataclass
class Cluster:
    """The processes of one cluster, by name, and the flags that send a run to it."""

    folder: Path
    flags: list[str] = field(default_factory=list)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    ask: Callable[[str], dict[str, Any]] = field(default=lambda _: {})
    commands: dict[str, list[str]] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=lambda: {"PATH": path_to(sys.executable)})

    def start(self, name: str, command: Sequence[str], machine: Machine = HERE) -> None:
        """Start a process that lives until it is killed, or the cluster ends."""
        self._start(name, machine.command(*command))

    def _start(self, name: str, command: list[str]) -> None:
        self.commands[name] = command
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env={**os.environ, **self.env},
                start_new_session=True,
            )

    def again(self, name: str) -> None:
        """Start a process once more that has ended."""
        self._start(name, self.commands[name])

    def kill(self, name: str) -> None:
        """``kill -9`` of a process and its children."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.processes[name].pid, signal.SIGKILL)
        self.processes[name].wait()

    def log(self, name: str) -> str:
        """What a process has written."""
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def until(self, ready: Callable[[], bool], what: str) -> None:
        """Wait until the cluster is ready; fail when one of its processes ends before."""
        deadline = time.monotonic() + START_SECONDS
        while not ready():
            for name, process in self.processes.items():
                assert process.poll() is None, f"{name} ended:\n{self.log(name)[-3000:]}"
            assert time.monotonic() < deadline, f"{what} is not ready after {START_SECONDS} s"
            time.sleep(0.2)


@contextlib.contextmanager
def _cluster(folder: Path) -> Iterator[Cluster]:
    folder.mkdir(parents=True, exist_ok=True)
    cluster = Cluster(folder)
    try:
        yield cluster
    finally:
        for name in cluster.processes:
            cluster.kill(name)


def _pools(cluster: Cluster, others: Sequence[Machine], quick: bool) -> None:
    """A pool on every other machine, all at the same port of its loopback."""
    pool = [str(PROGRAMS / "forking_pool.py")] if quick else ["-m", POOL]
    for number, machine in enumerate(others):
        command = [sys.executable, *pool, f"--service_port={POOL_PORT}"]
        cluster.start(f"pool_{number}", command, machine)
    if others:
        where = f"--environment_config=localhost:{POOL_PORT}"
        cluster.flags += ["--environment_type=EXTERNAL", where]


@contextlib.contextmanager
def flink(
    folder: Path,
    slots: int = 2,
    machines: Sequence[Machine] = (HERE,),
    more: Mapping[str, object] | None = None,
    quick: bool = False,
) -> Iterator[Cluster]:
    """A Flink session cluster: a job manager, task managers of so many slots, Beam's job server.

    Args:
        folder: for its files.
        slots: of each task manager.
        machines: the job manager's, then one for each task manager. There is one task manager if
            it is the only machine, and its pool is the caller's.
        more: further settings of Flink.
        quick: see above; not with a pool of the caller's.
    """
    with _cluster(folder) as cluster:
        port, jobs = free_port(), free_port()
        here, *others = machines
        settings = {
            "jobmanager.bind-host": "0.0.0.0",
            "jobmanager.rpc.address": here.address,
            "jobmanager.rpc.port": free_port(),
            "jobmanager.memory.process.size": "1200m",
            "taskmanager.numberOfTaskSlots": slots,
            "taskmanager.memory.process.size": "1728m",
            # A graph with near-duplicates needs more than the tenth that is Flink's default.
            "taskmanager.memory.network.fraction": 0.25,
            "rest.address": here.address,
            "rest.bind-address": here.address,
            "rest.port": port,
            "heartbeat.interval": 2000,
            "heartbeat.timeout": 20000,
            "io.tmp.dirs": str(folder),
            **(more or {}),
        }
        lines = "".join(f"{name}: {value}\n" for name, value in settings.items())
        (folder / "config.yaml").write_text(lines)
        configured = ["--configDir", str(folder)]
        java = [str(JAVA), *_OPENS, "-cp", _class_path(_archives("flink", quick))]
        runtime = "org.apache.flink.runtime"
        cluster.start(
            "job_manager",
            [*java, f"{runtime}.entrypoint.StandaloneSessionClusterEntrypoint", *configured],
        )
        memory, resources = _flink_memory(folder)
        for number, machine in enumerate(others or [here]):
            worker = [f"{runtime}.taskexecutor.TaskManagerRunner", *configured, *resources]
            for name in ("host", "bind-host"):
                worker += ["-D", f"taskmanager.{name}={machine.address}"]
            cluster.start(f"worker_{number}", [java[0], *memory, *java[1:], *worker], machine)
        cluster.ask = functools.partial(_ask, f"http://{here.address}:{port}")

        def registered() -> bool:
            return cluster.ask("overview").get("taskmanagers") == len(others or [here])

        cluster.until(registered, "Flink")
        driver = "org.apache.beam.runners.flink.FlinkJobServerDriver"
        _job_server(
            cluster, "flink", driver, [f"--flink-master={here.address}:{port}"], jobs, quick
        )
        cluster.flags = ["--runner=PortableRunner", f"--job_endpoint=localhost:{jobs}"]
        cluster.flags += [f"--parallelism={slots * len(others or [here])}"]
        _pools(cluster, others, quick)
        yield cluster


def _flink_memory(folder: Path) -> tuple[list[str], list[str]]:
    """Java's and Flink's settings of a task manager's memory, from Flink's own calculator."""
    place = FETCHED / "flink" / "distribution"
    found = subprocess.run(
        [
            str(JAVA),
            "-cp",
            f"{place}/bin/bash-java-utils.jar:{place}/lib/*",
            "org.apache.flink.runtime.util.bash.BashJavaUtils",
            "GET_TM_RESOURCE_PARAMS",
            "--configDir",
            str(folder),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    lines = re.findall(r"^BASH_JAVA_UTILS_EXEC_RESULT:(.*)$", found.stdout, re.MULTILINE)
    memory, resources = (line.split() for line in lines)
    return memory, resources


def _ask(address: str, what: str) -> dict[str, Any]:
    """What Flink's REST interface says; nothing while it does not answer."""
    with contextlib.suppress(OSError):
        with urllib.request.urlopen(f"{address}/{what}", timeout=5) as answer:
            return dict(json.load(answer))
    return {}


@contextlib.contextmanager
def spark(
    folder: Path,
    slots: int = 2,
    machines: Sequence[Machine] = (HERE,),
    more: Mapping[str, object] | None = None,
    quick: bool = False,
) -> Iterator[Cluster]:
    """A stand-alone Spark cluster: a master, workers of so many cores, Beam's job server.

    Arguments as for :func:`flink`.
    """
    with _cluster(folder) as cluster:
        port, jobs = free_port(), free_port()
        home = FETCHED / "spark" / "distribution"
        here, *others = machines
        cluster.env |= {"SPARK_HOME": str(home), "SPARK_SCALA_VERSION": "2.12"}
        deploy = "org.apache.spark.deploy"
        java = [str(JAVA), "-Xmx512m", *_OPENS, "-cp", f"{home}/jars/*"]
        master = ["--host", here.address, "--port", str(port), "--webui-port", "0"]
        cluster.start("master", [*java, f"{deploy}.master.Master", *master])
        for number, machine in enumerate(others or [here]):
            limits = ["--cores", str(slots), "--memory", "1g", "--work-dir", f"{folder}/{number}"]
            place = ["--host", machine.address, "--webui-port", "0"]
            own = ["env", f"SPARK_LOCAL_IP={machine.address}"]
            worker = [f"{deploy}.worker.Worker", *place, *limits, f"spark://{here.address}:{port}"]
            cluster.start(f"worker_{number}", [*own, *java, *worker], machine)

        def registered() -> bool:
            return cluster.log("master").count("Registering worker") == len(others or [here])

        cluster.until(registered, "Spark")
        driver = "org.apache.beam.runners.spark.SparkJobServerDriver"
        cluster.env["SPARK_LOCAL_IP"] = here.address
        # Else Spark waits 3 s for the machine that holds the list of tasks: one does everything.
        settings: dict[str, object] = {"spark.locality.wait": "0s", **(more or {})}
        if quick:
            settings["spark.executor.extraClassPath"] = f"{FETCHED}/spark/job_server/*"
        given = [f"-D{name}={value}" for name, value in settings.items()]
        where = [f"--spark-master-url=spark://{here.address}:{port}"]
        _job_server(cluster, "spark", driver, where, jobs, quick, given)
        cluster.flags = ["--runner=PortableRunner", f"--job_endpoint=localhost:{jobs}"]
        _pools(cluster, others, quick)
        yield cluster


def _archives(engine: str, with_beam: bool) -> list[str]:
    """Folders of an engine's archives, and of Beam's for it."""
    place = FETCHED / engine
    own = place / "distribution" / ("lib" if engine == "flink" else "jars")
    return [str(own), str(place / "job_server")] if with_beam else [str(own)]


def _class_path(folders: Sequence[str]) -> str:
    return ":".join(f"{folder}/*" for folder in folders)


def _job_server(
    cluster: Cluster,
    engine: str,
    driver: str,
    arguments: list[str],
    port: int,
    quick: bool,
    java: Sequence[str] = (),
) -> None:
    """Start Beam's job server for an engine and wait until it listens."""
    archives = _archives(engine, with_beam=True)[::-1]
    classes = ["-cp", _class_path(archives)]
    if quick:
        compiled, own = cluster.folder / "classes", cluster.folder / "own.jar"  # it is sent
        source = PROGRAMS / "Archives.java"
        subprocess.run(["javac", "-d", str(compiled), str(source)], check=True)
        subprocess.run(["jar", "-cf", str(own), "-C", str(compiled), "."], check=True)
        classes = ["-cp", str(own), "-Djava.system.class.loader=Archives"]
        classes += [f"-Darchives={':'.join(archives)}"]
    cluster.start(
        "job_server",
        [
            *(str(JAVA), "-Xmx768m", *java, *_OPENS, *classes, driver, *arguments),
            *("--job-host=localhost", f"--job-port={port}", "--artifact-port=0"),
            *("--expansion-port=-1", f"--artifacts-dir={cluster.folder}/artifacts"),
        ],
    )
    cluster.until(functools.partial(listens, port), "the job server")
