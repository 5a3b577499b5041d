"""A question with pictures, videos and history becomes one engine request: read, plan, render, place.

The inference side of the data flow that training uses too (files, plans, `render`, positions), so both see the same tokens for
the same input. Media that a question does not place by ``<image>`` or ``<video>`` go in front of it, one line each, as the
models were trained. Pictures of one question share the tile limit; those of the history keep the plan that they were answered
with. Everything that does not fit is refused before the model runs.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Literal

import numpy as np
from PIL import Image

from vedere.errors import ConfigError, ContextError, PromptError
from vedere.infer.engine import Request
from vedere.infer.sampling import SamplingParams, check_kind
from vedere.models.decoder import DecoderConfig
from vedere.models.mono_internvl import MonoInternVLConfig
from vedere.models.positions import document_positions, v2pe_deltas
from vedere.models.published import ModelConfig
from vedere.models.xcomposer import XComposerConfig
from vedere.models.xcomposer2 import XComposer2Config
from vedere.plan import HDPolicy, MediaPlan, Policy, SquarePolicy, TilingPolicy, plan_media
from vedere.text.chat import Template, Turn
from vedere.text.render import Rendered, render
from vedere.text.tokenizer import Tokenizer
from vedere.vision.container import VideoSource
from vedere.vision.frames import FrameRule
from vedere.vision.hd import hd_tiles
from vedere.vision.pixels import ImageSource, Statistics, describe, media_tiles, open_image
from vedere.vision.video import read_frames

DEFAULT_NEW_TOKENS = 512  # of an answer whose length nobody limited, or fewer where the context ends sooner
_PLACEHOLDER = re.compile("<image>|<video>")


@dataclass(frozen=True, kw_only=True, eq=False)
class Medium:
    """A picture or video, read and planned.

    Attributes:
        kind: Of which kind.
        name: Path, or a description of an object in memory.
        plan: Its plan.
        tiles: uint8 ``[N, 3, S, S]``.
        times: Seconds of a video's frames; empty for pictures.
    """

    kind: Literal["image", "video"]
    name: str
    plan: MediaPlan
    tiles: np.ndarray[Any, Any]
    times: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Exchange:
    """A finished turn of a conversation.

    Attributes:
        question: Text, with or without ``<image>`` and ``<video>``.
        answer: Text.
        images: Pictures of the question, as sources or read already.
        videos: Its videos.
    """

    question: str
    answer: str
    images: Sequence[ImageSource | Medium] = ()
    videos: Sequence[VideoSource | Medium] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Question:
    """All that one answer depends on; the arguments of `Session.chat`.

    Attributes:
        text: The question; ``<image>`` and ``<video>`` place media, which else go in front.
        images: Paths, contents of files, PIL images, or arrays ``[H, W, 3]``.
        videos: Paths or contents of video files.
        history: Earlier turns: (question, answer), `Exchange` or an earlier `Reply`.
        system: System message; ``original`` takes the template's, ``none`` or an empty string writes none, None does what the
            model's release does.
        max_new_tokens: Most tokens of the answer; None: 512, or what the context leaves.
        temperature: 0 is greedy; for this and the following see `SamplingParams`.
        top_k: Keep the k most probable tokens.
        top_p: Keep the most probable tokens with this mass.
        min_p: Keep tokens with this fraction of the largest probability.
        repetition_penalty: Above 1 discourages repetition.
        penalise_prompt: Whether the prompt's tokens count as repeated.
        num_beams: Beams of a search; 1: none.
        length_penalty: Of beams; above 0 favours long answers.
        seed: Makes a sampled answer repeatable.
        frames: Frames taken of each video.
        frame_rule: Which frames (`vedere.vision.frames`).
        opening: Beginning of the answer, which the model goes on with; the reply's text does not repeat it.
        max_tiles: Most tiles of the pictures, of HD models most local views; None takes the model's.
    """

    text: str
    images: Sequence[ImageSource | Medium] = ()
    videos: Sequence[VideoSource | Medium] = ()
    history: Sequence[Any] = ()
    system: str | None = None
    max_new_tokens: int | None = None
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    penalise_prompt: bool = True
    num_beams: int = 1
    length_penalty: float = 1.0
    seed: int | None = None
    frames: int = 8
    frame_rule: FrameRule = "internvl"
    opening: str = ""
    max_tiles: int | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Prompt:
    """A question made ready.

    Attributes:
        request: For the engine.
        exchange: The question with its media read, its answer still empty.
        media: All media, those of the history first.
    """

    request: Request
    exchange: Exchange
    media: tuple[Medium, ...]


@dataclass(frozen=True, kw_only=True)
class PromptMaker:
    """Makes requests for one model.

    Attributes:
        tokenizer: The model's tokenizer.
        template: The model's chat template.
        policy: How pixels become tiles; None for a model that sees nothing.
        statistics: How pixels are normalised.
        max_positions: Positions of the model.
        position_mode: ``default`` or ``v2pe_fix``.
        delta: Step of a visual token with ``v2pe_fix``.
        system: The system message of questions that bring none, as they would write it.
        stop_ids: Tokens that end an answer beside those of the template.
    """

    tokenizer: Tokenizer
    template: Template
    policy: Policy | None
    statistics: Statistics = "imagenet"
    max_positions: int
    position_mode: str = "default"
    delta: Fraction = Fraction(1)
    system: str = "original"
    stop_ids: tuple[int, ...] = ()

    def make(self, question: Question) -> Prompt:
        """Reads, plans and renders.

        Raises:
            MediaError: a picture or video cannot be read.
            PromptError: placeholders, media, history and template do not fit together.
            ContextError: prompt and answer need more positions than the model has.
            ConfigError: a sampling option outside its range, or an unknown frame rule.
        """
        system = self.system if question.system is None else question.system
        turns: list[Turn] = [] if system == "original" else [Turn("system", "" if system == "none" else system)]
        media: list[Medium] = []
        check_kind("frames", question.frames, whole=True)
        check_kind("max_tiles", question.max_tiles, whole=True, optional=True)
        check_kind("max_new_tokens", question.max_new_tokens, whole=True, optional=True)
        _check_list("history", question.history)
        for place, entry in enumerate(question.history or ()):
            earlier = _exchange(entry, place)
            text, found = self._place(earlier.question, earlier.images, earlier.videos, question)
            turns += [Turn("user", text), Turn("assistant", earlier.answer)]
            media += found
        text, found = self._place(question.text, question.images, question.videos, question, alone=not question.history)
        turns.append(Turn("user", text))
        media += found
        plans = [medium.plan for medium in media]
        rendered = render(tuple(turns), plans, self.template, self.tokenizer, train=False, opening=question.opening)
        positions = document_positions(len(rendered.ids), *self._blocks(rendered))
        sampling = SamplingParams(
            max_new_tokens=self._most_tokens(question, len(rendered.ids), float(positions[-1])),
            temperature=question.temperature,
            top_k=question.top_k,
            top_p=question.top_p,
            min_p=question.min_p,
            repetition_penalty=question.repetition_penalty,
            penalise_prompt=question.penalise_prompt,
            num_beams=question.num_beams,
            length_penalty=question.length_penalty,
            seed=question.seed,
            stop_ids=tuple(dict.fromkeys((*self.template.stop_ids(self.tokenizer), *self.stop_ids))),
        )
        request = Request(
            ids=rendered.ids,
            span_types=rendered.span_types if media else None,
            positions=positions,
            pixels=np.concatenate([medium.tiles for medium in media]) if media else None,
            statistics=self.statistics,
            sampling=sampling,
        )
        exchange = Exchange(
            question=text,
            answer="",
            images=tuple(medium for medium in found if medium.kind == "image"),
            videos=tuple(medium for medium in found if medium.kind == "video"),
        )
        return Prompt(request=request, exchange=exchange, media=tuple(media))

    def _place(
        self,
        text: str,
        images: Sequence[ImageSource | Medium],
        videos: Sequence[VideoSource | Medium],
        question: Question,
        alone: bool = False,
    ) -> tuple[str, list[Medium]]:
        """Text with a placeholder for each medium, and the media in that order.

        ``alone``: the conversation has no other turn, so a template may put pictures in front of the whole prompt.
        """
        for name, value in (("images", images), ("videos", videos)):
            _check_list(name, value)
        images, videos = images or (), videos or ()
        read = {
            "<image>": [self._image(source, len(images), question.max_tiles) for source in images],
            "<video>": [self._video(source, question) for source in videos],
        }
        tags = _PLACEHOLDER.findall(text)
        if not tags:
            tags = ["<image>"] * len(images) + ["<video>"] * len(videos)
            if self.template.untagged_in_front and not videos and alone:
                return text, read["<image>"]  # `render` puts them in front of the whole prompt
            lead = self.template.untagged or "<image>\n"
            text = lead * len(images) + "<video>\n" * len(videos) + text
        if all(tags.count(tag) == len(found) for tag, found in read.items()):
            streams = {tag: iter(found) for tag, found in read.items()}
            return text, [next(streams[tag]) for tag in tags]
        return text, read["<image>"] + read["<video>"]  # `render` says what is wrong

    def _image(self, source: ImageSource | Medium, together: int, most: int | None) -> Medium:
        if isinstance(source, Medium):
            return source
        policy = self._policy()
        image = open_image(source)
        if isinstance(policy, TilingPolicy):
            if most is not None:
                policy = replace(policy, max_tiles=most, min_tiles=min(policy.min_tiles, most))
            policy = policy.for_images(together)
        elif isinstance(policy, HDPolicy):
            policy = policy.for_images(together) if most is None else replace(policy, limit=most)
        plan = plan_media(*image.size, policy)
        hd = isinstance(policy, HDPolicy)
        tiles = hd_tiles(image, plan) if hd else media_tiles(image, plan, statistics=self.statistics)
        return Medium(kind="image", name=describe(source).strip("'"), plan=plan, tiles=tiles)

    def _video(self, source: VideoSource | Medium, question: Question) -> Medium:
        if isinstance(source, Medium):
            return source
        policy = self._policy()
        video = read_frames(
            source,
            question.frames,
            question.frame_rule,
            rng=random.Random(question.seed or 0),  # of the rule ``random``
            resize=(policy.tile, policy.tile),
        )
        return self.frames(video.frames, describe(source).strip("'"), video.times)

    def frames(self, frames: Sequence[Image.Image], name: str, times: tuple[float, ...] = ()) -> Medium:
        """Frames that were decoded before, as a video.

        Args:
            frames: Pictures of one size, in temporal order, at least one.
            name: What messages call it.
            times: Seconds, one a frame, if known.
        """
        policy = self._policy()
        plan = plan_media(*frames[0].size, policy, frames=len(frames))
        return Medium(kind="video", name=name, plan=plan, tiles=media_tiles(frames, plan), times=times)

    def _policy(self) -> Policy:
        if self.policy is None:
            raise PromptError("pictures were given, but the model is a bare language model; load one that sees")
        return self.policy

    def _blocks(self, rendered: Rendered) -> tuple[list[tuple[int, int]], list[float]]:
        """(start, length) of what stands between image markers, a picture or frame each, and their V2PE steps."""
        blocks: list[tuple[int, int]] = []
        previous = None
        for span in rendered.spans:
            if (span.media, span.frame) == previous:
                start, _ = blocks[-1]
                blocks[-1] = (start, span.start + span.length - start)
            else:
                blocks.append((span.start, span.length))
            previous = (span.media, span.frame)
        return blocks, v2pe_deltas(self.position_mode, len(blocks), self.delta, random.Random(0))

    def _most_tokens(self, question: Question, length: int, last: float) -> int:
        if question.max_new_tokens is not None:
            return question.max_new_tokens  # the engine refuses what does not fit, with the numbers
        room = self.max_positions - int(last) - 1
        if room < 1:
            raise ContextError(
                f"the prompt takes {length} tokens up to position {last:g}, but the model has {self.max_positions} positions "
                "and an answer needs some; shorten it: fewer tiles or frames, or less history"
            )
        return min(DEFAULT_NEW_TOKENS, room)


def _check_list(name: str, value: object) -> None:
    """Refuses what is no list; None is none, as the releases' own functions write it."""
    if value is not None and (isinstance(value, (str, bytes)) or not isinstance(value, Sequence)):
        raise PromptError(f"{name} is {describe(value)}; expected a list: {name}=[...], also for a single one")


