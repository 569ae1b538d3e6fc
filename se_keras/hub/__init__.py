"""KerasHub backbones and classifiers from the networks of this package, for KerasHub's detectors and segmenters."""

from __future__ import annotations

from se_keras.errors import missing_package

try:
    import keras_hub as _keras_hub  # noqa: F401
except ImportError as error:
    raise missing_package("keras_hub", "keras-hub", "`se_keras.hub`") from error

from se_keras.hub.backbones import SEBackbone
from se_keras.hub.building import backbone, classifier
from se_keras.hub.classifiers import SEImageClassifier
from se_keras.hub.preprocessors import SEImageClassifierPreprocessor, SEImageConverter, image_converter

__all__ = [
    "SEBackbone",
    "SEImageClassifier",
    "SEImageClassifierPreprocessor",
    "SEImageConverter",
    "backbone",
    "classifier",
    "image_converter",
]
