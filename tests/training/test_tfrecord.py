"""Folders of TFRecord files, written by TensorFlow: images in any order, names, parts, and what is said of bad ones."""

import io
import shutil

import numpy as np
import pytest
from PIL import Image

from se_keras.images.pixels import to_rgb
from se_keras.training import record_index
from se_keras.training.sources import open_data

tf = pytest.importorskip("tensorflow")

SYNSETS = ("n01440764", "n01443537", "n02012849")


def encoded(shade, kind="PNG"):
    stream = io.BytesIO()
    Image.new("RGB", (12, 8), (shade, 0, 255 - shade)).save(stream, kind)
    return stream.getvalue()


def feature(value):
    if isinstance(value, int):
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
    if isinstance(value, float):
        return tf.train.Feature(float_list=tf.train.FloatList(value=[value]))
    value = value.encode() if isinstance(value, str) else value
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))


def example(**values):
    entries = {f"image/{name.replace('__', '/')}": feature(value) for name, value in values.items()}
    return tf.train.Example(features=tf.train.Features(feature=entries)).SerializeToString(deterministic=True)


def imagenet_example(label, shade, **more):
    """As the scripts write them that made ImageNet's TFRecords: classes from 1, and other features around the image."""
    synset = SYNSETS[label - 1] if 1 <= label <= 3 else "n00000000"
    about = {"height": 8, "width": 12, "colorspace": "RGB", "object__bbox__xmin": 0.25, "filename": "a.JPEG"}
    about |= {"class__synset": synset, "class__label": label, "encoded": encoded(shade), **more}
    return example(**about)


def write(path, records):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)
    return path


@pytest.fixture
def imagenet(tmp_path):
    """Two files of six images for training, one of three for validation; the red of an image tells which it is."""
    folder = tmp_path / "imagenet"
    for number in range(2):
        records = [imagenet_example(1 + i % 3, 100 * number + i) for i in range(6)]
        write(folder / f"train-{number:05}-of-00002", records)
    write(folder / "validation-00000-of-00001", [imagenet_example(label, 200 + label) for label in (1, 2, 3)])
    return folder


def reds(source):
    return [int(source[index][0, 0, 0]) for index in range(len(source))]


def test_records_are_read_in_any_order(imagenet):
    data = open_data(imagenet)
    assert reds(data.train) == [*range(6), *range(100, 106)]
    assert reds(data.validation) == [201, 202, 203]
    assert data.train[7].shape == (8, 12, 3)
    assert data.train[7].dtype == np.uint8
    assert data.train.labels.tolist() == [0, 1, 2, 0, 1, 2] * 2
    assert data.train.class_names == SYNSETS
    assert data.broken == ()


def test_values_are_those_that_tensorflow_reads(tmp_path):
    # Lists that are not packed, as old writers left them, and negative and large numbers are read alike.
    for label in (0, 1, 300, 2**40, -1):
        record = example(class__label=label, encoded=encoded(7), text="x" * 300)
        span = (0, len(record))
        found = record_index.tf_example.features(record, span)
        parsed = tf.train.Example.FromString(record).features.feature
        assert found.keys() == set(parsed)
        assert record_index.tf_example.first_integer(record, found["image/class/label"]) == label
        begin, end = record_index.tf_example.first_bytes(record, found["image/encoded"])
        assert record[begin:end] == encoded(7)
        assert record_index.tf_example.first_integer(record, found["image/text"]) is None
    loose = b"\x1a\x02\x08\x05"  # an Int64List of one value, not packed
    assert record_index.tf_example.first_integer(loose, (0, 4)) == 5


def test_index_is_kept_and_made_anew_when_a_file_changes(imagenet, monkeypatch):
    first = open_data(imagenet)
    index = imagenet / record_index.INDEX_FILE
    assert index.is_file()
    scans = []
    scan = record_index._scan
    monkeypatch.setattr(record_index, "_scan", lambda file: scans.append(file.name) or scan(file))
    again = open_data(imagenet)
    assert scans == []
    assert again.train.fingerprint == first.train.fingerprint
    assert reds(again.train) == reds(first.train)
    write(imagenet / "train-00001-of-00002", [imagenet_example(1 + i % 3, 150 + i) for i in range(6)])
    changed = open_data(imagenet)
    assert len(scans) == 3
    assert reds(changed.train) == [*range(6), *range(150, 156)]
    index.write_bytes(index.read_bytes()[:100])  # an index that is damaged is no reason to stop
    assert reds(open_data(imagenet).train) == reds(changed.train)
    assert len(scans) == 6


def test_index_that_cannot_be_written_is_done_without(imagenet, monkeypatch):
    def refuse(*arguments, **options):
        raise PermissionError("read-only")

    monkeypatch.setattr("se_keras.training.kept_index.replacing", refuse)
    assert len(open_data(imagenet).train) == 12
    assert not (imagenet / record_index.INDEX_FILE).exists()


