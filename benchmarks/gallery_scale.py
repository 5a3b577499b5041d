"""The gallery at 1,000 to 120,000 pictures: indexing, searching, memory.

    python benchmarks/gallery_scale.py [--sizes 1000 10000 100000 120000] [--queries 100] [--threads 1] [--work DIR]

Everything but the encoder is the real thing: parquet files of pictures, read, decoded, hashed and indexed by
`vedere.compose.gallery.FolderGallery`, which grows from size to size, so that each update reads only what is new. The pictures
are flat squares of 32 px, which decode in no time and are nobody's duplicate; the encoder draws a vector of 512 numbers for a
caption, near one of 2,000 centres, as captions come in topics. So the figures are those of the gallery itself: a real encoder
and real photographs come on top.

Asserted first: up to `EXHAUSTIVE` pictures the ten nearest are those of a comparison with every vector in numpy, in the same
order. Above, where the index is approximate, recall@10 against the same comparison is a result. The two are timed in turn.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import io
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from harness import interleave, store
from PIL import Image

from vedere.compose.gallery import FolderGallery, GalleryConfig
from vedere.compose.gallery_table import EXHAUSTIVE, GalleryTable, Vectors

WIDTH, TOPICS, SPREAD = 512, 2000, 0.06  # SPREAD a number: cosines of two captions of one topic are near 0.35
NEAREST = 10


class Topics:
    """An encoder that draws: the caption ``N`` is always the same vector, and ``N again`` one beside it."""

    name, dimension, similarity, sees = "topics", WIDTH, -1.0, False

    def __init__(self) -> None:
        centres = np.random.default_rng(0).normal(size=(TOPICS, WIDTH)).astype(np.float32)
        self.centres = centres / np.linalg.norm(centres, axis=1, keepdims=True)

    def texts(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors of captions."""
        found = np.empty((len(texts), WIDTH), np.float32)
        for row, text in zip(found, texts, strict=True):
            number = int(text.split()[1])
            row[:] = self.centres[number % TOPICS]
            row += np.random.default_rng(number).normal(size=WIDTH).astype(np.float32) * SPREAD
            if text.endswith("again"):
                row += np.random.default_rng(number + 1_000_000).normal(size=WIDTH).astype(np.float32) * SPREAD
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    def pictures(self, images: Sequence[Image.Image]) -> Vectors:
        """Never asked."""
        raise AssertionError("this encoder does not see")


def caption(number: int) -> str:
    """What the data set says about a picture."""
    return f"picture {number}"


def write_rows(folder: Path, first: int, last: int) -> None:
    """One more parquet file, of the pictures ``first`` to ``last - 1``."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), (90, 120, 60)).save(buffer, "PNG")
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    data = pa.array([{"bytes": buffer.getvalue(), "path": None}] * (last - first), struct)
    table = pa.table({"image": data, "caption": [caption(number) for number in range(first, last)]})
    pq.write_table(table, folder / f"part-{last:07d}.parquet", row_group_size=1000)


def memory() -> dict[str, int]:
    """Resident MiB, now and at most so far."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"now_mib": pages * os.sysconf("SC_PAGE_SIZE") >> 20, "peak_mib": peak >> 10}


