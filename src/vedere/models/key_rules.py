"""Ties between the tensors of a file and vedere's: one rule a tensor, each with an exact inverse.

A `KeyMap` is a list of `Rule`s, made from a config alone (`vedere.models.keymaps`). A rule ties one tensor of vedere to one or
more tensors of a file and says how the rows are arranged (`Layout`). Every layout has an exact inverse, so a checkpoint
converted there and back is the same bit for bit; and the list is complete, so a file with a missing, surplus or misshapen
tensor is refused (`vedere.models.diagnosis`) instead of half loaded.

Cost: `join` copies a tensor once where rows move, else nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from vedere.models.diagnosis import check_shapes
from vedere.models.shape_causes import Shape


class Layout(Protocol):
    """How the tensors of a file make one tensor of vedere. `split` undoes `join` exactly."""

    def join(self, parts: Sequence[Tensor], shape: Shape) -> Tensor:
        """The tensor of vedere, with ``shape``."""
        ...

    def split(self, tensor: Tensor, shapes: Sequence[Shape]) -> list[Tensor]:
        """The tensors of the file, with ``shapes``."""
        ...


@dataclass(frozen=True)
class Same:
    """One tensor, the same numbers in the same order; only axes of length one may come or go."""

    def join(self, parts: Sequence[Tensor], shape: Shape) -> Tensor:
        """A view of the tensor."""
        return parts[0].reshape(shape)

    def split(self, tensor: Tensor, shapes: Sequence[Shape]) -> list[Tensor]:
        """A view of the tensor."""
        return [tensor.reshape(shapes[0])]


@dataclass(frozen=True)
class Stacked:
    """Several matrices on top of each other: query, key, value, or gate and up; of a mixture, expert after expert."""

    def join(self, parts: Sequence[Tensor], shape: Shape) -> Tensor:
        """Rows of the first, then of the second, and so on."""
        return torch.cat(list(parts)).reshape(shape)

    def split(self, tensor: Tensor, shapes: Sequence[Shape]) -> list[Tensor]:
        """Row ranges, as views."""
        return list(tensor.reshape(-1, *shapes[0][1:]).split([shape[0] for shape in shapes]))


@dataclass(frozen=True)
class Grouped:
    """InternLM2's fused projection: for each key/value head its query heads, then its key, then its value."""

    heads: int
    kv_heads: int
    head_dim: int

    def join(self, parts: Sequence[Tensor], shape: Shape) -> Tensor:
        """All query rows (group by group), all key rows, all value rows."""
        group = self.heads // self.kv_heads
        rows = parts[0].reshape(self.kv_heads, group + 2, self.head_dim, *shape[1:])
        query, key, value = rows[:, :group], rows[:, group], rows[:, group + 1]
        return torch.cat([part.reshape(-1, *shape[1:]) for part in (query, key, value)])

    def split(self, tensor: Tensor, shapes: Sequence[Shape]) -> list[Tensor]:
        """The interleaved rows."""
        group, tail = self.heads // self.kv_heads, tensor.shape[1:]
        query, key, value = tensor.split([n * self.head_dim for n in (self.heads, self.kv_heads, self.kv_heads)])
        parts = [
            query.reshape(self.kv_heads, group, self.head_dim, *tail),
            key.reshape(self.kv_heads, 1, self.head_dim, *tail),
            value.reshape(self.kv_heads, 1, self.head_dim, *tail),
        ]
        return [torch.cat(parts, dim=1).reshape(shapes[0])]


@dataclass(frozen=True)
class PairedHalves:
    """llama.cpp's separate projections: inside a query or key head, row 2i belongs to half 0 and row 2i + 1 to half 1.

    vedere rotates halves (row i with row i + head_dim / 2), so the rows are put back; values are not touched.
    """

    heads: int
    kv_heads: int

    def join(self, parts: Sequence[Tensor], shape: Shape) -> Tensor:
        """Query, key and value rows, the halves of each head one after the other."""
        query, key, value = parts
        return torch.cat([self._halves(query, self.heads), self._halves(key, self.kv_heads), value]).reshape(shape)

    def split(self, tensor: Tensor, shapes: Sequence[Shape]) -> list[Tensor]:
        """Query, key and value rows, the halves of each head interleaved."""
        query, key, value = tensor.split([shape[0] for shape in shapes])
        return [self._pairs(query, self.heads), self._pairs(key, self.kv_heads), value]

    @staticmethod
    def _halves(rows: Tensor, heads: int) -> Tensor:
        return rows.reshape(heads, -1, 2, *rows.shape[1:]).transpose(1, 2).reshape(rows.shape)

    @staticmethod
    def _pairs(rows: Tensor, heads: int) -> Tensor:
        return rows.reshape(heads, 2, -1, *rows.shape[1:]).transpose(1, 2).reshape(rows.shape)


@dataclass(frozen=True)
class Rule:
    """One tensor of vedere and the tensors of a file that hold it."""

    own: str
    own_shape: Shape
    foreign: tuple[str, ...]
    foreign_shapes: tuple[Shape, ...]
    layout: Layout


@dataclass(frozen=True)
class KeyMap:
    """The complete map between one kind of file and vedere's names."""

    family: str
    rules: tuple[Rule, ...]

    @property
    def own_shapes(self) -> dict[str, Shape]:
        """Every tensor of vedere's model and its shape."""
        return {rule.own: rule.own_shape for rule in self.rules}

    @property
    def foreign_shapes(self) -> dict[str, Shape]:
        """Every tensor of the file and its shape."""
        return {
            name: shape for rule in self.rules for name, shape in zip(rule.foreign, rule.foreign_shapes, strict=True)
        }

    def iter_own(self, tensors: Mapping[str, Tensor], where: str = "the checkpoint") -> Iterator[tuple[str, Tensor]]:
        """Yields vedere's tensors one at a time, so that only one of them exists twice in memory.

        Raises:
            CheckpointError: ``tensors`` are not exactly the tensors of this family.
        """
        check_shapes({n: tuple(t.shape) for n, t in tensors.items()}, self.foreign_shapes, where, self.family)
        for rule in self.rules:
            yield rule.own, rule.layout.join([tensors[name] for name in rule.foreign], rule.own_shape)

    def to_own(self, tensors: Mapping[str, Tensor], where: str = "the checkpoint") -> dict[str, Tensor]:
        """From the names of the file to vedere's; see `iter_own`."""
        return dict(self.iter_own(tensors, where))

    def to_foreign(self, tensors: Mapping[str, Tensor], where: str = "the model") -> dict[str, Tensor]:
        """From vedere's names to those of the file; the exact inverse of `to_own`.

        Raises:
            CheckpointError: ``tensors`` are not exactly the tensors of this model.
        """
        check_shapes({n: tuple(t.shape) for n, t in tensors.items()}, self.own_shapes, where, "vedere")
        return {
            name: part
            for rule in self.rules
            for name, part in zip(rule.foreign, rule.layout.split(tensors[rule.own], rule.foreign_shapes), strict=True)
        }
