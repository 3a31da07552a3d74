"""Inputs of the engines' tests, and what DirectRunner makes of them."""

import pytest
from corpora import fingerprints
from engines_services import RULES, ended, start_run, write_inputs


@pytest.fixture(scope="session")
def inputs(tmp_path_factory):
    """The flags of a run over two small sources."""
    return write_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="session")
def direct(inputs, tmp_path_factory):
    """The fingerprints of DirectRunner's files, by rule."""
    found = {}
    for name, rule in RULES.items():
        output = tmp_path_factory.mktemp("direct") / name
        code, _, errors = ended(start_run(*inputs, *rule, f"--output={output}"))
        assert code == 0, errors
        found[name] = fingerprints(output)
    return found
