"""What a model is given of a video: which frames, which subtitle lines, the sound or not.

Video-MME has three settings: frames, frames with subtitles ("w/ subs"), frames with the raw sound track and no
subtitle text. The benchmark fixes no number of frames, and harnesses differ in the rule; so both are part of a
score's name. Frames are counted as the originals do, by index; subtitle times are index over rate. Transcripts of the
sound in place of subtitles are a setting of their own, in neither column of the published table.

Cost: one pass over a video's packets; the last few videos are remembered, because three questions share one.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from vedere.config import check_ranges, nearest
from vedere.errors import ConfigError, MediaError
from vedere.evals.video_mme.prompts import PROMPT_SETS
from vedere.vision.canvas import MOST_FRAMES
from vedere.vision.frames import FrameRule, frame_indices
from vedere.vision.subtitles import SubtitleMode, Subtitles, frame_milliseconds, read_srt, subtitle_lines
from vedere.vision.video import VideoInfo, probe

OFF = "off"
SUBTITLES = (OFF, *get_args(SubtitleMode))
LAYOUTS = ("", "video", "canvas")
"""How frames are shown: as the prompt set does, one after the other as a video, or on one canvas (`vedere.vision.canvas`)."""


@dataclass(frozen=True, kw_only=True)
class InputConfig:
    """How a video becomes an input; everything here belongs to a score's name.

    Attributes:
        frames: Frames of a video; for the rule ``fps`` the most.
        rule: Frame rule (`vedere.vision.frames.frame_indices`); ``middle`` is the reference extractor's.
        rate: Frames a second of the rule ``fps``.
        subtitles: ``off``, or a mode of `vedere.vision.subtitles`; ``frame_aligned`` is the published "w/ subs".
        transcripts: The subtitle files are transcripts of the sound, not the data set's.
        audio: The sound track is given too.
        side: Frames are sent with at most so many pixels a side; 0 as they are.
        layout: How frames are shown, one of `LAYOUTS`.
        prompts: Words around the question, one of `vedere.evals.video_mme.prompts.PROMPT_SETS`.

    Raises:
        ConfigError: a value out of its range.
    """

    frames: int = 64
    rule: FrameRule = "middle"
    rate: float = 1.0
    subtitles: str = OFF
    transcripts: bool = False
    audio: bool = False
    side: int = 0
    layout: str = ""
    prompts: str = "official"

    def __post_init__(self) -> None:
        check_ranges(self, frames=1, side=0)
        if not self.rate > 0:
            raise ConfigError(f"rate {self.rate}; expected frames a second, more than 0")
        for name, value, valid in (
            ("rule", self.rule, get_args(FrameRule)),
            ("subtitles", self.subtitles, SUBTITLES),
            ("layout", self.layout, LAYOUTS),
            ("prompts", self.prompts, PROMPT_SETS),
        ):
            if value not in valid:
                shown = ", ".join(one for one in valid if one)
                raise ConfigError(f"{name} '{value}'{nearest(value, valid)} (expected one of {shown})")
        if self.rule == "random":
            raise ConfigError("rule 'random' draws other frames in every run; expected a rule that does not draw")
        if self.canvas and self.side:
            raise ConfigError(
                f"side {self.side} with frames on a canvas, which gives them sizes of its own; leave one of the two out"
            )

    @property
    def canvas(self) -> bool:
        """Whether frames are shown on one canvas: asked for, or the prompt set's way."""
        return self.layout == "canvas" or (not self.layout and self.prompts == "xcomposer")

    @property
    def setting(self) -> str:
        """Name of the setting: the column of a table."""
        text = "" if self.subtitles == OFF else "+transcript" if self.transcripts else "+subtitles"
        return f"frames{text}{'+audio' if self.audio else ''}"

    @property
    def description(self) -> str:
        """Frames, rule, subtitle mode and prompt set in words, as a score has to state them."""
        rule = (
            f"at most {self.frames} frames, {self.rate:g} a second" if self.rule == "fps" else f"{self.frames} frames"
        )
        parts = [f"{rule} (rule {self.rule})"]
        if self.subtitles != OFF:
            parts.append(f"{'transcripts' if self.transcripts else 'subtitles'} {self.subtitles}")
        parts += ["sound"] if self.audio else []
        parts += [f"at most {self.side} pixels a side"] if self.side else []
        parts += [f"on one canvas, at most {MOST_FRAMES} of them"] if self.canvas else []
        return ", ".join([*parts, f"prompts {self.prompts}"])


@dataclass(frozen=True)
class VideoInput:
    """What goes with a question.

    Attributes:
        indices: Frames, in order.
        times: Their seconds by index over rate.
        lines: Subtitle lines; None in a setting without subtitles.
        has_file: Whether the video has a subtitle file.
        info: The video.
    """

    indices: tuple[int, ...]
    times: tuple[float, ...]
    lines: tuple[str, ...] | None
    has_file: bool
    info: VideoInfo


@functools.lru_cache(maxsize=64)
def _probed(path: Path, size: int, changed: int) -> VideoInfo:
    return probe(path)


@functools.lru_cache(maxsize=64)
def _subtitles(path: Path, size: int, changed: int) -> Subtitles:
    return read_srt(path)


def _state(path: Path) -> tuple[Path, int, int]:
    """Path with size and time of change, so that a changed file is read again."""
    try:
        found = path.stat()
    except OSError as error:
        raise MediaError(f"{path} cannot be read ({error.strerror}); expected a file of the data set") from None
    return path, found.st_size, found.st_mtime_ns


def choose(video: Path, subtitles: Path | None, config: InputConfig) -> VideoInput:
    """Chooses frames and subtitle lines of a video.

    Args:
        video: The video file.
        subtitles: Its SRT file; None if it has none.
        config: How.

    Raises:
        MediaError: a file that cannot be read.
    """
    info = _probed(*_state(video))
    indices = frame_indices(config.rule, info.frames, info.fps, config.frames, rate=config.rate)
    lines = None
    if config.subtitles != OFF:
        mode: SubtitleMode = config.subtitles  # type: ignore[assignment]
        cues = _subtitles(*_state(subtitles)).cues if subtitles is not None else ()
        lines = tuple(subtitle_lines(cues, mode, frame_milliseconds(indices, info.fps)))
    return VideoInput(
        indices=indices,
        times=tuple(index / info.fps for index in indices),
        lines=lines,
        has_file=subtitles is not None,
        info=info,
    )
