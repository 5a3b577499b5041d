"""Weights that stand as rows, for the products that numba compiles (`vedere.models.compiled_token`): bfloat16, int8, int4.

bfloat16 rows are the weight as any checkpoint has it: nothing is rearranged or copied, and a weight that is mapped from a file
is read from there. One to eight rows of inputs go through the compiled product, more through torch's matmul.

numba is optional (extra ``cpu``). Without it `vedere.models.weight_forms` has other layouts, which torch's own kernels read.

Axes: M rows, I inputs, O outputs, G groups of a row.
"""

from __future__ import annotations

import functools
import threading
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vedere.models.weight_forms import GROUP, Product, quantise_groups, quantise_rows

FEW = 8  # rows that the compiled products take
_WHOLE = 32  # inputs come in multiples of this
_PADDED = 32  # groups of a row of int4 are padded to a multiple of this
ONE_AT_A_TIME = threading.Lock()  # one of numba's thread pools ends the process when two threads use it

Bits = Literal[16, 8, 4]
Array = np.ndarray[Any, Any]


@functools.cache
def has_compiler() -> bool:
    """Whether numba is there and works: it may be older than this numpy, or switched off (``NUMBA_DISABLE_JIT``)."""
    try:
        import numba
    except ImportError:
        return False
    return not numba.config.DISABLE_JIT


def suits(inputs: int) -> bool:
    """Whether maps of so many inputs can stand as rows here."""
    return has_compiler() and inputs % _WHOLE == 0


def quantised_bytes(outputs: int, inputs: int, bits: int) -> int:
    """What a matrix takes at 8 bits or 4 (8 where groups do not fit); without numba it is some percent less or more."""
    if bits == 4 and inputs % GROUP == 0:
        groups = inputs // GROUP
        return outputs * (inputs // 2 + 4 * groups + 2 * -(-groups // _PADDED) * _PADDED)
    return outputs * (inputs + 4)


class Rows:
    """A weight as rows of bfloat16, int8 (a scale for each output) or int4 (a scale and an offset for 32 inputs).

    Args:
        weight_OI: bfloat16; at 16 bits it is kept as it is.
        bits: Of a number.
    """

    few = FEW

    def __init__(self, weight_OI: Tensor, bits: Bits) -> None:
        self.bits: Bits = bits
        self.outputs, self.inputs = weight_OI.shape
        self.scales: Tensor | None = None
        if bits == 16:
            packed = weight_OI.contiguous()
            self.packed = packed if packed.data_ptr() % 4 == 0 else packed.clone()  # read as whole words
        elif bits == 8:
            self.packed, scales = quantise_rows(weight_OI)
            self.scales = scales.float()
        else:
            steps, table = quantise_groups(weight_OI)
            halves = steps.to(torch.uint8).view(self.outputs, -1, 2, GROUP // 2)
            self.packed = (halves[:, :, 0] | halves[:, :, 1] << 4).view(self.outputs, -1)
            scale, middle = (part.t() for part in table.unbind(-1))  # [O, G]
            self.scales = scale.float().contiguous()
            zero = (middle.float() - 8 * scale.float()).to(middle.dtype)
            self.zeros = F.pad(zero, (0, -zero.shape[1] % _PADDED)).contiguous()
        self.arrays = self._arrays()

    def _arrays(self) -> tuple[Array, Array, Array]:
        """What the compiled code takes: numbers, scales, offsets."""
        nothing = np.empty((0, 0), np.uint32)
        if self.bits == 16:
            return _words(self.packed), np.empty((0, 0), np.float32), nothing
        assert self.scales is not None
        if self.bits == 8:
            return self.packed.numpy(), self.scales[:, None].numpy(), nothing
        return self.packed.numpy(), self.scales.numpy(), _words(self.zeros)

    def few_rows(self) -> Product:
        """The compiled product."""
        from vedere.models import compiled_token as compiled

        arrays, outputs, inputs = self.arrays, self.outputs, self.inputs

        def product(x: Tensor) -> Tensor:
            rows = x.detach().to(torch.float32, copy=True).contiguous().numpy()
            out = np.empty((len(rows), outputs), np.float32)
            with ONE_AT_A_TIME:
                parts = use_threads()
                compiled.multiply(arrays, rows, out, scratch(len(rows), inputs), parts)
            return torch.from_numpy(out).to(x.dtype)

        return product

    def many_rows(self, rows_MI: Tensor) -> Tensor:
        """A matmul with the weight, whose integers are made bfloat16 first."""
        if self.bits == 16:
            return F.linear(rows_MI, self.packed)
        if self.bits == 8:
            assert self.scales is not None
            product: Tensor = F.linear(rows_MI, self.packed.to(rows_MI.dtype)).mul_(self.scales)
            return product
        return F.linear(rows_MI, self.expanded())

    def expanded(self) -> Tensor:
        """The weight of int4 as bfloat16 ``[O, I]``."""
        from vedere.models import compiled_token as compiled

        out = torch.empty(self.outputs, self.inputs, dtype=torch.bfloat16)
        with ONE_AT_A_TIME:
            parts = use_threads()
            compiled.expand4(self.arrays, out.view(torch.int16).numpy().view(np.uint16), parts)
        return out


def use_threads() -> int:
    """Lets this thread's compiled calls use as many threads as torch, if numba has so many; returns the number.

    The first call starts numba's threads, which tells OpenMP, and thereby torch, how many numba has: torch keeps its own.
    """
    import numba

    own = torch.get_num_threads()
    count: int = max(1, min(own, numba.config.NUMBA_NUM_THREADS))
    numba.set_num_threads(count)
    if torch.get_num_threads() != own:
        torch.set_num_threads(own)
    return count


def scratch(rows: int, inputs: int) -> tuple[Array, Array, Array, Array]:
    """What the compiled product prepares its inputs in: even and odd ones, whole numbers, and what these stand for."""
    words = max(inputs // 2, _PADDED)
    return (
        np.zeros((rows, words), np.float32),
        np.zeros((rows, words), np.float32),
        np.zeros((rows, inputs), np.int16),
        np.zeros(rows, np.float32),
    )


def _words(matrix: Tensor) -> Array:
    """Rows of bfloat16 as words of two."""
    return matrix.view(torch.int32).numpy().view(np.uint32)
