"""Records of what surgery did with single layers."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Change:
    """What `deploy` does with one layer.

    Args:
        layer: Its name.
        action: "folded" (a batch normalization, into the layer in `detail`), "hoisted" (a squeeze, before the
            layer in `detail`), "removed" (it does nothing at inference), or "kept" (for the reason in `detail`).
        detail: The name of the other layer, or the reason.
    """

    layer: str
    action: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.action} {self.layer}" + (f": {self.detail}" if self.detail else "")
