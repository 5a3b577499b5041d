"""What a user does with an article: the edits of the published demos, each one state of the document's history.

Text operations (`Editor.expand` and its like) return a proposal and change nothing; `Editor.edit` and `Editor.insert` accept
one. Everything else changes the document at once and can be undone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from vedere.compose.article import Article, Document, Illustration, Picture, one_line, paragraphs_of
from vedere.compose.matching import matched
from vedere.compose.prompts import Brief, Prompt, Style, whole_marks
from vedere.compose.steps import Caption, Draft, Gallery, Model, Select, finder, growing
from vedere.errors import ConfigError


@dataclass
class Editor:
    """Edits one document.

    Attributes:
        document: The article with its history; `Document.undo` and `Document.redo` go back and forth.
        model: Writes and chooses.
        style: Its prompts.
        gallery: Finds pictures.
        brief: What the article was asked for with; by default its title.
        sees: The model chooses among pictures; else the first one found is taken.
        places: The model's captions can be used; else the paragraph itself is searched for.
    """

    document: Document
    model: Model
    style: Style
    gallery: Gallery
    brief: Brief | None = None
    sees: bool = True
    places: bool = True

    @property
    def article(self) -> Article:
        """The state in force."""
        return self.document.article

    def _brief(self) -> Brief:
        return self.brief or Brief(title=self.article.title)

    def _proposal(self, prompt: Prompt) -> str:
        return one_line(self.style.text_of(self.model.answer(prompt)))

    def _written_before(self, place: int) -> str:
        return "".join(f"{paragraph.text}\n" for paragraph in self.article.paragraphs[:place])

    def expand(self, place: int, material: str = "") -> str:
        """A longer form of a paragraph, as a proposal."""
        return self._proposal(self.style.expand(self.article.at(place).text, material))

    def rewrite(self, place: int, material: str = "") -> str:
        """Another form of a paragraph, as a proposal."""
        return self._proposal(self.style.rewrite(self.article.at(place).text, material))

    def abbreviate(self, place: int) -> str:
        """A shorter form of a paragraph, as a proposal."""
        return self._proposal(self.style.abbreviate(self.article.at(place).text))

    def paragraph_between(self, place: int, outline: str) -> str:
        """A paragraph in front of the one at ``place``, as a proposal."""
        paragraphs = self.article.paragraphs
        before = paragraphs[place - 1].text if 0 < place <= len(paragraphs) else ""
        after = paragraphs[place].text if 0 <= place < len(paragraphs) else ""
        return self._proposal(self.style.insert(before, after, outline))

    def regenerate(self, place: int) -> str:
        """What the model writes after the paragraphs before this one, as a proposal."""
        self.article.at(place)
        answer = self.style.text_of(self.model.answer(self.style.write(self._brief(), self._written_before(place))))
        found = paragraphs_of(answer)
        if not found:
            raise ConfigError(f"the model wrote no text for paragraph {place}; ask again, or edit it")
        return found[0].text

    def edit(self, place: int, text: str) -> Article:
        """Replaces the text of a paragraph; an empty text removes the paragraph."""
        return self.document.change(f"edit {place}", lambda article: article.with_text(place, text))

    def retitle(self, title: str) -> Article:
        """Gives the article another title.

        Raises:
            ConfigError: none.
        """
        return self.document.change("title", lambda article: article.with_title(title))

    def insert(self, place: int, text: str) -> Article:
        """Puts a new paragraph in front of the one at ``place``."""
        return self.document.change(f"insert {place}", lambda article: article.with_paragraph(place, text))

    def continue_writing(self) -> Article:
        """Lets the model go on after the last paragraph.

        Raises:
            ConfigError: it writes nothing more.
        """
        for _ in self.continuing():
            pass
        return self.article

    def continuing(self) -> Iterator[Article]:
        """`continue_writing` that can be watched: the article so far; the document changes at the end, once."""
        before, answer = self.article, ""
        prompt = self.style.write(self._brief(), self._written_before(len(before.paragraphs)))
        for answer in growing(self.model, prompt):
            so_far = paragraphs_of(self.style.text_of(whole_marks(answer)))
            yield replace(before, paragraphs=(*before.paragraphs, *so_far))
        more = paragraphs_of(self.style.text_of(answer))
        if not more:
            raise ConfigError("the model has nothing more to write; insert a paragraph with an outline instead")
        self.document.apply("continue", replace(before, paragraphs=(*before.paragraphs, *more)))

    def add_picture(self, place: int) -> Article:
        """Captions, finds and selects a picture behind a paragraph that has none.

        Raises:
            ConfigError: it has one.
        """
        if self.article.at(place).illustration is not None:
            raise ConfigError(f"paragraph {place} has a picture already; swap it, search again, or remove it first")
        if not self.places:
            return self._add_match(place)
        spots = [(where, spot.caption) for where, spot in self.article.spots() if where <= place + 1 and spot.caption]
        prompt = self.style.caption(self.article, place, spots, added=True)
        caption = self.style.caption_of(self.model.answer(prompt))
        return self.search(place, caption or self.article.at(place).text[-50:], action="add picture")

    def search(self, place: int, caption: str, *, action: str = "search") -> Article:
        """Other candidates for a caption, none that was shown before; the model selects among them.

        The user's own pictures are few: all of them are offered again.
        """
        count, exclude = self._wanted()
        found = self.gallery.search(caption[: self.style.query_limit], count, exclude)
        return self._offer(f"{action} {place}", place, caption, tuple(found))

    def _add_match(self, place: int) -> Article:
        text = self.article.at(place).text
        query, found = matched(self.gallery, text, *self._wanted(), self.style.query_limit)
        return self._offer(f"add picture {place}", place, found[0].caption or query if found else query, found)

    def _wanted(self) -> tuple[int, frozenset[str]]:
        """(how many candidates, ids of those that are not wanted again)."""
        find = finder(self.gallery, self.style)
        return find.count, frozenset() if find.repeat else self.article.shown()

    def _offer(self, action: str, place: int, caption: str, found: tuple[Picture, ...]) -> Article:
        spot = Illustration(caption=caption, candidates=found, note="" if found else "no suitable picture was found")
        draft = Draft(brief=self._brief(), article=self.article.with_illustration(place, spot))
        return self.document.apply(action, self._select()(draft).article)

    def swap(self, place: int, candidate: int) -> Article:
        """Takes another candidate.

        Raises:
            ConfigError: no picture there, or no such candidate.
        """
        spot = self._spot(place)
        changed = replace(spot, selected=candidate, chosen_by="user", note="")
        return self.document.change(f"swap {place}", lambda article: article.with_illustration(place, changed))

    def remove_picture(self, place: int) -> Article:
        """Removes picture and caption of a paragraph."""
        self._spot(place)
        return self.document.change(f"remove picture {place}", lambda article: article.with_illustration(place, None))

    def place_picture(self, place: int, picture: Picture, caption: str = "") -> Article:
        """Puts a given picture behind a paragraph, in the place of what is there; former candidates stay to be swapped."""
        old = self.article.at(place).illustration or Illustration()
        rest = tuple(other for other in old.candidates if other.id != picture.id)
        new = Illustration(
            caption=caption or old.caption or picture.caption, candidates=(picture, *rest), selected=0, chosen_by="user"
        )
        return self.document.change(f"place picture {place}", lambda article: article.with_illustration(place, new))

    def illustrate(self) -> Article:
        """Captions, finds and selects for every place that lacks them."""
        draft = Draft(brief=self._brief(), article=self.article)
        for step in (
            Caption(self.model, self.style),
            finder(self.gallery, self.style),
            self._select(),
        ):
            draft = step(draft)
        return self.document.apply("illustrate", draft.article)

    def _select(self) -> Select:
        return Select(self.model if self.sees else None, self.style)

    def _spot(self, place: int) -> Illustration:
        spot = self.article.at(place).illustration
        if spot is None:
            raise ConfigError(f"paragraph {place} has no picture; add one first")
        return spot
