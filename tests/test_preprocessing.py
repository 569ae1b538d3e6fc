"""From photo to input and from output to label: crops by arithmetic, every kind of image, and every kind of bad one."""

from __future__ import annotations

import dataclasses
import io
import json

import keras
import numpy as np
import pytest
from PIL import Image

import se_keras
from se_keras import Preprocessing, preprocess
from se_keras.layers import ImagePreprocessing
from se_keras.preprocessing import image_sequence, load_image, preprocessing_of, stored_preprocessing

WHOLE = Preprocessing(size=32, crop=1.0)


@pytest.fixture
def photo():
    """Smooth, so that resizing says something, and different along height, width and channels: (96, 128, 3)."""
    rows, columns = np.mgrid[0:96, 0:128]
    channels = [rows * 2, columns * 1.5 + 20, 255 - rows - columns]
    return np.stack(channels, axis=-1).round().astype("uint8")


# Geometry. At the right size nothing is resampled, so that the crop can be read off exactly.


def test_image_of_the_right_size_is_returned_as_it_is(photo):
    image = photo[:32, :32]
    outputs = preprocess(image, WHOLE)
    assert (outputs.shape, outputs.dtype) == ((1, 32, 32, 3), np.float32)
    np.testing.assert_array_equal(outputs[0], image)


@pytest.mark.parametrize(
    ("shape", "rows", "columns"),
    [
        ((256, 256), slice(16, 240), slice(16, 240)),
        ((256, 300), slice(16, 240), slice(38, 262)),
        ((400, 256), slice(88, 312), slice(16, 240)),
        ((256, 257), slice(16, 240), slice(16, 240)),  # 16.5 rounds to the even 16
    ],
)
def test_central_crop(shape, rows, columns, rng):
    image = rng.integers(0, 256, size=(*shape, 3)).astype("uint8")
    np.testing.assert_array_equal(preprocess(image, Preprocessing())[0], image[rows, columns])


def test_shorter_side_becomes_size_over_crop_and_the_longer_follows(photo):
    # 96x128 to a shorter side of 28 / 0.875 = 32: 32x42 (42.67 cut down), of which the middle 28x28.
    resized = Image.fromarray(photo).resize((42, 32), Image.Resampling.BILINEAR)
    expected = np.asarray(resized)[2:30, 7:35]
    np.testing.assert_array_equal(preprocess(photo, Preprocessing(size=28))[0], expected)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("crop", [1.0, 0.9, 0.875, 224 / 256, 299 / 352])
@pytest.mark.parametrize("shape", [(96, 128), (128, 96), (31, 200), (20, 20)])
def test_size_is_always_the_records(interpolation, crop, shape, rng):
    image = rng.integers(0, 256, size=(*shape, 3)).astype("uint8")
    record = Preprocessing(size=(30, 41), crop=crop, interpolation=interpolation)
    assert preprocess(image, record).shape == (1, 30, 41, 3)


def test_resizing_is_antialiased(rng):
    # Ten times smaller: every pixel is a mean over many; without antialiasing the noise would stay.
    noise = rng.integers(0, 256, size=(320, 320, 3)).astype("uint8")
    assert noise.std() > 70
    assert preprocess(noise, WHOLE).std() < 12


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_float_and_uint8_agree_to_one_step_of_uint8(interpolation, photo):
    record = Preprocessing(size=28, interpolation=interpolation)
    as_float, as_uint8 = preprocess(photo.astype("float32"), record), preprocess(photo, record)
    assert as_float.dtype == np.float32
    np.testing.assert_allclose(np.clip(as_float, 0, 255), as_uint8, atol=1)
    np.testing.assert_array_equal(preprocess(photo.astype("int64"), record), as_float)


# Kinds of images.


