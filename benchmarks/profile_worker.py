"""Prints the microseconds of a call of a file by kind of operation, as the runtime's own profiler counts them, as JSON.

python benchmarks/profile_worker.py RUNTIME PATH THREADS
"""

from __future__ import annotations

import collections
import json
import math
import pathlib
import statistics
import sys
import tempfile
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from inference_worker import IMAGE

WARMUPS, CALLS = 10, 40
LAYERS = ("Conv", "Deconvolution", "FullyConnected", "FusedConv", "Gemm", "GroupConv", "MatMul", "QLinearConv")
SQUEEZES = ("AvgPool", "AveragePool", "GlobalAveragePool", "QLinearGlobalAveragePool", "ReduceMean")
CONVERSIONS = ("Cast", "Convert", "DequantizeLinear", "QuantizeLinear", "Reorder", "Reshape", "Transpose")
OTHERS = ("Concat", "MaxPool", "Pad", "Pooling", "Softmax")


class Node(NamedTuple):
    """An operation as a runtime executes it, which may stand for several of the file.

    Args:
        name: Its name.
        operation: What it does, as the runtime calls it.
        shape: Shape of its first output.
        microseconds: Time of one execution.
    """

    name: str
    operation: str
    shape: tuple[int, ...]
    microseconds: float


def kind_of(node: Node) -> str:
    """Returns the kind of an operation; a layer whose output has one pixel, such as those of an SE block, is apart."""
    if node.operation.startswith(LAYERS):
        return "layers on vectors" if math.prod(node.shape) == max(node.shape, default=1) else "layers on maps"
    if node.operation.startswith(SQUEEZES):
        return "means"
    if node.operation.startswith(CONVERSIONS):
        return "conversions"
    return "others" if node.operation.startswith(OTHERS) else "elementwise"


def by_kind(nodes: Iterable[Node]) -> dict[str, float]:
    """Returns the microseconds of one call by kind, from the executions of many calls.

    Args:
        nodes: Every execution of every operation.

    Returns:
        The sum over the operations of a kind of the median over the executions of each, and the sum of all.
    """
    executions = collections.defaultdict(list)
    for node in nodes:
        executions[node.name, kind_of(node)].append(node.microseconds)
    found: dict[str, float] = collections.defaultdict(float)
    for (_, kind), microseconds in executions.items():
        found[kind] += statistics.median(microseconds)
    return {**found, "all": sum(found.values())}


def onnxruntime(path: str, threads: int) -> list[Node]:
    import onnxruntime as ort

    with tempfile.TemporaryDirectory() as folder:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.enable_profiling = True
        options.profile_file_prefix = str(pathlib.Path(folder, "profile"))
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        feed = {session.get_inputs()[0].name: IMAGE}
        for _ in range(WARMUPS + CALLS):
            session.run(None, feed)
        events = json.loads(pathlib.Path(session.end_profiling()).read_text("utf-8"))
    executed = [event for event in events if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")]
    return [_onnx_node(event) for event in executed[WARMUPS * len(executed) // (WARMUPS + CALLS) :]]


def _onnx_node(event: dict) -> Node:
    outputs = [shape for output in event["args"].get("output_type_shape", []) for shape in output.values()]
    return Node(event["name"], event["args"]["op_name"], tuple(outputs[0]) if outputs else (), float(event["dur"]))


def openvino(path: str, threads: int) -> list[Node]:
    import openvino as ov

    options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = ov.Core().compile_model(path, "CPU", {**options, "PERF_COUNT": "YES"})
    request = compiled.create_infer_request()
    shapes = {one.get_friendly_name(): _shape_of(one) for one in compiled.get_runtime_model().get_ops()}
    found: list[Node] = []
    for call in range(WARMUPS + CALLS):
        request.infer([IMAGE])
        if call >= WARMUPS:
            found += [
                Node(one.node_name, one.node_type, shapes.get(one.node_name, ()), one.real_time.total_seconds() * 1e6)
                for one in request.get_profiling_info()
            ]
    return found


def _shape_of(operation: object) -> Sequence[int]:
    return tuple(operation.get_output_shape(0)) if operation.get_output_size() else ()


RUNTIMES = {"ONNX Runtime": onnxruntime, "OpenVINO": openvino}


def main() -> None:
    runtime, path, threads = sys.argv[1:]
    print(json.dumps(by_kind(RUNTIMES[runtime](path, int(threads)))))


if __name__ == "__main__":
    main()
