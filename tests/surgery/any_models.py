"""Models with every kind of layer, each as small as it can be: what people bring, and what no network of ours has.

All have a convolution named "conv" with a norm and an SE block named "se" behind it, if their kind allows that.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from se_keras.layers import SqueezeExcite

IMAGE, SERIES = (8, 8, 3), (6, 3)
FACTOR = 0.5  # a global name, which a serialized function does not bring along


def images(rng: np.random.Generator, shape: tuple[int, ...] = IMAGE) -> np.ndarray:
    return rng.uniform(0, 1, (2, *shape)).astype("float32")


def series(rng: np.random.Generator) -> np.ndarray:
    return images(rng, SERIES)


@dataclasses.dataclass(frozen=True)
class Case:
    """One model.

    Args:
        make: Builds it.
        inputs: What it takes.
        refused: From an operation to what its error names.
        left: What `deploy` says it left, as a regular expression; "" for nothing of note.
        tolerance: Greatest relative difference of the answers.
    """

    make: Callable[[], keras.Model]
    inputs: Callable[[np.random.Generator], Any] = images
    refused: Mapping[str, str] = dataclasses.field(default_factory=dict)
    left: str = ""
    tolerance: float = 1e-4


def unit(x: Any, filters: int = 4, *, name: str = "") -> Any:
    """Convolution, norm, and SE."""
    rank = len(x.shape)
    conv = {3: layers.Conv1D, 4: layers.Conv2D}[rank]
    x = conv(filters, 3, padding="same", name=f"conv{name}")(x)
    x = layers.BatchNormalization(name=f"bn{name}")(x)
    return SqueezeExcite(2, name=f"se{name}")(x)


def pooled(x: Any) -> Any:
    pool = {3: layers.GlobalAveragePooling1D, 4: layers.GlobalAveragePooling2D}[len(x.shape)]
    return layers.Dense(3, name="logits")(pool(name="pool")(x))


def chain(*steps: Any, shape: tuple[int, ...] = IMAGE, **options: Any) -> keras.Model:
    """A unit, what is given, and a classifier."""
    inputs = keras.Input(shape, **options)
    x = unit(inputs)
    for step in steps:
        x = step(x)
    return keras.Model(inputs, pooled(x))


def body(shape: tuple[int, ...] = IMAGE, name: str = "body") -> keras.Model:
    inputs = keras.Input(shape)
    return keras.Model(inputs, layers.GlobalAveragePooling2D(name="inner_pool")(unit(inputs)), name=name)


# Functions of the user.


def scaled(x: Any) -> Any:
    return x * FACTOR + math.pi


def lambda_layers() -> keras.Model:
    offset = 0.25
    return chain(layers.Lambda(scaled), layers.Lambda(lambda x: x * FACTOR - offset, name="closure"))


def lambda_in_a_nested_model() -> keras.Model:
    inputs = keras.Input(IMAGE)
    x = keras.Input((8, 8, 4))
    inner = keras.Model(x, layers.Lambda(lambda x: x + FACTOR)(x), name="inner")
    return keras.Model(inputs, pooled(inner(unit(inputs))))


def functions_in_configs() -> keras.Model:
    def start(shape: Any, dtype: Any = None) -> Any:
        return ops.ones(shape, dtype) * 0.1

    def swish(x: Any) -> Any:
        return x * ops.sigmoid(FACTOR * x)

    inputs = keras.Input(IMAGE)
    x = layers.Conv2D(4, 1, kernel_initializer=start, name="conv")(inputs)
    x = layers.BatchNormalization(beta_initializer=start, name="bn")(x)
    x = SqueezeExcite(2, gate_activation=lambda x: ops.sigmoid(x) * FACTOR, activation=swish, name="se")(x)
    regularizer = None if keras.version().startswith("3.12.") else lambda w: ops.sum(w)  # 3.12 refuses functions
    x = layers.Conv2D(4, 1, activation=swish, kernel_regularizer=regularizer)(x)
    return keras.Model(inputs, pooled(layers.Activation(lambda x: ops.tanh(x) + FACTOR)(x)))


# State that is no weight.


def string_lookup() -> keras.Model:
    words, image = keras.Input((4,), dtype="string", name="words"), keras.Input(IMAGE, name="image")
    lookup = layers.StringLookup(name="lookup")
    lookup.adapt(np.array(["cat", "dog", "bird", "dog"]))
    x = layers.Flatten()(layers.Embedding(8, 2)(lookup(words)))
    return keras.Model([words, image], layers.Dense(3)(layers.Concatenate()([x, pooled(unit(image))])))


def integer_lookup() -> keras.Model:
    numbers = keras.Input((6,), dtype="int64")
    lookup = layers.IntegerLookup(name="lookup")
    lookup.adapt(np.array([10, 20, 30, 20]))
    return keras.Model(numbers, pooled(unit(layers.Embedding(8, 3)(lookup(numbers)))))


def text_vectorization() -> keras.Model:
    text = keras.Input((1,), dtype="string")
    vectors = layers.TextVectorization(max_tokens=10, output_sequence_length=6, name="vectors")
    vectors.adapt(np.array(["the cat sat", "the dog ran", "a bird"]))
    return keras.Model(text, pooled(unit(layers.Embedding(10, 3)(vectors(text)))))


def adapted_numbers() -> keras.Model:
    inputs = keras.Input(IMAGE)
    norm, bins = layers.Normalization(name="norm"), layers.Discretization(num_bins=4, name="bins")
    data = np.random.default_rng(3).normal(1, 2, (50, *IMAGE))
    norm.adapt(data)
    bins.adapt(data.ravel())
    binned = layers.Rescaling(0.5)(ops.cast(bins(inputs), "float32"))
    return keras.Model(inputs, pooled(unit(layers.Add()([norm(inputs), binned]))))


def hashing() -> keras.Model:
    numbers = keras.Input((6,), dtype="int64")
    buckets = layers.Hashing(5, name="hash")(numbers)
    return keras.Model(numbers, pooled(unit(layers.CategoryEncoding(5, output_mode="one_hot")(buckets))))


class Noise(layers.Layer):
    """Adds noise in every mode, from a generator of its own."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.generator = keras.random.SeedGenerator(7)

    def call(self, inputs: Any) -> Any:
        return inputs + keras.random.normal(ops.shape(inputs), seed=self.generator)


