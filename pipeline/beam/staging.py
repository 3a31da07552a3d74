"""Stages what remote workers need: our code, its pinned dependencies, the classifier.

Dataflow starts empty machines, and Beam installs there what is staged here. A container image
(deploy/Dockerfile) already holds code and dependencies.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

from apache_beam.options.pipeline_options import (
    GoogleCloudOptions,
    PipelineOptions,
    SetupOptions,
    StandardOptions,
    WorkerOptions,
)
from apache_beam.runners.portability.stager import SKIP_REQUIREMENTS_CACHE

from winnow import storage

ROOT = Path(__file__).resolve().parents[2]
PINS = ROOT / "requirements" / "data.txt"


def on_dataflow(options: PipelineOptions) -> bool:
    """Whether the workers are Dataflow's, which cannot read this machine's files."""
    runner = options.view_as(StandardOptions).runner or ""
    return runner.rpartition(".")[2] == "DataflowRunner"


def check_paths(options: PipelineOptions, paths: Iterable[str]) -> None:
    """Refuse paths that workers cannot reach, before the job is submitted.

    Raises:
        ValueError: a path is on this machine and the workers are not.
    """
    for path in paths:
        if on_dataflow(options) and storage.scheme(path) is None:
            raise ValueError(
                f"{path} is on this machine, where workers of Dataflow cannot reach it: copy it to"
                " a bucket and name it as gs://…"
            )


def reachable_classifier(
    options: PipelineOptions, path: str, fingerprint: str
) -> tuple[str, list[tuple[Path, str]]]:
    """The path of the classifier for workers, and what :func:`upload` must copy to where for it.

    Dataflow's find a local one at ``classifiers/<fingerprint>`` under the staging or else temporary
    location.
    """
    if not on_dataflow(options) or storage.scheme(path) is not None:
        return path, []
    cloud = options.view_as(GoogleCloudOptions)
    location = cloud.staging_location or cloud.temp_location
    if not location:
        raise ValueError("--runner DataflowRunner needs --temp_location gs://…")
    target = storage.join(location, "classifiers", fingerprint)
    source = Path(path)
    if source.is_file():
        target = storage.join(target, source.name)
        return target, [(source, target)]
    files = (file for file in sorted(source.rglob("*")) if file.is_file())
    return target, [
        (file, storage.join(target, file.relative_to(source).as_posix())) for file in files
    ]


def upload(copies: Iterable[tuple[Path, str]]) -> None:
    """Copy files to an object store, but for those that exist; objects appear atomically."""
    for source, target in copies:
        if not storage.exists(target):
            with source.open("rb") as file, storage.open_output(target) as out:
                shutil.copyfileobj(file, out, 1 << 20)


@contextlib.contextmanager
def packages(options: PipelineOptions) -> Iterator[None]:
    """Within the block, Beam stages our wheel and pinned dependencies for Dataflow.

    A container image or setup file of the user replaces all of it, a ``--requirements_file`` the
    pinned dependencies.

    Raises:
        ValueError: the extra for Dataflow is missing, or this is no checkout to build from.
    """
    setup = options.view_as(SetupOptions)
    image = options.view_as(WorkerOptions).sdk_container_image
    if not on_dataflow(options) or image or setup.setup_file:
        yield
        return
    with tempfile.TemporaryDirectory() as folder:
        setup.extra_packages = [*(setup.extra_packages or []), build_wheel(Path(folder))]
        if setup.requirements_file is None:
            setup.requirements_file = str(PINS)
            # Beam cannot download requirements with hashes; the workers' pip can.
            setup.requirements_cache = SKIP_REQUIREMENTS_CACHE
        yield


def build_wheel(folder: Path) -> str:
    """Build our wheel from ``pyproject.toml`` into ``folder``; gives its path.

    Raises:
        ValueError: there is no ``pyproject.toml``: this is not a checkout.
        RuntimeError: the build failed; the message is pip's.
    """
    project = ROOT / "pyproject.toml"
    if not project.exists():
        raise ValueError(
            "workers need our code, and this is no checkout to build it from: run"
            " pipeline/run.py in one, or give --sdk_container_image"
        )
    # Build from a copy: a build leaves folders whose stale files get into the next wheel.
    source = folder / "source"
    find = tomllib.loads(project.read_text())["tool"]["setuptools"]["packages"]["find"]
    for name in (pattern.removesuffix("*") for pattern in find["include"]):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for file in (project, ROOT / "README.md", ROOT / "LICENSE"):
        shutil.copy(file, source)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    done = subprocess.run(
        [*command, "--check-build-dependencies", f"--wheel-dir={folder}", str(source)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"building the wheel for workers failed:\n{done.stderr}")
    (wheel,) = folder.glob("*.whl")
    return os.fspath(wheel)
