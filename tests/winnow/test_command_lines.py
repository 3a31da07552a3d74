"""Hydra's command line with paths as they are, against Hydra's own parser."""

import argparse
import re
import subprocess
import sys
from pathlib import Path

import hydra
import pytest
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

import model.training.train_config  # noqa: F401 registers its configs
from winnow.commands import console, hydra_errors, hydra_help, overrides

ROOT = Path(__file__).resolve().parents[2]
PARSER = OverridesParser.create()
ODD = "ñ 日 (1)#&=,'q\"[x]{y};<!>^`|~%@:$ é"


def meaning(argument, sweeps=False):
    """What Hydra, and then OmegaConf, make of an argument."""
    (quoted,) = overrides.quoted([argument], sweeps)
    parsed = PARSER.parse_override(quoted)
    if parsed.is_sweep_override():
        return [Override._convert_value(value) for value in parsed.sweep_iterator()]
    config = OmegaConf.create({"value": parsed.value()})
    value = config.value
    return value if isinstance(value, str) else OmegaConf.to_container(config)["value"]


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_a_quoted_text_means_itself(text):
    assert PARSER.parse_override(f"x={overrides.quote(text)}").value() == text


@given(st.text(st.sampled_from("a\\${}'\""), max_size=12))
def test_a_literal_has_no_interpolations(text):
    value = PARSER.parse_override(f"x={overrides.literal(text)}").value()
    assert OmegaConf.create({"value": value}).value == text


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20))
def test_what_hydra_parses_keeps_its_meaning(text):
    argument = f"x={text}"
    try:
        parsed = PARSER.parse_override(argument)
    except Exception:
        return
    # A sweep over paths, which is an error without --multirun.
    if not (parsed.is_sweep_override() and "/" in text):
        assert overrides.quoted([argument]) == [argument]
    assert overrides.quoted([argument], sweeps=True) == [argument]


@pytest.mark.parametrize(
    "value",
    ["/tmp/ñ", "/tmp/日本/x", "a=b", "a(1)", "(a", "a)", "a#b", "a&b", "l'été", '"a', "a[1]", "[a",
     "a]", "[a] b [c]", "{a}/b", "}", "a;b", "a!b", "a^b", "<a>", "a\nb", "/tmp/a,b", "é,è", "`a`",
     "\\ñ", "ñ\\", "ñ\\'", "(a, b)/c", "[1] a", "/tmp/ñ/*.jsonl", "a*(1)?[0-9].x", "choice(ñ/x",
     "s3://b/ñ (1).jsonl", "a${b"],
)  # fmt: skip
def test_paths_need_no_quotes(value):
    assert meaning(f"x={value}") == value
    assert meaning(f"+a.b-c@d={value}") == value


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("[/tmp/ñ (1)/x,/b]", ["/tmp/ñ (1)/x", "/b"]),
        ("[ a (1) , b=c ,'d, e']", ["a (1)", "b=c", "d, e"]),
        ("[/a(/x,/b]", ["/a(/x", "/b"]),
        ("[l'été,d'or]", ["l'été", "d'or"]),
        ("[a[1].x,[b,ñ]]", ["a[1].x", ["b", "ñ"]]),
        ("[(1, 2)/x,ñ]", ["(1, 2)/x", "ñ"]),
        ("{a: /ñ/a, b: {c: '/x,y', d: é}}", {"a": "/ñ/a", "b": {"c": "/x,y", "d": "é"}}),
        ("{a: [ñ, 1, true, null]}", {"a": ["ñ", 1, True, None]}),
        ("[]", []),
        ("{}", {}),
    ],
)  # fmt: skip
def test_parts_of_lists_and_mappings_are_quoted_one_by_one(value, expected):
    assert meaning(f"x={value}") == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a,b", ["a", "b"]),
        ("/a,/b", ["/a", "/b"]),
        ("/ñ 1,/ñ(2)", ["/ñ 1", "/ñ(2)"]),
        ("choice(ñ,b)", ["ñ", "b"]),
        ("1,2", [1, 2]),
        ("range(1,3)", [1, 2]),
        ("[ñ,1],[b]", [["ñ", 1], ["b"]]),
    ],
)
def test_sweeps_stay_sweeps(value, expected):
    assert meaning(f"x={value}", sweeps=True) == expected
    (there,) = set(overrides.quoted(["-m", f"x={value}"])[1:])
    assert there == overrides.quoted([f"x={value}"], sweeps=True)[0]


