"""MobileNetV3, EfficientNet, EfficientNetV2, SE-MNASNet, LCNet, TinyNet, and FBNetV3, as rows of the one skeleton."""

from __future__ import annotations

import functools
from typing import Any

from se_keras.blocks.conv_norm_act import TENSORFLOW
from se_keras.blocks.excitation import SEConfig, divisible
from se_keras.blocks.inverted import fused_residual, inverted_residual, plain_residual, separable_residual
from se_keras.images.record import Preprocessing
from se_keras.models.inverted import InvertedSpec, Parts, Row, expanded_channels, inverted, mobile_head
from se_keras.models.network import Network

ds, ir, er, cn = separable_residual, inverted_residual, fused_residual, plain_residual

MOBILENET_V3_SMALL: Parts = (
    (Row(ds, 1, 3, 2, 1, 16, True, "relu"),),
    (Row(ir, 1, 3, 2, 4.5, 24, False, "relu"), Row(ir, 1, 3, 1, 3.67, 24, False, "relu")),
    (Row(ir, 1, 5, 2, 4, 40, True), Row(ir, 2, 5, 1, 6, 40, True)),
    (Row(ir, 2, 5, 1, 3, 48, True),),
    (Row(ir, 3, 5, 2, 6, 96, True),),
    (Row(cn, 1, 1, 1, 1, 576, shortcut=False),),
)
MOBILENET_V3_LARGE: Parts = (
    (Row(ds, 1, 3, 1, 1, 16, False, "relu"),),
    (Row(ir, 1, 3, 2, 4, 24, False, "relu"), Row(ir, 1, 3, 1, 3, 24, False, "relu")),
    (Row(ir, 3, 5, 2, 3, 40, True, "relu"),),
    (Row(ir, 1, 3, 2, 6, 80), Row(ir, 1, 3, 1, 2.5, 80), Row(ir, 2, 3, 1, 2.3, 80)),
    (Row(ir, 2, 3, 1, 6, 112, True),),
    (Row(ir, 3, 5, 2, 6, 160, True),),
    (Row(cn, 1, 1, 1, 1, 960, shortcut=False),),
)
EFFICIENTNET: Parts = (
    (Row(ds, 1, 3, 1, 1, 16, True),),
    (Row(ir, 2, 3, 2, 6, 24, True),),
    (Row(ir, 2, 5, 2, 6, 40, True),),
    (Row(ir, 3, 3, 2, 6, 80, True),),
    (Row(ir, 3, 5, 1, 6, 112, True),),
    (Row(ir, 4, 5, 2, 6, 192, True),),
    (Row(ir, 1, 3, 1, 6, 320, True),),
)
EFFICIENTNET_V2_BASE: Parts = (
    (Row(cn, 1, 3, 1, 1, 16),),
    (Row(er, 2, 3, 2, 4, 32),),
    (Row(er, 2, 3, 2, 4, 48),),
    (Row(ir, 3, 3, 2, 4, 96, True),),
    (Row(ir, 5, 3, 1, 6, 112, True),),
    (Row(ir, 8, 3, 2, 6, 192, True),),
)
EFFICIENTNET_V2_S: Parts = (
    (Row(cn, 2, 3, 1, 1, 24),),
    (Row(er, 4, 3, 2, 4, 48),),
    (Row(er, 4, 3, 2, 4, 64),),
    (Row(ir, 6, 3, 2, 4, 128, True),),
    (Row(ir, 9, 3, 1, 6, 160, True),),
    (Row(ir, 15, 3, 2, 6, 256, True),),
)
EFFICIENTNET_V2_RW: Parts = (
    (Row(er, 2, 3, 1, 1, 24),),
    *EFFICIENTNET_V2_S[1:-1],
    (Row(ir, 15, 3, 2, 6, 272, True),),
)
EFFICIENTNET_V2_M: Parts = (
    (Row(cn, 3, 3, 1, 1, 24),),
    (Row(er, 5, 3, 2, 4, 48),),
    (Row(er, 5, 3, 2, 4, 80),),
    (Row(ir, 7, 3, 2, 4, 160, True),),
    (Row(ir, 14, 3, 1, 6, 176, True),),
    (Row(ir, 18, 3, 2, 6, 304, True),),
    (Row(ir, 5, 3, 1, 6, 512, True),),
)
EFFICIENTNET_V2_L: Parts = (
    (Row(cn, 4, 3, 1, 1, 32),),
    (Row(er, 7, 3, 2, 4, 64),),
    (Row(er, 7, 3, 2, 4, 96),),
    (Row(ir, 10, 3, 2, 4, 192, True),),
    (Row(ir, 19, 3, 1, 6, 224, True),),
    (Row(ir, 25, 3, 2, 6, 384, True),),
    (Row(ir, 7, 3, 1, 6, 640, True),),
)
EFFICIENTNET_V2_XL: Parts = (
    (Row(cn, 4, 3, 1, 1, 32),),
    (Row(er, 8, 3, 2, 4, 64),),
    (Row(er, 8, 3, 2, 4, 96),),
    (Row(ir, 16, 3, 2, 4, 192, True),),
    (Row(ir, 24, 3, 1, 6, 256, True),),
    (Row(ir, 32, 3, 2, 6, 512, True),),
    (Row(ir, 8, 3, 1, 6, 640, True),),
)
MNASNET: Parts = (
    (Row(ds, 1, 3, 1, 1, 16, shortcut=False),),
    (Row(ir, 2, 3, 2, 6, 24),),
    (Row(ir, 3, 5, 2, 3, 40, True),),
    (Row(ir, 4, 3, 2, 6, 80),),
    (Row(ir, 2, 3, 1, 6, 112, True),),
    (Row(ir, 3, 5, 2, 6, 160, True),),
    (Row(ir, 1, 3, 1, 6, 320),),
)
_LCNET_LAST: dict[str, Any] = {"last_activation": "hard_silu", "shortcut": False}
LCNET: Parts = (
    (Row(ds, 1, 3, 1, 1, 32, **_LCNET_LAST),),
    (Row(ds, 2, 3, 2, 1, 64, **_LCNET_LAST),),
    (Row(ds, 2, 3, 2, 1, 128, **_LCNET_LAST),),
    (Row(ds, 1, 3, 2, 1, 256, **_LCNET_LAST), Row(ds, 1, 5, 1, 1, 256, **_LCNET_LAST)),
    (Row(ds, 4, 5, 1, 1, 256, **_LCNET_LAST),),
    (Row(ds, 2, 5, 2, 1, 512, True, **_LCNET_LAST),),
)
FBNET_V3_B: Parts = (
    (Row(ds, 2, 3, 1, 1, 16),),
    (Row(ir, 1, 5, 2, 4, 24), Row(ir, 3, 5, 1, 2, 24)),
    (Row(ir, 1, 5, 2, 5, 40, True), Row(ir, 4, 5, 1, 3, 40, True)),
    (Row(ir, 1, 5, 2, 5, 72), Row(ir, 4, 3, 1, 3, 72)),
    (Row(ir, 1, 3, 1, 5, 120, True), Row(ir, 5, 5, 1, 3, 120, True)),
    (Row(ir, 1, 3, 2, 6, 184, True), Row(ir, 5, 5, 1, 4, 184, True), Row(ir, 1, 5, 1, 6, 224, True)),
    (Row(cn, 1, 1, 1, 1, 1344, shortcut=False),),
)
FBNET_V3_D: Parts = (
    (Row(ds, 2, 3, 1, 1, 16),),
    (Row(ir, 1, 3, 2, 5, 24), Row(ir, 5, 3, 1, 2, 24)),
    (Row(ir, 1, 5, 2, 4, 40, True), Row(ir, 4, 3, 1, 3, 40, True)),
    (Row(ir, 1, 3, 2, 5, 72), Row(ir, 4, 3, 1, 3, 72)),
    (Row(ir, 1, 3, 1, 5, 128, True), Row(ir, 6, 5, 1, 3, 128, True)),
    (Row(ir, 1, 3, 2, 6, 208, True), Row(ir, 5, 5, 1, 5, 208, True), Row(ir, 1, 5, 1, 6, 240, True)),
    (Row(cn, 1, 1, 1, 1, 1440, shortcut=False),),
)
FBNET_V3_G: Parts = (
    (Row(ds, 3, 3, 1, 1, 24),),
    (Row(ir, 1, 5, 2, 4, 40), Row(ir, 4, 5, 1, 2, 40)),
    (Row(ir, 1, 5, 2, 4, 56, True), Row(ir, 4, 5, 1, 3, 56, True)),
    (Row(ir, 1, 5, 2, 5, 104), Row(ir, 4, 3, 1, 3, 104)),
    (Row(ir, 1, 3, 1, 5, 160, True), Row(ir, 8, 5, 1, 3, 160, True)),
    (Row(ir, 1, 3, 2, 6, 264, True), Row(ir, 6, 5, 1, 5, 264, True), Row(ir, 2, 5, 1, 6, 288, True)),
    (Row(cn, 1, 1, 1, 1, 1728, shortcut=False),),
)

