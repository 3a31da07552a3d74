"""Steps that change text: masks and removed lines against plain Python, and a task of both."""

import functools
import ipaddress
import json
import re

import numpy as np
import pyarrow as pa
import pytest
from corpora import write_classifier, write_jsonl
from hypothesis import example, given, settings
from hypothesis import strategies as st
from step_checks import SENTENCE, array, configured, documents

from pipeline import config as pipeline_config
from pipeline.core.plan import plan_tasks
from pipeline.core.task import decide_task, run_task
from pipeline.output import schema
from pipeline.page.data.changed_texts import by_source, sentence
from pipeline.rules.decision import Rule
from pipeline.runs.scoring_run import describe
from pipeline.steps.heuristics import c4
from pipeline.steps.pii import find_emails, find_ips, mask
from winnow.filesystem import tables

EMAILS = ["email@example.com", "firstname.lastname@example.org"]
IPS = ["22.214.171.124", "126.96.36.199"]

_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_OCTET = r"(?:25[0-5]|2[0-4][0-9]|[01]?[0-9][0-9]?)"
_IP = rf"(?:{_OCTET}\.){{3}}{_OCTET}"
EMAIL = re.compile(rf"\b{_ATOM}(?:\.{_ATOM})*@(?:(?:{_LABEL}\.)+{_LABEL}|\[{_IP}\])")


def masked(text, pattern, replacements, valid=lambda found: True):
    """The text with each match replaced in turn, and how many."""
    times = 0

    def replacement(match):
        nonlocal times
        if not valid(match[0]):
            return match[0]
        times += 1
        return replacements[(times - 1) % len(replacements)]

    return re.sub(pattern, replacement, text), times


def is_public(text):
    try:
        return ipaddress.ip_address(text).is_global
    except ValueError:
        return False


ADDRESSES = [
    "8.8.8.8",
    "192.168.0.1",
    "256.1.1.300",
    "1.2.3.4",
    "01.2.3.4",
    "249",
    "1234",
    "100.64.0.1",
]
PARTS = [*"ab1é_-.@@@..+! []25\n", *ADDRESSES, "com", "@x.de", ".org", "a@b.cd", "[1.2.3.4]"]
addressed = st.lists(st.lists(st.sampled_from(PARTS), max_size=25).map("".join), max_size=8)


@given(addressed)
@example(
    ["", "@", "a@b", "é@b.de", "éa@b.de", "x.@y.de", ".x@y.de", "a..b@c.de", "a@b-.de", "a@b.c-"]
)
@example(
    ["a@b.de,c@d.fr;e@f.it a@[8.8.8.8]", "1.2.3.4.5.6.7.8", "v1.22.3.4567", "10.0.0.1 8.8.4.4"]
)
@settings(max_examples=200, deadline=None)
def test_addresses_are_masked_as_regular_expressions_do(texts):
    text, times = mask(array(texts), find_emails, EMAILS)
    expected = [masked(t, EMAIL, EMAILS) for t in texts]
    assert list(zip(text.to_pylist(), times.tolist(), strict=True)) == expected
    for public, valid in ((True, is_public), (False, lambda found: not re.search(r"\b0\d", found))):
        text, times = mask(array(texts), functools.partial(find_ips, public), IPS)
        expected = [masked(t, _IP, IPS, valid) for t in texts]
        assert list(zip(text.to_pylist(), times.tolist(), strict=True)) == expected


def cleaned(text, ends, min_words):
    """The lines of a text that C4 leaves, without citations."""
    text = re.sub(r"\[\d*\]|\[edit\]|\[citation needed\]", "", text)
    kept = []
    for line in map(str.strip, text.split("\n")):
        lower = "".join(c.lower() if c.isascii() else c for c in line)
        if (
            min_words <= len(line.split())
            and line
            and (not ends or (line[-1] in ends and not line.endswith("...")))
            and not any(phrase in lower for phrase in list(c4.PHRASES)[1:])
        ):
            kept.append(line)
    return "\n".join(kept)


@given(documents)
@example([f"{SENTENCE}[1]\n\n [edit] two words.\n{SENTENCE}", "[12]", "a\nb"])
@settings(max_examples=60, deadline=None)
def test_lines_and_citations_are_removed_as_a_plain_loop_would(texts):
    for ends, words in (('.!?"', 5), ("", 1)):
        statistics, text = c4.clean(array(texts), ends, words, 1000)
        assert text.to_pylist() == [cleaned(t, ends, words) for t in texts]
        without = [re.sub(r"\[\d*\]|\[edit\]|\[citation needed\]", "", t) for t in texts]
        same = c4.measure(array(without), ends, words, 1000)
        assert np.array(statistics).tolist() == np.array(same).tolist()


