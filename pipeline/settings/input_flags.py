"""The flags of ``pipeline/run.py`` that say what is read, and how."""

import argparse

from winnow import defaults
from winnow.arguments import flag


def add(group: argparse._ArgumentGroup) -> None:
    """Add them to a group of a parser."""
    flag(
        group,
        "source",
        action="append",
        metavar="NAME=GLOB",
        help="an input; may be repeated,"
        " also for one name. WET, WARC, ARC, JSON, Parquet, Arrow by content; CSV, TSV, text, HTML"
        " by name; packed by gzip, zstd, bzip2, xz or lz4, or not; a folder means its files",
    )
    flag(
        group,
        "filter",
        action="append",
        metavar="NAME",
        help="a source whose documents the"
        " steps and the keep rule may drop; the others pass through",
    )
    flag(
        group,
        "field",
        action="append",
        metavar="[SOURCE.]COLUMN=FIELD",
        help="the input field that holds text, id, url or language, as text=content, web.id=uid or"
        " url=metadata.url",
    )
    flag(
        group,
        "metadata",
        action="append",
        metavar="FIELD",
        help="a further input field to carry along as a string column",
    )
    flag(
        group,
        "join",
        action="append",
        metavar="NAME=FILES[:key=id|url|host]",
        help="columns of other files (Parquet, Arrow, JSON lines, CSV) for the documents with the"
        " same id, url or host; may be repeated. Further settings: :field=KEY_FIELD,"
        " :columns=NAME,NAME,…, :duplicates=first (or last), :missing=SCORE",
    )
    flag(
        group,
        "list_separator",
        type=lambda text: text.replace("\\n", "\n").replace("\\t", "\t"),
        metavar="SEP",
        help=r"what to put between the strings of a text that is a list, as \n",
    )
    flag(
        group,
        "html_extractor",
        metavar="NAME",
        help=f"how text is taken from WARC pages (default: {defaults.HTML_EXTRACTOR})",
    )
    flag(
        group,
        "plain_text",
        action=argparse.BooleanOptionalAction,
        help="read the plain text in WARC files, beside pages (default: yes)",
    )
    flag(
        group,
        "text_document",
        metavar="WHAT",
        help="a document of a .txt file is the file, or each line"
        f" (default: {defaults.TEXT_DOCUMENT})",
    )
    flag(
        group, "reader", action="append", metavar="MODULE.NAME", help="a format of your own package"
    )
    flag(
        group,
        "max_document_bytes",
        type=int,
        metavar="N",
        help=f"longer records are quarantined (default: {defaults.MAX_DOCUMENT_BYTES})",
    )
    flag(
        group,
        "split_bytes",
        type=int,
        metavar="N",
        help="splittable files are cut into ranges of"
        f" about this size (default: {defaults.SPLIT_BYTES})",
    )
