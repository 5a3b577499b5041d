"""AdamW with float32 masters, declared groups, warm-up and cosine or constant schedule.

Weights may live in bfloat16; the optimiser then keeps a float32 master of each learning parameter, gradients are summed
into float32 over the packs of a step, and the rounded master is copied back. With float32 weights the master is the weight
itself and costs nothing.

Cost: 12 bytes a learning parameter beside the weights (16 with masters); nothing for frozen ones.
"""

from __future__ import annotations

import fnmatch
import math

import torch
from torch import Tensor, nn

from vedere.errors import TrainingError
from vedere.train.stages import OptimConfig


def learning_rate(step: int, steps: int, config: OptimConfig) -> float:
    """Rate of step ``step`` (0-based) out of ``steps``: linear warm-up, then constant or cosine.

    The first step has a rate above 0 and the last one of ``cosine`` stands just above ``final``.
    """
    warmup = config.warmup if config.warmup >= 1 else config.warmup * steps
    if step < warmup:
        return config.lr * (step + 1) / (math.ceil(warmup) + 1)
    if config.schedule == "constant":
        return config.lr
    progress = (step - warmup) / max(1.0, steps - warmup)
    return config.lr * (config.final + (1 - config.final) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


def decays(name: str, parameter: Tensor) -> bool:
    """Whether weight decay applies: matrices and kernels, but no embedding tables of positions or classes."""
    return parameter.dim() >= 2 and not name.endswith(("positions", "cls"))


class Optimizer:
    """AdamW over the learning parameters of a model.

    Args:
        model: Its ``requires_grad`` flags say what learns.
        config: Rates and decay.
        steps: Steps of the stage, which the schedule needs.
    """

    def __init__(self, model: nn.Module, config: OptimConfig, steps: int) -> None:
        self.config, self.steps, self.step_count = config, steps, 0
        self.parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.masters: dict[str, Tensor] = {
            name: p if p.dtype == torch.float32 else nn.Parameter(p.detach().float())
            for name, p in self.parameters.items()
        }
        groups: dict[tuple[float, float], list[Tensor]] = {}
        for name, master in self.masters.items():
            scale = next((f for pattern, f in config.lr_scale if fnmatch.fnmatchcase(name, pattern)), 1.0)
            decay = config.weight_decay if decays(name, master) else 0.0
            groups.setdefault((scale, decay), []).append(master)
        self.adamw = torch.optim.AdamW(
            [{"params": members, "weight_decay": decay, "scale": scale} for (scale, decay), members in groups.items()],
            lr=config.lr,
            betas=(config.beta1, config.beta2),
            eps=config.eps,
            fused=True,
        )

    def collect(self) -> None:
        """Moves bf16 gradients of one backward pass into the float32 masters' gradients (a no-op for float32)."""
        for name, parameter in self.parameters.items():
            master = self.masters[name]
            if master is parameter or parameter.grad is None:
                continue
            if master.grad is None:
                master.grad = parameter.grad.float()
            else:
                master.grad += parameter.grad
            parameter.grad = None

    def step(self, denominator: float) -> tuple[float, float]:
        """One update from gradients of a weighted sum of losses.

        Args:
            denominator: Sum of the loss weights behind the accumulated gradients.

        Returns:
            (gradient norm before clipping, learning rate).

        Raises:
            TrainingError: the gradient norm is not finite; nothing was changed.
        """
        gradients = [master.grad for master in self.masters.values() if master.grad is not None]
        norm = float(nn.utils.get_total_norm(gradients)) / denominator
        if not math.isfinite(norm):
            raise TrainingError(f"gradient norm {norm}; the weights were not changed")
        clip = self.config.clip
        factor = 1.0 / denominator * (min(1.0, clip / (norm + 1e-6)) if clip else 1.0)
        if gradients:
            torch._foreach_mul_(gradients, factor)
        rate = learning_rate(self.step_count, self.steps, self.config)
        for group in self.adamw.param_groups:
            group["lr"] = rate * group["scale"]
        self.adamw.step()
        self.adamw.zero_grad(set_to_none=True)
        for name, parameter in self.parameters.items():
            if self.masters[name] is not parameter:
                parameter.data.copy_(self.masters[name].data)
        self.step_count += 1
        return norm, rate

    def state(self) -> dict[str, Tensor]:
        """Moments, counters and masters as flat tensors for a safetensors file."""
        tensors: dict[str, Tensor] = {"step_count": torch.tensor(self.step_count)}
        for name, master in self.masters.items():
            if master is not self.parameters[name]:
                tensors[f"master.{name}"] = master.data
            for key, value in self.adamw.state.get(master, {}).items():
                tensors[f"{key}.{name}"] = value
        return tensors

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Restores what `state` gave.

        Raises:
            TrainingError: the state belongs to another set of parameters.
        """
        known = {f"{key}.{name}" for name in self.masters for key in ("master", "step", "exp_avg", "exp_avg_sq")}
        surplus = sorted(set(tensors) - known - {"step_count"})
        if surplus:
            raise TrainingError(
                f"optimiser state of other parameters: {surplus[:3]}; resume with the recipe that wrote it"
            )
        self.step_count = int(tensors["step_count"])
        for name, master in self.masters.items():
            if f"master.{name}" in tensors:
                master.data.copy_(tensors[f"master.{name}"])
            state = {
                key: tensors[f"{key}.{name}"].to(master.device, copy=True)  # read onto the CPU
                for key in ("step", "exp_avg", "exp_avg_sq")
                if f"{key}.{name}" in tensors
            }
            if state:
                self.adamw.state[master] = state
