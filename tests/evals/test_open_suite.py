import json
import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vedere.errors import ConfigError, RecordError
from vedere.evals.benchmarks import score_rows
from vedere.evals.items import Frames, Picture, Settings
from vedere.evals.open_scoring import judge, read_choice
from vedere.evals.open_suite import BLIND, OpenImages, OpenVideos, data_folder, ledger, open_suite
from vedere.evals.records import Row
from vedere.evals.safety.harmless import harmless_requests
from vedere.evals.suites import data_of, suite

PARTS = (OpenImages(), OpenVideos())
ITEMS = {part.name: part.load(data_folder(), Settings()) for part in PARTS}
ALL = [item for items in ITEMS.values() for item in items]


def test_it_is_as_large_as_it_says_and_small_enough_to_ship():
    assert {name: len(items) for name, items in ITEMS.items()} == {"open-images": 108, "open-videos": 37}
    files = [path for path in data_folder().rglob("*") if path.is_file()]
    clips = sum(path.stat().st_size for path in files if path.suffix == ".mp4")
    assert clips < 2e6
    assert sum(path.stat().st_size for path in files) - clips < 3e6


def test_letters_are_balanced():
    for name, items in ITEMS.items():
        count = Counter(item.target for item in items if item.kind == "choice")
        total = sum(count.values())
        assert set(count) == set("ABCD")
        assert max(count.values()) - min(count.values()) <= 0.05 * total, (name, count)


def test_a_correct_option_does_not_stand_out_by_its_length():
    """Someone who always takes the longest text does not do much better than one who guesses."""
    chosen = [
        max(item.options, key=lambda letter: len(item.options[letter])) == item.target for item in ALL if item.options
    ]
    assert sum(chosen) / len(chosen) < 0.42


def test_questions_are_unique_and_options_differ():
    assert len({item.id for item in ALL}) == len(ALL)
    asked = Counter((item.question, tuple(medium.name for medium in item.media)) for item in ALL)
    assert max(asked.values()) == 1
    for item in ALL:
        texts = [text.lower() for text in item.options.values()]
        assert len(set(texts)) == len(texts), item.id
        assert not item.options or len(texts) == 4


def test_every_file_has_its_line_in_the_ledger_and_an_open_licence():
    found = {row["file"]: row for row in ledger()}
    media = {path.name for path in (data_folder() / "media").iterdir()}
    srt = {f"subtitles/{path.name}" for path in (data_folder() / "subtitles").iterdir()}
    assert set(found) == media | srt
    used = {medium.name for item in ALL for medium in item.media}
    assert used == media
    for row in found.values():
        assert row["licence"] in {"CC-BY-2.0", "CC-BY-3.0", "CC-BY-4.0", "CC0-1.0"}
        assert row["licence_url"].startswith("http")
        assert row["source"]
        assert row["attribution"]
        assert row["changes"]


@pytest.mark.parametrize("item", ALL, ids=lambda item: item.id)
def test_every_medium_can_be_read(item):
    for medium in item.media:
        if isinstance(medium, Picture):
            (image,) = medium.images()
            assert min(image.size) > 50


def test_clips_are_as_long_as_their_duration_says():
    from vedere.vision.video import probe

    limits = {"short": (0, 5), "medium": (5, 10), "long": (10, 60)}
    for item in ITEMS["open-videos"]:
        (clip,) = item.media
        info = probe(clip.file)
        low, high = limits[item.metadata["duration"]]
        assert low <= info.frames / info.fps <= high, clip.name


def test_video_rows_have_the_columns_of_video_mme():
    from vedere.evals.video_mme.questions import COLUMNS
    from vedere.evals.video_mme.taxonomy import TASK_TYPES

    rows = [json.loads(line) for line in (data_folder() / "videos.jsonl").read_text().splitlines()]
    for row in rows:
        assert set(COLUMNS) - {"url"} <= set(row)
        assert row["question_id"].startswith(row["video_id"] + "-")
        assert row["task_type"] in TASK_TYPES
    assert len({row["task_type"] for row in rows}) >= 10


def right(item, part):
    return {**item.record, part.answer_field: item.target}


def test_right_answers_score_one_and_always_b_what_its_share_is():
    for part in PARTS:
        items = ITEMS[part.name]
        best = part.score([right(item, part) for item in items])
        assert all(verdict.credit == 1 for verdict in best.verdicts)
        always = part.score([{**item.record, part.answer_field: "B"} for item in items])
        assert sum(verdict.credit == 1 for verdict in always.verdicts) == sum(item.target == "B" for item in items)
        assert all(part.verdict(Row(1, right(item, part))).credit == 1 for item in items)


def test_every_accepted_short_answer_is_right_whatever_its_case():
    for item in ITEMS["open-images"]:
        if item.kind == "short":
            for accepted in item.record["answer"]:
                for text in (accepted, accepted.upper(), f" {accepted}. "):
                    assert judge(Row(1, {**item.record, "prediction": text})).credit == 1
            assert judge(Row(1, {**item.record, "prediction": "something else"})).credit == 0


