"""The charsets of the web, against a browser, which reads them by the standard."""

import base64
import itertools

import pytest
import webencodings
from browser import browser, needs_browser
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.readers.contract import Unreadable
from pipeline.readers.web import charset as charsets
from pipeline.readers.web.web_codecs import lookup, the


def decode(page: bytes, charset: str | None) -> str:
    decoded = charsets.decode(page, charset)
    assert decoded.utf_8 == decoded.text.encode("utf-8")
    return decoded.text


LABELS = sorted(webencodings.LABELS)
NAMES = sorted({name for name in webencodings.LABELS.values() if name != "replacement"})
HIGH = range(0x80, 0x100)

PIECES = [b"\x1b$B", b"\x1b(B", b"~{", b"\x80", b"\x8f\xa1", b"\x81\x30", b"\x87\x7a", b"\xff"]

DECODE = """([name, base64]) => {
    const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
    const text = new TextDecoder(name, { ignoreBOM: true }).decode(bytes);
    return [...text].map((character) => character.codePointAt(0));
}"""


@pytest.fixture(scope="module")
def page():
    with browser() as chromium:
        yield chromium.new_page()


def in_browser(page, name, data):
    codes = page.evaluate(DECODE, [name, base64.b64encode(data).decode()])
    return "".join("\ufffd" if 0xD800 <= code < 0xE000 else chr(code) for code in codes)


@needs_browser
def test_the_names_of_all_labels(page):
    script = "(labels) => labels.map((label) => new TextDecoder(label).encoding)"
    labels = [label for label in LABELS if webencodings.LABELS[label] != "replacement"]
    theirs = [name.replace("gbk", "gb18030") for name in page.evaluate(script, labels)]
    assert [lookup(label).name for label in labels] == theirs
    spelled = [f"\t {label.upper()}\n" for label in labels]
    assert [lookup(label).name for label in spelled] == theirs


# Python's codec knows these two only as another character, which has a place of its own too.
BIG5_AMBIGUOUS = str.maketrans("∕﹨", "／＼")
# The browser packs two characters into one here: it is not by the standard.
COMBINED = {b"\x88\x62": "Ê̄", b"\x88\x64": "Ê̌", b"\x88\xa3": "ê̄", b"\x88\xa5": "ê̌"}


@needs_browser
@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("utf-16")])
def test_every_byte_means_what_it_means_to_a_browser(page, name):
    data = b"\n".join(bytes([byte]) for byte in range(256) if byte != 0x1B)
    if name == "iso-2022-jp":  # a browser takes for errors what is EUC-JP to us, or a control
        data = bytes(range(0x20, 0x80))
    ours = the("gb18030" if name == "gbk" else name).decode(data)
    assert ours.split("\n") == in_browser(page, name, data).split("\n")


@needs_browser
@pytest.mark.parametrize("name", ["big5", "euc-jp", "euc-kr", "gb18030", "shift_jis", "utf-8"])
def test_every_two_bytes_mean_what_they_mean_to_a_browser(page, name):
    leads = [byte for byte in HIGH if name != "euc-jp" or byte != 0x8F]  # that starts three bytes
    pairs = map(bytes, itertools.product(leads, range(256)))
    data = b"\n".join(pair for pair in pairs if name != "big5" or pair not in COMBINED)
    ours, theirs = the(name).decode(data), in_browser(page, name, data)
    if name == "big5":
        ours, theirs = ours.translate(BIG5_AMBIGUOUS), theirs.translate(BIG5_AMBIGUOUS)
    assert ours.split("\n") == theirs.split("\n")


@needs_browser
def test_triples_of_euc_jp(page):
    data = b"".join(
        b"\x8f" + bytes(pair) + b"\n"
        for pair in itertools.product(HIGH, range(0x40, 0x100))
        if pair != (0xA2, 0xB7)  # a tilde, which Python takes for that of ASCII
    )
    assert the("euc-jp").decode(data) == in_browser(page, "euc-jp", data)


@needs_browser
def test_four_bytes_of_gb18030(page):
    data = b"".join(
        bytes([a, b, c, d]) + b"\n"
        for a in (0x81, 0x82, 0x83, 0x84, 0x8F, 0x90, 0x95, 0xE3, 0xE4)
        for b, c in itertools.product((0x30, 0x35, 0x39), (0x81, 0x82, 0xA0, 0xD3, 0xFE, 0x20))
        for d in (0x30, 0x31, 0x37, 0x39, 0x41)
    )
    assert the("gb18030").decode(data) == in_browser(page, "gb18030", data)


@needs_browser
def test_iso_2022_jp(page):
    pairs = b"".join(
        bytes(pair) for pair in itertools.product(range(0x21, 0x7F), range(0x21, 0x7F))
    )
    kana = bytes(range(0x21, 0x60))
    data = b"a\\~\x1b$B" + pairs + b"\x1b(Ja\\~\x1b(I" + kana + b"\x1b$@" + pairs + b"\x1b(Ba\\~"
    assert the("iso-2022-jp").decode(data) == in_browser(page, "iso-2022-jp", data)


