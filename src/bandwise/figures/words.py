"""Words and signs that figures and pages share."""

from __future__ import annotations

MINUS, DASH, TIMES = "\N{MINUS SIGN}", "\N{EN DASH}", "\N{MULTIPLICATION SIGN}"


def headline(text: str) -> str:
    """The text with a capital first letter, the rest as it is."""
    return text[:1].upper() + text[1:]


def plural(count: int, noun: str) -> str:
    """``1 seed``, ``3 seeds``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def number(value: float, form: str = ".3g") -> str:
    """The value in a format, with a real minus sign, and no sign where only zeros are left."""
    text = format(value, form)
    if not any(digit in "123456789" for digit in text.partition("e")[0]):
        text = text.lstrip("+-")
    return text.replace("-", MINUS)
