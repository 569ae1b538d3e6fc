"""Classification of any number of images, on one machine or several, which can be resumed at any time."""

from se_keras.prediction.folder import FolderPrediction, predict_folder

__all__ = ["FolderPrediction", "predict_folder"]
