"""timm's names of the networks that both packages have."""

from __future__ import annotations

import dataclasses

from se_keras.weights.published import RECORDS


@dataclasses.dataclass(frozen=True)
class Architecture:
    """One of timm's architectures as a network of this package.

    Args:
        model: The network's registry name.
        family: How timm names its tensors, a key of `weights.rules.FAMILIES`.
        lineage: Its structure. None, or one that the network lacks: the network's own.
    """

    model: str
    family: str
    lineage: str | None = None


_WITHOUT_WEIGHTS = {
    "seresnet18": Architecture("se_resnet18", "timm", "timm"),
    "seresnet34": Architecture("se_resnet34", "timm", "timm"),
    "seresnet101": Architecture("se_resnet101", "timm", "timm"),
    "seresnet152": Architecture("se_resnet152", "timm", "timm"),
}

ARCHITECTURES: dict[str, Architecture] = {
    **_WITHOUT_WEIGHTS,
    **{
        record.timm.partition(".")[0]: Architecture(record.model, record.family, record.lineage)
        for record in RECORDS.values()
        if record.timm
    },
}
"""By timm's name, such as "seresnet50", "legacy_seresnet50", or "regnety_032"."""
