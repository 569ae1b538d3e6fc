"""From the bytes of a JPEG or PNG to a network's input, as TensorFlow operations that a SavedModel can hold."""

from __future__ import annotations

import math
from typing import Any

from se_keras.images.record import Preprocessing

HEAD = 4096  # bytes of a JPEG in which its EXIF data begin; cameras write them first


def decoded(contents: Any) -> Any:
    """Decodes one image to upright RGB, as `preprocessing.load_image` does.

    Args:
        contents: Scalar string tensor: the bytes of a JPEG, PNG, BMP or one-frame GIF file.

    Returns:
        uint8 tensor of shape (height, width, 3). Grey becomes RGB, transparency is dropped, and a
        JPEG is turned upright as its EXIF data say. Running it on other bytes ends in TensorFlow's
        InvalidArgumentError.
    """
    import tensorflow as tf

    image = tf.cond(
        tf.io.is_jpeg(contents),
        # The fast transform, TensorFlow's default, is off by several levels from other decoders.
        lambda: tf.io.decode_jpeg(contents, channels=3, dct_method="INTEGER_ACCURATE"),
        lambda: tf.io.decode_image(contents, channels=3, expand_animations=False),
    )
    return _upright(tf.ensure_shape(image, (None, None, 3)), exif_orientation(contents))


def exif_orientation(contents: Any) -> Any:
    """The orientation that a camera wrote into a JPEG.

    Args:
        contents: Scalar string tensor: the bytes of an image file.

    Returns:
        Scalar int32 tensor: 1 to 8 as in the EXIF standard; 0 where the file states none.
    """
    import tensorflow as tf

    head = tf.cond(tf.io.is_jpeg(contents), lambda: tf.strings.substr(contents, 0, HEAD), lambda: tf.constant(b""))
    read = tf.cast(tf.io.decode_raw(head, tf.uint8), tf.int32)
    count = tf.size(read)
    # Zeros behind the end, which mean nothing anywhere below, make every look-up safe.
    data = tf.concat([read, tf.zeros([64], tf.int32)], axis=0)

    def byte(position: Any) -> Any:
        return tf.gather(data, tf.clip_by_value(position, 0, count + 63))

    def short(position: Any) -> Any:
        first, second = byte(position), byte(position + 1)
        return tf.where(is_little_endian, first + 256 * second, 256 * first + second)

    starts = tf.range(count)
    is_marker = tf.reduce_all(
        [tf.equal(byte(starts + offset), value) for offset, value in enumerate(b"Exif\0\0")], axis=0
    )
    begin = 6 + tf.reduce_min(tf.concat([tf.boolean_mask(starts, is_marker), [count]], axis=0))
    is_little_endian = tf.equal(byte(begin), ord("I"))
    low, high = tf.where(is_little_endian, 4, 6), tf.where(is_little_endian, 6, 4)
    # A directory far away is not in the head: its high half would only overflow.
    directory = tf.where(tf.equal(short(begin + high), 0), begin + short(begin + low), count)
    entries = directory + 2 + 12 * tf.range(tf.minimum(short(directory), HEAD // 12))
    is_orientation = tf.equal(short(entries), 0x0112)
    value = tf.reduce_max(tf.concat([tf.boolean_mask(short(entries + 8), is_orientation), [0]], axis=0))
    return tf.where(value <= 8, value, 0)


def _upright(image: Any, orientation: Any) -> Any:
    import tensorflow as tf

    def is_one_of(*codes: int) -> Any:
        return tf.reduce_any(tf.equal(orientation, codes))

    # Each of the eight is a transposition or none, and then a reversal of rows, columns, both or none.
    image = tf.transpose(image, tf.where(orientation >= 5, [1, 0, 2], [0, 1, 2]))
    return tf.reverse(image, tf.boolean_mask([0, 1], tf.stack([is_one_of(3, 4, 7, 8), is_one_of(2, 3, 6, 7)])))


def resized_and_cropped(image: Any, record: Preprocessing) -> Any:
    """Resizes the shorter side with antialiasing and crops the centre, as `preprocess` does.

    Args:
        image: Tensor of shape (height, width, 3), 0 to 255.
        record: The size in pixels, the crop and the interpolation; mean and std are not used.

    Returns:
        Float32 tensor of shape (size, size, 3), whole numbers from 0 to 255.
    """
    import tensorflow as tf

    size = record.height_width
    old = tf.cast(tf.shape(image)[:2], tf.float64)
    scale = tf.reduce_max(tf.constant([math.floor(side / record.crop) for side in size], tf.float64) / old)
    new = tf.maximum(tf.cast(old * scale + 1e-6, tf.int32), size)
    image = _resized(image, new, record.interpolation)
    top, left = tf.unstack(tf.cast(tf.round((new - size) / 2), tf.int32))
    return tf.ensure_shape(image[top : top + size[0], left : left + size[1]], (*size, 3))


def stretched(image: Any, size: tuple[int, int]) -> Any:
    """Resizes both sides with antialiasing, whatever that does to the aspect ratio.

    Args:
        image: Tensor of shape (height, width, 3), 0 to 255.
        size: New height and width in pixels.

    Returns:
        Float32 tensor of shape (*size, 3), whole numbers from 0 to 255.
    """
    import tensorflow as tf

    return tf.ensure_shape(_resized(image, size, "bilinear"), (*size, 3))


def _resized(image: Any, size: Any, interpolation: str) -> Any:
    import tensorflow as tf

    # One side after the other and whole levels after each, as Pillow does: bicubic overshoots, and what is cut
    # off between the two makes a difference of up to 15 levels at hard edges.
    for sides in ((tf.shape(image)[0], size[1]), size):
        image = tf.image.resize(image, sides, interpolation, antialias=True)
        image = tf.clip_by_value(tf.floor(image + 0.5), 0.0, 255.0)
    return image
