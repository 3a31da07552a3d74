"""Charsets of web pages: what is declared where, and what bytes mean."""

import pytest
from browser import browser, needs_browser
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.readers.contract import Unreadable
from pipeline.readers.web import charset as charsets
from pipeline.readers.web import html_text
from pipeline.readers.web.http_response import parse_response


def decode(page: bytes, charset: str | None) -> str:
    decoded = charsets.decode(page, charset)
    assert decoded.utf_8 == decoded.text.encode("utf-8")
    return decoded.text


MAX_BYTES = 1 << 20
RUSSIAN = "Съешь же ещё этих мягких французских булок, да выпей чаю"
CZECH = "Příliš žluťoučký kůň úpěl ďábelské ódy a šel domů"
GERMAN = "Größe, naïve café: “quoted”"
CHINESE = "你好，世界。欢迎光临。"


def page_text(message):
    return html_text.page_text(parse_response(message, MAX_BYTES), "resiliparse")


def message(body, *lines, status="HTTP/1.1 200 OK", end="\r\n"):
    return end.join([status, *lines, "", ""]).encode("latin-1") + body


# (a) What is valid UTF-8 is UTF-8.


@pytest.mark.parametrize(
    "charset", ["iso-8859-1", "windows-1251", "us-ascii", "koi8-r", "macintosh"]
)
@pytest.mark.parametrize("text", [RUSSIAN, GERMAN, CHINESE, "é", "😀"])
def test_valid_utf_8_is_utf_8_whatever_single_byte_charset_is_declared(text, charset):
    page = f"<meta charset={charset}><p>{text}".encode()
    for header in (charset, None, "utf-8"):
        assert text in decode(page, header)


@pytest.mark.parametrize("charset", ["gbk", "gb18030", "big5", "shift_jis", "euc-jp", "euc-kr"])
@pytest.mark.parametrize("text", [RUSSIAN, CHINESE, CZECH])
def test_utf_8_that_a_charset_of_several_bytes_is_declared_for(text, charset):
    assert decode(f"<p>{text}</p>".encode(), charset) == f"<p>{text}</p>"


@pytest.mark.parametrize(
    ("text", "charset"),
    [("模式", "gbk"), ("模", "gb18030"), ("품", "euc-kr"), ("ﾃｽ", "shift_jis")],
)
def test_a_few_characters_of_several_bytes_that_could_be_utf_8(text, charset):
    body = text.encode(charset)
    body.decode()  # this is UTF-8 too
    assert decode(b"<p>" + body + b"</p>", charset) == f"<p>{text}</p>"


@settings(max_examples=200, deadline=None)
@given(st.text(min_size=1, max_size=60), st.sampled_from(["windows-1252", "utf-8", "koi8-r"]))
def test_any_text_in_utf_8(text, charset):
    page = text.encode("utf-8", "replace")
    if not page.startswith((b"\xef\xbb\xbf", b"<\0", b"\0<")):
        assert decode(page, charset) == page.decode()


# (b) Declarations.


@pytest.fixture(scope="module")
def chromium():
    with browser() as started:
        yield started


@pytest.mark.parametrize(
    "lines",
    [
        ["Content-Type: text/html; charset=windows-1251"],
        ["Content-Type: text/html; Charset=windows-1251"],
        ["Content-Type: text/html;CHARSET=Windows-1251"],
        ["CONTENT-TYPE: text/html; charset = windows-1251"],
        ['Content-Type: text/html; charset="windows-1251"'],
        ["Content-Type: text/html; charset='windows-1251'"],
        ["Content-Type: text/html; q=1; charset=windows-1251; x=y"],
        ["Content-Type: text/html; x-charset=koi8-r; charset=windows-1251"],
        ["Content-Type: text/html;\r\n\tcharset=windows-1251"],
        ["Content-Type: text/html;\r\n charset=\r\n  windows-1251"],
        ["Content-Type:\r\n text/html; charset=windows-1251"],
        ["Content-Type : text/html; charset=windows-1251"],
        ["Content-Type: text/html", "Content-Type: text/html; charset=windows-1251"],
        ["Content-Type: text/html; charset=windows-1251", "Content-Type: text/html"],
        ["Content-Type: text/html; charset=koi8-r", "content-type: text/html; charset=cp1251"],
        ["Content-Type: text/html,text/html; charset=windows-1251"],
        ["Content-Type: text/html; charset=windows-1251,text/html"],
    ],
)
def test_the_charset_of_the_header(lines):
    page = message(f"<p>{RUSSIAN}</p>".encode("cp1251"), *lines)
    assert page_text(page) == (RUSSIAN, "html")


