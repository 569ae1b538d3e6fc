"""Empty figures of matplotlib."""

from __future__ import annotations

from typing import Any

from se_keras.errors import missing_package


def new_figure(width: float, height: float) -> Any:
    """Returns an empty figure.

    Args:
        width: Width in inches.
        height: Height in inches.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise missing_package("matplotlib", "plots", "Drawing figures") from error
    return Figure(figsize=(width, height), layout="constrained")  # without pyplot: no state, no window
