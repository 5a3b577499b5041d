"""RefCOCO, RefCOCO+ and RefCOCOg: a box is right from an overlap (IoU) of 0.5 on; precision@1 by split."""

from __future__ import annotations

import math
from collections.abc import Sequence

from vedere.evals.records import Row, Scores, Verdict, by, credit, mean

Box = tuple[float, float, float, float]


def parse_box(text: str) -> Box | None:
    """Return the first box of four numbers, relative to the picture; None where there is none (the original scores 0, 0, 0, 0).

    From the first bracket of a line on, what stands before three commas and a closing bracket; no second try where that is no
    number, as in the original's pattern. Values that sum to 4 or more are thousandths; others are kept (a tiny box
    near the origin is misread, as in the original).
    """
    for line in text.split("\n"):
        pieces = line[line.find("[") :].lstrip("[").split(",", 3) if "[" in line else []
        if len(pieces) == 4 and "]" in pieces[3]:
            break
    else:
        return None
    try:
        left, top, right, bottom = (float(one) for one in (*pieces[:3], pieces[3].split("]")[0]))
    except ValueError:
        return None
    if not all(map(math.isfinite, (left, top, right, bottom))):
        return None
    scale = 1000.0 if left + top + right + bottom >= 4 else 1.0
    return left / scale, top / scale, right / scale, bottom / scale


def iou(one: Box, other: Box) -> float:
    """Return intersection over union of two boxes x1, y1, x2, y2; 0 where the union has no area."""
    width = max(0.0, min(one[2], other[2]) - max(one[0], other[0]))
    height = max(0.0, min(one[3], other[3]) - max(one[1], other[1]))
    areas = [max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1]) for box in (one, other)]
    union = sum(areas) - width * height
    return width * height / union if union > 0 else 0.0


def score(rows: Sequence[Row]) -> Scores:
    """Score rows ``bbox`` (pixels), ``height``, ``width``, ``prediction`` and ``split`` (such as refcoco_val): ratios.

    Files of InternVL's evaluation folder have ``gt_bbox``, ``hw`` and ``answer`` in their place.
    """
    verdicts = []
    for row in rows:
        left, top, right, bottom = row.numbers("bbox", "gt_bbox", count=4)
        height, width = row.numbers("hw", count=2) if row.has("hw") else (row.number("height"), row.number("width"))
        if width <= 0 or height <= 0 or left > right or top > bottom:
            raise row.fail(
                f"'bbox' is {row.get('bbox', 'gt_bbox')} in {width:g} x {height:g}", "x1 <= x2, y1 <= y2 in a picture"
            )
        box = parse_box(row.answer("prediction", "response", "answer"))
        scaled = box and (box[0] * width, box[1] * height, box[2] * width, box[3] * height)
        hit = scaled is not None and iou(scaled, (left, top, right, bottom)) >= 0.5
        verdicts.append(Verdict(line=row.line, credit=float(hit), extracted=None if box is None else str(list(box))))
    splits = {name: credit(found) for name, found in by(rows, verdicts, "split").items()}
    figures: dict[str, object] = {"n": len(rows), "precision_at_1": credit(verdicts)}
    if splits:
        figures |= {"per_split": splits, "mean_of_splits": mean(splits.values())}
    unread = sum(verdict.extracted is None for verdict in verdicts)
    return Scores(figures=figures, verdicts=verdicts, counts={"unresolved": unread})
