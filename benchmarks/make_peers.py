"""Writes the files of cpu_inference.py's peers from one of timm's networks, with each peer's own tools.

    python -m venv peers
    peers/bin/pip install torch torchvision timm onnx onnxscript onnxruntime openvino nncf
    peers/bin/python benchmarks/make_peers.py NAME FOLDER

Writes fp32.onnx, int8.onnx (ONNX Runtime's static quantization), fp32.xml, and int8.xml (OpenVINO and NNCF); files that
exist are kept. Weights and calibration images are random: time does not depend on them.
"""

from __future__ import annotations

import pathlib
import sys

import numpy as np
import timm
import torch
from own_tools import convert_to_openvino, quantize_onnx

IMAGES = [np.random.default_rng(i).normal(size=(1, 3, 224, 224)).astype("float32") for i in range(8)]


def main() -> None:
    name, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / "fp32.onnx"
    if not source.exists():
        model = timm.create_model(name).eval()
        torch.onnx.export(model, (torch.from_numpy(IMAGES[0]),), source, input_names=["images"], dynamo=False)
    if not (folder / "int8.onnx").exists():
        quantize_onnx(source, folder / "int8.onnx", IMAGES)
    if not (folder / "int8.xml").exists():
        convert_to_openvino(source, folder, IMAGES)


if __name__ == "__main__":
    main()