LONG = "<script>" + "var x = 1; " * 500 + "</script>"


HEADS = [
    "<meta charset=windows-1250>",
    "<META CHARSET='Windows-1250' />",
    '<meta\ncharset\n=\n"windows-1250">',
    "<meta/charset=windows-1250/>",
    '<meta http-equiv="Content-Type" content="text/html; charset=windows-1250">',
    '<meta content="text/html; charset=windows-1250" http-equiv=content-type>',
    "<meta content=\"charset; CHARSET = 'windows-1250'\" http-equiv=content-type>",
    "<meta charset=x-no-such><meta charset=windows-1250>",
    "<meta charset=windows-1250><meta charset=koi8-r>",
    "<meta content='text/html; charset=koi8-r'><meta charset=windows-1250>",
    "<meta name=description content='charset=koi8-r'><meta charset=windows-1250>",
    "<meta name=description content='<meta charset=koi8-r>'><meta charset=windows-1250>",
    "<!-- <meta charset=koi8-r> --><meta charset=windows-1250>",
    "<!--><meta charset=windows-1250><!-- -->",
    "<!-- > <meta charset=koi8-r> --!><meta charset=windows-1250>",
    "<script>'<meta charset=koi8-r>'</script><meta charset=windows-1250>",
    "<style>/* <meta charset=koi8-r> */</style><meta charset=windows-1250>",
    "<title>The <meta charset=koi8-r> tag</title><meta charset=windows-1250>",
    "<textarea><meta charset=koi8-r></textarea ><meta charset=windows-1250>",
    "<noscript><meta charset=windows-1250></noscript><meta charset=koi8-r>",
    "<link title='<meta charset=koi8-r>'><meta charset=windows-1250>",
    "<link title=it's><meta charset=windows-1250><link title=it's>",
    "<metadata charset=koi8-r><meta charset=windows-1250>",
    "</meta charset=koi8-r><meta charset=windows-1250>",
    "<?xml version='1.0' encoding='koi8-r'?><meta charset=windows-1250>",
    "<! charset=koi8-r><? <meta charset=koi8-r> ?><meta charset=windows-1250>",
    LONG + "<meta charset=windows-1250>",
    LONG + "<title>x</title><link href=x><base><meta charset=windows-1250></head>",
]


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("header", [None, "none", "", "no-such", "utf-16"])
def test_the_charset_of_a_meta_tag(head, header):
    page = f"<!doctype html><html><head>{head}</head><body><p>{CZECH}</p>"
    if head.startswith("<?xml"):
        page = page.removeprefix("<!doctype html><html><head>")
    assert decode(page.encode("cp1250"), header) == page


@needs_browser
@pytest.mark.parametrize("charset", ["none", "Windows-1250", '"koi8-r"'])
def test_a_browser_finds_the_same(chromium, charset):
    """That is, in the end: of a late tag it learns late, and reads the page again."""
    page = chromium.new_page()
    pages = {}
    page.route(
        "http://pages.example/*",
        lambda route: route.fulfill(
            body=pages[route.request.url], headers={"Content-Type": f"text/html; Charset={charset}"}
        ),
    )
    for number, head in enumerate(HEADS if charset == "none" else HEADS[:3]):
        if head.startswith("<?xml"):
            continue
        text = f"<!doctype html><html><head>{head}</head><body><p>{CZECH}</p></body></html>"
        address = f"http://pages.example/{number}"
        pages[address] = text.encode("cp1250")
        page.goto(address)
        said = parse_response(
            message(b"", f"Content-Type: text/html; Charset={charset}"), MAX_BYTES
        ).charset
        found = decode(pages[address], said)
        assert page.inner_text("p") in found, head
    page.close()


@pytest.mark.parametrize(
    "page",
    [
        '<?xml version="1.0" encoding="windows-1250"?><html>',
        "<?xml version='1.0' encoding = 'windows-1250' standalone='yes'?><html><meta name=x>",
    ],
)
def test_the_charset_of_an_xml_declaration(page):
    assert decode((page + CZECH).encode("cp1250"), None) == page + CZECH


@pytest.mark.parametrize(
    "head",
    [
        "<!-- <meta charset=ibm866>",
        "<script>'<meta charset=ibm866>'</script>",
        "<title><meta charset=ibm866>",
        "<meta name=description content='set charset=ibm866 in the head'>",
        "<meta property=og:title content='<meta charset=ibm866>'>",
        "<a title='<meta charset=ibm866>'>",
        "<body>" + "<p>words " * 200 + "<meta charset=ibm866>",
        "</head>" + "<p>words " * 200 + "<meta charset=ibm866>",
    ],
)
def test_what_is_no_declaration(head):
    """The page is then guessed, rightly."""
    page = f"<html><head>{head}</head><body><p>{RUSSIAN}. {RUSSIAN}</p>"
    assert decode(page.encode("cp1251"), None) == page


@pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("charset", [None, "utf-16"])
def test_utf_16_without_byte_order_mark(codec, charset):
    page = f"<!doctype html><p>{CZECH}"
    if charset and codec == "utf-16-be":
        charset = "utf-16be"
    assert decode(page.encode(codec), charset) == page


@pytest.mark.parametrize("charset", ["utf-8", "windows-1252"])
def test_a_header_that_knows_nothing_of_utf_16(charset):
    page = "<!doctype html><p>Text"
    assert decode(page.encode("utf-16-le"), charset) == page
    assert decode("文字のみ".encode("utf-16"), charset) == "文字のみ"


def test_a_byte_order_mark_before_another_charset():
    """As an editor leaves it in a file that others are included into."""
    assert decode(b"\xef\xbb\xbf" + GERMAN.encode("cp1252"), None) == GERMAN
    assert decode(b"\xef\xbb\xbf" + GERMAN.encode() + b"\xff", "latin1") == GERMAN + "\ufffd"


@pytest.mark.parametrize("charset", ["iso-8859-1", "windows-1251", "gbk", "shift_jis"])
def test_utf_8_with_a_few_other_bytes(charset):
    page = (RUSSIAN * 9).encode() + b"\xff<p>\xe9" + CHINESE.encode()
    assert decode(page, charset) == RUSSIAN * 9 + "\ufffd<p>\ufffd" + CHINESE


def test_utf_16_that_only_the_header_tells():
    page = "\r\n<!doctype html><p>Text"
    assert decode(page.encode("utf-16-le"), "utf-16") == page
    assert decode(page.encode("utf-16-be"), "utf-16be") == page


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_utf_8_that_was_cut_within_its_last_character(cut):
    body = "<p>Grüße 😀".encode()
    assert decode(body[:-cut], "windows-1252") == "<p>Grüße \ufffd"
    assert decode(b"<p>caf\xe9", None) == "<p>café"


def test_iso_2022_jp_without_declaration():
    page = "<p>こんにちは世界。日本語のページ。"
    assert decode(page.encode("iso2022_jp"), None) == page


# (d) Nothing is declared, or what does not fit.

SENTENCES = [
    ("windows-1252", "It’s the company’s “best” year – the board’s café was naïve about it."),
    ("windows-1252", "The book is £25 and the temperature is 20°C today, ©2008."),
    ("latin-1", "Déjà vu, café."),
    ("latin-1", "L'été dernier, nous avons mangé à la plage où les élèves étaient fatigués."),
    ("windows-1252", "Die Straße über die Brücke führt zum schönen Gebäude der Universität."),
    ("latin-1", "El niño comió una manzana mañana; ¿dónde está la señora? ¡Aquí!"),
    ("latin-1", "De coördinatie van de patiënten in België was financieel geïnspireerd."),
    ("windows-1250", "Zażółć gęślą jaźń, a potem pójdź do domu i zjedz świeżą śliwkę."),
    ("iso-8859-2", "Zażółć gęślą jaźń, a potem pójdź do domu i zjedz świeżą śliwkę."),
    ("windows-1250", "Árvíztűrő tükörfúrógép, és a kormány bejelentette az új törvényt."),
    ("windows-1251", "Сегодня дождь и ветер, а завтра будет солнечно и тепло в городе."),
    ("koi8-r", "Сегодня дождь и ветер, а завтра будет солнечно и тепло в городе."),
    ("mac-cyrillic", "Сегодня дождь и ветер, а завтра будет солнечно и тепло в городе."),
    ("windows-1253", "Σήμερα βρέχει και αύριο θα έχει ήλιο σε όλη την πόλη της Αθήνας."),
    ("windows-1254", "Bugün hava çok güzel, öğleden sonra arkadaşlarımla İstanbul’da yürüyüş."),
    ("windows-1255", "היום יורד גשם ומחר יהיה שמש בכל העיר הגדולה של ירושלים."),
    ("windows-1256", "اليوم الطقس جميل وغدا سوف يكون مشمسا في جميع أنحاء المدينة."),
    ("cp874", "วันนี้อากาศดีมากและพรุ่งนี้จะมีแดดทั่วเมืองใหญ่ของประเทศไทย"),
    ("windows-1257", "Šiandien oras gražus, o rytoj bus saulėta visame mieste ir aplink jį."),
    ("cp932", "今日は天気がとても良いので、公園へ散歩に行きました。"),
    ("euc_jp", "今日は天気がとても良いので、公園へ散歩に行きました。"),
    ("gbk", "今天天气很好，我们去公园散步。明天可能会下雨。"),
    ("big5", "今天天氣很好，我們去公園散步。明天可能會下雨。"),
    ("cp949", "오늘은 날씨가 아주 좋아서 공원에 산책을 갔습니다."),
]


