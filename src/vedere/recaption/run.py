"""Captions for a picture set, resumable: what ``vedere data recaption`` does.

The data of EViP's semantic stage (Mono-InternVL, arXiv 2410.08202, sec. 3.3): a model describes pictures, filters keep what is
clean, S1.2 trains on it. The folder holds

* ``answers.jsonl``: every answer as it came, appended and flushed one by one (`vedere.journal`). This is the
  truth. A picture with an answer is never asked again, so after a kill only questions whose answers had not come yet
  are asked once more: at most as many as were on their way.
* ``recaption.json``: what answers depend on. Going on with another model, prompt or seed is refused.
* ``captions.jsonl``, ``dropped.jsonl``, ``meta.json``: what the filters make of the answers, written whole when a run ends,
  in the order of the picture set. They are a function of the answers and the filters, so other filters ask nothing again.

Pictures that cannot be read, and questions that failed after all retries, are listed in ``dropped.jsonl`` and tried again by
the next run. Each prompt is also asked about a plain grey picture; a caption that says the same says nothing about its own
picture. Prompt, seed and phrasing of a picture are functions of the run's seed and the picture's name.

Cost: the model's; all answers are kept in memory (some 500 bytes each).
"""

from __future__ import annotations

import contextlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from vedere.atomic import Writer, write_together
from vedere.config import check_ranges
from vedere.data.build.record import CAPTION_PROMPTS, stream
from vedere.data.mixture import seed_of
from vedere.errors import ConfigError, MediaError, RecordError
from vedere.journal import Journal
from vedere.recaption.captioner import Asked, Captioner
from vedere.recaption.filters import DUPLICATE, Caption, FilterConfig, clean, too_often, verdict
from vedere.recaption.pictures import Picture, PictureSet
from vedere.vision.pixels import open_image

ANSWERS, CAPTIONS, DROPPED, META, DESCRIPTION = (
    "answers.jsonl",
    "captions.jsonl",
    "dropped.jsonl",
    "meta.json",
    "recaption.json",
)
UNREADABLE, FAILED = "unreadable", "failed"
_GREY = 448  # side of the picture of blind questions


@dataclass(frozen=True, kw_only=True)
class RecaptionConfig:
    """What is asked.

    Attributes:
        prompts: Questions; one is drawn for each picture.
        seed: Everything is drawn from it.
        limit: Most pictures asked about in this run; None: all that have no answer yet.
        give_up: Failed questions in a row after which the run ends.
        filters: What is kept.
    """

    prompts: tuple[str, ...] = ("Describe the picture.",)
    seed: int = 0
    limit: int | None = None
    give_up: int = 20
    filters: FilterConfig = field(default_factory=FilterConfig)

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
            ConfigError: no prompt, an empty one, or a number out of range.
        """
        if not self.prompts or not all(prompt.strip() for prompt in self.prompts):
            raise ConfigError(f"prompts {list(self.prompts)}; expected at least one, none of them empty")
        check_ranges(self, give_up=1)
        if self.limit is not None:
            check_ranges(self, limit=0)


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a folder holds after a run.

    Attributes:
        pictures: Pictures of the set.
        before: Pictures that had an answer before the run.
        asked: Pictures answered in this run.
        kept: Captions that passed.
        dropped: Pictures without a caption, by reason; ``unreadable`` and ``failed`` among them.
        unreadable: Names of the pictures that cannot be read.
        left: Pictures that were not asked about yet.
    """

    pictures: int
    before: int
    asked: int
    kept: int
    dropped: dict[str, int]
    unreadable: tuple[str, ...]
    left: int


