"""Forms of a weight that torch's own kernels read fast: how it is laid out, how few and how many rows are multiplied with it.

Where numba is there, `vedere.models.row_forms` takes the place of all but `Blocked`.

A map of one row is a sum of the weight's columns, each times an input: an embedding bag. torch's kernels of those (FBGEMM's)
read memory 1.3 times as fast as oneDNN's matmul of one row in bfloat16, and 2.2 times as fast as ATen's int8 matmul where that
is bound by arithmetic. For them outputs stand in blocks, and of a block the columns of all inputs one after the other, so that
the sums of a block stay in registers while memory is read in a row.

Axes: M rows, I inputs, O outputs, B blocks of C outputs (the last one padded), G groups of a row.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

GROUP = 32  # inputs that share a scale in int4
_LANES = 64  # outputs of int4 are padded to a multiple of this, the widest block of torch's kernel
_VECTOR = 16  # float32 sums that a register holds
_TRAILER = 8  # bytes at the end of FBGEMM's rows: their scale and offset as float32
_WIDEST = 256  # outputs of a block of bytes
_ZERO = 128  # the byte that stands for 0

Product = Callable[[Tensor], Tensor]


class Form(Protocol):
    """A weight in some form."""

    @property
    def few(self) -> int | None:
        """Most rows that `few_rows` suits; None: any number."""

    def few_rows(self) -> Product:
        """The map ``[M, I]`` to ``[M, O]`` or wider (padding), for callers that make it once for many calls."""

    def many_rows(self, rows_MI: Tensor) -> Tensor:
        """The same by way of a plain bfloat16 weight, which is faster for many rows."""


class Blocked:
    """bfloat16 in oneDNN's blocks; the bias is added by its kernel."""

    few = None

    def __init__(self, weight_OI: Tensor, bias: Tensor | None) -> None:
        self.packed, self.bias = torch.ops.mkldnn._reorder_linear_weight(weight_OI.contiguous(), 1), bias

    def few_rows(self) -> Product:
        """oneDNN's matmul."""
        packed, bias, pointwise = self.packed, self.bias, torch.ops.mkldnn._linear_pointwise.default
        return lambda x: pointwise(x, packed, bias, "none", [], "")

    def many_rows(self, rows_MI: Tensor) -> Tensor:
        """oneDNN's matmul."""
        return self.few_rows()(rows_MI)


