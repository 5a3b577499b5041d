"""Galleries of data sets: tar shards and parquet files, alone or in a folder, whole or damaged, changed or not."""

import io
import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from composing import ColourEncoder, WordsEncoder, noise
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vedere.cli import gallery as command
from vedere.compose import containers
from vedere.compose.article import Picture
from vedere.compose.containers import member_names, members
from vedere.compose.gallery import FolderGallery, GalleryConfig
from vedere.data.shards import ShardWriter
from vedere.errors import ConfigError, RecordError
from vedere.serve.shelf import Shelf

CAPTIONS = ["a calm lake", "a bridge in snow", "green tea fields", "an old tower", "a red door"]


def picture(seed, suffix="png", size=(96, 64)):
    buffer = io.BytesIO()
    noise(buffer, seed, size, format={"jpg": "JPEG"}.get(suffix, suffix))
    return buffer.getvalue()


def shard(folder, records):
    with ShardWriter(folder) as writer:
        for key, parts in records.items():
            writer.write(key, parts)
    return folder / "shard-000000.tar"


def table(path, rows, row_group_size=2, **columns):
    """As datasets writes it: a struct of bytes and path, and the other columns."""
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    data = {"image": pa.array([{"bytes": data, "path": name} for data, name in rows], struct)}
    data |= {name: pa.array(values) for name, values in columns.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(data), path, row_group_size=row_group_size)
    return path


def five(path, **columns):
    return table(path, [(picture(seed), f"{seed}.png") for seed in range(5)], **{"caption": CAPTIONS, **columns})


def opened(source, place, encoder=None, **config):
    return FolderGallery(source, encoder or WordsEncoder(), index=place / "index", config=GalleryConfig(**config))


def names(gallery, caption, count=4, exclude=()):
    return [found.id for found in gallery.search(caption, count, exclude)]


def counts(report):
    return report.pictures, report.new, report.changed, report.removed, len(report.unusable), report.wordless


def test_a_parquet_file_is_searched_by_its_columns(tmp_path):
    path = five(
        tmp_path / "set" / "train.parquet",
        Tags=[["water"], [], ["leaves"], [], []],
        license=["CC0", "", "CC-BY", "", ""],
        url=[f"http://x/{n}" for n in range(5)],
        unused=[b"x"] * 5,
    )
    gallery = opened(path, tmp_path)
    assert counts(gallery.update()) == (5, 5, 0, 0, 0, 0)
    best, *_ = gallery.ranked("a bridge in the snow", 4)
    assert best.picture.id == "train.parquet/1"
    assert (best.picture.caption, best.picture.source) == ("a bridge in snow", "http://x/1")
    (tea,) = gallery.ranked("green tea", 1)
    assert (tea.tags, tea.picture.licence) == (("leaves",), "CC-BY")
    with Image.open(tea.picture.path) as image, Image.open(io.BytesIO(picture(2))) as expected:
        assert image.tobytes() == expected.tobytes()
    assert tea.picture.path.endswith(".png")
    assert gallery.ranked("green tea", 1)[0].picture.path == tea.picture.path  # taken out once


def test_a_shard_is_searched_by_the_texts_beside_its_pictures(tmp_path):
    path = shard(
        tmp_path / "set",
        {
            "a/0001": {
                "jpg": picture(1, "jpg"),
                "json": {"caption": "a calm lake", "author": "by me", "license": "CC0"},
            },
            "a/0002": {"png": picture(2), "txt": "a bridge in snow\n\nin winter"},
            "0003": {"0.png": picture(3), "1.png": picture(4), "txt": "green tea fields", "json": b"{"},
            "old tower": {"png": picture(5)},
            "0005": {"txt": "no picture"},
        },
    )
    gallery = opened(path.parent, tmp_path)
    assert counts(gallery.update()) == (5, 5, 0, 0, 0, 0)
    (lake,) = gallery.search("a calm lake", 1, ())
    assert (lake.id, lake.attribution, lake.licence) == ("shard-000000.tar/a/0001.jpg", "by me", "CC0")
    assert Path(lake.path).read_bytes() == picture(1, "jpg")
    assert names(gallery, "winter")[0] == "shard-000000.tar/a/0002.png"
    assert sorted(names(gallery, "green tea fields")) == [f"shard-000000.tar/0003.{k}.png" for k in (0, 1)]
    assert names(gallery, "an old tower") == ["shard-000000.tar/old tower.png"]


