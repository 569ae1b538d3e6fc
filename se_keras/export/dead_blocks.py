"""SE blocks that treat every image alike because none of their units is ever on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from se_keras.layers import SqueezeExcite
from se_keras.surgery.calls import Graph
from se_keras.surgery.fold import float64


def dead_blocks(
    graph: Graph, form: keras.Model, means: Mapping[str, np.ndarray], *, steps: int = 1
) -> dict[str, np.ndarray]:
    """Returns the SE blocks whose units are all off in 8 bits, so that their gates are the same for every image.

    This happens where few units are left: 16 channels with a reduction of 16 leave a single ReLU.
    When quantized, such a block has an output scale of nearly zero, which runtimes refuse to load.

    Args:
        graph: The graph with its SE blocks.
        form: Its deployed form, in which blocks may be expanded into ordinary layers.
        means: The squeeze of each image, shape (n, channels), by the name of the layer in `form` that computes it.
        steps: Number of steps of 8 bits up to which a unit counts as off.

    Returns:
        A dictionary from the block's name to its gates, shape (channels,).
    """
    inside = {layer.name: layer for layer in form.layers}
    found = {}
    for call in graph.calls:
        block = call.operation
        if type(block) is not SqueezeExcite or block.squeeze != "avg":
            continue
        squeeze = means.get(f"{block.name}_squeeze", means.get(block.name))
        if squeeze is not None and _is_off(block, inside.get(f"{block.name}_reduce"), squeeze, steps):
            found[block.name] = _constant_gate(block)
    return found


def _is_off(block: SqueezeExcite, projection: Any, squeeze: np.ndarray, steps: int) -> bool:
    """Returns whether no unit of a block, or of the projection it was expanded to, exceeds `steps` 8-bit steps."""
    kernel, bias = (
        (block.reduce_kernel, block.reduce_bias) if projection is None else (projection.kernel, projection.bias)
    )
    weights = float64(kernel).reshape(kernel.shape[-2:])
    hidden = squeeze @ weights + (0.0 if bias is None else float64(bias))
    hidden = np.abs(float64(block.activation(keras.ops.convert_to_tensor(hidden, "float32"))))
    smallest_step = np.abs(squeeze).max() / 255 * np.abs(weights).max() / 127
    return bool(hidden.max() <= steps * smallest_step)


def _constant_gate(block: SqueezeExcite) -> np.ndarray:
    bias = block.expand_bias if block.use_bias else keras.ops.zeros((block.expand_kernel.shape[1],), "float32")
    return float64(block.gate_activation(keras.ops.convert_to_tensor(bias))) * block.gate_scale
