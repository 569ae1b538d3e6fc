"""The side of gpu.py that computes: one process per framework, so that compilation is shared and done once.

    python benchmarks/gpu_worker.py jax|timm

It reads one request per line, a JSON object with "do" and "task", and answers each with one line of JSON:

- "prepare" builds and compiles the task. Other processes may prepare theirs meanwhile.
- "warm" makes a few calls, in which a library may time its kernels: nothing else may run. It answers the seconds of
  a call.
- "time" answers the seconds of a call, as the mean of "calls" in a row.
- "profile" answers the microseconds of a call on the device, by kernel.

A task has "kind" (inference or training), "form" (on JAX "built" or "dense", for inference also "deployed" or "frozen";
of timm "compiled", for inference also "graphs"), "network" ("se" or "plain": SE-ResNet-50 or ResNet-50), "batch", and
"size" (height and width of the images in pixels). Everything is computed in bfloat16 with images already on the device.
Each inference call ends before the next begins; training steps are queued as in training.
"""

from __future__ import annotations

import collections
import json
import os
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any, NamedTuple

# Two frameworks share the GPU's memory, and JAX would preallocate most of it.
os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
os.environ["KERAS_BACKEND"] = "jax"
PEERS = {"se": "seresnet50", "plain": "resnet50"}
CLASSES = 1000
WARMUPS = 3


class Run(NamedTuple):
    """The functions to time: `call`, several times in a row, then `wait` until the last call has ended."""

    call: Callable[[], object]
    wait: Callable[[], object]


def _keras_model(network: str, size: int) -> Any:
    import keras

    import se_keras

    keras.config.set_dtype_policy("mixed_bfloat16")
    se = se_keras.SEConfig() if network == "se" else None
    shape = {"input_shape": (size, size, 3), "include_preprocessing": False, "classifier_activation": None}
    return se_keras.create_model("se_resnet50", weights=None, se=se, **shape)  # logits of normalized images, as in timm


def jax_inference(task: dict[str, Any]) -> Run:
    import jax
    import jax.numpy as jnp
    import numpy as np

    from se_keras.surgery import deploy, pointwise_to_dense

    form, size = task["form"], task["size"]
    model = _keras_model(task["network"], size)
    if form != "built":
        model = deploy(model)
    if form == "dense":
        model = pointwise_to_dense(model)
    # Convolutions compute in bfloat16; float32 kernels would be converted in every call.
    weights, others = (
        [
            variable.value.astype(jnp.bfloat16) if variable.path.endswith("kernel") else variable.value
            for variable in group
        ]
        for group in (model.trainable_variables, model.non_trainable_variables)
    )
    images = jax.random.normal(jax.random.key(0), (task["batch"], size, size, 3), jnp.bfloat16)

    def infer(weights: Any, others: Any, images: Any) -> Any:
        return model.stateless_call(weights, others, images, training=False)[0]

    if form in ("frozen", "dense"):
        # As constants, which the compiler can lay out once.
        constants = jax.tree.map(np.asarray, (weights, others))
        frozen = jax.jit(lambda images: infer(*constants, images))
        return Run(lambda: frozen(images).block_until_ready(), lambda: None)
    compiled = jax.jit(infer)
    return Run(lambda: compiled(weights, others, images).block_until_ready(), lambda: None)


def jax_training(task: dict[str, Any]) -> Run:
    import jax
    import jax.numpy as jnp
    import keras

    from se_keras.surgery import pointwise_to_dense

    size, batch = task["size"], task["batch"]
    model = _keras_model(task["network"], size)
    if task["form"] == "dense":
        model = pointwise_to_dense(model)
    optimizer = keras.optimizers.SGD(0.01, momentum=0.9, nesterov=True, weight_decay=5e-4)
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    optimizer.build(model.trainable_variables)
    groups = (model.trainable_variables, model.non_trainable_variables, optimizer.variables, model.metrics_variables)
    state = tuple([variable.value for variable in group] for group in groups)
    image_key, label_key = jax.random.split(jax.random.key(0))
    images = jax.random.normal(image_key, (batch, size, size, 3), jnp.bfloat16)
    labels = jax.random.randint(label_key, (batch,), 0, CLASSES)
    step = jax.jit(model.train_step, donate_argnums=0)  # as `fit` does

    def run() -> None:
        nonlocal state
        _, state = step(state, (images, labels))

    return Run(run, lambda: jax.block_until_ready(state))


