"""Gates that hardly depend on the image, found on data and replaced with constants."""

from __future__ import annotations

import dataclasses
import functools
import statistics
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from se_keras.batch_prediction import predict_batch
from se_keras.errors import check_count, one_of
from se_keras.surgery.calls import Graph
from se_keras.surgery.constant_gates import with_constant_gate
from se_keras.surgery.forward import Moments, forward
from se_keras.surgery.graph import build_model, read_graph
from se_keras.surgery.layer_facts import shown
from se_keras.surgery.outputs import graph_scores
from se_keras.surgery.probe import Probe, probe_gates
from se_keras.surgery.subclasses import warn_of_lost_class
from se_keras.timing import interleaved, stopwatch

# Deviations this small come from the order of sums within a batch, not from the image.
ROUNDING = 1e-6
DEFAULT_BOUNDS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2)


@dataclasses.dataclass(frozen=True)
class GateChange:
    """A change that pruning makes to one SE block, or the reason why it makes none.

    Args:
        block: Its name.
        deviation: The greatest standard deviation of its gates over the data, over all channels.
        action: "folded" (into the layers in `detail`), "scaled" (replaced with a multiplication by
            constants, for the reason in `detail`), or "kept" (for the reason in `detail`).
        detail: The names of layers, or the reason.
    """

    block: str
    deviation: float
    action: str
    detail: str

    def __str__(self) -> str:
        return f"{self.action} {self.block} (deviation {self.deviation:.3g}): {self.detail}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class PruningReport:
    """A comparison of a network before and after pruning; pairs are (before, after).

    Args:
        network: Name of the model.
        bound: Gates whose standard deviation was at most this became constants.
        images: Number of images that the gates were observed on.
        changes: The change of each SE block, in the order of the network.
        parameters: Number of parameters, trainable and non-trainable.
        macs: Multiply-adds per image, or None if they were not counted.
        seconds: Median time per image, or None if it was not measured.
        accuracy: Fraction of the images classified correctly, 0 to 1, or None without labels or classes.
        agreement: Fraction of the images to which both networks assign the same class, or None if
            the model is not a classifier with one output per class.
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
        """Returns the names of the pruned blocks."""
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


def prune_gates(
    model: keras.Model,
    data: Any,
    *,
    bound: float = 0.01,
    blocks: Collection[str] | None = None,
    batch_size: int = 32,
    verbose: str | int = "auto",
) -> keras.Model:
    """Replaces SE blocks whose gates hardly depend on the image with constants, and folds the constants.

    A block is pruned if the standard deviation of each of its gates over the data is at most
    `bound`; its gates become their means. They are folded into the convolutions or normalizations
    before the block, through activations and poolings that allow it. Where no layer can take them,
    a multiplication by constants remains. Folding is exact up to rounding, so a bound of 0, which
    prunes only gates that do not vary at all, changes no output. `pruning_curve` measures
    beforehand what each bound saves and costs. Blocks of other layers or `keras.ops` are pruned in
    the same way; those inside layer classes of other packages are kept.

    Reference: arXiv 1709.01507v4, section 7.2: the last stage's blocks matter least, and leaving
    them out costs less than 0.1 points of top-1 error.

    Args:
        model: A functional model, or a built sequential one. It is not changed.
        data: Images like those the model will see, in the range of its input: an array, (array,
            labels), or a finite dataset that `fit` takes, of batches x or (x, labels).
        bound: Greatest standard deviation of a gate, in units of the gates, at least 0.
        blocks: Names of the SE blocks that may be pruned; with `bound=math.inf`, all of them are.
            None allows any.
        batch_size: Images per batch, if `data` is an array.
        verbose: "auto" or 1 to show a progress bar, 0 to show nothing.

    Returns:
        A new functional model that shares nothing with the old one; its class is as in
        `insert_squeeze_excite`.

    Raises:
        ValueError: The bound is below 0, a block is unknown, the model has no SE blocks that can be read or is
            subclassed, or there are no images.

    Example:

    >>> images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3))
    >>> model = SEResNet20()
    >>> model.count_params() - prune_gates(model, images, bound=1.0, verbose=0).count_params()
    2373
    """
    _check_bounds([bound])
    graph = read_graph(model)
    probe = _probe(graph, blocks)
    seen = _observed(probe, data, None, batch_size, verbose)
    pruned, _ = _without_constant_gates(graph, probe, seen.moments, bound, blocks)
    small = build_model(pruned, like=model)
    warn_of_lost_class(model, small)
    return small


def pruning_curve(
    model: keras.Model,
    data: Any,
    *,
    bounds: Sequence[float] = DEFAULT_BOUNDS,
    labels: Any = None,
    blocks: Collection[str] | None = None,
    count_macs: Callable[[keras.Model], int] | None = None,
    batch_size: int = 32,
    timed_calls: int = 20,
    verbose: str | int = "auto",
) -> tuple[PruningReport, ...]:
    """Measures what `prune_gates` saves and costs at several bounds, from one observation of the gates.

    Args:
        model: As in `prune_gates`.
        data: As in `prune_gates`, but readable more than once.
        bounds: The bounds, each at least 0.
        labels: Integer labels or one-hot rows, if `data` contains none. None measures no accuracy.
        blocks: As in `prune_gates`.
        count_macs: A function that returns a model's multiply-adds, for the reports:
            `lambda model: se_keras.model_info(model).total.macs`.
        batch_size: Images per batch, if `data` is an array.
        timed_calls: Timed calls of each model on one image; the models take turns. 0 skips timing.
        verbose: "auto" or 1 to show a progress bar per pass over the data, 0 to show nothing.

    Returns:
        A report for each bound, in the order of `bounds`.

    Raises:
        ValueError: As in `prune_gates`; or the labels have a different length, or the data can be read
            only once.

    Example:

    >>> images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3))
    >>> (report,) = pruning_curve(SEResNet20(), images, bounds=[1.0], timed_calls=0, verbose=0)
    >>> len(report.pruned), report.parameters[0] - report.parameters[1]
    (9, 2373)
    """
    _check_bounds(bounds)
    timed_calls = check_count("timed_calls", timed_calls, least=0)
    if isinstance(data, Iterator):
        raise ValueError(
            f"`data` is read once before and once after pruning; received {type(data).__name__}, which can be read "
            "only once. Pass an array, a dataset, or a list of batches."
        )
    graph = read_graph(model)
    probe = _probe(graph, blocks)
    seen = _observed(probe, data, labels, batch_size, verbose)
    original = build_model(graph)
    found = []
    for bound in bounds:
        pruned, changes = _without_constant_gates(graph, probe, seen.moments, bound, blocks)
        small = build_model(pruned)
        classes = None
        if seen.classes is not None:
            passed = forward(small, data, batch_size=batch_size, title=f"Measuring bound {bound:g}", verbose=verbose)
            classes = np.concatenate([outputs[0].argmax(1) for _, outputs, _ in passed])
        found.append(
            PruningReport(
                network=model.name,
                bound=float(bound),
                images=seen.moments[0].count,
                changes=tuple(changes),
                parameters=(original.count_params(), small.count_params()),
                macs=None if count_macs is None else (count_macs(original), count_macs(small)),
                seconds=_seconds((original, small), seen.one_image, timed_calls) if timed_calls else None,
                accuracy=_accuracy(seen, classes),
                agreement=None if classes is None else float(np.mean(seen.classes == classes)),
            )
        )
    return tuple(found)


def _check_bounds(bounds: Sequence[float]) -> None:
    for bound in bounds:
        if not bound >= 0:
            raise ValueError(f"`bound` must be a standard deviation of gates, at least 0; received {bound!r}.")


def _probe(graph: Graph, blocks: Collection[str] | None) -> Probe:
    probe = probe_gates(graph)
    for name in blocks or ():
        one_of("SE block", name, probe.names)
    return probe


class _Observed(NamedTuple):
    """The result of one pass over the data: moments of each block's gates, and outputs and labels of the images."""

    moments: list[Moments]
    one_image: Any
    classes: np.ndarray | None
    labels: np.ndarray | None


