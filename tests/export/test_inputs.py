"""What a model takes: names, kinds, and ranges of inputs, and samples read from whatever holds them."""

import any_inputs
import keras
import numpy as np
import pytest
from keras import layers

import se_keras
from se_keras.export.inputs import IMAGE, TOKENS, VALUES, Input, in_order, random_feed
from se_keras.export.model_ends import inputs_of, main_scores, output_scores
from se_keras.export.samples import real_samples, with_ranges_of
from se_keras.images.record import Preprocessing

PHOTO_AND_TABLE = (Input("photo", (16, 16, 3), kind=IMAGE), Input("table", (4,)))
TWO = {"photo": np.ones((5, 16, 16, 3)), "table": np.arange(20.0).reshape(5, 4)}


def read(data, inputs=PHOTO_AND_TABLE, labels=None, most=100):
    return real_samples(data, labels, inputs, record=Preprocessing(), most=most)


def image_input(*steps):
    """The record of the input of a network that begins with these layers."""
    inputs = keras.Input((8, 8, 3))
    x = inputs
    for step in steps:
        x = step(x)
    (found,) = inputs_of(keras.Model(inputs, x))
    return found


@pytest.mark.parametrize("data", [TWO, tuple(TWO.values())])
def test_a_few_rows_of_arrays_are_evenly_spaced(data):
    few = read(data, labels=[0, 0, 1, 1, 2], most=3)
    np.testing.assert_array_equal(few.feed["table"], TWO["table"][[0, 2, 4]])
    assert few.labels.tolist() == [0, 1, 2]


def test_networks_state_what_they_take():
    found = {name: inputs_of(build()) for name, build in any_inputs.NETWORKS.items()}
    assert found["audio"] == (Input("waves", (32, 1)),)
    assert found["text"] == (Input("tokens", (12,), "int32", TOKENS, 0.0, 49.0),)
    photo, table = found["image_and_table"]
    assert (photo.name, photo.kind, photo.low, photo.high) == ("photo", IMAGE, 0.0, 255.0)
    assert (table.name, table.kind, table.low) == ("table", VALUES, None)
    (images,) = found["class_and_map"]
    assert (images.name, images.low, images.drawn) == ("images", None, (0.0, 1.0))
    assert inputs_of(se_keras.SEResNet20())[0].drawn == (0.0, 255.0)


@pytest.mark.parametrize(
    ("steps", "high"),
    [
        (lambda: [layers.Rescaling(1 / 127.5, -1)], 255),
        (lambda: [layers.ZeroPadding2D(1), layers.Rescaling(1 / 255)], 255),
        (lambda: [keras.Sequential([keras.Input((8, 8, 3)), layers.Rescaling(1 / 255)])], 255),
        (lambda: [layers.Normalization(mean=[120, 110, 100], variance=[1, 1, 1])], 255),
        (lambda: [layers.Normalization(mean=[0.5] * 3, variance=[1, 1, 1])], None),
        (lambda: [layers.Rescaling(2.0, -1)], None),
        (lambda: [layers.Rescaling(1 / 65535)], None),
        (lambda: [layers.Normalization(mean=[280] * 3, variance=[1, 1, 1])], None),
        (lambda: [lambda x: x / 4095.0], None),
        (lambda: [lambda x: x * 0.0], None),
        (lambda: [layers.RandomFlip(), layers.RandomRotation(0.1), layers.Rescaling(1 / 255)], 255),
        (lambda: [layers.Resizing(4, 4), layers.CenterCrop(2, 2), layers.Rescaling(1 / 255)], 255),
        (lambda: [lambda x: x / 127.5 - 1], 255),
        (lambda: [lambda x: (x - 127.5) / 127.5], 255),
        (lambda: [lambda x: x * (1 / 255)], 255),
        (lambda: [keras.applications.resnet.preprocess_input], 255),
        (lambda: [keras.applications.densenet.preprocess_input], 255),
        (lambda: [lambda x: 2 * x - 1], None),
        (lambda: [lambda x: layers.Add()([x, x])], None),
        (lambda: [lambda x: layers.Subtract()([x, layers.AveragePooling2D(1)(x)])], None),
        (lambda: [lambda x: x * x], None),
        (lambda: [lambda x: 255 - x], 255),
        (lambda: [lambda x: (x - 0.5) / 0.5], None),
        (lambda: [layers.Conv2D(2, 1)], None),
    ],
)
def test_the_range_of_images_is_that_of_the_layer_that_reads_them(steps, high):
    assert image_input(*steps()).high == high


def test_an_embedding_inside_another_layer_bounds_integers_only():
    class Holder(layers.Layer):
        def __init__(self):
            super().__init__()
            self.table = layers.Embedding(7, 2)

        def call(self, inputs):
            return self.table(inputs)

        def compute_output_shape(self, shape):
            return (*shape, 2)

    whole, real = keras.Input((3,), dtype="int32"), keras.Input((3,))
    found = inputs_of(keras.Model([whole, real], [Holder()(whole), Holder()(real)]))
    assert [(one.name, one.kind, one.high) for one in found] == [("input_0", TOKENS, 6.0), ("input_1", VALUES, None)]