@given(st.sampled_from("ABCD"))
def test_a_choice_is_read_as_letter_or_as_the_text_of_one_option(letter):
    options = {"A": "red", "B": "blue", "C": "green", "D": "blue-green"}
    assert read_choice(letter, options) == letter
    assert read_choice(f"The answer is {letter}.", options) == letter
    assert read_choice(options[letter].upper(), options) == letter
    assert read_choice("a colour", options) is None


@pytest.mark.parametrize(
    ("row", "match"),
    [
        ({"kind": "essay"}, "'kind' is 'essay'; expected choice or short"),
        ({"kind": "choice", "options": ["x", "y"], "answer": "C"}, "'answer' is 'C'; expected one of A, B"),
        ({"kind": "choice", "answer": "A"}, "no options"),
    ],
)
def test_a_row_that_does_not_fit_is_told(row, match):
    with pytest.raises(RecordError, match=match):
        score_rows("open-images", [Row(1, {"id": "1", "prediction": "A", **row})])


def test_blind_prompts_hold_no_pictures_and_the_same_words():
    for part in PARTS:
        for item in ITEMS[part.name]:
            blind = part.prompt(item, Settings(prompts=BLIND))
            assert not blind.media
            assert item.question in blind.text
            for text in item.options.values():
                assert text in blind.text


def test_prompts_show_every_picture_once_and_the_wanted_frames():
    for item in ITEMS["open-images"]:
        for name in OpenImages().prompt_sets[:-1]:
            prompt = OpenImages().prompt(item, Settings(prompts=name))
            assert [medium.name for medium in prompt.media] == [medium.name for medium in item.media]
    for item in ITEMS["open-videos"]:
        (frames,) = OpenVideos().prompt(item, Settings(frames=5)).media
        assert isinstance(frames, Frames)
        assert len(frames.indices) == 5


def test_clips_on_a_canvas_and_other_ways_to_show_frames():
    part, item = OpenVideos(), ITEMS["open-videos"][0]
    (canvas,) = part.prompt(item, Settings(frames=4, prompts="xcomposer")).media
    assert 560 in canvas.images()[0].size
    assert part.prompt(item, Settings(frames=4, frame_layout="canvas")).media == (canvas,)
    for name in ("official", "internvl"):
        (frames,) = part.prompt(item, Settings(frames=4, prompts=name)).media
        assert isinstance(frames, Frames)
    (frames,) = part.prompt(item, Settings(frames=4, frame_rule="linspace", frame_side=64)).media
    assert (frames.indices[0], frames.side) == (0, 64)
    with pytest.raises(ConfigError, match="open-videos has no transcripts"):
        part.prompt(item, Settings(subtitles="transcript"))
    for one in PARTS:
        assert all(one.prompts_version(name) for name in one.prompt_sets)


def test_subtitles_stand_in_the_prompt_when_they_are_on_and_answer_what_needs_them():
    part = OpenVideos()
    needing = [item for item in ITEMS["open-videos"] if item.metadata["needs"] == "subtitles"]
    assert len(needing) == 4
    for item in needing:
        off = part.prompt(item, Settings(frames=32)).text
        on = part.prompt(item, Settings(frames=32, subtitles="on")).text
        assert "subtitles are listed below" not in off
        assert "subtitles are listed below" in on
        said = on.split(item.question)[0].lower()
        words = [word for word in re.findall(r"\w+", item.options[item.target].lower()) if len(word) > 3]
        assert all(word in said for word in words), item.id


def test_parts_splits_and_prompt_sets_by_name():
    assert suite("open-images").name == "open-images"
    assert data_of("open-videos") == data_folder()
    documents = OpenImages().load(data_folder(), Settings(split="documents"))
    assert len(documents) == 24
    with pytest.raises(ConfigError, match="no category 'drawings'"):
        OpenImages().load(data_folder(), Settings(split="drawings"))
    with pytest.raises(ConfigError, match="no duration 'endless'"):
        OpenVideos().load(data_folder(), Settings(split="endless"))
    with pytest.raises(ConfigError, match="no prompts of 'x'"):
        OpenImages().prompt(documents[0], Settings(prompts="x"))
    with pytest.raises(RecordError, match="no part 'open-audio'"):
        open_suite("open-audio")


def test_a_folder_without_the_media_is_told(tmp_path):
    for part, name in zip(PARTS, ("images.jsonl", "videos.jsonl"), strict=True):
        (tmp_path / name).write_bytes((data_folder() / name).read_bytes())
        with pytest.raises(RecordError, match=r"line 1: .* is not below"):
            part.load(tmp_path, Settings())


@pytest.mark.parametrize("field", ["id", "question"])
def test_a_row_without_words_is_told(tmp_path, field):
    row = json.loads((data_folder() / "images.jsonl").read_text().splitlines()[0])
    (tmp_path / "media").symlink_to(data_folder() / "media")
    (tmp_path / "images.jsonl").write_text(json.dumps({**row, field: " "}))
    with pytest.raises(RecordError, match=f"line 1: '{field}' is empty"):
        OpenImages().load(tmp_path, Settings())


def test_harmless_requests_are_two_pictures_each_and_want_help():
    requests = harmless_requests()
    assert len(requests) == 21
    assert all(len(one.images) == 2 and one.expected == "help" and one.rubric == "behaviour" for one in requests)
    assert all(path.is_file() for one in requests for path in one.images)
