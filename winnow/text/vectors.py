"""Operations on 32 bytes at once, for kernels that look at every byte of a text.

numba has no vector types, so these are written in LLVM's own terms; LLVM turns them into AVX2,
AVX-512 or NEON instructions, or into scalar ones where there are none. They check no bounds: 32
bytes must be readable (and writable) at the address.
"""

from collections.abc import Callable
from typing import Any, cast

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

BLOCK = 32
"""Bytes that each operation reads: buffers need so many to spare at their end."""

_BYTES = ir.VectorType(ir.IntType(8), BLOCK)
_MASK = ir.IntType(BLOCK)


def _load(builder: Any, address: Any) -> Any:
    return builder.load(builder.inttoptr(address, _BYTES.as_pointer()), align=1)


def _constant(kind: Any, value: int) -> Any:
    return ir.Constant(kind, [ir.Constant(ir.IntType(8), value)] * kind.count)


def _all(value: int) -> Any:
    return _constant(_BYTES, value)


def _string_stops(typing_context: Any, address: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        block = _load(builder, arguments[0])
        stops = builder.icmp_unsigned("<", block, _all(0x20))
        for stop in b'"\\':
            stops = builder.or_(stops, builder.icmp_unsigned("==", block, _all(stop)))
        return builder.bitcast(stops, _MASK)

    return types.uint32(types.int64), generate


def _equal(typing_context: Any, address: Any, byte: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        lanes = ir.Constant(ir.VectorType(ir.IntType(32), BLOCK), [0] * BLOCK)
        nothing = ir.Constant(_BYTES, ir.Undefined)
        first = builder.insert_element(nothing, arguments[1], ir.Constant(ir.IntType(32), 0))
        wanted = builder.shuffle_vector(first, nothing, lanes)
        equal = builder.icmp_unsigned("==", _load(builder, arguments[0]), wanted)
        return builder.bitcast(equal, _MASK)

    return types.uint32(types.int64, types.uint8), generate


def _not_ascii(typing_context: Any, address: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        high = builder.icmp_signed("<", _load(builder, arguments[0]), _all(0))
        return builder.bitcast(high, _MASK)

    return types.uint32(types.int64), generate


def _between(builder: Any, octets: Any, first: int, last: int) -> Any:
    from_first = builder.sub(octets, _all(first))
    return builder.icmp_unsigned("<=", from_first, _all(last - first))


def _letters_and_digits(typing_context: Any, address: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        block = _load(builder, arguments[0])
        letters = _between(builder, builder.or_(block, _all(0x20)), ord("a"), ord("z"))
        found = builder.or_(letters, _between(builder, block, ord("0"), ord("9")))
        return builder.bitcast(found, _MASK)

    return types.uint32(types.int64), generate


def _visible(typing_context: Any, address: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        found = _between(builder, _load(builder, arguments[0]), ord("!"), ord("~"))
        return builder.bitcast(found, _MASK)

    return types.uint32(types.int64), generate


def _continuing(typing_context: Any, address: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        # As signed numbers they are the smallest.
        low = builder.icmp_signed("<", _load(builder, arguments[0]), _all(0xC0))
        return builder.bitcast(low, _MASK)

    return types.uint32(types.int64), generate


def _any_of(*wanted: int) -> Any:
    """An intrinsic: bit i is set where byte i is one of these."""

    def find(typing_context: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            block = _load(builder, arguments[0])
            found = builder.icmp_unsigned("==", block, _all(wanted[0]))
            for byte in wanted[1:]:
                found = builder.or_(found, builder.icmp_unsigned("==", block, _all(byte)))
            return builder.bitcast(found, _MASK)

        return types.uint32(types.int64), generate

    return intrinsic(find)


def _ones(typing_context: Any, mask: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.zext(builder.ctpop(arguments[0]), ir.IntType(64))

    return types.int64(types.uint32), generate


def _copy_block(typing_context: Any, target: Any, source: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], _BYTES.as_pointer())
        builder.store(_load(builder, arguments[1]), pointer, align=1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


def _store_u8(typing_context: Any, target: Any, value: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.store(arguments[1], builder.inttoptr(arguments[0], ir.IntType(8).as_pointer()))
        return context.get_dummy_value()

    return types.void(types.int64, types.uint8), generate


def _store_u64(typing_context: Any, target: Any, value: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        builder.store(arguments[1], pointer, align=1)
        return context.get_dummy_value()

    return types.void(types.int64, types.uint64), generate


def _leading_zeros(typing_context: Any, mask: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        count = builder.ctlz(arguments[0], ir.Constant(ir.IntType(1), 0))
        return builder.zext(count, ir.IntType(64))

    return types.int64(types.uint32), generate


def _trailing_zeros(typing_context: Any, mask: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        count = builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 0))
        return builder.zext(count, ir.IntType(64)) if mask.bitwidth < 64 else count

    return types.int64(mask), generate


string_stops = cast(Callable[[int], int], intrinsic(_string_stops))
"""Bit i is set where byte i ends or interrupts a JSON string: a quote, backslash or control."""

equal = cast(Callable[[int, int], int], intrinsic(_equal))
"""Bit i is set where byte i is the one given."""

not_ascii = cast(Callable[[int], int], intrinsic(_not_ascii))
"""Bit i is set where byte i is 0x80 or above."""

letters_and_digits = cast(Callable[[int], np.uint32], intrinsic(_letters_and_digits))
"""Bit i is set where byte i is a letter or digit of ASCII."""

visible = cast(Callable[[int], np.uint32], intrinsic(_visible))
"""Bit i is set where byte i is ASCII but neither white space nor a control character."""

white_space = cast(Callable[[int], np.uint32], _any_of(*b"\t\n\v\f\r\x1c\x1d\x1e\x1f "))
"""Bit i is set where byte i is white space of ASCII, as ``str.split`` has it."""

may_be_space = cast(Callable[[int], np.uint32], _any_of(0xC2, 0xE1, 0xE2, 0xE3))
"""Bit i is set where byte i begins characters of which some are white space beyond ASCII."""

continuing = cast(Callable[[int], np.uint32], intrinsic(_continuing))
"""Bit i is set where byte i is 0x80 to 0xBF: a character's second byte or a later one."""

ones = cast(Callable[[Any], int], intrinsic(_ones))
"""How many bits are set in a 32-bit mask."""

copy_block = cast(Callable[[int, int], None], intrinsic(_copy_block))
"""Copy 32 bytes to the first address from the second."""

store_u8 = cast(Callable[[int, np.uint8], None], intrinsic(_store_u8))
"""Write one byte at an address."""

store_u64 = cast(Callable[[int, np.uint64], None], intrinsic(_store_u64))
"""Write eight bytes, the lowest first, at an address."""

leading_zeros = cast(Callable[[np.uint32], int], intrinsic(_leading_zeros))
"""How many bits above the highest one set in a 32-bit mask are not; 32 if none is set."""

trailing_zeros = cast(Callable[[Any], int], intrinsic(_trailing_zeros))
"""The index of the lowest bit that is set in an unsigned number; its width if none is."""
