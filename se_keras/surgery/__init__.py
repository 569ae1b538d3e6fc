"""Graph rewriting: functional models rewritten to compute the same answers with less work."""

from se_keras.surgery.deploy import Change, Deployment, deploy
from se_keras.surgery.insert import insert_squeeze_excite
from se_keras.surgery.positions import Position, find_positions
from se_keras.surgery.prune import Pruned, prune_gates, pruning_curve
from se_keras.surgery.pruning_report import GateChange, PruningReport

__all__ = [
    "Change",
    "Deployment",
    "GateChange",
    "Position",
    "Pruned",
    "PruningReport",
    "deploy",
    "find_positions",
    "insert_squeeze_excite",
    "prune_gates",
    "pruning_curve",
]
