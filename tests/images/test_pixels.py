"""Depth and range of pixels, size limits, and arrays that look like a mistake."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from photos import GRAY, PHOTO, PIXELS, exif, floats
from PIL import Image

from se_keras import Preprocessing, preprocess
from se_keras.export.images import check_range
from se_keras.images import resizing
from se_keras.images.limits import MOST_PIXELS, pixels_allowed, size_fault
from se_keras.images.pixels import as_rgb, check_numbers, check_pixels, exif_orientation, is_divided, to_rgb
from se_keras.images.reading import decode
from se_keras.images.record import Preprocessing as Record
from se_keras.images.resizing import geometry, resized_and_cropped

WHOLE = Preprocessing(size=32, crop=1.0)


@pytest.mark.parametrize(
    "values",
    [
        GRAY,
        GRAY.astype("uint16") * 257,
        GRAY.astype("int32"),
        GRAY.astype("int32") * 257,
        GRAY.astype("float32"),
        GRAY.astype("float32") / 255,
    ],
    ids=["8 bits", "16 bits", "32 bits to 255", "32 bits to 65535", "floats to 255", "floats to 1"],
)
def test_gray_of_any_depth_has_the_same_brightness(values):
    np.testing.assert_array_equal(as_rgb(Image.fromarray(values)), np.stack([GRAY] * 3, axis=-1))


def test_dark_images_of_16_bits_stay_dark():
    assert np.asarray(as_rgb(Image.fromarray(np.full((4, 4), 200, "uint16")))).max() == 0


@pytest.mark.parametrize("values", [GRAY.astype("int32") - 1, GRAY.astype("int32") * 300, GRAY.astype("float32") * 2])
def test_gray_of_unknown_range_is_refused(values):
    with pytest.raises(ValueError, match=r"gray (integers|floats) must be from 0 to"):
        as_rgb(Image.fromarray(values))


def test_float_tiff_of_0_to_1_is_not_black():
    assert decode(floats(0, 1), "here").max() == 255


@pytest.mark.parametrize(("block", "orientation"), [(b"no TIFF header", 1), (b"", 1), (exif(6).tobytes(), 6)])
def test_exif_data_turn_a_photo_or_leave_it(block, orientation):
    image = PHOTO.copy()
    image.info["exif"] = block
    assert exif_orientation(image) == orientation
    assert to_rgb(image).size == ((24, 32) if orientation == 6 else (32, 24))


# Limits.


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((20_000, 1, 99), "at most 100 times as long as the other; it has 20000x1"),
        ((100, 10_100, 99), "it has 100x10100"),
        ((4097, 4096, 1000), "1000 bytes may hold at most 16777216 pixels; it has 4097x4096"),
        ((0, 5, 99), "0x5 pixels"),
        ((100, 10_000, 99), None),
        ((9504, 6336, 20_000_000), None),  # a photo of 60 megapixels
        ((20_000, 20_000, 10**9), "at most 178956970 pixels"),
        ((20_000, 20_000, None), None),  # in memory already
    ],
)
def test_size_limits(size, message):
    found = size_fault(*size)
    assert found is message is None or message in found


def test_pixels_allowed_grow_with_the_file():
    assert [pixels_allowed(size) for size in (0, 2**20, 2**21, 10**9)] == [2**24, 2**24, 2**25, MOST_PIXELS]


def test_elongated_arrays_are_refused():
    with pytest.raises(ValueError, match=r"cannot be resized: one side may be at most 100 times.*101x1"):
        preprocess(np.zeros((1, 101, 3), "uint8"), WHOLE)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("shape", [(40, 300, 3), (300, 40, 3), (90, 70, 3)])
def test_only_the_crop_of_an_elongated_image_is_computed(shape, interpolation, monkeypatch):
    rows, columns = np.mgrid[0 : shape[0], 0 : shape[1]]
    image = Image.fromarray(np.stack([rows, columns, rows + columns], axis=-1).astype("uint8"))
    record = Record(size=(30, 41), interpolation=interpolation)
    expected = np.asarray(resized_and_cropped(image, record)).astype(int)
    monkeypatch.setattr(resizing, "_PIXELS_AT_ONCE", 1)
    found = np.asarray(resized_and_cropped(image, record)).astype(int)
    assert found.shape == (30, 41, 3)
    assert np.abs(found - expected).max() <= (1 if interpolation == "bilinear" else 3)


def test_geometry_meets_the_shorter_side():
    found = geometry(128, 96, Record(size=28))
    assert (found.width, found.height, found.left, found.top) == (42, 32, 7, 2)


# Arrays.


@pytest.mark.parametrize("dtype", ["bool", "complex64", "object", "datetime64[s]", "U1"])
def test_arrays_of_no_numbers_are_refused(dtype):
    array = np.zeros((32, 32, 3), dtype)
    for check in (lambda image: preprocess(image, WHOLE), check_pixels, check_numbers):
        with pytest.raises(ValueError, match=r"integers or floats from 0 to 255; received dtype"):
            check(array)


def test_extension_floats_are_numbers():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    image = PIXELS.astype(ml_dtypes.bfloat16)
    assert preprocess(image, WHOLE).max() > 200


def test_images_divided_by_255_are_met_by_one_warning(recwarn):
    divided = PIXELS.astype("float32") / 255
    preprocess([divided, divided, np.zeros((9, 9, 3))], WHOLE)
    assert len(recwarn) == 1
    assert "between 0 and 1" in str(recwarn[0].message)
    assert recwarn[0].filename == __file__
    with pytest.raises(ValueError, match="Multiply images in the range 0 to 1 by 255"):
        check_range(divided)


@pytest.mark.parametrize(("low", "high"), [(-2.1, 2.6), (-1, 1), (0, 765), (-128, 127)])
def test_images_of_another_range_are_refused(low, high):
    with pytest.raises(ValueError, match=r"range 0 to 255; received .* to .*\. Do not normalize them"):
        check_range(np.linspace(low, high, 48, dtype="float32").reshape(4, 4, 3))
    for pixels in ((0, 255), (-20, 280), (0, 0)):
        check_range(np.linspace(*pixels, 48, dtype="float32").reshape(4, 4, 3))


@pytest.mark.parametrize("image", [PIXELS, PIXELS.astype("float32"), np.zeros((9, 9, 3)), PIXELS // 255, PHOTO])
def test_other_images_are_met_by_none(image):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        preprocess(image, WHOLE)
        assert not is_divided(np.asarray(image))
