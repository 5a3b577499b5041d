"""Video-MME in the runner: items, prompts, and whole runs with a scripted model on stand-ins."""

import pytest
from film_stand_ins import media_id, outcomes, rows, write_questions, write_set
from inspect_ai.log import read_eval_log

import scripted
from vedere.errors import ConfigError, MediaError, RecordError
from vedere.evals.items import Frames, Picture, Prompt, Settings, Sound
from vedere.evals.suites import suite
from vedere.evals.video_mme.dataset import VIDEO_MME, input_config
from vedere.evals.video_mme.prompts import VERSIONS
from vedere.vision.canvas import fitted, frame_canvas, thinned
from vedere.vision.video import frames_at


def items(folder, **settings):
    return {item.id: item for item in VIDEO_MME.load(folder, Settings(**settings))}


def test_items_of_a_set(whole_set):
    assert suite("video-mme") is VIDEO_MME
    found, data = items(whole_set), rows(6)
    assert list(found) == [row["question_id"] for row in data]
    one, row = found["003-2"], data[7]
    assert one.parts == (Frames(file=whole_set / "data" / f"{media_id(3)}.mp4"), row["question"])
    assert (one.group, one.target, dict(one.options)["B"]) == ("003", row["answer"], row["options"][1])
    assert one.record["task_type"] == row["task_type"]
    assert "answer" not in one.metadata
    assert {item.group for item in items(whole_set, split="long").values()} == {"003", "006"}


def test_a_prompt_is_frames_then_the_official_words(whole_set):
    found = items(whole_set)
    plain = VIDEO_MME.prompt(found["001-1"], Settings(frames=4))
    frames, words = plain.parts
    assert (frames.indices, frames.times) == ((6, 18, 30, 43), (0.24, 0.72, 1.2, 1.72))
    assert words.startswith("Select the best answer to the following")
    assert words.endswith("The best answer is:")
    subtitled = VIDEO_MME.prompt(found["001-1"], Settings(frames=4, subtitles="on"))
    head = "This video's subtitles are listed below:\nfirst line\nfirst line\nsecond line\nsecond line\n"
    assert subtitled.parts == (frames, head + words)
    full = VIDEO_MME.prompt(found["001-1"], Settings(frames=1, subtitles="full")).parts[1]
    assert full.startswith("This video's subtitles are listed below:\nfirst line\nsecond line\nSelect")
    without = VIDEO_MME.prompt(found["002-1"], Settings(frames=4, subtitles="on"))  # no file: no block
    assert without.parts[1].startswith("Select the best")


def test_other_rules_sound_and_labels(whole_set):
    one = items(whole_set)["001-1"]
    fps = VIDEO_MME.prompt(one, Settings(frames=9, frame_rule="fps", frame_rate=2, frame_side=16))
    assert (fps.parts[0].indices, fps.parts[0].side) == ((0, 12, 25, 37), 16)
    heard = VIDEO_MME.prompt(one, Settings(frames=2, sound=True))
    assert heard.parts[1] == Sound(file=one.parts[0].file)
    assert heard.parts[1].read()[:3] in (b"ID3", b"\xff\xfb\x14") or heard.parts[1].read()[0] == 0xFF
    assert Prompt(parts=heard.parts).text.startswith("<video><audio>Select")
    silent = VIDEO_MME.prompt(items(whole_set)["002-1"], Settings(frames=2, sound=True))
    assert len(silent.parts) == 2
    labelled = VIDEO_MME.prompt(one, Settings(frames=3, prompts="internvl"))
    assert labelled.text.startswith("Frame-1: <image>\nFrame-2: <image>\nFrame-3: <image>\n\nThese are the frames")
    assert labelled.max_tiles == 1
    pictures = [part for part in labelled.parts if isinstance(part, Picture)]
    decoded = frames_at(one.parts[0].file, (8, 24, 41)).frames
    assert [picture.images()[0].tobytes() for picture in pictures] == [image.tobytes() for image in decoded]
    assert pictures[0].name == f"{media_id(1)}.mp4 frame 8"
    blind = VIDEO_MME.prompt(one, Settings(prompts="text-only"))
    assert not blind.media


def test_frames_on_a_canvas(whole_set):
    one = items(whole_set)["001-1"]
    made = VIDEO_MME.prompt(one, Settings(frames=4, prompts="xcomposer"))
    picture, words = made.parts
    assert made.text.startswith(
        "<image>Here are some frames of a video.\nThese are the frames of a video. Select the best"
    )
    assert (made.max_new_tokens, made.max_tiles) == (100, 4)  # 4520 x 1160 becomes 2182 x 560: 3.9 tiles
    film = one.parts[0].file
    expected = fitted(frame_canvas(frames_at(film, (6, 18, 30, 43)).frames))
    assert picture.images()[0].tobytes() == expected.tobytes()
    assert picture.name == f"{media_id(1)}.mp4 canvas of frames 6, 18, 30, 43"
    assert picture.digest() != VIDEO_MME.prompt(one, Settings(frames=3, prompts="xcomposer")).parts[0].digest()
    # the layout alone, and the words alone
    plain = VIDEO_MME.prompt(one, Settings(frames=4))
    layout = VIDEO_MME.prompt(one, Settings(frames=4, frame_layout="canvas"))
    assert layout.parts == (picture, plain.parts[1])
    video = VIDEO_MME.prompt(one, Settings(frames=4, prompts="xcomposer", frame_layout="video"))
    assert video.parts == (plain.parts[0], words)
    assert VIDEO_MME.prompt(one, Settings(frames=3, prompts="internvl", frame_layout="video")).max_tiles is None


