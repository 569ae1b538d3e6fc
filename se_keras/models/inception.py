"""SE-BN-Inception, SE-Inception-v3, and SE-Inception-ResNet-v2: their skeletons and tables."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

from keras import layers

from se_keras.blocks.conv_norm_act import INCEPTION, TORCH, conv_norm_act
from se_keras.blocks.excitation import SEConfig, excite
from se_keras.blocks.inception import Branches, chain, forked_module, module, residual_module
from se_keras.images.record import Preprocessing
from se_keras.models.network import Network, endpoint
from se_keras.models.resnet import ceil_pool


@dataclasses.dataclass(frozen=True, kw_only=True)
class BNInceptionRow:
    """The widths of one BN-Inception module. A width of 0 omits a part.

    Args:
        conv1x1: Filters of the 1x1 branch.
        conv3x3: Filters of the 1x1 and the 3x3 convolution.
        double3x3: Filters of the 1x1 and of both 3x3 convolutions.
        projection: Filters of the 1x1 convolution after the pooling.
        pool: "avg", "max", or "reduce": a module with stride 2 whose max pooling has no projection.
    """

    conv1x1: int = 0
    conv3x3: tuple[int, int]
    double3x3: tuple[int, int]
    projection: int = 0
    pool: str = "avg"


# The authors call the rows 3a 3b | 3c 4a 4b 4c 4d | 4e 5a 5b; here, a stage begins with its stride of 2.
BN_INCEPTION: dict[int, tuple[BNInceptionRow, ...]] = {
    3: (
        BNInceptionRow(conv1x1=64, conv3x3=(64, 64), double3x3=(64, 96), projection=32),
        BNInceptionRow(conv1x1=64, conv3x3=(64, 96), double3x3=(64, 96), projection=64),
    ),
    4: (
        BNInceptionRow(conv3x3=(128, 160), double3x3=(64, 96), pool="reduce"),
        BNInceptionRow(conv1x1=224, conv3x3=(64, 96), double3x3=(96, 128), projection=128),
        BNInceptionRow(conv1x1=192, conv3x3=(96, 128), double3x3=(96, 128), projection=128),
        BNInceptionRow(conv1x1=160, conv3x3=(128, 160), double3x3=(128, 160), projection=128),
        BNInceptionRow(conv1x1=96, conv3x3=(128, 192), double3x3=(160, 192), projection=128),
    ),
    5: (
        BNInceptionRow(conv3x3=(128, 192), double3x3=(192, 256), pool="reduce"),
        BNInceptionRow(conv1x1=352, conv3x3=(192, 320), double3x3=(160, 224), projection=128),
        BNInceptionRow(conv1x1=352, conv3x3=(192, 320), double3x3=(192, 224), projection=128, pool="max"),
    ),
}


def bn_inception(x: Any, rows: dict[int, tuple[BNInceptionRow, ...]], se: SEConfig | None) -> Any:
    """Computes the features of BN-Inception; the shapes in comments are for 224x224.

    Args:
        x: Normalized images, (batch, height, width, channels), or channels second.
        rows: The modules of each stage.
        se: The SE block after each concatenation, or None.

    Returns:
        Tensor of shape (batch, height / 32, width / 32, 1024). Convolutions and modules round odd
        sizes up, the first two poolings round them down.
    """
    x = endpoint(conv_norm_act(x, 64, 7, name="stem_{}", strides=2), "stem")  # (112, 112, 64)
    x = ceil_pool(x, "stem_pool")  # (56, 56, 64)
    x = conv_norm_act(x, 64, 1, name="stage2_{}1")
    x = endpoint(conv_norm_act(x, 192, 3, name="stage2_{}2"), "stage2")  # (56, 56, 192)
    x = ceil_pool(x, "stage2_pool")  # (28, 28, 192)
    for stage, stage_rows in rows.items():
        for block, row in enumerate(stage_rows, start=1):
            name = f"stage{stage}_block{block}"
            x = _bn_inception_module(x, row, name)
            x = excite(x, se and se.at_stage(stage), f"{name}_se")
        x = endpoint(x, f"stage{stage}")  # (28, 28, 320), (14, 14, 608), (7, 7, 1024)
    return x


def _bn_inception_module(x: Any, row: BNInceptionRow, name: str) -> Any:
    strides = (2,) if row.pool == "reduce" else ()
    reduce, filters = row.double3x3
    branches = {
        "1x1": ((row.conv1x1, 1),),
        "3x3": ((row.conv3x3[0], 1), (row.conv3x3[1], 3, *strides)),
        "double3x3": ((reduce, 1), (filters, 3), (filters, 3, *strides)),
    }
    if not row.conv1x1:
        del branches["1x1"]

    def pool(x: Any) -> Any:
        if row.pool == "reduce":  # Caffe's for even sizes; for odd ones, Caffe's map would not fit the other branches
            return layers.MaxPooling2D(3, 2, padding="same", name=f"{name}_pool")(x)
        if row.pool == "max":
            x = layers.MaxPooling2D(3, 1, padding="same", name=f"{name}_pool")(x)
        else:  # the mean includes the padding, as in Caffe but unlike "same" in Keras
            x = layers.ZeroPadding2D(1, name=f"{name}_pool_pad")(x)
            x = layers.AveragePooling2D(3, 1, name=f"{name}_pool")(x)
        return chain(x, ((row.projection, 1),), name=f"{name}_pool", style=TORCH)

    return module(x, branches, pool=pool, name=name, style=TORCH, strided_padding="style")


def _average_then(filters: int, name: str) -> Any:
    def pool(x: Any) -> Any:
        x = layers.AveragePooling2D(3, 1, padding="same", name=f"{name}_pool")(x)
        return chain(x, ((filters, 1),), name=f"{name}_pool", style=INCEPTION)

    return pool


def _max_reduce(name: str) -> Any:
    return layers.MaxPooling2D(3, 2, name=f"{name}_pool")


def _inception_stem(x: Any) -> Any:
    """Applies the layers down to 1/8 of the input's size, which Inception-v3 and Inception-ResNet-v2 share."""
    x = conv_norm_act(x, 32, 3, name="stem_{}1", strides=2, padding="valid", style=INCEPTION)  # (149, 149, 32)
    x = conv_norm_act(x, 32, 3, name="stem_{}2", padding="valid", style=INCEPTION)
    x = endpoint(conv_norm_act(x, 64, 3, name="stem_{}3", style=INCEPTION), "stem")  # (147, 147, 64)
    x = layers.MaxPooling2D(3, 2, name="stem_pool")(x)  # (73, 73, 64)
    x = conv_norm_act(x, 80, 1, name="stage2_{}1", padding="valid", style=INCEPTION)
    x = conv_norm_act(x, 192, 3, name="stage2_{}2", padding="valid", style=INCEPTION)
    x = endpoint(x, "stage2")  # (71, 71, 192)
    return layers.MaxPooling2D(3, 2, name="stage2_pool")(x)  # (35, 35, 192)


