"""Small documents to look things up in: receipts, tables of two columns, notices; questions ask for their fields.

Print is large enough that a page of six lines stays readable on a tile of 160 px. The answer is what is printed in the
field (a price, a name, a time), and the total of a receipt is the sum of its prices. Names and headings are words of the
vocabulary; held out are the typefaces and the words that `words` holds out too, so no fixed word below is one of those.

Cost: about 6 ms a picture.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vedere.data.build.lettering import Look, contrasting, draw_text, legible_fill
from vedere.data.build.record import CAPTION_PROMPTS, Ask, Item, Kind, Split, captions_as_asks, stream, weighted_order
from vedere.data.build.typefaces import ready, typefaces
from vedere.data.build.vocabulary import draw_word

# fmt: off
GOODS = (
    "apples", "bananas", "bread", "butter", "carrots", "cheese", "cocoa", "coffee", "corn", "cream", "flour", "ham", "honey",
    "jam", "juice", "lemons", "milk", "nuts", "oil", "onions", "pasta", "pears", "plums", "rice", "salad", "salt", "soap",
    "soup", "sugar", "tea", "water", "yogurt",
)
PEOPLE = (
    "Adam", "Alice", "Anna", "Ben", "Carla", "Chris", "David", "Ella", "Emma", "Eva", "Fiona", "Frank", "Grace", "Hugo",
    "Ida", "Ivan", "Jack", "Jane", "Kim", "Laura", "Leo", "Lily", "Luca", "Maria", "Max", "Nina", "Noah", "Olga", "Omar",
    "Paul", "Rosa", "Sam", "Sara", "Tom", "Vera", "Zoe",
)
COLUMNS = ("Points", "Score", "Age", "Goals", "Wins", "Games")
# fmt: on
NOTICES: dict[str, tuple[str, ...]] = {
    "Gate": ("Which gate is it?", "What is the gate?"),
    "Track": ("Which track is it?", "What is the track?"),
    "Room": ("What is the room number?", "Which room is it?"),
    "Floor": ("Which floor is it?", "What is the floor?"),
    "Bus": ("Which bus is it?", "What is the number of the bus?"),
    "Seat": ("Which seat is it?", "What is the seat?"),
    "Opens": ("When does it open?", "At what time does it open?"),
    "Closes": ("When does it close?", "At what time does it close?"),
    "Starts": ("When does it start?", "At what time does it start?"),
    "Price": ("What is the price?", "How much does it cost?"),
    "Phone": ("What is the phone number?",),
    "Code": ("What is the code?",),
}
SIZES = ((160, 160), (160, 160), (200, 240), (240, 240), (224, 224), (300, 300), (320, 240), (400, 320))
_SUMS = ("Total", "Total", "TOTAL", "Sum")


@dataclass(frozen=True, kw_only=True)
class Document:
    """A page and what can be asked about it.

    Attributes:
        lines: what is printed; a tab parts the two columns.
        name: what a caption calls it.
        asks: questions for its fields, some twice so that they come up more often.
        told: the facts that its name tells.
    """

    lines: tuple[str, ...]
    name: str
    asks: tuple[Ask, ...]
    told: tuple[str, ...]


def listed(things: Sequence[str]) -> str:
    """Return "a, b and c"."""
    return " and ".join(part for part in (", ".join(things[:-1]), things[-1]) if part)


def _money(cents: int, sign: str) -> str:
    return f"{sign}{cents // 100}.{cents % 100:02d}"


def _title(split: Split, rng: random.Random) -> str:
    return draw_word(split, rng, 3, 8).upper()


def _price_asks(good: str) -> tuple[str, ...]:
    many = good.endswith("s")
    return (
        f"How much {'are' if many else 'is'} the {good}?",
        f"What is the price of the {good}?",
        f"What {'do' if many else 'does'} the {good} cost?",
    )


def _field(rng: random.Random, asks: Sequence[str], answer: str, kind: str, fact: str, *given: str) -> Ask:
    return Ask(question=rng.choice(asks), answer=answer, question_type=kind, facts=(fact,), given=given)


def draw_receipt(split: Split, rng: random.Random) -> Document:
    """Draw a receipt: perhaps a shop's name, two to four goods with prices, their total."""
    goods = rng.sample(GOODS, rng.randint(2, 4))
    cents = [
        rng.choice((rng.randrange(20, 1000, 10), rng.randrange(100, 1000, 5), rng.randrange(20, 2000))) for _ in goods
    ]
    sign, total = rng.choice(("", "", "$")), rng.choice(_SUMS)
    shown = [good.capitalize() if rng.random() < 0.7 else good for good in goods]
    prices = [_money(price, sign) for price in cents]
    lines = [f"{good}\t{price}" for good, price in zip(shown, prices, strict=True)]
    due = _money(sum(cents), sign)
    lines.append(f"{total}\t{due}")
    asks = [
        _field(rng, ("What is the total?", "How much is the total?", "What is the sum?"), due, "total", "total")
    ] * 3
    for good, text, price in zip(goods, shown, prices, strict=True):
        asks.append(_field(rng, _price_asks(good), price, "price", f"price {good}", f"item {good}"))
        if prices.count(price) == 1:
            which = (f"What costs {price}?", f"Which item costs {price}?")
            asks.append(_field(rng, which, text, "item", f"item {good}", f"price {good}"))
    if len(goods) < 4 and rng.random() < 0.6:
        title = _title(split, rng)
        lines.insert(0, title)
        asks.append(_field(rng, ("What is the name of the shop?", "Which shop is it?"), title, "title", "title"))
    name = f"a receipt for {listed(goods)} with a total of {due}"
    told = ("total", *(f"item {good}" for good in goods))
    return Document(lines=tuple(lines), name=name, asks=tuple(asks), told=told)


