"""Text as spreadsheets, pandas and NumPy write it: read right, told, or refused."""

import re

import numpy as np
import pytest

from twolayer.data import text

X = np.array([[1.5, -2], [0, 3.25], [7, 0.5]])
Y = np.array([[0.0], [2], [1]])
ROWS = "1.5,-2,0\n0,3.25,2\n7,0.5,1\n"
COUNTED = "0,1.5,-2,0\n1,0,3.25,2\n2,7,0.5,1\n"
WITH_INDEX = np.column_stack([range(3), X])
INDEX = "column 1 counts the rows and is used: --drop 1 leaves it out"


def read(path, content, columns=text.LAST):
    """X, Y and what was told of a text."""
    told = []
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return *(part.load(part.dtype) for part in text.read(path, columns, told.append)), told


RIGHT = {
    "numbers": (ROWS, X, []),
    "names": ("a,b,label\n" + ROWS, X, []),
    "names twice": ("a,a,a\n" + ROWS, X, []),
    "quoted names with commas": ('"a, b","c;d",label\n' + ROWS, X, []),
    "years among names": ("2019,region,label\n" + ROWS, X, []),
    "years beside a name": ("2019,2020,label\n" + ROWS, X, ["is taken for names"]),
    "a mark of UTF-8": ("\ufeffa,b,c\n" + ROWS, X, []),
    "Windows": (ROWS.replace("\n", "\r\n"), X, []),
    "old Macintosh": ("a,b,c\n".replace("\n", "\r") + ROWS.replace("\n", "\r"), X, []),
    "quotes": ('"' + ROWS.replace(",", '","').replace("\n", '"\n"')[:-1], X, []),
    "semicolons": (ROWS.replace(",", ";"), X, []),
    "tabs": (ROWS.replace(",", "\t"), X, []),
    "spaces": (ROWS.replace(",", " "), X, []),
    "commas and spaces": (ROWS.replace(",", " ,  "), X, []),
    "commas and tabs": (ROWS.replace(",", ",\t"), X, []),
    "decimal commas": (
        ROWS.replace(",", ";").replace(".", ","), X, ["decimal commas are read as points"]
    ),
    "names over decimal commas": (
        "a, b;c;d\n" + ROWS.replace(",", ";").replace(".", ","), X, ["decimal commas"]
    ),
    "comments and empty lines": ("# a,b,c\n\n" + ROWS + "\n# end\n\n", X, []),
    "pandas' numbers as names": ("0,1,2\n" + ROWS, X, ["first line, 0,1,2, …, is taken for names"]),
    "pandas' numbers and index": (",0,1,2\n" + COUNTED, WITH_INDEX, ["--no-header", INDEX]),
    "pandas' index": (",a,b,label\n" + COUNTED, WITH_INDEX, [INDEX]),
    "pandas' index again": ("Unnamed: 0,a,b,label\n" + COUNTED, WITH_INDEX, [INDEX]),
    "wavelengths as names": (
        "400,401.5,402,403\n1,0,1,0\n2,1,0,2\n3,2,9,1\n",
        np.array([[400, 401.5, 402], [1, 0, 1], [2, 1, 0], [3, 2, 9]]),
        ["is taken for data: --header if"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", RIGHT)
def test_texts_of_all_kinds(tmp_path, kind):
    content, expected, sentences = RIGHT[kind]
    found, labels, told = read(tmp_path / "a.csv", content)
    np.testing.assert_array_equal(found, expected)
    assert len(told) == len(sentences)
    for sentence, part in zip(told, sentences, strict=True):
        assert sentence.startswith(f"{tmp_path / 'a.csv'}: ")
        assert part in sentence
    if len(expected) == 3:
        np.testing.assert_array_equal(labels, Y)


@pytest.mark.parametrize(
    "cell",
    ["5%", "$10", "0x10", "1d5", "1+2j", "1\xa0000", "1.2.3", "2020-01-01", '2"3'],
)
@pytest.mark.parametrize("line", ["{},2", "2,{}", "{0},{0}"])
def test_no_row_is_lost_in_silence(tmp_path, cell, line):
    """What begins as numbers do may be data that nobody can read."""
    *_, told = read(tmp_path / "a.csv", "\n".join([line.format(cell), "3,4", "5,6"]))
    assert "is taken for names of columns: --no-header if it is data" in told[0]


@pytest.mark.parametrize(
    ("first", "columns"),
    [
        ("5.1,.,1.4", text.LAST),
        ("5.1,None,1.4", text.LAST),
        ("7,missing,2", text.LAST),
        ("0.1,0.2,A", text.Columns(words=True)),
        ('"#5",2,3', text.LAST),  # a quoted cell is no comment
    ],
)
def test_a_first_row_with_one_word_is_told_of(tmp_path, first, columns):
    *_, told = read(tmp_path / "a.csv", f"{first}\n0.3,0.4,7\n0.5,0.6,8\n", columns)
    assert "is taken for names of columns: --no-header if it is data" in told[0]


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("1,2,3\n#N/A,2,3\n4,5,6\n", "'#N/A' in column 1"),
        ('1,2,3\n"#DIV/0!",2,3\n4,5,6\n', "'#DIV/0!' in column 1"),
        ("1\t2\t3\n\t\t\n4\t5\t6\n", "column 1"),
    ],
)
def test_a_row_of_failures_is_no_comment(tmp_path, content, what):
    with pytest.raises(ValueError, match=what):
        read(tmp_path / "a.csv", content)


@pytest.mark.parametrize("columns", [{"drop": "3"}, {"words": True}])
def test_a_quoted_cell_is_one_cell(tmp_path, columns):
    content = '"1,5","2,7",1\n"3,5","4,7",2\n'
    columns = text.Columns(targets=0 if "drop" in columns else 1, **columns)
    with pytest.raises(ValueError, match="'1,5' in column 1"):
        read(tmp_path / "a.csv", content, columns)


@pytest.mark.parametrize(
    "content",
    ['"a","b","y"\n"1",5,6,7\n"2",8,9,10\n', "a b y\n1 5 6 7\n2 8 9 10\n"],
)
def test_names_without_that_of_the_row_names_are_those_of_their_columns(tmp_path, content):
    X, Y, _ = read(tmp_path / "a.csv", content, text.Columns(drop="1,b"))
    np.testing.assert_array_equal(X, [[5], [8]])
    np.testing.assert_array_equal(Y, [[7], [10]])


def test_names_that_fit_no_columns_can_drop_none(tmp_path):
    with pytest.raises(
        ValueError, match=r"^drop: expected as many names as columns in .*, 4, got 2"
    ):
        read(tmp_path / "a.csv", "a,b\n1,5,6,7\n2,8,9,10\n", text.Columns(drop="b"))


@pytest.mark.parametrize(
    "labels",
    [["1_1", "11"], ["12345678901234567890", "12345678901234567891"], ["1", "snan"]],
)
def test_different_words_stay_different_labels(tmp_path, labels):
    content = "".join(f"1,{label}\n" for label in labels)
    _, found, _ = read(tmp_path / "a.csv", content, text.Columns(words=True))
    assert found[:, 0].tolist() == labels


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["1000000000000000001", "1000000000000000002"], [10**18 + 1, 10**18 + 2]),
        (["007", "-7"], [7, -7]),
        (["1", "2.5"], [1, 2.5]),
        (["1" * 30, "2"], [float("1" * 30), 2]),
    ],
)
def test_labels_that_are_numbers(tmp_path, labels, expected):
    content = "".join(f"1,{label}\n" for label in labels)
    _, found, _ = read(tmp_path / "a.csv", content, text.Columns(words=True))
    assert found[:, 0].tolist() == expected


