"""Language and URL block list; and what build_steps says to wrong settings."""

import json
import os
import subprocess
import sys
from types import ModuleType
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from step_checks import batch, configured, reasons

from pipeline.output.schema import shard_schema
from pipeline.settings.step_settings import resolve_steps
from pipeline.steps import build_steps, input_files, language
from pipeline.steps.urls import host_hashes, on_hosts
from quality_classifier.kinds import fasttext_model
from quality_classifier.kinds.fasttext_model import fasttext_module
from winnow.text.groups import domain
from winnow.text.hosts import normal_host

# Language


TEXTS = {
    "en": "The committee will meet on Thursday to discuss the new budget for schools.\n",
    "de": "Der Ausschuss trifft sich am Donnerstag, um den neuen Haushalt zu besprechen.\n",
    "fr": "Le comité se réunira jeudi pour discuter du nouveau budget des écoles.\n",
    "ja": "委員会は木曜日に会合を開き、学校の新しい予算について話し合います。\n",
}


def labelled(texts):
    nothing = [None] * len(texts)
    return batch(text=texts, language=nothing, language_score=nothing)


def test_languages_are_told_apart_and_only_wanted_ones_pass():
    rows = labelled(["", *TEXTS.values(), "ok"])[1:]
    out, found = reasons(configured("language"), rows)
    assert out["language"].to_pylist()[:4] == list(TEXTS)
    assert found == [None, "language", "language", "language", found[4]]
    assert found[4] in ("language", "language_score")
    assert out.schema == rows.schema
    assert all(0 < score <= 1 for score in out["language_score"].to_pylist())
    out, found = reasons(configured("language", languages=["de", "ja"], min_score=0.0), rows)
    assert found[:4] == ["language", None, "language", None]
    out, found = reasons(configured("language", languages=[]), rows)
    assert found == [None] * 5
    assert out["language"].to_pylist()[:4] == list(TEXTS)


def test_language_reads_past_newlines_and_fasttexts_end_mark_but_not_past_its_limit():
    german = TEXTS["de"] * 4
    texts = [f"The\n{german}", f"The </s> {german}", f"\n\n{german}", german.replace(" ", "\n")]
    out, _ = reasons(configured("language"), labelled(texts))
    assert out["language"].to_pylist() == ["de"] * 4
    clipped = [TEXTS["en"] + german, "é" * 10 + german, ""]
    out, _ = reasons(configured("language", max_characters=len(TEXTS["en"])), labelled(clipped))
    assert out["language"].to_pylist()[0] == "en"


def test_a_language_that_the_model_does_not_know_is_an_error():
    with pytest.raises(
        ValueError, match=r"step language: lid.176 has no language 'english': .* en"
    ):
        configured("language", languages=["en", "english"])


def train_language_model(lines, output, **options):
    """By a process of its own, whose memory starts as zeros: fastText relies on that."""
    output.with_suffix(".txt").write_text(lines)
    options = {"input": str(output.with_suffix(".txt")), "thread": 1, "verbose": 0, **options}
    subprocess.run(
        [sys.executable, "-c", fasttext_model._TRAIN, str(output)],
        input=json.dumps(options).encode(),
        env=os.environ | {"MALLOC_PERTURB_": "255"},
        check=True,
    )
    return output


@pytest.fixture(scope="module")
def own_model(tmp_path_factory):
    """A model in the manner of GlotLID, with its kind of labels."""
    lines = "".join(f"__label__{code} {TEXTS[lid]}" for code, lid in OWN_LABELS.items()) * 20
    output = tmp_path_factory.mktemp("language") / "own.bin"
    return train_language_model(lines, output, dim=8, epoch=50, lr=1.0, minn=2, maxn=4, bucket=5000)


OWN_LABELS = {"eng_Latn": "en", "deu_Latn": "de", "jpn_Jpan": "ja"}


def test_a_model_of_the_users_own_takes_the_place_of_lid_176(own_model):
    step = configured("language", model=str(own_model), languages=["deu_Latn"], min_score=0.0)
    rows = labelled([TEXTS[name] for name in OWN_LABELS.values()])
    out, found = reasons(step, rows)
    assert out["language"].to_pylist() == list(OWN_LABELS)
    assert found == ["language", None, "language"]
    with pytest.raises(ValueError, match=r"own.bin has no language 'deu': .* 3 codes are deu_Latn"):
        configured("language", model=str(own_model), languages=["deu"])
    settings = resolve_steps({"language": {"model": str(own_model)}, "c4": {}})
    assert input_files(settings) == [str(own_model)]
    assert input_files(resolve_steps(["language"])) == []


