"""The model that a `.tflite` file is converted from: deployed, in float32, and safe on GPUs and in 8 bits."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from se_keras.export.gpu_form import gpu_form
from se_keras.export.headroom import headroom_of_squeezes, observed_squeezes
from se_keras.export.inference_form import float32_form, rewritten
from se_keras.layers import SqueezeExcite
from se_keras.surgery.calls import Graph
from se_keras.surgery.constant_gates import constant_gates
from se_keras.surgery.fold import float64
from se_keras.surgery.graph import build_model
from se_keras.surgery.stage import staged

FIRST_IMAGES = 32  # in most networks, they show that no block is dead and no squeeze near the limit
SUSPICIOUS_STEPS = 16  # the 8-bit step may grow with more images
SAFE_RATIO = 2.0  # minimum ratio of the largest half-precision number to the largest observed sum


def tflite_form(
    model: keras.Model, images: np.ndarray | None, *, squeeze: str = "auto", is_quantized: bool = False
) -> keras.Model:
    """Rewrites a model for conversion to a `.tflite` file.

    Args:
        model: A functional or sequential model with one input of fixed size.
        images: Images like those the model will see, in the range of its input, or None.
        squeeze: As in `export.tflite`.
        is_quantized: Whether activations become integers: dead SE blocks then become constants.

    Returns:
        A new model with the same outputs up to rounding, and up to dead blocks on these images.

    Raises:
        ValueError: As in `inference_form.float32_form`.
    """
    passes = (gpu_form, staged) if squeeze == "staged" else (gpu_form,)
    graph, form = float32_form(model, *passes)
    if images is None or (squeeze != "auto" and not is_quantized):
        return form
    squeezes = observed_squeezes(form, images[:FIRST_IMAGES])
    means = {observed.name: observed.means for observed in squeezes}
    dead = _confirmed_dead(graph, form, means, images) if is_quantized else {}
    near = [entry.name for entry in headroom_of_squeezes(squeezes) if entry.ratio < SAFE_RATIO]
    if squeeze == "auto" and near:
        passes = (gpu_form, functools.partial(staged, names=near))
    elif not dead:
        return form
    return build_model(rewritten(constant_gates(graph, dead), *passes))


def _confirmed_dead(
    graph: Graph, form: keras.Model, means: dict[str, np.ndarray], images: np.ndarray
) -> dict[str, np.ndarray]:
    suspects = dead_blocks(graph, form, means, steps=SUSPICIOUS_STEPS)
    if not suspects:
        return {}
    names = {name for block in suspects for name in (block, f"{block}_squeeze")}
    means = {observed.name: observed.means for observed in observed_squeezes(form, images, names)}
    return dead_blocks(graph, form, means)


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
