"""Reports of pruning: the change of each block, and of parameters, MACs, time, and accuracy."""

from __future__ import annotations

import dataclasses


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
        accuracy: Fraction of the images classified correctly, 0 to 1, or None without labels.
        agreement: Fraction of the images to which both networks assign the same class, or None if
            the model is not a classifier.
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
