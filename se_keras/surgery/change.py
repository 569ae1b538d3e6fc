"""Changes of single layers, each with the layer that takes over its work, or the reason why it is kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection

from se_keras.surgery.calls import Call, Graph


@dataclasses.dataclass(frozen=True)
class Change:
    """A change that `deploy` makes to one layer, or the reason why it makes none.

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


def find_targets(
    graph: Graph, types: Collection[type], target_of: Callable[[Graph, Call], Call | str], action: str
) -> tuple[dict[Call, Call], list[Change]]:
    """Finds, for each call of some layer types, the call that takes over its work.

    Args:
        graph: The graph.
        types: The layer types.
        target_of: Returns the target of a call, or the reason why it has none.
        action: The action of a `Change` for a call with a target.

    Returns:
        The target of each call that has one, and a change for each call.
    """
    targets, changes = {}, []
    for call in graph.calls:
        if type(call.operation) in types:
            target = target_of(graph, call)
            if isinstance(target, str):
                changes.append(Change(call.name, "kept", target))
            else:
                targets[call] = target
                changes.append(Change(call.name, action, target.name))
    return targets, changes