@pytest.mark.parametrize(
    "name", ["a,b", "2024_01", "1e3", "0x1", "[a]", "{a:b}", "a\\b,c", "${a}", "${a"]
)
@pytest.mark.parametrize("sweeps", [False, True])
def test_what_is_there_is_meant_as_it_is_written(tmp_path, monkeypatch, name, sweeps):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()
    assert meaning(f"x={name}", sweeps) == name
    assert meaning(f"x={tmp_path}/{name}", sweeps) == f"{tmp_path}/{name}"


def test_paths_with_commas_in_lists(tmp_path):
    (tmp_path / "a,b").mkdir()
    (tmp_path / "a,b" / "c,d").touch()
    folder = f"{tmp_path}/a,b"
    assert meaning(f"x=[{folder}/c,d,e]") == [f"{folder}/c,d", "e"]
    assert meaning(f"x=[e,{folder}/*]") == ["e", f"{folder}/*"]
    assert meaning(f"x={{web: {folder}/c,d, e: ñ}}") == {"web": f"{folder}/c,d", "e": "ñ"}
    assert meaning(f"x={folder}/new", sweeps=True) == f"{folder}/new"


def test_what_is_no_path_is_left_to_hydra(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.x", "b.x", "null", "true", "1"):
        (tmp_path / name).touch()
    kept = "seed=1 x=null x=true x=1 data=filtered,unfiltered ~x --cfg=job /a=ñ x=~/ñ x=${a}/b"
    kept = [*kept.split(), f"x={tmp_path}/a.x,{tmp_path}/b.x", "x=a\\,b", "x='a,b'", "x="]
    assert overrides.quoted(kept) == kept
    assert PARSER.parse_override(overrides.quoted(["x=${a}/ñ"])[0]).value() == "${a}/ñ"


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        pytest.param(
            "quality_classifier/train.py",
            ["positive={}/no.x", "negative=y", "output=o"],
            "no.x'",
            marks=pytest.mark.slow,
        ),
        ("quality_classifier/audit.py", ["scored={}"], "has no manifest.json"),
        ("model/prepare.py", ["scored={}", "output={}/o"], "is not an output of pipeline/run.py"),
    ],
)
def test_commands_take_odd_paths(quick_python, tmp_path, script, arguments, message):
    folder = tmp_path / ODD
    folder.mkdir()
    done = subprocess.run(
        [quick_python, ROOT / script, *(a.replace("{}", str(folder)) for a in arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 1
    assert message in done.stderr
    assert ODD in done.stderr.replace("\\'", "'")
    assert len(done.stderr.splitlines()) == 1


def test_an_argument_that_is_not_utf8_is_named(quick_python, tmp_path):
    done = subprocess.run(
        [
            quick_python,
            ROOT / "model/prepare.py",
            b"scored=caf\xe9",
            "output=o",
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    said = "error: the argument scored=caf\\xe9 is not UTF-8: rename what it names\n"
    assert (done.returncode, done.stderr) == (2, f"model/prepare.py: {said}")


def test_hydra_starts_on_python_3_14(monkeypatch):
    """With an argparse that checks help texts as that one's does."""
    add, checked = argparse.ArgumentParser.add_argument, []

    def check(parser, action):
        checked.append(action.dest)
        if action.help and "%" not in action.help:
            return

    def add_argument(parser, *args, **kwargs):
        action = add(parser, *args, **kwargs)
        parser._check_help(action)
        return action

    monkeypatch.setattr(argparse.ArgumentParser, "_check_help", check, raising=False)
    monkeypatch.setattr(argparse.ArgumentParser, "add_argument", add_argument)
    with pytest.raises(TypeError, match="LazyCompletionHelp"):
        get_args_parser()
    monkeypatch.setattr(sys, "argv", ["train.py"])
    monkeypatch.setattr("hydra._internal.utils.run_and_report", None)  # put back at the end
    overrides.run(get_args_parser)
    assert "shell_completion" in checked


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("train.token=3", "there is no setting train.token: did you mean train.tokens?"),
        ("model.layer=3", "there is no setting model.layer: did you mean model.layers?"),
        ("zzzz=1", "there is no setting zzzz: there are checkpoint, data, "),
        ("model=glam_1x", "there is no model=glam_1x: did you mean glam_1m?"),
        ("train.tokens=many", "train.tokens: Value 'many' of type 'str' could not be converted"),
        ("train=[3", "'train=[3' is not a setting: write NAME=VALUE"),
    ],
)
def test_what_hydra_refuses_is_one_line_that_helps(argument, said):
    with hydra.initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        with pytest.raises(HydraException) as refused:
            hydra.compose("train", [argument])
    line = hydra_errors.one_line(refused.value)
    assert line.startswith(said)
    assert "\n" not in line
    assert "+" not in line


@pytest.mark.slow
def test_a_wrong_setting_ends_a_command_with_one_line(quick_python):
    command = [quick_python, "model/train.py", "train.token=3"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    line = "model/train.py: error: there is no setting train.token: did you mean train.tokens?\n"
    # A slow machine is told each half minute that the command is starting.
    said = re.sub(r"^starting.*\n", "", done.stderr, flags=re.MULTILINE)
    assert (done.returncode, done.stdout, said) == (2, "", line)


HELP = """
import sys
from winnow.commands import overrides
sys.argv = ["train.py", "--help"]
overrides.run("model.training.training_run", "train")
assert sys.modules.keys().isdisjoint({"torch", "model.training.training_run"})
"""


def test_help_shows_what_people_change_without_loading_what_does_the_work():
    done = subprocess.run([sys.executable, "-c", HELP], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    with hydra.initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        composed = hydra.compose("train", ["data.corpus=c", "data.arm=a", "output=o"])
    said = done.stdout.split("settings:\n")[1].split("examples:")[0]
    shown = re.findall(r"^  ([\w.]+)=(\S+) +(\S.*)$", said, re.MULTILINE)
    assert 10 <= len(shown) <= 14
    assert {"data.corpus", "train.tokens", "seed"} <= {name for name, _, _ in shown}
    for name, default, _ in shown:
        assert default in ("???", "null") or str(OmegaConf.select(composed, name)) == default


def test_help_on_sizes_and_sharding_loads_no_torch():
    load = (
        "import sys, model.sizes, model.plan_sharding as plan;"
        "plan.parser().format_help(); assert 'torch' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", load], cwd=ROOT, check=False).returncode == 0


@pytest.mark.parametrize(
    "settings",
    [
        "train",
        "prepare",
        "generate",
        "export",
        "classifier/train",
        "classifier/audit",
        "ablation",
        "plan",
        "evaluate",
        "contamination",
        "near_duplicates",
    ],
)
def test_help_has_meanings_and_examples_and_fits_a_screen(settings):
    lines = hydra_help.text(settings).splitlines()
    assert len(lines) <= 50
    assert len([line for line in lines if line.startswith("  ") and "=" in line]) >= 3
    examples = lines[lines.index("examples:") + 1 : -3]
    assert len(examples) == 2


@pytest.mark.parametrize(("seconds", "rate"), [(8.0, "125"), (12.5, "80"), (4000.0, "0.25")])
def test_throughput_is_a_plain_number(seconds, rate):
    assert console.spent(10, 10**9, seconds).endswith(f" {rate} MB/s")
