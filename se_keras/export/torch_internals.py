"""Private names of PyTorch and of Keras' backend for it, in one place."""

from __future__ import annotations

import contextlib
import importlib
import threading
from collections.abc import Iterator
from typing import Any

_LOCK = threading.RLock()  # the changes are for the whole process


@contextlib.contextmanager
def ready_for_export() -> Iterator[None]:
    """Prepares PyTorch's exporter to ONNX.

    What it logs about a failure goes to standard error, as its other messages do. The padding of convolutions and
    poolings is computed from sizes as numbers: as traced tensors, it would not be constant, which the exporter needs.

    Yields:
        Nothing.
    """
    import torch

    set_stream = getattr(torch._C, "_jit_set_onnx_log_output_stream", lambda name: None)
    layers = importlib.import_module("keras.src.backend.torch.nn")
    with _LOCK:
        padding = getattr(layers, "_compute_padding_length", None)

        def constant(input_length: Any, *others: Any, **named: Any) -> Any:
            return padding(int(input_length), *others, **named)  # type: ignore[misc]

        set_stream("stderr")
        if padding is not None:
            layers._compute_padding_length = constant  # type: ignore[attr-defined]
        try:
            yield
        finally:
            if padding is not None:
                layers._compute_padding_length = padding  # type: ignore[attr-defined]
            set_stream("stdout")
