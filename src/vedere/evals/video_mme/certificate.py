"""Certificate length (arXiv 2405.21075, section 3, after EgoSchema): how much of a video must be seen to be sure of an answer.

The certificate of a question is the smallest set of clips that is necessary and sufficient to convince a person that
the given answer is right; its length is the sum of their seconds. Annotations are JSONL, one object a line:
``{"question_id": "001-1", "annotator": "a", "video_seconds": 95.0, "clips": [[3.0, 7.5], [40.0, 52.0]]}``. Clips that
overlap are joined before they are counted. Several annotators of a question are averaged; how far they agree stands
beside it.

Published: median 26.0, 164.7 and 890.7 s for short, medium and long videos, mean 28.8, 160.0 and 967.7 s.
"""

from __future__ import annotations

import itertools
import random
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vedere.errors import RecordError
from vedere.evals.records import Row, read_rows
from vedere.evals.video_mme import taxonomy
from vedere.evals.video_mme.questions import Question

PUBLISHED = {"short": (82.5, 26.0, 28.8), "medium": (562.7, 164.7, 160.0), "long": (2385.5, 890.7, 967.7)}
"""Duration -> mean seconds of the sampled videos, median and mean seconds of certificates."""
Clips = tuple[tuple[float, float], ...]


@dataclass(frozen=True, kw_only=True)
class Annotation:
    """What one person marked for a question.

    Attributes:
        question_id: The question.
        annotator: Who marked it.
        video_seconds: Length of the video.
        clips: (start, end) in seconds, in order, without overlap.
    """

    question_id: str
    annotator: str
    video_seconds: float
    clips: Clips

    @property
    def seconds(self) -> float:
        """Length of the certificate."""
        return sum(end - start for start, end in self.clips)


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """Certificates of a group of questions; seconds.

    Attributes:
        questions: Questions with an annotation.
        video_mean: Mean length of their videos, a video once.
        median: Median certificate.
        mean: Mean certificate.
        share: Mean share of the video that the certificate is.
        clips: Mean number of clips.
    """

    questions: int
    video_mean: float
    median: float
    mean: float
    share: float
    clips: float


def joined(clips: Iterable[Sequence[float]]) -> Clips:
    """Clips in order, overlapping or touching ones as one."""
    found: list[list[float]] = []
    for start, end in sorted((float(start), float(end)) for start, end in clips):
        if found and start <= found[-1][1]:
            found[-1][1] = max(found[-1][1], end)
        else:
            found.append([start, end])
    return tuple((start, end) for start, end in found)


def overlap(one: Clips, other: Clips) -> float:
    """Seconds in both, over seconds in either: 1 for equal certificates, 0 for ones apart."""
    both = sum(
        max(0.0, min(end, last) - max(start, first)) for (start, end), (first, last) in itertools.product(one, other)
    )
    either = sum(end - start for start, end in (*one, *other)) - both
    return both / either if either else 1.0


def _annotation(row: Row) -> Annotation:
    length = row.number("video_seconds")
    if not length > 0:
        raise row.fail(f"'video_seconds' is {length}", "seconds, more than 0")
    clips = row.get("clips")
    if not isinstance(clips, list) or not clips:
        raise row.fail(f"'clips' is {str(clips)[:40]}", "a list of at least one [start, end] in seconds")
    for clip in clips:
        good = isinstance(clip, list) and len(clip) == 2 and all(isinstance(one, (int, float)) for one in clip)
        if not good or not 0 <= clip[0] < clip[1]:
            raise row.fail(f"clip {str(clip)[:40]}", "[start, end] in seconds, start before end")
        if clip[1] > length + 1:
            raise row.fail(f"clip {clip} ends after the video of {length} s", "a clip inside the video")
    return Annotation(
        question_id=row.text("question_id"),
        annotator=row.text("annotator") if row.has("annotator") else "",
        video_seconds=length,
        clips=joined(clips),
    )


