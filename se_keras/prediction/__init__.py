"""Prediction in bulk: any number of images, on one machine or several, resumable at any moment."""

from se_keras.prediction.folder import FolderPrediction, predict_folder

__all__ = ["FolderPrediction", "predict_folder"]
