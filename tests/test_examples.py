"""Each example runs as it is, offline."""

import pathlib
import re

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


LONG = {"gates.py", "predict.py", "transfer_learning.py"}


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow if name in LONG else ()) for name in PROOF])
def test_example(name, tmp_path, monkeypatch, run_warm):
    monkeypatch.chdir(tmp_path)
    path = str(EXAMPLES / name)
    printed = run_warm(f"import runpy, sys; sys.argv = [{path!r}]; runpy.run_path({path!r}, run_name='__main__')")
    assert re.search(PROOF[name], printed), printed
    assert list(tmp_path.iterdir()) == []
