"""Weights and inputs by formula: the same numbers on every machine, in every library, without a generator.

A value depends on the tensor's name and its index only, so that a golden made by another
implementation, from its own names and its own layout, is about the very network that we build.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping

import numpy as np

KERNEL_GAIN = 1.3
# By the beginning of a tensor's name: without shortcuts every gate would halve the signal once more.
GAINS = {"inception_": 1.7}
# Of networks whose activations and gates fade or grow otherwise.
NETWORK_GAINS = {
    "mobilenetv3_small_100": 1.9,
    "mobilenetv3_large_100": 1.7,
    "tf_mobilenetv3_large_100": 1.7,
    "efficientnet_b0": 1.85,
    "tf_efficientnet_b0": 1.85,
    "tf_efficientnetv2_b0": 1.5,
    "semnasnet_100": 1.65,
    "lcnet_050": 1.6,
    "tinynet_e": 2.0,
    "fbnetv3_b": 1.6,
}
LAST_NORM_GAIN = 0.4
SE_GAIN = 1.7
CAFFE_COUNT = 998.5  # what Caffe's norm divides its sums by

_LAST_NORMS = ("bn3.weight", "conv3.bn.weight", "1x1_increase/bn/scale[0]")
_SE_PARTS = ("se.fc", "se.conv_", "se_module.fc", "_down[", "_up[")


def uniform(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers of -1 (included) to 1, spread evenly: a hash of the name and of each index.

    Args:
        name: Any text; another name gives other numbers.
        shape: Shape of the result.

    Returns:
        float32 array.
    """
    count = int(np.prod(shape))
    x = np.arange(count, dtype=np.uint32)
    x += np.uint32(zlib.crc32(name.encode()))
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        x ^= x >> np.uint32(shift)
        x *= np.uint32(factor)
    x ^= x >> np.uint32(16)
    # 24 bits are what a float32 holds exactly
    return ((x >> np.uint32(8)).astype(np.float32) * np.float32(2**-23) - np.float32(1)).reshape(shape)


def fill(name: str, shape: tuple[int, ...], fan_in: int | None = None, gain: float | None = None) -> np.ndarray:
    """The value of one tensor of a checkpoint.

    Scales keep a network of 150 layers finite, and let the gates of SE blocks differ visibly.

    Args:
        name: The tensor's name in its checkpoint: torch's, or Caffe's layer and blob number.
        shape: Its shape there; kernels have the output channels first.
        fan_in: Numbers that enter one output; default: those of a kernel of this shape.
        gain: Of kernels outside SE blocks; default: by the name.

    Returns:
        float32 array.
    """
    values = uniform(name, shape)
    if name.endswith("/bn[2]"):
        return np.full(shape, CAFFE_COUNT, np.float32)
    if name.endswith("running_var"):
        return 1 + np.float32(0.2) * values
    if name.endswith("/bn[1]"):
        return np.float32(CAFFE_COUNT) * (1 + np.float32(0.2) * values)
    if name.endswith("/bn[0]"):
        return np.float32(0.1 * CAFFE_COUNT) * values
    if len(shape) == 1:
        is_scale = name.endswith((".weight", "/scale[0]"))
        scale = LAST_NORM_GAIN if name.endswith(_LAST_NORMS) else 1
        return np.float32(scale) * ((1 if is_scale else 0) + np.float32(0.1) * values)
    gain = gain or next((gain for start, gain in GAINS.items() if name.startswith(start)), KERNEL_GAIN)
    if any(part in name for part in _SE_PARTS):
        gain = SE_GAIN
    fan_in = fan_in or int(np.prod(shape[1:]))
    return np.float32(gain * np.sqrt(3 / fan_in)) * values


def images(size: tuple[int, int], batch: int = 2) -> np.ndarray:
    """A batch of normalized images: noise around a color of their own, which deep layers do not average away.

    Args:
        size: Height and width in pixels.
        batch: Number of images.

    Returns:
        float32 array of shape (batch, 3, height, width), of -3 to 3.
    """
    shape = (batch, 3, *size)
    return uniform(f"noise {shape}", shape) + np.float32(2) * uniform("colours", (batch, 3, 1, 1))


def thin(values: np.ndarray) -> np.ndarray:
    """What a golden keeps of gates (batch, channels) or of features (batch, channels, height, width)."""
    return values[:, ::7] if values.ndim == 2 else values[:, ::14, ::2, ::2]


def thin_image(image: np.ndarray) -> np.ndarray:
    """What a golden keeps of an image (height, width, channels): every third pixel, fewer of large ones."""
    step = 3 if len(image) <= 256 else len(image) // 64
    return image[::step, ::step]


def digest_of_shapes(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """A digest of tensors' names and shapes, in any order.

    Args:
        shapes: Shape of each tensor, by its name.

    Returns:
        16 hexadecimal digits.
    """
    lines = sorted(f"{name} {'x'.join(map(str, shape))}" for name, shape in shapes.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