def test_batches_sequences_paths_and_pil_images_are_the_same(photo, tmp_path):
    record = Preprocessing(size=28)
    expected = preprocess(photo, record)
    image = Image.fromarray(photo)
    image.save(tmp_path / "photo.png")
    path = tmp_path / "photo.png"
    for given in (photo[None], [photo], (photo,), image, [image], path, str(path), [path]):
        np.testing.assert_array_equal(preprocess(given, record), expected)
    mixed = preprocess([photo, path, image, photo.astype("float32")], record)
    assert mixed.shape == (4, 28, 28, 3)
    np.testing.assert_array_equal(
        preprocess([photo, photo[:50, :60]], record)[1], preprocess(photo[:50, :60], record)[0]
    )


def test_encoded_images_and_iterables_are_the_same(photo, tmp_path):
    record = Preprocessing(size=28)
    expected = preprocess(photo, record)
    path = tmp_path / "photo.png"
    Image.fromarray(photo).save(path)
    content = path.read_bytes()
    strings = np.array([str(path)])
    for given in (content, bytearray(content), memoryview(content), [content], io.BytesIO(content), strings):
        np.testing.assert_array_equal(preprocess(given, record), expected)
    for given in (tmp_path.glob("*.png"), (one for one in [photo]), iter([path]), strings.astype(object)):
        np.testing.assert_array_equal(preprocess(given, record), expected)
    with open(path, "rb") as file:
        np.testing.assert_array_equal(preprocess([photo, file], record), np.concatenate([expected] * 2))
    assert len(image_sequence(iter([]))) == 0


class WithGradient:
    """What matters of a tensor of Torch that has a gradient, or is on a GPU."""

    def __init__(self, array):
        self.array, self.ndim, self.shape = array, array.ndim, array.shape

    def __getitem__(self, index):
        return WithGradient(self.array[index])

    def __array__(self, *args, **kwargs):
        raise RuntimeError("Can't call numpy() on Tensor that requires grad")

    def detach(self):
        return self

    def cpu(self):
        return self.array


def test_tensors_with_a_gradient_are_detached(photo):
    np.testing.assert_array_equal(preprocess([WithGradient(photo)], WHOLE), preprocess(photo, WHOLE))
    np.testing.assert_array_equal(preprocess(WithGradient(photo), WHOLE), preprocess(photo, WHOLE))


def test_tensors_are_taken_as_arrays(photo):
    tensor = keras.ops.convert_to_tensor(photo)
    np.testing.assert_array_equal(preprocess(tensor, WHOLE), preprocess(photo, WHOLE))


@pytest.mark.parametrize(("orientation", "turn"), [(3, 2), (6, 3), (8, 1)])
def test_photo_is_turned_upright_as_exif_says(orientation, turn, photo, tmp_path):
    image = Image.fromarray(photo)
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(tmp_path / "turned.png", exif=exif)
    upright = np.rot90(photo, turn)
    np.testing.assert_array_equal(np.asarray(load_image(tmp_path / "turned.png")), upright)
    np.testing.assert_array_equal(preprocess(tmp_path / "turned.png", WHOLE), preprocess(upright, WHOLE))


