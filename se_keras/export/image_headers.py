"""Checks of image headers, as TensorFlow operations: format and size.

TensorFlow's decoders allocate the size that a header states, so it is checked against `images.limits` before they run.
"""

from __future__ import annotations

from typing import Any

from se_keras.images import limits

HEAD = 4096  # bytes of a JPEG or PNG to search for EXIF data; cameras write them first
KINDS = {"JPEG": b"\xff\xd8\xff", "PNG": b"\x89PNG\r\n\x1a\n", "GIF": b"GIF8", "BMP": b"BM"}
DAMAGED = "it is damaged and cannot be decoded"
_UNKNOWN = f"it is not an image in one of the formats {', '.join(KINDS)}"
_ODD_BMP = "a BMP file must have 24 or 32 bits per pixel and no compression"
_MOST_GIF_BLOCKS = 100_000  # up to the end of the first frame; each takes one step of a loop


def is_kind(contents: Any, kind: str) -> Any:
    """Returns whether bytes begin like files of a given kind.

    Args:
        contents: Scalar string tensor.
        kind: One of `KINDS`.

    Returns:
        Scalar bool tensor.
    """
    import tensorflow as tf

    return tf.equal(tf.strings.substr(contents, 0, len(KINDS[kind])), KINDS[kind])


def header_fault(contents: Any) -> Any:
    """Returns the reason not to decode a file, judging by its header.

    Args:
        contents: Scalar string tensor: the bytes of a file.

    Returns:
        Scalar string tensor: the reason in the words of `images.limits.size_fault`, or "". A damaged JPEG header
        raises TensorFlow's InvalidArgumentError.
    """
    import tensorflow as tf

    width, height = tf.unstack(_size(contents))
    length = tf.strings.length(contents)
    allowed = tf.clip_by_value(
        limits.PIXELS_PER_BYTE * tf.cast(length, tf.int64), limits.ANY_FILE_PIXELS, limits.MOST_PIXELS
    )
    size = tf.strings.join([tf.strings.as_string(width), "x", tf.strings.as_string(height)])
    elongated = f"one side may be at most {limits.MOST_ELONGATED} times as long as the other; it has "
    large = ["a file of ", tf.strings.as_string(length), " bytes may hold at most ", tf.strings.as_string(allowed)]
    checks = [
        (_is_unknown(contents), _UNKNOWN),
        (_is_odd_bmp(contents), _ODD_BMP),
        (_is_cut_gif(contents), DAMAGED),
        (tf.minimum(width, height) < 1, tf.strings.join(["it has ", size, " pixels"])),
        (
            tf.maximum(width, height) > limits.MOST_ELONGATED * tf.minimum(width, height),
            tf.strings.join([elongated, size, " pixels. Cut it into parts"]),
        ),
        (width * height > allowed, tf.strings.join([*large, " pixels; it has ", size, ". Make it smaller"])),
    ]
    reason = tf.constant("")
    for is_wrong, text in reversed(checks):
        reason = tf.where(is_wrong, text, reason)
    return reason


def _is_cut_gif(contents: Any) -> Any:
    import tensorflow as tf

    found = tf.cond(is_kind(contents, "GIF"), lambda: first_frame(contents)[0], lambda: tf.constant(-1))
    return tf.equal(found, tf.strings.length(contents))


def _is_unknown(contents: Any) -> Any:
    import tensorflow as tf

    return ~tf.reduce_any([is_kind(contents, kind) for kind in KINDS])


def _is_odd_bmp(contents: Any) -> Any:
    import tensorflow as tf

    head = _head(contents)
    is_plain = tf.reduce_any(tf.equal(_little(head, 28, 2), [24, 32])) & tf.equal(_little(head, 30, 4), 0)
    return is_kind(contents, "BMP") & ~is_plain


def _size(contents: Any) -> Any:
    """Returns width and height, int64; 1x1 if the bytes are not an image."""
    import tensorflow as tf

    head = _head(contents)
    sizes = {
        "JPEG": lambda: tf.cast(tf.image.extract_jpeg_shape(contents), tf.int64)[1::-1],
        "PNG": lambda: tf.stack([_big(head, 16, 4), _big(head, 20, 4)]),
        "GIF": lambda: tf.maximum(tf.stack([_little(head, 6, 2), _little(head, 8, 2)]), _frame_size(contents)),
        "BMP": lambda: tf.abs(tf.stack([_signed(_little(head, 18, 4)), _signed(_little(head, 22, 4))])),
    }
    cases = [(is_kind(contents, kind), size) for kind, size in sizes.items()]
    return tf.ensure_shape(tf.case(cases, default=lambda: tf.ones([2], tf.int64)), (2,))


def _frame_size(contents: Any) -> Any:
    import tensorflow as tf

    head = _head(tf.strings.substr(contents, first_frame(contents)[0], 10))
    return tf.stack([_little(head, 5, 2), _little(head, 7, 2)])


def first_frame(contents: Any) -> Any:
    """Locates the first frame of a GIF; TensorFlow's decoder would hold all frames in memory, however many.

    Args:
        contents: Scalar string tensor: the bytes of a GIF.

    Returns:
        int32 tensor of shape (2,): the positions of its descriptor and after its last byte; both are the length of the
        file if there is no frame.
    """
    import tensorflow as tf

    count = tf.strings.length(contents)
    data = tf.concat([tf.io.decode_raw(contents, tf.uint8), tf.zeros([16], tf.uint8)], axis=0)

    def byte(position: Any) -> Any:
        return tf.cast(data[tf.minimum(position, count + 15)], tf.int32)

    def table(position: Any) -> Any:  # size of a color table, 0 if the flags at the position indicate none
        return tf.where(byte(position) >= 128, 3 * 2 ** (1 + byte(position) % 8), 0)

    def goes_on(position: Any, begin: Any, is_inside: Any) -> Any:
        return (position < count) & (is_inside | (begin == count))

    def step(position: Any, begin: Any, is_inside: Any) -> Any:
        kind = byte(position)
        is_frame, is_extension = ~is_inside & (kind == 0x2C), ~is_inside & (kind == 0x21)
        ahead = tf.where(is_frame, 11 + table(position + 9), tf.where(is_extension, 2, count))
        after = position + tf.where(is_inside, 1 + kind, ahead)
        return after, tf.where(is_frame, position, begin), tf.where(is_inside, kind > 0, is_frame | is_extension)

    start = [13 + table(10), count, tf.constant(False)]
    end, begin, is_inside = tf.while_loop(goes_on, step, start, maximum_iterations=_MOST_GIF_BLOCKS)
    is_whole = (begin < count) & ~is_inside & (end <= count)
    return tf.where(is_whole, tf.stack([begin, end]), tf.fill([2], count))


def _head(contents: Any) -> Any:
    """Returns the first 64 bytes as int64, padded with zeros if the file is shorter."""
    import tensorflow as tf

    read = tf.cast(tf.io.decode_raw(tf.strings.substr(contents, 0, 64), tf.uint8), tf.int64)
    return tf.concat([read, tf.zeros([64], tf.int64)], axis=0)


def _little(head: Any, position: int, count: int) -> Any:
    return sum(head[position + index] * 256**index for index in range(count))


def _big(head: Any, position: int, count: int) -> Any:
    return sum(head[position + index] * 256 ** (count - 1 - index) for index in range(count))


def _signed(value: Any) -> Any:
    import tensorflow as tf

    return tf.where(value >= 2**31, value - 2**32, value)
