"""timm's names of the networks that both packages have."""

from __future__ import annotations

import dataclasses

from se_keras.errors import one_of
from se_keras.weights.published import ALIAS, NOT_COMMERCIAL, RECORDS
from se_keras.weights.records import WeightsRecord


@dataclasses.dataclass(frozen=True)
class Architecture:
    """One of timm's architectures as a network of this package.

    Args:
        model: The network's registry name.
        family: How timm names its tensors, a key of `weights.rules.FAMILIES`.
        lineage: Its structure. None, or one that the network lacks: the network's own.
        parameters: Number of trainable parameters, with a classifier of `classes`.
        classes: Number of classes.
    """

    model: str
    family: str
    lineage: str | None
    parameters: int
    classes: int = 1000


_WITHOUT_WEIGHTS = {
    "seresnet18": Architecture("se_resnet18", "timm", "timm", 11_779_624),
    "seresnet34": Architecture("se_resnet34", "timm", "timm", 21_960_416),
    "seresnet101": Architecture("se_resnet101", "timm", "timm", 49_326_872),
    "seresnet152": Architecture("se_resnet152", "timm", "timm", 66_821_848),
}


def _architecture(record: WeightsRecord) -> Architecture:
    classes = Architecture.classes if record.classes is None else record.classes
    return Architecture(record.model, record.family, record.lineage, record.parameters, classes)


ARCHITECTURES: dict[str, Architecture] = {
    **_WITHOUT_WEIGHTS,
    **{record.timm.partition(".")[0]: _architecture(record) for record in RECORDS.values() if record.timm},
}
"""By timm's name, such as "seresnet50", "legacy_seresnet50", or "regnety_032"."""


def record_named(name: str) -> WeightsRecord | None:
    """Returns the record of a published checkpoint by its identifier or by timm's name; None if there is none."""
    theirs = (record for record in RECORDS.values() if record.timm and record.timm == name)
    return RECORDS.get(name) or next(theirs, None)


def tag_of(architecture: str, tag: str) -> str:
    """Returns this package's tag of a checkpoint.

    Args:
        architecture: A key of `ARCHITECTURES`.
        tag: timm's tag, or "imagenet" for the most accurate checkpoint whose own license allows commercial use.

    Returns:
        The tag, such as "legacy_in1k" for timm's "in1k" of "legacy_seresnet50".

    Raises:
        ValueError: The checkpoint does not exist (the message names the closest tags).
    """
    records = [record for record in RECORDS.values() if record.timm.partition(".")[0] == architecture]
    if not records:
        raise ValueError(
            f"No weights have been published for timm's {architecture!r}; received weights={tag!r}. Pass weights=None "
            "for random weights, or the path of a file."
        )
    if tag == ALIAS:
        free = [record for record in records if record.license not in NOT_COMMERCIAL]
        return max(free or records, key=lambda record: record.top1 or 0).tag
    tags = {record.timm.partition(".")[2]: record.tag for record in records}
    return tags[one_of(f"weights of {architecture!r}", tag, tags)]
