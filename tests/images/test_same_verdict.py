"""One verdict on every file, whoever reads it: preprocessing, training, prediction, calibration, a served model."""

from __future__ import annotations

import argparse
import csv
import io
import os
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from photos import BROKEN, OTHER_FORMATS, OTHER_NAMES, PIXELS, SOUND, TURNED
from PIL import Image, ImageOps

import se_keras
from se_keras import export, prediction
from se_keras.cli.images import open_images, refuse_broken
from se_keras.export.calibration import calibrate
from se_keras.export.image_bytes import decoded, prepared_images, resized_and_cropped
from se_keras.export.images import real_images
from se_keras.export.model_ends import inputs_of
from se_keras.images.reading import decode, fault, separated
from se_keras.preprocessing import stored_preprocessing
from se_keras.training.sources import open_data

# What Pillow has to say of damaged EXIF data and of large images, in passing.
pytestmark = pytest.mark.filterwarnings("ignore:::PIL")

READABLE = SOUND | OTHER_FORMATS | TURNED
RECORD = se_keras.Preprocessing(size=16)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """All files in one class; in the other what keeps it from being empty. And what no decoder ever sees."""
    folder = tmp_path_factory.mktemp("photos")
    for name in ("all", "other"):
        (folder / name).mkdir()
    for index, (name, contents) in enumerate(READABLE.items()):
        (folder / "all" / f"{index:02}_{name}").write_bytes(contents)
    for name, (contents, _) in (BROKEN | OTHER_NAMES).items():
        (folder / "all" / name).write_bytes(contents)
    for index in range(3):
        (folder / "other" / f"{index}.png").write_bytes(SOUND["plain.png"])
    (folder / "all" / "._plain.jpg").write_bytes(b"what macOS leaves beside a photo")
    (folder / "all" / "notes.txt").write_text("no image, and not named as one")
    (folder / "all" / "gone.jpg").symlink_to(folder / "nowhere.jpg")
    os.mkfifo(folder / "all" / "pipe.jpg")
    with open(os.path.join(os.fsencode(folder), b"all", b"caf\xe9.jpg"), "wb") as stream:
        stream.write(SOUND["plain.jpg"])
    return folder


LEFT_OUT = {name: reason for name, (_, reason) in (BROKEN | OTHER_NAMES).items()}
LEFT_OUT |= {"gone.jpg": "link", "pipe.jpg": "regular file"}
READ = len(READABLE) + 1 + 3


@pytest.fixture(scope="module")
def model():
    inputs = keras.Input((16, 16, 3))
    x = se_keras.layers.ImagePreprocessing(mean=(0.5,) * 3, std=(0.25,) * 3)(inputs)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(2, "softmax")(x))


def check_left_out(broken):
    """Each broken file once, with its reason."""
    found = {os.path.basename(file): reason for file, reason in broken}
    assert found.keys() == LEFT_OUT.keys()
    for name, reason in found.items():
        assert LEFT_OUT[name] in reason, name


def test_training_leaves_out_what_is_broken(photos):
    data = open_data(photos, validation_split=0.3)
    check_left_out(data.broken)
    assert len(data.train) + len(data.validation) == READ
    assert all(part[index].shape[2] == 3 for part in (data.train, data.validation) for index in range(len(part)))
    with pytest.raises(ValueError, match=rf"{len(LEFT_OUT)} of {len(LEFT_OUT) + READ} files cannot be read"):
        open_data(photos, strict=True)


def test_prediction_leaves_out_what_is_broken(photos, model, tmp_path):
    done = prediction.predict_folder(model, photos, tmp_path / "table.csv", class_names=["all", "other"])
    assert done.classified == READ
    with open(done.broken_list, encoding="utf-8", newline="") as stream:
        check_left_out((row["file"], row["error"]) for row in csv.DictReader(stream))
    with open(done.output, encoding="utf-8", newline="") as stream:
        assert r"all/caf\xe9.jpg" in {row["file"] for row in csv.DictReader(stream)}


def test_exports_leave_out_what_is_broken(photos):
    found = real_images(photos, None, (16, 16, 3), record=RECORD, most=100)
    check_left_out(found.broken)
    assert found.images.shape == (READ, 16, 16, 3)
    assert np.bincount(found.labels).tolist() == [READ - 3, 3]


def test_calibration_warns_of_what_it_leaves_out(photos, model):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = calibrate(photos, inputs_of(model), preprocessing=stored_preprocessing(model), least=1)
    assert len(found.feed["images"]) == READ
    ours = [str(warning.message) for warning in caught if "left out" in str(warning.message)]
    assert [text.split(" files")[0] for text in ours] == [f"{len(LEFT_OUT)} of the"]


def test_commands_name_what_they_leave_out_or_refuse_it(photos, capsys):
    options = argparse.Namespace(model="nowhere.keras", data=photos, validation_split=0.3, strict=False)
    check_left_out(open_images(options).broken)
    assert f"{len(LEFT_OUT)} of the files cannot be read" in capsys.readouterr().err
    with pytest.raises(ValueError, match=rf"{len(LEFT_OUT)} of {len(LEFT_OUT) + READ} files cannot be read"):
        refuse_broken(photos)