def _exchange(entry: Any, place: int) -> Exchange:
    """Any form of an earlier turn as an `Exchange`."""
    entry = getattr(entry, "exchange", entry)
    if isinstance(entry, Exchange):
        return entry
    if isinstance(entry, (tuple, list)) and len(entry) == 2 and all(isinstance(part, str) for part in entry):
        return Exchange(question=entry[0], answer=entry[1])
    raise PromptError(
        f"history entry {place + 1} is {entry!r:.80}; expected (question, answer), an Exchange, or an earlier reply"
    )


def model_policy(model: ModelConfig, extras: dict[str, Any], hd_num: int | None = None) -> Policy | None:
    """How a model cuts pictures, by its shape and its config.json; None for a bare language model.

    Args:
        model: Shape.
        extras: Fields of config.json beyond the shape.
        hd_num: The N of HD-N of this use, whatever the model was trained with; for models with global and local views only.

    Raises:
        ConfigError: as `policy_from`, or ``hd_num`` for a model that has another policy.
    """
    if isinstance(model, DecoderConfig):
        policy: Policy | None = None
    elif isinstance(model, XComposer2Config):
        policy = _xcomposer2_policy(model, extras)
    elif isinstance(model, XComposerConfig) and extras.get("policy") is None:
        patches = model.vision.patches
        policy = SquarePolicy(tile=patches.tile, patch=patches.patch, downsample=1, sampled=model.tokens_per_picture)
    else:
        patches = model.vision if isinstance(model, MonoInternVLConfig) else model.vision.patches
        policy = policy_from(extras, patches.tile, patches.patch, patches.downsample)
    if hd_num is None:
        return policy
    if not isinstance(policy, HDPolicy):
        has = "takes no pictures" if policy is None else f"has a {type(policy).__name__}"
        raise ConfigError(f"hd_num {hd_num} is the limit of XComposer2-4KHD's views; this model {has}: leave it out")
    return replace(policy, limit=hd_num)


