"""The host of a URL in normal form, for block lists, statistics and cards.

The form is that of the URL standard (https://url.spec.whatwg.org, host parsing): lower case, names
in other scripts as ``xn--…`` (UTS 46, non-transitional), IPv4 addresses as four decimal numbers,
IPv6 addresses compressed and in brackets; and, beyond the standard, without a trailing dot. URLs
that browsers reject are accepted, too: ``<http://host/>`` as wget writes it into archives,
``//host``, ``host/path``, spaces, backslashes, a ``view-source:`` prefix.

A regular expression in Arrow parses nearly all URLs, Python the rest, each distinct URL once.
"""

import importlib.util
import ipaddress
import re
import unicodedata
from urllib.parse import unquote

import idna
import pyarrow as pa
import pyarrow.compute as pc

_PLAIN = r"^https?://(?P<host>(?:[a-z0-9_\-]+\.)+[a-z][a-z0-9\-]*)(?:[:/?#]|$)"

_SPECIAL = ("http", "https", "ftp", "ws", "wss")
_AROUND = "".join(map(chr, range(33))) + "<>()\"'“”‘’«»,;\u00a0\ufeff"
_SCHEME = re.compile(r"([a-z][a-z0-9+.\-]*):(?!\d+(?:[/?#\\]|$))", re.IGNORECASE)
_AUTHORITY = re.compile(r"[^/?#\\]*")
_PORT = re.compile(r":\d*$")
_FORBIDDEN = re.compile(r"[\x00-\x20\x7f#/:<>?@\[\\\]^|%\"{}`*,;!()=&$'+~]")
_FILE = re.compile(
    r".*\.(?:html?|xhtml|php|aspx?|jsp|cgi|txt|pdf|xml|json[l]?|csv|tsv|md|gz|jpe?g|png|gif|svg|js"
    r"|css|docx?|xlsx?|parquet|arrow|warc|wet)"
)
_MOST = 253
"""Longest name (RFC 1035); longer labels are not converted to ASCII."""


def hosts(url: pa.Array) -> pa.Array:
    """The hosts of n URLs (string [n], nulls allowed) in normal form; null where there is none."""
    lower = pc.ascii_lower(url)
    found = pc.struct_field(pc.extract_regex(lower, _PLAIN), "host").cast(pa.string())
    odd = pc.and_(pc.is_null(found), pc.is_valid(url))
    if not pc.any(odd, min_count=0).as_py():
        return found
    codes = pc.filter(url, odd).dictionary_encode()
    names = pa.array([_host(text) for text in codes.dictionary.to_pylist()], pa.string())
    return pc.replace_with_mask(found, odd, names.take(codes.indices))


def normal_host(name: str) -> str | None:
    """The normal form of a host; None if it is not a host."""
    if name.startswith("[") and name.endswith("]"):
        return _address(name[1:-1])
    if name.count(":") > 1:
        return _address(name)
    name = unquote(name).rstrip(".。．｡")
    if not name.isascii():
        name = _ascii(name)
    name = name.lower().rstrip(".")
    if not name or _FORBIDDEN.search(name) or ".." in name or name.startswith("."):
        return None
    last = name.rsplit(".", 1)[-1]
    return _ipv4(name) if last.isdecimal() or re.fullmatch("0x[0-9a-f]*", last) else name


def split_scheme(url: str) -> tuple[str | None, str]:
    """The scheme of a URL in lower case (None without one), and the rest with its slashes.

    Of several schemes, as in ``view-source:http://host``, the last counts.
    """
    scheme = None
    at = 0
    while match := _SCHEME.match(url, at):
        scheme, at = match[1].lower(), match.end()
    return scheme, url[at:]


def _host(url: str) -> str | None:
    """The host of any URL, even a malformed one."""
    scheme, url = split_scheme(re.sub(r"[\t\r\n]", "", url).strip(_AROUND))
    slashes = len(url) - len(url.lstrip("/\\"))
    if slashes < 2 and (scheme is not None or slashes == 1) and scheme not in _SPECIAL:
        return None
    if scheme is not None and scheme not in _SPECIAL and slashes > 2:
        return None  # file:///path
    authority = _AUTHORITY.match(url, slashes)
    assert authority is not None
    name = _PORT.sub("", authority[0].rpartition("@")[2])
    host = normal_host(name.strip(_AROUND))
    if scheme is None and slashes == 0 and host is not None:
        # Without a scheme it may also be a file path.
        return host if "." in host and not _FILE.fullmatch(host) else None
    return host


def _ascii(name: str) -> str:
    """A name with its labels in ASCII (UTS 46, ToASCII); empty if a label is too long."""
    try:
        mapped = idna.uts46_remap(name, std3_rules=False, transitional=False)
    except idna.IDNAError:
        mapped = unicodedata.normalize("NFKC", name).lower()
    labels = mapped.replace("。", ".").split(".")
    if any(len(label) > _MOST and not label.isascii() for label in labels):
        return ""
    return ".".join(
        label if label.isascii() else f"xn--{label.encode('punycode').decode()}" for label in labels
    )


def _address(text: str) -> str | None:
    try:
        return f"[{ipaddress.IPv6Address(text.partition('%')[0]).compressed}]"
    except ValueError:
        return None


def _ipv4(name: str) -> str | None:
    """An address of one to four decimal, octal or hexadecimal numbers, as browsers accept it."""
    parts = name.split(".")
    if len(parts) > 4:
        return None
    numbers = []
    for part in parts:
        base = 16 if part.startswith("0x") else 8 if part.startswith("0") and part != "0" else 10
        try:
            numbers.append(int(part[2:] or "0", 16) if base == 16 else int(part, base))
        except ValueError:
            return None
    *first, rest = numbers
    if any(number > 255 for number in first) or rest >= 256 ** (5 - len(numbers)):
        return None
    value = sum(number << (24 - 8 * i) for i, number in enumerate(first)) + rest
    return str(ipaddress.IPv4Address(value))


def check_installed() -> None:
    """Raise ValueError if the public suffix list is not installed."""
    if importlib.util.find_spec("tld") is None:
        raise ValueError(
            "registered domains need the public suffix list of the package tld: install it with"
            " pip install 'winnow-lm[domains]'"
        )


def registered_domains(host: pa.Array | pa.ChunkedArray) -> pa.Array:
    """The registered domains of n hosts (string [n], from :func:`hosts`), each looked up once.

    A registered domain is a name below a public suffix: ``bbc.co.uk`` of ``a.bbc.co.uk``. Suffixes
    are those of registries in the public suffix list (https://publicsuffix.org) that the package
    ``tld`` ships: ``a.github.io`` is under ``github.io``, whose owner is responsible. Addresses,
    public suffixes and names under none stay as they are.
    """
    codes = host.dictionary_encode()
    codes = codes.combine_chunks() if isinstance(codes, pa.ChunkedArray) else codes
    names = pa.array([_registered(name) for name in codes.dictionary.to_pylist()], pa.string())
    return names.take(codes.indices)


def _registered(host: str) -> str:
    from tld import get_fld

    labels = host.split(".")
    readable = ".".join(map(_readable, labels))
    found = get_fld(f"https://{readable}", fail_silently=True, search_private=False)
    return ".".join(labels[-(found.count(".") + 1) :]) if found else host


def _readable(label: str) -> str:
    """A label in its own script, as in the list."""
    if not label.startswith("xn--"):
        return label
    try:
        return idna.decode(label)
    except (idna.IDNAError, UnicodeError):
        return label
