"""Draws the documents of the open test suite: a receipt, timetables, charts, forms. Run once; the pictures are shipped.

    python tools/open_documents.py FOLDER

All content is made up here and is CC0. Letters are Pillow's own typeface.
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

INK, DIM, LINE = (28, 30, 36), (110, 114, 122), (200, 203, 208)


class Sheet:
    """A white page with a pen."""

    def __init__(self, width: int, height: int, paper: tuple[int, int, int] = (255, 255, 255)) -> None:
        self.image = Image.new("RGB", (width, height), paper)
        self.pen = ImageDraw.Draw(self.image)

    def text(
        self, x: float, y: float, words: str, size: int = 18, fill: tuple[int, int, int] = INK, anchor: str = "la"
    ) -> None:
        """Writes a line."""
        self.pen.text((x, y), words, font=ImageFont.load_default(size), fill=fill, anchor=anchor)

    def line(self, *points: float, width: int = 1, fill: tuple[int, int, int] = LINE) -> None:
        """Draws a line."""
        self.pen.line(points, fill=fill, width=width)

    def table(self, x: int, y: int, widths: list[int], rows: list[list[str]], height: int = 32) -> None:
        """A table whose first row is its head."""
        for number, row in enumerate(rows):
            top = y + number * height
            if number == 0:
                self.pen.rectangle((x, top, x + sum(widths), top + height), fill=(234, 238, 244))
            left = x
            for width, cell in zip(widths, row, strict=True):
                self.text(left + 10, top + height / 2, cell, 17, anchor="lm")
                left += width
            self.line(x, top + height, x + sum(widths), top + height)


def receipt() -> Sheet:
    """A till receipt: four articles, total, cash, change."""
    sheet = Sheet(380, 460, (252, 251, 247))
    sheet.text(190, 24, "CORNER GROCER", 26, anchor="ma")
    sheet.text(190, 58, "14 Mill Lane  -  Tel. 555 0142", 15, DIM, "ma")
    sheet.text(24, 92, "12 March 2024", 16)
    sheet.text(356, 92, "17:42", 16, anchor="ra")
    sheet.line(24, 120, 356, 120)
    for number, (name, price) in enumerate(
        [("Bread", "2.40"), ("Apples 1 kg", "3.10"), ("Milk 2 x 1.15", "2.30"), ("Coffee", "6.70")]
    ):
        sheet.text(24, 136 + 34 * number, name, 19)
        sheet.text(356, 136 + 34 * number, price, 19, anchor="ra")
    sheet.line(24, 282, 356, 282)
    for number, (name, price) in enumerate([("TOTAL", "14.50"), ("Cash", "20.00"), ("Change", "5.50")]):
        sheet.text(24, 298 + 36 * number, name, 22 if number == 0 else 18)
        sheet.text(356, 298 + 36 * number, price, 22 if number == 0 else 18, anchor="ra")
    sheet.text(190, 424, "Thank you!", 16, DIM, "ma")
    return sheet


def timetable() -> Sheet:
    """Departures with platforms; one is late, one is cancelled."""
    sheet = Sheet(640, 330, (247, 249, 252))
    sheet.text(24, 20, "Departures - Northgate Station", 25)
    rows = [
        ["Time", "To", "Platform", "Remark"],
        ["09:05", "Harwich", "3", ""],
        ["09:20", "Elm Park", "1", "10 min late"],
        ["09:40", "Kings Lynn", "5", ""],
        ["09:55", "Harwich", "2", "cancelled"],
        ["10:15", "Seaford", "4", ""],
    ]
    sheet.table(24, 70, [100, 210, 110, 170], rows, 38)
    return sheet


def bar_chart() -> Sheet:
    """Bars of five months with their values."""
    sheet = Sheet(600, 400)
    sheet.text(300, 18, "Bicycles sold per month", 22, anchor="ma")
    values = {"Jan": 12, "Feb": 18, "Mar": 35, "Apr": 27, "May": 42}
    for number, (name, value) in enumerate(values.items()):
        left, top = 80 + 100 * number, 350 - 6 * value
        sheet.pen.rectangle((left, top, left + 60, 350), fill=(73, 124, 178))
        sheet.text(left + 30, top - 6, str(value), 18, anchor="mb")
        sheet.text(left + 30, 358, name, 18, anchor="ma")
    sheet.line(60, 350, 580, 350, width=2, fill=INK)
    return sheet


def weather() -> Sheet:
    """A week's weather."""
    sheet = Sheet(620, 300, (250, 252, 255))
    sheet.text(24, 18, "Weather in Port Ellery", 24)
    rows = [
        ["Day", "Sky", "High", "Low", "Rain"],
        ["Monday", "sunny", "21 C", "11 C", "0 mm"],
        ["Tuesday", "cloudy", "18 C", "10 C", "2 mm"],
        ["Wednesday", "rain", "14 C", "9 C", "17 mm"],
        ["Thursday", "windy", "16 C", "7 C", "1 mm"],
    ]
    sheet.table(24, 64, [150, 130, 100, 100, 92], rows, 40)
    return sheet


