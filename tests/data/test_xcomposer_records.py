"""XComposer's arrays and mix files: what becomes a sample, and errors that name file, record and remedy."""

import json
import pickle
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vedere.data.mixture import open_meta, open_mix, open_sets
from vedere.data.sample import MediaRef
from vedere.data.xcomposer_records import ArrayRecords, read_mix
from vedere.errors import RecordError


def talk(question, answer="答"):
    return [{"from": "user", "value": question}, {"from": "assistant", "value": answer}]


def write(folder, records, name="data.json"):
    path = folder / name
    path.write_text(records if isinstance(records, str) else json.dumps(records, ensure_ascii=False), encoding="utf-8")
    return path


TWO = {"id": "0", "image": ["a.jpg", "b.jpg"], "conversations": talk("<ImageHere> <ImageHere>比较一下。")}
TEXT = {"id": "1", "conversations": talk("你好")}
FIRST = {
    "id": "2",
    "image": "c.jpg",
    "conversations": [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A cat."}],
}


def test_pictures_in_lists_texts_and_the_first_version(tmp_path):
    records = ArrayRecords(write(tmp_path, [TWO, TEXT, FIRST]), root="pictures")
    two, text, first = (records[index] for index in range(3))
    assert two.conversation[0].content == "<image> <image>比较一下。"
    assert two.media == tuple(MediaRef(kind="image", path=f"pictures/{name}.jpg") for name in "ab")
    assert two.source.endswith("data.json, record 1")
    assert text.media == ()
    assert first.conversation[0].content == "<image>\nWhat?"
    assert [sample.name for sample in (two, text, first)] == ["data#0", "data#1", "data#2"]
    assert pickle.loads(pickle.dumps(records))[1] == text
    with pytest.raises(IndexError):
        records[3]


@given(st.lists(st.text(max_size=20).filter(lambda t: "<" not in t), min_size=1, max_size=8), st.booleans())
def test_every_record_is_found_wherever_it_stands(tmp_path_factory, texts, spread):
    folder = tmp_path_factory.mktemp("array")
    texts = [text.encode("utf-8", "ignore").decode() for text in texts]
    data = [{"id": f"r{number}", "conversations": talk(text)} for number, text in enumerate(texts)]
    path = write(folder, "\ufeff " + json.dumps(data, ensure_ascii=False, indent=3 if spread else None) + "\n")
    records = ArrayRecords(path)
    assert [records[index].conversation[0].content for index in range(len(records))] == texts


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "does not begin with '['; expected one JSON array"),
        ('{"id": 1}', "a file with one object a line is named .jsonl here"),
        ("[]", "the array holds no records; add some"),
        ('[{"id": 1}', "data.json, record 1: the end of the file follows it; expected ',' or the closing ']'"),
        ('[{"id": 1} {"id": 2}]', "record 1: { follows it"),
        ('[{"id": 1}, {"id": }]', "data.json, record 2: not JSON (Expecting value"),
        ('[{"id": 1},]', "record 2: not JSON"),
        ('[{"id": 1}] more', "text follows the array"),
    ],
)
def test_files_that_are_no_arrays(tmp_path, content, message):
    with pytest.raises(RecordError, match=re.escape(message)):
        ArrayRecords(write(tmp_path, content))


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (5, "record 1: the record is 5; expected a JSON object"),
        (TWO | {"image": ["a.jpg"]}, "1 images but 2 <image> in the human turns; write one <image> for each, or none"),
        (
            TWO | {"conversations": talk("<ImageHere><image>")},
            "both <ImageHere> and <image> stand in its turns; write one of them for every picture",
        ),
        (TEXT | {"conversations": [{"from": "usr", "value": "x"}]}, "turn 1 is from 'usr'; did you mean 'user'?"),
        (TEXT | {"conversations": ["x"]}, "turn 1 is 'x'; expected {"),
        (TWO | {"image": [7]}, "'image' is 7; expected a string"),
    ],
)
def test_records_that_cannot_become_samples(tmp_path, record, message):
    records = ArrayRecords(write(tmp_path, [record]))
    with pytest.raises(RecordError) as caught:
        records[0]
    assert "data.json, record 1" in str(caught.value)
    assert message in str(caught.value)


def test_a_missing_file_and_other_encodings(tmp_path):
    with pytest.raises(RecordError, match=r"gone\.json: the data file cannot be read \(No such file or directory\)"):
        ArrayRecords(tmp_path / "gone.json")
    (tmp_path / "x.json").write_bytes('["é"]'.encode("latin-1"))
    with pytest.raises(RecordError, match=r"byte 2 is not UTF-8; save the file as UTF-8"):
        ArrayRecords(tmp_path / "x.json")


def test_a_mix_takes_shares_or_thousands(tmp_path):
    write(tmp_path, [TEXT] * 8, "my talk.json")
    write(tmp_path, [TWO] * 4, "pictures.json")
    mix = write(tmp_path, "my talk.json 0.5\n\n  pictures.json 2.5  \nmy talk.json 1\n", "data.txt")
    assert [(entry.path.name, entry.number, entry.line) for entry in read_mix(mix)] == [
        ("my talk.json", 0.5, 1),
        ("pictures.json", 2.5, 3),
        ("my talk.json", 1.0, 4),
    ]
    parts = open_mix(mix, root="pictures", template="ixc2")
    assert [(part.name, part.places) for part in parts] == [("my talk", 4), ("pictures", 10), ("my talk:4", 8)]
    assert parts[1].records[0].template == "ixc2"
    assert parts[1].records[0].media[0].path == "pictures/a.jpg"
    assert [part.places for part in open_mix(mix, given_num=True)] == [500, 2500, 1000]
    assert [part.places for part in open_sets(mix)] == [4, 10, 8]  # wherever a meta file may stand
    assert [part.places for part in open_sets(mix, given_num=True)] == [500, 2500, 1000]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.json", "data.txt:1: 'a.json'; expected 'path.json number' with a number > 0"),
        ("\na.json zero", "data.txt:2: 'a.json zero'"),
        ("a.json 0", "to leave a file out, delete its line"),
        ("a.json nan", "expected 'path.json number'"),
        ("\n \n", "no lines; expected 'path.json number'"),
        ("talk.json 0.01", "data.txt:1: data set 'talk': repeat 0.01 of 2 records leaves none"),
        ("gone.json 1", "gone.json: the data file cannot be read"),
    ],
)
def test_mix_files_that_do_not_work(tmp_path, text, message):
    write(tmp_path, [TEXT] * 2, "talk.json")
    with pytest.raises(RecordError) as caught:
        open_mix(write(tmp_path, text, "data.txt"))
    assert message in str(caught.value)


def test_a_missing_mix_file(tmp_path):
    with pytest.raises(RecordError, match=r"none\.txt: the mix file cannot be read \(No such file or directory\)"):
        read_mix(tmp_path / "none.txt")


def test_a_meta_file_may_name_an_array(tmp_path):
    write(tmp_path, [TWO, TEXT])
    meta = write(tmp_path, {"xc": {"annotation": "data.json", "root": "", "licence": "MIT"}}, "meta.json")
    (part,) = open_meta(meta)
    assert (len(part.records), part.records[0].licence) == (2, "MIT")
