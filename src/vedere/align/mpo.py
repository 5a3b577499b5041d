"""Mixed preference optimisation: which answer is better, whether an answer is good, and how to write one (arXiv 2411.10442).

InternVL3 (2504.10479, sec. 2.3, eq. 2-6) trains its last stage with three losses at once. With lp the sum of an answer's token
log-probabilities and the reward r = beta (lp_policy - lp_reference):

* preference (DPO): ``-log sigmoid(r_chosen - r_rejected)``,
* quality (BCO): ``-log sigmoid(r_chosen - delta) - log sigmoid(-(r_rejected - delta))``,
* generation (SFT): mean cross-entropy of the chosen answers' tokens, over the micro-batch.

The reward shift delta is the mean over all micro-batches so far of their mean reward, this one included; no gradient goes
through it. lp is summed, not averaged: long answers weigh more, and a pair whose answer is cut has another reward; drop it.

What differs: the shift is a value (`RewardShift`) that the caller keeps, so that it can be saved with a checkpoint; the
original starts it anew at every resume. Its count starts at 0, not 1e-24.

Cost: one forward pass of the reference model without gradients beside the policy's; the losses themselves are nothing.

Axes: B pairs, L tokens, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from vedere.config import check_ranges
from vedere.errors import ConfigError
from vedere.train.losses import IGNORED


@dataclass(frozen=True, kw_only=True)
class MPOConfig:
    """Weights of the losses.

    Attributes:
        beta: Scale of the rewards.
        preference: Weight of the preference loss.
        quality: Weight of the quality loss.
        generation: Weight of the generation loss.
        label_smoothing: Share of pairs whose order is taken to be wrong, in the preference loss.
    """

    beta: float = 0.1
    preference: float = 0.8
    quality: float = 0.2
    generation: float = 1.0
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
            ConfigError: a beta of 0 or less, a negative weight, no loss at all, or a smoothing outside [0, 0.5).
        """
        check_ranges(self, preference=0, quality=0, generation=0)
        if not 0 < self.beta < float("inf") or not 0 <= self.label_smoothing < 0.5:
            raise ConfigError(
                f"beta {self.beta}, label_smoothing {self.label_smoothing}; expected a beta above 0 and a smoothing in [0, 0.5)"
            )
        if self.preference + self.quality + self.generation == 0:
            raise ConfigError("all three losses have weight 0; give at least one of preference, quality, generation")


@dataclass(frozen=True, kw_only=True)
class RewardShift:
    """The running mean that quality is measured from.

    Attributes:
        mean: Delta.
        count: Micro-batches that it is the mean of (of all ranks together).
    """

    mean: float = 0.0
    count: float = 0.0

    def after(self, rewards: Tensor, ranks: int = 1) -> RewardShift:
        """The shift with one more micro-batch.

        Args:
            rewards: Of its chosen and rejected answers, any shape; of several ranks, the mean of each.
            ranks: How many of them there are.

        Raises:
            ConfigError: no rewards, or some that are not finite.
        """
        now = float(rewards.detach().double().mean()) if rewards.numel() else float("nan")
        if now != now or abs(now) == float("inf"):
            raise ConfigError(
                f"the mean of {rewards.numel()} rewards is {now}; a shift would stay that for ever: look at the batch"
            )
        count = self.count + ranks
        return RewardShift(mean=self.mean + (now - self.mean) * ranks / count, count=count)


@dataclass(frozen=True, kw_only=True)
class LogProbs:
    """Sums of log-probabilities of the answers of B pairs, ``[B]`` each."""

    chosen: Tensor
    rejected: Tensor


@dataclass(frozen=True, kw_only=True)
class MPOLoss:
    """The losses of a micro-batch.

    Attributes:
        total: Weighted sum, a scalar; the mean over pairs.
        preference: ``[B]``.
        quality: ``[B]``.
        generation: Scalar.
        chosen_rewards: ``[B]``, without gradient.
        rejected_rewards: ``[B]``, without gradient.
        shift: With this micro-batch; to be handed in with the next one.
    """

    total: Tensor
    preference: Tensor
    quality: Tensor
    generation: Tensor
    chosen_rewards: Tensor
    rejected_rewards: Tensor
    shift: RewardShift