def street_map() -> Sheet:
    """A small town map with named buildings on a grid."""
    sheet = Sheet(520, 520, (240, 238, 230))
    for place in (160, 340):
        sheet.line(place, 0, place, 520, width=34, fill=(255, 255, 255))
        sheet.line(0, place, 520, place, width=34, fill=(255, 255, 255))
    names = [["School", "Park", "Bakery"], ["Bank", "Market", "Library"], ["Station", "Hotel", "Museum"]]
    colours = [(178, 205, 228), (176, 214, 168), (240, 208, 160)]
    for row, line in enumerate(names):
        for column, name in enumerate(line):
            x, y = 70 + 180 * column, 70 + 180 * row
            colour = colours[1] if name == "Park" else colours[(row + column) % 2 * 2]
            sheet.pen.rectangle((x - 56, y - 56, x + 56, y + 56), fill=colour)
            sheet.text(x, y, name, 20, anchor="mm")
    sheet.text(500, 12, "N", 24, anchor="ra")
    sheet.line(488, 42, 488, 74, width=3, fill=INK)
    sheet.line(480, 52, 488, 42, 496, 52, width=3, fill=INK)
    return sheet


def form() -> Sheet:
    """A library card form with boxes, some of them ticked."""
    sheet = Sheet(560, 420)
    sheet.text(28, 22, "Library card - application", 25)
    for number, (name, value) in enumerate(
        [("Name", "Nora Lindqvist"), ("Street", "8 Harbour Road"), ("Phone", "555 0178")]
    ):
        sheet.text(28, 84 + 46 * number, name, 18, DIM)
        sheet.text(150, 82 + 46 * number, value, 21)
        sheet.line(146, 110 + 46 * number, 520, 110 + 46 * number)
    sheet.text(28, 236, "I am interested in", 18, DIM)
    for number, (name, ticked) in enumerate(
        [
            ("novels", True),
            ("travel", False),
            ("history", True),
            ("cooking", False),
            ("music", True),
            ("science", False),
        ]
    ):
        x, y = 28 + 180 * (number % 3), 272 + 50 * (number // 3)
        sheet.pen.rectangle((x, y, x + 24, y + 24), outline=INK, width=2)
        if ticked:
            sheet.line(x + 4, y + 12, x + 10, y + 19, x + 21, y + 4, width=4, fill=(30, 90, 160))
        sheet.text(x + 36, y + 12, name, 20, anchor="lm")
    sheet.text(28, 382, "Member until: 31 August 2026", 18)
    return sheet


def invoice() -> Sheet:
    """An invoice with quantities and a sum."""
    sheet = Sheet(640, 420)
    sheet.text(28, 24, "INVOICE  No. 2047", 27)
    sheet.text(612, 28, "Date: 3 June 2025", 17, anchor="ra")
    sheet.text(28, 68, "From: Alder Workshop", 17, DIM)
    sheet.text(28, 94, "To: Blue Door Cafe", 17, DIM)
    rows = [
        ["Article", "Quantity", "Price each", "Amount"],
        ["Oak table", "2", "180", "360"],
        ["Chair", "8", "45", "360"],
        ["Shelf", "1", "95", "95"],
        ["Delivery", "1", "40", "40"],
    ]
    sheet.table(28, 134, [220, 120, 130, 114], rows, 40)
    sheet.text(612, 352, "Total due  855", 23, anchor="ra")
    sheet.text(28, 384, "Please pay within 30 days.", 17, DIM)
    return sheet


def recipe() -> Sheet:
    """A recipe card."""
    sheet = Sheet(560, 440, (255, 250, 240))
    sheet.text(28, 22, "Lemon Pancakes", 28)
    sheet.text(28, 64, "serves 4   -   25 minutes", 17, DIM)
    for number, line in enumerate(["200 g flour", "300 ml milk", "2 eggs", "1 lemon", "a pinch of salt"]):
        sheet.pen.ellipse((32, 110 + 34 * number, 40, 118 + 34 * number), fill=(214, 146, 44))
        sheet.text(54, 102 + 34 * number, line, 20)
    sheet.line(28, 282, 530, 282)
    for number, line in enumerate(
        [
            "1. Mix flour, milk, eggs and salt.",
            "2. Let the batter rest for 10 minutes.",
            "3. Fry thin pancakes.",
            "4. Serve with lemon.",
        ]
    ):
        sheet.text(28, 296 + 34 * number, line, 19)
    return sheet


DOCUMENTS = {
    "doc-receipt": receipt,
    "doc-departures": timetable,
    "doc-bars": bar_chart,
    "doc-weather": weather,
    "doc-map": street_map,
    "doc-form": form,
    "doc-invoice": invoice,
    "doc-recipe": recipe,
}


def main(folder: Path) -> None:
    """Draws all of them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in DOCUMENTS.items():
        draw().image.quantize(64).save(folder / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
