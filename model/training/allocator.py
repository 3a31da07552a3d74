"""Tunes glibc's allocator. Imports nothing heavy, since the process restarts."""

import os
import sys

GLIBC_TUNABLES = ":".join(
    [
        "glibc.malloc.hugetlb=1",
        "glibc.malloc.mmap_threshold=34359738368",
        "glibc.malloc.trim_threshold=34359738368",
    ]
)
"""Keep freed memory, in huge pages; otherwise each step maps and clears its activations again."""


def tune() -> None:
    """Restart this process with :data:`GLIBC_TUNABLES`, which glibc reads only at startup.

    Call this first. It does nothing if the variable is set, even to nothing, or outside Linux.
    """
    if sys.platform == "linux" and "GLIBC_TUNABLES" not in os.environ:
        environment = {**os.environ, "GLIBC_TUNABLES": GLIBC_TUNABLES}
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)
