"""Without SE, the networks that follow keras.applications compute what keras.applications computes."""

from __future__ import annotations

from collections.abc import Iterator

import keras
import numpy as np
import pytest
from formula import fill, images
from small_networks import answers

from se_keras.models.network import Options, assemble
from se_keras.models.registry import NETWORKS

# Sums in another order: 1e-6; a wrong padding or a swapped branch shows at 1e-2.
TOLERANCE = 1e-4

ORIGINALS = {
    "se_inception_v3": keras.applications.InceptionV3,
    "se_inception_resnet_v2": keras.applications.InceptionResNetV2,
    "se_vgg16": keras.applications.VGG16,
    "se_mobilenet": keras.applications.MobileNet,
}
EVEN = {"se_inception_v3": (96, 80), "se_inception_resnet_v2": (96, 80), "se_vgg16": (64, 32), "se_mobilenet": (64, 64)}
ODD = {
    "se_inception_v3": (101, 83),
    "se_inception_resnet_v2": (101, 83),
    "se_vgg16": (75, 53),
    "se_mobilenet": (75, 53),
}

SUFFIXES = {
    "kernel": ".weight",
    "bias": ".bias",
    "gamma": ".weight",
    "beta": ".bias",
    "moving_mean": ".running_mean",
    "moving_variance": ".running_var",
}

QUICK = ("se_vgg16", "se_mobilenet")


def in_order(model: keras.Model) -> list[keras.layers.Layer]:
    """The layers with weights, each behind all that it depends on, branches in the order of their concatenation.

    Unlike `model.layers`, the order depends on the graph alone, not on how it was written down.
    """
    producers = {id(output): layer for layer in model.layers for output in _list(layer.output)}
    seen: dict[int, keras.layers.Layer] = {}

    def visit(tensor: keras.KerasTensor) -> Iterator[keras.layers.Layer]:
        layer = producers[id(tensor)]
        if id(layer) in seen:
            return
        seen[id(layer)] = layer
        for source in _list(layer.input):
            if source is not tensor:  # an input layer is its own source
                yield from visit(source)
        yield layer

    return [layer for layer in visit(model.output) if layer.weights]


def _list(tensors: object) -> list:
    return list(tensors) if isinstance(tensors, (list, tuple)) else [tensors]


def fill_original(layers: list[keras.layers.Layer]) -> None:
    """Gives the layers of an original weights by formula."""
    for number, layer in enumerate(layers):
        values = []
        for weight in layer.weights:
            shape = tuple(weight.shape)
            per_output = shape[:2] if isinstance(layer, keras.layers.DepthwiseConv2D) else shape[:-1]
            values.append(fill(f"{number}{SUFFIXES[weight.name]}", shape, int(np.prod(per_output))))
        layer.set_weights(values)


def copy_weights(theirs: list[keras.layers.Layer], ours: list[keras.layers.Layer]) -> None:
    """Layer by layer; their 1x1 convolution may be a dense layer here, and VGG's bias is a norm here."""
    remaining = iter(ours)
    for layer in theirs:
        target = next(remaining)
        values = layer.get_weights()
        if isinstance(layer, keras.layers.Conv2D) and isinstance(target, keras.layers.Dense):
            values[0] = values[0][0, 0]
        if len(values) > len(target.weights):
            values, bias = values[:1], values[1]
            norm = next(remaining)
            ones = np.ones_like(bias)
            norm.set_weights([ones, bias, 0 * ones, ones - norm.epsilon])
        target.set_weights(values)
    assert next(remaining, None) is None


def pair(identifier: str, shape: tuple[int | None, ...], *, include_top: bool) -> tuple[keras.Model, keras.Model]:
    """A network of keras.applications and ours without SE, with the same weights."""
    head = {"classifier_activation": None} if include_top else {}
    theirs = ORIGINALS[identifier](weights=None, include_top=include_top, input_shape=shape, **head)
    options = Options(se=None, include_preprocessing=False, include_top=include_top, input_shape=shape, **head)
    ours = assemble(identifier, NETWORKS[identifier], options)
    fill_original(in_order(theirs))
    copy_weights(in_order(theirs), in_order(ours))
    return ours, theirs


@pytest.mark.parametrize("include_top", [True, False], ids=["even", "odd"])
@pytest.mark.parametrize(
    "identifier",
    [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in ORIGINALS],
)
@pytest.mark.slow
def test_network_without_se_equals_keras_applications(identifier: str, include_top: bool) -> None:
    size = (EVEN if include_top else ODD)[identifier]
    shape = (*size, 3) if include_top else (None, None, 3)
    ours, theirs = pair(identifier, shape, include_top=include_top)
    batch = 10 * images(size).transpose(0, 2, 3, 1)  # so that ReLU6 has something to cut off
    ours_out, theirs_out = answers(ours, batch), answers(theirs, batch)
    assert ours_out.shape == theirs_out.shape
    largest = np.abs(theirs_out).max()
    assert np.abs(ours_out - theirs_out).max() < TOLERANCE * largest
    assert np.ptp(theirs_out, axis=0).max() > 0.05 * largest, "both images give the same"
