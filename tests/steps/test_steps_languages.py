"""Settings of steps by language: who meets which, words of any script, settings from good text."""

import collections
import gzip
import json
import re
import unicodedata

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import tokenizers
import yaml
from corpora import ROOT, write_classifier, write_jsonl
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pyarrow import dataset
from step_checks import EDGES, bare, documents

from model.data import tokenizer
from pipeline import fit_steps, run
from pipeline.settings.step_settings import check, read_languages, resolve_steps
from pipeline.steps import build_steps, input_files
from pipeline.steps.heuristics import fitting
from pipeline.steps.words.stop_words import StopWords
from pipeline.steps.words.word_kinds import separate_letters

QUALITY = ("gopher", "gopher_repetition", "fineweb")
UNSPACED = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u4e00-\u9fff"


@pytest.fixture(scope="module")
def articles():
    """The articles of the Universal Declaration of Human Rights by language."""
    found = collections.defaultdict(list)
    with gzip.open(
        ROOT / "tests" / "text" / "declaration.jsonl.gz", "rt", encoding="utf-8"
    ) as file:
        for line in file:
            row = json.loads(line)
            found[row["language"]].append(row["text"])
    return dict(found)


def batch_of(texts, languages):
    zeros = pa.array(np.zeros(len(texts), np.int64))
    return pa.RecordBatch.from_pydict(
        {
            "text": pa.array(texts, pa.large_string()),
            "language": pa.array(languages, pa.string()),
            "drop_reason": pa.nulls(len(texts), pa.string()),
            **dict.fromkeys(("bytes", "characters", "words", "removed_bytes"), zeros),
        }
    )


def only(name, changes):
    (step,) = build_steps(resolve_steps({name: changes}))
    return step


def test_each_document_meets_the_settings_of_its_language_alone():
    """Also where a step changes the text, and whatever the order and the mixture of languages."""
    own = {
        "de": {"min_line_words": 2},
        "zh": {"line_ends": "。", "min_line_words": 1, "min_sentences": 1},
        "(none)": {"min_sentences": 1},
    }
    general = {"remove_lines": True}
    texts = [
        "Ein Satz. Noch einer. Und der dritte.\nkurz",
        "日本です。\n本です",
        "One sentence of five words. Two of two. And the third one.",
        "This is one line of words.",
        "Lorem ipsum dolor sit amet.",
    ]
    languages = ["de", "zh", "en", None]
    rows = [(text, language) for text in texts for language in languages]
    rng = np.random.default_rng(0)
    rows = [rows[k] for k in rng.permutation(len(rows))]
    batch = batch_of(*zip(*rows, strict=True))
    together = only("c4", general | {"by_language": own})
    changed, codes = together(batch)
    assert len(set(codes.tolist())) > 2
    for k, (text, language) in enumerate(rows):
        key = "(none)" if language is None else language
        if key not in own:
            assert (codes[k], changed["text"][k].as_py()) == (0, text)
            continue
        alone, code = only("c4", general | own[key])(batch_of([text], [language]))
        assert codes[k] == code[0]
        assert changed.slice(k, 1).to_pydict() == alone.to_pydict()
    assert together.without(batch) == {"en": sum(language == "en" for _, language in rows)}
    others = only("c4", general | {"by_language": own | {"*": None}})
    assert others.without(batch) == {}
    plain = only("c4", general)(batch)[1]
    english = np.array([language == "en" for _, language in rows])
    assert (others(batch)[1][english] == plain[english]).all()


