"""Gates that do not depend on the image, as constants."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers

from se_keras.errors import check_count, one_of
from se_keras.layers import SqueezeExcite
from se_keras.surgery.fold import BATCH_NORMS, PADDINGS, SCALE_KERNEL, TRANSPARENT, channel_axis, float64, kernels_of
from se_keras.surgery.graph import Call, Graph, build_model, new_layer, read_graph
from se_keras.surgery.hoist import new_call
from se_keras.surgery.probe import Moments, Probe, Progress, forward, probe_gates

# Deviations this small come from the order of sums within a batch, not from the image.
ROUNDING = 1e-6

# These hand on a factor for each channel unchanged, if it is not negative.
POSITIVELY_HOMOGENEOUS = (
    layers.LeakyReLU,
    layers.MaxPooling1D,
    layers.MaxPooling2D,
    layers.MaxPooling3D,
    layers.PReLU,
)
# These, whatever its sign.
LINEAR = (
    *TRANSPARENT,
    *PADDINGS,
    layers.UpSampling2D,
    layers.AveragePooling1D,
    layers.AveragePooling2D,
    layers.AveragePooling3D,
    layers.Dropout,
    layers.SpatialDropout1D,
    layers.SpatialDropout2D,
    layers.SpatialDropout3D,
)
DEFAULT_BOUNDS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2)


def constant_gates(graph: Graph, gates: Mapping[str, np.ndarray]) -> Graph:
    """Replaces SE blocks on images by a product with constants.

    Args:
        graph: The graph.
        gates: From the name of an SE block to its gate, shape (channels,).

    Returns:
        The new graph; a constant gate is a 1x1 depthwise convolution of the block's name.
    """
    replacements = {}
    for call in graph.calls:
        block = call.operation
        if type(block) is SqueezeExcite and block.name in gates:
            replacements[call] = [_as_depthwise(call, np.asarray(gates[block.name]))]
    return graph.rewritten(replacements, {})


def dead_blocks(model: keras.Model, images: np.ndarray) -> dict[str, np.ndarray]:
    """SE blocks whose hidden units are all off, as far as 8 bits can tell: their gate is the same for every image.

    It happens where few units are left: 16 channels reduced by 16 leave a single ReLU.
    Quantised, such a block has an output scale of nearly zero, which runtimes refuse to load.

    Args:
        model: A functional model.
        images: What to run it on, in the scale of its input.

    Returns:
        From the block's name to its gate, shape (channels,).
    """
    blocks = [
        layer
        for layer in model.layers
        if type(layer) is SqueezeExcite and layer.squeeze == "avg" and len(layer.input.shape) == 4
    ]
    if not blocks:
        return {}
    squeezed = [
        layers.GlobalAveragePooling2D(data_format=block.data_format, dtype=block.gate_dtype())(block.input)
        for block in blocks
    ]
    summaries = keras.Model(model.inputs, squeezed).predict(images, verbose=0)
    found = {}
    for block, summary in zip(blocks, summaries if isinstance(summaries, list) else [summaries], strict=True):
        kernel = float64(block.reduce_kernel)
        hidden = summary @ kernel + (float64(block.reduce_bias) if block.use_bias else 0.0)
        hidden = np.abs(float64(block.activation(keras.ops.convert_to_tensor(hidden, "float32"))))
        smallest_step = np.abs(summary).max() / 255 * np.abs(kernel).max() / 127
        if hidden.max() <= smallest_step:
            bias = block.expand_bias if block.use_bias else keras.ops.zeros((block.expand_kernel.shape[1],), "float32")
            found[block.name] = float64(block.gate_activation(keras.ops.convert_to_tensor(bias))) * block.gate_scale
    return found


@dataclasses.dataclass(frozen=True)
class GateChange:
    """What became of one SE block.

    Args:
        block: Its name.
        deviation: The greatest standard deviation of its gates over the data, one channel with another.
        action: "folded" (into `detail`, the names of layers), "scaled" (it is a multiplication by
            constants now, for the reason in `detail`) or "kept" (likewise).
        detail: Names, or the reason.
    """

    block: str
    deviation: float
    action: str
    detail: str

    def __str__(self) -> str:
        return f"{self.action} {self.block} (deviation {self.deviation:.3g}): {self.detail}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class PruningReport:
    """A network before and after its constant gates were folded away; pairs are (before, after).

    Args:
        network: Name of the model.
        bound: Gates that deviate by no more became constants.
        images: Number of images that they were observed on.
        changes: What became of each SE block, in the order of the network.
        parameters: Number of parameters, trainable and other.
        macs: Multiply-adds an image, or None where nothing was given to count them.
        seconds: Median time of one image, or None where it was not taken.
        accuracy: Share of the images classified right, 0 to 1, or None without labels.
        agreement: Share of the images that both put into the same class, or None if the model
            is no classifier.
    """

    network: str
    bound: float
    images: int
    changes: tuple[GateChange, ...]
    parameters: tuple[int, int]
    macs: tuple[int, int] | None
    seconds: tuple[float, float] | None
    accuracy: tuple[float, float] | None
    agreement: float | None

    @property
    def pruned(self) -> tuple[str, ...]:
        """Names of the blocks that are gone."""
        return tuple(change.block for change in self.changes if change.action != "kept")

    def __str__(self) -> str:
        gone = f"{len(self.pruned)} of {len(self.changes)} SE blocks became constants"
        lines = [f"{self.network}: {gone} (deviation at most {self.bound:g} over {self.images:,} images)"]
        lines.append(f"  parameters  {self.parameters[0]:>14,} -> {self.parameters[1]:,}")
        if self.macs:
            lines.append(f"  MACs        {self.macs[0]:>14,} -> {self.macs[1]:,}")
        if self.seconds:
            lines.append(f"  one image   {1e3 * self.seconds[0]:>11.2f} ms -> {1e3 * self.seconds[1]:.2f} ms")
        if self.accuracy:
            lines.append(f"  accuracy    {self.accuracy[0]:>14.2%} -> {self.accuracy[1]:.2%}")
        if self.agreement is not None:
            lines.append(f"  same class  {self.agreement:>14.2%}")
        return "\n".join([*lines, *(f"  {change}" for change in self.changes)])


class Pruned(NamedTuple):
    """What `prune_gates` gives: the smaller model, and the report."""

    model: keras.Model
    report: PruningReport


def prune_gates(
    model: keras.Model,
    data: Any,
    bound: float = 0.01,
    labels: Any = None,
    *,
    blocks: Collection[str] | None = None,
    count_macs: Callable[[keras.Model], int] | None = None,
    batch_size: int = 32,
    timed_calls: int = 20,
    progress: Progress = iter,
) -> Pruned:
    """Replaces SE blocks whose gates hardly depend on the image by constants, and folds these away.

    A block goes if the standard deviation of every one of its gates over the data is at most
    `bound`; its gates become their means. They are folded into the convolutions or norms before
    the block, through activations and poolings that allow it; where none can take them, a
    multiplication by constants stays. Folding is exact up to rounding, so that a bound of 0,
    which takes only gates that do not vary at all, changes no answer.

    Reference: arXiv 1709.01507v4, section 7.2: the last stage's blocks matter least, and leaving
    them out costs less than 0.1 points of top-1 error.

    Args:
        model: A functional model, or a sequential one that has been built. It is not changed.
        data: Images like those the model will see, in the scale of its input: an array, a
            `PyDataset`, a `tf.data.Dataset` or an iterable of batches x or (x, labels) that can
            be read twice.
        bound: In units of the gates, at least 0.
        labels: Class indices or one-hot rows, where `data` brings none.
        blocks: Names of the SE blocks that may go; with `bound=math.inf` they all do. None: any.
        count_macs: Gives a model's multiply-adds, for the report:
            `lambda model: se_keras.model_info(model).total.macs`.
        batch_size: Images at a time, where `data` is an array.
        timed_calls: Calls of each model on one image, in turns, to time it; 0: not timed.
        progress: Wraps the iteration over batches, once before and once after.

    Returns:
        A new functional model that shares nothing with the old, and the report.

    Raises:
        ValueError: A bound below 0, an unknown block, a model without SE blocks, a subclassed model, no
            images, labels of another length, or data that can be read only once.

    Example:

    >>> images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3))
    >>> small, report = prune_gates(SEResNet20(), images, bound=1.0, timed_calls=0)
    >>> len(report.pruned), report.parameters[0] - report.parameters[1]
    (9, 2373)
    """
    (pruned,) = pruning_curve(
        model,
        data,
        [bound],
        labels,
        blocks=blocks,
        count_macs=count_macs,
        batch_size=batch_size,
        timed_calls=timed_calls,
        progress=progress,
    )
    return pruned


def pruning_curve(
    model: keras.Model,
    data: Any,
    bounds: Sequence[float] = DEFAULT_BOUNDS,
    labels: Any = None,
    *,
    blocks: Collection[str] | None = None,
    count_macs: Callable[[keras.Model], int] | None = None,
    batch_size: int = 32,
    timed_calls: int = 20,
    progress: Progress = iter,
) -> tuple[Pruned, ...]:
    """`prune_gates` for several bounds, from one observation of the gates.

    Args:
        model: As in `prune_gates`, like all that follow but the bounds.
        data: Images.
        bounds: Each at least 0.
        labels: Class indices or one-hot rows.
        blocks: Names of the SE blocks that may go.
        count_macs: Gives a model's multiply-adds.
        batch_size: Images at a time.
        timed_calls: Calls of each model on one image.
        progress: Wraps the iteration over batches, once before and once for each bound.

    Returns:
        For each bound in the order given, the model and its report.

    Raises:
        ValueError: As in `prune_gates`.
    """
    for bound in bounds:
        if not bound >= 0:
            raise ValueError(f"`bound` must be a standard deviation of gates, at least 0; received {bound!r}.")
    if timed_calls:
        check_count("timed_calls", timed_calls)
    if isinstance(data, Iterator):
        raise ValueError(
            f"`data` is read once before and once after pruning; received {type(data).__name__}, which can be read "
            "only once. Give an array, a dataset or a list of batches."
        )
    graph = read_graph(model)
    probe = probe_gates(graph)
    for name in blocks or ():
        one_of("SE block", name, probe.names)
    seen = _observed(probe, data, labels, batch_size, progress)
    original = build_model(graph)
    found = []
    for bound in bounds:
        small, changes = _without_constant_gates(graph, probe, seen.moments, bound, blocks)
        classes = _classes(small, data, batch_size, progress) if seen.classes is not None else None
        report = PruningReport(
            network=model.name,
            bound=float(bound),
            images=seen.images,
            changes=tuple(changes),
            parameters=(original.count_params(), small.count_params()),
            macs=None if count_macs is None else (count_macs(original), count_macs(small)),
            seconds=_seconds((original, small), seen.one_image, timed_calls) if timed_calls else None,
            accuracy=_accuracy(seen, classes),
            agreement=None if classes is None else float(np.mean(seen.classes == classes)),
        )
        found.append(Pruned(small, report))
    return tuple(found)


class _Observed(NamedTuple):
    """What one pass over the data shows: moments of each block's gates, answers and labels of each image."""

    moments: list[Moments]
    images: int
    one_image: Any
    classes: np.ndarray | None
    labels: np.ndarray | None


