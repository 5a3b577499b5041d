"""The composition pipeline of the paper as a row of replaceable steps (arXiv 2309.15112, sec. 3.3).

``write -> spot -> caption -> find -> select``: each step takes a `Draft` and returns another one, with the article so far and a
record of every question, answer and decision. Any step may be left out or replaced by a function of the same form.

What differs from the published demo, and why: places outside the article and repeated ones are dropped; a choice outside the
options is asked for once more and then falls back to the first candidate that was found, which is recorded (the demo takes A
without a word); a long article loses its oldest context instead of the question; a place without pictures stays empty.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from vedere.compose.article import Article, Chooser, Illustration, Picture, paragraphs_of
from vedere.compose.prompts import LETTERS, Brief, Prompt, Style, whole_marks
from vedere.errors import ConfigError

CANDIDATES = 4  # as the published demo shows


class Model(Protocol):
    """What answers prompts: a local model, an endpoint, or a script."""

    def answer(self, prompt: Prompt) -> str:
        """The text that follows the prompt."""
        ...


@runtime_checkable
class StreamingModel(Model, Protocol):
    """A model whose answers can be watched while they are written."""

    def stream(self, prompt: Prompt) -> Iterator[str]:
        """The pieces of the answer as they come; joined they are the answer."""
        ...


class Gallery(Protocol):
    """Where pictures are found."""

    def search(self, caption: str, count: int, exclude: Collection[str]) -> Sequence[Picture]:
        """At most ``count`` pictures for a caption, best first, none of the ids in ``exclude``; fewer where fewer fit."""
        ...


@dataclass(frozen=True)
class OwnPictures:
    """The user's own pictures as a gallery: all of them are candidates, in the given order."""

    pictures: tuple[Picture, ...]

    def search(self, caption: str, count: int, exclude: Collection[str]) -> Sequence[Picture]:
        """The first ``count`` pictures that are not excluded, whatever the caption says."""
        return [picture for picture in self.pictures if picture.id not in exclude][:count]


@dataclass(frozen=True, kw_only=True)
class Event:
    """One question, answer or decision.

    Attributes:
        step: Which step.
        prompt: What was asked, with marks for pictures; empty where nothing was.
        answer: What came back.
        note: What was decided, where it was not simply the answer.
    """

    step: str
    prompt: str = ""
    answer: str = ""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Draft:
    """An article in the making.

    Attributes:
        brief: What was asked for.
        article: What there is.
        log: Everything that was asked and decided.
    """

    brief: Brief
    article: Article
    log: tuple[Event, ...] = ()

    @classmethod
    def of(cls, brief: Brief) -> Draft:
        """An empty article."""
        return cls(brief=brief, article=Article(title=brief.title))

    def noted(self, step: str, note: str) -> Draft:
        """With a decision in the log."""
        return replace(self, log=(*self.log, Event(step=step, note=note)))


Step = Callable[[Draft], Draft]


@runtime_checkable
class GradualStep(Protocol):
    """A step that can be watched: the steps of this file."""

    def parts(self, draft: Draft) -> Iterator[Draft]:
        """The draft after every small change; the last one is the step's result (none: nothing changed)."""
        ...


def last(drafts: Iterator[Draft], draft: Draft) -> Draft:
    """The last draft of several; the given one where there is none."""
    for draft in drafts:  # noqa: B007
        pass
    return draft


def growing(model: Model, prompt: Prompt) -> Iterator[str]:
    """The answer so far, again and again, the whole one at last; one piece from a model that does not stream."""
    if not isinstance(model, StreamingModel):
        yield model.answer(prompt)
        return
    answer = ""
    for piece in model.stream(prompt):
        answer += piece
        yield answer
    if not answer:
        yield answer


def asked(model: Model, prompt: Prompt, draft: Draft) -> tuple[str, Draft]:
    """The answer to a prompt, and the draft with both in its log."""
    answer = model.answer(prompt)
    return answer, replace(draft, log=(*draft.log, Event(step=prompt.step, prompt=prompt.text, answer=answer)))


@dataclass(frozen=True)
class Write:
    """Title or outline to paragraphs."""

    model: Model
    style: Style

    def __call__(self, draft: Draft) -> Draft:
        """Writes the whole article.

        Raises:
            ConfigError: the model wrote nothing.
        """
        return last(self.parts(draft), draft)

    def parts(self, draft: Draft) -> Iterator[Draft]:
        """The same, with what is written so far after every piece of the answer."""
        prompt, answer, paragraphs = self.style.write(draft.brief), "", draft.article.paragraphs
        for answer in growing(self.model, prompt):
            written = paragraphs_of(self.style.text_of(whole_marks(answer)))
            if written != paragraphs:
                paragraphs = written
                yield replace(draft, article=replace(draft.article, paragraphs=paragraphs))
        event = Event(step=prompt.step, prompt=prompt.text, answer=answer)
        paragraphs = paragraphs_of(self.style.text_of(answer))
        if not paragraphs:
            raise ConfigError(f"the model wrote no text for '{draft.brief.title[:80]}'; ask again, or give an outline")
        yield replace(draft, article=replace(draft.article, paragraphs=paragraphs), log=(*draft.log, event))


