"""Data, recipes, and training, with `train` or with `model.fit`."""

from se_keras.training.batches import fit_data
from se_keras.training.callbacks import EvaluateAverage, KeepBest, SaveRun, StopEarly, TrainingDivergedError
from se_keras.training.evaluate import Evaluation, evaluate
from se_keras.training.loop import TrainingResult, train
from se_keras.training.recipes import RECIPES, Phase, Recipe, get_recipe, make_optimizer
from se_keras.training.sources import Data, load_sample, open_data

__all__ = [
    "RECIPES",
    "Data",
    "EvaluateAverage",
    "Evaluation",
    "KeepBest",
    "Phase",
    "Recipe",
    "SaveRun",
    "StopEarly",
    "TrainingDivergedError",
    "TrainingResult",
    "evaluate",
    "fit_data",
    "get_recipe",
    "load_sample",
    "make_optimizer",
    "open_data",
    "train",
]