def _excited_module(x: Any, branches: Branches, name: str, se: SEConfig | None, *, pool: Callable[[Any], Any]) -> Any:
    return excite(module(x, branches, pool=pool, name=name, style=INCEPTION), se, f"{name}_se")


def _factorized(width: int) -> Branches:
    double = ((width, 1), (width, (7, 1)), (width, (1, 7)), (width, (7, 1)), (192, (1, 7)))
    return {"1x1": ((192, 1),), "7x7": ((width, 1), (width, (1, 7)), (192, (7, 1))), "double7x7": double}


def inception_v3(x: Any, spec: None, se: SEConfig | None) -> Any:
    """Computes the features of Inception-v3; the shapes in comments are for 299x299.

    Args:
        x: Normalized images, (batch, height, width, channels), or channels second.
        spec: Not used: there is one variant.
        se: The SE block after each of the 11 concatenations, or None.

    Returns:
        Tensor of shape (batch, 8, 8, 2048).
    """
    x = _inception_stem(x)
    se3, se4, se5 = (se and se.at_stage(stage) for stage in (3, 4, 5))
    for block, projection in enumerate((32, 64, 64), start=1):
        name = f"stage3_block{block}"
        branches = {"1x1": ((64, 1),), "5x5": ((48, 1), (64, 5)), "double3x3": ((64, 1), (96, 3), (96, 3))}
        x = _excited_module(x, branches, name, se3, pool=_average_then(projection, name))
    x = endpoint(x, "stage3")  # (35, 35, 288)

    reduction: Branches = {"3x3": ((384, 3, 2),), "double3x3": ((64, 1), (96, 3), (96, 3, 2))}
    x = _excited_module(x, reduction, "stage4_block1", se4, pool=_max_reduce("stage4_block1"))
    for block, width in enumerate((128, 160, 160, 192), start=2):
        name = f"stage4_block{block}"
        x = _excited_module(x, _factorized(width), name, se4, pool=_average_then(192, name))
    x = endpoint(x, "stage4")  # (17, 17, 768)

    reduction = {"3x3": ((192, 1), (320, 3, 2)), "7x7": ((192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3, 2))}
    x = _excited_module(x, reduction, "stage5_block1", se5, pool=_max_reduce("stage5_block1"))
    for block in (2, 3):
        name = f"stage5_block{block}"
        x = forked_module(x, pool=_average_then(192, name), name=name, style=INCEPTION)
        x = excite(x, se5, f"{name}_se")
    return endpoint(x, "stage5")  # (8, 8, 2048)


