"""`collect_gates` gives the numbers that one gets by hand, from whatever brings the images."""

from __future__ import annotations

import contextlib
import tracemalloc

import keras
import numpy as np
import pytest
from keras import layers

from se_keras import SqueezeExcite
from se_keras.analysis import Gates, collect_gates, image_gates
from se_keras.analysis.gate_statistics import QUANTILES
from se_keras.progress import shown_by

IMAGES, CHANNELS = 30, 6


@pytest.fixture
def model():
    """Two blocks with gates that vary a lot."""
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(CHANNELS, 3, padding="same", name="conv", kernel_initializer="he_normal")(inputs)
    x = SqueezeExcite(2, name="first", kernel_initializer=keras.initializers.RandomNormal(0, 3))(x)
    x = layers.Conv2D(4, 1, activation="relu")(x)
    x = SqueezeExcite(2, name="second", kernel_initializer=keras.initializers.RandomNormal(0, 3))(x)
    return keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)), name="small")


@pytest.fixture
def images(rng):
    return rng.normal(0, 2, (IMAGES, 8, 8, 3)).astype("float32")


@pytest.fixture
def labels(rng):
    return np.array([0, 1, 2] * 10)


def gates_by_hand(model, images, name):
    layer = model.get_layer(name)
    values = layer.gates(keras.Model(model.inputs[0], layer.input)(images, training=False))
    return keras.ops.convert_to_numpy(values).reshape(len(images), -1).astype("float64")


def same(one: Gates, other: Gates, rtol: float = 1e-5) -> None:
    assert one.class_names == other.class_names
    np.testing.assert_array_equal(one.counts, other.counts)
    for a, b in zip(one.blocks, other.blocks, strict=True):
        for name in ("mean", "std", "quantiles", "total_mean", "total_std", "between_std", "samples"):
            np.testing.assert_allclose(getattr(a, name), getattr(b, name), rtol=rtol, atol=2e-5)
        np.testing.assert_array_equal(a.low_share, b.low_share)
        np.testing.assert_array_equal(a.high_share, b.high_share)


