"""Lines that repeat across a host, against plain Python: the folded form, the counts, a run."""

import json
import random
import unicodedata
from collections import defaultdict

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpora import fingerprints, write_classifier, write_jsonl
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline import decide, run
from pipeline.core import repeated_lines
from pipeline.core.repeated_lines import Lines
from pipeline.steps.host_lines import HostLines
from pipeline.steps.words.folded_lines import line_keys, without
from winnow.spool import grouped

CHARACTERS = "aAbß1٣ éE\u0301İıςΣ.,¿‘-_§€\u200b\u3000\t\r\x85가ﷺﬁ漢🙂"


def folded(line):
    """CCNet's form of a line, with one blank for white space."""
    parts = unicodedata.normalize("NFD", line.casefold())
    kinds = [(part, unicodedata.category(part)) for part in parts]
    kept = ["0" if k == "Nd" else p for p, k in kinds if k != "Mn" and k[0] != "P"]
    return " ".join("".join(kept).split())


lines = st.text(st.one_of(st.sampled_from(CHARACTERS), st.characters(codec="utf-8")), max_size=8)


@given(st.lists(st.lists(lines, min_size=1, max_size=4).map("\n".join), min_size=1, max_size=6))
@example(["A b\n\n", "", "\n", "a  B.\na-b", "Àéî 12\r\naei 00"])
@settings(max_examples=60, deadline=None)
def test_two_lines_have_one_key_if_host_and_folded_form_are_equal(texts):
    hosts = ["a.example", "www.a.example", "b.example", None]
    where = [hosts[i % 4] for i in range(len(texts))]
    url = pa.array([host and f"https://{host}/{i}" for i, host in enumerate(where)], pa.string())
    keys, counts = line_keys(pa.array(texts, pa.large_string()), url)
    split = [text.split("\n") for text in texts]
    assert counts.tolist() == [len(parts) for parts in split]
    known, forms = {}, {}
    flat = [(h, line) for h, parts in zip(where, split, strict=True) for line in parts]
    for (host, line), key in zip(flat, keys.tolist(), strict=True):
        form = folded(line)
        if not (host and form):
            assert key == 0
            continue
        place = (host.removeprefix("www."), form)
        assert known.setdefault(place, key) == key
        assert forms.setdefault(key, place) == place

    flags = np.array([len(line) % 2 == 0 for _, line in flat])
    chosen = iter(flags)
    expected = ["\n".join(line for line in parts if not next(chosen)) for parts in split]
    assert without(pa.array(texts, pa.large_string()), flags).to_pylist() == expected


def test_planes_that_are_not_looked_through_have_nothing_to_fold():
    rest = [*range(0x20000, 0x2F800), *range(0x2FA20, 0xE0000), *range(0xE0200, 0x110000)]
    text = "".join(map(chr, rest))
    assert unicodedata.normalize("NFD", text.casefold()) == text
    assert not {"Mn", "Nd"} & {unicodedata.category(c) for c in text}


@given(
    st.lists(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 5)), max_size=12), max_size=5),
    st.integers(1, 3),
    st.integers(1, 70),
    st.randoms(),
)
@settings(max_examples=50, deadline=None)
def test_a_line_repeats_if_more_texts_have_it_than_may(tasks, most, buckets, rng):
    texts = defaultdict(set)
    for pairs in tasks:
        for key, text in pairs:
            texts[key].add(text)
    expected = {
        str(i): {k for k, _ in pairs if len(texts[k]) > most} for i, pairs in enumerate(tasks)
    }
    parts = [
        Lines(str(i), *np.array(sorted(set(pairs)), np.uint64).reshape(-1, 2).T)
        for i, pairs in enumerate(tasks)
    ]
    rng.shuffle(parts)  # workers finish in any order
    pairs = (pair for part in parts for pair in repeated_lines.in_buckets(part, buckets))
    keys = {stem: [] for stem in expected}
    for _, bucket in grouped(pairs):
        for stem, found in repeated_lines.repeated(bucket, most):
            keys[stem] += found.tolist()
    assert {stem: sorted(some) for stem, some in keys.items()} == {
        stem: sorted(some) for stem, some in expected.items()
    }


def test_a_limit_below_one_is_refused():
    with pytest.raises(ValueError, match="max_documents must be 1 or more, not 0"):
        HostLines(0)


MENU = ["Home | About | Contact", "© 2024 Example", "- - -", ""]