def answer_log_probs(logits_BLV: Tensor, labels_BL: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of the log-probabilities of each answer's tokens, and how many there are.

    Args:
        logits_BLV: Of the whole sequences.
        labels_BL: Unshifted labels, -100 where ignored.

    Returns:
        float32 ``[B]`` and int64 ``[B]``.

    Raises:
        ConfigError: labels of another shape.
    """
    if logits_BLV.shape[:2] != labels_BL.shape:
        raise ConfigError(
            f"labels {list(labels_BL.shape)} for logits {list(logits_BLV.shape)}; pad both answers of a pair to one length"
        )
    targets = labels_BL[:, 1:]
    counted = targets != IGNORED
    log_probs = logits_BLV[:, :-1].float().log_softmax(-1)
    picked = log_probs.gather(2, targets.clamp(min=0)[..., None]).squeeze(2)
    return (picked * counted).sum(1), counted.sum(1)


def preference_loss(chosen_B: Tensor, rejected_B: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """``-log sigmoid`` of the difference of two rewards, ``[B]`` (DPO, arXiv 2305.18290, eq. 7)."""
    margin = chosen_B - rejected_B
    return -F.logsigmoid(margin) * (1 - label_smoothing) - F.logsigmoid(-margin) * label_smoothing


def quality_loss(chosen_B: Tensor, rejected_B: Tensor, shift: float) -> Tensor:
    """Each answer against the shift, ``[B]`` (BCO, arXiv 2404.04656; MPO's eq. 4 and 5)."""
    return -F.logsigmoid(chosen_B - shift) - F.logsigmoid(-(rejected_B - shift))


def mpo_loss(
    policy: LogProbs,
    reference: LogProbs,
    chosen_tokens: Tensor,
    shift: RewardShift,
    config: MPOConfig | None = None,
) -> MPOLoss:
    """The three losses of a micro-batch of B pairs.

    Args:
        policy: Of the model that learns.
        reference: Of the frozen one.
        chosen_tokens: Tokens that ``policy.chosen`` sums over, ``[B]``.
        shift: As the micro-batch before left it; a new `RewardShift` for the first.
        config: Weights; by default those of the paper.

    Raises:
        ConfigError: no pair, sums of different shapes, a chosen answer without a token, or rewards that are not finite.
    """
    config = config or MPOConfig()
    shapes = {
        tuple(t.shape) for t in (policy.chosen, policy.rejected, reference.chosen, reference.rejected, chosen_tokens)
    }
    if len(shapes) > 1 or policy.chosen.ndim != 1 or not len(policy.chosen):
        raise ConfigError(f"sums of shapes {sorted(shapes)}; expected one number for each of at least one pair, [B]")
    if not bool((chosen_tokens > 0).all()):
        raise ConfigError(
            f"chosen answers of {chosen_tokens.tolist()} tokens; every one needs at least one label: drop the pair"
        )
    chosen = config.beta * (policy.chosen - reference.chosen.detach())
    rejected = config.beta * (policy.rejected - reference.rejected.detach())
    shift = shift.after(torch.cat([chosen, rejected]))
    preference = preference_loss(chosen, rejected, config.label_smoothing)
    quality = quality_loss(chosen, rejected, shift.mean)
    generation = -policy.chosen.sum() / chosen_tokens.sum()
    total = (config.preference * preference + config.quality * quality).mean() + config.generation * generation
    return MPOLoss(
        total=total,
        preference=preference,
        quality=quality,
        generation=generation,
        chosen_rewards=chosen.detach(),
        rejected_rewards=rejected.detach(),
        shift=shift,
    )
