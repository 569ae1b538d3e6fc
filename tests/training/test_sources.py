"""Folders and arrays of images: how they are split, and what is said of bad ones."""

import os
import shutil
import sys

import numpy as np
import pytest
from PIL import Image

from se_keras.class_names_file import read_class_names, write_class_names
from se_keras.training.holdout import held_back
from se_keras.training.sources import ArraySource, Data, load_sample, open_data


def photo(path, color=(200, 30, 30), mode="RGB", size=(40, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).convert(mode).save(path)


@pytest.fixture
def folder(tmp_path):
    for name in ("daisy", "rose"):
        for index in range(10):
            photo(tmp_path / "photos" / name / f"{index}.jpg")
    return tmp_path / "photos"


def test_a_folder_is_split_by_class_and_name(folder):
    data = open_data(folder, validation_split=0.2)
    assert data.train.class_names == ("daisy", "rose")
    assert (np.bincount(data.train.labels) + np.bincount(data.validation.labels)).tolist() == [10, 10]
    more = {*open_data(folder, validation_split=0.5).validation.files}
    assert {*data.validation.files} < more
    numbers = [{file.name for file in more if file.parent.name == name} for name in data.train.class_names]
    assert numbers[0] != numbers[1], "files of the same number are not held back in every class"
    assert data.train[0].shape == (30, 40, 3)


def parts(keys, share=0.2, classes=5):
    """The names that are trained on, and those held back, with classes of the same size."""
    labels = np.arange(len(keys)) % classes
    return tuple({keys[index] for index in part} for part in held_back(keys, labels, classes, share))


def test_an_image_stays_in_its_part_when_others_come_and_go():
    keys = [f"class/{number}.jpg" for number in range(2000)]
    train, validation = parts(keys)
    assert len(validation) == pytest.approx(400, abs=40)
    for fewer in (keys[::2], keys[:200], keys[5:]):
        kept, held = parts(fewer)
        assert kept == train & {*fewer}
        assert held == validation & {*fewer}


@pytest.mark.parametrize("share", [0.001, 0.2, 0.999])
def test_a_small_class_has_an_image_in_both_parts(share):
    for number in range(40):
        for count, expected in ((0, (0, 0)), (1, (1, 0)), (2, (1, 1))):
            assert tuple(map(len, parts([f"{number}.{index}" for index in range(count)], share, 1))) == expected
        kept, held = parts([f"{number}.{index}" for index in range(4)], share, 1)
        assert kept
        assert held


def test_evaluation_reads_no_trained_image_though_photos_were_deleted(folder, tmp_path):
    trained = {file.relative_to(folder) for file in open_data(folder).train.files}
    copy = shutil.copytree(folder, tmp_path / "elsewhere")
    held = {file.relative_to(folder) for file in open_data(folder).validation.files}
    for gone in sorted(trained)[::2]:
        (copy / gone).unlink()
    assert {file.relative_to(copy) for file in open_data(copy).validation.files} == held


def test_train_and_val_folders_are_taken_as_they_are(folder, tmp_path):
    both = tmp_path / "both"
    for part in ("train", "val"):
        for name in ("daisy", "rose"):
            photo(both / part / name / "1.png")
    data = open_data(both)
    assert (len(data.train), len(data.validation)) == (2, 2)
    photo(both / "val/tulip/1.png")
    with pytest.raises(ValueError, match="must be the same; found only in the first: none; only in the second: tulip"):
        open_data(both)


def test_broken_files_are_left_out_and_listed_or_refused(folder):
    (folder / "rose/empty.jpg").touch()
    (folder / "rose/text.png").write_text("no image")
    whole = (folder / "rose/1.jpg").read_bytes()
    (folder / "rose/cut.jpg").write_bytes(whole[: len(whole) // 2])
    data = open_data(folder)
    faults = {file.rsplit("/", 1)[1]: reason for file, reason in data.broken}
    assert faults.keys() == {"empty.jpg", "text.png", "cut.jpg"}
    assert faults["empty.jpg"] == "empty (0 bytes)"
    assert len(data.train) + len(data.validation) == 20
    with pytest.raises(ValueError, match=r"3 of 23 files cannot be read as images: .*empty"):
        open_data(folder, strict=True)


def test_images_of_all_kinds_become_rgb(folder):
    photo(folder / "rose/gray.png", mode="L")
    photo(folder / "rose/transparent.png", mode="RGBA")
    photo(folder / "rose/palette.gif", mode="P")
    Image.fromarray(np.full((30, 40), 40_000, np.uint16)).save(folder / "rose/deep.png")
    frames = [Image.new("RGB", (40, 30), (shade, 0, 0)) for shade in (10, 200)]
    frames[0].save(folder / "rose/moving.gif", save_all=True, append_images=frames[1:])
    data = open_data(folder, validation_split=0.1, strict=True)
    for part in (data.train, data.validation):
        for index in range(len(part)):
            assert part[index].shape == (30, 40, 3)
            assert part[index].dtype == np.uint8


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.mkdir(), "at least two classes; found 0: none"),
        (lambda path: photo(path / "only/1.jpg"), "at least two classes; found 1: only"),
        (lambda path: photo(path / "1.jpg"), r"found 0: none\. It holds images itself: pass the folder above it"),
        (lambda path: [(path / name).mkdir(parents=True) for name in "ab"], "There is no image in the class folders"),
    ],
    ids=["empty", "one class", "the photos themselves", "classes without images"],
)
def test_folders_that_cannot_be_trained_on(make, message, tmp_path):
    make(tmp_path / "photos")
    with pytest.raises(ValueError, match=message):
        open_data(tmp_path / "photos")