def test_a_canvas_shows_64_frames_of_more_and_all_subtitle_lines(whole_set):
    one = items(whole_set)["001-1"]
    made = VIDEO_MME.prompt(one, Settings(frames=100, prompts="xcomposer", subtitles="on"))
    every = VIDEO_MME.prompt(one, Settings(frames=100, subtitles="on"))
    shown = tuple(every.parts[0].indices[place] for place in thinned(100))
    assert made.parts[0].source.indices == shown
    assert len(shown) == 64
    lines = made.parts[1].split("listed below:\n")[1].split("Select")[0]
    assert lines in every.parts[1]


def test_a_log_names_the_version_of_its_own_words(whole_set, tmp_path):
    scripted.start({"model": lambda text, messages: "A"})
    for name in ("official", "xcomposer"):
        result = scripted.run(
            "video-mme", whole_set, tmp_path / name, settings=Settings(frames=1, limit=3, prompts=name)
        )
        (log,) = (tmp_path / name / "logs").glob("*.eval")
        told = read_eval_log(str(log), header_only=True).eval.metadata["vedere"]
        assert result["prompts"] == told["prompts"] == name
        assert told["prompts_version"] == VERSIONS[name]
    assert VIDEO_MME.prompts_version("lmms-eval") == VERSIONS["lmms-eval"]  # a set that the image benchmarks lack


def test_transcripts_take_the_place_of_subtitles(tmp_path):
    folder = write_set(tmp_path / "set", videos=3)
    with pytest.raises(ConfigError, match="has no folder transcripts; make it with vedere video-mme transcribe"):
        items(folder, subtitles="transcript")
    (folder / "transcripts").mkdir()
    (folder / "transcripts" / f"{media_id(2)}.srt").write_text("1\n00:00:00,000 --> 00:00:02,000\nheard\n")
    settings = Settings(frames=2, subtitles="transcript")
    found = items(folder, subtitles="transcript")
    assert (
        VIDEO_MME.prompt(found["002-1"], settings)
        .parts[1]
        .startswith("This video's subtitles are listed below:\nheard\nheard\nSelect")
    )
    assert VIDEO_MME.prompt(found["001-1"], settings).parts[1].startswith("Select")
    assert items(folder)["002-1"].metadata["subtitles"] == ""  # a transcript is no subtitle file


def test_settings_that_are_none(whole_set, tmp_path):
    for change, message in (
        ({"subtitles": "yes"}, r"subtitles 'yes' \(video-mme takes off, on, frame_aligned, "),
        ({"frame_rule": "uniform"}, "rule 'uniform'"),
        ({"frame_layout": "canvass"}, r"layout 'canvass'; did you mean 'canvas'\? \(expected one of video, canvas\)"),
        ({"frame_layout": "canvas", "frame_side": 99}, "side 99 with frames on a canvas"),
        ({"prompts": "official-old"}, r"prompts 'official-old'; did you mean 'official-older'\?"),
    ):
        with pytest.raises(ConfigError, match=message):
            input_config(Settings(**change))
    with pytest.raises(ConfigError, match="split 'all'; video-mme has short, medium, long"):
        items(whole_set, split="all")
    data = rows(2)
    data[1]["answer"] = "x"
    write_questions(tmp_path / "q.parquet", data)
    with pytest.raises(RecordError, match=r"q\.parquet row 2: 'answer' is 'x'.*\(1 bad rows\): mend or remove them"):
        items(tmp_path)


def test_a_run_counts_missing_and_damaged_videos_apart(tmp_path):
    folder = write_set(tmp_path / "set", clips=5)
    (folder / "data" / f"{media_id(2)}.mp4").write_bytes(b"not a film")
    with pytest.raises(MediaError, match=f"video {media_id(6)} of question 006-1 is not among the files"):
        VIDEO_MME.prompt(items(folder)["006-1"], Settings())
    answers = {row["question"]: row["answer"] for row in rows(6)}

    def answer(text, messages):
        letter = next(value for question, value in answers.items() if question in text)
        return "" if "part 3" in text else f"{letter}. It is."

    scripted.start({"model": answer})
    result = scripted.run("video-mme", folder, tmp_path / "out", settings=Settings(frames=2, subtitles="on"))
    figures = result["figures"]
    assert figures["overall"] == {"correct": 8, "answered": 8, "acc": 100}
    assert figures["all_rows"]["overall"]["total"] == 12
    assert result["counts"]["missing_videos"] == 2
    assert len(scripted.SCRIPT.asked) == 12
    (text,) = [one for _, one, _ in scripted.SCRIPT.asked if "part 1 of film 1?" in one]
    assert text.startswith("This video's subtitles are listed below:\nfirst line\nsecond line\nSelect")
    from vedere.evals.video_mme.results import read_result

    back = read_result(tmp_path / "out")
    assert {one.video_id for one in back.outcomes if one.response is None} == {"002", "006"}
    assert sum(one.official == one.answer for one in back.outcomes) == 8
    assert back.notes == ("2 videos are missing and not counted: 002, 006",)
    assert len(outcomes(6)) == len(back.outcomes)
