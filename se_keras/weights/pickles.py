"""Reading of pickles without running them.

A pickle is a program. `read_pickle` runs the few instructions that plain containers need, and refuses every other one:
no instruction imports a module, and none calls anything but the functions that the caller passes.
"""

from __future__ import annotations

import dataclasses
import pickletools
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any


class RefusedError(ValueError):
    """A pickle contains more than tensors and plain containers."""


@dataclasses.dataclass(frozen=True)
class Global:
    """A name that a pickle refers to, not imported.

    Args:
        module: The module.
        name: The name in the module.
    """

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


def read_pickle(stream: Any, calls: Mapping[Global, Callable[..., Any]], referred: Callable[[Any], Any]) -> Any:
    """Reads one pickle of plain containers, without running code from it.

    Args:
        stream: A binary file at the pickle's beginning. Afterwards, it is at the pickle's end.
        calls: The names that the pickle may call, and the function that is called in the place of each.
        referred: Returns the object that a persistent reference stands for.

    Returns:
        The pickled object: numbers, text, bytes, lists, tuples, sets, and dictionaries, and results of `calls`.

    Raises:
        RefusedError: It contains anything else; the message names it.
        ValueError: It is damaged.
    """
    machine = _Machine({**_PLAIN, **calls}, referred)
    try:
        for opcode, argument, _ in pickletools.genops(stream):
            machine.run(opcode.name, argument)
    except (IndexError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"the pickle is damaged: {type(error).__name__}: {error}") from error
    return machine.stack.pop()


class _Machine:
    """The stack and memo of a pickle that is being read."""

    def __init__(self, calls: Mapping[Global, Callable[..., Any]], referred: Callable[[Any], Any]) -> None:
        self.calls = calls
        self.referred = referred
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def run(self, name: str, argument: Any) -> None:
        """Runs one instruction, named as in `pickletools`."""
        if name in _ARGUMENTS:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name]())
        elif name in _STEPS:
            _STEPS[name](self, argument)
        elif name not in ("PROTO", "FRAME", "STOP"):
            raise RefusedError(f"the instruction {name}")

    def to_mark(self) -> list[Any]:
        """Removes and returns what was pushed since the last mark."""
        items, self.stack = self.stack, self.marks.pop()
        return items

    def last(self, kind: type) -> Any:
        """Returns the object on top of the stack, which must be of this type."""
        if not isinstance(self.stack[-1], kind):
            raise RefusedError(f"an instruction for a {kind.__name__} on a {type(self.stack[-1]).__name__}")
        return self.stack[-1]

    def mark(self, _: Any) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def tuple_to_mark(self, _: Any) -> None:
        items = tuple(self.to_mark())
        self.stack.append(items)

    def tuple_of(self, count: int) -> None:
        items = tuple(self.stack[-count:])
        del self.stack[-count:]
        self.stack.append(items)

    def append(self, _: Any) -> None:
        item = self.stack.pop()
        self.last(list).append(item)

    def extend(self, _: Any) -> None:
        items = self.to_mark()
        self.last(list).extend(items)

    def set_item(self, _: Any) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.last(dict)[_key(key)] = value

    def set_items(self, _: Any) -> None:
        items = self.to_mark()
        self.last(dict).update(zip(map(_key, items[::2]), items[1::2], strict=True))

    def add_items(self, _: Any) -> None:
        items = self.to_mark()
        self.last(set).update(map(_key, items))

    def remember(self, number: int | None) -> None:
        self.memo[len(self.memo) if number is None else number] = self.stack[-1]

    def recall(self, number: int) -> None:
        self.stack.append(self.memo[number])

    def refer(self, name: str) -> None:
        self.stack.append(Global(*name.split(" ", 1)))

    def refer_to_last(self, _: Any) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.stack.append(Global(str(module), str(name)))

    def call(self, _: Any) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, Global) or function not in self.calls:
            raise RefusedError(str(function) if isinstance(function, Global) else "a call of something unnamed")
        self.stack.append(self.calls[function](*arguments))

    def set_state(self, _: Any) -> None:
        self.stack.pop()  # of a state dict: the versions of its modules
        self.last(OrderedDict)

    def follow(self, _: Any) -> None:
        self.stack.append(self.referred(self.stack.pop()))


def _ordered(items: Iterable[tuple[Any, Any]] = ()) -> OrderedDict:
    return OrderedDict((_key(key), value) for key, value in items)


def _set(items: Iterable[Any] = ()) -> set:
    return set(map(_key, items))


def _encoded(text: str, _: str) -> bytes:
    return text.encode("latin-1")


def _key(key: Any) -> Any:
    """Returns a dictionary's key; hashing a nested tuple could exceed the stack."""
    if not isinstance(key, (str, int, float, type(None))):
        raise RefusedError(f"a dictionary with a {type(key).__name__} as a key")
    return key


_PLAIN: dict[Global, Callable[..., Any]] = {
    Global("collections", "OrderedDict"): _ordered,
    Global("__builtin__", "set"): _set,
    Global("builtins", "set"): _set,
    Global("_codecs", "encode"): _encoded,
}
"""The functions that older protocols call to make plain objects."""

_ARGUMENTS = frozenset(
    {
        "BININT",
        "BININT1",
        "BININT2",
        "LONG1",
        "BINFLOAT",
        "BINBYTES",
        "SHORT_BINBYTES",
        "BINUNICODE",
        "SHORT_BINUNICODE",
        "BINSTRING",
        "SHORT_BINSTRING",
    }
)
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
}
_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    "MARK": _Machine.mark,
    "TUPLE": _Machine.tuple_to_mark,
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    "APPEND": _Machine.append,
    "APPENDS": _Machine.extend,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "ADDITEMS": _Machine.add_items,
    "BINPUT": _Machine.remember,
    "LONG_BINPUT": _Machine.remember,
    "MEMOIZE": _Machine.remember,
    "BINGET": _Machine.recall,
    "LONG_BINGET": _Machine.recall,
    "GLOBAL": _Machine.refer,
    "STACK_GLOBAL": _Machine.refer_to_last,
    "REDUCE": _Machine.call,
    "BUILD": _Machine.set_state,
    "BINPERSID": _Machine.follow,
}
