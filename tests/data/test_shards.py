"""Tar shards: what is written comes back, equal records give equal bytes, damage is never a shorter epoch."""

import hashlib
import io
import json
import pickle
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vedere.data.formats import DatasetInfo
from vedere.data.shards import CAPTION_PROMPT, ShardWriter, TarRecords, find_shards, index_shard, split_member
from vedere.errors import MediaError, RecordError, VedereError

TALK = [{"from": "human", "value": "<image>\nQ"}, {"from": "gpt", "value": "A"}]


def shard(folder, **records):
    with ShardWriter(folder) as writer:
        for key, members in records.items():
            writer.write(key, members)
    return writer.paths[0]


def test_keys_end_at_the_first_dot_of_the_base_name():
    assert split_member("a.b/c.0.JPG") == ("a.b/c", "0.jpg")
    assert split_member("plain") == ("plain", "")


def test_captions_and_records_become_samples(tmp_path):
    path = shard(
        tmp_path,
        text={"jpg": b"JPEG", "txt": " a cat \n"},
        caption={"png": b"PNG", "json": {"caption": "a dog", "licence": "CC0-1.0", "id": "dog"}},
        record={"webp": b"WEBP", "json": {"conversations": TALK}},
        clip={"mp4": b"MP4", "json": {"caption": "it runs", "clip": [0, 1]}},
        several={
            "0.jpg": b"zero",
            "1.jpg": b"one",
            "json": {"conversations": [dict(TALK[0], value="Q"), TALK[1]]},
        },
        named={
            "a.jpg": b"first",
            "b.jpg": b"second",
            "json": {"conversations": TALK, "image": "named.b.jpg"},
        },
        bare={"json": {"conversations": [{"from": "human", "value": "Q"}, TALK[1]]}},
    )
    records = pickle.loads(pickle.dumps(TarRecords([path], info=DatasetInfo(name="web", licence="MIT"))))
    samples = {sample.source.rpartition(":")[2]: sample for sample in (records[k] for k in range(len(records)))}
    turns = {key: [turn.content for turn in sample.conversation] for key, sample in samples.items()}
    assert turns["text"] == [f"<image>\n{CAPTION_PROMPT}", "a cat"]
    assert turns["caption"][1] == "a dog"
    assert (samples["caption"].name, samples["caption"].licence) == ("web#dog", "CC0-1.0")
    assert samples["text"].licence == "MIT"
    assert turns["record"] == ["<image>\nQ", "A"]
    assert turns["clip"][0].startswith("<video>\n")
    assert samples["clip"].media[0].clip == (0.0, 1.0)
    assert turns["several"][0] == "<image>\n<image>\nQ"
    assert [ref.read() for ref in samples["several"].media] == [b"zero", b"one"]
    assert [ref.read() for ref in samples["named"].media] == [b"second"]
    assert samples["bare"].media == ()
    assert samples["text"].media[0].place == f"{path}:text.jpg"
    assert samples["text"].media[0].read() == b"JPEG"


def test_indices_count_through_several_shards(tmp_path):
    with ShardWriter(tmp_path, max_records=3) as writer:
        for number in range(8):
            writer.write(f"k{number}", {"jpg": bytes([number]), "txt": f"caption {number}"})
    assert [path.name for path in writer.paths] == [f"shard-{k:06d}.tar" for k in range(3)]
    records = TarRecords(find_shards(tmp_path))
    assert len(records) == 8
    for number in (7, 0, 3, 2):
        assert records[number].media[0].read() == bytes([number])
        assert records[number].source == f"{writer.paths[number // 3]}:k{number}"
    with pytest.raises(IndexError):
        records[8]
    assert find_shards(tmp_path / "shard-00000[12].tar") == writer.paths[1:]
    with pytest.raises(RecordError, match="no shards; expected"):
        find_shards(tmp_path / "*.tgz")


def test_large_shards_are_closed_by_size(tmp_path):
    with ShardWriter(tmp_path, max_bytes=100) as writer:
        for number in range(4):
            writer.write(f"k{number}", {"txt": "x" * 60})
    assert len(writer.paths) == 2


members = st.dictionaries(st.sampled_from(["jpg", "txt", "1.png", "json"]), st.binary(max_size=1200), min_size=1)


@settings(max_examples=25, deadline=None)
@given(records=st.dictionaries(st.text("abcä/_-", min_size=1, max_size=120), members, min_size=1, max_size=5))
def test_members_come_back_byte_for_byte_and_files_are_reproducible(tmp_path_factory, records):
    records = {key.strip("/"): value for key, value in records.items() if key.strip("/") and "//" not in key}
    hashes = set()
    for _ in range(2):
        folder = tmp_path_factory.mktemp("shards")
        with ShardWriter(folder) as writer:
            for key, content in records.items():
                writer.write(key, content)
        hashes.update(hashlib.sha256(path.read_bytes()).hexdigest() for path in writer.paths)
    assert len(hashes) == len(writer.paths)
    if not records:
        return
    found = dict(index_shard(writer.paths[0]))
    data = writer.paths[0].read_bytes()
    assert list(found) == list(records)
    for key, content in records.items():
        assert {suffix: data[at : at + size] for suffix, _, at, size in found[key]} == content


