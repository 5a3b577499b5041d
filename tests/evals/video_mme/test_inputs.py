"""What a model is given: words to the byte, frames and subtitle lines by the reference rules, transcripts."""

import pytest
from film_stand_ins import media_id

from vedere.errors import ConfigError, MediaError
from vedere.evals.video_mme.inputs import InputConfig, choose
from vedere.evals.video_mme.prompts import PROMPT_SETS, prompt_text
from vedere.vision.frames import frame_indices

QUESTION = "Which fruit is shown?"
OPTIONS = ("A. Apples.", "B. Pears.", "C. Plums.", "D. Figs.")
BLOCK = "Which fruit is shown?\nA. Apples.\nB. Pears.\nC. Plums.\nD. Figs.\n"
SELECT = (
    "Select the best answer to the following multiple-choice question based on the video. "
    "Respond with only the letter (A, B, C, or D) of the correct option.\n"
)
LISTED = "This video's subtitles are listed below:\none\ntwo\n"
OLDER = SELECT.replace("video.", "video and the subtitles.")


@pytest.mark.parametrize(
    ("name", "subtitles", "has_file", "expected"),
    [
        ("official", None, True, SELECT + BLOCK + "The best answer is:"),
        ("official", ["one", "two"], True, LISTED + SELECT + BLOCK + "The best answer is:"),
        ("official", [], False, SELECT + BLOCK + "The best answer is:"),
        ("official-older", ["one", "two"], True, LISTED + OLDER + BLOCK + "The best answer is:"),
        ("official-older", None, True, SELECT + BLOCK + "The best answer is:"),
        ("lmms-eval", None, True, OLDER + BLOCK + "The best answer is:"),
        (
            "lmms-eval",
            [],
            False,
            "This video's subtitles are listed below: \nNo subtitles available\n"
            + OLDER
            + BLOCK
            + "The best answer is:",
        ),
        ("vlmevalkit", None, True, "\nThese are the frames of a video. " + SELECT + "Question: " + BLOCK + "Answer: "),
        (
            "vlmevalkit",
            ["one", "two"],
            True,
            "\nThese are the frames of a video. " + LISTED + SELECT + "Question: " + BLOCK + "Answer: ",
        ),
        (
            "internvl",
            None,
            True,
            "\nThese are the frames of a video. "
            + SELECT
            + "Question: "
            + BLOCK.rstrip("\n")
            + " \nAnswer with the option's letter from the given choices directly.",
        ),
        (
            "xcomposer",
            ["one", "two"],
            True,
            "Here are some frames of a video.\nThese are the frames of a video. "
            + LISTED
            + SELECT
            + "Question: "
            + BLOCK
            + "Answer: ",
        ),
    ],
)
def test_prompts_to_the_byte(name, subtitles, has_file, expected):
    assert prompt_text(name, QUESTION, OPTIONS, subtitles, has_file).after == expected


def test_prompt_sets():
    assert prompt_text("internvl", QUESTION, OPTIONS, None).label == "Frame-{}: "
    canvas = prompt_text("xcomposer", "Which (B) is it (b)?", OPTIONS, None)
    assert (canvas.canvas, canvas.new_tokens) == (True, 100)
    assert "Question: Which B. is it (b)?\n" in canvas.after  # the adapter rewrites letters in brackets
    blind = prompt_text("text-only", QUESTION, OPTIONS, None)
    assert not blind.frames
    assert "cannot see the video" in blind.after
    assert len({prompt_text(name, QUESTION, OPTIONS, ["x"]) for name in PROMPT_SETS}) == len(PROMPT_SETS)
    with pytest.raises(ConfigError, match=r"unknown prompt set 'offical'; did you mean 'official'\?"):
        prompt_text("offical", QUESTION, OPTIONS, None)


@pytest.mark.parametrize(
    ("config", "setting"),
    [
        (InputConfig(), "frames"),
        (InputConfig(subtitles="frame_aligned"), "frames+subtitles"),
        (InputConfig(layout="canvas"), "frames"),
        (InputConfig(subtitles="full", transcripts=True), "frames+transcript"),
        (InputConfig(audio=True), "frames+audio"),
    ],
)
def test_settings_have_names(config, setting):
    assert config.setting == setting


def test_configs_say_what_they_are():
    assert InputConfig(frames=8, subtitles="frame_aligned", side=512).description == (
        "8 frames (rule middle), subtitles frame_aligned, at most 512 pixels a side, prompts official"
    )
    assert InputConfig(frames=384, rule="fps", audio=True).description == (
        "at most 384 frames, 1 a second (rule fps), sound, prompts official"
    )
    for change, message in (
        ({"frames": 0}, "frames 0; expected at least 1"),
        ({"rule": "midle"}, r"rule 'midle'; did you mean 'middle'\?"),
        ({"rule": "random"}, "rule 'random' draws other frames in every run"),
        ({"subtitles": "unique"}, r"subtitles 'unique' \(expected one of off, frame_aligned, "),
        ({"rate": 0.0}, "rate 0.0; expected frames a second"),
        ({"prompts": "x"}, "prompts 'x'"),
    ):
        with pytest.raises(ConfigError, match=message):
            InputConfig(**change)


def test_frames_and_lines_of_a_video(whole_set):
    video = whole_set / "data" / f"{media_id(1)}.mp4"
    text = whole_set / "subtitle" / f"{media_id(1)}.srt"
    found = choose(video, text, InputConfig(frames=5, subtitles="frame_aligned"))
    assert found.indices == frame_indices("middle", 50, 25.0, 5) == (5, 15, 24, 34, 44)
    assert found.times == (0.2, 0.6, 0.96, 1.36, 1.76)
    assert found.lines == ("first line", "first line", "first line", "second line", "second line")
    assert choose(video, text, InputConfig(frames=5, subtitles="frame_aligned_unique")).lines == (
        "first line",
        "second line",
    )
    assert choose(video, text, InputConfig(frames=1, subtitles="full")).lines == ("first line", "second line")
    assert choose(video, text, InputConfig(frames=5)).lines is None
    without = choose(video, None, InputConfig(frames=5, subtitles="frame_aligned"))
    assert (without.lines, without.has_file) == ((), False)
    with pytest.raises(MediaError, match=r"no\.mp4 cannot be read \(No such file"):
        choose(whole_set / "no.mp4", None, InputConfig())
