"""``words: datatrove``: tokens against those of spaCy, counts against plain loops."""

import pytest
from hypothesis import given, settings
from step_checks import SENTENCE, array, check, documents, verdict

from pipeline.steps.heuristics import fineweb, gopher, repetition
from pipeline.steps.words.english_tokens import sentences, separate

# What spacy.blank("en") of spaCy 3.8 makes of each piece: "|" is put between its tokens.
TOKENS = """
don't=do|n't DON'T=DON'T Don’t=Do|n’t dont=do|nt cannot=can|not I'm=I|'m im=i|m its=its it's=it|'s
who'd've=who|'d|'ve couldn't've=could|n't|'ve we'll=we|'ll well=well they're=they|'re dogs'=dogs|'
boss's=boss|'s 'tis='|tis 'em='em o'clock=o'clock "(Mr.="|(|Mr. Smith),"=Smith|)|,|" U.S.=U.S.
NASA.=NASA|. a.m.=a.m. 5pm=5|pm 3.5=3.5 1,000=1,000 a,b=a|,|b end.Start=end|.|Start
end.start=end.start word...=word|... ...word=...|word wait...what=wait|...|what yes…no=yes|…|no
state-of-the-art=state|-|of|-|the|-|art 3-4=3|-|4 3--4=3|-|-4
a--b=a|--|b a—b=a|—|b -x=-x x-=x- x~y=x|~|y
1+1=1|+|1 +5=+5 +x=+|x 5+=5|+ C++=C++ and/or=and/or a/b=a|/|b 1/2=1/2 and:or=and|:|or <b>=<|b|>
http://www.foo-bar.com/a-b=http://www.foo-bar.com/a-b www.foo.com=www.foo.com @name=@name
foo@bar-baz.org=foo@bar-baz.org name@x=name@x 192.168.0.1=192.168.0.1
http://1.2.3.4:80/x-y=http://1.2.3.4:80/x-y (http://a.de/b-c),=(|http://a.de/b-c|)|,
$5=$|5 US$5=US$|5 €3,50=€|3,50 5km.=5|km|. 50%=50|% %=%
#tag=#|tag _x_=_|x|_ x_y=x_y ...=... ?!=?|! "Hi!"="|Hi|!|" “y.”=“|y.|” :)=:) x:)=x|:) <3=<3 (8)=(|8)
a™=a|™ 20°C=20|°|C ®x=®|x 日本語。=日本語|。 naïve-é=naïve|-|é a*b=a*b 2*3=2|*|3 2*-3=2|*|-3
e.g.,=e.g.|, Ph.D.=Ph.D. Dr.Who=Dr.|Who St.=St. No.=No|. x.y.z=x.y.z
"""


@pytest.mark.parametrize("case", TOKENS.split())
def test_tokens_are_those_of_spacy(case):
    piece, _, wanted = case.partition("=")
    assert separate(array([f"{piece} x"]))[0].as_py() == wanted.replace("|", " ") + " x"


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("One. Two! Three?", 3),
        ("Mr. Smith went. He left.", 2),
        ('He said "Yes." Then left.', 2),
        ("Wait... what? No.", 2),
        ("e.g. this", 1),
        ("Really?! Yes.", 2),
        ("(One.) Two.", 2),
        ("one.two", 1),
        ("Stop. . Go", 2),
        ("A line\nand another", 2),
        (" \n", 0),
    ],
)
def test_sentences_are_those_of_spacy_in_each_line(text, number):
    assert sentences(separate(array([text]))).tolist() == [number]


@given(documents)
@settings(max_examples=60, deadline=None)
def test_separating_adds_nothing_but_spaces(texts):
    for text, separated in zip(texts, separate(array(texts)).to_pylist(), strict=True):
        assert separated.replace(" ", "") == text.replace(" ", "")
        assert separated.split("\n") != [""] or text == ""
        for line, apart in zip(text.split("\n"), separated.split("\n"), strict=True):
            assert len(apart.split()) >= len(line.split())


