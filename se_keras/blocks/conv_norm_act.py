"""Convolution, batch normalization, and activation: the only home of padding and normalization constants."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
from keras import layers

from se_keras.layers import BatchNormalization, GroupedConv2D


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvStyle:
    """The padding of convolutions and the batch normalization of one family of networks.

    Args:
        epsilon: Added to the variance.
        momentum: Fraction of the old moving statistic that a training step keeps: one minus
            PyTorch's `momentum`.
        scale: Whether the batch normalization has a gamma.
        symmetric: Whether a strided convolution pads both ends equally (Caffe, PyTorch)
            instead of as TensorFlow's "same", which pads more at the end.
    """

    epsilon: float
    momentum: float
    scale: bool = True
    symmetric: bool = True


TORCH = ConvStyle(epsilon=1e-5, momentum=0.9)
TENSORFLOW = ConvStyle(epsilon=1e-3, momentum=0.99, symmetric=False)
INCEPTION = ConvStyle(epsilon=1e-3, momentum=0.99, scale=False, symmetric=False)

# Uniform, because drawing truncated normals takes a third of the time to build a network.
KERNEL_INITIALIZER = "he_uniform"


def channel_axis() -> int:
    """Returns the axis of the channels in a batch of images under Keras' current data format: -1 or 1."""
    return -1 if keras.config.image_data_format() == "channels_last" else 1


def channels_of(x: Any) -> int:
    """Returns the number of channels of a batch of images."""
    return x.shape[channel_axis()]


def conv(
    x: Any,
    filters: int,
    kernel_size: int | tuple[int, int] = 1,
    *,
    name: str,
    strides: int = 1,
    groups: int = 1,
    padding: str = "style",
    style: ConvStyle = TORCH,
    use_bias: bool = False,
) -> Any:
    """Applies a convolution with the style's padding.

    Args:
        x: Tensor of shape (batch, height, width, channels), or channels second.
        filters: Number of output channels.
        kernel_size: Height and width of the kernel. Must be odd where the padding is symmetric.
        name: Template of the layer names with one {} for the kind, such as "stage2_block1_{}1".
        strides: Strides along height and width.
        groups: Number of groups. Must divide both the number of channels and `filters`.
        padding: "style" (output size = input size / strides, rounded up) or "valid".
        style: Where the padding goes.
        use_bias: Whether the convolution has a bias.

    Returns:
        Tensor of shape (batch, new height, new width, filters), or channels second.
    """
    layer_type = GroupedConv2D if groups > 1 else layers.Conv2D
    x, mode = _padded(x, kernel_size, strides, padding, style, name)
    return layer_type(
        filters,
        kernel_size,
        strides=strides,
        padding=mode,
        groups=groups,
        use_bias=use_bias,
        kernel_initializer=KERNEL_INITIALIZER,
        name=name.format("conv"),
    )(x)


def depthwise_conv(
    x: Any, kernel_size: int, *, name: str, strides: int = 1, padding: str = "style", style: ConvStyle = TORCH
) -> Any:
    """Applies a convolution to each channel separately; arguments and result as in `conv`."""
    x, mode = _padded(x, kernel_size, strides, padding, style, name)
    return layers.DepthwiseConv2D(
        kernel_size,
        strides=strides,
        padding=mode,
        use_bias=False,
        depthwise_initializer=KERNEL_INITIALIZER,
        name=name.format("conv"),
    )(x)


def _padded(x: Any, kernel_size: Any, strides: int, padding: str, style: ConvStyle, name: str) -> tuple[Any, str]:
    if padding == "valid" or kernel_size == 1:
        return x, "valid"
    if strides == 1 or not style.symmetric:
        return x, "same"
    return layers.ZeroPadding2D(kernel_size // 2, name=name.format("pad"))(x), "valid"


def norm_act(x: Any, *, name: str, style: ConvStyle = TORCH, activation: str | None = "relu") -> Any:
    """Applies batch normalization and, unless `activation` is None, an activation; the shape stays the same."""
    x = BatchNormalization(
        axis=channel_axis(),
        epsilon=style.epsilon,
        momentum=style.momentum,
        scale=style.scale,
        name=name.format("bn"),
    )(x)
    if activation is None:
        return x
    kind = "relu" if activation in ("relu", "relu6") else "act"
    return layers.Activation(activation, name=name.format(kind))(x)


def conv_norm_act(
    x: Any,
    filters: int,
    kernel_size: int | tuple[int, int] = 1,
    *,
    name: str,
    style: ConvStyle = TORCH,
    activation: str | None = "relu",
    **convolution: Any,
) -> Any:
    """Applies `conv` without a bias, then `norm_act`; arguments and result as in these functions."""
    x = conv(x, filters, kernel_size, name=name, style=style, **convolution)
    return norm_act(x, name=name, style=style, activation=activation)
