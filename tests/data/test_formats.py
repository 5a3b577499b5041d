"""Records of the InternVL and LLaVA families: what becomes a sample, and what is refused with file and line."""

import json
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vedere.data.formats import DatasetInfo, JsonlRecords, MetaEntry, read_meta, sample_from_record
from vedere.data.mixture import open_meta
from vedere.data.sample import MediaRef
from vedere.data.shards import ShardWriter
from vedere.errors import MediaError, RecordError

TALK = [{"from": "human", "value": "What is it?"}, {"from": "gpt", "value": "A cat."}]


def talk(question, answer="A cat."):
    return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]


def write(folder, *records, name="train.jsonl"):
    path = folder / name
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in records), encoding="utf-8")
    return path


def only(folder, record, **arguments):
    return JsonlRecords(write(folder, record), **arguments)[0]


def test_single_image(tmp_path):
    sample = only(
        tmp_path,
        {"id": 7, "image": "a/b.jpg", "conversations": talk("<image>\nWhat is it?"), "licence": "CC0-1.0", "weight": 2},
        root="/pictures",
        info=DatasetInfo(name="cats", augment=True, max_tiles=6, template="internvl2_5", licence="MIT"),
    )
    assert sample.name == "cats#7"
    assert sample.source.endswith("train.jsonl:1")
    assert [(turn.role, turn.content) for turn in sample.conversation] == [
        ("user", "<image>\nWhat is it?"),
        ("assistant", "A cat."),
    ]
    assert sample.media == (MediaRef(kind="image", path="/pictures/a/b.jpg"),)
    assert (sample.weight, sample.licence, sample.augment, sample.max_tiles) == (2.0, "CC0-1.0", True, 6)
    assert sample.template == "internvl2_5"


@pytest.mark.parametrize(
    ("fields", "question", "expected", "kinds"),
    [
        ({"image": "a.jpg"}, "Q", "<image>\nQ", "i"),
        ({"image": ["a.jpg"]}, "Q", "<image>\nQ", "i"),
        ({"image": ["a.jpg", "b.jpg"]}, "Q", "<image>\n<image>\nQ", "ii"),
        ({"image": ["a.jpg", "b.jpg"]}, "A <image> B <image>", "A <image> B <image>", "ii"),
        ({"image": "a.jpg"}, "Q\n<image>", "Q\n<image>", "i"),
        ({"video": "a.mp4"}, "Q", "<video>\nQ", "v"),
        ({"video": "a.mp4", "image": "a.jpg"}, "<video> then <image>", "<video> then <image>", "vi"),
        ({"video": "a.mp4", "image": "a.jpg"}, "Q", "<image>\n<video>\nQ", "iv"),
        ({"video": "a.mp4", "image": "a.jpg"}, "see <image>", "<video>\nsee <image>", "vi"),
        ({"image": ""}, "Q", "Q", ""),
        ({"image": None, "video": []}, "Q", "Q", ""),
    ],
)
def test_placeholders_and_media_stand_in_one_order(tmp_path, fields, question, expected, kinds):
    sample = only(tmp_path, {**fields, "conversations": talk(question)})
    assert sample.conversation[0].content == expected
    assert "".join(ref.kind[0] for ref in sample.media) == kinds


def test_a_leading_system_turn_stays_in_front(tmp_path):
    record = {"image": "a.jpg", "conversations": [{"from": "system", "value": "Be short."}, *TALK]}
    sample = only(tmp_path, record)
    assert [turn.role for turn in sample.conversation] == ["system", "user", "assistant"]
    assert sample.conversation[1].content == "<image>\nWhat is it?"


def test_other_names_of_roles_and_tags_in_answers(tmp_path):
    turns = [{"from": "user", "value": "Q"}, {"from": "assistant", "value": "write <image>"}]
    assert only(tmp_path, {"conversations": turns}).conversation[1].content == "write <image>"


