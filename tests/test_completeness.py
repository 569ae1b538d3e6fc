"""Rules about the code itself: documentation, annotations, tests, and imports that point one way."""

from __future__ import annotations

import ast
import doctest
import importlib
import importlib.util
import inspect
import pathlib
import re
import textwrap

import keras
import numpy as np
import pytest

import se_keras

PACKAGE = pathlib.Path(se_keras.__file__).parent
TESTS = pathlib.Path(__file__).parent
FILES = sorted(path for path in PACKAGE.rglob("*.py"))
TREES = {path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text()) for path in FILES}
MODULES = [".".join(("se_keras", *path.relative_to(PACKAGE).with_suffix("").parts)) for path in FILES]
MODULES = [name.removesuffix(".__init__") for name in MODULES]
if importlib.util.find_spec("keras_hub") is None:  # it does not exist for every Python
    MODULES = [name for name in MODULES if not name.startswith("se_keras.hub")]

# What each part may import of the others; itself always. The order is that of the layers of the code.
BASE = {
    "errors",
    "files",
    "file_kinds",
    "array_files",
    "figures",
    "native_output",
    "log_records",
    "progress",
    "timing",
    "spacing",
    "scores",
    "class_names",
    "class_names_file",
    "model_files",
    "batch_prediction",
    "datasets",
    "layers",
    "blocks",
    "images",
    "preprocessing",
}
ALLOWED = {
    "errors": set(),
    "files": {"errors"},
    "file_kinds": set(),
    "array_files": {"file_kinds"},
    "figures": {"errors"},
    "log_records": set(),
    "native_output": {"log_records"},
    "batch_prediction": {"log_records"},
    "datasets": set(),
    "progress": set(),
    "timing": {"progress"},
    "spacing": set(),
    "scores": set(),
    "with_keras": set(),  # imports the layers by their name, when Keras is there
    "catalog": set(),
    "model_files": {"file_kinds"},
    "layers": {"errors"},
    "blocks": {"errors", "layers"},
    "images": {"errors", "progress"},
    "preprocessing": {"layers", "images"},
    "class_names": {"errors", "preprocessing"},
    "class_names_file": {"class_names", "files"},
    "weights": {"errors", "files", "file_kinds", "model_files", "class_names", "images", "preprocessing"},
    "choice": {"errors", "catalog", "weights"},
    "models": {*BASE, "weights", "surgery"},
    "hub": {*BASE, "weights", "models"},
    # These are given a model and never build one:
    "inference": {*BASE, "surgery"},
    "surgery": BASE,
    "export": {*BASE, "surgery"},
    "training": {*BASE, "surgery", "export"},
    "analysis": {*BASE, "surgery"},
    "prediction": {*BASE, "inference", "surgery"},
    # These put everything together:
    "demo": {*BASE, "models", "training", "export"},
    "cli": {
        *BASE,
        "catalog",
        "choice",
        "weights",
        "models",
        "inference",
        "prediction",
        "surgery",
        "analysis",
        "training",
        "export",
        "demo",
    },
}


def part_of(module):
    return module.split(".")[1] if "." in module else "__init__"


