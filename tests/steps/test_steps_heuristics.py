"""Gopher, C4 and FineWeb rules: statistics against plainly written Python, and named cases."""

import itertools
import re
import unicodedata
from collections import Counter

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from step_checks import EDGES, SENTENCE, array, bare, check, documents, verdict

from pipeline.settings.step_settings import resolve_steps
from pipeline.steps.heuristics import c4, fineweb, gopher, repetition
from pipeline.steps.words.lexicon import contains, lexicon

odd_texts = st.one_of(
    st.text(max_size=80),
    st.lists(st.sampled_from("ab \n"), max_size=150).map("".join),
    st.lists(st.sampled_from(["a", "b", "cc"]), max_size=80).map(" ".join),
)


def every(texts):
    """A property over documents, with a fixed list of edge cases always among them."""

    def decorate(test):
        strategy = st.lists(odd_texts, max_size=4) | documents
        return settings(max_examples=120, deadline=None)(example(EDGES)(given(strategy)(test)))

    return decorate(texts)


def lines_of(text):
    return [line.strip() for line in text.split("\n") if line.strip()]


def gopher_reference(text):
    words = text.split()
    lines = lines_of(text)
    return gopher.Statistics(
        words=len(words),
        counted_words=len(words),
        word_characters=sum(map(len, words)),
        alphabetic_words=sum(any(c.isalpha() for c in word) for word in words),
        stop_words=len(
            {"the", "be", "to", "of", "and", "that", "have", "with"} & set(map(bare, words))
        ),
        hashes=text.count("#"),
        ellipses=text.count("...") + text.count("…"),
        lines=len(lines),
        bullet_lines=sum(line.startswith(("•", "-")) for line in lines),
        ellipsis_lines=sum(line.endswith(("...", "…")) for line in lines),
    )


def fineweb_reference(text, ends=".?!\"'。", short=30):
    lines = lines_of(text)
    repeated = [line for i, line in enumerate(lines) if line in lines[:i]]
    return fineweb.Statistics(
        words=len(text.split()),
        newlines=text.count("\n"),
        lines=len(lines),
        punctuated_lines=sum(line[-1] in ends for line in lines),
        short_lines=sum(len(line) <= short for line in lines),
        line_characters=sum(map(len, lines)),
        repeated_characters=sum(map(len, repeated)),
    )


def c4_reference(text, line_ends, min_words, max_characters):
    lorem = brackets = sentences = 0
    for line in lines_of(text):
        words = line.split()
        lower = "".join(c.lower() if c.isascii() else c for c in line)
        if max(map(len, words)) > max_characters or len(words) < min_words:
            continue
        if line_ends and (line[-1] not in line_ends or line.endswith("...")):
            continue
        lorem += "lorem ipsum" in lower
        if "javascript" in lower:
            continue
        brackets += "{" in line
        if any(phrase in lower for phrase in list(c4.PHRASES)[2:]):
            continue
        ends = r"[.!?][\"')\]}”’»」』）]*(?=\s|$)|[。！？｡．]"
        tail = re.split(ends, line)[-1]
        sentences += len(re.findall(ends, line))
        sentences += bool(re.sub(r"[\s\"')\]}”’»」』）]", "", tail))
    return c4.Statistics(lorem, brackets, sentences)


def repetition_reference(text):
    def repeats(parts):
        extra = [part for i, part in enumerate(parts) if part in parts[:i]]
        return len(parts), len(extra), sum(map(len, extra))

    lines = [line.strip() for line in text.split("\n")]
    groups = itertools.groupby(lines, key=bool)
    paragraphs = ["\n".join(group) for full, group in groups if full]
    words = text.split()

    def top(n):
        grams = [" ".join(words[i : i + n]) for i in range(len(words) - n + 1)]
        if not grams:
            return 0
        gram, times = Counter(grams).most_common(1)[0]
        return len(gram) * times

    def repeated(n):
        seen, characters, i = set(), 0, 0
        while i + n <= len(words):
            gram = tuple(words[i : i + n])
            if gram in seen:
                characters += len("".join(gram))
                i += n
            else:
                seen.add(gram)
                i += 1
        return characters

    return repetition.Statistics(
        len(text),
        *repeats([line for line in lines if line]),
        *repeats(paragraphs),
        [top(n) for n in (2, 3, 4)],
        [repeated(n) for n in (5, 6, 7, 8, 9, 10)],
    )