def test_folders_mix_files_and_data_sets(tmp_path):
    place = tmp_path / "set"
    five(place / "data" / "train-00000-of-00001.parquet")
    shard(place / "more", {"x": {"png": picture(11), "txt": "a red fox"}})
    noise(place / "grey wolf.png", 12)
    (place / "captions.jsonl").write_text(
        json.dumps({"file": "data/train-00000-of-00001.parquet/4", "caption": "a blue gate"}), "utf-8"
    )
    gallery = opened(place, tmp_path, licence="CC0")
    report = gallery.update()
    assert (counts(report), report.unmatched) == ((7, 7, 0, 0, 0, 0), 0)
    assert (
        names(gallery, "a blue gate")[0] == "data/train-00000-of-00001.parquet/4"
    )  # the list says more than the columns
    assert names(gallery, "fox") == ["more/shard-000000.tar/x.png"]
    assert names(gallery, "wolf") == ["grey wolf.png"]
    assert {found.licence for found in gallery.search("a calm lake", 9, ())} == {"CC0"}


def test_a_list_may_take_pictures_out_of_data_sets(tmp_path):
    place = tmp_path / "set"
    five(place / "x.parquet")
    shard(place, {"k": {"png": picture(11), "txt": "a red fox"}, "l": {"png": picture(12)}})
    listed = ["x.parquet/3", "shard-000000.tar/k.png", "x.parquet/9", "y.parquet/1"]
    (tmp_path / "set" / "some.jsonl").write_text("\n".join(json.dumps({"file": name}) for name in listed), "utf-8")
    gallery = opened(place / "some.jsonl", tmp_path)
    report = gallery.update()
    assert (counts(report), report.unmatched) == ((3, 3, 0, 0, 1, 0), 1)
    assert report.unusable == (("x.parquet/9", "there is no such picture in its data set"),)
    assert names(gallery, "an old tower") == ["x.parquet/3"]
    assert names(gallery, "fox") == ["shard-000000.tar/k.png"]


def test_what_has_not_changed_is_not_even_opened(tmp_path, monkeypatch):
    place = tmp_path / "set"
    one, other = five(place / "one.parquet"), shard(place, {"x": {"png": picture(11), "txt": "a red fox"}})
    encoder = WordsEncoder()
    opened(place, tmp_path, encoder).update()
    encoder.asked.clear()
    looked = []
    for name in ("_parquet", "_shard"):
        real = getattr(containers, name)
        monkeypatch.setattr(containers, name, lambda path, real=real: looked.append(path) or real(path))
    again = opened(place, tmp_path, encoder)
    assert counts(again.update()) == (6, 0, 0, 0, 0, 0)
    assert not looked
    assert not encoder.asked
    five(one, caption=["a calm lake", "a stone arch", *CAPTIONS[2:]])
    os.utime(one, ns=(5, 5))
    assert counts(again.update()) == (6, 0, 5, 0, 0, 0)
    assert set(looked) == {one}
    assert names(again, "stone arch")[0] == "one.parquet/1"
    other.unlink()
    assert counts(again.update()) == (5, 0, 0, 1, 0, 0)
    assert not names(again, "fox")


def test_an_update_that_is_stopped_goes_on_inside_a_file(tmp_path, monkeypatch):
    path = five(tmp_path / "set" / "train.parquet")
    monkeypatch.setattr("vedere.compose.gallery._BATCH", 2)

    def stop(done, total):
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        opened(path, tmp_path).update(stop)
    encoder = WordsEncoder()
    assert counts(opened(path, tmp_path, encoder).update()) == (5, 1, 0, 0, 0, 0)
    assert encoder.asked == ["a red door"]


