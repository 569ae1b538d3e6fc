"""What a model consists of: parameters and multiply-adds, by kind and by stage."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable
from typing import Any

import keras
from keras import layers

from se_keras.layers import SqueezeExcite


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cost:
    """What some layers cost for one image.

    Args:
        parameters: Trainable and other parameters.
        trainable: Those that the layers themselves count as trainable.
        conv_macs: Multiply-adds of convolutions.
        dense_macs: Multiply-adds of dense layers.
        se_macs: Multiply-adds of the two projections of SE blocks.
    """

    parameters: int = 0
    trainable: int = 0
    conv_macs: int = 0
    dense_macs: int = 0
    se_macs: int = 0

    @property
    def macs(self) -> int:
        """Multiply-adds of all three kinds: what papers call FLOPs."""
        return self.conv_macs + self.dense_macs + self.se_macs

    def __add__(self, other: Cost) -> Cost:
        return Cost(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in dataclasses.fields(Cost)})


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """What `model_info` returns.

    Args:
        name: The model's name.
        input_shape: The input that the multiply-adds are counted for, without the batch.
        total: Of the whole model.
        stages: Of each stage in order: "stem", "stage2", ..., "head", or "other" for layers
            whose names tell no stage.
        se_blocks: Number of `SqueezeExcite` layers.
    """

    name: str
    input_shape: tuple[int, ...]
    total: Cost
    stages: dict[str, Cost]
    se_blocks: int

    def as_dict(self) -> dict[str, Any]:
        """The same as plain dictionaries, for JSON."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        header = f"{'stage':<10}{'parameters':>14}{'trainable':>14}{'MMACs':>12}{'of them SE':>12}"
        lines = [
            f"{name:<10}{cost.parameters:>14,}{cost.trainable:>14,}"
            f"{cost.macs / 1e6:>12,.2f}{cost.se_macs / 1e6:>12,.3f}"
            for name, cost in [*self.stages.items(), ("total", self.total)]
        ]
        size = "x".join(map(str, self.input_shape))
        title = f"{self.name}: input {size}, {self.se_blocks} SE blocks"
        return "\n".join([title, header, *lines])


def model_info(model: keras.Model, input_shape: tuple[int, ...] | None = None) -> ModelInfo:
    """Counts a model's parameters and multiply-adds.

    Counted are convolutions (also depthwise, grouped and transposed), dense layers and the
    projections of SE blocks; additions, pooling, norms and activations are not, as in the
    papers' figures. A parameter is trainable here as long as it takes part in training by
    default; `layer.trainable = False` is respected.

    Args:
        model: Any built functional or sequential model.
        input_shape: The input's shape without the batch, where the model leaves height or
            width open. Default: 224x224.

    Returns:
        A `ModelInfo`; printing it shows a table.

    Raises:
        ValueError: The model has several inputs, or is not a functional or sequential model.

    Example:

    >>> model_info(SEResNet20()).total.trainable
    274847
    """
    if not is_graph(model) or not model.built or not isinstance(model.input_shape, tuple):
        raise ValueError(f"model_info takes a built functional or sequential model with one input; received {model!r}.")
    shape = _fixed_shape(model.input_shape[1:], input_shape)
    leaves = _leaves(model)
    if any(None in output_shape[1:] for _, output_shape in leaves):
        leaves = _leaves_at(model, shape)
    stages: dict[str, Cost] = {}
    for layer, output_shape in leaves:
        stage = _stage_of(layer.name)
        stages[stage] = stages.get(stage, Cost()) + _cost(layer, output_shape)
    stages = {name: cost for name, cost in sorted(stages.items(), key=_order) if cost != Cost()}
    return ModelInfo(
        name=model.name,
        input_shape=shape,
        total=sum(stages.values(), Cost()),
        stages=stages,
        se_blocks=sum(isinstance(layer, SqueezeExcite) for layer, _ in leaves),
    )


