"""Squeeze-and-Excitation networks for Keras 3.

Importing the package imports nothing else: each public name brings what it needs when it is first used, and the
layers, which Keras must know to load a saved model, come as soon as Keras itself is there.
"""

import importlib
import typing

from se_keras import with_keras

if typing.TYPE_CHECKING:
    from se_keras.blocks.excitation import SEConfig
    from se_keras.class_names import decode_predictions
    from se_keras.images.record import Preprocessing
    from se_keras.layers import SqueezeExcite
    from se_keras.models.builders import (
        SEVGG16,
        SEBNInception,
        SEInceptionResNetV2,
        SEInceptionV3,
        SEMobileNet,
        SENet154,
        SEPreResNet110,
        SEPreResNet164,
        SEResNet18,
        SEResNet20,
        SEResNet32,
        SEResNet34,
        SEResNet44,
        SEResNet50,
        SEResNet56,
        SEResNet101,
        SEResNet110,
        SEResNet152,
        SEResNet152D,
        SEResNeXt26,
        SEResNeXt26D,
        SEResNeXt26T,
        SEResNeXt50,
        SEResNeXt101,
        SEResNeXt101_32x8d,
        SEResNeXt101_64x4d,
        SEResNeXt101D_32x8d,
        SEShuffleNet,
        SEWideResNet16_8,
    )
    from se_keras.models.features import feature_extractor
    from se_keras.models.info import ModelInfo, model_info
    from se_keras.models.registry import create_model, get_preprocessing, list_models, list_weights
    from se_keras.preprocessing import preprocess
    from se_keras.surgery.insert import insert_squeeze_excite
    from se_keras.weights.files import save_safetensors

__version__ = "1.0.0"

_HOMES: dict[str, tuple[str, ...]] = {
    "blocks.excitation": ("SEConfig",),
    "images.record": ("Preprocessing",),
    "layers": ("SqueezeExcite",),
    "models.builders": (
        "SEVGG16",
        "SEBNInception",
        "SEInceptionResNetV2",
        "SEInceptionV3",
        "SEMobileNet",
        "SENet154",
        "SEPreResNet110",
        "SEPreResNet164",
        "SEResNet18",
        "SEResNet20",
        "SEResNet32",
        "SEResNet34",
        "SEResNet44",
        "SEResNet50",
        "SEResNet56",
        "SEResNet101",
        "SEResNet110",
        "SEResNet152",
        "SEResNet152D",
        "SEResNeXt26",
        "SEResNeXt26D",
        "SEResNeXt26T",
        "SEResNeXt50",
        "SEResNeXt101",
        "SEResNeXt101_32x8d",
        "SEResNeXt101_64x4d",
        "SEResNeXt101D_32x8d",
        "SEShuffleNet",
        "SEWideResNet16_8",
    ),
    "models.features": ("feature_extractor",),
    "models.info": (
        "ModelInfo",
        "model_info",
    ),
    "models.registry": (
        "create_model",
        "get_preprocessing",
        "list_models",
        "list_weights",
    ),
    "preprocessing": ("preprocess",),
    "class_names": ("decode_predictions",),
    "surgery.insert": ("insert_squeeze_excite",),
    "weights.files": ("save_safetensors",),
}
"""Where the public names are defined."""

_PARTS = (
    "analysis",
    "blocks",
    "errors",
    "export",
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
"""Subpackages and modules that need no import of their own."""

_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> typing.Any:
    if name in _PARTS:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME_OF, *_PARTS})


with_keras.import_layers()

__all__ = [
    "ModelInfo",
    "Preprocessing",
    "SEBNInception",
    "SEConfig",
    "SEInceptionResNetV2",
    "SEInceptionV3",
    "SEMobileNet",
    "SENet154",
    "SEPreResNet110",
    "SEPreResNet164",
    "SEResNeXt50",
    "SEResNeXt101",
    "SEResNeXt101_32x8d",
    "SEResNeXt101_64x4d",
    "SEResNeXt101D_32x8d",
    "SEResNet18",
    "SEResNet20",
    "SEResNet32",
    "SEResNet34",
    "SEResNet44",
    "SEResNet50",
    "SEResNet56",
    "SEResNet101",
    "SEResNet110",
    "SEResNet152",
    "SEResNet152D",
    "SEResNeXt26",
    "SEResNeXt26D",
    "SEResNeXt26T",
    "SEShuffleNet",
    "SEVGG16",
    "SEWideResNet16_8",
    "SqueezeExcite",
    "create_model",
    "decode_predictions",
    "feature_extractor",
    "get_preprocessing",
    "insert_squeeze_excite",
    "list_models",
    "list_weights",
    "model_info",
    "preprocess",
    "save_safetensors",
]
