"""Parameters and multiply-adds of a model, by kind and by stage."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Container, Iterable, Iterator, Sequence
from typing import Any

import keras
from keras import layers

from se_keras.errors import refuse_tf_keras
from se_keras.layers import SqueezeExcite
from se_keras.surgery.excitation import Excitation, find_excitations
from se_keras.surgery.foreign import opened
from se_keras.surgery.graph import read_graph
from se_keras.surgery.hidden import shown_hidden
from se_keras.surgery.layer_facts import is_functional, layers_inside, parts_of, shown_with_weights
from se_keras.surgery.layer_types import CONVOLUTIONS, SEPARABLE, TRANSPOSED
from se_keras.surgery.positions.position import hidden_in


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cost:
    """The cost of one or more layers for one image.

    Args:
        parameters: Number of parameters, trainable and not.
        trainable: Number of parameters that the layers count as trainable.
        conv_macs: Multiply-adds of convolutions.
        dense_macs: Multiply-adds of dense layers.
        se_macs: Multiply-adds of the projections of SE blocks, also of blocks made of other layers.
    """

    parameters: int = 0
    trainable: int = 0
    conv_macs: int = 0
    dense_macs: int = 0
    se_macs: int = 0

    @property
    def macs(self) -> int:
        """Returns the multiply-adds of all three kinds, which papers call FLOPs."""
        return self.conv_macs + self.dense_macs + self.se_macs

    def __add__(self, other: Cost) -> Cost:
        return Cost(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in dataclasses.fields(Cost)})


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """The result of `model_info`.

    Args:
        name: The model's name.
        input_shape: The input shape that the multiply-adds are counted for, without the batch.
        total: Cost of the whole model.
        stages: Cost of each stage, in order: "stem", "stage2", ..., "head", or "other" for layers
            whose names contain no stage.
        se_blocks: Number of SE blocks: `SqueezeExcite` layers, including those inside other layers, and
            blocks of other layers or `keras.ops`.
        notes: One sentence for each class of layers whose multiply-adds are not, or may not be, all counted,
            and one about the layers that `deploy` and `insert_squeeze_excite` do not look into.
    """

    name: str
    input_shape: tuple[int, ...]
    total: Cost
    stages: dict[str, Cost]
    se_blocks: int
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Returns the same as plain dictionaries, for JSON."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        header = f"{'stage':<10}{'parameters':>14}{'trainable':>14}{'MMACs':>12}{'of which SE':>12}"
        lines = [
            f"{name:<10}{cost.parameters:>14,}{cost.trainable:>14,}"
            f"{cost.macs / 1e6:>12,.2f}{cost.se_macs / 1e6:>12,.3f}"
            for name, cost in [*self.stages.items(), ("total", self.total)]
        ]
        size = "x".join(map(str, self.input_shape))
        title = f"{self.name}: input {size}, {self.se_blocks} SE blocks"
        return "\n".join([title, header, *lines, *self.notes])


def model_info(model: keras.Model, input_shape: tuple[int, ...] | None = None) -> ModelInfo:
    """Counts a model's parameters and multiply-adds.

    It counts convolutions (including depthwise, grouped, and transposed ones), dense layers, and the
    projections of SE blocks. As in the papers' figures, additions, pooling, normalization, and
    activations are not counted. A parameter is trainable if it takes part in training by
    default; `layer.trainable = False` is respected. A layer that is called several times counts its
    multiply-adds each time and its parameters once. Models inside other models and in
    `TimeDistributed` (for every step) are counted. The notes name the layers that are not,
    and those that surgery does not look into, with what they hold.

    Args:
        model: Any built functional or sequential model.
        input_shape: Shape of the input without the batch, where the model leaves height or
            width open. Default: 224x224.

    Returns:
        A `ModelInfo`, which prints as a table.

    Raises:
        ValueError: The model has several inputs, or is not a functional or sequential model.

    Example:

    >>> model_info(SEResNet20()).total.trainable
    274847
    """
    refuse_tf_keras(model)
    if not is_functional(model) or not isinstance(model.input_shape, tuple):
        raise ValueError(f"model_info takes a built functional or sequential model with one input; received {model!r}.")
    shape = _fixed_shape(model.input_shape[1:], input_shape)
    uses = _uses(model, shape)
    foreign = [one for one in find_excitations(opened(read_graph(model)).graph) if one.block is None]
    of_se = {id(call.operation) for one in foreign for call in one.path}
    stages: dict[str, Cost] = {}
    known: set[int] = set()
    for use in uses:
        stage = _stage_of(use.layer.name)
        stages[stage] = stages.get(stage, Cost()) + _cost(use, known, of_se)
    stages = {name: cost for name, cost in sorted(stages.items(), key=_order) if cost != Cost()}
    return ModelInfo(
        name=model.name,
        input_shape=shape,
        total=sum(stages.values(), Cost()),
        stages=stages,
        se_blocks=_se_blocks(model, foreign),
        notes=(*_notes(uses), *_hidden(model)),
    )


def _se_blocks(model: keras.Model, foreign: Iterable[Excitation]) -> int:
    ours = sum(isinstance(layer, SqueezeExcite) for layer in layers_inside(model))
    return ours + len({id(one.call.operation) for one in foreign})


def _notes(uses: Iterable[_Use]) -> Iterator[str]:
    """Yields the notes about uses of layers, one for all layers of a class that it is true of."""
    found: dict[tuple[str, type], dict[int, Any]] = {}
    for use in uses:
        if use.note:
            found.setdefault((use.note, type(use.layer)), {})[id(use.layer)] = use.layer
    for (note, _), those in found.items():
        yield note.format(shown_with_weights(*those.values()))


def _hidden(model: keras.Model) -> Iterator[str]:
    if hidden := hidden_in(model):
        yield f"Not expanded by surgery: {shown_hidden(hidden)}."


def _fixed_shape(shape: Iterable[int | None], wanted: tuple[int, ...] | None) -> tuple[int, ...]:
    shape = tuple(shape)
    if wanted is None:
        return tuple(224 if size is None else size for size in shape)
    fits = len(wanted) == len(shape) and all(a in (None, b) for a, b in zip(shape, wanted, strict=True))
    if not fits or None in wanted:
        raise ValueError(f"`input_shape` must fit the model's {shape}; received {wanted}.")
    return tuple(wanted)


def is_graph(layer: Any) -> bool:
    """Returns whether a layer is a model whose layers are known: a functional or sequential one."""
    return isinstance(layer, keras.Sequential) or (isinstance(layer, keras.Model) and hasattr(layer, "operations"))


@dataclasses.dataclass(frozen=True)
class _Use:
    """A layer in one place of a model.

    Args:
        layer: The layer.
        before: Shape of its input, with the batch.
        after: Shape of its output, with the batch.
        times: Number of times that it is applied to one image.
        note: A sentence that the reader of the counts needs to know about it, with "{}" for the layer.
    """

    layer: Any
    before: tuple[Any, ...]
    after: tuple[Any, ...]
    times: int = 1
    note: str = ""


def _uses(model: keras.Model, shape: Sequence[int | None]) -> list[_Use]:
    """Returns the layers in each of their places, including nested models, for an input shape without the batch."""
    uses: list[_Use] = []
    for call, inputs, outputs in _calls_at(model, shape):
        if isinstance(call.operation, layers.Layer) and inputs:
            uses += _uses_of(call.operation, inputs[0], outputs[0])
    return uses


def _calls_at(model: keras.Model, shape: Sequence[int | None]) -> Iterator[tuple[Any, list[Any], list[Any]]]:
    """Yields each call with the shapes of its inputs and outputs."""
    graph = read_graph(model)
    tensors = {id(x): keras.KerasTensor((None, *shape), x.dtype) for x in keras.tree.flatten(graph.inputs)}
    is_open = any(None in x.shape[1:] for call in graph.calls for x in call.outputs)
    for call in graph.calls:
        args, kwargs = keras.tree.map_structure(lambda x: tensors.get(id(x), x), (call.args, dict(call.kwargs)))
        inputs = [x for x in keras.tree.flatten((args, kwargs)) if keras.backend.is_keras_tensor(x)]
        outputs = keras.tree.flatten(call.operation.compute_output_spec(*args, **kwargs)) if is_open else call.outputs
        tensors.update(zip((id(x) for x in call.outputs), outputs, strict=True))
        yield call, [tuple(x.shape) for x in inputs], [tuple(x.shape) for x in outputs]


def _uses_of(layer: Any, before: tuple[Any, ...], after: tuple[Any, ...]) -> list[_Use]:
    """Returns a layer, or the layers in it: for every step in `TimeDistributed`, once for a model that it contains."""
    if type(layer) is layers.TimeDistributed:
        steps = after[1] or 1
        note = "" if after[1] else "Only one step of {} is counted."
        inner = layer.layer
        within, without = (before[0], *before[2:]), (after[0], *after[2:])
        found = _uses(inner, within[1:]) if is_functional(inner) else _uses_of(inner, within, without)
        found = [dataclasses.replace(use, times=use.times * steps) for use in found]
        return [*found, _Use(layer, before, after, note=note)]
    use = _Use(layer, before, after)
    if _macs(use):
        return [use]
    held = [part for part in parts_of(layer) if is_functional(part) and None not in part.inputs[0].shape[1:]]
    if held:
        note = "The models in {} are counted once for each call of it."
        inside = [use for part in held for use in _uses(part, part.inputs[0].shape[1:])]
        return [*inside, dataclasses.replace(use, note=note)]
    is_counted = isinstance(layer, (layers.Embedding, layers.PReLU)) or all(len(w.shape) < 2 for w in layer.weights)
    note = "" if is_counted else "The multiply-adds of {} are not counted."
    return [dataclasses.replace(use, note=note)]


def _stage_of(name: str) -> str:
    match = re.match(r"stem(?=_|$)|stage\d+(?=_|$)", name)
    if match:
        return match[0]
    return "head" if re.match(r"(final|pooled|logits|predictions|fc\d|dropout|flatten)", name) else "other"


def _order(item: tuple[str, Any]) -> tuple[int, str]:
    ranks = {"stem": 0, "head": 2, "other": 3}
    return ranks.get(item[0], 1), item[0]


def _cost(use: _Use, known: set[int], of_se: Container[int]) -> Cost:
    """Returns the cost of one use of a layer.

    Args:
        use: The use.
        known: Variables that were counted before, by id; those of the layer are added.
        of_se: Layers that belong to an SE block, by id.
    """
    new = [variable for variable in use.layer.weights if id(variable) not in known]
    trainable = {id(variable) for variable in use.layer.trainable_weights}
    known.update(map(id, new))
    return Cost(
        parameters=_count(new),
        trainable=_count(variable for variable in new if id(variable) in trainable),
        **{"se_macs" if id(use.layer) in of_se else kind: use.times * macs for kind, macs in _macs(use).items()},
    )


def _count(variables: Iterable[Any]) -> int:
    return sum(math.prod(variable.shape) for variable in variables)


def _macs(use: _Use) -> dict[str, int]:
    layer, after = use.layer, use.after
    if isinstance(layer, SqueezeExcite):
        return {"se_macs": 2 * math.prod(layer.reduce_kernel.shape)}
    if isinstance(layer, layers.Dense):
        return {"dense_macs": math.prod(layer.kernel.shape) * math.prod(after[1:-1])}
    if isinstance(layer, TRANSPOSED):
        return {"conv_macs": math.prod(layer.kernel.shape) * _positions(layer, use.before)}
    if isinstance(layer, SEPARABLE):
        kernels = math.prod(layer.depthwise_kernel.shape) + math.prod(layer.pointwise_kernel.shape)
        return {"conv_macs": kernels * _positions(layer, after)}
    if isinstance(layer, CONVOLUTIONS):
        return {"conv_macs": math.prod(layer.kernel.shape) * _positions(layer, after)}
    return {}


def _positions(layer: Any, shape: tuple[Any, ...]) -> int:
    return math.prod(shape[1:-1] if layer.data_format == "channels_last" else shape[2:])