TEXTS = [
    f"{SENTENCE * 3}\nhome | about\nWrite to me@home.example.org or to 8.8.8.8 right now.",
    f"{SENTENCE}\nonly one, by a@b.cd",
    f"{SENTENCE * 2}[7] {SENTENCE}".strip(),
]
SHORTENED = [
    SENTENCE * 2
    + SENTENCE.strip()
    + "\nWrite to email@example.com or to 22.214.171.124 right now.",
    f"{SENTENCE}\nonly one, by email@example.com",
    f"{SENTENCE * 2} {SENTENCE}".strip(),
]


def scored(folder, name, texts, steps):
    """The record and the documents of a task with these steps; the same decided again."""
    write_jsonl(folder / "in.jsonl", [{"text": text} for text in texts])
    (folder / "run.yaml").write_text(json.dumps({"steps": steps}))
    flags = [f"--source=web={folder}/in.jsonl", "--filter=web", "--rule=all"]
    flags += [f"--classifier={folder}/classifier", f"--output={folder}/{name}"]
    config, _, _ = pipeline_config.load([*flags, f"--config={folder}/run.yaml"])
    planned = plan_tasks(config.source, config.filter, config.split_bytes)
    job, about = describe(config, planned, False)
    record = run_task(planned[0], job, Rule("all"), f"{folder}/{name}/shards")
    (batch,) = tables.batches(f"{folder}/{name}/shards/{record.shards[0].name}")
    again = decide_task(
        record, f"{folder}/{name}/shards", job.sink, Rule("all"), np.empty(0, np.int64)
    )
    (decided,) = tables.batches(f"{folder}/{name}/shards/{again.shards[0].name}")
    assert decided.equals(batch)
    return record, batch, about


def test_a_run_writes_the_changed_text_and_counts_what_it_changed(tmp_path):
    write_classifier(tmp_path / "classifier")
    steps = {"c4": {"remove_lines": True}, "pii": {}}
    record, batch, _ = scored(tmp_path, "changed", TEXTS, steps)
    plain_record, plain, _ = scored(tmp_path, "plain", TEXTS, {"c4": {}})

    assert plain.schema.equals(schema.shard_schema())
    assert "changed" not in plain_record.to_json()
    counts = ("masked_emails", "masked_ips", "removed_bytes")
    assert batch.schema.equals(schema.shard_schema(counts=counts))
    for name in ("id", "content_hash", "quality_score", "keep_draw", "kept", "drop_reason"):
        assert batch[name].equals(plain[name]), name
    assert batch["drop_reason"].to_pylist() == [None, "c4_sentences", None]

    assert batch["text"].to_pylist() == SHORTENED
    assert batch["bytes"].to_pylist() == [len(text) for text in SHORTENED]
    assert batch["words"].to_pylist() == [len(text.split()) for text in SHORTENED]
    removed = [len(" \nhome | about"), 0, len("[7]")]
    assert batch["removed_bytes"].to_pylist() == removed
    assert batch["masked_emails"].to_pylist() == [1, 1, 0]
    assert batch["masked_ips"].to_pylist() == [1, 0, 0]
    total = {"masked_emails": 2, "masked_ips": 1, "removed_bytes": sum(removed)}
    assert dict(record.changed) == total
    masked = sum(map(len, TEXTS)) - sum(removed) - sum(map(len, SHORTENED))
    assert record.by_step == {
        "c4": {"documents": 2, "removed_bytes": sum(removed)},
        "pii": {"documents": 2, "removed_bytes": masked},
    }
    assert "by_step" not in plain_record.to_json()

    manifest = {"tasks": [record.to_json(), plain_record.to_json()]}
    (row,) = by_source(manifest)
    assert row == {
        "source": "web",
        "bytes removed": sum(removed),
        "e-mail addresses masked": 2,
        "IP addresses masked": 1,
    }
    assert f"{sum(removed)} bytes removed" in sentence(manifest)[0]
    assert sentence({"tasks": [plain_record.to_json()]}) == []


def test_metadata_may_not_take_the_name_of_a_count(tmp_path):
    write_classifier(tmp_path / "classifier")
    write_jsonl(tmp_path / "in.jsonl", [{"text": "x", "masked_ips": "1"}])
    flags = [f"--source=web={tmp_path}/in.jsonl", "--steps=pii", "--metadata=masked_ips"]
    flags += [f"--{name}={tmp_path}/{name}" for name in ("classifier", "output")]
    config, _, _ = pipeline_config.load(flags)
    with pytest.raises(ValueError, match=r"'masked_ips'. would clash with what the steps count"):
        describe(config, plan_tasks(config.source, config.filter, config.split_bytes), False)


@pytest.mark.slow
def test_masking_takes_linear_time():
    """A search from every place would hang here."""
    text = ["a-" * 1_000_000, "1.." * 1_000_000, "a." * 1_000_000 + "@", "x@" * 1_000_000]
    batch = pa.RecordBatch.from_arrays([array(text)], names=["text"])
    same, codes = configured("pii")(batch)
    assert same is batch
    assert not codes.any()