def random_state() -> keras.Model:
    model = chain(Noise(name="noise"))
    model.get_layer("noise").generator.state.assign([7, 5])
    return model


# Wrappers, and layers that hold models.


def time_distributed() -> keras.Model:
    frames = keras.Input((3, *IMAGE))
    return keras.Model(frames, layers.LSTM(3)(layers.TimeDistributed(body(), name="frames")(frames)))


def time_distributed_twice() -> keras.Model:
    clips = keras.Input((2, 3, *IMAGE))
    inner = layers.TimeDistributed(layers.TimeDistributed(body(), name="frames"), name="clips")
    return keras.Model(clips, layers.Dense(3)(inner(clips)))


def time_distributed_layers() -> keras.Model:
    frames = keras.Input((3, *IMAGE))
    x = layers.TimeDistributed(layers.Conv2D(4, 3), name="convs")(frames)
    x = layers.TimeDistributed(layers.BatchNormalization(), name="norms")(x)
    return keras.Model(frames, pooled(unit(layers.TimeDistributed(layers.Flatten())(x))))


@keras.saving.register_keras_serializable("any_models")
class Holder(layers.Layer):
    """Applies a model that it holds."""

    def __init__(self, model: keras.Model, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.model = model

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        return self.model(inputs, training=training)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "model": keras.saving.serialize_keras_object(self.model)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Holder:
        return cls(keras.saving.deserialize_keras_object(config.pop("model")), **config)


def holder_of_a_model() -> keras.Model:
    return chain(layers.Conv2D(3, 1), Holder(body(name="inside"), name="holder"), layers.Reshape((2, 2)))


class Block(keras.Model):
    """A subclassed model inside a functional one."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.parts = [layers.Conv2D(4, 1), layers.BatchNormalization(), SqueezeExcite(2)]
        self.more = {"dense": layers.Dense(4)}

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        for part in self.parts[:2]:
            inputs = part(inputs, **({"training": training} if part is self.parts[1] else {}))
        return self.more["dense"](self.parts[2](inputs))


def subclassed_inside() -> keras.Model:
    return chain(Block(name="block"))


def spectral_norm() -> keras.Model:
    return chain(layers.SpectralNormalization(layers.Conv2D(4, 1), name="spectral"))


# Recurrent layers and attention.


def recurrent() -> keras.Model:
    inputs = keras.Input(SERIES)
    x = layers.Bidirectional(layers.LSTM(4, return_sequences=True), name="both")(unit(inputs))
    cells = layers.StackedRNNCells([layers.GRUCell(4), layers.SimpleRNNCell(4)])
    return keras.Model(inputs, layers.Dense(3)(layers.RNN(cells, name="stack")(x)))


def recurrent_maps() -> keras.Model:
    inputs = keras.Input((3, *IMAGE))
    return keras.Model(inputs, pooled(unit(layers.ConvLSTM2D(4, 3, name="maps")(inputs))))


def attention() -> keras.Model:
    inputs = keras.Input(SERIES)
    x = unit(inputs)
    y = layers.MultiHeadAttention(2, 2, name="attention")(x, x, use_causal_mask=True)
    y = layers.LayerNormalization()(layers.Add()([x, y]))
    y = layers.GroupQueryAttention(2, 2, 1)(y, y)
    y = layers.AdditiveAttention()([y, x])
    return keras.Model(inputs, pooled(layers.EinsumDense("abc,cd->abd", (None, 4))(layers.RMSNormalization()(y))))


# Layers of the user.


@keras.saving.register_keras_serializable("any_models")
class Scale(layers.Layer):
    """A registered layer with a whole config."""

    def __init__(self, power: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.power = power

    def build(self, shape: Any) -> None:
        self.scale = self.add_weight(shape=(shape[-1],), initializer="ones", name="scale")

    def call(self, inputs: Any) -> Any:
        return inputs * self.scale**self.power

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "power": self.power}


class Forgetful(layers.Layer):
    """A layer whose config lacks its argument, and that computes with objects of many kinds."""

    def __init__(self, factor: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.factor, self.table = factor, np.array([factor, 2.0], "float32")
        self.nested = {"kernels": [], "dense": (layers.Dense(4), None)}
        self.function = self.times

    def build(self, shape: Any) -> None:
        self.nested["kernels"].append(self.add_weight(shape=(shape[-1],), initializer="ones", name="own"))
        self.nested["dense"][0].build(shape)

    def times(self, x: Any) -> Any:
        return x * self.factor * self.nested["kernels"][0]

    def call(self, inputs: Any) -> Any:
        return self.nested["dense"][0](self.function(inputs)) * self.table[1]

    def get_config(self) -> dict[str, Any]:
        return super().get_config()


class Tied(layers.Layer):
    """Projects back with the weights of an embedding elsewhere in the model."""

    def __init__(self, embedding: layers.Embedding, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.embedding = embedding

    def call(self, inputs: Any) -> Any:
        return ops.matmul(inputs, ops.transpose(self.embedding.embeddings))


def registered_layer() -> keras.Model:
    return chain(Scale(2.0, name="scale"))


def forgetful_layer() -> keras.Model:
    return chain(Forgetful(3.0, name="forgetful"))


def tied_weights() -> keras.Model:
    numbers = keras.Input((6,), dtype="int32")
    embedding = layers.Embedding(8, 4, name="embedding")
    return keras.Model(numbers, pooled(Tied(embedding, name="tied")(unit(embedding(numbers)))))


# Graphs.


def dictionaries() -> keras.Model:
    a, b = keras.Input(IMAGE, name="a"), keras.Input(IMAGE, name="b")
    x = unit(layers.Average()([a, b]))
    return keras.Model({"a": a, "b": b}, {"map": ops.relu(x) * 2.0, "logits": pooled(x)})


def dictionaries_inside() -> keras.Model:
    left, right = keras.Input(IMAGE, name="left"), keras.Input(IMAGE, name="right")
    z, a = keras.Input(IMAGE, name="z"), keras.Input(IMAGE, name="a")
    inner = keras.Model({"z": z, "a": a}, {"y": unit(layers.Subtract()([z, a])), "b": layers.ReLU()(a)}, name="inner")
    outputs = inner({"z": left, "a": right})
    return keras.Model([left, right], layers.Concatenate()([pooled(outputs["y"]), layers.Flatten()(outputs["b"])]))


def shared_layers() -> keras.Model:
    inputs = keras.Input(IMAGE)
    conv, norm = layers.Conv2D(4, 3, padding="same", name="shared"), layers.BatchNormalization(name="shared_bn")
    x = norm(conv(inputs))
    x = norm(conv(layers.Conv2D(3, 1)(x)))
    return keras.Model(inputs, pooled(unit(x)))


def nested_twice() -> keras.Model:
    left, right = keras.Input(IMAGE, name="left"), keras.Input(IMAGE, name="right")
    x = keras.Input(IMAGE)
    middle = keras.Model(x, layers.Dense(4)(body()(x)), name="middle")
    return keras.Model([left, right], layers.Subtract()([middle(left), middle(right)]))


def operations() -> keras.Model:
    inputs = keras.Input(IMAGE)
    x = unit(inputs)
    x = ops.concatenate([x[..., :2] ** 2, ops.roll(x, 1, axis=1)], axis=-1)
    return keras.Model(inputs, ops.softmax(ops.einsum("bhwc->bc", x)))


def channels_first() -> keras.Model:
    inputs = keras.Input((4, 6))
    x = layers.BatchNormalization(axis=1, name="bn")(
        layers.ZeroPadding1D(0, data_format="channels_first", name="conv")(inputs)
    )
    x = SqueezeExcite(2, data_format="channels_first", name="se")(x)
    return keras.Model(inputs, layers.Dense(3)(layers.Flatten()(layers.Permute((2, 1))(x))))


def sequential() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input(IMAGE),
            layers.RandomFlip(),
            layers.Conv2D(4, 3, name="conv"),
            layers.BatchNormalization(name="bn"),
            SqueezeExcite(2, name="se"),
            layers.GaussianNoise(0.1),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )


def sequential_inside() -> keras.Model:
    inner = keras.Sequential([layers.Conv2D(4, 1), layers.BatchNormalization(), layers.ReLU()], name="inner")
    return chain(inner)


# Precisions.


def of_policy(policy: str) -> keras.Model:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        inputs = keras.Input(SERIES)
        x = layers.Bidirectional(layers.GRU(2, return_sequences=True, recurrent_initializer="glorot_uniform"))(
            unit(inputs)
        )
        return keras.Model(inputs, pooled(Forgetful(2.0)(x)))
    finally:
        keras.config.set_dtype_policy(before)


def mixed_bfloat16() -> keras.Model:
    return of_policy("mixed_bfloat16")


def bfloat16() -> keras.Model:
    return of_policy("bfloat16")


def quantized(mode: str) -> keras.Model:
    numbers = keras.Input((6,), dtype="int32")
    x = unit(layers.Embedding(8, 4, name="embedding")(numbers))
    x = layers.BatchNormalization(name="after")(layers.Dense(4, name="inner")(x))
    model = keras.Model(numbers, pooled(x))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it names the layers that have nothing to quantize
        model.quantize(mode)
    return model


def int8() -> keras.Model:
    return quantized("int8")


def int4() -> keras.Model:
    return quantized("int4")


def float8() -> keras.Model:
    return quantized("float8")


def low_rank() -> keras.Model:
    model = chain(layers.Conv2D(4, 1, name="adapted"), layers.BatchNormalization(name="after"))
    for name in ("adapted", "logits"):
        model.get_layer(name).enable_lora(2)
        for part in ("lora_kernel_a", "lora_kernel_b"):
            variable = getattr(model.get_layer(name), part)
            variable.assign(np.random.default_rng(1).normal(0, 0.3, variable.shape))
    return model


# Masks.


def padded_series(rng: np.random.Generator) -> np.ndarray:
    x = series(rng)
    x[:, 4:] = 0.0
    x[1] = 0.0  # a row without any step
    return x


def masked() -> keras.Model:
    inputs = keras.Input(SERIES)
    x = layers.Masking(name="masking")(inputs)
    x = layers.BatchNormalization(name="bn")(layers.Dense(4, name="conv")(x))
    x = SqueezeExcite(2, squeeze="avgmax", name="se")(x)
    return keras.Model(inputs, layers.Dense(3)(layers.LSTM(4)(x)))


def masked_embedding() -> keras.Model:
    numbers = keras.Input((6,), dtype="int32")
    x = layers.Embedding(8, 4, mask_zero=True, name="conv")(numbers)
    x = SqueezeExcite(2, name="se")(layers.LayerNormalization()(x))
    return keras.Model(numbers, layers.GRU(3)(layers.Dropout(0.5)(x)))


# What cannot be rewritten.


class OwnCall(keras.Model):
    """A model with a graph, which computes something else."""

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        return -super().call(inputs, training=training, mask=mask)


def own_call() -> keras.Model:
    inputs = keras.Input(IMAGE)
    return OwnCall(inputs, pooled(unit(inputs)), name="own_call")


def own_call_inside() -> keras.Model:
    inputs, inside = keras.Input(IMAGE), keras.Input((8, 8, 4))
    negative = OwnCall(inside, layers.BatchNormalization()(layers.Conv2D(4, 1)(inside)), name="negative")
    return keras.Model(inputs, pooled(negative(unit(inputs))))


class OwnSequence(keras.Sequential):
    """A sequential model that computes something else."""

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        return -super().call(inputs, training=training, mask=mask)


def own_sequence_inside() -> keras.Model:
    return chain(OwnSequence([layers.Conv2D(4, 1)], name="sequence"))


def subclassed() -> keras.Model:
    model = Block(name="subclassed")
    model(np.zeros((1, *IMAGE), "float32"))
    return model


def unbuilt() -> keras.Model:
    return keras.Sequential([layers.Conv2D(4, 3, name="conv"), layers.Flatten()], name="unbuilt")


# The table: what each model takes, and what is refused, with the name that the error gives.


def text(*rows: str) -> Any:
    return keras.ops.convert_to_tensor([row.split(" ") for row in rows], "string")


def small_numbers(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 8, (2, 6)).astype("int32")


def frames(rng: np.random.Generator) -> np.ndarray:
    return images(rng, (3, *IMAGE))


def two_images(rng: np.random.Generator) -> list[np.ndarray]:
    return [images(rng), images(rng)]


OPERATIONS = ("insert", "deploy", "gates", "prune", "saved_model", "tflite", "onnx")
# Text and vocabularies are for SavedModels.
ROUNDED = 0.03  # of bfloat16, whose steps are 0.8 percent


def not_numbers(layer: str) -> dict[str, str]:
    return {"tflite": layer, "onnx": layer}


def everything(name: str) -> dict[str, str]:
    return dict.fromkeys(OPERATIONS, name)


CASES = {
    "lambda": Case(lambda_layers),
    "lambda_in_a_nested_model": Case(lambda_in_a_nested_model),
    "functions_in_configs": Case(functions_in_configs),
    "string_lookup": Case(
        string_lookup,
        lambda rng: [text("cat dog x bird", "dog dog cat y"), ops.convert_to_tensor(images(rng))],
        not_numbers("lookup"),
    ),
    "integer_lookup": Case(integer_lookup, lambda rng: 10 * rng.integers(0, 5, (2, 6)), not_numbers("lookup")),
    "text_vectorization": Case(
        text_vectorization,
        lambda rng: ops.convert_to_tensor([["the cat ran"], ["a dog sat the"]], "string"),
        not_numbers("vectors"),
    ),
    "adapted_numbers": Case(adapted_numbers, refused={"onnx": "bins"}),
    "hashing": Case(hashing, lambda rng: np.arange(12).reshape(2, 6), not_numbers("hash")),
    "random_state": Case(random_state, refused={"tflite": "noise", "onnx": "noise"}),
    "time_distributed": Case(time_distributed, frames, {"gates": "frames", "prune": "frames"}),
    "time_distributed_twice": Case(
        time_distributed_twice, lambda rng: images(rng, (2, 3, *IMAGE)), {"gates": "clips", "prune": "clips"}
    ),
    "time_distributed_layers": Case(time_distributed_layers, frames, left="1 batch normalization inside 'norms'"),
    "holder_of_a_model": Case(
        holder_of_a_model, left="1 batch normalization and 1 SE block inside 'holder' .Holder, 150 weights"
    ),
    "subclassed_inside": Case(
        subclassed_inside, left="1 batch normalization and 1 SE block inside 'block' .Block, 78 weights"
    ),
    "spectral_norm": Case(spectral_norm),
    "recurrent": Case(recurrent, series),
    "recurrent_maps": Case(recurrent_maps, frames),
    "attention": Case(attention, series),
    "registered_layer": Case(registered_layer),
    "forgetful_layer": Case(forgetful_layer),
    "tied_weights": Case(tied_weights, small_numbers),
    "dictionaries": Case(dictionaries, lambda rng: dict(zip("ab", two_images(rng), strict=True))),
    "dictionaries_inside": Case(dictionaries_inside, two_images),
    "own_call_inside": Case(own_call_inside, left="1 batch normalization inside 'negative' .OwnCall"),
    "own_sequence_inside": Case(own_sequence_inside, refused=everything("sequence")),
    "shared_layers": Case(shared_layers, left="shared by several calls"),
    "nested_twice": Case(nested_twice, two_images, left="shared by several calls"),
    "operations": Case(operations),
    "channels_first": Case(channels_first, lambda rng: images(rng, (4, 6))),
    "sequential": Case(sequential),
    "sequential_inside": Case(sequential_inside),
    "mixed_bfloat16": Case(mixed_bfloat16, series, tolerance=ROUNDED),
    "bfloat16": Case(bfloat16, series, tolerance=ROUNDED),
    "int8": Case(int8, small_numbers, not_numbers("embedding"), left="'inner' is quantized"),
    "int4": Case(int4, small_numbers, not_numbers("embedding"), left="'inner' is quantized"),
    "float8": Case(float8, small_numbers, not_numbers("inner"), left="'inner' is quantized"),
    "low_rank": Case(low_rank, left="'adapted' has LoRA weights"),
    "masked": Case(masked, padded_series, left="its input comes with a mask"),
    "masked_embedding": Case(masked_embedding, small_numbers, left="its input comes with a mask"),
    "own_call": Case(own_call, refused=everything("own_call")),
    "subclassed": Case(subclassed, refused=everything("subclassed")),
    "unbuilt": Case(unbuilt, refused=everything("unbuilt")),
}
