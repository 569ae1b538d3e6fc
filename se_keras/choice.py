"""Chooses networks and checkpoints by cost, accuracy, and license, without importing Keras."""

from __future__ import annotations

import dataclasses
import fnmatch
import math
import numbers
from collections.abc import Callable, Iterable
from typing import Any

from se_keras.catalog import NetworkFacts, known_networks
from se_keras.errors import one_of
from se_keras.weights.published import NOT_COMMERCIAL, RECORDS
from se_keras.weights.records import WeightsRecord

COMMERCIAL = "commercial"
"""What stands for every license that does not forbid commercial use."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """The limits that a network or a checkpoint must meet. None: no limit.

    Args:
        max_parameters: Maximum number of trainable parameters.
        max_macs: Maximum number of multiply-adds per image.
        min_accuracy: Minimum top-1 accuracy on ImageNet-1k in percent, at the training size.
        license: "commercial" for every license that does not forbid commercial use, or the name of a license.

    Raises:
        ValueError: A limit is out of range, or the license is unknown.
    """

    max_parameters: float | None = None
    max_macs: float | None = None
    min_accuracy: float | None = None
    license: str | None = None

    def __post_init__(self) -> None:
        for name in ("max_parameters", "max_macs"):
            _check_range(name, getattr(self, name), "a number above 0", lambda value: value > 0)
        _check_range("min_accuracy", self.min_accuracy, "a percentage from 1 to 100", lambda value: 1 <= value <= 100)
        if self.license is not None:
            one_of("license", self.license, (COMMERCIAL, *sorted(set(map(license_of, RECORDS.values())))))

    @property
    def concern_weights(self) -> bool:
        """Returns whether only a network with weights can meet them."""
        return self.min_accuracy is not None or self.license is not None

    def allow_cost(self, cost: NetworkFacts | WeightsRecord) -> bool:
        """Returns whether the parameters and multiply-adds of a network or checkpoint are within the limits."""
        return _at_most(cost.parameters, self.max_parameters) and _at_most(cost.macs, self.max_macs)

    def allow_weights(self, record: WeightsRecord) -> bool:
        """Returns whether the accuracy and the license of a checkpoint are within the limits."""
        accurate = self.min_accuracy is None or (_on_imagenet(record) and (record.top1 or 0) >= self.min_accuracy)
        if self.license == COMMERCIAL:
            return accurate and record.license not in NOT_COMMERCIAL
        return accurate and self.license in (None, license_of(record))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choice:
    """A network that was chosen, and those of its checkpoints that meet the limits.

    Args:
        name: The network's registry name.
        facts: Its cost, as its builder creates it without arguments.
        weights: The checkpoints, by identifier.
    """

    name: str
    facts: NetworkFacts
    weights: tuple[WeightsRecord, ...]

    @property
    def top1(self) -> float | None:
        """Returns the best top-1 accuracy on ImageNet-1k in percent, at the training size; None without weights."""
        return max((record.top1 for record in self.weights if record.top1 and _on_imagenet(record)), default=None)


def list_models(
    pattern: str | None = None,
    *,
    has_weights: bool = False,
    max_parameters: float | None = None,
    max_macs: float | None = None,
    min_accuracy: float | None = None,
    license: str | None = None,
    sort: str | None = None,
) -> list[str]:
    """Lists the names of the networks, all of them or those that meet some limits.

    This does not import Keras.

    Args:
        pattern: Shell-style filter, such as "se_resnet*". None for all.
        has_weights: Whether to list only networks with published weights.
        max_parameters: Maximum number of trainable parameters, such as 6e6.
        max_macs: Maximum number of multiply-adds per image at the default input size.
        min_accuracy: Minimum top-1 accuracy of the weights on ImageNet-1k in percent, from 1 to 100.
        license: License of the weights: "commercial" for every license that does not forbid commercial use, or
            the name of one, such as "apache-2.0".
        sort: "name", "accuracy" (best first), "parameters", "macs", or "size" of the input (smallest first). None:
            "parameters" if there is a limit, "name" otherwise.

    Returns:
        Registry names, each valid for `create_model`.

    Raises:
        ValueError: A limit is out of range, or the license or the order is unknown.

    Example:

    >>> list_models(max_macs=60e6, min_accuracy=66)
    ['tinynet_d', 'mobilenetv3_small_100', 'tf_mobilenetv3_small_100']
    """
    limits = Limits(max_parameters=max_parameters, max_macs=max_macs, min_accuracy=min_accuracy, license=license)
    choices = chosen_networks(pattern or "*", limits, sort or default_sort(limits, has_weights))
    return [choice.name for choice in choices if choice.weights or not has_weights]


def default_sort(limits: Limits, has_weights: bool = False) -> str:
    """Returns the order without `sort`: by parameters if there is a limit, by name otherwise."""
    return "parameters" if has_weights or limits != Limits() else "name"


def chosen_networks(pattern: str, limits: Limits, sort: str) -> list[Choice]:
    """Returns the networks that match a pattern and meet the limits.

    Args:
        pattern: Shell-style filter for registry names.
        limits: The limits.
        sort: A key of `NETWORK_ORDERS`.

    Raises:
        ValueError: The order is unknown.
    """
    order = NETWORK_ORDERS[one_of("sort", sort, NETWORK_ORDERS)]
    facts = known_networks()
    choices = [Choice(name=name, facts=facts[name], weights=()) for name in fnmatch.filter(facts, pattern)]
    by_model = _by_model(filter(limits.allow_weights, RECORDS.values()))
    return sorted(
        (
            dataclasses.replace(choice, weights=by_model.get(choice.name, ()))
            for choice in choices
            if limits.allow_cost(choice.facts) and (choice.name in by_model or not limits.concern_weights)
        ),
        key=order,
    )


def chosen_weights(pattern: str, limits: Limits, sort: str) -> list[WeightsRecord]:
    """Returns the checkpoints that match a pattern and meet the limits.

    Args:
        pattern: Shell-style filter for identifiers ("model.tag"), or for names of networks.
        limits: The limits.
        sort: A key of `WEIGHTS_ORDERS`.

    Raises:
        ValueError: The order is unknown.
    """
    order = WEIGHTS_ORDERS[one_of("sort", sort, WEIGHTS_ORDERS)]
    names = fnmatch.filter(RECORDS, pattern) or fnmatch.filter(RECORDS, f"{pattern}.*")
    records = (RECORDS[name] for name in names)
    return sorted((one for one in records if limits.allow_cost(one) and limits.allow_weights(one)), key=order)


def license_of(record: WeightsRecord) -> str:
    """Returns the name of a checkpoint's license in lower case, without what its source adds to it."""
    return record.license.partition(",")[0].lower()


