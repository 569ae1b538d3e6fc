"""The types of command-line arguments. A text that does not fit its type is a usage error."""

from __future__ import annotations

import argparse
import re

_FACTORS = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9}


def fraction(text: str) -> float:
    """Parses a number from 0 to 1."""
    value = _number(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must be a number from 0 to 1; received {text!r}")
    return value


def percentage(text: str) -> float:
    """Parses a number from 1 to 100; a smaller one is probably meant as a fraction."""
    value = _number(text)
    if not 1 <= value <= 100:
        raise argparse.ArgumentTypeError(f"must be a percentage from 1 to 100, such as 75; received {text!r}")
    return value


def positive(text: str) -> float:
    """Parses a finite number above 0."""
    value = _number(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number above 0; received {text!r}")
    return value


def amount(text: str) -> float:
    """Parses a finite number above 0 that may end in k, M, G, or B: "6M" is six million."""
    matched = re.fullmatch(r"(.*?)([kmgb]?)", text.strip(), re.IGNORECASE | re.DOTALL)
    value = _number(matched[1]) * _FACTORS[matched[2].lower()] if matched else float("nan")
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number above 0, such as 6M, 2.5G, or 600000; received {text!r}")
    return value


def natural(text: str) -> int:
    """Parses an integer of at least 0."""
    return _integer(text, least=0)


def count(text: str) -> int:
    """Parses an integer of at least 1."""
    return _integer(text, least=1)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _integer(text: str, *, least: int) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"must be an integer of at least {least}; received {text!r}")
    return int(text)
