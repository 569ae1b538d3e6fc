"""Models of a user's own class: rewriting keeps the class, with what it adds, where the class takes any graph."""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Collection, Iterable, Iterator
from typing import Any

import keras

from se_keras.surgery.copying import Copier, own_attributes
from se_keras.surgery.layer_facts import is_functional, is_of_keras

# Methods that make and save a model, which every class may have.
_MADE_WITH = {"build", "build_from_config", "get_build_config", "get_config"}
_MOST_NAMES = 6  # of attributes, and of methods


def of_same_class(model: keras.Model, inputs: Any, outputs: Any, *, name: str, copier: Copier) -> keras.Model:
    """Makes a functional model of the class of another one, with copies of the attributes that were added to it.

    The constructor of the class does not run, as in other copies.

    Args:
        model: The other model.
        inputs: Symbolic inputs of the new model.
        outputs: Symbolic outputs of the new model.
        name: Name of the new model.
        copier: Copies the values of attributes. It knows the layers and symbolic tensors of `model` that have a
            counterpart in the new model.

    Returns:
        The new model. Its class is that of Keras if the class does not take any graph, or if an attribute refers to a
        layer or tensor that the new model does not have.
    """
    kind: Any = type(model)
    if is_of_keras(kind) or not _takes_any_graph(model) or _refers_to_others(model, copier.made):
        return keras.Model(inputs, outputs, name=name)
    new = kind.__new__(kind)
    next(base for base in kind.__mro__ if is_of_keras(base)).__init__(new, inputs, outputs, name=name)
    copier.adopt({id(model): new}, model)
    for key, value in _added_attributes(model).items():
        setattr(new, key, copier.attribute(model, key, value))
    return new


def warn_of_lost_class(model: keras.Model, new: keras.Model) -> None:
    """Warns if a rewritten model is not of the original's class. The warning names what it lacks.

    Args:
        model: The original.
        new: The rewritten model.
    """
    kind = type(model)
    if is_of_keras(kind) or type(new) is kind:
        return
    attributes = _public_attributes(model)
    methods = [f"{method}()" for method in _overridden_methods(kind)]
    lost = "; ".join(_listed(names) for names in (attributes, methods) if names)
    inner = next((key for key, value in attributes.items() if is_functional(value) and value in model.layers), None)
    if _takes_any_graph(model):
        reason, remedy = "with attributes that refer to layers or tensors that are gone", "Set them on the result"
    elif inner is None:
        reason = "whose constructor does not take `inputs` and `outputs`"
        remedy = "Add what you need to the result"
    else:
        reason = "whose constructor builds its own graph"
        remedy = f"To keep it, rewrite the {inner!r} of the model, and make a new {kind.__name__} with the result"
    warnings.warn(
        f"{model.name!r} is of class {kind.__name__}, {reason}; the result is a functional model without what was "
        f"added to it ({lost or 'its type'}). {remedy}.",
        UserWarning,
        stacklevel=3,
    )


def _takes_any_graph(model: keras.Model) -> bool:
    """Returns whether a model of the same class can have another graph, which saving does not lose."""
    arguments = inspect.getfullargspec(type(model).__init__)
    if arguments.args[1:3] == ["inputs", "outputs"]:
        return True
    if arguments.varargs is None or arguments.varkw is None:
        return False
    definer = next(base for base in type(model).__mro__ if "get_config" in vars(base))
    return is_of_keras(definer) or "layers" in model.get_config()


def _refers_to_others(model: keras.Model, kept: Collection[int]) -> bool:
    """Returns whether an attribute refers to a layer or tensor of the graph that has no counterpart."""
    layers = {id(layer) for layer in model.layers}
    held = keras.tree.flatten(list(_added_attributes(model).values()))
    return any((id(x) in layers or keras.backend.is_keras_tensor(x)) and id(x) not in kept for x in held)


@functools.cache
def _functional_attributes() -> frozenset[str]:
    inputs = keras.Input((1,), name="bare_input")
    return frozenset(vars(keras.Model(inputs, keras.layers.Identity(name="bare_identity")(inputs), name="bare_graph")))


def _added_attributes(model: keras.Model) -> dict[str, Any]:
    """Returns the attributes that a functional model has from its class or its user, not from Keras."""
    return {key: value for key, value in own_attributes(model).items() if key not in _functional_attributes()}


def _public_attributes(model: keras.Model) -> dict[str, Any]:
    """Returns the added attributes under their public names, without those that are None, objects first."""
    found = {}
    for key, value in _added_attributes(model).items():
        name = key.lstrip("_")
        if value is not None and (name == key or isinstance(getattr(type(model), name, None), property)):
            found[name] = value
    return dict(sorted(found.items(), key=lambda item: _is_setting(item[1])))


def _is_setting(value: Any) -> bool:
    return all(isinstance(x, (str, int, float, type(None))) for x in keras.tree.flatten(value))


def _overridden_methods(kind: type) -> Iterator[str]:
    """Yields the public methods of Keras' models that a user's class replaces."""
    own = {name for base in kind.__mro__ if not is_of_keras(base) and base is not object for name in vars(base)}
    for name in sorted(own - _MADE_WITH):
        if not name.startswith("_") and inspect.isfunction(getattr(keras.Model, name, None)):
            yield name


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    rest = [f"{len(names) - _MOST_NAMES} more"] if len(names) > _MOST_NAMES else []
    return ", ".join([*names[:_MOST_NAMES], *rest])
