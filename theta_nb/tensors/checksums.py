"""CRC-32 of pieces that are summed apart, as those of one storage are by several threads."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["combined_crc32"]

_POLYNOMIAL = 0xEDB88320


def combined_crc32(pieces: Iterable[tuple[int, int]]) -> int:
    """CRC-32 of a sequence of pieces, given the CRC-32 and the length of each.

    Appending n zero bytes multiplies a CRC by x^(8n) modulo its polynomial, as in zlib's ``crc32_combine``.

    Examples
    --------
    >>> import zlib
    >>> combined_crc32([(zlib.crc32(b"weig"), 4), (zlib.crc32(b"hts"), 3)]) == zlib.crc32(b"weights")
    True
    """
    total = 0
    for crc, nbytes in pieces:
        total = _times(_power(8 * nbytes), total) ^ crc
    return total


def _times(a: int, b: int) -> int:
    """Product of two polynomials modulo that of CRC-32; the highest bit is the coefficient of x^0."""
    product = 0
    mask = 1 << 31
    while mask:
        if a & mask:
            product ^= b
        mask >>= 1
        b = b >> 1 ^ (_POLYNOMIAL if b & 1 else 0)
    return product


def _power(exponent: int) -> int:
    """x^exponent modulo the polynomial."""
    result, base = 1 << 31, 1 << 30
    while exponent:
        if exponent & 1:
            result = _times(result, base)
        base = _times(base, base)
        exponent >>= 1
    return result
