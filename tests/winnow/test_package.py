"""The command ``winnow``, and the wheel: what is installed works without a checkout."""

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from corpora import copy_kernels, documents, write_classifier, write_jsonl

from pipeline.beam import staging
from winnow import cli

ROOT = Path(__file__).parents[2]
HEAVY = {"apache_beam", "numpy", "pyarrow", "numba", "torch", "sklearn", "matplotlib", "hydra"}


def python(*arguments, path=ROOT, cwd=None):
    """A Python of its own that finds our packages in ``path`` alone."""
    environment = {k: v for k, v in os.environ.items() if k != cli.PROGRAM}
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environment | {"PYTHONPATH": str(path)},
        check=False,
    )


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """What the wheel holds, unpacked as pip would."""
    folder = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(staging.build_wheel(tmp_path_factory.mktemp("wheel"))) as wheel:
        wheel.extractall(folder)
    copy_kernels(folder)
    return folder


@pytest.mark.parametrize(
    "command",
    [
        ["-m", "winnow", "--help"],
        ["-m", "winnow", "run", "--help"],
        ["-m", "winnow", "decide", "--help"],
        ["pipeline/run.py", "--help"],
        ["pipeline/decide.py", "--help"],
    ],
    ids=" ".join,
)
def test_help_imports_nothing_heavy(command):
    ended = python("-X", "importtime", *command, cwd=ROOT)
    assert ended.returncode == 0, ended.stderr
    imported = set(re.findall(r"\| +(\w+)$", ended.stderr, re.MULTILINE))
    assert "encodings" in imported
    assert imported & HEAVY == set()


def test_help_shows_every_command_on_one_screen():
    shown = cli.overview().splitlines()
    assert len(shown) <= 30
    assert max(map(len, shown)) <= 100
    for stage in cli.COMMANDS.values():
        for name, module, _ in stage:
            assert sum(line.startswith(f"  {name}  ") for line in shown) == 1, name
            assert (ROOT / module.replace(".", "/")).with_suffix(".py").exists()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["trian"], "did you mean winnow train?"),
        (["classifer", "train"], "did you mean winnow classifier train?"),
        (["study"], "needs one of: plan, run, report"),
        (["zzzz"], "see winnow --help"),
    ],
)
def test_a_mistyped_command_names_the_nearest(given, told):
    ended = python("-m", "winnow", *given)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert told in ended.stderr


def test_help_names_the_command_as_it_was_started():
    assert python("-m", "winnow", "run", "--help").stdout.startswith("usage: winnow run ")
    assert python("pipeline/run.py", "--help", cwd=ROOT).stdout.startswith("usage: pipeline/run.py")
    assert python("-m", "winnow", "prepare", "--help").stdout.startswith("winnow prepare SETTING")


def test_windows_is_refused_in_one_line():
    code = "import sys; sys.platform = 'win32'; import winnow"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == "Winnow runs on Linux and macOS; on Windows, use it in WSL\n"


def test_an_installed_package_filters_decides_and_composes(installed, tmp_path):
    where = python("-c", "import pipeline; print(pipeline.__file__)", path=installed, cwd=tmp_path)
    assert where.stdout.startswith(str(installed))
    write_jsonl(tmp_path / "web.jsonl.gz", documents(40))
    write_classifier(tmp_path / "classifier")
    for command in (
        "run --source web=web.jsonl.gz --filter web --classifier classifier --steps gopher"
        " --alpha 3 --output scored",
        "decide --scored scored --rule pareto --alpha 1 --output again",
        "report again",
        "prepare --cfg job scored=scored output=corpus",
        "study plan --cfg job corpus=corpus experiment=data_quality",
    ):
        ended = python("-m", "winnow", *command.split(), path=installed, cwd=tmp_path)
        assert ended.returncode == 0, f"{command}\n{ended.stdout}\n{ended.stderr}"
    assert (tmp_path / "again" / "report.html").exists()
    assert "treatment: pareto" in ended.stdout


def test_every_package_says_that_it_is_typed(installed):
    for name in ("ablations", "model", "pipeline", "quality_classifier", "winnow"):
        assert (installed / name / "py.typed").exists()
    assert list(installed.glob("*.dist-info/licenses/LICENSE"))
