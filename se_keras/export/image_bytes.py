"""Conversion of image file bytes to a network's input, as TensorFlow operations that a SavedModel can contain."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from se_keras.export.image_headers import DAMAGED, HEAD, first_frame, header_fault, is_kind
from se_keras.images.record import Preprocessing

_DECODED_AT_ONCE = 4  # images of a batch


@dataclasses.dataclass(frozen=True)
class Photos:
    """A conversion from the bytes of a photo to an input of a network.

    Args:
        record: How to resize and crop. None: stretch both sides.
        size: Height and width of the input.
        is_normalized: Whether to apply the mean and standard deviation of the record.
        dtype: Dtype of the input.
    """

    record: Preprocessing | None
    size: tuple[int, int]
    is_normalized: bool
    dtype: str

    def __call__(self, contents: Any) -> Any:
        """Converts a scalar string tensor to a tensor of shape (*size, 3)."""
        import tensorflow as tf

        image = decoded(contents)
        image = stretched(image, self.size) if self.record is None else resized_and_cropped(image, self.record)
        if self.record is not None and self.is_normalized:
            image = (image / 255 - self.record.mean) / self.record.std
        return tf.cast(image, self.dtype)


def prepared_images(contents: Any, prepare: Callable[[Any], Any]) -> tuple[Any, Any]:
    """Prepares the images of a batch; a file that cannot be decoded does not affect the others.

    On damaged bytes, TensorFlow's decoders abort the whole graph. A `tf.data` pipeline inside the graph drops the
    element instead.

    Args:
        contents: String tensor of shape (batch,): the bytes of files.
        prepare: Converts the bytes of one file that passes `header_fault` to a tensor of fixed shape.

    Returns:
        The images, with zeros for a file that cannot be decoded; and for each file the reason, or "".
    """
    import tensorflow as tf

    like = tf.function(prepare, autograph=False).get_concrete_function(tf.TensorSpec((), tf.string)).outputs[0]
    blank = tf.zeros(like.shape, like.dtype)

    def prepared(index: Any, file: Any) -> Any:
        reason = header_fault(file)
        return index, reason, tf.cond(tf.equal(reason, ""), lambda: prepare(file), lambda: tf.zeros_like(blank))

    count = tf.shape(contents)[0]
    rows = tf.data.Dataset.from_tensor_slices((tf.range(count), contents))
    rows = rows.map(tf.autograph.experimental.do_not_convert(prepared), num_parallel_calls=_DECODED_AT_ONCE)
    # An extra row, because all others may be dropped.
    rows = rows.ignore_errors().concatenate(tf.data.Dataset.from_tensors((count, tf.constant(""), blank)))
    batch = rows.with_options(_plain_options()).batch(tf.cast(count + 1, tf.int64))
    index, reason, images = batch.get_single_element()
    status = tf.tensor_scatter_nd_update(tf.fill([count + 1], DAMAGED), index[:, None], reason)
    shape = tf.concat([[count + 1], like.shape], axis=0)
    images = tf.ensure_shape(tf.scatter_nd(index[:, None], images, shape)[:count], (None, *like.shape))
    return images, status[:count]


def _plain_options() -> Any:
    import tensorflow as tf

    options = tf.data.Options()
    options.autotune.enabled = False  # a request is too short for tuning
    options.experimental_optimization.apply_default_optimizations = False
    options.deterministic = False
    return options


def decoded(contents: Any) -> Any:
    """Decodes one image to upright RGB, as `images.reading.load_image` does.

    Args:
        contents: Scalar string tensor: the bytes of a JPEG, PNG, BMP, or GIF file that passes `header_fault`.

    Returns:
        uint8 tensor of shape (height, width, 3). Gray becomes RGB, transparency is dropped, a GIF yields its first
        frame, and a JPEG or PNG is turned upright according to EXIF data in its first `HEAD` bytes; the orientation in
        XMP or in a PNG's raw profile is ignored. Evaluating it on other bytes raises TensorFlow's InvalidArgumentError.
    """
    import tensorflow as tf

    image = tf.cond(
        is_kind(contents, "JPEG"),
        # The fast transform, TensorFlow's default, differs from other decoders by several levels.
        lambda: tf.io.decode_jpeg(contents, channels=3, dct_method="INTEGER_ACCURATE"),
        lambda: tf.io.decode_image(_one_frame(contents), channels=3, expand_animations=False),
    )
    return _upright(tf.ensure_shape(image, (None, None, 3)), exif_orientation(contents))


def _one_frame(contents: Any) -> Any:
    import tensorflow as tf

    def cut() -> Any:
        return tf.strings.join([tf.strings.substr(contents, 0, first_frame(contents)[1]), b";"])

    return tf.cond(is_kind(contents, "GIF"), cut, lambda: contents)


def exif_orientation(contents: Any) -> Any:
    """Reads the EXIF orientation of a JPEG or PNG.

    Args:
        contents: Scalar string tensor: the bytes of an image file.

    Returns:
        Scalar int32 tensor: 1 to 8 as in the EXIF standard; 0 if the file has none, or its EXIF data is damaged.
    """
    import tensorflow as tf

    is_jpeg = is_kind(contents, "JPEG")
    is_known = is_jpeg | is_kind(contents, "PNG")
    head = tf.cond(is_known, lambda: tf.strings.substr(contents, 0, HEAD), lambda: tf.constant(b""))
    read = tf.cast(tf.io.decode_raw(head, tf.uint8), tf.int32)
    count = tf.size(read)
    # Zeros after the end, which have no meaning below, make every lookup safe.
    data = tf.concat([read, tf.zeros([64], tf.int32)], axis=0)

    def byte(position: Any) -> Any:
        return tf.gather(data, tf.clip_by_value(position, 0, count + 63))

    def short(position: Any) -> Any:
        first, second = byte(position), byte(position + 1)
        return tf.where(is_little_endian, first + 256 * second, 256 * first + second)

    def begins(marker: bytes) -> Any:
        found = tf.reduce_all([data[i : count + i] == value for i, value in enumerate(marker)], axis=0)
        return len(marker) + tf.reduce_min(tf.concat([tf.where(found)[:, 0], [tf.cast(count, tf.int64)]], axis=0))

    begin = tf.cast(tf.cond(is_jpeg, lambda: begins(b"Exif\0\0"), lambda: begins(b"eXIf")), tf.int32)
    is_little_endian = tf.equal(byte(begin), ord("I"))
    is_exif = tf.reduce_any([tf.reduce_all(byte(begin + tf.range(4)) == list(order)) for order in (b"II*\0", b"MM\0*")])
    low, high = tf.where(is_little_endian, 4, 6), tf.where(is_little_endian, 6, 4)
    # A distant directory is not in the head: its high half would only overflow.
    directory = tf.where(is_exif & tf.equal(short(begin + high), 0), begin + short(begin + low), count)
    entries = directory + 2 + 12 * tf.range(tf.minimum(short(directory), HEAD // 12))
    is_orientation = tf.equal(short(entries), 0x0112)
    value = tf.reduce_max(tf.concat([tf.boolean_mask(short(entries + 8), is_orientation), [0]], axis=0))
    return tf.where(value <= 8, value, 0)


def _upright(image: Any, orientation: Any) -> Any:
    import tensorflow as tf

    def is_one_of(*codes: int) -> Any:
        return tf.reduce_any(tf.equal(orientation, codes))

    # Each of the eight is an optional transposition, then an optional reversal of rows, columns, or both.
    image = tf.transpose(image, tf.where(orientation >= 5, [1, 0, 2], [0, 1, 2]))
    return tf.reverse(image, tf.boolean_mask([0, 1], tf.stack([is_one_of(3, 4, 7, 8), is_one_of(2, 3, 6, 7)])))


def resized_and_cropped(image: Any, record: Preprocessing) -> Any:
    """Resizes the shorter side with antialiasing and crops the center, as `preprocess` does.

    Args:
        image: Tensor of shape (height, width, 3), 0 to 255.
        record: The size in pixels, the crop, and the interpolation; mean and std are not used.

    Returns:
        Float32 tensor of shape (height, width, 3) as in the record, with integer values from 0 to 255.
    """
    import tensorflow as tf

    size = record.height_width
    old = tf.cast(tf.shape(image)[:2], tf.float64)
    scale = tf.reduce_max(tf.constant([math.floor(side / record.crop) for side in size], tf.float64) / old)
    new = tf.maximum(tf.cast(old * scale + 1e-6, tf.int32), size)
    return _resampled(image, new, size, record.interpolation)


def stretched(image: Any, size: tuple[int, int]) -> Any:
    """Resizes both sides with antialiasing, without keeping the aspect ratio.

    Args:
        image: Tensor of shape (height, width, 3), 0 to 255.
        size: New height and width in pixels.

    Returns:
        Float32 tensor of shape (*size, 3), with integer values from 0 to 255.
    """
    import tensorflow as tf

    return _resampled(image, tf.constant(size), size, "bilinear")


def _resampled(image: Any, new: Any, size: tuple[int, int], interpolation: str) -> Any:
    """Returns the central `size` of the image resized to `new`, and computes only that part."""
    import tensorflow as tf

    kernel, reach = {"bilinear": ("triangle", 1.0), "bicubic": ("keyscubic", 2.0)}[interpolation]
    old = tf.shape(image)[:2]
    scale = tf.cast(new, tf.float32) / tf.cast(old, tf.float32)
    begin = tf.cast(tf.round((new - size) / 2), tf.float32)
    margin = reach * tf.maximum(1 / scale, 1.0) + 1
    first = tf.maximum(tf.cast(begin / scale - margin, tf.int32), 0)
    last = tf.minimum(tf.cast((begin + tf.cast(size, tf.float32)) / scale + margin, tf.int32) + 1, old)
    image = image[first[0] : last[0], first[1] : last[1]]
    translation = tf.cast(first, tf.float32) * scale - begin
    # One side at a time, rounded to integers after each, as Pillow does: bicubic overshoots, and clipping between the
    # two changes hard edges by up to 15 levels.
    for across in (True, False):
        image = tf.raw_ops.ScaleAndTranslate(
            images=image[None],
            size=[tf.shape(image)[0], size[1]] if across else size,
            scale=tf.where([not across, across], scale, 1.0),
            translation=tf.where([not across, across], translation, 0.0),
            kernel_type=kernel,
            antialias=True,
        )[0]
        image = tf.clip_by_value(tf.floor(image + 0.5), 0.0, 255.0)
    return tf.ensure_shape(image, (*size, 3))
