"""Models of a user's own class: it is kept where it takes any graph, and otherwise the warning names what is lost."""

import keras
import numpy as np
import pytest
from keras import layers
from small_networks import answers

import se_keras
from se_keras import analysis, export
from se_keras.layers import SqueezeExcite
from se_keras.model_files import read_model
from se_keras.surgery import deploy, insert_squeeze_excite, prune_gates

SE = se_keras.SEConfig(reduction=2, gate_init="identity")
IMAGES = np.random.default_rng(0).uniform(0, 1, (4, 8, 8, 3)).astype("float32")


@keras.saving.register_keras_serializable("test_subclasses")
class Doubling(keras.Model):
    """A model whose training step reports a number of its own."""

    def train_step(self, data):
        return {"own": keras.ops.ones(()) * 2}


@keras.saving.register_keras_serializable("test_subclasses")
class WithState(keras.Model):
    """A model with a factor, a metric, maps of its own graph, and a teacher."""

    def __init__(self, inputs, outputs, factor=1.0, **options):
        super().__init__(inputs, outputs, **options)
        self.factor = factor
        self.tracker = keras.metrics.Mean(name="tracker")

    def get_config(self):
        return {**super().get_config(), "factor": self.factor}


class OwnGraph(keras.Model):
    """A model whose constructor makes its graph, as in KerasHub."""

    def __init__(self, filters=4, scale=None, **options):
        self.head = layers.Dense(3, name="logits")
        inputs, outputs, maps = graph(filters, head=self.head)
        super().__init__(inputs, outputs, **options)
        self._maps = {"P1": maps}
        self.scale = scale

    @property
    def maps(self):
        return self._maps

    def predict(self, x, **options):
        return super().predict(x * self.scale, **options)

    def get_config(self):
        return {"filters": 4}


def graph(filters=4, head=None):
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(filters, 3, use_bias=False, name="conv")(inputs)
    x = layers.BatchNormalization(name="bn")(x)
    maps = layers.ReLU(name="relu")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(maps)
    return inputs, (head or layers.Dense(3, name="logits"))(x), maps


def inserted(model):
    return insert_squeeze_excite(model, "relu", se=SE)


def pruned(model):
    return prune_gates(inserted(model), IMAGES, bound=1.0, verbose=0)


OPERATIONS = {"insert": inserted, "deploy": deploy, "prune": pruned}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_class_with_a_training_step_is_kept_and_trains_and_loads(operation, tmp_path):
    inputs, outputs, _ = graph()
    model = Doubling(inputs, outputs, name="mine")
    new = OPERATIONS[operation](model)
    assert type(new) is Doubling
    np.testing.assert_allclose(answers(new, IMAGES), answers(model, IMAGES), atol=1e-5)
    new.compile("sgd", "mse")
    assert new.fit(IMAGES, np.zeros((4, 3)), verbose=0).history["own"] == [2.0]
    new.save(tmp_path / "new.keras")
    loaded = keras.models.load_model(tmp_path / "new.keras")
    assert type(loaded) is Doubling
    np.testing.assert_array_equal(answers(loaded, IMAGES), answers(new, IMAGES))


def test_state_of_a_class_is_copied_and_its_maps_are_those_of_the_new_graph():
    inputs, outputs, maps = graph()
    model = WithState(inputs, outputs, name="mine")
    model.factor, model.maps, model.itself, model.head = 3.0, {"P1": maps}, model, model.get_layer("logits")
    model.teacher = keras.Model(*graph()[:2], name="teacher")
    model.tracker.update_state(7.0)
    new = inserted(model)
    assert type(new) is WithState
    assert (new.factor, new.itself, new.head) == (3.0, new, new.get_layer("logits"))
    assert float(new.tracker.result()) == 7.0
    assert new.tracker is not model.tracker
    assert new.teacher is not model.teacher
    np.testing.assert_array_equal(answers(new.teacher, IMAGES), answers(model.teacher, IMAGES))
    assert new.maps["P1"] is new.get_layer("relu_se").output
    np.testing.assert_array_equal(
        answers(keras.Model(new.inputs[0], new.maps), IMAGES)["P1"],
        answers(keras.Model(inputs, maps), IMAGES),
    )


def test_functions_of_a_class_refer_to_the_new_model():
    class Reporting(keras.Model):
        def __init__(self, inputs, outputs, **options):
            super().__init__(inputs, outputs, **options)
            self.first, self.count = lambda: self.layers[1], self.count_params

    inputs = keras.Input((8, 8, 3))
    model = Reporting(inputs, layers.Conv2D(4, 1, activation="relu", name="conv")(inputs))
    new = insert_squeeze_excite(model, ["conv"])
    assert new.first() is new.get_layer("conv")
    assert new.count() == new.count_params() > model.count_params()


