"""The forms of a model that files are written from: deployed and, for a `.tflite` file, safe on GPUs and in 8 bits.

Each is compared with the model before anything is written.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from se_keras.export.column_pairs import in_column_pairs
from se_keras.export.gpu_form import gpu_form
from se_keras.export.headroom import headroom_of_squeezes, observed_squeezes
from se_keras.export.image_rows import normalized_by_rows
from se_keras.export.image_scale import scale_in_kernel
from se_keras.export.inputs import Feed, few_of, random_feed, takes_text
from se_keras.export.model_ends import answers_of, inputs_of
from se_keras.layers import SqueezeExcite
from se_keras.surgery.calls import Graph
from se_keras.surgery.constant_gates import constant_gates
from se_keras.surgery.deployment import REWRITINGS, Rewriting, deployed
from se_keras.surgery.fold import float64
from se_keras.surgery.graph import build_model, in_float32, read_graph
from se_keras.surgery.layer_facts import layers_inside
from se_keras.surgery.layer_types import quantization_of
from se_keras.surgery.stage import staged

Pass = Callable[[Graph], Graph]

LARGEST_DIFFERENCE = 1e-3  # relative to the largest output; rounding through 150 layers stays far below
ROUNDING = 2.0**-20  # relative perturbation of the input, to measure its effect on the outputs
SHAKEN_DIFFERENCE = 50  # times that effect, if this is more

FEW_IMAGES = 8  # in most networks, they show that no block is dead and no squeeze near the limit
SUSPICIOUS_STEPS = 16  # the 8-bit step may grow with more images
SAFE_RATIO = 2.0  # minimum ratio of the largest half-precision number to the largest observed sum


def inference_form(model: keras.Model) -> keras.Model:
    """Applies `surgery.deploy` to a model in float32, and compares both forms.

    Args:
        model: A functional or sequential model.

    Returns:
        The deployed model.

    Raises:
        ValueError: As in `check_same`, and as in `deploy`.
    """
    single = in_single_precision(model)
    form = build_model(rewritten(read_graph(single)))
    check_same(form, single)
    return form


def in_single_precision(model: keras.Model) -> keras.Model:
    """Returns a model that computes in float32, with the weights of a model that computes in half precision.

    Args:
        model: A functional or sequential model.

    Returns:
        A copy in float32; the model itself if no layer computes in half precision, or if Keras quantized one, because
        its outputs would differ in float32.

    Raises:
        ValueError: A layer cannot be copied. The message names it.
    """
    is_quantized = any(quantization_of(layer) for layer in layers_inside(model))
    if is_quantized or not computes_in_half(model):
        return model
    return build_model(in_float32(read_graph(model)))


def float32_form(
    model: keras.Model, *passes: Pass, rewritings: Sequence[Rewriting] = REWRITINGS
) -> tuple[Graph, keras.Model]:
    """Builds the deployed form of a model in float32, and compares both forms.

    Args:
        model: A functional or sequential model.
        *passes: Further passes over the deployed graph, each exact up to rounding.
        rewritings: As in `deployed`.

    Returns:
        The graph of the model itself in float32, and the form.

    Raises:
        ValueError: As in `check_same`, as in `deploy`, and for a layer that Keras quantized.
    """
    graph = in_float32(read_graph(model))
    form = build_model(rewritten(graph, *passes, rewritings=rewritings))
    check_same(form, in_single_precision(model))
    return graph, form


def rewritten(graph: Graph, *passes: Pass, rewritings: Sequence[Rewriting] = REWRITINGS) -> Graph:
    """Returns the deployed form of a graph, with the scale of images moved into a kernel, after further passes."""
    graph, _ = deployed(graph, rewritings)
    return functools.reduce(lambda graph, one: one(graph), (scale_in_kernel, *passes), graph)


def tflite_form(
    model: keras.Model, feed: Feed | None, *, squeeze: str = "auto", is_quantized: bool = False
) -> keras.Model:
    """Rewrites a model for conversion to a `.tflite` file.

    Args:
        model: A functional or sequential model with inputs of fixed size.
        feed: Inputs like those the model will see, in their order, or None.
        squeeze: As in `export.tflite`.
        is_quantized: Whether activations become integers: dead SE blocks then become constants.

    Returns:
        A new model with the same outputs up to rounding, and up to dead blocks on these images.

    Raises:
        ValueError: As in `float32_form`.
    """
    passes = (
        normalized_by_rows,
        *([in_column_pairs] if is_quantized else []),
        gpu_form,
        *([staged] if squeeze == "staged" else []),
    )
    graph, form = float32_form(model, *passes)
    if feed is None or (squeeze != "auto" and not is_quantized):
        return form
    squeezes = observed_squeezes(form, few_of(feed, FEW_IMAGES))
    means = {observed.name: observed.means for observed in squeezes}
    dead = _confirmed_dead(graph, form, means, feed) if is_quantized else {}
    near = [entry.name for entry in headroom_of_squeezes(squeezes) if entry.ratio < SAFE_RATIO]
    if squeeze == "auto" and near:
        passes = (*passes, functools.partial(staged, names=near))
    elif not dead:
        return form
    return build_model(rewritten(constant_gates(graph, dead), *passes))


def _confirmed_dead(graph: Graph, form: keras.Model, means: dict[str, np.ndarray], feed: Feed) -> dict[str, np.ndarray]:
    suspects = dead_blocks(graph, form, means, steps=SUSPICIOUS_STEPS)
    if not suspects:
        return {}
    names = {name for block in suspects for name in (block, f"{block}_squeeze")}
    means = {observed.name: observed.means for observed in observed_squeezes(form, feed, names)}
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


def check_same(form: keras.Model, model: keras.Model) -> None:
    """Compares two forms of a model on two random samples.

    A model that takes text or computes in half precision is not compared.

    The outputs may differ by 1e-3 of the largest output. In some untrained networks, merely rounding the input changes
    the outputs more; there they may differ by 50 times that change.

    Args:
        form: The deployed form.
        model: The model.

    Raises:
        ValueError: The outputs of the two forms differ, which is a bug in this package.
    """
    inputs = inputs_of(model)
    if takes_text(inputs) or computes_in_half(model):
        return
    feed = random_feed(inputs, 2)
    answers = answers_of(model, feed)
    difference = _difference(answers_of(form, feed), answers)
    if difference <= LARGEST_DIFFERENCE:
        return
    # Logits of a random network can reach tens of thousands, and their softmax amplifies the last bit of rounding.
    shaken = _difference(answers_of(model, perturbed(feed, ROUNDING)), answers)
    if not difference <= SHAKEN_DIFFERENCE * shaken:
        raise ValueError(
            f"The outputs of the deployed form of {model.name!r} differ from the model's by {difference:.2g} of the "
            "largest output, so it is not written. Please report the model; deploy=False exports it unchanged, where "
            "the format has that option."
        )


def perturbed(feed: Feed, rounding: float) -> dict[str, np.ndarray]:
    """Returns inputs whose floats differ by a relative error of this size; integers stay."""
    return {name: _perturbed(values, rounding) if values.dtype.kind == "f" else values for name, values in feed.items()}


def _perturbed(values: np.ndarray, rounding: float) -> np.ndarray:
    signs = np.random.default_rng(0).choice([-rounding, rounding], values.shape)
    return (values * (1 + signs)).astype(values.dtype)


def _difference(answers: list[np.ndarray], references: list[np.ndarray]) -> float:
    """Returns the largest difference over outputs that are finite in the reference; NaN if one of `answers` is NaN."""
    pairs = zip(answers, references, strict=True)
    return float(np.max([0.0, *(relative_difference(a, b) for a, b in pairs if np.isfinite(b).all())]))


def relative_difference(answer: np.ndarray, reference: np.ndarray) -> float:
    """Returns the largest difference of two arrays divided by the largest absolute value of the reference."""
    wide: np.ndarray = reference.astype("float64")  # a mask is of booleans
    return float(np.abs(answer - wide).max() / max(np.abs(wide).max(), np.finfo("float32").tiny))


def computes_in_half(model: keras.Model) -> bool:
    """Returns whether any layer of a model computes in float16 or bfloat16."""
    return any(getattr(layer, "compute_dtype", "") in ("float16", "bfloat16") for layer in layers_inside(model))
