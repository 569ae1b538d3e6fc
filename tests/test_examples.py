"""Each example runs as it is, offline, within a minute on an idle machine."""

import pathlib
import re
import subprocess
import sys

import pytest

EXAMPLES = pathlib.Path(__file__).parents[1] / "examples"
PROOF = {
    "predict.py": r"cat_0\.png +\w+ \d+\.\d%, \w+ \d+\.\d%, \w+ \d+\.\d%",
    "feature_extraction.py": r"stage2: 16x16 positions, 64 channels[\s\S]*same class for (1[3-9]|[2-9]\d)%",
    "gates.py": r"stage4_block3_se: \d+% of the variance[\s\S]*9 of 9 SE blocks[\s\S]*wrote classes\.csv, classes\.png",
    "transfer_learning.py": r"body frozen: validation accuracy \d[\s\S]*whole network: .* \d+\.\d% on ship, truck",
}


def test_every_example_is_run():
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(PROOF)


@pytest.mark.parametrize("name", PROOF)
def test_example(name, tmp_path):
    done = subprocess.run([sys.executable, EXAMPLES / name], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert re.search(PROOF[name], done.stdout), done.stdout
    assert list(tmp_path.iterdir()) == []
