"""Choice of some items of many."""

from __future__ import annotations

import numpy as np


def evenly(count: int, most: int) -> list[int]:
    """Returns indices of at most `most` of `count` items, evenly spaced, including the first and the last.

    Args:
        count: Number of items.
        most: Maximum number to choose. For 1, only the last item.

    Returns:
        Ascending indices; none if either number is 0.
    """
    if count <= most:
        return list(range(count))
    return np.linspace(0, count - 1, most).round().astype(int).tolist() if most > 1 else [count - 1][:most]
