"""Residual blocks with an SE block at any of the paper's positions."""

from __future__ import annotations

import dataclasses
from typing import Any

from keras import layers

from se_keras.blocks.conv_norm_act import channels_of, conv, conv_norm_act, norm_act
from se_keras.blocks.excitation import SEConfig, excite, squeeze_width


@dataclasses.dataclass(frozen=True, kw_only=True)
class UnitShape:
    """The settings of one residual block.

    Args:
        filters: Number of output channels of the block.
        width: Number of channels of its 3x3 convolution.
        reduce_width: Number of channels of the first 1x1 convolution of a bottleneck.
        groups: Number of groups of the 3x3 convolution.
        strides: Strides of the block, 1 or 2.
        strided_conv: Which convolution of a bottleneck has the strides: 1 (the first 1x1,
            Caffe's SE-ResNet) or 2 (the 3x3, everything else).
        projection_kernel: Kernel size of a projecting shortcut.
        average_shortcut: Whether a shortcut with stride 2 averages 2x2 positions and projects
            with stride 1 (ResNet-D, arXiv 1812.01187, figure 2c).
        antialias: Whether a strided 3x3 convolution runs with stride 1, and an average over 2x2 positions follows its
            activation.
        relu_before_se: Whether a ReLU follows the last batch normalization of a basic block
            (timm's legacy SE-ResNet-18 and 34 were trained with one).
    """

    filters: int
    width: int
    reduce_width: int
    groups: int = 1
    strides: int = 1
    strided_conv: int = 2
    projection_kernel: int = 1
    average_shortcut: bool = False
    antialias: bool = False
    relu_before_se: bool = False


def basic(x: Any, shape: UnitShape, se: SEConfig | None, name: str) -> Any:
    """Applies two 3x3 convolutions with a shortcut.

    Reference: He et al., arXiv 1512.03385, figure 5 left; SE as in arXiv 1709.01507v4, figures 3 and 5.

    Args:
        x: Tensor of shape (batch, height, width, channels), or channels second.
        shape: The settings of the residual block.
        se: Its SE block, or None.
        name: Prefix of the layer names, such as "stage2_block1".

    Returns:
        Tensor of shape (batch, height / strides, width / strides, filters), or channels second.
    """
    branch = excite(x, se, f"{name}_se", position="pre")
    branch = conv_norm_act(branch, shape.width, 3, name=f"{name}_{{}}1", strides=shape.strides)
    branch = excite(branch, se, f"{name}_se", position="conv3x3")
    last = "relu" if shape.relu_before_se else None
    branch = conv_norm_act(branch, shape.filters, 3, name=f"{name}_{{}}2", activation=last)
    return _merge(x, branch, shape, se, name)


def bottleneck(x: Any, shape: UnitShape, se: SEConfig | None, name: str) -> Any:
    """Applies 1x1, 3x3, and 1x1 convolutions with a shortcut: ResNet, ResNeXt, or SENet-154, depending on the settings.

    Reference: He et al., arXiv 1512.03385, figure 5 right; Xie et al., arXiv 1611.05431, figure 3c.
    Arguments and result as in `basic`.
    """
    first, second = (shape.strides, 1) if shape.strided_conv == 1 else (1, shape.strides)
    branch = excite(x, se, f"{name}_se", position="pre")
    branch = conv_norm_act(branch, shape.reduce_width, 1, name=f"{name}_{{}}1", strides=first)
    averaged = shape.antialias and second > 1
    strides = 1 if averaged else second
    branch = conv_norm_act(branch, shape.width, 3, name=f"{name}_{{}}2", strides=strides, groups=shape.groups)
    if averaged:
        branch = layers.AveragePooling2D(2, 2, padding="same", name=f"{name}_antialias")(branch)
    branch = excite(branch, se, f"{name}_se", position="conv3x3")
    branch = conv_norm_act(branch, shape.filters, 1, name=f"{name}_{{}}3", activation=None)
    return _merge(x, branch, shape, se, name)


