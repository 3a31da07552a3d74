"""The table, the page and the data card of a finished run, from its manifest and statistics.

python pipeline/report.py scored/
"""

from collections.abc import Sequence

from winnow.arguments import Parser, check_utf8
from winnow.cli import program
from winnow.commands import console, exits


def parser() -> Parser:
    out = Parser(
        prog=program(),
        description="The table, the page and the data card of a finished run.",
        epilog="Every other flag goes to Beam, for folders in object stores.",
        allow_abbrev=False,
    )
    out.add_argument("output", metavar="DIR", help="the output folder of a finished run")
    out.add_argument(
        "--pairs",
        metavar="N",
        type=int,
        help="put a blind reading test of N pairs of documents on the page",
    )
    out.add_argument(
        "--reading",
        metavar="FILE",
        action="append",
        default=[],
        help="answers saved by the page; page and card cite them from now on",
    )
    out.add_argument(
        "--registered-domains",
        action="store_true",
        help="group hosts by registered domain in the statistics and on the page",
    )
    out.add_argument(
        "--summary",
        choices=["eu"],
        help="write the run's part of the public summary of training content that the EU's AI Act"
        " requires",
    )
    return out


def main(arguments: Sequence[str] | None = None) -> None:
    """Rewrite the page and card of a finished run, and print its table."""
    options, beam_flags = parser().parse_known_args(arguments)
    with exits.clear():
        with exits.usage():
            check_utf8([options.output, *options.reading])
        with console.doing(f"reading {options.output}"):
            from pipeline.output.manifest import read_manifest
            from pipeline.page import eu_summary, reading_test
            from pipeline.page.data import registered_data
            from pipeline.page.render import next_step, print_summary, write_report
            from winnow.object_stores import object_store
            from winnow.text import hosts

            if beam_flags:
                from pipeline.beam import engine  # imports Beam, which local folders do without

                with exits.usage():
                    object_store.configure(engine.options(beam_flags))
            written = read_manifest(options.output)
            if options.registered_domains:
                hosts.check_installed()
                registered_data.write(options.output, written)
            if options.pairs is not None:
                with exits.usage():
                    reading_test.check_number(options.pairs)
                reading_test.prepare(options.output, written, options.pairs)
            for path in options.reading:
                reading_test.take_up(options.output, written, path)
            write_report(options.output, written)
            test = reading_test.load(options.output, written)
        print_summary(options.output, written)
        if options.summary:
            print(f"summary: {eu_summary.write(options.output, written)}")
        for line in reading_test.told(test) if test else ():
            print(line)
        print(next_step(options.output))


if __name__ == "__main__":
    main()