def _observed(probe: Probe, data: Any, labels: Any, batch_size: int, verbose: str | int) -> _Observed:
    answers = keras.tree.flatten(probe.graph.outputs)
    observer = build_model(dataclasses.replace(probe.graph, outputs=[*probe.gates, *answers]))
    moments = [Moments(gate.shape[-1]) for gate in probe.gates]
    has_classes = len(answers) == 1 and len(answers[0].shape) == 2 and answers[0].shape[1] > 1
    is_classifier = has_classes and graph_scores(probe.graph)[0].kind != "output"
    classes, given, one_image = [], [], None
    batches = forward(observer, data, labels, batch_size=batch_size, title="Observing gates", verbose=verbose)
    for inputs, outputs, truth in batches:
        for block, gates in zip(moments, outputs, strict=False):
            block.add(gates.astype("float64"))
        if one_image is None:
            one_image = keras.tree.map_structure(lambda x: x[:1], inputs)
        if is_classifier:
            classes.append(outputs[-1].argmax(1))
        if truth is not None:
            given.append(truth)
    return _Observed(moments, one_image, *(np.concatenate(parts) if parts else None for parts in (classes, given)))


def _accuracy(seen: _Observed, classes: np.ndarray | None) -> tuple[float, float] | None:
    if seen.labels is None or classes is None:
        return None
    return float(np.mean(seen.classes == seen.labels)), float(np.mean(classes == seen.labels))


def _seconds(models: Sequence[keras.Model], image: Any, calls: int) -> tuple[float, float]:
    """Returns the median time of each of two models."""
    calls_of = [functools.partial(predict_batch, model, image) for model in models]
    seconds = interleaved({number: stopwatch(call) for number, call in enumerate(calls_of)}, rounds=calls, warmups=2)
    return statistics.median(seconds[0]), statistics.median(seconds[1])


def _without_constant_gates(
    graph: Graph, probe: Probe, moments: Sequence[Moments], bound: float, blocks: Collection[str] | None
) -> tuple[Graph, list[GateChange]]:
    changes = []
    blocks_found = zip(probe.excitations, probe.names, moments, probe.holders, strict=True)
    for one, name, gate, holder in blocks_found:
        deviation = float(gate.std.max())
        if blocks is not None and name not in blocks:
            changes.append(GateChange(name, deviation, "kept", "it is not in `blocks`"))
            continue
        if deviation > max(bound, ROUNDING * one.scale):
            changes.append(GateChange(name, deviation, "kept", f"it deviates by more than {bound:g}"))
            continue
        if holder is not None:
            changes.append(GateChange(name, deviation, "kept", f"it is inside {shown(holder)}, which is not expanded"))
            continue
        graph, action, detail = with_constant_gate(graph, one, gate.mean)
        changes.append(GateChange(name, deviation, action, detail))
    return graph, changes
