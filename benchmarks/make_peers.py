"""Writes the files of cpu_inference.py's peers from one of timm's networks, with each peer's own tools.

    python -m venv peers
    peers/bin/pip install torch torchvision timm onnx onnxscript onnxruntime openvino nncf
    peers/bin/python benchmarks/make_peers.py NAME FOLDER

Writes fp32.onnx, int8.onnx (ONNX Runtime's static quantization), fp32.xml, and int8.xml (OpenVINO and NNCF); files that
exist are kept. Weights and images are random, as in `inference_files.py`.
"""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Sequence

import numpy as np
import timm
import torch
from own_tools import convert_to_openvino, quantize_onnx

IMAGES = [np.random.default_rng(i).uniform(0, 255, (1, 3, 224, 224)).astype("float32") for i in range(8)]


class FromPixels(torch.nn.Module):
    """A network with what precedes and follows it in our files: pixels of 0 to 255 come in, probabilities come out."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", _by_channel(network.pretrained_cfg["mean"]))
        self.register_buffer("std", _by_channel(network.pretrained_cfg["std"]))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.softmax(self.network((images - self.mean) / self.std), -1)


def _by_channel(values: Sequence[float]) -> torch.Tensor:
    return 255 * torch.tensor(values).reshape(1, -1, 1, 1)


def network(name: str) -> torch.nn.Module:
    """Returns a network of timm whose batch normalizations scale by 1 and have the statistics of the images.

    timm begins with a scale of 0 at the end of each residual block, and a CPU computes faster with zeros.
    """
    model = FromPixels(timm.create_model(name))
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.ones_(module.weight)
            module.momentum = 1.0
    with torch.no_grad():
        model.train()(torch.from_numpy(np.concatenate(IMAGES)))
    return model.eval()


def main() -> None:
    name, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / "fp32.onnx"
    if not source.exists():
        torch.onnx.export(network(name), (torch.from_numpy(IMAGES[0]),), source, input_names=["images"], dynamo=False)
    if not (folder / "int8.onnx").exists():
        quantize_onnx(source, folder / "int8.onnx", IMAGES)
    if not (folder / "int8.xml").exists():
        convert_to_openvino(source, folder, IMAGES)


if __name__ == "__main__":
    main()