def _torch_device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _wait(device: str) -> None:
    import torch

    if device == "cuda":
        torch.cuda.synchronize()


def timm_inference(task: dict[str, Any]) -> Run:
    import timm
    import torch

    device, size = _torch_device(), task["size"]
    graphs = task["form"] == "graphs"
    torch.backends.cudnn.benchmark = graphs  # else when it warms up; a graph keeps the kernels of its capture
    model = timm.create_model(PEERS[task["network"]]).eval().to(device, memory_format=torch.channels_last)
    model = torch.compile(model, mode="reduce-overhead" if graphs else None, dynamic=False)
    images = torch.randn(task["batch"], 3, size, size, device=device).to(memory_format=torch.channels_last)

    def run() -> None:
        with torch.inference_mode(), torch.autocast(device, torch.bfloat16):
            model(images)
        _wait(device)

    return Run(run, lambda: None)


def timm_training(task: dict[str, Any]) -> Run:
    import timm
    import torch

    device, size, batch = _torch_device(), task["size"], task["batch"]
    torch.backends.cudnn.benchmark = False
    model = timm.create_model(PEERS[task["network"]]).train().to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        model.parameters(), 0.01, momentum=0.9, nesterov=True, weight_decay=5e-4, fused=device == "cuda"
    )
    compiled = torch.compile(model, dynamic=False)
    images = torch.randn(batch, 3, size, size, device=device).to(memory_format=torch.channels_last)
    labels = torch.randint(0, CLASSES, (batch,), device=device)

    def run() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16):
            loss = torch.nn.functional.cross_entropy(compiled(images), labels)
        loss.backward()
        optimizer.step()

    return Run(run, lambda: _wait(device))


MAKERS: dict[tuple[str, str], Callable[[dict[str, Any]], Run]] = {
    ("jax", "inference"): jax_inference,
    ("jax", "training"): jax_training,
    ("timm", "inference"): timm_inference,
    ("timm", "training"): timm_training,
}


def seconds_of(run: Run, calls: int) -> float:
    started = time.perf_counter()
    for _ in range(calls):
        run.call()
    run.wait()
    return (time.perf_counter() - started) / calls


def warm(framework: str, run: Run) -> float:
    if framework == "timm":
        import torch

        torch.backends.cudnn.benchmark = True
    seconds_of(run, WARMUPS)
    return seconds_of(run, WARMUPS)


def profile(run: Run, calls: int) -> dict[str, float]:
    """Returns the microseconds of one call by kernel, as JAX's profiler counts them on the GPU's streams."""
    import jax

    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            seconds_of(run, calls)
        (path,) = pathlib.Path(folder).rglob("*.xplane.pb")
        data = jax.profiler.ProfileData.from_serialized_xspace(path.read_bytes())
    spent: collections.Counter[str] = collections.Counter()
    for plane in data.planes:
        if "GPU" not in plane.name:
            continue
        for line in plane.lines:
            if line.name.startswith("Stream"):
                for event in line.events:
                    spent[event.name] += event.duration_ns / 1000 / calls
    return {name: round(taken, 3) for name, taken in spent.most_common()}


def main() -> None:
    framework = sys.argv[1]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # keeps output of libraries out of the answers
    runs: dict[str, Run] = {}
    for line in sys.stdin:
        request = json.loads(line)
        task = request["task"]
        name = json.dumps(task, sort_keys=True)
        try:
            if request["do"] == "prepare":
                started = time.perf_counter()
                runs[name] = MAKERS[framework, task["kind"]](task)
                seconds_of(runs[name], 1)
                answer: Any = time.perf_counter() - started
            elif request["do"] == "warm":
                answer = warm(framework, runs[name])
            elif request["do"] == "time":
                answer = seconds_of(runs[name], request["calls"])
            else:
                answer = profile(runs[name], request["calls"])
        except Exception as error:  # the others go on
            answer = {"error": f"{type(error).__name__}: {error}"[:2000]}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
