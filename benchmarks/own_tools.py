"""Conversion and quantization by each runtime's own tools, as its documentation shows them.

`make_peers.py` uses them on timm's networks, and `inference_files.py` on Keras' own exports.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence

import numpy as np


class _Reader:
    """A source of images for ONNX Runtime's calibration."""

    def __init__(self, name: str, images: Sequence[np.ndarray]) -> None:
        self.batches = iter([{name: image} for image in images])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.batches, None)


def quantize_onnx(source: pathlib.Path, target: pathlib.Path, images: Sequence[np.ndarray]) -> None:
    """Writes an `.onnx` file in 8 bits with ONNX Runtime's static quantization.

    Args:
        source: The `.onnx` file in float.
        target: The file to write.
        images: Batches of one, in the layout of the file's input.
    """
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = target.with_suffix(".prepared.onnx")
    quant_pre_process(source, prepared)
    quantize_static(
        prepared,
        target,
        _Reader(onnx.load(os.fspath(prepared)).graph.input[0].name, images),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
    )
    prepared.unlink()


def convert_to_openvino(source: pathlib.Path, folder: pathlib.Path, images: Sequence[np.ndarray]) -> None:
    """Writes `fp32.xml` and, with NNCF, `int8.xml`.

    Args:
        source: An `.onnx` file or a SavedModel.
        folder: The folder to write to.
        images: Batches of one, in the layout of the network's input.
    """
    import nncf
    import openvino as ov

    converted = ov.convert_model(os.fspath(source), input=list(images[0].shape))
    ov.save_model(converted, folder / "fp32.xml", compress_to_fp16=False)
    ov.save_model(nncf.quantize(converted, nncf.Dataset(list(images))), folder / "int8.xml", compress_to_fp16=False)
