"""SE-ResNet, SE-ResNeXt, SENet-154, and the CIFAR residual networks: a skeleton for each kind, and their tables."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

from keras import layers

from se_keras.blocks.conv_norm_act import channels_of, conv, conv_norm_act, norm_act
from se_keras.blocks.excitation import SEConfig
from se_keras.blocks.residual import UnitShape, basic, bottleneck, preact_basic, preact_bottleneck
from se_keras.images.record import Preprocessing
from se_keras.models.network import Network, endpoint

Unit = Callable[[Any, UnitShape, SEConfig | None, str], Any]


def conv7_stem(x: Any) -> Any:
    """Applies one 7x7 convolution with stride 2 and 64 filters."""
    return conv_norm_act(x, 64, 7, name="stem_{}", strides=2)


def conv3_stem(x: Any, widths: tuple[int, int, int] = (64, 64, 128)) -> Any:
    """Applies three 3x3 convolutions, the first with stride 2. SENet-154's have 64, 64, and 128 filters."""
    x = conv_norm_act(x, widths[0], 3, name="stem_{}1", strides=2)
    x = conv_norm_act(x, widths[1], 3, name="stem_{}2")
    return conv_norm_act(x, widths[2], 3, name="stem_{}3")


def ceil_pool(x: Any, name: str) -> Any:
    """Applies Caffe's 3x3 max pooling with stride 2: padding at the end only, where the last window is cut off.

    Pads one pixel of zeros. The result equals Caffe's at any size, because the input follows a ReLU
    and is never negative.

    Args:
        x: Tensor of shape (batch, height, width, channels), or channels second.
        name: Name of the pooling layer.

    Returns:
        Tensor of shape (batch, height / 2, width / 2, channels), sizes rounded down.
    """
    x = layers.ZeroPadding2D(((0, 1), (0, 1)), name=f"{name}_pad")(x)
    return layers.MaxPooling2D(3, 2, name=name)(x)


def centred_pool(x: Any, name: str) -> Any:
    """Applies PyTorch's 3x3 max pooling with stride 2 and one pixel of padding on every side, to nonnegative inputs."""
    x = layers.ZeroPadding2D(1, name=f"{name}_pad")(x)
    return layers.MaxPooling2D(3, 2, name=name)(x)


def average_pool(x: Any, name: str) -> Any:
    """Applies 2x2 average pooling with stride 2, the anti-aliasing of those networks of timm that are named "aa"."""
    return layers.AveragePooling2D(2, 2, padding="same", name=name)(x)


def strided_conv_pool(x: Any, _: str) -> Any:
    """Applies a 3x3 convolution with stride 2, the fourth of the stem (ResNet-RS, arXiv 2103.07579, section 4.2)."""
    return conv_norm_act(x, channels_of(x), 3, name="stem_{}4", strides=2)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResNetSpec:
    """The settings of an ImageNet residual network.

    Args:
        unit: Builds one residual block.
        num_blocks: Number of blocks in stages 2 to 5.
        expansion: Output channels of a block divided by its base width (64, 128, 256, 512 by stage).
        groups: Number of groups of the 3x3 convolution (ResNeXt's cardinality).
        width_per_group: ResNeXt's bottleneck width d at base width 64.
        reduce_divisor: Width of the 3x3 divided by the width of the first 1x1 (SENet-154: 2).
        strided_conv: Which convolution of a bottleneck has the strides, 1 or 2.
        projection_kernel: Kernel size of the shortcuts with stride 2.
        average_shortcut: See `UnitShape`.
        antialias: See `UnitShape`.
        stem: Builds the layers down to half the input's size.
        stem_pool: The pooling after the stem.
        squeeze_divisor: Rule for the number of units of an SE block, see `SEConfig`.
        relu_before_se: See `UnitShape`.
    """

    unit: Unit = bottleneck
    num_blocks: tuple[int, int, int, int]
    expansion: int = 4
    groups: int = 1
    width_per_group: int = 64
    reduce_divisor: int = 1
    strided_conv: int = 2
    projection_kernel: int = 1
    average_shortcut: bool = False
    antialias: bool = False
    stem: Callable[[Any], Any] = conv7_stem
    stem_pool: Callable[[Any, str], Any] = ceil_pool
    squeeze_divisor: int = 1
    relu_before_se: bool = False


