"""What pruning did to a network: block by block, and in parameters, MACs, time and accuracy."""

from __future__ import annotations

import dataclasses


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
