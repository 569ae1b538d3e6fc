"""Copies of layers, with the functions that they call, their state, and everything that they hold.

A config describes how a layer was made. It cannot hold a user's function, an adapted vocabulary, quantized weights, or
an argument that `get_config` omits. A copy therefore takes over the attributes of the original, with
variables and layers of its own.
"""

from __future__ import annotations

import contextlib
import functools
import types
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras

from se_keras.surgery.held import BOUND, attributes_of_object, holds_state, uncompiled, with_cells
from se_keras.surgery.layer_facts import TORCH_PARTS, attributes_of, has_own_call, is_functional, layers_inside, shown
from se_keras.surgery.layer_types import quantization_of

# The attributes common to all layers whose values differ between layers. The others record a layer's place in a graph,
# which a copy does not share.
CARRIED = (
    "_allow_non_tensor_positional_args",
    "_auto_config",
    "_build_shapes_dict",
    "_called",
    "_convert_input_args",
    "_input_spec",
    "_is_quantized",
    "_parent_path",
    "_path",
    "_remat_mode",
    "_supports_masking",
    "_trainable",
    "activity_regularizer",
    "autocast",
    "built",
    "quantization_config",
    "supports_jit",
    "training",
)
# `compile` adds these to the attributes that a model has from the beginning.
COMPILED = {"_compile_config", "_compiled_trainable_state", "optimizer", "stop_training"}


