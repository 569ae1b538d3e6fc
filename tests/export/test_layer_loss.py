"""Losses of single operations of an int8 file: a spoiled one is found, and the report tells of it."""

import json

import keras
import numpy as np
import pytest

from se_keras import SqueezeExcite, export
from se_keras.export.calibration import Calibration
from se_keras.export.inference_form import tflite_form
from se_keras.export.layer_loss import LEAST_DECIBELS, LayerLoss, layer_losses, loss_notes, lossy
from se_keras.export.tflite_file import packed, read_model
from se_keras.export.to_tflite import converted

QUICK = {"gpu_images": 0, "repeats": 0}


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).uniform(0, 255, (100, 16, 16, 3)).astype("float32")


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.Rescaling(1 / 127.5, offset=-1.0)(inputs)
    x = keras.layers.Conv2D(16, 3, padding="same", activation="relu", name="first")(x)
    x = keras.layers.Add(name="sum")([x, SqueezeExcite(reduction=4, name="gated")(keras.layers.Conv2D(16, 1)(x))])
    x = keras.layers.Dense(4, activation="softmax")(keras.layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, x)


@pytest.fixture(scope="module")
def files(model, images, tmp_path_factory):
    """The int8 file, its float form, and the int8 file with one tensor's step made coarse: the first convolution's."""
    folder = tmp_path_factory.mktemp("losses")
    paths = {name: folder / f"{name}.tflite" for name in ("int8", "fp32", "coarse")}
    form = tflite_form(model, {"images": images}, is_quantized=True)
    paths["fp32"].write_bytes(converted(form, "fp32"))
    paths["int8"].write_bytes(converted(form, "int8", Calibration({"images": images}).batches(1)))
    spoiled = read_model(paths["int8"].read_bytes())
    (tensor,) = [one for one in spoiled.subgraphs[0].tensors if b"first" in one.name and len(one.shape) == 4][-1:]
    tensor.quantization.scale = 64 * tensor.quantization.scale
    paths["coarse"].write_bytes(packed(spoiled))
    return paths


@pytest.mark.slow
def test_every_operation_has_its_loss(files, images):
    losses, unpaired = layer_losses(files["int8"], files["fp32"], {"images": images[:4]})
    assert unpaired == 0
    assert len({loss.name for loss in losses}) == len({loss.place for loss in losses}) == len(losses)
    assert [loss.alone for loss in losses] == sorted(loss.alone for loss in losses)
    assert not lossy(losses)
    assert all(loss.within > 20 for loss in losses)


def test_a_spoiled_operation_alone_is_named(files, images):
    """All operations behind it inherit its noise within the network, but lose no more alone."""
    before = {loss.name: loss for loss in layer_losses(files["int8"], files["fp32"], {"images": images[:4]})[0]}
    after, _ = layer_losses(files["coarse"], files["fp32"], {"images": images[:4]})
    worst = after[0]
    assert "first" in worst.name
    assert [loss.name for loss in lossy(after)] == [worst.name]
    assert worst.alone < before[worst.name].alone - 15
    (total,) = [loss for loss in after if "sum" in loss.name]
    assert total.within < before[total.name].within - 3
    assert total.alone > LEAST_DECIBELS


def test_a_float_file_loses_nothing(files, images):
    losses, unpaired = layer_losses(files["fp32"], files["fp32"], {"images": images[:2]})
    assert unpaired == 0
    assert {loss.within for loss in losses} == {float("inf")}
    assert all(loss.alone > 100 for loss in losses)


@pytest.mark.slow
def test_batches_of_a_file_are_its_own(model, files, images, tmp_path):
    single, path, twin = (tmp_path / name for name in ("single.tflite", "int8.tflite", "fp32.tflite"))
    model = tflite_form(model, {"images": images}, is_quantized=True)
    calibration = Calibration({"images": images[:64]})  # so few that all are observed
    single.write_bytes(converted(model, "int8", calibration.batches(1)))
    path.write_bytes(converted(model, "int8", calibration.batches(4), batch_size=4))
    twin.write_bytes(converted(model, "fp32", batch_size=4))
    of_four = {loss.name: loss for loss in layer_losses(path, twin, {"images": images[:8]})[0]}
    for loss in layer_losses(single, files["fp32"], {"images": images[:8]})[0]:
        assert of_four[loss.name].within == pytest.approx(loss.within, abs=1)
    with pytest.raises(ValueError, match=r"No operation of .* has a counterpart in float"):
        layer_losses(path, files["fp32"], {"images": images[:8]})  # its tensors have another shape


@pytest.mark.parametrize("reference", ["model", "fp32"])
def test_report_shows_the_worst_first(model, files, images, tmp_path, reference):
    given = model if reference == "model" else files["fp32"]
    report = export.verify(files["coarse"], given, data=images[:40], layers=True, **QUICK)
    assert "first" in report.losses[0].name
    text = str(report)
    (table,) = [part for part in text.split("\n\n") if part.startswith("Signal to noise in dB")]
    assert f"of {len(report.losses)} operations" in table
    assert "first" in table.splitlines()[2]
    assert max(map(len, table.splitlines())) <= 80
    assert f"1 of {len(report.losses)} operations lose more than 1% of the power of their signal" in text
    assert "losses.png" in [path.name for path in export.write_report(report, tmp_path)]
    content = json.loads((tmp_path / "report.json").read_text("utf-8"))["losses"]
    assert content[0] == {**vars(report.losses[0])}
    assert len(content) == len(report.losses)


def test_other_files_and_models_are_refused(model, files, images):
    with pytest.raises(ValueError, match=r"requires a .tflite file in int8 or int16x8; .* is tflite, fp32"):
        export.verify(files["fp32"], model, layers=True, **QUICK)
    with pytest.raises(ValueError, match="requires the model that the file was exported from"):
        export.verify(files["int8"], layers=True, **QUICK)


def test_notes_count_what_was_not_measured():
    losses = [LayerLoss("a", "CONV_2D", 12.0, 11.0, 0), LayerLoss("b", "CONV_2D", 30.0, 11.0, 1)]
    assert loss_notes(losses, 0)[0].startswith("1 of 2 operations lose more than 1%")
    assert loss_notes(losses[1:], 3)[1].startswith("3 operations have no counterpart")
