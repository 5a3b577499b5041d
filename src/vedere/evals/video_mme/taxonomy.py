"""Video-MME's words and counts (arXiv 2405.21075, section 3 and its data files): durations, domains, task types.

The strings are the data's, compared as they are: the data say ``Counting Problem`` and ``OCR Problems`` where figures
of the paper differ, and one wrong plural would empty a row of a table. The order is the order of all tables.
"""

from __future__ import annotations

DURATIONS = ("short", "medium", "long")
SECONDS = {"short": (0.0, 120.0), "medium": (240.0, 900.0), "long": (1800.0, 3600.0)}
"""Length of videos by class; nothing lies between the classes."""

DOMAINS: dict[str, tuple[str, ...]] = {
    "Knowledge": (
        *("Humanity & History", "Literature & Art", "Biology & Medicine", "Finance & Commerce", "Astronomy"),
        *("Geography", "Law", "Life Tip", "Technology"),
    ),
    "Film & Television": ("Animation", "Movie & TV Show", "Documentary", "News Report"),
    "Sports Competition": ("Esports", "Basketball", "Football", "Athletics", "Other Sports"),
    "Artistic Performance": ("Stage Play", "Magic Show", "Variety Show", "Acrobatics"),
    "Life Record": ("Handicraft", "Food", "Fashion", "Daily Life", "Travel", "Pet & Animal", "Exercise"),
    "Multilingual": ("Multilingual",),
}
"""Domain -> its sub-categories; ``Multilingual`` is both."""
SUB_CATEGORIES = tuple(name for names in DOMAINS.values() for name in names)

TASK_COUNTS: dict[str, tuple[int, int, int]] = {
    "Temporal Perception": (18, 31, 6),
    "Spatial Perception": (30, 21, 3),
    "Attribute Perception": (122, 73, 27),
    "Action Recognition": (131, 119, 63),
    "Object Recognition": (168, 132, 54),
    "OCR Problems": (57, 68, 14),
    "Counting Problem": (125, 95, 48),
    "Temporal Reasoning": (13, 73, 91),
    "Spatial Reasoning": (27, 18, 11),
    "Action Reasoning": (47, 58, 180),
    "Object Reasoning": (80, 134, 240),
    "Information Synopsis": (82, 78, 163),
}
"""Task type -> questions about short, medium and long videos."""
TASK_TYPES = tuple(TASK_COUNTS)
TASK_GROUPS = dict.fromkeys(TASK_TYPES[:7], "perception") | dict.fromkeys(TASK_TYPES[7:11], "cognition")
TASK_GROUPS["Information Synopsis"] = "synopsis"

LETTERS = "ABCD"
ANSWER_COUNTS = {"A": 677, "B": 735, "C": 684, "D": 604}
QUESTIONS = 2700
VIDEOS = 900
VIDEOS_PER_CLASS = 300
"""Videos of each duration; each sub-category has ten of each."""
WITHOUT_SUBTITLES = 156
"""Short and medium videos without a subtitle file; every long video has one."""
