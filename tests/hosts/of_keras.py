"""Networks of keras.applications, as narrow as they can be."""

from __future__ import annotations

import functools
from typing import Any

import keras


def application(name: str, size: int = 64, **options: Any) -> keras.Model:
    build = getattr(keras.applications, name)
    return build(weights=None, input_shape=(size, size, 3), classes=5, **options)


def row(name: str, size: int = 64, **options: Any) -> functools.partial:
    return functools.partial(application, name, size, **options)


NETWORKS = {
    "ConvNeXtTiny": row("ConvNeXtTiny"),
    "DenseNet121": row("DenseNet121"),
    "EfficientNetB0": row("EfficientNetB0"),
    "EfficientNetV2B0": row("EfficientNetV2B0"),
    "InceptionV3": row("InceptionV3", 96),
    "MobileNet": row("MobileNet", alpha=0.25),
    "MobileNetV2": row("MobileNetV2", alpha=0.35),
    "MobileNetV3Small": row("MobileNetV3Small", alpha=0.5),
    "NASNetMobile": row("NASNetMobile"),
    "ResNet50": row("ResNet50"),
    "ResNet50V2": row("ResNet50V2"),
    "VGG16": row("VGG16", 32, include_top=False),
    "Xception": row("Xception", 96),
}
