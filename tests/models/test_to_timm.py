"""Networks written in timm's layout: timm's names and shapes, and the same answers there."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
from formula import digest_of_shapes
from small_networks import answers

import se_keras
from se_keras import SEConfig, surgery
from se_keras.weights.convert import variables_by_name
from se_keras.weights.readers import SafetensorsFile

TENSORS = json.loads((pathlib.Path(__file__).parents[1] / "goldens" / "timm_tensors.json").read_text())["networks"]
NAMES = ("daisy", "iris", "rose")
SMALL = (64, 64, 3)


@pytest.fixture(scope="module")
def model():
    """A network whose numbers all differ from their start."""
    keras.utils.set_random_seed(0)
    model = se_keras.LCNet050(weights=None, classes=3, input_shape=SMALL)
    random = np.random.default_rng(0)
    for variable in variables_by_name(model).values():
        variable.assign(variable + random.uniform(0, 0.1, variable.shape).astype("float32"))
    return se_keras.set_class_names(model, NAMES)


@pytest.mark.parametrize(
    "name",
    ["lcnet_050", *(pytest.param(name, marks=pytest.mark.slow) for name in ("regnety_002", "resnetrs50", "fbnetv3_b"))],
)
def test_written_tensors_are_timms(name, tmp_path):
    se_keras.save_for_timm(se_keras.create_model(name), tmp_path / "out")
    tensors = SafetensorsFile(tmp_path / "out/model.safetensors")
    assert len(tensors) == TENSORS[name]["tensors"]
    assert digest_of_shapes({key: tensors[key].shape for key in tensors}) == TENSORS[name]["digest"]


def test_written_network_comes_back_bit_for_bit(model, tmp_path):
    se_keras.save_for_timm(model, tmp_path / "out")
    back = se_keras.create_model(f"local-dir:{tmp_path / 'out'}")
    assert se_keras.get_class_names(back) == NAMES
    assert se_keras.get_preprocessing(back) == se_keras.get_preprocessing(model)
    ours, theirs = variables_by_name(model), variables_by_name(back)
    assert list(ours) == list(theirs)
    for name, variable in ours.items():
        np.testing.assert_array_equal(variable, theirs[name], err_msg=name)


def test_configuration_states_what_timm_reads(model, tmp_path):
    folder = se_keras.save_for_timm(model, tmp_path / "out")
    config = json.loads((folder / "config.json").read_text())
    details = config.pop("pretrained_cfg")
    assert config == {
        "architecture": "lcnet_050",
        "num_classes": 3,
        "num_features": 1280,
        "global_pool": "avg",
        "label_names": list(NAMES),
    }
    assert (details["input_size"], details["num_classes"]) == ([3, 64, 64], 3)
    assert (details["first_conv"], details["classifier"]) == ("conv_stem", "classifier")
    card = (folder / "README.md").read_text()
    for fact in ("library_name: timm", "# license: state", "timm's `lcnet_050`", "64x64", "3: daisy, iris, rose"):
        assert fact in card


def test_other_channels_and_activations_are_stated(tmp_path):
    model = se_keras.LCNet050(weights=None, classes=2, input_shape=(64, 64, 4), classifier_activation=None, name="x")
    config = json.loads((se_keras.save_for_timm(model, tmp_path / "out") / "config.json").read_text())
    assert config["model_args"] == {"in_chans": 4}
    assert se_keras.create_model(f"local-dir:{tmp_path / 'out'}").input_shape == (None, 64, 64, 4)


def test_only_an_earlier_output_is_replaced(model, tmp_path):
    folder = se_keras.save_for_timm(model, tmp_path / "out")
    with pytest.raises(FileExistsError):
        se_keras.save_for_timm(model, folder)
    se_keras.save_for_timm(model, folder, overwrite=True)
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="only a network in timm's layout can be replaced"):
        se_keras.save_for_timm(model, folder, overwrite=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["legacy_seresnet18", "seresnet18", "seresnet50", "regnety_008", "tf_efficientnet_b0"])
def test_networks_are_told_from_those_that_resemble_them(name, tmp_path):
    model = se_keras.create_model(name, classes=3, name="mine")
    folder = se_keras.save_for_timm(model, tmp_path / "out")
    assert json.loads((folder / "config.json").read_text())["architecture"] == name


def altered(**options):
    return se_keras.LCNet050(weights=None, **{"input_shape": SMALL, **options})


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: surgery.deploy(altered()), "no batch normalization: it is in its deployed form"),
        (lambda: altered(se=SEConfig(reduction=16)), r"lcnet_050 has .*reduce_\w+ \(.*\), and this one has .*reduce_"),
        (lambda: altered(se=None), r"lcnet_050 has .*, and this one lacks .*_se/"),
        (
            lambda: altered(se=SEConfig(gate_activation="sigmoid")),
            r"lcnet_050 differs from this one in the layer '.*_se'",
        ),
        (lambda: altered(include_top=False), "has no layer named 'logits'. Build it with include_top=True"),
        (lambda: altered(include_preprocessing=False), "Build it with include_preprocessing=True"),
        (
            lambda: se_keras.SEResNet20(weights=None),
            "does not have the network 'se_resnet20' as it is",
        ),
    ],
    ids=["deployed", "reduction", "plain", "gate", "features", "preprocessing", "unknown"],
)
def test_networks_that_timm_does_not_have_are_refused(build, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        se_keras.save_for_timm(build(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


ANSWER = """
    import sys, numpy as np, timm, torch
    model = timm.create_model(f"local-dir:{sys.argv[1]}", pretrained=True).eval()
    config = timm.data.resolve_model_data_config(model)
    images = torch.from_numpy(np.load(sys.argv[2])).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(config[key]).reshape(1, 3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        np.save(sys.argv[3], model((images - mean) / std).numpy())
"""
FINE_TUNE = """
    import sys, timm, torch
    from timm.models import save_for_hf
    torch.manual_seed(0)
    model = timm.create_model(sys.argv[2], num_classes=3)
    model(torch.rand(4, 3, 64, 64))  # in training mode: statistics of their own
    torch.nn.init.normal_(model.get_classifier().weight)
    labels = {"label_names": ["daisy", "iris", "rose"]}
    save_for_hf(model, sys.argv[1], model_config=labels, safe_serialization=sys.argv[3] == "safe")
"""


@pytest.fixture(scope="module")
def run_timm():
    """Runs a program of timm's, in the Python named by TIMM_PYTHON."""
    python = os.environ.get("TIMM_PYTHON", sys.executable)
    if shutil.which(python) is None or subprocess.run([python, "-c", "import timm"], capture_output=True).returncode:
        pytest.skip("timm is not installed: name a Python that has it with TIMM_PYTHON")

    def run(program, *arguments):
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        command = [python, "-c", textwrap.dedent(program), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr

    return run


IMAGES = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3)).astype("float32")


