"""Numbers as people read them: few digits, one width."""

from __future__ import annotations

import math

__all__ = ["cosine", "percent", "short", "size"]


def short(value: float) -> str:
    """Three significant digits.

    Examples
    --------
    >>> [short(x) for x in (0.0, 1.0, 0.0123456, 1.5e-7, 123456.0, float("inf"), float("nan"))]
    ['0', '1.00', '0.0123', '1.50e-7', '1.23e5', 'inf', '—']
    """
    if math.isnan(value):
        return "—"
    if math.isinf(value):
        return "-inf" if value < 0 else "inf"
    if value == 0:
        return "0"
    text = f"{value:.2e}"
    mantissa, exponent = text.split("e")
    power = int(exponent)
    if -3 < power < 4:
        return f"{float(text):.{max(0, 2 - power)}f}"
    return f"{mantissa}e{power}"


def percent(share: float) -> str:
    """A share of 0 to 1 as per cent: what is not zero, or not everything, never looks like it.

    Examples
    --------
    >>> [percent(x) for x in (0.0, 1e-6, 0.01234, 0.5, 0.99999, 1.0, float("nan"))]
    ['0 %', '<0.1 %', '1.2 %', '50.0 %', '>99.9 %', '100 %', '—']
    """
    if math.isnan(share):
        return "—"
    if share in (0, 1):
        return f"{share:.0%}".replace("%", " %")
    if share < 0.001:
        return "<0.1 %"
    return ">99.9 %" if share > 0.999 else f"{share * 100:.1f} %"


def cosine(value: float) -> str:
    """A cosine with four decimals; where those were all nines, its distance from 1.

    Examples
    --------
    >>> cosine(0.5), cosine(0.9995), cosine(1 - 5e-6), cosine(1.0), cosine(float("nan"))
    ('0.5000', '0.9995', '1-5.0e-6', '1', '—')
    """
    if math.isnan(value):
        return "—"
    if value == 1:
        return "1"
    if value > 0.9999:
        mantissa, exponent = f"{1 - value:.1e}".split("e")
        return f"1-{mantissa}e{int(exponent)}"
    return f"{value:.4f}"


def size(nbytes: int) -> str:
    """Bytes in decimal units.

    Examples
    --------
    >>> size(999), size(90_868_376), size(1_500)
    ('999 B', '90.9 MB', '1.5 kB')
    """
    if nbytes < 1000:
        return f"{nbytes} B"
    value = float(nbytes)
    for unit in ("kB", "MB", "GB", "TB", "PB"):
        value /= 1000
        if value < 999.95 or unit == "PB":
            break
    return f"{value:.1f} {unit}"
