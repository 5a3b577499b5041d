"""Linear maps whose weights are kept in the form that a CPU reads fastest: one module, four forms.

Decoding a token reads every weight once, so its time is the bytes of the weights over the speed of memory, if the kernel
keeps up. torch's plain bfloat16 matmul of one row does not (half the speed of memory in `benchmarks/cpu_inference.py`),
because the weight stands in an order that its kernel has to rearrange at every call.

* ``bf16``: the same numbers, rearranged once into oneDNN's blocks. Every shape of InternVL3-1B gave the bits of the plain map;
  faster for any number of rows, so the vision tower takes it too.
* ``bf16-single``: the same numbers, for few answers at a time. With numba (extra ``cpu``) the decoder's weights stay as they
  are stored, and one to five answers come faster than with ``bf16``, one alone nearly twice; prompts take a few percent longer.
  Without it, in columns: a quarter faster than ``bf16`` for one answer, slower for several.
* ``int8``: a scale for each output row (the largest magnitude over 127), rounded to nearest.
* ``int4``: a scale and a minimum for each group of 32 inputs of an output row, 16 steps between the group's extremes.

The quantised forms are weight-only: activations stay bfloat16, sums are float32, and only the decoder and its head are
quantised, without the routers of mixtures (embedding, tower and projector are not read for a decoded token). Passes of many
rows, that is prompts, are bound by arithmetic instead: they expand the weight to bfloat16 and multiply as usual. The forms are
for answering: they have no gradients and are not saved; a checkpoint stays what it is. How each is laid out:
`vedere.models.row_forms` with numba, `vedere.models.weight_forms` without.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from vedere.config import nearest
from vedere.errors import CheckpointError, ConfigError
from vedere.models.decoder import Decoder
from vedere.models.layers import ReadLinear
from vedere.models.low_rank import LoRALinear, LowRank
from vedere.models.mapped_pages import MappedFiles
from vedere.models.moe import MoE
from vedere.models.row_forms import Bits, Rows, has_compiler, suits
from vedere.models.weight_forms import (
    GROUP,
    Blocked,
    ByteColumns,
    ByteRows,
    Columns,
    Form,
    Nibbles,
    Product,
    can_pack,
    has_bags,
)

Weights = Literal["stored", "bf16", "bf16-single", "int8", "int4"]
_LARGE = 10**9  # bytes
_FEW = 4  # answers at once that come faster with bf16-single than with bf16
_BITS: dict[Weights, Bits] = {"bf16-single": 16, "int8": 8, "int4": 4}


class QuantLinear(nn.Module):
    """A linear map whose weight is in one of the forms above; takes the place of an `nn.Linear`.

    Args:
        weight: ``[O, I]`` bfloat16, on a CPU; not kept.
        bias: ``[O]``, or None.
        form: One of `Weights` but ``stored``. Maps whose inputs are no whole number of groups take int8 for int4.
        low: A low-rank addition to the map, which stays as it is.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, form: Weights, low: LowRank | None = None) -> None:
        super().__init__()
        self.low = low
        self.out_features, self.in_features = weight.shape
        self.form: Weights = "int8" if form == "int4" and self.in_features % GROUP else form
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)
        self.kept = _in_form(weight.detach(), self.bias, self.form)

    @property
    def keeps_the_weight(self) -> bool:
        """Whether the given weight itself is what is read, instead of another form of it."""
        return isinstance(self.kept, Rows) and self.kept.bits == 16

    def ready(self) -> Product:
        """The map ``[M, I]`` to ``[M, O]`` as a function of nothing else, for callers that make it once for many calls."""
        kept, few_rows, most = self.kept, self.kept.few_rows(), self.kept.few
        bias, low, outputs = None if isinstance(kept, Blocked) else self.bias, self.low, self.out_features

        def product(x: Tensor) -> Tensor:
            out = few_rows(x) if most is None or len(x) <= most else kept.many_rows(x)
            if out.shape[1] != outputs:
                out = out[:, :outputs]
            if bias is not None:
                out = out.add_(bias)
            return out if low is None else low.add_to(out, x)

        return few_rows if isinstance(kept, Blocked) and low is None else product

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``[..., I]`` to ``[..., O]``."""
        out = self.ready()(x.reshape(-1, self.in_features))
        return out.view(*x.shape[:-1], -1) if x.ndim != 2 else out

    def extra_repr(self) -> str:
        """Sizes and form."""
        return f"in_features={self.in_features}, out_features={self.out_features}, form={self.form}"

    def _save_to_state_dict(self, destination: dict[str, Tensor], prefix: str, keep_vars: bool) -> None:
        raise CheckpointError(
            f"'{prefix.rstrip('.')}' has its weight in the form {self.form}, which is for answering and not saved; load the "
            "checkpoint again with weights='stored'"
        )


def _in_form(weight: Tensor, bias: Tensor | None, form: Weights) -> Form:
    """The weight in a form: as rows where numba can compile their products, else as torch's own kernels read it fastest."""
    if form != "bf16" and suits(weight.shape[1]):
        return Rows(weight, _BITS[form])
    if form == "int4":
        return Nibbles(weight)
    if form == "int8":
        return ByteColumns(weight) if has_bags() else ByteRows(weight)
    return Columns(weight) if form == "bf16-single" else Blocked(weight, bias)