def draw_table(split: Split, rng: random.Random) -> Document:
    """Draw a table of people with one number each, all different."""
    people, column = rng.sample(PEOPLE, rng.randint(2, 4)), rng.choice(COLUMNS)
    numbers = rng.sample(range(1, 100), len(people))
    lines = [f"Player\t{column}", *(f"{person}\t{number}" for person, number in zip(people, numbers, strict=True))]
    thing = column.lower()
    single, asks = column in ("Score", "Age"), []
    for person, number in zip(people, numbers, strict=True):
        row, who = f"number {person}", f"person {person}"
        if single:
            how = (f"What is {person}'s {thing}?", f"What is the {thing} of {person}?")
        else:
            how = (f"How many {thing} does {person} have?", f"How many {thing} has {person}?")
        asks += [_field(rng, how, str(number), "number", row, who)] * 2
        whose = f"Whose {thing} is {number}?" if single else f"Who has {number} {thing}?"
        asks.append(_field(rng, (whose,), person, "person", who, row))
    best = people[numbers.index(max(numbers))]
    most = {"Age": "Who is the oldest?", "Score": "Who has the highest score?"}.get(
        column, f"Who has the most {thing}?"
    )
    asks.append(_field(rng, (most,), best, "most", f"person {best}"))
    return Document(
        lines=tuple(lines),
        name=f"a table of the {thing.removesuffix('s')}s of {listed(people)}",
        asks=tuple(asks),
        told=tuple(f"person {person}" for person in people),
    )


def _notice_value(key: str, rng: random.Random) -> str:
    if key in ("Opens", "Closes", "Starts"):
        return f"{rng.randrange(6, 24)}:{rng.choice((0, 0, 15, 30, 45)):02d}"
    if key == "Price":
        return _money(rng.randrange(100, 5000, 50), rng.choice(("", "$")))
    if key == "Phone":
        return f"{rng.randrange(200, 1000)}-{rng.randrange(10_000):04d}"
    if key == "Code":
        return "".join(rng.choices("ABCDEFGHKLMNPRSTUVWXYZ23456789", k=4))
    if key in ("Seat", "Gate") and rng.random() < 0.6:
        return (
            f"{rng.randrange(1, 40)}{rng.choice('ABCDEF')}"
            if key == "Seat"
            else f"{rng.choice('ABCDE')}{rng.randrange(1, 40)}"
        )
    return str(rng.randrange(1, 500) if key in ("Room", "Bus") else rng.randrange(1, 25))


