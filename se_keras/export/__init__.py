"""Exports, each written under a temporary name first and renamed when it is whole."""

from se_keras.export.saved_model import saved_model
from se_keras.export.tflite import tflite

__all__ = ["saved_model", "tflite"]
