"""Insertion of Squeeze-and-Excitation into an existing network, without changing what it computes."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator
from typing import Any

import keras

from se_keras.blocks.excitation import SEConfig, new_block, squeeze_width
from se_keras.layers import SqueezeExcite
from se_keras.surgery.calls import Call, Graph, data_format_of
from se_keras.surgery.graph import build_model, free_name, new_copier, read_graph, read_nested_graph
from se_keras.surgery.hidden import EXPANDED
from se_keras.surgery.layer_facts import is_functional, repeated_model
from se_keras.surgery.positions import HAS_SE, LOOKED_FOR, Position, Where, find_positions
from se_keras.surgery.positions.position import models_with_paths
from se_keras.surgery.subclasses import warn_of_lost_class

IDENTITY = SEConfig(gate_init="identity")
LEAST_WIDTH = 2  # a unit and its mirror image, see `_mirror`


def insert_squeeze_excite(
    model: keras.Model,
    where: Where = "auto",
    *,
    se: SEConfig = IDENTITY,
    freeze_base: bool = False,
) -> keras.Model:
    """Inserts SE blocks into a network; its outputs stay the same until it is trained.

    The new blocks start as the identity (`gate_init="identity"`): their gates are exactly 1, and
    the first training step moves them. The units start in pairs of opposite sign, so that they are
    not all off for any image. Each block directly follows a layer, and everything that took the
    layer's output now takes the block's. The block's name is the layer's with "_se" appended. All other
    layers keep their names, weights, and `trainable`. Nested models, including those in
    `TimeDistributed`, stay where they are. A layer with weights that is called twice shares its
    block. `find_positions` shows beforehand where blocks go and why.

    Reference: arXiv 1709.01507v4, section 3.3.

    Args:
        model: A functional model, or a built sequential one, with weights. It is not changed and
            shares nothing with the result.
        where: "auto" for the standard positions; or a regular expression that is searched for in
            the layers' names, a layer type, a function from a layer to bool, or a list of
            names (see `find_positions`). Positions that already have SE are left as they are.
        se: Settings of the blocks, without `position` and `stages`. With `squeeze_divisor=None`,
            a block has `channels // reduction` units, but at least 2.
            The default reduction, the paper's 16, is for hundreds of channels. For networks
            with fewer than about 128, pass `SEConfig(reduction=4, gate_init="identity")`: one or two
            units easily end up off for every image, which makes the gates constant
            (docs/what-the-gates-do.md shows a network in which that happened).
        freeze_base: Whether to set every layer except the new blocks to `trainable=False`, including
            the classifier; batch normalization then keeps its statistics in training.

    Returns:
        A functional model with the same name, inputs, and outputs, not compiled. It has the class and the
        attributes of `model` if the constructor of that class takes any `inputs` and `outputs`;
        otherwise it is plain, with a warning. If every position already has SE, a copy of the
        model, with a warning.

    Warns:
        UserWarning: Every position already has SE; or, with "auto", layers that hold convolutions
            are not expanded, so that there are no blocks inside them.

    Raises:
        ValueError: The model is subclassed, or sequential without an input shape; no position was
            found (the message lists what was looked for); or `se` has a position or stages.
        TypeError: `where` is none of the above.

    Example:

    >>> model = insert_squeeze_excite(SEResNet20(se=None))
    >>> sum(isinstance(layer, SqueezeExcite) for layer in model.layers)
    9
    """
    if se.position != "standard" or se.stages is not None:
        raise ValueError(
            "`where` determines the positions of the blocks, so `se` must have position='standard' and stages=None; "
            f"received position={se.position!r} and stages={se.stages}."
        )
    positions = find_positions(model, where)
    free = [position for position in positions if not position.obstacle]
    if not free:
        _report_no_place(model, positions)
    _report_unreached(model, positions)
    insertion = _Insertion(model, free, se)
    result = insertion.rebuilt(model)
    warn_of_lost_class(model, result)
    for block in insertion.blocks.values():
        _mirror(block)
    if freeze_base:
        insertion.freeze(result)
    return result


def _report_no_place(model: keras.Model, positions: tuple[Position, ...]) -> None:
    """Warns if all positions already have SE; raises an error if none can take a block."""
    shown = "; ".join(map(str, positions[:5])) + (f"; and {len(positions) - 5} more" if len(positions) > 5 else "")
    if all(position.obstacle != HAS_SE for position in positions):
        raise ValueError(f"No position for SE blocks was found in {model.name!r}: {shown}. Looked for: {LOOKED_FOR}.")
    warnings.warn(
        f"{model.name!r} already has SE at each position, so nothing was inserted: {shown}.", UserWarning, stacklevel=3
    )


def _report_unreached(model: keras.Model, positions: tuple[Position, ...]) -> None:
    """Warns about layers that hold convolutions and are not expanded, so that they get no blocks."""
    names = [repr(position.layer) for position in positions if position.is_unreached]
    if names:
        shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        warnings.warn(
            f"No blocks were inserted inside {shown} of {model.name!r}: {EXPANDED}. `find_positions` lists what they "
            "hold.",
            UserWarning,
            stacklevel=3,
        )


class _Insertion:
    """An insertion into a model and the models nested in it."""

    def __init__(self, model: keras.Model, positions: list[Position], se: SEConfig) -> None:
        graphs = [read_graph(one) for _, one in models_with_paths(model)]
        self.expanded = {id(call.node): (graph, call) for graph in graphs for call in graph.calls}
        self.nodes = {id(position.call.node) for position in positions if position.call is not None}
        self.se = se
        self.copier = new_copier()  # several nested models may share a layer
        self.blocks: dict[int, SqueezeExcite] = {}
        self.models: dict[int, keras.Model] = {}

    def rebuilt(self, model: keras.Model) -> keras.Model:
        """Returns a copy of a model, with the blocks in it."""
        if id(model) not in self.models:
            graph = read_nested_graph(model)
            names = {call.name for call in graph.calls}
            replacements = {call: list(self._replaced(call, graph, names)) for call in graph.calls}
            copy = build_model(graph.rewritten(replacements, {}), copier=self.copier, like=model)
            if not model.trainable:  # the flag itself would also freeze the new blocks
                self.freeze(copy)
            self.models[id(model)] = copy
        return self.models[id(model)]

    def freeze(self, model: keras.Model) -> None:
        """Freezes every layer but the new blocks."""
        new = {id(block) for block in self.blocks.values()}
        for layer in model.layers:
            inner = layer if is_functional(layer) else repeated_model(layer)
            if inner is not None:
                self.freeze(inner)
            elif id(layer) not in new:
                layer.trainable = False

    def _replaced(self, call: Call, graph: Graph, names: set[str]) -> Iterator[Call]:
        new, repeated = call, repeated_model(call.operation)
        if is_functional(call.operation):
            new = call.of(self.rebuilt(call.operation))
            self.copier.made[id(call.operation)] = new.operation
        elif repeated is not None:
            self.copier.made[id(repeated)] = self.rebuilt(repeated)
        if id(call.node) not in self.nodes:
            yield new
            return
        tensor = call.outputs[0]
        before = keras.KerasTensor(tensor.shape, dtype=tensor.dtype)
        yield dataclasses.replace(new, outputs=(before,))
        yield Call(self._block(call, graph, names), (before,), {}, (tensor,), is_new=True)

    def _block(self, call: Call, graph: Graph, names: set[str]) -> SqueezeExcite:
        # A shared layer with weights shares its block; a shared activation does not.
        key = id(call.operation) if getattr(call.operation, "weights", None) else id(call.node)
        if key not in self.blocks:
            self.blocks[key] = self._new_block(call, graph, names)
        return self.blocks[key]

    def _new_block(self, call: Call, graph: Graph, names: set[str]) -> SqueezeExcite:
        expanded, same_call = self.expanded.get(id(call.node), (graph, call))
        tensor = same_call.outputs[0]
        layout = data_format_of(expanded, tensor)
        channels = tensor.shape[1 if layout == "channels_first" else -1]
        name = free_name(f"{call.name}_se", names)
        names.add(name)
        if channels is None:
            raise ValueError(
                f"SE needs a known number of channels; {call.name!r} returns shape {tuple(tensor.shape)} with "
                f"data_format={layout!r}. Give the model's input a fixed number of channels."
            )
        return new_block(self.se, _width(channels, self.se), data_format=layout, dtype=_policy_for(call), name=name)


def _width(channels: int, se: SEConfig) -> int:
    if se.squeeze_divisor is None:
        return max(channels // se.reduction_or_16, min(LEAST_WIDTH, channels))
    return squeeze_width(channels, se)


def _mirror(block: SqueezeExcite) -> None:
    """Makes the second half of a block's units the negative of the first, if the block starts as the identity.

    After a ReLU, every mean is positive, so a unit tends to be on or off for all images alike. If all
    units of a narrow block were off, its gates could never depend on the image.
    """
    if block.gate_init == "identity":
        kernel = keras.ops.convert_to_numpy(block.reduce_kernel).copy()
        half = kernel.shape[1] // 2
        kernel[:, half : 2 * half] = -kernel[:, :half]
        block.reduce_kernel.assign(kernel)


def _policy_for(call: Call) -> Any:
    """Returns the dtype policy of a block after a call: the layer's, or its output dtype where they differ."""
    policy, dtype = getattr(call.operation, "dtype_policy", None), call.outputs[0].dtype
    if policy is None or getattr(policy, "quantization_mode", None) or policy.compute_dtype != dtype:
        return dtype
    return policy
