"""Gopher, C4 and FineWeb rules: statistics against plainly written Python, and named cases."""

import itertools
import re
from collections import Counter

import pyarrow as pa
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.steps import c4, fineweb, gopher, repetition

SPACES = " \t\r\n\n\n\x0b\x1c\x85\xa0\u2028　"
PIECES = [
    *("the", "The", "and", "with", "of", "to", "be", "that", "have", "a", "i", "word", "Word"),
    *("naïve", "1", "3.14", "mid-word"),
    *("the,", "“with”", "'of'", "(be)", "theé", "to1", "that's", "...and"),
    *("#", "##", "...", "....", "......", "…", "•", "-", "- item", "• item", "{", "}", "{x}"),
    *(
        "。",
        "！」",
        ".",
        "!",
        "?",
        '."',
        '?")',
        ".'",
        "日本語です。",
        "汉字",
        "😀",
        "é",
        "e\u0301",
        "\x00",
    ),
    *("lorem ipsum", "Lorem Ipsum", "lorem", "javascript", "JavaScript!", "use cookies"),
    *("Terms of Use", "privacy policy.", "uses cookies", "use of cookies", "cookie policy"),
    *("one two three four five.", "A whole line of six words here.", "ends in dots...", "x" * 20),
]
documents = st.lists(
    st.lists(
        st.one_of(st.sampled_from(PIECES), st.sampled_from([*SPACES, "\n", " ", " ", " "])),
        max_size=60,
    ).map("".join),
    max_size=4,
)
odd_texts = st.one_of(
    st.text(max_size=80),
    st.lists(st.sampled_from("ab \n"), max_size=150).map("".join),
    st.lists(st.sampled_from(["a", "b", "cc"]), max_size=80).map(" ".join),
)
EDGES = ["", "\n", "\n\n\n", " ", "\r\n\r\n", "x", "x\n", "\n\nx", "a" * 5000, "a b " * 700]


def every(texts):
    """A property over documents, with a fixed list of edge cases always among them."""

    def decorate(test):
        strategy = st.lists(odd_texts, max_size=4) | documents
        return settings(max_examples=250, deadline=None)(example(EDGES)(given(strategy)(test)))

    return decorate(texts)


def array(texts):
    """The texts as a slice of a larger array, so that offsets do not start at 0."""
    return pa.array(["before", *texts], pa.large_string())[1:]


def lines_of(text):
    return [line.strip() for line in text.split("\n") if line.strip()]


def bare(word):
    """The word without what is neither letter nor digit at its ends, in lower case."""
    while word and not word[0].isalnum():
        word = word[1:]
    while word and not word[-1].isalnum():
        word = word[:-1]
    return word.lower() if word.isascii() else word


def gopher_reference(text):
    words = text.split()
    lines = lines_of(text)
    return gopher.Statistics(
        words=len(words),
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
        brackets += line.count("{")
        if any(phrase in lower for phrase in c4.PHRASES[2:]):
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


def check(measured, expected):
    """Fields of arrays [n] or [*, n] against n tuples of numbers or lists."""
    for name, values in zip(measured._fields, measured, strict=True):
        wanted = [getattr(one, name) for one in expected]
        assert values.T.tolist() == wanted, name


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
