"""What the package costs its user before anything useful happens: import, building, and SE's share of a step.

    python benchmarks/build.py

Three comparisons, each interleaved, medians: `import se_keras` beside `import keras` in fresh
processes; building SEResNet50 beside `keras.applications.ResNet50`; a training step of
SEResNet50 beside the same network with `se=None`, on the CPU, as `compile` sets it up by default
("auto"), and with `jit_compile=False` for comparison.
"""

from __future__ import annotations

import os
import subprocess
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from timing import interleaved, report, summary


def time_imports() -> dict[str, dict[str, float]]:
    def importing(module: str):
        return lambda: subprocess.run([sys.executable, "-c", f"import {module}"], check=True, capture_output=True)

    contestants = {"import keras": importing("keras"), "import se_keras": importing("se_keras")}
    return summary(interleaved(contestants, rounds=9), reference="import keras")


def time_building() -> dict[str, dict[str, float]]:
    import keras

    import se_keras

    def building(make):
        def build():
            keras.utils.clear_session(free_memory=False)
            make(weights=None)

        return build

    contestants = {
        "keras.applications.ResNet50": building(keras.applications.ResNet50),
        "SEResNet50": building(se_keras.SEResNet50),
        "SEResNet50(se=None)": building(lambda weights: se_keras.SEResNet50(weights=weights, se=None)),
    }
    return summary(interleaved(contestants, rounds=9), reference="keras.applications.ResNet50")


def time_training(jit_compile: bool | str, size: int, batch: int) -> dict[str, dict[str, float]]:
    import keras
    import numpy as np

    import se_keras

    random = np.random.default_rng(0)
    images = random.uniform(0, 255, (batch, size, size, 3)).astype("float32")
    labels = random.integers(0, 1000, batch)
    steps = {}
    for name, se in {"se=None": None, "SE": se_keras.SEConfig()}.items():
        model = se_keras.SEResNet50(weights=None, input_shape=(size, size, 3), se=se)
        model.compile(keras.optimizers.SGD(0.01), "sparse_categorical_crossentropy", jit_compile=jit_compile)
        steps[name] = lambda model=model: model.train_on_batch(images, labels)
    return summary(interleaved(steps, rounds=9, warmups=2), reference="se=None")


def main() -> int:
    imports, building = time_imports(), time_building()
    default, without_xla = time_training("auto", 224, 8), time_training(False, 224, 8)
    extra = imports["import se_keras"]["median_s"] - imports["import keras"]["median_s"]
    return report(
        "build",
        {
            "import (s)": imports,
            "building (s)": building,
            "training step, 224 px, batch 8, default compile (s)": default,
            "training step, 224 px, batch 8, jit_compile=False (s)": without_xla,
        },
        limits={
            "seconds of import se_keras over import keras": (extra, 0.2),
            "building SEResNet50 over keras.applications.ResNet50": (building["SEResNet50"]["ratio"], 1.3),
            "training step with SE over se=None, default compile": (default["SE"]["ratio"], 1.05),
        },
    )


if __name__ == "__main__":
    sys.exit(main())
