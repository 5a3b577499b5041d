"""Folders of MPO's losses over several steps (arXiv 2411.10442; InternVL3, 2504.10479, sec. 2.3).

Stored logits stand for policy and reference; the reward shift goes from step to step as the recorded trainer's did. config.json
names the losses that were on (``loss_type``), their weights, and what the trainer logged; a table holds losses of bare
log-probabilities on an instance that has seen nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from vedere.align.mpo import LogProbs, MPOConfig, MPOLoss, RewardShift, answer_log_probs, mpo_loss
from vedere.errors import CheckpointError
from vedere.models.config_fields import Fields
from vedere.train.losses import IGNORED
from vedere.verify.check import GRADIENTS, LOSSES, Check, Recording, table

_STEP = re.compile(r"step(\d+)\.policy_logits")
_LOSSES = {"sigmoid": "preference", "bco_pair": "quality"}
_SUMS = ("policy_chosen", "policy_rejected", "reference_chosen", "reference_rejected")


def checks(directory: Path) -> Iterator[Check]:
    """Sums, losses, shifts, totals and gradients of every step, the table, and what the trainer logged.

    Raises:
        CheckpointError: the recorded tensors or config.json cannot be read, or losses that are not computed here.
    """
    recording = Recording(directory)
    data = _read(directory / "config.json")
    config = _config(data, directory)
    steps = sorted(int(found[1]) for name in recording.tensors if (found := _STEP.fullmatch(name)))
    shift, computed = RewardShift(), []
    for step in steps:
        run = _Step(recording, f"step{step}.", config, shift)
        yield from run.checks()
        shift = run.loss.shift
        computed.append(run.logged())
    if "table.policy_chosen_logps" in recording:
        yield from _table_checks(recording, config)
    if data.get("steps"):
        yield _logged_check(data["steps"], dict(zip(steps, computed, strict=True)))
    yield from recording.rest()


def _read(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON ({error}); it says which losses were recorded") from None
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} holds a JSON {type(data).__name__}; expected an object")
    return data


def _config(data: dict[str, Any], directory: Path) -> MPOConfig:
    fields = Fields(data, str(directory / "config.json"), "")
    kinds = [kind.strip() for kind in str(data.get("loss_type", "sigmoid,bco_pair")).split(",")]
    if not kinds or set(kinds) - set(_LOSSES):
        raise fields.fail("loss_type", f"one or both of {', '.join(_LOSSES)}")

    def weight(key: str, default: float) -> float:
        return 0.0 if data.get(key, default) in (0, None) else fields.number(key, default)

    return MPOConfig(
        beta=fields.number("beta", 0.1),
        preference=weight("sigmoid_loss_weight", 1.0) if "sigmoid" in kinds else 0.0,
        quality=weight("bco_pair_loss_weight", 1.0) if "bco_pair" in kinds else 0.0,
        generation=weight("rpo_alpha", 0.0),
        label_smoothing=weight("label_smoothing", 0.0),
    )


class _Step:
    """One recorded step."""

    def __init__(self, recording: Recording, prefix: str, config: MPOConfig, shift: RewardShift) -> None:
        self.recording, self.prefix, self.config = recording, prefix, config
        chosen, rejected = (recording.take(f"{prefix}{side}_labels").long() for side in ("chosen", "rejected"))
        length = max(chosen.shape[1], rejected.shape[1])
        labels = torch.cat([F.pad(part, (0, length - part.shape[1]), value=IGNORED) for part in (chosen, rejected)])
        self.pairs = len(chosen)
        with torch.enable_grad():
            self.logits = recording.take(f"{prefix}policy_logits").clone().requires_grad_()
            policy, tokens = answer_log_probs(self.logits, labels)
            reference, _ = answer_log_probs(recording.take(f"{prefix}reference_logits"), labels)
            self.policy, self.reference = self._sides(policy), self._sides(reference)
            self.loss: MPOLoss = mpo_loss(self.policy, self.reference, tokens[: self.pairs], shift, config)
            self.loss.total.backward()

    def _sides(self, sums: Tensor) -> LogProbs:
        return LogProbs(chosen=sums[: self.pairs], rejected=sums[self.pairs :])

    def checks(self) -> Iterator[Check]:
        loss = self.loss
        outputs = {
            "policy_chosen_logps": self.policy.chosen,
            "policy_rejected_logps": self.policy.rejected,
            "reference_chosen_logps": self.reference.chosen,
            "reference_rejected_logps": self.reference.rejected,
            "chosen_rewards": loss.chosen_rewards,
            "rejected_rewards": loss.rejected_rewards,
            "sigmoid_losses": loss.preference,
            "bco_pair_losses": loss.quality,
            "bco_reward_shift": torch.tensor([loss.shift.mean]),
            "sft_nll": loss.generation[None],
            "total_loss": loss.total[None],
        }
        for name, value in outputs.items():
            if self.prefix + name in self.recording:
                yield self.recording.compare(self.prefix + name, partial(Tensor.detach, value), "relative", LOSSES)
        name = f"{self.prefix}policy_logits_grad"
        if name in self.recording:
            yield self.recording.compare(name, self._gradient, "absolute", GRADIENTS)

    def _gradient(self) -> Tensor:
        assert self.logits.grad is not None
        return self.logits.grad

    def logged(self) -> dict[str, float]:
        """What the trainer logs, by its names, as far as it depends on the losses."""
        loss, weight = self.loss, self.config.preference + self.config.quality  # it logs the sum of both terms' rewards
        chosen, rejected = (weight * float(part.mean()) for part in (loss.chosen_rewards, loss.rejected_rewards))
        return {
            "metrics.rewards/chosen": chosen,
            "metrics.rewards/rejected": rejected,
            "metrics.rewards/margins": chosen - rejected,
            "running_mean": loss.shift.mean,
            "running_count": loss.shift.count,
            "total_loss": float(loss.total.detach()),
            "metrics.rewards/accuracies": float((loss.chosen_rewards > loss.rejected_rewards).float().mean()),
            "metrics.logps/chosen": float(self.policy.chosen.detach().mean()),
            "metrics.logps/rejected": float(self.policy.rejected.detach().mean()),
            "metrics.nll_loss": float(loss.generation.detach()),
        }


def _table_checks(recording: Recording, config: MPOConfig) -> Iterator[Check]:
    """Losses of bare sums on a new instance; the table's generation loss is nobody's."""
    sums = [recording.take(f"table.{name}_logps") for name in _SUMS]
    policy, reference = LogProbs(chosen=sums[0], rejected=sums[1]), LogProbs(chosen=sums[2], rejected=sums[3])
    loss = mpo_loss(policy, reference, torch.ones(len(sums[0])), RewardShift(), config)
    outputs = {
        "sigmoid.losses": loss.preference,
        "bco_pair.losses": loss.quality,
        "bco_reward_shift": torch.tensor([loss.shift.mean]),
        "chosen_rewards": loss.chosen_rewards,
        "rejected_rewards": loss.rejected_rewards,
    }
    for name, value in outputs.items():
        if f"table.{name}" in recording:
            yield recording.compare(f"table.{name}", partial(Tensor.detach, value), "relative", LOSSES)


def _logged_check(steps: list[dict[str, Any]], computed: dict[int, dict[str, float]]) -> Check:
    """The numbers in config.json, each within the tolerance of losses."""
    wrong, entries = [], 0
    for step in steps:
        flat = {key: value for key, value in step.items() if key != "metrics"}
        flat |= {f"metrics.{key}": value for key, value in (step.get("metrics") or {}).items()}
        own = computed.get(int(step.get("step", -1)), {})
        for key, value in own.items():
            if key in flat:
                entries += 1
                if not abs(value - flat[key]) <= LOSSES * max(abs(flat[key]), 1e-30):
                    wrong.append(f"step {step['step']}: {key} is {value}, recorded {flat[key]}")
    return table("config.json", wrong, entries)
