"""Installs a wheel into an empty environment, as a user would, and tries the package there.

    python tests/try_wheel.py dist/se_keras-1.0.0-py3-none-any.whl

Only what the wheel declares is installed with it, so that a missing dependency or data file shows. No backend is among
it: what computes borrows TensorFlow from the Python that runs this script, where that has it.
"""

from __future__ import annotations

import importlib.util
import os
import pathlib
import subprocess
import sys
import tempfile
import venv

BARE = [
    ["python", "-c", "import se_keras, sys; print(se_keras.__version__); assert 'keras' not in sys.modules"],
    ["se-keras", "list", "se_resnet*"],
    ["se-keras", "list", "--weights"],
    ["se-keras", "info", "se_resnet20.cifar10"],
    ["se-keras", "train", "--recipes"],
]
ON_TENSORFLOW = [
    ["se-keras", "info", "se_resnet20"],
    [
        "python",
        "-c",
        "import numpy as np, se_keras; model = se_keras.create_model('se_resnet20.cifar10'); "
        "print(se_keras.__file__, model(np.zeros((1, 32, 32, 3), 'float32')).shape)",
    ],
]


def run(environment: pathlib.Path, command: list[str], variables: dict[str, str]) -> None:
    """Runs a program of an environment, in a folder of its own, and prints the end of what it says."""
    program = environment / "bin" / command[0]
    done = subprocess.run(
        [program, *command[1:]], cwd=environment, env=variables, capture_output=True, text=True, timeout=600
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    print(f"{' '.join(command)[:60]}: {(done.stdout.splitlines() or ['done'])[-1][:60]}")


def main() -> None:
    """Tries the wheel that the command line names."""
    (wheel,) = sys.argv[1:]
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    variables["TF_CPP_MIN_LOG_LEVEL"] = "3"
    with tempfile.TemporaryDirectory() as folder:
        environment = pathlib.Path(folder)
        venv.create(environment, with_pip=True)
        run(environment, ["python", "-m", "pip", "install", "--quiet", os.path.abspath(wheel)], variables)
        for command in BARE:
            run(environment, command, variables)
        tensorflow = importlib.util.find_spec("tensorflow")
        if tensorflow is None:
            print("what computes was not tried: this Python has no TensorFlow")
            return
        # A path of another environment comes last, so that only what is missing is taken from there.
        borrowed = pathlib.Path(tensorflow.origin).parents[1]
        (packages,) = environment.glob("lib/*/site-packages")
        (packages / "borrowed.pth").write_text(f"{borrowed}\n")
        for command in ON_TENSORFLOW:
            run(environment, command, variables)


if __name__ == "__main__":
    main()
