"""Fill and speed of the packer on skewed streams: vedere's best fit against the published first fit.

python benchmarks/packing.py [--samples 200000]
"""

from __future__ import annotations

import argparse
import random
import time

from harness import store

from vedere.data.packing import BinPacker, PackLimits, first_fit


def stream(kind: str, samples: int) -> list[tuple[int, int]]:
    """(tokens, tiles) of log-normal lengths; ``both`` adds tiles that bind as often as tokens do."""
    rng = random.Random(0)
    drawn = []
    for _ in range(samples):
        tokens = min(2000, max(20, int(rng.lognormvariate(5.3, 0.9))))
        tiles = 0 if kind == "tokens" else min(8, max(0, int(rng.lognormvariate(0.3, 0.8))))
        drawn.append((tokens, tiles))
    return drawn


def ours(drawn: list[tuple[int, int]], limits: PackLimits) -> list[list[int]]:
    """Packs of vedere's packer."""
    packer: BinPacker[int] = BinPacker(limits)
    packs = []
    for number, (tokens, tiles) in enumerate(drawn):
        full = packer.add(tokens, tiles, number)
        if full is not None:
            packs.append(full)
    while (rest := packer.flush()) is not None:
        packs.append(rest)
    return packs


def main() -> None:
    """Packs two streams with both algorithms."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=200_000)
    options = parser.parse_args()
    results: dict[str, dict[str, dict[str, float]]] = {}
    for kind, limits in (("tokens", PackLimits(tokens=4096, tiles=48)), ("both", PackLimits(tokens=4096, tiles=24))):
        drawn = stream(kind, options.samples)
        results[kind] = {}
        for name, call in (("ours", ours), ("first-fit", lambda d, size: list(first_fit(d, size)))):
            start = time.perf_counter()
            packs = call(drawn, limits)
            seconds = time.perf_counter() - start
            assert sorted(item for pack in packs for item in pack) == list(range(len(drawn))), (
                "a sample was lost or doubled"
            )
            fill = sum(tokens for tokens, _ in drawn) / (len(packs) * limits.tokens)
            tiles = sum(tiles for _, tiles in drawn) / (len(packs) * limits.tiles)
            speed = len(drawn) / seconds
            results[kind][name] = {"fill": fill, "tile_fill": tiles, "samples_per_second": speed, "packs": len(packs)}
            print(
                f"{kind:7} {name:9}  tokens {fill:.2%}  tiles {tiles:.2%}  {speed:>12,.0f} samples/s  {len(packs)} packs"
            )
    store("packing", {"samples": options.samples, "results": results})


if __name__ == "__main__":
    main()
