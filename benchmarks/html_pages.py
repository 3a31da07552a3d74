"""Compares the extraction of text from a WARC file with resiliparse alone and trafilatura.

    OMP_NUM_THREADS=1 python benchmarks/html_pages.py --warc crawl.warc.gz

All read the whole file, in one process and in turns. Prints the minimum CPU time over rounds, then
the time of each step of our reader.
"""

import argparse
import io
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import pairwise

import trafilatura
from fastwarc.warc import ArchiveIterator, WarcRecordType
from isal import igzip
from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.encoding import bytes_to_str, detect_encoding

from pipeline.readers import FieldMap, InputRange, read_batches
from pipeline.readers.web.charset import decode
from pipeline.readers.web.html_kernel import scan
from pipeline.readers.web.html_rewrite import rewrite
from pipeline.readers.web.http_response import parse_response

_MAX_BYTES = 1 << 26
_STEPS = (
    "gzip, records (here FastWARC's)",
    "HTTP: head and body",
    "charset, UTF-8",
    "scan for what resiliparse misreads",
    "rewrite that",
    "resiliparse: main content",
    "restore what was rewritten",
)


def main(warc: str, rounds: int) -> None:
    with open(warc, "rb") as file:
        stored = file.read()
    pages = len(list(_pages(stored)))
    whole = partial(extract_plain_text, preserve_formatting=True, main_content=False)
    extract = trafilatura.extract
    peers = {
        "our reader": partial(_ours, warc),
        "FastWARC, resiliparse: main content": partial(_by, _main_content, stored),
        "FastWARC, resiliparse: all text": partial(_by, whole, stored),
        f"FastWARC, trafilatura {trafilatura.__version__}": partial(_by, extract, stored),
        "FastWARC, trafilatura, fast": partial(_by, partial(extract, fast=True), stored),
    }
    least = _least(peers, rounds)
    print(f"{pages:,} pages of {len(igzip.decompress(stored)) / pages / 1e3:.0f} kB in {warc}")
    for name, seconds in least.items():
        print(f"{name:<40}{pages / seconds:7.0f} pages/s{1e3 * seconds / pages:8.3f} ms")
    print("the steps of our reader:")
    for name, seconds in _steps(stored, rounds).items():
        print(f"  {name:<53}{1e3 * seconds / pages:8.3f} ms")


def _ours(warc: str) -> None:
    for _ in read_batches(InputRange(warc, 0, None, 0), FieldMap(), on_quarantine=lambda _: None):
        pass


def _by(extract: Callable[[str], str | None], stored: bytes) -> None:
    for body, charset in _pages(stored):
        extract(bytes_to_str(body, charset or detect_encoding(body) or "utf-8"))


def _pages(stored: bytes) -> Iterator[tuple[bytes, str | None]]:
    """The body of each response and the charset in its HTTP header."""
    for record in ArchiveIterator(io.BytesIO(stored), record_types=WarcRecordType.response):
        yield record.reader.read(), record.http_charset


def _main_content(page: str) -> str:
    return extract_plain_text(page, preserve_formatting=True, main_content=True)


def _steps(stored: bytes, rounds: int) -> dict[str, float]:
    """The minimum CPU seconds of each step over all pages."""
    least: dict[str, float] = {}
    for _ in range(rounds):
        spent = dict.fromkeys(_STEPS, 0.0)
        at = [time.process_time()]
        responses = WarcRecordType.response
        for record in ArchiveIterator(io.BytesIO(stored), responses, parse_http=False):
            message = record.reader.read()
            at.append(time.process_time())
            response = parse_response(message, _MAX_BYTES)
            at.append(time.process_time())
            page = decode(response.body, response.charset)
            data = page.utf_8
            at.append(time.process_time())
            marks, _ = scan(data)
            at.append(time.process_time())
            rewritten = rewrite(page.text, data, marks)
            at.append(time.process_time())
            text = _main_content(rewritten.page)
            at.append(time.process_time())
            rewritten.restore(text)
            at.append(time.process_time())
            for name, (start, end) in zip(_STEPS, pairwise(at), strict=True):
                spent[name] += end - start
            at = at[-1:]
        least = {name: min(least.get(name, seconds), seconds) for name, seconds in spent.items()}
    return least


def _least(peers: Mapping[str, Callable[[], None]], rounds: int) -> dict[str, float]:
    """The minimum CPU seconds of each contender, in turns, after a warm-up round."""
    times: dict[str, list[float]] = {name: [] for name in peers}
    for _ in range(rounds + 1):
        for name, read in peers.items():
            begun = time.process_time()
            read()
            times[name].append(time.process_time() - begun)
    return {name: min(seconds[1:]) for name, seconds in times.items()}


if __name__ == "__main__":
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--warc", required=True, help="a .warc.gz file of pages")
    parser.add_argument("--rounds", type=int, default=5)
    flags = parser.parse_args()
    main(flags.warc, flags.rounds)
