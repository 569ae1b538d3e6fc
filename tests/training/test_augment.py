"""Augmentation: what each step does to pixels, and that only its generator decides."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from se_keras.training import augment
from se_keras.training.sources import load_sample

PIXEL_STEPS = (
    augment.RandomFlip(),
    augment.PadAndCrop(),
    augment.RandomAreaCrop(),
    augment.RandomRotation(),
    augment.PixelJitter(),
    augment.Cutout(),
    augment.RandAugment(),
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


@pytest.mark.parametrize("name", augment.RAND_AUGMENT_OPERATIONS)
def test_operation_of_randaugment_changes_more_with_its_strength(name, image):
    operation = augment.RAND_AUGMENT_OPERATIONS[name]
    photo = Image.fromarray(np.repeat(np.repeat(image, 2, 0), 3, 1))  # 64 x 96
    before = np.asarray(photo).astype(int)
    changes = []
    for strength in (0.0, 0.3, -1.0, 1.0):
        after = np.asarray(operation(photo, strength))
        assert after.dtype == np.uint8
        assert after.shape == (64, 96, 3)
        changes.append(np.abs(after.astype(int) - before).mean())
    if name in ("identity", "auto_contrast", "equalize"):
        assert len(set(changes)) == 1  # these have no strength
    else:
        assert changes[0] == 0
        assert changes[0] < changes[1] < changes[3]
        assert changes[2] > changes[1]
    np.testing.assert_array_equal(np.asarray(photo), before)


def test_operations_of_randaugment_are_the_papers():
    assert len(augment.RAND_AUGMENT_OPERATIONS) == 14
    black = np.zeros((8, 331, 3), np.uint8)
    black[:, 160] = 255
    moved = np.asarray(augment.RAND_AUGMENT_OPERATIONS["translate_x"](Image.fromarray(black), 0.1))
    assert moved[:, 145].min() == 255  # to the left by a tenth of 150 pixels, as AutoAugment has it for 331
    gray = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, -1)
    for name, strength, expected in (
        ("solarize", 0.5, np.where(gray < 128, gray, 255 - gray)),
        ("posterize", 0.5, gray & 0b11111100),
        ("brightness", -1.0, gray * 0.1),
        ("color", -1.0, gray),
    ):
        result = np.asarray(augment.RAND_AUGMENT_OPERATIONS[name](Image.fromarray(gray), strength))
        np.testing.assert_allclose(result, expected, atol=1, err_msg=name)


def test_randaugment_draws_every_operation_and_both_directions(image, monkeypatch):
    drawn = []
    for name in augment.RAND_AUGMENT_OPERATIONS:
        noted = lambda picture, strength, name=name: drawn.append((name, strength)) or picture  # noqa: E731
        monkeypatch.setitem(augment.RAND_AUGMENT_OPERATIONS, name, noted)
    for seed in range(300):
        augment.RandAugment(operations=3, magnitude=4)(image, fresh(seed))
    assert len(drawn) == 900
    assert {name for name, _ in drawn} == set(augment.RAND_AUGMENT_OPERATIONS)
    assert {strength for _, strength in drawn} == {0.4, -0.4}


@pytest.mark.parametrize("options", [{"operations": 0}, {"magnitude": 11}, {"magnitude": -1}])
def test_randaugment_refuses_what_lies_outside(options):
    (name, value), *_ = options.items()
    with pytest.raises(ValueError, match=rf"`{name}` must .*received .*{value}"):
        augment.RandAugment(**options)


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