def test_languages_change_the_steps_they_name_and_no_others(tmp_path):
    (tmp_path / "bad.txt").write_text("schlimm\n")
    given_ = {"de": {"gopher": {"min_words": 20}, "c4": {"bad_words": [f"{tmp_path}/bad.txt"]}}}
    steps = resolve_steps({"gopher": {"min_words": 30}, "c4": None, "fineweb": None}, given_)
    assert steps["gopher"]["by_language"] == {"de": {"min_words": 20}}
    assert steps["fineweb"] == resolve_steps(["fineweb"])["fineweb"]
    assert input_files(steps) == [f"{tmp_path}/bad.txt"]
    batch = batch_of(["Das ist schlimm. Und das. Und das ist nicht so schlimm."] * 2, ["de", "fr"])
    assert build_steps(steps)[1](batch)[1].tolist() == [4, 0]  # for a bad word


@pytest.mark.parametrize(
    ("languages", "message"),
    [
        ("{no: {gopher: {}}}", "language False is not text: put it in quotes"),
        ("{de: {gopherr: {}}}", "language de: unknown step 'gopherr'; known are"),
        ("{de: 3}", "language de: expected steps with settings"),
        ("{de: {gopher: {min_word: 1}}}", "language de: step gopher: no setting .'min_word'"),
        (
            "{de: {gopher: {stop_words: [a b, c]}}}",
            "language de: step gopher: stop_words are words, and 'a b'",
        ),
        ("{de: {gopher: {words: datatrove, stop_words: [der]}}}", "stop_words are English with"),
        ("{de: {c4: {words: characters}}}", "words is 'whitespace' or 'datatrove', not 'char"),
        ("{de: {language: {min_score: 0.5}}}", "no settings by language: it identifies"),
        ("{de", "--languages is not YAML: line 1"),
        ("nowhere.yaml", "--languages: there is no file nowhere.yaml"),
    ],
)
def test_what_is_wrong_with_settings_by_language_is_said(languages, message):
    with pytest.raises(ValueError, match=message):
        steps = resolve_steps(["gopher", "c4", "language"], read_languages(languages))
        build_steps(steps)


def test_something_must_tell_the_language_first():
    steps = resolve_steps(["gopher", "language"], {"de": {"gopher": {"min_words": 1}}})
    with pytest.raises(
        ValueError, match="put the step language first, or name the field with --fiel"
    ):
        check(steps, has_field=False)
    check(steps, has_field=True)
    check(dict(reversed(steps.items())), has_field=False)


def separate_reference(text):
    """Plain Python: a word ends before a letter or digit of, or behind, an unspaced script."""
    words = []
    for word in text.split():
        begun = alone = False
        parts = [""]
        for character in word:
            if character.isalnum():
                solo = re.match(f"[{UNSPACED}]", character) is not None
                if begun and (solo or alone):
                    parts.append("")
                begun, alone = True, solo
            parts[-1] += character
        words += parts
    return words


MIXED = st.text(st.sampled_from("日本語ですカタ。、「」ที่กา12ab .\n\u3000é한국"), max_size=40)


@given(st.lists(MIXED, max_size=5))
@settings(max_examples=30, deadline=None)
def test_letters_of_unspaced_scripts_are_words(texts):
    parted = separate_letters(pa.array(["x", *texts], pa.large_string())[1:]).to_pylist()
    assert [text.split() for text in parted] == [separate_reference(text) for text in texts]
    for before, after in zip(texts, parted, strict=True):
        assert [line.replace(" ", "") for line in after.split("\n")] == [
            line.replace(" ", "") for line in before.split("\n")
        ]


LISTED = ["the", "With", "naïve", "а", "1", "日本語です", "is"]


@given(documents)
@example(EDGES)
@settings(max_examples=30, deadline=None)
def test_stop_words_are_counted_as_plain_python_counts_them(texts):
    wanted = {word.casefold() for word in LISTED}
    expected = [len({bare(w).casefold() for w in text.split()} & wanted) for text in texts]
    array = pa.array(["the", *texts], pa.large_string())[1:]
    assert StopWords(LISTED).count(array, len(LISTED)).tolist() == expected
    assert StopWords(LISTED).count(array, 2).tolist() == [min(n, 2) for n in expected]


