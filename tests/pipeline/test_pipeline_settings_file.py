"""Settings in YAML: what is of the wrong type is named, with what it should be."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipeline import config
from pipeline.beam import engine
from pipeline.settings import settings_file


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("alpha: high", "alpha should be a number or nothing, not 'high'"),
        ("alpha: true", "alpha should be a number or nothing, not True"),
        ("seed: 1.5", "seed should be a whole number, not 1.5"),
        ("split_bytes: 1e9", "split_bytes should be a whole number"),  # text, to YAML 1.1
        ("filter: web", "filter should be a list, not 'web'"),
        ("source: x.jsonl", "source should be names with values, not 'x.jsonl'"),
        ("source: {web: 3}", "source should be names with values"),
        ("deduplicate: 'yes'", "deduplicate should be true or false"),
        ("steps: gopher", "steps should be a list or names with values"),
        ("steps: {gopher: 3}", "steps should be"),
        ("field: [text]", "field should be names with values"),
        ("write:", "write should be text, not None"),
        ("alpa: 3", r"unknown keys \['alpa'\]"),
        ("decision: {alpha: 3}", r"unknown keys \['decision'\]"),
        ("a: [", r"is not YAML: line 1, column 5: expected .*[^\n]$"),
        ("- a", "holds no mapping"),
    ],
)
def test_a_wrong_value_is_named(tmp_path, text, message):
    (tmp_path / "run.yaml").write_text(text)
    rest = [] if text.startswith("source") else ["--source=web=x"]
    with pytest.raises(ValueError, match=message):
        config.load([f"--config={tmp_path}/run.yaml", *rest, "--classifier=x", "--output=x"])


def test_all_that_a_file_may_hold_is_taken(tmp_path):
    settings = {
        "source": {"web": "a*", "wiki": ["b", "c"]},
        "filter": ["web"],
        "classifier": "x",
        "label": None,
        "output": "y",
        "alpha": 9,
        "stall_minutes": 5,
        "steps": {"gopher": None, "c4": {}, "language": {"languages": ["en"]}},
        "field": {"text": "content"},
        "deduplicate": True,
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    found, _, _ = config.load([f"--config={tmp_path}/run.yaml"])
    assert found.source == {"web": ["a*"], "wiki": ["b", "c"]}
    assert found.decision.alpha == 9
    assert list(found.steps) == ["gopher", "c4", "language"]


VALUES = {
    str: st.text(),
    int: st.integers(),
    float: st.floats(allow_nan=False),
    bool: st.booleans(),
    type(None): st.none(),
}


@given(st.data())
def test_a_value_fits_its_own_type_and_no_other(data):
    kind, other = data.draw(st.sampled_from(list(VALUES))), data.draw(st.sampled_from(list(VALUES)))
    value = data.draw(VALUES[kind])
    fits = kind is other or (kind, other) == (int, float)
    assert settings_file.fits(value, other) == fits
    assert settings_file.fits([value] * 2, Sequence[other]) == fits
    assert settings_file.fits({"a": value}, Mapping[str, other]) == fits
    assert settings_file.fits(value, other | str) == (fits or kind is str)
    assert settings_file.fits(value, Any)
    assert settings_file.fits([], Sequence[other])
    assert not settings_file.fits(value, Sequence[other])
    assert not settings_file.fits({1: value}, Mapping[str, other])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--sorce=web=x", "--classifier=x", "--output=x"], "--source is missing: is --sorce"),
        (["--source=web=x", "--classifer=x", "--output=x"], "--classifier is missing: is --class"),
        (["--classifier=x", "--output=x"], "--source is missing: see --help"),
    ],
)
def test_a_mistyped_flag_is_named(given, said):
    with pytest.raises(ValueError, match=said):
        config.load(given)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("--aplha=3", "neither Winnow nor Beam has --aplha: did you mean --alpha[?]"),
        ("--runer=DirectRunner", "neither Winnow nor Beam has --runer: did you mean --runner[?]"),
        ("--zzzzzzzz=1", "neither Winnow nor Beam has --zzzzzzzz: see --help"),
        ("--runner=FlinkRunner", "--runner FlinkRunner needs --flink_master"),
        ("--runner=SparkRunner", "--runner SparkRunner needs --spark_master_url"),
    ],
)
def test_a_flag_that_nobody_knows_is_told_from_one_that_is_meant(given, said):
    with pytest.raises(ValueError, match=said):
        engine.options([given])
