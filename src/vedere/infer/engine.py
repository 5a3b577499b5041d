"""Token ids, tiles and span types in; tokens, log-probabilities and timings out. The engine never sees text.

Requests are batched continuously: each owns a slot of the cache (`vedere.infer.cache`); a finished one is replaced by the next
from the iterator. A step first feeds prompts, at most ``chunk`` tokens of them, then decodes one token for every request whose
prompt is complete, so a long prompt delays running answers by one chunk at a time.

Mono-InternVL's original routes visual tokens only while its cache is empty, which is wrong for a prompt fed in parts
(arXiv 2410.08202; spec of its decoder). Here span types and positions travel with the tokens, so a prompt may be cut anywhere,
inside an image too, and decoding, which is all text, touches no visual weight. Positions may be fractional (V2PE, 2504.10479,
sec. 2.1): the n-th new token stands n after the prompt's last position.

Where rotary frequencies depend on the length (dynamic NTK, longrope), a request by default starts from the trained ones,
whatever ran before: its prompt is rotated by the prompt's whole length, each new token by the length it makes, and keys in
the cache stay as they were, as in a fresh instance of the originals. ``history`` shares one state among all requests instead.

A request with beams (`vedere.infer.beams`) is searched by itself, between two steps of the others.

Cost of a decoded token: every text weight is read once for the whole batch. Tiles stay 8-bit until a prompt's turn comes.

Axes: T tokens, D width, V vocabulary, N tiles.
"""

from __future__ import annotations

import itertools
import math
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vedere.errors import ConfigError, ContextError, PromptError, VedereError
from vedere.infer.beams import search
from vedere.infer.cache import Cache
from vedere.infer.fused_step import Step, token_step
from vedere.infer.runs import Integers, Run, integers, reason_of
from vedere.infer.sampling import SamplingParams
from vedere.models.decoder import Decoder
from vedere.models.rope_scaling import RotaryState, turning_length
from vedere.models.vision_language import VisionLanguageModel
from vedere.plan import SpanKind
from vedere.vision.hd import tower_inputs
from vedere.vision.pixels import Statistics


@dataclass(frozen=True, kw_only=True, eq=False)
class Request:
    """One prompt.

    Attributes:
        ids: Token ids ``[T]``.
        span_types: `SpanKind` a token ``[T]``; None means text only.
        positions: ``[T]``, integer or fractional (`vedere.models.positions`); None means 0 .. T - 1.
        pixels: Tiles in token order, ``[N, 3, S, S]``: uint8 as `media_tiles` gives them, or floats that are normalised
            already; None without pictures.
        statistics: How uint8 tiles are normalised.
        sampling: How the answer is drawn.
    """

    ids: Integers
    span_types: Integers | None = None
    positions: Tensor | None = None
    pixels: Tensor | np.ndarray[Any, Any] | None = None
    statistics: Statistics = "imagenet"
    sampling: SamplingParams = field(default_factory=SamplingParams)


class Token(NamedTuple):
    """A token has been decoded (the stop token too).

    Attributes:
        request: Number of the request, counting from 0 in the order given.
        id: Token id.
        logprob: Its log-probability under the model, before temperature and filters.
    """

    request: int
    id: int
    logprob: float


@dataclass(frozen=True, kw_only=True)
class Timings:
    """Seconds on the wall clock.

    Attributes:
        waited: From the call (or from being asked for, in a lazy stream of requests) until the prompt's first chunk.
        prefill: From then until the prompt's last chunk was through the model, picture encoding included.
        first_token: From the call until the first token; ``waited + prefill`` and its drawing.
        tokens: Each further token's distance to the one before.
    """

    waited: float
    prefill: float
    first_token: float
    tokens: tuple[float, ...]

    @property
    def total(self) -> float:
        """From the call until the last token."""
        return self.first_token + sum(self.tokens)

    @property
    def tokens_per_second(self) -> float:
        """Decoding speed after the first token; 0 for answers of one token."""
        spent = sum(self.tokens)
        return len(self.tokens) / spent if spent > 0 else 0.0


@dataclass(frozen=True, kw_only=True)
class Finished:
    """An answer is complete.

    Attributes:
        request: Number of the request.
        ids: All new tokens; the last one is the stop token where ``reason`` is ``stop``.
        logprobs: One a token, as in `Token`.
        reason: ``stop``, or ``length`` after ``max_new_tokens``.
        prompt_tokens: Length of the prompt.
        seed: Seed that the answer was drawn with, given or not.
        timings: Seconds.
    """

    request: int
    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    reason: Literal["stop", "length"]
    prompt_tokens: int
    seed: int
    timings: Timings


Event = Token | Finished


