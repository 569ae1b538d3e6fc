"""Rewriting of functional models: the same outputs with less work, or a model with SE blocks.

Functions that rewrite a model return the new model. Each has a counterpart that reports beforehand what it does:
`find_changes` for `deploy`, `find_positions` for `insert_squeeze_excite`, and `pruning_curve` for `prune_gates`;
`pointwise_to_dense` needs none.
"""

from se_keras.surgery.change import Change
from se_keras.surgery.deployment import deploy, find_changes
from se_keras.surgery.insert import insert_squeeze_excite
from se_keras.surgery.pointwise import pointwise_to_dense
from se_keras.surgery.positions import Position, find_positions
from se_keras.surgery.prune import GateChange, PruningReport, prune_gates, pruning_curve

__all__ = [
    "Change",
    "GateChange",
    "Position",
    "PruningReport",
    "deploy",
    "find_changes",
    "find_positions",
    "insert_squeeze_excite",
    "pointwise_to_dense",
    "prune_gates",
    "pruning_curve",
]
