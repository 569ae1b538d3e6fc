"""What the most expensive files of at most 1 MB cost: less than 500 MB of memory, in Python and in a served graph."""

from __future__ import annotations

import json

import numpy as np
import pytest
from photos import JPEG, PHOTO, animated, encoded, png, resized_bmp, resized_gif, resized_jpeg
from PIL import Image, PngImagePlugin

SIDE = 4096  # squared, as many pixels as any file may have

CHILD = """
import io, json, pathlib, sys, warnings
warnings.simplefilter("ignore")
import tensorflow as tf
import se_keras
from se_keras.export.image_bytes import decoded, prepared_images, resized_and_cropped

record = se_keras.Preprocessing()
prepare = lambda file: resized_and_cropped(decoded(file), record)
serve = tf.function(lambda files: prepared_images(files, prepare)[1], autograph=False)

def memory(name):
    for line in open("/proc/self/status"):
        if line.startswith(name):
            return int(line.split()[1]) / 1000

def peak(call):
    open("/proc/self/clear_refs", "w").write("5")
    call()
    return memory("VmHWM") - baseline

def attempt(path):
    try:
        se_keras.preprocess(path, record)
    except ValueError:
        pass

folder = pathlib.Path({folder!r})
peaks = {{}}
for consumer in (lambda path: attempt(path), lambda path: serve(tf.constant([path.read_bytes()]))):
    consumer(folder / "ordinary.jpg")
    baseline = memory("VmRSS")
    for path in sorted(folder.iterdir()):
        peaks.setdefault(path.name, []).append(peak(lambda: consumer(path)))
print(json.dumps(peaks))
"""


def large(mode, file_format, **options):
    color = {"RGB": (9, 99, 199), "RGBA": (9, 99, 199, 50), "CMYK": (9, 99, 199, 50), "L": 99, "F": 0.5, "I;16": 999}[
        mode
    ]
    if mode == "I;16":
        return encoded(Image.fromarray(np.full((SIDE, SIDE), color, "uint16")), file_format, **options)
    return encoded(Image.new(mode, (SIDE, SIDE), color), file_format, **options)


def turned(orientation=7):
    data = Image.Exif()
    data[0x0112] = orientation
    return data


def with_text(size):
    chunk = PngImagePlugin.PngInfo()
    chunk.add_text("Comment", "x" * size, zip=True)
    return encoded(PHOTO, "PNG", pnginfo=chunk)


def files():
    shades = [Image.new("L", (SIDE, SIDE), shade) for shade in range(20)]
    return {
        "ordinary.jpg": JPEG,
        "row.png": png(20_000, 1),
        "longer_row.png": png(1_000_000, 1),
        "row.jpg": resized_jpeg(JPEG, 65_000, 1),
        "bomb.png": png(13_000, 13_000),
        "panorama.png": png(40_000, 400, 8, 2),
        "tower.png": png(400, 40_000, 8, 2),
        "turned.png": large("RGBA", "PNG", exif=turned()),
        "deep.png": png(SIDE, SIDE, 16, 6),
        "deep_gray.png": png(SIDE, SIDE, 16, 0),
        "progressive.jpg": large("RGB", "JPEG", progressive=True, exif=turned(), subsampling=0),
        "cmyk.jpg": large("CMYK", "JPEG", progressive=True, exif=turned(5)),
        "lossless.webp": large("RGBA", "WEBP", lossless=True, exif=turned()),
        "lossy.webp": large("RGB", "WEBP"),
        "deflated.tif": large("RGBA", "TIFF", compression="tiff_adobe_deflate"),
        "float.tif": large("F", "TIFF", compression="tiff_adobe_deflate"),
        "group4.tif": encoded(Image.new("1", (SIDE, SIDE)), "TIFF", compression="group4"),
        "moving.gif": animated(3_000),
        "large.gif": large("L", "GIF", save_all=True, append_images=shades),
        "claim.gif": resized_gif(65_000, 65_000),
        "claim.bmp": resized_bmp(30_000, 30_000),
        "claim.jpg": resized_jpeg(JPEG, 60_000, 60_000),
        "text.png": with_text(500_000_000 // 8),
    }


@pytest.mark.slow
def test_no_small_file_takes_half_a_gigabyte(tmp_path, run_python):
    for name, contents in files().items():
        (tmp_path / name).write_bytes(contents)
        assert len(contents) <= 1_000_000, name
    peaks = json.loads(run_python(CHILD.format(folder=str(tmp_path))).splitlines()[-1])
    print(peaks)
    assert {name: values for name, values in peaks.items() if max(values) > 500} == {}
