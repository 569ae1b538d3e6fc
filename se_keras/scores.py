"""What the columns of a classifier's output are, and the probability of each class in them.

Nothing here imports Keras before it is needed, as `se_keras.export.runtime` runs without it.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from typing import Any

SIGNATURES = {
    "probabilities": "probabilities",
    "independent_probabilities": "probabilities",
    "probability": "probabilities",
    "logits": "logits",
    "logit": "logits",
    "output": "output",
}
"""From each kind of output to its name in a SavedModel:

- "probabilities" of classes that exclude one another: they add up to one, after a softmax;
- "independent_probabilities": several sigmoids, for images that can be of several classes;
- "probability" of the second of two classes: one sigmoid;
- "logits" of classes that exclude one another, which need a softmax;
- "logit" of the second of two classes, which needs a sigmoid;
- "output": anything else.
"""

AFTER_ONE_COLUMN = {"probabilities": "probability", "independent_probabilities": "probability", "logits": "logit"}
"""From what several columns are to what a single one is."""


@dataclasses.dataclass(frozen=True)
class Scores:
    """What a model answers for an image.

    Args:
        kind: A key of `SIGNATURES`.
        columns: Length of the output's last axis.
    """

    kind: str
    columns: int

    @property
    def classes(self) -> int:
        """Number of classes: two for one probability or logit."""
        return 2 if self.kind in ("probability", "logit") else self.columns

    def probabilities(self, outputs: Any) -> Any:
        """Gives each class its probability.

        Args:
            outputs: What the model answers, shape (batch, columns): an array or tensor.

        Returns:
            A tensor of shape (batch, classes): each value from 0 to 1, but those of the kind
            "output" as they are. Rows add up to one, unless the probabilities are independent.
        """
        import keras

        if self.kind == "logits":
            return keras.ops.softmax(outputs, axis=-1)
        if self.kind in ("probability", "logit"):
            second = keras.ops.sigmoid(outputs) if self.kind == "logit" else keras.ops.convert_to_tensor(outputs)
            return keras.ops.concatenate([1 - second, second], axis=-1)
        return outputs


def kind_named(name: str, shape: Any) -> str:
    """What an output is, told from its name in a SavedModel.

    Args:
        name: The name.
        shape: The output's shape.

    Returns:
        A key of `SIGNATURES`.
    """
    if len(shape) != 2 or name not in ("probabilities", "logits"):
        return "output"
    return AFTER_ONE_COLUMN[name] if shape[1] == 1 else name


def kind_described(file: str | os.PathLike) -> str:
    """What a JSON description of a model says of its output.

    Args:
        file: The description; it need not exist.

    Returns:
        A key of `SIGNATURES`; "output" if there is no description, or it does not say.
    """
    try:
        description = json.loads(pathlib.Path(file).read_text("utf-8"))
    except (OSError, ValueError):
        return "output"
    kind = description.get("output") if isinstance(description, dict) else None
    return kind if kind in SIGNATURES else "output"
