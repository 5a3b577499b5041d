"""The gallery: indexing what has changed, finding by words and by sight, and everything that a folder may hold."""

import json
import os

import numpy as np
import pytest
from composing import ColourEncoder, Script, WordsEncoder, noise
from PIL import Image

from vedere.compose.gallery import FolderGallery, GalleryConfig
from vedere.compose.prompts import FIRST, Brief
from vedere.compose.steps import Draft, pipeline, run
from vedere.errors import ConfigError, RecordError

CAPTIONS = {"lake.jpg": "a calm lake", "bridge.jpg": "a bridge in snow", "tea.jpg": "green tea fields"}


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "pictures"
    (place / "deep").mkdir(parents=True)
    for seed, name in enumerate(CAPTIONS):
        noise(place / name, seed)
    noise(place / "deep" / "old-tower.png", 9)
    rows = [{"file": name, "caption": caption, "author": f"by {name}"} for name, caption in CAPTIONS.items()]
    (place / "captions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return place


def opened(folder, encoder=None, **config):
    return FolderGallery(
        folder, encoder or WordsEncoder(), index=folder.parent / "index", config=GalleryConfig(**config)
    )


def names(gallery, caption, count=4, exclude=()):
    return [picture.id for picture in gallery.search(caption, count, exclude)]


def test_a_folder_is_indexed_and_searched_by_what_is_known(folder):
    gallery = opened(folder, licence="CC0")
    report = gallery.update()
    assert (report.pictures, report.new, report.changed, report.removed, report.wordless) == (4, 4, 0, 0, 0)
    assert names(gallery, "a bridge in the snow")[0] == "bridge.jpg"
    assert names(gallery, "an old tower") == ["deep/old-tower.png"]
    (tea,) = gallery.search("green tea", 1, ())
    assert (tea.path, tea.caption) == (str(folder / "tea.jpg"), "green tea fields")
    assert (tea.attribution, tea.licence) == ("by tea.jpg", "CC0")
    best = gallery.ranked("a calm lake", 4)[0]
    assert best.similarity == pytest.approx(1.0, abs=1e-5)


def test_only_what_has_changed_is_read_again(folder):
    encoder = WordsEncoder()
    opened(folder, encoder).update()
    encoder.asked.clear()
    again = opened(folder, encoder)
    assert vars(again.update()) | {"pictures": 4, "new": 0, "changed": 0, "removed": 0} == vars(again.update())
    assert not encoder.asked
    noise(folder / "new one.jpg", 20)
    noise(folder / "tea.jpg", 21, size=(40, 50))
    (folder / "lake.jpg").unlink()
    (folder / "captions.jsonl").write_text(json.dumps({"file": "bridge.jpg", "caption": "a stone arch"}))
    report = again.update()
    assert (report.new, report.changed, report.removed) == (1, 2, 1)
    assert sorted(encoder.asked) == ["a stone arch", "new one", "tea"]
    assert names(again, "stone arch")[0] == "bridge.jpg"
    assert not names(again, "calm lake", exclude=["new one.jpg"])


def test_an_update_that_is_stopped_goes_on(folder, monkeypatch):
    monkeypatch.setattr("vedere.compose.gallery._BATCH", 1)
    seen = []

    def stop(done, total):
        seen.append((done, total))
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        opened(folder).update(stop)
    assert seen == [(1, 4), (2, 4)]
    report = opened(folder).update(lambda done, total: seen.append((done, total)))
    assert (report.pictures, report.new) == (4, 2)
    assert seen[2:] == [(1, 2), (2, 2)]


def test_what_cannot_be_used_is_listed_and_tried_again_when_it_changes(folder):
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.jpg").write_text("no picture")
    whole = (folder / "lake.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    Image.new("RGB", (1, 20_000)).save(folder / "page.png")
    noise(folder / "IMG_0001.jpg", 30)
    encoder = WordsEncoder()
    gallery = opened(folder, encoder)
    report = gallery.update()
    reasons = dict(report.unusable)
    assert sorted(reasons) == ["cut.jpg", "empty.png", "page.png", "text.jpg"]
    assert reasons["page.png"] == "1 x 20000 pixels: a side is shorter than 32"
    assert "is empty" in reasons["empty.png"]
    assert "truncated" in reasons["cut.jpg"]
    assert (report.pictures, report.wordless) == (9, 1)
    encoder.asked.clear()
    assert gallery.update().unusable == report.unusable  # and nothing was read again
    assert not encoder.asked
    noise(folder / "empty.png", 31)
    assert sorted(dict(gallery.update().unusable)) == ["cut.jpg", "page.png", "text.jpg"]
    assert names(gallery, "empty") == ["empty.png"]


def test_an_empty_gallery_is_said_and_a_missing_one(tmp_path):
    (tmp_path / "pictures").mkdir()
    with pytest.raises(ConfigError, match=r"the gallery .*pictures holds no pictures; put files into it that end in"):
        opened(tmp_path / "pictures").update()
    with pytest.raises(ConfigError, match=r"gallery .*nowhere does not exist; give a folder of pictures"):
        opened(tmp_path / "nowhere")
    (tmp_path / "note.txt").write_text("x")
    with pytest.raises(ConfigError, match=r"note\.txt is no folder of pictures"):
        opened(tmp_path / "note.txt")


def test_a_list_that_is_wrong_is_said_before_anything_is_read(folder):
    encoder = WordsEncoder()
    (folder / "captions.jsonl").write_text("{")
    with pytest.raises(RecordError, match="line 1: no JSON"):
        opened(folder, encoder).update()
    assert not encoder.asked
    with pytest.raises(ConfigError, match="similarity 7; expected -1 to 1"):
        GalleryConfig(similarity=7)


def test_names_of_the_list_without_a_file_are_counted_and_never_leave_the_folder(folder):
    noise(folder.parent / "secret.jpg", 40)
    lines = [{"file": name, "caption": "x"} for name in ("none.jpg", "bridge.jpg")]
    (folder / "captions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    report = opened(folder).update()
    assert (report.pictures, report.unmatched) == (4, 1)


def test_an_annotation_file_is_a_gallery_of_its_pictures(folder):
    path = folder / "some.jsonl"
    path.write_text(json.dumps({"image": "deep/old-tower.png", "caption": "a lake tower"}))
    gallery = FolderGallery(path, WordsEncoder(), index=folder.parent / "other")
    assert gallery.update().pictures == 1
    assert names(gallery, "a calm lake", 4) == ["deep/old-tower.png"]


def test_nothing_similar_is_no_candidate_and_the_place_stays_empty(folder):
    gallery = opened(folder)
    gallery.update()
    assert names(gallery, "quantum chromodynamics") == []
    assert names(gallery, "  ") == []
    assert len(names(opened(folder, similarity=-1.0), "quantum chromodynamics")) == 4
    model = Script(
        write="One.\nTwo.", spot="<Seg0><Seg1>", caption=['a calm lake"', 'quantum chromodynamics"'], select="A"
    )
    result = run(pipeline(model, gallery, FIRST), Draft.of(Brief(title="x")))
    assert [picture.id for picture in result.article.pictures()] == ["lake.jpg"]
    assert any("the place stays empty" in event.note for event in result.log)


def test_near_duplicates_are_passed_over(folder):
    with Image.open(folder / "lake.jpg") as image:
        image.resize((70, 50)).save(folder / "lake again.jpg", quality=40)
    gallery = opened(folder)
    gallery.update()
    found = names(gallery, "a calm lake again", 4)
    assert len({"lake.jpg", "lake again.jpg"} & set(found)) == 1
    assert not {"lake.jpg", "lake again.jpg"} & set(names(gallery, "a calm lake again", 4, found[:1]))
    both = names(opened(folder, same_bits=-1), "a calm lake again", 4)
    assert {"lake.jpg", "lake again.jpg"} <= set(both)


def test_a_file_that_changed_since_it_was_indexed_is_passed_over_and_named(folder):
    gallery = opened(folder, similarity=-1.0)
    gallery.update()
    (folder / "lake.jpg").unlink()
    os.utime(folder / "bridge.jpg", ns=(1, 1))
    assert sorted(names(gallery, "a calm lake in snow")) == ["deep/old-tower.png", "tea.jpg"]
    assert gallery.stale == {
        "lake.jpg": "has gone since it was indexed",
        "bridge.jpg": "has changed since it was indexed",
    }
    gallery.update()
    assert not gallery.stale
    assert "bridge.jpg" in names(gallery, "a calm lake in snow")


def test_an_encoder_that_sees_needs_no_words(tmp_path):
    place = tmp_path / "pictures"
    place.mkdir()
    for number, colour in enumerate([(250, 9, 9), (9, 250, 9), (9, 9, 250)]):
        Image.new("RGB", (40, 40), colour).save(place / f"IMG_{number}.png")
    gallery = opened(place, ColourEncoder())
    assert gallery.update().wordless == 0
    assert names(gallery, "something green") == ["IMG_1.png"]
    words = opened(place)  # another encoder has an index of its own
    assert words.update().wordless == 3


def test_odd_names_are_names(folder):
    odd = 'it\'s 100% "snow" -- ; DROP 雪.jpg'
    noise(folder / odd, 50)
    gallery = opened(folder)
    gallery.update()
    assert odd in names(gallery, "100%")
    assert odd not in names(gallery, "100%", exclude=[odd])
    (folder / odd).unlink()
    assert gallery.update().removed == 1


def test_two_updates_at_once_give_no_picture_twice(folder):
    Image.new("RGB", (50, 50), "red").save(folder / "flat red.png")  # without a hash
    other = opened(folder)

    class Slow(WordsEncoder):
        def texts(self, texts):
            if not len(other):
                other.update()
            return super().texts(texts)

    one = opened(folder, Slow())
    one.update()
    assert len(one) == 2 * 5
    found = names(one, "flat red", 4)
    assert found[0] == "flat red.png"
    assert len(set(found)) == len(found)


def test_a_second_reader_sees_what_the_first_indexed(folder):
    reader, writer = opened(folder), opened(folder)
    writer.update()
    assert names(reader, "green tea")[0] == "tea.jpg"


@pytest.mark.parametrize("exhaustive", [10_000, 10])
def test_a_large_gallery_finds_what_is_there(tmp_path, exhaustive):
    """With an inverted file and without: the same best hit for nearly every query."""
    place = tmp_path / "pictures"
    place.mkdir()
    Image.new("RGB", (32, 32)).save(place / "one.png")
    one = (place / "one.png").read_bytes()
    generator = np.random.default_rng(0)
    words = ["".join(generator.choice(list("abcdefgh"), 5)) for _ in range(300)]
    for number in range(300):
        (place / f"x{number}.png").write_bytes(one)
    (place / "captions.txt").write_text("".join(f"x{number}.png\t{word}\n" for number, word in enumerate(words)))
    gallery = opened(place)
    gallery.update(exhaustive=exhaustive)
    right = sum(names(gallery, words[number], 1) == [f"x{number}.png"] for number in range(0, 300, 10))
    assert right >= (30 if exhaustive > 300 else 27)


def test_without_its_database_it_says_what_to_install(folder, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "lancedb", None)
    with pytest.raises(
        ConfigError, match=r"needs the package lancedb; install it with: pip install 'vedere\[compose\]'"
    ):
        opened(folder)


def test_new_pictures_of_a_large_gallery_join_its_cells(tmp_path, monkeypatch):
    """Cells are made anew only when half as many rows have come as there were, and everything is found either way."""
    from lancedb.table import LanceTable

    made, create = [], LanceTable.create_index
    monkeypatch.setattr(
        LanceTable, "create_index", lambda self, *a, **o: made.append(len(self)) or create(self, *a, **o)
    )
    place = tmp_path / "pictures"
    place.mkdir()
    Image.new("RGB", (32, 32)).save(place / "x0.png")
    one = (place / "x0.png").read_bytes()
    (place / "captions.txt").write_text("")
    gallery = opened(place)
    words = ["".join(np.random.default_rng(number).choice(list("abcdefgh"), 6)) for number in range(60)]
    for first, last in ((0, 30), (30, 32), (32, 60)):
        for number in range(first, last):
            (place / f"x{number}.png").write_bytes(one)
        lines = [f"x{number}.png\t{word}\n" for number, word in enumerate(words[:last])]
        (place / "captions.txt").write_text("".join(lines))
        assert gallery.update(exhaustive=10).new == last - first
        assert [names(gallery, words[number], 1) for number in range(last)] == [[f"x{n}.png"] for n in range(last)]
    assert made == [30, 60]


def test_what_is_left_out_does_not_shorten_an_answer(tmp_path):
    """Excluded and unusable rows stand nearer than the rest, more of them than are asked for."""
    place = tmp_path / "pictures"
    place.mkdir()
    for number in range(40):
        Image.new("RGB", (32, 32)).save(place / f"x{number}.png")
        (place / f"broken{number}.png").write_bytes(b"no picture")
    lines = [f"x{n}.png\tlake{' hill' * (n // 10)}\n" for n in range(40)]
    (place / "captions.txt").write_text("".join(lines))
    gallery = opened(place, similarity=-1.0, same_bits=-1)
    assert gallery.update().pictures == 80
    shown = [f"x{n}.png" for n in range(20)]
    found = names(gallery, "lake", 15, shown)
    assert len(found) == 15
    assert not set(found) & set(shown)
    assert set(found[:10]) == {f"x{n}.png" for n in range(20, 30)}
    assert len(names(gallery, "nothing like it", 60)) == 40