def measure(gallery: FolderGallery, encoder: Topics, first: int, size: int, queries: int) -> dict[str, Any]:
    """Indexes the pictures from ``first`` on, and searches ``size`` of them."""
    begun = time.perf_counter()
    report = gallery.update()
    updated = time.perf_counter() - begun
    assert (report.pictures, report.new, report.changed, report.removed) == (size, size - first, 0, 0), report
    assert not report.unusable
    begun = time.perf_counter()
    assert gallery.update().new == 0
    unchanged = time.perf_counter() - begun

    table = GalleryTable(gallery.index, encoder.name, encoder.dimension)
    ids = list(gallery.pool.states(()))
    every = encoder.texts([caption(number) for number in range(size)])
    numbers = np.random.default_rng(size).choice(size, min(queries, size), replace=False).tolist()
    asked = encoder.texts([f"{caption(number)} again" for number in numbers])
    found = [[row.id for row in table.nearest(vector, NEAREST)] for vector in asked]
    expected = [[ids[place] for place in np.argsort(-(every @ vector), kind="stable")[:NEAREST]] for vector in asked]
    exact = size <= EXHAUSTIVE
    recall = statistics.mean(len(set(one) & set(other)) / NEAREST for one, other in zip(found, expected, strict=True))
    assert not exact or found == expected, "the exhaustive search is not exact"

    turn = iter(range(10**9))

    def ours() -> None:
        table.nearest(asked[next(turn) % len(asked)], NEAREST)

    def brute() -> None:
        scores = every @ asked[next(turn) % len(asked)]
        best = np.argpartition(-scores, NEAREST)[:NEAREST]
        best[np.argsort(-scores[best])]

    seconds = interleave({"index": ours, "numpy": brute}, len(asked), warmup=3)
    whole = []
    for number in numbers:
        begun = time.perf_counter()
        hits = gallery.ranked(f"{caption(number)} again", 4)
        whole.append(time.perf_counter() - begun)
        assert len(hits) == 4
    return {
        "rows": size,
        "exact": exact,
        "recall_at_10": round(recall, 4),
        "new_rows": size - first,
        "update_seconds": round(updated, 3),
        "seconds_per_1000_new_rows": round(1000 * updated / (size - first), 4),
        "update_without_changes_seconds": round(unchanged, 4),
        "search_ms": round(1000 * statistics.median(seconds["index"]), 3),
        "search_p90_ms": round(1000 * float(np.quantile(seconds["index"], 0.9)), 3),
        "numpy_ms": round(1000 * statistics.median(seconds["numpy"]), 3),
        "ranked_with_4_new_files_ms": round(1000 * statistics.median(whole), 3),
        "index_mib": sum(path.stat().st_size for path in gallery.index.rglob("*") if path.is_file()) >> 20,
        "memory": memory(),
    }


def main() -> None:
    """Measures all sizes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 10_000, 100_000, 120_000])
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--threads", type=int, default=1, help="of the index (0: all)")
    parser.add_argument("--work", type=Path, help="folder for data and index; by default a temporary one")
    parser.add_argument("--note", default="", help="what else ran on the machine")
    options = parser.parse_args()
    if options.threads:  # read when the library starts
        os.environ |= {
            name: str(options.threads) for name in ("LANCE_CPU_THREADS", "TOKIO_WORKER_THREADS", "RAYON_NUM_THREADS")
        }
    encoder, results = Topics(), []
    with tempfile.TemporaryDirectory(dir=options.work) as work:
        pictures = Path(work) / "pictures"
        pictures.mkdir()
        start = memory()
        first = 0
        for size in sorted(options.sizes):
            write_rows(pictures, first, size)
            gallery = FolderGallery(pictures, encoder, index=Path(work) / "index", config=GalleryConfig())
            results.append(measure(gallery, encoder, first, size, options.queries))
            first = size
            print({name: value for name, value in results[-1].items() if name != "memory"}, file=sys.stderr, flush=True)
    path = store(
        "gallery_scale",
        {
            "note": options.note,
            "versions": {name: importlib.metadata.version(name) for name in ("lancedb", "pyarrow", "numpy")},
            "threads_of_the_index": options.threads,
            "dimension": WIDTH,
            "topics": TOPICS,
            "queries": options.queries,
            "memory_at_the_start": start,
            "sizes": results,
        },
    )
    print(
        "| pictures | index, s for 1,000 | nothing new, s | search, ms | numpy, ms | 4 hits as files, ms | recall@10 | MiB |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for one in results:
        cells = [
            f"{one['rows']:,}",
            f"{one['seconds_per_1000_new_rows']:.2f}",
            f"{one['update_without_changes_seconds']:.2f}",
            f"{one['search_ms']:.1f}",
            f"{one['numpy_ms']:.1f}",
            f"{one['ranked_with_4_new_files_ms']:.0f}",
            f"{one['recall_at_10']:.3f}" + (" (exact)" if one["exact"] else ""),
            str(one["memory"]["peak_mib"]),
        ]
        print(f"| {' | '.join(cells)} |")
    print(f"raw numbers: {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}")


if __name__ == "__main__":
    main()
