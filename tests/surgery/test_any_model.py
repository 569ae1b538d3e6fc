"""Every operation on every kind of model gives the same answers, or an error that names what stands in the way."""

from __future__ import annotations

import dataclasses
import functools
import re
import weakref

import any_models
import keras
import numpy as np
import pytest
from any_models import CASES
from cases import ALL
from keras import layers, ops
from rewriting import deployment, randomized

from se_keras import export, insert_squeeze_excite, model_info
from se_keras.analysis import collect_gates
from se_keras.export import model_ends
from se_keras.export.runtime import open_runner
from se_keras.layers import SqueezeExcite
from se_keras.surgery import deploy, find_changes, find_positions, pointwise_to_dense, prune_gates
from se_keras.surgery.graph import build_model, in_float32, read_graph

pytestmark = pytest.mark.filterwarnings(
    "ignore:Not all gates",
    "ignore:Layer .* was passed an input with a mask",  # of Keras 3.16, for an LSTM that gives one step
    "ignore:Even though the .tf.config",  # of TensorFlow: tf.data is traced where functions run eagerly
)


@pytest.fixture(autouse=True, scope="module")
def _eager():
    """Tracing a function takes longer than running these models."""
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@functools.cache
def built(name):
    case = CASES[name]
    model = case.make()
    return randomized(model) if model.built else model


def inputs_of(name):
    return CASES[name].inputs(np.random.default_rng(0))


def answers(model, inputs):
    return [as_float64(x) for x in keras.tree.flatten(model(inputs, training=False))]


def as_float64(x):
    return np.asarray(keras.ops.convert_to_numpy(x)).astype("float64")


def assert_same(ours, theirs, tolerance):
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape
        assert np.abs(a - b).max() <= tolerance * np.abs(b).max()


def batches(name):
    """The inputs as a dataset of one batch."""
    arrays = keras.tree.map_structure(lambda x: np.asarray(x), inputs_of(name))
    return [(arrays,)]


def inserted(name):
    model = insert_squeeze_excite(built(name), ["conv"])
    assert any(path.endswith("conv_se") for path in names_inside(model))
    return model


def names_inside(model):
    return [layer.name for layer in model._flatten_layers()]


def deployed(name):
    model, changes = deployment(built(name))
    assert re.search(CASES[name].left, "\n".join(map(str, changes))), changes
    return model


def watched(name):
    gates = collect_gates(built(name), batches(name))
    assert all(block.name == "se" or block.name.startswith("se:") for block in gates.blocks)
    assert gates.blocks


def pruned(name):
    return prune_gates(built(name), batches(name), bound=0.0)


OPERATIONS = {"insert": inserted, "deploy": deployed, "gates": watched, "prune": pruned}


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("name", CASES)
def test_answers_stay_or_the_error_names_the_layer(name, operation):
    case = CASES[name]
    if operation in case.refused:
        with pytest.raises(ValueError, match=case.refused[operation]):
            OPERATIONS[operation](name)
        return
    model = OPERATIONS[operation](name)
    if model is not None and not (name == "random_state" and operation == "prune"):  # which predicts, so draws numbers
        compare(name, model)


def compare(name, model):
    # A random generator goes on from where it was when it was copied.
    before = [variable.numpy() for variable in built(name).variables]
    ours = answers(model, inputs_of(name))
    theirs = answers(built(name), inputs_of(name))
    for variable, value in zip(built(name).variables, before, strict=True):
        variable.assign(value)
    assert_same(ours, theirs, CASES[name].tolerance)


# What Keras itself can load again: no functions and no classes that are not registered.
LOADABLE = (
    "string_lookup",
    "integer_lookup",
    "text_vectorization",
    "adapted_numbers",
    "time_distributed",
    "holder_of_a_model",
    "registered_layer",
    "attention",
    "shared_layers",
    "nested_twice",
    "sequential_inside",
    "int8",
    "float8",
    "low_rank",
    "masked_embedding",
)


@pytest.mark.parametrize("name", LOADABLE)
def test_a_copy_is_saved_and_loaded(name, tmp_path):
    inserted(name).save(tmp_path / "model.keras")
    compare(name, keras.saving.load_model(tmp_path / "model.keras"))


def by_name(model, inputs):
    """The inputs by their names in an export."""
    values = map(np.asarray, keras.tree.flatten(inputs))
    return dict(zip((one.name for one in model_ends.inputs_of(model)), values, strict=True))


