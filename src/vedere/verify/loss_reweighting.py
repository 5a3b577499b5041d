"""Folders of token, square and sample averaging (InternVL 2.5, arXiv 2412.05271, sec. 3.3) over packed samples.

The original's shift crosses the borders of packed samples, which vedere reproduces in its reference mode only. Stored logits
stand for a model: they are the hidden states of an identity head, so that the product's own chunked loss is what is checked.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from vedere.train.losses import Averaging, chunked_cross_entropy, loss_weights, next_token_targets
from vedere.verify.check import GRADIENTS, LOSSES, WEIGHTS, Check, Recording

_LAYOUT = re.compile(r"(l\d+)\.labels")
_CHUNK = 5  # several chunks a row even in small recordings


def checks(directory: Path) -> Iterator[Check]:
    """Weights, losses and gradients of every layout.

    Raises:
        CheckpointError: the recorded tensors cannot be read.
    """
    recording = Recording(directory)
    for name in list(recording.tensors):
        if found := _LAYOUT.fullmatch(name):
            yield from _layout_checks(recording, found[1])
    yield from recording.rest()


def _layout_checks(recording: Recording, layout: str) -> Iterator[Check]:
    for unused in ("input_ids", "position_ids"):  # what the collator made beside; the loss does not read it
        if f"{layout}.{unused}" in recording:
            recording.take(f"{layout}.{unused}")
    if f"{layout}.plain_loss" in recording:
        yield recording.compare(f"{layout}.plain_loss", partial(_loss, recording, layout, "token"), "relative", LOSSES)
    pattern = re.compile(re.escape(layout) + r"\.(\w+)\.(loss_weight|loss|logits_grad)")
    for name in sorted(recording.tensors):
        found = pattern.fullmatch(name)
        if not found:
            continue
        averaging = found[1]
        if found[2] == "loss_weight":
            yield recording.compare(
                name,
                partial(_weight_row, recording, layout, averaging),
                "absolute",
                WEIGHTS,
            )
        elif found[2] == "loss":
            yield recording.compare(name, partial(_loss, recording, layout, averaging), "relative", LOSSES)
        else:
            yield recording.compare(name, partial(_gradient, recording, layout, averaging), "absolute", GRADIENTS)


def _labels(recording: Recording, layout: str) -> tuple[Tensor, list[int]]:
    labels = recording.take(f"{layout}.labels").flatten().long()
    return labels, recording.take(f"{layout}.cu_seqlens").flatten().tolist()


def _weights(recording: Recording, layout: str, averaging: str) -> Tensor:
    labels, borders = _labels(recording, layout)
    return loss_weights(labels, borders, cast(Averaging, averaging))


def _weight_row(recording: Recording, layout: str, averaging: str) -> Tensor:
    return _weights(recording, layout, averaging)[None]


def _loss(recording: Recording, layout: str, averaging: str) -> Tensor:
    return _loss_and_gradient(recording, layout, averaging)[0]


def _gradient(recording: Recording, layout: str, averaging: str) -> Tensor:
    return _loss_and_gradient(recording, layout, averaging)[1]


def _loss_and_gradient(recording: Recording, layout: str, averaging: str) -> tuple[Tensor, Tensor]:
    """Loss ``[1]`` and its gradient with respect to the logits ``[1, T, V]``."""
    stored = recording.take(f"{layout}.logits")[0]
    labels, borders = _labels(recording, layout)
    rows, targets = next_token_targets(labels, borders, reference=True)
    weights = _weights(recording, layout, averaging)[rows + 1]
    with torch.enable_grad():
        logits = stored.clone().requires_grad_()
        head = torch.eye(logits.shape[1])
        loss = chunked_cross_entropy(logits[rows], head, targets, weights, chunk=_CHUNK) / weights.sum()
        loss.backward()
    gradient = logits.grad if logits.grad is not None else torch.zeros_like(logits)
    return loss.detach()[None], gradient[None]
