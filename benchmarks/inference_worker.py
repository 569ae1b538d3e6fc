"""A contestant of cpu_inference.py: loads a network, then times one call for every line it reads.

    python benchmarks/inference_worker.py KIND PATH THREADS

It needs only the packages of its own kind, so each contestant can use a separate environment.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
from contestant import answer

IMAGE = np.random.default_rng(0).uniform(0, 255, (1, 224, 224, 3)).astype("float32")
# After the turns of the others, it takes about six calls of 8 ms until a core runs at full speed with its own data in
# the caches.
SETTLING = 6
NORMALISED = ((IMAGE.transpose(0, 3, 1, 2) - 116.0) / 58.0).astype("float32")


def tflite(path: str, threads: int) -> Callable[[], object]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=path, num_threads=threads)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], IMAGE)
    return interpreter.invoke


def saved_model(path: str, threads: int) -> Callable[[], object]:
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    loaded = tf.saved_model.load(path)
    run = loaded.signatures["serving_default"]
    name = next(iter(run.structured_input_signature[1]))
    images = tf.constant(IMAGE)
    return lambda: next(iter(run(**{name: images}).values())).numpy()


def torch_eager(path: str, threads: int) -> Callable[[], object]:
    import timm
    import torch

    torch.set_num_threads(threads)
    model = timm.create_model(path).eval()
    images = torch.from_numpy(NORMALISED)

    def run() -> object:
        with torch.inference_mode():
            return model(images)

    return run


def torch_compiled(path: str, threads: int) -> Callable[[], object]:
    import timm
    import torch

    torch.set_num_threads(threads)
    model = torch.compile(timm.create_model(path).eval())
    images = torch.from_numpy(NORMALISED)

    def run() -> object:
        with torch.no_grad():
            return model(images)

    return run


def onnxruntime(path: str, threads: int) -> Callable[[], object]:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda: session.run(None, {name: NORMALISED})


def openvino_f32(path: str, threads: int) -> Callable[[], object]:
    """Runs in single precision; by default, OpenVINO computes in bfloat16 on CPUs that support it."""
    return openvino(path, threads, INFERENCE_PRECISION_HINT="f32")


def openvino(path: str, threads: int, **hints: str) -> Callable[[], object]:
    import openvino as ov

    options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, **hints}
    compiled = ov.Core().compile_model(path, "CPU", options)
    request = compiled.create_infer_request()
    return lambda: request.infer([NORMALISED])


KINDS = {
    run.__name__: run for run in (tflite, saved_model, torch_eager, torch_compiled, onnxruntime, openvino, openvino_f32)
}


def main() -> None:
    kind, path, threads = sys.argv[1:]
    answer(lambda: KINDS[kind](path, int(threads)), warmups=5, settling=SETTLING)


if __name__ == "__main__":
    main()
