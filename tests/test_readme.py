"""The README's Python says what exists: every name of the package, and every argument it is called with."""

import ast
import inspect
import pathlib
import re

import pytest

import se_keras

README = pathlib.Path(__file__).parents[1] / "README.md"
SNIPPETS = re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), flags=re.DOTALL)


def names_in(snippet):
    """Names that the snippet's imports bind, with the objects of the package behind them."""
    found = {"se_keras": se_keras}
    for node in ast.walk(ast.parse(snippet)):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("se_keras"):
            module = __import__(node.module, fromlist=["_"])
            found |= {alias.asname or alias.name: getattr(module, alias.name) for alias in node.names}
    return found


def resolved(node, names):
    if isinstance(node, ast.Attribute):
        owner = resolved(node.value, names)
        return None if owner is None else getattr(owner, node.attr)
    return names.get(node.id) if isinstance(node, ast.Name) else None


def test_there_are_snippets():
    assert len(SNIPPETS) >= 8


@pytest.mark.parametrize("snippet", SNIPPETS, ids=range(len(SNIPPETS)))
def test_names_and_arguments_exist(snippet):
    names = {name: value for other in SNIPPETS for name, value in names_in(other).items()}
    tree = ast.parse(snippet)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and not isinstance(node.value, ast.Call):
            resolved(node, names)
        if isinstance(node, ast.Call) and (called := resolved(node.func, names)) is not None:
            positional = [None] * len(node.args)
            inspect.signature(called).bind(*positional, **{keyword.arg: None for keyword in node.keywords})