def test_attribute_of_what_is_folded_away_is_named():
    inputs, outputs, _ = graph()
    model = WithState(inputs, outputs, name="mine")
    model.norm = model.get_layer("bn")
    with pytest.warns(UserWarning, match=r"class WithState.*refer to layers.*\(tracker, norm, factor\)"):
        assert type(deploy(model)) is type(keras.Model(inputs, outputs))


@pytest.mark.parametrize("operation", ["insert", "deploy"])
def test_class_that_makes_its_own_graph_is_named_with_what_is_lost(operation):
    model = OwnGraph(scale=2.0, name="mine")
    with pytest.warns(UserWarning, match=r"class OwnGraph.*take `inputs`.*\(head, maps, scale; predict\(\)\)"):
        new = OPERATIONS[operation](model)
    np.testing.assert_allclose(answers(new, IMAGES), answers(model, IMAGES), atol=1e-5)


def test_nested_class_is_kept_with_the_blocks_in_it():
    inner = Doubling(*graph()[:2], name="inner")
    inputs = keras.Input((8, 8, 3))
    outer = Doubling(inputs, layers.Dense(2, name="last")(inner(inputs)), name="outer")
    outer.backbone = inner
    new = inserted(outer)
    assert type(new) is type(new.get_layer("inner")) is Doubling
    assert new.backbone is new.get_layer("inner")
    assert any(isinstance(layer, SqueezeExcite) for layer in new.backbone.layers)
    assert len(new.weights) == len(outer.weights) + 4


@pytest.fixture(scope="module")
def keras_hub():
    return pytest.importorskip("keras_hub", reason="needs 'keras_hub'")


@pytest.fixture
def hub_backbone(keras_hub):
    return keras_hub.models.ResNetBackbone([64], [3], [64, 64], [1, 1], [1, 2], "basic_block", image_shape=(16, 16, 3))


def test_backbone_of_keras_hub_is_named_with_its_pyramid(hub_backbone):
    with pytest.warns(UserWarning, match="class ResNetBackbone.*pyramid_outputs"):
        new = insert_squeeze_excite(hub_backbone, se=SE)
    images = np.random.default_rng(0).uniform(0, 1, (1, 16, 16, 3)).astype("float32")
    np.testing.assert_array_equal(answers(new, images), answers(hub_backbone, images))


def test_classifier_of_keras_hub_is_named_with_its_preprocessor_and_takes_a_rewritten_backbone(keras_hub, hub_backbone):
    converter = keras_hub.layers.ImageConverter(image_size=(16, 16), scale=1 / 255)
    options = {"num_classes": 2, "preprocessor": converter, "pooling": "avg"}
    model = keras_hub.models.ImageClassifier(hub_backbone, **options)
    with pytest.warns(UserWarning, match=r"class ImageClassifier.*preprocessor.*predict\(\).*rewrite the 'backbone'"):
        plain = insert_squeeze_excite(model, se=SE)
    with pytest.warns(UserWarning, match="class ResNetBackbone"):
        backbone = insert_squeeze_excite(hub_backbone, se=SE)
    rebuilt = keras_hub.models.ImageClassifier(backbone, **options)
    rebuilt.set_weights(plain.get_weights())
    photos = np.random.default_rng(0).uniform(0, 255, (2, 16, 16, 3)).astype("float32")
    np.testing.assert_allclose(rebuilt.predict(photos, verbose=0), model.predict(photos, verbose=0), atol=1e-6)


def test_model_of_tf_keras_is_named_as_such():
    tf_keras = pytest.importorskip("tf_keras", reason="needs 'tf_keras'")
    model = tf_keras.Sequential([tf_keras.layers.Input((4,)), tf_keras.layers.Dense(3)], name="old")
    for function, arguments in (
        (insert_squeeze_excite, ()),
        (deploy, ()),
        (prune_gates, (IMAGES,)),
        (analysis.collect_gates, (IMAGES,)),
        (se_keras.model_info, ()),
        (se_keras.feature_extractor, (["dense"],)),
        (export.tflite, ("model.tflite",)),
        (export.saved_model, ("folder",)),
    ):
        with pytest.raises(ValueError, match=r"The model 'old' is from tf_keras.*keras\.models\.load_model"):
            function(model, *arguments)


@keras.saving.register_keras_serializable("test_subclasses")
class Unreadable(layers.Layer):
    """A layer whose `from_config` does not take what its `get_config` returns."""

    @classmethod
    def from_config(cls, config):
        return cls(name=config["title"])

    def call(self, x):
        return x


def test_layer_that_cannot_be_made_from_its_config_is_named_and_not_the_file(tmp_path):
    inner = keras.Sequential([keras.Input((4,)), Unreadable(name="culprit")], name="inner")
    inputs = keras.Input((4,))
    model = Doubling(inputs, layers.Dense(2)(inner(inputs)))
    np.testing.assert_array_equal(answers(deploy(model), np.ones((1, 4))), answers(model, np.ones((1, 4))))
    model.save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match=r"cannot be loaded: Unreadable\.from_config.*'culprit': KeyError: 'title'"):
        read_model(tmp_path / "model.keras")
