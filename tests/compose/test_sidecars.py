"""What is known about a picture: lists, text files, tags inside, names; and lists that cannot be read."""

import json

import pytest
from composing import noise
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from vedere.compose.sidecars import Words, beside, find_list, inside, of_name, read_list
from vedere.errors import RecordError


def test_a_list_of_objects_under_the_usual_names(tmp_path):
    rows = [
        {"file": "a.jpg", "captions": ["A lake.", "Water", "A lake."], "tags": "lake, hill", "license": "CC-BY-2.0"},
        {"file_name": "./b.jpg", "caption": "A\nbridge\t!", "photographer": "A. Person", "flickr_url": "http://x/1"},
        {"image": "c.jpg", "conversations": [{"from": "human", "value": "?"}, {"from": "gpt", "value": "Tea."}]},
        {"image": ["d.jpg", "e.jpg"], "keywords": ["one", "two"], "licence": 4},
        {"file": "a.jpg", "caption": "Another lake"},
    ]
    path = tmp_path / "captions.jsonl"
    path.write_text("\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    found = read_list(path)
    assert found["a.jpg"] == Words(
        captions=("A lake.", "Water", "Another lake"), tags=("lake", "hill"), licence="CC-BY-2.0"
    )
    assert found["b.jpg"] == Words(captions=("A bridge !",), attribution="A. Person", source="http://x/1")
    assert found["c.jpg"].captions == ("Tea.",)
    assert (found["d.jpg"].tags, found["d.jpg"].licence) == (("one", "two"), "4")
    assert find_list(tmp_path) == path


def test_tables_and_lines(tmp_path):
    (tmp_path / "metadata.csv").write_text('\ufeffFile_Name,Caption,Tags\na b.jpg,"Snow, a bridge",x;y z\n', "utf-8")
    assert read_list(tmp_path / "metadata.csv") == {"a b.jpg": Words(captions=("Snow, a bridge",), tags=("x", "y z"))}
    (tmp_path / "captions.txt").write_text("a.jpg\t断桥\nb.jpg\n", "utf-8")
    assert read_list(tmp_path / "captions.txt") == {"a.jpg": Words(captions=("断桥",)), "b.jpg": Words()}
    assert find_list(tmp_path) == tmp_path / "captions.txt"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("captions.jsonl", b'{"file": "a.jpg"}\n{"file"', r"captions\.jsonl, line 2: no JSON .*; expected one object"),
        ("captions.jsonl", b"[1]", r"line 1: a list; expected an object"),
        ("captions.jsonl", b'{"caption": "x"}', r"line 1: names no file, only caption; expected file or file_name"),
        ("captions.jsonl", b"\xff\xfe", r"cannot be read .*; expected UTF-8 text"),
        ("captions.csv", b"caption\nx\n", r"line 2: names no file, only caption"),
        ("captions.xml", b"", r"captions are read from \.jsonl, \.csv, \.txt; write one of these"),
    ],
)
def test_a_list_that_cannot_be_read_says_where(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(RecordError, match=message):
        read_list(path)


def test_a_missing_list_is_said(tmp_path):
    with pytest.raises(RecordError, match="cannot be read"):
        read_list(tmp_path / "none.jsonl")


def test_a_text_beside_the_picture(tmp_path):
    (tmp_path / "a.txt").write_text("A lake.\n\n  In snow. \n", "utf-8")
    assert beside(tmp_path / "a.jpg").captions == ("A lake.", "In snow.")
    assert beside(tmp_path / "b.jpg") == Words()
    (tmp_path / "c.txt").write_bytes(b"\xff\xff")
    assert beside(tmp_path / "c.jpg") == Words()


def test_tags_inside_jpeg_and_png(tmp_path):
    exif = Image.Exif()
    exif[0x010E], exif[0x013B], exif[0x8298] = "Ein See\0", "A. Person", "CC0"
    exif[0x9C9E] = "lake;雪".encode("utf-16-le") + b"\0\0"
    noise(tmp_path / "a.jpg", 1, exif=exif)
    with Image.open(tmp_path / "a.jpg") as image:
        found = inside(image)
    assert found == Words(captions=("Ein See",), tags=("lake", "雪"), attribution="A. Person", licence="CC0")
    info = PngImagePlugin.PngInfo()
    info.add_itxt("Description", "断桥")
    info.add_text("Author", "B")
    noise(tmp_path / "b.png", 1, pnginfo=info)
    with Image.open(tmp_path / "b.png") as image:
        assert inside(image) == Words(captions=("断桥",), attribution="B")


def iptc(*records):
    """An APP13 segment with IPTC records of dataset 2."""
    data = b"".join(bytes([0x1C, 2, kind]) + len(text).to_bytes(2, "big") + text for kind, text in records)
    block = b"8BIM\x04\x04\0\0" + len(data).to_bytes(4, "big") + data + b"\0" * (len(data) % 2)
    body = b"Photoshop 3.0\0" + block
    return b"\xff\xed" + (len(body) + 2).to_bytes(2, "big") + body


def test_iptc_captions_keywords_and_credits(tmp_path):
    path = noise(tmp_path / "a.jpg", 1)
    data = path.read_bytes()
    segment = iptc((120, "Ein grüner See".encode()), (25, b"lake"), (25, b"hill"), (80, b"A. Person"), (116, b"CC-BY"))
    path.write_bytes(data[:2] + segment + data[2:])
    with Image.open(path) as image:
        found = inside(image)
    assert found.captions == ("Ein grüner See",)
    assert (found.tags, found.attribution, found.licence) == (("lake", "hill"), "A. Person", "CC-BY")


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_tags_are_passed_over(tmp_path):
    path = noise(tmp_path / "a.jpg", 1)
    data = path.read_bytes()
    path.write_bytes(data[:2] + b"\xff\xe1\x00\x10Exif\0\0MM\0\x2a\xff\xff\xff\xff"[:18] + data[2:])
    with Image.open(path) as image:
        assert inside(image) == Words()


@pytest.mark.parametrize(
    ("name", "caption"),
    [
        ("west-lake_in.snow.jpg", "west lake in snow"),
        ("断桥.png", "断桥"),
        ("IMG_2041.JPG", None),
        ("000000000285.jpg", None),
        ("DSC01234.jpg", None),
        ("PXL_20260101_120000 copy.jpg", None),
        ("3f2a9c0de1b4.jpg", None),
        ("a/b/lake2.jpg", "lake2"),
    ],
)
def test_names_that_say_something(name, caption):
    assert of_name(name).captions == ((caption,) if caption else ())


@given(st.text(max_size=40))
def test_any_text_becomes_one_printable_line(text):
    words = Words(captions=(text,)).or_else(Words(licence="x"))
    assert words.licence == "x"
    assert words.digest == Words(captions=(text,), licence="x").digest
    assert of_name(text.replace("/", "") or "x") is not None
