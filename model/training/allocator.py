"""Settings of glibc's allocator. Nothing heavy is imported here: the process starts anew."""

import os
import sys

GLIBC_TUNABLES = ":".join(
    [
        "glibc.malloc.hugetlb=1",
        "glibc.malloc.mmap_threshold=34359738368",
        "glibc.malloc.trim_threshold=34359738368",
    ]
)
"""Keep freed memory, in huge pages: without it each step maps and clears its activations anew."""


def tune() -> None:
    """Start this process again with :data:`GLIBC_TUNABLES`, which glibc reads at the start alone.

    Does nothing where that variable is set already (to leave the allocator alone, set it to
    nothing), or on another system than Linux. To be called before anything else is done.
    """
    if sys.platform == "linux" and "GLIBC_TUNABLES" not in os.environ:
        environment = {**os.environ, "GLIBC_TUNABLES": GLIBC_TUNABLES}
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)