@pytest.mark.parametrize(("codec", "text"), SENTENCES)
@pytest.mark.parametrize("declared", [None, "utf-8", "no-such"])
@pytest.mark.parametrize("far", [False, True])
def test_text_in_no_charset_that_is_said(codec, text, declared, far):
    around = "<p>plain words</p>" * (10_000 if far else 3)
    page = f"<!doctype html><html><head><title>x</title></head>{around}<p>{text}</p>{around}"
    assert decode(page.encode(codec), declared) == page


@pytest.mark.parametrize("charset", ["shift_jis", "gbk", "euc-kr", "big5", "euc-jp", "utf-8"])
def test_damage_is_no_other_charset(charset):
    """A page that its charset fits but for a few bytes is in it."""
    text = {"euc-kr": "오늘은 날씨가", "utf-8": GERMAN}.get(charset, "天明日公園")
    body = text.encode(charset)
    page = decode(body + b"\xff<br>" + body * 3 + b"\x81", charset)
    assert page == f"{text}\ufffd<br>{text * 3}\ufffd"


# Status lines and headers.


@pytest.mark.parametrize(
    "page",
    [
        message(b"<p>Words", "Content-Type: text/html", status=status)
        for status in (
            *("HTTP/2 200", "HTTP/2.0 200 OK", "HTTP/1.1 200", "HTTP/1.1 200 ", "HTTP/1.0 200 OK"),
            *("HTTP/3 200", "ICY 200 OK", "http/1.1 200 OK", "HTTP/1.1\t200\tOK", "HTTP/1.1 200OK"),
            *("\xef\xbb\xbfHTTP/1.1 200 OK", "\r\n\r\nHTTP/1.1 200 OK", "HTTP/1.1  200  OK"),
            *("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK",),
            *("HTTP/1.1 100 Continue\r\nX: y\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\nHTTP/2 200",),
            *("HTTP/1.0 200 Connection established\r\n\r\nHTTP/1.1 203 Fine",),
        )
    ]
    + [message(b"<p>Words", "Content-Type: text/html", end=end) for end in ("\n", "\r", "\r\r\n")]
    + [
        message(b"<p>Words", *lines)
        for lines in (
            ["Content-Type: text/html", "Power by: Auto", "no colon", "X: a\x01b", "Y: \xe9"],
            ["Content-Type: TEXT/HTML"],
            ['Content-Type: "text/html"'],
            ["Content-Type: text/html,text/html"],
            ["Content-Type: application/octet-stream", "Content-Type: text/html"],
            ["Content-Type: text/html", "Content-Type: application/octet-stream"],
            ["X: first", "  folded", "Content-Type: text/html"],
        )
    ]
    + [
        message(b"<html><p>Words"),
        message(b"<html><p>Words", "Content-Type: "),
        b"<!DOCTYPE html><p>Words",
        b"HTTP/1.1 200 OK\nContent-Type: text/html\r\n\r\n<p>Words",
    ],
)
def test_heads_as_servers_write_them(page):
    assert page_text(page) == ("Words", "html")


def test_an_empty_line_in_the_body_ends_no_header():
    assert parse_response(b"HTTP/1.1 200 OK\r\n\r\none\n\ntwo", MAX_BYTES).body == b"one\n\ntwo"


def test_the_status_is_the_last_one():
    page = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 Not Found\r\n\r\n<html>Sorry"
    assert page_text(page) == (None, "http_status")


@pytest.mark.parametrize(
    "body",
    [
        b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n1 0 obj <</Filter/FlateDecode>>" + b"stream x" * 99 + b"\0",
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(range(256)),
        b"GIF89a\x01\0\x01\0" + b"<" * 2000,
        b"PK\x03\x04\x14\0\0\0" + bytes(range(256)),
        b"<\x01\0\x02" + bytes(range(32)) * 9,
    ],
)
def test_files_that_are_no_pages(body):
    with pytest.raises(Unreadable, match="not_html"):
        page_text(message(body, "Content-Type: text/html"))


def test_a_stray_nul_makes_no_page_binary():
    body = b"<p>One\0 two</p>" + b"<p>three four</p>" * 20
    text, _ = page_text(message(body, "Content-Type: text/html"))
    assert text.startswith("One two\n")