def recaption(
    pictures: PictureSet,
    captioner: Captioner,
    out: Path,
    config: RecaptionConfig | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Summary:
    """Asks about all pictures without an answer, then filters all answers.

    Args:
        pictures: The set.
        captioner: Answers.
        out: Folder to write, absent or from an earlier run.
        config: What is asked.
        progress: Called with (pictures through, pictures to do) as they come.

    Raises:
        ConfigError: the folder belongs to a run with another model, prompt, seed or set; or the captioner is set up wrongly.
        RecordError: the folder cannot be written, or too many questions in a row failed. What was answered is kept and
            filtered in any case, after Ctrl-C too.
    """
    config = config or RecaptionConfig()
    identity = describe(pictures, captioner, out, config)
    with Journal(out / ANSWERS) as journal:
        check_identity(out, identity, bool(journal.lines))
        run = _Run(pictures, config, journal)
        before = len(run.answered)
        try:
            run.ask(captioner, progress)
        finally:
            summary = write_results(out, pictures, journal.lines, run.problems, config, identity)
    return Summary(**{**vars(summary), "before": before, "asked": len(run.answered) - before})


def describe(pictures: PictureSet, captioner: Captioner, out: Path, config: RecaptionConfig) -> dict[str, Any]:
    """What the answers of a folder depend on, as plain JSON."""
    root = Path(os.path.relpath(pictures.root, out)).as_posix()
    return {"root": root, "prompts": list(config.prompts), "seed": config.seed, **captioner.identity}


def check_identity(out: Path, identity: dict[str, Any], begun: bool) -> None:
    """Writes the description of a new folder, compares that of an old one.

    Raises:
        ConfigError: they differ; names what.
        RecordError: answers without a description, or a damaged one.
    """
    path = out / DESCRIPTION
    if not path.is_file():
        if begun:
            raise RecordError(f"{out} holds answers but no {DESCRIPTION}; bring it back, or choose another folder")
        write_together(out, {DESCRIPTION: _writer(json.dumps(identity, indent=2, ensure_ascii=False) + "\n")})
        return
    try:
        earlier = json.loads(path.read_text("utf-8"))
        different = [key for key in {**earlier, **identity} if earlier.get(key) != identity.get(key)]
    except (ValueError, TypeError, AttributeError) as error:
        raise RecordError(f"{path} is damaged ({error}); bring it back, or choose another folder") from None
    if different:
        listed = "; ".join(f"{key}: {earlier.get(key)!r} before, {identity.get(key)!r} now" for key in different)
        raise ConfigError(f"{out} holds answers to something else ({listed}); use the same again, or another --out")


class _Run:
    """Questions of one run, and what came of them."""

    def __init__(self, pictures: PictureSet, config: RecaptionConfig, journal: Journal) -> None:
        self.set, self.config, self.journal = pictures, config, journal
        self.problems: dict[str, tuple[str, str]] = {}  # name -> (reason, what exactly)
        names = {picture.name for picture in pictures.pictures}
        self.answered = {line["name"] for line in journal.lines if line.get("name") in names}
        self.blind = {line["prompt"] for line in journal.lines if line.get("name") == ""}

    def ask(self, captioner: Captioner, progress: Callable[[int, int], None] | None) -> None:
        todo = [picture for picture in self.set.pictures if picture.name not in self.answered]
        todo = todo if self.config.limit is None else todo[: self.config.limit]
        if not todo:
            return
        failures = through = 0
        with contextlib.closing(captioner.answers(self.questions(todo))) as answers:  # type: ignore[type-var]
            for asked, answer in answers:
                if answer.error:
                    failures += 1
                    if asked.name:
                        self.problems[asked.name] = (FAILED, answer.error)
                    if failures >= self.config.give_up:
                        raise RecordError(
                            f"{failures} questions in a row failed, the last with: {answer.error}; what was answered is kept: "
                            "see to the model or endpoint and run again"
                        )
                else:
                    failures = 0
                    line = {"name": asked.name, "prompt": asked.prompt, "seed": asked.seed, "text": answer.text}
                    self.journal.append(line | {"complete": answer.complete})
                    if asked.name:
                        self.answered.add(asked.name)
                through += bool(asked.name)
                if progress is not None:
                    progress(through + sum(why == UNREADABLE for why, _ in self.problems.values()), len(todo))

    def questions(self, todo: Sequence[Picture]) -> Iterator[Asked]:
        """Blind ones first, then one a picture; what cannot be read is written down and left out."""
        grey = Image.new("RGB", (_GREY, _GREY), (128, 128, 128))
        for prompt in dict.fromkeys(self.config.prompts):
            if prompt not in self.blind:
                yield Asked(name="", image=grey, prompt=prompt, seed=_seed(self.config.seed, "", prompt))
        for picture in todo:
            prompt = stream(self.config.seed, "prompt", picture.name).choice(self.config.prompts)
            try:
                picture.name.encode()
                image = open_image(self.set.root / picture.name)
            except (MediaError, UnicodeEncodeError) as error:
                self.problems[picture.name] = (UNREADABLE, str(error))
                continue
            yield Asked(
                name=picture.name, image=image, prompt=prompt, seed=_seed(self.config.seed, picture.name, prompt)
            )


def _seed(seed: int, name: str, prompt: str) -> int:
    return seed_of("recaption", seed, name, prompt) % (1 << 31)


def write_results(
    out: Path,
    pictures: PictureSet,
    lines: Sequence[dict[str, Any]],
    problems: dict[str, tuple[str, str]],
    config: RecaptionConfig,
    identity: dict[str, Any],
) -> Summary:
    """Filters answers and writes captions, what was dropped, and the meta file; all of them or none.

    Args:
        out: The folder.
        pictures: The set; answers to other pictures are left alone.
        lines: The journal.
        problems: Pictures without an answer: (reason, what exactly) by name.
        config: Filters and seed.
        identity: The folder's description.

    Returns:
        Counts, with nothing asked.
    """
    try:
        blind = {line["prompt"]: clean(line["text"]) for line in lines if line["name"] == ""}
        answers = {line["name"]: line for line in lines}
        rows = [(picture, answers[picture.name]) for picture in pictures.pictures if picture.name in answers]
        captions = [
            Caption(text=clean(line["text"]), complete=line["complete"], blind=blind.get(line["prompt"], ""))
            for _, line in rows
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise RecordError(f"{out / ANSWERS} holds a line that is no answer ({error!r}); remove it") from None
    reasons = [verdict(caption, config.filters) for caption in captions]
    passed = [number for number, reason in enumerate(reasons) if not reason]
    for number, over in zip(passed, too_often([captions[n].text for n in passed], config.filters.equal), strict=True):
        reasons[number] = DUPLICATE if over else ""
    kept = [
        record(picture, line, caption.text, identity["model"], config.seed)
        for (picture, line), caption, reason in zip(rows, captions, reasons, strict=True)
        if not reason
    ]
    dropped = [
        {"image": picture.name, "reason": reason, "text": line["text"], "prompt": line["prompt"], "seed": line["seed"]}
        for (picture, line), reason in zip(rows, reasons, strict=True)
        if reason
    ]
    dropped += [
        {"image": name, "reason": reason, "problem": problem} for name, (reason, problem) in sorted(problems.items())
    ]
    licences = " AND ".join(dict.fromkeys(record["licence"] for record in kept if record["licence"]))
    meta = {"recaption": {"root": identity["root"], "annotation": CAPTIONS, "licence": licences, "length": len(kept)}}
    files: dict[str, Writer] = {CAPTIONS: _lines(kept), DROPPED: _lines(dropped)}
    if kept:
        files[META] = _writer(json.dumps(meta, indent=2, ensure_ascii=False) + "\n")
    else:
        (out / META).unlink(missing_ok=True)  # a data set without records is an error for whoever opens it
    write_together(out, files)
    return Summary(
        pictures=len(pictures.pictures),
        before=len(rows),
        asked=0,
        kept=len(kept),
        dropped=dict(Counter(line["reason"] for line in dropped).most_common()),
        unreadable=tuple(name for name, (reason, _) in sorted(problems.items()) if reason == UNREADABLE),
        left=len(pictures.pictures) - len(rows) - len(problems),
    )


def record(picture: Picture, line: dict[str, Any], caption: str, model: str, seed: int) -> dict[str, Any]:
    """A record in the InternVL form (`vedere.data.formats`), with where its caption came from."""
    phrase = stream(seed, "phrase", picture.name).choice(CAPTION_PROMPTS)
    return {
        "id": picture.name,
        "image": picture.name,
        "conversations": [
            {"from": "human", "value": f"<image>\n{phrase}"},
            {"from": "gpt", "value": caption},
        ],
        "kind": "recaption",
        "question_type": "caption",
        "licence": picture.licence,
        "attribution": picture.attribution,
        "source_model": model,
        "prompt": line["prompt"],
        "seed": line["seed"],
    }


def _lines(rows: Sequence[dict[str, Any]]) -> Writer:
    return _writer("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _writer(text: str) -> Writer:
    def write(path: Path) -> None:
        path.write_bytes(text.encode("utf-8", "backslashreplace"))

    return write