def evenly(number: int, paragraphs: int) -> tuple[int, ...]:
    """So many places among paragraphs, each in the middle of its share."""
    return tuple((2 * place + 1) * paragraphs // (2 * number) for place in range(number))


@dataclass(frozen=True)
class Spot:
    """Which paragraphs a picture belongs behind; illustrations that are there stay."""

    model: Model
    style: Style
    number: int | None = None

    def __call__(self, draft: Draft) -> Draft:
        """Marks the places."""
        if self.number is not None and self.number < 0:
            raise ConfigError(f"{self.number} pictures were asked for; expected 0 or more, or None: the model decides")
        if self.number == 0 or not draft.article.paragraphs:
            return draft.noted("spot", "no pictures were asked for")
        number = None if self.number is None else min(self.number, len(draft.article.paragraphs))
        answer, draft = asked(self.model, self.style.spot(draft.article, number, draft.brief.pictures), draft)
        places = self.style.spots_of(answer, len(draft.article.paragraphs))[:number]
        if not places and number:
            places = evenly(number, len(draft.article.paragraphs))
            draft = draft.noted("spot", f"the answer names no paragraph of the article: {number} were taken evenly")
        article = draft.article
        for place in places:
            if article.at(place).illustration is None:
                article = article.with_illustration(place, Illustration())
        draft = replace(draft, article=article)
        return draft if places else draft.noted("spot", "the answer names no paragraph of the article: no pictures")


@dataclass(frozen=True)
class Caption:
    """What each picture should show; captions that are there stay."""

    model: Model
    style: Style

    def __call__(self, draft: Draft) -> Draft:
        """Writes the missing captions in reading order."""
        return last(self.parts(draft), draft)

    def parts(self, draft: Draft) -> Iterator[Draft]:
        """The same, after every caption."""
        past: list[tuple[int, str]] = []
        for place, spot in draft.article.spots():
            caption = spot.caption
            if not caption:
                answer, draft = asked(self.model, self.style.caption(draft.article, place, past), draft)
                caption = self.style.caption_of(answer)
                if not caption:
                    caption = draft.article.at(place).text[-50:]  # as the demo does when a picture is added
                    draft = draft.noted(
                        "caption", f"no caption for paragraph {place}: the end of its text stands for it"
                    )
                article = draft.article.with_illustration(place, replace(spot, caption=caption))
                draft = replace(draft, article=article)
                yield draft
            past.append((place, caption))


@dataclass(frozen=True)
class Find:
    """Candidates of every place that has none.

    Attributes:
        gallery: Where to look.
        style: Says how much of a caption is searched for.
        count: Candidates of a place.
        repeat: A picture may be a candidate of several places (the user's own pictures).
    """

    gallery: Gallery
    style: Style
    count: int = CANDIDATES
    repeat: bool = False

    def __post_init__(self) -> None:
        """Checks the count.

        Raises:
            ConfigError: there are not so many letters.
        """
        if not 1 <= self.count <= len(LETTERS):
            raise ConfigError(f"{self.count} candidates; expected 1 to {len(LETTERS)}, one a letter")

    def __call__(self, draft: Draft) -> Draft:
        """Searches for every caption."""
        return last(self.parts(draft), draft)

    def parts(self, draft: Draft) -> Iterator[Draft]:
        """The same, after every search."""
        for place, spot in draft.article.spots():
            if spot.candidates or not spot.caption:
                continue
            exclude: frozenset[str] = frozenset() if self.repeat else draft.article.shown()
            found = tuple(self.gallery.search(spot.caption[: self.style.query_limit], self.count, exclude))
            note = spot.note if found else "no suitable picture was found"
            article = draft.article.with_illustration(place, replace(spot, candidates=found[: self.count], note=note))
            draft = replace(draft, article=article)
            if not found:
                draft = draft.noted("find", f"{note} for paragraph {place}: the place stays empty")
            yield draft


@dataclass(frozen=True)
class Select:
    """The model chooses among the candidates, seeing the text and the pictures chosen before; choices that are there stay.

    Attributes:
        model: Who chooses; None: the first candidate is taken everywhere.
        style: Its prompts.
    """

    model: Model | None
    style: Style

    def __call__(self, draft: Draft) -> Draft:
        """Chooses in reading order."""
        return last(self.parts(draft), draft)

    def parts(self, draft: Draft) -> Iterator[Draft]:
        """The same, after every choice."""
        for place, spot in draft.article.spots():
            if spot.selected is not None or not spot.candidates:
                continue
            used = {picture.id for picture in draft.article.pictures()}
            offered = [number for number, picture in enumerate(spot.candidates) if picture.id not in used]
            if not offered:
                note = "every candidate already stands in the article"
                changed = replace(spot, note=note)
                draft = draft.noted("select", f"{note}: paragraph {place} gets no picture")
            elif self.model is None or len(offered) == 1:
                by: Chooser = "retrieval" if self.model is None else "only one"
                changed = replace(spot, selected=offered[0], chosen_by=by)
            else:
                changed, draft = self._choose(draft, place, spot, offered)
            draft = replace(draft, article=draft.article.with_illustration(place, changed))
            yield draft

    def _choose(self, draft: Draft, place: int, spot: Illustration, offered: list[int]) -> tuple[Illustration, Draft]:
        assert self.model is not None
        candidates = [spot.candidates[number] for number in offered]
        context, dropped = self.context(draft.article, place, len(candidates))
        if dropped:
            draft = draft.noted(
                "select", f"paragraph {place}: the oldest {dropped} parts of the context were left out or cut"
            )
        for repair in (False, True):
            answer, draft = asked(self.model, self.style.select(context, candidates, repair), draft)
            choice = self.style.choice_of(answer, len(candidates))
            if choice is not None:
                return replace(spot, selected=offered[choice], chosen_by="model"), draft
        note = f"the model answered {answer.strip()[:40]!r} twice or the like: the first picture found was taken"
        return replace(spot, selected=offered[0], chosen_by="retrieval", note=note), draft.noted("select", note)

    def context(self, article: Article, place: int, candidates: int) -> tuple[list[str | Picture], int]:
        """Text up to a place with the pictures chosen before it, as much of its end as there is room for.

        A character counts as one position, which Chinese text never exceeds.

        Returns:
            (texts and pictures in turn, number of oldest parts left out or cut).
        """
        parts: list[str | Picture] = [""]
        for number, paragraph in enumerate(article.paragraphs[: place + 1]):
            parts[-1] = f"{parts[-1]}{paragraph.text}\n"
            before = paragraph.illustration.picture if paragraph.illustration else None
            if before is not None and number < place:
                parts += [before, ""]
        room = self.style.room - 100 - candidates * self.style.per_picture  # 100: the question itself
        kept: list[str | Picture] = []
        whole = 0
        for part in reversed(parts):
            size = len(part) if isinstance(part, str) else self.style.per_picture
            if size > room:
                if isinstance(part, str) and room > 0:
                    kept.append(part[-room:])
                break
            kept.append(part)
            whole += 1
            room -= size
        return kept[::-1], len(parts) - whole


def finder(gallery: Gallery, style: Style) -> Find:
    """How a gallery is searched: of the user's own pictures up to ten are offered, and one may be offered again."""
    return Find(gallery, style, count=10, repeat=True) if isinstance(gallery, OwnPictures) else Find(gallery, style)


def pipeline(
    model: Model, gallery: Gallery, style: Style, *, number: int | None = None, chooser: Model | None = None
) -> tuple[tuple[str, Step], ...]:
    """The published order of steps, by name; replace, leave out or add some, then `run` them.

    Args:
        model: Writes, spots and captions.
        gallery: Finds.
        style: Prompts.
        number: Pictures; None: the model decides.
        chooser: Selects; None: ``model`` does.
    """
    return (
        ("write", Write(model, style)),
        ("spot", Spot(model, style, number)),
        ("caption", Caption(model, style)),
        ("find", finder(gallery, style)),
        ("select", Select(chooser or model, style)),
    )


def run(steps: Sequence[tuple[str, Step]], draft: Draft, until: str | None = None) -> Draft:
    """Runs steps in order.

    Args:
        steps: Names and steps.
        draft: Where to begin.
        until: Name of the last step; None: all.

    Raises:
        ConfigError: no step has that name.
    """
    return last((made for _, made in watch(steps, draft, until)), draft)


def watch(steps: Sequence[tuple[str, Step]], draft: Draft, until: str | None = None) -> Iterator[tuple[str, Draft]]:
    """Runs steps in order and can be watched, stopped, or caught: what was yielded before an error is worth keeping.

    Args:
        steps: Names and steps.
        draft: Where to begin.
        until: Name of the last step; None: all.

    Yields:
        (name of the step, draft) when a step begins, and after every change that it makes.

    Raises:
        ConfigError: no step has that name.
    """
    names = [name for name, _ in steps]
    if until is not None and until not in names:
        raise ConfigError(f"no step '{until}' (steps: {', '.join(names)})")
    for name, step in steps:
        yield name, draft
        for part in step.parts(draft) if isinstance(step, GradualStep) else (step(draft),):
            draft = part
            yield name, draft
        if name == until:
            break