@pytest.mark.parametrize("mode", ["L", "LA", "1", "P", "RGBA", "CMYK", "I;16"])
def test_other_kinds_of_images_become_rgb(mode, tmp_path):
    gray = (np.arange(32 * 32).reshape(32, 32) // 4 % 256).astype("uint8")
    rgb = np.stack([gray] * 3, axis=-1)
    image = Image.fromarray(gray.astype("uint16") * 257) if mode == "I;16" else Image.fromarray(rgb).convert(mode)
    suffix = "tif" if mode == "CMYK" else "png"
    image.save(tmp_path / f"image.{suffix}")
    outputs = preprocess(tmp_path / f"image.{suffix}", WHOLE)
    assert outputs.shape == (1, 32, 32, 3)
    if mode not in ("1", "P"):  # these have fewer colors
        np.testing.assert_allclose(outputs[0], rgb, atol=1)


def test_transparency_is_dropped_not_blended(tmp_path):
    pixels = np.zeros((32, 32, 4), "uint8")
    pixels[..., 0] = 200
    Image.fromarray(pixels).save(tmp_path / "clear.png")
    np.testing.assert_array_equal(preprocess(tmp_path / "clear.png", WHOLE)[0, 0, 0], [200, 0, 0])


def test_channels_first(photo):
    expected = preprocess(photo, WHOLE)
    keras.config.set_image_data_format("channels_first")
    np.testing.assert_array_equal(preprocess(photo, WHOLE), expected.transpose(0, 3, 1, 2))


def test_the_layout_is_the_models_whatever_the_setting(photo):
    keras.config.set_image_data_format("channels_first")
    inputs = keras.Input((3, 64, 64))
    model = keras.Model(inputs, ImagePreprocessing(size=64, mean=(0,) * 3, std=(1,) * 3)(inputs))
    keras.config.set_image_data_format("channels_last")
    assert preprocess(photo, model).shape == (1, 3, 64, 64)


def test_normalize_equals_the_formula_by_hand():
    record = Preprocessing()
    outputs = record.normalize(np.full((1, 1, 1, 3), 128, "uint8"))
    assert outputs.dtype == np.float32
    np.testing.assert_allclose(outputs[0, 0, 0], [0.074065, 0.205182, 0.426492], atol=2e-6)


# What a model knows about its images.


@pytest.mark.parametrize("name", ["se_resnet20", "se_mobilenet"])
def test_record_of_a_model_is_the_networks_own(name):
    model = se_keras.create_model(name)
    record, own = preprocessing_of(model), se_keras.get_preprocessing(name)
    assert (record.crop, record.interpolation, record.mean, record.std) == (
        own.crop,
        own.interpolation,
        own.mean,
        own.std,
    )
    assert record.height_width == own.height_width


def test_record_follows_the_input_size_and_survives_saving(tmp_path):
    fixed = se_keras.SEResNet20(input_shape=(48, 40, 3))
    assert preprocessing_of(fixed).height_width == (48, 40)
    fixed.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert preprocessing_of(loaded) == preprocessing_of(fixed)
    assert preprocess(np.zeros((60, 60, 3), "uint8"), loaded).shape == (1, 48, 40, 3)
    assert preprocessing_of(se_keras.SEResNet20(input_shape=(None, None, 3))).height_width == (32, 32)


def test_record_of_a_nested_network():
    base = se_keras.SEResNet20(include_top=False, pooling="avg")
    head = keras.layers.Dense(5)
    for model, size in (
        (keras.Sequential([keras.Input((48, 40, 3)), base, head]), (48, 40)),
        (keras.Sequential([base, head]), (32, 32)),
        (keras.Sequential([keras.Input((None, None, 3)), base]), (32, 32)),
    ):
        assert preprocessing_of(model).height_width == size
        assert preprocessing_of(model).mean == preprocessing_of(base).mean
        assert preprocess(np.zeros((60, 60, 3), "uint8"), model).shape == (1, *size, 3)


def test_what_the_preprocessing_was_built_with_does_not_follow_the_input():
    own = se_keras.get_preprocessing("se_resnet20")
    assert stored_preprocessing(se_keras.SEResNet20(input_shape=(48, 40, 3))) == own
    assert stored_preprocessing(se_keras.SEResNet20(include_preprocessing=False)) is None


def test_record_comes_back_from_json():
    for record in (Preprocessing(), Preprocessing(size=(30, 41), crop=1.0, mean=(0.5,), std=(1 / 255,))):
        assert Preprocessing.from_config(json.loads(json.dumps(dataclasses.asdict(record) | {"name": "x"}))) == record


def test_record_under_channels_first():
    keras.config.set_image_data_format("channels_first")
    inputs = keras.Input((3, 48, 40))
    layer = se_keras.layers.ImagePreprocessing(mean=(0.5,) * 3, std=(0.5,) * 3)
    assert preprocessing_of(keras.Model(inputs, layer(inputs))).height_width == (48, 40)


def test_model_without_preprocessing_is_refused_with_the_way_out(photo):
    model = se_keras.SEResNet20(include_preprocessing=False)
    message = (
        r"'se_resnet20' was built without its preprocessing.*get_preprocessing returns that of a network, such as "
        r"'se_resnet50', or of a checkpoint, such as 'se_resnet50\.caffe_in1k'\), then call its `normalize`"
    )
    with pytest.raises(ValueError, match=message):
        preprocess(photo, model)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"interpolation": "nearest"}, r"Unknown interpolation 'nearest'.*Options: 'bilinear', 'bicubic'"),
        ({"crop": 0}, r"`crop` must be above 0 and at most 1; received crop=0"),
        ({"crop": 1.5}, r"`crop` must be above 0 and at most 1; received crop=1\.5"),
        ({"size": 0}, r"`size` must be an integer of at least 1; received size=0"),
        ({"size": (32, 0)}, r"`size` must be an integer of at least 1; received size=0"),
        ({"std": (0.2, 0, 0.2)}, r"`std` above 0; received .*std=\(0\.2, 0, 0\.2\)"),
        ({"mean": (0.5,)}, r"one number per channel.*received mean=\(0\.5,\)"),
    ],
)
def test_bad_record_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Preprocessing(**options)


