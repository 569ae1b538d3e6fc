"""Gates that do not depend on the image, as constants."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import keras
import numpy as np
from keras import layers

from se_keras.layers import SqueezeExcite
from se_keras.surgery.fold import float64
from se_keras.surgery.graph import Graph
from se_keras.surgery.hoist import new_call


def constant_gates(graph: Graph, gates: Mapping[str, np.ndarray]) -> Graph:
    """Replaces SE blocks on images by a product with constants.

    Args:
        graph: The graph.
        gates: From the name of an SE block to its gate, shape (channels,).

    Returns:
        The new graph; a constant gate is a 1x1 depthwise convolution of the block's name.
    """
    replacements = {}
    for call in graph.calls:
        block = call.operation
        if type(block) is SqueezeExcite and block.name in gates:
            scale = layers.DepthwiseConv2D(
                1, use_bias=False, data_format=block.data_format, name=block.name, dtype=block.dtype_policy
            )
            gate = np.asarray(gates[block.name]).reshape(1, 1, -1, 1)
            replacements[call] = [dataclasses.replace(new_call(scale, call.inputs[0], [gate]), outputs=call.outputs)]
    return graph.rewritten(replacements, {})


def dead_blocks(model: keras.Model, images: np.ndarray) -> dict[str, np.ndarray]:
    """SE blocks whose hidden units are all off, as far as 8 bits can tell: their gate is the same for every image.

    It happens where few units are left: 16 channels reduced by 16 leave a single ReLU.
    Quantised, such a block has an output scale of nearly zero, which runtimes refuse to load.

    Args:
        model: A functional model.
        images: What to run it on, in the scale of its input.

    Returns:
        From the block's name to its gate, shape (channels,).
    """
    blocks = [
        layer
        for layer in model.layers
        if type(layer) is SqueezeExcite and layer.squeeze == "avg" and len(layer.input.shape) == 4
    ]
    if not blocks:
        return {}
    squeezed = [
        layers.GlobalAveragePooling2D(data_format=block.data_format, dtype=block.gate_dtype())(block.input)
        for block in blocks
    ]
    summaries = keras.Model(model.inputs, squeezed).predict(images, verbose=0)
    found = {}
    for block, summary in zip(blocks, summaries if isinstance(summaries, list) else [summaries], strict=True):
        kernel = float64(block.reduce_kernel)
        hidden = summary @ kernel + (float64(block.reduce_bias) if block.use_bias else 0.0)
        hidden = np.abs(float64(block.activation(keras.ops.convert_to_tensor(hidden, "float32"))))
        smallest_step = np.abs(summary).max() / 255 * np.abs(kernel).max() / 127
        if hidden.max() <= smallest_step:
            bias = block.expand_bias if block.use_bias else keras.ops.zeros((block.expand_kernel.shape[1],), "float32")
            found[block.name] = float64(block.gate_activation(keras.ops.convert_to_tensor(bias))) * block.gate_scale
    return found
