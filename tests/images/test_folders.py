"""Which files count as images, in which order, and in which class."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from photos import JPEG

from se_keras.export.images import real_images
from se_keras.images.folders import (
    class_folders,
    has_loose_images,
    image_files,
    is_image_name,
    labeled_files,
    parts_of,
    text_of,
    unpaired_parts,
    unread_format,
)
from se_keras.images.record import Preprocessing
from se_keras.training.sources import ArraySource, open_data


@pytest.fixture
def folder(tmp_path):
    for name in ("rose/b.JPG", "rose/deep/a.tiff", "daisy/1.png", "daisy/._1.png", "daisy/notes.txt", ".git/x.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(JPEG)
    (tmp_path / "daisy/gone.jpg").symlink_to("nowhere")
    return tmp_path


@pytest.mark.parametrize("name", ["a.jpg", "a.JPEG", "a.jfif", "a.webp", "a.ppm", "b.eps.png", "a.HEIC", "a.dng"])
def test_names_of_images(name):
    assert is_image_name(name)


@pytest.mark.parametrize("name", ["._a.jpg", ".jpg", "a.eps", "a.pdf", "a.npy", "jpg", "a.jpg.txt"])
def test_names_of_other_files(name):
    assert not is_image_name(name)


def test_formats_that_are_not_read_are_named():
    assert [unread_format(name) for name in ("photos/a.HEIC", "a.heic.jpg", "heic")] == ["HEIC", None, None]


def test_hidden_files_are_no_images_and_dead_links_are_kept_for_the_reader_to_name(folder):
    assert list(image_files(folder)) == ["daisy/1.png", "daisy/gone.jpg", "rose/b.JPG", "rose/deep/a.tiff"]


def test_folders_are_classes(folder):
    assert class_folders(folder) == ["daisy", "rose"]
    files, labels, names = labeled_files(folder)
    assert [file.name for file in files] == ["1.png", "gone.jpg", "b.JPG", "a.tiff"]
    assert (labels, names) == ([0, 0, 1, 1], ["daisy", "rose"])
    assert not has_loose_images(folder)
    (folder / "loose.png").touch()
    assert has_loose_images(folder)


def test_links_to_class_folders_are_followed(folder, tmp_path):
    linked = tmp_path / "linked"
    linked.mkdir()
    for name in ("daisy", "rose"):
        (linked / name).symlink_to(folder / name)
    assert labeled_files(linked)[1] == [0, 0, 1, 1]


def test_parts_need_both(tmp_path):
    (tmp_path / "train").mkdir()
    assert parts_of(tmp_path) is None
    (tmp_path / "test").mkdir()
    assert parts_of(tmp_path) == (tmp_path / "train", tmp_path / "test")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["train", "valid"], ("train", "valid")),
        (["train", "valid", "test"], ("train", "valid")),
        (["test", "train", "valid", "validation"], ("train", "validation")),
        (["train", "val", "valid"], ("train", "val")),
        (["Train", "VALID"], ("Train", "VALID")),
        (["train", "training"], None),
        (["train", "bus"], None),
    ],
)
def test_parts_of_every_name_are_found(names, expected, tmp_path):
    for name in names:
        (tmp_path / name).mkdir()
    found = parts_of(tmp_path)
    assert found == (expected and (tmp_path / expected[0], tmp_path / expected[1]))


@pytest.mark.parametrize("names", [["training", "testing"], ["Test", "val"], ["train"]])
def test_parts_without_a_counterpart_are_no_classes(names, tmp_path):
    for name in names:
        (tmp_path / name / "daisy").mkdir(parents=True)
        (tmp_path / name / "daisy/1.png").write_bytes(JPEG)
    (tmp_path / ".git").mkdir()
    assert unpaired_parts(tmp_path) == sorted(names)
    with pytest.raises(ValueError, match=f"parts without a counterpart: {', '.join(sorted(names))}. Rename or add"):
        open_data(tmp_path)
    found = real_images(tmp_path, None, (8, 8, 3), record=Preprocessing(), most=9)
    assert (len(found.images), found.labels, found.folders) == (len(names), None, ())


def test_a_class_may_be_named_like_a_part(tmp_path):
    for name in ("train", "bus"):
        (tmp_path / name).mkdir()
        for index in range(2):
            (tmp_path / name / f"{index}.png").write_bytes(JPEG)
    assert open_data(tmp_path, validation_split=0.5).train.class_names == ("bus", "train")


def test_a_name_that_is_not_utf8_spoils_no_folder(folder):
    for name in (b"\xff.jpg", b"\xfe.jpg", "Ä.jpg".encode()):
        with open(os.path.join(os.fsencode(folder), b"rose", name), "wb") as stream:
            stream.write(JPEG)
    with open(os.path.join(os.fsencode(folder), b"rose", b"\xfd.jpg"), "wb"):
        pass
    for index in range(2, 5):
        (folder / f"daisy/{index}.jpg").write_bytes(JPEG)
    data = open_data(folder)
    assert len(data.train) + len(data.validation) == 9
    assert data.train.fingerprint != data.validation.fingerprint
    broken = json.loads(json.dumps(data.broken, ensure_ascii=False).encode())
    assert [file.rsplit("/", 1)[1] for file, _ in broken] == ["gone.jpg", r"\xfd.jpg"]


def test_the_fingerprint_follows_labels_and_every_image(folder):
    for name in ("daisy", "rose"):
        (folder / name / "wild").mkdir()
        for index in range(2, 6):
            (folder / name / "wild" / f"{name}{index}.jpg").write_bytes(JPEG)
    before = open_data(folder).train.fingerprint
    (folder / "rose/wild/rose2.jpg").rename(folder / "daisy/wild/rose2.jpg")
    assert open_data(folder).train.fingerprint != before

    images, labels = np.zeros((1030, 2, 2, 3), "uint8"), np.zeros(1030, int)
    found = {ArraySource(images, labels).fingerprint}
    for place in (0, 1, 515, 1029):
        changed = images.copy()
        changed[place] = 1
        found.add(ArraySource(changed, labels).fingerprint)
    assert len(found) == 5


def test_a_class_whose_name_is_not_utf8_is_refused(folder):
    os.mkdir(os.path.join(os.fsencode(folder), b"tulpe\xe9"))
    with pytest.raises(ValueError, match=r"must be UTF-8.*received 'tulpe\\udce9' in .*Rename the folder"):
        class_folders(folder)


def test_text_of_a_path_is_text_and_unique():
    names = [os.fsdecode(name) for name in (b"a\xff", b"a\xfe", "Ä".encode(), b"plain")]
    assert [text_of(name) for name in names] == [r"a\xff", r"a\xfe", "Ä", "plain"]