_BLOCK35: Branches = {"1x1": ((32, 1),), "3x3": ((32, 1), (32, 3)), "double3x3": ((32, 1), (48, 3), (64, 3))}
_BLOCK17: Branches = {"1x1": ((192, 1),), "7x7": ((128, 1), (160, (1, 7)), (192, (7, 1)))}
_BLOCK8: Branches = {"1x1": ((192, 1),), "3x3": ((192, 1), (224, (1, 3)), (256, (3, 1)))}


def inception_resnet_v2(x: Any, spec: None, se: SEConfig | None) -> Any:
    """Computes the features of Inception-ResNet-v2; the shapes in comments are for 299x299.

    Args:
        x: Normalized images, (batch, height, width, channels), or channels second.
        spec: Not used: there is one variant.
        se: The SE block of each of the 40 residual modules, at its position, and after the
            3 other concatenations; or None.

    Returns:
        Tensor of shape (batch, 8, 8, 1536).
    """
    x = _inception_stem(x)
    concat_se = se and dataclasses.replace(se, position="standard")
    first: dict[int, Branches] = {
        3: {"1x1": ((96, 1),), "5x5": ((48, 1), (64, 5)), "double3x3": ((64, 1), (96, 3), (96, 3))},
        4: {"3x3": ((384, 3, 2),), "double3x3": ((256, 1), (256, 3), (384, 3, 2))},
        5: {
            "3x3a": ((256, 1), (384, 3, 2)),
            "3x3b": ((256, 1), (288, 3, 2)),
            "double3x3": ((256, 1), (288, 3), (320, 3, 2)),
        },
    }
    repeated: dict[int, tuple[Branches, int, float]] = {
        3: (_BLOCK35, 10, 0.17),
        4: (_BLOCK17, 20, 0.1),
        5: (_BLOCK8, 10, 0.2),
    }
    for stage in (3, 4, 5):
        name = f"stage{stage}_block1"
        pool = _average_then(64, name) if stage == 3 else _max_reduce(name)
        x = _excited_module(x, first[stage], name, concat_se and concat_se.at_stage(stage), pool=pool)
        branches, repeats, scale = repeated[stage]
        for block in range(2, repeats + 2):
            is_last = stage == 5 and block == repeats + 1
            x = residual_module(
                x,
                branches,
                scale=1 if is_last else scale,
                activation=None if is_last else "relu",
                se=se and se.at_stage(stage),
                name=f"stage{stage}_block{block}",
                style=INCEPTION,
            )
        if stage < 5:
            x = endpoint(x, f"stage{stage}")  # (35, 35, 320), (17, 17, 1088)
    return endpoint(conv_norm_act(x, 1536, 1, name="stage5_{}", style=INCEPTION), "stage5")  # (8, 8, 1536)


_HALF = (0.5, 0.5, 0.5)
_INCEPTION_INPUT = Preprocessing(size=299, crop=299 / 352, interpolation="bilinear", mean=_HALF, std=_HALF)
# What the two networks of keras.applications share.
_keras_network = functools.partial(
    Network, spec=None, preprocessing=_INCEPTION_INPUT, min_size=75, stages=(3, 4, 5), dropout=0.2
)

NETWORKS: dict[str, Network] = {
    "se_bn_inception": Network(
        title="SE-BN-Inception",
        about="SE after the concatenation of each of the 10 modules. Reference: Hu et al., arXiv 1709.01507v4; "
        "structure as in the authors' released network. Here, a stage begins with its module of stride 2: "
        "the authors' 3c is stage4_block1, and their 4e is stage5_block1.",
        skeleton=bn_inception,
        spec=BN_INCEPTION,
        stages=(3, 4, 5),
        positions=("standard",),
    ),
    "se_inception_v3": _keras_network(
        title="SE-Inception-v3",
        about="SE after each of the 11 concatenations of keras.applications.InceptionV3. The paper has no such "
        "network; the placement follows its SE-BN-Inception (section 3.3, figure 2).",
        skeleton=inception_v3,
        positions=("standard",),
    ),
    "se_inception_resnet_v2": _keras_network(
        title="SE-Inception-ResNet-v2",
        about="keras.applications.InceptionResNetV2 with SE on the branch of each of the 40 residual modules, after "
        "its linear convolution and before the scaling, and after the 3 other concatenations. The paper reports "
        "the network (Table 2) without publishing the placement: this one applies section 3.3 to residual branches.",
        skeleton=inception_resnet_v2,
        positions=("standard", "pre", "post", "identity"),
    ),
}