def test_a_folder_of_broken_images_only_is_refused(tmp_path):
    (tmp_path / "cut.jpg").write_bytes(BROKEN["cut.jpg"][0])
    with pytest.raises(ValueError, match=r"holds no image that can be read: .*cut\.jpg"):
        real_images(tmp_path, None, (16, 16, 3), record=RECORD, most=9)


@pytest.mark.parametrize("name", READABLE)
def test_sound_files_are_read_as_files_and_as_bytes(name, tmp_path):
    (tmp_path / name).write_bytes(READABLE[name])
    pixels = se_keras.preprocess(tmp_path / name, RECORD)
    assert pixels.max() > 150  # none of them is black
    assert fault(io.BytesIO(READABLE[name])) is None
    assert decode(READABLE[name], "here").shape == ((32, 24, 3) if "turned" in name else (24, 32, 3))


@pytest.mark.parametrize("name", TURNED)
def test_orientation_is_found_wherever_it_is(name):
    upright = decode(TURNED[name], "here").astype(int)
    assert np.abs(upright - np.rot90(PIXELS, 3)).max() <= (0 if name.endswith(("png", "tif")) else 40)
    with Image.open(io.BytesIO(TURNED[name])) as image:
        np.testing.assert_array_equal(upright, ImageOps.exif_transpose(image))


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_named_with_the_reason(name, tmp_path):
    contents, reason = BROKEN[name]
    (tmp_path / name).write_bytes(contents)
    with pytest.raises(ValueError, match=name.replace(".", r"\.")) as error:
        se_keras.preprocess(tmp_path / name, RECORD)
    assert reason in str(error.value)
    assert reason in fault(tmp_path / name)
    with pytest.raises(ValueError, match="The image of here cannot be read"):
        decode(contents, "here")
    assert separated([tmp_path / name])[0] == []


@pytest.mark.parametrize("name", OTHER_NAMES)
def test_other_formats_are_named_unless_the_content_is_another(name, tmp_path):
    contents, reason = OTHER_NAMES[name]
    (tmp_path / name).write_bytes(contents)
    assert fault(tmp_path / name) == reason
    (tmp_path / name).write_bytes(SOUND["plain.jpg"])
    assert fault(tmp_path / name) is None


def served(files):
    serve = tf.function(
        lambda contents: prepared_images(contents, lambda file: resized_and_cropped(decoded(file), RECORD))
    )
    return [tensor.numpy() for tensor in serve(tf.constant(files, tf.string))]


def test_graph_reads_the_same_files_to_the_same_pixels(tmp_path):
    images, status = served([*SOUND.values(), *(contents for contents, _ in BROKEN.values())])
    assert [reason for reason in status[: len(SOUND)] if reason] == []
    for image, (name, contents) in zip(images, SOUND.items(), strict=False):
        (tmp_path / name).write_bytes(contents)
        difference = np.abs(image - se_keras.preprocess(tmp_path / name, RECORD)[0])
        assert difference.max() <= (3 if name == "cmyk.jpg" else 1), name
    for (name, (_, reason)), found in zip(BROKEN.items(), status[len(SOUND) :], strict=True):
        assert found, name
        assert reason in found.decode() or name.endswith(".tif") or name == "empty.jpg", name


def test_graph_says_which_formats_it_has_no_decoder_for():
    images, status = served(list(OTHER_FORMATS.values()))
    assert not images.any()
    expected = ["it is not an image in one of the formats JPEG, PNG, GIF, BMP"] * (len(OTHER_FORMATS) - 1)
    assert [reason.decode() for reason in status] == [
        *expected,
        "a BMP file must have 24 or 32 bits per pixel and no compression",
    ]


def test_served_model_answers_what_it_can(model, tmp_path):
    loaded = tf.saved_model.load(str(export.saved_model(model, tmp_path / "saved", class_names=["all", "other"])))
    serve = loaded.signatures["serve_bytes"]
    good = SOUND["plain.jpg"]
    answer = {name: tensor.numpy() for name, tensor in serve(image_bytes=tf.constant([good, b"hello", good])).items()}
    alone = serve(image_bytes=tf.constant([good]))
    for name in ("probabilities", "scores"):
        assert np.isnan(answer[name][1]).all()
        np.testing.assert_allclose(answer[name][[0, 2]], np.repeat(alone[name], 2, axis=0), rtol=1e-6)
    assert answer["labels"][1].tolist() == [b"", b""]
    assert answer["labels"][0].tolist() == alone["labels"].numpy()[0].tolist()
    assert answer["status"][[0, 2]].tolist() == [b"", b""]
    assert answer["status"][1].startswith(b"it is not an image")
    empty = serve(image_bytes=tf.constant([], tf.string))
    assert {name: tuple(tensor.shape) for name, tensor in empty.items()} == {
        "probabilities": (0, 2),
        "labels": (0, 2),
        "scores": (0, 2),
        "status": (0,),
    }


@pytest.mark.slow
def test_a_session_serves_row_by_row_too(model, tmp_path):
    """As TensorFlow Serving runs a graph: without Python."""
    path = export.saved_model(model, tmp_path / "saved")
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        signature = tf.compat.v1.saved_model.load(session, ["serve"], str(path)).signature_def["serve_bytes"]
        feed = {signature.inputs["image_bytes"].name: [SOUND["plain.png"], BROKEN["cut.png"][0]]}
        status = session.run(signature.outputs["status"].name, feed)
    assert status.tolist() == [b"", b"it is damaged and cannot be decoded"]
