"""A small corpus, and a run on it that nothing disturbed: for reading only."""

import pytest
from training_runs import corpus_folder, train


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    return corpus_folder(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="session")
def undisturbed(corpus, tmp_path_factory):
    """The output and the outcome."""
    output = tmp_path_factory.mktemp("undisturbed")
    return output, train(corpus, output)
