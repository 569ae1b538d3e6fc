"""Data, recipes and the training loop."""

from se_keras.training.evaluate import Evaluation, evaluate
from se_keras.training.loop import TrainingDivergedError, TrainingResult, train
from se_keras.training.recipes import RECIPES, Phase, Recipe, get_recipe
from se_keras.training.sources import Data, load_sample, open_data

__all__ = [
    "RECIPES",
    "Data",
    "Evaluation",
    "Phase",
    "Recipe",
    "TrainingDivergedError",
    "TrainingResult",
    "evaluate",
    "get_recipe",
    "load_sample",
    "open_data",
    "train",
]
