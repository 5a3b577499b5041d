"""A desk with a scripted model and a gallery of small drawn pictures."""

from PIL import Image

from vedere.compose.article import Picture
from vedere.compose.prompts import SECOND, Brief
from vedere.compose.scripted import ScriptedModel
from vedere.serve.desk import Desk, Studio
from vedere.serve.shelf import Shelf

ANSWERS = {
    "write": ["One two.\nThree four.\nFive six.", "Seven."],
    "spot": "<Seg0>, <Seg2>",
    "caption": ['first"', 'second"', 'third"'],
    "select": ["B", "A"],
    "expand": "Three four, and more.",
    "rewrite": "Four three.",
    "abbreviate": "Three.",
    "insert": "Between.",
}


class Drawn:
    """Twelve one-coloured pictures, in order."""

    def __init__(self, folder):
        folder.mkdir(parents=True, exist_ok=True)
        self.pictures = []
        for number in range(12):
            path = folder / f"{number}.png"
            Image.new("RGB", (40, 30), (20 * number, 90, 90)).save(path)
            self.pictures.append(Picture(id=str(number), path=str(path), attribution="A. Person"))

    def search(self, caption, count, exclude):
        return [picture for picture in self.pictures if picture.id not in exclude][:count]


def desk(folder, *, gallery=True, sees=True, places=True, style=SECOND, **answers):
    shelf = Shelf(folder / "uploads", [folder / "gallery"])
    drawn = Drawn(folder / "gallery") if gallery else None
    given = {step: list(answer) if isinstance(answer, list) else answer for step, answer in ANSWERS.items()}
    model = ScriptedModel(given | answers)
    return Desk(Studio(model=model, style=style, gallery=drawn, shelf=shelf, sees=sees, places=places))


def written(folder, **options):
    """A desk with an article."""
    made = desk(folder, **options)
    list(made.generate(Brief(title="A title")))
    return made


def texts(at):
    return [paragraph.text for paragraph in at.article.paragraphs]


def chosen(at):
    return [picture.id for picture in at.article.pictures()]
