"""Costs of importing the package, building a network, and SE in a training step.

    python benchmarks/build.py

Interleaved comparisons of medians: importing a network from se_keras against `import keras` in new processes
(`import se_keras` alone imports nothing); building SEResNet50, EfficientNetB0, and MobileNetV3Large against ResNet50
and the networks of the same name in `keras.applications`; and a training step of SEResNet50 against the same network
with `se=None`, on the CPU, on TensorFlow (without XLA, which does not support fused batch normalization) and on JAX.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from contestant import installed
from timing import interleaved, report, summary

NETWORK = "from se_keras import SEResNet50"
PEERS = {"SEResNet50": "ResNet50", "EfficientNetB0": "EfficientNetB0", "MobileNetV3Large": "MobileNetV3Large"}
"""The builders that are timed, and the one in `keras.applications` that each is compared with."""


def time_imports() -> dict[str, dict[str, float]]:
    # An installed package is compiled once; a shell that disables bytecode would time the compiler.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}

    def importing(statement: str):
        command = [sys.executable, "-c", statement]
        return lambda: subprocess.run(command, check=True, capture_output=True, env=environment)

    contestants = {statement: importing(statement) for statement in ("import keras", "import se_keras", NETWORK)}
    return summary(interleaved(contestants, rounds=15, warmups=1), reference="import keras")


def time_building(name: str) -> dict[str, dict[str, float]]:
    import keras

    import se_keras

    def building(make, **options):
        def build():
            keras.utils.clear_session(free_memory=False)
            make(weights=None, **options)

        return build

    ours, peer = getattr(se_keras, name), f"keras.applications.{PEERS[name]}"
    contestants = {
        peer: building(getattr(keras.applications, PEERS[name])),
        name: building(ours),
        f"{name}(se=None)": building(ours, se=None),
    }
    return summary(interleaved(contestants, rounds=9), reference=peer)


def time_training(size: int = 224, batch: int = 8) -> dict[str, dict[str, float]]:
    import keras
    import numpy as np

    import se_keras

    random = np.random.default_rng(0)
    images = random.uniform(0, 255, (batch, size, size, 3)).astype("float32")
    labels = random.integers(0, 1000, batch)
    steps = {}
    for name, se in {"se=None": None, "SE": se_keras.SEConfig()}.items():
        model = se_keras.SEResNet50(weights=None, input_shape=(size, size, 3), se=se)
        model.compile(keras.optimizers.SGD(0.01), "sparse_categorical_crossentropy")
        steps[name] = lambda model=model: model.train_on_batch(images, labels)
    return summary(interleaved(steps, rounds=9, warmups=2), reference="se=None")


def time_training_on_jax() -> dict[str, dict[str, float]]:
    """Runs in a separate process, because a process has one backend."""
    program = "import json, build; print(json.dumps(build.time_training()))"
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    folder = os.path.dirname(os.path.abspath(__file__))
    command = [sys.executable, "-c", program]
    ended = subprocess.run(command, check=True, capture_output=True, env=environment, cwd=folder)
    return json.loads(ended.stdout.splitlines()[-1])


def main() -> int:
    imports, building = time_imports(), {name: time_building(name) for name in PEERS}
    steps = {"TensorFlow": time_training()}
    if installed(sys.executable, ("jax",)):
        steps["JAX"] = time_training_on_jax()
    else:
        print("  left out: JAX (it is not installed)", flush=True)
    extra = imports[NETWORK]["median_s"] - imports["import keras"]["median_s"]
    return report(
        "build",
        {
            "import (s)": imports,
            **{f"building {name} (s)": rows for name, rows in building.items()},
            **{f"training step, 224 px, batch 8, {backend} (s)": rows for backend, rows in steps.items()},
        },
        limits={
            f"seconds of {NETWORK}, after import keras": (extra, 0.2),
            **{
                f"building {name}, relative to keras.applications.{PEERS[name]}": (rows[name]["ratio"], 1.3)
                for name, rows in building.items()
            },
            **{
                f"training step with SE, relative to se=None, {backend}": (rows["SE"]["ratio"], 1.05)
                for backend, rows in steps.items()
            },
        },
    )


if __name__ == "__main__":
    sys.exit(main())
