"""Messages for the errors that end a command: what failed, with which file, and what to do."""

from __future__ import annotations

import argparse
import json

from se_keras.errors import WeightsMismatchError

_EXPECTED = (ValueError, OSError, ImportError, RuntimeError)
"""Errors that the package raises on purpose, with its own messages."""

_FOREIGN = (UnicodeError, json.JSONDecodeError, NotImplementedError, RecursionError)
"""Subclasses of these that come from elsewhere and name no file."""

_MEMORY = "there is not enough memory: use fewer or smaller images at a time, or close other programs"
_REASONS = {
    "MemoryError": _MEMORY,
    "ResourceExhaustedError": _MEMORY,
    "BadZipFile": "an archive is damaged: write or download it again",
    "UnicodeDecodeError": "a text file is not UTF-8: save it in that encoding",
    "JSONDecodeError": "a JSON file is damaged or incomplete",
}
"""The meaning of errors from elsewhere, by the name of the class."""

_SUBJECTS = ("file", "checkpoint", "model", "models", "images", "resume", "input", "data")
"""Options that name what a command works on."""

_LONGEST = 600


def failure(error: BaseException, options: argparse.Namespace) -> str:
    """Describes an error.

    Args:
        error: The error that a command raised.
        options: The parsed command line.

    Returns:
        One line; for weights that do not fit, one per tensor.
    """
    if isinstance(error, WeightsMismatchError):
        return str(error)
    text = _one_line(str(error))
    if isinstance(error, _EXPECTED) and not isinstance(error, _FOREIGN) and text:
        return text
    kind = type(error).__name__
    reason = "the disk is full" if "No space left" in text else _REASONS.get(kind, "an unexpected error occurred")
    subject = _subject(options)
    where = f"{subject}: " if subject and subject not in text else ""
    detail = f"{kind}: {text}" if text else kind
    return f"{where}{reason} ({detail}); --verbose shows where"


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]} ... (--verbose shows all)"


def _subject(options: argparse.Namespace) -> str:
    for name in _SUBJECTS:
        value = getattr(options, name, None)
        if value:
            return str(value[0]) if isinstance(value, list) else str(value)
    return ""