def resnet(x: Any, spec: ResNetSpec, se: SEConfig | None) -> Any:
    """Computes the features of an ImageNet residual network; the shapes in comments are for 224x224 and SE-ResNet-50.

    Args:
        x: Normalized images, (batch, height, width, channels), or channels second.
        spec: The network's settings.
        se: Its SE blocks, or None.

    Returns:
        Tensor of shape (batch, height / 32, width / 32, 512 * expansion). Convolutions round odd
        sizes up, Caffe's stem pooling rounds them down.
    """
    if se is not None and se.squeeze_divisor is None:
        se = dataclasses.replace(se, squeeze_divisor=spec.squeeze_divisor)
    x = endpoint(spec.stem(x), "stem")  # (112, 112, 64)
    x = spec.stem_pool(x, "stem_pool")  # (56, 56, 64)
    for stage, num_blocks in enumerate(spec.num_blocks, start=2):
        base = 64 * 2 ** (stage - 2)
        width = base * spec.width_per_group // 64 * spec.groups
        shape = UnitShape(
            filters=base * spec.expansion,
            width=width,
            reduce_width=width // spec.reduce_divisor,
            groups=spec.groups,
            strided_conv=spec.strided_conv,
            average_shortcut=spec.average_shortcut,
            antialias=spec.antialias,
            relu_before_se=spec.relu_before_se,
        )
        first = dataclasses.replace(shape, strides=2, projection_kernel=spec.projection_kernel)
        x = _stage(x, spec.unit, stage, [first if stage > 2 else shape] + [shape] * (num_blocks - 1), se)
        # stage 2 (56, 56, 256), 3 (28, 28, 512), 4 (14, 14, 1024), 5 (7, 7, 2048)
    return x


def _stage(x: Any, unit: Unit, stage: int, shapes: list[UnitShape], se: SEConfig | None) -> Any:
    se = se and se.at_stage(stage)
    for block, shape in enumerate(shapes, start=1):
        x = unit(x, shape, se, f"stage{stage}_block{block}")
    return endpoint(x, f"stage{stage}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CifarSpec:
    """The settings of a CIFAR residual network.

    Args:
        unit: Builds one residual block.
        num_blocks: Number of blocks in each of the three stages.
        width: Base width of the first stage. Doubles with each stage.
        expansion: Output channels of a block divided by its base width.
        preactivation: Whether batch normalization and ReLU precede the convolutions. The stem then
            has none, and the last stage needs one more.
    """

    unit: Unit
    num_blocks: int
    width: int = 16
    expansion: int = 1
    preactivation: bool = False


def cifar_resnet(x: Any, spec: CifarSpec, se: SEConfig | None) -> Any:
    """Computes the features of a CIFAR residual network; the shapes in comments are for 32x32 and SE-ResNet-20.

    Args:
        x: Normalized images, (batch, height, width, channels), or channels second.
        spec: The network's settings.
        se: Its SE blocks, or None.

    Returns:
        Tensor of shape (batch, height / 4, width / 4, 4 * width * expansion), sizes rounded up.
    """
    stem = conv if spec.preactivation else conv_norm_act
    x = endpoint(stem(x, 16, 3, name="stem_{}"), "stem")  # (32, 32, 16)
    for stage in (2, 3, 4):
        base = spec.width * 2 ** (stage - 2)
        shape = UnitShape(filters=base * spec.expansion, width=base, reduce_width=base)
        first = dataclasses.replace(shape, strides=2 if stage > 2 else 1)
        shapes = [first] + [shape] * (spec.num_blocks - 1)
        x = _stage(x, spec.unit, stage, shapes, se)  # (32, 32, 16), (16, 16, 32), (8, 8, 64)
    return norm_act(x, name="final_{}") if spec.preactivation else x


_PAPER = "Reference: Hu et al., arXiv 1709.01507v4; structure as in the authors' released networks."
_TORCH_LINEAGE: dict[str, Any] = {"strided_conv": 2, "stem_pool": centred_pool, "squeeze_divisor": 8}


def _imagenet(title: str, about: str, *, dropout: float = 0.0, legacy: bool = False, **numbers: Any) -> Network:
    spec = ResNetSpec(**numbers)
    lineages = {"timm": dataclasses.replace(spec, **_TORCH_LINEAGE)}
    if legacy:
        lineages["legacy"] = dataclasses.replace(spec, relu_before_se=True)
    return Network(
        title=title,
        about=f"{about} {_PAPER}",
        skeleton=resnet,
        spec=spec,
        lineages=lineages,
        dropout=dropout,
    )


def _timm(title: str, about: str, **numbers: Any) -> Network:
    """Describes a network that only timm has, and whose own structure is therefore timm's."""
    network = _imagenet(title, about, **numbers)
    return dataclasses.replace(
        network,
        about=f"{about} Not in the paper (arXiv 1709.01507); structure as in timm.",
        spec=network.lineages["timm"],
    )


def _antialiased(title: str, stem: Callable[[Any], Any], num_blocks: tuple[int, int, int, int]) -> Network:
    """Describes one of timm's networks in which averages over 2x2 positions replace every stride."""
    network = _timm(
        title,
        f"{_DEEP} Averages over 2x2 positions replace the strides of the bottlenecks and the pooling of the stem.",
        num_blocks=num_blocks,
        antialias=True,
        **(_D | {"stem": stem} | _32X8D),
    )
    return dataclasses.replace(network, spec=dataclasses.replace(network.spec, stem_pool=average_pool), lineages={})


def _rs(depth: int, num_blocks: tuple[int, int, int, int], size: int) -> Network:
    """Describes a ResNet-RS."""
    network = _timm(
        f"ResNet-RS-{depth}",
        f"{_DEEP} A 3x3 convolution with stride 2 takes the place of the stem's pooling; SE has reduction 4. "
        "Reference: Bello et al., arXiv 2103.07579.",
        num_blocks=num_blocks,
        **_D,
    )
    return dataclasses.replace(
        network,
        spec=dataclasses.replace(network.spec, stem_pool=strided_conv_pool),
        lineages={},
        preprocessing=Preprocessing(size=size, interpolation="bicubic"),
        own_se=SEConfig(reduction=4, activation="relu", gate_activation="sigmoid"),
    )


def _cifar(title: str, about: str, **numbers: Any) -> Network:
    return Network(
        title=title,
        about=about,
        skeleton=cifar_resnet,
        spec=CifarSpec(**numbers),
        preprocessing=Preprocessing(size=32, crop=1.0, mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616)),
        min_size=8,
        stages=(2, 3, 4),
        classes=10,
    )


