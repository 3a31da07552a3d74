"""The charsets of the web: labels and decoders, by the Encoding standard (WHATWG).

webencodings maps labels to Python's codecs, which differ from the standard: they lack characters
that vendors added, map some bytes to other characters, and count errors differently. The decoders
here give the text that a browser shows. They also read two charsets that browsers refuse because
scripts can hide in them; no script runs here.
"""

import codecs
import functools
import re
from collections.abc import Callable
from dataclasses import dataclass

import webencodings

_HKSCS = (
    "877a㡵𡵓𣚞𦀡㻬 "
    "87a1𥣞㫵竼龗𤅡𨤍𣇪𠪊𣉞䌊蒄龖鐯䤰蘓墖靊鈘秐稲晠権袝瑌篅枂稬剏遆㓦珄𥶹瓆鿇垳䤯 "
    "87c5呌䄱𣚎堘穲𧭥讏䚮𦺈䆁𥶙箮𢒼鿈𢓁𢓉𢓌鿉蔄𣖻䂴鿊䓡𪷿拁灮鿋 8e69箸 8e6f簆 8e7e糎 8eab緒 "
    "8eb4縝 8ecd者 8ed0耨 8f57菁 8f69蒨 8f6e萏 8fcb覦覩 8ffe起 906d都 "
    "907a銹 90dc靜 90f1響 91bf鼖 9244蔃 92af兙兛兝兞 92c8鍮 92d1瑹 9447浧 "
    "94ca禛 95d9邗 9644靝 96ed瀞 96fc嬨 9b76爁 9b78矗 9b7b纇 9bc6駖 9bde釔 "
    "9bec惞 9bf6澶 9c42輶 9c53侻 9c62營 9c68鄄 9c6b鷰 9c77菏 9cbc尐秣 "
    "9cd0婧 9d57輋 9d5a筑 9dc4拐 9ea9恢 9eef痹 9efd汊 9f60鬮 9f66鼗 9fcb僭 "
    "9fd8弌 a063蠏 a077拎 a0d5瑨 a0df煢 a0e4牐 "
    "a3c0␀␁␂␃␄␅␆␇␈␉␊␋␌␍␎␏␐␑␒␓␔␕␖␗␘␙␚␛␜␝␞␟␡€ c6cf廴 c6d3无 c6d5癶 "
    "c6d7隶 c6de〃仝 fa5f倩 fa66偽 fabd包 fac5卄 fad5卿 fb48嘅 fbb8婷 "
    "fbf3幵 fbf9廐 fc4f彘 fc6c悤 fcb9撐 fce2晴 fcf1杞 fdb7沜渝 fdbb港 "
    "fdf1煮 fe52猪 fe6f瑜 feaa瓩 fedd砉 "
)
"""What Python's Big5 with HKSCS lacks: runs of characters after the bytes of the first."""

_NOT_IN_PYTHON = {
    "big5": {
        (int(first, 16) + place).to_bytes(2, "big"): character
        for first, characters in re.findall(r"([0-9a-f]{4})(\S+) ", _HKSCS)
        for place, character in enumerate(characters)
    },
    "gb18030": {b"\x80": "€"},
}
_OTHER_IN_PYTHON = {
    "big5": dict(zip("•､‾∼♁☉¥¢£", "‧﹑¯～⊕⊙￥￠￡", strict=True)),
    "euc-jp": dict(zip("〜‖−¢£¬", "～∥－￠￡￢", strict=True)),
    # Python has version 2000, with some characters still in private use.
    "gb18030": {
        "\ue5e5": "\u3000",
        **dict(zip(map(chr, range(0xE78D, 0xE797)), "︐︒︑︓︔︕︖︗︘︙", strict=True)),
        "\ue7c7": "ḿ",
        **dict(zip("\ue81e\ue826\ue82b\ue82c\ue832", "龴龵龶龷龸", strict=True)),
        **dict(zip("\ue843\ue854\ue864", "龹龺龻", strict=True)),
    },
    "shift_jis": dict.fromkeys("\uf8f0\uf8f1\uf8f2\uf8f3", "\ufffd"),
}
_SINGLE_BYTES_OTHER_IN_PYTHON = {"koi8-u": {0xAE: "ў", 0xBE: "Ў"}, "windows-1255": {0xCA: "\u05ba"}}

_PYTHON_NAMES = {
    "big5": "big5hkscs",
    "euc-jp": "euc_jp",
    "euc-kr": "cp949",
    "gb18030": "gb18030",
    "shift_jis": "cp932",
}
# Invalid sequences that are one error. ASCII after a lead byte is kept.
_ONE_ERROR = {
    "big5": re.compile(rb"[\x81-\xfe][\x80-\xff]"),
    "euc-jp": re.compile(rb"\x8f[\xa1-\xfe][\x80-\xff]|[\x8e\x8f\xa1-\xfe][\x80-\xff]"),
    "euc-kr": re.compile(rb"[\x81-\xfe][\x80-\xff]"),
    "gb18030": re.compile(rb"[\x81-\xfe](?:[\x80-\xff]|[0-9][\x81-\xfe][0-9]|[0-9][\x81-\xfe]?\Z)"),
    "shift_jis": re.compile(rb"[\x81-\x9f\xe0-\xfc][\x80-\xff]"),
}

