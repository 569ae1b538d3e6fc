"""The kinds of classifier outputs, and the probability of each class in them.

This module imports Keras only when it is needed, because the runtimes of exports run without it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

SIGNATURES = {
    "probabilities": "probabilities",
    "independent_probabilities": "probabilities",
    "probability": "probabilities",
    "logits": "logits",
    "logit": "logits",
    "output": "output",
}
"""Maps each kind of output to its name in a SavedModel:

- "probabilities" of mutually exclusive classes: the result of a softmax, which sums to one;
- "independent_probabilities": several sigmoids, for images that can belong to several classes;
- "probability" of the second of two classes: one sigmoid;
- "logits" of mutually exclusive classes, which need a softmax;
- "logit" of the second of two classes, which needs a sigmoid;
- "output": anything else.
"""

AFTER_ONE_COLUMN = {"probabilities": "probability", "independent_probabilities": "probability", "logits": "logit"}
"""Maps the kind of several columns to the kind of a single one."""


@dataclasses.dataclass(frozen=True)
class Scores:
    """The kind of output of a classifier.

    Args:
        kind: A key of `SIGNATURES`.
        columns: Length of the output's last axis.
    """

    kind: str
    columns: int

    @property
    def classes(self) -> int:
        """Returns the number of classes: two for one probability or logit."""
        return 2 if self.kind in ("probability", "logit") else self.columns

    def probabilities(self, outputs: Any) -> Any:
        """Converts outputs to the probability of each class.

        Args:
            outputs: The model's outputs, shape (batch, columns): an array or tensor.

        Returns:
            A tensor of shape (batch, classes): values from 0 to 1, but unchanged for the kind
            "output". Rows sum to one, unless the probabilities are independent.
        """
        import keras

        if self.kind == "logits":
            return keras.ops.softmax(outputs, axis=-1)
        if self.kind in ("probability", "logit"):
            second = keras.ops.sigmoid(outputs) if self.kind == "logit" else keras.ops.convert_to_tensor(outputs)
            return keras.ops.concatenate([1 - second, second], axis=-1)
        return outputs


def kind_named(name: str, shape: Any) -> str:
    """Returns the kind of an output, determined by its name in a SavedModel.

    Args:
        name: The name.
        shape: The output's shape.

    Returns:
        A key of `SIGNATURES`.
    """
    if len(shape) != 2 or name not in ("probabilities", "logits"):
        return "output"
    return AFTER_ONE_COLUMN[name] if shape[1] == 1 else name


def kinds_stated(stated: Any, outputs: Sequence[str]) -> dict[str, str]:
    """Returns the kind of each output, as a file states them.

    Args:
        stated: The kind of a single output; or a dictionary from the names of several to theirs, also as JSON; or
            anything else.
        outputs: Names of the outputs.

    Returns:
        For each output a key of `SIGNATURES`; "output" where the file does not state one.
    """
    if isinstance(stated, str) and stated.startswith("{"):
        with contextlib.suppress(ValueError):
            stated = json.loads(stated)
    kinds = stated if isinstance(stated, dict) else dict.fromkeys(outputs, stated)
    return {name: kinds[name] if _is_kind(kinds.get(name)) else "output" for name in outputs}


def _is_kind(value: Any) -> bool:
    return isinstance(value, str) and value in SIGNATURES


def kinds_described(file: str | os.PathLike, outputs: Sequence[str]) -> dict[str, str]:
    """Returns the kind of each output, as a model's JSON description states them.

    Args:
        file: The description; it may not exist.
        outputs: Names of the outputs.

    Returns:
        As from `kinds_stated`.
    """
    try:
        description = json.loads(pathlib.Path(file).read_text("utf-8"))
    except (OSError, ValueError):
        description = None
    return kinds_stated(description.get("output") if isinstance(description, dict) else None, outputs)
