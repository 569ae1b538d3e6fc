"""The blocks of MobileNet and ShuffleNet."""

from __future__ import annotations

from typing import Any

from keras import layers

from se_keras.blocks.conv_norm_act import TENSORFLOW, channel_axis, channels_of, conv_norm_act, depthwise_conv, norm_act
from se_keras.blocks.excitation import SEConfig, excite
from se_keras.layers import ChannelShuffle


def separable(x: Any, filters: int, *, strides: int, se: SEConfig | None, name: str) -> Any:
    """Applies MobileNet's depthwise and pointwise convolutions, each with batch normalization and ReLU6, then SE.

    Reference: Howard et al., arXiv 1704.04861, figure 3 right.

    Args:
        x: Tensor of shape (batch, height, width, channels), or channels second.
        filters: Number of output channels.
        strides: Strides of the depthwise convolution, 1 or 2.
        se: The SE block after both convolutions, or None.
        name: Prefix of the layer names.

    Returns:
        Tensor of shape (batch, height / strides, width / strides, filters), sizes rounded down,
        or channels second.
    """
    depthwise = f"{name}_depthwise_{{}}"
    if strides > 1:  # padded at the end only, even where "same" would pad an odd size at both ends
        x = layers.ZeroPadding2D(((0, 1), (0, 1)), name=depthwise.format("pad"))(x)
    padding = "valid" if strides > 1 else "style"
    x = depthwise_conv(x, 3, name=depthwise, strides=strides, padding=padding, style=TENSORFLOW)
    x = norm_act(x, name=depthwise, style=TENSORFLOW, activation="relu6")
    x = conv_norm_act(x, filters, 1, name=f"{name}_pointwise_{{}}", style=TENSORFLOW, activation="relu6")
    return excite(x, se, f"{name}_se")


def shuffle_unit(
    x: Any, filters: int, *, strides: int, groups: int, first_groups: int, se: SEConfig | None, name: str
) -> Any:
    """Applies a ShuffleNet block: grouped 1x1, shuffle, depthwise 3x3, grouped 1x1; SE at the end of the branch.

    With stride 2, the branch is concatenated with the average-pooled input; with stride 1, it is added to the input.

    Reference: Zhang et al., arXiv 1707.01083, figure 2 b and c.

    Args:
        x: Tensor of shape (batch, height, width, channels), or channels second.
        filters: Number of output channels.
        strides: 1 or 2.
        groups: Number of groups of the 1x1 convolutions.
        first_groups: Number of groups of the first of them.
        se: The SE block of the branch, or None.
        name: Prefix of the layer names.

    Returns:
        Tensor of shape (batch, height / strides, width / strides, filters), or channels second.
    """
    branch_filters = filters - channels_of(x) if strides == 2 else filters
    branch = conv_norm_act(x, filters // 4, 1, name=f"{name}_{{}}1", groups=first_groups)
    branch = ChannelShuffle(groups, name=f"{name}_shuffle")(branch)
    branch = depthwise_conv(branch, 3, name=f"{name}_{{}}2", strides=strides)
    branch = norm_act(branch, name=f"{name}_{{}}2", activation=None)
    branch = conv_norm_act(branch, branch_filters, 1, name=f"{name}_{{}}3", groups=groups, activation=None)
    branch = excite(branch, se, f"{name}_se")
    if strides == 2:
        shortcut = layers.ZeroPadding2D(1, name=f"{name}_pool_pad")(x)
        shortcut = layers.AveragePooling2D(3, 2, name=f"{name}_pool")(shortcut)
        x = layers.Concatenate(axis=channel_axis(), name=f"{name}_concat")([shortcut, branch])
    else:
        x = layers.Add(name=f"{name}_add")([branch, x])
    return layers.Activation("relu", name=f"{name}_out")(x)
