"""Runs with --near-duplicates, against a search through all pairs of documents."""

import itertools
import json
import random

import pyarrow as pa
import pytest
from corpora import fingerprints, write_classifier, write_jsonl

from pipeline import decide, run
from pipeline.near_duplicates import files, minhash
from pipeline.near_duplicates.settings import Settings

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """Chains of edited copies in two sources and several files, and a run of one worker."""
    folder = tmp_path_factory.mktemp("near")
    rng = random.Random(3)
    texts = ["too short to compare"] * 2
    for _ in range(30):
        words = [f"{rng.randrange(10**6)}" for _ in range(rng.randrange(30, 90))]
        for _ in range(rng.choice([1, 1, 2, 3, 6])):
            texts.append(" ".join(words))
            words[rng.randrange(len(words))] = "edited"
    texts += texts[5:15]
    rng.shuffle(texts)
    rows = [{"id": f"{i}", "text": text} for i, text in enumerate(texts)]
    for i in range(4):
        write_jsonl(folder / "web" / f"{i}.jsonl", rows[i:-6:4])
    write_jsonl(folder / "wiki" / "0.jsonl", rows[-6:])
    write_classifier(folder / "classifier")
    run.main([*flags(folder), "--direct_num_workers=1", f"--output={folder}/out"])
    return folder


def flags(folder, *more):
    sources = [f"--source={name}={folder}/{name}/*" for name in ("web", "wiki")]
    more = more or ("--alpha=0.5",)
    return [*sources, "--filter=web", f"--classifier={folder}/classifier", *more, NEAR]


NEAR = "--near-duplicates"


def shards(output):
    paths = sorted((output / "shards").iterdir())
    return pa.concat_tables(pa.ipc.open_file(path).read_all() for path in paths)


def clusters(texts):
    """For each text the set of those that are linked to it, by comparing all pairs."""
    bands, compared = minhash.band_hashes(texts, Settings(14, 8, 5))
    groups = [{i} if ok else set() for i, ok in enumerate(compared)]
    for i, j in itertools.combinations(range(len(texts)), 2):
        if compared[i] and compared[j] and (bands[i] == bands[j]).any():
            both = groups[i] | groups[j]
            for k in both:
                groups[k] = both
    return groups


def test_clusters_are_those_of_all_pairs_and_the_best_of_each_stays(here):
    table = shards(here / "out")
    groups = clusters(table["text"].combine_chunks())
    assert sum(len(group) > 2 for group in groups) > 10
    rows = table.to_pylist()
    dropped = 0
    for row, group in zip(rows, groups, strict=True):
        if not group:
            assert row["cluster"] is None
            assert row["cluster_size"] is None
            continue
        others = [rows[k] for k in sorted(group)]
        least = min(other["content_hash"] for other in others)
        assert row["cluster"] == int.from_bytes(least[:8], "big")
        assert row["cluster_size"] == len(group)
        # Shards come in the order of sources: those that pass through come last here.
        best = min(others, key=lambda other: (other["source"] == "web", -other["quality_score"]))
        loses = row["id"] != best["id"] and row["source"] == "web"
        assert (row["drop_reason"] == "near_duplicate") == loses
        dropped += loses
    manifest = json.loads((here / "out" / "manifest.json").read_text())
    assert manifest["accounting"]["web"]["near_duplicate"] == dropped > 20
    card = (here / "out" / "README.md").read_text()
    assert "| near_duplicate |" in card
    assert "| `cluster_size` | int64 |" in card
    assert {row["drop_reason"] for row in rows} == {None, "near_duplicate", "quality"}


def test_same_bytes_of_several_processes_and_after_an_interruption(here, tmp_path, monkeypatch):
    more = ["--direct_num_workers=2", "--direct_running_mode=multi_processing"]
    run.main([*flags(here), *more, f"--output={tmp_path}/two"])
    assert fingerprints(tmp_path / "two") == fingerprints(here / "out")

    saved = []

    def save(work, stem, parts):
        saved.append(stem)
        if len(saved) == 3:
            raise OSError("no space left")
        actual(work, stem, parts)

    actual = files.save_marks
    monkeypatch.setattr(files, "save_marks", save)
    last = [*flags(here), "--direct_num_workers=1", f"--output={tmp_path}/again"]
    with pytest.raises(OSError, match="no space left"):
        run.main(last)
    monkeypatch.setattr(files, "save_marks", actual)
    run.main([*last, "--resume"])
    assert fingerprints(tmp_path / "again") == fingerprints(here / "out")


def test_deciding_anew_is_running_anew(here, tmp_path):
    more = ["--rule=top_fraction", "--target-fraction=0.5", "--near-duplicates-keep=longest"]
    run.main([*flags(here, *more), f"--output={tmp_path}/run"])
    decide.main([f"--scored={here}/out", *more, f"--output={tmp_path}/decided"])
    assert fingerprints(tmp_path / "run/shards") == fingerprints(tmp_path / "decided/shards")
    account = json.loads((tmp_path / "run/manifest.json").read_text())["accounting"]["web"]
    assert abs(account["kept"] - account["quality"]) <= 1  # half of what reached the decision

    # Without a word of them they stay as they were decided.
    decide.main([f"--scored={tmp_path}/decided", *more[:2], f"--output={tmp_path}/same"])
    assert fingerprints(tmp_path / "same/shards") == fingerprints(tmp_path / "run/shards")
    back = ["--alpha=0.5", "--near-duplicates-keep=best", f"--output={tmp_path}/back"]
    decide.main([f"--scored={tmp_path}/same", *back])
    assert fingerprints(tmp_path / "back/shards") == fingerprints(here / "out/shards")


def test_what_has_no_meaning_is_refused(here, tmp_path):
    plain = [f for f in flags(here, "--rule=all") if f != NEAR]
    output = f"--output={tmp_path}/no"
    with pytest.raises(ValueError, match="near-duplicates-rows has no meaning without"):
        run.main([*plain, "--near-duplicates-rows=4", output])
    with pytest.raises(ValueError, match="near-duplicates-keep has no meaning without"):
        run.main([*plain, "--near-duplicates-keep=first", output])
    with pytest.raises(ValueError, match="power needs --near-duplicates-keep sample"):
        run.main([*flags(here), "--near-duplicates-power=1", output])
    with pytest.raises(ValueError, match="would clash"):
        run.main([*flags(here), "--metadata=cluster", output])
    run.main([*plain, f"--output={tmp_path}/plain"])
    assert "cluster" not in shards(tmp_path / "plain").column_names
    with pytest.raises(ValueError, match="needs a run with --near-duplicates"):
        decide.main([f"--scored={tmp_path}/plain", "--near-duplicates-keep=first", output])
