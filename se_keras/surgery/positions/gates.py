"""Products of a map and gates that are no SE blocks, such as those of attention gates and of CBAM's spatial mask."""

from __future__ import annotations

from typing import Any

import keras

from se_keras.surgery.calls import Call, Graph
from se_keras.surgery.excitation import REPEATING, RESHAPING
from se_keras.surgery.layer_types import CROPPINGS, RESIZING, activation_of

ACTIVATIONS = ("sigmoid", "hard_sigmoid", "hardsigmoid", "softmax")


def find_gates(graph: Graph) -> dict[Call, Any]:
    """Finds the products of a map and gates, whether these have one number per channel, position, or element.

    Args:
        graph: The graph.

    Returns:
        Maps each product to its gates: the one factor that ends in an activation between 0 and 1.
    """
    found = {call: [x for x in call.inputs if _are_gates(graph, x)] for call in graph.calls if _is_product(call)}
    return {call: gates[0] for call, gates in found.items() if len(gates) == 1}


def _is_product(call: Call) -> bool:
    return type(call.operation).__name__ == "Multiply" and len(call.inputs) == 2


def _are_gates(graph: Graph, tensor: Any) -> bool:
    call = graph.producer(tensor)
    while call is not None and len(call.inputs) == 1 and _keeps_gates(call):
        call = graph.producer(call.inputs[0])
    return call is not None and activation_of(call.operation) in ACTIVATIONS


def _keeps_gates(call: Call) -> bool:
    names = (*RESHAPING, *REPEATING, *RESIZING)
    return type(call.operation).__name__ in names or isinstance(call.operation, CROPPINGS)


def calls_of_gates(graph: Graph, product: Call, gates: Any) -> set[Call]:
    """Returns the calls that compute nothing but the gates of a product.

    Args:
        graph: The graph.
        product: The product.
        gates: Its gates.

    Returns:
        The calls; none if the gates have an input of the model to themselves, since a network computes them.
    """
    mapped = _needed_for(graph, {id(tensor) for tensor in product.inputs if tensor is not gates})
    found, needed = {product}, {id(gates)}
    for call in reversed(graph.calls):
        outputs = {id(tensor) for tensor in call.outputs}
        is_shared = outputs & mapped or not all(graph.is_only_taken_by(tensor, found) for tensor in call.outputs)
        if outputs & needed and not is_shared:
            found.add(call)
            needed.update(id(tensor) for tensor in call.inputs)
    inputs = {id(tensor) for tensor in keras.tree.flatten(graph.inputs)}
    return set() if (needed - mapped) & inputs else found - {product}


def _needed_for(graph: Graph, tensors: set[int]) -> set[int]:
    """Returns the ids of the tensors that some tensors, given by id, are computed from, and of these."""
    needed = set(tensors)
    for call in reversed(graph.calls):
        if any(id(tensor) in needed for tensor in call.outputs):
            needed.update(id(tensor) for tensor in call.inputs)
    return needed
