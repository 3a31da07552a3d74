"""Command lines: settings that are not there, errors and interruptions end without a traceback."""

import errno
import functools
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from training_runs import composed

from winnow.commands import command_line, exits

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
GIVEN = ("data.corpus=corpus", "data.arm=filtered", "output=run")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("+train.batch_row=2", "no setting train.batch_row: did you mean train.batch_rows?"),
        ("+model.capacity=2", "did you mean model.capacity_factor?"),
        ("+qqq=1", "no setting qqq: there are model, data, "),
        ("train.tokens=???", "train.tokens missing: give it as train.tokens=VALUE"),
        ("model.capacity_factor=0.5", "capacity_factor=0.5 leaves fewer slots than tokens"),
    ],
)
def test_settings_that_are_unknown_missing_or_impossible(change, said):
    """Hydra itself advises to write an unknown one with ``+``, and then says no more of it."""
    with pytest.raises(ValueError, match=re.escape(said)):
        command_line.checked(composed(*GIVEN, change))


@pytest.mark.parametrize(
    ("command", "flag", "settings"),
    [
        ("model/train.py", "--help-all", "train.yaml"),
        ("ablations/run.py", "--help-all", "ablation.yaml"),
    ],
)
def test_help_says_what_the_command_does_and_where_settings_are_explained(
    quick_python, command, flag, settings
):
    said = subprocess.run(
        [quick_python, command, flag], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert said.startswith(f"python {command} SETTING=VALUE")
    (path,) = re.findall(r"conf/\w+\.yaml(?= explain)", said)
    assert path == f"conf/{settings}"
    assert (ROOT / path).exists()
    assert "classifier" not in said  # the groups of other commands


def test_a_mixture_names_its_own_keys():
    checked = command_line.checked(composed(*GIVEN, "+data.mixture={web: 1, any: 2}"))
    assert checked.data.mixture == {"web": 1.0, "any": 2.0}


class ExpectedError(Exception):
    pass


def ends(error, capsys):
    """What a command that meets this error leaves: its exit code and last words."""

    def act(_):
        raise error

    with pytest.raises(SystemExit) as end:
        command_line.run(act, composed(*GIVEN), ExpectedError)
    return end.value.code, capsys.readouterr().err


def test_what_a_user_can_mend_is_one_line(capsys, monkeypatch):
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["/at/home/model/train.py"])
    assert ends(ValueError("no"), capsys) == (1, "model/train.py: error: no\n")
    assert ends(ExpectedError("never"), capsys) == (1, "model/train.py: error: never\n")
    assert ends(exits.UsageError("no"), capsys) == (2, "model/train.py: error: no\n")
    monkeypatch.setenv("WINNOW_PROGRAM", "winnow train")
    assert ends(ValueError("no"), capsys) == (1, "winnow train: error: no\n")
    full = OSError(errno.ENOSPC, "No space left on device", "run/file")
    code, said = ends(full, capsys)
    assert code == 1
    assert said.endswith(" device: run/file: make room and run the same command again\n")
    with pytest.raises(AssertionError):
        ends(AssertionError("a defect"), capsys)


def test_torchrun_is_told(capsys, monkeypatch, tmp_path):
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("WINNOW_PROGRAM", "winnow train")
    ends(ValueError("no"), capsys)
    failure = ProcessFailure(0, os.getpid(), 1, str(tmp_path / "error.json"))
    assert failure.message == "winnow train: error: no"
    assert abs(failure.timestamp - time.time()) < 60
    assert json.loads((tmp_path / "error.json").read_text())["message"] == failure.message


WAITS = """
import time
from omegaconf import OmegaConf
from winnow.commands import command_line

def act(_):
    try:
        print("begun", flush=True)
        time.sleep(60)
    finally:
        print("tidied", flush=True)

command_line.run(act, OmegaConf.create())
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interruption_tidies_up_and_is_no_traceback(number):
    command = [sys.executable, "-c", WAITS]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    # A shell has what it runs in the background ignore SIGINT, and so would this command.
    heard = functools.partial(signal.signal, number, signal.SIG_DFL)
    with subprocess.Popen(command, cwd=ROOT, preexec_fn=heard, **pipes) as process:
        assert process.stdout.readline() == "begun\n"
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert (out, err) == ("tidied\n", "-c: interrupted: run the same command again\n")
    assert process.returncode == 128 + number