def _observed(probe: Probe, data: Any, labels: Any, batch_size: int, progress: Progress) -> _Observed:
    answers = keras.tree.flatten(probe.graph.outputs)
    observer = build_model(dataclasses.replace(probe.graph, outputs=[*probe.gates, *answers]))
    moments = [Moments(gate.shape[-1]) for gate in probe.gates]
    is_classifier = len(answers) == 1 and len(answers[0].shape) == 2 and answers[0].shape[1] > 1
    classes, given, one_image = [], [], None
    for inputs, outputs, truth in forward(observer, data, labels, batch_size=batch_size, progress=progress):
        for block, gates in zip(moments, outputs, strict=False):
            block.add(gates.astype("float64"))
        if one_image is None:
            one_image = keras.tree.map_structure(lambda x: x[:1], inputs)
        if is_classifier:
            classes.append(outputs[-1].argmax(1))
        if truth is not None:
            given.append(truth)
    return _Observed(
        moments,
        moments[0].count,
        one_image,
        np.concatenate(classes) if classes else None,
        np.concatenate(given) if given else None,
    )


def _classes(model: keras.Model, data: Any, batch_size: int, progress: Progress) -> np.ndarray:
    passed = forward(model, data, batch_size=batch_size, progress=progress)
    return np.concatenate([outputs[0].argmax(1) for _, outputs, _ in passed])


