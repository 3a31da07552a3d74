"""A file of safetensors, written one tensor after another: none but that one is in memory.

The format: the length of the header (uint64, little-endian), the header in JSON, and the numbers of
each tensor, little-endian and in row-major order, at the offsets that the header gives. The bytes
are those of ``safetensors.torch.save``.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import BinaryIO

from torch import Tensor

ALIGNMENT = 8
"""Of the first number: spaces fill up the header."""


def write(
    file: BinaryIO, shapes: Mapping[str, Sequence[int]], read: Callable[[str], Tensor]
) -> None:
    """Write float32 tensors.

    Args:
        file: to write to.
        shapes: of the tensors, by name; in the order of their names.
        read: gives the tensor of a name.

    Raises:
        ValueError: it gives another one than the shapes announce.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        begin, end = end, end + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": [*shape], "data_offsets": [begin, end]}
    content = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    content += b" " * (-len(content) % ALIGNMENT)
    file.write(len(content).to_bytes(8, "little"))
    file.write(content)
    for name, shape in shapes.items():
        values = read(name).numpy()
        if values.shape != tuple(shape) or values.dtype != "<f4":
            raise ValueError(f"{name} is {[*values.shape]} of {values.dtype}, not {[*shape]}")
        file.write(values.data)
        del values  # before the next one is there