# Bad images.


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no image file at '.*nowhere\.png'"):
        preprocess(tmp_path / "nowhere.png", WHOLE)
    with pytest.raises(FileNotFoundError, match=r"no image file at"):
        preprocess(tmp_path, WHOLE)  # a folder


def test_empty_truncated_and_other_files_are_named(tmp_path, rng):
    (tmp_path / "empty.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"'.*empty\.png' is empty \(0 bytes\)"):
        preprocess(tmp_path / "empty.png", WHOLE)

    Image.fromarray(rng.integers(0, 256, size=(64, 64, 3)).astype("uint8")).save(tmp_path / "whole.png")
    Image.open(tmp_path / "whole.png").save(tmp_path / "whole.jpg")
    for kind in ("png", "jpg"):
        data = (tmp_path / f"whole.{kind}").read_bytes()
        (tmp_path / f"cut.{kind}").write_bytes(data[: len(data) // 2])
        with pytest.raises(ValueError, match=rf"'.*cut\.{kind}' cannot be read as an image: "):
            preprocess([tmp_path / f"whole.{kind}", tmp_path / f"cut.{kind}"], WHOLE)

    (tmp_path / "notes.png").write_text("not an image")
    with pytest.raises(ValueError, match=r"'.*notes\.png' cannot be read as an image: "):
        preprocess(tmp_path / "notes.png", WHOLE)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((32, 32)), r"\(height, width, 3\) or \(batch, height, width, 3\); received shape \(32, 32\)"),
        (np.zeros((32, 32, 4)), r"\(batch, height, width, 3\); received shape \(32, 32, 4\)"),
        (np.zeros((1, 3, 32, 32)), r"received shape \(1, 3, 32, 32\)"),
        (np.zeros((0, 32, 32, 3)), r"`images` is empty; pass at least one image"),
        (iter([]), r"`images` is empty; pass at least one image"),
        (None, r"`images` must be a path, bytes, .*, or an array of shape \(height, width, 3\), .*; received None"),
        (3, r"`images` must be .*; received int"),
        ({"a.png": 1}, r"`images` must be .*, or a list of these; received dict"),
        ([None], r"An image must be a path, .*; received None"),
        (b"hello", r"The image of these bytes cannot be read: it is not an image in one of the formats JPEG"),
        (io.StringIO("hello"), r"must return bytes; .* returns str\. Open it with mode 'rb', or pass its path"),
        ([np.zeros((32, 32, 1))], r"An image array must have shape \(height, width, 3\); received shape \(32, 32, 1\)"),
        ([], r"`images` is empty; pass at least one image"),
        (np.full((32, 32, 3), -0.5), r"between 0 and 255; received -0\.5 to -0\.5\. Undo any normalization first"),
        (np.full((32, 32, 3), 256.0), r"between 0 and 255; received 256 to 256"),
        (np.full((32, 32, 3), np.nan), r"between 0 and 255; received nan"),
    ],
)
def test_bad_array_is_refused(array, message):
    with pytest.raises(ValueError, match=message):
        preprocess(array, WHOLE)