def test_what_cannot_be_used_is_listed_with_its_reason(tmp_path):
    place = tmp_path / "set"
    rows = [(picture(0), "0.png"), (None, "gone.jpg"), (b"no picture", None), (picture(3)[:900], None), (None, None)]
    table(place / "a.parquet", [*rows, (picture(5, size=(90, 9)), None)], caption=["a calm lake"] * 6)
    (place / "b.parquet").write_bytes(b"PAR1")
    pq.write_table(pa.table({"question": ["?"], "x": [1]}), place / "c.parquet")
    pq.write_table(pa.table({"image": pa.array([], pa.binary())}), place / "d.parquet")
    cut = shard(place, {"x": {"png": picture(11)}, "y": {"png": picture(12)}})
    cut.write_bytes(cut.read_bytes()[:3000])
    (place / "empty.tar").write_bytes(b"")
    with ShardWriter(place, prefix="texts") as writer:
        writer.write("x", {"txt": "only words"})
    gallery = opened(place, tmp_path)
    report = gallery.update()
    reasons = dict(report.unusable)
    assert counts(report) == (12, 12, 0, 0, 11, 0)
    assert reasons["a.parquet/1"].startswith(
        "the row holds no picture, only the path 'gone.jpg': the data set was saved with"
    )
    assert reasons["a.parquet/4"] == "the row holds no picture"
    assert reasons["a.parquet/5"] == "90 x 9 pixels: a side is shorter than 32"
    assert "truncated" in reasons["a.parquet/3"]
    assert "no parquet file that can be read" in reasons["b.parquet"]
    assert "no column with one picture a row (columns: question, x)" in reasons["c.parquet"]
    assert reasons["d.parquet"] == "no rows in it"
    assert "the shard is truncated" in reasons["shard-000000.tar"]
    assert reasons["texts-000000.tar"].startswith("no pictures in it; expected members that end in jpg")
    assert str(tmp_path) not in " ".join(reasons.values())
    assert counts(gallery.update()) == (12, 0, 0, 0, 11, 0)
    assert names(gallery, "a calm lake") == ["a.parquet/0"]


def test_a_damaged_row_group_costs_its_own_rows_only(tmp_path):
    path = five(tmp_path / "set" / "train.parquet")
    data = bytearray(path.read_bytes())
    meta = pq.ParquetFile(path).metadata.row_group(1).column(0)
    start = meta.data_page_offset if meta.dictionary_page_offset is None else meta.dictionary_page_offset
    data[start : start + 40] = b"\xff" * 40
    path.write_bytes(data)
    gallery = opened(path, tmp_path)
    report = gallery.update()
    assert [name for name, _ in report.unusable] == ["train.parquet/2", "train.parquet/3"]
    assert all("its part of the file is damaged" in reason for _, reason in report.unusable)
    assert names(gallery, "a red door")[0] == "train.parquet/4"


def test_a_file_that_changed_since_is_passed_over_and_named(tmp_path):
    path = five(tmp_path / "set" / "train.parquet")
    gallery = opened(path, tmp_path)
    gallery.update()
    os.utime(path, ns=(7, 7))
    assert not names(gallery, "a calm lake")
    assert gallery.stale["train.parquet/0"] == "has changed since it was indexed"
    path.unlink()
    assert not names(gallery, "a calm lake")
    assert gallery.stale["train.parquet/0"] == "has gone since it was indexed"


def test_other_columns_that_hold_pictures(tmp_path):
    flat = pa.table({"PNG": pa.array([picture(0)], pa.large_binary()), "TEXT": ["a calm lake"]})
    pq.write_table(flat, tmp_path / "a.parquet")
    (found,) = members(tmp_path / "a.parquet", ["0"])
    assert (found.picture, found.words.captions) == (picture(0), ("a calm lake",))
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    odd = pa.array([{"bytes": picture(1), "path": "grey wolf.png"}], struct)
    numbered = pa.table({"photo of it": odd, "caption_1": ["b"], "caption_0": ["a"], "caption_length": ["9"]})
    pq.write_table(numbered, tmp_path / "b.parquet")
    (found,) = members(tmp_path / "b.parquet", ["0"])
    assert (found.picture, found.words.captions, found.title) == (picture(1), ("a", "b"), "grey wolf.png")
    pq.write_table(pa.table({"left": odd, "right": odd}), tmp_path / "c.parquet")
    with pytest.raises(
        RecordError, match=r"no column with one picture a row \(columns: left, right\); expected bytes, or"
    ):
        member_names(tmp_path / "c.parquet")


