"""What a command imports before its work, and the compiled kernels that it needs."""

import gc
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.beam.cloud_clients import goes_beyond
from winnow.commands import startup

ROOT = Path(__file__).resolve().parents[2]

ONE_KERNEL = """
import numpy as np
from quality_classifier.kinds.fasttext_kernel import _hash
print(_hash(np.array([97], np.uint8)))
"""

EVERY_KERNEL = """
import pkgutil, importlib
import winnow.text, pipeline, quality_classifier, model.ops
from winnow import compiling, warm_up
for package in (winnow.text, pipeline, quality_classifier, model.ops):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
warm_up.warm_up()
kernels = {id(kernel): kernel for kernel in compiling.kernels()}
# Those that another one calls are compiled with it, or come with it from what numba has kept.
called = {
    id(kernel.py_func.__globals__.get(name))
    for kernel in kernels.values() for name in kernel.py_func.__code__.co_names
}
entries = [kernel for key, kernel in kernels.items() if key not in called]
print(len(entries))
missing = [k.py_func for k in entries if not k.signatures]
# What numba puts in the place of load() and store() is called by name of these alone.
print(*[f.__name__ for f in missing if f.__module__ != "model.ops.cpu_dtypes"])
"""


def python(code, **environment):
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True
    )


def test_a_local_run_imports_no_clients_and_nothing_that_draws_or_fits():
    done = python(
        "import sys\n"
        "from pipeline.beam import cloud_clients\n"
        "with cloud_clients.left_out_if_local(['--source=web=a.jsonl']):\n"
        "    from pipeline.runs import scoring_run\n"
        "from winnow.commands import startup\n"
        "startup.no_pandas_nor_scipy()\n"
        "import pyarrow as pa\n"
        "pa.array(['a word'])\n"
        "print(*sys.modules)\n"
        "import google.cloud.storage, pandas, scipy.linalg\n"  # which are there afterwards
        "print(pa.Array.from_pandas(pandas.Series([1, None])).null_count)\n"
    )
    assert done.stderr == ""
    *loaded, nulls = done.stdout.split()
    assert nulls == "1"
    assert {"apache_beam", "numba.np.arraymath", "pyarrow"} <= set(loaded)
    needless = {"beartype", "cffi", "dill", "fastavro", "httplib2", "proto"}
    needless |= {"boto3", "google.cloud.storage", "matplotlib", "pandas", "pymongo", "requests"}
    assert needless.isdisjoint(loaded)
    assert {"scipy.linalg", "scipy.sparse", "sklearn", "torch", "datasets"}.isdisjoint(loaded)


def test_what_is_wanted_later_is_imported_when_it_is_called(tmp_path):
    (tmp_path / "slow").mkdir()
    package = "print('imported')\nclass Wrong(Exception): pass"
    (tmp_path / "slow" / "__init__.py").write_text(package)
    (tmp_path / "slow" / "parts.py").write_text("def half(n): return n / 2")
    (tmp_path / "user.py").write_text(
        "import slow\n"
        "from slow.parts import half\n"
        "def f(n):\n"
        "    try:\n"
        "        return isinstance(n, slow.Wrong) or half(n)\n"
        "    except slow.Wrong:\n"
        "        pass\n"
    )
    done = python(
        "import sys\n"
        "from winnow.commands import startup\n"
        "with startup.later('slow'):\n"
        "    import user\n"
        "print('slow' in sys.modules, user.f(5), 'slow' in sys.modules)\n"
        "import slow.parts\n"
        "print(slow.parts.half is sys.modules['slow.parts'].half, slow.Wrong.__module__)\n",
        PYTHONPATH=f"{ROOT}{os.pathsep}{tmp_path}",
    )
    assert done.stderr == ""
    assert done.stdout.split("\n")[:3] == ["imported", "False 2.5 True", "True slow"]


def test_garbage_is_collected_again_after_imports():
    gc.disable()
    with startup.importing():
        pass
    assert not gc.isenabled()  # as before
    gc.enable()
    with startup.importing():
        assert not gc.isenabled()
    assert gc.isenabled()


@pytest.mark.parametrize(
    ("line", "beyond"),
    [
        ("--source web=a.jsonl --output out", False),
        ("--runner DirectRunner", False),
        ("--runner=apache_beam.runners.direct.direct_runner.DirectRunner", False),
        ("--runner FnApiRunner", False),
        ("--runner DataflowRunner", True),
        ("--runner=FlinkRunner", True),
        ("--source web=gs://bucket/a", True),
        ("--classifier s3://bucket/a", True),
        ("--pickle_library=dill", True),
        ("--config local.yaml", False),
        ("--config=store.yaml", True),
        ("--config missing.yaml", True),
    ],
)
def test_what_needs_more_than_this_machine(tmp_path, monkeypatch, line, beyond):
    monkeypatch.chdir(tmp_path)
    Path("local.yaml").write_text("source: {web: a.jsonl}")
    Path("store.yaml").write_text("source: {web: 's3://bucket/a'}")
    assert goes_beyond(line.split()) == beyond


def test_who_waits_for_numba_is_told_once(tmp_path):
    place = str(tmp_path / "kept")
    cold, warm = (python(ONE_KERNEL, NUMBA_CACHE_DIR=place) for _ in range(2))
    assert cold.stdout == warm.stdout == "3826002220\n"  # FNV-1a of "a"
    assert warm.stderr == ""
    (line,) = cold.stderr.splitlines()
    assert line.startswith("compiling kernels, once on this machine (about ")
    assert "warm_up.py` does it beforehand" in line
    assert list(Path(place).rglob("fasttext_kernel*.nbi"))


def test_a_kernel_is_compiled_again_when_one_that_it_calls_has_changed(tmp_path):
    shutil.copytree(ROOT / "winnow", tmp_path / "winnow")
    head = "from numba import njit\nfrom winnow import compiling\n"
    inner, outer = (tmp_path / "winnow" / f"{name}.py" for name in ("inner", "outer"))
    outer.write_text(
        head + "from winnow.inner import f\n@njit(cache=True)\ndef g():\n    return f()\n"
    )
    for value in ("1", "2"):
        inner.write_text(head + f"@njit(cache=True)\ndef f():\n    return {value}\n")
        done = subprocess.run(
            [sys.executable, "-c", "from winnow.outer import g; print(g())"],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(tmp_path), "NUMBA_CACHE_DIR": str(tmp_path / "c")},
            capture_output=True,
            text=True,
        )
        assert done.stdout == value + "\n", done.stderr


def test_a_kernel_of_a_user_that_is_not_kept_is_none_of_ours(tmp_path):
    code = "import winnow.text.buffers, numba\nnumba.njit(lambda: 1)()"
    assert python(code).stderr == ""


def test_nowhere_to_keep_kernels_is_said_in_a_line():
    done = subprocess.run(
        [sys.executable, "-m", "winnow", "warm-up"],
        cwd=ROOT,
        env=os.environ | {"NUMBA_CACHE_LOCATOR_CLASSES": "UserProvidedCacheLocator"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "set NUMBA_CACHE_DIR to one that you can write to" in line


@pytest.mark.slow
def test_warm_up_calls_every_kernel():
    done = python(EVERY_KERNEL)
    assert done.returncode == 0, done.stderr
    entries, missing = done.stdout.split("\n")[:2]
    assert int(entries) >= 30
    assert missing == ""
