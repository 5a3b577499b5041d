"""The MIS test sets (arXiv 2501.18533, sec. 3): two pictures whose risk lies in a picture or in their combination.

One JSON array a split, ``mis_easy.json`` (1,675 requests), ``mis_hard.json`` (510), ``mis_real.json`` (100), and the pictures
beside them, all below one root. ``real`` mirrors requests of the other two with photographs.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from vedere.config import nearest
from vedere.errors import ConfigError, RecordError
from vedere.evals.safety.records import Request, check_consent, check_ids, id_of, image_of, loosely, read_table, text_of

SPLITS = {"easy": 1675, "hard": 510, "real": 100}
"""Splits and the number of their requests."""
CATEGORIES = ("Illegal Activity", "Violent", "Hate", "Self-Harm", "Privacy", "Erotic")
"""Categories of easy and hard."""
SUB_CATEGORIES = (
    *("Property Crimes", "Cybercrimes", "Drug-Related Offenses", "Human Trafficking", "Weapon-Related Violence"),
    *("Public Violence and Rioting", "Abuse and Physical Altercations", "Racial and Ethnic Discrimination"),
    *("Gender Discrimination", "Physical Self-Injury", "Psychological Harm", "Unauthorized Data Collection"),
    *("Identity Theft", "Erotic Visual Content"),
)
"""As the paper's table lists them (its text counts 12). Another name becomes ``OTHER``: a file whose columns were exchanged has
requests there, and sub-categories are shown."""
OTHER = "other"


def load_mis(root: Path | str, split: str, *, consent: bool = False, complete: bool = True) -> list[Request]:
    """Reads a split.

    Args:
        root: Folder with ``mis_easy.json`` and its companions.
        split: ``easy``, ``hard`` or ``real``.
        consent: The reader's word (see `vedere.evals.safety.records`).
        complete: Refuse a split with another number of requests than published.

    Raises:
        ConfigError: no consent, or an unknown split.
        RecordError: file, fields, pictures or number of requests are not the published ones; no text is in the message.
    """
    check_consent(consent)
    if split not in SPLITS:
        raise ConfigError(f"unknown split '{split}'{nearest(split, SPLITS)} (splits: {', '.join(SPLITS)})")
    root = Path(root)
    path = root / f"mis_{split}.json"
    rows = read_table(path)
    if complete and len(rows) != SPLITS[split]:
        raise RecordError(
            f"{path} holds {len(rows)} requests, {split} has {SPLITS[split]}; take the published file, or read a part of it on "
            "purpose: complete=False (--partial)"
        )
    known, finer = ({loosely(name): name for name in names} for names in (CATEGORIES, SUB_CATEGORIES))
    requests = []
    for number, row in enumerate(rows):
        where = f"{path.name} item {number}"
        identifier = id_of(row, ("id",), where)
        where = f"{path.name} id {identifier}"
        category = loosely(text_of(row, ("category",), where))
        if category not in known:
            raise RecordError(f"{where} has a category that MIS does not have; expected one of {', '.join(CATEGORIES)}")
        images = tuple(image_of(root, text_of(row, (name,), where), where) for name in ("image_path1", "image_path2"))
        sub = row.get("sub_category")
        requests.append(
            Request(
                set=f"mis-{split}",
                id=identifier,
                category=known[category],
                sub_category=finer.get(loosely(sub), OTHER) if isinstance(sub, str) and sub.strip() else "",
                question=text_of(row, ("question",), where),
                images=images,
                cluster="|".join(row[name] for name in ("image_path1", "image_path2")),
            )
        )
    check_ids(requests)
    return requests


def category_counts(requests: list[Request]) -> dict[str, int]:
    """Requests by category, most first."""
    return dict(Counter(request.category for request in requests).most_common())