def read_annotations(path: Path) -> list[Annotation]:
    """Reads annotations; of two by one annotator for a question the later counts, since people mend what they marked.

    Raises:
        RecordError: a line that does not fit, with its number.
    """
    found: dict[tuple[str, str], Annotation] = {}
    for row in read_rows(path):
        try:
            one = _annotation(row)
        except RecordError as error:
            raise RecordError(f"{path.name} {error}") from None
        found[one.question_id, one.annotator] = one
    return list(found.values())


def lengths(annotations: Sequence[Annotation], questions: Iterable[Question] = ()) -> dict[str, Lengths]:
    """Certificate lengths of all annotated questions, and by duration.

    Durations are the questions'; without questions they follow from the videos' lengths, where these lie in a class.

    Raises:
        RecordError: an annotation of a question that is not there.
    """
    durations = {one.question_id: one.duration for one in questions}
    groups: dict[str, dict[str, list[Annotation]]] = {}
    for one in annotations:
        if durations and one.question_id not in durations:
            raise RecordError(
                f"an annotation is of question '{one.question_id}', which the questions do not have; expected ids such as "
                f"'{next(iter(durations))}'"
            )
        duration = durations.get(one.question_id) or _class(one.video_seconds)
        for name in ("all", *([duration] if duration else [])):
            groups.setdefault(name, {}).setdefault(one.question_id, []).append(one)
    return {name: _lengths(groups[name]) for name in (*taxonomy.DURATIONS, "all") if name in groups}


def _class(seconds: float) -> str:
    return next((name for name, (least, most) in taxonomy.SECONDS.items() if least <= seconds <= most), "")


def _lengths(by_question: Mapping[str, Sequence[Annotation]]) -> Lengths:
    means = [statistics.fmean(one.seconds for one in ones) for ones in by_question.values()]
    shares = [statistics.fmean(one.seconds / one.video_seconds for one in ones) for ones in by_question.values()]
    videos = {name.rpartition("-")[0] or name: ones[0].video_seconds for name, ones in by_question.items()}
    return Lengths(
        questions=len(by_question),
        video_mean=statistics.fmean(videos.values()),
        median=statistics.median(means),
        mean=statistics.fmean(means),
        share=statistics.fmean(shares),
        clips=statistics.fmean(len(one.clips) for ones in by_question.values() for one in ones),
    )


def agreement(annotations: Iterable[Annotation]) -> tuple[int, float] | None:
    """Pairs of annotations of one question by two people, and their mean overlap; None without a pair."""
    by_question: dict[str, list[Annotation]] = {}
    for one in annotations:
        by_question.setdefault(one.question_id, []).append(one)
    found = [
        overlap(one.clips, other.clips)
        for ones in by_question.values()
        for one, other in itertools.combinations(ones, 2)
    ]
    return (len(found), statistics.fmean(found)) if found else None


def sample(questions: Sequence[Question], count: int, seed: int) -> list[Question]:
    """Draws questions evenly over durations, one a video before a second one, in the order of the data.

    Args:
        questions: To draw from.
        count: How many; all if there are fewer.
        seed: The same seed draws the same questions.
    """
    rng = random.Random(seed)
    queues: dict[str, list[Question]] = {}
    by_video: dict[str, int] = {}
    rounds: list[tuple[int, float, Question]] = []
    for one in rng.sample(list(questions), len(questions)):
        by_video[one.video_id] = by_video.get(one.video_id, 0) + 1
        rounds.append((by_video[one.video_id], rng.random(), one))
    for _, _, one in sorted(rounds, key=lambda entry: entry[:2]):
        queues.setdefault(one.duration, []).append(one)
    drawn: set[str] = set()
    while len(drawn) < min(count, len(questions)):
        for queue in queues.values():
            if queue and len(drawn) < count:
                drawn.add(queue.pop(0).question_id)
    return [one for one in questions if one.question_id in drawn]
