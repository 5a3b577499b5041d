"""A scripted model, a gallery in memory, and a small article for the tests of composition."""

from vedere.compose.article import Article, Paragraph, Picture


class Script:
    """Answers each kind of prompt from its list, the last answer again and again; keeps the prompts."""

    def __init__(self, **answers):
        self.answers = {step: list(given) if isinstance(given, list) else [given] for step, given in answers.items()}
        self.prompts = []

    def answer(self, prompt):
        self.prompts.append(prompt)
        given = self.answers[prompt.step]
        return given.pop(0) if len(given) > 1 else given[0]

    def asked(self, step):
        return [prompt for prompt in self.prompts if prompt.step == step]


class Memory:
    """A gallery that ranks by shared characters; keeps its queries."""

    def __init__(self, *pictures):
        self.pictures, self.queries = pictures, []

    def search(self, caption, count, exclude):
        self.queries.append((caption, frozenset(exclude)))
        left = [picture for picture in self.pictures if picture.id not in exclude]
        return sorted(left, key=lambda picture: -len(set(picture.caption) & set(caption)))[:count]


def picture(name, caption="", **more):
    return Picture(id=name, path=more.pop("path", f"{name}.png"), caption=caption, **more)


def article(*texts, title="杭州西湖"):
    return Article(title=title, paragraphs=tuple(Paragraph(text=text) for text in texts))