@every
def test_gopher_statistics_equal_plain_python(texts):
    check(gopher.measure(array(texts)), [gopher_reference(text) for text in texts])


@every
def test_repetition_statistics_equal_plain_python(texts):
    check(repetition.measure(array(texts)), [repetition_reference(text) for text in texts])


@every
def test_fineweb_statistics_equal_plain_python(texts):
    measured = fineweb.measure(array(texts), ".?!\"'。", 30)
    check(measured, [fineweb_reference(text) for text in texts])


@every
def test_c4_statistics_equal_plain_python(texts):
    for ends, words, characters in (('.!?"', 5, 1000), ("", 0, 12), ("。.", 2, 5)):
        measured = c4.measure(array(texts), ends, words, characters)
        check(measured, [c4_reference(text, ends, words, characters) for text in texts])


GOOD = (
    "The old harbour of the town was built with stone that masons cut from a hill to the north. "
    "Ships have come to it since, and their crews bought bread, salt fish, rope and fresh water. "
    "In winter a strong wind blows over the quay, so boats must be tied twice by careful hands. "
    "Children learn early which clouds bring rain, when nets need mending and where crabs hide."
)


@pytest.mark.parametrize("name", ["gopher", "gopher_repetition", "c4", "fineweb"])
def test_good_prose_passes_and_an_empty_text_gets_a_verdict(name):
    assert verdict(name, GOOD) is None
    for text in ("", "\n \n", "\u3000"):
        expected = {
            "gopher": "gopher_word_count",
            "gopher_repetition": None,
            "c4": "c4_sentences",
            "fineweb": "fineweb_line_punctuation",
        }
        assert verdict(name, text) == expected[name]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("the and " + "word " * 47, "gopher_word_count"),
        ("the and " + "word " * 48, None),
        ("the and " + "word " * 99_999, "gopher_word_count"),
        ("the and " + "a " * 60, "gopher_word_length"),
        ("the and " + "incomprehensible " * 60, "gopher_word_length"),
        (GOOD + " #" * 9, "gopher_hashes"),
        (GOOD + " word..." * 9, "gopher_ellipses"),
        (GOOD + "…" * 9, "gopher_ellipses"),
        (
            "\n".join(["- the and a bulleted line"] * 19 + ["• x", "plain"]),
            "gopher_bullet_lines",
        ),
        ("\n".join(["- the and a bulleted line"] * 18 + ["plain line"] * 2), None),
        ("\n\n".join(["the and so many words in a line…", *["the lines"] * 3] * 10), None),
        (
            "\n\n".join(["the and so many words in a line…", "the whole line here"] * 10),
            "gopher_ellipsis_lines",
        ),
        ("the and " + "word 1234 " * 30, "gopher_alphabetic_words"),
        ("the the The “the” " + "word " * 60, "gopher_stop_words"),
        ("(The) “with”, " + "word " * 60, None),
        ("theme withal " + "word " * 60, "gopher_stop_words"),
    ],
)
def test_gopher_quality_cases(text, reason):
    assert verdict("gopher", text) == reason


