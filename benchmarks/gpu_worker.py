"""A contestant of gpu.py: builds a network, then times it for every line it reads.

    python benchmarks/gpu_worker.py KIND NETWORK BATCH SIZE CALLS

KIND is a task, a framework, and a form, such as inference:jax:deployed; `KINDS` lists them. NETWORK is "se" or "plain":
SE-ResNet-50 or ResNet-50. The seconds are those of one call, as the mean of CALLS in a row. All compute in bfloat16
with images already on the device. Each inference call ends before the next begins; training steps are queued as in
training.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from contestant import answer

# Two frameworks share the GPU's memory, and JAX would preallocate most of it.
os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
os.environ["KERAS_BACKEND"] = "jax"
PEERS = {"se": "seresnet50", "plain": "resnet50"}
CLASSES = 1000


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


def jax_inference(form: str, network: str, batch: int, size: int) -> Run:
    import jax
    import jax.numpy as jnp
    import numpy as np

    from se_keras.surgery import deploy

    model = _keras_model(network, size)
    if form in ("deployed", "frozen"):
        model = deploy(model)
    # Convolutions compute in bfloat16; float32 kernels would be converted in every call.
    weights, others = (
        [variable.value.astype(jnp.bfloat16) if len(variable.shape) == 4 else variable.value for variable in group]
        for group in (model.trainable_variables, model.non_trainable_variables)
    )
    images = jax.random.normal(jax.random.key(0), (batch, size, size, 3), jnp.bfloat16)

    def infer(weights: Any, others: Any, images: Any) -> Any:
        return model.stateless_call(weights, others, images, training=False)[0]

    if form == "frozen":
        # As constants, which the compiler can lay out once.
        weights, others = jax.tree.map(np.asarray, (weights, others))
        frozen = jax.jit(lambda images: infer(weights, others, images))
        return Run(lambda: frozen(images).block_until_ready(), lambda: None)
    compiled = jax.jit(infer)
    return Run(lambda: compiled(weights, others, images).block_until_ready(), lambda: None)


def jax_training(form: str, network: str, batch: int, size: int) -> Run:
    import jax
    import jax.numpy as jnp
    import keras

    model = _keras_model(network, size)
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

    torch.backends.cudnn.benchmark = True
    return "cuda" if torch.cuda.is_available() else "cpu"


def _wait(device: str) -> None:
    import torch

    if device == "cuda":
        torch.cuda.synchronize()


def timm_inference(form: str, network: str, batch: int, size: int) -> Run:
    import timm
    import torch

    device = _torch_device()
    model = timm.create_model(PEERS[network]).eval().to(device, memory_format=torch.channels_last)
    model = torch.compile(model, mode="reduce-overhead" if form == "graphs" else None)
    images = torch.randn(batch, 3, size, size, device=device).to(memory_format=torch.channels_last)

    def run() -> None:
        with torch.inference_mode(), torch.autocast(device, torch.bfloat16):
            model(images)
        _wait(device)

    return Run(run, lambda: None)


def timm_training(form: str, network: str, batch: int, size: int) -> Run:
    import timm
    import torch

    device = _torch_device()
    model = timm.create_model(PEERS[network]).train().to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        model.parameters(), 0.01, momentum=0.9, nesterov=True, weight_decay=5e-4, fused=device == "cuda"
    )
    compiled = torch.compile(model)
    images = torch.randn(batch, 3, size, size, device=device).to(memory_format=torch.channels_last)
    labels = torch.randint(0, CLASSES, (batch,), device=device)

    def run() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16):
            loss = torch.nn.functional.cross_entropy(compiled(images), labels)
        loss.backward()
        optimizer.step()

    return Run(run, lambda: _wait(device))


KINDS: dict[str, Callable[[str, str, int, int], Run]] = {
    "inference:jax": jax_inference,
    "inference:jax:deployed": jax_inference,
    "inference:jax:frozen": jax_inference,
    "inference:timm": timm_inference,
    "inference:timm:graphs": timm_inference,
    "training:jax": jax_training,
    "training:timm": timm_training,
}


def several(run: Run, calls: int) -> Callable[[], object]:
    """Returns a function that makes several calls in a row and waits for the last."""

    def run_all() -> None:
        for _ in range(calls):
            run.call()
        run.wait()

    return run_all


def main() -> None:
    kind, network = sys.argv[1:3]
    batch, size, calls = map(int, sys.argv[3:])
    form = kind.partition(":")[2].partition(":")[2]
    answer(lambda: several(KINDS[kind](form, network, batch, size), calls), warmups=3, parts=calls)


if __name__ == "__main__":
    main()
