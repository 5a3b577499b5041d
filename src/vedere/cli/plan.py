"""``vedere plan IMAGE|WxH|VIDEO...``: grid, tokens and memory, before anything is loaded.

The inputs are planned as one prompt, as ``vedere chat`` would take them: its pictures share the tile limit. Exit status 1 if
prompt and answer do not fit the model's context.
"""

from __future__ import annotations

import os
import re
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from vedere.cli.output import note, print_json
from vedere.errors import ConfigError, MediaError
from vedere.plan import HDPolicy, MediaPlan, Policy, SquarePolicy, TilingPolicy, plan_media

if TYPE_CHECKING:
    from vedere.models.footprint import Footprint, ModelShape

_SIZE = re.compile(r"(\d+)[xX](\d+)(?:[xX](\d+))?")
_STRIP = 0.05  # of the views: less picture than this is worth a word
_HD_MODEL = "internlm-xcomposer2-4khd-7b"
_COLUMNS = ("input", "size", "policy", "grid", "tiles", "tokens", "spans")


@dataclass(frozen=True, kw_only=True)
class PlanOptions:
    """Tokens and memory that pictures and videos take, before anything is loaded."""

    inputs: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE|WxH|VIDEO...")]
    """Pictures, videos, or sizes: 1280x720 for a picture, 1280x720x16 for a video of 16 frames."""
    model: str | None = None
    """mini, a release (internvl3-8b, OpenGVLab/InternVL3-8B-hf), or a folder with config.json; by default mini, or
    XComposer2-4KHD with --policy hd."""
    dtype: str = "bf16"
    """bf16, fp32 or fp16: numbers of weights, keys and activations."""
    max_tiles: int | None = None
    """Most tiles of the pictures together, thumbnails not counted; by default the model's."""
    policy: Literal["model", "hd"] = "model"
    """How pictures are cut: as the model does, or as XComposer2-4KHD does, with global and local views."""
    hd_num: int | None = None
    """Most local views of a picture (the N of HD-N) for --policy hd, or a model that has such views; by default 25."""
    frames: int = 8
    """Frames taken of a video."""
    text_tokens: int = 64
    """Room for question and template in the prompt."""
    new_tokens: int = 256
    """Most tokens of the answer."""
    json: bool = False
    """Print one JSON object instead of text."""


@dataclass(frozen=True)
class Planned:
    """An input and its plan."""

    name: str
    plan: MediaPlan


def main(argv: list[str]) -> int:
    """Runs ``vedere plan``."""
    options = tyro.cli(PlanOptions, args=argv, prog="vedere plan", description=__doc__)
    if not options.inputs:
        raise ConfigError("nothing to plan; give pictures, videos, or sizes such as 1280x720")
    for name, value, least in (("frames", options.frames, 1), ("text-tokens", options.text_tokens, 0)):
        if value < least:
            raise ConfigError(f"--{name} {value}; expected at least {least}")
    if options.new_tokens < 0:
        raise ConfigError(f"--new-tokens {options.new_tokens}; expected 0 or more")
    shape = _shape(options)
    policy = _policy(options, shape)
    sizes = [(name, *_size(name, options.frames)) for name in options.inputs]
    pictures = sum(frames is None for *_, frames in sizes)
    shared = policy if isinstance(policy, SquarePolicy) else policy.for_images(pictures)
    planned = [Planned(name, plan_media(width, height, shared, frames)) for name, width, height, frames in sizes]
    total = _footprint(options, shape, planned)
    if options.json:
        print_json(to_dict(planned, shape, total, options))
    else:
        print_table(planned)
        for one in planned:
            if isinstance(one.plan.policy, HDPolicy):
                (columns, rows), side = one.plan.grid, one.plan.tile_size
                print(
                    f"{one.name}: {one.plan.resized[0]} x {one.plan.resized[1]} px on {columns * side} x {rows * side}, "
                    f"{in_percent(filled(one.plan))} of it picture, white where dotted"
                )
                print(drawing(one.plan))
        print("\n".join(summary(planned, shape, total, options)))
    for one in planned:
        if isinstance(one.plan.policy, HDPolicy) and filled(one.plan) < _STRIP:
            note(
                f"vedere plan: {one.name} is a strip of {one.plan.width} x {one.plan.height} px and fills "
                f"{in_percent(filled(one.plan))} of its views; cut it into pages, one picture each, to have it read"
            )
    if not total.fits:
        fewer = "--hd-num" if isinstance(policy, HDPolicy) else "--max-tiles, --frames"
        note(
            f"vedere plan: {total.tokens} tokens do not fit the {total.limit} positions of the model by "
            f"{total.tokens - total.limit}; lower {fewer} or --new-tokens"
        )
        return 1
    return 0