_UTF_16 = ("utf-16le", "utf-16be")
_PAIR = re.compile(rb"[\xa1-\xfe]{2}")
_REFUSED = {"hz-gb-2312": "hz", "iso-2022-kr": "iso2022_kr", "csiso2022kr": "iso2022_kr"}
_ISO_2022_JP = re.compile(rb"\x1b(\$[@B]|\([BJI])")
_HIGH = bytes(b | 0x80 if 0x21 <= b <= 0x7E else b for b in range(256))
_KATAKANA = re.compile(rb"[\x21-\x5f]")


@dataclass(frozen=True)
class Charset:
    """An encoding of the standard."""

    name: str
    decode: Callable[[bytes], str]  # replaces invalid bytes with U+FFFD

    @property
    def is_multibyte(self) -> bool:
        """Whether characters may have several bytes; False for UTF-8."""
        return self.name in {*_PYTHON_NAMES, *_REFUSED.values(), "iso-2022-jp", *_UTF_16}


def lookup(label: str) -> Charset | None:
    """The encoding of a label; None if it is unknown."""
    label = label.strip("\t\n\f\r ").lower()
    if label in _REFUSED:
        return the(_REFUSED[label])
    encoding = webencodings.lookup(label)
    if encoding is None:
        return None
    return the("gb18030" if encoding.name == "gbk" else encoding.name)


@functools.cache
def the(name: str) -> Charset:
    """The charset with that name in the standard."""
    if name in _PYTHON_NAMES:
        codecs.register_error(f"winnow.{name}", functools.partial(_on_error, name))
        return Charset(name, functools.partial(_decode_several_bytes, name))
    if name == "iso-2022-jp":
        return Charset(name, _decode_iso_2022_jp)
    if name in _REFUSED.values():
        return Charset(name, lambda page: page.decode(name, "replace"))
    decode = webencodings.lookup(name).codec_info.decode
    if name.startswith("utf-") or name in ("replacement", "x-user-defined"):
        return Charset(name, lambda page: decode(page, "replace")[0])
    characters = [decode(bytes([byte]), "replace")[0] for byte in range(256)]
    for byte in range(0x80, 0xA0):
        if characters[byte] == "\ufffd":  # undefined: the control character
            characters[byte] = chr(byte)
    for byte, character in _SINGLE_BYTES_OTHER_IN_PYTHON.get(name, {}).items():
        characters[byte] = character
    table = "".join(characters)
    return Charset(name, lambda page: codecs.charmap_decode(page, "replace", table)[0])


def _decode_several_bytes(name: str, page: bytes) -> str:
    text = page.decode(_PYTHON_NAMES[name], f"winnow.{name}")
    other = _OTHER_IN_PYTHON.get(name)
    return re.sub(f"[{''.join(other)}]", lambda match: other[match[0]], text) if other else text


def _on_error(name: str, error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    page, start = error.object, error.start
    wide = _ONE_ERROR[name].match(page, start)
    end = wide.end() if wide else start + 1
    found = page[start : start + 2]
    if name == "euc-jp" and _PAIR.match(found):
        # NEC's and IBM's characters are in the rows where Shift_JIS has them.
        character = _in_shift_jis(found).decode("cp932", "replace")
        return ("\ufffd" if "\ufffd" in character else character), end
    known = _NOT_IN_PYTHON.get(name, {})
    for piece in (found, found[:1]):
        if piece in known:
            return known[piece], start + len(piece)
    return "\ufffd", end


def _in_shift_jis(pair: bytes) -> bytes:
    """The Shift_JIS bytes of a two-byte EUC-JP character."""
    row, cell = pair[0] - 0xA1, pair[1] - 0xA1
    lead = row // 2 + (0x81 if row < 62 else 0xC1)
    trail = cell + 0x9F if row % 2 else cell + 0x40 + (cell >= 63)
    return bytes([lead, trail])


def _decode_iso_2022_jp(page: bytes) -> str:
    """Decode each part as EUC-JP, which sets high bits instead of escape sequences."""
    decode = the("euc-jp").decode
    first, *rest = _ISO_2022_JP.split(page)
    out = [decode(first)]
    for escape, part in zip(rest[::2], rest[1::2], strict=True):
        match escape:
            case b"(B":
                out.append(decode(part))
            case b"(J":
                out.append(decode(part).replace("\\", "¥").replace("~", "‾"))
            case b"(I":
                out.append(decode(_KATAKANA.sub(lambda m: b"\x8e" + m[0].translate(_HIGH), part)))
            case _:
                out.append(decode(part.translate(_HIGH)))
    return "".join(out)