def test_a_text_of_which_the_model_knows_nothing_has_no_language(tmp_path):
    lines = "".join(f"__label__{label} {f'{label}{label} ' * 9}\n" for label in "xy") * 5
    # A line's end comes 10 times, and so is not learnt; a word comes 45 times.
    own = train_language_model(lines, tmp_path / "own.bin", dim=2, minCount=20, bucket=0)
    rows = labelled(["xx xx", "zz", ""])
    step = configured("language", model=str(own), languages=["x"], min_score=0.0)
    out, found = reasons(step, rows)
    assert out["language"].is_null().to_pylist() == [False, True, True]
    assert out["language_score"].is_null().to_pylist() == [False, True, True]
    assert found[1:] == ["language", "language"]
    _, found = reasons(configured("language", model=str(own), languages=[]), rows)
    assert found == [None] * 3


def test_a_file_that_is_no_whole_language_model_is_an_error(own_model, tmp_path):
    whole = own_model.read_bytes()
    wrong = {"cut off or damaged": whole[:-9], "not a fastText model": b"text" * 99}
    for reason, content in wrong.items():
        path = tmp_path / reason[:3]
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"step language: {path} is {reason}"):
            configured("language", model=str(path))
    with pytest.raises(ValueError, match=r"step language: cannot read .*nothing: No such file"):
        configured("language", model=str(tmp_path / "nothing"))


def test_another_lid_176_than_fasttexts_is_an_error(monkeypatch, tmp_path):
    monkeypatch.setattr(language, "LID_176", tmp_path / "lid.176.ftz")
    language._model.cache_clear()
    with pytest.raises(ValueError, match="missing or damaged: install Winnow again"):
        configured("language")
    language.LID_176.write_bytes(b"another")
    with pytest.raises(ValueError, match="missing or damaged: install Winnow again"):
        configured("language")


def test_a_fasttext_module_of_another_package_is_an_error(monkeypatch):
    other = ModuleType("fasttext")
    other.__file__ = "site-packages/fasttext/__init__.py"
    monkeypatch.setitem(sys.modules, "fasttext", other)
    language._model.cache_clear()
    fasttext_module.cache_clear()
    try:
        with pytest.raises(ValueError, match=r"is not fasttext-numpy2's: .*--force-reinstall"):
            configured("language")
    finally:
        fasttext_module.cache_clear()


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
    listed = [normal_host(domain).removeprefix("www.") for domain in domains]

    def blocked(url):
        host = (urlsplit(url).hostname or "") if url and "://" in url else url or ""
        labels = host.strip(".").removeprefix("www.").split(".")
        return any(".".join(labels[i:]) in names for i in range(len(labels)))

    column = pa.array([None, *values], pa.string())[1:]
    assert on_hosts(column, host_hashes(listed)).tolist() == [blocked(url) for url in values]


LISTED = {
    "bad.example": [
        *("http://bad.example/x", "<http://bad.example/x>", "HTTP://BAD.EXAMPLE/x", "bad.example"),
        *("http://bad.example:8080/x", "http://user:pw@bad.example/x", "http://bad.example./x"),
        *("//bad.example/x", "bad.example/x", "bad.example:80/x", " http://bad.example/x\n"),
        *("http://sub.bad.example?x", "http://bad.example#f", "http://bad.example\\x"),
        *("http://bad\u3002example/x", "https:/bad.example/x", "http:///bad.example/x"),
        *("http://%62ad.example/x", "ftp://bad.example", "view-source:http://bad.example/"),
        *("http://good.example@bad.example/", "http://bad.exa\tmple/x", "http:bad.example"),
        *(
            "urn:pageinfo:http://bad.example/x",
            "http://ｂａｄ.example/",
            "http://www.www.bad.example",
        ),
    ],
    "bücher.example": [
        *(
            "http://bücher.example/x",
            "http://xn--bcher-kva.example/x",
            "http://B\u00dcCHER.example",
        ),
        *(
            "http://bu\u0308cher.example",
            "http://XN--BCHER-KVA.EXAMPLE:1/",
            "//xn--bcher-kva.example",
        ),
    ],
    "faß.example": ["http://faß.example", "https://xn--fa-hia.example/"],
    "💩.example": ["http://💩.example", "https://xn--ls8h.example/"],
    "1.2.3.4": ["http://1.2.3.4/x", "http://0x1.0x2.3.4", "http://16909060:80/", "http://1.2.772"],
    "[::1]": ["http://[::1]/x", "http://[0:0:0:0:0:0:0:1]:80/", "//[::1]"],
}
UNLISTED = [
    *(
        "http://notbad.example/",
        "http://good.example/?u=http://bad.example/",
        "mailto:a@good.example",
    ),
    *(
        "http://fass.example",
        "http://good.example/bad.example",
        "file:///bad.example",
        "/bad.example",
    ),
    *("http://bad.example.good.example", "http://bad.example@good.example", "urn:bad.example", ""),
    *(
        "http://[bad.example]/",
        "http://bad example/",
        "http://1.2.3",
        "http://[::2]/",
        "index.html",
    ),
]


