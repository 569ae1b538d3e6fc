"""RegNetY: residual networks whose widths follow a quantized line, with SE inside the bottleneck."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from se_keras.blocks.conv_norm_act import conv_norm_act
from se_keras.blocks.excitation import SEConfig, divisible
from se_keras.blocks.residual import UnitShape, regnet_unit
from se_keras.models.network import Network, endpoint

STEM_WIDTH = 32
WIDTH_STEP = 8  # the rule rounds to multiples of it


def nearest_groups(width: int, group_width: int) -> int:
    """Returns the multiple of a group's width that is nearest to a width; in a tie, the one with an even factor."""
    return round(width / group_width) * group_width


@dataclasses.dataclass(frozen=True, kw_only=True)
class RegNetSpec:
    """The parameters of a RegNet; arXiv 2003.13678, section 3.3, equations 2 to 4.

    Args:
        depth: Number of blocks.
        initial_width: The paper's w_0: width of the first block.
        slope: The paper's w_a: growth of the width per block, before quantization.
        multiplier: The paper's w_m: factor between the widths of successive stages.
        group_width: Channels per group of the 3x3 convolutions, at most the stage's width.
        in_groups: Rounds a stage's width to whole groups of a width.
    """

    depth: int
    initial_width: int
    slope: float
    multiplier: float
    group_width: int
    in_groups: Callable[[int, int], int] = nearest_groups


def stages_of(spec: RegNetSpec) -> Iterator[tuple[int, int, int]]:
    """Yields the number of blocks, the width, and the number of groups of each stage.

    Args:
        spec: The network's parameters.
    """
    line = spec.initial_width + spec.slope * np.arange(spec.depth)
    steps = np.round(np.log(line / spec.initial_width) / np.log(spec.multiplier))
    widths = np.round(spec.initial_width * spec.multiplier**steps / WIDTH_STEP) * WIDTH_STEP
    for width, count in zip(*np.unique(widths.astype(int), return_counts=True), strict=True):
        group_width = min(spec.group_width, int(width))
        whole = spec.in_groups(int(width), group_width)
        yield int(count), whole, whole // group_width


def regnet(x: Any, spec: RegNetSpec, se: SEConfig | None) -> Any:
    """Computes the features of a RegNet; without SE, of a RegNetX.

    Args:
        x: Normalized images, (batch, height, width, channels), or channels second.
        spec: The network's parameters.
        se: Its SE blocks, or None.

    Returns:
        Tensor of shape (batch, height / 32, width / 32, width of the last stage), sizes rounded up.
    """
    x = endpoint(conv_norm_act(x, STEM_WIDTH, 3, name="stem_{}", strides=2), "stem")
    for stage, (num_blocks, width, groups) in enumerate(stages_of(spec), start=2):
        shape = UnitShape(filters=width, width=width, reduce_width=width, groups=groups)
        stage_se = se and se.at_stage(stage)
        for block in range(1, num_blocks + 1):
            strided = dataclasses.replace(shape, strides=2 if block == 1 else 1)
            x = regnet_unit(x, strided, stage_se, f"stage{stage}_block{block}")
        x = endpoint(x, f"stage{stage}")
    return x


_ABOUT = (
    "Widths by a linear rule, and SE after the 3x3 convolutions, sized by the block's input. Reference: Radosavovic et "
    "al., arXiv 2003.13678; structure as in timm{}."
)


def _row(name: str, *numbers: Any, in_groups: Callable[[int, int], int] = nearest_groups) -> Network:
    depth, initial_width, slope, multiplier, group_width = numbers
    return Network(
        title=f"RegNetY-{name}",
        about=_ABOUT.format(", with torchvision's rule for the widths" if in_groups is divisible else ""),
        skeleton=regnet,
        spec=RegNetSpec(
            depth=depth,
            initial_width=initial_width,
            slope=slope,
            multiplier=multiplier,
            group_width=group_width,
            in_groups=in_groups,
        ),
        positions=("standard",),
        own_se=SEConfig(reduction=4, activation="relu", gate_activation="sigmoid"),
    )


NETWORKS: dict[str, Network] = {
    "regnety_002": _row("200MF", 13, 24, 36.44, 2.49, 8),
    "regnety_004": _row("400MF", 16, 48, 27.89, 2.09, 8),
    "regnety_006": _row("600MF", 15, 48, 32.54, 2.32, 16),
    "regnety_008": _row("800MF", 14, 56, 38.84, 2.4, 16),
    "regnety_008_tv": _row("800MF", 14, 56, 38.84, 2.4, 16, in_groups=divisible),
    "regnety_016": _row("1.6GF", 27, 48, 20.71, 2.65, 24),
    "regnety_032": _row("3.2GF", 21, 80, 42.63, 2.66, 24),
    "regnety_040": _row("4.0GF", 22, 96, 31.41, 2.24, 64),
    "regnety_064": _row("6.4GF", 25, 112, 33.22, 2.27, 72),
    "regnety_080": _row("8.0GF", 17, 192, 76.82, 2.19, 56),
    "regnety_080_tv": _row("8.0GF", 17, 192, 76.82, 2.19, 56, in_groups=divisible),
    "regnety_120": _row("12GF", 19, 168, 73.36, 2.37, 112),
    "regnety_160": _row("16GF", 18, 200, 106.23, 2.48, 112),
    "regnety_320": _row("32GF", 20, 232, 115.89, 2.53, 232),
    "regnety_640": _row("64GF", 20, 352, 147.48, 2.4, 328),
    "regnety_1280": _row("128GF", 27, 456, 160.83, 2.52, 264),
}
