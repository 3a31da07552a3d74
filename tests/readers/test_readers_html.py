"""Text of web pages: no character is lost, in any script; whatever the page, it ends."""

import contextlib
import html
import html.entities
import itertools
import re
import unicodedata

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.html import HTMLTree

from pipeline.readers.contract import Unreadable
from pipeline.readers.web.charset import Decoded
from pipeline.readers.web.html_kernel import scan
from pipeline.readers.web.html_rewrite import rewrite
from pipeline.readers.web.html_text import extract, page_text
from pipeline.readers.web.http_response import parse_response

PROSE = "Some words that stand in the body of a page, so that it has a main content. " * 4


def text_of(body):
    return extract(
        Decoded(f"<html><body><p>{PROSE}</p><div>{body}</div></body></html>"), "resiliparse"
    )


def visible(text):
    """Without white space, which pages may collapse."""
    return re.sub(r"[ \t\n\v\f\r]+", "", text)


def read_inline(body):
    """The text of ``body``, which has no block in it."""
    text = text_of(f"({body})").removeprefix(PROSE.strip()).strip()
    assert text[0] + text[-1] == "()"
    return text[1:-1]


def test_this_is_still_needed():
    assert extract_plain_text("<p>x<b>—</b>y</p>", main_content=True) == "xy"


def test_every_character_alone_between_tags():
    # Icons are private use, pilcrows the anchors of headings.
    codes = itertools.chain(range(0x21, 0xD800), range(0xF900, 0x10000), range(0x10000, 0x10100))
    characters = [chr(code) for code in codes if unicodedata.category(chr(code)) != "Cc"]
    body = "".join(f"<b>{html.escape(character)}</b>" for character in characters)
    assert visible(read_inline(body)) == "".join(characters)


@pytest.mark.parametrize(
    "name", ["mdash;", "hellip;", "minus;", "euro;", "#8212;", "#x2014", "#151;"]
)
def test_references(name):
    reference = f"&{name}"
    assert read_inline(f"x<i>{reference}</i>y") == f"x{html.unescape(reference)}y"


def test_every_named_reference_alone_between_tags():
    names = [name for name in html.entities.html5 if html.entities.html5[name].strip()]
    body = "".join(f"<b>&{name}</b>" for name in names)
    assert visible(read_inline(body)) == "".join(
        visible(html.unescape(f"&{name}")) for name in names
    )


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("5 <i>m²</i>z", "5 m²z"),
        ("x<b>a&eacute;</b>y", "xaéy"),
        ("x<b>1&nbsp;</b>y", "x1\xa0y"),
        ("<math><mi>x</mi><mo>−</mo><mn>3</mn></math>", "x−3"),
        ("<svg><text><![CDATA[—]]></text></svg>", "—"),
        ("<svg><text><![CDATA[m²]]></text></svg>", "m²"),
        ("漢<ruby>字<rp>(</rp><rt>じ</rt><rp>)</rp></ruby>です", "漢字(じ)です"),
        ("x<b> — </b>y", "x — y"),
        ("x<b>\n—&#10;</b>y", "x — y"),
        ("x<b>&#32;—&Tab;</b> y", "x — y"),
        ("x<b>\0—\0</b>y", "x—y"),
        ("x<!-- a > b -->—<!-- -->y", "x—y"),
        ("x<a title='a>b'>—</a>y", "x—y"),
        ("x<b>>é</b>y", "x>éy"),
        ("x<b><é</b>y", "x<éy"),
        ("x<b>&é</b>y", "x&éy"),
        ("<b>x</b>a</i>é<b>y</b>", "xaéy"),
        ("<b>x</b>a</i>&nbsp;<b>y</b>", "xa\xa0y"),
        ("x<b>&#1;é</b>y", "x\1éy"),
        ("x<b>\1</b>—<b>&#2;</b>y", "x\1—\2y"),
        ("x<b>¶</b>y", "x¶y"),
        ("x<a href='#x'><i>&para;</i></a>y", "xy"),
        ("x<i class=icon>\ue001</i>y", "xy"),
        ("x<img alt='>—<'>y", "x >—< y"),
        ("x<xmp>m²</xmp>y", "xm²y"),
    ],
)
def test_places_of_lone_characters(body, text):
    assert read_inline(body).replace("\n", "") == text