def _fixed_shape(shape: Iterable[int | None], wanted: tuple[int, ...] | None) -> tuple[int, ...]:
    shape = tuple(shape)
    if wanted is None:
        return tuple(224 if size is None else size for size in shape)
    fits = len(wanted) == len(shape) and all(a in (None, b) for a, b in zip(shape, wanted, strict=True))
    if not fits or None in wanted:
        raise ValueError(f"`input_shape` must fit the model's {shape}; received {wanted}.")
    return tuple(wanted)


Leaf = tuple[keras.layers.Layer, tuple[int | None, ...]]


def is_graph(layer: Any) -> bool:
    """Whether a layer is a model whose layers are known: a functional or sequential one."""
    return isinstance(layer, keras.Sequential) or (isinstance(layer, keras.Model) and hasattr(layer, "operations"))


def _leaves(model: keras.Model) -> list[Leaf]:
    """The layers, also those of models inside the model, and their output shapes as far as they are known."""
    leaves: list[Leaf] = []
    for layer in model.layers:
        if is_graph(layer):
            leaves += _leaves(layer)
        elif not isinstance(layer, layers.InputLayer):
            leaves.append((layer, tuple(layer.output.shape)))
    return leaves


def _leaves_at(model: keras.Model, shape: tuple[int, ...]) -> list[Leaf]:
    """The layers of a copy that is called on inputs of the given shape, and with it the models inside it."""
    leaves: list[Leaf] = []

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        outputs = layer(*args, **kwargs)
        if is_graph(layer):
            leaves.extend(_leaves_at(layer, tuple(args[0].shape[1:])))
        elif all(layer is not known for known, _ in leaves):
            leaves.append((layer, tuple(outputs.shape)))
        return outputs

    images = keras.Input(shape, dtype=model.inputs[0].dtype)
    if isinstance(model, keras.Sequential):
        x = images
        for layer in keras.models.clone_model(model).layers:
            x = call(layer, x)
    else:
        keras.models.clone_model(model, input_tensors=images, call_function=call)
    return leaves


def _stage_of(name: str) -> str:
    match = re.match(r"stem(?=_|$)|stage\d+(?=_|$)", name)
    if match:
        return match[0]
    return "head" if re.match(r"(final|pooled|logits|predictions|fc\d|dropout|flatten)", name) else "other"


def _order(item: tuple[str, Any]) -> tuple[int, str]:
    ranks = {"stem": 0, "head": 2, "other": 3}
    return ranks.get(item[0], 1), item[0]


def _cost(layer: keras.layers.Layer, output_shape: tuple[Any, ...]) -> Cost:
    return Cost(
        parameters=_count(layer.weights),
        trainable=_count(layer.trainable_weights),
        **_macs(layer, output_shape),
    )


def _count(variables: Iterable[Any]) -> int:
    return sum(math.prod(variable.shape) for variable in variables)


def _macs(layer: keras.layers.Layer, output_shape: tuple[Any, ...]) -> dict[str, int]:
    if isinstance(layer, SqueezeExcite):
        return {"se_macs": 2 * math.prod(layer.reduce_kernel.shape)}
    if isinstance(layer, layers.Dense):
        return {"dense_macs": math.prod(layer.kernel.shape) * math.prod(output_shape[1:-1])}
    transposed = (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)
    if isinstance(layer, transposed):
        return {"conv_macs": math.prod(layer.kernel.shape) * _positions(layer, layer.input.shape)}
    if isinstance(layer, layers.SeparableConv1D | layers.SeparableConv2D):
        kernels = math.prod(layer.depthwise_kernel.shape) + math.prod(layer.pointwise_kernel.shape)
        return {"conv_macs": kernels * _positions(layer, output_shape)}
    if isinstance(
        layer, layers.Conv1D | layers.Conv2D | layers.Conv3D | layers.DepthwiseConv1D | layers.DepthwiseConv2D
    ):
        return {"conv_macs": math.prod(layer.kernel.shape) * _positions(layer, output_shape)}
    return {}


def _positions(layer: Any, shape: tuple[Any, ...]) -> int:
    return math.prod(shape[1:-1] if layer.data_format == "channels_last" else shape[2:])
