"""Networks as people write them: each structure once, a few layers of it."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops

IMAGE = (32, 32, 3)


def conv(x: Any, filters: int, kernel_size: int = 3, strides: int = 1, activation: str | None = "relu") -> Any:
    x = layers.Conv2D(filters, kernel_size, strides, padding="same", use_bias=False)(x)
    x = layers.BatchNormalization()(x)
    return layers.Activation(activation)(x) if activation else x


def classified(inputs: Any, x: Any, classes: int = 5) -> keras.Model:
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(classes, activation="softmax")(x))


def residual(x: Any, filters: int, strides: int = 1, attention: Any = lambda x: x) -> Any:
    branch = conv(conv(x, filters, strides=strides), filters, activation=None)
    shortcut = conv(x, filters, 1, strides, None) if strides > 1 else x
    return layers.ReLU()(layers.Add()([attention(branch), shortcut]))


def resnet(attention: Any = lambda x: x) -> keras.Model:
    inputs = keras.Input(IMAGE)
    x = residual(conv(inputs, 16), 16, attention=attention)
    x = residual(residual(x, 32, 2, attention), 32, attention=attention)
    return classified(inputs, x)


def preactivated() -> keras.Model:
    """Norm and activation before each convolution."""

    def unit(x: Any) -> Any:
        branch = x
        for _ in range(2):
            branch = layers.ReLU()(layers.BatchNormalization()(branch))
            branch = layers.Conv2D(16, 3, padding="same")(branch)
        return layers.Add()([x, branch])

    inputs = keras.Input(IMAGE)
    return classified(inputs, layers.ReLU()(unit(unit(layers.Conv2D(16, 3, padding="same")(inputs)))))


def plain() -> keras.Model:
    steps: list[Any] = [keras.Input(IMAGE)]
    for filters in (8, 16, 32):
        steps += [layers.Conv2D(filters, 3, padding="same", activation="relu"), layers.MaxPooling2D()]
    return keras.Sequential([*steps, layers.Flatten(), layers.Dense(5)])


def densenet() -> keras.Model:
    inputs = keras.Input(IMAGE)
    x = conv(inputs, 16)
    for _ in range(3):
        x = layers.Concatenate()([x, conv(conv(x, 16, 1), 8)])
    return classified(inputs, x)


def inception() -> keras.Model:
    inputs = keras.Input(IMAGE)
    x = conv(inputs, 16, strides=2)
    for _ in range(2):
        pooled = conv(layers.AveragePooling2D(3, 1, padding="same")(x), 8, 1)
        x = layers.Concatenate()([conv(x, 8, 1), conv(conv(x, 8, 1), 8), conv(conv(x, 4, 1), 8, 5), pooled])
    return classified(inputs, x)


# SE and other attention that people write themselves.


def of_layers(x: Any) -> Any:
    """SE as in most tutorials."""
    channels = x.shape[-1]
    gate = layers.GlobalAveragePooling2D()(x)
    gate = layers.Dense(channels // 4, activation="relu")(gate)
    gate = layers.Dense(channels, activation="sigmoid")(gate)
    return layers.Multiply()([x, layers.Reshape((1, 1, channels))(gate)])


def of_operations(x: Any) -> Any:
    """SE of 1x1 convolutions between operations."""
    channels = x.shape[-1]
    gate = ops.mean(x, axis=(1, 2), keepdims=True)
    gate = layers.Conv2D(channels, 1)(layers.Conv2D(channels // 4, 1, activation="relu")(gate))
    return x * ops.sigmoid(gate)


@keras.saving.register_keras_serializable("hosts")
class OwnAttention(layers.Layer):
    """SE in a layer class."""

    def build(self, input_shape: Any) -> None:
        channels = input_shape[-1]
        self.first = layers.Dense(channels // 4, activation="relu")
        self.second = layers.Dense(channels, activation="sigmoid")
        self.first.build((None, channels))
        self.second.build((None, channels // 4))

    def call(self, inputs: Any) -> Any:
        gate = self.second(self.first(ops.mean(inputs, axis=(1, 2))))
        return inputs * gate[:, None, None, :]


def convolutional_attention(x: Any) -> Any:
    """CBAM (arXiv 1807.06521): gates of two summaries through the same layers, then a map of positions."""
    channels = x.shape[-1]
    first, second = layers.Dense(channels // 4, activation="relu"), layers.Dense(channels)
    summaries = [layers.GlobalAveragePooling2D()(x), layers.GlobalMaxPooling2D()(x)]
    gate = layers.Activation("sigmoid")(layers.Add()([second(first(z)) for z in summaries]))
    x = layers.Multiply()([x, layers.Reshape((1, 1, channels))(gate)])
    maps = [ops.mean(x, axis=-1, keepdims=True), ops.max(x, axis=-1, keepdims=True)]
    spatial = layers.Conv2D(1, 7, padding="same", activation="sigmoid")(layers.Concatenate()(maps))
    return layers.Multiply()([x, spatial])


def mobile() -> keras.Model:
    """Inverted residuals, of which one has SE as in MobileNetV3."""
    inputs = keras.Input(IMAGE)
    x = conv(inputs, 8, strides=2, activation="hard_silu")
    for i in range(2):
        wide = conv(x, 32, 1, activation="hard_silu")
        wide = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(wide)
        wide = layers.Activation("hard_silu")(layers.BatchNormalization()(wide))
        wide = of_layers(wide) if i else wide
        x = layers.Add()([x, conv(wide, 8, 1, activation=None)])
    return classified(inputs, x)


def res2net() -> keras.Model:
    """Arxiv 1904.01169: the second convolution in slices, each added to the one before."""
    inputs = keras.Input(IMAGE)
    x = conv(inputs, 32, strides=2)
    for _ in range(2):
        slices = ops.split(conv(x, 32, 1), 4, axis=-1)
        parts = [slices[0], conv(slices[1], 8)]
        for piece in slices[2:]:
            parts.append(conv(layers.Add()([piece, parts[-1]]), 8))
        branch = conv(layers.Concatenate()(parts), 32, 1, activation=None)
        x = layers.ReLU()(layers.Add()([x, branch]))
    return classified(inputs, x)


def ghostnet() -> keras.Model:
    """Arxiv 1911.11907: half of each map is computed of the other half."""

    def ghost(x: Any, filters: int, activation: str | None = "relu") -> Any:
        half = conv(x, filters // 2, 1, activation=activation)
        cheap = layers.BatchNormalization()(layers.DepthwiseConv2D(3, padding="same", use_bias=False)(half))
        cheap = layers.Activation(activation)(cheap) if activation else cheap
        return layers.Concatenate()([half, cheap])

    inputs = keras.Input(IMAGE)
    x = conv(inputs, 16, strides=2)
    for _ in range(2):
        x = layers.Add()([x, ghost(ghost(x, 48), 16, None)])
    return classified(inputs, x)


def convnext() -> keras.Model:
    inputs = keras.Input(IMAGE)
    x = layers.LayerNormalization()(layers.Conv2D(16, 4, 4)(inputs))
    for _ in range(2):
        branch = layers.LayerNormalization()(layers.DepthwiseConv2D(7, padding="same")(x))
        x = layers.Add()([x, layers.Dense(16)(layers.Dense(64, activation="gelu")(branch))])
    return classified(inputs, x)


# What segments.


def unet(gated: bool = False) -> keras.Model:
    inputs = x = keras.Input(IMAGE)
    skips = []
    for filters in (8, 16):
        x = conv(conv(x, filters), filters)
        skips.append(x)
        x = layers.MaxPooling2D()(x)
    x = conv(conv(x, 32), 32)
    for filters in (16, 8):
        x = layers.Conv2DTranspose(filters, 2, 2)(x)
        skip = skips.pop()
        x = layers.Concatenate()([x, attended(skip, x) if gated else skip])
        x = conv(conv(x, filters), filters)
    return keras.Model(inputs, layers.Conv2D(1, 1, activation="sigmoid")(x))


def attended(skip: Any, coarse: Any) -> Any:
    """The gate of an Attention U-Net (arXiv 1804.03999)."""
    filters = skip.shape[-1]
    both = layers.ReLU()(layers.Add()([conv(skip, filters, 1, activation=None), conv(coarse, filters, 1, 1, None)]))
    return layers.Multiply()([skip, layers.Conv2D(1, 1, activation="sigmoid")(both)])


def attention_unet() -> keras.Model:
    return unet(gated=True)


def volumes() -> keras.Model:
    inputs = keras.Input((8, 16, 16, 1))
    x = inputs
    for filters in (8, 16):
        branch = layers.Conv3D(filters, 3, padding="same", use_bias=False)(x)
        branch = layers.BatchNormalization()(layers.ReLU()(branch))
        branch = layers.BatchNormalization()(layers.Conv3D(filters, 3, padding="same")(branch))
        x = layers.ReLU()(layers.Add()([layers.Conv3D(filters, 1)(x), branch]))
    return keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling3D()(x)))


# Other than one image in, one answer out.


def two_outputs() -> keras.Model:
    inputs = keras.Input(IMAGE)
    x = residual(residual(conv(inputs, 16), 16), 16)
    kind = layers.Dense(5, activation="softmax", name="kind")(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, {"kind": kind, "mask": layers.Conv2D(1, 1, activation="sigmoid", name="mask")(x)})


def image_and_table() -> keras.Model:
    image, table = keras.Input(IMAGE, name="image"), keras.Input((6,), name="table")
    x = layers.GlobalAveragePooling2D()(residual(conv(image, 16), 32, 2))
    rows = layers.Dense(8, activation="relu")(table)
    answer = layers.Dense(3, activation="softmax")(layers.Concatenate()([x, rows]))
    return keras.Model({"image": image, "table": table}, answer)


def audio() -> keras.Model:
    inputs = keras.Input((256, 1))
    x = layers.Conv1D(16, 9, 4, padding="same", activation="relu")(inputs)
    for _ in range(2):
        branch = layers.BatchNormalization()(layers.Conv1D(16, 3, padding="same")(x))
        x = layers.ReLU()(layers.Add()([x, layers.Conv1D(16, 3, padding="same")(branch)]))
    return keras.Model(inputs, layers.Dense(4, activation="softmax")(layers.GlobalAveragePooling1D()(x)))


def text() -> keras.Model:
    inputs = keras.Input((24,), dtype="int32")
    x = layers.Embedding(50, 16)(inputs)
    for filters in (16, 32):
        x = layers.Conv1D(filters, 3, padding="same", activation="relu")(x)
    return keras.Model(inputs, layers.Dense(2, activation="softmax")(layers.GlobalMaxPooling1D()(x)))


def lstm() -> keras.Model:
    inputs = keras.Input((32, 4))
    x = layers.Conv1D(16, 3, padding="same", activation="relu")(inputs)
    x = layers.Bidirectional(layers.LSTM(8, return_sequences=True))(x)
    return keras.Model(inputs, layers.Dense(2)(layers.LSTM(8)(x)))


def video() -> keras.Model:
    inputs = keras.Input((4, *IMAGE))
    x = layers.TimeDistributed(keras.Model(frame := keras.Input(IMAGE), residual(conv(frame, 8, strides=2), 16, 2)))(
        inputs
    )
    return keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling3D()(x)))


# Transformers and their kin.


def transformer_block(x: Any, width: int) -> Any:
    normal = layers.LayerNormalization()(x)
    x = layers.Add()([x, layers.MultiHeadAttention(2, width // 2)(normal, normal)])
    branch = layers.Dense(width)(layers.Dense(2 * width, activation="gelu")(layers.LayerNormalization()(x)))
    return layers.Add()([x, branch])


def vit() -> keras.Model:
    inputs = keras.Input(IMAGE)
    x = layers.Reshape((16, 16))(layers.Conv2D(16, 8, 8)(inputs))
    for _ in range(2):
        x = transformer_block(x, 16)
    return keras.Model(inputs, layers.Dense(5)(layers.GlobalAveragePooling1D()(x)))


def mixer() -> keras.Model:
    inputs = keras.Input(IMAGE)
    x = layers.Reshape((16, 16))(layers.Conv2D(16, 8, 8)(inputs))
    for _ in range(2):
        tokens = layers.Permute((2, 1))(layers.LayerNormalization()(x))
        tokens = layers.Dense(16)(layers.Dense(32, activation="gelu")(tokens))
        x = layers.Add()([x, layers.Permute((2, 1))(tokens)])
        branch = layers.Dense(16)(layers.Dense(32, activation="gelu")(layers.LayerNormalization()(x)))
        x = layers.Add()([x, branch])
    return keras.Model(inputs, layers.Dense(5)(layers.GlobalAveragePooling1D()(x)))


# Models that are more than their layers.


@keras.saving.register_keras_serializable("hosts")
class OwnStep(keras.Model):
    """A model with a step of training of its own."""

    def train_step(self, *args: Any, **kwargs: Any) -> Any:
        return super().train_step(*args, **kwargs)


def own_train_step() -> keras.Model:
    inner = resnet()
    return OwnStep(inner.inputs, inner.outputs)


def nested() -> keras.Model:
    """Transfer learning as in Keras' guides: a trained model as a layer, behind augmentation."""
    inner = keras.Input(IMAGE, name="inner_image")
    base = keras.Model(inner, residual(residual(conv(inner, 16), 16), 32, 2), name="base")
    inputs = keras.Input(IMAGE)
    x = layers.Rescaling(1 / 255)(layers.RandomFlip()(inputs))
    return classified(inputs, layers.Dropout(0.2)(base(x)))


NETWORKS = {
    "ResNet": resnet,
    "ResNet, norms first": preactivated,
    "VGG, sequential": plain,
    "DenseNet": densenet,
    "Inception": inception,
    "SE of layers": lambda: resnet(of_layers),
    "SE of operations": lambda: resnet(of_operations),
    "SE in a layer class": lambda: resnet(lambda x: OwnAttention()(x)),
    "CBAM": lambda: resnet(convolutional_attention),
    "MobileNetV3": mobile,
    "Res2Net": res2net,
    "GhostNet": ghostnet,
    "ConvNeXt": convnext,
    "U-Net": unet,
    "Attention U-Net": attention_unet,
    "volumes": volumes,
    "two outputs": two_outputs,
    "image and table": image_and_table,
    "audio": audio,
    "text": text,
    "LSTM": lstm,
    "video": video,
    "ViT": vit,
    "MLP-Mixer": mixer,
    "own train_step": own_train_step,
    "nested base": nested,
}
