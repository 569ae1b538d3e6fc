"""Positions determined by the network's structure, by one table of patterns."""

from __future__ import annotations

import dataclasses

import keras

from se_keras.surgery.calls import Call
from se_keras.surgery.graph import read_graph
from se_keras.surgery.hidden import BLOCK, CONVOLUTION, EXPANDED, Hidden, counted
from se_keras.surgery.positions.chosen import chosen_positions
from se_keras.surgery.positions.patterns import LOOKED_FOR, PATTERNS, End
from se_keras.surgery.positions.position import HAS_SE, Position, Where, models_with_paths, not_looked_into
from se_keras.surgery.positions.structure import Structure


def find_positions(model: keras.Model, where: Where = "auto") -> tuple[Position, ...]:
    """Finds the positions for SE blocks in a network; `insert_squeeze_excite` inserts the blocks.

    With `where="auto"`, the positions depend on the network's structure:

    - Additions (ResNet, Xception, ConvNeXt): the end of the residual branch, after its last
      normalization and before layers that only drop or scale it.
    - Inception modules (also Fire modules and NASNet's cells): the outermost concatenation.
    - Chains of features that are concatenated and projected (VoVNet, HGNet): the projection.
    - Dense layers (DenseNet, ShuffleNet's units with stride 2): the new features, before their
      concatenation with the old ones.
    - Inverted residuals (MobileNetV2): the widened map, after the normalization and activation of
      the depthwise convolution, as in MobileNetV3 and EfficientNet. There, the paper's rule, the
      end of the branch, is `where="project_BN$"`. In GhostNet, the whole Ghost module.
    - Decoders (U-Net, DeepLab): the last convolution before the map is enlarged again.
    - Only if there is none of these outside of decoders (VGG, MobileNet): each convolution with
      its normalization and activation. A depthwise convolution and the 1x1 convolution after it
      count as one. A convolution that computes the network's output is left alone. Layers of other
      classes that hold convolutions (KerasHub's MobileNet) count as one each.

    What computes gates (attention gates, spatial masks) is left alone, and so is what no output
    of the model depends on. SE blocks in layers of other classes are recognized.

    Reference: arXiv 1709.01507v4, section 3.3, figures 2 and 3; arXiv 1905.02244, section 5.3,
    for inverted residuals.

    Args:
        model: A functional model, or a built sequential one.
        where: "auto"; a regular expression that is searched for in the layers' names (`re.search`);
            a layer type; a function that returns whether a layer takes a block; or a list of
            names, in which "model/layer" is a layer of a nested model and "layer" is a layer of
            any model.

    Returns:
        The positions in the order of the graph, including those that already have SE or cannot
        take it, with the reason. With "auto", the layers that are not expanded come last.

    Raises:
        ValueError: The model is subclassed, or sequential without an input shape; no layer matches
            `where`; or the list has a name that no layer has, or the name of a layer that cannot
            take a block.
        TypeError: `where` is none of these.

    Example:

    >>> [position.layer for position in find_positions(keras.applications.InceptionV3(weights=None))][:3]
    ['mixed0', 'mixed1', 'mixed2']
    """
    if isinstance(where, str) and where == "auto":
        return standard_positions(model)
    return chosen_positions(model, where)


def standard_positions(model: keras.Model) -> tuple[Position, ...]:
    """Returns the positions where the paper and later networks have SE, by the network's structure.

    Args:
        model: A functional model, or a built sequential one.

    Returns:
        At least one position, in the order of the graph, including those that already have SE, and
        then the layers that hold convolutions and are not expanded.

    Raises:
        ValueError: There is no such position.
    """
    structures = [(prefix, Structure(read_graph(one))) for prefix, one in models_with_paths(model)]
    positions = [
        dataclasses.replace(position, layer=prefix + position.layer)
        for prefix, structure in structures
        for position in _positions_in(structure)
    ]
    if not positions:
        raise ValueError(
            f"No standard position for SE blocks was found in {model.name!r}. Looked for: {LOOKED_FOR}. Name layers "
            f"with `where`: a regular expression, a layer type, a function, or a list.{not_looked_into(model)}"
        )
    names = {position.layer for position in positions}
    hidden = [_unreached(prefix, one) for prefix, structure in structures for one in structure.hidden if _matters(one)]
    return (*positions, *(position for position in hidden if position.layer not in names))


def _matters(hidden: Hidden) -> bool:
    """Returns whether a layer that is not expanded may hold positions, and no SE."""
    return (CONVOLUTION in hidden.parts or hidden.is_model) and BLOCK not in hidden.parts


def _unreached(prefix: str, hidden: Hidden) -> Position:
    obstacle = f"{counted([hidden])} inside it cannot be reached, because {EXPANDED}"
    return Position(prefix + hidden.layer, f"layer of class {hidden.kind}", obstacle)


def _positions_in(structure: Structure) -> list[Position]:
    matches: dict[str, set[Call]] = {}
    found: dict[Call, Position] = {}
    is_usual = False
    calls = [call for call in structure.graph.calls if call not in structure.gate_calls]
    for pattern in PATTERNS:
        if pattern.is_last_resort and is_usual:
            continue
        ends = {call: pattern.ends(structure, call, matches) for call in calls}
        matches[pattern.name] = {call for call, those in ends.items() if those is not None}
        for end in (end for those in ends.values() for end in those or ()):
            if end.call is not None and (position := _position(structure, end.call, end)) is not None:
                found.setdefault(end.call, position)
        is_usual = bool(found) and (is_usual or not pattern.is_last_resort)
    # The calls of a nested model that is called twice are in the graph twice.
    single = {id(call.node) if call.node else call.path: call for call in reversed(calls) if call in found}
    return [found[call] for call in reversed(single.values())]


def _position(structure: Structure, call: Call, end: End) -> Position | None:
    obstacle = HAS_SE if end.has_se or structure.is_excited(call) else ""
    if call.node is not None:
        return Position(call.path, end.reason, obstacle, call)
    # Made while the graph was read, or inside a foreign layer, which has no position but may have a block.
    return Position(call.path, end.reason, obstacle) if obstacle and call.path else None