def imported_modules(tree):
    """Names of the package's modules that a file imports, wherever in it the import stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("se_keras"))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("se_keras"):
            if node.module == "se_keras":
                yield from (f"se_keras.{alias.name}" for alias in node.names)
            else:
                yield node.module


@pytest.mark.parametrize("file", TREES)
def test_imports_point_one_way(file):
    part = file.removesuffix(".py").split("/")[0]
    if part == "__init__":
        return
    assert part in ALLOWED, f"{file} belongs to no known part: add the part to ALLOWED, in the place where it stands"
    found = {part_of(module) for module in imported_modules(TREES[file])} - {part}
    assert found <= ALLOWED[part], f"{file} must not import {sorted(found - ALLOWED[part])}"


def test_allowed_imports_form_no_circle():
    # The parts below may be imported by those above; preprocessing and layers are apart from each other.
    order = list(ALLOWED)
    for part, allowed in ALLOWED.items():
        later = {other for other in allowed if order.index(other) > order.index(part)} - {"surgery"}
        assert not later, f"{part} -> {sorted(later)}"
    assert "models" not in set().union(*(ALLOWED[part] for part in ("weights", "export", "surgery", "training")))


def test_nothing_is_allowed_that_does_not_happen():
    # Parts above the base may import all of it, whether they do or not.
    for part, allowed in ALLOWED.items():
        trees = (tree for file, tree in TREES.items() if file.removesuffix(".py").split("/")[0] == part)
        found = {part_of(module) for tree in trees for module in imported_modules(tree)}
        unused = allowed - found - (BASE if allowed >= BASE else set())
        assert not unused, f"{part} does not import {sorted(unused)}: remove them from ALLOWED"


def test_imports_are_relative_to_nothing():
    for file, tree in TREES.items():
        assert not [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level], file


def outside_functions(tree):
    """Every node that is executed when the module is imported."""
    for node in ast.iter_child_nodes(tree):
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from outside_functions(node)


# Optional: none of them may be needed to import the package.
OPTIONAL = {
    "ai_edge_litert",
    "flatbuffers",
    "huggingface_hub",
    "jax",
    "keras_hub",
    "matplotlib",
    "onnx",
    "onnxruntime",
    "pyarrow",
    "ray",
    "tensorflow",
    "tensorflow_datasets",
    "tensorflow_hub",
    "tf2onnx",
    "tf_keras",
    "torch",
}
SUBCLASSED = {"hub": {"keras_hub"}}  # whose classes a part subclasses: only that part needs the package


@pytest.mark.parametrize("file", TREES)
def test_optional_packages_are_imported_inside_functions(file):
    names = set()
    for node in outside_functions(TREES[file]):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").split(".")[0])
    assert names & OPTIONAL <= SUBCLASSED.get(file.split("/")[0], set())


def faults(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Assert):
            yield "assert vanishes under -O; raise an error"
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
            if any(name.startswith("keras.src") for name in names):
                yield "keras.src is private"
        elif isinstance(node, ast.Attribute) and node.attr in ("src", "Lambda") and isinstance(node.value, ast.Name):
            if node.value.id in ("keras", "layers"):
                yield f"{node.value.id}.{node.attr}"
        elif isinstance(node, ast.ClassDef):
            bases = [ast.unparse(base) for base in node.bases]
            if any(base.endswith("keras.Model") or base == "Model" for base in bases):
                yield "a subclassed model does not save by itself"


@pytest.mark.parametrize("file", TREES)
def test_file_has_no_forbidden_construct(file):
    assert list(faults(TREES[file])) == []


def test_forbidden_constructs_are_seen():
    for line in (
        "assert True",
        "from keras.src import ops",
        "import keras.src.layers",
        "keras.src.ops",
        "layers.Lambda(f)",
        "class A(keras.Model): pass",
    ):
        assert list(faults(ast.parse(line))), line
    assert list(faults(ast.parse("from keras import ops\nsorted(x, key=lambda y: y)"))) == []


@pytest.mark.parametrize("file", TREES)
def test_private_parts_of_tensorflow_are_used_in_one_module(file):
    private = re.findall(r"\btensorflow\.(?:\w+\.)*python\b|\._experimental\w*", (PACKAGE / file).read_text())
    assert not private or file == "export/tensorflow_internals.py", private


def test_no_module_is_a_junk_drawer():
    drawers = {"utils", "util", "common", "helpers", "misc", "core", "tools"}
    assert not [module for module in MODULES if drawers & set(module.split("."))]


# Documentation.


def public_objects():
    """(name, object) of every public function and class, from the module that defines it."""
    for module_name in MODULES:
        module = importlib.import_module(module_name)
        for name, value in vars(module).items():
            own = getattr(value, "__module__", None) == module_name
            if not name.startswith("_") and own and (inspect.isfunction(value) or inspect.isclass(value)):
                yield f"{module_name}.{name}", value


OBJECTS = dict(public_objects())
EXPORTED = {f"se_keras.{name}": getattr(se_keras, name) for name in se_keras.__all__}
BUILDERS = {name: value for name, value in EXPORTED.items() if value.__module__ == "se_keras.models.builders"}


def members(cls):
    """Methods and properties that a class adds to its bases; those it overrides are documented there."""
    for name, value in vars(cls).items():
        function = value.fget if isinstance(value, property) else getattr(value, "func", value)
        inherited = any(hasattr(base, name) for base in cls.__mro__[1:])
        if not name.startswith("_") and inspect.isfunction(function) and not inherited:
            yield name, function


def functions():
    for name, value in OBJECTS.items():
        if inspect.isfunction(value):
            yield name, value
        else:
            yield from ((f"{name}.{member}", function) for member, function in members(value))


def raises_by_itself(function):
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    return any(isinstance(node, ast.Raise) and node.exc is not None for node in ast.walk(tree))


@pytest.mark.parametrize("module", MODULES)
def test_module_has_a_docstring(module):
    assert importlib.import_module(module).__doc__


@pytest.mark.parametrize("name", {**OBJECTS, **EXPORTED})
def test_public_object_has_a_docstring(name):
    value = {**OBJECTS, **EXPORTED}[name]
    text = inspect.getdoc(value) or ""
    inherited = inspect.isclass(value) and value.__doc__ is None
    assert text
    assert not inherited
    assert text.split("\n")[0].rstrip().endswith((".", ":", "?")), "the first line is a sentence"


FUNCTIONS = dict(functions())


@pytest.mark.parametrize("name", FUNCTIONS)
def test_function_documents_and_annotates_what_it_takes_gives_and_raises(name):
    function = FUNCTIONS[name]
    text = inspect.getdoc(function) or ""
    parameters = [p for p in inspect.signature(function).parameters.values() if p.name not in ("self", "cls")]
    missing = [p.name for p in parameters if p.annotation is inspect.Parameter.empty]
    assert not missing, f"without annotation: {missing}"
    assert inspect.signature(function).return_annotation is not inspect.Signature.empty
    assert text, "no docstring"
    if len(text.split("\n")) == 1 or re.search(r"\bas (in|there|with)\b", text):
        return  # one line may say it all, and a variant may refer to what it varies
    if parameters:
        assert "Args:" in text
        section = text.split("Args:")[1]
        undocumented = [p.name for p in parameters if not re.search(rf"\*{{0,2}}\b{p.name}\b.*:", section)]
        assert not undocumented, f"Args lacks {undocumented}"
    if inspect.signature(function).return_annotation not in ("None", None):
        assert re.search(r"\b(Returns|Yields)\b", text)
    if raises_by_itself(function):
        assert "Raises:" in text


@pytest.mark.parametrize("name", [name for name in EXPORTED if name not in BUILDERS])
def test_exported_name_follows_the_template(name):
    value = EXPORTED[name]
    text = inspect.getdoc(value)
    if inspect.isclass(value):
        fields = [p for p in inspect.signature(value).parameters if p != "kwargs"]
        section = text.split("Args:")[1]
        assert [f for f in fields if not re.search(rf"^ +{f}:", section, re.MULTILINE)] == []
        return
    assert "Returns:" in text
    if inspect.signature(value).parameters:
        assert "Args:" in text


@pytest.mark.parametrize("name", BUILDERS)
def test_builder_documents_every_argument(name):
    builder = BUILDERS[name]
    section = builder.__doc__.split("Args:")[1]
    missing = [p for p in inspect.signature(builder).parameters if not re.search(rf"^    {p}:", section, re.MULTILINE)]
    assert missing == []
    assert "Returns:" in section
    assert "Raises:" in section
    assert "{" not in builder.__doc__


LAYERS = {name: getattr(se_keras.layers, name) for name in se_keras.layers.__all__}


@pytest.mark.parametrize("name", LAYERS)
def test_layer_documents_its_shapes_and_round_trips_its_arguments(name):
    layer = LAYERS[name]
    for part in ("Input shape:", "Raises:", "Example:"):
        assert part in layer.__doc__, part
    assert "Output shape:" in layer.__doc__ or layer.__mro__[1] is keras.layers.Conv2D
    assert keras.saving.get_registered_name(layer) == f"se_keras>{name}"


EXAMPLES = [name for name, value in {**OBJECTS, **EXPORTED}.items() if ">>>" in (value.__doc__ or "")]


class SameShape(doctest.OutputChecker):
    """TensorFlow prints a shape as TensorShape([1, 2]), the other backends as a tuple; the docs show the tuple."""

    def check_output(self, want, got, optionflags):
        got = re.sub(r"TensorShape\(\[(.*?)\]\)", r"(\1)", got)
        return super().check_output(want, got, optionflags)


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_in_the_docstring_is_true(name):
    value = {**OBJECTS, **EXPORTED}[name]
    scope = {
        "np": np,
        "keras": keras,
        "se_keras": se_keras,
        **vars(se_keras),
        **LAYERS,
        **vars(inspect.getmodule(value)),
    }
    test = doctest.DocTestParser().get_doctest(inspect.getdoc(value), scope, name, None, 0)
    assert test.examples
    report = []
    doctest.DocTestRunner(checker=SameShape(), optionflags=doctest.ELLIPSIS).run(test, out=report.append)
    assert not report, "".join(report)


# Tests.

# A test runs over all builders.
NAMED = {name for name, value in EXPORTED.items() if inspect.getmodule(value) is not se_keras.models.builders}
NAMED |= {f"se_keras.layers.{name}" for name in se_keras.layers.__all__}
NAMED |= {
    name
    for name, value in OBJECTS.items()
    if inspect.isfunction(value) and name.split(".")[1] in ("errors", "layers", "blocks", "images", "preprocessing")
}
TEST_TEXT = "\n".join(path.read_text() for path in TESTS.rglob("test_*.py") if path != pathlib.Path(__file__))


@pytest.mark.parametrize("name", sorted({name.rsplit(".", 1)[1] for name in NAMED}))
def test_public_name_is_mentioned_in_a_test(name):
    builders = {value.__name__ for value in BUILDERS.values()}
    if name in builders:  # the tests run over the registry, which has an entry for each builder
        identifier = inspect.signature(getattr(se_keras, name)).parameters["name"].default
        assert re.search(rf"\b{identifier}\b", TEST_TEXT)
        return
    assert re.search(rf"\b{name}\b", TEST_TEXT), f"no test mentions {name}"


def test_all_is_sorted_complete_and_true():
    assert len(set(se_keras.__all__)) == len(se_keras.__all__)
    assert all(hasattr(se_keras, name) for name in se_keras.__all__)
    public = {
        name
        for name, value in vars(se_keras).items()
        if not name.startswith("_") and (inspect.isfunction(value) or inspect.isclass(value))
    }
    assert public == set(se_keras.__all__)
