"""The configuration of a network's SE blocks, and their placement."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from se_keras.blocks.conv_norm_act import channels_of
from se_keras.errors import check_count, one_of
from se_keras.layers import SqueezeExcite
from se_keras.layers.squeeze_excite import GATE_INITS, GATES, SQUEEZES

POSITIONS = ("standard", "pre", "post", "identity", "conv3x3")


@dataclasses.dataclass(frozen=True)
class SEConfig:
    """The configuration of a network's SE blocks; `se=None` in its place builds the plain network.

    Reference: arXiv 1709.01507v4, section 3 for the defaults, section 6 for the alternatives.

    Args:
        reduction: The paper's r, at least 1 (Table 10). None: the network's own, which is 16 unless
            its builder says otherwise.
        squeeze: "avg", "max", or "avgmax" (Table 11).
        activation: Activation between the two projections, such as "relu". None: the network's own.
        gate_activation: "sigmoid", "hard_sigmoid", "tanh", or "relu" (Table 12). None: the network's own.
        use_bias: Whether the projections have biases. The released networks have them; those of
            the paper's ablations do not.
        position: "standard": the network's own, which in residual networks is on the branch after its
            last batch normalization, before the addition. "pre": on the branch's input; the shortcut
            bypasses it. "post": after the addition and its ReLU. "identity": on the shortcut.
            "conv3x3": after the branch's first 3x3 convolution, batch normalization, and ReLU
            (Tables 14 and 15).
        stages: Stages with SE blocks, from 1 to 5, by resolution (Table 13). In the ImageNet
            networks, stage 2 is at 1/4 of the input's size and stage 5 at 1/32. The CIFAR
            networks have stages 2 to 4, at full size, 1/2, and 1/4. None: all stages of the
            network.
        squeeze_divisor: The number of units is rounded to a multiple of this, and is at
            least this. None: the network's own rule (1 for the paper's, which rounds down).
        gate_init: "default" or "identity" (see `SqueezeExcite`).

    Raises:
        ValueError: A value is outside the ranges above.

    Example:

    >>> SEConfig(reduction=8, stages=(3, 4)).position
    'standard'
    """

    reduction: int | None = None
    squeeze: str = "avg"
    activation: str | None = None
    gate_activation: str | None = None
    use_bias: bool = True
    position: str = "standard"
    stages: tuple[int, ...] | None = None
    squeeze_divisor: int | None = None
    gate_init: str = "default"

    def __post_init__(self) -> None:
        one_of("squeeze", self.squeeze, SQUEEZES)
        if self.gate_activation is not None:
            one_of("gate_activation", self.gate_activation, GATES)
        one_of("position", self.position, POSITIONS)
        one_of("gate_init", self.gate_init, GATE_INITS)
        for name in ("reduction", "squeeze_divisor"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, check_count(name, getattr(self, name)))
        if self.stages is not None:
            if isinstance(self.stages, Iterable):
                object.__setattr__(self, "stages", tuple(self.stages))
            if not isinstance(self.stages, tuple) or not self.stages or not set(self.stages) <= {1, 2, 3, 4, 5}:
                raise ValueError(
                    f"`stages` must name at least one of the stages 1 to 5; received stages={self.stages}. "
                    "Use `se=None` for a network without SE."
                )
            object.__setattr__(self, "stages", tuple(map(int, self.stages)))

    def __repr__(self) -> str:
        """Returns only what differs from the defaults, to keep the builders' signatures readable."""
        given = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        changed = [f"{name}={value!r}" for name, value in given.items() if value != getattr(SEConfig, name)]
        return f"SEConfig({', '.join(changed)})"

    def completed(self, own: SEConfig | None = None) -> SEConfig:
        """Returns this config with a network's own values where it states None; without a network, the paper's."""
        own = PAPER if own is None else own
        missing = {field.name for field in dataclasses.fields(self) if getattr(self, field.name) is None}
        return dataclasses.replace(self, **{name: getattr(own, name) for name in missing})

    @property
    def reduction_or_16(self) -> int:
        """Returns the reduction, or the paper's where the config states none."""
        return 16 if self.reduction is None else self.reduction

    def at_stage(self, stage: int) -> SEConfig | None:
        """Returns this config if the given stage (1 to 5) has SE blocks, else None."""
        return self if self.stages is None or stage in self.stages else None


PAPER = SEConfig(reduction=16, activation="relu", gate_activation="sigmoid")


def divisible(size: float, divisor: int = 8, *, least_fill: float = 0.9) -> int:
    """Returns the multiple of a divisor that is nearest to a size, at least one.

    Args:
        size: The size.
        divisor: The divisor.
        least_fill: Smallest fraction of the size that may remain; below it, the next multiple is returned.
    """
    nearest = max(divisor, int(size + divisor / 2) // divisor * divisor)
    return nearest + divisor if nearest < least_fill * size else nearest


def squeeze_width(channels: int, se: SEConfig) -> int:
    """Returns the number of units between the projections of an SE block.

    Args:
        channels: Number of channels of the block's input.
        se: The config; only `reduction` and `squeeze_divisor` are read.

    Returns:
        `channels // reduction`; with a divisor, the nearest multiple of it, at least one.

    Raises:
        ValueError: `reduction` exceeds `channels`.
    """
    reduction = se.reduction_or_16
    if reduction > channels:
        raise ValueError(
            f"`reduction` must not exceed the channels of any block; received reduction={reduction} for a block of "
            f"{channels} channels. Lower `reduction`, or leave out that block's stage with `stages`."
        )
    divisor = se.squeeze_divisor or 1
    if divisor == 1:
        return channels // reduction
    return divisible(channels / reduction, divisor, least_fill=0)


def excite(x: Any, se: SEConfig | None, name: str, *, position: str = "standard", units: int | None = None) -> Any:
    """Applies an SE block if the config puts one at this position; otherwise returns `x` unchanged.

    Args:
        x: Tensor of shape (batch, height, width, channels), or channels second.
        se: The config, or None.
        name: Name of the layer.
        position: Position of `x` in its residual block, one of `POSITIONS`.
        units: Number of units. None: as `squeeze_width` says for the channels of `x`.

    Returns:
        Tensor of the same shape.
    """
    if se is None or se.position != position:
        return x
    return new_block(se, units or squeeze_width(channels_of(x), se), name=name)(x)


def new_block(se: SEConfig, units: int, **arguments: Any) -> SqueezeExcite:
    """Returns an SE block.

    Args:
        se: Its config, without position and stages.
        units: Its number of units.
        **arguments: Further arguments of `SqueezeExcite`.

    Returns:
        The layer, not built.
    """
    complete = se.completed()
    names = ("squeeze", "activation", "gate_activation", "gate_init", "use_bias")
    config = {name: getattr(complete, name) for name in names}
    return SqueezeExcite(se.reduction_or_16, squeeze_channels=units, **config, **arguments)
