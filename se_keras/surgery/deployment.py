"""The deployed form of a model: the same outputs with less work."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import keras

from se_keras.surgery.calls import Graph
from se_keras.surgery.change import Change
from se_keras.surgery.fold import ALWAYS_TRAINS, fold_batch_norms
from se_keras.surgery.foreign import WHY_UNREAD, opened
from se_keras.surgery.graph import build_model, read_graph, rewritten_inside
from se_keras.surgery.hidden import BATCH_NORM, BLOCK, EXPANDED, find_hidden, shown_hidden
from se_keras.surgery.hoist import hoist_squeezes
from se_keras.surgery.layer_facts import shown_with_weights
from se_keras.surgery.layer_types import TRAINING_ONLY
from se_keras.surgery.subclasses import warn_of_lost_class

Rewriting = Callable[[Graph], tuple[Graph, list[Change]]]


def deploy(model: keras.Model) -> keras.Model:
    """Rewrites a model for inference; its outputs equal `model(x, training=False)` up to rounding.

    Batch normalization is folded into the preceding convolution or dense layer. The squeeze of an
    SE block, of this package or of other layers, reads the narrow input of the preceding 1x1
    convolution. Dropout and augmentation are removed. Nested models are expanded, and models in
    `TimeDistributed` are rewritten in place. Preprocessing stays. Each step is taken only where it
    is exact and saves work; `find_changes` lists the steps, and why a layer is kept. This works on
    every backend.

    Reference: arXiv 1709.01507v4, equations 2 to 4: the squeeze is a mean, so it commutes with
    any operation that is affine at each position.

    Args:
        model: A functional model, or a built sequential one, with weights of any dtype. It is not
            changed and shares nothing with the result.

    Returns:
        A new functional model with the same name, inputs, and outputs; its class is as in
        `insert_squeeze_excite`. Do not train it: its batch normalization is gone.

    Raises:
        ValueError: The model is subclassed, or sequential without an input shape; or a layer
            cannot be copied (the message names it).

    Example:

    >>> deployed = deploy(SEResNet50(weights=None))
    >>> any(isinstance(layer, keras.layers.BatchNormalization) for layer in deployed.layers)
    False
    """
    graph, _ = deployed(read_graph(model))
    result = build_model(graph, like=model)
    warn_of_lost_class(model, result)
    return result


def find_changes(model: keras.Model) -> tuple[Change, ...]:
    """Finds the layers that `deploy` changes in a model, and those that it keeps, with the reasons.

    Args:
        model: As in `deploy`.

    Returns:
        A `Change` for each layer that `deploy` considers.

    Raises:
        ValueError: As in `deploy`.

    Example:

    >>> sum(change.action == "hoisted" for change in find_changes(SEResNet50(weights=None)))
    16
    """
    _, changes = deployed(read_graph(model))
    return changes


def _without_training_only(graph: Graph) -> tuple[Graph, list[Change]]:
    calls = [
        call
        for call in graph.calls
        if type(call.operation) in TRAINING_ONLY
        and call.inputs[0].dtype == call.outputs[0].dtype  # augmentation may convert integers to floats
    ]
    removed = [call for call in calls if not call.always_trains]
    aliases = {id(call.outputs[0]): call.inputs[0] for call in removed}
    changes = [
        Change(call.name, "kept", ALWAYS_TRAINS) if call.always_trains else Change(call.name, "removed")
        for call in calls
    ]
    return graph.rewritten({call: [] for call in removed}, aliases), changes


REWRITINGS: tuple[Rewriting, ...] = (_without_training_only, fold_batch_norms, hoist_squeezes)
"""What `deploy` does, in this order."""
WITHOUT_HOISTING = tuple(one for one in REWRITINGS if one is not hoist_squeezes)


def deployed(graph: Graph, rewritings: Sequence[Rewriting] = REWRITINGS) -> tuple[Graph, tuple[Change, ...]]:
    """Rewrites a graph for inference, as `deploy` does with a model.

    Args:
        graph: The graph.
        rewritings: The rewritings to apply, in this order.

    Returns:
        The new graph, and the changes.
    """
    changes: list[Change] = []

    def rewrite(inner: Graph, name: str) -> Graph:
        inner, found = deployed(inner, rewritings)
        changes.extend(dataclasses.replace(change, layer=f"{name}/{change.layer}") for change in found)
        return inner

    graph = rewritten_inside(graph, rewrite)
    changes += _what_is_left(graph)
    for rewriting in rewritings:
        graph, found = rewriting(graph)
        changes += found
    return graph, tuple(sorted(changes, key=lambda change: change.action == "kept"))


def _what_is_left(graph: Graph) -> list[Change]:
    """Returns a change for each layer that is not expanded, although it may contain something to rewrite."""
    inside, parts = opened(graph), (BATCH_NORM, BLOCK)
    hidden = [one for one in find_hidden(graph, inside) if one.is_model or set(parts) & set(one.parts)]
    return [
        *(Change(one.layer, "kept", f"{shown_hidden([one], parts)}: {EXPANDED}") for one in hidden),
        *(Change(one.name, "kept", f"{shown_with_weights(one)}: {WHY_UNREAD}") for one in inside.unread),
    ]
