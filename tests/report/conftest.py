"""A finished run that the tests of its page share."""

import pytest
from report_run import FILTERED, documents, write_run

from pipeline.rules.decision import Rule


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Its output folder, documents by source, and manifest."""
    output, batches = tmp_path_factory.mktemp("run") / "scored", documents()
    return output, batches, write_run(output, batches, Rule("pareto", 2.345), FILTERED, 3)
