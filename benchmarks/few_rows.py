"""Matmuls of few rows on a CPU: each form of a weight against oneDNN's blocks, on the maps of InternVL3-1B's decoder.

    python benchmarks/few_rows.py [--rows 1 2 4 8] [--threads 2] [--rounds 9] [--name few_rows]

As many copies of a weight are read one after the other as no cache holds. Results are compared first (the quantised forms with
the product of what they stand for); contenders take turns; ratios are medians over the rounds. ``bf16-single``, ``int8`` and
``int4`` are the products that numba compiles; FBGEMM's and ATen's are what the forms take without numba (ATen's int8 where
torch was built without FBGEMM). Beside them the speed of memory of the same rounds.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from typing import Any

import torch
from harness import interleave, ratios, store
from torch.nn import functional as F

from vedere.infer.allocator import keep_freed_memory
from vedere.models.row_forms import Rows
from vedere.models.weight_forms import Blocked, ByteColumns, ByteRows, Columns, Form, Nibbles

SHAPES = {"query, key, value": (1152, 896), "gate, up": (9728, 896), "down": (896, 4864), "head": (151674, 896)}
FORMS: dict[str, Callable[[torch.Tensor], Form]] = {
    "bf16": lambda weight: Blocked(weight, None),
    "bf16-single": lambda weight: Rows(weight, 16),
    "bf16, FBGEMM": Columns,
    "int8": lambda weight: Rows(weight, 8),
    "int8, FBGEMM": ByteColumns,
    "int8, ATen": ByteRows,
    "int4": lambda weight: Rows(weight, 4),
    "int4, ATen": Nibbles,
}
ENOUGH = 300_000_000  # bytes in bfloat16
ERROR = {"bf16": 0.003, "int8": 0.02, "int4": 0.12}


def measure(shape: tuple[int, int], rows: int, rounds: int) -> dict[str, Any]:
    """Microseconds a map of each form, their ratios to oneDNN's, and bytes of the bfloat16 weight a second."""
    outputs, inputs = shape
    copies = max(2, ENOUGH // (2 * outputs * inputs))
    torch.manual_seed(0)
    weights = [torch.randn(shape).to(torch.bfloat16) for _ in range(copies)]
    x = torch.randn(rows, inputs).to(torch.bfloat16)
    exact = F.linear(x.float(), weights[-1].float())
    calls: dict[str, Callable[[], torch.Tensor]] = {}
    for name, make in FORMS.items():
        maps = [make(weight).few_rows() for weight in weights]
        error = float((maps[-1](x)[:, :outputs].float() - exact).norm() / exact.norm())
        assert error < ERROR[name[:4]], f"{name} computes something else: {error}"

        def call(maps: list[Any] = maps) -> torch.Tensor:
            for each in maps:
                out = each(x)
            return out  # type: ignore[no-any-return]

        calls[name] = call
    buffer = torch.ones(ENOUGH // 8, dtype=torch.int64)
    seconds = interleave({**calls, "memory": buffer.sum}, rounds)
    roof = [buffer.nbytes / each for each in seconds.pop("memory")]
    return {
        "microseconds": {name: [1e6 * each / copies for each in times] for name, times in seconds.items()},
        "ratio_to_bf16": ratios(seconds, "bf16"),
        "memory_bytes_per_second": roof,
        "weight_bytes": 2 * outputs * inputs,
    }


def main() -> None:
    """Measures, prints, stores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--name", default="few_rows", help="of the stored results")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    results: dict[str, Any] = {}
    with torch.inference_mode():
        for place, shape in SHAPES.items():
            for rows in options.rows:
                found = results[f"{place}, {rows} rows"] = measure(shape, rows, options.rounds)
                roof = statistics.median(found["memory_bytes_per_second"])
                print(f"{place} {shape}, {rows} rows; memory reads at {roof / 1e9:.0f} GB/s")
                for name, times in found["microseconds"].items():
                    middle = statistics.median(times)
                    speed = found["weight_bytes"] / middle / 1e3
                    print(
                        f"  {name:12} {middle:8.0f} us  {found['ratio_to_bf16'][name]:5.2f} x bf16  = {speed:4.0f} GB/s of it"
                    )
    store(options.name, results)


if __name__ == "__main__":
    main()
