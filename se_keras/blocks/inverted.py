"""Inverted residual blocks: those of MobileNetV3, EfficientNet, and their relatives."""

from __future__ import annotations

import dataclasses
from typing import Any

from keras import layers

from se_keras.blocks.conv_norm_act import TORCH, ConvStyle, channels_of, conv_norm_act, depthwise_conv, norm_act
from se_keras.blocks.excitation import SEConfig, excite


@dataclasses.dataclass(frozen=True, kw_only=True)
class InvertedShape:
    """The settings of one block.

    Args:
        filters: Number of output channels.
        expanded: Number of channels between the convolutions.
        kernel_size: Height and width of the spatial convolution's kernel.
        strides: Strides of the spatial convolution, 1 or 2.
        activation: Activation after each batch normalization but the last.
        last_activation: Activation after the last batch normalization, or None.
        shortcut: Whether a block that keeps the shape adds its input.
        units: Number of units of the SE block.
        style: Padding and batch normalization.
    """

    filters: int
    expanded: int
    kernel_size: int = 3
    strides: int = 1
    activation: str = "relu"
    last_activation: str | None = None
    shortcut: bool = True
    units: int | None = None
    style: ConvStyle = TORCH


def separable_residual(x: Any, shape: InvertedShape, se: SEConfig | None, name: str) -> Any:
    """Applies a depthwise convolution, SE, and a 1x1 convolution; a block without expansion.

    Reference: Howard et al., arXiv 1905.02244, figure 4; Cui et al., arXiv 2109.15099, figure 2.

    Args:
        x: Tensor of shape (batch, height, width, channels), or channels second.
        shape: The settings of the block.
        se: Its SE block, or None.
        name: Prefix of the layer names, such as "block1a".

    Returns:
        Tensor of shape (batch, height / strides, width / strides, filters), sizes rounded up, or channels second.
    """
    branch = _depthwise(x, shape, f"{name}_depthwise_{{}}")
    branch = excite(branch, se, f"{name}_se", units=shape.units)
    branch = _pointwise(branch, shape.filters, shape, f"{name}_pointwise_{{}}", shape.last_activation)
    return _added(x, branch, shape, name)


def inverted_residual(x: Any, shape: InvertedShape, se: SEConfig | None, name: str) -> Any:
    """Applies a 1x1 convolution that expands, a depthwise convolution, SE, and a 1x1 convolution that projects.

    Reference: Howard et al., arXiv 1905.02244, figure 4; Tan and Le, arXiv 1905.11946, table 1. Arguments and result
    as in `separable_residual`.
    """
    branch = _pointwise(x, shape.expanded, shape, f"{name}_expand_{{}}", shape.activation)
    branch = _depthwise(branch, shape, f"{name}_dwconv_{{}}")
    branch = excite(branch, se, f"{name}_se", units=shape.units)
    branch = _pointwise(branch, shape.filters, shape, f"{name}_project_{{}}", shape.last_activation)
    return _added(x, branch, shape, name)


def fused_residual(x: Any, shape: InvertedShape, se: SEConfig | None, name: str) -> Any:
    """Applies one ordinary convolution that expands, SE, and a 1x1 convolution that projects.

    Reference: Tan and Le, arXiv 2104.00298, figure 2 right. Arguments and result as in `separable_residual`.
    """
    branch = _spatial(x, shape.expanded, shape, f"{name}_fused_{{}}")
    branch = excite(branch, se, f"{name}_se", units=shape.units)
    branch = _pointwise(branch, shape.filters, shape, f"{name}_reduce_{{}}", shape.last_activation)
    return _added(x, branch, shape, name)


def plain_residual(x: Any, shape: InvertedShape, se: SEConfig | None, name: str) -> Any:
    """Applies one ordinary convolution; arguments and result as in `separable_residual`."""
    del se  # no network has SE here
    return _added(x, _spatial(x, shape.filters, shape, f"{name}_{{}}"), shape, name)


def _pointwise(x: Any, filters: int, shape: InvertedShape, name: str, activation: str | None) -> Any:
    return conv_norm_act(x, filters, 1, name=name, style=shape.style, activation=activation)


def _spatial(x: Any, filters: int, shape: InvertedShape, name: str) -> Any:
    options: dict[str, Any] = {"style": shape.style, "activation": shape.activation}
    return conv_norm_act(x, filters, shape.kernel_size, strides=shape.strides, name=name, **options)


def _depthwise(x: Any, shape: InvertedShape, name: str) -> Any:
    x = depthwise_conv(x, shape.kernel_size, name=name, strides=shape.strides, style=shape.style)
    return norm_act(x, name=name, style=shape.style, activation=shape.activation)


def _added(x: Any, branch: Any, shape: InvertedShape, name: str) -> Any:
    if shape.shortcut and shape.strides == 1 and channels_of(x) == shape.filters:
        return layers.Add(name=f"{name}_add")([branch, x])
    return branch
