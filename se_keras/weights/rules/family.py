"""The description of how one family of checkpoints names and lays out its tensors, and what else its files share."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping
from typing import Literal

from se_keras.images.record import Preprocessing


@dataclasses.dataclass(frozen=True)
class Source:
    """The tensors that one variable of a layer comes from.

    Args:
        tensors: Name of each tensor that is read; in the tables, without the layer's prefix.
        transform: How the tensors become the variable, a key of `transforms.TRANSFORMS`.
    """

    tensors: tuple[str, ...]
    transform: str = "same"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family:
    """The names and layout of the tensors in one family of checkpoints, and how the family was trained.

    A tensor's name consists of a prefix for the layer and a suffix for the variable. All tables
    map this package's names to those of the checkpoint.

    Args:
        layers: Prefix of each layer outside the blocks, by this package's name of the layer.
        block: Maps stage and block, as in this package's layer names, to the prefix of a block.
        leaves: Names after a block's prefix, by the part after "stage2_block1_" in the layer name.
        block_layer: Pattern of the names of layers in blocks: stage, block, and leaf.
        variables: Sources of a layer's variables, by layer type and name of the variable.
        signature: A tensor that distinguishes this family from those listed after it.
        ignored: Suffixes of tensors that the network does not compute with.
        lineage: Structure of its networks, if the network has such a lineage. None: the network's own.
        preprocessing: Preprocessing of a file whose record states none.
        class_order: "sorted" (WNIDs) or "devkit" (ILSVRC, the authors' own networks).
        channel_order: Channel order of the first convolution's input: "rgb" or "bgr".
        optional_classifier: Whether a checkpoint may lack the classifier's tensors.
    """

    layers: Mapping[str, str]
    block: Callable[[int, int], str]
    leaves: Mapping[str, str]
    variables: Mapping[str, Mapping[str, Source]]
    signature: str
    ignored: tuple[str, ...] = ()
    block_layer: str = r"stage(\d+)_block(\d+)_(\w+)"
    lineage: str | None = None
    preprocessing: Preprocessing | None = Preprocessing()
    class_order: Literal["sorted", "devkit"] = "sorted"
    channel_order: Literal["rgb", "bgr"] = "rgb"
    optional_classifier: bool = False

    def source(self, layer: str, kind: str, variable: str) -> Source | None:
        """Returns the tensors that a variable comes from.

        Args:
            layer: This package's name of the layer.
            kind: The layer's type.
            variable: Name of the variable in the layer.

        Returns:
            Their full names and the transform. None if the family has no name for the layer.
        """
        prefix, sources = self._prefix(layer), self.variables.get(kind)
        if prefix is None or sources is None:
            return None
        source = sources[variable]
        return Source(tuple(prefix + suffix for suffix in source.tensors), source.transform)

    def classifier(self, variable: str) -> Source:
        """Returns the tensor that a variable of the classifier comes from, including for a model without one."""
        source = self.source("logits", "Dense", variable)
        if source is None:
            raise KeyError("Every family needs a prefix for the layer 'logits' and the variables of 'Dense'.")
        return source

    def _prefix(self, layer: str) -> str | None:
        match = re.fullmatch(self.block_layer, layer)
        if match is None:
            return self.layers.get(layer)
        stage, block, leaf = match.groups()
        return self.block(int(stage), _number(block)) + self.leaves[leaf] if leaf in self.leaves else None


def _number(text: str) -> int:
    """Returns the number of a block, which some networks write in letters: "a" to "z", then "aa"."""
    if text.isdecimal():
        return int(text)
    return functools.reduce(lambda number, letter: 26 * number + ord(letter) - ord("a") + 1, text, 0)


def conv_and_bn(prefixes: Mapping[str, str]) -> dict[str, str]:
    """Returns the prefixes of convolutions and of their batch normalizations, where they have the same one.

    Args:
        prefixes: Prefix by this package's name of the layers, with "{}" for "conv" and "bn".

    Returns:
        Prefix of each layer.
    """
    return {name.format(kind): prefix for name, prefix in prefixes.items() for kind in ("conv", "bn")}


class OwnNames(Family):
    """This package's own names: "layer/variable". The file states the structure and the preprocessing."""

    def source(self, layer: str, kind: str, variable: str) -> Source:
        """Returns the tensor of the same name."""
        return Source((f"{layer}/{variable}",))


OWN_NAMES = OwnNames(
    layers={},
    block=lambda stage, block: "",
    leaves={},
    variables={},
    signature="",
    preprocessing=None,
    optional_classifier=True,
)