@pytest.mark.parametrize("page", ["—", "—<b>x</b>", "<b>x</b>—", "<b>x</b>—</b"])
def test_a_lone_character_at_an_end_of_the_page(page):
    assert extract(Decoded(page), "resiliparse") == re.sub("</?b>?", "", page)


scripts = st.one_of(
    st.sampled_from("—“”…€−·²éß日本語한글กขאבعربहिन्दीநிДж，。、・〜¶<>&x1𝒳😀"),
    st.characters(min_codepoint=0x21, exclude_categories=["Cc", "Cs", "Co"]),
)
words = st.text(scripts, min_size=1, max_size=3)
forms = st.sampled_from([html.escape, lambda word: "".join(f"&#{ord(c)};" for c in word)])
blanks = st.sampled_from(["", "", " ", "\n  ", "&#10;", "&#x20;"])
inline = ["b", "i", "span", "em", "code", "sup", "font color=red", "span title='a>b'", "x-y"]


@st.composite
def fragments(draw, depth=3):
    """Inline HTML and the text in it."""
    kind = draw(st.sampled_from(["text", "text", "element", "comment", "stray"]))
    if kind == "comment":
        return "<!-- a — b -->", ""
    if kind == "stray":
        return "</u>", ""
    if kind == "text" or depth == 0:
        word = draw(words)
        return draw(blanks) + draw(forms)(word) + draw(blanks), word
    parts = draw(st.lists(fragments(depth - 1), max_size=3))
    tag = draw(st.sampled_from(inline))
    body = "".join(part for part, _ in parts)
    return f"<{tag}>{body}</{tag.split()[0]}>", "".join(text for _, text in parts)


@settings(deadline=None)
@given(st.lists(fragments(), min_size=1, max_size=6))
@example([("a", "a"), ("</u>", ""), ("é", "é")])
def test_no_visible_character_is_lost(parts):
    body = "".join(part for part, _ in parts)
    text = "".join(text for _, text in parts)
    assert visible(read_inline(body)) == visible(text)


@settings(deadline=None)
@given(st.lists(fragments(), min_size=1, max_size=6))
def test_texts_stay_as_long_as_they_are(parts):
    assume("¶" not in "".join(text for _, text in parts))
    page = "".join(part for part, _ in parts)
    data = page.encode()
    rewritten = rewrite(page, data, scan(data)[0])
    before, after = (HTMLTree.parse(form).body.text for form in (page, rewritten.page))
    assert len(after.encode()) == len(before.encode())
    assert rewritten.restore(after) == before


def test_a_page_of_every_control_character_is_reported():
    page = "".join(map(chr, range(1, 128))).replace("<", "")
    with pytest.raises(Unreadable, match="bad_html"):
        extract(Decoded(page + "<b>—</b>"), "resiliparse")


