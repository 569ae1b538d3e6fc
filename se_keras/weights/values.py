"""Checks of weight values: a tensor of the right shape may still not be a weight."""

from __future__ import annotations

import numpy as np


def check_values(name: str, values: np.ndarray, dtype: str, *, source: str) -> None:
    """Rejects values that cannot be a trained weight.

    Args:
        name: The tensor's name.
        values: Its values.
        dtype: Type of the variable that they are for.
        source: Where they come from, for the message.

    Raises:
        ValueError: Integers or booleans for a float variable, or values that are NaN or infinite.
    """
    kind = np.dtype(values.dtype).name  # NumPy has no kind for bfloat16
    if "float" in dtype and "float" not in kind:
        raise ValueError(
            f"Weights must be floating-point numbers; the tensor {name!r} of {source} is {kind}. Convert it back to "
            "floats first (with its scale, if it is quantized)."
        )
    bad = int(np.size(values) - np.isfinite(values).sum())
    if bad:
        raise ValueError(
            f"Weights must be finite; the tensor {name!r} of {source} has {bad:,} NaN or infinite values of "
            f"{np.size(values):,}. Use a checkpoint from before the training diverged, or download the file again."
        )
