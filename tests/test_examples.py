"""Each example runs as it is, offline; those that train for minutes, for fewer steps."""

import pathlib
import re

import pytest
from cases import ALL

EXAMPLES = pathlib.Path(__file__).parents[1] / "examples"
PROOF = {
    "predict.py": r"cat_0\.png +\w+ \d+\.\d%, \w+ \d+\.\d%, \w+ \d+\.\d%",
    "feature_extraction.py": r"stage2: 16x16 positions, 64 channels[\s\S]*same class for (1[3-9]|[2-9]\d)%",
    "gates.py": r"stage4_block3_se: \d+% of the variance[\s\S]*9 of 9 SE blocks[\s\S]*wrote classes\.csv, classes\.png",
    "detection.py": r"Epoch 4/4[\s\S]*found \d+% of the shapes in 64 other images\nwrote .*detection\.png",
    "segmentation.py": r"Epoch 4/4[\s\S]*mean intersection over union \d+% .*\nwrote .*segmentation\.png",
    "transfer_learning.py": r"body frozen: validation accuracy \d[\s\S]*whole network: .* \d+\.\d% on ship, truck",
}


def test_every_example_is_run():
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(PROOF)


LONG = {"detection.py", "feature_extraction.py", "gates.py", "predict.py", "segmentation.py", "transfer_learning.py"}
SHORTER = {name: ["--steps", "8", "--size", "64"] for name in ("detection.py", "segmentation.py")}
DRAWN = {"detection.py": {"detection.png"}, "segmentation.py": {"segmentation.png"}}


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow if name in LONG else ()) for name in PROOF])
def test_example(name, tmp_path, monkeypatch, run_warm):
    if name == "segmentation.py" and not ALL:
        pytest.skip("make test-all runs it; it is made as detection.py, and trains as tests/hub does")
    monkeypatch.chdir(tmp_path)
    if name in SHORTER:
        pytest.importorskip("keras_hub", reason="needs keras-hub")
    path = str(EXAMPLES / name)
    arguments = [path, *SHORTER.get(name, ())]
    printed = run_warm(f"import runpy, sys; sys.argv = {arguments!r}; runpy.run_path({path!r}, run_name='__main__')")
    assert re.search(PROOF[name], printed), printed
    assert {file.name for file in tmp_path.iterdir()} == DRAWN.get(name, set())