def test_stop_words_end_in_marks_and_stand_anywhere_where_letters_are_words():
    hindi = pa.array(["यह घर की «है», का।", "क ह"], pa.large_string())
    assert StopWords(["की", "है", "का"]).count(hindi, 9).tolist() == [3, 0]
    thai = pa.array(["บ้านและคน", "บ้าน", "AND THEN"], pa.large_string())
    assert StopWords(["และ", "คน", "and"]).count_anywhere(thai).tolist() == [2, 0, 1]


def test_eight_scripts_pass_with_the_settings_of_their_languages(articles):
    """Whole pages of the Declaration pass; by the general settings whole languages are dropped."""
    rows = [
        ("\n".join(texts[k : k + 5]), language)
        for language, texts in articles.items()
        for k in range(0, 30, 5)
    ]
    batch = batch_of(*zip(*rows, strict=True))
    general, own = (
        [step(batch)[1] for step in build_steps(resolve_steps([*QUALITY], languages))]
        for languages in (None, read_languages("default"))
    )
    dropped = collections.Counter(
        language for k, (_, language) in enumerate(rows) if any(codes[k] for codes in general)
    )
    assert all(dropped[language] == 6 for language in ("de", "ru", "ar", "hi", "zh", "ja", "th"))
    assert [rows[k] for k in range(len(rows)) if any(codes[k] for codes in own)] == []
    english = [k for k, (_, language) in enumerate(rows) if language == "en"]
    for before, after in zip(general, own, strict=True):
        assert (before[english] == after[english]).all()


def letters(word):
    """The word without what is no letter, mark or number, as punctuation at its ends."""
    return "".join(c for c in word if unicodedata.category(c)[0] in "LMN")


def test_what_is_no_prose_is_dropped_in_every_language(articles):
    """Words without their stop words, a line again and again, numbers, and another language's."""
    languages = read_languages("default")
    gopher, repetition, _ = build_steps(resolve_steps([*QUALITY], languages))
    for language, texts in articles.items():
        text = " ".join(texts[:8])
        chosen = languages[language]["gopher"].get("stop_words", ["the", "and", "of", "to"])
        if "words" in languages[language]["gopher"]:
            bare_text = re.sub("|".join(map(re.escape, chosen)), "", text)
        else:
            bare_text = " ".join(w for w in text.split() if letters(w).casefold() not in chosen)
        numbers = " ".join(map(str, range(1000, 1200)))
        other = "한국" if language != "ko" else "ру сс"
        codes = gopher(batch_of([bare_text, numbers, f"{other} " * 60], [language] * 3))[1]
        if language == "en":
            codes[0] = codes[0] or 8  # be, have, that, with: only four of eight were taken out
        assert (codes > 0).all(), (language, codes)
        again = "\n".join([texts[0]] * 5)
        assert repetition(batch_of([again], [language]))[1][0] > 0, language


def test_a_fitted_rule_drops_no_more_than_the_tail(articles):
    general, tail = resolve_steps([*QUALITY]), 0.1
    for language in ("de", "hi", "th", "zh"):
        texts = pa.array(articles[language], pa.large_string())
        found = fitting.fit([texts.slice(0, 11), texts.slice(11)], general, tail)
        batch = batch_of(articles[language], [language] * 30)
        for name, own in found.items():
            loose = {"min_words": 0} if name == "gopher" else {}
            step = only(name, own | loose)
            counts = np.bincount(step(batch)[1], minlength=len(step.reasons) + 1)
            limited = [
                count
                for reason, count in zip(step.reasons, counts[1:].tolist(), strict=True)
                if not re.search("repeated_(line|para)|word_length|fineweb_repeated", reason)
            ]
            assert max(limited) <= tail * 30, (language, name, own, counts)