NETWORK_ORDERS: dict[str, Callable[[Choice], Any]] = {
    "name": lambda choice: choice.name,
    "accuracy": lambda choice: (-(choice.top1 or 0), choice.name),
    "parameters": lambda choice: (choice.facts.parameters, choice.name),
    "macs": lambda choice: (choice.facts.macs, choice.name),
    "size": lambda choice: (choice.facts.size, choice.name),
}
"""The orders of networks."""

WEIGHTS_ORDERS: dict[str, Callable[[WeightsRecord], Any]] = {
    "name": lambda record: record.identifier,
    # Percentages of different tasks do not compare.
    "accuracy": lambda record: (not _on_imagenet(record), record.dataset, -(record.top1 or 0), record.identifier),
    "parameters": lambda record: (record.parameters, record.identifier),
    "macs": lambda record: (record.macs, record.identifier),
    "size": lambda record: (_pixels(record), record.identifier),
}
"""The orders of checkpoints."""


def _by_model(records: Iterable[WeightsRecord]) -> dict[str, tuple[WeightsRecord, ...]]:
    found: dict[str, tuple[WeightsRecord, ...]] = {}
    for record in sorted(records, key=lambda one: one.identifier):
        found[record.model] = (*found.get(record.model, ()), record)
    return found


def _pixels(record: WeightsRecord) -> int:
    return math.prod(record.preprocessing.height_width) if record.preprocessing else 0


def _on_imagenet(record: WeightsRecord) -> bool:
    return record.dataset == WeightsRecord.dataset


def _at_most(value: int, limit: float | None) -> bool:
    return limit is None or value <= limit


def _check_range(name: str, value: Any, rule: str, is_valid: Callable[[float], bool]) -> None:
    if value is None:
        return
    if not isinstance(value, numbers.Real) or isinstance(value, bool) or not is_valid(float(value)):
        raise ValueError(f"`{name}` must be {rule}; received {name}={value!r}.")