class Columns:
    """bfloat16 columns; for 4 to 128 rows a matmul of each block, which takes one and a half times as long as `Blocked`."""

    few = 128
    bags = 3  # rows

    def __init__(self, weight_OI: Tensor) -> None:
        width = block_width(len(weight_OI), 128)
        self.packed = weight_OI.new_empty(-(-len(weight_OI) // width), weight_OI.shape[1], width)
        _fill_columns(self.packed, weight_OI)

    def few_rows(self) -> Product:
        """An embedding bag of each row in each block, or a matmul of each block."""
        packed_BIC, most = self.packed, self.bags
        blocks, inputs, width = packed_BIC.shape
        table = packed_BIC.view(-1, width)

        def product(x: Tensor) -> Tensor:
            if not 0 < len(x) <= most:
                return _joined(torch.bmm(x.expand(blocks, *x.shape), packed_BIC))
            numbers, starts = _bags(blocks, inputs, len(x))
            sums = F.embedding_bag(numbers, table, starts, mode="sum", per_sample_weights=_spread(x, blocks, x.dtype))
            return _joined(sums.view(blocks, len(x), width))

        return product

    def many_rows(self, rows_MI: Tensor) -> Tensor:
        """A matmul with the columns joined."""
        product: Tensor = rows_MI @ self.packed.transpose(0, 1).flatten(1)
        return product


class ByteColumns:
    """int8 columns with a scale for each output, which the sums are multiplied by: integers are exact in bfloat16.

    FBGEMM's rows of bytes carry a scale and an offset each; here they are 1 and minus `_ZERO`.
    """

    few = 8

    def __init__(self, weight_OI: Tensor) -> None:
        steps, scales = quantise_rows(weight_OI)
        width = block_width(len(weight_OI), _WIDEST)
        self.blocks, self.inputs, self.width = -(-len(steps) // width), steps.shape[1], width
        packed = steps.new_empty(self.blocks, self.inputs, width + _TRAILER)
        _fill_columns(packed[..., :width], steps.bitwise_xor_(-_ZERO))
        packed[..., width:] = torch.tensor([1.0, -float(_ZERO)]).view(torch.int8)
        self.packed = packed.view(-1, width + _TRAILER).view(torch.uint8)
        self.scales = F.pad(scales, (0, self.blocks * width - len(scales)))
        self.wide = self.scales.float()

    def few_rows(self) -> Product:
        """An embedding bag of each row in each block; all but the first find the block's columns in the cache."""
        packed, scales, blocks, inputs, width = self.packed, self.wide, self.blocks, self.inputs, self.width
        bag = torch.ops.quantized.embedding_bag_byte_rowwise_offsets

        def product(x: Tensor) -> Tensor:
            numbers, starts = _bags(blocks, inputs, len(x))
            sums: Tensor = bag(packed, numbers, starts, per_sample_weights=_spread(x, blocks, torch.float32))
            return (_joined(sums.view(blocks, len(x), width)) * scales).to(x.dtype)

        return product

    def many_rows(self, rows_MI: Tensor) -> Tensor:
        """A matmul with the integers as bfloat16."""
        steps = self.packed.view(torch.int8).view(self.blocks, self.inputs, -1)[..., : self.width].transpose(0, 1)
        weight = rows_MI.new_empty(steps.shape)
        torch.bitwise_xor(steps, -_ZERO, out=weight)
        product: Tensor = rows_MI @ weight.view(self.inputs, -1)
        return product.mul_(self.scales)


class ByteRows:
    """int8 rows with a scale each, for ATen's matmul: where torch was built without FBGEMM."""

    few = 16

    def __init__(self, weight_OI: Tensor) -> None:
        self.packed, self.scales = quantise_rows(weight_OI)

    def few_rows(self) -> Product:
        """ATen's int8 matmul."""
        packed, scales, product = self.packed, self.scales, torch.ops.aten._weight_int8pack_mm.default
        return lambda x: product(x, packed, scales)

    def many_rows(self, rows_MI: Tensor) -> Tensor:
        """A matmul with the integers as bfloat16."""
        product: Tensor = F.linear(rows_MI, self.packed.to(rows_MI.dtype))
        return product.mul_(self.scales)


class Nibbles:
    """int4 in groups of 32 inputs, in ATen's packing."""

    def __init__(self, weight_OI: Tensor) -> None:
        weight = F.pad(weight_OI, (0, 0, 0, -len(weight_OI) % _LANES))
        steps, self.scales = quantise_groups(weight)
        self.packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(steps, 1)
        self.few = 16 if _known_blocks() else None

    def few_rows(self) -> Product:
        """ATen's int4 matmul."""
        packed, scales, product = self.packed, self.scales, torch.ops.aten._weight_int4pack_mm_for_cpu.default
        return lambda x: product(x, packed, GROUP, scales)

    def many_rows(self, rows_MI: Tensor) -> Tensor:
        """A matmul with the values of the steps."""
        product: Tensor = rows_MI @ expand_groups(self.packed, self.scales)
        return product


def block_width(outputs: int, widest: int) -> int:
    """Outputs of a block: of the widths that are whole registers, the one that gives the busiest thread least to read."""
    threads = torch.get_num_threads()

    def busiest(width: int) -> int:
        return -(-outputs // (width * threads)) * (width + _TRAILER)

    return min(range(4 * _VECTOR, widest + 1, _VECTOR), key=lambda width: (busiest(width), -width))


def _fill_columns(columns_BIC: Tensor, weight_OI: Tensor) -> None:
    """Puts a weight into its blocks, without another copy of it; the padding of the last block is zero."""
    width = columns_BIC.shape[2]
    whole = len(weight_OI) // width
    columns_BIC[:whole] = weight_OI[: whole * width].unflatten(0, (whole, width)).transpose(1, 2)
    if whole < len(columns_BIC):
        rest = weight_OI[whole * width :]
        columns_BIC[-1, :, : len(rest)] = rest.t()
        columns_BIC[-1, :, len(rest) :] = 0


def _spread(x_MI: Tensor, blocks: int, dtype: torch.dtype) -> Tensor:
    """The inputs of every row's bag in every block, ``[B M I]``."""
    return torch.empty(blocks, *x_MI.shape, dtype=dtype).copy_(x_MI).view(-1)


def _joined(out_BMC: Tensor) -> Tensor:
    """``[M, B C]``."""
    blocks, rows, width = out_BMC.shape
    return out_BMC.view(1, -1) if rows == 1 else out_BMC.transpose(0, 1).reshape(rows, blocks * width)


@functools.lru_cache(maxsize=16)
def _bags(blocks: int, inputs: int, rows: int) -> tuple[Tensor, Tensor]:
    """Columns of every row's bag in every block, and where the bags begin; maps of one shape share them in the cache.

    Few are kept: those of a large head take 10 MB a row, and a decoder has five shapes or so.
    """
    with torch.inference_mode(False):  # kept beyond the call
        numbers = torch.arange(blocks * inputs, dtype=torch.int32).view(blocks, 1, inputs).expand(-1, rows, -1)
        return numbers.flatten(), inputs * torch.arange(blocks * rows, dtype=torch.int32)


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
def has_bags() -> bool:
    """Whether this build of torch has the fast embedding bags."""
    return "fbgemm" in torch.backends.quantized.supported_engines


@functools.cache
def can_pack() -> bool:
    """Whether this build of torch and this CPU have oneDNN's bfloat16 matmul."""
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
