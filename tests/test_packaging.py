"""What the package imports is declared, and what an error says to install holds what is missing."""

from __future__ import annotations

import ast
import pathlib
import re
import sys

import pytest
from packaging.requirements import Requirement

import se_keras
from se_keras.export.to_onnx import ROUTES

tomllib = pytest.importorskip("tomllib", reason="Python 3.10 cannot read pyproject.toml")

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = pathlib.Path(se_keras.__file__).parent
FILES = [*sorted(PACKAGE.rglob("*.py")), ROOT / "se_keras_cli.py"]
TREES = {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text("utf-8")) for path in FILES}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
DISTRIBUTIONS = {"PIL": "pillow", "google": "protobuf"}


def distribution(module):
    name = module.split(".")[0]
    return DISTRIBUTIONS.get(name, name).replace("_", "-").lower()


def requirements(entries):
    return {Requirement(entry).name.replace("_", "-").lower() for entry in entries} - {"se-keras"}


CORE = requirements(PROJECT["dependencies"])
EXTRAS = {name: requirements(entries) for name, entries in PROJECT["optional-dependencies"].items()}


def imports(nodes):
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


def at_import(tree):
    """Nodes that run when the module is imported."""
    for node in ast.iter_child_nodes(tree):
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from at_import(node)


def foreign(nodes):
    names = {distribution(name) for name in imports(nodes)}
    return names - {name.lower() for name in sys.stdlib_module_names} - {"se-keras", "se-keras-cli", "--future--"}


@pytest.mark.parametrize("file", TREES)
def test_every_import_is_declared(file):
    subclassed = {"keras-hub"} if file.startswith("se_keras/hub/") else set()
    assert foreign(at_import(TREES[file])) <= CORE | subclassed
    assert foreign(ast.walk(TREES[file])) <= CORE.union(*EXTRAS.values())


def test_every_dependency_is_imported():
    assert set().union(*(foreign(ast.walk(tree)) for tree in TREES.values())) >= CORE


def missing_packages():
    for file, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "missing_package":
                package, extra = node.args[:2]
                if isinstance(package, ast.Constant):
                    yield pytest.param(package.value, extra.value, id=f"{file}:{node.lineno}")


@pytest.mark.parametrize(("package", "extra"), list(missing_packages()))
def test_the_extra_that_an_error_names_holds_the_package(package, extra):
    assert distribution(package) in EXTRAS[extra]


@pytest.mark.parametrize("backend", ROUTES)
def test_the_extra_for_onnx_holds_its_converter(backend):
    route = ROUTES[backend]
    assert {"onnx", distribution(route.converter)} <= EXTRAS[route.extra]


def test_extras_that_are_named_anywhere_exist():
    texts = [*FILES, *ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/*.py")]
    for path in texts:
        for names in re.findall(r"(?:se_keras|\.)\[([\w, -]+)\]['\"]", path.read_text("utf-8")):
            assert set(re.split(r", ?", names)) <= EXTRAS.keys(), f"{path.name}: {names}"


def test_the_tests_get_every_extra_that_runs():
    (own,) = (entry for entry in map(Requirement, PROJECT["optional-dependencies"]["dev"]) if entry.extras)
    assert EXTRAS.keys() - own.extras == {"all", "dev", "docs", "torch"}


def test_the_version_is_the_same_everywhere():
    cited = re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text("utf-8"), re.MULTILINE)[1]
    released = re.search(
        r"^## \[(\d.*?)\] - \d{4}-\d\d-\d\d$", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE
    )[1]
    assert se_keras.__version__ == cited == released
