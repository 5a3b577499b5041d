"""Edit distance of two texts: insertions, deletions and replacements of one character, each at cost 1.

Hyyro's bit-parallel form (2003) of Myers' algorithm: a column of the table is two integers as wide as the shorter text, so
that a text of 100 kB against a short answer takes a tenth of a second in plain Python.
"""

from __future__ import annotations


def edit_distance(left: str, right: str) -> int:
    """Return the Levenshtein distance."""
    if len(left) > len(right):
        left, right = right, left
    if not left:
        return len(right)
    width = len(left)
    full, last = (1 << width) - 1, 1 << (width - 1)
    places: dict[str, int] = {}
    for index, character in enumerate(left):
        places[character] = places.get(character, 0) | 1 << index
    up, down, distance = full, 0, width
    for character in right:
        match = places.get(character, 0)
        diagonal = ((((match & up) + up) ^ up) | match | down) & full
        rise = down | (full & ~(diagonal | up))
        fall = diagonal & up
        distance += bool(rise & last) - bool(fall & last)
        rise, fall = (rise << 1) | 1, fall << 1
        up = (fall | ~(diagonal | rise)) & full
        down = diagonal & rise & full
    return distance
