"""Linear maps whose weights are kept in the form that a CPU reads fastest: one module, four forms.

Decoding a token reads every weight once, so its time is the bytes of the weights over the speed of memory, if the kernel
keeps up. torch's plain bfloat16 matmul of one row does not (half the speed of memory in `benchmarks/cpu_inference.py`),
because the weight stands in an order that its kernel has to rearrange at every call.

* ``bf16``: the same numbers, rearranged once into oneDNN's blocks. Every shape of InternVL3-1B gave the bits of the plain map;
  faster for any number of rows, so the vision tower takes it too.
* ``bf16-single``: the same numbers once more, for answers one at a time. A map of one row is a sum of the weight's columns,
  each times an input, which is an embedding bag; torch's kernel of those reads memory a fifth to a third faster than oneDNN's
  of one row. Columns of 128 outputs stand together, so that sums stay in registers and memory is read in a row. Several rows
  take up to twice the time of ``bf16``, prompts of the decoder a quarter more.
* ``int8``: a scale for each output row (the largest magnitude over 127), rounded to nearest.
* ``int4``: a scale and a minimum for each group of 32 inputs of an output row, 16 steps between the group's extremes.

The quantised forms are weight-only: activations stay bfloat16, sums are float32, and only the decoder and its head are
quantised (embedding, tower and projector are not read for a decoded token). Passes of many rows, that is prompts, are bound by
arithmetic instead: they expand the weight to bfloat16 and multiply as usual. The forms are for answering: they have no
gradients and are not saved; a checkpoint stays what it is.

Axes: M rows, I inputs, O outputs, G groups of a row.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vedere.config import nearest
from vedere.errors import CheckpointError, ConfigError
from vedere.models.decoder import Decoder
from vedere.models.low_rank import LoRALinear, LowRank

Weights = Literal["stored", "bf16", "bf16-single", "int8", "int4"]
GROUP = 32  # inputs that share a scale in int4
_LANES = 64  # outputs of int4 are padded to a multiple of this, the widest block of torch's kernel
_COLUMN = 128  # outputs whose columns stand together in bf16-single, likewise padded
_LARGE = 10**9  # bytes
_FEW_ROWS = {"bf16-single": 128, "int8": 16, "int4": 16}  # up to here their own kernels beat expanding the weight


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
        weight = weight.detach()
        if self.form == "bf16":
            self.packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), 1)
        elif self.form == "bf16-single":
            weight = F.pad(weight, (0, 0, 0, -self.out_features % _COLUMN))
            self.packed = weight.unflatten(0, (-1, _COLUMN)).transpose(1, 2).contiguous()
        elif self.form == "int8":
            self.packed, self.scales = quantise_rows(weight)
        else:
            weight = F.pad(weight, (0, 0, 0, -self.out_features % _LANES))
            steps, self.scales = quantise_groups(weight)
            self.packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(steps, 1)

    def fits(self, rows: int) -> bool:
        """Whether `few_rows` suits this many rows."""
        return self.form == "bf16" or rows <= _FEW_ROWS[self.form]

    def few_rows(self) -> Callable[[Tensor], Tensor]:
        """The map of few rows ``[M, I]`` as a function of nothing else, for callers that make it once for many calls."""
        packed, bias, outputs = self.packed, self.bias, self.out_features
        if self.form == "bf16":
            pointwise = torch.ops.mkldnn._linear_pointwise.default
            return lambda x: pointwise(x, packed, bias, "none", [], "")
        if self.form == "bf16-single":
            return _columns(packed, bias, outputs)
        scales, padded = self.scales, self.form == "int4" and outputs % _LANES
        eight, four = torch.ops.aten._weight_int8pack_mm.default, torch.ops.aten._weight_int4pack_mm_for_cpu.default
        four_bits = self.form == "int4"

        def product(x: Tensor) -> Tensor:
            out: Tensor = four(x, packed, GROUP, scales) if four_bits else eight(x, packed, scales)
            if padded:
                out = out[:, :outputs]
            return out if bias is None else out.add_(bias)

        return product

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``[..., I]`` to ``[..., O]``."""
        out = self._packed(x)
        return out if self.low is None else self.low.add_to(out, x)

    def _packed(self, x: Tensor) -> Tensor:
        if self.form == "bf16":
            out: Tensor = self.few_rows()(x)
            return out
        rows = x.reshape(-1, self.in_features)
        if self.fits(len(rows)) or (self.form == "int4" and not _known_blocks()):
            out = self.few_rows()(rows)
        else:
            out = self._many(rows)[:, : self.out_features]
            if self.bias is not None:
                out = out.add_(self.bias)
        return out.view(*x.shape[:-1], -1) if x.ndim != 2 else out

    def _many(self, rows_MI: Tensor) -> Tensor:
        """The product by way of a plain bfloat16 weight: integers are exact in it, so int8 is scaled after the sum."""
        if self.form == "int8":
            return F.linear(rows_MI, self.packed.to(rows_MI.dtype)).mul_(self.scales)
        if self.form == "bf16-single":
            weight_IO = self.packed.transpose(0, 1).flatten(1)
        else:
            weight_IO = expand_groups(self.packed, self.scales)
        product: Tensor = rows_MI @ weight_IO
        return product

    def extra_repr(self) -> str:
        """Sizes and form."""
        return f"in_features={self.in_features}, out_features={self.out_features}, form={self.form}"

    def _save_to_state_dict(self, destination: dict[str, Tensor], prefix: str, keep_vars: bool) -> None:
        raise CheckpointError(
            f"'{prefix.rstrip('.')}' has its weight in the form {self.form}, which is for answering and not saved; load the "
            "checkpoint again with weights='stored'"
        )


