"""What a model is given: words to the byte, frames and subtitle lines by the reference rules, transcripts."""

import pytest
from film_stand_ins import media_id, write_clip

from vedere.errors import ConfigError, MediaError
from vedere.evals.video_mme.inputs import InputConfig, choose
from vedere.evals.video_mme.prompts import PROMPT_SETS, prompt_text
from vedere.evals.video_mme.transcripts import FasterWhisper, transcribe_videos
from vedere.vision.frames import frame_indices
from vedere.vision.subtitles import Cue, read_srt

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


class Recorded:
    """A recogniser that says how long the sound is."""

    def __init__(self):
        self.heard = []

    def transcribe(self, audio):
        self.heard.append(round(audio.duration, 1))
        return [Cue(0, round(1000 * audio.duration), "a tone"), Cue(500, 500, "dropped"), Cue(0, 100, "")]


def test_transcripts_stand_in_for_subtitles(tmp_path):
    videos = {f"v{k}": write_clip(tmp_path / f"v{k}.mp4", sound=k != 2) for k in (1, 2, 3)}
    recogniser, said = Recorded(), []
    done = transcribe_videos(videos, recogniser, tmp_path / "out", said.append)
    assert (done.written, done.kept, list(done.failed)) == (("v1", "v3"), (), ["v2"])
    assert "has no sound track" in done.failed["v2"]
    assert recogniser.heard == pytest.approx([2.0, 2.0], abs=0.2)
    assert said[0] == "1 of 3: v1: 3 records"
    (cue,) = read_srt(tmp_path / "out" / "v1.srt").cues
    assert cue.text == "a tone"
    config = InputConfig(frames=2, subtitles="frame_aligned", transcripts=True)
    assert choose(videos["v1"], tmp_path / "out" / "v1.srt", config).lines == ("a tone", "a tone")
    again = transcribe_videos(videos, recogniser, tmp_path / "out")
    assert (again.written, again.kept) == ((), ("v1", "v3"))


def test_a_recogniser_needs_weights(tmp_path, monkeypatch):
    monkeypatch.delenv("VEDERE_WHISPER", raising=False)
    videos = {"v": write_clip(tmp_path / "v.mp4", sound=True)}
    for weights, message in (
        ("", "no weights of a speech recogniser named; give a folder or set VEDERE_WHISPER to one"),
        (str(tmp_path / "none"), r"no folder .*none; expected one with model\.bin"),
        (str(tmp_path), r"cannot be read from that folder .*expected a folder with model\.bin"),
    ):
        with pytest.raises(ConfigError, match=message):
            transcribe_videos(videos, FasterWhisper(weights=weights), tmp_path / "out")
    monkeypatch.setenv("VEDERE_WHISPER", str(tmp_path))
    with pytest.raises(ConfigError, match="cannot be read from that folder"):
        transcribe_videos(videos, FasterWhisper(), tmp_path / "out")