def _accuracy(seen: _Observed, classes: np.ndarray | None) -> tuple[float, float] | None:
    if seen.labels is None or classes is None:
        return None
    return float(np.mean(seen.classes == seen.labels)), float(np.mean(classes == seen.labels))


def _seconds(models: Sequence[keras.Model], image: Any, calls: int) -> tuple[float, float]:
    """The median time of each model; they take turns, so that a drift of the machine's speed hits all alike."""
    taken: list[list[float]] = [[] for _ in models]
    for number in range(calls + 2):
        for model, seconds in zip(models, taken, strict=True):
            start = time.perf_counter()
            model.predict_on_batch(image)
            if number >= 2:
                seconds.append(time.perf_counter() - start)
    before, after = (statistics.median(seconds) for seconds in taken)
    return before, after


def _without_constant_gates(
    graph: Graph, probe: Probe, moments: Sequence[Moments], bound: float, blocks: Collection[str] | None
) -> tuple[keras.Model, list[GateChange]]:
    changes = []
    for call, name, gate in zip(probe.calls, probe.names, moments, strict=True):
        deviation = float(gate.std.max())
        scale = call.operation.gate_scale
        if blocks is not None and name not in blocks:
            changes.append(GateChange(name, deviation, "kept", "it was not to go"))
            continue
        if deviation > max(bound, ROUNDING * scale):
            changes.append(GateChange(name, deviation, "kept", f"it deviates by more than {bound:g}"))
            continue
        graph, action, detail = with_constant_gate(graph, call, gate.mean)
        changes.append(GateChange(name, deviation, action, detail))
    return build_model(graph), changes


