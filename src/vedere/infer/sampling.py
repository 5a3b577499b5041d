"""From logits to a token: penalty, temperature, filters, one draw.

The order is that of the libraries which the published generation settings were written for: repetition penalty, temperature,
top-k, top-p, min-p. The draw inverts the cumulative distribution with *one* uniform number a token from the request's own
generator, so a seeded answer depends neither on the batch it ran in nor on which filters were on before.

Log-probabilities that are reported are the model's own: of the plain softmax, before penalty, temperature and filters, because
they are compared between answers (preference data, best-of-n).

Cost: a full sort of 49,152 logits takes milliseconds; top-p therefore looks at the largest 64 first, then 8 times as many.
"""

from __future__ import annotations

import math
import secrets
from dataclasses import dataclass
from numbers import Integral, Real

import torch
from torch import Tensor

from vedere.errors import ConfigError

_HEAD = 64  # candidates that top-p looks at first


def check_kind(name: str, value: object, *, whole: bool = False, optional: bool = False) -> None:
    """Refuses an option of another kind, such as a number in quotes.

    Raises:
        ConfigError: it is no number of that kind.
    """
    if (optional and value is None) or (isinstance(value, Integral if whole else Real) and not isinstance(value, bool)):
        return
    expected = "a whole number" if whole else "a number"
    raise ConfigError(f"{name} is {value!r:.40}, of type {type(value).__name__}; expected {expected}")


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """How an answer is drawn.

    Attributes:
        max_new_tokens: Most tokens, the stop token included.
        temperature: Logits are divided by it; 0 takes the most probable token (greedy) and ignores the filters.
        top_k: Keep the k most probable tokens; 0 keeps all.
        top_p: Keep the smallest set of most probable tokens with at least this probability; 1 keeps all.
        min_p: Keep tokens with at least this fraction of the largest probability; 0 keeps all.
        repetition_penalty: Positive logits of tokens in prompt or answer are divided by it, negative ones multiplied; 1 is off.
        penalise_prompt: Whether tokens of the prompt count for it; the published XComposers penalise those of the answer.
        num_beams: Beams of a search (`vedere.infer.beams`), which draws where temperature is above 0; 1: none.
        length_penalty: Of beams: the sum of log-probabilities is divided by the number of tokens to this power.
        stop_ids: Tokens that end the answer.
        seed: Seed of the request's generator; None draws one, which the result names.
    """

    max_new_tokens: int = 256
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    penalise_prompt: bool = True
    num_beams: int = 1
    length_penalty: float = 1.0
    stop_ids: tuple[int, ...] = ()
    seed: int | None = None

    def __post_init__(self) -> None:
        """Checks kinds and ranges.

        Raises:
            ConfigError: a value of another kind, or outside its range, with the range.
        """
        for name in ("max_new_tokens", "top_k", "num_beams", "seed"):
            check_kind(name, getattr(self, name), whole=True, optional=name == "seed")
        for name in ("temperature", "top_p", "min_p", "repetition_penalty", "length_penalty"):
            check_kind(name, getattr(self, name))
        ranges = {
            "max_new_tokens": (self.max_new_tokens >= 1, "at least 1"),
            "temperature": (0 <= self.temperature < math.inf, "0 (greedy) or more"),
            "top_k": (self.top_k >= 0, "0 (off) or more"),
            "top_p": (0 < self.top_p <= 1, "above 0, at most 1 (off)"),
            "min_p": (0 <= self.min_p < 1, "0 (off) or more, below 1"),
            "repetition_penalty": (0 < self.repetition_penalty < math.inf, "above 0; 1 is off"),
            "num_beams": (self.num_beams >= 1, "1 (no search) or more"),
            "length_penalty": (math.isfinite(self.length_penalty), "a finite number; above 0 favours long answers"),
            "seed": (self.seed is None or 0 <= self.seed < 2**63, "from 0 to 2^63 - 1, or None"),
        }
        for name, (fits, expected) in ranges.items():
            if not fits:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected {expected}")

    @property
    def plain_greedy(self) -> bool:
        """Whether the token is the largest logit as it stands."""
        return self.temperature == 0 and self.repetition_penalty == 1


