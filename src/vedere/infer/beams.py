"""Beam search: several beginnings of an answer are kept, and the best whole answer is taken.

XComposer's published demos search with five beams for articles, places and choices, and so does its chat by default (arXiv
2309.15112). The search is that of Hugging Face's ``generate`` with ``num_beams`` and ``length_penalty`` (``early_stopping``
off), for which those settings were written:

* A beam's score is the sum of its tokens' log-probabilities; a repetition penalty changes these, not the logits.
* Each step ranks all continuations of all beams. Those that end count as answers only among the first ``num_beams``; the best
  ``num_beams`` of the others go on.
* An answer of n tokens, its stop token included, has the score ``sum / n ** length_penalty``; the best ``num_beams`` are kept.
* The search ends when that many answers are there and the best beam, measured at its present length, is no better than the
  worst of them; or at ``max_new_tokens``, where all beams end. With a penalty above 0 longer answers could still have become
  better: the published rule does not look.

With a temperature above 0 the continuations of a step are drawn instead of ranked (``do_sample`` beside ``num_beams``, as
XComposer's web chat has it): as many, without replacement, by the softmax of their sums. Temperature and filters change the
log-probabilities before they are added to a sum, the filters leave one token more than there are stop tokens, and those
that end count as answers among the first ``num_beams`` drawn. It is the race of exponential clocks that ``torch.multinomial``
runs, on logarithms: at a small temperature probabilities would be 0, and so it becomes the search as the temperature falls.
The noise is the request's own, as much of it in every step.

No streaming: which answer it will be is known at its end.

Cost: a step of ``num_beams`` rows a token, which reads the weights as often as a step of one; the keys and values of as many
answers; and their copies whenever beams change places. The prompt is computed once.

Axes: B beams, V vocabulary.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vedere.infer.cache import Cache
from vedere.infer.fused_step import token_step
from vedere.infer.sampling import SamplingParams, candidates, penalise

if TYPE_CHECKING:
    from vedere.infer.engine import Engine, Event
    from vedere.infer.runs import Run


@dataclass(frozen=True)
class Beam:
    """An answer or the beginning of one.

    Attributes:
        score: Of a beginning the sum, of a whole answer the sum over its length to the power of the penalty.
        ids: New tokens.
        logprobs: One a token, under the model itself.
    """

    score: float = 0.0
    ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()


class BeamSearch:
    """What goes on and what has ended, without a model.

    Args:
        params: Beams, penalties, limits and stop tokens.
        seen: Ids of the prompt that the repetition penalty works on; None: there is none.
        generator: What continuations are drawn with at a temperature above 0.

    Attributes:
        beams: Beginnings that go on, best first.
        answers: Whole answers, best first.
        done: Nothing better can come.
    """

    def __init__(self, params: SamplingParams, seen: Tensor | None, generator: torch.Generator | None = None) -> None:
        self.params, self._generator = params, generator
        self.beams = [Beam()]
        self.answers: list[Beam] = []
        self.done = False
        self._seen = seen

    def advance(self, logits_BV: Tensor) -> list[int]:
        """Takes the logits of the next token of every beam; the beams' earlier numbers, in the order of the new ones."""
        own = logits_BV.float().log_softmax(-1)
        changed = own
        if self._seen is not None:
            seen, penalty = self._seen, self.params.repetition_penalty
            rows = zip(own, self.beams, strict=True)
            changed = torch.stack(
                [penalise(row, torch.cat([seen, seen.new_tensor(beam.ids)]), penalty) for row, beam in rows]
            )
        width, stops = self.params.num_beams, set(self.params.stop_ids)
        if self.params.temperature > 0:
            changed = torch.stack([self._filtered(row) for row in changed])
        totals = changed + changed.new_tensor([beam.score for beam in self.beams])[:, None]
        values, places = self._continuations(totals, max(2, 1 + len(stops)) * width)
        length = len(self.beams[0].ids) + 1
        divisor = float(length) ** self.params.length_penalty
        going = list[tuple[Beam, int]]()
        for rank, (value, place) in enumerate(zip(values.tolist(), places.tolist(), strict=True)):
            parent, token = divmod(place, totals.shape[1])
            before, logprob = self.beams[parent], float(own[parent, token])
            ids, logprobs = (*before.ids, token), (*before.logprobs, logprob)
            if token in stops or length >= self.params.max_new_tokens:
                if rank < width:
                    self.answers.append(Beam(value / divisor, ids, logprobs))
            else:
                going.append((Beam(value, ids, logprobs), parent))
        going = sorted(going, key=lambda beam: -beam[0].score)[:width]
        self.answers = sorted(self.answers, key=lambda answer: -answer.score)[:width]
        self.beams = [beam for beam, _ in going]
        hopeless = len(self.answers) == width and going and self.beams[0].score / divisor <= self.answers[-1].score
        self.done = not going or bool(hopeless)
        return [parent for _, parent in going]

    def _filtered(self, logprobs_V: Tensor) -> Tensor:
        """Log-probabilities of the next token of one beam as they are drawn from: -inf where a filter took it."""
        params = self.params
        ids, _ = candidates(
            logprobs_V,
            temperature=params.temperature,
            top_k=params.top_k,
            top_p=params.top_p,
            min_p=params.min_p,
            keep=max(2, 1 + len(params.stop_ids)),
        )
        kept = torch.full_like(logprobs_V, -torch.inf)
        kept[ids] = logprobs_V[ids] / params.temperature
        return kept

    def _continuations(self, totals_BV: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Sums and places of the continuations of a step: the best, best first, or as they were drawn."""
        if self.params.temperature == 0:
            return totals_BV.flatten().topk(min(count, totals_BV.numel()))
        every = totals_BV.new_full((self.params.num_beams, totals_BV.shape[1]), -torch.inf)
        every[: len(totals_BV)] = totals_BV  # of one size in every step, also where one beam is all there is
        every = every.flatten().cpu()
        raced = every - torch.empty_like(every).exponential_(generator=self._generator).log()
        keys, places = raced.topk(min(count, len(raced)))
        places = places[keys > -torch.inf].to(totals_BV.device)  # filters may leave fewer
        return totals_BV.flatten()[places], places


def search(engine: Engine, run: Run) -> Iterator[Event]:
    """The best answer to one request, its tokens all at the end.

    Args:
        engine: Runs the model.
        run: A checked request with beams.

    Raises:
        VedereError: the model's logits are not finite.
    """
    params, decoder = run.sampling, engine.decoder
    beams = BeamSearch(params, run.sampler.seen, run.sampler.generator)
    cache = Cache(decoder.config, dtype=decoder.embed.weight.dtype, device=engine.device)
    cache.reserve(params.num_beams, run.tokens + 1)
    step, feeding = token_step(decoder), deque([run])
    logits = None
    while logits is None:
        _, logits = engine.prefill(cache, 0, feeding)
    while True:
        new = len(beams.beams[0].ids)
        engine.check_finite(run, logits.logsumexp(-1).sum().item(), new)
        order = beams.advance(logits)
        if beams.done:
            break
        new += 1
        cache.reserve(len(order), len(run.ids) + new)
        cache.reorder(order)
        last = torch.tensor([beam.ids[-1] for beam in beams.beams], device=engine.device)
        logits = engine.next_logits(step, cache, last, [(run, run.last_position + new)] * len(order))
    best = beams.answers[0]
    run.ids_out, run.logprobs = list(best.ids), list(best.logprobs)
    run.times += [time.perf_counter()] * len(best.ids)
    yield from engine.told(run)
