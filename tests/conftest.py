"""What all tests share: quiet runtimes, a clean Keras before every test, and networks built once for several tests."""

from __future__ import annotations

import dataclasses
import functools
import gc
import math
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest
from warm_python import WarmPython

# Keras is imported by what uses it: the process that hands out the tests to the others does without.
if TYPE_CHECKING:
    import keras
    import numpy as np

    import se_keras

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is imported, or it has no effect
if "PYTEST_XDIST_WORKER" in os.environ:  # one of several processes, whose threads would only wait for one another
    for variable in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(variable, "1")

LONGEST = {
    "test_demo.py",
    "test_distribute.py",
    "test_examples.py",
    "test_kill_at_random.py",
    "test_prediction.py",
    "test_two_at_once.py",
}
"""Files with tests of half a minute and more."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the longest tests first, so that no worker is left alone with one of them in the end."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


def pytest_collection_finish() -> None:
    """Spares the garbage collector the million objects of the imported modules, and looks of which most find nothing.

    Building a network makes a hundred thousand objects that stay.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 10, 5)


@pytest.fixture(autouse=True)
def _clean_keras() -> Iterator[None]:
    """The same random numbers, layer names, dtype policy and data format for every test, in whatever order they run."""
    import keras

    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)
    policy, layout = keras.config.dtype_policy(), keras.config.image_data_format()
    yield
    keras.config.set_dtype_policy(policy)
    keras.config.set_image_data_format(layout)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """Frees the networks of slow tests: they refer to themselves, and fill the memory before Python looks.

    Objects that outlive their file stay to the end, so later collections need not scan them.
    """
    result = yield
    leaves_file = nextitem is None or nextitem.path != item.path
    if leaves_file or item.get_closest_marker("slow"):
        gc.collect()
    if leaves_file:
        gc.freeze()
    return result


@pytest.fixture
def rng() -> np.random.Generator:
    import numpy as np

    return np.random.default_rng(0)


@dataclasses.dataclass(frozen=True)
class Built:
    """What several tests ask of one network, without the memory of its weights."""

    tree: dict[str, list[int]]
    trainable: int
    non_trainable: int
    info: se_keras.ModelInfo
    layer_names: tuple[str, ...]


@functools.cache
def _built(identifier: str, lineage: str | None = None, **options: object) -> Built:
    import se_keras
    from se_keras.models.network import Options, assemble
    from se_keras.models.registry import NETWORKS

    model = assemble(identifier, NETWORKS[identifier], Options(**options), lineage=lineage)
    return Built(
        tree={weight.path: list(weight.shape) for weight in model.weights},
        trainable=sum(math.prod(weight.shape) for weight in model.trainable_weights),
        non_trainable=sum(math.prod(weight.shape) for weight in model.non_trainable_weights),
        info=se_keras.model_info(model),
        layer_names=tuple(layer.name for layer in model.layers),
    )


@pytest.fixture(scope="session")
def built() -> Callable[..., Built]:
    """`built(identifier, lineage=None, **options)`: each network is built once a session and forgotten."""
    return _built


@pytest.fixture(scope="session")
def run_python() -> Callable[..., str]:
    """`run_python(code, NAME="value", ...)`: the output of code run in a fresh process with these variables."""

    def run(code: str, **environment: str) -> str:
        result = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)],
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **environment},
            capture_output=True,
            text=True,
            timeout=900,
        )
        assert result.returncode == 0, result.stderr[-4000:]
        return result.stdout

    return run


@pytest.fixture(scope="session")
def run_warm() -> Iterator[Callable[..., str]]:
    """`run_warm(code, backend="tensorflow")`: as `run_python`, without the seconds that the imports take.

    The process is a fork of one that has imported Keras and this package, and done nothing with them. What an import
    does, or a variable that is read during it, needs `run_python`.
    """
    pythons: dict[str, WarmPython] = {}

    def run(code: str, backend: str = "tensorflow") -> str:
        if backend not in pythons:
            pythons[backend] = WarmPython(backend)
        result = pythons[backend].run(textwrap.dedent(code))
        assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-4000:]
        return result.stdout

    yield run
    for python in pythons.values():
        python.close()


@pytest.fixture(scope="session")
def producers() -> Callable[[keras.Model], dict[str, list[str]]]:
    """`producers(model)`: for each layer by name, the names of the layers that its inputs come from, in order."""
    import keras

    def of(model: keras.Model) -> dict[str, list[str]]:
        layers = [layer for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)]
        return {
            layer.name: [tensor._keras_history.operation.name for tensor in keras.tree.flatten(layer.input)]
            for layer in layers
        }

    return of
