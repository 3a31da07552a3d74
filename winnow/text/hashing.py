"""XXH3 of every value of an Arrow array, computed on its buffers.

The same numbers as the ``xxhash`` library, which needs a Python object per value. From the XXH3
section of the xxHash specification (github.com/Cyan4973/xxHash, doc/xxhash_spec.md), in its terms.
Lengths are cast to uint64 first, since numba turns uint64 with int64 into float64.
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numba import njit

from winnow.text.buffers import (
    Octets,
    Offsets,
    load_u8,
    load_u32,
    load_u64,
    multiply_high,
    string_buffers,
)

Words = npt.NDArray[np.uint64]
Pair = tuple[np.uint64, np.uint64]
Lanes = tuple[
    np.uint64, np.uint64, np.uint64, np.uint64, np.uint64, np.uint64, np.uint64, np.uint64
]

_P32_1 = np.uint64(0x9E3779B1)
_P32_2 = np.uint64(0x85EBCA77)
_P32_3 = np.uint64(0xC2B2AE3D)
_P64_1 = np.uint64(0x9E3779B185EBCA87)
_P64_2 = np.uint64(0xC2B2AE3D27D4EB4F)
_P64_3 = np.uint64(0x165667B19E3779F9)
_P64_4 = np.uint64(0x85EBCA77C2B2AE63)
_P64_5 = np.uint64(0x27D4EB2F165667C5)
_MX1 = np.uint64(0x165667919E3779F9)
_MX2 = np.uint64(0x9FB21C651E98DF25)
_LOW_32 = np.uint64(0xFFFFFFFF)
_SECRET = np.frombuffer(
    bytes.fromhex(
        "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671f"
        "cb79e64eccc0e578825ad07dccff7221b8084674f743248ee03590e6813a264c"
        "3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8"
        "a8fa763fe39c343ff9dcbbc7c70b4f1d8a51e04bcdb45931c89f7ec9d9787364"
        "eac5ac8334d3ebc3c581a0fffa1363eb170ddd51b7f0da49d316552629d4689e"
        "2b16be587d47a1fc8ff8b8d17ad031ce45cb3a8f95160428afd7fbcabb4b407e"
    ),
    np.uint8,
)


def xxh3_64(values: pa.Array, seed: int = 0) -> Words:
    """XXH3-64 of each of n values: uint64 [n], equal to ``xxhash.xxh3_64_intdigest(v, seed)``.

    ``values`` is as in :func:`string_buffers`; ValueError for a seed outside 0 to 2**64 - 1.
    """
    if not 0 <= seed < 2**64:
        raise ValueError(f"a seed is from 0 to 2**64 - 1, not {seed}")
    data, offsets = string_buffers(values)
    secrets = _seeded(0), _seeded(seed)
    return _hash_64(data, offsets, np.uint64(seed), *secrets)


def xxh3_128(values: pa.Array) -> Words:
    """XXH3-128 of each of n values: uint64 [n, 2], high half first as in the canonical digest.

    ``result.astype(">u8").tobytes()`` is the n digests of ``xxhash.xxh3_128_digest`` in a row.
    """
    data, offsets = string_buffers(values)
    return _hash_128(data, offsets, _seeded(0))


def _seeded(seed: int) -> Octets:
    """The secret for inputs over 240 bytes: seed added to even words, taken from odd ones."""
    words = _SECRET.view("<u8").copy()
    words[0::2] += np.uint64(seed)
    words[1::2] -= np.uint64(seed)
    return words.view(np.uint8)


@njit(nogil=True, cache=True)
def _hash_64(
    data: Octets, offsets: Offsets, seed: np.uint64, plain_secret: Octets, seeded_secret: Octets
) -> Words:
    base = data.ctypes.data
    secret = plain_secret.ctypes.data
    long_secret = seeded_secret.ctypes.data
    accumulators = np.empty(8, np.uint64)
    hashes = np.empty(len(offsets) - 1, np.uint64)
    for i in range(len(hashes)):
        start = base + np.int64(offsets[i])
        length = np.int64(offsets[i + 1]) - np.int64(offsets[i])
        if length <= 16:
            hashes[i] = _short_64(start, length, secret, seed)
        elif length <= 240:
            hashes[i] = _medium_64(start, length, secret, seed)
        else:
            _accumulate(accumulators, start, length, long_secret)
            hashes[i] = _merge(accumulators, long_secret + 11, np.uint64(length) * _P64_1)
    return hashes


@njit(nogil=True, cache=True)
def _hash_128(data: Octets, offsets: Offsets, plain_secret: Octets) -> Words:
    base = data.ctypes.data
    secret = plain_secret.ctypes.data
    accumulators = np.empty(8, np.uint64)
    hashes = np.empty((len(offsets) - 1, 2), np.uint64)
    for i in range(len(hashes)):
        start = base + np.int64(offsets[i])
        length = np.int64(offsets[i + 1]) - np.int64(offsets[i])
        if length <= 16:
            hashes[i] = _short_128(start, length, secret)
        elif length <= 240:
            hashes[i] = _medium_128(start, length, secret)
        else:
            _accumulate(accumulators, start, length, secret)
            scaled = np.uint64(length)
            low = _merge(accumulators, secret + 11, scaled * _P64_1)
            high = _merge(accumulators, secret + 192 - 64 - 11, ~(scaled * _P64_2))
            hashes[i] = (high, low)
    return hashes


@njit(nogil=True, cache=True)
def _short_64(start: int, length: int, secret: int, seed: np.uint64) -> np.uint64:
    size = np.uint64(length)
    if length > 8:
        flip_low = (load_u64(secret + 24) ^ load_u64(secret + 32)) + seed
        flip_high = (load_u64(secret + 40) ^ load_u64(secret + 48)) - seed
        low = load_u64(start) ^ flip_low
        high = load_u64(start + length - 8) ^ flip_high
        return _avalanche(size + _swap_64(low) + high + _multiply_fold(low, high))
    if length >= 4:
        seed ^= _swap_32(seed & _LOW_32) << np.uint64(32)
        first = np.uint64(load_u32(start))
        last = np.uint64(load_u32(start + length - 4))
        flip = (load_u64(secret + 8) ^ load_u64(secret + 16)) - seed
        mixed = (last + (first << np.uint64(32))) ^ flip
        mixed ^= _rotate(mixed, 49) ^ _rotate(mixed, 24)
        mixed *= _MX2
        mixed ^= (mixed >> np.uint64(35)) + size
        mixed *= _MX2
        return mixed ^ (mixed >> np.uint64(28))
    if length > 0:
        flip = np.uint64(load_u32(secret) ^ load_u32(secret + 4)) + seed
        return _avalanche_xxh64(_combine_1_to_3(start, length) ^ flip)
    return _avalanche_xxh64(seed ^ load_u64(secret + 56) ^ load_u64(secret + 64))


@njit(nogil=True, cache=True)
def _medium_64(start: int, length: int, secret: int, seed: np.uint64) -> np.uint64:
    total = np.uint64(length) * _P64_1
    if length <= 128:
        for i in range((length - 1) >> 5, -1, -1):
            total += _mix_16(start + 16 * i, secret + 32 * i, seed)
            total += _mix_16(start + length - 16 * (i + 1), secret + 32 * i + 16, seed)
        return _avalanche(total)
    for i in range(8):
        total += _mix_16(start + 16 * i, secret + 16 * i, seed)
    total = _avalanche(total)
    for i in range(8, length >> 4):
        total += _mix_16(start + 16 * i, secret + 16 * (i - 8) + 3, seed)
    total += _mix_16(start + length - 16, secret + 136 - 17, seed)
    return _avalanche(total)


@njit(nogil=True, cache=True)
def _short_128(start: int, length: int, secret: int) -> Pair:
    size = np.uint64(length)
    if length > 8:
        flip_low = load_u64(secret + 32) ^ load_u64(secret + 40)
        flip_high = load_u64(secret + 48) ^ load_u64(secret + 56)
        first = load_u64(start)
        last = load_u64(start + length - 8)
        factor = first ^ last ^ flip_low
        low = factor * _P64_1 + ((size - np.uint64(1)) << np.uint64(54))
        last ^= flip_high
        high = multiply_high(factor, _P64_1)
        high += last + (last & _LOW_32) * (_P32_2 - np.uint64(1))
        low ^= _swap_64(high)
        high = multiply_high(low, _P64_2) + high * _P64_2
        return _avalanche(high), _avalanche(low * _P64_2)
    if length >= 4:
        first = np.uint64(load_u32(start))
        last = np.uint64(load_u32(start + length - 4))
        flip = load_u64(secret + 16) ^ load_u64(secret + 24)
        keyed = (first + (last << np.uint64(32))) ^ flip
        factor = _P64_1 + (size << np.uint64(2))
        low = keyed * factor
        high = multiply_high(keyed, factor) + (low << np.uint64(1))
        low ^= high >> np.uint64(3)
        low ^= low >> np.uint64(35)
        low *= _MX2
        low ^= low >> np.uint64(28)
        return _avalanche(high), low
    if length > 0:
        low = _combine_1_to_3(start, length)
        high = _swap_32(low)
        high = ((high << np.uint64(13)) | (high >> np.uint64(19))) & _LOW_32
        low ^= np.uint64(load_u32(secret) ^ load_u32(secret + 4))
        high ^= np.uint64(load_u32(secret + 8) ^ load_u32(secret + 12))
        return _avalanche_xxh64(high), _avalanche_xxh64(low)
    high = load_u64(secret + 80) ^ load_u64(secret + 88)
    low = load_u64(secret + 64) ^ load_u64(secret + 72)
    return _avalanche_xxh64(high), _avalanche_xxh64(low)


@njit(nogil=True, cache=True)
def _medium_128(start: int, length: int, secret: int) -> Pair:
    zero = np.uint64(0)
    low = np.uint64(length) * _P64_1
    high = zero
    if length <= 128:
        for i in range((length - 1) >> 5, -1, -1):
            tail = start + length - 16 * (i + 1)
            low, high = _mix_32(low, high, start + 16 * i, tail, secret + 32 * i)
    else:
        for i in range(4):
            low, high = _mix_32(low, high, start + 32 * i, start + 32 * i + 16, secret + 32 * i)
        low = _avalanche(low)
        high = _avalanche(high)
        for i in range(4, length >> 5):
            here = start + 32 * i
            low, high = _mix_32(low, high, here, here + 16, secret + 32 * (i - 4) + 3)
        end = start + length
        low, high = _mix_32(low, high, end - 16, end - 32, secret + 136 - 17 - 16)
    mixed = low * _P64_1 + high * _P64_4 + np.uint64(length) * _P64_2
    return zero - _avalanche(mixed), _avalanche(low + high)


@njit(nogil=True, cache=True)
def _accumulate(accumulators: Words, start: int, length: int, secret: int) -> None:
    """The long-input loop (over 240 bytes): stripes of 64 bytes, 16 to a block."""
    lanes = (_P32_3, _P64_1, _P64_2, _P64_3, _P64_4, _P32_2, _P64_5, _P32_1)
    stripes = (length - 1) >> 6
    for stripe in range(stripes):
        row = stripe & 15
        lanes = _accumulate_stripe(lanes, start + 64 * stripe, secret + 8 * row)
        if row == 15:
            lanes = _scramble(lanes, secret + 192 - 64)
    lanes = _accumulate_stripe(lanes, start + length - 64, secret + 192 - 64 - 7)
    for lane in range(8):
        accumulators[lane] = lanes[lane]


@njit(nogil=True, cache=True)
def _accumulate_stripe(lanes: Lanes, start: int, secret: int) -> Lanes:
    a, b, c, d, e, f, g, h = lanes
    a, b = _accumulate_pair(a, b, start, secret)
    c, d = _accumulate_pair(c, d, start + 16, secret + 16)
    e, f = _accumulate_pair(e, f, start + 32, secret + 32)
    g, h = _accumulate_pair(g, h, start + 48, secret + 48)
    return a, b, c, d, e, f, g, h


@njit(nogil=True, cache=True)
def _accumulate_pair(even: np.uint64, odd: np.uint64, start: int, secret: int) -> Pair:
    first = load_u64(start)
    second = load_u64(start + 8)
    first_key = first ^ load_u64(secret)
    second_key = second ^ load_u64(secret + 8)
    even += second + (first_key & _LOW_32) * (first_key >> np.uint64(32))
    odd += first + (second_key & _LOW_32) * (second_key >> np.uint64(32))
    return even, odd


@njit(nogil=True, cache=True)
def _scramble(lanes: Lanes, secret: int) -> Lanes:
    a, b, c, d, e, f, g, h = lanes
    return (
        _scramble_lane(a, secret),
        _scramble_lane(b, secret + 8),
        _scramble_lane(c, secret + 16),
        _scramble_lane(d, secret + 24),
        _scramble_lane(e, secret + 32),
        _scramble_lane(f, secret + 40),
        _scramble_lane(g, secret + 48),
        _scramble_lane(h, secret + 56),
    )


@njit(nogil=True, cache=True)
def _scramble_lane(lane: np.uint64, secret: int) -> np.uint64:
    return (lane ^ (lane >> np.uint64(47)) ^ load_u64(secret)) * _P32_1


@njit(nogil=True, cache=True)
def _merge(accumulators: Words, secret: int, initial: np.uint64) -> np.uint64:
    total = initial
    for i in range(4):
        total += _multiply_fold(
            accumulators[2 * i] ^ load_u64(secret + 16 * i),
            accumulators[2 * i + 1] ^ load_u64(secret + 16 * i + 8),
        )
    return _avalanche(total)


@njit(nogil=True, cache=True)
def _mix_32(low: np.uint64, high: np.uint64, first: int, second: int, secret: int) -> Pair:
    low += _mix_16(first, secret, np.uint64(0))
    low ^= load_u64(second) + load_u64(second + 8)
    high += _mix_16(second, secret + 16, np.uint64(0))
    high ^= load_u64(first) + load_u64(first + 8)
    return low, high


@njit(nogil=True, cache=True)
def _mix_16(start: int, secret: int, seed: np.uint64) -> np.uint64:
    return _multiply_fold(
        load_u64(start) ^ (load_u64(secret) + seed),
        load_u64(start + 8) ^ (load_u64(secret + 8) - seed),
    )


@njit(nogil=True, cache=True)
def _multiply_fold(a: np.uint64, b: np.uint64) -> np.uint64:
    return (a * b) ^ multiply_high(a, b)


@njit(nogil=True, cache=True)
def _combine_1_to_3(start: int, length: int) -> np.uint64:
    first = np.uint64(load_u8(start))
    middle = np.uint64(load_u8(start + (length >> 1)))
    last = np.uint64(load_u8(start + length - 1))
    size = np.uint64(length)
    return (first << np.uint64(16)) | (middle << np.uint64(24)) | last | (size << np.uint64(8))


@njit(nogil=True, cache=True)
def _avalanche(h: np.uint64) -> np.uint64:
    h ^= h >> np.uint64(37)
    h *= _MX1
    return h ^ (h >> np.uint64(32))


@njit(nogil=True, cache=True)
def _avalanche_xxh64(h: np.uint64) -> np.uint64:
    h ^= h >> np.uint64(33)
    h *= _P64_2
    h ^= h >> np.uint64(29)
    h *= _P64_3
    return h ^ (h >> np.uint64(32))


@njit(nogil=True, cache=True)
def _rotate(value: np.uint64, count: int) -> np.uint64:
    return (value << np.uint64(count)) | (value >> np.uint64(64 - count))


@njit(nogil=True, cache=True)
def _swap_32(value: np.uint64) -> np.uint64:
    return _swap_64(value) >> np.uint64(32)


@njit(nogil=True, cache=True)
def _swap_64(value: np.uint64) -> np.uint64:
    swapped = np.uint64(0)
    for shift in range(0, 64, 8):
        swapped |= ((value >> np.uint64(shift)) & np.uint64(255)) << np.uint64(56 - shift)
    return swapped