def draw_notice(split: Split, rng: random.Random) -> Document:
    """Draw a sign with a heading and one to three entries."""
    title = _title(split, rng)
    keys = rng.sample(list(NOTICES), rng.randint(1, 3))
    values = [_notice_value(key, rng) for key in keys]
    between = rng.choice(("\t", " ", ": "))
    lines = [f"{key}{between}{value}" for key, value in zip(keys, values, strict=True)]
    asks = [_field(rng, NOTICES[key], value, "entry", key) for key, value in zip(keys, values, strict=True)] * 2
    asks.append(_field(rng, ("What is the heading?", "What is the title?"), title, "title", "title"))
    return Document(lines=(title, *lines), name=f'a notice headed "{title}"', asks=tuple(asks), told=("title",))


def draw_document(split: Split, rng: random.Random) -> Document:
    """Draw a receipt, a table or a notice."""
    draw = rng.choices((draw_receipt, draw_table, draw_notice), weights=(40, 25, 35))[0]
    return draw(split, rng)


def _in_capitals(document: Document) -> Document:
    """What remains of a document in a typeface without small letters: answers are printed in capitals too."""
    asks = tuple(replace(ask, answer=ask.answer.upper()) for ask in document.asks)
    return replace(document, lines=tuple(line.upper() for line in document.lines), asks=asks)


def draw_paper(rng: random.Random) -> Look:
    """Draw the look of a page: mostly dark on light, straight or nearly so."""
    if rng.random() < 0.5:
        return Look()
    light = rng.randint(205, 255)
    ground = (light, light - rng.randint(0, 12), light - rng.randint(0, 30))
    if rng.random() < 0.25:
        ground = (rng.randrange(256), rng.randrange(256), rng.randrange(256))
    return Look(
        ink=contrasting(ground, rng),
        ground=ground,
        frame=rng.random() < 0.3,
        angle=rng.gauss(0, 1.5) if rng.random() < 0.4 else 0.0,
        blur=0.3 if rng.random() < 0.1 else 0.0,
        noise=rng.uniform(2, 10) if rng.random() < 0.3 else 0.0,
    )


def make(split: Split, count: int, seed: int, folder: Path) -> Iterator[Item]:
    """Yield `count` documents."""
    faces = [face for face in typefaces(split) if face.style not in ("hand", "display")] or list(typefaces(split))
    for index in range(count):
        rng = stream(seed, "documents", split, index)
        document, face = draw_document(split, rng), rng.choice(faces)
        if face.capitals:
            document = _in_capitals(document)
        align = rng.choice((0.0, 0.5))
        image = draw_text(
            document.lines,
            face,
            rng.choice(SIZES),
            rng,
            look=draw_paper(rng),
            fill=legible_fill(document.lines, rng.uniform(0.85, 0.97)),
            leading=rng.uniform(1.15, 1.5),
            align=align,
        ).image
        read = Ask(
            question=rng.choice(("Read the text.", "What does the text say?")),
            answer=" ".join(document.lines).replace("\t", " "),
            question_type="read",
            facts=tuple(dict.fromkeys(fact for ask in document.asks for fact in ask.facts)),
        )
        seen = Ask(
            question=rng.choice(CAPTION_PROMPTS), answer=document.name, question_type="describe", facts=document.told
        )
        yield Item(
            image=image,
            labels=(document.name.split(" ")[1],),
            captions=(document.name,),
            alignment=(*captions_as_asks((document.name,), rng), read, read),
            asks=tuple(weighted_order(rng, [*((1.0, ask) for ask in document.asks), (0.5, read), (0.3, seen)])),
        )


KIND = Kind(
    name="documents",
    share=0.08,
    make=make,
    independent=True,
    ready=ready,
    ledger=("vedere", "typefaces", "smollm2-words"),
)