class Engine:
    """Runs a model for many requests at once.

    Args:
        model: An assembly, or a bare `Decoder` for text.
        max_batch: Most requests in progress; each holds its keys and values (see `vedere.infer.cache`).
        chunk: Most prompt tokens of a step.
        max_positions: Positions that prompt and answer may use; None takes the model's. Dynamic NTK can go beyond these.
        history: Rotary state that all requests share and leave behind, as one instance of the originals does: answers then
            depend on what was asked before. None: a new one for each request.
        reference: Let ``max_positions`` be more than the model was trained for, as the originals do; for verification only.

    Raises:
        ConfigError: limits below 1, or more positions than the model has.
    """

    def __init__(
        self,
        model: VisionLanguageModel | Decoder,
        *,
        max_batch: int = 8,
        chunk: int = 512,
        max_positions: int | None = None,
        history: RotaryState | None = None,
        reference: bool = False,
    ) -> None:
        self.model = model
        self.history = history
        self.decoder = model if isinstance(model, Decoder) else model.decoder
        most = self.decoder.config.context
        self.max_positions = most if max_positions is None else max_positions
        config = self.decoder.config
        self._turns = turning_length(config) is not None and not config.v2pe
        endless = reference or (config.rope_scaling == "dynamic" and self._turns)
        if max_batch < 1 or chunk < 1 or self.max_positions < 1 or (self.max_positions > most and not endless):
            raise ConfigError(
                f"max_batch {max_batch}, chunk {chunk}, max_positions {self.max_positions}: expected at least 1 each, and at "
                f"most the model's {most} positions"
            )
        self.max_batch, self.chunk = max_batch, chunk
        self._cache: Cache | None = None  # kept between calls; taken by the one that runs

    @property
    def device(self) -> torch.device:
        """Where the model lives."""
        return self.decoder.embed.weight.device

    def generate(self, requests: Iterable[Request]) -> Iterator[Event]:
        """Answers requests.

        A sequence is checked whole before anything is computed; of any other iterable, a request is taken and checked when
        there is room for it. Closing the iterator stops the work.

        Args:
            requests: Prompts; numbered from 0.

        Yields:
            `Token` for each token as it comes, and `Finished` after the last one of a request.

        Raises:
            ContextError: prompt and answer need more positions than there are.
            PromptError: ids, span types, positions and pixels do not fit together.
            VedereError: the model's logits are not finite.
        """
        if isinstance(requests, Sequence):
            for number, request in enumerate(requests):
                self.check(request, number)
        return self._generate(enumerate(requests), isinstance(requests, Sequence), time.perf_counter())

    def _generate(self, requests: Iterator[tuple[int, Request]], checked: bool, called: float) -> Iterator[Event]:
        cache, self._cache = self._cache, None
        if cache is None:
            cache = Cache(self.decoder.config, dtype=self.decoder.embed.weight.dtype, device=self.device)
        decoding: list[Run] = []  # slots 0 .. len - 1
        feeding: deque[Run] = deque()  # the slots after them; only the first may be fed in part
        more = True
        step = token_step(self.decoder)
        try:
            while True:
                while more and len(decoding) + len(feeding) < self.max_batch:
                    number, request = next(requests, (-1, None))
                    if request is None:
                        more = False
                        break
                    if not checked:
                        self.check(request, number)
                    run = Run(number, request, self)
                    if checked:
                        run.asked = called
                    if request.sampling.num_beams > 1:
                        yield from search(self, run)
                    else:
                        feeding.append(run)
                if not decoding and not feeding:
                    return
                everyone = [*decoding, *feeding]
                cache.reserve(len(everyone), max(run.tokens for run in everyone) + 1)
                if feeding:
                    fed = self._feed(cache, len(decoding), feeding)
                    yield from self._settle(cache, decoding, feeding, fed)
                if decoding:
                    yield from self._settle(cache, decoding, feeding, self._decode(step, cache, decoding))
        finally:
            for slot in range(cache.slots):
                cache.release(slot)
            self._cache = cache

    def check(self, request: Request, number: int | None = None) -> None:
        """Refuses a request that cannot be run, before anything is computed; raises as `generate`."""
        where = "the request" if number is None else f"request {number}"
        ids, vocabulary = integers(request.ids), self.decoder.config.vocab_size
        if len(ids) < 1:
            raise PromptError(f"{where} has an empty prompt; expected at least one token")
        if int(ids.min()) < 0 or int(ids.max()) >= vocabulary:
            raise PromptError(
                f"{where} has token ids from {int(ids.min())} to {int(ids.max())}, but the model's vocabulary has {vocabulary} "
                "rows; tokenizer and model do not belong together"
            )
        types, positions, pixels = request.span_types, request.positions, request.pixels
        for name, value in (("span types", types), ("positions", positions)):
            if value is not None and len(value) != len(ids):
                raise PromptError(f"{where} has {len(value)} {name} for {len(ids)} tokens; expected one a token")
        places = 0 if types is None else int((integers(types) == int(SpanKind.VISUAL)).sum())
        self._check_pixels(where, places, pixels, None if types is None else integers(types))
        last = len(ids) - 1 if positions is None else float(positions[-1])
        asked = request.sampling.max_new_tokens
        needed = math.ceil(last) + 1 + asked
        if needed > self.max_positions:
            room = self.max_positions - math.ceil(last) - 1
            advice = f"lower max_new_tokens to {room} or shorten the prompt" if room > 0 else "shorten the prompt"
            raise ContextError(
                f"{where}: the prompt takes {len(ids)} tokens up to position {last:g} and {asked} new tokens were asked for: "
                f"{needed} positions, but the model has {self.max_positions}; {advice} (fewer tiles or frames, less history)"
            )

    def _check_pixels(
        self, where: str, places: int, pixels: Tensor | np.ndarray[Any, Any] | None, types: Tensor | None
    ) -> None:
        if isinstance(self.model, Decoder):
            if pixels is not None or places:
                raise PromptError(f"{where} has pictures, but the model is a bare language model; load one that sees")
            return
        patches = self.model.patches
        tiles, per_tile = 0, self.model.tokens_per_tile
        if pixels is not None:
            tiles = len(pixels)
            if tuple(pixels.shape[-2:]) != (patches.tile, patches.tile):
                per_tile = patches.tokens_of(*pixels.shape[-2:])
            if not torch.as_tensor(pixels).is_floating_point():
                tiles += len(self.model.grids(types))  # global views are made of the tiles (`_embed`)
        if tiles * per_tile != places:
            raise PromptError(
                f"{where} has {places} visual positions for {tiles} tiles of {per_tile} tokens; give the tiles of exactly the "
                "pictures that the prompt was rendered with"
            )

    @torch.inference_mode()
    def _feed(self, cache: Cache, first: int, feeding: deque[Run]) -> list[tuple[Run, int, float]]:
        """One chunk of prompts; returns the first tokens of prompts that are now complete, in slot order."""
        complete, logits = self.prefill(cache, first, feeding)
        return [] if logits is None else self._choose(complete, logits)

    @torch.inference_mode()
    def prefill(self, cache: Cache, first: int, feeding: deque[Run]) -> tuple[list[Run], Tensor | None]:
        """One chunk of prompts, from slot ``first`` on; those that are now complete, and their logits ``[S, V]``."""
        room = self.chunk
        counts: list[int] = []
        embeds, positions, types = [], [], []
        visual = False
        for run in feeding:
            if room == 0:
                break
            if not run.times:
                run.times.append(time.perf_counter())
                run.embeds = self._embed(run)
            assert run.embeds is not None
            count = min(room, len(run.ids) - run.fed)
            part = slice(run.fed, run.fed + count)
            embeds.append(run.embeds[part])
            positions.append(run.positions[part])
            visual |= run.types is not None
            types.append(run.ids.new_zeros(count, dtype=torch.uint8) if run.types is None else run.types[part])
            counts.append(count)
            run.fed += count
            room -= count
        borders = np.cumsum([0, *counts]).tolist()
        complete = [run for run, _ in zip(feeding, counts, strict=False) if run.fed == len(run.ids)]
        last = torch.tensor([border - 1 for border in borders[1 : len(complete) + 1]], dtype=torch.long)
        window = cache.window(first, counts)
        hidden = self.decoder(
            torch.cat(embeds),
            torch.cat(positions),
            borders,
            torch.cat(types) if visual else None,
            cache=window,
            rows_M=last.to(self.device),
            lengths=self._lengths([(run, run.last_position + 1) for run, _ in zip(feeding, counts, strict=False)]),
        )
        cache.commit(window)
        if not complete:
            return [], None
        logits = self.decoder.logits(hidden)
        ended = time.perf_counter()
        for run in complete:
            run.embeds = run.pixels = None
            run.times.append(ended)
        return complete, logits

    @torch.inference_mode()
    def _decode(self, step: Step, cache: Cache, decoding: list[Run]) -> list[tuple[Run, int, float]]:
        """One more token for every complete prompt."""
        ids = torch.tensor([run.ids_out[-1] for run in decoding], device=self.device)
        # The n-th new token stands n after the prompt's last position; whole numbers unless some prompt ends in between.
        placed = [(run, run.last_position + len(run.ids_out)) for run in decoding]
        return self._choose(decoding, self.next_logits(step, cache, ids, placed))

    @torch.inference_mode()
    def next_logits(self, step: Step, cache: Cache, ids: Tensor, placed: list[tuple[Run, float]]) -> Tensor:
        """Logits ``[S, V]`` after one more token in each of the first slots, whose runs and positions are ``placed``."""
        places = [place for _, place in placed]
        whole = all(place.is_integer() for place in places)
        positions = torch.tensor([int(place) for place in places] if whole else places, device=self.device)
        window = cache.window(0, [1] * len(placed))
        hidden = step(ids, positions, window, self._lengths([(run, place + 1) for run, place in placed]))
        cache.commit(window)
        return self.decoder.logits(hidden)

    def _lengths(self, runs: list[tuple[Run, float]]) -> list[float] | None:
        """Rotary lengths in force for these runs of a pass, given how long each will be; a shared state takes the longest."""
        if not self._turns:
            return None
        if self.history is not None:
            return [self.history.grow(max(length for _, length in runs))] * len(runs)
        return [run.rotary.grow(length) for run, length in runs]

    def _embed(self, run: Run) -> Tensor:
        if isinstance(self.model, Decoder):
            embedded: Tensor = self.decoder.embed(run.ids)
            return embedded
        pixels = run.pixels
        if pixels is not None and pixels.dtype == torch.uint8:
            pixels = tower_inputs(pixels.to(self.device), self.model.grids(run.types), run.request.statistics)
        return self.model.embed(run.ids, run.types, pixels)

    def _choose(self, runs: Sequence[Run], logits_SV: Tensor) -> list[tuple[Run, int, float]]:
        """Draws one token a run, checks that the logits mean something."""
        totals = logits_SV.logsumexp(-1)
        best = _largest(logits_SV) if any(run.sampling.plain_greedy for run in runs) else []
        chosen = []
        for row, run in enumerate(runs):
            if run.sampling.plain_greedy:
                chosen.append(best[row])
            elif bool(totals[row].isfinite()):
                chosen.append(run.sampler.choose(logits_SV[row]))
            else:
                chosen.append(0)
        picked = logits_SV.gather(1, torch.tensor(chosen, device=self.device)[:, None])[:, 0]
        logprobs = (picked - totals).tolist()
        for run, total in zip(runs, totals.tolist(), strict=True):
            self.check_finite(run, total, len(run.ids_out))
        return list(zip(runs, chosen, logprobs, strict=True))

    def check_finite(self, run: Run, total: float, new: int) -> None:
        """Refuses logits whose sum says that some are not finite, after ``new`` new tokens."""
        if not math.isfinite(total):
            raise VedereError(
                f"request {run.number}: the logits are not finite at new token {new + 1}; the weights are damaged, or "
                f"{self.decoder.embed.weight.dtype} is too narrow for them: use bfloat16 or float32"
            )

    def _settle(
        self, cache: Cache, decoding: list[Run], feeding: deque[Run], chosen: list[tuple[Run, int, float]]
    ) -> Iterator[Event]:
        """Books new tokens, yields events, and closes the gaps that finished requests leave in the slots."""
        now = time.perf_counter()
        while feeding and feeding[0].fed == len(feeding[0].ids):  # its slot is the next one already
            decoding.append(feeding.popleft())
        for run, index, logprob in chosen:
            run.ids_out.append(index)
            run.logprobs.append(logprob)
            run.times.append(now)
        done = [run for run, index, _ in chosen if reason_of(run, index) is not None]
        for run in done:
            slot, last = decoding.index(run), len(decoding) - 1
            cache.move(last, slot)
            decoding[slot] = decoding[last]
            decoding.pop()
            cache.release(last)
            if feeding and feeding[0].fed:  # a prompt fed in part follows; those after it hold nothing yet
                cache.move(last + 1, last)
        for run, index, logprob in chosen:
            yield Token(run.number, index, logprob)
            reason = reason_of(run, index)
            if reason is not None:
                yield self._finished(run, reason)

    def told(self, run: Run) -> Iterator[Event]:
        """Events of a run whose answer is complete."""
        yield from (Token(run.number, *pair) for pair in zip(run.ids_out, run.logprobs, strict=True))
        yield self._finished(run, reason_of(run, run.ids_out[-1]) or "length")

    def _finished(self, run: Run, reason: Literal["stop", "length"]) -> Finished:
        begun, fed, *tokens = run.times
        return Finished(
            request=run.number,
            ids=tuple(run.ids_out),
            logprobs=tuple(run.logprobs),
            reason=reason,
            prompt_tokens=len(run.ids),
            seed=run.sampler.seed,
            timings=Timings(
                waited=begun - run.asked,
                prefill=fed - begun,
                first_token=tokens[0] - run.asked,
                tokens=tuple(after - before for before, after in itertools.pairwise(tokens)),
            ),
        )


def _largest(logits_SV: Tensor) -> list[int]:
    """Place of the largest logit of each row; the first that is not a number, if there is one."""
    if logits_SV.device.type == "cpu":  # numpy's is vectorised: an eighth of the time for a large vocabulary
        places: list[int] = logits_SV.numpy().argmax(-1).tolist()
        return places
    return logits_SV.argmax(-1).tolist()
