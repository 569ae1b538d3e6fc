"""The skeleton of networks of inverted residual blocks, such as MobileNetV3 and EfficientNet."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

from keras import layers

from se_keras.blocks.conv_norm_act import TORCH, ConvStyle, channels_of, conv_norm_act
from se_keras.blocks.excitation import SEConfig, divisible
from se_keras.blocks.head import classifier
from se_keras.blocks.inverted import (
    InvertedShape,
)
from se_keras.models.network import endpoint

Block = Callable[[Any, InvertedShape, SEConfig | None, str], Any]


@dataclasses.dataclass(frozen=True)
class Row:
    """A sequence of blocks of one shape.

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
    """The settings of a network of inverted residual blocks.

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
        spec: The network's settings.
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
        for number, (row, strides) in enumerate(blocks):
            if strides > 1:
                x, stage = endpoint(x, f"stage{stage}") if stage > 1 else x, stage + 1
            x = row.block(x, _shape(x, row, strides, spec, se), _se_of(row, se, stage), f"block{part}{letters(number)}")
    x = endpoint(x, f"stage{stage}")
    if spec.features is not None:
        x = conv_norm_act(x, spec.features, 1, name="head_{}", style=spec.style, activation=spec.activation)
    return x


def letters(number: int) -> str:
    """Returns the letters of a block in its part, from 0: "a" to "z", then "aa", "ab", and so on."""
    rest, last = divmod(number, 26)
    return (letters(rest - 1) if rest else "") + chr(ord("a") + last)


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