def _shape(options: PlanOptions) -> ModelShape:
    from dataclasses import replace

    from vedere.infer.loading import SHIPPED, shipped_directory
    from vedere.models.footprint import model_shape

    name = options.model or ("mini" if options.policy == "model" and options.hd_num is None else _HD_MODEL)
    folder = shipped_directory(name)
    if name in SHIPPED and (folder / "config.json").is_file():
        return replace(model_shape(folder), name=name)
    return model_shape(name)


def _policy(options: PlanOptions, shape: ModelShape) -> Policy:
    """How the model cuts pictures."""
    from dataclasses import replace

    from vedere.infer.prompts import model_policy

    policy = model_policy(shape.model, dict(shape.extras))
    if policy is None:
        raise ConfigError(f"{shape.name} is a bare language model, it takes no pictures; name a model that sees")
    if not isinstance(policy, HDPolicy) and (options.policy == "hd" or options.hd_num is not None):
        asked = "--policy hd" if options.hd_num is None else f"--hd-num {options.hd_num}"
        raise ConfigError(
            f"{asked} plans as XComposer2-4KHD does, {shape.name} has a tiling of its own; name a model with global and local "
            "views, or give --policy hd without --model"
        )
    if isinstance(policy, HDPolicy):
        if options.max_tiles is not None:
            raise ConfigError(
                f"--max-tiles {options.max_tiles} belongs to tiling; --hd-num is the limit of local views"
            )
        return policy if options.hd_num is None else replace(policy, limit=options.hd_num)
    if options.max_tiles is None:
        return policy
    if not isinstance(policy, TilingPolicy):
        raise ConfigError(f"--max-tiles {options.max_tiles} needs dynamic tiling; {shape.name} takes one square tile")
    return replace(policy, max_tiles=options.max_tiles, min_tiles=min(policy.min_tiles, options.max_tiles))


def _size(name: str, frames: int) -> tuple[int, int, int | None]:
    """(width, height, frames or None) of an input."""
    from vedere.vision.pixels import image_size
    from vedere.vision.video import probe

    size = _SIZE.fullmatch(name)
    if size is not None and not os.path.exists(name):
        return int(size[1]), int(size[2]), int(size[3]) if size[3] else None
    if not os.path.exists(name):  # unlike Path's, no error at impossible names
        raise MediaError(f"'{name}' does not exist and is no size; give a picture, a video, or a size such as 1280x720")
    try:
        return *image_size(name), None
    except MediaError as no_picture:
        try:
            info = probe(name)
        except MediaError:
            raise no_picture from None
        return info.width, info.height, frames


def _footprint(options: PlanOptions, shape: ModelShape, planned: Sequence[Planned]) -> Footprint:
    from vedere.models.footprint import dtype_of, footprint

    return footprint(
        shape.model,
        dtype=dtype_of(options.dtype),
        prompt=sum(one.plan.tokens for one in planned) + options.text_tokens,
        new_tokens=options.new_tokens,
        tiles=sum(len(one.plan.tiles) for one in planned),
    )


def filled(plan: MediaPlan) -> float:
    """Share of the local views that is picture and not padding."""
    return plan.resized[0] * plan.resized[1] / (plan.grid[0] * plan.grid[1] * plan.tile_size**2)


def in_percent(share: float) -> str:
    """A share for people: whole percents, below one of them two digits."""
    return f"{share:.0%}" if share >= 0.01 else f"{100 * share:.2g}%"


def drawing(plan: MediaPlan) -> str:
    """The grid of local views in letters: ``#`` shows the picture, ``.`` white padding; a view is 6 letters by 3 lines.

    A letter shows the picture where at least half of its place, or half of a picture thinner than that, is picture.
    """
    columns, rows = plan.grid
    side = plan.tile_size
    left, top, _, _ = plan.padding

    def shown(place: int, each: float, start: int, length: int) -> bool:
        overlap = min((place + 1) * each, start + length) - max(place * each, start)
        return overlap >= 0.5 * min(each, length)

    rule = "+" + ("-" * 6 + "+") * columns
    across = [shown(column, side / 6, left, plan.resized[0]) for column in range(6 * columns)]
    lines = [rule]
    for row in range(3 * rows):
        inside = shown(row, side / 3, top, plan.resized[1])
        letters = ["#" if inside and column else "." for column in across]
        lines.append("|" + "".join(letter + "|" * (k % 6 == 5) for k, letter in enumerate(letters)))
        if row % 3 == 2:
            lines.append(rule)
    return "\n".join(lines)


def describe_policy(policy: Policy) -> str:
    """A policy in a few words."""
    if isinstance(policy, HDPolicy):
        return f"HD-{policy.limit} of {policy.tile} px"
    if isinstance(policy, SquarePolicy):
        return f"one square of {policy.tile} px"
    return f"up to {policy.max_tiles} x {policy.tile} px"