@pytest.mark.parametrize(
    "line",
    ["{}", "\ufeff{}", "*.{}", ".{}.", "0.0.0.0\t{} x.org # y", "||{}^", "{}\r", "  {} # why"],
)
def test_one_normal_form_of_hosts_in_lists_urls_and_statistics(tmp_path, line):
    (tmp_path / "list").write_text("\n".join(line.format(name) for name in LISTED))
    rows = [(url, name) for name, found in LISTED.items() for url in found]
    rows += [(url, None) for url in UNLISTED]
    step = configured("url_blocklist", domains=[str(tmp_path / "list")])
    _, found = reasons(step, batch(url=[url for url, _ in rows]))
    expected = ["url_domain" if name else None for _, name in rows]
    assert dict(zip(rows, found, strict=True)) == dict(zip(rows, expected, strict=True))
    names = domain(pa.array([url for url, _ in rows])).to_pylist()
    for (_, name), host in zip(rows, names, strict=True):
        if name and name != "bad.example":  # below which there are others
            assert host == normal_host(name)


@pytest.mark.parametrize("line", ["http://bad.example/x", "two words", "a/b", "*", "*.*", "x..y"])
def test_a_line_that_can_block_nothing_is_an_error(tmp_path, line):
    (tmp_path / "list").write_text(f"fine.example\n{line}\n")
    with pytest.raises(ValueError, match=r"line 2 of the list .*list is not a domain"):
        configured("url_blocklist", domains=[str(tmp_path / "list")])


@pytest.mark.slow
def test_a_list_of_very_many_words(tmp_path):
    (tmp_path / "words").write_text("".join(f"word{i}\n" for i in range(300_000)))
    files = [str(tmp_path / "words")]
    step = configured("url_blocklist", words=files, substrings=files)
    urls = ["http://a.example/word299999", "http://a.example/xword299999x", "http://a.example/word"]
    assert reasons(step, batch(url=urls))[1] == ["url_word", "url_substring", None]


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
    _, found = reasons(configured("url_blocklist", **files), batch(url=[*rows, None]))
    assert found == [*rows.values(), None]


@pytest.mark.parametrize("entry", ["*.x.example", "casino*", "*"])
def test_a_wildcard_in_words_or_substrings_is_an_error(tmp_path, entry):
    (tmp_path / "list").write_text(f"fine\n{entry}\n")
    for setting in ("words", "substrings"):
        with pytest.raises(ValueError, match=r"'\*' is not a wildcard"):
            configured("url_blocklist", **{setting: [str(tmp_path / "list")]})


# Settings


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("gopher", {"min_word": 3}, "step gopher: no setting .*min_word.*min_words"),
        ("gopher", {"min_words": "many"}, "step gopher: min_words must be a number, not 'many'"),
        ("gopher", {"min_words": True}, "min_words must be a number"),
        ("gopher", {"min_words": None}, "min_words must be a number"),
        ("fineweb", {"short_line_characters": 3.5}, "must be a whole number"),
        ("gopher", {"max_hash_ratio": float("nan")}, "max_hash_ratio must be a number, not nan"),
        ("gopher_repetition", {"max_top_n_gram": [0.1, float("nan"), 0.1]}, "a list of numbers"),
        ("c4", {"max_word_characters": 1 << 63}, "must be a whole number of 64 bits"),
        ("decontamination", {"n": float("inf")}, "n is from 1 to 1000"),
        ("gopher_repetition", {"max_top_n_gram": [0.2]}, "max_top_n_gram needs 3 values"),
        ("language", {"languages": "en"}, "languages must be a list of text"),
        ("url_blocklist", {}, "step url_blocklist: no list is given"),
        ("c4", {"bad_words": ["nowhere/*.txt"]}, "step c4: nothing matches"),
        ("decontamination", {}, "step decontamination: no evaluation files"),
        ("decontamination", {"n": 0}, "n is from 1 to 1000, not 0"),
    ],
)
def test_wrong_settings_are_named(name, changes, message):
    with pytest.raises(ValueError, match=message):
        configured(name, **changes)


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
