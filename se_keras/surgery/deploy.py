"""The deployed form of a model: the same answers with less work."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import keras
from keras import layers

from se_keras.layers import SqueezeExcite
from se_keras.surgery.fold import ALWAYS_TRAINS, BATCH_NORMS, fold_batch_norms
from se_keras.surgery.graph import Call, Graph, build_model, read_graph
from se_keras.surgery.hoist import hoist_squeezes
from se_keras.surgery.layer_facts import hides_layers, is_functional, layers_inside, shown_with_weights
from se_keras.surgery.repeated import rewritten_inside

# Layers that pass their input through at inference.
TRAINING_ONLY = (
    "ActivityRegularization",
    "AlphaDropout",
    "Dropout",
    "GaussianDropout",
    "GaussianNoise",
    "RandomBrightness",
    "RandomColorDegeneration",
    "RandomColorJitter",
    "RandomContrast",
    "RandomElasticTransform",
    "RandomErasing",
    "RandomFlip",
    "RandomGaussianBlur",
    "RandomGrayscale",
    "RandomHue",
    "RandomInvert",
    "RandomPerspective",
    "RandomPosterization",
    "RandomRotation",
    "RandomSaturation",
    "RandomSharpness",
    "RandomShear",
    "RandomTranslation",
    "RandomZoom",
    "SpatialDropout1D",
    "SpatialDropout2D",
    "SpatialDropout3D",
)


@dataclasses.dataclass(frozen=True)
class Change:
    """A record of what `deploy` did with one layer.

    Args:
        layer: Its name.
        action: "folded" (a batch normalization, into the layer in `detail`), "hoisted" (a squeeze, before the
            layer in `detail`), "removed" (it does nothing at inference), or "kept" (for the reason in `detail`).
        detail: The name of the other layer, or the reason.
    """

    layer: str
    action: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.action} {self.layer}" + (f": {self.detail}" if self.detail else "")


class Deployment(NamedTuple):
    """The result of `deploy`: the new model, and a `Change` for each layer that was considered."""

    model: keras.Model
    changes: tuple[Change, ...]


def deploy(model: keras.Model) -> Deployment:
    """Rewrites a model for inference; its answers equal `model(x, training=False)` up to rounding.

    Batch normalization is folded into the preceding convolution or dense layer. The squeeze of an
    SE block reads the narrow input of the preceding 1x1 convolution. Dropout and augmentation are
    removed. Nested models are expanded, and models in `TimeDistributed` are rewritten in place.
    Preprocessing stays. Each step is taken only where it is exact and saves work; layers that are
    kept are listed with the reason. Works on every backend.

    Reference: arXiv 1709.01507v4, equations 2 to 4: the squeeze is a mean, so it commutes with
    any operation that is affine at each position.

    Args:
        model: A functional model, or a built sequential one, with weights of any dtype. It is not
            changed and shares nothing with the result.

    Returns:
        The new functional model with the same name, inputs, and outputs, and the changes. Do not
        train it: its batch normalization is gone.

    Raises:
        ValueError: The model is subclassed, or sequential without an input shape; or a layer
            cannot be copied (the message names it).

    Example:

    >>> deployed, changes = deploy(SEResNet50(weights=None))
    >>> sum(change.action == "hoisted" for change in changes)
    16
    """
    graph, changes = deployed(read_graph(model))
    return Deployment(build_model(graph), changes)


def deployed(graph: Graph) -> tuple[Graph, tuple[Change, ...]]:
    """Rewrites a graph for inference, as `deploy` does with a model.

    Args:
        graph: The graph.

    Returns:
        The new graph, and the changes.
    """
    inside: list[Change] = []

    def rewrite(inner: Graph, name: str) -> Graph:
        inner, found = deployed(inner)
        inside.extend(dataclasses.replace(change, layer=f"{name}/{change.layer}") for change in found)
        return inner

    graph = rewritten_inside(graph, rewrite)
    inside += [Change(layer.name, "kept", _what_is_left(layer)) for layer in _closed_layers(graph)]
    graph, removed, not_removed = _without_training_only(graph)
    graph, folded, not_folded = fold_batch_norms(graph)
    graph, hoisted, not_hoisted = hoist_squeezes(graph)
    kept = [*not_removed, *not_folded, *not_hoisted]
    return graph, (
        *inside,
        *(Change(name, "removed") for name in removed),
        *(Change(norm.name, "folded", layer.name) for norm, layer in folded),
        *(Change(se.name, "hoisted", layer.name) for se, layer in hoisted),
        *(Change(call.name, "kept", reason) for call, reason in kept),
    )


def _closed_layers(graph: Graph) -> list[Any]:
    """Returns the layers that are not expanded although they may contain something to rewrite."""
    operations = {id(call.operation): call.operation for call in graph.calls}.values()
    closed = [one for one in operations if hides_layers(one) or is_functional(one)]
    return [layer for layer in closed if isinstance(layer, keras.Model) or _to_rewrite(layer)]


def _to_rewrite(layer: Any) -> list[str]:
    parts = list(layers_inside(layer))
    counts = [
        ("batch normalization", sum(type(part) in BATCH_NORMS for part in parts)),
        ("SE block", sum(isinstance(part, SqueezeExcite) for part in parts)),
    ]
    return [f"{count} {what}{'s' if count > 1 else ''}" for what, count in counts if count]


def _what_is_left(layer: Any) -> str:
    found = " and ".join(_to_rewrite(layer)) or "everything"
    return (
        f"{found} inside {shown_with_weights(layer)}: only functional models, nested or in TimeDistributed, are "
        "expanded"
    )


def _without_training_only(graph: Graph) -> tuple[Graph, list[str], list[tuple[Call, str]]]:
    types = tuple(getattr(layers, name) for name in TRAINING_ONLY if hasattr(layers, name))
    calls = [
        call
        for call in graph.calls
        if type(call.operation) in types
        and call.inputs[0].dtype == call.outputs[0].dtype  # augmentation may convert integers to floats
    ]
    kept = [(call, ALWAYS_TRAINS) for call in calls if call.always_trains]
    calls = [call for call in calls if not call.always_trains]
    aliases = {id(call.outputs[0]): call.inputs[0] for call in calls}
    return graph.rewritten({call: [] for call in calls}, aliases), [call.name for call in calls], kept
