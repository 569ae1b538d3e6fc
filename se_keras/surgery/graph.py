"""Conversion of functional models to graphs of calls, and back.

This is the only module that reads Keras' own record of a graph: a tensor's `_keras_history`, and the node that it
refers to.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from se_keras.errors import refuse_tf_keras
from se_keras.surgery.calls import Call, Graph, recorded_training_holds
from se_keras.surgery.copying import Copier
from se_keras.surgery.layer_facts import is_functional, repeated_model
from se_keras.surgery.subclasses import of_same_class


def read_graph(model: keras.Model) -> Graph:
    """Reads a functional model, with its nested models expanded.

    Args:
        model: A functional model, or a built sequential one.

    Returns:
        The graph; its operations are the model's own.

    Raises:
        ValueError: The model is subclassed, or sequential without an input shape.
    """
    return Graph(*_ends(model), tuple(_calls(model.inputs, model.outputs)), model.name)


def read_nested_graph(model: keras.Model) -> Graph:
    """Reads a functional model, with each nested model as one call.

    Args:
        model: A functional model, or a built sequential one.

    Returns:
        The graph; its operations are the model's own.

    Raises:
        ValueError: As in `read_graph`.
    """
    inputs, outputs = _ends(model)
    calls = [_call_of(node) for node in _nodes(model.inputs, model.outputs)]
    return Graph(inputs, outputs, tuple(calls), model.name)


def _ends(model: keras.Model) -> tuple[Any, Any]:
    """Returns the inputs and the outputs of a model, in their structures."""
    refuse_tf_keras(model)
    if not isinstance(model, keras.Model):
        raise ValueError(
            f"`model` must be a Keras model; received {model!r}. Load a file with keras.models.load_model first."
        )
    if not is_functional(model):
        raise ValueError(
            f"Only functional models (and built sequential ones) can be rewritten, because only they record what they "
            f"compute; received {type(model).__name__} {getattr(model, 'name', '')!r}. Build it with keras.Input and "
            "keras.Model(inputs, outputs), without its own `call`."
        )
    if isinstance(model, keras.Sequential):
        return model.inputs[0], model.outputs[0]
    return model._inputs_struct, model._outputs_struct


def _call_of(node: Any) -> Call:
    args, kwargs = node.arguments.args, dict(node.arguments.kwargs)
    kept = {name: value for name, value in kwargs.items() if not _came_with_inputs(name, value, args, kwargs)}
    has_mask = any(getattr(x, "_keras_mask", None) is not None for x in node.outputs)
    return Call(node.operation, args, kept, tuple(node.outputs), node=node, path=node.operation.name, has_mask=has_mask)


def _came_with_inputs(name: str, value: Any, args: Any, kwargs: Mapping[str, Any]) -> bool:
    """Returns whether an argument is a mask that Keras took from the inputs, as it does again in another call."""
    if name != "mask" and not name.endswith("_mask"):
        return False
    masks = {id(getattr(x, "_keras_mask", None)) for x in keras.tree.flatten((args, dict(kwargs)))}
    given = [x for x in keras.tree.flatten(value) if keras.backend.is_keras_tensor(x)]
    return bool(given) and all(id(x) in masks for x in given)


def _calls(inputs: Sequence[Any], outputs: Sequence[Any]) -> list[Call]:
    calls: list[Call] = []
    renames: dict[int, Any] = {}
    for node in _nodes(inputs, outputs):
        call = _call_of(node)
        args, kwargs = _renamed((call.args, dict(call.kwargs)), renames)
        call = dataclasses.replace(call, args=args, kwargs=kwargs)
        if is_functional(node.operation) and len(node.operation.inputs) == len(call.inputs):
            inner, given = _expanded(call)
            calls += inner
            renames.update(given)
        else:
            calls.append(call)
    # A tensor inside a nested model may be an output of the model.
    ends = {id(tensor) for tensor in outputs} & set(renames)
    for tensor in outputs:
        if id(tensor) in ends:
            calls.append(Call(keras.layers.Identity(), (renames[id(tensor)],), {}, (tensor,), is_new=True))
    return calls


def _expanded(call: Call) -> tuple[list[Call], dict[int, Any]]:
    """Returns the calls inside a nested model, on the tensors it was called with, and its new outputs.

    Every call of a nested model gets its own tensors, because the model may be called more than once.
    """
    model = call.operation
    tensors = dict(zip((id(x) for x in model.inputs), call.inputs, strict=True))
    inner = []
    for one in _calls(model.inputs, model.outputs):
        outputs = tuple(keras.KerasTensor(x.shape, dtype=x.dtype, name=x.name) for x in one.outputs)
        args, kwargs = _renamed((one.args, dict(one.kwargs)), tensors)
        kwargs, path = {**_training_mode(call, one), **kwargs}, f"{call.name}/{one.path}"
        inner.append(dataclasses.replace(one, args=args, kwargs=kwargs, outputs=outputs, path=path))
        tensors.update(zip((id(x) for x in one.outputs), outputs, strict=True))
    given = {id(x): tensors[id(y)] for x, y in zip(call.outputs, model.outputs, strict=True)}
    return inner, given


def _training_mode(call: Call, inner: Call) -> dict[str, Any]:
    """Returns the training mode that the call of a nested model sets for a call inside it."""
    training = call.kwargs.get("training")
    if training is None or not recorded_training_holds():
        return {}
    takes_it = "training" in inspect.signature(inner.operation.call).parameters
    return {"training": training} if takes_it else {}


def _renamed(structure: Any, renames: Mapping[int, Any]) -> Any:
    return keras.tree.map_structure(lambda x: renames.get(id(x), x), structure)


def _nodes(inputs: Iterable[Any], outputs: Iterable[Any]) -> list[Any]:
    """Returns the recorded calls between inputs and outputs, each after those it depends on."""
    known = {id(x) for x in inputs}
    ordered: dict[int, Any] = {}
    pending = [(x, False) for x in reversed(list(outputs))]
    while pending:
        tensor, is_ready = pending.pop()
        if id(tensor) in known:
            continue
        operation, index, _ = tensor._keras_history
        node = operation._inbound_nodes[index]
        if id(node) in ordered or node.is_input:
            continue
        if is_ready:
            ordered[id(node)] = node
        else:
            pending.append((tensor, True))
            pending += [(x, False) for x in reversed(_call_of(node).inputs)]
    return list(ordered.values())


def in_float32(graph: Graph) -> Graph:
    """Copies every layer of a graph to compute in float32, whatever its dtype policy.

    Args:
        graph: The graph.

    Returns:
        A new graph with the same weights, and with a unique name for every layer.

    Raises:
        ValueError: A layer cannot be copied; or Keras quantized it, and its outputs would differ in float32.
    """
    copier, names = new_copier(dtype="float32"), set[str]()
    replacements = {}
    for call in graph.calls:
        layer = copier.layer(call.operation, name=free_name(call.name, names))
        names.add(layer.name)
        replacements[call] = [call.of(layer)]
    return graph.rewritten(replacements, {})


def build_model(graph: Graph, *, copier: Copier | None = None, like: keras.Model | None = None) -> keras.Model:
    """Builds a model from a graph, with copied layers in the same state.

    Args:
        graph: The graph.
        copier: The copier of the layers, for several models that share them. None makes a new one.
        like: The model whose class the new one gets, if that class takes any graph. None makes a plain model.

    Returns:
        A functional model that shares no weights with the one the graph was read from.

    Raises:
        ValueError: A layer cannot be copied. The message names it.
    """
    copier = new_copier() if copier is None else copier
    names: set[str] = set()
    tensors: dict[int, Any] = {}
    for x in keras.tree.flatten(graph.inputs):
        tensors[id(x)] = keras.Input(batch_shape=x.shape, dtype=x.dtype, name=_input_name(x), sparse=x.sparse)
    for call in graph.calls:
        operation = call.operation
        if call.is_new and operation.name not in names:
            copier.made.setdefault(id(operation), operation)
        layer = copier.layer(operation, name=free_name(operation.name, names))
        names.add(layer.name)
        args, kwargs = _renamed((call.args, dict(call.kwargs)), tensors)
        results = keras.tree.flatten(layer(*args, **kwargs))
        tensors.update(zip((id(x) for x in call.outputs), results, strict=True))
    inputs, outputs = _renamed((graph.inputs, graph.outputs), tensors)
    if like is None:
        return keras.Model(inputs, outputs, name=graph.name)
    copier.adopt(tensors, graph)
    return of_same_class(like, inputs, outputs, name=graph.name, copier=copier)


def new_copier(*, dtype: str | None = None, replaced: Mapping[int, Any] | None = None) -> Copier:
    """Returns a copier of layers that also copies the functional models in them.

    Args:
        dtype: The floating-point dtype in which the copies compute. None keeps that of each layer.
        replaced: Maps the id of a layer to its replacement.

    Returns:
        The copier.
    """
    return Copier(_copied_model, dtype=dtype, replaced=replaced)


def _copied_model(model: keras.Model, copier: Copier, name: str) -> keras.Model:
    copy = build_model(dataclasses.replace(read_nested_graph(model), name=name), copier=copier, like=model)
    if not model.trainable:
        copy.trainable = False
    return copy


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


def free_name(name: str, taken: set[str]) -> str:
    """Returns the name, with a number appended if it is taken: layers of different nested models may share a name."""
    return next(n for n in (name, *(f"{name}_{i}" for i in range(1, len(taken) + 2))) if n not in taken)


def _input_name(tensor: Any) -> str:
    """Returns the name of an input layer; its tensor has a different name unless the user named it."""
    operation = tensor._keras_history.operation
    return operation.name if isinstance(operation, keras.layers.InputLayer) else tensor.name


def input_layers(model: keras.Model) -> list[Any]:
    """Returns the input layers of a functional model."""
    return [tensor._keras_history.operation for tensor in model.inputs]


def new_layer(layer: Any, input_shape: Sequence[int | None], weights: Sequence[np.ndarray] = ()) -> Any:
    """Builds a layer that is made during rewriting, and sets its weights."""
    layer.build(tuple(input_shape))
    layer.set_weights(weights)
    return layer


def remade(layer: Any, **changes: Any) -> Any:
    """Makes a layer of the same class without the state, with the same functions and other objects.

    Args:
        layer: A layer of Keras or of this package, whose config names all its arguments.
        **changes: The arguments that differ.

    Returns:
        The layer, not built.
    """
    config = {**layer.get_config(), "dtype": layer.dtype_policy, **changes}
    objects = [key for key, value in config.items() if isinstance(value, dict) and hasattr(layer, key)]
    new = type(layer)(**{key: value for key, value in config.items() if key not in objects})
    for key in objects:  # a config may refer to a function that cannot be found again
        setattr(new, key, getattr(layer, key))
    return new
