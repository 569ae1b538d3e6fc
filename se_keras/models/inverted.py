"""MobileNetV3, EfficientNet, EfficientNetV2, SE-MNASNet, LCNet, TinyNet, and FBNetV3: one skeleton, and their rows."""

from __future__ import annotations

import dataclasses
import functools
import math
import string
from collections.abc import Callable, Iterator
from typing import Any

from keras import layers

from se_keras.blocks.conv_norm_act import TENSORFLOW, TORCH, ConvStyle, channels_of, conv_norm_act
from se_keras.blocks.excitation import SEConfig, divisible
from se_keras.blocks.head import classifier
from se_keras.blocks.inverted import (
    InvertedShape,
    fused_residual,
    inverted_residual,
    plain_residual,
    separable_residual,
)
from se_keras.images.record import Preprocessing
from se_keras.models.network import Network, endpoint

Block = Callable[[Any, InvertedShape, SEConfig | None, str], Any]


@dataclasses.dataclass(frozen=True)
class Row:
    """Blocks of one shape in a row.

    Args:
        block: Builds one block.
        repeats: Number of blocks, before the network's depth is applied.
        kernel_size: Height and width of the spatial convolution's kernel.
        strides: Strides of the first block.
        expansion: Channels between the convolutions, divided by those of the block's input.
        filters: Number of output channels, before the network's width is applied.
        se: Whether the blocks have SE.
        activation: Their activation. None: the network's.
        last_activation: Activation after the last batch normalization.
        shortcut: Whether blocks that keep the shape add their input.
    """

    block: Block
    repeats: int
    kernel_size: int
    strides: int
    expansion: float
    filters: int
    se: bool = False
    activation: str | None = None
    last_activation: str | None = None
    shortcut: bool = True


Parts = tuple[tuple[Row, ...], ...]


def input_channels(before: int, expanded: int) -> int:
    """Returns the number of channels that units are derived from: the block input's, as in EfficientNet.

    Args:
        before: Number of channels of the block's input.
        expanded: Number of channels in its middle.
    """
    return before


def expanded_channels(before: int, expanded: int) -> int:
    """Returns the number of channels in the middle, as in MobileNetV3; arguments as in `input_channels`."""
    return expanded


@dataclasses.dataclass(frozen=True, kw_only=True)
class InvertedSpec:
    """The numbers of a network of inverted residual blocks.

    Args:
        parts: The rows of each part, as the network's paper groups them. Depth is applied to a part as a whole.
        stem: Number of channels of the stem's convolution, with the width applied.
        width: Factor of all other numbers of channels.
        depth: Factor of the number of blocks; one for all parts, or one for each.
        scaled_repeats: Rounds the scaled number of blocks of a part.
        features: Number of channels of the convolution after the last block; None: the classifier's head has it.
        activation: The network's activation.
        units_from: Which number of channels determines the units of an SE block: (input, expanded) -> number.
        units_divisor: The number of units is a multiple of this.
        least_fill: See `divisible`.
        style: Padding and batch normalization.
    """

    parts: Parts
    stem: int
    width: float = 1.0
    depth: float | tuple[float, ...] = 1.0
    scaled_repeats: Callable[[float], int] = math.ceil
    features: int | None = None
    activation: str = "silu"
    units_from: Callable[[int, int], int] = input_channels
    units_divisor: int = 1
    least_fill: float = 0.9
    style: ConvStyle = TORCH

    def channels(self, filters: int) -> int:
        """Returns a number of channels with the width applied."""
        return divisible(filters * self.width, least_fill=self.least_fill)

    def units(self, before: int, expanded: int, se: SEConfig | None) -> int | None:
        """Returns the number of units of an SE block, by the channels of its block's input and in its middle."""
        if se is None:
            return None
        size = self.units_from(before, expanded) / se.reduction_or_16
        divisor = se.squeeze_divisor or self.units_divisor
        return max(1, round(size)) if divisor == 1 else divisible(size, divisor, least_fill=self.least_fill)


