"""Names of classes: in files of every encoding, in the order of the outputs, and on a network's answers."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from se_keras import decode_predictions
from se_keras.class_names import check_class_names, imagenet_classes
from se_keras.class_names_file import caption, class_names_in, class_names_text, read_class_names, write_class_names

# Files.

ODD = [
    " daisy",
    "tulip ",
    " ",
    "",
    "ro\nses",
    "ro\r\nses",
    "a\u2028b",
    "a\x85b\x0bc\x1cd",
    "tab\tbed",
    '"quoted"',
    '"',
    "\ufeffmark",
    "\N{NO-BREAK SPACE}",
]
ORDINARY = [
    "daisy",
    "C:\\new\\roses",
    "L\N{LATIN SMALL LETTER O WITH DIAERESIS}wenzahn",
    "a \\u0020",
    '5" pot',
    "[/x]",
    "null",
]


def test_every_name_survives_a_file(tmp_path):
    write_class_names(tmp_path / "labels.txt", [*ODD, *ORDINARY])
    assert read_class_names(tmp_path / "labels.txt") == [*ODD, *ORDINARY]


@pytest.mark.parametrize("name", [*ODD, *ORDINARY])
def test_a_name_is_one_line_also_for_others(name):
    assert len(class_names_text([name]).splitlines()) == 1
    assert class_names_in(class_names_text([name]).encode(), "file") == [name]


def test_ordinary_names_stand_as_they_are():
    assert class_names_text(ORDINARY).split("\n") == [*ORDINARY, ""]
    assert class_names_text([" daisy", "ro\nses"]) == '" daisy"\n"ro\\nses"\n'


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
def test_files_of_others_are_read(tmp_path, encoding, ends):
    file = tmp_path / "labels.txt"
    file.write_bytes(ends.join(["daisy", "  L\xf6wenzahn ", '"a" or "b"', "", " ", ""]).encode(encoding))
    assert read_class_names(file) == ["daisy", "L\xf6wenzahn", '"a" or "b"']


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("L\xf6we\n".encode("latin-1"), r"must be UTF-8, or UTF-16.*labels\.txt' is not, at byte 1\. Save it as UTF-8"),
        ("ant\nbee\n".encode("utf-16-le"), r"labels\.txt' is not, at line 1\. Save"),
        (b"\xff\xfea", r"must be UTF-8, or UTF-16.*labels\.txt' is not, at byte"),
        (b"ant\n\nbee\n", r"labels\.txt' must name a class; line 2 is blank"),
        (b"ant\nbee\nant\n", r"its own name; the names in .*labels\.txt' have 'ant' for the classes 0, 2\. Add"),
        (b"\n \n", r"labels\.txt' must name at least one class"),
    ],
)
def test_unclear_file_is_refused_by_name(tmp_path, content, message):
    file = tmp_path / "labels.txt"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_class_names(file)
    assert "\n" not in str(caught.value)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file of class names at '.*none\.txt'"):
        read_class_names(tmp_path / "none.txt")


@pytest.mark.parametrize(
    ("names", "classes", "message"),
    [
        ("abc", 3, "must be a sequence of strings; received `class_names` as one string, 'abc'"),
        (None, 3, "must be a sequence of strings; received `class_names` as None. Pass a list with one name per class"),
        (3, 3, "received `class_names` as 3"),
        (["a", 1], 2, "`class_names` have 1 for class 1"),
        (["a", "\udcff"], 2, "string that UTF-8 can encode"),
        (["a", "b"], 3, r"one name for each of the 3 classes; received 2 \(`class_names`\)"),
        (["a"], 2, r"received 1 \(`class_names`\)\. One output column .* second of two classes, and takes two"),
        (["a", "b", "a"], 3, "`class_names` have 'a' for the classes 0, 2"),
    ],
)
def test_names_that_do_not_fit_are_refused(names, classes, message):
    with pytest.raises(ValueError, match=message):
        check_class_names(names, classes)


def test_caption_shows_a_name_as_it_is():
    assert caption("daisy") == "daisy"
    assert caption("$5 and $6") == r"\$5 and \$6"
    assert caption("_noise") == '"_noise"'  # matplotlib leaves labels that begin so out of a legend
    assert caption("ro\nses") == '"ro\\nses"'


# Answers.


def test_imagenet_classes_are_a_thousand_in_sorted_order():
    labels = imagenet_classes()
    wnids = [wnid for wnid, _ in labels]
    assert len(labels) == len(set(wnids)) == 1000
    assert wnids == sorted(wnids)
    assert all(len(wnid) == 9 and wnid[0] == "n" and wnid[1:].isdigit() for wnid in wnids)
    assert all(name and name == name.strip() for _, name in labels)
    known = {0: "n01440764", 207: "n02099601", 281: "n02123045", 817: "n04285008", 999: "n15075141"}
    assert {index: wnids[index] for index in known} == known
    assert len({name for _, name in labels}) == 1000
    assert [labels[index][1] for index in (0, 207)] == ["tench", "golden retriever"]


def test_decode_predictions_sorts_and_cuts():
    probabilities = np.zeros((2, 1000))
    probabilities[0, [0, 207]] = 0.25, 0.75
    probabilities[1, 999] = 1
    first, second = decode_predictions(probabilities, top=2)
    assert first == [("n02099601", "golden retriever", 0.75), ("n01440764", "tench", 0.25)]
    assert second[0][:1] == ("n15075141",)
    assert [len(row) for row in decode_predictions(probabilities)] == [5, 5]
    assert all(isinstance(value, float) for _, _, value in first)


def test_decode_predictions_with_labels_of_ones_own():
    probabilities = keras.ops.convert_to_tensor([[0.25, 0.5, 0.25]])
    assert decode_predictions(probabilities, class_names=["cat", "dog", "eel"], top=9) == [
        [("1", "dog", 0.5), ("0", "cat", 0.25), ("2", "eel", 0.25)]
    ]


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((2, 10), {}, r"must have shape \(batch, 1000\).*received shape \(2, 10\)\. Pass the names of your own"),
        ((1000,), {}, r"must have shape \(batch, 1000\).*received shape \(1000,\)"),
        (
            (2, 3),
            {"class_names": ["a", "b"]},
            r"one name for each of the 3 classes; received 2 \(`class_names`\)\.$",
        ),
        ((2, 1000), {"top": 0}, r"`top` must be an integer of at least 1; received top=0"),
    ],
)
def test_bad_predictions_are_refused(shape, options, message):
    with pytest.raises(ValueError, match=message):
        decode_predictions(np.zeros(shape), **options)


def test_one_column_is_the_second_of_two_classes():
    rows = decode_predictions(np.array([[0.75], [0.0]], "float32"), class_names=["cat", "dog"])
    assert rows == [[("1", "dog", 0.75), ("0", "cat", 0.25)], [("0", "cat", 1.0), ("1", "dog", 0.0)]]
    with pytest.raises(ValueError, match="One output column is the probability of the second of two classes"):
        decode_predictions(np.zeros((1, 1)), class_names=["dog"])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.nan, r"between 0 and 1; row 2 has nan \(and 1 more rows\)\.$"),
        (np.inf, "row 2 has inf"),
        (7.5, r"row 2 has 7\.5 .*Apply keras\.ops\.softmax or sigmoid to logits first"),
        (-0.5, r"row 2 has -0\.5"),
    ],
)
def test_what_is_no_probability_gets_no_name(value, message):
    values = np.full((5, 2), 0.5)
    values[[2, 4], 1] = value
    with pytest.raises(ValueError, match=message):
        decode_predictions(values, class_names=["cat", "dog"])


def test_no_rows_have_no_answers():
    assert decode_predictions(np.zeros((0, 2)), class_names=["cat", "dog"]) == []