@pytest.mark.parametrize(
    ("content", "columns", "expected"),
    [
        ("0,1,2\n" + ROWS, {"header": False}, np.vstack([[0, 1], X])),
        ("400,402,403\n" + ROWS, {"header": True}, X),
        (",a,b,label\n" + COUNTED, {"drop": "1"}, X),
        ("id,a,b,label\n" + COUNTED, {"drop": "id"}, X),
        ("id,a,b,label\n" + COUNTED, {"drop": "id, 2"}, X[:, 1:]),
        ("a;b;c\n1,5;-2;x y\n0;3,25;z\n7;0,5;\n", {"drop": "c", "targets": 0}, X),
        ("a,b,c,\n" + ROWS.replace("\n", ",\n"), {"drop": "4"}, X),
        ("a,b,c\n" + ROWS.replace("\n", ",\n"), {"drop": "4,a"}, X[:, 1:]),
        ('n,a,b,c\n"Doe, J.",1.5,-2,0\nRoe,0,3.25,2\nPoe,7,0.5,1\n', {"drop": "n"}, X),
        ("a b\n1.5 -2\n0 3.25\n7 0.5\n", {"targets": 0}, X),
    ],
)
def test_what_is_said_about_columns(tmp_path, content, columns, expected):
    found, _, told = read(tmp_path / "a.csv", content, text.Columns(**columns))
    np.testing.assert_array_equal(found, expected)
    assert [sentence for sentence in told if "decimal" not in sentence] == []


