"""The variables and layers that objects hold: in attributes, in containers, and in what functions captured."""

from __future__ import annotations

import functools
import types
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import keras

# Copies share objects of these packages with the original, whatever they hold.
BACKENDS = {"jax", "jaxlib", "numpy", "tensorflow", "torch"}
BOUND = (types.BuiltinMethodType, types.MethodWrapperType)  # methods of objects in C, such as those of a dictionary


def holds_state(value: Any) -> bool:
    """Returns whether variables or layers can be reached from an object."""
    return _reaches_state(value, set())


def _reaches_state(value: Any, seen: set[int]) -> bool:
    if isinstance(value, (keras.Variable, keras.Operation)):
        return True
    if id(value) in seen or keras.backend.is_keras_tensor(value):
        return False
    seen.add(id(value))
    return any(_reaches_state(one, seen) for one in _held_by(value))


def _held_by(value: Any) -> Iterator[Any]:
    """Yields what an object refers to directly. The globals that a function uses are not copied, and do not count."""
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, (list, tuple, set)):
        yield from value
    elif isinstance(value, types.CellType):
        yield from _contents(value)
    elif isinstance(value, weakref.ref):
        yield value()
    elif isinstance(value, (types.MethodType, *BOUND)):
        yield value.__self__
        yield getattr(value, "__func__", None)
    elif isinstance(value, types.FunctionType):
        yield from (value.__closure__, value.__defaults__, value.__kwdefaults__, vars(value))
    elif isinstance(value, functools.partial):
        yield from (value.func, value.args, value.keywords, vars(value))
    elif _is_of_backend(value):
        yield uncompiled(value)
    elif not isinstance(value, (type, types.ModuleType)):
        yield from attributes_of_object(value).values()


def _contents(cell: types.CellType) -> tuple[Any, ...]:
    """Returns the content of a cell, as a tuple that is empty if the cell is."""
    try:
        return (cell.cell_contents,)
    except ValueError:
        return ()


def with_cells(function: types.FunctionType, cells: Sequence[types.CellType]) -> types.FunctionType:
    """Returns a function with the same code, name, and documentation in other cells, without defaults."""
    code, scope, name = function.__code__, function.__globals__, function.__name__
    new = types.FunctionType(code, scope, name, closure=tuple(cells) or None)
    for key in functools.WRAPPER_ASSIGNMENTS:
        setattr(new, key, getattr(function, key))
    return new


def attributes_of_object(value: Any) -> dict[str, Any]:
    """Returns the attributes of an object by name, including those in slots."""
    classes = [base for base in type(value).__mro__ if "__slots__" in vars(base)]
    slots = [key for base in classes for key, one in vars(base).items() if isinstance(one, types.MemberDescriptorType)]
    return {**{key: getattr(value, key) for key in slots if hasattr(value, key)}, **getattr(value, "__dict__", {})}


def uncompiled(value: Any) -> Any:
    """Returns the Python function that a backend compiled, such as that of a `tf.function`; None for other objects."""
    if not _is_of_backend(value):
        return None
    return getattr(value, "python_function", None) or getattr(value, "__wrapped__", None)


def _is_of_backend(value: Any) -> bool:
    return type(value).__module__.partition(".")[0] in BACKENDS
