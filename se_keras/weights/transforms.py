"""The rules by which the tensors of a checkpoint become the variables of a model, and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Transform:
    """A rule that turns tensors into the value of a variable.

    Args:
        sources: Maps a variable's shape to the shape of each tensor that it is made from.
        apply: Maps these tensors to the variable's value.
        revert: Maps the value to the tensor. None if the tensors cannot be told from it.
    """

    sources: Callable[[Shape], tuple[Shape, ...]]
    apply: Callable[..., np.ndarray]
    revert: Callable[[np.ndarray], np.ndarray] | None = None


def _divided(total: np.ndarray, count: np.ndarray) -> np.ndarray:
    return total / count if count[0] else np.zeros_like(total)  # Caffe's rule for an untrained batch normalization


TRANSFORMS = {
    "same": Transform(lambda shape: (shape,), lambda tensor: tensor, lambda value: value),
    # (out, in / groups, height, width) -> (height, width, in / groups, out)
    "conv": Transform(
        lambda s: ((s[3], s[2], s[0], s[1]),), lambda x: x.transpose(2, 3, 1, 0), lambda x: x.transpose(3, 2, 0, 1)
    ),
    # (channels, 1, height, width) -> (height, width, channels, 1)
    "depthwise": Transform(
        lambda s: ((s[2], s[3], s[0], s[1]),), lambda x: x.transpose(2, 3, 0, 1), lambda x: x.transpose(2, 3, 0, 1)
    ),
    # (out, in) -> (in, out)
    "dense": Transform(lambda s: ((s[1], s[0]),), lambda tensor: tensor.T, lambda value: value.T),
    # (out, in, 1, 1) -> (in, out)
    "pointwise": Transform(lambda s: ((s[1], s[0], 1, 1),), lambda x: x[:, :, 0, 0].T, lambda x: x.T[:, :, None, None]),
    # (channels,) and (1,) -> (channels,)
    "divided": Transform(lambda shape: (shape, (1,)), _divided),
}