def with_constant_gate(graph: Graph, call: Call, gate: np.ndarray) -> tuple[Graph, str, str]:
    """Replaces one SE block by its gate as a constant, in the layers before it where that is exact.

    Args:
        graph: The graph.
        call: The call of the block in it; or of what it was before other blocks were replaced.
        gate: Shape (channels,), any sign.

    Returns:
        The new graph, the action and the detail of a `GateChange`.
    """
    # Other replacements keep outputs, not calls.
    call = next(c for c in graph.calls if any(x is call.outputs[0] for x in c.outputs))
    block, gate = call.operation, np.asarray(gate, "float64")
    folding = _Folding(graph, block.data_format)
    reason = folding.push(call.inputs[0], gate)
    if not reason:
        aliases = {id(call.outputs[0]): call.inputs[0]}
        return graph.rewritten({**folding.replacements, call: []}, aliases), "folded", ", ".join(folding.targets)
    if len(call.inputs[0].shape) != 4:
        return graph, "kept", reason
    return graph.rewritten({call: [_as_depthwise(call, gate)]}, {}), "scaled", reason


class _Folding:
    """The search, against the flow, for the layers that can take a factor for each channel."""

    def __init__(self, graph: Graph, data_format: str) -> None:
        self.producers, self.consumers, self.times = graph.producers(), graph.consumers(), graph.times_called()
        self.is_first = data_format == "channels_first"
        self.replacements: dict[Call, Sequence[Call]] = {}
        self.targets: list[str] = []

    def push(self, tensor: Any, gate: np.ndarray) -> str:
        """Moves a factor to before a tensor; returns why it cannot, or ""."""
        call = self.producers.get(id(tensor))
        if call is None:
            return "it stands at the model's input"
        layer = call.operation
        if len(self.consumers[id(tensor)]) > 1:
            return f"the output of {call.name!r} is used elsewhere, too"
        if self.times[id(layer)] > 1:
            return f"{call.name!r} is shared by several calls"
        if call.kwargs.get("mask") is not None or len(call.outputs) != 1:
            return f"{call.name!r} is called with a mask or has several outputs"
        axis = 1 if self.is_first else len(tensor.shape) - 1
        if type(layer) in BATCH_NORMS:
            is_along_channels = layer.axis % len(tensor.shape) == axis
            return self._replace(call, _scaled_norm, gate) if is_along_channels else _other_axis(call)
        if type(layer) in SCALE_KERNEL:
            if not _passes(layer.activation, gate):
                return f"the activation of {call.name!r} stands between"
            if getattr(layer, "quantization_mode", None) or getattr(layer, "lora_enabled", False):
                return f"{call.name!r} is quantised or has LoRA weights"
            is_along_channels = channel_axis(layer, len(tensor.shape)) == axis
            return self._replace(call, _scaled_layer, gate) if is_along_channels else _other_axis(call)
        if type(layer) is layers.Concatenate and layer.axis % len(tensor.shape) == axis:
            ends = np.cumsum([x.shape[axis] for x in call.inputs])[:-1]
            reasons = (self.push(x, part) for x, part in zip(call.inputs, np.split(gate, ends), strict=True))
            return next((reason for reason in reasons if reason), "")
        if _hands_on(layer, gate):
            return self.push(call.inputs[0], gate)
        return f"{call.name!r} ({type(layer).__name__}) stands before it"

    def _replace(self, call: Call, scaled: Callable[[Any, np.ndarray], tuple[dict, list]], gate: np.ndarray) -> str:
        config, weights = scaled(call.operation, gate)
        layer = new_layer(type(call.operation).from_config(config), call.inputs[0].shape, weights)
        self.replacements[call] = [dataclasses.replace(call, operation=layer, is_new=True)]
        self.targets.append(call.name)
        return ""