@settings(max_examples=20, deadline=None)
@given(st.sets(st.integers(0, 22), min_size=1), st.integers(1, 9))
def test_any_choice_of_rows_is_read_in_order(tmp_path_factory, rows, group):
    path = tmp_path_factory.mktemp("set") / "x.parquet"
    table(path, [(bytes([row + 1]), None) for row in range(23)], row_group_size=group)
    wanted = sorted(rows)
    found = list(members(path, [str(row) for row in wanted]))
    assert [(one.name, one.picture) for one in found] == [(str(row), bytes([row + 1])) for row in wanted]


def test_an_encoder_that_sees_and_a_page_that_shows(tmp_path):
    rows = []
    for colour in ((250, 9, 9), (9, 250, 9), (9, 9, 250)):
        buffer = io.BytesIO()
        Image.new("RGB", (40, 40), colour).save(buffer, "PNG")
        rows.append((buffer.getvalue(), None))
    gallery = opened(table(tmp_path / "set" / "x.parquet", rows), tmp_path, ColourEncoder())
    assert gallery.update().wordless == 0
    (green,) = gallery.search("something green", 1, ())
    assert green.id == "x.parquet/1"
    shelf = Shelf(tmp_path / "uploads", gallery.folders)
    assert shelf.holds(green)
    assert not shelf.holds(Picture(id="x", path=str(tmp_path / "index" / "containers.json")))


def test_folders_may_be_called_like_data_sets_and_hold_the_index(tmp_path):
    place = tmp_path / "set"
    (place / "x.tar").mkdir(parents=True)
    noise(place / "x.tar" / "grey wolf.png", 1)
    five(place / "y.parquet")
    gallery = FolderGallery(place, WordsEncoder(), index=place / "index")
    assert counts(gallery.update()) == (6, 6, 0, 0, 0, 0)
    assert names(gallery, "wolf") == ["x.tar/grey wolf.png"]
    assert names(gallery, "a calm lake")
    assert counts(gallery.update()) == (6, 0, 0, 0, 0, 0)  # what was taken out is no picture of its own


def test_a_listing_that_was_damaged_is_made_again(tmp_path):
    path = five(tmp_path / "set" / "train.parquet")
    opened(path, tmp_path).update()
    for damage in ("{", "[]", '{"train.parquet": 3}'):
        (tmp_path / "index" / "containers.json").write_text(damage)
        assert counts(opened(path, tmp_path).update()) == (5, 0, 0, 0, 0, 0)


def test_a_missing_library_and_other_files_are_said(tmp_path, monkeypatch):
    path = five(tmp_path / "set" / "train.parquet")
    (tmp_path / "x.zip").write_bytes(b"PK")
    with pytest.raises(
        ConfigError, match=r"x\.zip is no folder of pictures; give a folder .* data set of pictures: \.tar, \.pa"
    ):
        opened(tmp_path / "x.zip", tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    with pytest.raises(
        ConfigError, match=r"train\.parquet: parquet needs pyarrow; install it with: pip install 'vedere\[com"
    ):
        opened(path, tmp_path).update()


def test_on_the_command_line(tmp_path, monkeypatch, capsys):
    path = five(tmp_path / "set" / "train.parquet")
    monkeypatch.setattr("vedere.compose.gallery.open_encoder", lambda name, say: WordsEncoder())
    assert (
        command.main(["search", str(path), "an old tower", "--index", str(tmp_path / "i"), "--count", "1", "--json"])
        == 0
    )
    (hit,) = json.loads(capsys.readouterr().out)["hits"]
    assert (hit["id"], hit["caption"]) == ("train.parquet/3", "an old tower")
    assert Image.open(hit["path"]).size == (96, 64)
