"""Pictures go to the model as they are and into the log as thumbnails.

Inspect logs the messages that a model is called with. A film of 384 frames would put tens of megabytes into each sample, so
messages hold thumbnails, and the originals take their place in the very call of the provider: `carry` wraps the ``generate``
of a model's provider, `sending` says which prompt is being sent. Retries, time-outs, connection limits and everything else of
Inspect stay as they are. The log keeps frame numbers, names and SHA-256 of every medium beside the thumbnails.

Cost: originals are decoded when they are sent, and once more for each retry.
"""

from __future__ import annotations

import base64
import contextlib
import io
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import anyio.to_thread
from inspect_ai.model import (
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageUser,
    Content,
    ContentAudio,
    ContentImage,
    ContentText,
    GenerateConfig,
    Model,
    ModelOutput,
)
from inspect_ai.tool import ToolChoice, ToolInfo

from vedere.evals.inspect_provider import VedereAPI
from vedere.evals.items import Frames, Picture, Prompt, Sound, thumbnail

PICTURE_SIDE = 384
"""Largest side of a picture's thumbnail in the log."""
FRAME_SIDE = 96
"""Largest side of a frame's thumbnail."""
LOGGED_FRAMES = 16
"""Frames of a video that have a thumbnail, evenly spaced."""
_LOSSLESS = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg", b"RIFF": "image/webp"}
_sent: ContextVar[Prompt | None] = ContextVar("prompt being sent", default=None)


def logged_messages(prompt: Prompt) -> list[ChatMessage]:
    """Messages with thumbnails, for the log.

    Raises:
        MediaError: a picture or video cannot be read.
    """
    content: list[Content] = []
    for part in prompt.parts:
        if isinstance(part, str):
            content.append(ContentText(text=part))
            continue
        if isinstance(part, Sound):
            content.append(ContentText(text=f"[sound of {part.name}]"))
            continue
        images = part.images()
        if isinstance(part, Frames):
            step = max(1, -(-len(images) // LOGGED_FRAMES))
            content += [_image(thumbnail(one, FRAME_SIDE), "image/jpeg") for one in images[::step]]
        else:
            content.append(_image(thumbnail(images[0], PICTURE_SIDE), "image/jpeg"))
    return _messages(prompt, content)


def sent_messages(prompt: Prompt) -> list[ChatMessage]:
    """Messages with the originals, for providers behind an API.

    Raises:
        MediaError: a picture or video cannot be read.
    """
    content: list[Content] = []
    for part in prompt.parts:
        if isinstance(part, str):
            content.append(ContentText(text=part))
        elif isinstance(part, Sound):
            sound = base64.b64encode(part.read()).decode()
            content.append(ContentAudio(audio=f"data:audio/mpeg;base64,{sound}", format="mp3"))
        elif isinstance(part, Picture) and part.upscale == 1 and (kind := _kind(data := part.read())):
            content.append(_image(data, kind))
        elif isinstance(part, Picture):
            content += [_image(_encoded(one, "PNG"), "image/png") for one in part.images()]
        else:
            content += [_image(_encoded(one, "JPEG"), "image/jpeg") for one in part.images()]
    return _messages(prompt, content)


def _kind(data: bytes) -> str | None:
    return next((kind for magic, kind in _LOSSLESS.items() if data.startswith(magic)), None)


def _encoded(image: Any, form: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **({"quality": 92} if form == "JPEG" else {}))
    return buffer.getvalue()


def _image(data: bytes, kind: str) -> ContentImage:
    return ContentImage(image=f"data:{kind};base64,{base64.b64encode(data).decode()}")


def _messages(prompt: Prompt, content: list[Content]) -> list[ChatMessage]:
    alone = content[0].text if len(content) == 1 and isinstance(content[0], ContentText) else None
    messages: list[ChatMessage] = [ChatMessageUser(content=content if alone is None else alone)]
    if prompt.system:
        messages.insert(0, ChatMessageSystem(content=prompt.system))
    if prompt.prefill:
        messages.append(ChatMessageAssistant(content=prompt.prefill))
    return messages


@contextlib.contextmanager
def sending(prompt: Prompt) -> Iterator[None]:
    """Within it, calls of carried models send this prompt's media."""
    token = _sent.set(prompt)
    try:
        yield
    finally:
        _sent.reset(token)


def carry(model: Model) -> Model:
    """Makes a model's provider send originals where messages hold thumbnails; once a model."""
    api = model.api
    if "generate" in vars(api):
        return model
    plain = api.generate

    async def generate(
        input: list[ChatMessage], tools: list[ToolInfo], tool_choice: ToolChoice, config: GenerateConfig
    ) -> Any:
        prompt = _sent.get()
        if prompt is None:
            return await plain(input, tools, tool_choice, config)
        if isinstance(api, VedereAPI):
            return await api.generate_prompt(prompt, config)
        originals = await anyio.to_thread.run_sync(sent_messages, prompt)
        found = await plain(originals, tools, tool_choice, config)
        # the record of the raw call would hold the originals once more
        return found[0] if isinstance(found, tuple) and isinstance(found[0], ModelOutput) else found

    api.generate = generate  # type: ignore[method-assign]
    return model