def test_the_page_of_a_response():
    body = (
        "<p>今日は<ruby>東京<rt>とうきょう</rt></ruby><b>へ</b>行きます。</p>"
        "<p>北京<i>、</i>上海<i>和</i>广州<i>。</i></p>"
        "<p><b>pip</b>—<i>the tool</i>—and “<em>The Title</em>” … <b>5</b>€</p>"
    )
    message = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n" + body.encode()
    text, _ = page_text(parse_response(message, 1 << 20), "resiliparse")
    assert text.split("\n\n") == [
        "今日は東京とうきょうへ行きます。",
        "北京、上海和广州。",
        "pip—the tool—and “The Title” … 5€",
    ]


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (
            "<details><summary>What is it?</summary>It is a thing.</details>",
            "What is it?\nIt is a thing.",
        ),
        ("<details><summary>one</summary> two</details>", "one\ntwo"),
        ("<fieldset><legend>one</legend>two</fieldset>", "one\ntwo"),
        ("<table><caption>one</caption><tr><td>two<td>three</table>", "one\ntwo\t\tthree"),
        ("one<menu>two</menu>three", "one\ntwo\nthree"),
        ("one<dialog open>two</dialog>three", "one\ntwo\nthree"),
        ("one<xmp>a<b</xmp>two", "one\na<b\ntwo"),
        ("one<nav>menu</nav>two", "one two"),
        ("one<div class=hidden>menu </div>two", "one two"),
        ("one<div class=hidden><div>menu</div></div><aside>ad</aside><b>two</b>", "one two"),
        ("one<div><div class=hidden>menu</div></div>two", "one\ntwo"),
        ("one<p class=hidden>menu<div>two</div>", "one\ntwo"),
        ("<b>one</b><button>Go</button><i>two</i>", "one two"),
        ("one<button>Go</button>, two", "one, two"),
        ("(<button>Go</button>one)", "(one)"),
        ("one&nbsp;<button>Go</button>two", "one\xa0two"),
        ("one<select><option>a<option>b</select>two", "one two"),
        ("one<textarea><nav></textarea>two", "one two"),
        ("one<img alt=two>three", "one two three"),
        ("<img alt=one><img alt='two'/><a href=x><IMG src=x ALT=\"three\"></a>", "one two three"),
        ("<p><img alt=' one '>two</p>", "one two"),
        ("<img alt=W>elcome <img alt=😀>!", "Welcome 😀!"),
        ("one<img data-alt=x alt=''>two", "onetwo"),
        ("<svg><title>one</title><text>two</text></svg>three", "one two three"),
        ("<summary>one</summary><svg><text>two</text></svg>", "one\ntwo"),
        ("<math><mi>x</mi><annotation>y</annotation></math>", "x y"),
        ("<svg><text>one</text><text>é</text></svg>", "one é"),
        ("<pre>one<span class=x>two</span>\n<img alt=three>\n</pre>", "onetwo\nthree"),
        ("one<!-- <nav> -->two", "onetwo"),
        ("one<script>'<nav>'</script>two", "onetwo"),
        ("one<a title='<nav>'>two</a>", "onetwo"),
        ("one<span hidden>menu</span>two", "onetwo"),
        ("wo<wbr>rd<b>s</b>", "words"),
        ("<summary>one</summary><img class=hidden alt=x><p>two</p>", "one\n\ntwo"),
        ("<ul class=x><li>one<nav>x</nav></li></ul>", ""),
        ("one<nav>menu</nav><i>\ue001</i>two", "one two"),
        ("one<div>two</div><i>\ue001</i><div>three</div>", "one\ntwo\nthree"),
    ],
)
def test_texts_that_touch(body, text):
    assert text_of(body).removeprefix(PROSE.strip()).strip() == text


KEPT = (
    "address article blockquote center details dialog dir div dl fieldset figcaption figure"
    " header hgroup legend listing main menu pre search section summary canvas object"
)
LEFT_OUT = " aside footer label nav noscript time ul video"
FLAT = ["dd", "dt", "h1", "h3", "p", "xmp"]  # end where another one starts
ATTRIBUTES = [" class=hidden", " class='nav menu'", " hidden", " style='display:none'", " id=x"]
LEAVES = ["", "@", "<b>@</b>", " @", "@\n", "<!-- x -->@", "<i><b>@</b></i> ", "@<img alt='@'>@"]
LEAVES += ["<svg><title>@</title><text>@</text></svg>"]
TABLE = "<table{}><caption>{}</caption><tr><td>{}</td><td>{}</td></tr></table>"


@st.composite
def elements(draw, names, attributes, depth=3):
    """HTML in which @ stands for words, with an element between any two of them."""
    parts = [draw(st.sampled_from(LEAVES))]
    for _ in range(draw(st.integers(0, 3)) if depth else 0):
        inner = elements(names, attributes, depth - 1)
        attribute = draw(st.sampled_from(attributes))
        name = draw(st.sampled_from([*names, *FLAT, "table", ""]))
        if name == "table":
            parts.append(TABLE.format(attribute, draw(inner), draw(inner), draw(inner)))
        elif name in FLAT:
            parts.append(f"<{name}{attribute}>@</{name}>")
        elif name:
            parts.append(f"<{name}{attribute}>{draw(inner)}</{name}>")
        else:
            parts.append(draw(st.sampled_from(["<br>", "<hr>", "<button>@</button><hr>"])))
        parts.append(draw(st.sampled_from(LEAVES)))
    return "".join(parts)


def number(body):
    """``body`` with words, no two the same, and these."""
    words = [f"w{i}." for i in range(body.count("@"))]
    parts = body.split("@")
    return "".join(itertools.chain(*zip(parts, [*words, ""], strict=True))), words


