"""Networks of medicai: SE-ResNets, volumes, and what segments."""

from __future__ import annotations

import functools
from typing import Any

import keras


def network(name: str, shape: tuple[int, ...] = (64, 64, 3), **options: Any) -> keras.Model:
    import medicai

    return getattr(medicai.models, name)(input_shape=shape, num_classes=3, **options)


def row(name: str, shape: tuple[int, ...] = (64, 64, 3), **options: Any) -> functools.partial:
    return functools.partial(network, name, shape, **options)


NARROW = (32, 24, 16, 8, 8)

NETWORKS = {
    "SEResNet18": row("SEResNet18"),
    "ResNet18 of volumes": row("ResNet18", (32, 32, 32, 1)),
    "EfficientNetB0": row("EfficientNetB0"),
    "UNet": row("UNet", encoder_name="resnet18", decoder_filters=NARROW),
    "UNet of SEResNet18": row("UNet", encoder_name="seresnet18", decoder_filters=NARROW),
    "AttentionUNet": row("AttentionUNet", encoder_name="resnet18", decoder_filters=NARROW),
    "DeepLabV3Plus": row("DeepLabV3Plus", encoder_name="resnet18", decoder_channels=32, projection_filters=16),
}
