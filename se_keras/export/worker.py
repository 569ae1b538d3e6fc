"""Worker process of `se_keras.export.process`: runs one model, with one command per line.

This file is started as a script. It makes the package importable without `se_keras/__init__.py`, because that imports
Keras and its backend, whose startup time and memory do not belong to the model.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import pathlib
import sys
import time
import types
from typing import Any


def main() -> None:
    """Reads the setup from the first line, then commands, and answers each with one line of JSON."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # keeps output of the runtimes out of the answers
    setup = json.loads(sys.stdin.readline())
    try:
        _import_runtime(setup)
        _forget_peak()
        before = _memory()
        started = time.perf_counter()
        runner = _opened(setup)
        answers.write(json.dumps({"batch": runner.batch, "seconds": time.perf_counter() - started}) + "\n")
        for line in sys.stdin:
            answers.write(json.dumps(_answer(runner, json.loads(line), before)) + "\n")
    except Exception as error:
        answers.write(json.dumps({"error": f"{type(error).__name__}: {error}"}) + "\n")


def _import_runtime(setup: dict[str, Any]) -> None:
    """Imports the packages first, to exclude their memory from the model's."""
    if setup["runtime"] != "keras":
        for name in ("se_keras", "se_keras.export"):
            package = types.ModuleType(name)
            package.__path__ = [os.path.join(setup["root"], *name.split("."))]
            sys.modules[name] = package
    if setup["runtime"] in ("tflite", "tflite_gpu"):
        from se_keras.export.tensorflow_internals import interpreter_module

        interpreter_module()
    elif setup["runtime"] == "onnx":
        import onnxruntime  # noqa: F401
    elif setup["runtime"] == "openvino":
        import openvino  # noqa: F401
    else:
        _limit_threads(setup["threads"], setup["runtime"])
    if setup["runtime"] == "keras":
        _import_custom_objects(setup)


def _import_custom_objects(setup: dict[str, Any]) -> None:
    import keras

    sys.path[:] = setup["sys_path"]
    for name, (module, attribute) in setup["custom_objects"].items():
        keras.saving.get_custom_objects()[name] = getattr(importlib.import_module(module), attribute)


def _limit_threads(threads: int, runtime: str) -> None:
    if runtime == "keras":
        import keras

        if keras.backend.backend() == "torch":
            import torch

            torch.set_num_threads(threads)
        if keras.backend.backend() != "tensorflow":
            return
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)


def _opened(setup: dict[str, Any]) -> Any:
    from se_keras.export.runtime import open_runner

    return open_runner(setup["path"], runtime=setup["runtime"], threads=setup["threads"])


def _answer(runner: Any, command: dict[str, Any], before: int) -> dict[str, Any]:
    import numpy as np

    if command["command"] == "run":
        with np.load(command["inputs"]) as feed:
            np.savez(command["outputs"], **runner.run(dict(feed)))
        return {}
    if command["command"] == "time":
        from se_keras.export.inputs import random_feed

        feed = random_feed(runner.inputs, command["batch"], size=command["size"])
        started = time.perf_counter()
        runner.run(feed)
        return {"seconds": time.perf_counter() - started}
    return {"peak_bytes": max(_memory() - before, 0)}


def _forget_peak() -> None:
    """Resets the peak memory that Linux records: imports briefly need more than they keep."""
    with contextlib.suppress(OSError):
        pathlib.Path("/proc/self/clear_refs").write_text("5")


def _memory() -> int:
    """Returns the peak memory of this process in bytes, on Linux since `_forget_peak`."""
    status = pathlib.Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    import resource  # on systems other than Linux

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    sys.path.pop(0)  # the folder of this file, whose modules belong to the package
    main()
