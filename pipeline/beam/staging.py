"""Stages our code, its pinned dependencies and the classifier for Dataflow's empty machines.

A container image (deploy/Dockerfile) already holds code and dependencies.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
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

from quality_classifier.scoring import is_own
from winnow import own_code
from winnow.filesystem import storage

ROOT = Path(__file__).resolve().parents[2]
PINS = ROOT / "requirements" / "data.txt"

_INSTALLED = {"site-packages", "dist-packages"}


def on_dataflow(options: PipelineOptions) -> bool:
    """Whether the workers are Dataflow's, which cannot read this machine's files."""
    runner = options.view_as(StandardOptions).runner or ""
    return runner.rpartition(".")[2] == "DataflowRunner"


def check_paths(options: PipelineOptions, paths: Iterable[str]) -> None:
    """Raise ValueError for a local path if the workers run on Dataflow."""
    for path in paths if on_dataflow(options) else ():
        if storage.scheme(path) is None:
            raise ValueError(
                f"{path} is on this machine, where workers of Dataflow cannot reach it: copy it to"
                " a bucket and name it as gs://…"
            )


def reachable_classifier(
    options: PipelineOptions, path: str, fingerprint: str
) -> tuple[str, list[tuple[Path, str]]]:
    """The classifier's path for workers, and the copies that :func:`upload` must make for it.

    For Dataflow a local one goes to ``classifiers/<fingerprint>`` under the staging location, or
    else the temporary one.
    """
    if not on_dataflow(options) or storage.scheme(path) is not None or is_own(path):
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
    """Copy files to an object store unless they exist; objects appear atomically."""
    for source, target in copies:
        if not storage.exists(target):
            with source.open("rb") as file, storage.open_output(target) as out:
                shutil.copyfileobj(file, out, 1 << 20)


@contextlib.contextmanager
def packages(options: PipelineOptions, own: Iterable[str] = ()) -> Iterator[None]:
    """Make Beam stage our wheel, pinned dependencies, and the packages of the user's code (``own``,
    dotted paths) for Dataflow within the block.

    The user's container image or setup file replaces all of it, a ``--requirements_file`` the
    pinned dependencies; packages that pip installed must be named there.

    Raises:
        ValueError: the extra for Dataflow is missing, or this is not a checkout to build from.
    """
    setup = options.view_as(SetupOptions)
    image = options.view_as(WorkerOptions).sdk_container_image
    if not on_dataflow(options) or image or setup.setup_file:
        yield
        return
    with tempfile.TemporaryDirectory() as folder:
        wheels = [build_wheel(Path(folder)), *own_wheels(own, Path(folder))]
        setup.extra_packages = [*(setup.extra_packages or []), *wheels]
        if setup.requirements_file is None:
            setup.requirements_file = str(PINS)
            # Beam cannot download requirements with hashes; the workers' pip can.
            setup.requirements_cache = SKIP_REQUIREMENTS_CACHE
        yield


def own_wheels(own: Iterable[str], folder: Path) -> list[str]:
    """Write wheels of the packages of ``own`` dotted paths, unless pip installed them."""
    return [
        _wheel(name, source, folder)
        for name in sorted({path.partition(".")[0] for path in own})
        if not _INSTALLED & set((source := own_code.place(name)).parts)
    ]


def _wheel(name: str, source: Path, folder: Path) -> str:
    """A wheel (PEP 427) of a package's folder or a module's file."""
    about = f"{name}-0.dist-info"
    files = {
        path.relative_to(source.parent).as_posix(): path.read_bytes()
        for path in sorted([source, *source.rglob("*")])
        if path.is_file() and "__pycache__" not in path.parts
    }
    files[f"{about}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: 0\n".encode()
    files[f"{about}/WHEEL"] = b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    record = "".join(f"{path},,\n" for path in [*files, f"{about}/RECORD"])
    target = folder / f"{name}-0-py3-none-any.whl"
    with zipfile.ZipFile(target, "w") as wheel:
        for path, content in {**files, f"{about}/RECORD": record.encode()}.items():
            wheel.writestr(zipfile.ZipInfo(path), content)
    return os.fspath(target)


def build_wheel(folder: Path) -> str:
    """Build our wheel into ``folder``; returns its path.

    Raises:
        ValueError: this is not a checkout with a ``pyproject.toml``.
        RuntimeError: the build failed; the message is pip's.
    """
    project = ROOT / "pyproject.toml"
    if not project.exists():
        raise ValueError(
            "workers need our code, and this is not a checkout to build it from: run"
            " pipeline/run.py in one, or give --sdk_container_image"
        )
    # Build from a copy: a build leaves stale files that get into the next wheel.
    source = folder / "source"
    find = tomllib.loads(project.read_text())["tool"]["setuptools"]["packages"]["find"]
    for name in (pattern.removesuffix("*") for pattern in find["include"]):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for file in (project, ROOT / "README.md", ROOT / "LICENSE"):
        shutil.copy(file, source)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    command += ["--check-build-dependencies", f"--wheel-dir={folder}", str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"building the wheel for workers failed:\n{done.stderr}")
    (wheel,) = folder.glob("*.whl")
    return os.fspath(wheel)