def test_a_class_of_broken_images_only_is_named(folder):
    for file in (folder / "rose").iterdir():
        file.write_bytes(b"")
    with pytest.raises(ValueError, match="Each class needs a readable image; for training, these have none: rose"):
        open_data(folder)


def test_a_class_of_photos_in_another_format_is_told_why(folder):
    for file in (folder / "rose").iterdir():
        file.write_bytes(b"\0\0\0\x18ftypheic")
        file.rename(file.with_suffix(".heic"))
    with pytest.raises(ValueError, match=r"these have none: rose\. 10 of the files .*heic': HEIC is not supported"):
        open_data(folder)


def test_arrays_from_a_file(tmp_path):
    sample = load_sample()
    arrays = {name: getattr(sample, name)[:20] for name in ("x_train", "y_train", "x_test", "y_test")}
    np.savez(tmp_path / "all.npz", **arrays, class_names=sample.class_names)
    data = open_data(tmp_path / "all.npz")
    assert (len(data.train), len(data.validation), data.train.class_names) == (20, 20, sample.class_names)
    np.savez(tmp_path / "part.npz", x_train=arrays["x_train"], y_train=arrays["y_train"])
    with pytest.raises(ValueError, match="x_test, y_test is missing"):
        open_data(tmp_path / "part.npz")
    with pytest.raises(FileNotFoundError, match="no file at"):
        open_data(tmp_path / "none.npz")
    with pytest.raises(FileNotFoundError, match=r"must be a folder of images or TFRecord files, an .npz file"):
        open_data("cifar11")


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((2, 4, 4, 3), np.float32), [0, 1], "must be uint8.*received float32"),
        (np.zeros((2, 4, 4), np.uint8), [0, 1], r"shape \(2, 4, 4\)"),
        (np.zeros((2, 4, 4, 3), np.uint8), [0], r"one integer per image; received int64 of shape \(1,\) for 2"),
        (np.zeros((2, 4, 4, 3), np.uint8), [0.5, 1], "one integer per image; received float64"),
        (np.zeros((2, 4, 4, 3), np.uint8), [0, 7], "from 0 to 1, because there are 2 classes; received 0 to 7"),
        (np.zeros((0, 4, 4, 3), np.uint8), np.zeros(0, int), "no image in the array"),
    ],
)
def test_arrays_that_are_no_labeled_images(images, labels, message):
    with pytest.raises(ValueError, match=message):
        ArraySource(images, np.asarray(labels), ("a", "b"))


def test_names_of_class_folders_survive_as_they_are(tmp_path):
    names = [" ", " daisy", "daisy", "ro\nses"]
    for name in names:
        photo(tmp_path / "data" / name / "1.png")
        photo(tmp_path / "data" / name / "2.png")
    data = open_data(tmp_path / "data", validation_split=0.5)
    assert data.train.class_names == tuple(names)
    write_class_names(tmp_path / "labels.txt", data.train.class_names)
    assert read_class_names(tmp_path / "labels.txt") == names


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_class_folder_whose_name_is_no_text_is_refused_by_name(tmp_path):
    for name in (b"daisy", b"L\xf6we"):
        (tmp_path / os.fsdecode(name)).mkdir()
        photo(tmp_path / os.fsdecode(name) / "1.png")
    with pytest.raises(ValueError, match=r"class folder must be UTF-8.* received 'L\\udcf6we' in .*\. Rename"):
        open_data(tmp_path)


def test_two_classes_of_one_name_are_refused():
    pixels, labels = np.zeros((4, 8, 8, 3), np.uint8), np.array([0, 1, 0, 1])
    source = ArraySource(pixels, labels, ["ant", "ant"])
    with pytest.raises(ValueError, match=r"the class names of 'mine' have 'ant' for the classes 0, 1"):
        Data("mine", source, source)
