"""The only engine that turns a checkpoint's tensors into a model's weights: strictly, by its family's rules.

tensors = {"layer0.conv1.weight": ..., ...}
model = se_keras.create_model("se_resnet50")
assign(model, convert(tensors, model, "timm_legacy"))
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import keras
import numpy as np

from se_keras.errors import WeightsMismatchError
from se_keras.weights.class_order import sorted_from_devkit
from se_keras.weights.published import RECORDS
from se_keras.weights.rules import FAMILIES, Family, Source, family_named
from se_keras.weights.transforms import TRANSFORMS, Shape, Transform
from se_keras.weights.values import check_values

STEMS = ("stem_conv/kernel", "stem_conv1/kernel")
HEAD = ("logits/kernel", "logits/bias")
_BEFORE_LOGITS = (("head_conv", "Conv2D"), ("fc1", "Dense"), ("fc2", "Dense"))
"""Layers, with their type, that some networks have between the pooling and the logits."""

_STATISTICS = re.compile(r"running_(mean|var)$|num_batches_tracked$|/bn\[\d\]$|/moving_(mean|variance)$")


@dataclasses.dataclass(frozen=True)
class _Wanted:
    """A variable of the network, and the tensors that it is made from.

    Args:
        name: "layer/variable".
        shape: Its shape with the checkpoint's classes and channels.
        dtype: Its type.
        tensors: Names of the tensors.
        transform: How they become the variable.
    """

    name: str
    shape: Shape
    dtype: str
    tensors: tuple[str, ...]
    transform: Transform

    def shapes(self) -> dict[str, Shape]:
        """Returns the shape of each tensor by its name in the checkpoint."""
        return dict(zip(self.tensors, self.transform.sources(self.shape), strict=True))

    def value(self, tensors: Mapping[str, np.ndarray]) -> np.ndarray:
        """Returns the variable's value."""
        return self.transform.apply(*(tensors[name] for name in self.tensors))


def variables_by_name(model: keras.Model) -> dict[str, Any]:
    """Returns a model's variables by "layer/variable".

    Args:
        model: Any built model.

    Returns:
        The variables in the model's order.

    Raises:
        ValueError: Two variables have the same name.
    """
    variables: dict[str, Any] = {}
    for layer, own, variable in _variables(model):
        name = f"{layer.name}/{own}"
        if name in variables:
            raise ValueError(f"Two variables of {model.name!r} are named {name!r}; rename one of the layers.")
        variables[name] = variable
    return variables


def _variables(model: keras.Model) -> Iterator[tuple[Any, str, Any]]:
    """Yields each variable with its layer and its name in the layer."""
    for layer in model.layers:
        for variable in layer.weights:
            # In a nested model, the path distinguishes the layers, but the bare name does not.
            yield layer, variable.path.split("/", 1)[-1] if isinstance(layer, keras.Model) else variable.name, variable


def convert(
    tensors: Mapping[str, np.ndarray], model: keras.Model, family: str, *, source: str = ""
) -> dict[str, np.ndarray]:
    """Returns a checkpoint's tensors under this package's names and in its layout.

    Every variable is made exactly once, and every tensor belongs to exactly one layer. Channels come
    in the order R, G, B and classes in sorted order. The model stays unchanged: `assign` fills it.

    Args:
        tensors: The checkpoint's tensors, with names and layout as published, of any float type.
        model: A model of the network and lineage that the checkpoint was trained in, with any
            number of classes and image channels, or without a classifier.
        family: How the checkpoint names its tensors, a key of `rules.FAMILIES`, or `rules.OWN`.
            A checkpoint may lack the classifier if the model does, or under the package's own names.
        source: Where the tensors come from, for messages. Default: the family.

    Returns:
        Arrays by "layer/variable", with the checkpoint's classes and channels.

    Raises:
        WeightsMismatchError: A tensor is missing, left over, or has the wrong shape.
        ValueError: The family is unknown or has no name for a layer, or a tensor contains integers,
            NaN, or infinite values.
    """
    rules = family_named(family)
    source = source or family
    found = {name: np.asarray(tensor) for name, tensor in tensors.items() if not name.endswith(rules.ignored)}
    variables = [_as_stored(wanted, found) for wanted in _wanted(model, rules, family)]
    variables = _with_classifier(variables, found, rules)
    _check(found, variables, model, family, source)
    for wanted in variables:
        for name in wanted.tensors:
            check_values(name, found[name], wanted.dtype, source=source)
    return _in_order({wanted.name: wanted.value(found) for wanted in variables}, rules)


