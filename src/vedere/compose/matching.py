"""Pictures by the text itself, for a model whose own places and captions are of no use.

The paper lets one model write, place, caption and choose (arXiv 2309.15112, sec. 3.3). A model may write simple sentences and
yet be too small for the rest: asked for places, vedere-mini mostly goes on with the story (docs/composition.md). Then the
gallery is searched for each paragraph as it stands, and if nothing in it is similar enough, for each of its sentences; a
paragraph that finds nothing gets no picture. Whoever can place and caption does it better: a caption says what is to be seen, a
sentence mostly does not.

Cost: a search a sentence at most.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from vedere.compose.article import Illustration, Picture
from vedere.compose.prompts import Style
from vedere.compose.steps import Draft, Gallery, Model, OwnPictures, Select, Step, evenly, finder, last, pipeline

_TOLD = 60  # characters of a query in the log
_SENTENCE = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])")


def matched(
    gallery: Gallery, text: str, count: int, exclude: Collection[str], longest: int
) -> tuple[str, tuple[Picture, ...]]:
    """What a paragraph finds.

    Args:
        gallery: Where to look.
        text: The paragraph.
        count: Most pictures.
        exclude: Ids of pictures that are not wanted.
        longest: Characters of a query.

    Returns:
        (query, pictures): the paragraph, or else its first sentence that finds something; the paragraph and nothing.
    """
    sentences = [part.strip() for part in _SENTENCE.split(text)]
    for query in dict.fromkeys(part[:longest] for part in (text, *sentences) if part):
        found = tuple(gallery.search(query, count, exclude))[:count]
        if found:
            return query, found
    return text[:longest], ()


@dataclass(frozen=True)
class Match:
    """Places and candidates at once, without a model.

    Attributes:
        gallery: Where to look.
        style: Says how much of a text is searched for.
        number: Most pictures; None: one wherever a paragraph finds some.
    """

    gallery: Gallery
    style: Style
    number: int | None = None

    def __call__(self, draft: Draft) -> Draft:
        """Searches for every paragraph."""
        return last(self.parts(draft), draft)

    def parts(self, draft: Draft) -> Iterator[Draft]:
        """The same, after every place that was found."""
        open_places = [
            place for place, paragraph in enumerate(draft.article.paragraphs) if paragraph.illustration is None
        ]
        most = len(open_places) if self.number is None else min(self.number, len(open_places))
        if isinstance(self.gallery, OwnPictures):  # which fit everywhere
            most = min(most, len(self.gallery.pictures))
        first = [open_places[number] for number in evenly(most, len(open_places))] if most else []
        find, placed = finder(self.gallery, self.style), 0
        for place in dict.fromkeys([*first, *open_places]):  # spread over the text, then wherever something is left
            if placed == most:
                break
            exclude = frozenset[str]() if find.repeat else draft.article.shown()
            text = draft.article.at(place).text
            query, found = matched(self.gallery, text, find.count, exclude, self.style.query_limit)
            if found:
                spot = Illustration(caption=found[0].caption or query, candidates=found)
                draft = replace(draft, article=draft.article.with_illustration(place, spot))
                draft = draft.noted("find", f"paragraph {place} itself was searched for: {query[:_TOLD]}")
                placed += 1
                yield draft
        missing = (self.number or 0) - placed
        if missing > 0 or not placed:
            what = f"{missing} of {self.number} places" if self.number else "every place"
            yield draft.noted("find", f"no suitable picture was found by the text: {what} stays empty")


def steps_for(
    model: Model,
    gallery: Gallery,
    style: Style,
    *,
    number: int | None = None,
    sees: bool = True,
    places: bool = True,
) -> Sequence[tuple[str, Step]]:
    """The pipeline of a model, without the steps that it is of no use for.

    Args:
        model: Writes, and does the rest as far as it can.
        gallery: Finds.
        style: Prompts.
        number: Pictures; None: as the model, or the gallery, decides; 0: none.
        sees: It can choose among pictures; else the first one found is taken.
        places: Its places and captions can be used; else the text itself is searched for.
    """
    write, *rest, select = pipeline(model, gallery, style, number=number)
    if not places and number != 0:
        rest = [("find", Match(gallery, style, number))]
    return (write, *rest, select if sees else ("select", Select(None, style)))
