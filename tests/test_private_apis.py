"""Other packages' private names are used in one module for each package, so that an upgrade breaks one place."""

from __future__ import annotations

import ast
import pathlib
import re

import pytest

import se_keras

PACKAGE = pathlib.Path(se_keras.__file__).parent
FILES = {path.relative_to(PACKAGE).as_posix(): path for path in sorted(PACKAGE.rglob("*.py"))}

ALLOWED = {
    "surgery/graph.py": {"_inbound_nodes", "_inputs_struct", "_keras_history", "_outputs_struct"},
    "export/tensorflow_internals.py": {"tensorflow.lite.python", "tensorflow.python"},
    "export/torch_internals.py": {"_C", "_compute_padding_length", "keras.src"},
}
"""The one module for each package."""

PRIVATE_MODULES = re.compile(r"keras\.src|tensorflow\.(?:\w+\.)*python")
NAMED_TUPLES = {"_asdict", "_fields", "_make", "_replace"}  # public, in spite of the underscore


def private_names(tree):
    """The private attributes and modules of other objects that a file uses, as code or as text."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            is_own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            is_private = node.attr.startswith("_") and not node.attr.endswith("__")
            if is_private and not is_own and node.attr not in NAMED_TUPLES:
                yield node.attr
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
            modules += [f"{modules[0]}.{alias.name}" for alias in node.names]
        else:
            modules = [node.value] if isinstance(node, ast.Constant) and isinstance(node.value, str) else []
            modules += [ast.unparse(node)] if isinstance(node, ast.Attribute) else []
        yield from (found[0] for module in modules if (found := PRIVATE_MODULES.match(module)))


def own_names(tree):
    """Private names that a file defines itself, for its own classes and objects."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self":
            yield node.attr


def private_names_of(file):
    tree = ast.parse(FILES[file].read_text("utf-8"))
    return set(private_names(tree)) - set(own_names(tree))


@pytest.mark.parametrize("file", FILES)
def test_private_names_of_others_are_used_in_one_module(file):
    assert private_names_of(file) <= ALLOWED.get(file, set())


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("tensor._keras_history", "_keras_history"),
        ("from keras.src import ops", "keras.src"),
        ("import keras.src.layers", "keras.src"),
        ("keras.src.ops", "keras.src"),
        ("from tensorflow.lite.python import interpreter", "tensorflow.lite.python"),
        ("from tensorflow.python.framework import ops", "tensorflow.python"),
        ("importlib.import_module('tensorflow.lite.python.convert')", "tensorflow.lite.python"),
    ],
)
def test_private_names_are_seen(line, name):
    assert name in set(private_names(ast.parse(line)))


def test_own_and_public_names_are_none():
    tree = ast.parse("self._x\npoint._replace(x=1)\nlayer.__class__\ntensorflow.keras")
    assert not set(private_names(tree))
