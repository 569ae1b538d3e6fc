"""Rewriting of the models that `TimeDistributed` layers apply to every step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from se_keras.surgery.calls import Call, Graph
from se_keras.surgery.graph import build_model, new_copier, read_graph
from se_keras.surgery.layer_facts import repeated_model


def rewritten_inside(graph: Graph, rewrite: Callable[[Graph, str], Graph]) -> Graph:
    """Rewrites the functional models in the `TimeDistributed` layers of a graph.

    Args:
        graph: The graph.
        rewrite: Returns the new graph, given the graph of such a model and the name of its layer.

    Returns:
        The new graph, or the graph itself if it has no such layers.
    """
    wrappers: dict[int, Any] = {}
    replacements: dict[Call, list[Call]] = {}
    for call in graph.calls:
        layer = call.operation
        model = repeated_model(layer)
        if model is None:
            continue
        if id(layer) not in wrappers:
            inner = build_model(rewrite(read_graph(model), layer.name))
            wrappers[id(layer)] = new_copier(replaced={id(model): inner}).layer(layer)
        replacements[call] = [call.of(wrappers[id(layer)])]
    return graph.rewritten(replacements, {}) if replacements else graph
