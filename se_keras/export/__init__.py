"""Exports, each written under a temporary name and renamed when complete, and their verification."""

from se_keras.export.agreement import Limits
from se_keras.export.latency import Measurement, benchmark
from se_keras.export.report import Report
from se_keras.export.report_figures import write_report
from se_keras.export.to_onnx import onnx
from se_keras.export.to_openvino import openvino
from se_keras.export.to_saved_model import saved_model
from se_keras.export.to_tflite import tflite
from se_keras.export.verification import verify

__all__ = [
    "Limits",
    "Measurement",
    "Report",
    "benchmark",
    "onnx",
    "openvino",
    "saved_model",
    "tflite",
    "verify",
    "write_report",
]
