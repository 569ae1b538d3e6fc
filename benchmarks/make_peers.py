"""Writes the files of cpu_inference.py's peers from timm's network, with each peer's own tools.

    python -m venv peers
    peers/bin/pip install torch torchvision timm onnx onnxscript onnxruntime openvino nncf
    peers/bin/python benchmarks/make_peers.py FOLDER

Writes fp32.onnx, int8.onnx (ONNX Runtime's static quantization), fp32.xml, and int8.xml (OpenVINO and NNCF).
Weights and calibration images are random: time does not depend on them.
"""

from __future__ import annotations

import pathlib
import sys

import nncf
import numpy as np
import openvino as ov
import timm
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

NAME = "legacy_seresnet50"
IMAGES = [np.random.default_rng(i).normal(size=(1, 3, 224, 224)).astype("float32") for i in range(8)]


class Reader(CalibrationDataReader):
    def __init__(self, name: str) -> None:
        self.batches = iter([{name: image} for image in IMAGES])

    def get_next(self) -> dict | None:
        return next(self.batches, None)


def main() -> None:
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    model = timm.create_model(NAME).eval()
    torch.onnx.export(model, (torch.from_numpy(IMAGES[0]),), folder / "fp32.onnx", input_names=["images"], dynamo=False)
    quant_pre_process(folder / "fp32.onnx", folder / "prepared.onnx")
    quantize_static(
        folder / "prepared.onnx",
        folder / "int8.onnx",
        Reader("images"),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
    )
    converted = ov.convert_model(folder / "fp32.onnx", input=[1, 3, 224, 224])
    ov.save_model(converted, folder / "fp32.xml", compress_to_fp16=False)
    ov.save_model(nncf.quantize(converted, nncf.Dataset(IMAGES)), folder / "int8.xml", compress_to_fp16=False)


if __name__ == "__main__":
    main()