def test_images_of_all_kinds_become_rgb(tmp_path):
    turned = Image.Exif()
    turned[0x0112] = 6  # shown a quarter to the right
    kinds = {
        "gray": (Image.new("L", (12, 8), 90), "PNG", {}),
        "transparent": (Image.new("RGBA", (12, 8), (9, 8, 7, 6)), "PNG", {}),
        "deep": (Image.fromarray(np.full((8, 12), 40_000, np.uint16)), "PNG", {}),
        "moving": (Image.new("P", (12, 8), 3), "GIF", {"save_all": True, "append_images": [Image.new("P", (12, 8))]}),
        "print": (Image.new("CMYK", (12, 8), (1, 2, 3, 4)), "JPEG", {}),
        "turned": (Image.new("RGB", (12, 8), (9, 9, 9)), "JPEG", {"exif": turned}),
    }
    records, expected = [], []
    for number, (image, kind, options) in enumerate(kinds.values()):
        stream = io.BytesIO()
        image.save(stream, kind, **options)
        records.append(example(class__label=number % 2, encoded=stream.getvalue()))
        expected.append(np.asarray(to_rgb(Image.open(stream))))
    write(tmp_path / "train.tfrecord", records)
    write(tmp_path / "val.tfrecord", records)
    data = open_data(tmp_path, strict=True)
    for index, pixels in enumerate(expected):
        np.testing.assert_array_equal(data.train[index], pixels)
    assert expected[5].shape == (12, 8, 3)


def test_parts_in_folders_of_their_own(imagenet):
    for part in ("train", "validation"):
        (imagenet / part).mkdir()
        for file in imagenet.glob(f"{part}-*"):
            file.rename(imagenet / part / file.name)
    data = open_data(imagenet)
    assert (len(data.train), len(data.validation)) == (12, 3)


def test_images_are_held_back_where_no_file_is_for_validation(tmp_path):
    records = [example(class__label=i % 2, encoded=encoded(i)) for i in range(20)]
    file = write(tmp_path / "birds.tfrecord", records)
    for name in (file, tmp_path):
        data = open_data(name, validation_split=0.2)
        assert (np.bincount(data.train.labels) + np.bincount(data.validation.labels)).tolist() == [10, 10]
        assert data.train.class_names == ("0", "1")
        assert not {*reds(data.train)} & {*reds(data.validation)}
    held = reds(open_data(file).validation)
    assert held == reds(open_data(tmp_path).validation)
    write(file, records[:12])
    assert reds(open_data(file).validation) == [red for red in held if red < 12]


def test_records_of_tensorflow_datasets(tmp_path):
    def record(label):
        entries = {"image": feature(encoded(label)), "label": feature(label), "id": feature("a")}
        return tf.train.Example(features=tf.train.Features(feature=entries)).SerializeToString()

    write(tmp_path / "flowers-train.tfrecord-00000-of-00001", [record(label) for label in (0, 1, 0)])
    write(tmp_path / "flowers-test.tfrecord-00000-of-00001", [record(1)])
    (tmp_path / "label.labels.txt").write_text("daisy\nrose\n")
    (tmp_path / "dataset_info.json").write_text("{}")
    data = open_data(tmp_path)
    assert data.train.labels.tolist() == [0, 1, 0]
    assert data.validation.class_names == ("daisy", "rose")


@pytest.mark.parametrize(
    ("lines", "names"),
    [
        (["a", "b", "c"], ("a", "b", "c")),
        (["background", "a", "b", "c"], ("a", "b", "c")),
        (["0:background", "1:a", "2:b", "3:c", "4:d"], ("a", "b", "c", "d")),
    ],
    ids=["classes", "with background", "numbered"],
)
def test_names_from_a_list_beside_the_files(lines, names, imagenet):
    (imagenet / "labels.txt").write_text("\n".join(lines) + "\n")
    if len(names) == 3:
        assert open_data(imagenet).train.class_names == names
    else:
        with pytest.raises(ValueError, match="Each class needs a readable image; for training, these have none: d"):
            open_data(imagenet)


def test_a_list_that_does_not_name_all_classes_is_refused(imagenet):
    (imagenet / "labels.txt").write_text("a\nb\n")
    with pytest.raises(ValueError, match=r"labels.txt' must name the classes of all labels, 1 to 3.*2 lines"):
        open_data(imagenet)


def test_names_from_the_records_and_two_alike(tmp_path):
    texts = ("crane", "ox", "crane")
    records = [imagenet_example(1 + i % 3, i, class__text=texts[i % 3]) for i in range(6)]
    write(tmp_path / "train-00000-of-00001", records)
    assert open_data(tmp_path).train.class_names == ("crane (n01440764)", "ox", "crane (n02012849)")