def _other_axis(call: Call) -> str:
    return f"{call.name!r} works along another axis"


def _passes(activation: Any, gate: np.ndarray) -> bool:
    """Whether f(x * gate) is f(x) * gate."""
    if activation in (None, keras.activations.linear):
        return True
    return activation in (keras.activations.relu, keras.activations.leaky_relu) and bool(np.all(gate >= 0))


def _hands_on(layer: Any, gate: np.ndarray) -> bool:
    if isinstance(layer, layers.Activation):
        return _passes(layer.activation, gate)
    if type(layer) is layers.ReLU:
        return layer.max_value is None and not layer.threshold and bool(np.all(gate >= 0))
    return type(layer) in LINEAR or (type(layer) in POSITIVELY_HOMOGENEOUS and bool(np.all(gate >= 0)))


def _scaled_norm(norm: Any, gate: np.ndarray) -> tuple[dict, list[np.ndarray]]:
    scale = gate * float64(norm.gamma) if norm.scale else gate
    shift = [gate * float64(norm.beta)] if norm.center else []
    weights = [scale, *shift, float64(norm.moving_mean), float64(norm.moving_variance)]
    return {**norm.get_config(), "scale": True}, weights


def _scaled_layer(layer: Any, gate: np.ndarray) -> tuple[dict, list[np.ndarray]]:
    *others, kernel = kernels_of(layer)
    bias = [gate * float64(layer.bias)] if layer.use_bias else []
    return layer.get_config(), [*others, SCALE_KERNEL[type(layer)](kernel, gate), *bias]


def _as_depthwise(call: Call, gate: np.ndarray) -> Call:
    block = call.operation
    scale = layers.DepthwiseConv2D(
        1, use_bias=False, data_format=block.data_format, name=block.name, dtype=block.dtype_policy
    )
    return dataclasses.replace(new_call(scale, call.inputs[0], [gate.reshape(1, 1, -1, 1)]), outputs=call.outputs)