@pytest.mark.parametrize(
    ("label", "data", "text"),
    [
        ("Shift_JIS", b"\x87\x40\x87\x8a\xee\xe0\xed\x95\x5c~", "①㈱髙﨑\\~"),
        ("x-sjis", b"\x93\xfa\x96\x7b\xb1\x80", "日本ｱ\x80"),
        ("euc-jp", b"\xad\xa1\xad\xea\xf9\xae\x8e\xb1\xa1\xc1\x8f\xb0\xa1", "①㈱仡ｱ～丂"),
        ("iso-2022-jp", b"\x1b$B-!-j\x1b(I1\x1b(B!", "①㈱ｱ!"),
        ("euc-kr", b"\x8c\x63\xbc\x84\x94\xee", "똠펲뷁"),
        ("ks_c_5601-1987", b"\x8c\x63", "똠"),
        ("big5", b"\x9d\xef\x9d\xf8\xfb\x48\xc7\xf3\xa3\xe1\xa1\x45\x88\x62", "嘅啲嘅А€‧Ê̄"),
        ("gb2312", b"\x80\xc4\xe3\xfe\x59\xa6\xd9\x81\x30\x81\x30", "€你龴︐\x80"),
        ("gbk", b"\x95\x32\x82\x36", "𠀀"),
        ("gbk", b"<p>\x80", "<p>€"),
        ("tis-620", b"\x93\xa1\x94\x85\x80\x81", "“ก”…€\x81"),
        ("iso-8859-11", b"\xa1\xdb", "ก\ufffd"),
        ("iso-8859-1", b"\x80\x93\x94\x81\x9d", "€“”\x81\x9d"),
        ("us-ascii", b"\x92", "’"),
        ("latin5", b"\xd0\xfe\x80", "Ğş€"),
        ("koi8-u", b"\xae\xbe\xa4", "ўЎє"),
        ("windows-1255", b"\xca\xe0", "\u05baא"),
        ("x-mac-cyrillic", b"\x91\xdf\xff", "Ся€"),
        ("x-user-defined", b"a\x80\xff", "a\uf780\uf7ff"),
        ("iso-8859-8-i", b"\xe0", "א"),
        ("logical", b"\xe0", "א"),
        ("cp866", b"\x91\xf0", "СЁ"),
        ("hz-gb-2312", b"~{Dc:C~}!", "你好!"),
        ("iso-2022-kr", b"\x1b$)C\x0e0!3*\x0f!", "가나!"),
    ],
)
def test_what_bytes_of_a_label_mean(label, data, text):
    assert lookup(label).decode(data) == text


@pytest.mark.parametrize(
    ("label", "data", "text"),
    [
        ("shift_jis", b"\x81<p>", "\ufffd<p>"),
        ("gbk", b"\x81\xff<p>\xc4", "\ufffd<p>\ufffd"),
        ("big5", b"\x81<p>\x81\x81<", "\ufffd<p>\ufffd<"),
        ("euc-kr", b"\xff<\xc9\xff<", "\ufffd<\ufffd<"),
        ("euc-jp", b"\x8f\xa1<\x8e<", "\ufffd<\ufffd<"),
        ("gb18030", b"\x810<\x84\x31\xa5\x30<", "\ufffd0<\ufffd<"),
    ],
)
def test_damage_takes_no_markup_with_it(label, data, text):
    assert lookup(label).decode(data) == text


@pytest.mark.parametrize(
    ("label", "codec"),
    [
        ("shift_jis", "cp932"),
        ("euc-jp", "euc_jp"),
        ("iso-2022-jp", "iso2022_jp"),
        ("euc-kr", "cp949"),
        ("gbk", "gbk"),
        ("gb18030", "gb18030"),
        ("big5", "big5hkscs"),
    ],
)
def test_what_python_writes_is_read(label, codec):
    text = "".join(
        char
        for char in map(chr, [*range(0x20, 0x7F), *range(0x3041, 0x3097), *range(0x4E00, 0x9FA6)])
        if char.encode(codec, "ignore")
    )
    assert lookup(label).decode(text.encode(codec)) == text


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(LABELS), st.lists(st.binary(max_size=6) | st.sampled_from(PIECES)))
def test_any_bytes_are_text(label, pieces):
    assert lookup(label).decode(b"".join(pieces)).encode() is not None


OF_PYTHON = ["utf-7", "rot13", "zlib", "cp037", "idna", "unicode_escape", "punycode"]


@pytest.mark.parametrize("label", [*OF_PYTHON, "", "none", "utf", "é", "\0"])
def test_no_labels(label):
    assert lookup(label) is None


def test_a_charset_that_nobody_reads():
    page = b"<p>\x1b$)A\x0e=;;;\x1b$*H\x1bNEc\x0f</p>"
    with pytest.raises(Unreadable, match="unknown_charset"):
        decode(page, "iso-2022-cn")
    assert decode(b"<p>ASCII", "iso-2022-cn") == "<p>ASCII"
    assert decode("<p>é".encode(), "iso-2022-cn") == "<p>é"
