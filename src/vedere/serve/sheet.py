"""An article as the page shows it: escaped text, pictures by key, one mark a paragraph to click on.

Everything that a model, a gallery or a visitor wrote goes through `html.escape` exactly once, here.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping

from vedere.compose.article import Article, Illustration, Picture
from vedere.compose.export import credit
from vedere.serve.shelf import WIDTHS, Shelf
from vedere.serve.words import WORDS

_CANDIDATE, _FIGURE = WIDTHS


def sheet(
    article: Article, shelf: Shelf, say: Mapping[str, str], *, selected: int | None = None, stage: str = ""
) -> str:
    """The article.

    Args:
        article: What to show.
        shelf: Gives keys to its pictures.
        say: Words of the page.
        selected: Paragraph that is worked on; -1: the title.
        stage: Step that runs; places without a picture are then still being looked after.
    """
    title = html.escape(article.title)
    blocks = [
        f'<header class="block{_on(selected == -1)}" data-place="-1"><h1>{title}</h1>{_mark(say["edit_title"])}</header>'
    ]
    for place, paragraph in enumerate(article.paragraphs):
        mark = _mark(say["edit_paragraph"].format(place + 1))
        spot = paragraph.illustration
        figure = "" if spot is None else _figure(spot, place, shelf, say, bool(stage))
        blocks.append(
            f'<section class="block{_on(place == selected)}" data-place="{place}"><p>{html.escape(paragraph.text)}</p>{mark}'
            f"{figure}</section>"
        )
    if stage == "write":
        blocks.append('<span class="pen" aria-hidden="true"></span>')
    return f'<article class="sheet{" busy" if stage else ""}">{"".join(blocks)}</article>'


def candidates(spot: Illustration, shelf: Shelf, say: Mapping[str, str]) -> str:
    """The candidates of a place as buttons, the chosen one pressed."""
    if not spot.candidates:
        return f'<p class="none">{html.escape(noted(spot, say) or say["no_picture"])}</p>'
    buttons = "".join(
        f'<button type="button" data-pick="{number}" aria-pressed="{str(number == spot.selected).lower()}" '
        f'aria-label="{html.escape(say["candidate"].format(number + 1))}" title="{html.escape(_title(picture))}">'
        f"{_image(picture, shelf, _CANDIDATE, picture.caption)}</button>"
        for number, picture in enumerate(spot.candidates)
    )
    note = f'<p class="none">{html.escape(noted(spot, say))}</p>' if spot.note else ""
    return f'<div class="candidates" role="group" aria-label="{html.escape(say["candidates"])}">{buttons}</div>{note}'


def noted(spot: Illustration, say: Mapping[str, str]) -> str:
    """The note of a place in the visitor's language; one that nobody here wrote stays as it is."""
    for key, english in WORDS["en"].items():
        if key.startswith("note_"):
            hit = re.fullmatch("(.*)".join(map(re.escape, english.split("{}"))), spot.note, re.DOTALL)
            if hit:
                return say[key].format(*hit.groups())
    return spot.note


def status(stage: str, say: Mapping[str, str], message: str = "", *, wrong: bool = False) -> str:
    """One line about what goes on, what was done, or what went wrong."""
    if stage:
        doing = html.escape(say.get(f"stage_{stage}", say["working"]))
        return f'<p class="status on" role="status"><span class="dot" aria-hidden="true"></span>{doing}…</p>'
    if not message:
        return ""
    kind, role = ("wrong", "alert") if wrong else ("done", "status")
    return f'<p class="status {kind}" role="{role}">{html.escape(message)}</p>'


def _figure(spot: Illustration, place: int, shelf: Shelf, say: Mapping[str, str], running: bool) -> str:
    caption = html.escape(spot.caption or (spot.picture.caption if spot.picture else ""))
    if spot.picture is None:
        text = html.escape(say["looking"] if running else noted(spot, say) or say["no_picture"])
        named = f"<strong>{caption}</strong>" if caption else ""
        return f'<figure class="empty{" waiting" if running else ""}"><div>{named}<span>{text}</span></div></figure>'
    given = html.escape(credit(spot.picture))
    given = f"<small>{given}</small>" if given else ""
    image = _image(spot.picture, shelf, _FIGURE, spot.caption or say["picture_of"].format(place + 1))
    return f"<figure>{image}<figcaption>{caption}{given}</figcaption></figure>"


def _image(picture: Picture, shelf: Shelf, width: int, alt: str) -> str:
    return f'<img src="pictures/{shelf.key(picture)}?width={width}" alt="{html.escape(alt)}" loading="lazy">'


def _title(picture: Picture) -> str:
    return " · ".join(part for part in (picture.caption, credit(picture)) if part)


def _mark(label: str) -> str:
    return (
        f'<button type="button" class="mark" aria-label="{html.escape(label)}" title="{html.escape(label)}">¶</button>'
    )


def _on(selected: bool) -> str:
    return " selected" if selected else ""
