"""The canonical form of a URL, which joins documents with their annotations.

The form is ``host[:port]/path[?query]``:

- the host in the normal form of :mod:`winnow.text.hosts`, without a leading ``www.``; no scheme,
  user name or fragment;
- no port that is the scheme's default (80, 443);
- an empty path is ``/``, and ``.`` and ``..`` in a path are resolved (RFC 3986, 5.2.4);
- in paths and queries, percent-escapes of unreserved characters are decoded, others have upper-case
  digits, and characters outside ASCII are escaped as UTF-8 (RFC 3986, 6.2.2);
- no ``?`` without a query.

Case, trailing slashes and the order within a query count, as they may for servers. A regular
expression in Arrow parses nearly all URLs, Python the rest, each distinct URL once.
"""

import re
from urllib.parse import quote, unquote_to_bytes

import pyarrow as pa
import pyarrow.compute as pc

from winnow.text.hosts import hosts, split_scheme

_SEGMENT = r"(?:[A-Za-z0-9_~!$&'()*+,;=:@\-][A-Za-z0-9_~!$&'()*+,;=:@.\-]*)?"
_PLAIN = (
    r"^[Hh][Tt][Tt][Pp][Ss]?://(?P<host>(?:[A-Za-z0-9_\-]+\.)+[A-Za-z][A-Za-z0-9\-]*)"
    rf"(?P<path>(?:/{_SEGMENT})*)(?P<query>\?[A-Za-z0-9._~!$&'()*+,;=:@/?\-]*)?(?:#.*)?$"
)
_AROUND = "".join(map(chr, range(33))) + '<>"“”‘’«»'
_PORT = re.compile(r":(\d+)$")
_DEFAULT_PORTS = {"80": ("http", None), "443": ("https", None)}
_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})")
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_KEPT = "!$&'()*+,;=:@/?%[]"
"""Characters not escaped in a path or a query, besides unreserved ones."""


def canonical(url: pa.Array) -> pa.Array:
    """The canonical forms of n URLs (string [n], nulls allowed); null where there is no host."""
    parts = pc.extract_regex(url, _PLAIN)
    plain = parts.is_valid()
    host = pc.ascii_lower(pc.struct_field(parts, "host"))
    host = pc.replace_substring_regex(host, r"^www\.", "", max_replacements=1)
    path, query = (pc.struct_field(parts, name) for name in ("path", "query"))
    path = pc.if_else(pc.equal(path, ""), "/", path)
    query = pc.if_else(pc.equal(query, "?"), "", query)
    found = pc.binary_join_element_wise(host, path, query, "").cast(pa.string())
    odd = pc.and_(pc.invert(plain), pc.is_valid(url))
    if not pc.any(odd, min_count=0).as_py():
        return found
    codes = pc.filter(url, odd).dictionary_encode()
    host = pc.replace_substring_regex(hosts(codes.dictionary), r"^www\.", "", max_replacements=1)
    pairs = zip(codes.dictionary.to_pylist(), host.to_pylist(), strict=True)
    names = pa.array([name and _canonical(text, name) for text, name in pairs], pa.string())
    return pc.replace_with_mask(found, odd, names.take(codes.indices))


def _canonical(url: str, host: str) -> str:
    """The canonical form of any URL on a host in normal form."""
    scheme, rest = split_scheme(re.sub(r"[\t\r\n]", "", url).strip(_AROUND))
    rest, _, query = rest.partition("#")[0].partition("?")
    authority, slash, path = rest.replace("\\", "/").lstrip("/").partition("/")
    port = _PORT.search(authority)
    own = ""
    if port and scheme not in _DEFAULT_PORTS.get(number := port[1].lstrip("0") or "0", ()):
        own = f":{number}"
    query = f"?{_escaped(query)}" if query else ""
    return f"{host}{own}{_resolved(_escaped(slash + path))}{query}"


def _escaped(text: str) -> str:
    """A path or a query with canonical escapes."""
    once = quote(text, safe=_KEPT + "~").encode()
    return _ESCAPE.sub(_escape, once).decode()


def _escape(match: re.Match[bytes]) -> bytes:
    octet = unquote_to_bytes(match[0])
    return octet if octet[0] in _UNRESERVED else match[0].upper()


def _resolved(path: str) -> str:
    """A path without ``.`` and ``..`` (RFC 3986, 5.2.4)."""
    out: list[str] = []
    segments = path.split("/")[1:]
    for segment in segments:
        if segment == "..":
            del out[-1:]
        elif segment != ".":
            out.append(segment)
    if segments and segments[-1] in (".", ".."):
        out.append("")
    return "/" + "/".join(out)
