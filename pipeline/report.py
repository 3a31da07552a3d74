"""The table, the page and the data card of a finished run, from its manifest and statistics.

python pipeline/report.py scored/
"""

from collections.abc import Sequence

from winnow import endings, telling
from winnow.arguments import Parser, check_utf8
from winnow.cli import program


def parser() -> Parser:
    """The command line."""
    out = Parser(
        prog=program(),
        description="The table, the page and the data card of a finished run.",
        epilog="Every other flag goes to Beam, for folders in object stores.",
        allow_abbrev=False,
    )
    out.add_argument("output", metavar="DIR", help="the output folder of a finished run")
    return out


def main(arguments: Sequence[str] | None = None) -> None:
    """Write page and card of a finished run anew, and print its table."""
    options, beam_flags = parser().parse_known_args(arguments)
    with endings.clear():
        with endings.usage():
            check_utf8([options.output])
        with telling.doing(f"reading {options.output}"):
            from pipeline.output.manifest import read_manifest
            from pipeline.page.render import next_step, print_summary, write_report
            from winnow import storage

            if beam_flags:
                from pipeline.beam import engine  # imports Beam, which local folders do without

                with endings.usage():
                    storage.configure(engine.options(beam_flags))
            written = read_manifest(options.output)
            write_report(options.output, written)
        print_summary(options.output, written)
        print(next_step(options.output))


if __name__ == "__main__":
    main()
