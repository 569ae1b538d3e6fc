"""What the values of a weight may be: a tensor of the right shape can still be none."""

from __future__ import annotations

from typing import Any

import numpy as np


def check_values(name: str, values: np.ndarray, variable: Any, *, source: str) -> None:
    """Refuses values that cannot be a trained weight.

    Args:
        name: The tensor's name.
        values: Its values.
        variable: The Keras variable that they are for.
        source: Where they come from, for the message.

    Raises:
        ValueError: Integers or bools for a variable of floats, or values that are NaN or infinite.
    """
    kind = np.dtype(values.dtype).name  # NumPy does not know the kind of a bfloat16
    if "float" in str(variable.dtype) and "float" not in kind:
        raise ValueError(
            f"Weights must be floating-point numbers; the tensor {name!r} of {source} is {kind}. Convert it back to "
            "floats first (with its scale, if it is quantized)."
        )
    bad = int(np.size(values) - np.isfinite(values).sum())
    if bad:
        raise ValueError(
            f"Weights must be finite; the tensor {name!r} of {source} holds {bad:,} NaN or infinite values of "
            f"{np.size(values):,}. Take a checkpoint from before the training diverged, or download the file again."
        )