FILLER = "\n\n".join(f"{a}{b} {b}{c} {c}{a}{b}" for a, b, c in itertools.permutations("efghij", 3))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (FILLER, None),
        ("\n\n".join(["same"] * 6 + [f"line{i}" * 9 for i in range(10)]), "gopher_repeated_lines"),
        (f"{FILLER}\n\n" + f"{'long' * 90} x\n\n" * 3, "gopher_repeated_line_characters"),
        (
            f"{FILLER}\n\n" + "\n\n".join(f"{'a' * k}\n{'b' * k}" for k in [2, 3] * 70),
            "gopher_repeated_lines",
        ),
        ("a b\n\na b\n\n" + "c d", "gopher_repeated_lines"),
        ("a b c " * 3 + " ".join(f"w{i}" for i in range(9)), "gopher_top_2_gram"),
        (FILLER + " one two three" * 70, "gopher_top_2_gram"),
        (
            " ".join(f"one two three four five six {i}" * 2 for i in range(9)),
            "gopher_top_2_gram",
        ),
    ],
)
def test_gopher_repetition_cases(text, reason):
    assert verdict("gopher_repetition", text) == reason


def test_each_repetition_rule_drops_by_its_own_threshold():
    """One switch at a time: a document of one repeated passage breaks every n-gram rule."""
    text = "\n\n".join(["one two three four five six seven eight nine ten eleven twelve"] * 4)
    off = {
        name: [float("inf")] * len(value) if isinstance(value, list) else float("inf")
        for name, value in resolve_steps(["gopher_repetition"])["gopher_repetition"].items()
        if name != "words"
    }
    assert verdict("gopher_repetition", text, **off) is None
    seen = set()
    for name, value in off.items():
        for k in range(len(value)) if isinstance(value, list) else [None]:
            one = 0.0 if k is None else [0.0 if i == k else v for i, v in enumerate(value)]
            seen.add(verdict("gopher_repetition", text, **{**off, name: one}))
    assert seen == set(repetition.GopherRepetition.reasons)


@pytest.mark.parametrize(
    ("text", "changes", "reason"),
    [
        (SENTENCE * 3, {}, None),
        (SENTENCE * 2, {}, "c4_sentences"),
        ("\n".join(["No full stop at the end"] * 9), {}, "c4_sentences"),
        ("\n".join(["No full stop at the end"] * 9), {"line_ends": ""}, None),
        ("\n".join(["It ends in an ellipsis..."] * 9), {}, "c4_sentences"),
        ("\n".join(["Four words a line."] * 9), {}, "c4_sentences"),
        (SENTENCE * 3 + "\nHere is a curly {bracket} too.", {}, "c4_curly_bracket"),
        (SENTENCE * 3 + "\n{", {}, None),  # the line does not count
        (SENTENCE * 3 + "\nThe LOREM Ipsum is in here.", {}, "c4_lorem_ipsum"),
        (SENTENCE * 3 + "\nThe lorem\nipsum is not in here.", {}, None),
        ("\n".join(["Please enable JavaScript in your browser."] * 9), {}, "c4_sentences"),
        ("\n".join(["Read our Privacy Policy with great care."] * 9), {}, "c4_sentences"),
        (SENTENCE * 9 + "x" * 1001, {"line_ends": ""}, "c4_sentences"),
        ("汉字 很 多 的 行。二。三。", {"line_ends": "。"}, None),
    ],
)
def test_c4_cases(text, changes, reason):
    assert verdict("c4", text, **changes) == reason


def test_c4_bad_words_stand_alone_in_any_case(tmp_path):
    (tmp_path / "bad.txt").write_text("# a comment\nscunthorpe\nrude phrase\n*star*\nÉtat\n")
    for text, bad in [
        ("We saw Scunthorpe, twice.", True),
        ("scunthorpe", True),
        ("Scunthorpes", False),
        ("éscunthorpe", False),
        ("a rude phrase", True),
        ("a rude  phrase", False),
        ("some *star* here", True),
        ("some xstarx here", False),
        ("l'état c'est moi", True),
    ]:
        found = verdict("c4", f"{text}\n{SENTENCE * 3}", bad_words=[str(tmp_path / "*.txt")])
        assert (found == "c4_bad_words") is bad, text


WORDS = ["色情", "ポルノ", "セックス", "ばか", "ไอ้สัตว์", "re", "café", "ПОРНО", "शब्द", "porn", "σεξ"]


