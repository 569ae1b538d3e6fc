"""Encoded images, tiny ones: sound, damaged and hostile."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image

ROWS, COLUMNS = np.mgrid[0:24, 0:32]
PIXELS = np.stack([ROWS * 10, COLUMNS * 7, 255 - ROWS * 5 - COLUMNS * 3], axis=-1).astype("uint8")
PHOTO = Image.fromarray(PIXELS)
GRAY = PIXELS[..., 0]


def encoded(image, file_format, **options):
    stream = io.BytesIO()
    image.save(stream, file_format, **options)
    return stream.getvalue()


def exif(orientation):
    data = Image.Exif()
    data[0x0112] = orientation
    return data


def with_exif(jpeg, block):
    """A JPEG with these bytes in its EXIF segment."""
    block = b"Exif\0\0" + block
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + jpeg[2:]


def png(width, height, depth=1, color=0):
    """A PNG of one color, one that never was in memory."""
    channels = {0: 1, 2: 3, 6: 4}[color]
    row = bytes(1 + -(-width * depth * channels // 8))
    pack = zlib.compressobj(9)
    body = b"".join(pack.compress(row * 64) for _ in range(-(-height // 64))) + pack.flush()
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", body), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, data) for kind, data in chunks)


def chunk(kind, data):
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def profile(orientation):
    """EXIF data as older versions of ImageMagick write them, as text."""
    block = exif(orientation).tobytes()
    return f"Raw profile type exif\0\nexif\n{len(block):8}\n{block.hex()}\n".encode()


def resized_jpeg(contents, width, height):
    """A JPEG that claims another size in its frame header."""
    start = contents.index(b"\xff\xc0") + 5
    return contents[:start] + struct.pack(">HH", height, width) + contents[start + 4 :]


def resized_bmp(width, height):
    contents = encoded(PHOTO, "BMP")
    return contents[:18] + struct.pack("<ii", width, height) + contents[26:]


def resized_gif(width, height):
    """A GIF whose frame claims another size than its screen."""
    contents = encoded(PHOTO, "GIF")
    start = contents.index(b"\x2c\0\0\0\0") + 5
    return contents[:start] + struct.pack("<HH", width, height) + contents[start + 4 :]


def animated(frames):
    shades = [Image.new("P", PHOTO.size, index % 250) for index in range(frames)]
    return encoded(PHOTO.quantize(16), "GIF", save_all=True, append_images=shades)


def floats(low, high):
    return encoded(Image.fromarray(np.linspace(low, high, GRAY.size, dtype="float32").reshape(GRAY.shape)), "TIFF")


JPEG, PNG = encoded(PHOTO, "JPEG", quality=95), encoded(PHOTO, "PNG")

# Read everywhere, by "serve_bytes" too.
SOUND = {
    "plain.jpg": JPEG,
    "plain.png": PNG,
    "plain.gif": encoded(PHOTO, "GIF"),
    "plain.bmp": encoded(PHOTO, "BMP"),
    "clear.bmp": encoded(PHOTO.convert("RGBA"), "BMP"),
    "clear.png": encoded(PHOTO.convert("RGBA"), "PNG"),
    "palette.png": encoded(PHOTO.quantize(16), "PNG"),
    "bits.png": encoded(PHOTO.convert("1"), "PNG"),
    "gray.jpg": encoded(PHOTO.convert("L"), "JPEG"),
    "gray_alpha.png": encoded(PHOTO.convert("LA"), "PNG"),
    "deep.png": encoded(Image.fromarray(GRAY.astype("uint16") * 257), "PNG"),
    "cmyk.jpg": encoded(PHOTO.convert("CMYK"), "JPEG", quality=95),
    "progressive.jpg": encoded(PHOTO, "JPEG", progressive=True),
    "moving.gif": animated(30),
    "turned.jpg": encoded(PHOTO, "JPEG", exif=exif(6)),
    "turned.png": encoded(PHOTO, "PNG", exif=exif(8)),
    "bad_exif.jpg": with_exif(JPEG, b"no TIFF header"),
    "empty_exif.jpg": with_exif(JPEG, b""),
    "cut_exif.jpg": with_exif(JPEG, b"MM\0*\0\0\0\x08\xff\xff"),
    "other.jpg": PNG,  # content counts, not the name
}
# Read everywhere but by "serve_bytes", for which TensorFlow has no decoder.
OTHER_FORMATS = {
    "plain.webp": encoded(PHOTO, "WEBP", lossless=True),
    "plain.tif": encoded(PHOTO, "TIFF"),
    "turned.tif": encoded(PHOTO, "TIFF", exif=exif(6)),
    "plain.ppm": encoded(PHOTO, "PPM"),
    "fraction.tif": floats(0, 1),
    "float.tif": floats(0, 255),
    "integers.tif": encoded(Image.fromarray(GRAY.astype("int32")), "TIFF"),
    "odd.bmp": encoded(PHOTO.quantize(16), "BMP"),
}
END = PNG.index(b"IEND") - 4
# Read everywhere, but turned by "serve_bytes" only if the EXIF data is near the beginning.
TURNED = {
    "turned_late.png": PNG[:END] + chunk(b"eXIf", exif(6).tobytes()[6:]) + PNG[END:],
    "turned_by_profile.png": PNG[:33] + chunk(b"tEXt", profile(6)) + PNG[33:],
    "turned_by_xmp.jpg": encoded(PHOTO, "JPEG", xmp=b'<x:xmpmeta tiff:Orientation="6"/>'),
    "turned_by_xmp.tif": encoded(PHOTO, "TIFF", tiffinfo={700: b'<x:xmpmeta tiff:Orientation="6"/>'}),
}
BROKEN = {
    "empty.jpg": (b"", "empty"),
    "text.png": (b"no image", "not an image in one of the formats"),
    "postscript.jpg": (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n",
        "not an image in one of the formats",
    ),
    "cut.jpg": (JPEG[: len(JPEG) // 2], ""),
    "cut.png": (PNG[: len(PNG) // 2], ""),
    "cut.gif": (SOUND["plain.gif"][:-400], ""),
    "long.png": (png(20_000, 1), "100 times as long as the other; it has 20000x1 pixels"),
    "longer.png": (png(1_000_000, 1), "it has 1000000x1 pixels"),
    "tall.jpg": (resized_jpeg(JPEG, 1, 65_000), "it has 1x65000 pixels"),
    "bomb.png": (png(13_000, 13_000), "may hold at most 16777216 pixels"),
    "claim.jpg": (resized_jpeg(JPEG, 9_000, 9_000), "it has 9000x9000"),
    "claim.bmp": (resized_bmp(30_000, -20_000), ""),
    "claim.gif": (resized_gif(60_000, 60_000), ""),
    "negative.tif": (floats(-1, 1), "floats must be from 0 to 1 or from 0 to 255; received -1 to 1"),
    "nan.tif": (floats(np.nan, 1), "received nan"),
    "integers.tif": (encoded(Image.fromarray(GRAY.astype("int32") * 1000), "TIFF"), "from 0 to 65,535; received 0 to"),
}
# Refused by name, so only as files.
OTHER_NAMES = {
    "phone.HEIC": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC is not supported: convert it to JPEG or PNG"),
    "camera.dng": (encoded(PHOTO, "TIFF"), "DNG is not supported: convert it to JPEG or PNG"),
    "drawing.svg": (b"<svg/>", "SVG is not supported: convert it to JPEG or PNG"),
}
