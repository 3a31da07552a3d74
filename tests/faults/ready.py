"""What a process that is forked finds done: imports, and compiled kernels loaded.

That takes half a second, more than most of what such a process is for.
"""

from faults import hostile

hostile.read("a.jsonl", b'{"text": "a"}\n')
hostile.read("a.warc", hostile.crawled(b"<p>a"))