class Copier:
    """A copier of layers that belong together: whatever the originals share, the copies share.

    Args:
        copy_model: Copies a functional model, given this copier and a name.
        dtype: The floating-point dtype of the copies' weights and computations. None keeps that of the originals.
        replaced: Maps the id of a layer to its replacement.
    """

    def __init__(
        self,
        copy_model: Callable[[Any, Copier, str], Any],
        *,
        dtype: str | None = None,
        replaced: Mapping[int, Any] | None = None,
    ) -> None:
        self.dtype = dtype
        self.made: dict[int, Any] = dict(replaced or {})
        self._copy_model = copy_model
        self._originals: list[Any] = []  # keeps them alive, so that no id is reused
        self._begun: set[int] = set()  # the ids of layers whose attributes are being copied

    def layer(self, original: Any, *, name: str | None = None, kind: type | None = None) -> Any:
        """Copies a layer, an operation, or a model.

        Args:
            original: The layer.
            name: Name of the copy. None keeps that of the original.
            kind: Class of the copy, with the attributes of the original's class. None keeps the original's class.

        Returns:
            The copy; the same one for the same original.

        Raises:
            ValueError: The layer cannot be copied, or not in this dtype. The message names the layer.
        """
        if id(original) in self.made:
            return self.made[id(original)]
        name = name or original.name
        if self._begun and is_functional(original) and any(id(one) in self._begun for one in layers_inside(original)):
            return original  # a function refers back to the model around its layer, which it cannot call
        if is_functional(original) and not isinstance(original, keras.Sequential):
            return self._remember(original, self._copy_model(original, self, name))
        _check_precision(original, self.dtype)
        try:
            return self._taken_over(original, name, kind or type(original))
        except Exception as error:
            if isinstance(error, _CopyError):
                raise
            raise _CopyError(
                f"The layer {shown(original)} cannot be copied, because its attributes cannot be set on a second "
                f"object: {type(error).__name__}: {error}. Make a model of the layers before or after it."
            ) from error

    def adopt(self, made: Mapping[int, Any], owner: Any) -> None:
        """Adds counterparts of objects by id; `owner` keeps these objects alive, so that no id is reused."""
        self.made.update(made)
        self._originals.append(owner)

    def _remember(self, original: Any, copy: Any) -> Any:
        self.made[id(original)] = copy
        self._originals.append(original)
        return copy

    def _taken_over(self, original: Any, name: str, kind: Any) -> Any:
        if isinstance(original, keras.Sequential):
            return self._remember(original, self._sequential(original, name))
        copy = self._remember(original, kind.__new__(kind))
        _begin(copy, original, name, self._policy(original))
        trainable = {id(variable) for variable in getattr(original, "_trainable_variables", ())}
        for variable in _own_variables(original):
            self._variable(variable, original, name, id(variable) in trainable)
        self._begun.add(id(original))
        for key, value in _in_order_of_weights(original, own_attributes(original)):
            new = self.attribute(original, key, value)
            if _is_untracked(original, value):  # as the states of a recurrent layer are
                vars(copy)[key] = new
            else:
                setattr(copy, key, new)
        self._begun.remove(id(original))
        for variable in _own_variables(original):  # a frozen variable not tracked as trainable would stay frozen
            self.made[id(variable)].trainable = variable.trainable
        _check_complete(original, copy)
        if self.dtype is not None and hasattr(copy, "finalize_state") and _is_float(original):
            copy.finalize_state()  # recomputes its constants
        return copy

    def attribute(self, layer: Any, key: str, value: Any) -> Any:
        """Returns the value of a layer's attribute for the copy, as `copied` does; the error names the attribute."""
        try:
            return self.copied(value)
        except Exception as error:
            if isinstance(error, _CopyError):
                raise
            raise _CopyError(
                f"The layer {shown(layer)} cannot be copied, because its attribute {key!r} cannot: "
                f"{type(error).__name__}: {error}. Make a model of the layers before or after it."
            ) from error

    def _sequential(self, original: Any, name: str) -> Any:
        if has_own_call(original):
            raise _CopyError(
                f"The model {shown(original)} cannot be copied, because its class defines its own `call`. "
                "Derive the class from keras.Model instead."
            )
        layers = [self.layer(layer) for layer in original.layers]
        inputs = original.inputs if is_functional(original) else []
        heads = [keras.Input(batch_shape=x.shape, dtype=x.dtype, name=x.name) for x in inputs]
        copy = keras.Sequential([*heads, *layers], name=name)
        vars(copy)["_trainable"] = original.trainable  # the layers have their own
        return copy

    def _policy(self, layer: Any) -> Any:
        policy = getattr(layer, "dtype_policy", None)
        return policy if self.dtype is None or not _is_float(layer) else keras.DTypePolicy(self.dtype)

    def _variable(self, variable: Any, layer: Any, name: str, trainable: bool) -> None:
        if id(variable) in self.made:
            return
        dtype = variable.dtype
        if self.dtype is not None and _is_float(layer) and keras.backend.is_float_dtype(dtype):
            dtype = self.dtype
        *scopes, own = variable.path.split("/")
        with contextlib.ExitStack() as stack:
            for scope in scopes:
                stack.enter_context(keras.name_scope(name if scope == layer.name else scope))
            copy = keras.Variable(
                keras.ops.convert_to_numpy(variable),
                dtype=dtype,
                trainable=trainable,
                autocast=getattr(variable, "_autocast", True),
                aggregation=variable.aggregation,
                synchronization=variable.synchronization,
                name=own,
            )
        copy.regularizer, copy.constraint = variable.regularizer, variable.constraint
        if variable.overwrite_with_gradient:
            copy.overwrite_with_gradient = True
        self._remember(variable, copy)

    def copied(self, value: Any) -> Any:
        """Returns an attribute's value for the copy: state is copied, everything else is shared."""
        if id(value) in self.made:
            return self.made[id(value)]
        if isinstance(value, keras.Operation):
            return self.layer(value)
        if isinstance(value, keras.Variable):  # no layer tracks it
            self._variable(value, value, value.name, value.trainable)
            return self.made[id(value)]
        if isinstance(value, types.MethodType):
            return types.MethodType(self.copied(value.__func__), self.copied(value.__self__))
        if isinstance(value, (list, tuple, dict, set)):
            return self._container(value)
        return self._holder(value) if holds_state(value) else value

    def _holder(self, value: Any) -> Any:
        """Copies an object that holds variables or layers, such as a function that captured one."""
        if isinstance(value, types.FunctionType):
            return self._function(value)
        if isinstance(value, functools.partial):
            new = type(value)(self.copied(value.func), *self.copied(value.args), **self.copied(value.keywords))
            vars(new).update(self.copied(vars(value)))
            return self._remember(value, new)
        if isinstance(value, BOUND):
            return getattr(self.copied(value.__self__), value.__name__)
        if isinstance(value, weakref.ref):
            return type(value)(self.copied(value()))
        if (function := uncompiled(value)) is not None:
            name = getattr(function, "__qualname__", repr(function))
            raise ValueError(f"{name} is compiled, and would go on using the variables of the original")
        return self._object(value)

    def _function(self, value: types.FunctionType) -> types.FunctionType:
        """Copies a function with what it captured; cells without variables and layers are shared."""
        old = value.__closure__ or ()
        new = [self._cell(one) for one in old]
        copy = self._remember(value, with_cells(value, new))
        for one, other in zip(old, new, strict=True):
            if one is not other:  # filled only now, because it may hold the function itself
                other.cell_contents = self.copied(one.cell_contents)
        copy.__defaults__, copy.__kwdefaults__ = self.copied(value.__defaults__), self.copied(value.__kwdefaults__)
        vars(copy).update(self.copied(vars(value)))
        return copy

    def _cell(self, value: types.CellType) -> types.CellType:
        """Returns the cell that a copied function has in place of another, which may still be empty."""
        if id(value) not in self.made and holds_state(value):
            self._remember(value, types.CellType())
        return self.made.get(id(value), value)

    def _container(self, value: Any) -> Any:
        if isinstance(value, dict):
            items = {key: self.copied(one) for key, one in value.items()}
            return self._remember(value, items if _is_tracked(value) else _of_kind(value, items))
        if hasattr(value, "_fields"):
            return type(value)(*(self.copied(one) for one in value))
        kind = next(kind for kind in (list, tuple, set) if isinstance(value, kind))
        return self._remember(value, kind(self.copied(one) for one in value))

    def _object(self, value: Any) -> Any:
        """Copies an object with attributes, such as a seed generator or a metric."""
        copy = self._remember(value, object.__new__(type(value)))
        for key, one in attributes_of_object(value).items():
            if hasattr(copy, "__dict__") and key in vars(value):
                vars(copy)[key] = self.copied(one)
            else:
                object.__setattr__(copy, key, self.copied(one))  # in a slot, also of an object that is frozen
        return copy


