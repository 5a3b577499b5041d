"""What a model computes from the inputs of a recording of vedere's own: one code to record and to verify.

Long runs of visual tokens would make files of gigabytes, so of the decoder only the rows of text are kept, which see all
visual ones. Models with V2PE have every decoder tensor once a delta, with ``.d16`` for 1/16 in its name. What a visual
position is follows from its id, but not under 4KHD, whose row ends and separators are visual positions too: there the span
types are inputs of their own.

Axes: B rows, L padded length, T packed tokens, M text tokens, N tiles, P tokens a tile, C tower width, D width, V vocabulary.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, cached_property, partial

import torch
from torch import Tensor

from vedere.infer.engine import Engine, Request, Token
from vedere.infer.sampling import SamplingParams
from vedere.models.decoder import Decoder
from vedere.models.internvl import InternVL
from vedere.models.mono_internvl import MonoInternVL
from vedere.models.positions import document_positions
from vedere.models.vision_language import VisionLanguageModel
from vedere.models.xcomposer import XComposer
from vedere.models.xcomposer2 import XComposer2
from vedere.train.losses import chunked_cross_entropy, next_token_targets
from vedere.verify.assembly import image_blocks, pack_rows
from vedere.verify.check import Measure

NEW_TOKENS = 8
_CHUNK = 96  # prompt tokens that the engine is fed at once: pictures do not end where chunks end


class Outputs:
    """The outputs of one model for one set of inputs.

    Args:
        model: An assembly, or a bare `Decoder`.
        inputs: ``input_ids`` and ``attention_mask`` ``[B, L]``, ``labels`` ``[B, L]``, and ``pixel_values`` ``[N, 3, S, S]``
            unless the model sees nothing; ``span_types`` ``[B, L]`` where ids do not tell them.
        image_context: Id at visual positions; -1 without pictures.
        deltas: Denominators of the V2PE steps; empty for plain positions.
    """

    def __init__(
        self,
        model: VisionLanguageModel | Decoder,
        inputs: Mapping[str, Tensor],
        image_context: int,
        deltas: Sequence[int] = (),
    ) -> None:
        self.model = model
        self.decoder = model if isinstance(model, Decoder) else model.decoder
        self.device = self.decoder.embed.weight.device
        self.inputs, self.context = inputs, image_context
        self.deltas: Sequence[int | None] = deltas or (None,)
        rows = pack_rows(inputs["input_ids"], inputs["attention_mask"], image_context)
        if "span_types" in inputs:
            rows = dataclasses.replace(rows, span_types=inputs["span_types"][rows.mask].long())
        self.rows = rows
        self.text = (self.rows.span_types == 0).nonzero().squeeze(1)
        self.decoded = cache(self._decoded)

    def tensors(self) -> Iterator[tuple[str, Measure, Callable[[], Tensor]]]:
        """(name, how it is compared, how it is computed), in the order of the forward pass."""
        if isinstance(self.model, InternVL):
            for number in (0, 1, self.model.config.vision.layers):
                yield f"vision_hidden_state_{number}", "norm", lambda number=number: self.vision_states[number]  # type: ignore[misc]
        if isinstance(self.model, (MonoInternVL, XComposer, XComposer2)):
            yield "vision_last_hidden_state", "norm", lambda: self.vision_states[-1]
        if isinstance(self.model, VisionLanguageModel):
            yield "projected_features", "norm", lambda: self.features
        for delta in self.deltas:
            end = "" if delta is None else f".d{delta}"
            if delta is not None:
                yield f"position_ids{end}", "mismatches", partial(self.positions, delta)
            for layer in range(self.decoder.config.layers + 1):
                yield f"hidden_state_{layer}{end}", "norm", partial(self._state, delta, layer)
            yield f"logits{end}", "norm", partial(self._logits, delta)
            yield f"loss{end}", "norm", partial(self._loss, delta)
            yield f"generated_ids{end}", "mismatches", partial(self.generated, delta)

    @cached_property
    def vision_states(self) -> list[Tensor]:
        """Embedding and every block's output ``[N, 1 + P, C]``; the last alone of XComposer's towers.

        Mono-InternVL has its patches only, ``[N, P, C]``.
        """
        pixels = self._pixels()
        if isinstance(self.model, InternVL):
            record: list[Tensor] = []
            self.model.vision.encode(pixels, record)
            return record
        if isinstance(self.model, (XComposer, XComposer2)):
            return [self.model.vision.encode(pixels)]
        assert isinstance(self.model, MonoInternVL)
        seen = self.model.stem(pixels) if self.model.config.vision.stem else None
        return [self.model.patch_states(pixels, seen).flatten(1, 2)]

    @cached_property
    def features(self) -> Tensor:
        """Features ``[N, P, D]``; ``[M, D]`` of all visual positions under 4KHD."""
        assert isinstance(self.model, VisionLanguageModel)
        return self.model.features(self.rows.span_types, self._pixels())

    def positions(self, delta: int | None) -> Tensor:
        """Positions of the packed rows, each counted from 0, ``[T]``."""
        found = []
        for start, end in itertools.pairwise(self.rows.borders):
            blocks = image_blocks(self.rows.ids[start:end], self.context)
            found.append(document_positions(end - start, blocks, [1 / (delta or 1)] * len(blocks)))
        return torch.cat(found)

    def generated(self, delta: int | None) -> Tensor:
        """Greedy ids ``[n]`` after the first row, from the engine."""
        end = self.rows.borders[1]
        request = Request(
            ids=self.rows.ids[:end],
            span_types=self.rows.span_types[:end],
            positions=self.positions(delta)[:end],
            pixels=self._first_tiles(end),
            sampling=SamplingParams(max_new_tokens=NEW_TOKENS),
        )
        events = Engine(self.model, chunk=_CHUNK).generate([request])
        return torch.tensor([event.id for event in events if isinstance(event, Token)])

    def margins(self, delta: int | None, generated: Tensor) -> Tensor:
        """How clearly each generated id won, ``[n]``: distance to the second, by the root mean square of the logits."""
        end = self.rows.borders[1]
        ids = torch.cat([self.rows.ids[:end], generated[:-1]])
        types = torch.cat(
            [self.rows.span_types[:end], torch.zeros(len(generated) - 1, dtype=self.rows.span_types.dtype)]
        )
        positions = self.positions(delta)[:end]
        positions = torch.cat([positions, positions[-1] + torch.arange(1, len(generated))])
        features = None
        if isinstance(self.model, VisionLanguageModel):
            features = self.features.flatten(0, -2)[: int((self.rows.span_types[:end] != 0).sum())]
        embeds = self._embed(ids, types, features)
        hidden = self.decoder(embeds, positions.to(self.device), [0, len(ids)], types.to(self.device))
        logits = self.decoder.logits(hidden[-len(generated) :])
        best = logits.topk(2).values
        return ((best[:, 0] - best[:, 1]) / logits.square().mean(-1).sqrt()).cpu()

    def _decoded(self, delta: int | None) -> tuple[list[Tensor], Tensor]:
        """States of the text rows before every layer and after the norm, and the last for all rows."""
        rows = self.rows
        states: list[Tensor] = []
        features = self.features if isinstance(self.model, VisionLanguageModel) else None
        hidden: Tensor = self.decoder(
            self._embed(rows.ids, rows.span_types, features),
            self.positions(delta).to(self.device),
            rows.borders,
            rows.span_types.to(self.device),
            record=states,
        )
        text = self.text.to(self.device)
        return [state[text] for state in states], hidden

    def _state(self, delta: int | None, layer: int) -> Tensor:
        return self.decoded(delta)[0][layer]

    def _logits(self, delta: int | None) -> Tensor:
        return self.decoder.logits(self.decoded(delta)[0][-1])

    def _loss(self, delta: int | None) -> Tensor:
        """Mean cross-entropy over all targets, ``[1]``."""
        labels = self.inputs["labels"][self.rows.mask].long()
        rows, targets = next_token_targets(labels, self.rows.borders)
        weights = torch.ones(len(rows), device=self.device)
        hidden = self.decoded(delta)[1][rows.to(self.device)]
        total = chunked_cross_entropy(hidden, self.decoder.head_weight, targets.to(self.device), weights)
        return (total / weights.sum())[None]

    def _embed(self, ids: Tensor, types: Tensor, features: Tensor | None) -> Tensor:
        ids, types = ids.to(self.device), types.to(self.device)
        if isinstance(self.model, VisionLanguageModel):
            return self.model.place(ids, types, features)
        embedded: Tensor = self.decoder.embed(ids)
        return embedded

    def _pixels(self) -> Tensor:
        return self.inputs["pixel_values"].to(self.device, self.decoder.embed.weight.dtype)

    def _first_tiles(self, end: int) -> Tensor | None:
        if isinstance(self.model, Decoder):
            return None
        types = self.rows.span_types[:end]
        grids = self.model.grids(types)
        tiles = sum(1 + columns * rows for columns, rows in grids)
        return self.inputs["pixel_values"][: tiles or int((types != 0).sum()) // self.model.tokens_per_tile]