def test_numbers_are_those_by_hand(model, images, labels):
    found = collect_gates(model, images, labels=labels, class_names=["a", "b", "c"], title="noise", batch_size=7)
    assert (found.network, found.title, found.images, found.class_names) == ("small", "noise", IMAGES, ("a", "b", "c"))
    assert [block.name for block in found.blocks] == ["first", "second"]
    for block in found.blocks:
        values = gates_by_hand(model, images, block.name)
        each = [values[labels == label] for label in range(3)]
        assert block.limits == (0, 1)
        np.testing.assert_allclose(block.mean, [x.mean(0) for x in each], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(block.std, [x.std(0) for x in each], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(block.total_mean, values.mean(0), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(block.total_std, values.std(0), rtol=1e-4, atol=1e-6)
        np.testing.assert_array_equal(block.low_share, [(x < 0.01).mean(0) for x in each])
        np.testing.assert_array_equal(block.high_share, [(x > 0.99).mean(0) for x in each])
        np.testing.assert_allclose(block.total_low_share, (values < 0.01).mean(0), rtol=1e-12)
        between = np.var([x.mean(0) for x in each], axis=0)
        np.testing.assert_allclose(block.class_share, between / values.var(0), rtol=1e-3, atol=1e-6)
        np.testing.assert_allclose(block.class_specificity, between.sum() / values.var(0).sum(), rtol=1e-3)
    assert (found.blocks[0].total_low_share + found.blocks[0].total_high_share).max() > 0


def test_quantiles_are_true_to_a_bin(model, images, labels):
    found = collect_gates(model, images, labels=labels, bins=200)
    assert found.levels == QUANTILES
    for block in found.blocks:
        values = gates_by_hand(model, images, block.name)
        exact = np.quantile(values, QUANTILES, axis=0, method="inverted_cdf")
        np.testing.assert_allclose(block.total_quantiles, exact, atol=1 / 200 + 1e-6)
        one = np.quantile(values[labels == 1], QUANTILES, axis=0, method="inverted_cdf")
        np.testing.assert_allclose(block.quantiles[1], one, atol=1 / 200 + 1e-6)
    assert collect_gates(model, images, bins=0).blocks[0].total_quantiles.shape == (0, CHANNELS)


def test_classes_that_gates_depend_on_alone_are_seen():
    inputs = keras.Input((2, 2, 2))
    model = keras.Model(inputs, SqueezeExcite(1, name="se")(inputs))
    eye = np.eye(2, dtype="float32")
    model.get_layer("se").set_weights([eye, np.zeros(2), np.diag([8.0, 0.0]), np.zeros(2)])
    images = np.ones((4, 2, 2, 2), "float32") * np.array([0, 0, 1, 1])[:, None, None, None]
    block = collect_gates(model, images, labels=[5, 5, 7, 7]).block("se")
    np.testing.assert_allclose(block.mean[:, 0], [0.5, 1 / (1 + np.exp(-8))], rtol=1e-6)
    np.testing.assert_array_equal(block.high_share, [[0, 0], [1, 0]])
    np.testing.assert_array_equal(block.total_high_share, [0.5, 0])
    np.testing.assert_allclose(block.class_share, [1, 0], atol=1e-9)  # the second is 1/2 whatever the image
    assert block.total_std[1] == 0
    assert block.class_specificity == pytest.approx(1)
    mixed = collect_gates(model, images, labels=[5, 7, 5, 7]).block("se")
    np.testing.assert_allclose(mixed.class_share, [0, 0], atol=1e-9)


class Batches(keras.utils.PyDataset):
    def __init__(self, images, labels):
        super().__init__()
        self.images, self.labels = images, labels

    def __len__(self):
        return 4

    def __getitem__(self, index):
        part = slice(index * 8, index * 8 + 8)
        return self.images[part], self.labels[part]


def as_tf_data(images, labels):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("needs TensorFlow")
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices((images, labels)).batch(8)


@pytest.mark.parametrize(
    "source",
    [
        Batches,
        as_tf_data,
        lambda x, y: ((x[i : i + 8], y[i : i + 8], np.ones(8)) for i in range(0, 32, 8)),
        lambda x, y: [(x[i : i + 8], np.eye(3)[y[i : i + 8]]) for i in range(0, 32, 8)],
        lambda x, y: [(x[i : i + 8], y[i : i + 8, None]) for i in range(0, 32, 8)],
    ],
    ids=["PyDataset", "tf.data", "generator with sample weights", "one-hot", "column"],
)
def test_every_source_gives_the_same(model, images, labels, source):
    same(
        collect_gates(model, source(images, labels), samples=5), collect_gates(model, images, labels=labels, samples=5)
    )


def test_images_without_labels_are_one_class(model, images):
    found = collect_gates(model, [images[:20], images[20:]])
    assert found.class_names == ("all",)
    assert found.images == IMAGES
    np.testing.assert_allclose(found.blocks[0].mean[0], found.blocks[0].total_mean)
    assert found.blocks[0].class_specificity == pytest.approx(0, abs=1e-12)
    same(found, collect_gates(model, images))


def test_labels_may_stand_beside_batches(model, images, labels):
    same(collect_gates(model, [images[:20], images[20:]], labels=labels), collect_gates(model, images, labels=labels))


def test_some_classes_can_be_named(model, images, labels):
    found = collect_gates(model, images, labels=labels * 300 + 1, class_names={601: "cliff", 1: "goldfish", 301: "pug"})
    assert found.class_names == ("cliff", "goldfish", "pug")
    same_rows = collect_gates(model, images, labels=labels)
    assert same_rows.class_names == ("0", "1", "2")
    np.testing.assert_allclose(found.blocks[0].mean, same_rows.blocks[0].mean[[2, 0, 1]], rtol=1e-6)


def test_samples_are_the_gates_of_single_images(model, images, labels):
    found = collect_gates(model, images, labels=labels + 4, samples=9, batch_size=4)
    values = gates_by_hand(model, images, "second")
    assert len(set(found.sample_indices)) == 9
    assert found.sample_indices.max() > 9, "not only the first"
    np.testing.assert_allclose(found.block("second").samples, values[found.sample_indices], rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(found.sample_labels, labels[found.sample_indices])
    everything = collect_gates(model, images, samples=1000)
    np.testing.assert_array_equal(everything.sample_indices, range(IMAGES))


def test_file_holds_everything(model, images, labels, tmp_path):
    found = collect_gates(model, images, labels=labels, class_names=["a", "b", "ç"], title="noise", samples=3)
    found.save(tmp_path / "gates.npz")
    loaded = Gates.load(tmp_path / "gates.npz")
    same(loaded, found, rtol=0)
    for name in ("network", "title", "class_names", "levels", "bins", "images"):
        assert getattr(loaded, name) == getattr(found, name)
    assert [(b.name, b.limits) for b in loaded.blocks] == [(b.name, b.limits) for b in found.blocks]
    with pytest.raises(FileExistsError, match="overwrite=True"):
        found.save(tmp_path / "gates.npz")
    found.save(tmp_path / "gates.npz", overwrite=True)
    with pytest.raises(ValueError, match=r"must end in \.npz"):
        found.save(tmp_path / "gates")
    np.savez(tmp_path / "other.npz", x=1)
    with pytest.raises(ValueError, match="not written by"):
        Gates.load(tmp_path / "other.npz")


@pytest.mark.parametrize(
    ("options", "limits"),
    [
        ({"gate_init": "identity"}, (0, 2)),
        ({"gate_activation": "hard_sigmoid"}, (0, 1)),
        ({"gate_activation": "tanh"}, (-1, 1)),
        ({"squeeze": "max"}, (0, 1)),
        ({"squeeze": "avgmax"}, (0, 1)),
    ],
)
def test_every_kind_of_gate(options, limits, images):
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, SqueezeExcite(1, name="se", **options)(inputs))
    block = collect_gates(model, images).block("se")
    assert block.limits == limits
    np.testing.assert_allclose(block.total_mean, gates_by_hand(model, images, "se").mean(0), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("order", [1, -1], ids=["rising", "falling"])
def test_gates_without_an_upper_end(images, order):
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, SqueezeExcite(1, name="se", gate_activation="relu")(inputs))
    rising = (images * np.geomspace(0.1, 20, len(images))[:, None, None, None])[::order]
    block = collect_gates(model, rising, batch_size=4).block("se")
    values = gates_by_hand(model, rising, "se")
    assert block.limits[0] == 0
    assert values.max() <= block.limits[1] <= 2 * values.max() * (1 + 1e-4)
    exact = np.quantile(values, QUANTILES, axis=0, method="inverted_cdf")
    np.testing.assert_allclose(block.total_quantiles, exact, atol=2 * block.limits[1] / 100 + 1e-6)
    np.testing.assert_array_equal(block.total_low_share, (values == 0).mean(0))
    np.testing.assert_array_equal(block.total_high_share, 0)


def test_constant_gates_do_not_vary_at_all(images):
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, SqueezeExcite(1, name="se", gate_init="identity")(inputs))
    block = collect_gates(model, images, labels=[0, 1] * 15).block("se")
    np.testing.assert_array_equal(block.total_std, 0)
    np.testing.assert_array_equal(block.class_share, 0)
    np.testing.assert_array_equal(block.total_quantiles, np.ones((5, 3)))


def test_sequences_volumes_channels_first_and_nested_models(rng):
    inputs = keras.Input((9, 4))
    model = keras.Model(inputs, SqueezeExcite(2, name="se")(inputs))
    assert collect_gates(model, rng.normal(size=(3, 9, 4))).block("se").channels == 4
    inputs = keras.Input((3, 3, 3, 4))
    model = keras.Model(inputs, SqueezeExcite(2, name="se")(inputs))
    assert collect_gates(model, rng.normal(size=(3, 3, 3, 3, 4))).block("se").channels == 4
    inputs = keras.Input((6, 5, 5))
    model = keras.Model(inputs, SqueezeExcite(2, name="se", data_format="channels_first")(inputs))
    photos = rng.normal(size=(3, 6, 5, 5)).astype("float32")
    assert collect_gates(model, photos).block("se").channels == 6
    assert image_gates(model, photos[0])["se"].maps.shape == (5, 5, 6)
    outer = keras.Input((6, 5, 5))
    nested = keras.Model(outer, model(model(outer)))
    found = collect_gates(nested, photos)
    assert [block.name for block in found.blocks] == ["se", "se:2"]
    once = collect_gates(model, photos)
    twice = collect_gates(model, keras.ops.convert_to_numpy(model(photos)))
    np.testing.assert_allclose(found.blocks[0].total_mean, once.blocks[0].total_mean, rtol=1e-5)
    np.testing.assert_allclose(found.blocks[1].total_mean, twice.blocks[0].total_mean, rtol=1e-5)


def test_several_inputs(rng):
    first, second = keras.Input((4, 4, 3), name="a"), keras.Input((4, 4, 3), name="b")
    model = keras.Model({"a": first, "b": second}, SqueezeExcite(1, name="se")(layers.Add()([first, second])))
    photos = {"a": rng.normal(size=(5, 4, 4, 3)), "b": rng.normal(size=(5, 4, 4, 3))}
    together = keras.Model(first, SqueezeExcite.from_config(model.get_layer("se").get_config())(first))
    together.set_weights(model.get_weights())
    same(collect_gates(model, photos), collect_gates(together, photos["a"] + photos["b"]))


def test_answers_of_the_model_stay(model, images):
    before = model.predict(images, verbose=0)
    collect_gates(model, images)
    np.testing.assert_array_equal(model.predict(images, verbose=0), before)


def test_half_precision(images):
    keras.config.set_dtype_policy("mixed_bfloat16")
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, SqueezeExcite(1, name="se")(inputs))
    block = collect_gates(model, images).block("se")
    assert block.mean.dtype == "float64"
    keras.config.set_dtype_policy("float32")
    exact = SqueezeExcite(1)
    exact.build((None, 8, 8, 3))
    exact.set_weights(model.get_weights())
    values = keras.ops.convert_to_numpy(exact.gates(images)).reshape(IMAGES, 3)
    np.testing.assert_allclose(block.total_mean, values.mean(0), atol=0.01)


def test_image_gates_are_one_images_gates_and_maps(model, images):
    found = image_gates(model, images[3])
    for name in ("first", "second"):
        np.testing.assert_allclose(found[name].gates, gates_by_hand(model, images[3:4], name)[0], rtol=1e-4, atol=1e-6)
        maps = keras.Model(model.inputs[0], model.get_layer(name).input)(images[3:4])
        np.testing.assert_allclose(found[name].maps, keras.ops.convert_to_numpy(maps)[0], rtol=1e-4, atol=1e-5)


def test_progress_counts_the_batches(model, images):
    seen = []

    @contextlib.contextmanager
    def display(title, total):
        yield lambda: seen.append((title, total))

    with shown_by(display):
        collect_gates(model, images, batch_size=10)
        collect_gates(model, (part for part in (images[:20], images[20:])))
        collect_gates(model, images, verbose=0)
    assert seen == [("Collecting gates", 3)] * 3 + [("Collecting gates", None)] * 2


def test_memory_does_not_grow_with_the_images(model):
    def batches(count):
        rng = np.random.default_rng(0)
        for _ in range(count):
            yield rng.normal(size=(64, 8, 8, 3)).astype("float32"), rng.integers(0, 3, 64)

    collect_gates(model, batches(2))
    peaks = []
    for count in (10, 100):
        tracemalloc.start()
        collect_gates(model, batches(count))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0] + 200_000


