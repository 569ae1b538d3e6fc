"""Intermediate feature maps by name."""

from __future__ import annotations

import re
from collections.abc import Sequence

import keras

from se_keras.errors import one_of


def feature_extractor(model: keras.Model, endpoints: Sequence[str] | None = None) -> keras.Model:
    """A model that returns feature maps by name, with the weights of the given one.

    Args:
        model: A network of this package, or any functional model whose layers are named.
        endpoints: Names of layers; the networks have "stem" (step 2), "stage2" (4) to
            "stage5" (32), "pooled", "logits" and "predictions". Default: every "stage".

    Returns:
        A functional model: images in, a dictionary from endpoint to tensor out. It shares
        the layers, so training it trains `model`.

    Raises:
        ValueError: An endpoint that the model does not have (the closest names are given), or
            a model without stages when `endpoints` is left out.

    Example:

    >>> features = feature_extractor(SEResNet20(input_shape=(32, 32, 3)))
    >>> features.output["stage4"].shape
    (None, 8, 8, 64)
    """
    names = [layer.name for layer in model.layers]
    if endpoints is None:
        endpoints = [name for name in names if re.fullmatch(r"stage\d", name)]
        if not endpoints:
            raise ValueError(
                f"The model {model.name!r} has no layers named stage2, stage3, ...; name the layers whose outputs you "
                "want with `endpoints`."
            )
    outputs = {name: model.get_layer(one_of("endpoint", name, names)).output for name in endpoints}
    return keras.Model(model.input, outputs, name=f"{model.name}_features")