class _CopyError(ValueError):
    """An error whose message already names the layer that cannot be copied."""


def _begin(copy: Any, original: Any, name: str, policy: Any) -> None:
    """Initializes an object as an empty layer, without the constructor of its own class."""
    if isinstance(original, keras.Model):
        keras.Model.__init__(copy, name=name, dtype=policy)
    elif isinstance(original, keras.layers.Layer):
        keras.layers.Layer.__init__(copy, name=name, dtype=policy)
    else:
        keras.Operation.__init__(copy, name=name)
    for key in CARRIED:
        if key in vars(original):
            setattr(copy, key, vars(original)[key])


@functools.cache
def _machinery() -> frozenset[str]:
    """Returns the names of the attributes that every layer and model has."""
    bare = (keras.layers.Layer(name="bare_layer"), keras.Model(name="bare_model"))
    return frozenset({*COMPILED, TORCH_PARTS}.union(*(vars(layer) for layer in bare)))


def own_attributes(layer: Any) -> dict[str, Any]:
    """Returns the attributes that are specific to a layer's class."""
    others = _machinery()
    return {
        key: value for key, value in attributes_of(layer).items() if key not in others and not key.startswith("_self_")
    }


def _own_variables(layer: Any) -> list[Any]:
    """Returns the variables of a layer, without those of the layers in it."""
    return [*getattr(layer, "_trainable_variables", ()), *getattr(layer, "_non_trainable_variables", ())]


def _is_untracked(layer: Any, value: Any) -> bool:
    """Returns whether an attribute holds variables or layers, but the layer does not count them as its own."""
    own = {id(one) for one in (*_own_variables(layer), *getattr(layer, "_layers", ()))}
    held = [one for one in keras.tree.flatten(value) if isinstance(one, (keras.Variable, keras.layers.Layer))]
    return any(id(one) not in own for one in held)


def _in_order_of_weights(layer: Any, attributes: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yields the attributes in the order in which the layer lists their weights, those without weights first."""
    order = {id(variable): number for number, variable in enumerate(getattr(layer, "variables", ()))}

    def first(value: Any) -> int:
        held = value.variables if isinstance(value, keras.layers.Layer) else keras.tree.flatten(value)
        return min((order.get(id(one), -1) for one in held), default=-1)

    def is_plain(value: Any) -> bool:
        return not isinstance(value, (keras.Variable, keras.layers.Layer, list, tuple))

    numbers = {key: -1 if is_plain(value) else first(value) for key, value in attributes.items()}
    yield from sorted(attributes.items(), key=lambda item: numbers[item[0]])


def _check_precision(layer: Any, dtype: str | None) -> None:
    mode = quantization_of(layer)
    if dtype is not None and mode:
        raise _CopyError(
            f"The layer {shown(layer)} was quantized by Keras ({mode}); in {dtype} its outputs would differ. Use the "
            "model from before `model.quantize`; export.tflite quantizes with dtype='int8'."
        )


def _check_complete(original: Any, copy: Any) -> None:
    ours, theirs = (len(_own_variables(layer)) for layer in (copy, original))
    if ours != theirs:
        raise _CopyError(
            f"The layer {shown(original)} cannot be copied: it has {theirs} variables, of which its attributes hold "
            f"{ours}. Keep every variable in an attribute of the layer that creates it."
        )


def _is_float(layer: Any) -> bool:
    return keras.backend.is_float_dtype(getattr(layer, "compute_dtype", None) or "int32")


def _is_tracked(value: Any) -> bool:
    return type(value).__module__.partition(".")[0] in ("keras", "builtins")


def _of_kind(value: dict, items: dict) -> dict:
    copy = value.copy()
    copy.update(items)
    return copy
