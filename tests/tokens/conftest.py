"""A corpus of three sources, for reading only but for arms that are added."""

import pytest
from tokens_scored import SHARDS, make_corpus


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("stream"), SHARDS)