_BASIC = "Basic blocks. Not in the paper; SE is placed as in its bottleneck networks."
_BOTTLENECK = "Bottleneck blocks, with the stride of a stage in the first 1x1 convolution, as in Caffe's ResNet."
_RESNEXT = "Bottleneck blocks with a grouped 3x3 convolution, which has the stride of a stage."
_DEEP = "Three 3x3 convolutions as the stem, and shortcuts with stride 2 that average before they project."
_D: dict[str, Any] = {"stem": functools.partial(conv3_stem, widths=(32, 32, 64)), "average_shortcut": True}
_T: dict[str, Any] = {"stem": functools.partial(conv3_stem, widths=(24, 32, 64)), "average_shortcut": True}
_32X4D: dict[str, Any] = {"groups": 32, "width_per_group": 4}
_32X8D: dict[str, Any] = {"groups": 32, "width_per_group": 8}
_CIFAR = "For 32x32 images; stages at strides 1, 2, and 4. Structure: He et al., arXiv 1512.03385, section 4.2, with"
_CIFAR_BASIC = f"{_CIFAR} projecting shortcuts (1x1 convolution and batch normalization). Not in the SE paper."
_PREACT = "For 32x32 images; stages at strides 1, 2, and 4; batch normalization and ReLU precede convolutions. From:"