def pages():
    """Pages of three hosts with templates of their own, in no order; some without a URL."""
    rng = random.Random(5)
    rows = []
    for i in range(60):
        host = rng.choice(["a.example", "www.a.example", "b.example", "c.example"])
        body = ["".join(rng.choices("abcdefgh", k=2)) + " is said here." for _ in range(3)]
        menu = [part.replace("2024", str(2000 + i)).upper() for part in MENU[:2]]
        text = "\n".join([*(menu if "a.ex" in host else menu[:1]), *MENU[2:], *body])
        rows.append({"id": str(i), "text": text, "url": f"https://{host}/{i}"})
    rows += [{"id": "menu", "text": "\n".join(MENU), "url": "https://a.example/menu"}]
    rows += [{"id": "none", "text": "\n".join(MENU)}]
    rows += [{**rows[0], "id": f"again {i}"} for i in range(9)]
    rng.shuffle(rows)
    return rows


def cleaned(rows, most):
    """Their texts without what more than ``most`` different texts of their host have."""
    places = [row.get("url", "//").split("/")[2].removeprefix("www.") for row in rows]
    texts = defaultdict(set)
    for place, row in zip(places, rows, strict=True):
        for line in row["text"].split("\n"):
            texts[place, folded(line)].add(row["text"])
    out = {}
    for place, row in zip(places, rows, strict=True):
        kept = [
            line
            for line in row["text"].split("\n")
            if not (place and folded(line) and len(texts[place, folded(line)]) > most)
        ]
        out[row["id"]] = "\n".join(kept) if any(map(folded, kept)) else None
    return out


@pytest.mark.slow
def test_a_run_removes_the_lines_that_repeat_across_a_host(tmp_path, monkeypatch):
    rows = pages()
    for i in range(3):
        write_jsonl(tmp_path / "web" / f"{i}.jsonl", rows[i::3])
    write_jsonl(tmp_path / "wiki.jsonl", rows[:9])
    write_classifier(tmp_path / "classifier")
    (tmp_path / "run.yaml").write_text(json.dumps({"steps": {"host_lines": {"max_documents": 4}}}))
    inputs = [f"--source=web={tmp_path}/web/*", f"--source=wiki={tmp_path}/wiki.jsonl"]
    inputs += ["--filter=web", f"--classifier={tmp_path}/classifier", "--alpha=2"]
    steps = [*inputs, f"--config={tmp_path}/run.yaml"]
    run.main([*inputs, "--direct_num_workers=1", f"--output={tmp_path}/plain"])
    run.main([*steps, "--direct_num_workers=1", f"--output={tmp_path}/one"])

    calls = []

    def save(work, stem, parts):
        calls.append(stem)
        if len(calls) == 2:
            raise OSError("no space left")
        actual(work, stem, parts)

    actual = repeated_lines.save_repeated
    monkeypatch.setattr(repeated_lines, "save_repeated", save)
    again = [*steps, "--direct_num_workers=2", f"--output={tmp_path}/two"]
    with pytest.raises(OSError, match="no space left"):
        run.main(again)
    monkeypatch.undo()
    run.main([*again, "--resume"])
    assert fingerprints(tmp_path / "one") == fingerprints(tmp_path / "two")
    decide.main([f"--scored={tmp_path}/one", "--alpha=2", f"--output={tmp_path}/again"])
    for part in ("shards", "statistics"):
        assert fingerprints(tmp_path / "again" / part) == fingerprints(tmp_path / "one" / part)

    expected = cleaned(rows, 4)
    assert expected["menu"] is None
    shortened = removed = 0
    for before, row in zip(shards(tmp_path / "plain"), shards(tmp_path / "one"), strict=True):
        for name in ("id", "content_hash", "quality_score", "keep_draw"):
            assert row[name] == before[name]
        text = expected[row["id"]] if row["source"] == "web" else before["text"]
        if text is None:
            assert row["drop_reason"] == "host_lines_nothing_left"
            text = before["text"]
        assert row["text"] == text
        fewer = len(before["text"].encode()) - len(text.encode())
        assert row["removed_bytes"] == fewer
        assert row["removed_lines"] == before["text"].count("\n") - text.count("\n")
        assert row["bytes"] == len(text.encode())
        shortened += fewer > 0
        removed += fewer
    assert shortened > 30
    assert pq.read_table(tmp_path / "one/statistics/changes.parquet").to_pylist() == [
        {
            "source": "web",
            "step": "host_lines",
            "documents": shortened,
            "removed_bytes": removed,
        }
    ]
    assert '"bytes removed"' in (tmp_path / "one" / "report.html").read_text()


def shards(output):
    paths = sorted((output / "shards").iterdir())
    return pa.concat_tables(pa.ipc.open_file(path).read_all() for path in paths).to_pylist()