def test_a_failing_writer_leaves_no_shard(tmp_path):
    def fail():
        with ShardWriter(tmp_path) as writer:
            writer.write("a", {"txt": "x"})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("key", ["", "a.b", "/a", "a/"])
def test_unusable_keys(tmp_path, key):
    with ShardWriter(tmp_path) as writer, pytest.raises(RecordError, match="without dots"):
        writer.write(key, {"txt": "x"})


def test_repeated_keys_and_empty_records(tmp_path):
    with ShardWriter(tmp_path) as writer:
        writer.write("a", {"txt": "x"})
        with pytest.raises(RecordError, match="'a' was already written"):
            writer.write("a", {"txt": "y"})
        with pytest.raises(RecordError, match="'b' has no members"):
            writer.write("b", {})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"jpg": b"x"}, r"shard-000000.tar:k: no text; expected .*members: \['k.jpg'\]"),
        ({"txt": b"\xff", "jpg": b"x"}, "k.txt: byte 0 is not UTF-8"),
        ({"json": b"{", "jpg": b"x"}, "k.json: not JSON"),
        ({"json": b"[]", "jpg": b"x"}, "expected a JSON object"),
        ({"json": {"conversations": TALK, "image": "z.jpg"}, "jpg": b"x"}, r"no image member 'z.jpg'.*\['k.jpg'\]"),
        ({"json": {"conversations": TALK}}, "1 <image> in the human turns but no 'image'"),
    ],
)
def test_records_that_are_refused(tmp_path, content, message):
    records = TarRecords([shard(tmp_path, k=content)])
    with pytest.raises(RecordError, match=message):
        records[0]


def test_truncated_shards_are_refused_wherever_they_end(tmp_path):
    path = shard(tmp_path, **{f"k{n}": {"jpg": bytes([n]) * 700, "txt": "x"} for n in range(3)})
    data = path.read_bytes()
    end = max(at + size for _, members in index_shard(path) for _, _, at, size in members)
    for length in range(0, end, 128):
        path.write_bytes(data[:length])
        with pytest.raises(RecordError, match=r"truncated|not a tar shard"):
            index_shard(path)


def test_other_files_are_refused(tmp_path):
    with pytest.raises(RecordError, match="cannot be read"):
        index_shard(tmp_path / "none.tar")
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("a.txt"), io.BytesIO())
    with pytest.raises(RecordError, match="decompress it"):
        index_shard(tmp_path / "a.tar.gz")
    (tmp_path / "text.tar").write_text("hello " * 500)
    with pytest.raises(RecordError, match="not a tar shard"):
        index_shard(tmp_path / "text.tar")
    with tarfile.open(tmp_path / "empty.tar", "w"):
        pass
    with pytest.raises(RecordError, match="no records"):
        TarRecords([tmp_path / "empty.tar"])
    with tarfile.open(tmp_path / "twice.tar", "w") as tar:
        for _ in range(2):
            tar.addfile(tarfile.TarInfo("a.txt"), io.BytesIO())
    with pytest.raises(RecordError, match=r"record 'a' has two members '.txt'"):
        index_shard(tmp_path / "twice.tar")


def test_a_shard_that_shrinks_after_indexing_is_noticed(tmp_path):
    path = shard(tmp_path, a={"txt": "x"}, b={"jpg": b"y" * 3000, "txt": "z"})
    records = TarRecords([path])
    sample = records[1]
    path.write_bytes(path.read_bytes()[:2048])
    with pytest.raises(MediaError, match=r"ends after .* of 3000 bytes"):
        sample.media[0].read()


@settings(max_examples=80, deadline=None)
@given(edits=st.lists(st.tuples(st.integers(0, 6000), st.integers(0, 255)), min_size=1, max_size=6))
def test_damaged_shards_give_records_or_named_errors(tmp_path_factory, edits):
    folder = tmp_path_factory.mktemp("fuzz")
    path = shard(
        folder, a={"jpg": b"x" * 600, "txt": "cat"}, b={"json": json.dumps({"conversations": TALK}), "png": b"y"}
    )
    data = bytearray(path.read_bytes())
    for place, value in edits:
        data[place % len(data)] = value
    path.write_bytes(data)
    message = str(path)
    try:
        records = TarRecords([path])
        for index in range(len(records)):
            for ref in records[index].media:
                ref.read()
    except VedereError as error:
        message = str(error)
    assert str(path) in message