@pytest.mark.parametrize(
    ("text", "bad"),
    [
        ("这个网站有色情内容", True),
        ("这个网站有色 情内容", False),
        ("それはポルノです", True),
        ("そのポルノグラフィー", False),  # Katakana go on: another word
        ("無料セックスの動画", True),
        ("このばかが", True),
        ("เขาพูดว่าไอ้สัตว์แล้ว", True),
        ("我的porn视频", True),
        ("this is a re\u0301sume\u0301", False),
        ("cafe\u0301 society", True),
        ("cafe society", False),
        ("Cafe\u0301s", False),
        ("ｐｏｒｎ here", True),
        ("порно.", True),
        ("порнография", False),
        ("यह शब्द है", True),
        ("यह शब्दों है", False),  # a vowel sign goes on
        ("ΣΕΞ και ΣΕΞ", True),
        ("por\u00adn", False),
        ("porn\u200b", True),
        ("a porn", True),
        ("snake_porn", False),
        ("porn2", False),
        ("", False),
    ],
)
@pytest.mark.parametrize("form", ["NFC", "NFD", "NFKD"])
def test_words_of_every_script_are_found_as_words(text, bad, form):
    wanted = lexicon([unicodedata.normalize(form, word) for word in WORDS])
    for found in ("NFC", "NFD"):
        value = pa.array(["x", unicodedata.normalize(found, text), None], pa.large_string())
        assert contains(value[1:], wanted, words=True).tolist() == [bad, False]


pieces = st.lists(
    st.sampled_from(["a", "B", "b", " ", "-", "_", "1", "é", "字", "か", "\n"]), max_size=9
)
pieces = pieces.map("".join)


@given(st.lists(pieces, max_size=5), st.lists(pieces.map(str.strip).filter(bool), max_size=5))
@settings(deadline=None)
def test_strings_are_found_as_a_plain_search_finds_them(texts, strings):
    def plain(text):
        return re.sub(r"\s", " ", text.lower())

    column = pa.array([*texts, None], pa.string())
    anywhere = [any(plain(s) in plain(t) for s in strings) for t in texts]
    assert contains(column, lexicon(strings), words=False).tolist() == [*anywhere, False]
    # Where scripts put spaces between words, a boundary is what is beside letters and digits.
    spaced = [s for s in strings if re.fullmatch(r"[^\W字か](.*[^\W字か])?", s)]
    words = [
        any(
            re.search(rf"(?<![^\W字か]){re.escape(plain(s))}(?![^\W字か])", plain(t))
            for s in spaced
        )
        for t in texts
    ]
    assert contains(column, lexicon(spaced), words=True).tolist() == [*words, False]


ENDED = "A line of some length that ends well."
OPEN = [f"This is line {i}, of those that have no end of that kind" for i in range(9)]


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ([ENDED, *OPEN[:7]], None),
        ([ENDED, *OPEN[:8]], "fineweb_line_punctuation"),
        ([ENDED, "A short line.", "Another short line!"], None),
        ([ENDED, *(f"Short line {i}." for i in range(7))], "fineweb_short_lines"),
        (["This line comes twice, and it is rather long."] * 2, "fineweb_repeated_lines"),
        ([f"This line is number {i}, with its words." for i in range(9)], None),
        ([f"{'wide' * 10}{i}." for i in range(9)], "fineweb_newlines"),
        ([f"This line is number {i}, with its words.\r" for i in range(9)], None),
    ],
)
def test_fineweb_cases(lines, reason):
    assert verdict("fineweb", "\n".join(lines)) == reason


@pytest.mark.slow
def test_time_is_linear_in_the_length_of_a_line_and_in_the_number_of_words_and_lines():
    """A quadratic kernel would hang here."""
    for text in ("x" * 50_000_000, "ab " * 3_000_000, "\n" * 5_000_000, "a\n" * 2_000_000):
        for name in ("gopher", "gopher_repetition", "c4", "fineweb"):
            verdict(name, text)