_TORCH_INPUT = functools.partial(Preprocessing, interpolation="bicubic")
_TF_INPUT = functools.partial(_TORCH_INPUT, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def _network(title: str, about: str, spec: InvertedSpec, own_se: SEConfig, **fields: Any) -> Network:
    return Network(
        title=title,
        about=f"{about} Structure as in timm.",
        skeleton=inverted,
        spec=spec,
        stages=(1, 2, 3, 4, 5),
        positions=("standard",),
        own_se=own_se,
        **{"dropout": 0.2, **fields},
    )


_HARD = SEConfig(reduction=4, activation="relu", gate_activation="hard_sigmoid")


def _mobilenet_v3(name: str, parts: Parts, width: float, features: int, **numbers: Any) -> Network:
    stem = 16 if width < 0.75 else divisible(16 * width)
    tensorflow = numbers.get("style") is TENSORFLOW
    return _network(
        f"MobileNetV3-{name}",
        "Inverted residual blocks with SE in the middle of most, its gates a hard sigmoid. Reference: Howard et al., "
        "arXiv 1905.02244.",
        InvertedSpec(
            parts=parts,
            stem=stem,
            width=width,
            activation="hard_silu",
            units_from=expanded_channels,
            units_divisor=8,
            **numbers,
        ),
        _HARD,
        head=functools.partial(mobile_head, features=features),
        preprocessing=_TF_INPUT(interpolation="bilinear") if tensorflow else _TORCH_INPUT(),
    )


_LARGE = functools.partial(_mobilenet_v3, parts=MOBILENET_V3_LARGE, features=1280)
_SMALL = functools.partial(_mobilenet_v3, parts=MOBILENET_V3_SMALL, features=1024)
_SILU = SEConfig(reduction=4, activation="silu", gate_activation="sigmoid")


def _efficientnet(name: str, width: float, depth: float, size: int, dropout: float, **numbers: Any) -> Network:
    return _network(
        f"EfficientNet-{name}",
        "Inverted residual blocks with SE in the middle of each. Reference: Tan and Le, arXiv 1905.11946.",
        InvertedSpec(
            parts=EFFICIENTNET,
            stem=divisible(32 * width),
            width=width,
            depth=depth,
            features=divisible(1280 * width),
            **numbers,
        ),
        _SILU,
        preprocessing=_TORCH_INPUT(size=size),
        dropout=dropout,
    )


def _efficientnet_v2(name: str, parts: Parts, stem: int, size: int, features: int = 1280, **numbers: Any) -> Network:
    width = numbers.get("width", 1.0)
    round_up = functools.partial(divisible, least_fill=numbers.get("least_fill", 0.9))
    make_input = _TF_INPUT if numbers.get("style") is TENSORFLOW else _TORCH_INPUT
    return _network(
        f"EfficientNetV2-{name}",
        "Fused blocks without SE, then inverted residual blocks with SE in the middle. Reference: Tan and Le, "
        "arXiv 2104.00298.",
        InvertedSpec(parts=parts, stem=round_up(stem * width), features=round_up(features * width), **numbers),
        _SILU,
        preprocessing=make_input(size=size),
    )


def _mnasnet(name: str, width: float) -> Network:
    return _network(
        f"SE-MNASNet-{name}",
        "Inverted residual blocks, some with SE in the middle. Reference: Tan et al., arXiv 1807.11626 (MnasNet-A1).",
        InvertedSpec(parts=MNASNET, stem=divisible(32 * width), width=width, features=1280, activation="relu"),
        SEConfig(reduction=4, activation="relu", gate_activation="sigmoid"),
        preprocessing=_TORCH_INPUT(),
    )


def _lcnet(name: str, width: float) -> Network:
    return _network(
        f"PP-LCNet-{name}",
        "Depthwise separable blocks without shortcuts, the last two with SE. Reference: Cui et al., arXiv 2109.15099.",
        InvertedSpec(
            parts=LCNET, stem=divisible(16 * width), width=width, activation="hard_silu", units_from=expanded_channels
        ),
        _HARD,
        head=functools.partial(mobile_head, features=1280),
        preprocessing=_TORCH_INPUT(),
    )


def _tinynet(name: str, width: float, depth: float, size: int) -> Network:
    return _network(
        f"TinyNet-{name}",
        "EfficientNet's blocks at another ratio of size, depth, and width. Reference: Han et al., arXiv 2010.14819.",
        InvertedSpec(parts=EFFICIENTNET, stem=32, width=width, depth=depth, scaled_repeats=round, features=1280),
        _SILU,
        preprocessing=_TORCH_INPUT(size=size),
    )


def _fbnet_v3(name: str, parts: Parts, stem: int, size: int) -> Network:
    return _network(
        f"FBNetV3-{name}",
        "Inverted residual blocks found by a search, half of them with SE. Reference: Dai et al., arXiv 2006.02049.",
        InvertedSpec(parts=parts, stem=stem, activation="hard_silu", units_divisor=8, least_fill=0.95),
        SEConfig(reduction=4, activation="hard_silu", gate_activation="hard_sigmoid"),
        head=functools.partial(mobile_head, features=1984, use_bias=False),
        preprocessing=Preprocessing(size=size, crop=0.95, interpolation="bilinear"),
    )


_V2_BASE = functools.partial(_efficientnet_v2, parts=EFFICIENTNET_V2_BASE, stem=32, least_fill=0.0, style=TENSORFLOW)

NETWORKS: dict[str, Network] = {
    "mobilenetv3_small_050": _SMALL("Small 0.5", width=0.5),
    "mobilenetv3_small_075": _SMALL("Small 0.75", width=0.75),
    "mobilenetv3_small_100": _SMALL("Small", width=1.0),
    "mobilenetv3_large_100": _LARGE("Large", width=1.0),
    "mobilenetv3_large_150d": _LARGE("Large 1.5-D", width=1.5, depth=1.2),
    "tf_mobilenetv3_small_075": _SMALL("Small 0.75 (TF)", width=0.75, style=TENSORFLOW),
    "tf_mobilenetv3_small_100": _SMALL("Small (TF)", width=1.0, style=TENSORFLOW),
    "tf_mobilenetv3_large_075": _LARGE("Large 0.75 (TF)", width=0.75, style=TENSORFLOW),
    "tf_mobilenetv3_large_100": _LARGE("Large (TF)", width=1.0, style=TENSORFLOW),
    "efficientnet_b0": _efficientnet("B0", 1.0, 1.0, 224, 0.2),
    "efficientnet_b1": _efficientnet("B1", 1.0, 1.1, 256, 0.2),
    "efficientnet_b2": _efficientnet("B2", 1.1, 1.2, 256, 0.3),
    "efficientnet_b3": _efficientnet("B3", 1.2, 1.4, 288, 0.3),
    "efficientnet_b4": _efficientnet("B4", 1.4, 1.8, 320, 0.4),
    "efficientnet_b5": _efficientnet("B5", 1.6, 2.2, 448, 0.4),
    "tf_efficientnet_b0": _efficientnet("B0 (TF)", 1.0, 1.0, 224, 0.2, style=TENSORFLOW),
    "tf_efficientnet_b1": _efficientnet("B1 (TF)", 1.0, 1.1, 240, 0.2, style=TENSORFLOW),
    "tf_efficientnet_b2": _efficientnet("B2 (TF)", 1.1, 1.2, 260, 0.3, style=TENSORFLOW),
    "tf_efficientnet_b3": _efficientnet("B3 (TF)", 1.2, 1.4, 300, 0.3, style=TENSORFLOW),
    "tf_efficientnet_b4": _efficientnet("B4 (TF)", 1.4, 1.8, 380, 0.4, style=TENSORFLOW),
    "tf_efficientnet_b5": _efficientnet("B5 (TF)", 1.6, 2.2, 456, 0.4, style=TENSORFLOW),
    "tf_efficientnet_b6": _efficientnet("B6 (TF)", 1.8, 2.6, 528, 0.5, style=TENSORFLOW),
    "tf_efficientnet_b7": _efficientnet("B7 (TF)", 2.0, 3.1, 600, 0.5, style=TENSORFLOW),
    "tf_efficientnet_b8": _efficientnet("B8 (TF)", 2.2, 3.6, 672, 0.5, style=TENSORFLOW),
    "tf_efficientnet_l2": _efficientnet("L2 (TF)", 4.3, 5.3, 475, 0.5, style=TENSORFLOW),
    "efficientnetv2_rw_t": _efficientnet_v2("T (rw)", EFFICIENTNET_V2_S, 24, 224, width=0.8, depth=0.9),
    "efficientnetv2_rw_s": _efficientnet_v2("S (rw)", EFFICIENTNET_V2_RW, 24, 288, 1792),
    "efficientnetv2_rw_m": _efficientnet_v2(
        "M (rw)", EFFICIENTNET_V2_RW, 24, 320, 1792, width=1.2, depth=(1.2, 1.2, 1.2, 1.2, 1.6, 1.6)
    ),
    "tf_efficientnetv2_b0": _V2_BASE("B0 (TF)", size=192),
    "tf_efficientnetv2_b1": _V2_BASE("B1 (TF)", size=192, depth=1.1),
    "tf_efficientnetv2_b2": _V2_BASE("B2 (TF)", size=208, width=1.1, depth=1.2),
    "tf_efficientnetv2_b3": _V2_BASE("B3 (TF)", size=240, width=1.2, depth=1.4),
    "tf_efficientnetv2_s": _efficientnet_v2("S (TF)", EFFICIENTNET_V2_S, 24, 300, style=TENSORFLOW),
    "tf_efficientnetv2_m": _efficientnet_v2("M (TF)", EFFICIENTNET_V2_M, 24, 384, style=TENSORFLOW),
    "tf_efficientnetv2_l": _efficientnet_v2("L (TF)", EFFICIENTNET_V2_L, 32, 384, style=TENSORFLOW),
    "tf_efficientnetv2_xl": _efficientnet_v2("XL (TF)", EFFICIENTNET_V2_XL, 32, 384, style=TENSORFLOW),
    "semnasnet_075": _mnasnet("0.75", 0.75),
    "semnasnet_100": _mnasnet("A1", 1.0),
    "lcnet_050": _lcnet("0.5", 0.5),
    "lcnet_075": _lcnet("0.75", 0.75),
    "lcnet_100": _lcnet("1.0", 1.0),
    "tinynet_a": _tinynet("A", 1.0, 1.2, 192),
    "tinynet_b": _tinynet("B", 0.75, 1.1, 188),
    "tinynet_c": _tinynet("C", 0.54, 0.85, 184),
    "tinynet_d": _tinynet("D", 0.54, 0.695, 152),
    "tinynet_e": _tinynet("E", 0.51, 0.6, 106),
    "fbnetv3_b": _fbnet_v3("B", FBNET_V3_B, 16, 224),
    "fbnetv3_d": _fbnet_v3("D", FBNET_V3_D, 24, 224),
    "fbnetv3_g": _fbnet_v3("G", FBNET_V3_G, 32, 240),
}
