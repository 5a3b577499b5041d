"""Typefaces: none that others test with, open licences only, splits by family; and the words printed in them."""

from __future__ import annotations

import json
import random
from collections import Counter

import pytest
from PIL import ImageFont

from vedere.data.build import typefaces as room
from vedere.data.build import vocabulary
from vedere.data.build.typefaces import (
    CAPITALS_ONLY,
    FAMILIES,
    HELDOUT,
    NEVER,
    fetch_typefaces,
    local_typefaces,
    package_of,
    read_package,
    typefaces,
)
from vedere.errors import PackageError

ALL = [family for families in FAMILIES.values() for family in families]


def squashed(name):
    return "".join(character for character in name.lower() if character.isalnum())


def test_no_typeface_in_use_is_one_that_others_test_with():
    banned = {squashed(name) for name in NEVER}
    assert {"notocoloremoji", "comicneue", "carlito", "quicksand", "inconsolata", "lobster"} <= banned
    used = {squashed(family) for family in ALL} | {squashed(face.family) for face in typefaces("train")}
    used |= {squashed(face.family) for face in typefaces("heldout")}
    assert not [name for name in used for other in banned if name.startswith(other)]
    for face in local_typefaces():  # what the file itself says, not what it is called here
        name = (ImageFont.truetype(face.path, 20) if face.path else ImageFont.load_default(20)).getname()[0]
        assert squashed(name) not in banned


def test_families_are_many_listed_once_and_split():
    assert len(ALL) == len(set(ALL)) >= 90
    assert set(HELDOUT) - {"stix"} <= set(ALL)
    assert 12 <= len(HELDOUT) <= 20
    assert set(CAPITALS_ONLY) <= set(ALL)
    styles = {style for style, families in FAMILIES.items() if set(families) & set(HELDOUT)}
    assert styles == set(FAMILIES)
    train, heldout = ({face.family for face in typefaces(use)} for use in ("train", "heldout"))
    assert heldout <= set(HELDOUT)
    assert not train & heldout
    assert set(ALL) <= train | heldout


def test_packages_are_fetched_under_fixed_versions(packages):
    asked = []

    def fetch(package, version, say):
        asked.append((package, version))
        return packages / "npm" / f"{package.replace('/', '--')}-{version}"

    faces = fetch_typefaces(fetch)
    assert sorted(asked) == sorted(package_of(family) for family in ALL)
    assert {face.family for face in faces if face.family in CAPITALS_ONLY and face.capitals} == set(CAPITALS_ONLY)
    assert not [face for face in faces if face.capitals and face.family not in CAPITALS_ONLY]


def test_without_a_network_the_local_typefaces_remain_and_it_is_said():
    tries, said = [], []

    def fetch(package, version, say):
        tries.append(package)
        raise PackageError("npm download failed: no network")

    assert fetch_typefaces(fetch, said.append) == local_typefaces()
    assert len(tries) == 1
    assert said == [
        "typefaces of npm packages cannot be had (npm download failed: no network); text is drawn in the few local ones"
    ]


def test_a_split_is_never_empty(monkeypatch):
    only = local_typefaces()[:1]
    monkeypatch.setattr(room, "all_typefaces", lambda: only)
    assert typefaces("train") == typefaces("heldout") == only


def test_a_package_with_another_licence_or_without_the_file_is_refused(tmp_path):
    (tmp_path / "package.json").write_text(json.dumps({"license": "UNLICENSED"}))
    with pytest.raises(
        PackageError, match=r"typeface 'odd' has the licence 'UNLICENSED'; expected OFL-1.1 or Apache-2.0"
    ):
        read_package("odd", "sans", tmp_path)
    (tmp_path / "package.json").write_text(json.dumps({"license": "Apache-2.0"}))
    with pytest.raises(PackageError, match=r"has no files/odd-latin-400-normal.woff2; use another version"):
        read_package("odd", "sans", tmp_path)


def test_a_tenth_of_the_words_is_held_out_whatever_the_case():
    everything = vocabulary.words("train") + vocabulary.words("heldout")
    assert len(everything) == len(set(everything)) > 10_000
    assert all(word.isascii() and word.isalpha() and word.islower() for word in everything)
    assert 0.08 < len(vocabulary.words("heldout")) / len(everything) < 0.12
    for word in everything[::97]:
        assert (
            vocabulary.is_heldout(word) == vocabulary.is_heldout(word.upper()) == (word in vocabulary.words("heldout"))
        )
    assert min(len(vocabulary.words("heldout", length, length)) for length in range(2, 11)) > 0


def test_what_is_drawn_keeps_its_bounds():
    rng = random.Random(0)
    lengths = Counter(len(vocabulary.draw_word("heldout", rng, 4, 9)) for _ in range(300))
    assert set(lengths) == set(range(4, 10))
    numbers = [vocabulary.draw_number(rng, 2, 5) for _ in range(300)]
    assert {len(number) for number in numbers} == {2, 3, 4, 5}
    assert not [number for number in numbers if number[0] == "0"]
    assert not [text for text in (vocabulary.draw_letters(rng) for _ in range(300)) if vocabulary.is_heldout(text)]
    assert {vocabulary.in_some_case("word", rng) for _ in range(50)} == {"word", "Word", "WORD"}
