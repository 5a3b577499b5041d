"""Who writes and who chooses: a script, a local model, an endpoint, or an endpoint that writes and a local model that chooses.

One model and one set of prompts come out, whatever goes in, so that pipeline, editor and pages need not know.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from vedere.compose.article import Picture
from vedere.compose.endpoint_model import Divided, EndpointModel
from vedere.compose.plain_prompts import PlainStyle, plain_style
from vedere.compose.prompts import Prompt, Style
from vedere.compose.scripted import ScriptedModel
from vedere.compose.steps import Model
from vedere.packages import Say, say_on_stderr
from vedere.recaption.endpoint import EndpointConfig

_SHORT = 400  # tokens of an article by a shipped model, which says the same again and again in longer ones


@dataclass(frozen=True, kw_only=True)
class Cast:
    """A model with its prompts.

    Attributes:
        model: Answers everything.
        style: Its prompts.
        identity: What its answers depend on besides the prompts.
        sees: It can choose among pictures. vedere-mini takes pictures but chooses worse than chance
            (`benchmarks/picture_choice.py`), so the order of the search is better.
        places: Its places and captions can be used. Asked for places, vedere-mini mostly goes on with the story; then the text
            itself is searched for (`vedere.compose.matching`).
    """

    model: Model
    style: Style
    identity: str
    sees: bool = True
    places: bool = True


@dataclass(frozen=True, kw_only=True)
class DividedStyle(PlainStyle):
    """Plain questions for the one that writes, and the chooser's own for the choice.

    Attributes:
        chooser: Prompts of the one that chooses; its room is in force.
    """

    chooser: Style

    def select(self, context: Sequence[str | Picture], candidates: Sequence[Picture], repair: bool = False) -> Prompt:
        """As the chooser's."""
        return self.chooser.select(context, candidates, repair)

    def choice_of(self, answer: str, candidates: int) -> int | None:
        """As the chooser's."""
        return self.chooser.choice_of(answer, candidates)


def divided_style(writer: PlainStyle, chooser: Style) -> DividedStyle:
    """The prompts of two models as one style."""
    values = {field.name: getattr(writer, field.name) for field in fields(writer)}
    values |= {"room": chooser.room, "per_picture": chooser.per_picture, "name": f"{writer.name} and {chooser.name}"}
    return DividedStyle(**values, chooser=chooser)


def language_of(text: str) -> str:
    """``zh`` for a text with Chinese characters, else ``en``."""
    return "zh" if any("\u4e00" <= character <= "\u9fff" for character in text) else "en"


def spoken(style: Style, language: str) -> Style:
    """The same prompts in another language, ``en`` or ``zh``; published prompts are Chinese whatever the article's language."""
    if isinstance(style, DividedStyle):
        writer = plain_style(language, room=style.room, per_picture=style.per_picture)
        return divided_style(writer, spoken(style.chooser, language))
    if isinstance(style, PlainStyle):
        return replace(plain_style(language, room=style.room, per_picture=style.per_picture), longest=style.longest)
    return style


def open_cast(
    model: str | Path | None = "mini",
    *,
    endpoint: EndpointConfig | None = None,
    script: Path | None = None,
    language: str = "en",
    seed: int = 0,
    temperature: float = 0.0,
    device: str | None = None,
    max_tiles: int | None = None,
    beams: int | None = None,
    say: Say = say_on_stderr,
) -> Cast:
    """Opens what answers.

    Args:
        model: A local model, by name or folder; with an endpoint, it only chooses pictures; None: there is none.
        endpoint: Writes, and chooses too where there is no local model.
        script: Answers of a scripted model; nothing else is opened.
        language: Of plain questions, ``en`` or ``zh``.
        seed: Of drawn answers.
        temperature: 0 takes the most probable token.
        device: Of the local model.
        max_tiles: Most tiles of the local model's pictures.
        beams: Of the local model's searches; None: those of the published demos.
        say: Receives a line before a slow step.

    Raises:
        VedereError: what is named cannot be opened.
    """
    plain = plain_style(language)
    if script is not None:
        scripted = ScriptedModel.load(script)
        mark = hashlib.sha256(script.read_bytes()).hexdigest()[:16]
        return Cast(model=scripted, style=plain, identity=f"script {mark}")
    remote = None if endpoint is None else EndpointModel(endpoint, seed=seed, temperature=temperature, say=say)
    if model is None:
        if remote is None:
            raise ValueError("neither a model nor an endpoint nor a script")
        return Cast(model=remote, style=plain, identity=remote.identity)
    from vedere.compose.local_model import LocalModel, check_beams, style_of
    from vedere.infer.loading import SHIPPED
    from vedere.infer.session import load

    check_beams(beams)  # before the model is loaded
    session = load(model, device=device, max_tiles=max_tiles, say=say)
    local = LocalModel(session, seed=seed, temperature=temperature, beams=beams, say=say)
    style = style_of(session, language)
    shipped = session.name in SHIPPED
    sees = local.sees and not shipped
    if shipped and isinstance(style, PlainStyle):
        style = replace(style, longest=_SHORT)
    if remote is None:
        return Cast(model=local, style=style, identity=local.identity, sees=sees, places=not shipped)
    return Cast(
        model=Divided(remote, local),
        style=divided_style(plain, style),
        identity=f"{remote.identity}; {local.identity}",
        sees=sees,
    )
