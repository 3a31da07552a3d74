"""Arrow's string buffers as numpy arrays without a copy, and raw loads for the kernels.

Every kernel of this package takes ``data`` (uint8, the bytes of all values) and ``offsets`` (int32
or int64 [n + 1]): value i is ``data[offsets[i]:offsets[i + 1]]``. The loads read little-endian
words at an address (``data.ctypes.data + index``) without bounds checks.
"""

import functools
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from winnow import compiling  # noqa: F401 tells of what is compiled

Octets = npt.NDArray[np.uint8]
Offsets = npt.NDArray[np.signedinteger]


def string_buffers(values: pa.Array) -> tuple[Octets, Offsets]:
    """The bytes (uint8) and offsets (int32 or int64 [n + 1]) of n values, as views.

    ``values`` is a string, large_string, binary or large_binary array or slice.

    Raises:
        ValueError: another type, or a null.
    """
    if pa.types.is_string(values.type) or pa.types.is_binary(values.type):
        width: type[np.signedinteger] = np.int32
    elif pa.types.is_large_string(values.type) or pa.types.is_large_binary(values.type):
        width = np.int64
    else:
        raise ValueError(f"cannot read the text of a {values.type} array: cast it to large_string")
    if values.null_count:
        raise ValueError(f"{values.null_count} of {len(values)} values are null: fill or drop them")
    _, offset_buffer, data_buffer = values.buffers()
    if len(values) == 0 or offset_buffer is None:
        return np.empty(0, np.uint8), np.zeros(1, width)
    offsets: Offsets = np.frombuffer(offset_buffer, width)
    offsets = offsets[values.offset : values.offset + len(values) + 1]
    data = np.empty(0, np.uint8) if data_buffer is None else np.frombuffer(data_buffer, np.uint8)
    return data, offsets


def large_strings(data: Octets, offsets: npt.NDArray[np.int64]) -> pa.Array:
    """The large_string [n] of n spans of ``data``, which must be valid UTF-8; copies it."""
    used = data[: offsets[-1]].tobytes()
    return pa.LargeStringArray.from_buffers(
        len(offsets) - 1, pa.py_buffer(offsets), pa.py_buffer(used)
    )


def llvm(result: Any, *arguments: Any) -> Callable[[Callable[..., Any]], Any]:
    """Turn a function that emits LLVM instructions into one that kernels call.

    It takes LLVM's builder and the value of each argument, and returns the result's value or None.
    ``result`` and ``arguments`` are numba types.
    """

    def compiled(emit: Callable[..., Any]) -> Any:
        @functools.wraps(emit)  # numba asks for the number of arguments
        def typed(typing_context: Any, *_: Any) -> Any:
            def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
                value = emit(builder, *values)
                return context.get_dummy_value() if value is None else value

            return result(*arguments), generate

        return intrinsic(typed)

    return compiled


def _loader(kind: Any) -> Callable[[int], Any]:
    """A load for kernels: the integer of this type at any address."""

    def load(builder: Any, address: Any) -> Any:
        pointer = builder.inttoptr(address, ir.IntType(kind.bitwidth).as_pointer())
        return builder.load(pointer, align=1)

    return cast(Callable[[int], Any], llvm(kind, types.int64)(load))


load_u8: Callable[[int], np.uint8] = _loader(types.uint8)
load_u32: Callable[[int], np.uint32] = _loader(types.uint32)
load_u64: Callable[[int], np.uint64] = _loader(types.uint64)


@llvm(types.uint64, types.uint64, types.uint64)
def multiply_high(builder: Any, a: Any, b: Any) -> Any:
    """The upper half of the 128-bit product of two uint64: numba has no 128-bit integer."""
    wide = ir.IntType(128)
    product = builder.mul(builder.zext(a, wide), builder.zext(b, wide))
    return builder.trunc(builder.lshr(product, ir.Constant(wide, 64)), ir.IntType(64))
