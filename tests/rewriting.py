"""Models to be rewritten: batch-norm statistics as after training, so that folding has something to get wrong.

The last norm of a bottleneck is kept small: through a hundred blocks of random weights, rounding itself would grow
into a different answer.
"""

from __future__ import annotations

import keras
import numpy as np

from se_keras.surgery import Change
from se_keras.surgery.deployment import deployed
from se_keras.surgery.graph import build_model, read_graph


def randomized(model: keras.Model) -> keras.Model:
    """Gives every batch norm and bias of a model values that matter."""
    rng = np.random.default_rng(0)
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            shape = layer.moving_mean.shape
            layer.moving_mean.assign(rng.normal(0, 0.1, shape))
            layer.moving_variance.assign(rng.uniform(0.5, 2, shape))
            if layer.scale:
                layer.gamma.assign(rng.uniform(0.5, 1.5, shape) * (0.3 if layer.name.endswith("_bn3") else 1.0))
            if layer.center:
                layer.beta.assign(rng.normal(0, 0.3, shape))
        elif getattr(layer, "bias", None) is not None:
            layer.bias.assign(rng.normal(0, 0.1, layer.bias.shape))
    return model


def relative_difference(model: keras.Model, other: keras.Model, batch: int = 2) -> float:
    """The greatest difference of the answers of two models to one random input, over the greatest answer."""
    rng = np.random.default_rng(1)
    inputs = [rng.uniform(0, 255, (batch, *x.shape[1:])).astype("float32") for x in model.inputs]
    inputs = inputs[0] if len(inputs) == 1 else inputs
    pairs = zip(*(keras.tree.flatten(m(inputs, training=False)) for m in (model, other)), strict=True)
    arrays = [(keras.ops.convert_to_numpy(a), keras.ops.convert_to_numpy(b)) for a, b in pairs]
    return max(float(np.abs(a - b).max() / np.abs(a).max()) for a, b in arrays)


def actions(changes) -> dict[str, str]:
    """From the name of each layer to what became of it."""
    return {change.layer: change.action for change in changes}


def deployment(model: keras.Model) -> tuple[keras.Model, tuple[Change, ...]]:
    """The deployed form of a model, and what `find_changes` finds for it."""
    graph, changes = deployed(read_graph(model))
    return build_model(graph), changes
