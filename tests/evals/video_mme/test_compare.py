"""The comparison page: figures that are the tables', nothing from elsewhere, and what cannot be compared."""

import re
from html.parser import HTMLParser

import pytest
from film_stand_ins import outcomes

from vedere.errors import ConfigError
from vedere.evals.video_mme.compare import Run, difference, page
from vedere.evals.video_mme.figures import bars, radar
from vedere.evals.video_mme.outcomes import WHOLE, cells
from vedere.evals.video_mme.results import Result
from vedere.evals.video_mme.tables import figure


def run(model, setting, seed, right, notes=()):
    return Run(
        model=model, setting=setting, result=Result(tuple(outcomes(30, seed, right)), notes), source=f"{seed}.json"
    )


@pytest.fixture(scope="module")
def runs():
    return [
        run("small <1>", "frames", 1, 0.4),
        run("small <1>", "frames+subtitles", 2, 0.6),
        run("large", "frames", 3, 0.8, ("2 videos are missing",)),
    ]


@pytest.fixture(scope="module")
def made(runs):
    return page(runs, "Our models")


class Tags(HTMLParser):
    """Checks that elements are closed in order, and collects attributes that could load something."""

    def __init__(self):
        super().__init__()
        self.open, self.loads = [], []

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "br", "link"):
            self.open.append(tag)
        self.loads += [value for name, value in attrs if name in ("src", "href", "xlink:href") and value[:1] != "#"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_stands_alone_and_is_well_formed(made):
    tags = Tags()
    tags.feed(made)
    assert not tags.open
    assert not tags.loads
    assert made.count("<svg") == 4  # bars, two radars, gains
    assert not re.search(r"url\((?!#)", made)
    ids = re.findall(r'\bid="([^"]+)"', made)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', made)) <= set(ids)


def test_the_page_holds_the_figures(made, runs):
    assert "<title>Our models</title>" in made
    assert "small &lt;1&gt;" in made
    assert "small <1>" not in made
    assert "large · frames: 2 videos are missing" in made
    for one in runs:
        found = cells(one.result.outcomes)
        for scope in (WHOLE, "short", "medium", "long"):
            assert f"<td>{figure(found[scope, 'overall', ''])}</td>" in made
    count, points, error = difference(runs[0].result.outcomes, runs[2].result.outcomes)
    assert count == 90
    assert f"<td>{points:+.1f} ±{error:.1f} *</td>" in made


def test_the_same_answers_make_the_same_page(made, runs):
    assert page(runs, "Our models") == made


def test_differences_are_paired(runs):
    one, other = runs[0].result.outcomes, runs[2].result.outcomes
    assert difference(one, one)[1:] == (0, 0)
    _, points, error = difference(one, other)
    assert difference(other, one)[1:] == (pytest.approx(-points), pytest.approx(error))
    assert points == pytest.approx(
        cells(one)[WHOLE, "overall", ""].official.strict - cells(other)[WHOLE, "overall", ""].official.strict
    )
    assert difference(one[:10], other[5:])[0] == 5


def test_what_cannot_be_compared(runs):
    with pytest.raises(ConfigError, match="0 results to compare"):
        page([])
    with pytest.raises(ConfigError, match="a model stands twice in one setting"):
        page([runs[0], runs[0]])
    with pytest.raises(ConfigError, match="9 results to compare; a figure can show 8"):
        page([run(f"m{k}", "frames", k, 0.5) for k in range(9)])
    with pytest.raises(ConfigError, match="a figure of nothing"):
        radar("x", [], {})
    with pytest.raises(ConfigError, match="9 series in one figure; at most 8"):
        bars("x", ["a"], {str(k): [1.0] for k in range(9)})


def test_absent_values_leave_gaps():
    text = bars("x", ["a", "b"], {"one": [1.0, None], "two": [None, None]}, {"one": [0.5, None]})
    assert text.startswith("<svg")
    assert "<title>x</title>" in text
    assert radar("y", ["a", "b", "c"], {"one": [10.0, None, 30.0], "none": [None, None, None]}).count("<svg") == 1