NETWORKS: dict[str, Network] = {
    "se_resnet18": _imagenet("SE-ResNet-18", _BASIC, unit=basic, num_blocks=(2, 2, 2, 2), expansion=1, legacy=True),
    "se_resnet34": _imagenet("SE-ResNet-34", _BASIC, unit=basic, num_blocks=(3, 4, 6, 3), expansion=1, legacy=True),
    "se_resnet50": _imagenet("SE-ResNet-50", _BOTTLENECK, num_blocks=(3, 4, 6, 3), strided_conv=1),
    "se_resnet101": _imagenet("SE-ResNet-101", _BOTTLENECK, num_blocks=(3, 4, 23, 3), strided_conv=1),
    "se_resnet152": _imagenet("SE-ResNet-152", _BOTTLENECK, num_blocks=(3, 8, 36, 3), strided_conv=1),
    "se_resnet152d": _timm(
        "SE-ResNet-152-D",
        f"Bottleneck blocks, with the stride in the 3x3 convolution. {_DEEP}",
        num_blocks=(3, 8, 36, 3),
        **_D,
    ),
    "se_resnext26": _imagenet("SE-ResNeXt-26 (32x4d)", _RESNEXT, num_blocks=(2, 2, 2, 2), **_32X4D),
    "se_resnext26d": _timm("SE-ResNeXt-26-D (32x4d)", f"{_RESNEXT} {_DEEP}", num_blocks=(2, 2, 2, 2), **_32X4D, **_D),
    "se_resnext26t": _timm(
        "SE-ResNeXt-26-T (32x4d)",
        f"{_RESNEXT} {_DEEP} The stem is tiered: 24, 32, and 64 channels.",
        num_blocks=(2, 2, 2, 2),
        **_32X4D,
        **_T,
    ),
    "se_resnext50": _imagenet("SE-ResNeXt-50 (32x4d)", _RESNEXT, num_blocks=(3, 4, 6, 3), **_32X4D),
    "se_resnext101": _imagenet("SE-ResNeXt-101 (32x4d)", _RESNEXT, num_blocks=(3, 4, 23, 3), **_32X4D),
    "se_resnext101_64x4d": _imagenet(
        "SE-ResNeXt-101 (64x4d)", _RESNEXT, num_blocks=(3, 4, 23, 3), groups=64, width_per_group=4
    ),
    "se_resnext101_32x8d": _timm("SE-ResNeXt-101 (32x8d)", _RESNEXT, num_blocks=(3, 4, 23, 3), **_32X8D),
    "se_resnext101d_32x8d": _timm(
        "SE-ResNeXt-101-D (32x8d)", f"{_RESNEXT} {_DEEP}", num_blocks=(3, 4, 23, 3), **_32X8D, **_D
    ),
    "seresnextaa101d_32x8d": _antialiased("SE-ResNeXt-AA-101-D (32x8d)", _D["stem"], (3, 4, 23, 3)),
    "seresnextaa201d_32x8d": _antialiased("SE-ResNeXt-AA-201-D (32x8d)", conv3_stem, (3, 24, 36, 4)),
    "resnetrs50": _rs(50, (3, 4, 6, 3), 160),
    "resnetrs101": _rs(101, (3, 4, 23, 3), 192),
    "resnetrs152": _rs(152, (3, 8, 36, 3), 256),
    "resnetrs200": _rs(200, (3, 24, 36, 3), 256),
    "resnetrs270": _rs(270, (4, 29, 53, 4), 256),
    "resnetrs350": _rs(350, (4, 36, 72, 4), 288),
    "resnetrs420": _rs(420, (4, 44, 87, 4), 320),
    "senet154": _imagenet(
        "SENet-154",
        "The authors' ILSVRC 2017 entry: three 3x3 convolutions as the stem, 64 groups, first 1x1 of half width, "
        "3x3 projections, dropout 0.2.",
        num_blocks=(3, 8, 36, 3),
        groups=64,
        width_per_group=4,
        reduce_divisor=2,
        projection_kernel=3,
        stem=conv3_stem,
        dropout=0.2,
    ),
    "se_resnet20": _cifar("SE-ResNet-20", _CIFAR_BASIC, unit=basic, num_blocks=3),
    "se_resnet32": _cifar("SE-ResNet-32", _CIFAR_BASIC, unit=basic, num_blocks=5),
    "se_resnet44": _cifar("SE-ResNet-44", _CIFAR_BASIC, unit=basic, num_blocks=7),
    "se_resnet56": _cifar("SE-ResNet-56", _CIFAR_BASIC, unit=basic, num_blocks=9),
    "se_resnet110": _cifar("SE-ResNet-110", _CIFAR_BASIC, unit=basic, num_blocks=18),
    "se_preresnet110": _cifar(
        "SE-ResNet-110 (pre-activation)",
        f"{_PREACT} He et al., arXiv 1603.05027, which the SE paper's CIFAR ResNet-110 cites.",
        unit=preact_basic,
        num_blocks=18,
        preactivation=True,
    ),
    "se_preresnet164": _cifar(
        "SE-ResNet-164 (pre-activation)",
        f"{_PREACT} He et al., arXiv 1603.05027, which the SE paper's CIFAR ResNet-164 cites.",
        unit=preact_bottleneck,
        num_blocks=18,
        expansion=4,
        preactivation=True,
    ),
    "se_wide_resnet16_8": _cifar(
        "SE-WRN-16-8",
        f"{_PREACT} Zagoruyko and Komodakis, arXiv 1605.07146; with SE in arXiv 1709.01507v4, Tables 4 and 5.",
        unit=preact_basic,
        num_blocks=2,
        width=128,
        preactivation=True,
    ),
}
