"""The positions for Squeeze-and-Excitation in a network, found in its graph or named by the user."""

from se_keras.surgery.positions.position import HAS_SE, Position, Where
from se_keras.surgery.positions.standard import LOOKED_FOR, find_positions

__all__ = ["HAS_SE", "LOOKED_FOR", "Position", "Where", "find_positions"]