def test_broken_records_are_left_out_and_listed_or_refused(imagenet):
    bad = [
        example(class__label=1, format="JPEG"),
        example(encoded=encoded(1)),
        example(class__label=1, encoded=b"no image"),
        example(class__label=1, encoded=encoded(1)[:-30]),
        b"\xff\xff\xff",
        b"",
    ]
    write(imagenet / "train-00001-of-00002", [*bad, *(imagenet_example(label, label) for label in (1, 2, 3))])
    data = open_data(imagenet)
    assert len(data.train) == 9
    places, reasons = zip(*data.broken, strict=True)
    assert [place.rsplit("/", 1)[1] for place in places] == [f"train-00001-of-00002 record {i}" for i in range(6)]
    assert reasons[0] == ("has no 'image/encoded' (or 'image'); it has image/class/label, image/format")
    assert reasons[1].startswith("has no 'image/class/label' (or 'label')")
    assert reasons[2].startswith("it is not an image in one of the formats JPEG, PNG")
    assert reasons[4] == "is not a tf.train.Example"
    assert reasons[5].endswith("it has nothing")
    with pytest.raises(ValueError, match=r"6 records cannot be read as labeled images: .*record 0: has no"):
        open_data(imagenet, strict=True)


def test_only_broken_records_are_refused(tmp_path):
    write(tmp_path / "train.tfrecord", [example(label=1, pixels=encoded(1))] * 3)
    with pytest.raises(ValueError, match=r"3 records cannot be read .*it has image/label, image/pixels"):
        open_data(tmp_path)


def cut(path, size=-10):
    path.write_bytes(path.read_bytes()[:size])


def flip(path, position):
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda file: cut(file), r"train-00001-of-00002' is truncated within record 5: it ends after \d+ bytes"),
        (lambda file: cut(file, 7), "truncated within record 0: it ends after 7 bytes"),
        (lambda file: flip(file, 2), r"the checksum of the length of record 0 \(byte 0\) is wrong"),
        (lambda file: file.write_bytes(b"\x1f\x8b" + bytes(50)), "is not a TFRecord file, is compressed, or is"),
        (lambda file: file.unlink(), "All 2 files of 'train' are needed; 1 are missing, .*train-00001-of-00002"),
    ],
    ids=["cut", "cut in a length", "damaged", "compressed", "missing"],
)
def test_damaged_files_are_named(harm, message, imagenet):
    harm(imagenet / "train-00001-of-00002")
    with pytest.raises(ValueError, match=message):
        open_data(imagenet)
    assert not (imagenet / record_index.INDEX_FILE).exists()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([], "There is no record in the 1 TFRecord files"),
        ([1, 1, 1], "At least two classes are needed; each record of .* has label 1"),
        ([2, 3, 4], "must start at 0, or at 1 if 0 is the background; received 2 to 4"),
        ([-1, 0, 1], "must start at 0.*received -1 to 1"),
        ([0, 1, 2**40], r"range from 0 to 1099511627776 in 3 records for training\. Number the classes without gaps"),
        ([0, 1, 1, 3], "Each class needs a readable image; for training, these have none: 2"),
    ],
    ids=["no record", "one class", "from 2", "negative", "far apart", "a gap"],
)
def test_labels_that_cannot_be_trained_on(labels, message, tmp_path):
    records = [example(class__label=label, encoded=encoded(1)) for label in labels]
    write(tmp_path / "train.tfrecord", records)
    if records:
        write(tmp_path / "validation.tfrecord", records[:1])
    with pytest.raises(ValueError, match=message):
        open_data(tmp_path)


def test_labels_of_validation_lie_in_those_of_training(imagenet):
    write(imagenet / "validation-00000-of-00001", [imagenet_example(4, 1)])
    with pytest.raises(
        ValueError, match=r"Labels for validation \(label 1 .* is class 0\) must be from 0 to 2.*3 to 3"
    ):
        open_data(imagenet)
    shutil.move(imagenet / "validation-00000-of-00001", imagenet / "elsewhere")
    for file in imagenet.glob("train-*"):
        file.rename(imagenet / file.name.replace("train", "test"))
    with pytest.raises(ValueError, match=r"files to train on must contain 'train'; those in .* contain test"):
        open_data(imagenet)


def test_a_file_that_became_shorter_is_named_when_it_is_read(imagenet):
    data = open_data(imagenet)
    cut(imagenet / "train-00001-of-00002", 100)
    with pytest.raises(ValueError, match=r"The image of '.*train-00001-of-00002' at byte \d+ cannot be read"):
        data.train[11]


def test_records_are_read_without_tensorflow(imagenet, run_python):
    printed = run_python(
        """
        import os, sys
        sys.modules["tensorflow"] = None  # an import of it fails
        from se_keras.training.sources import open_data
        data = open_data(os.environ["FOLDER"], verbose=0)
        print(len(data.train), data.train[3][0, 0].tolist())
        """,
        FOLDER=str(imagenet),
        KERAS_BACKEND="jax",
    )
    assert printed.split("\n")[0] == "12 [3, 0, 252]"
