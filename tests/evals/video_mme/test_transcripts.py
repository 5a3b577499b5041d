"""Transcripts: what a recogniser is given, what becomes of its segments, what weights have to be there."""

from __future__ import annotations

import json
from typing import ClassVar, NamedTuple

import pytest
from film_stand_ins import write_clip

from vedere.cli import main
from vedere.errors import ConfigError
from vedere.evals.video_mme.inputs import InputConfig, choose
from vedere.evals.video_mme.transcripts import FasterWhisper, transcribe_videos
from vedere.vision.audio import read_audio
from vedere.vision.subtitles import Cue, read_srt


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
        (str(tmp_path), r"lacks model\.bin, config\.json, tokenizer\.json, vocabulary\.\*; expected a CTranslate2"),
    ):
        with pytest.raises(ConfigError, match=message):
            transcribe_videos(videos, FasterWhisper(weights=weights), tmp_path / "out")
    weights = weights_in(tmp_path / "weights")
    (weights / "tokenizer.json").unlink()
    monkeypatch.setenv("VEDERE_WHISPER", str(weights))
    with pytest.raises(ConfigError, match=r"the folder .*weights lacks tokenizer\.json; .*fetch it again whole"):
        transcribe_videos(videos, FasterWhisper(), tmp_path / "out")
    weights_in(weights)  # whole, and no model
    with pytest.raises(ConfigError, match=r"cannot be read from that folder \(.*expected a folder with model\.bin"):
        transcribe_videos(videos, FasterWhisper(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def weights_in(folder):
    """Files with the names of a CTranslate2 Whisper model."""
    folder.mkdir(exist_ok=True)
    for name in ("model.bin", "config.json", "tokenizer.json", "vocabulary.json"):
        (folder / name).write_text("{}")
    return folder


class Heard(NamedTuple):
    start: float
    end: float
    text: str


class StandIn:
    """In place of faster-whisper's model: the same arguments, segments as a generator."""

    made: ClassVar[list] = []

    def __init__(self, weights, device, compute_type, local_files_only):
        self.made.append((weights, device, compute_type, local_files_only))

    def transcribe(self, audio, language, temperature, beam_size, condition_on_previous_text):
        self.made.append((audio.dtype.name, round(len(audio) / 16000, 1), language, temperature, beam_size))
        assert not condition_on_previous_text
        return (
            one for one in (Heard(0.0, 0.5, "  Hello\n there "), Heard(0.5, 1.25, "you"), Heard(1.5, 1.5, ""))
        ), "info"


def test_faster_whispers_segments_become_subtitles(tmp_path, monkeypatch, capsys):
    import faster_whisper

    monkeypatch.setattr(faster_whisper, "WhisperModel", StandIn)
    StandIn.made.clear()
    (tmp_path / "videos").mkdir()
    for name in "ab":
        write_clip(tmp_path / "videos" / f"{name}.mp4", sound=True)
    weights = weights_in(tmp_path / "weights")
    out = tmp_path / "transcripts"
    argv = ["video-mme", "transcribe", str(tmp_path / "videos"), "--out", str(out), "--weights", str(weights)]
    assert main([*argv, "--language", "en", "--device", "cpu", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"written": ["a", "b"], "kept": [], "failed": {}}
    assert StandIn.made[0] == (str(weights), "cpu", "int8", True)  # loaded once, without a network
    assert StandIn.made[1:] == [("float32", pytest.approx(2.0, abs=0.2), "en", 0.0, 1)] * 2
    assert read_srt(out / "a.srt").cues == (Cue(0, 500, "Hello there"), Cue(500, 1250, "you"))
    assert main(argv) == 0
    assert len(StandIn.made) == 3  # transcripts that are there stay
    StandIn.made.clear()
    FasterWhisper(weights="small").transcribe(read_audio(tmp_path / "videos" / "a.mp4"))
    assert StandIn.made[0] == ("small", "auto", "int8", False)  # a name may be fetched
