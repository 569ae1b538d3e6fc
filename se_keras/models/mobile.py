"""The mobile networks of the paper: SE-MobileNet and SE-ShuffleNet."""

from __future__ import annotations

import dataclasses
from typing import Any

from se_keras.blocks.conv_norm_act import TENSORFLOW, conv_norm_act
from se_keras.blocks.excitation import SEConfig
from se_keras.blocks.mobile import separable, shuffle_unit
from se_keras.images.record import Preprocessing
from se_keras.models.network import Network, endpoint
from se_keras.models.resnet import centred_pool

# Filters of the separable convolutions of each stage; the first of stages 2 to 5 has stride 2.
MOBILENET = {1: (64,), 2: (128, 128), 3: (256, 256), 4: (512,) * 6, 5: (1024, 1024)}


def mobilenet(x: Any, widths: dict[int, tuple[int, ...]], se: SEConfig | None) -> Any:
    """Computes the features of MobileNet v1; the shapes in comments are for 224x224.

    Args:
        x: Normalized images, (batch, height, width, channels), or channels second.
        widths: Filters of the separable convolutions of each stage.
        se: The SE block after each pointwise convolution, or None.

    Returns:
        Tensor of shape (batch, height / 32, width / 32, 1024). The stem's stride rounds odd sizes up,
        the others round them down.
    """
    x = conv_norm_act(x, 32, 3, name="stem_{}", strides=2, style=TENSORFLOW, activation="relu6")  # (112, 112, 32)
    for stage, filters in widths.items():
        for block, width in enumerate(filters, start=1):
            strides = 2 if stage > 1 and block == 1 else 1
            name = f"stage{stage}_block{block}"
            x = separable(x, width, strides=strides, se=se and se.at_stage(stage), name=name)
        x = endpoint(x, "stem" if stage == 1 else f"stage{stage}")
        # (112, 112, 64), (56, 56, 128), (28, 28, 256), (14, 14, 512), (7, 7, 1024)
    return x


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShuffleNetSpec:
    """The settings of a ShuffleNet v1.

    Args:
        groups: Number of groups of the 1x1 convolutions.
        filters: Number of output channels of stages 3, 4, and 5.
        num_blocks: Number of blocks in stages 3, 4, and 5.
    """

    groups: int
    filters: tuple[int, int, int]
    num_blocks: tuple[int, int, int] = (4, 8, 4)


def shufflenet(x: Any, spec: ShuffleNetSpec, se: SEConfig | None) -> Any:
    """Computes the features of ShuffleNet v1; the shapes in comments are for 224x224 and 3 groups.

    Args:
        x: Normalized images, (batch, height, width, channels), or channels second.
        spec: The network's settings.
        se: The SE block at the end of each block's branch, or None.

    Returns:
        Tensor of shape (batch, height / 32, width / 32, filters of stage 5), sizes rounded up.
    """
    x = endpoint(conv_norm_act(x, 24, 3, name="stem_{}", strides=2), "stem")  # (112, 112, 24)
    x = endpoint(centred_pool(x, "stem_pool"), "stage2")  # (56, 56, 24)
    for stage, filters, num_blocks in zip((3, 4, 5), spec.filters, spec.num_blocks, strict=True):
        for block in range(1, num_blocks + 1):
            is_first = stage == 3 and block == 1
            x = shuffle_unit(
                x,
                filters,
                strides=2 if block == 1 else 1,
                groups=spec.groups,
                first_groups=1 if is_first else spec.groups,
                se=se and se.at_stage(stage),
                name=f"stage{stage}_block{block}",
            )
        x = endpoint(x, f"stage{stage}")  # (28, 28, 240), (14, 14, 480), (7, 7, 960)
    return x


NETWORKS: dict[str, Network] = {
    "se_mobilenet": Network(
        title="SE-MobileNet",
        about="MobileNet v1 (1.0, 224) with SE after the pointwise convolution of each of its 13 blocks. The paper "
        "(arXiv 1709.01507v4, Table 3) does not publish the placement: only this one has its parameter count, "
        "4.7 M.",
        skeleton=mobilenet,
        spec=MOBILENET,
        preprocessing=Preprocessing(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
        stages=(1, 2, 3, 4, 5),
        positions=("standard",),
        dropout=1e-3,
    ),
    "se_shufflenet": Network(
        title="SE-ShuffleNet",
        about="ShuffleNet v1 (1x, 3 groups) with SE at the end of each block's branch, before the addition or "
        "concatenation. The paper (arXiv 1709.01507v4, Table 3) does not publish the placement: only this one has "
        "its parameter count, 2.4 M. The branch of the first block has 216 channels; its 216 / 16 units are "
        "rounded down to 13.",
        skeleton=shufflenet,
        spec=ShuffleNetSpec(groups=3, filters=(240, 480, 960)),
        stages=(3, 4, 5),
        positions=("standard",),
    ),
}
