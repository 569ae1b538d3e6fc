"""Extraction of intermediate feature maps by name."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Any

import keras

from se_keras.errors import one_of, refuse_tf_keras
from se_keras.models.info import is_graph


def feature_extractor(model: keras.Model, endpoints: Sequence[str] | None = None) -> keras.Model:
    """Returns a model that outputs feature maps by name, with the weights of the given model.

    Args:
        model: A network of this package, or any functional or sequential model with named
            layers, including layers of nested models.
        endpoints: Names of layers. The ImageNet networks have "stem" (stride 2), "stage2"
            (stride 4) to "stage5" (stride 32), "pooled", "logits", and "predictions". The CIFAR
            networks have "stem" (1), "stage2" (1), "stage3" (2), "stage4" (4), and the same last
            three. Default: every "stage".

    Returns:
        A functional model: images in, a dictionary from endpoint to tensor out. It shares
        its layers with `model`: training one trains the other.

    Raises:
        ValueError: The model lacks an endpoint (the message names the closest ones), or it has no
            stages and `endpoints` is None.

    Example:

    >>> features = feature_extractor(SEResNet20(input_shape=(32, 32, 3)))
    >>> features.output["stage4"].shape
    (None, 8, 8, 64)
    """
    refuse_tf_keras(model)
    names = _layer_names(model)
    if endpoints is None:
        endpoints = [name for name in names if re.fullmatch(r"stage\d", name)]
        if not endpoints:
            raise ValueError(
                f"The model {model.name!r} has no layers named stage2, stage3, .... Name the layers to extract with "
                "`endpoints`."
            )
    wanted = [one_of("endpoint", name, names) for name in endpoints]
    inputs, _, found = _tapped(model, set(wanted))
    return keras.Model(inputs, {name: found[name] for name in wanted}, name=f"{model.name}_features")


def _layer_names(model: keras.Model) -> list[str]:
    """Returns the names of a model's own layers, followed by those of its nested models."""
    nested = (name for layer in model.layers if is_graph(layer) for name in _layer_names(layer))
    return [*(layer.name for layer in model.layers), *nested]


def _tapped(model: keras.Model, wanted: Collection[str]) -> tuple[Any, Any, dict[str, Any]]:
    """Returns a model's inputs, its outputs, and the outputs of some of its layers by name.

    A nested model hides the outputs of its layers. In this case, all layers are called again on new
    inputs, and each nested model with wanted layers returns them alongside its own outputs.
    """
    one = isinstance(model, keras.Sequential)
    ends = (model.inputs[0], model.outputs[0]) if one else (model.input, model.output)
    found = {layer.name: layer.output for layer in model.layers if layer.name in wanted}
    if found.keys() >= set(wanted):
        return *ends, found
    found = {}

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        inside = set(wanted).intersection(_layer_names(layer)) - own if is_graph(layer) else set()
        if inside:
            inputs, outputs, _ = tapped = _tapped(layer, inside)
            outputs, taps = keras.Model(inputs, (outputs, tapped[2]), name=layer.name)(*args, **kwargs)
            found.update({name: tensor for name, tensor in taps.items() if name not in found})
        else:
            outputs = layer(*args, **kwargs)
        if layer.name in wanted:
            found[layer.name] = outputs
        return outputs

    own = {layer.name for layer in model.layers}
    inputs = keras.tree.map_structure(lambda x: keras.Input(batch_shape=x.shape, dtype=x.dtype, name=x.name), ends[0])
    if one:
        outputs = inputs
        for layer in model.layers:
            outputs = call(layer, outputs)
        return inputs, outputs, found
    copy = keras.models.clone_model(model, inputs, clone_function=lambda layer: layer, call_function=call)
    return inputs, copy.output, found
