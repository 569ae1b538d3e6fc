"""Deployed form of a model, compared with the model before anything is written."""

from __future__ import annotations

import functools
from collections.abc import Callable

import keras
import numpy as np

from se_keras.export.images import random_images
from se_keras.surgery.calls import Graph
from se_keras.surgery.deployment import deploy, deployed
from se_keras.surgery.graph import build_model, in_float32, read_graph
from se_keras.surgery.layer_facts import layers_inside

Pass = Callable[[Graph], Graph]

OPEN_SIZE = 128  # for models that take any size: above the minimum of every network
LARGEST_DIFFERENCE = 1e-3  # relative to the largest output; rounding through 150 layers stays far below
ROUNDING = 2.0**-20  # relative perturbation of the input, to measure its effect on the outputs
SHAKEN_DIFFERENCE = 50  # times that effect, if this is more


def inference_form(model: keras.Model) -> keras.Model:
    """Applies `surgery.deploy`, and compares both forms.

    Args:
        model: A functional or sequential model with one input.

    Returns:
        The deployed model.

    Raises:
        ValueError: As in `check_same`, and as in `deploy`.
    """
    form = deploy(model)
    check_same(form, model)
    return form


def float32_form(model: keras.Model, *passes: Pass) -> tuple[Graph, keras.Model]:
    """Builds the deployed form of a model in float32, and compares both forms.

    Args:
        model: A functional or sequential model with one input.
        *passes: Further passes over the deployed graph, each exact up to rounding.

    Returns:
        The graph of the model itself in float32, and the form.

    Raises:
        ValueError: As in `check_same`, as in `deploy`, and for a layer that Keras quantized.
    """
    graph = in_float32(read_graph(model))
    form = build_model(rewritten(graph, *passes))
    check_same(form, build_model(graph) if _computes_in_half(model) else model)
    return graph, form


def rewritten(graph: Graph, *passes: Pass) -> Graph:
    """Returns the deployed form of a graph after further passes, as in `float32_form`."""
    graph, _ = deployed(graph)
    return functools.reduce(lambda graph, one: one(graph), passes, graph)


def check_same(form: keras.Model, model: keras.Model) -> None:
    """Compares two forms of a model on two random images; a model that computes in half precision is not compared.

    The outputs may differ by 1e-3 of the largest output. In some untrained networks, merely rounding the input changes
    the outputs more; there they may differ by 50 times that change.

    Args:
        form: The deployed form.
        model: The model.

    Raises:
        ValueError: The outputs of the two forms differ, which is a bug in this package.
    """
    shape = [size if size is not None else OPEN_SIZE for size in model.inputs[0].shape[1:]]
    if len(shape) != 3 or _computes_in_half(model):
        return
    images = random_images(shape, 2).images
    answers = _answers(model, images)
    difference = _difference(_answers(form, images), answers)
    if difference <= LARGEST_DIFFERENCE:
        return
    # Logits of a random network can reach tens of thousands, and their softmax amplifies the last bit of rounding.
    signs = np.random.default_rng(0).choice([-ROUNDING, ROUNDING], images.shape)
    shaken = _difference(_answers(model, (images * (1 + signs)).astype(images.dtype)), answers)
    if not difference <= SHAKEN_DIFFERENCE * shaken:
        raise ValueError(
            f"The outputs of the deployed form of {model.name!r} differ from the model's by {difference:.2g} of the "
            "largest output, so it is not written. Please report the model; deploy=False exports it unchanged, where "
            "the format has that option."
        )


def _answers(model: keras.Model, images: np.ndarray) -> list[np.ndarray]:
    return [keras.ops.convert_to_numpy(answer) for answer in keras.tree.flatten(model(images, training=False))]


def _difference(answers: list[np.ndarray], references: list[np.ndarray]) -> float:
    """Returns the largest difference over outputs that are finite in the reference; NaN if one of `answers` is NaN."""
    pairs = zip(answers, references, strict=True)
    return float(np.max([0.0, *(relative_difference(a, b) for a, b in pairs if np.isfinite(b).all())]))


def relative_difference(answer: np.ndarray, reference: np.ndarray) -> float:
    """Returns the largest difference of two arrays divided by the largest absolute value of the reference."""
    return float(np.abs(answer - reference).max() / max(np.abs(reference).max(), np.finfo("float32").tiny))


def _computes_in_half(model: keras.Model) -> bool:
    return any(getattr(layer, "compute_dtype", "") in ("float16", "bfloat16") for layer in layers_inside(model))
