"""SE blocks that treat every image alike because none of their units is ever on."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
from keras import layers

from se_keras.layers import SqueezeExcite
from se_keras.surgery.fold import float64

FIRST_IMAGES = 16


def dead_blocks(model: keras.Model, images: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the SE blocks whose units are all off in 8 bits, so that their gates are the same for every image.

    This happens where few units are left: 16 channels with a reduction of 16 leave a single ReLU.
    When quantized, such a block has an output scale of nearly zero, which runtimes refuse to load.

    Args:
        model: A functional model.
        images: Images to run it on, in the range of its input.

    Returns:
        A dictionary from the block's name to its gates, shape (channels,).
    """
    blocks = [
        layer
        for layer in model.layers
        if type(layer) is SqueezeExcite and layer.squeeze == "avg" and len(layer.input.shape) == 4
    ]
    # In most networks a few images show that no block is dead. The 8-bit step may grow with more images.
    suspects = _off(model, blocks, images[:FIRST_IMAGES], steps=16)
    dead = _off(model, suspects, images)
    return {block.name: _constant_gate(block) for block in dead}


def _off(
    model: keras.Model, blocks: Sequence[SqueezeExcite], images: np.ndarray, *, steps: int = 1
) -> list[SqueezeExcite]:
    """Returns the blocks in which no unit exceeds `steps` 8-bit steps for any image."""
    if not blocks:
        return []
    squeezed = [
        layers.GlobalAveragePooling2D(data_format=block.data_format, dtype=block.gate_dtype())(block.input)
        for block in blocks
    ]
    summaries = keras.Model(model.inputs, squeezed).predict(images, verbose=0)
    found = []
    for block, summary in zip(blocks, summaries if isinstance(summaries, list) else [summaries], strict=True):
        kernel = float64(block.reduce_kernel)
        hidden = summary @ kernel + (float64(block.reduce_bias) if block.use_bias else 0.0)
        hidden = np.abs(float64(block.activation(keras.ops.convert_to_tensor(hidden, "float32"))))
        smallest_step = np.abs(summary).max() / 255 * np.abs(kernel).max() / 127
        if hidden.max() <= steps * smallest_step:
            found.append(block)
    return found


def _constant_gate(block: SqueezeExcite) -> np.ndarray:
    bias = block.expand_bias if block.use_bias else keras.ops.zeros((block.expand_kernel.shape[1],), "float32")
    return float64(block.gate_activation(keras.ops.convert_to_tensor(bias))) * block.gate_scale
