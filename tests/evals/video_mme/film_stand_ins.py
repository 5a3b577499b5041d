"""Stand-ins for Video-MME, of our own making: a small parquet in its columns, encoded clips, SRT files, recorded answers."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow
import pyarrow.parquet

from vedere.evals.video_mme import taxonomy
from vedere.evals.video_mme.outcomes import Outcome

PLACES = [("short", "Knowledge", "Law"), ("medium", "Multilingual", "Multilingual"), ("long", "Life Record", "Food")]


def media_id(video: int) -> str:
    return f"vid-{video:04}_xyz"


def rows(videos: int = 6, seed: int = 0) -> list[dict[str, Any]]:
    """Three questions a video; durations, domains and task types in turn, letters drawn."""
    rng, made = random.Random(seed), []
    for video in range(1, videos + 1):
        duration, domain, sub = PLACES[(video - 1) % len(PLACES)]
        for number in (1, 2, 3):
            made.append(
                {
                    "video_id": f"{video:03}",
                    "duration": duration,
                    "domain": domain,
                    "sub_category": sub,
                    "url": f"https://example.org/{video}",
                    "videoID": media_id(video),
                    "question_id": f"{video:03}-{number}",
                    "task_type": taxonomy.TASK_TYPES[(video * 3 + number) % 12],
                    "question": f"What is seen in part {number} of film {video}?",
                    "options": [f"{letter}. Thing {rng.randrange(1000)}{letter}." for letter in "ABCD"],
                    "answer": rng.choice("ABCD"),
                }
            )
    return made


def write_questions(path: Path, data: list[dict[str, Any]]) -> Path:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(data), path)
    return path


def write_clip(path: Path, frames: int = 50, sound: bool = False, fps: int = 25) -> Path:
    """A clip whose brightness rises, with or without a tone."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"x264-params": "keyint=10:scenecut=0"})
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        audio = container.add_stream("aac", rate=16000, layout="mono") if sound else None
        for k in range(frames):
            picture = np.full((32, 32, 3), 20 + 4 * k % 232, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode(None))
        if audio is not None:
            wave = 0.3 * np.sin(np.arange(16000 * frames // fps) * 0.2)
            frame = av.AudioFrame.from_ndarray(wave.astype(np.float32)[None], format="fltp", layout="mono")
            frame.sample_rate = 16000
            container.mux(audio.encode(frame))
            container.mux(audio.encode(None))
    return path


def write_set(folder: Path, videos: int = 6, clips: int | None = None) -> Path:
    """A whole set; ``clips`` of its videos are there, every second one with subtitles."""
    folder.mkdir(parents=True, exist_ok=True)
    write_questions(folder / "test-00000-of-00001.parquet", rows(videos))
    for name in ("data", "subtitle"):
        (folder / name).mkdir()
    for video in range(1, (videos if clips is None else clips) + 1):
        write_clip(folder / "data" / f"{media_id(video)}.mp4", sound=video % 2 == 1)
        if video % 2 == 1:
            text = "1\n00:00:00,100 --> 00:00:01,000\nfirst line\n\n2\n00:00:01,000 --> 00:00:01,900\nsecond\nline\n"
            (folder / "subtitle" / f"{media_id(video)}.srt").write_text(text)
    return folder


def outcomes(
    videos: int = 30, seed: int = 0, right: float = 0.6, said: Mapping[str, str] | None = None
) -> list[Outcome]:
    """Outcomes of a model that is right in about so many questions, and sometimes says nothing."""
    rng, found = random.Random(seed), []
    for row in rows(videos):
        letter = row["answer"] if rng.random() < right else rng.choice("ABCD")
        response = (said or {}).get(row["question_id"], "" if rng.random() < 0.05 else f"{letter}. Because.")
        place = {name: row[name] for name in ("video_id", "duration", "domain", "sub_category", "task_type", "answer")}
        found.append(Outcome(question_id=row["question_id"], response=response, **place))
    return found