def _xcomposer2_policy(model: XComposer2Config, extras: dict[str, Any]) -> Policy:
    """Global and local views, those of 2.5 by its tiles of 560 px; or one square, squashed."""
    patches = model.vision.patches
    tile, patch, downsample = patches.tile, patches.patch, patches.downsample
    if extras.get("policy") is not None:
        return policy_from(extras, tile, patch, downsample)
    if model.views == "square":
        return SquarePolicy(tile=tile, patch=patch, downsample=downsample)
    newer = HDPolicy.xcomposer25()
    return replace(newer if tile == newer.tile else HDPolicy(), tile=tile, patch=patch, downsample=downsample)


def policy_from(extras: dict[str, Any], tile: int, patch: int, downsample: int) -> Policy:
    """The tiling that a checkpoint's config asks for: vedere's ``policy`` object, or the original InternVL fields.

    Args:
        extras: Fields of config.json beyond the shape.
        tile: Side of a tile in pixels.
        patch: Side of a patch.
        downsample: Unshuffle factor.

    Raises:
        ConfigError: fields that are no policy, or tiles of another size than the model's.
    """
    given = extras.get("policy")
    if given is not None:
        from vedere.config import from_dict

        kinds = {"tiling": TilingPolicy, "square": SquarePolicy, "hd": HDPolicy}
        if not isinstance(given, Mapping):
            raise ConfigError(f"'policy' in config.json is {given!r:.60}; expected an object with its kind; correct it")
        kind = kinds.get(given.get("kind", "tiling"))
        if kind is None:
            raise ConfigError(f"policy kind {given.get('kind')!r} in config.json; expected one of {', '.join(kinds)}")
        policy: Policy = from_dict(kind, {"tile": tile, "patch": patch, "downsample": downsample, **given})
        if (policy.tile, policy.patch, policy.downsample) != (tile, patch, downsample):
            raise ConfigError(
                f"the policy in config.json has tiles of {policy.tile} px; the model is made for {tile} px"
            )
        return policy
    if not extras.get("dynamic_image_size", True):
        return SquarePolicy(tile=tile, patch=patch, downsample=downsample, pad=bool(extras.get("pad2square", False)))
    least, most = (
        _tiles(extras, key, default) for key, default in (("min_dynamic_patch", 1), ("max_dynamic_patch", 12))
    )
    return TilingPolicy(
        tile=tile,
        patch=patch,
        downsample=downsample,
        min_tiles=min(least, most),
        max_tiles=most,
        thumbnail=bool(extras.get("use_thumbnail", True)),
    )


def _tiles(extras: dict[str, Any], key: str, default: int) -> int:
    """A limit of config.json; null is absent."""
    value = extras.get(key)
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool):
        raise ConfigError(f"'{key}' in config.json is {value!r}; expected a number of tiles; correct config.json")
    return value
