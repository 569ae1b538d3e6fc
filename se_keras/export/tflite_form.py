"""The model that a `.tflite` file is converted from: deployed, in float32, and safe on GPUs and in 8 bits."""

from __future__ import annotations

import functools

import keras
import numpy as np

from se_keras.export.dead_blocks import dead_blocks
from se_keras.export.gpu_form import gpu_form
from se_keras.export.headroom import headroom_of_squeezes, observed_squeezes
from se_keras.export.inference_form import float32_form, rewritten
from se_keras.surgery.calls import Graph
from se_keras.surgery.constant_gates import constant_gates
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
    dead = _dead_blocks(graph, form, means, images) if is_quantized else {}
    near = [entry.name for entry in headroom_of_squeezes(squeezes) if entry.ratio < SAFE_RATIO]
    if squeeze == "auto" and near:
        passes = (gpu_form, functools.partial(staged, names=near))
    elif not dead:
        return form
    return build_model(rewritten(constant_gates(graph, dead), *passes))


def _dead_blocks(
    graph: Graph, form: keras.Model, means: dict[str, np.ndarray], images: np.ndarray
) -> dict[str, np.ndarray]:
    suspects = dead_blocks(graph, form, means, steps=SUSPICIOUS_STEPS)
    if not suspects:
        return {}
    names = {name for block in suspects for name in (block, f"{block}_squeeze")}
    means = {observed.name: observed.means for observed in observed_squeezes(form, images, names)}
    return dead_blocks(graph, form, means)