def subclassed():
    return type("Own", (keras.Model,), {"call": lambda self, x: x})(name="own")


def plain():
    inputs = keras.Input((8, 8, 3))
    return keras.Model(inputs, layers.Conv2D(2, 1)(inputs), name="plain")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: {"model": subclassed()}, "Only functional models"),
        (lambda x, y: {"model": plain()}, "SqueezeExcite layers, .*the model 'plain' has none.*insert_squeeze_excite"),
        (lambda x, y: {"labels": y[:-1]}, "29 labels for 30 images in the dataset"),
        (lambda x, y: {"data": [x], "labels": y[:-1]}, "29 labels for 30 images in a batch"),
        (lambda x, y: {"data": [x[:9]], "labels": y}, "30 labels for 9 images in the dataset"),
        (lambda x, y: {"data": [(x, y[:-1])]}, "29 labels for 30 images in a batch"),
        (lambda x, y: {"data": [(x, y)], "labels": y}, "given once"),
        (lambda x, y: {"data": [(x, y), x]}, "received no labels|All batches must have labels"),
        (lambda x, y: {"data": x[:0]}, "at least one image"),
        (lambda x, y: {"data": []}, "at least one image"),
        (lambda x, y: {"data": x[0]}, r"a batch axis"),
        (lambda x, y: {"data": 5}, "received int"),
        (lambda x, y: {"labels": y, "class_names": ["a", "b", "c", "d"]}, "received none for d"),
        (lambda x, y: {"labels": y, "class_names": ["a", "b"]}, "received label 2, and names for 0, 1"),
        (lambda x, y: {"class_names": ["a"]}, "received no labels"),
        (lambda x, y: {"labels": y - 1}, "nonnegative integers"),
        (lambda x, y: {"labels": y + 0.5}, "nonnegative integers"),
        (lambda x, y: {"labels": list("abc") * 10}, r"nonnegative integers.*beginning \['a', 'b', 'c'\]"),
        (lambda x, y: {"batch_size": 0}, "batch_size"),
        (lambda x, y: {"bins": -1}, "bins"),
        (lambda x, y: {"samples": 1.5}, "samples"),
        (lambda x, y: {"bins": 10**8}, r"1 GiB.*bins=\d+ or less"),
    ],
)
def test_bad_input(model, images, labels, change, message):
    arguments = {"model": model, "data": images, **change(images, labels)}
    with pytest.raises(ValueError, match=message):
        collect_gates(**arguments)


def test_endless_dataset(model):
    class Endless(Batches):
        @property
        def num_batches(self):
            return None

    with pytest.raises(ValueError, match="must be finite"):
        collect_gates(model, Endless(None, None))


def test_repeating_dataset(model, images, labels):
    with pytest.raises(ValueError, match=r"must be finite.*data\.take"):
        collect_gates(model, as_tf_data(images, labels).repeat())


def test_unknown_block(model, images):
    with pytest.raises(ValueError, match=r"'third'.*first, second"):
        collect_gates(model, images).block("third")
