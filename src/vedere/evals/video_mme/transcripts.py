"""From a video's sound to a transcript in the form of subtitles.

A transcript takes the place of missing subtitles; a model fed with one is in neither column of the published table,
so results name it. The recogniser stands behind a small protocol: faster-whisper (CTranslate2, its weights from a
folder, else by name from the hub), or anything that turns samples into records with times. Transcripts are kept as
SRT files, so a run reads them like subtitles, and they are made once.

Cost: faster-whisper's, on a CPU about real time over ten for the small models; 230 MB of samples for an hour.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from vedere.atomic import write_atomically
from vedere.errors import ConfigError, MediaError
from vedere.vision.audio import Audio, read_audio
from vedere.vision.subtitles import Cue, format_srt

WEIGHTS = "VEDERE_WHISPER"
"""Environment variable: folder of faster-whisper's weights, where none is given."""
FILES = ("model.bin", "config.json", "tokenizer.json", "vocabulary.*")
"""What a folder of weights holds."""


class Transcriber(Protocol):
    """What turns sound into text."""

    def transcribe(self, audio: Audio) -> Sequence[Cue]:
        """Returns records in order of time; none for silence.

        Args:
            audio: Mono samples at 16 kHz, from the start of the video.
        """
        ...


@dataclass
class FasterWhisper:
    """faster-whisper's models.

    Attributes:
        weights: Folder with a converted model, or a name such as ``small`` that is fetched from the hub; empty takes the
            folder of the environment variable VEDERE_WHISPER.
        language: Code of the language, such as ``en``; empty lets the model find it.
        device: ``cpu``, ``cuda`` or ``auto``.
        compute: CTranslate2's type of computation.

    Raises:
        ConfigError: no weights named, none there, or faster-whisper is not installed.
    """

    weights: str = ""
    language: str = ""
    device: str = "auto"
    compute: str = "int8"
    _model: Any = field(default=None, init=False, repr=False)

    def transcribe(self, audio: Audio) -> Sequence[Cue]:
        """Returns the segments that the model finds, greedy, so that the same sound gives the same text."""
        if self._model is None:
            self._model = self._load()
        found, _ = self._model.transcribe(
            audio.samples,
            language=self.language or None,
            temperature=0.0,
            beam_size=1,
            condition_on_previous_text=False,
        )
        return [Cue(round(1000 * one.start), round(1000 * one.end), " ".join(one.text.split())) for one in found]

    def _load(self) -> Any:
        weights = self.weights or os.environ.get(WEIGHTS, "")
        if not weights:
            raise ConfigError(f"no weights of a speech recogniser named; give a folder or set {WEIGHTS} to one")
        try:
            import faster_whisper
        except ModuleNotFoundError:
            raise ConfigError("transcripts need faster-whisper; install vedere[eval]") from None
        folder = Path(weights).expanduser()
        local = folder.is_dir()
        if not local and (os.sep in weights or weights.startswith(("~", "."))):
            raise ConfigError(f"no folder {weights}; expected one with model.bin of a CTranslate2 Whisper model")
        missing = [name for name in FILES if not list(folder.glob(name))] if local else []
        if missing:  # without its tokenizer faster-whisper would go to the network
            raise ConfigError(
                f"the folder {weights} lacks {', '.join(missing)}; expected a CTranslate2 Whisper model with "
                f"{', '.join(FILES)}: fetch it again whole"
            )
        try:
            return faster_whisper.WhisperModel(
                str(folder) if local else weights, device=self.device, compute_type=self.compute, local_files_only=local
            )
        except Exception as error:  # the hub's, CTranslate2's and the tokenizer's errors have no common base
            where = "read from that folder" if local else "fetched from the hub"
            raise ConfigError(
                f"the recogniser '{weights}' cannot be {where} ({type(error).__name__}: {error}); expected a folder with "
                f"{', '.join(FILES)}, or a name that faster-whisper knows"
            ) from None


@dataclass(frozen=True)
class Transcribed:
    """What became of the videos: transcripts written, those that were there, those without, and why."""

    written: tuple[str, ...]
    kept: tuple[str, ...]
    failed: Mapping[str, str]


def transcribe_videos(
    videos: Mapping[str, Path],
    transcriber: Transcriber,
    out: Path,
    say: Callable[[str], None] = lambda text: None,
) -> Transcribed:
    """Writes ``<id>.srt`` for each video; files that are there stay, so that a stopped run goes on.

    Args:
        videos: ``videoID`` -> file.
        transcriber: The recogniser.
        out: Folder of the transcripts.
        say: Receives a line a video.

    Raises:
        ConfigError: the recogniser cannot be loaded; videos that cannot be read are told in the result instead.
    """
    written, kept, failed = list[str](), list[str](), dict[str, str]()
    for number, (name, path) in enumerate(videos.items(), 1):
        target = out / f"{name}.srt"
        if target.is_file():
            kept.append(name)
            continue
        try:
            cues = transcriber.transcribe(read_audio(path))
        except MediaError as error:
            failed[name] = str(error)
            say(f"{number} of {len(videos)}: {name}: {error}")
            continue
        _save(target, cues)
        written.append(name)
        say(f"{number} of {len(videos)}: {name}: {len(cues)} records")
    return Transcribed(tuple(written), tuple(kept), failed)


def _save(target: Path, cues: Iterable[Cue]) -> None:
    text = format_srt([cue for cue in cues if cue.text and cue.end > cue.start])

    def write(path: Path) -> None:
        path.write_text(text, encoding="utf-8")

    write_atomically(target, write)
