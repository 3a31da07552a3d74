"""A run that several files of tests look at."""

import pytest
from corpora import documents, write_classifier, write_jsonl
from pipeline_runs import flags

from pipeline import run


@pytest.fixture(scope="session")
def here(tmp_path_factory):
    """Two sources in several files, a classifier, and an undisturbed run of one worker."""
    folder = tmp_path_factory.mktemp("pipeline")
    for i in range(4):
        write_jsonl(folder / "web" / f"{i}.jsonl.gz", documents(150, i))
    write_jsonl(folder / "web" / "4.jsonl", documents(100, 4))
    write_jsonl(folder / "wiki" / "0.jsonl.gz", documents(60, 0, "wiki"))
    learned = [row["text"] for row in documents(150, 2)[:40] + documents(60, 0, "wiki")[:9]]
    write_classifier(folder / "classifier", trained_on=learned)
    (folder / "steps.yaml").write_text("steps: {gopher: {min_words: many}}")
    run.main([*flags(folder), "--direct_num_workers=1", f"--output={folder}/scored"])
    return folder
