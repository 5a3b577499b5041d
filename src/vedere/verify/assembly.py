"""A model and the padded batch that it was recorded with: what all kinds of model folders have in common.

Rows of a batch become documents of one pack; positions under a mask of 0 are left out, and their outputs are not compared.
Visual positions are those of the image-context id: a native config names it; in the original layout it stands in no file
and is the recorded folders' own.

Axes: B rows, L padded length, T packed tokens, N tiles, P tokens a tile, D width.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from vedere.errors import CheckpointError
from vedere.infer.engine import Engine, Request, Token
from vedere.infer.sampling import SamplingParams
from vedere.models.checkpoints import load_model, read_config
from vedere.models.hf_config import image_token_of
from vedere.models.rope_scaling import RotaryState
from vedere.models.vision_language import VisionLanguageModel
from vedere.plan import SpanKind
from vedere.train.losses import chunked_cross_entropy, next_token_targets
from vedere.verify.check import FEATURES, LOSSES, Check, Recording

_CHUNK = 16  # prompt tokens that the engine is fed at once: images do not end where chunks end
IMAGE_CONTEXT = 500
IMAGE_START = 501
IMAGE_END = 502


@dataclass(frozen=True)
class PackedRows:
    """Rows of a padded batch as documents of a pack."""

    ids: Tensor  # [T]
    positions: Tensor  # [T]: column in the batch
    span_types: Tensor  # [T]
    borders: list[int]
    mask: Tensor  # [B, L] bool

    @property
    def length(self) -> int:
        """Length that the original saw, padding included."""
        return self.mask.shape[1]


def pack_rows(ids_BL: Tensor, mask_BL: Tensor | None = None, context: int = IMAGE_CONTEXT) -> PackedRows:
    """Packs the rows of a batch; ``mask_BL`` is 1 at real tokens, None where all are."""
    mask = torch.ones_like(ids_BL, dtype=torch.bool) if mask_BL is None else mask_BL.bool()
    ids = ids_BL[mask].long()
    columns = torch.arange(ids_BL.shape[1]).expand_as(ids_BL)[mask]
    borders = [0, *itertools.accumulate(mask.sum(1).tolist())]
    return PackedRows(ids, columns, visual_types(ids, context), borders, mask)


def visual_types(ids: Tensor, context: int = IMAGE_CONTEXT) -> Tensor:
    """`SpanKind` of every id: visual exactly at the image-context id."""
    return torch.where(ids == context, int(SpanKind.VISUAL), int(SpanKind.TEXT))


def image_blocks(ids_T: Tensor, context: int = IMAGE_CONTEXT) -> list[tuple[int, int]]:
    """(start, length) of every run of visual positions."""
    visual = (ids_T == context).int()
    edges = torch.cat([visual.new_zeros(1), visual, visual.new_zeros(1)]).diff()
    starts, ends = (edges == 1).nonzero().squeeze(1), (edges == -1).nonzero().squeeze(1)
    return [(start, end - start) for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]


class Assembly:
    """A recorded model folder, loaded in float32.

    Args:
        recording: Its recorded tensors.
        folder: Of another checkpoint to verify with them; None: the recorded folder's own.

    Raises:
        CheckpointError: weights that cannot be loaded, or another kind of model.
    """

    def __init__(self, recording: Recording, folder: Path | None = None) -> None:
        self.recording = recording
        folder = recording.directory if folder is None else folder
        model = load_model(folder, dtype=torch.float32)
        if not isinstance(model, VisionLanguageModel):
            raise CheckpointError(f"{folder} holds a {type(model).__name__} without vision; nothing to verify")
        self.model = model
        read = read_config(folder)
        llm = read.extras.get("llm_config")
        classes = llm.get("architectures") if isinstance(llm, dict) else None
        # transformers' classes go back to the trained base; InternLM2's own code, Mono-InternVL's too, never does.
        resets = read.layout == "hf" or "InternLM2" not in str(classes or "InternLM2")
        self.history = RotaryState(model.decoder.config, resets=resets)
        named = image_token_of(folder)
        self.context = IMAGE_CONTEXT if named is None else named

    @cached_property
    def pixels(self) -> Tensor:
        """All tiles, ``[N, 3, S, S]``."""
        return self.recording.take("pixel_values")

    @cached_property
    def features(self) -> Tensor:
        """Features of all tiles, ``[N, P, D]``."""
        return self.model.encode(self.pixels)

    @cached_property
    def shown(self) -> Tensor:
        """Features of the tiles whose flag is 1: padding tiles are dropped before anything is placed."""
        return self.features[self._kept]

    @cached_property
    def shown_pixels(self) -> Tensor:
        """The tiles whose flag is 1."""
        return self.pixels[self._kept]

    @cached_property
    def _kept(self) -> Tensor:
        if "image_flags" not in self.recording:
            return torch.ones(len(self.pixels), dtype=torch.bool)
        return self.recording.take("image_flags").flatten() == 1

    @cached_property
    def batch(self) -> PackedRows:
        """The recorded batch."""
        mask = self.recording.take("attention_mask") if "attention_mask" in self.recording else None
        return pack_rows(self.recording.take("input_ids"), mask, self.context)

    @cached_property
    def hidden(self) -> Tensor:
        """Hidden states of the batch, ``[T, D]``."""
        return self.run(self.batch, self.shown)

    def run(self, rows: PackedRows, features: Tensor | None, record: list[Tensor] | None = None) -> Tensor:
        """Hidden states of packed rows with these features in their visual positions."""
        return self.decode(self.model.place(rows.ids, rows.span_types, features), rows, rows.span_types, record)

    def decode(
        self, embeds: Tensor, rows: PackedRows, span_types: Tensor | None, record: list[Tensor] | None = None
    ) -> Tensor:
        """Hidden states as the recorded instance gives them: one rotary base for a batch, by its padded length."""
        lengths = [self.history.grow(rows.length)] * (len(rows.borders) - 1)
        hidden: Tensor = self.model.decoder(
            embeds, rows.positions, rows.borders, span_types, record=record, lengths=lengths
        )
        return hidden

    def features_for(self, ids: Tensor) -> Tensor | None:
        """The first features, as many as ``ids`` have visual positions."""
        places = int((ids == self.context).sum())
        return self.shown.flatten(0, 1)[:places] if places else None

    @cached_property
    def first_row(self) -> tuple[Tensor, list[Tensor]]:
        """Row 0 alone, without padding: hidden states after the norm, and the input of every layer with that result."""
        batch = self.batch
        rows = pack_rows(batch.ids[: batch.borders[1]][None], None, self.context)
        record: list[Tensor] = []
        return self.run(rows, self.features_for(rows.ids), record), record

    def prompt(self) -> tuple[Tensor, Tensor | None]:
        """The recorded prompt ``[T]``, and its tiles: the first ones whose flag is 1."""
        ids = self.recording.take("prompt_ids")[0].long()
        tiles = 0
        if "prompt_num_tiles" in self.recording:
            tiles = int(self.recording.take("prompt_num_tiles").flatten()[0])
        return ids, self.shown_pixels[:tiles] if tiles else None

    def generate(
        self, ids_T: Tensor, positions_T: Tensor, pixels: Tensor | None, new: int, history: RotaryState | None = None
    ) -> Tensor:
        """Greedy ids ``[new]`` from the product's engine, fed in chunks that cut images.

        Args:
            ids_T: Prompt.
            positions_T: Its positions.
            pixels: Its tiles.
            new: How many.
            history: Rotary state of an instance that has run before; None: of one that has not.
        """
        sampling = SamplingParams(max_new_tokens=new)
        request = Request(
            ids=ids_T,
            span_types=visual_types(ids_T, self.context),
            positions=positions_T,
            pixels=pixels,
            sampling=sampling,
        )
        most = max(
            len(ids_T) + new, self.model.decoder.config.context
        )  # the originals go on beyond their trained length
        engine = Engine(self.model, chunk=_CHUNK, max_positions=most, history=history, reference=True)
        return torch.tensor([event.id for event in engine.generate([request]) if isinstance(event, Token)])

    def loss(self) -> Tensor:
        """Mean cross-entropy over all targets of the batch, ``[1]``."""
        labels = self.recording.take("labels")[self.batch.mask].long()
        rows, targets = next_token_targets(labels, self.batch.borders)
        weights = torch.ones(len(rows))
        total = chunked_cross_entropy(self.hidden[rows], self.model.decoder.head_weight, targets, weights)
        return (total / weights.sum())[None]

    def features_check(self, name: str, compute: Callable[[], Tensor]) -> Iterator[Check]:
        """A check of features or logits, if ``name`` is recorded."""
        if name in self.recording:
            yield self.recording.compare(name, compute, "absolute", FEATURES)

    def batch_checks(self) -> Iterator[Check]:
        """Logits of the batch and of its first row, and the loss, in the order in which the original ran."""
        recording, logits = self.recording, self.model.decoder.logits
        if "logits" in recording:
            yield recording.compare(
                "logits", lambda: logits(self.hidden), "absolute", FEATURES, lambda recorded: recorded[self.batch.mask]
            )
        if "loss" in recording:
            yield recording.compare("loss", self.loss, "relative", LOSSES)
        yield from self.features_check("logits_row0_unpadded", lambda: logits(self.first_row[0])[None])

    def generation_check(self) -> Iterator[Check]:
        """Greedy ids, on the instance that ran the batch before."""
        if "generated_ids" in self.recording:
            new = self.recording.tensors["generated_ids"].shape[-1]
            yield self.recording.compare("generated_ids", lambda: self._generated(new), "mismatches")

    def _generated(self, new: int) -> Tensor:
        ids, pixels = self.prompt()
        return self.generate(ids, torch.arange(len(ids)), pixels, new, self.history)[None]
