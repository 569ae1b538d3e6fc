"""Squeeze-and-Excitation networks for Keras 3.

Importing the package imports nothing else: each public name imports what it needs when it is first used. The layers,
which Keras must know to load a saved model, are imported as soon as Keras itself is, and the models for KerasHub as
soon as KerasHub is.
"""

import functools
import importlib
import typing

from se_keras import with_keras

if typing.TYPE_CHECKING:
    from se_keras.blocks.excitation import SEConfig as SEConfig
    from se_keras.choice import list_models as list_models
    from se_keras.class_names import decode_predictions as decode_predictions
    from se_keras.class_names import get_class_names as get_class_names
    from se_keras.class_names import set_class_names as set_class_names
    from se_keras.images.record import Preprocessing as Preprocessing
    from se_keras.layers import SqueezeExcite as SqueezeExcite
    from se_keras.models.builders import *  # noqa: F403
    from se_keras.models.features import feature_extractor as feature_extractor
    from se_keras.models.info import ModelInfo as ModelInfo
    from se_keras.models.info import model_info as model_info
    from se_keras.models.registry import create_model as create_model
    from se_keras.models.registry import get_preprocessing as get_preprocessing
    from se_keras.models.registry import list_weights as list_weights
    from se_keras.models.to_timm import save_for_timm as save_for_timm
    from se_keras.preprocessing import preprocess as preprocess
    from se_keras.surgery.insert import insert_squeeze_excite as insert_squeeze_excite
    from se_keras.weights.files import save_safetensors as save_safetensors

__version__ = "1.0.0"

_HOMES = {
    "ModelInfo": "models.info",
    "Preprocessing": "images.record",
    "SEConfig": "blocks.excitation",
    "SqueezeExcite": "layers",
    "create_model": "models.registry",
    "decode_predictions": "class_names",
    "feature_extractor": "models.features",
    "get_class_names": "class_names",
    "get_preprocessing": "models.registry",
    "insert_squeeze_excite": "surgery.insert",
    "list_models": "choice",
    "list_weights": "models.registry",
    "model_info": "models.info",
    "preprocess": "preprocessing",
    "save_for_timm": "models.to_timm",
    "save_safetensors": "weights.files",
    "set_class_names": "class_names",
}
"""The modules that define the public names other than builders."""

_PARTS = (
    "analysis",
    "blocks",
    "errors",
    "export",
    "hub",
    "images",
    "inference",
    "layers",
    "models",
    "prediction",
    "preprocessing",
    "surgery",
    "training",
    "weights",
)
"""Subpackages and modules that are available without an import of their own."""


@functools.cache
def _homes() -> dict[str, str]:
    """Returns the module of each public name; a file lists the builders, because importing them takes seconds."""
    from se_keras.catalog import known_builders

    return {**dict.fromkeys(known_builders(), "models.builders"), **_HOMES}


def __getattr__(name: str) -> typing.Any:
    if name in _PARTS:
        return importlib.import_module(f"{__name__}.{name}")
    if name == "__all__":
        return sorted(_homes())
    if name not in _homes():
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_homes()[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_homes(), *_PARTS})


with_keras.import_classes()