def penalise(logits_V: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Repetition penalty on the tokens of ``seen`` (ids, repetitions allowed); returns new logits."""
    values = logits_V[seen]
    return logits_V.index_put((seen,), torch.where(values > 0, values / penalty, values * penalty))


def candidates(
    logits_V: Tensor,
    *,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    keep: int = 1,
) -> tuple[Tensor, Tensor]:
    """The tokens that may be drawn and their probabilities, which sum to 1.

    Args:
        logits_V: Logits of one token.
        temperature: Above 0.
        top_k: See `SamplingParams`.
        top_p: Works on what top-k left, renormalised.
        min_p: Works relative to the largest probability.
        keep: Tokens that every filter leaves, the most probable ones.

    Returns:
        (ids ``[N]``, probabilities ``[N]`` float64); by falling probability where top-k or top-p is on.
    """
    largest, chosen = logits_V.double(), None
    top_k = max(top_k, keep) if top_k else 0
    if 0 < top_k < len(largest):  # before the difference below rounds small ones to the same number
        largest, chosen = largest.topk(top_k)
    scaled = (largest - largest.max()) / temperature  # so that a tiny temperature cannot overflow
    if chosen is not None:
        probabilities, ids = scaled.softmax(0), chosen
    elif top_p < 1:
        probabilities, ids = _head(scaled, top_p)
    else:
        ids = torch.arange(len(scaled), device=scaled.device)
        probabilities = scaled.softmax(0)
    if top_p < 1:
        before = probabilities.cumsum(0) - probabilities
        kept = max(keep, int((before < top_p).sum()))
        probabilities, ids = probabilities[:kept], ids[:kept]
    if min_p > 0:
        mask = probabilities >= min_p * probabilities.max()
        mask[probabilities.topk(min(keep, len(mask))).indices] = True
        probabilities, ids = probabilities[mask], ids[mask]
    return ids, probabilities / probabilities.sum()


def _head(scaled_V: Tensor, mass: float) -> tuple[Tensor, Tensor]:
    """Probabilities and ids of the most probable tokens, enough of them to hold ``mass``, by falling probability."""
    total = scaled_V.logsumexp(0)
    width = min(_HEAD, len(scaled_V))
    while True:
        values, ids = scaled_V.topk(width)
        probabilities = (values - total).exp()
        if width == len(scaled_V) or float(probabilities.sum()) >= mass:
            return probabilities, ids
        width = min(8 * width, len(scaled_V))


def draw(probabilities: Tensor, uniform: float) -> int:
    """Index of the token at ``uniform`` (in [0, 1)) of the cumulative distribution; never one of probability 0."""
    cumulative = probabilities.cumsum(0)
    place = int(torch.searchsorted(cumulative, uniform * cumulative[-1], right=True))
    if place == len(cumulative):  # rounding reached the end: the last token that adds anything
        place = int(torch.searchsorted(cumulative, cumulative[-1]))
    return place


class Sampler:
    """Draws the tokens of one request.

    Args:
        params: How.
        prompt: Ids of the prompt, for the repetition penalty.
        device: Of the logits.

    Attributes:
        seen: Tokens that the repetition penalty works on; None: there is none.
        generator: Of everything that is drawn for the request.
    """

    def __init__(self, params: SamplingParams, prompt: Tensor, device: torch.device | str = "cpu") -> None:
        self.params = params
        self.seed = secrets.randbits(31) if params.seed is None else params.seed
        self.generator = torch.Generator().manual_seed(self.seed)
        prompt = prompt if params.penalise_prompt else prompt[:0]
        self.seen = prompt.unique().to(device) if params.repetition_penalty != 1 else None

    def choose(self, logits_V: Tensor) -> int:
        """The next token."""
        params = self.params
        if self.seen is not None:
            logits_V = penalise(logits_V, self.seen, params.repetition_penalty)
        if params.temperature == 0:
            chosen = int(logits_V.argmax())
        else:
            ids, probabilities = candidates(
                logits_V, temperature=params.temperature, top_k=params.top_k, top_p=params.top_p, min_p=params.min_p
            )
            uniform = float(torch.rand((), generator=self.generator, dtype=torch.float64))
            chosen = int(ids[draw(probabilities, uniform)])
        if self.seen is not None:
            self.seen = torch.cat([self.seen, self.seen.new_tensor([chosen])])
        return chosen