def _columns(packed_BIC: Tensor, bias: Tensor | None, outputs: int) -> Callable[[Tensor], Tensor]:
    """The map of few rows ``[M, I]`` in bf16-single; B blocks of C outputs."""
    blocks, inputs, column = packed_BIC.shape
    table = packed_BIC.view(-1, column)
    numbers, starts = _numbers(len(table)), inputs * _numbers(blocks)
    padded = blocks * column != outputs

    def product(x: Tensor) -> Tensor:
        if len(x) == 1:
            each = x.expand(blocks, inputs).reshape(-1)
            out = F.embedding_bag(numbers, table, starts, mode="sum", per_sample_weights=each).view(1, -1)
        else:
            out = torch.bmm(x.expand(blocks, *x.shape), packed_BIC).transpose(0, 1).flatten(1)
        if padded:
            out = out[:, :outputs]
        return out if bias is None else out.add_(bias)

    return product


@functools.cache
def _numbers(count: int) -> Tensor:
    """0 to ``count``; maps of one size share it, so that it is read from the cache."""
    return torch.arange(count, dtype=torch.int32)


def quantise_rows(weight_OI: Tensor) -> tuple[Tensor, Tensor]:
    """(int8 ``[O, I]``, scale a row ``[O]`` in the weight's dtype); a row is at most half a step off."""
    scales = (weight_OI.abs().amax(1).float() / 127).to(weight_OI.dtype).clamp_min(torch.finfo(torch.bfloat16).tiny)
    steps = torch.empty(weight_OI.shape, dtype=torch.int8)
    for part in _slices(weight_OI):
        steps[part] = (weight_OI[part].float() / scales[part, None].float()).round_().clamp_(-127, 127).to(torch.int8)
    return steps, scales


