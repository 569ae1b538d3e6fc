"""Inception modules: parallel chains of convolutions, concatenated."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from keras import layers

from se_keras.blocks.conv_norm_act import ConvStyle, channel_axis, channels_of, conv, conv_norm_act
from se_keras.blocks.excitation import SEConfig, excite

Step = tuple[Any, ...]  # (filters, kernel size) or (filters, kernel size, strides)
Branches = Mapping[str, tuple[Step, ...]]


def chain(x: Any, steps: tuple[Step, ...], *, name: str, style: ConvStyle, strided_padding: str = "valid") -> Any:
    """Applies convolutions one after the other, each with batch normalization and ReLU.

    Args:
        x: Tensor of shape (batch, height, width, channels), or channels second.
        steps: (filters, kernel size) or (filters, kernel size, strides) for each convolution.
        name: Prefix of the layer names. The steps are numbered from 1.
        style: Padding and batch normalization.
        strided_padding: Padding of the steps with strides, "valid" or "style".

    Returns:
        The output of the last step.
    """
    for number, (filters, kernel_size, *strides) in enumerate(steps, start=1):
        x = conv_norm_act(
            x,
            filters,
            kernel_size,
            name=f"{name}_{{}}{number}",
            style=style,
            strides=strides[0] if strides else 1,
            padding=strided_padding if strides else "style",
        )
    return x


def module(
    x: Any,
    branches: Branches,
    *,
    pool: Callable[[Any], Any],
    name: str,
    style: ConvStyle,
    strided_padding: str = "valid",
) -> Any:
    """Applies parallel chains and a pooling branch, and concatenates them in this order.

    Args:
        x: Tensor of shape (batch, height, width, channels), or channels second.
        branches: Name and steps of each chain.
        pool: Builds the last branch.
        name: Prefix of the layer names, such as "stage3_block1".
        style: Padding and batch normalization.
        strided_padding: See `chain`.

    Returns:
        Tensor with as many channels as all branches together.
    """
    outputs = [
        chain(x, steps, name=f"{name}_{branch}", style=style, strided_padding=strided_padding)
        for branch, steps in branches.items()
    ]
    return concatenate([*outputs, pool(x)], name=name)


def concatenate(branches: list[Any], *, name: str) -> Any:
    """Concatenates feature maps along their channels."""
    return layers.Concatenate(axis=channel_axis(), name=f"{name}_concat")(branches)


def forked_module(x: Any, *, pool: Callable[[Any], Any], name: str, style: ConvStyle) -> Any:
    """Applies Inception-v3's last module, whose 3x3 convolutions fork into 1x3 and 3x1 (arXiv 1512.00567, figure 7)."""
    outputs = [chain(x, ((320, 1),), name=f"{name}_1x1", style=style)]
    for branch, steps in {"3x3": ((384, 1),), "double3x3": ((448, 1), (384, 3))}.items():
        stem = chain(x, steps, name=f"{name}_{branch}", style=style)
        for kernel_size in ((1, 3), (3, 1)):
            label = f"{name}_{branch}_{kernel_size[0]}x{kernel_size[1]}"
            outputs.append(chain(stem, ((384, kernel_size),), name=label, style=style))
    return concatenate([*outputs, pool(x)], name=name)


def residual_module(
    x: Any,
    branches: Branches,
    *,
    scale: float,
    activation: str | None,
    se: SEConfig | None,
    name: str,
    style: ConvStyle,
) -> Any:
    """Applies an Inception-ResNet module: chains, concatenated, projected to the input's channels, scaled, and added.

    An SE block at "standard" follows the linear 1x1 convolution and precedes the scaling.

    Reference: Szegedy et al., arXiv 1602.07261, figures 16, 17, and 19; section 3.3 for the scale.

    Args:
        x: Tensor of shape (batch, height, width, channels), or channels second.
        branches: Name and steps of each chain.
        scale: Factor of the branch before the addition, a fraction of 1.
        activation: Activation after the addition, or None.
        se: The module's SE block, or None.
        name: Prefix of the layer names.
        style: Padding and batch normalization.

    Returns:
        Tensor of the input's shape.
    """
    branch = excite(x, se, f"{name}_se", position="pre")
    outputs = [chain(branch, steps, name=f"{name}_{label}", style=style) for label, steps in branches.items()]
    branch = concatenate(outputs, name=name)
    branch = conv(branch, channels_of(x), name=f"{name}_up_{{}}", style=style, use_bias=True)
    branch = excite(branch, se, f"{name}_se")
    if scale != 1:
        branch = layers.Rescaling(scale, name=f"{name}_scale")(branch)
    shortcut = excite(x, se, f"{name}_se", position="identity")
    x = layers.Add(name=f"{name}_add")([branch, shortcut])
    x = x if activation is None else layers.Activation(activation, name=f"{name}_out")(x)
    return excite(x, se, f"{name}_se", position="post")
