"""Extracts real text from the data of public Python packages, for the demo and the benchmarks.

python benchmarks/real_text.py --output cache/real_text

Downloads two wheels, checks their hashes and reads them as archives; none of their code runs:

- formasaurus: 954 real web pages (log-in, search, sign-up and contact pages of many sites)
- gensim: an excerpt of a real dump of the English Wikipedia, and 300 news stories

A third of the pages and two thirds of the articles train a classifier; the pipeline filters the
rest. Half of the remaining sections become pages of the crawl, since every crawl holds articles
among its sign-up forms. No classifier sees the news (the corpus of Lee, Pincombe and Welsh 2005,
in gensim), which are for evaluation.

    train/curated.jsonl.gz  train/web.warc.gz
    input/wiki.jsonl.gz  input/web.warc.gz  input/news.jsonl.gz
"""

import argparse
import bz2
import contextlib
import gzip
import hashlib
import html
import json
import re
import subprocess
import sys
import uuid
import xml.etree.ElementTree as ElementTree
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import mwparserfromhell


class Wheel(NamedTuple):
    """A file of the package index, and its hash."""

    requirement: str
    name: str
    sha256: str


FORMASAURUS = Wheel(
    "formasaurus==0.10.0",
    "formasaurus-0.10.0-py2.py3-none-any.whl",
    "67296f19fe5cdb7c714795315a6a3cc010f61e803cb9ee8f8c61017f82af51bf",
)
GENSIM = Wheel(
    "gensim==4.4.0",
    "gensim-4.4.0-cp311-cp311-manylinux_2_24_x86_64.manylinux_2_28_x86_64.whl",
    "91a7fa5e814e7b1bad4b2dffa8d62c1e55410d5cbdf930714c1997ffb4404db8",
)
NEWS = "gensim/test/test_data/lee_background.cor"
DUMP = "gensim/test/test_data/enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"

SHORTEST_SECTION = 200
"""In characters; shorter ones are a heading with a link or two."""

_EXPORT = "{http://www.mediawiki.org/xml/export-0.10/}"
_HEADING = re.compile(r"^==[^=].*==\s*$", re.MULTILINE)
_NO_PROSE = re.compile(r"\[\[(?:File|Image|Category):|<ref|\{\|", re.IGNORECASE)


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--output", type=Path, required=True, help="a folder, made if missing")
    output: Path = parser.parse_args().output
    pages, gensim = list(web_pages(fetch(FORMASAURUS, output))), fetch(GENSIM, output)
    sections, stories = list(wikipedia_sections(gensim)), list(news(gensim))
    _write_jsonl(output / "input" / "news.jsonl.gz", stories)
    for part, for_training in (("train", True), ("input", False)):
        crawl = [page for page in pages if (_third(page[0]) == 0) == for_training]
        articles = [doc for doc in sections if (_third(doc["url"]) != 0) == for_training]
        if not for_training:
            crawl += [as_page(document) for document in articles[::2]]
            articles = articles[1::2]
        _write_warc(output / part / "web.warc.gz", crawl)
        name = "curated" if for_training else "wiki"
        _write_jsonl(output / part / f"{name}.jsonl.gz", articles)
    counts = f"{len(pages)} web pages, {len(sections)} sections of Wikipedia"
    print(f"{counts} and {len(stories)} news stories in {output}")


def fetch(wheel: Wheel, folder: Path) -> Path:
    """Download a wheel to ``folder``, unless it exists; raise ValueError if its hash is wrong."""
    path = folder / wheel.name
    if not path.exists():
        # One platform's wheel, wherever this runs: it is neither installed nor run.
        options = ["--no-deps", "--only-binary=:all:", "--python-version=3.11"]
        options += ["--platform=manylinux_2_28_x86_64", f"--dest={folder}"]
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "--quiet", *options, wheel.requirement],
            check=True,
        )
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != wheel.sha256:
        raise ValueError(f"{path} has sha256 {found}, not {wheel.sha256}: delete it and try again")
    return path


def web_pages(wheel: Path) -> Iterator[tuple[str, bytes]]:
    """URL and HTML of each page, in the index's order."""
    with zipfile.ZipFile(wheel) as archive:
        index = json.loads(archive.read("formasaurus/data/index.json"))
        for name, about in index.items():
            yield about["url"], archive.read(f"formasaurus/data/{name}")


def wikipedia_sections(wheel: Path) -> Iterator[dict[str, str]]:
    """The sections of each article as plain text, without references."""
    with zipfile.ZipFile(wheel) as archive:
        dump = ElementTree.fromstring(bz2.decompress(archive.read(DUMP)))
    for page in dump.iter(f"{_EXPORT}page"):
        if page.find(f"{_EXPORT}redirect") is not None:
            continue
        title = page.findtext(f"{_EXPORT}title", "")
        url = f"https://en.wikipedia.org/wiki/{title.replace(' ', '_')}"
        markup = page.findtext(f"{_EXPORT}revision/{_EXPORT}text", "")
        for number, section in enumerate(_HEADING.split(markup)):
            text = plain_text(section)
            if len(text) >= SHORTEST_SECTION:
                yield {"id": f"{title}#{number}", "url": url, "text": text}


def news(wheel: Path) -> Iterator[dict[str, str]]:
    """The stories of the Lee corpus, one per line."""
    with zipfile.ZipFile(wheel) as archive:
        lines = archive.read(NEWS).decode().splitlines()
    for number, line in enumerate(lines):
        yield {"id": f"news#{number}", "url": "", "text": line.strip()}


def as_page(document: dict[str, str]) -> tuple[str, bytes]:
    url = document["url"] + "?section=" + document["id"].rpartition("#")[2]
    lines = "".join(f"<p>{html.escape(line)}</p>\n" for line in document["text"].split("\n"))
    title = html.escape(document["id"])
    page = f"<!doctype html>\n<title>{title}</title>\n<article>\n{lines}</article>\n"
    return url, page.encode()


def plain_text(markup: str) -> str:
    """The prose of a piece of wiki markup."""
    code = mwparserfromhell.parse(markup)
    for node in code.filter(matches=lambda node: bool(_NO_PROSE.match(str(node)))):
        with contextlib.suppress(ValueError):  # removed with its parent
            code.remove(node)
    lines = (line.strip() for line in code.strip_code().splitlines())
    return "\n".join(line for line in lines if line)


def _third(key: str) -> int:
    return hashlib.sha256(key.encode()).digest()[0] % 3


def _write_jsonl(path: Path, documents: Iterable[dict[str, str]]) -> None:
    lines = "".join(json.dumps(document, ensure_ascii=False) + "\n" for document in documents)
    _write(path, gzip.compress(lines.encode(), mtime=0))


def _write_warc(path: Path, pages: Iterable[tuple[str, bytes]]) -> None:
    """Write pages as WARC responses, one per gzip member, as in Common Crawl."""
    _write(path, b"".join(gzip.compress(_record(*page), mtime=0) for page in pages))


def _record(url: str, page: bytes) -> bytes:
    # formasaurus stores every page as UTF-8, whatever its <meta> says.
    body = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n" + page
    header = (
        "WARC/1.0\r\n"
        "WARC-Type: response\r\n"
        f"WARC-Record-ID: <urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, url)}>\r\n"
        f"WARC-Target-URI: {url}\r\n"
        "Content-Type: application/http; msgtype=response\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return header.encode() + body + b"\r\n\r\n"


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(content)
    temporary.replace(path)


if __name__ == "__main__":
    main()
