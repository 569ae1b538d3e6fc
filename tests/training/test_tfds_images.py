"""Sets of TensorFlow Datasets: a tiny one that is made here, prepared in both of its formats, and what is refused."""

import sys

import numpy as np
import pytest

from se_keras.images.record import Preprocessing
from se_keras.progress import shown_by
from se_keras.training.batches import shuffled
from se_keras.training.recipes import get_recipe
from se_keras.training.sources import open_data
from se_keras.training.tfds_images import TFDSSource
from se_keras.training.tfrecord import RecordSource


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    message = r"tfds/cifar10 needs the package 'tensorflow_datasets'.*pip install 'se_keras\[tfds\]'"
    with pytest.raises(ImportError, match=message):
        open_data("tfds/cifar10")


@pytest.fixture(scope="module")
def tfds(tmp_path_factory):
    """The package, with sets of this file registered and a folder of its own."""
    package = pytest.importorskip("tensorflow_datasets")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(package.core.constants, "DATA_DIR", str(tmp_path_factory.mktemp("sets")))
        yield package


@pytest.fixture(scope="module")
def sets(tfds):
    """Registers small sets of images whose red is their number."""
    image, label = tfds.features.Image(shape=(None, None, 3)), tfds.features.ClassLabel(names=["ox", "elk"])

    def photo(number):
        return {"image": np.full((6, 4, 3), (number, 0, 9), np.uint8), "label": number % 2}

    def register(name, splits, image=image, make=photo, supervised=("image", "label")):
        def info(self):
            features = tfds.features.FeaturesDict({"image": image, "label": label})
            return tfds.core.DatasetInfo(builder=self, features=features, supervised_keys=supervised)

        def generators(self, manager):
            return {split: self._generate_examples(count) for split, count in splits.items()}

        def examples(self, count):
            return ((number, make(number)) for number in range(count))

        methods = {"_info": info, "_split_generators": generators, "_generate_examples": examples}
        version = {"VERSION": tfds.core.Version("1.0.0"), "__module__": __name__}
        type(name, (tfds.core.GeneratorBasedBuilder,), {**methods, **version})  # defining a class registers it

    register("TinyPhotos", {"train": 8, "test": 4})
    register("TinyTwin", {"train": 8, "test": 4})
    register("TinyWhole", {"train": 12})
    register("TinyValidated", {"train": 4, "test": 6, "validation": 2})
    register("TinyHidden", {"train": 4}, make=lambda number: {**photo(number), "label": -1})
    register("TinyUnsplit", {"everything": 4})
    register(
        "TinyTexts",
        {"train": 4},
        image=tfds.features.Text(),
        make=lambda number: {"image": "a", "label": 0},
        supervised=None,
    )


def reds(source):
    return sorted(int(source[index][0, 0, 0]) for index in range(len(source)))


def test_a_set_is_prepared_and_read_in_any_order(sets):
    data = open_data("tfds/tiny_photos")
    assert isinstance(data.train, TFDSSource)
    assert data.train.class_names == ("ox", "elk")
    assert data.train[3].shape == (6, 4, 3)
    assert data.train[3].dtype == np.uint8
    assert reds(data.train) == list(range(8))
    assert [int(data.train[i][0, 0, 0]) % 2 for i in range(8)] == data.train.labels.tolist()
    assert len(data.validation) == 4
    with shown_by(None):  # labels are kept, so that nothing is read
        again = open_data("tfds/tiny_photos")
    assert again.train.fingerprint == data.train.fingerprint
    images, labels = next(
        iter(shuffled(data.train, Preprocessing(size=8), get_recipe("cifar").with_batch_size(8), seed=0))
    )
    assert images.shape == (8, 8, 8, 3)
    assert labels.sum(axis=0).tolist() == [4, 4]


def test_a_set_that_is_there_as_tfrecords_is_read_as_it_is(sets, tfds):
    tfds.builder("tiny_twin").download_and_prepare()
    data = open_data("tfds/tiny_twin")
    assert isinstance(data.train, RecordSource)
    assert (reds(data.train), data.train.class_names) == (list(range(8)), ("ox", "elk"))
    assert len(data.validation) == 4


def test_which_split_is_validated_on(sets):
    assert len(open_data("tfds/tiny_validated").validation) == 2
    data = open_data("tfds/tiny_whole", validation_split=0.3)
    assert (np.bincount(data.validation.labels) > 0).tolist() == [True, True]
    assert sorted(reds(data.train) + reds(data.validation)) == list(range(12))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tiny_photo", r"TensorFlow Datasets has no dataset 'tiny_photo'\. Did you mean .*'tiny_photos'"),
        ("tiny_hidden", "Labels for split 'train' of tfds/tiny_hidden must be from 0 to 1.*received -1 to -1"),
        ("tiny_unsplit", "tfds/tiny_unsplit must have a split 'train'; found everything"),
        (
            "tiny_texts",
            r"one Image of type uint8 and one ClassLabel; received image: Text, label: ClassLabel",
        ),
    ],
)
def test_sets_that_cannot_be_trained_on(name, message, sets):
    with pytest.raises(ValueError, match=message):
        open_data(f"tfds/{name}")