def of_saved_model(model, inputs, folder):
    import tensorflow as tf

    loaded, feed = tf.saved_model.load(str(export.saved_model(model, folder / "saved"))), by_name(model, inputs)
    return keras.tree.flatten(loaded(feed if len(feed) > 1 else next(iter(feed.values()))))


def of_tflite(model, inputs, folder):
    return run_file(export.tflite(model, folder / "model.tflite"), model, inputs)


def of_onnx(model, inputs, folder):
    pytest.importorskip("onnxruntime")
    return run_file(export.onnx(model, folder / "model.onnx"), model, inputs)


def run_file(path, model, inputs):
    runner, names = open_runner(path), list(model_ends.output_scores(model))
    found = runner.run(by_name(model, inputs))
    return [found[name] for name in names] if len(names) > 1 else list(found.values())


EXPORTS = {"saved_model": of_saved_model, "tflite": of_tflite, "onnx": of_onnx}
# A converter decides about these, which takes seconds, as every file does.
BY_CONVERTER = ("adapted_numbers", "hashing", "random_state")


def exports():
    for name, case in CASES.items():
        for form in EXPORTS if ALL else ("saved_model", "tflite"):
            is_quick = form in case.refused and name not in BY_CONVERTER
            yield pytest.param(name, form, marks=() if is_quick else pytest.mark.slow)


@pytest.mark.parametrize(("name", "form"), list(exports()))
def test_a_file_answers_as_the_model_or_the_error_names_the_layer(name, form, tmp_path):
    case = CASES[name]
    if form in case.refused:
        with pytest.raises(ValueError, match=case.refused[form]):
            EXPORTS[form](built(name), inputs_of(name), tmp_path)
        assert not list(tmp_path.iterdir())
        return
    ours = EXPORTS[form](built(name), inputs_of(name), tmp_path)
    assert_same(map(as_float64, ours), answers(built(name), inputs_of(name)), case.tolerance)


# What is special about single models.


def test_a_copy_shares_no_variables_and_keeps_what_is_frozen():
    model = any_models.forgetful_layer()
    model.get_layer("conv").trainable = False
    copy = build_model(read_graph(model))
    assert not {id(v) for v in copy.variables} & {id(v) for v in model.variables}
    assert [v.path for v in copy.trainable_weights] == [v.path for v in model.trainable_weights]
    assert [v.path for v in copy.weights] == [v.path for v in model.weights]
    copy.get_layer("conv").trainable = True
    assert copy.get_layer("conv").kernel.trainable


def test_weights_that_are_tied_stay_tied():
    copy = build_model(read_graph(built("tied_weights")))
    assert copy.get_layer("tied").embedding is copy.get_layer("embedding")


@pytest.mark.parametrize("operation", [insert_squeeze_excite, deploy, pointwise_to_dense])
def test_states_of_a_recurrent_layer_are_copied_and_stay_uncounted(operation):
    inputs = keras.Input(batch_shape=(2, 6, 3))
    x = layers.Conv1D(4, 1, activation="relu")(inputs)
    model = keras.Model(inputs, layers.LSTM(4, stateful=True, name="lstm")(x))
    batch = inputs_of("masked")
    model(batch)
    copy = operation(model)
    ours, theirs = (one.get_layer("lstm") for one in (copy, model))
    assert [v.path for v in ours.variables] == [v.path for v in theirs.variables]
    assert_same(map(as_float64, ours.states), map(as_float64, theirs.states), 0.0)
    assert_same(answers(copy, batch), answers(model, batch), 1e-6)
    before = as_float64(theirs.states[0])
    ours.reset_state()
    assert np.array_equal(as_float64(theirs.states[0]), before)
    assert before.any()


def test_a_layer_that_is_hidden_from_keras_stays_hidden():
    class Pair(layers.Layer):
        def __init__(self, partner, **options):
            super().__init__(**options)
            vars(self)["partner"] = [partner]

        def call(self, inputs):
            return inputs * ops.sum(self.partner[0].kernel)

    inputs = keras.Input(any_models.IMAGE)
    conv = layers.Conv2D(4, 1, name="conv")
    model = keras.Model(inputs, Pair(conv, name="pair")(conv(inputs)))
    copy = build_model(read_graph(model))
    assert copy.get_layer("pair").partner[0] is copy.get_layer("conv")
    assert not copy.get_layer("pair").weights


def test_functions_stay_the_same_objects():
    model = built("functions_in_configs")
    deployed = deploy(model)
    assert deployed.layers[-4].activation is model.layers[-4].activation


