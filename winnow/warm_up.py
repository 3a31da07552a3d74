"""Compile all kernels now, instead of on first use.

winnow warm-up

Once per machine, or per user who can't write to the package's folder; again after an upgrade. To
share compiled kernels, set NUMBA_CACHE_DIR to a shared folder.
"""

import argparse
import importlib
import importlib.util
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from winnow import cli
from winnow.commands import console, exits, startup

PARTS = {"pipeline.runs.warming": "pyarrow", "model.ops.warming": "torch"}
"""Modules whose ``use_kernels(folder)`` calls each kernel, and what each needs to be installed."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog=cli.program(),
        description=__doc__,
        epilog=f"Exit codes: {cli.EXIT_CODES}.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.parse_args(arguments)
    with exits.clear():
        print(warm_up())


def warm_up() -> str:
    """Call every kernel on a little text; returns a summary."""
    with startup.importing():
        from winnow import compiling
    compiled: list[str] = []
    line = console.StatusLine()

    def tell(name: str) -> None:
        compiled.append(name)
        if line.due:
            line.show(f"compiling {name} ({len(compiled)}, {console.duration(console.elapsed())})")

    compiling.watch(tell)
    for module, needed in PARTS.items():
        if importlib.util.find_spec(needed):
            with tempfile.TemporaryDirectory() as folder:
                importlib.import_module(module).use_kernels(Path(folder))
    line.close()
    place = os.path.commonpath(filter(None, map(compiling.folder, compiling.kernels())))
    if not compiled:
        return f"all kernels are compiled already, below {place}"
    time = console.duration(console.elapsed())
    return f"compiled {len(compiled)} kernels in {time}, kept below {place}"


if __name__ == "__main__":
    main()