def check_form(weights: Weights | None) -> None:
    """Refuses a form that does not exist, before anything is loaded.

    Raises:
        ConfigError: naming the nearest one.
    """
    if weights is not None and weights not in get_args(Weights):
        raise ConfigError(
            f"unknown form of weights '{weights}'{nearest(str(weights), get_args(Weights))} (expected "
            f"{', '.join(get_args(Weights))})"
        )


def choose_form(model: nn.Module, together: int = 1) -> Weights:
    """The form that nobody chose, of a model of more than 1 GB: ``bf16-single`` or ``bf16``, whichever is faster here.

    Rearranging costs a second for each 2 GB or so, which small models, mapped into memory as they are, should not wait for.

    Args:
        model: An assembly or a decoder.
        together: Answers at once.
    """
    first = next(model.parameters())
    large = sum(p.nbytes for p in model.parameters()) > _LARGE
    if first.dtype != torch.bfloat16 or first.device.type != "cpu" or not large:
        return "stored"
    if has_compiler() and (together <= _FEW or not can_pack()):
        return "bf16-single"
    return "bf16" if can_pack() else "stored"


def pack_weights(model: nn.Module, weights: Weights) -> nn.Module:
    """Brings the linear maps of a model into another form, one after the other, in place.

    Weights that lie in a mapped file leave memory as their new form is there, so that a model is not held twice.

    Args:
        model: An assembly or a `Decoder`, in bfloat16 on a CPU.
        weights: ``stored`` leaves everything as it is; ``bf16`` rearranges every map; the other forms are for the decoder with
            its head, and the rest is rearranged. Where oneDNN has no bfloat16, maps stay as they are instead of rearranged;
            where torch has no fast embedding bags, ``bf16-single`` is ``bf16``.

    Returns:
        The same model.

    Raises:
        ConfigError: an unknown form; another dtype or device.
    """
    check_form(weights)
    if weights == "stored":
        return model
    decoder = model if isinstance(model, Decoder) else model.get_submodule("decoder")
    assert isinstance(decoder, Decoder)
    table = decoder.embed.weight
    if table.dtype != torch.bfloat16 or table.device.type != "cpu":
        raise ConfigError(
            f"weights='{weights}' needs a model in bfloat16 on a CPU, this one is in {str(table.dtype).removeprefix('torch.')} "
            f"on {table.device.type}; add dtype=torch.bfloat16, device='cpu', or leave weights out"
        )
    if weights == "bf16-single" and not has_compiler() and not has_bags():
        weights = "bf16"
    inside = {id(module) for module in decoder.modules()}
    files = MappedFiles()
    for module in list(model.modules()):
        form: Weights = weights if id(module) in inside else "bf16"
        if isinstance(module, MoE):
            if form != "bf16" or can_pack():
                joint = module.gate_up, module.down
                module.pack(lambda weight, form=form: QuantLinear(weight, None, form))  # type: ignore[misc]
                if not any(isinstance(each, QuantLinear) and each.keeps_the_weight for each in module.modules()):
                    for weight in joint:
                        files.let_go(weight)
            continue
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear) and not isinstance(child, ReadLinear) and (form != "bf16" or can_pack()):
                low = child.low if isinstance(child, LoRALinear) else None
                packed = QuantLinear(child.weight, child.bias, form, low)
                setattr(module, name, packed)
                if not packed.keeps_the_weight:
                    files.let_go(child.weight)
    if decoder.config.tied_head and (weights != "bf16" or can_pack()):
        decoder.head = QuantLinear(table, None, weights)
    return model