def test_blocks_go_into_a_model_that_is_applied_to_every_step():
    model = built("time_distributed")
    result = insert_squeeze_excite(model, where="conv$", freeze_base=True)
    inner = result.get_layer("frames").layer
    assert isinstance(inner.get_layer("conv_se"), SqueezeExcite)
    assert {w.path.split("/")[0] for w in inner.trainable_weights} == {"conv_se"}
    assert [p.layer for p in find_positions(model, "conv$")] == ["frames/conv"]
    assert find_positions(model)[0].layer.startswith("frames/")


@pytest.mark.parametrize("where", ["auto", ["missing"]])
def test_layers_that_are_not_looked_into_are_named(where):
    inputs = keras.Input(any_models.IMAGE)
    model = keras.Model(inputs, any_models.Holder(any_models.body(), name="holder")(inputs))
    with pytest.raises(ValueError, match=r"Not expanded: .*1 SE block inside 'holder' \(Holder, 150 weights\)"):
        insert_squeeze_excite(model, where)
    with pytest.raises(ValueError, match=r"not read \(1 in 'holder' \(Holder\)\)"):
        collect_gates(model, inputs_of("holder_of_a_model"))


def test_gates_that_are_not_read_are_said():
    with pytest.warns(UserWarning, match=r"Not all gates .* \(1 in 'holder'"):
        collect_gates(built("holder_of_a_model"), batches("holder_of_a_model"))


def test_batch_norms_of_every_step_are_folded():
    changes = find_changes(built("time_distributed"))
    assert {change.layer: change.action for change in changes}["frames/bn"] == "folded"


@pytest.mark.parametrize("name", ["int8", "int4", "float8"])
def test_quantized_layers_are_not_computed_in_float32(name):
    layer = CASES[name].refused["tflite"]
    with pytest.raises(ValueError, match=rf"'{layer}' .* was quantized by Keras \({name}\)"):
        in_float32(read_graph(built(name)))


def test_half_precision_inside_wrappers_becomes_float32():
    single = build_model(in_float32(read_graph(built("bfloat16"))))
    assert {v.dtype for v in single.weights} == {"float32"}
    assert {layer.compute_dtype for layer in single._flatten_layers(include_self=False)} == {"float32"}


class Captured(layers.Layer):
    """A layer that multiplies by its weight with a function that `make` returns, given the layer."""

    def __init__(self, make, **options):
        super().__init__(**options)
        self.make = make

    def build(self, shape):
        self.factor = self.add_weight(shape=(1,), initializer="ones", name="factor")
        self.function = self.make(self)

    def times(self, x):
        return x * self.factor

    def call(self, inputs):
        return self.function(inputs)


@dataclasses.dataclass(frozen=True, slots=True)
class InSlots:
    factor: keras.Variable

    def __call__(self, x):
        return x * self.factor


def logged(function):
    @functools.wraps(function)
    def wrapper(x):
        return function(x)

    return wrapper


CAPTURED = {
    "closure": lambda layer: lambda x: x * layer.factor,
    "closure_of_variable": lambda layer: (lambda factor: lambda x: x * factor)(layer.factor),
    "closure_in_closure": lambda layer: logged(lambda x: x * layer.factor),
    "default": lambda layer: lambda x, factor=layer.factor: x * factor,
    "keyword_default": lambda layer: lambda x, *, factor=layer.factor: x * factor,
    "partial": lambda layer: functools.partial(ops.multiply, layer.factor),
    "methods_in_a_partial": lambda layer: functools.partial(lambda methods, x: methods[0](x), [layer.times]),
    "method_of_a_dictionary": lambda layer: functools.partial(lambda get, x: x * get(1), {1: layer.factor}.get),
    "weak_reference": lambda layer: functools.partial(lambda found, x: x * found().factor, weakref.ref(layer)),
    "slots": lambda layer: InSlots(layer.factor),
}


@pytest.mark.parametrize("make", CAPTURED.values(), ids=CAPTURED)
def test_functions_of_a_copy_use_its_own_weights(make):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, Captured(make, name="captured")(inputs))
    copy = build_model(read_graph(model))
    model.get_layer("captured").factor.assign([0.0])
    assert_same(answers(copy, np.ones((2, 4))), [np.ones((2, 4))], 0.0)
    copy.get_layer("captured").factor.assign([2.0])
    assert_same(answers(copy, np.ones((2, 4))), [np.full((2, 4), 2.0)], 0.0)