@settings(deadline=None)
@given(elements(KEPT.split(), [""]))
def test_words_of_blocks_stay_apart(body):
    body, words = number(body.replace("<button>@</button>", ""))
    text = text_of(body).removeprefix(PROSE.strip())
    assert text.split() == words


@settings(deadline=None)
@given(elements((KEPT + LEFT_OUT).split(), ["", *ATTRIBUTES]))
def test_words_around_what_is_left_out_stay_apart(body):
    body, words = number(body)
    text = text_of(body).removeprefix(PROSE.strip())
    assert set(text.split()) - {"•"} <= set(words)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("one<div>two</div>three", "one two three"),
        ("one<div>two<b>2</b></div>three", "one two2 three"),
        ("one<aside>menu</aside>two", "one two"),
        ("one<nav><div>menu</div></nav>two", "one two"),
        ("one<button>Go</button>two", "one two"),
        ("one<button>Go</button>, two", "one, two"),
        (
            "<div>北京市的人口很多，这一段文字很长而且没有空格</div><address>上海</address>",
            "北京市的人口很多，这一段文字很长而且没有空格 上海",
        ),
        ("A&eacute;<address>&Eacute;B</address>", "Aé ÉB"),
        ("one<b>two</b><i>three</i>", "onetwothree"),
    ],
)
def test_texts_that_touch_by_trafilatura(body, text):
    page = f"<html><body><p>{PROSE}</p><div>{body}</div></body></html>"
    assert extract(Decoded(page), "trafilatura").removeprefix(PROSE.strip()).split() == text.split()


def test_words_that_the_page_has_stay_whole_by_trafilatura():
    page = f"<html><body><p>{PROSE} into</p><div>in<address>to</address></div></body></html>"
    assert extract(Decoded(page), "trafilatura").split()[-1] == "into"


@settings(deadline=None)
@given(elements((KEPT + LEFT_OUT).split(), ["", *ATTRIBUTES]))
def test_words_stay_apart_by_trafilatura(body):
    body, words = number(body)
    text = extract(
        Decoded(f"<html><body><p>{PROSE}</p><div>{body}</div></body></html>"), "trafilatura"
    )
    assert not [pair for pair in itertools.pairwise(words) if "".join(pair) in text]


@settings(deadline=None)
@given(st.lists(fragments(), min_size=1, max_size=6))
def test_no_visible_character_is_lost_by_trafilatura(parts):
    body = "".join(part for part, _ in parts).replace("code>", "b>")  # which may end a paragraph
    expected = "".join(text for _, text in parts)
    assume(expected.isprintable())  # it deletes others, such as what this Python does not know
    page = f"<html><body><p>{PROSE}</p><p>({body})</p><p>{PROSE[::-1]}</p></body></html>"
    text = extract(Decoded(page), "trafilatura")
    text = text[text.index("(") : text.rindex(")") + 1]
    assert visible(text) == f"({visible(expected)})"


HTTP = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n"


@pytest.mark.parametrize("extractor", ["resiliparse", "trafilatura"])
@pytest.mark.parametrize(
    "page",
    [
        "<div>" * 100_000 + "deep",
        "<table><tr><td>" * 20_000 + "deep",
        "<ul><li>" * 20_000 + "deep",
        "<b>" * 20_000 + "deep",
        "<" * 100_000,
        "<!--" * 50_000,
        "<p " + "a=b " * 50_000 + ">x",
        "&" * 100_000,
        "<svg><style>" * 10_000,
        "\0\ud83d" + "<p>x",
    ],
)
def test_pathological_pages_end(extractor, page):
    pytest.importorskip(extractor)
    message = HTTP + page.encode("utf-8", "surrogatepass")
    with contextlib.suppress(Unreadable):
        text, kind = page_text(parse_response(message, 10 << 20), extractor)
        assert (text is None) == (kind != "html")
        assert text is None or text.encode()


@settings(max_examples=120, deadline=None)
@given(st.binary(max_size=80), st.sampled_from(["gzip", "deflate", "br", "zstd", "chunked"]))
def test_any_message_ends(tail, encoding):
    encoded = HTTP[:-2] + f"Content-Encoding: {encoding}\r\n\r\n".encode()
    for message in (tail, b"HTTP/1.1 200" + tail, encoded + tail):
        with contextlib.suppress(Unreadable):
            page_text(parse_response(message, 1 << 20), "resiliparse")