def quantise_groups(weight_OI: Tensor) -> tuple[Tensor, Tensor]:
    """Steps 0..15, int32 ``[O, I]``, and (scale, value of step 8) of each group, ``[I / GROUP, O, 2]``."""
    outputs, inputs = weight_OI.shape
    table = weight_OI.new_empty(outputs, inputs // GROUP, 2)
    steps = torch.empty(outputs, inputs, dtype=torch.int32)
    for part in _slices(weight_OI):
        groups = weight_OI[part].float().unflatten(1, (-1, GROUP))
        low, high = groups.aminmax(dim=2)
        scale = ((high - low) / 15).clamp_min_(torch.finfo(torch.bfloat16).tiny).to(table.dtype)
        middle = (low + 8 * scale.float()).to(table.dtype)
        table[part, :, 0], table[part, :, 1] = scale, middle
        offset = (groups - middle[..., None].float()) / scale[..., None].float()
        steps[part] = (offset.round_() + 8).clamp_(0, 15).flatten(1).to(torch.int32)
    return steps, table.transpose(0, 1).contiguous()


def expand_groups(packed: Tensor, table: Tensor) -> Tensor:
    """The weight of int4 as ``[I, O]`` in the table's dtype, out of blocks of 64 outputs (`_known_blocks`).

    Every pass over memory has the outputs in a row; broadcasting along them is 50 times slower.
    """
    groups, outputs = table.shape[:2]
    packed = packed.view(outputs // _LANES, groups * GROUP, _LANES // 2)
    halves = torch.stack([packed & 15, packed >> 4], dim=2)
    steps = halves.permute(1, 0, 2, 3).reshape(groups, GROUP, outputs).view(torch.int8).sub_(8)
    scale, middle = (part.contiguous()[:, None] for part in table.unbind(-1))
    return torch.addcmul(middle, steps.to(table.dtype), scale).view(-1, outputs)


@functools.cache
def _known_blocks() -> bool:
    """Whether torch packs int4 here as blocks of 64 outputs, low halves of the bytes first (it depends on the CPU)."""
    steps = torch.arange(2 * _LANES * GROUP, dtype=torch.int32).mul_(7).remainder_(16).view(2 * _LANES, GROUP)
    packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(steps, 1)
    table = torch.tensor([1.0, 8.0], dtype=torch.bfloat16).expand(1, 2 * _LANES, 2).contiguous()
    return torch.equal(expand_groups(packed, table).t().int(), steps)


def _slices(weight: Tensor) -> Iterator[slice]:
    """Rows in parts of a few MB, so that float32 copies of a large head never exist whole."""
    rows = max(1, (1 << 21) // weight.shape[1])
    for start in range(0, len(weight), rows):
        yield slice(start, start + rows)


@functools.cache
def can_pack() -> bool:
    """Whether this build of torch and this CPU have oneDNN's bfloat16 matmul."""
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


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


def choose_form(model: nn.Module) -> Weights:
    """The form that nobody chose: ``bf16`` for a model of more than 1 GB where that is faster, else ``stored``.

    Rearranging costs a second for each 2 GB or so, which small models, mapped into memory as they are, should not wait for.
    """
    first = next(model.parameters())
    suits = first.dtype == torch.bfloat16 and first.device.type == "cpu" and can_pack()
    return "bf16" if suits and sum(p.nbytes for p in model.parameters()) > _LARGE else "stored"


def pack_weights(model: nn.Module, weights: Weights) -> nn.Module:
    """Brings the linear maps of a model into another form, one after the other, in place.

    Args:
        model: An assembly or a `Decoder`, in bfloat16 on a CPU.
        weights: ``stored`` leaves everything as it is; ``bf16`` rearranges every map; the other forms are for the decoder with
            its head, and the rest is rearranged. Where oneDNN has no bfloat16, maps stay as they are instead of rearranged.

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
    inside = {id(module) for module in decoder.modules()}
    for module in list(model.modules()):
        form: Weights = weights if id(module) in inside else "bf16"
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear) and (form != "bf16" or can_pack()):
                low = child.low if isinstance(child, LoRALinear) else None
                setattr(module, name, QuantLinear(child.weight, child.bias, form, low))
    if decoder.config.tied_head and (weights != "bf16" or can_pack()):
        decoder.head = QuantLinear(table, None, weights)
    return model
