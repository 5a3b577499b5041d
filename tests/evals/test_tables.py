"""VLMEvalKit's tables and other files: pictures found where they are, and what is wrong said with its line."""

from __future__ import annotations

import base64
import csv
import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from small_benchmarks import encoded, picture, table
from vedere.errors import MediaError, RecordError
from vedere.evals.records import listed
from vedere.evals.sources import data_files, mme_rows, rows_of
from vedere.evals.tables import PICTURES, check_md5, checksums, read_table

# What a cell can hold: csv keeps everything but a lone NUL; a table is UTF-8.
CELLS = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\x00\r"), max_size=40)


@given(rows=st.lists(st.tuples(CELLS, st.integers(0, 4)), min_size=1, max_size=5))
def test_texts_and_pictures_come_back_whatever_the_cells_hold(rows, tmp_path_factory):
    """Quotation marks, tabs and line breaks in cells; the pictures are read again from the row's place in the file."""
    path = tmp_path_factory.mktemp("table") / "t.tsv"
    table(path, [{"index": n, "question": text, "image": encoded(which)} for n, (text, which) in enumerate(rows)])
    found = read_table(path)
    assert [row.data.get("question", "") for row in found] == [text for text, _ in rows]
    assert [row.data[PICTURES][0].read() for row in found] == [picture(which) for _, which in rows]


def test_shared_listed_and_named_pictures(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "b.png").write_bytes(picture(3))
    rows = [
        {"index": 5, "image": "1000005", "question": "shared, before its row"},
        {"index": 1000005, "image": encoded(1), "question": "own"},
        {"index": 6, "image": str([encoded(1), encoded(2)]), "question": "two"},
    ]
    first, second, third = read_table(table(tmp_path / "a.tsv", rows))
    assert first.data[PICTURES] == second.data[PICTURES]
    assert [one.read() for one in third.data[PICTURES]] == [picture(1), picture(2)]
    (named,) = read_table(
        table(tmp_path / "b.tsv", [{"index": 1, "image_path": "['b.png', 'b.png']", "question": "q"}])
    )
    assert [one.read() for one in named.data[PICTURES]] == [picture(3)] * 2


def test_column_names_lose_their_case_but_options_keep_it(tmp_path):
    (row,) = read_table(table(tmp_path / "a.tsv", [{"Index": 1, "Question": "q", "A": "x", "image": encoded(0)}]))
    assert set(row.data) == {"index", "question", "A", PICTURES}
    assert row.line == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "begins with nothing; expected the names of its columns"),
        (b"index\tindex\n1\t2\n", "begins with index, index; expected the names of its columns, each once"),
        (b"index\tquestion\n", "has a header and no rows; is it cut off"),
        (b"index\tquestion\n1\ta\n2\n", "a.tsv line 3: 1 cells where the header has 2"),
        (b"index\tquestion\n1\t\xff\n", "a.tsv line 2 is not UTF-8"),
        (b'index\tquestion\n1\t"never ends\n', "a.tsv|cells"),
        (b"index\timage\n1\t17\n", "line 2: 'image' is '17', but no row with this index has a picture"),
        (b"index\timage_path\n1\t../secret.png\n", "line 2: the path '../secret.png' leads out of the data's folder"),
        (b"index\timage_path\n1\t/etc/passwd\n", "leads out of the data's folder"),
    ],
)
def test_corrupt_tables_are_refused_with_their_line(content, message, tmp_path):
    path = tmp_path / "a.tsv"
    path.write_bytes(content)
    if b"never ends" in content:  # a quotation mark that is never closed makes one long cell
        assert read_table(path)[0].data["question"] == "never ends\n"
        return
    with pytest.raises(RecordError, match=message):
        read_table(path)


def test_pictures_that_are_no_base64_or_have_moved_are_named(tmp_path):
    path = table(tmp_path / "a.tsv", [{"index": 1, "image": "?" * 80, "question": "q"}])
    (row,) = read_table(path)
    with pytest.raises(MediaError, match=r"the picture of a.tsv line 2 is no base64"):
        row.data[PICTURES][0].read()
    path.write_bytes(b"")
    with pytest.raises(MediaError, match="is not where it was; the file was changed"):
        row.data[PICTURES][0].read()


