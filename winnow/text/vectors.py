"""Operations on 32 bytes at once, for kernels that read every byte of a text.

numba has no vector types, so these emit LLVM instructions, which become AVX2, AVX-512, NEON or
scalar ones. There are no bounds checks on these 32 bytes. Bit i of a mask is byte i.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from winnow.text.buffers import llvm

BLOCK = 32
"""Bytes that each operation reads: buffers need as many to spare at their end."""

_BYTE, _INT32 = ir.IntType(8), ir.IntType(32)
_BYTES = ir.VectorType(_BYTE, BLOCK)
_MASK = ir.IntType(BLOCK)


def _load(builder: Any, address: Any) -> Any:
    return builder.load(builder.inttoptr(address, _BYTES.as_pointer()), align=1)


def _all(value: int) -> Any:
    """The vector with this value in every byte."""
    return ir.Constant(_BYTES, [ir.Constant(_BYTE, value)] * BLOCK)


def _any_of(builder: Any, block: Any, wanted: bytes) -> Any:
    found = builder.icmp_unsigned("==", block, _all(wanted[0]))
    for byte in wanted[1:]:
        found = builder.or_(found, builder.icmp_unsigned("==", block, _all(byte)))
    return found


def _between(builder: Any, block: Any, first: str, last: str) -> Any:
    from_first = builder.sub(block, _all(ord(first)))
    return builder.icmp_unsigned("<=", from_first, _all(ord(last) - ord(first)))


@llvm(types.uint32, types.int64)
def string_stops(builder: Any, address: Any) -> Any:
    """The mask of bytes that end or interrupt a JSON string: quote, backslash and controls."""
    block = _load(builder, address)
    controls = builder.icmp_unsigned("<", block, _all(0x20))
    return builder.bitcast(builder.or_(controls, _any_of(builder, block, b'"\\')), _MASK)


@llvm(types.uint32, types.int64, types.uint8)
def equal(builder: Any, address: Any, byte: Any) -> Any:
    """The mask of bytes that equal this one."""
    lanes = ir.Constant(ir.VectorType(_INT32, BLOCK), [0] * BLOCK)
    nothing = ir.Constant(_BYTES, ir.Undefined)
    first = builder.insert_element(nothing, byte, ir.Constant(_INT32, 0))
    wanted = builder.shuffle_vector(first, nothing, lanes)
    return builder.bitcast(builder.icmp_unsigned("==", _load(builder, address), wanted), _MASK)


@llvm(types.uint32, types.int64)
def not_ascii(builder: Any, address: Any) -> Any:
    """The mask of bytes from 0x80 on."""
    return builder.bitcast(builder.icmp_signed("<", _load(builder, address), _all(0)), _MASK)


@llvm(types.uint32, types.int64)
def letters_and_digits(builder: Any, address: Any) -> Any:
    """The mask of ASCII letters and digits."""
    block = _load(builder, address)
    letters = _between(builder, builder.or_(block, _all(0x20)), "a", "z")
    return builder.bitcast(builder.or_(letters, _between(builder, block, "0", "9")), _MASK)


@llvm(types.uint32, types.int64)
def visible(builder: Any, address: Any) -> Any:
    """The mask of ASCII bytes but white space and control characters."""
    return builder.bitcast(_between(builder, _load(builder, address), "!", "~"), _MASK)


@llvm(types.uint32, types.int64)
def white_space(builder: Any, address: Any) -> Any:
    """The mask of ASCII white space, as in ``str.split``."""
    spaces = b"\t\n\v\f\r\x1c\x1d\x1e\x1f "
    return builder.bitcast(_any_of(builder, _load(builder, address), spaces), _MASK)


@llvm(types.uint32, types.int64)
def may_be_space(builder: Any, address: Any) -> Any:
    """The mask of lead bytes of characters that may be non-ASCII white space."""
    return builder.bitcast(_any_of(builder, _load(builder, address), b"\xc2\xe1\xe2\xe3"), _MASK)


@llvm(types.uint32, types.int64)
def continuing(builder: Any, address: Any) -> Any:
    """The mask of continuation bytes, 0x80 to 0xBF."""
    # As signed numbers they are the smallest.
    return builder.bitcast(builder.icmp_signed("<", _load(builder, address), _all(0xC0)), _MASK)


@llvm(types.int64, types.uint32)
def ones(builder: Any, mask: Any) -> Any:
    """The number of bits set in a mask."""
    return builder.zext(builder.ctpop(mask), ir.IntType(64))


@llvm(types.void, types.int64, types.int64)
def copy_block(builder: Any, target: Any, source: Any) -> None:
    """Copy 32 bytes to the first address from the second."""
    pointer = builder.inttoptr(target, _BYTES.as_pointer())
    builder.store(_load(builder, source), pointer, align=1)


@llvm(types.void, types.int64, types.uint8)
def store_u8(builder: Any, target: Any, value: Any) -> None:
    """Write one byte at an address."""
    builder.store(value, builder.inttoptr(target, _BYTE.as_pointer()))


@llvm(types.void, types.int64, types.uint64)
def store_u64(builder: Any, target: Any, value: Any) -> None:
    """Write eight bytes, the lowest first, at an address."""
    builder.store(value, builder.inttoptr(target, ir.IntType(64).as_pointer()), align=1)


@llvm(types.int64, types.uint32)
def leading_zeros(builder: Any, mask: Any) -> Any:
    """The number of bits above the highest one set in a mask; 32 if none is set."""
    return builder.zext(builder.ctlz(mask, ir.Constant(ir.IntType(1), 0)), ir.IntType(64))


@intrinsic
def trailing_zeros(typing_context: Any, mask: Any) -> Any:
    """The index of the lowest bit set in an unsigned number; its width if none is set."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        count = builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 0))
        return builder.zext(count, ir.IntType(64)) if mask.bitwidth < 64 else count

    return types.int64(mask), generate