def span_counts(plan: MediaPlan) -> dict[str, int]:
    """Positions by kind."""
    counts: Counter[str] = Counter()
    for kind, length in plan.spans:
        counts[kind.name.lower()] += length
    return dict(counts)


def _row(one: Planned) -> tuple[str, ...]:
    plan = one.plan
    spans = " + ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in span_counts(plan).items())
    extra = sum(tile.role in ("thumbnail", "global") for tile in plan.tiles)
    tiles = f"{len(plan.tiles) - extra} + 1" if extra else str(len(plan.tiles))
    size = f"{plan.width} x {plan.height}" + (f" x {plan.frames}" if plan.is_video else "")
    policy = f"{plan.policy.tile} px a frame" if plan.is_video else describe_policy(plan.policy)
    return one.name, size, policy, f"{plan.grid[0]} x {plan.grid[1]}", tiles, str(plan.tokens), spans


def print_table(planned: Sequence[Planned]) -> None:
    """A line an input: drawn on a terminal, plain columns otherwise."""
    rows = [_row(one) for one in planned]
    if sys.stdout.isatty():
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.SIMPLE_HEAD)
        for column in _COLUMNS:
            table.add_column(column, justify="right" if column in ("tiles", "tokens") else "left", overflow="fold")
        for row in rows:
            table.add_row(*map(Text, row))
        Console().print(table)
        return
    widths = [max(map(len, column)) for column in zip(_COLUMNS, *rows, strict=True)]
    for row in (_COLUMNS, *rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def in_bytes(count: float) -> str:
    """A number of bytes for people: decimal units, three digits."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5 or unit == "GB":
            return f"{count:.3g} {unit}" if count < 999.5 else f"{count:.0f} {unit}"
        count /= 1000
    raise AssertionError


def in_millions(count: int) -> str:
    """A number of parameters for people."""
    return f"{count / 1e9:.2f} B" if count >= 1e9 else f"{count / 1e6:.1f} M"


def summary(planned: Sequence[Planned], shape: ModelShape, total: Footprint, options: PlanOptions) -> list[str]:
    """What stands below the table."""
    tokens = sum(one.plan.tokens for one in planned)
    count = total.parameters
    prompt = total.tokens - options.new_tokens
    chosen = f"{shape.name}, {options.dtype}"
    lines = [
        f"model        {chosen}",
        f"context      {tokens} media + {options.text_tokens} text = {prompt} tokens, {options.new_tokens} for the answer: "
        f"{total.tokens} of {total.limit} positions" + ("" if total.fits else "  DOES NOT FIT"),
        f"parameters   {in_millions(count.total)}; read for a text token {in_millions(count.active_text)}, for a visual token "
        f"{in_millions(count.active_visual)}",
        f"weights      {in_bytes(total.weights)}",
        f"keys, values {in_bytes(total.kv)} ({in_bytes(total.kv_per_token)} a token)",
        f"activations  {in_bytes(total.activations)} at most, while the prompt is read",
        f"together     {in_bytes(total.total)}",
    ]
    return lines


def to_dict(planned: Sequence[Planned], shape: ModelShape, total: Footprint, options: PlanOptions) -> dict[str, Any]:
    """The JSON form."""
    inputs = [
        {
            "name": one.name,
            "kind": "video" if one.plan.is_video else "image",
            "width": one.plan.width,
            "height": one.plan.height,
            "frames": one.plan.frames,
            "policy": asdict(one.plan.policy),
            "grid": list(one.plan.grid),
            "filled": round(filled(one.plan), 6) if isinstance(one.plan.policy, HDPolicy) else 1.0,
            "resized": list(one.plan.resized),
            "padding": list(one.plan.padding),
            "tiles": len(one.plan.tiles),
            "tokens": one.plan.tokens,
            "spans": span_counts(one.plan),
        }
        for one in planned
    ]
    result: dict[str, Any] = {"inputs": inputs, "media_tokens": sum(one.plan.tokens for one in planned)}
    count = total.parameters
    result |= {
        "model": {
            "name": shape.name,
            "dtype": options.dtype,
            "parameters": {
                "total": count.total,
                "active_text": count.active_text,
                "active_visual": count.active_visual,
                "parts": dict(count.parts),
            },
        },
        "context": {
            "prompt": total.tokens - options.new_tokens,
            "answer": options.new_tokens,
            "limit": total.limit,
            "fits": total.fits,
        },
        "bytes": {
            "weights": total.weights,
            "kv": total.kv,
            "kv_per_token": total.kv_per_token,
            "activations": total.activations,
            "total": total.total,
        },
    }
    return result
