"""The kind of a classifier's output, determined from the operations at the end of its graph."""

from __future__ import annotations

import math
from typing import Any

import keras

from se_keras.scores import AFTER_ONE_COLUMN, Scores
from se_keras.surgery.calls import Graph
from se_keras.surgery.graph import read_graph, read_nested_graph
from se_keras.surgery.layer_facts import is_functional
from se_keras.surgery.layer_types import PLAIN_CONVOLUTIONS

_WITH_ACTIVATION = (
    keras.layers.Activation,
    keras.layers.Dense,
    keras.layers.EinsumDense,
    *PLAIN_CONVOLUTIONS,
)
_ACTIVATIONS = {
    "softmax": "probabilities",
    "sigmoid": "independent_probabilities",
    "hardsigmoid": "independent_probabilities",
    "logsoftmax": "logits",  # the softmax of a log-softmax is the softmax
}
_UNCHANGED = ("Identity", "Dropout", "Reshape", "Flatten", "Squeeze", "Cast")  # at inference, except the shape


def scores_of(model: keras.Model) -> Scores:
    """Returns the kind of a model's output, determined from its last operations, including those in nested models.

    Args:
        model: A model with one output.

    Returns:
        The scores. Their kind is "output" for a subclassed model, for an output whose shape is not
        (batch, classes), and wherever no rule applies.

    Raises:
        ValueError: The model ends in a softmax over one output.
    """
    if not is_functional(model) or len(model.outputs) != 1:
        return Scores("output", _columns(getattr(model, "output_shape", None)))
    return all_scores(model)[0]


def all_scores(model: keras.Model) -> list[Scores]:
    """Returns the kind of each output of a model, determined as in `scores_of`.

    Args:
        model: A model.

    Returns:
        The scores, in the order of `model.outputs`; a single one for a subclassed model.

    Raises:
        ValueError: The model ends in a softmax over one output.
    """
    if not is_functional(model):
        return [Scores("output", _columns(getattr(model, "output_shape", None)))]
    return graph_scores(read_graph(model))


def graph_scores(graph: Graph) -> list[Scores]:
    """Returns the kind of each output of a graph, determined as in `scores_of`.

    Args:
        graph: The graph, with nested models expanded.

    Returns:
        The scores, in the order of the outputs.

    Raises:
        ValueError: The graph ends in a softmax over one output.
    """
    return [_scores(graph, output) for output in keras.tree.flatten(graph.outputs)]


def _scores(graph: Graph, output: Any) -> Scores:
    columns = _columns(output.shape)
    kind = _kind(graph, output, columns) if len(output.shape) == 2 else "output"
    if columns == 1 and kind == "probabilities":
        raise ValueError(
            f"A softmax over one output returns 1.0 for every image; the model {graph.name!r} ends in one. End it in a "
            "sigmoid for two classes (classifier_activation='sigmoid'), or give it one output per class."
        )
    return Scores(AFTER_ONE_COLUMN.get(kind, kind) if columns == 1 else kind, columns)


def last_softmax(model: keras.Model) -> tuple[Any, Any] | None:
    """Returns the softmax that a model ends in, if it is an operation of the model itself.

    Args:
        model: A functional or sequential model with one output.

    Returns:
        The layer or operation and its symbolic input; None for a model that ends in anything
        else, such as a nested model, and for a subclassed one.
    """
    if not is_functional(model):
        return None
    graph = read_nested_graph(model)
    (output,) = keras.tree.flatten(graph.outputs)
    call = graph.producer(output)
    if call is None or _activation(call.operation) != "softmax":
        return None
    return call.operation, call.inputs[0]


def _columns(shape: Any) -> int:
    is_shape = isinstance(shape, tuple) and shape and isinstance(shape[-1], int)
    return shape[-1] if is_shape else 0


def _kind(graph: Graph, tensor: Any, columns: int) -> str:
    call = graph.producer(tensor)
    if call is None:
        return "output"
    operation, activation = call.operation, _activation(call.operation)
    if activation in _ACTIVATIONS:
        return _ACTIVATIONS[activation] if _is_over_all(operation, tensor, columns) else "output"
    if type(operation).__name__ in _UNCHANGED or (isinstance(operation, keras.layers.Activation) and not activation):
        return _kind(graph, call.inputs[0], columns)
    if isinstance(operation, keras.layers.Average):  # an ensemble
        kinds = {_kind(graph, each, columns) for each in call.inputs}
        return kinds.pop() if len(kinds) == 1 else "output"
    is_linear = isinstance(operation, _WITH_ACTIVATION) and not activation
    return "logits" if is_linear and _is_over_all(operation, tensor, columns) else "output"


def _activation(operation: Any) -> str:
    """Returns the name of the activation that a layer or operation ends in, "" for a linear one."""
    if isinstance(operation, _WITH_ACTIVATION):
        function = operation.activation
        name = getattr(function, "__name__", type(function).__name__)
        return "" if function is None or name == "linear" else name.replace("_", "").lower()
    return type(operation).__name__.lower()


def _is_over_all(operation: Any, tensor: Any, columns: int) -> bool:
    """Returns whether one row of a tensor has one value per class, and the operation's axis runs over them."""
    shape = tuple(tensor.shape)
    axis = getattr(operation, "axis", -1)
    if None in shape[1:] or math.prod(shape[1:]) != columns:
        return False
    is_softmax = "softmax" in _activation(operation)
    return not is_softmax or (isinstance(axis, int) and shape[axis] == columns and axis != 0)
