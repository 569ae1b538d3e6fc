"""Quantization of an OpenVINO model to 8 bits."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import math
import os
import sys
from collections.abc import Sequence
from typing import Any

from se_keras.errors import missing_package
from se_keras.export.first_layers import LAYERS, Kind, Step, first_layers
from se_keras.export.inputs import Feed, part_of, rows_of
from se_keras.export.openvino_ranges import set_ranges
from se_keras.log_records import left_out
from se_keras.native_output import native_output_held

KINDS = {
    **dict.fromkeys(
        ("Convolution", "ConvolutionBackpropData", "GroupConvolution", "GroupConvolutionBackpropData"), Kind.CONVOLUTION
    ),
    "MatMul": Kind.DENSE,
    **dict.fromkeys(("HSwish", "Swish"), Kind.SWISH),
    "Multiply": Kind.PRODUCT,
    **dict.fromkeys(
        ("Add", "Convert", "Divide", "Interpolate", "Pad", "Reshape", "Squeeze", "Subtract", "Transpose", "Unsqueeze"),
        Kind.SIMPLE,
    ),
}
NOT_COMPUTED = ("Constant", "Parameter", "Result")


def quantized_to_8_bits(model: Any, feed: Feed, keep_float: Sequence[str] | None) -> Any:
    """Quantizes weights and activations with NNCF, and then sets ranges of activations with `set_ranges`.

    NNCF's defaults lose more on networks with SE: it corrects biases from the means of each layer, and cuts the ranges
    of activations at the mean of the extremes. NNCF's ranges are symmetric where values are negative, because OpenVINO
    computes depthwise convolutions and products that read asymmetric ranges more slowly, or in float. `set_ranges`
    makes only those around gates asymmetric. The first layers of a network with swishes stay in float.

    Args:
        model: An `openvino.Model` in float; operations that OpenVINO has in one piece are joined in place.
        feed: Values of its inputs by their names, for the ranges of activations.
        keep_float: As in `export.openvino`.

    Returns:
        The quantized `openvino.Model`.

    Raises:
        ImportError: NNCF is not installed.
    """
    nncf = _nncf()
    from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    _join_operations(model)
    kept = first_layers(_steps(model)) if keep_float is None else []
    advanced = AdvancedQuantizationParameters(
        disable_bias_correction=True, activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX
    )
    progress_bars = contextlib.redirect_stdout(io.StringIO())
    with native_output_held(), progress_bars, left_out("nncf", lambda record: record.levelno < logging.ERROR):
        quantized = nncf.quantize(
            model,
            nncf.Dataset([part_of(feed, row, row + 1) for row in range(rows_of(feed))]),
            preset=nncf.QuantizationPreset.PERFORMANCE,
            subset_size=rows_of(feed),
            advanced_parameters=advanced,
            ignored_scope=nncf.IgnoredScope(names=kept, validate=False),  # NNCF's graph lacks those on weights
        )
    set_ranges(quantized, model, feed)
    return quantized


def _steps(model: Any) -> list[Step]:
    operations = [one for one in model.get_ordered_ops() if one.get_type_name() not in NOT_COMPUTED]
    return [
        Step(
            one.get_friendly_name(),
            KINDS.get(one.get_type_name(), Kind.OTHER),
            _weights(one),
            tuple(value.get_node().get_friendly_name() for value in one.input_values()),
        )
        for one in operations
    ]


def _weights(operation: Any) -> int:
    """Returns the number of weights of a layer, which may be converted and reshaped before it reads them."""
    if KINDS.get(operation.get_type_name()) not in LAYERS:
        return 0
    source = operation.input_value(1).get_node()
    while source.get_type_name() in ("Convert", "Reshape", "Transpose"):
        source = source.input_value(0).get_node()
    return math.prod(source.get_output_shape(0)) if source.get_type_name() == "Constant" else 0


def _join_operations(model: Any) -> None:
    """Joins operations that OpenVINO has in one piece, such as those of a hard swish, which NNCF would quantize apart.

    OpenVINO does so itself when it compiles a model, but no longer finds them once they are quantized. Only
    `openvino.convert_model`, which sends usage statistics to the makers of OpenVINO, does it through a public function.
    """
    transformations = importlib.import_module("openvino._offline_transformations")
    transformations.apply_moc_transformations(model, cf=False, smart_reshape=False)


def _nncf() -> Any:
    """Imports NNCF without its usage statistics, which it sends to its makers unless this variable is set."""
    is_set = "NNCF_CI" in os.environ
    if "nncf" not in sys.modules:
        os.environ.setdefault("NNCF_CI", "1")
    try:
        import nncf
    except ImportError as error:
        raise missing_package("nncf", "openvino", "dtype='int8' of an OpenVINO model") from error
    finally:
        if not is_set:
            os.environ.pop("NNCF_CI", None)
    return nncf
