"""KerasHub models with the published weights of this package's networks."""

from __future__ import annotations

import os
from typing import Any

import keras

from se_keras.blocks.excitation import SEConfig
from se_keras.hub.backbones import SEBackbone
from se_keras.hub.classifiers import SEImageClassifier
from se_keras.hub.preprocessors import SEImageClassifierPreprocessor, image_converter
from se_keras.models.network import Options, default_shape
from se_keras.models.registry import Plan, plan
from se_keras.weights.load import load


def backbone(
    model: str,
    *,
    weights: str | os.PathLike | None = None,
    image_shape: tuple[int | None, ...] | None = None,
    se: SEConfig | None = SEConfig(),
    include_preprocessing: bool = True,
    dtype: Any = None,
) -> SEBackbone:
    """Builds a network as a KerasHub backbone, for detectors, segmenters, and classifiers.

    Args:
        model: Name of the network, as for `create_model`: "se_resnet50", timm's "seresnet50.ra2_in1k", or
            "hf-hub:OWNER/REPO".
        weights: As for `create_model`: None (random), "imagenet", a tag, or the path of a file.
        image_shape: (height, width, channels), or (channels, height, width) under Keras' "channels_first"
            setting; height and width may be None. Default: RGB images of any size.
        se: The SE blocks. None: the plain network.
        include_preprocessing: Whether the backbone takes RGB images from 0 to 255 and normalizes them itself.
        dtype: A dtype policy or its name, such as "mixed_bfloat16". Default: Keras' global policy.

    Returns:
        The backbone, whose `pyramid_outputs` are "P2" to "P5" ("P0" to "P2" for CIFAR networks).

    Raises:
        ValueError: The name is unknown (the message names the closest ones), or the weights do not exist or do not fit.
        DownloadError: A published checkpoint could not be downloaded.

    Example:

    >>> list(backbone("se_resnet18").pyramid_outputs)
    ['P2', 'P3', 'P4', 'P5']
    """
    options = Options(include_top=False, input_shape=image_shape, se=se, include_preprocessing=include_preprocessing)
    planned = plan(model, weights, options)
    found = _backbone(planned, dtype)
    if planned.record is not None:
        load(planned.record, keras.Model(found.input, found.output, name=planned.model))
    return found


def classifier(
    model: str,
    *,
    weights: str | os.PathLike | None = None,
    classes: int | None = None,
    image_shape: tuple[int | None, ...] | None = None,
    activation: Any = "softmax",
    dtype: Any = None,
) -> SEImageClassifier:
    """Builds a network as a KerasHub image classifier, with its preprocessing.

    Args:
        model: Name of the network, as for `create_model`.
        weights: As for `create_model`: None (random), "imagenet", a tag, or the path of a file.
        classes: Number of classes, at least 1. Default: those of the weights, else the network's own.
        image_shape: As for `backbone`. Default: the network's own size.
        activation: Activation of the predictions. None returns logits.
        dtype: A dtype policy or its name. Default: Keras' global policy.

    Returns:
        The classifier. `predict` takes photos, RGB, 0 to 255; its probabilities are those of
        `create_model(model, ...).predict(se_keras.preprocess(photos, ...))` up to the rounding of resized pixels.

    Raises:
        ValueError: The name is unknown (the message names the closest ones), or the weights do not exist or do not fit.
        DownloadError: A published checkpoint could not be downloaded.

    Example:

    >>> classifier("se_resnet20", classes=3).output_shape
    (None, 3)
    """
    planned = plan(model, weights, Options(classes=classes, input_shape=image_shape))
    body = _backbone(planned, dtype)
    found = SEImageClassifier(
        body,
        planned.options.classes or planned.network.classes,
        SEImageClassifierPreprocessor(image_converter(body)),
        activation,
        class_names=planned.class_names,
        name=planned.model,
    )
    if planned.record is not None:
        load(planned.record, keras.Model(found.input, found.output, name=planned.model))
    return found


def _backbone(planned: Plan, dtype: Any) -> SEBackbone:
    options = planned.options
    return SEBackbone(
        planned.model,
        image_shape=options.input_shape or (default_shape(planned.network, True) if options.include_top else None),
        se=options.se,
        lineage=planned.lineage,
        preprocessing=planned.network.preprocessing,
        include_preprocessing=options.include_preprocessing,
        dtype=dtype,
    )