SYMBOLS = set(
    "!/—”:％１〈&(、━\\【#%「」，】；+^]~“《„';’{|∶´[=-`*．（–？！：$～«〉,><》)?）。…@_.\"}►»"
)
CONTROLS = {chr(code) for code in [*range(9), *range(11, 32), *range(127, 160)]}


def gopher_reference(text):
    """datatrove's GopherQualityFilter, on our tokens."""
    tokens = separate(array([text]))[0].as_py().split()
    counted = [token for token in tokens if set(token) - SYMBOLS - CONTROLS]
    paper = gopher.measure(array([text]))
    lines = text.split("\n")
    return gopher.Statistics(
        words=len(tokens),
        counted_words=len(counted),
        word_characters=sum(map(len, counted)),
        alphabetic_words=sum(any(map(str.isalpha, token)) for token in tokens),
        stop_words=len(set(gopher.STOP_WORDS) & set(tokens)),
        hashes=text.count("#"),
        ellipses=text.count("...") + text.count("…"),
        lines=len(lines) - (lines[-1] == ""),
        bullet_lines=int(paper.bullet_lines[0]),
        ellipsis_lines=int(paper.ellipsis_lines[0]),
    )


def fineweb_reference(text, ends=".?!\"'", short=30):
    lines = [line for line in text.split("\n") if line.strip()]
    return fineweb.Statistics(
        words=len(separate(array([text]))[0].as_py().split()),
        newlines=text.count("\n"),
        lines=len(lines),
        punctuated_lines=sum(line.endswith(tuple(ends)) for line in lines),
        short_lines=sum(len(line) <= short for line in lines),
        line_characters=sum(map(len, lines)),
        repeated_characters=sum(len(line) for i, line in enumerate(lines) if line in lines[:i]),
    )


@given(documents)
@settings(max_examples=60, deadline=None)
def test_counts_are_those_of_datatrove_s_filters(texts):
    check(gopher.measure_as_datatrove(array(texts)), [gopher_reference(text) for text in texts])
    measured = fineweb.measure(array(texts), ".?!\"'", 30, True, separate)
    check(measured, [fineweb_reference(text) for text in texts])
    n_grams = repetition.measure(array(texts), separate)
    of_tokens = repetition.measure(separate(array(texts)))
    assert n_grams.top.tolist() == of_tokens.top.tolist()
    assert n_grams.repeated.tolist() == of_tokens.repeated.tolist()
    assert n_grams.lines.tolist() == repetition.measure(array(texts)).lines.tolist()


WORDS = ["the", "harbour", "of", "old", "stone", "and", "with", "quiet", "boats"]


@pytest.mark.parametrize(
    ("name", "text", "by_words", "by_tokens"),
    [
        ("gopher", "the and " + "word, (word) " * 30, None, "gopher_alphabetic_words"),
        ("gopher", "The And " + "word " * 60, None, "gopher_stop_words"),
        ("c4", "Mr. Smith met Mrs. Smith there.", None, "c4_sentences"),
        ("c4", f"{SENTENCE * 3}[1]", "c4_sentences", None),
        (
            "fineweb",
            "\n".join([f"It is a line that ends well, {i}." for i in range(6)]),
            None,
            None,
        ),
        (
            "fineweb",
            "\n".join([f"A line that ends, {i}. " * 2 for i in range(6)]),
            None,
            "fineweb_line_punctuation",
        ),
    ],
)
def test_the_setting_decides_how_a_step_counts(name, text, by_words, by_tokens):
    assert verdict(name, text) == by_words
    assert verdict(name, text, words="datatrove") == by_tokens


@pytest.mark.parametrize("name", ["gopher", "gopher_repetition", "c4", "fineweb"])
def test_no_other_words_are_known(name):
    with pytest.raises(ValueError, match=f"step {name}: words is 'whitespace' or 'datatrove'"):
        verdict(name, "", words="spacy")
