"""The description of how one family of checkpoints names and lays out its tensors."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping


@dataclasses.dataclass(frozen=True)
class Source:
    """The tensors that one variable of a layer comes from.

    Args:
        suffixes: What follows the layer's prefix in the name of each tensor that is read.
        transform: How the tensors become the variable, a key of `convert.TRANSFORMS`.
    """

    suffixes: tuple[str, ...]
    transform: str = "same"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family:
    """The names and layout of the tensors in one family of checkpoints.

    A tensor's name consists of a prefix for the layer and a suffix for the variable. All tables
    map this package's names to those of the checkpoint.

    Args:
        layers: Prefix of each layer outside the blocks, by this package's name of the layer.
        block: Maps stage and block, as in this package's layer names, to the prefix of a block.
        leaves: What follows a block's prefix, by what follows "stage2_block1_" in the layer name.
        block_layer: Pattern of the names of layers in blocks: stage, block, and leaf.
        variables: Sources of a layer's variables, by layer type and name of the variable.
        signature: A tensor that distinguishes this family from those listed after it.
        ignored: Suffixes of tensors that the network does not compute with.
    """

    layers: Mapping[str, str]
    block: Callable[[int, int], str]
    leaves: Mapping[str, str]
    variables: Mapping[str, Mapping[str, Source]]
    signature: str
    ignored: tuple[str, ...] = ()
    block_layer: str = r"stage(\d+)_block(\d+)_(\w+)"