def regnet_unit(x: Any, shape: UnitShape, se: SEConfig | None, name: str) -> Any:
    """Applies 1x1, 3x3, and 1x1 convolutions with a shortcut, and SE after the 3x3, sized by the input's channels.

    Reference: Radosavovic et al., arXiv 2003.13678, figure 4 and section 5 ("Y block"). Arguments and result as in
    `basic`.
    """
    branch = conv_norm_act(x, shape.reduce_width, 1, name=f"{name}_{{}}1")
    branch = conv_norm_act(branch, shape.width, 3, name=f"{name}_{{}}2", strides=shape.strides, groups=shape.groups)
    branch = excite(branch, se, f"{name}_se", units=None if se is None else squeeze_width(channels_of(x), se))
    branch = conv_norm_act(branch, shape.filters, 1, name=f"{name}_{{}}3", activation=None)
    return _merge(x, branch, shape, None, name)


def _merge(x: Any, branch: Any, shape: UnitShape, se: SEConfig | None, name: str) -> Any:
    branch = excite(branch, se, f"{name}_se")
    if shape.strides > 1 or channels_of(x) != shape.filters:
        x = _projected(x, shape, name)
    x = excite(x, se, f"{name}_se", position="identity")
    x = layers.Add(name=f"{name}_add")([branch, x])
    x = layers.Activation("relu", name=f"{name}_out")(x)
    return excite(x, se, f"{name}_se", position="post")


def _projected(x: Any, shape: UnitShape, name: str) -> Any:
    strides = shape.strides
    if shape.average_shortcut and strides > 1:
        x = layers.AveragePooling2D(2, 2, padding="same", name=f"{name}_proj_pool")(x)
        strides = 1
    kernel = shape.projection_kernel
    return conv_norm_act(x, shape.filters, kernel, name=f"{name}_proj_{{}}", strides=strides, activation=None)


def preact_basic(x: Any, shape: UnitShape, se: SEConfig | None, name: str) -> Any:
    """Applies two 3x3 convolutions, each after batch normalization and ReLU, with a shortcut.

    The shortcut of a block that changes the shape starts after the first batch normalization and
    ReLU. At position "pre", the SE block follows these two and precedes the branch's first
    convolution. At "post", it follows the addition, after which these blocks have no ReLU.

    Reference: He et al., "Identity mappings", arXiv 1603.05027, figure 4e; Zagoruyko and
    Komodakis, arXiv 1605.07146, figure 1c. Arguments and result as in `basic`.
    """
    activated = norm_act(x, name=f"{name}_{{}}1")
    branch = excite(activated, se, f"{name}_se", position="pre")
    branch = conv(branch, shape.width, 3, name=f"{name}_{{}}1", strides=shape.strides)
    branch = norm_act(branch, name=f"{name}_{{}}2")
    branch = excite(branch, se, f"{name}_se", position="conv3x3")
    branch = conv(branch, shape.filters, 3, name=f"{name}_{{}}2")
    return _merge_preact(x, activated, branch, shape, se, name)


def preact_bottleneck(x: Any, shape: UnitShape, se: SEConfig | None, name: str) -> Any:
    """Applies 1x1, 3x3, and 1x1 convolutions, each after batch normalization and ReLU; otherwise as `preact_basic`."""
    activated = norm_act(x, name=f"{name}_{{}}1")
    branch = excite(activated, se, f"{name}_se", position="pre")
    branch = conv(branch, shape.reduce_width, 1, name=f"{name}_{{}}1")
    branch = norm_act(branch, name=f"{name}_{{}}2")
    branch = conv(branch, shape.width, 3, name=f"{name}_{{}}2", strides=shape.strides)
    branch = norm_act(branch, name=f"{name}_{{}}3")
    branch = excite(branch, se, f"{name}_se", position="conv3x3")
    branch = conv(branch, shape.filters, 1, name=f"{name}_{{}}3")
    return _merge_preact(x, activated, branch, shape, se, name)


def _merge_preact(x: Any, activated: Any, branch: Any, shape: UnitShape, se: SEConfig | None, name: str) -> Any:
    branch = excite(branch, se, f"{name}_se")
    if shape.strides > 1 or channels_of(x) != shape.filters:
        x = conv(activated, shape.filters, shape.projection_kernel, name=f"{name}_proj_{{}}", strides=shape.strides)
    x = excite(x, se, f"{name}_se", position="identity")
    x = layers.Add(name=f"{name}_add")([branch, x])
    return excite(x, se, f"{name}_se", position="post")
