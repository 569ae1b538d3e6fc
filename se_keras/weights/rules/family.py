"""What describes how one family of checkpoints names and lays out its tensors."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping


@dataclasses.dataclass(frozen=True)
class Source:
    """Where one variable of a layer comes from.

    Args:
        suffixes: What follows the layer's prefix in the name of each tensor that is read.
        transform: How the tensors become the variable, a key of `convert.TRANSFORMS`.
    """

    suffixes: tuple[str, ...]
    transform: str = "same"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family:
    """How one family of checkpoints names and lays out its tensors.

    A tensor's name is a prefix that stands for the layer, and a suffix that stands for the
    variable. All tables read "ours <- theirs".

    Args:
        layers: Prefix of each layer outside the blocks, by our name of the layer.
        block: Our stage and block, both as in our layer names, to the prefix of a block.
        leaves: What follows a block's prefix, by our layer name behind "stage2_block1_".
        variables: Sources of a layer's variables, by layer type and name of the variable.
        signature: A tensor that tells this family from the others listed behind it.
        ignored: Suffixes of tensors that hold nothing a network computes with.
    """

    layers: Mapping[str, str]
    block: Callable[[int, int], str]
    leaves: Mapping[str, str]
    variables: Mapping[str, Mapping[str, Source]]
    signature: str
    ignored: tuple[str, ...] = ()
