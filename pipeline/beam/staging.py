"""What workers on other machines need of this one: our code, its pinned dependencies, a classifier.

Dataflow starts empty machines. Beam puts on every one what is staged here, before any document is
read; a container image (deploy/Dockerfile) has code and dependencies already.
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
    """Whether the workers are Dataflow's, which see none of this machine's files."""
    runner = options.view_as(StandardOptions).runner or ""
    return runner.rpartition(".")[2] == "DataflowRunner"


def check_paths(options: PipelineOptions, paths: Iterable[str]) -> None:
    """Refuse what workers could not reach, before the job is accepted and then fails.

    Raises:
        ValueError: a path is on this machine and the workers are not.
    """
    for path in paths:
        if on_dataflow(options) and storage.scheme(path) is None:
            raise ValueError(
                f"{path} is on this machine, where workers of Dataflow cannot reach it: copy it to"
                " a bucket and name it as gs://…"
            )


def reachable_classifier(options: PipelineOptions, path: str, fingerprint: str) -> str:
    """Where workers find the classifier: a local one is uploaded for those of Dataflow.

    It goes to ``classifiers/<fingerprint>`` under the staging (else temporary) location, once.
    """
    if not on_dataflow(options) or storage.scheme(path) is not None:
        return path
    cloud = options.view_as(GoogleCloudOptions)
    location = cloud.staging_location or cloud.temp_location
    if not location:
        raise ValueError("--runner DataflowRunner needs --temp_location gs://…")
    target = storage.join(location, "classifiers", fingerprint)
    source = Path(path)
    if source.is_file():
        target = storage.join(target, source.name)
        _upload(source, target)
    else:
        for file in sorted(source.rglob("*")):
            if file.is_file():
                _upload(file, storage.join(target, file.relative_to(source).as_posix()))
    return target


def _upload(source: Path, target: str) -> None:
    """Copy a file to an object store, unless it is there already: objects appear whole."""
    if not storage.exists(target):
        with source.open("rb") as file, storage.open_output(target) as out:
            shutil.copyfileobj(file, out, 1 << 20)


@contextlib.contextmanager
def packages(options: PipelineOptions) -> Iterator[None]:
    """While the block runs, Beam stages for Dataflow our wheel and the versions it is tested with.

    Whoever brings a container image or a setup file has seen to the code already; an own
    ``--requirements_file`` takes the place of ours.

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
            # Beam would download what is pinned, but does not understand hashes. Workers' pip does.
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
    # From a copy, since a build leaves folders behind, whose old files get into the next one.
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
