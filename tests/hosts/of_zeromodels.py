"""Networks of zeromodels: SE of its own in three families, and residual networks without."""

from __future__ import annotations

import functools
import importlib
from typing import Any

import keras


def network(module: str, name: str, **options: Any) -> keras.Model:
    family = importlib.import_module(f"zeromodels.models.{module}")
    return getattr(family, f"{name}ImageClassify")(image_size=64, num_classes=5, **options)


NARROW = {"depths": (1, 1, 1, 1), "filters": (32, 32, 64, 64), "groups": 8}
REGNET = {"embedding_size": 32, "hidden_sizes": (24, 56, 152, 368), "depths": (1, 1, 2, 2), "groups_width": 8}

NETWORKS = {
    "RegNetY": functools.partial(network, "regnet", "RegNet", **REGNET),
    "RegNetX": functools.partial(network, "regnet", "RegNet", layer_type="x", **REGNET),
    "SENet": functools.partial(network, "senet", "SENet", **NARROW),
    "ResNet": functools.partial(network, "resnet", "ResNet", **NARROW),
    "MobileNetV3": functools.partial(network, "mobilenetv3", "MobileNetV3", config="small", width_multiplier=0.5),
    "EfficientNet": functools.partial(network, "efficientnet", "EfficientNet", width_coefficient=0.5),
}
