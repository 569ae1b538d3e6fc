"""Where a network takes Squeeze-and-Excitation: found in its graph, or named by the user."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

import keras
from keras import layers

from se_keras.layers import SqueezeExcite
from se_keras.surgery.fold import BATCH_NORMS, PADDINGS
from se_keras.surgery.graph import Call, Graph, is_functional, read_graph, read_nested_graph

Where = str | type | Callable[[Any], bool] | Collection[str]

DEPTHWISE = (layers.DepthwiseConv1D, layers.DepthwiseConv2D)
TRANSPOSED = (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)
CONVOLUTIONS = (
    layers.Conv1D,
    layers.Conv2D,
    layers.Conv3D,
    layers.SeparableConv1D,
    layers.SeparableConv2D,
    *DEPTHWISE,
    *TRANSPOSED,
)
LEARNED = (*CONVOLUTIONS, layers.Dense, layers.EinsumDense)
NORMS = (*BATCH_NORMS, layers.LayerNormalization, layers.GroupNormalization, layers.UnitNormalization)
ACTIVATIONS = (layers.Activation, layers.ReLU, layers.LeakyReLU, layers.PReLU, layers.ELU)
UPSAMPLINGS = (layers.UpSampling1D, layers.UpSampling2D, layers.UpSampling3D, layers.Resizing, *TRANSPOSED)

# What a position moves in front of: at the end of a branch, these only drop, scale or hand on. By name,
# because keras.applications does not export two of them.
AT_BRANCH_END = ("Dropout", "Identity", "LayerScale", "Rescaling", "StochasticDepth")
# keras.applications.InceptionResNetV2 adds its scaled branch in a layer of its own.
ADDITIONS = ("Add", "CustomScaleLayer")
# As the last activation of a network these make its answer.
ANSWERS = ("softmax", "sigmoid", "tanh")

LOOKED_FOR = (
    "additions of a shortcut and a branch with a convolution; concatenations of at least two branches with a "
    "convolution each; concatenations of a tensor and the features computed from it; depthwise convolutions before a "
    "1x1 convolution that narrows the map; and, where there is none of these, convolutions with a norm or an activation"
)


HAS_SE = "it has SE already"


@dataclasses.dataclass(frozen=True)
class Position:
    """A place for an SE block, right behind a layer.

    Args:
        layer: The layer's name; "model/layer" for one inside a nested model.
        reason: Why it is a place.
        obstacle: Why no block goes there, e.g. "it has SE already"; "" if one does.
        call: The layer's call in the graph.
    """

    layer: str
    reason: str
    obstacle: str = ""
    call: Call | None = dataclasses.field(default=None, repr=False, compare=False)

    def __str__(self) -> str:
        if self.obstacle:
            return f"nothing behind {self.layer} ({self.reason}): {self.obstacle}"
        return f"SE behind {self.layer}: {self.reason}"


def find_positions(model: keras.Model, where: Where = "auto") -> tuple[Position, ...]:
    """Finds the places where a network takes SE blocks; `insert_squeeze_excite` puts them there.

    With `where="auto"` they are, by what the network consists of:

    - additions (ResNet, Xception, ConvNeXt): the end of the residual branch, after its last norm
      and before what only drops or scales it;
    - Inception modules (also Fire modules and NASNet's cells): the outermost concatenation;
    - dense layers (DenseNet, ShuffleNet's units of step 2): the new features, before their
      concatenation with the old ones;
    - inverted residuals (MobileNetV2): the widened map, after the norm and activation of the
      depthwise convolution, as MobileNetV3 and EfficientNet have it. The paper's rule, the end
      of the branch, is `where="project_BN$"` there;
    - only where there is none of these (VGG, MobileNet): each convolution with its norm and
      activation; a depthwise convolution and the 1x1 behind it count as one. A convolution
      that makes the answer is left alone.

    Reference: arXiv 1709.01507v4, section 3.3, figures 2 and 3; arXiv 1905.02244, section 5.3,
    for inverted residuals.

    Args:
        model: A functional model, or a sequential one that has been built.
        where: "auto"; a regular expression that is searched in the layers' names (`re.search`);
            a layer type; a function from a layer to whether it takes a block; or a list of
            names, where "model/layer" means a layer of a nested model and "layer" one of any.

    Returns:
        The positions in the order of the graph, also those that have SE already, or cannot
        take it, with the reason.

    Raises:
        ValueError: A subclassed model, or a sequential one that has no input shape yet; nothing
            fits `where`; a name in the list that no layer has, or of a layer that cannot take
            a block.
        TypeError: `where` is none of these.

    Example:

    >>> [position.layer for position in find_positions(keras.applications.InceptionV3(weights=None))][:3]
    ['mixed0', 'mixed1', 'mixed2']
    """
    if isinstance(where, str) and where == "auto":
        return _standard_positions(model)
    return _chosen_positions(model, where)


# Positions that the user names.


def _chosen_positions(model: keras.Model, where: Where) -> tuple[Position, ...]:
    calls = list(_calls_with_paths(model))
    view = View(read_graph(model))
    excited = {id(call.record) for call in view.graph.calls if view.is_excited(call)}
    fits, names = _predicate(where)
    positions = []
    for path, call in calls:
        if fits(path, call.operation):
            obstacle = _obstacle(call, excited)
            if obstacle and names and obstacle != HAS_SE:
                raise ValueError(f"An SE block cannot go behind {path!r}: {obstacle}. Name other layers.")
            positions.append(Position(path, f"chosen by {_shown(where)}", obstacle, call))
    found = {name for name in names for path, _ in calls if _is_named(path, name)}
    unknown = [name for name in names if name not in found]
    if unknown or not positions:
        raise ValueError(_nothing_fits(model, where, unknown, [path for path, _ in calls]))
    return tuple(positions)


def _calls_with_paths(model: keras.Model, prefix: str = "") -> Iterator[tuple[str, Call]]:
    """Every call, also those inside nested models, once each."""
    nested: set[int] = set()
    for call in read_nested_graph(model).calls:
        yield prefix + call.name, call
        if is_functional(call.operation) and id(call.operation) not in nested:
            nested.add(id(call.operation))
            yield from _calls_with_paths(call.operation, f"{prefix}{call.name}/")


def _predicate(where: Where) -> tuple[Callable[[str, Any], bool], tuple[str, ...]]:
    """A function of a layer's path and the layer; and the names, if `where` is a list of them."""
    if isinstance(where, str):
        try:
            pattern = re.compile(where)
        except re.error as error:
            raise ValueError(
                f"`where` must be 'auto' or a regular expression; {where!r} is none: {error}. For names as they are, "
                "pass a list."
            ) from error
        return (lambda path, layer: pattern.search(path.rpartition("/")[2]) is not None), ()
    if isinstance(where, type):
        return (lambda path, layer: isinstance(layer, where)), ()
    if callable(where):
        return (lambda path, layer: bool(where(layer))), ()
    if isinstance(where, Iterable):
        names = tuple(where)
        if names and all(isinstance(name, str) for name in names):
            return (lambda path, layer: any(_is_named(path, name) for name in names)), names
    raise TypeError(
        "`where` must be 'auto', a regular expression, a layer type, a function of a layer, or a list of names; "
        f"received {where!r}."
    )


def _is_named(path: str, name: str) -> bool:
    return path == name or path.endswith(f"/{name}")


def _shown(where: Where) -> str:
    if isinstance(where, str):
        return f"the pattern {where!r}"
    if isinstance(where, type):
        return f"its type, {where.__name__}"
    return f"{getattr(where, '__name__', 'a function')}" if callable(where) else "name"


def _nothing_fits(model: keras.Model, where: Where, unknown: list[str], paths: list[str]) -> str:
    inputs = [x._keras_history.operation for x in model.inputs]
    named = [
        layer.name
        for layer in inputs
        if layer.name in unknown or (not unknown and _predicate(where)[0](layer.name, layer))
    ]
    if named:
        return (
            f"An SE block goes behind a layer that computes a map; {named} of {model.name!r} is an input. "
            "Name the first convolution instead."
        )
    rule = f"have the name {unknown}" if unknown else f"fit where={where!r}"
    kinds = "regular expressions are searched in names" if isinstance(where, str) else "names may be 'model/layer'"
    return (
        f"No layers of {model.name!r} {rule} ({kinds}). Its layers: {', '.join(paths[:12])}"
        f"{f' and {len(paths) - 12} more' if len(paths) > 12 else ''}."
    )


def _obstacle(call: Call, excited: set[int]) -> str:
    """Why a block cannot go behind a call, or ""."""
    if isinstance(call.operation, SqueezeExcite) or id(call.record) in excited:
        return HAS_SE
    if len(call.outputs) != 1:
        return f"it gives {len(call.outputs)} tensors"
    shape = tuple(call.outputs[0].shape)
    if len(shape) not in (3, 4, 5):
        return f"SE takes maps of rank 3 to 5, and it gives {shape}"
    if "float" not in call.outputs[0].dtype:
        return f"SE takes numbers with a fraction, and it gives {call.outputs[0].dtype}"
    return ""


# Positions that the network's structure shows.


def _standard_positions(model: keras.Model) -> tuple[Position, ...]:
    view = View(read_graph(model))
    found: dict[Call, Position] = {}
    inverted = _inverted(view, found)
    residual = _residual(view, inverted, found)
    _modules(view, residual, found)
    _dense(view, inverted, found)
    if not found:
        _plain(view, found)
    if not found:
        raise ValueError(
            f"No standard position for SE blocks was found in {model.name!r}. Looked for: {LOOKED_FOR}. Name layers "
            "with `where`: a regular expression, a layer type, a function, or a list."
        )
    paths = {id(call.record): path for path, call in _calls_with_paths(model)}
    positions: dict[int, Position] = {}
    for call in view.graph.calls:  # a nested model that is called twice has its calls in there twice
        if call in found:
            record = id(call.record)
            positions.setdefault(record, dataclasses.replace(found[call], layer=paths[record]))
    return tuple(positions.values())


def _add(view: View, found: dict[Call, Position], call: Call, reason: str, has_se: bool) -> None:
    if call.record is None:  # it was made to read the graph
        return
    has_se = has_se or isinstance(call.operation, SqueezeExcite) or view.is_excited(call)
    found.setdefault(call, Position(call.name, reason, HAS_SE if has_se else "", call))


def _inverted(view: View, found: dict[Call, Position]) -> set[Call]:
    """Inverted residuals: a depthwise convolution whose map a linear 1x1 convolution narrows."""
    depthwise_calls = set()
    for call in view.graph.calls:
        if not _is_depthwise(call):
            continue
        end, has_se, following = view.group_end(call)
        if following is None or not _is_pointwise(following):
            continue
        before, after = view.channels(following.inputs[0]), view.channels(following.outputs[0])
        if before is None or after is None or after >= before or not view.is_linear(following):
            continue
        _add(view, found, end, f"depthwise convolution before {following.name} narrows the map", has_se)
        depthwise_calls.add(call)
    return depthwise_calls


def _residual(view: View, inverted: set[Call], found: dict[Call, Position]) -> set[Call]:
    """Ends of residual branches; returns the additions."""
    additions = set()
    for call in view.graph.calls:
        if not view.is_addition(call) or view.feeds_module(call):
            continue
        own = view.own(call)
        together = [one for calls in own for one in calls]
        counts = [sum(_is_learned(one) for one in calls) for calls in own]
        branches = [number for number, count in enumerate(counts) if count > min(counts)]
        if not branches or min(counts) > 1 or any(view.enlarges(one) for one in together):
            continue
        if not any(isinstance(one.operation, CONVOLUTIONS) for number in branches for one in own[number]):
            continue
        additions.add(call)
        if inverted & set(together):
            continue
        has_se = view.excites_any(together) or view.is_excited_after(call)
        for number in branches:
            end = view.branch_end(call.inputs[number])
            if end is not None:
                _add(view, found, end, f"end of the residual branch before {call.name}", has_se)
    return additions


def _modules(view: View, additions: set[Call], found: dict[Call, Position]) -> None:
    """Outermost concatenations of Inception modules that do not stand in a residual branch."""
    for call in view.modules:
        if not view.leads_to(call, additions | view.modules):
            _add(view, found, call, "concatenation of a module", view.is_excited_after(call))


def _dense(view: View, inverted: set[Call], found: dict[Call, Position]) -> None:
    """New features of dense layers, concatenated with what they were computed from."""
    for call in view.graph.calls:
        if not view.is_concatenation(call) or call in view.modules:
            continue
        own = view.own(call)
        branches = [number for number, calls in enumerate(own) if any(_is_learned(one) for one in calls)]
        if len(branches) != 1 or len(own) < 2:
            continue
        calls = own[branches[0]]
        has_convolution = any(isinstance(one.operation, CONVOLUTIONS) for one in calls)
        if not has_convolution or inverted & set(calls) or any(view.enlarges(one) for many in own for one in many):
            continue
        end = view.branch_end(call.inputs[branches[0]])
        if end is not None:
            has_se = view.excites_any(calls) or view.is_excited_after(call)
            _add(view, found, end, f"new features before {call.name}", has_se)


def _plain(view: View, found: dict[Call, Position]) -> None:
    """Convolutions with their norm and activation."""
    for call in view.graph.calls:
        if not isinstance(call.operation, CONVOLUTIONS) or call in view.gate_calls or view.is_pooled(call.outputs[0]):
            continue
        end, has_se, following = view.group_end(call)
        activation = _activation_of(end.operation)
        is_group = end is not call or activation != "linear"
        if not is_group or (_is_depthwise(call) and following is not None and _is_pointwise(following)):
            continue
        if activation in ANSWERS and not view.is_learned_after(end):
            continue
        reason = "convolution and activation" if end is call else f"convolution {call.name} with what follows it"
        _add(view, found, end, reason, has_se)


class View:
    """A graph and what can be asked about it: who gives, takes and depends on what.

    Args:
        graph: The graph, with nested models laid open.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.producers = graph.producers()
        self.consumers = graph.consumers()
        self.number = {call: number for number, call in enumerate(graph.calls)}
        inputs = keras.tree.flatten(graph.inputs)
        self.input_bits = {id(x): 1 << (len(graph.calls) + number) for number, x in enumerate(inputs)}
        self.ancestors: dict[Call, int] = {}
        for call in graph.calls:
            bits = 1 << self.number[call]
            for tensor in call.inputs:
                bits |= self.upstream(tensor)
            self.ancestors[call] = bits
        # From a call that ends an SE block to the map it rescales; the calls between a map and its
        # gate, in blocks made of ordinary layers.
        self.gated, self.gate_calls = self._blocks()

    def upstream(self, tensor: Any) -> int:
        """The calls and inputs that a tensor depends on, as bits."""
        call = self.producers.get(id(tensor))
        return self.input_bits.get(id(tensor), 0) if call is None else self.ancestors[call]

    def calls_of(self, bits: int) -> list[Call]:
        """The calls that bits stand for."""
        return [call for call in self.graph.calls if bits >> self.number[call] & 1]

    def own(self, call: Call) -> list[list[Call]]:
        """For each input of a merge, the calls that it depends on and not all of the others do."""
        upstream = [self.upstream(tensor) for tensor in call.inputs]
        common = functools.reduce(lambda a, b: a & b, upstream)
        return [self.calls_of(bits & ~common) for bits in upstream] if common else [[] for _ in upstream]

    def takers(self, tensor: Any) -> list[Call]:
        """The calls that take a tensor."""
        return [call for call in self.consumers.get(id(tensor), []) if call is not None]

    def channels(self, tensor: Any) -> int | None:
        """How many channels a tensor has, if that is known."""
        return tensor.shape[self.axis(tensor)]

    def axis(self, tensor: Any) -> int:
        """The axis of a tensor's channels, from the nearest layer before it that has a data format."""
        rank = len(tensor.shape)
        return 1 if rank > 2 and data_format_of(self.producers, tensor) == "channels_first" else rank - 1

    # Squeeze-and-excitation that is there already.

    def _blocks(self) -> tuple[dict[Call, Any], set[Call]]:
        gated: dict[Call, Any] = {}
        gate_calls: set[Call] = set()
        for call in self.graph.calls:
            if isinstance(call.operation, SqueezeExcite):
                gated[call] = call.inputs[0]
            elif type(call.operation).__name__ == "Multiply" and len(call.inputs) == 2:
                for wide, gate in (call.inputs, call.inputs[::-1]):
                    path = self._gate_path(gate, wide)
                    if path:
                        gated[call] = wide
                        gate_calls |= set(path)
        return gated, gate_calls

    def _gate_path(self, gate: Any, wide: Any) -> list[Call]:
        """The calls from a map to its gate, if a global pooling and a projection are among them."""
        path: list[Call] = []
        tensor = gate
        while tensor is not wide:
            call = self.producers.get(id(tensor))
            if call is None or len(call.inputs) != 1:
                return []
            path.append(call)
            tensor = call.inputs[0]
        pooled = any(_is_global_pooling(call) for call in path)
        return path if pooled and any(_is_learned(call) for call in path) else []

    def excites_any(self, calls: Iterable[Call]) -> bool:
        """Whether an SE block ends in one of the calls."""
        return any(call in self.gated for call in calls)

    def is_excited(self, call: Call) -> bool:
        """Whether an SE block takes what a call gives."""
        outputs = {id(tensor) for tensor in call.outputs}
        return any(id(wide) in outputs for wide in self.gated.values())

    def is_excited_after(self, call: Call) -> bool:
        """Whether an SE block takes what a call gives, or what its norm and activation make of it."""
        while not self.is_excited(call):
            following = self._only_taker(call.outputs[0])
            if following is None or not _is_norm_or_activation(following):
                return False
            call = following
        return True

    def _only_taker(self, tensor: Any) -> Call | None:
        """The call that takes a tensor; None where there are several, or none."""
        takers = self.takers(tensor)
        return takers[0] if len(takers) == 1 else None

    def _behind_gate(self, tensor: Any) -> Call | None:
        """The end of the SE block that takes a tensor."""
        return next((call for call in self.takers(tensor) if self.gated.get(call) is tensor), None)

    # Units.

    def group_end(self, call: Call) -> tuple[Call, bool, Call | None]:
        """The last of a convolution, its norm and its activation; whether SE follows; and the one call after that."""
        has_se = False
        end = last = call
        while True:
            gate = self._behind_gate(last.outputs[0])
            following = gate or self._only_taker(last.outputs[0])
            if following is None:
                return end, has_se, None
            if gate is not None:
                has_se = True
            elif isinstance(following.operation, PADDINGS) or _is_passing(following):
                pass
            elif _is_norm_or_activation(following) and not has_se:
                end = following
            else:
                return end, has_se, following
            last = following

    def is_linear(self, call: Call) -> bool:
        """Whether a convolution and its norm are followed by no activation."""
        end, _, _ = self.group_end(call)
        return _activation_of(end.operation) == "linear"

    def is_addition(self, call: Call) -> bool:
        """Whether a call adds maps of one size."""
        return type(call.operation).__name__ in ADDITIONS and self._merges_maps(call)

    def is_concatenation(self, call: Call) -> bool:
        """Whether a call concatenates the channels of maps."""
        if type(call.operation).__name__ != "Concatenate" or not self._merges_maps(call):
            return False
        rank = len(call.outputs[0].shape)
        return call.operation.axis % rank == self.axis(call.outputs[0])

    @staticmethod
    def _merges_maps(call: Call) -> bool:
        ranks = {len(tensor.shape) for tensor in call.inputs}
        return len(call.inputs) > 1 and ranks <= {3, 4, 5} and len(ranks) == 1

    @functools.cached_property
    def modules(self) -> set[Call]:
        """Concatenations of at least two branches with a convolution of their own, of which one sees neighbours."""
        return {
            call
            for call in self.graph.calls
            if self.is_concatenation(call)
            and sum(self._has_own_convolution(x) for x in call.inputs) > 1
            and any(isinstance(one.operation, CONVOLUTIONS) and not _is_pointwise(one) for one in self._all_own(call))
        }

    def _all_own(self, call: Call) -> list[Call]:
        return [one for calls in self.own(call) for one in calls]

    def _has_own_convolution(self, tensor: Any) -> bool:
        """Whether, before anything else takes what leads to a tensor, there is a convolution."""
        call = self.producers.get(id(tensor))
        if call is None or self.enlarges(call):
            return False
        if call in self.gated:
            source = self.producers.get(id(self.gated[call]))
            return source is not None and self._makes_map(source)
        return len(self.takers(tensor)) == 1 and self._makes_map(call)

    def _makes_map(self, call: Call) -> bool:
        return isinstance(call.operation, CONVOLUTIONS) or any(self._has_own_convolution(x) for x in call.inputs)

    def feeds_module(self, call: Call) -> bool:
        """Whether a module concatenates what a call gives, or what norm and activation make of it."""
        pending = [call]
        while pending:
            for taker in self.takers(pending.pop().outputs[0]):
                if taker in self.modules:
                    return True
                if _is_norm_or_activation(taker):
                    pending.append(taker)
        return False

    def leads_to(self, call: Call, ends: set[Call]) -> bool:
        """Whether all that becomes of a call's output is, one step after the other, an input of one of `ends`."""
        while True:
            gate = self._behind_gate(call.outputs[0])
            following = gate or self._only_taker(call.outputs[0])
            if following is None or following in ends:
                return following is not None
            if gate is None and len(following.inputs) != 1:
                return False
            call = following

    def branch_end(self, tensor: Any) -> Call | None:
        """The call that ends a branch, in front of what only drops or scales; None for an input of the model."""
        call = self.producers.get(id(tensor))
        while call is not None and len(call.inputs) == 1 and _is_passing(call):
            before = self.producers.get(id(call.inputs[0]))
            if before is None or self._only_taker(call.inputs[0]) is None:
                break
            call = before
        return call

    def enlarges(self, call: Call) -> bool:
        """Whether a call makes a map of at least twice the height, width or length."""
        if isinstance(call.operation, UPSAMPLINGS) or type(call.operation).__name__ in ("Resize", "DepthToSpace"):
            return True
        if len(call.inputs) != 1 or len(call.inputs[0].shape) != len(call.outputs[0].shape):
            return False
        before, after = call.inputs[0].shape[1:], call.outputs[0].shape[1:]
        axis = self.axis(call.outputs[0]) - 1
        pairs = [pair for number, pair in enumerate(zip(before, after, strict=True)) if number != axis]
        is_padding = isinstance(call.operation, PADDINGS)
        return not is_padding and any(a is not None and b is not None and b >= 2 * a for a, b in pairs)

    def is_pooled(self, tensor: Any) -> bool:
        """Whether a tensor is what a global pooling left, one position."""
        is_one = sorted(size or 0 for size in tensor.shape[1:])[:-1] == [1] * (len(tensor.shape) - 2)
        return is_one and any(_is_global_pooling(call) for call in self.calls_of(self.upstream(tensor)))

    def is_learned_after(self, call: Call) -> bool:
        """Whether a layer with kernels depends on a call."""
        bit = 1 << self.number[call]
        return any(_is_learned(one) and one is not call and self.ancestors[one] & bit for one in self.graph.calls)


def data_format_of(producers: dict[int, Call], tensor: Any) -> str:
    """The data format of a tensor: that of the nearest layer before it that has one, else Keras' setting.

    Args:
        producers: Of the graph.
        tensor: A symbolic tensor in it.

    Returns:
        "channels_last" or "channels_first".
    """
    seen: set[int] = set()
    pending = [tensor]
    while pending:
        call = producers.get(id(pending.pop(0)))
        if call is None or id(call) in seen:
            continue
        seen.add(id(call))
        if getattr(call.operation, "data_format", None):
            return call.operation.data_format
        pending += call.inputs
    return keras.config.image_data_format()


def _is_learned(call: Call) -> bool:
    return isinstance(call.operation, LEARNED)


def _is_depthwise(call: Call) -> bool:
    layer = call.operation
    if isinstance(layer, DEPTHWISE):
        return True
    return isinstance(layer, CONVOLUTIONS) and getattr(layer, "groups", 1) > 1 and layer.kernel.shape[-2] == 1


def _is_pointwise(call: Call) -> bool:
    layer = call.operation
    if isinstance(layer, layers.Dense):
        return len(call.inputs[0].shape) > 2
    plain = isinstance(layer, (layers.Conv1D, layers.Conv2D, layers.Conv3D)) and not isinstance(layer, DEPTHWISE)
    return plain and set(layer.kernel_size) == {1}


def _activation_of(operation: Any) -> str:
    """The name of what a layer applies; "linear" for none."""
    if isinstance(operation, (layers.ReLU, layers.LeakyReLU, layers.PReLU, layers.ELU)):
        return "relu"
    if not isinstance(operation, layers.Layer):
        return type(operation).__name__.lower()
    activation = getattr(operation, "activation", None)
    return "linear" if activation is None else getattr(activation, "__name__", "custom")


@functools.cache
def _activation_names() -> frozenset[str]:
    """The names of Keras' activations, by which operations that are no layers are known."""
    return frozenset(name for name in dir(keras.activations) if name.islower() and not name.startswith("_"))


def _is_norm_or_activation(call: Call) -> bool:
    operation = call.operation
    if len(call.inputs) != 1:
        return False
    if isinstance(operation, (*NORMS, *ACTIVATIONS)):
        return not _is_passing(call)
    return not isinstance(operation, layers.Layer) and type(operation).__name__.lower() in _activation_names()


def _is_passing(call: Call) -> bool:
    """Whether a call only drops, scales or hands on what it takes."""
    if isinstance(call.operation, layers.Activation):
        return call.operation.activation is keras.activations.linear
    return any(name in type(call.operation).__name__ for name in AT_BRANCH_END)


def _is_global_pooling(call: Call) -> bool:
    name = type(call.operation).__name__
    if name.startswith("Global") and "Pooling" in name:
        return True
    return name in ("Mean", "Max") and len(call.inputs[0].shape) > 2 and call.inputs[0].shape != call.outputs[0].shape
