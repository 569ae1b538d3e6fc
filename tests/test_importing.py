"""Importing the package: quick, without Keras, and still enough for Keras to load a saved model."""

from __future__ import annotations

import ast
import pathlib
import pickle

import keras
import pytest

import se_keras
from se_keras import with_keras
from se_keras.catalog import known_builders

SOURCE = ast.parse(pathlib.Path(se_keras.__file__).read_text("utf-8"))


def imported_for_type_checkers():
    (block,) = (node for node in SOURCE.body if isinstance(node, ast.If))
    return {alias.name: node.module.removeprefix("se_keras.") for node in block.body for alias in node.names}


def test_type_checkers_see_the_same_names_in_the_same_places():
    assert imported_for_type_checkers() == {**se_keras._HOMES, "*": "models.builders"}
    assert set(se_keras.__all__) == {*se_keras._HOMES, *known_builders()}


def test_names_are_found_listed_and_pickled():
    from se_keras import SEConfig, SEResNet20  # noqa: F401

    assert {*se_keras.__all__, *se_keras._PARTS, "__version__"} <= set(dir(se_keras))
    for name in {*se_keras._PARTS} - {"hub"}:  # which imports KerasHub, and has tests of its own
        assert getattr(se_keras, name).__name__ == f"se_keras.{name}"
    for name in ("SqueezeExcite", "SEResNet20", "preprocess"):
        value = getattr(se_keras, name)
        assert getattr(se_keras, name) is value
        assert pickle.loads(pickle.dumps(value)) is value
    with pytest.raises(AttributeError, match="no attribute 'anything'"):
        se_keras.anything  # noqa: B018


SAVED = """
    import importlib.util, sys
    import se_keras
    heavy = {"keras", "numpy", "matplotlib", "onnx", "huggingface_hub", "rich", "ai_edge_litert"}
    assert not heavy & set(sys.modules), "importing the package imports more"
    assert importlib.util.find_spec("keras") is not None  # looking for Keras is not importing it
    assert "se_keras.layers" not in sys.modules
    import keras
    print(*sorted(layer.__class__.__module__ for layer in keras.models.load_model(sys.argv[1]).layers))
"""


@pytest.mark.slow
def test_a_saved_model_loads_after_importing_the_package_in_either_order(tmp_path, run_python):
    layers = [keras.Input((4, 4, 8)), se_keras.SqueezeExcite(4), se_keras.layers.ChannelShuffle(2)]
    keras.Sequential(layers).save(tmp_path / "model.keras")
    code = SAVED.replace("sys.argv[1]", repr(str(tmp_path / "model.keras")))
    assert run_python(code).split() == ["se_keras.layers.channel_shuffle", "se_keras.layers.squeeze_excite"]
    # The other order is the one of every other test: Keras first.
    assert keras.saving.get_registered_object("se_keras>SqueezeExcite") is se_keras.SqueezeExcite


@pytest.mark.parametrize("error", [AttributeError("no attribute 'FeaturePyramidBackbone'"), ImportError("too old")])
def test_a_package_that_is_too_old_can_be_imported(error, monkeypatch):
    def fail(part):
        raise error

    monkeypatch.setattr(with_keras.importlib, "import_module", fail)
    with pytest.warns(UserWarning, match=f"se_keras.hub cannot be imported.*{error}"):
        with_keras._import("se_keras.hub")