def test_checksums(tmp_path):
    path = table(tmp_path / "POPE.tsv", [{"index": 1, "image": encoded(0)}])
    found = hashlib.md5(path.read_bytes()).hexdigest()
    with pytest.raises(
        RecordError, match=rf"{found}, but {checksums()['POPE.tsv']} is published for this name.*--md5 {found}"
    ):
        check_md5(path)
    assert check_md5(path, found.upper()) == found
    with pytest.raises(RecordError, match="but 00 was given"):
        check_md5(path, "00")
    other = table(tmp_path / "own.tsv", [{"index": 1, "image": encoded(0)}])
    assert check_md5(other) == found


def test_a_folder_must_hold_exactly_one_file_that_fits(tmp_path):
    with pytest.raises(RecordError, match=r"does not exist; expected the benchmark's file"):
        data_files(tmp_path / "nowhere", ("pope",))
    (tmp_path / "README.md").write_text("")
    with pytest.raises(RecordError, match="holds no data files; expected a file whose name begins with pope"):
        data_files(tmp_path, ("pope",))
    one = table(tmp_path / "POPE_a.tsv", [{"index": 1, "image": encoded(0)}])
    assert data_files(tmp_path, ("pope",)) == [one]
    table(tmp_path / "pope_b.tsv", [{"index": 1, "image": encoded(0)}])
    with pytest.raises(RecordError, match=r"holds 2 files that fit \(POPE_a.tsv, pope_b.tsv\)"):
        data_files(tmp_path, ("pope",))


def test_parquet_and_json_give_the_same_rows(tmp_path):
    import pyarrow
    import pyarrow.parquet

    rows = [{"id": "a", "question": "q", "image": {"bytes": picture(1), "path": "x.png"}, "options": ["a", "b"]}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "t.parquet")
    (row,) = rows_of(tmp_path / "t.parquet")
    assert row.data[PICTURES][0].read() == picture(1)
    (tmp_path / "x.png").write_bytes(picture(1))
    (tmp_path / "t.json").write_text(json.dumps({"data": [{**rows[0], "image": "x.png"}]}))
    (other,) = rows_of(tmp_path / "t.json")
    assert other.data[PICTURES][0].read() == picture(1)
    assert {name: row.data[name] for name in ("id", "question", "options")} == {
        name: other.data[name] for name in ("id", "question", "options")
    }
    (tmp_path / "bad.parquet").write_bytes(b"PAR1")
    with pytest.raises(RecordError, match=r"bad.parquet is no parquet file"):
        rows_of(tmp_path / "bad.parquet")


def test_the_release_of_mme(tmp_path):
    (tmp_path / "color" / "images").mkdir(parents=True)
    (tmp_path / "color" / "images" / "1.jpg").write_bytes(picture(1))
    (tmp_path / "existence.txt").write_text("")
    (tmp_path / "color.txt").write_text("1.jpg\tIs it red? Please answer yes or no.\tYes\n1.jpg\tGrey?\tNo\n")
    first, second = mme_rows(tmp_path)
    assert first.data["image"] == second.data["image"] == "1.jpg"
    assert first.data[PICTURES][0].read() == picture(1)
    (tmp_path / "color.txt").write_text("1.jpg\tonly two\n")
    with pytest.raises(
        RecordError, match=r"color.txt line 1 has 2 fields between tabs; expected picture, question, answer"
    ):
        mme_rows(tmp_path)


@pytest.mark.parametrize(
    ("value", "texts"),
    [
        (["a", 1], ["a", "1"]),
        ("['a', \"it's\"]", ["a", "it's"]),
        ('["a", 1]', ["a", "1"]),
        ("plain, with comma", ["plain, with comma"]),
        ("[half", ["[half"]),
        ("[not a list]", ["[not a list]"]),
        ("[__import__('os')]", ["[__import__('os')]"]),
    ],
)
def test_lists_that_tables_hold_as_texts(value, texts):
    assert listed(value) == texts


def test_a_large_table_is_not_held_in_memory(tmp_path):
    """Rows keep places, not contents."""
    path = tmp_path / "large.tsv"
    blob = base64.b64encode(bytes(300_000)).decode()
    with open(path, "w", newline="") as file:
        writer = csv.writer(file, delimiter="\t")
        writer.writerow(["index", "image", "question"])
        writer.writerows([n, blob, f"q{n}"] for n in range(20))
    rows = read_table(path)
    assert sum(len(str(row.data)) for row in rows) < 20_000
    assert rows[19].data[PICTURES][0].read() == bytes(300_000)
