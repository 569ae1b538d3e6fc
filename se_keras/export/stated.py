"""What exported files state about themselves, in the names of outputs and as JSON in properties."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

ANSWERS = ("probabilities", "predictions", "logits", "output", "output_0")  # names of the prediction, most common first


def names_stated(text: str | None) -> tuple[str, ...]:
    """Returns the class names that a property of a file states.

    Args:
        text: A JSON list of strings, as this package writes it; None or anything else, as others may write it.

    Returns:
        The names, or ().
    """
    names = _from_json(text)
    return tuple(names) if isinstance(names, list) and all(isinstance(name, str) for name in names) else ()


def facts_stated(text: str | None) -> dict[str, Any]:
    """Returns the facts that a property of a file states.

    Args:
        text: A JSON object, as this package writes it; None or anything else, as others may write it.

    Returns:
        The facts by name, or {}.
    """
    facts = _from_json(text)
    return facts if isinstance(facts, dict) else {}


def _from_json(text: str | None) -> Any:
    try:
        return json.loads(text or "null")
    except json.JSONDecodeError:
        return None


def answer_among(names: Sequence[str]) -> str:
    """Returns the name of the output that is the prediction.

    Args:
        names: Names of the outputs, at least one.

    Returns:
        The first of `ANSWERS` that is among them, else the first name.
    """
    return next((name for name in ANSWERS if name in names), names[0])
