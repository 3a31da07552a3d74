"""Code shared by all packages, and the command ``winnow`` (:mod:`winnow.cli`)."""

import sys

if sys.platform == "win32":  # no fcntl, no fork
    sys.exit("Winnow runs on Linux and macOS; on Windows, use it in WSL")
