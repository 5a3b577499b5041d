"""The media of Video-MME on a disk: which videos and subtitles are there, whole, and what they should be.

Links die and archives break, so a run goes on without what is missing and counts it apart; a score over fewer videos
is not comparable with the published ones, and the report says which are missing. Video files are looked up by
``videoID`` in all folders below the given ones.

Cost: a look at the folders; a whole check reads every video once (packets, one decoded frame; half a second for an
hour), ``depth="listed"`` opens none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from vedere.errors import ConfigError, MediaError
from vedere.evals.video_mme import taxonomy
from vedere.evals.video_mme.questions import QuestionFile

Depth = Literal["listed", "probed", "decoded"]
SUFFIXES = (".mp4", ".MP4", ".mkv", ".webm", ".avi", ".mov")
"""Endings of video files; of several files of one video the first in this order is taken."""
_PARTIAL = (".part", ".ytdl", ".crdownload", ".tmp", ".aria2")
_SLACK = 30.0  # published classes are those of the uploads; re-encoded files are a little longer or shorter


@dataclass(frozen=True)
class MediaFolder:
    """Video and subtitle files by ``videoID``."""

    videos: Mapping[str, Path]
    subtitles: Mapping[str, Path]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Integrity:
    """What a check found; ids are ``video_id``s.

    Attributes:
        videos: Videos that the questions name.
        missing: Videos without a file.
        damaged: Videos that cannot be read, and why.
        odd_length: Videos whose length is not of their class, and their seconds.
        silent: Videos without a sound track.
        without_subtitles: Videos without a subtitle file.
        subtitle_problems: Videos whose subtitles are odd, and what is.
        questions: What is wrong with the questions themselves.
        deviations: How questions and media differ from the published set.
        notes: What else was seen in the folders.
        depth: How far files were opened.
    """

    videos: int
    missing: tuple[str, ...] = ()
    damaged: Mapping[str, str] = field(default_factory=dict)
    odd_length: Mapping[str, float] = field(default_factory=dict)
    silent: tuple[str, ...] = ()
    without_subtitles: tuple[str, ...] = ()
    subtitle_problems: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    questions: tuple[str, ...] = ()
    deviations: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    depth: Depth = "probed"

    @property
    def usable(self) -> int:
        """Videos that can be asked about."""
        return self.videos - len(self.missing) - len(self.damaged)

    @property
    def comparable(self) -> bool:
        """Whether a score over these files can stand beside the published ones."""
        return not (self.missing or self.damaged or self.questions or self.deviations)


def find_media(videos: Path, subtitles: Path | None = None) -> MediaFolder:
    """Lists the video and subtitle files below folders.

    Args:
        videos: Folder with videos, at any depth.
        subtitles: Folder with SRT files; by default the same.

    Raises:
        MediaError: a folder that is not there.
    """
    subtitles = videos if subtitles is None else subtitles
    for folder in (videos, subtitles):
        if not folder.is_dir():
            raise MediaError(f"{folder} is no folder; expected one with unpacked video or subtitle files")
    notes = []
    files = sorted(path for path in videos.rglob("*") if path.is_file())
    found: dict[str, Path] = {}
    for suffix in SUFFIXES:
        for path in files:
            if path.suffix == suffix and found.setdefault(path.stem, path) != path:
                notes.append(f"{path.name} is not used: {found[path.stem].name} is there too")
    if partial := [path.name for path in files if path.suffix in _PARTIAL]:
        notes.append(f"{len(partial)} unfinished downloads, such as {partial[0]}")
    if archives := [path.name for path in files if path.suffix == ".zip"]:
        notes.append(f"{len(archives)} archives, such as {archives[0]}: their content counts once they are unpacked")
    texts = {path.stem: path for path in sorted(subtitles.rglob("*")) if path.suffix.lower() == ".srt"}
    return MediaFolder(found, texts, tuple(notes))


def check_media(questions: QuestionFile, media: MediaFolder, depth: Depth = "probed") -> Integrity:
    """Checks the files that questions need.

    Args:
        questions: Whose videos are looked for.
        media: The files.
        depth: ``listed`` opens nothing but subtitles; ``probed`` reads all packets of a video and decodes a frame, ``decoded``
            decodes 16 frames of it as well.

    Raises:
        ConfigError: an unknown depth.
    """
    if depth not in ("listed", "probed", "decoded"):
        raise ConfigError(f"unknown depth '{depth}'; expected listed, probed or decoded")
    missing, silent, without = list[str](), list[str](), list[str]()
    damaged, lengths, odd = dict[str, str](), dict[str, float](), dict[str, tuple[str, ...]]()
    videos = questions.videos
    for name, ones in videos.items():
        path, text = media.videos.get(ones[0].media_id), media.subtitles.get(ones[0].media_id)
        if text is None:
            without.append(name)
        elif problems := _subtitle_problems(text):
            odd[name] = problems
        if path is None:
            missing.append(name)
        elif depth != "listed":
            _look(name, path, ones[0].duration, depth, damaged, lengths, silent)
    place = {name: ones[0].duration for name, ones in videos.items()}
    deviations = [*questions.deviations, *_subtitle_deviations(without, place)]
    strangers = sorted(set(media.videos) - {ones[0].media_id for ones in videos.values()})
    notes = [*media.notes]
    if strangers:
        notes.append(
            f"{len(strangers)} video files that no question is about, such as {media.videos[strangers[0]].name}"
        )
    return Integrity(
        videos=len(videos),
        missing=tuple(missing),
        damaged=damaged,
        odd_length=lengths,
        silent=tuple(silent),
        without_subtitles=tuple(without),
        subtitle_problems=odd,
        questions=questions.problems,
        deviations=tuple(deviations),
        notes=tuple(notes),
        depth=depth,
    )


def _subtitle_problems(path: Path) -> tuple[str, ...]:
    from vedere.vision.subtitles import read_srt

    try:
        return read_srt(path).problems
    except MediaError as error:
        return (str(error),)


def _look(
    name: str,
    path: Path,
    duration: str,
    depth: Depth,
    damaged: dict[str, str],
    lengths: dict[str, float],
    silent: list[str],
) -> None:
    from vedere.vision.video import probe, read_frames

    try:
        info = probe(path)
        if depth == "decoded":
            read_frames(path, 16, "middle", resize=(16, 16))
    except MediaError as error:
        damaged[name] = str(error)
        return
    if not info.has_audio:
        silent.append(name)
    least, most = taxonomy.SECONDS.get(duration, (0.0, float("inf")))
    if not least - _SLACK <= info.duration <= most + _SLACK:
        lengths[name] = info.duration


def _subtitle_deviations(without: Sequence[str], place: Mapping[str, str]) -> Iterator[str]:
    if len(place) != taxonomy.VIDEOS:
        return
    long = [name for name in without if place[name] == "long"]
    if long:
        yield f"{len(long)} long videos have no subtitle file; published: all have one"
    others = len(without) - len(long)
    if others != taxonomy.WITHOUT_SUBTITLES:
        yield f"{others} short or medium videos have no subtitle file; published: {taxonomy.WITHOUT_SUBTITLES}"


def report(found: Integrity) -> str:
    """The check as text: a line for what is well, then what is wrong, with the ids."""
    lines = [f"{found.usable} of {found.videos} videos can be asked about"]
    parts: list[tuple[str, Sequence[str]]] = [
        ("questions that are left out", found.questions),
        ("differs from the published set", found.deviations),
        (f"{len(found.missing)} videos are missing", _wrapped(found.missing)),
        (f"{len(found.damaged)} videos are damaged", [f"{name}: {why}" for name, why in found.damaged.items()]),
        (
            f"{len(found.odd_length)} videos have another length than their class",
            [f"{name}: {seconds:.1f} s" for name, seconds in found.odd_length.items()],
        ),
        (f"{len(found.silent)} videos have no sound", _wrapped(found.silent)),
        (f"{len(found.without_subtitles)} videos have no subtitles", _wrapped(found.without_subtitles)),
        (
            f"{len(found.subtitle_problems)} subtitle files are odd",
            [f"{name}: {problems[0]}{_more(problems)}" for name, problems in found.subtitle_problems.items()],
        ),
        ("seen besides", found.notes),
    ]
    for title, entries in parts:
        if entries:
            lines += ["", f"{title}:", *(f"  {entry}" for entry in entries)]
    verdict = "can stand beside published ones" if found.comparable else "can not stand beside published ones"
    return "\n".join([*lines, "", f"a score over these files {verdict}"])


def _more(problems: Sequence[str]) -> str:
    return f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""


def _wrapped(names: Sequence[str], width: int = 16) -> list[str]:
    return [" ".join(names[start : start + width]) for start in range(0, len(names), width)]
