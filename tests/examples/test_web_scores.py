"""What the web page makes of an output, in Node alone: the same as Python, for every kind that an export can state."""

import json
import pathlib
import shutil
import subprocess

import keras
import numpy as np
import pytest

from se_keras.scores import Scores

WEB = pathlib.Path(__file__).parents[2] / "examples" / "web"
PROGRAM = """
const { classCount, probabilitiesOf } = await import(process.argv[1]);
const attempt = (f) => { try { return f(); } catch (error) { return error.message; } };
const answers = JSON.parse(process.argv[2]).map(({ scores, kind, bytes }) => attempt(() => [
  classCount(scores.length, kind),
  Array.from(probabilitiesOf((bytes ? Uint8Array : Float32Array).from(scores), kind)),
]));
console.log(JSON.stringify(answers));
"""
KNOWN = [
    ("probabilities", [0.25, 0.75]),
    ("independent_probabilities", [0.9, 0.8, 0.0]),
    ("probability", [0.25]),
    ("logits", [0.0, 1.0]),  # they add up to one, and are no probabilities
    ("logits", [-2.0, 3.0, 1000.0]),
    ("logit", [-1.5]),
]


def answers(*cases):
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    arguments = [node, "--input-type=module", "-e", PROGRAM, (WEB / "scores.js").as_uri(), json.dumps(cases)]
    return json.loads(subprocess.run(arguments, capture_output=True, text=True, check=True, timeout=60).stdout)


def test_every_kind_gives_the_probabilities_of_python():
    for (kind, scores), answer in zip(KNOWN, answers(*({"kind": k, "scores": s} for k, s in KNOWN)), strict=True):
        own = Scores(kind, len(scores))
        expected = keras.ops.convert_to_numpy(own.probabilities(np.array([scores], "float32")))[0]
        assert answer[0] == own.classes
        np.testing.assert_allclose(answer[1], expected, atol=1e-6)


def test_without_a_kind_only_what_is_clear_is_answered():
    clear, logits, single, eight_bits = answers(
        {"scores": [0.25, 0.75]},
        {"scores": [1.0, 1.0]},
        {"scores": [0.3]},
        {"scores": [0, 255], "kind": "logits", "bytes": True},
    )
    assert clear[1] == [0.25, 0.75]
    assert logits[1] == [0.5, 0.5]
    assert "does not state whether it is a probability or a logit" in single
    assert "8-bit logits cannot be read here" in eight_bits


def test_one_probability_in_eight_bits_is_two_classes():
    (answer,) = answers({"scores": [64], "kind": "probability", "bytes": True})
    assert answer == [2, [0.75, 0.25]]


def test_page_is_built_with_the_module():
    assert '"scores.js"' in (WEB / "build.js").read_text()
