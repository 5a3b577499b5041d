"""How a question with two pictures is put to each family of models: MIS's inference scripts (sec. 5.1), no system message.

| form | text before the question | pictures |
|---|---|---|
| ``internvl`` | ``Image-1: <image>``, blank line, ``Image-2: <image>``, blank line | at most 4 tiles each |
| ``qwen2-vl`` | none; the pictures are parts of the message before the text | 256 to 1,280 blocks of 28 x 28 pixels |
| ``phi-3.5`` | ``<|image_1|>``, line break, ``<|image_2|>``, line break | at most 4 crops |
| ``idefics3`` | none; parts of the message | longest edge 4 x 364 |

InternVL's prefix is described as ``Image-1: <image>\\n\\nImage-2: <image>\\n`` and one more line break before the question.
For Phi-3.5 it leaves open what stands between the last mark and the question: a line break here, as that model's own examples
have it. Crops and processing of the last three are the serving engine's; sizes are kept here before a picture is sent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from PIL import Image

from vedere.config import nearest
from vedere.errors import ConfigError
from vedere.evals.safety.records import Request
from vedere.infer.prompts import Medium
from vedere.infer.session import Session
from vedere.plan import TilingPolicy, plan_media
from vedere.vision.pixels import media_tiles, open_image

NEW_TOKENS = 1024
"""Most tokens of an answer; greedy."""


@dataclass(frozen=True, kw_only=True)
class Form:
    """A form.

    Attributes:
        name: Of the form.
        mark: Written for picture number {n}; "" where pictures are parts of the message.
        between: Between two marks.
        after: Between the last mark and the question.
        tiles: Most tiles of a picture; 0: the model's own.
        least_pixels: Pictures are enlarged to so many pixels; 0: not.
        most_pixels: And shrunk to so many; 0: not.
        longest: Most pixels of the longer edge; 0: any.
        context: Positions that the reference gives the model.
    """

    name: str
    mark: str = ""
    between: str = ""
    after: str = ""
    tiles: int = 0
    least_pixels: int = 0
    most_pixels: int = 0
    longest: int = 0
    context: int = 0

    def text(self, question: str, pictures: int) -> str:
        """The user's message as text; ``<image>`` and its relatives where pictures stand."""
        if not self.mark or not pictures:
            return question
        return self.between.join(self.mark.format(n=n) for n in range(1, pictures + 1)) + self.after + question

    def sized(self, image: Image.Image) -> Image.Image:
        """The picture within the form's limits of pixels; proportions are kept."""
        width, height = image.size
        scale = 1.0
        if self.longest and max(width, height) > self.longest:
            scale = (self.longest + 1e-6) / max(width, height)  # the longer edge is whole again after flooring
        if self.most_pixels and width * height > self.most_pixels:
            scale = math.sqrt(self.most_pixels / (width * height))
        if self.least_pixels and width * height < self.least_pixels:
            scale = math.sqrt(self.least_pixels / (width * height))
        if scale == 1.0:
            return image
        whole = math.ceil if scale > 1 else math.floor
        size = max(1, whole(width * scale)), max(1, whole(height * scale))
        return image.resize(size, Image.Resampling.BICUBIC)


FORMS = {
    form.name: form
    for form in (
        Form(name="internvl", mark="Image-{n}: <image>", between="\n\n", after="\n\n", tiles=4, context=8192),
        Form(name="qwen2-vl", least_pixels=256 * 28 * 28, most_pixels=1280 * 28 * 28, context=4096),
        Form(name="phi-3.5", mark="<|image_{n}|>", between="\n", after="\n", context=0),
        Form(name="idefics3", longest=4 * 364),
        Form(name="plain"),
    )
}
"""The forms by name; ``plain`` is pictures, then text, for models that MIS does not name."""


def form_of(name: str) -> Form:
    """A form by name.

    Raises:
        ConfigError: unknown, with the nearest one.
    """
    if name not in FORMS:
        raise ConfigError(f"unknown prompt form '{name}'{nearest(name, FORMS)} (forms: {', '.join(FORMS)})")
    return FORMS[name]


def parts(form: Form, request: Request) -> list[str | Image.Image]:
    """The message for an endpoint: pictures within the form's limits, then the text, marks replaced by the pictures.

    ``internvl``'s words stay around its pictures; ``phi-3.5``'s marks are what its engine writes for a picture, so they go.
    """
    images = [form.sized(open_image(path)) for path in request.images]
    if "<image>" not in form.mark:
        return [*images, request.question]
    pieces = form.text("", len(images)).split("<image>")
    made: list[str | Image.Image] = []
    for piece, image in zip(pieces, [*images, None], strict=True):
        if piece:
            made.append(piece)
        if image is not None:
            made.append(image)
    if made and isinstance(made[-1], str):
        made[-1] += request.question
        return made
    return [*made, request.question]


def media(form: Form, session: Session, request: Request) -> list[Any]:
    """The pictures for a model in this process, each with its own limit of tiles where the form has one.

    A question's pictures share the limit otherwise, and MIS gives each of the two as many as one has.
    """
    policy = session.prompts.policy
    images = [form.sized(open_image(path)) for path in request.images]
    if not form.tiles or not isinstance(policy, TilingPolicy):
        return list(images)
    limit = replace(policy, max_tiles=min(form.tiles, policy.max_tiles))
    made = []
    for number, image in enumerate(images, 1):
        plan = plan_media(*image.size, limit)
        tiles = media_tiles(image, plan, statistics=session.prompts.statistics)
        made.append(Medium(kind="image", name=f"picture {number}", plan=plan, tiles=tiles))
    return made