def assign(model: keras.Model, values: Mapping[str, np.ndarray]) -> None:
    """Fills a model with converted tensors, adapted to its classes and channels.

    A classifier with a different number of classes keeps its initial weights. A stem with a different number of
    channels gets the checkpoint's weights, summed over RGB (one channel) or repeated and rescaled (any other number).

    Args:
        model: The model.
        values: The result of `convert` for this model.
    """
    variables = variables_by_name(model)
    head = [name for name in HEAD if name in variables]
    is_fresh = any(name not in values or values[name].shape != tuple(variables[name].shape) for name in head)
    for name, variable in variables.items():
        if name in STEMS and values[name].shape[2] != variable.shape[2]:
            variable.assign(adapt_channels(values[name], variable.shape[2]))
        elif not (is_fresh and name in head):
            variable.assign(values[name])


def adapt_channels(kernel: np.ndarray, channels: int) -> np.ndarray:
    """Adapts a first convolution's kernel to a different number of input channels.

    One channel: the sum over R, G, and B; a gray image gets the same output as its RGB copy. Other
    numbers: R, G, B, R, ... as often as needed, scaled to keep the sum over channels.

    Args:
        kernel: Array of shape (height, width, 3, filters).
        channels: The new number of channels, at least 1.

    Returns:
        Array of shape (height, width, channels, filters).
    """
    if channels == 1:
        return kernel.sum(axis=2, keepdims=True)
    had = kernel.shape[2]
    repeated = np.concatenate([kernel] * -(-channels // had), axis=2)[:, :, :channels]
    return repeated * (had / channels)


def expected_tensors(model: keras.Model, family: str) -> dict[str, Shape]:
    """Returns the tensors of a checkpoint that would fit a model.

    Args:
        model: A model of this package.
        family: How the checkpoint names its tensors, a key of `rules.FAMILIES`.

    Returns:
        Shape of each tensor by its name, in the checkpoint's own layout.

    Raises:
        ValueError: The family is unknown or has no name for a layer.
    """
    return {
        name: shape
        for wanted in _wanted(model, family_named(family), family)
        for name, shape in wanted.shapes().items()
    }


def tensors_of(model: keras.Model, family: str) -> dict[str, np.ndarray]:
    """Returns a model's weights as a checkpoint of a family, of which `convert` makes the same weights.

    Args:
        model: A model of this package.
        family: How the checkpoint names its tensors, a key of `rules.FAMILIES` without Caffe's.

    Returns:
        Float32 arrays by their names, in the checkpoint's own layout.

    Raises:
        ValueError: The family is unknown, has no name for a layer, or is Caffe's.
    """
    variables, tensors = variables_by_name(model), {}
    for wanted in _wanted(model, family_named(family), family):
        if wanted.transform.revert is None:
            raise ValueError(f"Checkpoints of the family {family!r} can be read, but not written.")
        value = keras.ops.convert_to_numpy(variables[wanted.name]).astype("float32")
        tensors[wanted.tensors[0]] = np.ascontiguousarray(wanted.transform.revert(value))
    return tensors


def _wanted(model: keras.Model, rules: Family, family: str) -> list[_Wanted]:
    wanted = []
    for layer, own, variable in _variables(model):
        source = rules.source(layer.name, type(layer).__name__, own)
        if source is None:
            raise ValueError(
                f"The family {family!r} has no name for the layer {layer.name!r} ({type(layer).__name__}) of "
                f"{model.name!r}: the checkpoint belongs to another network. Families: {', '.join(FAMILIES)}."
            )
        shape, transform = tuple(variable.shape), TRANSFORMS[source.transform]
        wanted.append(_Wanted(f"{layer.name}/{own}", shape, str(variable.dtype), source.tensors, transform))
    return wanted


def _as_stored(wanted: _Wanted, found: Mapping[str, np.ndarray]) -> _Wanted:
    """Returns a variable with the channels or classes of the checkpoint, which may differ from the model's."""
    axis = 2 if wanted.name in STEMS else -1 if wanted.name in HEAD else None
    if axis is None or wanted.tensors[0] not in found:
        return wanted
    shape = list(wanted.shape)
    shape[axis] = found[wanted.tensors[0]].size * shape[axis] // math.prod(shape)
    return dataclasses.replace(wanted, shape=tuple(shape))


def _with_classifier(variables: list[_Wanted], found: Mapping[str, np.ndarray], family: Family) -> list[_Wanted]:
    """Adds the classifier that a model lacks, as the checkpoint has it; drops one that may be absent, and is."""
    body = [wanted for wanted in variables if wanted.name not in HEAD]
    head = {name: family.classifier(name.partition("/")[2]) for name in HEAD}
    is_absent = not any(source.tensors[0] in found for source in head.values())
    if is_absent and (family.optional_classifier or len(body) == len(variables)):
        return body
    if len(body) < len(variables):
        return variables
    absent = _before_logits({wanted.name for wanted in body}, found, family) | head
    for name, source in absent.items():
        transform = TRANSFORMS[source.transform]
        shape = transform.apply(found.get(source.tensors[0], np.zeros((0, 0)))).shape
        body.append(_Wanted(name, shape, "float32", source.tensors, transform))
    return body


def _before_logits(names: Collection[str], found: Collection[str], family: Family) -> dict[str, Source]:
    """Returns the variables of `_BEFORE_LOGITS` that the checkpoint has and the model lacks."""
    sources = {
        f"{layer}/{variable}": family.source(layer, kind, variable)
        for layer, kind in _BEFORE_LOGITS
        for variable in ("kernel", "bias")
    }
    return {
        name: source
        for name, source in sources.items()
        if source is not None and name not in names and source.tensors[0] in found
    }


def _in_order(values: dict[str, np.ndarray], rules: Family) -> dict[str, np.ndarray]:
    """Returns the values with channels in the order R, G, B and classes in sorted order."""
    if rules.channel_order == "bgr":
        values |= {name: values[name][:, :, ::-1] for name in STEMS if name in values}
    if rules.class_order == "devkit":
        values |= {
            name: values[name][..., sorted_from_devkit()]
            for name in HEAD
            if name in values and values[name].shape[-1] == 1000
        }
    return values


def _check(
    found: Mapping[str, np.ndarray], variables: Iterable[_Wanted], model: keras.Model, family: str, source: str
) -> None:
    owners: dict[str, str] = {}
    expected: dict[str, str] = {}
    shapes: dict[str, Shape] = {}
    for wanted in variables:
        layer = wanted.name.partition("/")[0]
        for name, shape in wanted.shapes().items():
            if owners.setdefault(name, layer) != layer:
                raise ValueError(
                    f"The rules of {family!r} read {name!r} for two layers of {model.name!r}: {owners[name]} and "
                    f"{layer}. Correct the rules: each tensor belongs to one layer."
                )
            shapes[name] = shape
            if name not in found or found[name].shape != shape:
                expected.setdefault(name, str(shape) if name == wanted.name else f"{shape}  for {wanted.name}")
    unused = {name: str(tensor.shape) for name, tensor in found.items() if tensor.shape != shapes.get(name)}
    if expected or unused:
        count = len(expected.keys() | unused.keys())
        title = f"{model.name} <- {source}: {count} of {len(shapes.keys() | found.keys())} tensors do not match"
        raise WeightsMismatchError(title, expected, unused, _family_hint(found, model, family) or _network_hint(found))


def _family_hint(found: Collection[str], model: keras.Model, family: str) -> str:
    """Returns a hint that names another family whose names fit the checkpoint better, if there is one."""
    matches = {}
    for other in (family, *FAMILIES):
        try:
            matches[other] = len(set(found) & expected_tensors(model, other).keys())
        except ValueError:  # a family for other networks
            continue
    best = max(matches, key=lambda name: matches[name])
    return "" if matches[best] == matches[family] else f"the names look like those of the family {best!r}."


def _network_hint(found: Mapping[str, np.ndarray]) -> str:
    """Returns a hint that names the networks with as many trainable parameters as the checkpoint, if there are any."""
    count = sum(array.size for name, array in found.items() if not _STATISTICS.search(name))
    models = sorted({record.model for record in RECORDS.values() if record.parameters == count})
    return f"its {count:,} parameters are those of {' or '.join(map(repr, models))}." if models else ""
