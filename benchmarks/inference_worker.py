"""A contestant of cpu_inference.py: loads a network, then times one call for every line it reads.

    python benchmarks/inference_worker.py RUNTIME PATH THREADS

PATH is a file, or one of timm's names for "PyTorch compiled". It needs only the packages of its own runtime, so each
contestant can use a separate environment.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
from contestant import answer

IMAGE = np.random.default_rng(0).uniform(0, 255, (1, 224, 224, 3)).astype("float32")
CHANNELS_FIRST = np.ascontiguousarray(IMAGE.transpose(0, 3, 1, 2))
# After the turns of the others, it takes about six calls of 8 ms until a core runs at full speed with its own data in
# the caches.
SETTLING = 0.05


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


def torch_compiled(name: str, threads: int) -> Callable[[], object]:
    import torch
    from make_peers import network

    torch.set_num_threads(threads)
    model = torch.compile(network(name))
    images = torch.from_numpy(CHANNELS_FIRST)

    def run() -> object:
        with torch.no_grad():
            return model(images)

    return run


def onnxruntime(path: str, threads: int) -> Callable[[], object]:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (images,) = session.get_inputs()
    feed = {images.name: _in_layout_of(images.shape)}
    return lambda: session.run(None, feed)


def openvino(path: str, threads: int) -> Callable[[], object]:
    """Runs with batch 1 in single precision; by default, OpenVINO computes in bfloat16 on CPUs that support it."""
    import openvino as ov

    options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    model = ov.Core().read_model(path)
    images = _in_layout_of([3 if size == 3 else None for size in model.input(0).get_partial_shape()])
    model.reshape(list(images.shape))
    request = ov.Core().compile_model(model, "CPU", options).create_infer_request()
    return lambda: request.infer([images])


def _in_layout_of(shape: list) -> np.ndarray:
    return IMAGE if shape[-1] == 3 else CHANNELS_FIRST


RUNTIMES = {
    "LiteRT": tflite,
    "ONNX Runtime": onnxruntime,
    "OpenVINO": openvino,
    "TensorFlow": saved_model,
    "PyTorch compiled": torch_compiled,
}


def main() -> None:
    runtime, path, threads = sys.argv[1:]
    answer(lambda: RUNTIMES[runtime](path, int(threads)), warmups=5, settling=SETTLING)


if __name__ == "__main__":
    main()
