"""Analysis of a network's gates: statistics over a dataset, and figures of them."""

from se_keras.analysis.gates import collect_gates, image_gates
from se_keras.analysis.plots import plot_gates, plot_image, plot_pruning
from se_keras.analysis.results import BlockGates, Gates

__all__ = ["BlockGates", "Gates", "collect_gates", "image_gates", "plot_gates", "plot_image", "plot_pruning"]
