"""A sample becomes a document: media are read and planned, the conversation is rendered, both are checked together.

This is the training side of the data flow (records, plans, `render`, packs), and the only random part of it: JPEG
re-encoding of tiles, number and choice of video frames (InternVL3, arXiv 2504.10479, released training code). All
random numbers come from the generator that is handed in, so that a sample is the same whenever it is prepared again.

Cost: decoding and resizing the pictures; some 5 to 50 ms for a photograph, 0.1 ms for text.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from vedere.data.packing import IGNORED, Document
from vedere.data.sample import MediaRef, Sample
from vedere.errors import ConfigError, MediaError, RecordError
from vedere.plan import HDPolicy, MediaPlan, Policy, TilingPolicy, plan_media
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
        augment: JPEG re-encoding of tiles: as each data set says, or ``always``, or ``never``.
        frames: Least and most frames of a video, drawn uniformly.
        max_pixels: Limit on the size of pictures and frames.
        statistics: The model's; their mean is the colour that a `SquarePolicy` pads with.
    """

    tokenizer: Tokenizer
    template: Template
    policy: Policy
    augment: Literal["dataset", "always", "never"] = "dataset"
    frames: tuple[int, int] = (8, 32)
    max_pixels: int = MAX_PIXELS
    statistics: Statistics = "imagenet"

    def __post_init__(self) -> None:
        """Checks the settings.

        Raises:
            ConfigError: an impossible range of frames.
        """
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

    def _policy(self, sample: Sample) -> Policy:
        """The policy of one picture of a sample."""
        policy = self.policy
        if isinstance(policy, HDPolicy) and sample.max_tiles is not None:
            return replace(policy, limit=sample.max_tiles)
        if not isinstance(policy, TilingPolicy):
            return policy
        if sample.max_tiles is not None:
            policy = replace(policy, max_tiles=sample.max_tiles, min_tiles=min(policy.min_tiles, sample.max_tiles))
        return policy.for_images(sum(ref.kind == "image" for ref in sample.media))

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
            plan = plan_media(*image.size, self._policy(sample))
            augment = sample.augment if self.augment == "dataset" else self.augment == "always"
            source_of_noise = rng if augment else None
            if isinstance(self.policy, HDPolicy):
                return plan, hd_tiles(image, plan, augment=source_of_noise)
            return plan, media_tiles(image, plan, augment=source_of_noise, statistics=self.statistics)
        except MediaError as error:
            raise MediaError(f"{ref.place}: {error}" if ref.member else str(error)) from error
