"""Words, numbers and signs that figures, pages and tables share."""

from collections.abc import Mapping

MINUS, DASH, TIMES = "\N{MINUS SIGN}", "\N{EN DASH}", "\N{MULTIPLICATION SIGN}"


def headline(text: str) -> str:
    """The text with a capital first letter, the rest as it is."""
    return text[:1].upper() + text[1:]


def plural(count: int, noun: str) -> str:
    """``1 seed``, ``3 seeds``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def number(value: float, form: str = ".3g") -> str:
    """The value in a format, with a real minus sign, and without a sign if it rounds to zero."""
    text = format(value, form)
    if not any(digit in "123456789" for digit in text.partition("e")[0]):
        text = text.lstrip("+-")
    return text.replace("-", MINUS)


def lowest_to_highest(values: Mapping[str, float], form: str, unit: str = "") -> str:
    """The lowest and the highest of some values, each with its label."""
    low, high = min(values, key=lambda k: values[k]), max(values, key=lambda k: values[k])
    least, most = (f"{number(values[label], form)} {unit}".rstrip() for label in (low, high))
    if least == most:
        return f"{least} ({'all' if len(values) > 1 else low})"
    return f"from {least} ({low}) to {most} ({high})"
