"""The table, the page and the data card of a finished run, from its manifest and statistics.

python pipeline/report.py scored/
"""

import sys
from collections.abc import Sequence

from pipeline.output.manifest import read_manifest
from pipeline.page.render import print_table, write_report
from winnow import storage
from winnow.arguments import check_utf8

_USAGE = "usage: python pipeline/report.py DIR   (the output folder of a finished run)"


def main(arguments: Sequence[str]) -> None:
    """Write page and card of a finished run anew, and print its table."""
    if not arguments or arguments[0].startswith("-"):
        if arguments in (["-h"], ["--help"]):
            print(f"{__doc__}\n{_USAGE}")
            return
        raise ValueError(_USAGE)
    output, *beam_flags = arguments
    if beam_flags:
        from pipeline.beam import engine  # imports Beam, which local folders do without

        storage.configure(engine.options(beam_flags))
    write_report(output, read_manifest(output))
    print_table(output)


if __name__ == "__main__":
    try:
        check_utf8(sys.argv[1:])
        main(sys.argv[1:])
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