@pytest.mark.parametrize(
    ("content", "targets", "expected"),
    [
        ("a,b,kind\n1,2,low\n3,4,high\n", 1, [["low"], ["high"]]),
        ("1,2,low\n3,4,high\n", 1, [["low"], ["high"]]),
        ("1;2,5;v1.5\n3;4;high\n", 1, [["v1.5"], ["high"]]),
        ("1,2,3\n3,4,5.5\n", 1, [[3], [5.5]]),
        ("low\nhigh\nlow\n", None, [["low"], ["high"], ["low"]]),
        ("kind\nlow\nhigh\n", None, [["low"], ["high"]]),
    ],
)
def test_words_as_targets(tmp_path, content, targets, expected):
    _, words, _ = read(tmp_path / "a.csv", content, text.Columns(targets, words=True))
    assert words.tolist() == expected


MANY = "{path}: expected rows of as many numbers each, got "


@pytest.mark.parametrize(
    ("content", "columns", "message"),
    [
        ("1,,0\n" + ROWS, {}, MANY + "nothing in column 2, in line 1: --drop 2 leaves"),
        (ROWS + "1,NA,0\n", {}, MANY + "'NA' in column 2, in line 4: --drop 2"),
        ("1,NA,0\n" + ROWS, {}, MANY + "'NA' in column 2, in line 1"),
        ("a,b,c\n\n# x\n" + ROWS + "1,x,0\n", {}, MANY + "'x' in column 2, in line 7"),
        ("a,b,c,\n" + ROWS.replace("\n", ",\n"), {}, MANY + "nothing in column 4, in line 2: --dr"),
        ("a,b,c\n1,2,low\n", {}, MANY + "'low' in column 3, in line 2: --classes numbers"),
        (ROWS + "'1',2,3\n", {}, MANY + "\"'1'\" in column 1, in line 4: --drop 1"),
        (ROWS + "1,2\n", {}, MANY + "2 columns after 3, in line 4"),
        ("1,,0\n3,4,5\n", {"drop": "1,3", "targets": 0}, MANY + "nothing in column 2, in line 1"),
        ("1,2 # or 3\n", {}, MANY + "'2 # or 3' in column 2, in line 1"),
        (
            "1,2\n3," + "4" * 200_000 + "\n",
            {},
            "{path}: expected rows of numbers, got: field larger",
        ),
        ("1,2\n3," + "x" * 100_000 + "\n", {}, MANY + "'" + "x" * 40 + "' in column 2, in line 2"),
        (ROWS + "1,2\n", {"drop": "1"}, MANY + "2 columns after 3, in line 4"),
        (
            "a,b,c\n" + ROWS + "x,1,x\n",
            {"drop": "1"},
            MANY + "'x' in column 3, in line 5: --classes",
        ),
        ("1,5\t2\n3,5\t4\n", {}, MANY + "'1,5' in column 1, in line 1"),
        ("1.5;2,5\n", {}, MANY + "both decimal points and commas, in line 1"),
        ("1.5;2\n2;1,5\n", {}, MANY + "both decimal points and commas, in line 2"),
        ('a,b\n"1,000",2\n', {}, MANY + "'1,000' in column 1, in line 2"),
        ("1,2,a\n3,4,\n", {"words": True}, MANY + "the label '', in line 2"),
        ("1,2,a\n3,4,NA\n", {"words": True}, MANY + "the label 'NA', in line 2"),
        (ROWS, {"drop": "4"}, "drop: expected columns of {path}, 1 to 3, got '4'"),
        (
            "a,b,c\n" + ROWS,
            {"drop": "d"},
            "drop: expected columns of {path}, a, b, c or 1 to 3, got 'd'",
        ),
        (
            "a,a,c\n" + ROWS,
            {"drop": "a"},
            "drop: {path} has several columns 'a': give their numbers",
        ),
        (
            ROWS,
            {"drop": "1,2"},
            "{path}: expected columns of inputs and 1 of targets, got 1 in all",
        ),
        (
            ROWS,
            {"targets": -1},
            "{path}: expected columns of inputs and -1 of targets, got 3 in all",
        ),
        ("a,b,c\n", {}, "{path}: expected numbers, got no line of them"),
        ("# a,b,c\n", {}, "{path}: expected numbers, got no line of them"),
        (ROWS, {"header": True, "drop": "2.5"}, "drop: expected columns of"),
        ("größe,b\n1,2\n".encode("cp1252"), {}, "{path}: expected text in UTF-8, got other bytes"),
    ],
)
def test_what_is_refused(tmp_path, content, columns, message):
    path = tmp_path / "a.csv"
    expected = "^" + re.escape(message.format(path=path))
    with pytest.raises(ValueError, match=expected):
        read(path, content, text.Columns(**columns))