def test_clip(tmp_path):
    sample = only(tmp_path, {"video": "a.mp4", "clip": [1, 2.5], "conversations": TALK})
    assert sample.media[0].clip == (1.0, 2.5)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ("[1, 2]\n", "JSON array.*jq"),
        ("{", "not JSON"),
        ("3", "expected a JSON object"),
        ("[" * 5000, "JSON array"),
        ('{"a":' * 3000, "not JSON|nested too deeply"),
        ({}, "'conversations' is None; expected a list"),
        ({"conversations": []}, "expected a list"),
        ({"conversations": ["hi"]}, "turn 1 is 'hi'"),
        ({"conversations": [{"from": "humen", "value": "x"}]}, "from 'humen'; did you mean 'human'"),
        ({"conversations": [{"from": "human", "value": 3}]}, "'value' of turn 1 is 3; expected a string"),
        ({"conversations": [{"from": "gpt", "value": "x"}]}, "turn 1 is from 'gpt' where user should speak"),
        ({"conversations": [*TALK, TALK[1]]}, "turn 3 is from 'gpt' where user"),
        ({"conversations": [*TALK, {"from": "system", "value": "x"}]}, "turn 3 is from 'system'"),
        ({"conversations": [{"from": "system", "value": "x"}]}, "system turn only"),
        ({"conversations": talk("\ud800")}, "half of a surrogate pair"),
        ({"conversations": talk("<image> Q")}, "1 <image> in the human turns but no 'image'"),
        ({"conversations": talk("<image> Q"), "image": ["a", "b"]}, "2 images but 1 <image>"),
        ({"conversations": talk("<image><image>"), "image": "a"}, "1 images but 2 <image>"),
        ({"conversations": TALK, "image": 3}, "'image' is 3; expected a string"),
        ({"conversations": TALK, "image": ["a", ""]}, "expected a path"),
        ({"conversations": TALK, "image": "a\0b"}, "expected a path"),
        ({"conversations": TALK, "video": "a", "clip": [2, 1]}, "'clip' is .* 0 <= start < end"),
        ({"conversations": TALK, "clip": [1, 2]}, "'clip' with 0 videos"),
        ({"conversations": TALK, "weight": 0}, "'weight' is 0; expected a number > 0"),
        ({"conversations": TALK, "licence": 1}, "'licence' is 1; expected a string"),
    ],
)
def test_refusals_name_file_line_and_cure(tmp_path, record, message):
    path = tmp_path / "train.jsonl"
    text = record if isinstance(record, str) else json.dumps(record)
    write(tmp_path, text.rstrip("\n"))
    with pytest.raises(RecordError, match=message) as error:
        JsonlRecords(path)[0]
    assert f"{path}:1" in str(error.value)


def test_any_record_by_index_also_after_pickling(tmp_path):
    texts = [f"Frage {number} ä {'x' * (number % 7)}" for number in range(50)]
    lines = [json.dumps({"conversations": talk(text)}, ensure_ascii=False) for text in texts]
    path = tmp_path / "a.jsonl"
    separators = ["\n", "\r\n", "\n\n", "\n \t\r\n"]
    content = "\ufeff" + "".join(line + separators[k % 4] for k, line in enumerate(lines[:-1])) + lines[-1]
    path.write_bytes(content.encode())
    records = pickle.loads(pickle.dumps(JsonlRecords(path)))
    assert len(records) == 50
    raw = path.read_bytes().split(b"\n")
    for index in (49, 0, 7, 3, 30):
        sample = records[index]
        assert sample.conversation[0].content == texts[index]
        number = int(sample.source.rpartition(":")[2])
        assert texts[index].encode() in raw[number - 1]
        assert sample.name == f"a#{number}"
    for index in (-1, 50):
        with pytest.raises(IndexError):
            records[index]


def test_files_that_hold_nothing(tmp_path):
    with pytest.raises(RecordError, match=r"data set 'no' cannot be read \(No such file.*correct 'annotation'"):
        JsonlRecords(tmp_path / "no.jsonl")
    with pytest.raises(RecordError, match="no records"):
        JsonlRecords(write(tmp_path, "", "  "))
    (tmp_path / "latin.jsonl").write_bytes(b'\n{"conversations": "\xe4"}\n')
    with pytest.raises(RecordError, match=r"latin.jsonl:2: byte 19 is not UTF-8"):
        JsonlRecords(tmp_path / "latin.jsonl")[0]


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["human", "<image>"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["from", "value", "image", "video", "clip", "conversations", "id"]), inner)
    ),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(record=json_values, turns=json_values)