def logits(model, images=IMAGES):
    return answers(keras.Model(model.input, model.get_layer("logits").output), images)


def timms(run_timm, folder, tmp_path):
    np.save(tmp_path / "images.npy", IMAGES)
    run_timm(ANSWER, folder, tmp_path / "images.npy", tmp_path / "logits.npy")
    return np.load(tmp_path / "logits.npy")


@pytest.mark.slow
@pytest.mark.torch
@pytest.mark.parametrize(
    ("name", "layout"),
    [("lcnet_050", "safe"), ("regnety_002", "pickle"), ("legacy_seresnet18", "safe"), ("seresnet50", "pickle")],
)
def test_network_of_timm_goes_both_ways(name, layout, run_timm, tmp_path):
    """timm's network answers the same here; trained one step here, it answers the same in timm."""
    run_timm(FINE_TUNE, tmp_path / "theirs", name, layout)
    model = se_keras.create_model(f"local-dir:{tmp_path / 'theirs'}", input_shape=SMALL)
    assert se_keras.get_class_names(model) == NAMES
    theirs = timms(run_timm, tmp_path / "theirs", tmp_path)
    np.testing.assert_allclose(logits(model), theirs, atol=1e-4 * np.abs(theirs).max())
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.train_on_batch(IMAGES, np.array([0, 1]))
    ours = logits(model)
    assert np.abs(ours - theirs).max() > 1e-2 * np.abs(theirs).max()
    se_keras.save_for_timm(model, tmp_path / "ours")
    theirs = timms(run_timm, tmp_path / "ours", tmp_path)
    np.testing.assert_allclose(ours, theirs, atol=1e-4 * np.abs(theirs).max())
