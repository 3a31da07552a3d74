"""The registered domain of a host, a name below a public suffix: ``bbc.co.uk`` of ``a.bbc.co.uk``.

By the public suffix list (https://publicsuffix.org) as the package ``tld`` ships it, which asks
nothing of the network. Its first section alone, the suffixes of registries: of ``a.github.io`` the
domain is ``github.io``, whose owner is the one to ask.
"""

import importlib.util

import idna
import pyarrow as pa

EXTRA = "domains"


def check_installed() -> None:
    """Raise ValueError if the public suffix list is not there."""
    if importlib.util.find_spec("tld") is None:
        raise ValueError(
            "registered domains need the public suffix list of the package tld: install it with"
            f" pip install 'winnow-lm[{EXTRA}]'"
        )


def registered_domains(host: pa.Array | pa.ChunkedArray) -> pa.Array:
    """The registered domains of n hosts (string [n], as :mod:`winnow.text.hosts` gives them).

    Addresses, public suffixes and names under none of them stay as they are. Each distinct host is
    looked up once.
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
    """A label in the script that the list is written in."""
    if not label.startswith("xn--"):
        return label
    try:
        return idna.decode(label)
    except (idna.IDNAError, UnicodeError):
        return label