def test_any_json_becomes_a_sample_or_a_record_error(record, turns):
    def resolve(kind, name, clip):
        return MediaRef(kind=kind, path=name, clip=clip)

    for value in (record, {**record, "conversations": turns} if isinstance(record, dict) else turns):
        sample, message = None, ""
        try:
            sample = sample_from_record(value, info=DatasetInfo(name="fuzz"), where="here:1", key="1", resolve=resolve)
        except RecordError as error:
            message = str(error)
        if sample is None:
            assert "here:1" in message
        else:
            tags = sum(turn.content.count("<image>") + turn.content.count("<video>") for turn in sample.conversation)
            assert tags >= len(sample.media)


# ----------------------------------------------------------------------------------------------------------------- meta


def meta(folder, **sets):
    path = folder / "meta.json"
    path.write_text(json.dumps(sets), encoding="utf-8")
    return path


def test_meta_file_with_lines_and_shards(tmp_path):
    (tmp_path / "data").mkdir()
    write(tmp_path / "data", {"image": "a.jpg", "conversations": TALK})
    with ShardWriter(tmp_path / "tars") as writer:
        writer.write("k", {"jpg": b"x", "txt": "a cat"})
    path = meta(
        tmp_path,
        lines={
            "root": "data",
            "annotation": "data/train.jsonl",
            "data_augment": True,
            "repeat_time": 2.5,
            "length": 1,
            "max_dynamic_patch": 4,
            "conv_style": "internvl2_5",
        },
        shards={"annotation": "tars/shard-*.tar", "weight": 3},
    )
    lines, shards = open_meta(path)
    assert (lines.name, lines.repeat, lines.weight, lines.places) == ("lines", 2.5, None, 2)
    sample = lines.records[0]
    assert sample.media[0].path == str(tmp_path / "data" / "a.jpg")
    assert (sample.name, sample.augment, sample.max_tiles) == ("lines#1", True, 4)
    assert (shards.name, shards.weight, len(shards.records)) == ("shards", 3.0, 1)
    assert [part.name for part in open_meta(path, only=["shards"])] == ["shards"]
    with pytest.raises(RecordError, match="no data set 'line'; did you mean 'lines'"):
        open_meta(path, only=["line"])


def test_relative_paths_that_are_not_beside_the_meta_file_stay_as_written(tmp_path):
    entry = read_meta(meta(tmp_path, a={"annotation": "elsewhere/a.jsonl", "root": "/abs"}))["a"]
    assert entry == MetaEntry(annotation="elsewhere/a.jsonl", root="/abs")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"root": ""}, "'annotation': Field required"),
        ({"annotation": "a", "repeat": 2}, "unknown key 'repeat' for MetaEntry; did you mean 'repeat_time'"),
        ({"annotation": "a", "repeat_time": 0}, "repeat_time 0.0; expected a number > 0"),
        ({"annotation": "a", "repeat_time": "twice"}, "'repeat_time'"),
        ({"annotation": "a", "weight": -1}, "weight -1.0"),
        ({"annotation": "a", "max_dynamic_patch": 0}, "at least 1 tile"),
        (["a"], "expected {"),
    ],
)
def test_meta_entries_that_are_refused(tmp_path, entry, message):
    with pytest.raises(RecordError, match=message) as error:
        read_meta(meta(tmp_path, mine=entry))
    assert "meta.json, data set 'mine'" in str(error.value)


def test_meta_files_that_are_refused(tmp_path):
    with pytest.raises(RecordError, match="the meta file cannot be read"):
        read_meta(tmp_path / "none.json")
    with pytest.raises(RecordError, match="one entry a data set"):
        read_meta(meta(tmp_path))


def test_missing_media_are_named(tmp_path):
    ref = MediaRef(kind="image", path=str(tmp_path / "gone.jpg"))
    with pytest.raises(MediaError, match=r"gone.jpg cannot be read \(No such file"):
        ref.read()
