"""Networks of kimm, the smallest of each family."""

from __future__ import annotations

import functools

import keras

NAMES = (
    "ConvNeXtAtto",
    "EfficientNetLiteB0",
    "GhostNetW050",
    "GhostNetV2W100",
    "HGNetV2B0",
    "LCNet035",
    "MobileNetV3W050Small",
    "MobileOneS0",
    "MobileViTV2W050",
    "RegNetX002",
    "RegNetY002",
    "RepVGGA0",
    "ResNet18",
    "TinyNetE",
)


def network(name: str) -> keras.Model:
    import kimm

    return getattr(kimm.models, name)(weights=None, input_shape=(64, 64, 3), classes=5)


NETWORKS = {name: functools.partial(network, name) for name in NAMES}