def test_stop_words_are_the_most_frequent_words(articles):
    for language in ("de", "ru"):
        words = [bare(word) for word in " ".join(articles[language]).lower().split()]
        words = [word for word in words if word and all(c.isalpha() or c in "’-'" for c in word)]
        counts = collections.Counter(words)
        found = fitting.stop_words([pa.array(articles[language], pa.large_string())], "whitespace")
        ranked = sorted(counts.values(), reverse=True)
        assert [counts[word] for word in found] == ranked[: len(found)]
        share = [n / len(words) for n in ranked]
        assert len(found) == min(15, max(8, sum(s >= 0.008 for s in share)))
    letters = collections.Counter(
        c for c in "".join(articles["zh"]) if unicodedata.category(c) == "Lo"
    )
    found = fitting.stop_words([pa.array(articles["zh"], pa.large_string())], "characters")
    assert {letters[c] for c in found} <= {n for _, n in letters.most_common(len(found))}


@pytest.mark.slow
def test_from_good_text_to_a_run_by_language(articles, tmp_path, capsys):
    """``winnow steps fit`` writes what ``winnow run --languages`` takes; the rest is told."""
    for language in ("de", "th"):
        write_jsonl(tmp_path / f"{language}.jsonl", [{"text": t} for t in articles[language]])
    with (tmp_path / "de.jsonl").open("a") as lines:
        lines.write('{"text": 1}\n')
    file = tmp_path / "languages.yaml"
    sources = [f"--source={code}={tmp_path}/{code}.jsonl" for code in ("th", "de")]
    fit_steps.main([*sources, "--tail=0.04", f"--output={file}"])
    said = capsys.readouterr()
    assert "th: words by characters, stop words " in said.out
    assert "warning: de: 1 of its records could not be read, the first is" in said.err
    found = yaml.safe_load(file.read_text())
    assert list(found) == ["de", "th"]
    write_classifier(tmp_path / "classifier")
    rows = [
        {"text": "\n".join(texts[k : k + 5]), "lang": language}
        for language, texts in articles.items()
        for k in range(0, 30, 5)
        if language in ("de", "th", "ru", "ar")
    ]
    write_jsonl(tmp_path / "web.jsonl", rows)
    trained = tokenizer.train([row["text"] for row in rows], 400, "<|boundary|>")
    (tmp_path / "tokenizer.json").write_text(trained)
    arguments = [
        f"--source=web={tmp_path}/web.jsonl",
        "--filter=web",
        f"--classifier={tmp_path}/classifier",
        "--rule=top_fraction",
        "--target-fraction=0.5",
        "--target-unit=tokens",
        f"--tokenizer={tmp_path}/tokenizer.json",
        "--steps=gopher",
        f"--languages={file}",
        f"--output={tmp_path}/out",
    ]
    with pytest.raises(ValueError, match="nothing before it identifies languages"):
        run.main(arguments)
    run.main([*arguments, "--field=language=lang"])
    told = capsys.readouterr().err
    assert (
        "gopher passed 12 documents unchecked, as their languages have no settings: 6 in ar, 6"
        in told
    )
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert [task["unchecked"] for task in manifest["tasks"]] == [{"gopher": {"ar": 6, "ru": 6}}]
    assert manifest["config"]["steps"]["gopher"]["by_language"]["th"] == found["th"]["gopher"]
    table = dataset.dataset(tmp_path / "out" / "shards", format="arrow").to_table()
    encoding = tokenizers.Tokenizer.from_str(trained)
    expected = [
        len(encoding.encode(t, add_special_tokens=False)) for t in table["text"].to_pylist()
    ]
    assert table["tokens"].to_pylist() == expected
    assert manifest["tasks"][0]["changed"] == {"tokens": sum(expected)}
    shown = table.filter(pc.field("drop_reason").is_null() | (pc.field("drop_reason") == "quality"))
    reached, kept = (pc.sum(t["tokens"]).as_py() for t in (shown, shown.filter(shown["kept"])))
    assert abs(kept - reached / 2) <= max(expected)
    least = shown.filter(shown["kept"]).sort_by([("quality_score", "ascending")])["tokens"][0]
    assert kept - least.as_py() < reached / 2
