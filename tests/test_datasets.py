"""Datasets are read in every form that `fit` takes, and labels in every usual form."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from se_keras.datasets import class_indices, elements, known_classes, unpacked, unpacked_arrays
from se_keras.export.images import real_images
from se_keras.images.record import Preprocessing

IMAGES = np.random.default_rng(0).integers(0, 256, (12, 4, 4, 3)).astype("float32")
LABELS = np.arange(12) % 3
HALF = 6


class Pairs(keras.utils.PyDataset):
    """Two batches; a third does not exist."""

    def __len__(self):
        return 2

    def __getitem__(self, index):
        assert index < 2
        part = slice(index * HALF, index * HALF + HALF)
        return IMAGES[part], LABELS[part]


def batches(labels):
    return [(IMAGES[start : start + HALF], labels[start : start + HALF]) for start in (0, HALF)]


def as_tf_data():
    tf = pytest.importorskip("tensorflow", reason="needs TensorFlow")
    return tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)).batch(HALF)


def as_data_loader(**options):
    data = pytest.importorskip("torch.utils.data", reason="needs PyTorch")
    import torch

    return data.DataLoader(data.TensorDataset(torch.tensor(IMAGES), torch.tensor(LABELS)), **options)


FORMS = {
    "arrays": lambda: (IMAGES, LABELS),
    "arrays with sample weights": lambda: (IMAGES, LABELS, np.ones(12)),
    "arrays and a column": lambda: (IMAGES, LABELS[:, None]),
    "arrays and one-hot rows": lambda: (IMAGES, np.eye(3)[LABELS]),
    "PyDataset": Pairs,
    "tf.data": as_tf_data,
    "DataLoader": lambda: as_data_loader(batch_size=HALF),
    "DataLoader without batches": lambda: as_data_loader(batch_size=None),
    "tuples": lambda: batches(LABELS),
    "lists": lambda: [list(pair) for pair in batches(LABELS)],
    "columns": lambda: batches(LABELS[:, None]),
    "one-hot rows": lambda: batches(np.eye(3)[LABELS]),
    "single images": lambda: zip(IMAGES, LABELS, strict=True),
    "single images and arrays of one": lambda: zip(IMAGES, LABELS[:, None], strict=True),
    "single images and one-hot rows": lambda: zip(IMAGES, np.eye(3)[LABELS], strict=True),
}


@pytest.mark.parametrize("form", FORMS)
def test_exports_read_images_with_their_labels(form):
    found = real_images(FORMS[form](), None, (4, 4, 3), record=Preprocessing(), most=100)
    np.testing.assert_array_equal(found.images, IMAGES)
    assert found.labels.tolist() == LABELS.tolist()


@pytest.mark.parametrize("labels", [LABELS, LABELS.tolist(), LABELS[:, None], np.eye(3)[LABELS]])
def test_labels_next_to_images_have_any_usual_form(labels):
    found = real_images(IMAGES, labels, (4, 4, 3), record=Preprocessing(), most=4)
    assert found.labels.tolist() == LABELS[[0, 4, 7, 11]].tolist()


def test_soft_labels_are_the_class_with_the_largest_share():
    mixed = np.array([[0.3, 0.7, 0], [0.95, 0.025, 0.025]], "float16")
    assert class_indices(mixed).tolist() == [1, 0]


def test_targets_that_are_no_classes_are_left_out():
    several, boxes = np.ones((12, 3)), np.array([[0.1, 0.2, 0.8, 0.9]] * 12)
    targets = [LABELS + 0.5, [LABELS, LABELS], {"a": LABELS}, np.zeros((12, 4, 4), int), LABELS - 1, several, boxes]
    assert all(known_classes(one, is_batch=True) is None for one in targets)
    found = real_images([(IMAGES, LABELS + 0.5)], None, (4, 4, 3), record=Preprocessing(), most=4)
    assert found.labels is None


def test_several_inputs_are_never_taken_for_labels():
    one, two = np.ones((6, 5)), np.zeros(6)
    assert unpacked((one, two), 2) == ((one, two), None)
    assert unpacked(((one, two), LABELS), 2) == ((one, two), LABELS)
    assert unpacked_arrays((one, two), 2, 2) == ((one, two), None)
    assert unpacked_arrays(((one, two), LABELS), 2, 2) == ((one, two), LABELS)
    assert unpacked_arrays(({"a": one, "b": two}, LABELS), 2, 2) == ({"a": one, "b": two}, LABELS)


def test_samples_in_a_tuple_or_list_are_never_taken_for_labels():
    pair = tuple(IMAGES[:2])
    assert unpacked_arrays(pair, 4) == (pair, None)
    assert unpacked([1, 2, 3]) == ([1, 2, 3], None)  # a sample of three numbers
    assert unpacked([[1, 2], [3, 4]]) == ([[1, 2], [3, 4]], None)


def test_the_number_of_elements_is_known_where_the_dataset_states_it():
    assert [elements(data)[1] for data in (Pairs(), [1, 2, 3], iter([1, 2, 3]), (one for one in "a"))] == [
        2,
        3,
        3,
        None,
    ]


@pytest.mark.parametrize("data", [5, None, "photos", {"a": IMAGES}, np.array(1.0)], ids=repr)
def test_other_types_are_refused(data):
    with pytest.raises(ValueError, match=f"another iterable of batches; received {type(data).__name__}"):
        elements(data)


def test_dictionaries_are_to_be_mapped_to_pairs_first():
    rows = [{"image": IMAGES[0], "label": 1}]
    with pytest.raises(ValueError, match=r"dictionaries with the keys 'image', 'label'\. Map them"):
        real_images(rows, None, (4, 4, 3), record=Preprocessing(), most=4)


@pytest.mark.parametrize("labels", [LABELS + 0.5, LABELS - 1, list("abc"), np.zeros((2, 2, 2)), 3, np.eye(3) + 1])
def test_labels_that_are_no_classes_are_refused(labels):
    with pytest.raises(ValueError, match="Labels must be nonnegative integers"):
        class_indices(labels)
