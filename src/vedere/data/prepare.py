"""A sample becomes a document: media are read and planned, the conversation is rendered, both are checked together.

This is the training side of the data flow (records, plans, `render`, packs), and the only random part of it: JPEG
re-encoding of tiles, number and choice of video frames (InternVL3, arXiv 2504.10479, released training code). All
random numbers come from the generator that is handed in, so that a sample is the same whenever it is prepared again.

Mixed resolutions (XComposer2-4KHD, 2404.06512, sec. 3.3): a data set whose pictures need detail has a limit of its own and is
always shown at it (HD-55 for documents); any other picture is drawn between its own size and the limit (up to HD-25). The
original keeps the two groups in batches of their own; packs bound tokens and tiles, so here they may mix.

Cost: decoding and resizing the pictures; some 5 to 50 ms for a photograph, 0.1 ms for text.
"""

from __future__ import annotations

import fnmatch
import random
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from vedere.data.packing import IGNORED, Document
from vedere.data.sample import MediaRef, Sample
from vedere.errors import ConfigError, MediaError, RecordError
from vedere.plan import HDPolicy, MediaPlan, Policy, SquarePolicy, TilingPolicy, hd_range, plan_media
from vedere.text.chat import Template, get_template
from vedere.text.render import render
from vedere.text.tokenizer import Tokenizer
from vedere.vision.hd import hd_tiles
from vedere.vision.pixels import MAX_PIXELS, Statistics, media_tiles, open_image
from vedere.vision.video import read_frames


@dataclass(frozen=True, kw_only=True)
class SamplePreparer:
    """Prepares samples for one model; a `vedere.data.loader.Prepare`, picklable.

    Attributes:
        tokenizer: The model's.
        template: Chat template of data sets that name none.
        policy: How pixels become tiles. A data set's ``max_tiles`` replaces that of a `TilingPolicy`, whose limit the
            pictures of one sample share, and the ``limit`` of an `HDPolicy`, which every picture has for itself.
        limits: (pattern over names of data sets, limit): the first that matches stands before the data set's own, and its
            pictures are always shown at that limit.
        random_resolution: Draw the size of all other pictures under an `HDPolicy` (`vedere.plan.hd_range`).
        augment: JPEG re-encoding of tiles: as each data set says, or ``always``, or ``never``.
        frames: Least and most frames of a video, drawn uniformly.
        max_pixels: Limit on the size of pictures and frames.
        statistics: The model's; their mean is the colour that a `SquarePolicy` pads with.
    """

    tokenizer: Tokenizer
    template: Template
    policy: Policy
    limits: tuple[tuple[str, int], ...] = ()
    random_resolution: bool = False
    augment: Literal["dataset", "always", "never"] = "dataset"
    frames: tuple[int, int] = (8, 32)
    max_pixels: int = MAX_PIXELS
    statistics: Statistics = "imagenet"

    def __post_init__(self) -> None:
        """Checks the settings.

        Raises:
            ConfigError: an impossible range of frames, limits below 1, or a drawn resolution without an `HDPolicy`.
        """
        for pattern, limit in self.limits:
            if limit < 1 or isinstance(self.policy, SquarePolicy):
                raise ConfigError(
                    f"limit {limit} for data sets '{pattern}' under a {type(self.policy).__name__}; expected at least 1, and a "
                    "policy with several tiles"
                )
        if self.random_resolution and not isinstance(self.policy, HDPolicy):
            raise ConfigError(
                f"random_resolution draws global and local views; a {type(self.policy).__name__} has none: set it to false"
            )
        if not 1 <= self.frames[0] <= self.frames[1]:
            raise ConfigError(f"frames {self.frames}; expected (least, most) with 1 <= least <= most")

    def __call__(self, sample: Sample, rng: random.Random) -> Document:
        """The document of a sample.

        Args:
            sample: Conversation and references.
            rng: The only source of random numbers.

        Raises:
            MediaError: a picture or video cannot be read.
            PromptError: placeholders, media and template do not fit together.
            RecordError: no token would be trained.
            ConfigError: the data set's own template writes markers that the vocabulary splits.
        """
        plans, tiles = [], []
        for ref in sample.media:
            plan, pixels = self._read(ref, sample, rng)
            plans.append(plan)
            tiles.append(pixels)
        template = self.template
        if sample.template:
            template = get_template(sample.template)
            template.check_markers(self.tokenizer)  # the recipe's own was checked when the model was made
        rendered = render(sample.conversation, plans, template, self.tokenizer, train=True)
        labels = rendered.labels
        if labels is None or not np.any(labels[1:] != IGNORED):
            raise RecordError("no token would be trained; expected an answer: drop the record")
        side = self.policy.tile
        return Document(
            name=sample.name,
            ids=rendered.ids,
            labels=labels,
            span_types=rendered.span_types,
            spans=rendered.spans,
            tiles=np.concatenate(tiles) if tiles else np.zeros((0, 3, side, side), np.uint8),
            grids=tuple(plan.grid for plan in plans) if isinstance(self.policy, HDPolicy) else (),
            weight=sample.weight,
        )

    def _policy(self, sample: Sample) -> tuple[Policy, bool]:
        """The policy of one picture of a sample, and whether its size is drawn."""
        policy = self.policy
        name = sample.name.partition("#")[0]
        own = next((limit for pattern, limit in self.limits if fnmatch.fnmatchcase(name, pattern)), None)
        limit = sample.max_tiles if own is None else own
        if isinstance(policy, HDPolicy):
            drawn = self.random_resolution and own is None
            return (policy if limit is None else replace(policy, limit=limit)), drawn
        if not isinstance(policy, TilingPolicy):
            return policy, False
        if limit is not None:
            policy = replace(policy, max_tiles=limit, min_tiles=min(policy.min_tiles, limit))
        return policy.for_images(sum(ref.kind == "image" for ref in sample.media)), False

    def _read(self, ref: MediaRef, sample: Sample, rng: random.Random) -> tuple[MediaPlan, npt.NDArray[np.uint8]]:
        source = ref.read() if ref.member else ref.path
        try:
            if ref.kind == "video":
                side = self.policy.tile
                video = read_frames(
                    source,
                    rng.randint(*self.frames),
                    "random",
                    ref.clip,
                    rng=rng,
                    resize=(side, side),
                    max_pixels=self.max_pixels,
                )
                plan = plan_media(*video.size, self.policy, frames=len(video.frames))
                return plan, media_tiles(video.frames, plan)
            image = open_image(source, max_pixels=self.max_pixels)
            policy, drawn = self._policy(sample)
            if drawn and isinstance(policy, HDPolicy):
                policy = replace(policy, steps=rng.randint(*hd_range(*image.size, policy)))
            plan = plan_media(*image.size, policy)
            augment = sample.augment if self.augment == "dataset" else self.augment == "always"
            source_of_noise = rng if augment else None
            if isinstance(self.policy, HDPolicy):
                return plan, hd_tiles(image, plan, augment=source_of_noise)
            return plan, media_tiles(image, plan, augment=source_of_noise, statistics=self.statistics)
        except MediaError as error:
            raise MediaError(f"{ref.place}: {error}" if ref.member else str(error)) from error