@pytest.mark.parametrize("operation", [deploy, pointwise_to_dense])
def test_an_activation_with_weights_is_copied_with_the_layer_that_replaces_its_own(operation):
    prelu = layers.PReLU(name="prelu")
    inputs = keras.Input((8, 8, 4))
    x = layers.Conv2D(4, 1, activation=prelu)(layers.Conv2D(4, 1, activation=prelu)(inputs))
    x = SqueezeExcite(1, activation=layers.PReLU(), name="se")(layers.Conv2D(4, 1)(x))
    model = keras.Model(inputs, x)
    copy = operation(model)
    images = np.ones((2, 8, 8, 4), "float32")
    assert_same(answers(copy, images), answers(model, images), 1e-5)
    assert not {id(v) for v in copy.variables} & {id(v) for v in model.variables}
    assert sum("prelu" in v.path for v in copy.variables) == 1


def test_a_function_that_calls_itself_is_copied_with_its_cells():
    def make(layer):
        def power(x, times=2):
            return x if times == 0 else power(x, times - 1) * layer.factor

        return power

    inputs = keras.Input((4,))
    function = build_model(read_graph(keras.Model(inputs, Captured(make)(inputs)))).layers[1].function
    cells = dict(zip(function.__code__.co_freevars, function.__closure__, strict=True))
    assert cells["power"].cell_contents is function
    assert function.__name__ == "power"


def test_a_compiled_function_with_weights_is_refused_and_others_stay():
    import tensorflow as tf

    inputs = keras.Input((4,))
    plain = tf.function(lambda x: 2 * x)
    copy = build_model(read_graph(keras.Model(inputs, Captured(lambda layer: plain)(inputs))))
    assert copy.layers[1].function is plain
    model = keras.Model(inputs, Captured(lambda layer: tf.function(layer.times), name="captured")(inputs))
    with pytest.raises(
        ValueError, match=r"'captured' \(Captured\) .* attribute 'function' cannot: .*times is compiled"
    ):
        deploy(model)


def test_a_function_may_refer_to_what_holds_its_model():
    class Trainer:
        scale = 0.5

        def __init__(self):
            inputs = keras.Input((4,))
            self.dense = layers.Dense(3)
            x = layers.Lambda(lambda x: x * self.scale, output_shape=lambda shape: shape)(self.dense(inputs))
            self.model = keras.Model(inputs, x)

    model = Trainer().model
    copy = build_model(read_graph(model))
    x = np.ones((2, 4), "float32")
    assert_same(answers(copy, x), answers(model, x), 0.0)


def test_a_layer_that_cannot_be_copied_is_named():
    class Stubborn(layers.Layer):
        def build(self, shape):
            self.add_weight(shape=(1,), name="lost")

        def call(self, inputs):
            return inputs

    inputs = keras.Input((4,))
    with pytest.raises(ValueError, match=r"'stubborn' \(Stubborn\) cannot be copied"):
        deploy(keras.Model(inputs, Stubborn(name="stubborn")(inputs)))


def test_multiply_adds_of_every_step_and_of_models_inside_are_counted():
    inner = model_info(any_models.body())
    steps = model_info(built("time_distributed"))
    assert steps.total.conv_macs == 3 * inner.total.conv_macs
    assert steps.se_blocks == 1
    assert [note.split(",")[0] for note in steps.notes] == ["The multiply-adds of 'lstm' (LSTM"]
    assert model_info(built("time_distributed_twice")).total.conv_macs == 6 * inner.total.conv_macs
    held = model_info(built("holder_of_a_model"))
    assert held.se_blocks == 2
    assert held.total.conv_macs == 8 * 8 * 4 * 3 + 2 * inner.total.conv_macs
    assert held.total.parameters == built("holder_of_a_model").count_params()
    assert "'holder' (Holder, 150 weights) are counted once" in str(held)


def test_open_sizes_are_counted_whatever_the_layers():
    inputs = keras.Input((None, None, 3))
    x = layers.Lambda(any_models.scaled)(any_models.unit(inputs))
    shared = layers.Conv2D(4, 1)
    info = model_info(keras.Model(inputs, any_models.pooled(shared(shared(x)))), (8, 8, 3))
    assert info.total.conv_macs == 64 * (9 * 3 * 4 + 2 * 4 * 4)


def test_masks_are_not_computed_twice():
    model = built("masked_embedding")
    count = len(model.operations)
    assert len(build_model(read_graph(model)).operations) == count
    assert "NotEqual" not in {type(call.operation).__name__ for call in read_graph(model).calls}
