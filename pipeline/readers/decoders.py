"""The codecs of compressed files: how a member starts, and what decodes it.

gzip uses ISA-L (3.2 times as fast as zlib, see docs/log.md). All decoders release the GIL.
"""

import bz2
import lzma
import re
import sys
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Protocol, cast

import lz4.frame
from isal import igzip_lib

from pipeline.readers.contract import Reason

if sys.version_info >= (3, 14):
    from compression import zstd as zstd
else:
    from backports import zstd as zstd

Compression = Literal["none", "gzip", "zstd", "bzip2", "xz", "lz4"]

_SWALLOWED = 1 << 18
_LARGE_BLOCK = 4 << 20
"""How far decoding may run past the end of a truncated member before it fails: a zstd block is at
most 128 KiB, and deflate rarely decodes that much noise. Blocks of bzip2 and lz4 are larger."""

FRAME = b"\x28\xb5\x2f\xfd"
_SKIPPABLE = tuple(bytes([low]) + b"\x2a\x4d\x18" for low in range(0x50, 0x60))
DICTIONARY_FRAME = re.compile(rb"\x5d\x2a\x4d\x18(.{4})(?:\x37\xa4\x30\xec|\x28\xb5\x2f\xfd)", re.S)
"""The start of a skippable frame with a dictionary, plain or compressed: magic number, size."""

_XZ_MEMORY = 2 << 30
_WINDOW_LOG = zstd.DecompressionParameter.window_log_max.bounds()[1]  # 2 GiB, of `zstd --long=31`


class Decoder(Protocol):
    eof: bool
    needs_input: bool
    unused_data: bytes | None

    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class Codec(NamedTuple):
    starts: tuple[bytes, ...]  # possible first bytes of a member
    member: re.Pattern[bytes]  # finds a member within noise
    new: Callable[[], Decoder]
    error: type[Exception]
    truncated: Reason
    corrupt: Reason
    swallowed: int = _SWALLOWED


class _Bzip2Error(ValueError):
    """The data is not bzip2. The library raises OSError, as a failing disk does."""


class _Bzip2:
    def __init__(self) -> None:
        self._decoder = bz2.BZ2Decompressor()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._decoder, name)

    def decompress(self, data: bytes, max_length: int) -> bytes:
        try:
            return self._decoder.decompress(data, max_length)
        except OSError as error:
            raise _Bzip2Error(str(error)) from None


def zstd_decoder(dictionary: zstd.ZstdDict | None = None) -> Decoder:
    options = {int(zstd.DecompressionParameter.window_log_max): _WINDOW_LOG}
    return cast(Decoder, zstd.ZstdDecompressor(dictionary, options))


CODECS: dict[Compression, Codec] = {
    "gzip": Codec(
        starts=(b"\x1f\x8b\x08",),
        member=re.compile(rb"\x1f\x8b\x08"),
        new=lambda: cast(Decoder, igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)),
        error=cast(type[Exception], igzip_lib.IsalError),
        truncated="truncated_gzip",
        corrupt="corrupt_gzip",
    ),
    "zstd": Codec(
        # pzstd and seekable zstd files have skippable frames too.
        starts=(FRAME, *_SKIPPABLE),
        member=re.compile(re.escape(FRAME) + b"|" + DICTIONARY_FRAME.pattern, re.S),
        new=zstd_decoder,
        error=zstd.ZstdError,
        truncated="truncated_zstd",
        corrupt="corrupt_zstd",
    ),
    "bzip2": Codec(
        starts=tuple(b"BZh%d" % level for level in range(1, 10)),
        member=re.compile(rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)"),
        new=lambda: cast(Decoder, _Bzip2()),
        error=_Bzip2Error,
        truncated="truncated_bzip2",
        corrupt="corrupt_bzip2",
        swallowed=_LARGE_BLOCK,
    ),
    "xz": Codec(
        starts=(b"\xfd7zXZ\0",),
        member=re.compile(rb"\xfd7zXZ\0"),
        new=lambda: cast(Decoder, lzma.LZMADecompressor(lzma.FORMAT_XZ, _XZ_MEMORY)),
        error=lzma.LZMAError,
        truncated="truncated_xz",
        corrupt="corrupt_xz",
    ),
    "lz4": Codec(
        starts=(b"\x04\x22\x4d\x18",),
        member=re.compile(rb"\x04\x22\x4d\x18"),
        new=lambda: cast(Decoder, lz4.frame.LZ4FrameDecompressor()),
        error=RuntimeError,
        truncated="truncated_lz4",
        corrupt="corrupt_lz4",
        swallowed=_LARGE_BLOCK,
    ),
}


def compression_of(head: bytes) -> Compression:
    """The compression of a file that starts with ``head``."""
    return next((name for name, codec in CODECS.items() if head.startswith(codec.starts)), "none")
