"""Augmentation: what each step does to pixels, and that only its generator decides."""

import dataclasses

import numpy as np
import pytest

from se_keras.training import augment
from se_keras.training.data import load_sample

PIXEL_STEPS = (
    augment.RandomFlip(),
    augment.PadAndCrop(),
    augment.RandomAreaCrop(),
    augment.RandomRotation(),
    augment.PixelJitter(),
    augment.Cutout(),
)


@pytest.fixture(scope="module")
def image():
    return load_sample().x_train[0]


def fresh(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("step", PIXEL_STEPS, ids=lambda step: type(step).__name__)
def test_same_generator_same_pixels_and_the_input_stays(step, image):
    before = image.copy()
    results = [step(image, fresh(seed)) for seed in range(8)]
    assert all(result.dtype == np.uint8 and result.shape == image.shape for result in results)
    for seed, result in enumerate(results):
        np.testing.assert_array_equal(result, step(image, fresh(seed)))
    assert len({result.tobytes() for result in results}) > 1
    np.testing.assert_array_equal(image, before)


def test_flip_mirrors_about_half(image):
    mirrored = [np.array_equal(augment.RandomFlip()(image, fresh(seed)), image[:, ::-1]) for seed in range(400)]
    assert 0.4 < np.mean(mirrored) < 0.6


def test_pad_and_crop_shifts_by_at_most_the_padding(image):
    padded = np.pad(image, ((2, 2), (2, 2), (0, 0)))
    windows = {padded[y : y + 32, x : x + 32].tobytes() for y in range(5) for x in range(5)}
    seen = {augment.PadAndCrop(padding=2)(image, fresh(seed)).tobytes() for seed in range(300)}
    assert seen == windows


def test_area_crop_keeps_to_area_and_aspect():
    # An image whose pixels hold their position tells from the result which part was cut out.
    rows, columns = np.mgrid[0:200, 0:250]
    image = np.stack([rows, columns, np.zeros_like(rows)], axis=-1).astype(np.uint8)
    crop = augment.RandomAreaCrop(size=(64, 64), least_area=0.25)
    for seed in range(100):
        part = crop(image, fresh(seed)).astype(float)
        height, width = (np.ptp(part[..., 0]) + 1) * 64 / 63, (np.ptp(part[..., 1]) + 1) * 64 / 63
        assert 0.2 < height * width / 50_000 < 1.1
        assert 3 / 4 * 0.9 < width / height < 4 / 3 * 1.1


def test_jitter_adds_one_number_a_channel():
    image = np.full((4, 4, 3), 100, np.uint8)
    changed = augment.PixelJitter(amount=20)(image, fresh()).astype(int) - 100
    assert (changed == changed[0, 0]).all()
    assert np.abs(changed).max() <= 20
    assert augment.PixelJitter(amount=20)(np.full((2, 2, 3), 250, np.uint8), fresh(1)).dtype == np.uint8


def test_cutout_blacks_out_one_square():
    image = np.full((32, 32, 3), 9, np.uint8)
    areas = [int((augment.Cutout(length=8)(image, fresh(seed)) == 0).all(-1).sum()) for seed in range(50)]
    assert max(areas) == 64
    assert min(areas) >= 16  # it sticks out of a corner


def test_mixup_blends_images_and_labels_alike():
    images = np.arange(4, dtype=np.uint8).reshape(4, 1, 1, 1) * np.ones((1, 2, 2, 3), np.uint8) * 50
    labels = np.eye(4, dtype=np.float32)
    mixed, soft = augment.Mixup(alpha=1.0)(images, labels, fresh(3))
    np.testing.assert_allclose(mixed[:, 0, 0, 0], soft @ np.array([0, 50, 100, 150]), rtol=1e-5)
    np.testing.assert_allclose(soft.sum(axis=1), 1, rtol=1e-6)


def test_cutmix_labels_are_the_shares_of_pixels():
    images = (np.arange(4, dtype=np.uint8) * 50).reshape(4, 1, 1, 1) * np.ones((1, 16, 16, 3), np.uint8)
    labels = np.eye(4, dtype=np.float32)
    mixed, soft = augment.CutMix()(images, labels, fresh(5))
    for image, row in zip(mixed, soft, strict=True):
        shares = [(image[..., 0] == 50 * label).mean() for label in range(4)]
        np.testing.assert_allclose(row, shares, atol=1e-6)
    np.testing.assert_array_equal(images[..., 0].reshape(4, -1).std(axis=1), 0)  # the input stays


def test_records_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        augment.Cutout().length = 3
