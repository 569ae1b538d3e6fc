"""The contents of layers and models, determined from the layer or model alone."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import keras

from se_keras.layers import SqueezeExcite
from se_keras.surgery.layer_types import BATCH_NORMS, DEPTHWISE, PLAIN_CONVOLUTIONS, SEPARABLE

# Layers worth a message when a layer that contains them is not expanded.
LOOKED_FOR = (
    keras.Model,
    SqueezeExcite,
    *BATCH_NORMS,
    *PLAIN_CONVOLUTIONS,
    keras.layers.Dense,
    *DEPTHWISE,
    *SEPARABLE,
)
# The attribute in which PyTorch keeps the parts of a module, and the part that Keras adds.
TORCH_PARTS, TORCH_PARAMETERS = "_modules", "_torch_params"


def is_functional(model: Any) -> bool:
    """Returns whether a model is a graph of layers: functional, or sequential and built.

    Args:
        model: Any object. The result is False for a subclassed model, even if it was given inputs and outputs
            but has its own `call`.
    """
    if not isinstance(model, keras.Model) or has_own_call(model):
        return False
    if isinstance(model, keras.Sequential):
        return model.built and all(hasattr(x, "_keras_history") for x in model.outputs)
    return isinstance(model, keras.Function)


def has_own_call(model: Any) -> bool:
    """Returns whether a user's class determines what a model computes, regardless of its graph."""
    definer = next(base for base in type(model).__mro__ if "call" in vars(base))
    return not is_of_keras(definer)


def is_of_keras(kind: type) -> bool:
    """Returns whether Keras itself defines a class."""
    return kind.__module__.partition(".")[0] == "keras"


def attributes_of(layer: Any) -> dict[str, Any]:
    """Returns the attributes of a layer, including those that the backend keeps elsewhere."""
    own = vars(layer)
    parts = own.get(TORCH_PARTS) or {}
    return {**own, **{name: part for name, part in parts.items() if name != TORCH_PARAMETERS}}


def parts_of(layer: Any) -> list[Any]:
    """Returns the layers that a layer holds in its attributes, each once; for a model, its layers."""
    if is_functional(layer):
        found = [part for part in layer.layers if not isinstance(part, keras.layers.InputLayer)]
    else:
        found = [part for value in attributes_of(layer).values() for part in _layers_in(value)]
    return list({id(part): part for part in found if part is not layer}.values())


def _layers_in(value: Any) -> Iterator[Any]:
    if isinstance(value, keras.layers.Layer):
        yield value
    elif isinstance(value, (list, tuple, set)):
        for one in value:
            yield from _layers_in(one)
    elif isinstance(value, dict):
        yield from _layers_in(list(value.values()))


def layers_inside(layer: Any) -> Iterator[Any]:
    """Yields every layer inside a layer, at any depth, each once."""
    seen = {id(layer)}
    pending = parts_of(layer)[::-1]
    while pending:
        part = pending.pop()
        if id(part) not in seen:
            seen.add(id(part))
            yield part
            pending += parts_of(part)[::-1]


def repeated_model(layer: Any) -> Any:
    """Returns the functional model that a `TimeDistributed` layer applies to every step; None for other layers."""
    inner = layer
    while type(inner) is keras.layers.TimeDistributed:
        inner = inner.layer
    return inner if inner is not layer and is_functional(inner) else None


def hides_layers(layer: Any) -> bool:
    """Returns whether a layer that is not expanded contains models or layers of the kinds in `LOOKED_FOR`."""
    if is_functional(layer) or repeated_model(layer) is not None:
        return False
    if isinstance(layer, keras.Model):
        return True
    return any(isinstance(part, LOOKED_FOR) for part in layers_inside(layer))


def shown_with_weights(*layers: Any) -> str:
    """Returns the name of a layer for a message, with its weight count: 'body' (MyBlock, 1,234 weights).

    Args:
        *layers: The layer, or several of one class: "2 layers of class MyBlock (2,468 weights)".
    """
    count = sum(math.prod(weight.shape) for layer in layers for weight in layer.weights)
    kind = type(layers[0]).__name__
    if len(layers) > 1:
        return f"{len(layers)} layers of class {kind} ({count:,} weights)"
    return f"{layers[0].name!r} ({kind}, {count:,} weights)"


def shown(layer: Any) -> str:
    """Returns the name of a layer for a message: 'frames' (TimeDistributed)."""
    return f"{layer.name!r} ({type(layer).__name__})"
