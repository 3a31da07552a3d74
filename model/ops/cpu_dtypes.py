"""Scalar functions of the compiled loops: loads and stores of two dtypes, exp, GELU.

Loops compute in float32. Arrays hold float32, or bfloat16 as uint16 since numba has no bfloat16.
:func:`load` and :func:`store` exist in compiled code only: numba compiles one of the bodies given
by ``overload`` in place of theirs, depending on the type of the argument.
"""

from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import overload

from winnow import compiling  # noqa: F401 tells of what is compiled

ZERO, ONE, MINUS_INFINITY = np.float32(0), np.float32(1), np.float32(-np.inf)
LEAST = np.int32(-0x80000000)
"""Less than :func:`ordered` of any number."""

GELU_SLOPE, GELU_CUBE = np.float32(2 * np.sqrt(2 / np.pi)), np.float32(0.044715)
"""Constants of the approximate GELU, x * (1 + tanh(u)) / 2 with 2 u = SLOPE * (x + CUBE * x^3)."""

_LOG2_E = np.float32(1 / np.log(2))
_LN2_HIGH = np.float32(0.693359375)  # 9 bits: its product with a small integer is exact
_LN2_LOW = np.float32(np.log(2) - 0.693359375)
_HALF = np.float32(0.5)
_C2, _C3, _C4, _C5, _C6 = (np.float32(1 / x) for x in (2, 6, 24, 120, 720))
_SHIFT, _ROUND = np.uint32(16), np.uint32(0x7FFF)
_SIGN, _MANTISSA, _BIAS = np.int32(31), np.int32(23), np.int32(127)
_REST = np.int32(0x7FFFFFFF)

_exact = njit(nogil=True, cache=True, fastmath={"contract"})


def load(number: Any) -> Any:
    """A float32 from an element of an array. Compiled code only."""
    raise NotImplementedError("load is for compiled code")


def store(x: Any, like: Any) -> Any:
    """A float32 as an array like this holds it, bfloat16 rounded to nearest. Compiled code only."""
    raise NotImplementedError("store is for compiled code")


@overload(load, inline="always")
def _load_typed(number):  # type: ignore[no-untyped-def]
    if number == types.uint16:
        return lambda number: np.uint32(np.uint32(number) << _SHIFT).view(np.float32)
    return lambda number: number


@overload(store, inline="always")
def _store_typed(x, like):  # type: ignore[no-untyped-def]
    if like == types.uint16:
        return lambda x, like: _rounded(x)
    return lambda x, like: x


@_exact
def _rounded(x: np.float32) -> np.uint16:
    bits = np.float32(x).view(np.uint32)
    return np.uint16((bits + _ROUND + ((bits >> _SHIFT) & np.uint32(1))) >> _SHIFT)


@_exact
def ordered(x: np.float32) -> np.int32:
    """An int32 ordered as float32, NaN above all: compilers vectorise its max."""
    bits = np.float32(x).view(np.int32)
    return np.int32(bits ^ np.int32((bits >> _SIGN) & _REST))


@_exact
def unordered(bits: np.int32) -> np.float32:
    """The inverse of :func:`ordered`."""
    return np.int32(bits ^ np.int32((bits >> _SIGN) & _REST)).view(np.float32)


@_exact
def exp(x: np.float32) -> np.float32:
    """The exponential of x <= 0 to a few units in the last place; 0 if subnormal."""
    power = np.float32(np.floor(x * _LOG2_E + _HALF))
    x = (x - power * _LN2_HIGH) - power * _LN2_LOW
    y = ONE + x * (ONE + x * (_C2 + x * (_C3 + x * (_C4 + x * (_C5 + x * _C6)))))
    y = y * np.int32((np.int32(power) + _BIAS) << _MANTISSA).view(np.float32)
    return ZERO if power < np.float32(-126) else y  # NaN stays


@_exact
def gelu_share(x: np.float32) -> np.float32:
    """The approximate GELU over x: (1 + tanh(u)) / 2 = 1 / (1 + exp(-2 u))."""
    u = GELU_SLOPE * (x + GELU_CUBE * x * x * x)
    small = exp(-np.abs(u))
    return (ONE if u > ZERO else small) / (ONE + small)
