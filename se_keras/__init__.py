"""Squeeze-and-Excitation networks for Keras 3."""

import importlib
import types

from se_keras.blocks.excitation import SEConfig
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
from se_keras.preprocessing import decode_predictions, preprocess
from se_keras.surgery.insert import insert_squeeze_excite
from se_keras.weights.files import save_safetensors

__version__ = "0.1.0"

_PARTS = ("analysis", "errors", "export", "inference", "prediction", "surgery", "training")
"""Subpackages that are imported when they are used."""


def __getattr__(name: str) -> types.ModuleType:
    if name in _PARTS:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_PARTS})


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