def test_columns_of_an_input_are_not_tokens_of_one_table():
    ids = keras.Input((2,), dtype="int32")
    parts = [layers.Embedding(rows, 4)(ids[:, place]) for place, rows in enumerate((1000, 10))]
    (found,) = inputs_of(keras.Model(ids, layers.Add()(parts)))
    assert (found.kind, found.high) == (VALUES, None)


def test_names_are_keys_or_the_users_and_never_numbers_of_the_session():
    a, b = keras.Input((2,), name="left-first"), keras.Input((2,), name="b")
    total = layers.Add(name="total")([a, b])
    assert [one.name for one in inputs_of(keras.Model([a, b], total))] == ["left_first", "b"]
    assert [one.name for one in inputs_of(keras.Model({"left-first": a, "b": b}, total))] == ["b", "left_first"]
    assert [one.name for one in inputs_of(keras.Sequential([keras.Input((2,)), layers.Dense(1)]))] == ["inputs"]
    twice = keras.Model([a, b], [total, layers.Dense(3, "softmax", name="kind")(total), total])
    assert list(output_scores(twice)) == ["total", "kind", "total_2"]
    assert main_scores(output_scores(twice)).classes == 3
    assert main_scores(output_scores(keras.Model([a, b], [total, total]))).classes == 0


def test_random_values_stay_in_range_and_differ_between_inputs():
    inputs = (*PHOTO_AND_TABLE, Input("other", (4,)), Input("tokens", (12,), "int32", TOKENS, 0.0, 2.0))
    feed = random_feed(inputs, 6)
    assert feed["tokens"].dtype == np.int32
    assert set(np.unique(feed["tokens"])) == {0, 1, 2}
    assert 0 <= feed["photo"].min() < feed["photo"].max() <= 1
    assert not np.allclose(feed["table"], feed["other"])
    wider = with_ranges_of(inputs, {**feed, "table": 9 * np.ones((6, 4))})
    assert wider[1].drawn == (9.0, 9.0)
    assert wider[3] is inputs[3]


def test_samples_are_read_from_whatever_holds_them(tmp_path):
    import tensorflow as tf

    np.savez(tmp_path / "two.npz", labels=np.arange(5), **TWO)
    pairs = tuple(TWO.values())
    sources = [
        TWO,
        pairs,
        tmp_path / "two.npz",
        [(TWO, np.arange(5))],
        (dict(zip(TWO, row, strict=True)) for row in zip(*pairs, strict=True)),
        tf.data.Dataset.from_tensor_slices((pairs, np.eye(5))).batch(2),
    ]
    for source in sources:
        found = read(source)
        assert list(found.feed) == ["photo", "table"]
        np.testing.assert_array_equal(found.feed["table"], TWO["table"])
        assert found.labels is None or list(found.labels) == [0, 1, 2, 3, 4]
    assert [found is not None for found in (read(sources[2]).labels, read(sources[5]).labels)] == [True, True]
    assert len(read(TWO, most=3).feed["photo"]) == 3


def test_a_single_input_takes_arrays_with_or_without_labels():
    tokens = (Input("tokens", (12,), "int32", TOKENS, 0.0, 49.0),)
    rows = np.arange(24).reshape(2, 12)
    for source in (rows, list(rows), {"tokens": rows}, [(rows, np.array([1, 0]))]):
        np.testing.assert_array_equal(read(source, tokens).feed["tokens"], rows)
    assert list(read([(rows, np.array([1, 0]))], tokens).labels) == [1, 0]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"photo": TWO["photo"]}, "The inputs must be 'photo', 'table'; received 'photo'"),
        (TWO | {"table": TWO["table"][:3]}, "same number of samples for each input.*5 of 'photo', 3 of 'table'"),
        (TWO | {"table": np.ones((5, 3))}, r"'table' has shape \(4,\) per sample; received \(3,\)"),
        (TWO | {"table": np.full((5, 4), np.nan)}, "'table' takes finite numbers"),
        ("photos", r"must be an \.npz file with an array of each name; received 'photos'"),
        ([TWO["photo"]], "a value for each of the inputs 'photo', 'table', as a dictionary or a tuple"),
        ([], "at least one sample; received none"),
    ],
)
def test_samples_that_do_not_fit_are_refused(data, message):
    with pytest.raises(ValueError, match=message):
        read(data)


def test_tokens_beyond_the_embedding_and_labels_beyond_the_samples_are_refused():
    tokens = (Input("tokens", (12,), "int32", TOKENS, 0.0, 49.0),)
    with pytest.raises(ValueError, match="indices from 0 to 49, the rows of its embedding; received 0 to 70"):
        read(np.array([[0] * 11 + [70]]), tokens)
    with pytest.raises(ValueError, match="one entry per sample; received 2 for 5 samples"):
        read(TWO, labels=[0, 1])


def test_a_single_input_takes_any_name_and_several_their_own():
    assert in_order(PHOTO_AND_TABLE[:1], {"x": "photo"}) == ["photo"]
    assert in_order(PHOTO_AND_TABLE, {"table": "t", "photo": "p"}) == ["p", "t"]
