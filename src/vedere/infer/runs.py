"""A request on its way through the engine."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from vedere.infer.sampling import Sampler, SamplingParams
from vedere.models.rope_scaling import RotaryState

if TYPE_CHECKING:
    from vedere.infer.engine import Engine, Request

Integers = Sequence[int] | np.ndarray[Any, Any] | Tensor


class Run:
    """A checked prompt, how much of it is cached, what came out."""

    def __init__(self, number: int, request: Request, engine: Engine) -> None:
        self.asked = time.perf_counter()
        self.number, self.request = number, request
        self.ids = integers(request.ids).to(engine.device)
        types = None if request.span_types is None else integers(request.span_types).to(torch.uint8)
        if types is not None and not bool(types.any()):
            types = None
        self.types = None if types is None else types.to(engine.device)
        positions = torch.arange(len(self.ids)) if request.positions is None else request.positions
        self.positions = positions.to(engine.device)
        pixels = request.pixels
        self.pixels = torch.from_numpy(pixels) if isinstance(pixels, np.ndarray) else pixels
        self.sampler = Sampler(request.sampling, self.ids, engine.device)
        self.rotary = engine.history or RotaryState(engine.decoder.config)
        self.fed = 0
        self.embeds: Tensor | None = None
        self.ids_out: list[int] = []
        self.logprobs: list[float] = []
        self.times: list[float] = []  # first chunk's start, prompt's end, then each token

    @property
    def sampling(self) -> SamplingParams:
        """How the answer is drawn."""
        return self.request.sampling

    @property
    def tokens(self) -> int:
        """Tokens in the cache after the next step."""
        return len(self.ids) + len(self.ids_out)

    @property
    def last_position(self) -> float:
        """Of the prompt."""
        return float(self.positions[-1])


def reason_of(run: Run, index: int) -> Literal["stop", "length"] | None:
    """Why an answer ends with its newest token; None: it goes on."""
    if index in run.sampling.stop_ids:
        return "stop"
    return "length" if len(run.ids_out) >= run.sampling.max_new_tokens else None


def integers(values: Integers) -> Tensor:
    """As int64."""
    if isinstance(values, Tensor):
        return values.long()
    return torch.from_numpy(np.array(values, dtype=np.int64))