def repeated(rows: tuple[Row, ...], depth: float, scaled_repeats: Callable[[float], int]) -> Iterator[tuple[Row, int]]:
    """Yields the rows of a part and their numbers of blocks with the depth applied.

    The part's total is scaled and then distributed in proportion, beginning with the last row.

    Args:
        rows: The rows.
        depth: The factor.
        scaled_repeats: Rounds the total.
    """
    total = sum(row.repeats for row in rows)
    scaled = max(1, scaled_repeats(total * depth))
    counts = []
    for row in reversed(rows):
        counts.append(max(1, round(row.repeats / total * scaled)))
        total, scaled = total - row.repeats, scaled - counts[-1]
    yield from zip(rows, reversed(counts), strict=True)


def inverted(x: Any, spec: InvertedSpec, se: SEConfig | None) -> Any:
    """Computes the features of a network of inverted residual blocks.

    Args:
        x: Normalized images, (batch, height, width, channels), or channels second.
        spec: The network's numbers.
        se: Its SE blocks, or None.

    Returns:
        Tensor of shape (batch, height / 32, width / 32, channels), sizes rounded up.
    """
    x = conv_norm_act(x, spec.stem, 3, name="stem_{}", strides=2, style=spec.style, activation=spec.activation)
    x, stage = endpoint(x, "stem"), 1
    depths = spec.depth if isinstance(spec.depth, tuple) else (spec.depth,) * len(spec.parts)
    for part, (rows, depth) in enumerate(zip(spec.parts, depths, strict=True), start=1):
        blocks = [
            (row, row.strides if number == 0 else 1)
            for row, count in repeated(rows, depth, spec.scaled_repeats)
            for number in range(count)
        ]
        for (row, strides), letter in zip(blocks, string.ascii_lowercase, strict=False):
            if strides > 1:
                x, stage = endpoint(x, f"stage{stage}") if stage > 1 else x, stage + 1
            x = row.block(x, _shape(x, row, strides, spec, se), _se_of(row, se, stage), f"block{part}{letter}")
    x = endpoint(x, f"stage{stage}")
    if spec.features is not None:
        x = conv_norm_act(x, spec.features, 1, name="head_{}", style=spec.style, activation=spec.activation)
    return x


def _se_of(row: Row, se: SEConfig | None, stage: int) -> SEConfig | None:
    return se.at_stage(stage) if se is not None and row.se else None


def _shape(x: Any, row: Row, strides: int, spec: InvertedSpec, se: SEConfig | None) -> InvertedShape:
    before = channels_of(x)
    expanded = divisible(before * row.expansion)
    return InvertedShape(
        filters=spec.channels(row.filters),
        expanded=expanded,
        kernel_size=row.kernel_size,
        strides=strides,
        activation=row.activation or spec.activation,
        last_activation=row.last_activation,
        shortcut=row.shortcut,
        units=spec.units(before, expanded, se),
        style=spec.style,
    )


def mobile_head(x: Any, *, classes: int, activation: Any, dropout: float, features: int, use_bias: bool = True) -> Any:
    """Applies global average pooling, a 1x1 convolution on the single position, dropout, and a dense layer.

    Reference: Howard et al., arXiv 1905.02244, figure 5.

    Args:
        x: Tensor of shape (batch, height, width, channels), or channels second.
        classes: Number of classes.
        activation: Activation of the predictions. None returns logits.
        dropout: Fraction of the features to drop in training.
        features: Number of channels of the convolution.
        use_bias: Whether the convolution has a bias.

    Returns:
        Tensor of shape (batch, classes), in float32 even under a half-precision policy.
    """
    x = layers.GlobalAveragePooling2D(keepdims=True, name="pooled_map")(x)
    x = layers.Conv2D(features, 1, use_bias=use_bias, kernel_initializer="he_uniform", name="head_conv")(x)
    x = layers.Activation("hard_silu", name="head_act")(x)
    x = layers.Flatten(name="pooled")(x)
    return classifier(x, classes=classes, activation=activation, dropout=dropout)


ds, ir, er, cn = separable_residual, inverted_residual, fused_residual, plain_residual
RELU = {"activation": "relu"}

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
