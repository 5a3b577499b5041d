import io
import json
import random
import re
import shutil
from html.parser import HTMLParser

import pytest
import stand_ins
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image

from vedere.cli import main
from vedere.errors import RecordError
from vedere.evals.intervals import compare
from vedere.evals.report import accuracy, report_page
from vedere.evals.report_compare import pair
from vedere.evals.report_figures import Bar, bars, differences, stacked
from vedere.evals.report_records import ReportItem, ReportRun, tables_of
from vedere.evals.report_sources import read_runs

NASTY = "</script><img src=x onerror=alert(1)>\"'&<!--\u2028\ud800"


def jpeg(colour="red", side=40):
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), colour).save(buffer, "JPEG")
    return buffer.getvalue()


def run(model="m", credits=(1.0, 0.0, None, 1.0, 1.0, 0.0), benchmark="demo", **fields):
    items = [
        ReportItem(
            id=f"q{n}",
            question=f"question {n}",
            options={"A": "one", "B": "two"},
            target="A",
            answer="A" if credit else "B",
            credit=credit,
            group=f"g{n // 2}",
            tags={"kind": "even" if n % 2 == 0 else "odd"},
            **fields,
        )
        for n, credit in enumerate(credits)
    ]
    return ReportRun(benchmark=benchmark, model=model, items=items, figures={"acc": 0.5})


class Structure(HTMLParser):
    """Tags and attributes of a page, and the data in it."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.texts, self._inside = [], [], {}, ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        self._inside = dict(attrs).get("id") or tag

    def handle_data(self, data):
        self.texts[self._inside] = self.texts.get(self._inside, "") + data


def data_of(page):
    return json.loads(Structure(page).texts["data"])


def test_the_page_holds_everything_and_loads_nothing():
    page = report_page([run(media=[jpeg()])])
    found = Structure(page)
    assert not re.search(r"(?:src|href)=[\"']?(?!data:)|url\(|@import|https?://", page.split("<script")[0])
    assert {"link", "iframe", "object"}.isdisjoint(found.tags)
    policy = next(value for name, value in found.attributes if name == "content" and "default-src" in value)
    assert "default-src 'none'" in policy
    assert "img-src data:" in policy
    data = data_of(page)
    assert len(data["items"]) == 6
    assert len(data["pictures"]) == 1  # stored once, though every item has it
    assert data["items"][0]["q"] == "question 0"
    assert [item["a"]["0"]["c"] for item in data["items"]] == [1, 0, None, 1, 1, 0]


def test_the_policy_allows_exactly_the_pages_own_script():
    import base64
    import hashlib

    page = report_page([run()])
    script = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    assert len(script) == 1
    digest = base64.b64encode(hashlib.sha256(script[0].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page
    assert "innerHTML" not in script[0]
    assert "eval(" not in script[0]


def nasty_run(text):
    item = ReportItem(
        id=text, question=text, options={"A": text}, target=text, answer=text, read=text, credit=0.5, label=text, group=text,
        tags={text: text, "other": text + "1"}, note=text,
    )  # fmt: skip
    other = ReportItem(id=text + "2", tags={text: "v", "other": "w"}, credit=1.0)
    return ReportRun(benchmark=text, model=text, items=[item, other], figures={text: 1.0}, facts={text: text})


@hypothesis_settings(max_examples=30, deadline=None)
@given(st.text(st.sampled_from(list("<>&\"'/! -scriptx=\u2028\u0000]")), min_size=1, max_size=40))
def test_no_text_becomes_markup(text):
    plain = Structure(report_page([nasty_run("text")]))
    found = Structure(report_page([nasty_run(text)]))
    assert found.tags == plain.tags
    assert [name for name, _ in found.attributes] == [name for name, _ in plain.attributes]


def test_nasty_texts_come_back_whole_from_the_data():
    page = report_page([nasty_run(NASTY)])
    assert NASTY.replace("\ud800", "?") in (data_of(page)["items"][0]["q"],)
    assert "<img src=x" not in page
    page.encode("utf-8")


@given(st.lists(st.sampled_from([0.0, 0.3, 1.0, None]), min_size=1, max_size=30))
def test_accuracy_is_the_mean_with_open_items_as_wrong(credits):
    found = accuracy(run(credits=credits))
    assert found.value == pytest.approx(sum(credit or 0 for credit in credits) / len(credits))
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.n == len(credits)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40))
def test_a_comparison_of_runs_is_that_of_their_credits_in_any_order(rows):
    first = run("a", [float(a) for a, _ in rows])
    second = run("b", [float(b) for _, b in rows])
    shuffled = ReportRun(benchmark="demo", model="b", items=list(reversed(second.items)))
    whole = compare(first.credits, second.credits, first.clusters, draws=50)
    assert pair(first, second, draws=50).whole == whole
    assert pair(first, shuffled, draws=50).whole == whole
    found = pair(first, second, draws=50)
    for parts in found.by.values():
        total = sum(one.difference.n * one.difference.value for one in parts.values())
        if sum(one.difference.n for one in parts.values()) == len(rows):
            assert total == pytest.approx(len(rows) * whole.difference.value)


def test_only_common_items_are_compared_and_the_rest_is_said():
    first = run("a")
    second = ReportRun(benchmark="demo", model="b", items=run("b").items[2:])
    found = pair(first, second)
    assert (found.items, found.only_one) == (4, 2)
    assert "2 stand in one run only" in report_page([first, second])
    with pytest.raises(RecordError, match="no item of demo in common"):
        pair(first, ReportRun(benchmark="demo", model="b", items=[ReportItem(id="x")]))
    with pytest.raises(RecordError, match="expected two of one benchmark"):
        pair(first, run("b", benchmark="other"))


def test_safety_items_without_a_verdict_are_in_no_comparison():
    credits = [(1.0, 1.0), (None, 1.0), (0.0, None), (0.0, 1.0)]
    first, second = (
        ReportRun(
            benchmark="s",
            model=str(number),
            private=True,
            items=[ReportItem(id=str(n), credit=pair_[number]) for n, pair_ in enumerate(credits)],
        )
        for number in (0, 1)
    )
    found = pair(first, second)
    assert (found.items, found.unjudged, found.only_one) == (2, 2, 0)
    assert found.whole.difference.value == 0.5
    silent = ReportRun(benchmark="s", model="2", private=True, items=[ReportItem(id=str(n)) for n in range(4)])
    page = report_page([first, silent])
    assert "no item of s in common that can be compared" in page
    assert "2 without a verdict of both left out" in report_page([first, second])


def test_runs_of_several_benchmarks_and_models_stand_in_one_page():
    page = report_page([run("a"), run("b"), run("a", benchmark="second")])
    data = data_of(page)
    assert (data["benchmarks"], data["models"]) == (["demo", "second"], ["a", "b"])
    assert len(data["items"]) == 12
    assert page.count('class="pair"') == 1
    with pytest.raises(RecordError, match="LOG=NAME"):
        report_page([run("a"), run("a")])
    with pytest.raises(RecordError, match="no runs"):
        report_page([])


def test_pictures_beyond_the_limit_are_left_out_and_counted():
    rng = random.Random(0)
    pictures = [rng.randbytes(10_000) for _ in range(6)]
    items = [ReportItem(id=str(n), question="q", media=[picture]) for n, picture in enumerate(pictures)]
    page = report_page([ReportRun(benchmark="d", model="m", items=items)], media_megabytes=0.035)
    assert len(data_of(page)["pictures"]) == 3
    assert "3 pictures were left out" in page


def test_ids_are_unique_and_private_runs_show_nothing():
    with pytest.raises(RecordError, match="'q' twice"):
        ReportRun(benchmark="d", model="m", items=[ReportItem(id="q"), ReportItem(id="q")])
    for fields in ({"question": "x"}, {"answer": "x"}, {"media": [b"x"]}, {"read": "x"}, {"target": "x"}):
        with pytest.raises(RecordError, match="more than id, category and label"):
            ReportRun(benchmark="d", model="m", items=[ReportItem(id="q", **fields)], private=True)


def test_tags_with_one_value_are_no_table():
    found = tables_of(run())
    assert found == {"kind": {"even": [0, 2, 4], "odd": [1, 3, 5]}}
    assert tables_of(run(credits=[1.0])) == {}


@given(st.floats(-100, 100), st.floats(0, 60), st.text(max_size=20))
def test_figures_are_well_formed_whatever_the_numbers(value, half, label):
    import xml.etree.ElementTree as ElementTree

    bar = Bar(label=label, value=value, low=value - half, high=value + half, n=3)
    text = "".join(character for character in label if character.isprintable())
    bar = Bar(label=text, value=value, low=value - half, high=value + half, n=3)
    for svg in (
        bars([bar], text),
        differences([bar, bar], text),
        stacked([(text, [("ASR", 40.0), ("RR", 60.0)], 5)], text),
    ):
        root = ElementTree.fromstring(svg)
        numbers = [float(x) for node in root.iter() for x in (node.get("x1"), node.get("x2"), node.get("cx")) if x]
        assert root.tag == "svg"
        assert all(number == number for number in numbers)


def recorded(path, count=6):
    rows = [
        {
            "question_id": f"{n:03d}", "duration": "short" if n % 2 else "long", "domain": "Film", "sub_category": "Animation",
            "task_type": "Counting", "question": f"question {n}", "options": ["A. one", "B. two", "C. three", "D. four"],
            "answer": "A", "response": "A" if n % 3 else "B", "image": "a.png", "video_id": f"v{n // 2}",
        }
        for n in range(count)
    ]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return rows


def test_recorded_answers_are_scored_and_shown_with_their_pictures(tmp_path, capsys):
    recorded(tmp_path / "answers.jsonl")
    stand_ins.square(tmp_path / "a.png", 1)
    out = tmp_path / "report.html"
    options = ["--benchmark", "video-mme", "--out", str(out), "--json"]
    assert main(["report", str(tmp_path / "answers.jsonl"), *options]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["runs"], said["items"]) == (1, 6)
    data = data_of(out.read_text())
    assert data["models"] == ["answers"]
    assert [item["a"]["0"]["c"] for item in data["items"]] == [0, 1, 1, 0, 1, 1]
    assert data["items"][0]["o"] == {"A": "one", "B": "two", "C": "three", "D": "four"}
    assert len(data["pictures"]) == 1
    assert data["items"][1]["k"]["duration"] == "short"
    assert main(["report", f"{tmp_path / 'answers.jsonl'}=a", f"{tmp_path / 'answers.jsonl'}=b", *options]) == 0
    assert "McNemar p = 1" in out.read_text()


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("none.eval", None, "does not exist"),
        ("bad.eval", b"no zip", "cannot be read as a log of Inspect"),
        ("bad.json", b'{"version": 2, "eval": {}}', "cannot be read as a log of Inspect"),
        ("rows.jsonl", b'{"a": 1}\n', "--benchmark NAME"),
    ],
)
def test_logs_that_are_none_are_told(tmp_path, capsys, name, content, match):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert main(["report", str(tmp_path / name), "--out", str(tmp_path / "r.html")]) == 2
    assert match in capsys.readouterr().err
    assert not (tmp_path / "r.html").exists()


def test_a_row_names_no_picture_outside_its_folder(tmp_path):
    (tmp_path / "rows").mkdir()
    rows = recorded(tmp_path / "rows" / "answers.jsonl", 1)
    stand_ins.square(tmp_path / "secret.png", 1)
    rows[0]["image"] = "../secret.png"
    (tmp_path / "rows" / "answers.jsonl").write_text(json.dumps(rows[0]))
    (found,) = read_runs(tmp_path / "rows" / "answers.jsonl", benchmark="video-mme")
    assert found.items[0].media == []


@pytest.fixture(scope="module")
def inspect_log(tmp_path_factory):
    """A log in Inspect's own form, written by Inspect: one picture, three questions, one answer wrong."""
    import base64

    from inspect_ai import log as logs
    from inspect_ai import scorer
    from inspect_ai.model import ChatMessageUser, ContentImage, ContentText, ModelOutput

    url = "data:image/jpeg;base64," + base64.b64encode(jpeg("blue", 900)).decode()
    content = [ContentImage(image=url), ContentText(text="Which colour? <b>")]
    samples = [
        logs.EvalSample(
            id=f"s{n}",
            epoch=1,
            input=[ChatMessageUser(content=content)],
            choices=["red", "blue"],
            target="B",
            messages=[ChatMessageUser(content=content)],
            output=ModelOutput.from_content("mockllm/model", f"ANSWER: {letter}"),
            scores={"choice": scorer.Score(value="C" if letter == "B" else "I", answer=letter)},
            metadata={"group": "g", "category": "colours"},
        )
        for n, letter in enumerate("BAB")
    ]
    kept = {"shown": {"category": "colours"}, "not_asked": "picture x.png cannot be read", "record": {"id": "s3"}}
    samples.append(
        logs.EvalSample(
            id="s3",
            epoch=1,
            input="Which colour?",
            choices=["A. red", "B. blue"],
            target="B",
            scores={"rules": scorer.Score(value=0.0, answer="")},
            metadata={"group": "g", "vedere": kept},
        )
    )
    spec = logs.EvalSpec(
        created="2026-01-02T03:04:05+00:00",
        task="colours",
        dataset=logs.EvalDataset(),
        model="mockllm/model",
        config=logs.EvalConfig(),
    )
    metrics = {"accuracy": logs.EvalMetric(name="accuracy", value=2 / 3)}
    results = logs.EvalResults(scores=[logs.EvalScore(name="choice", scorer="choice", metrics=metrics)])
    path = tmp_path_factory.mktemp("logs") / "run.eval"
    logs.write_eval_log(logs.EvalLog(status="success", eval=spec, results=results, samples=samples), str(path))
    return path


def test_a_log_of_inspect_is_read_with_pictures_and_options(inspect_log):
    (found,) = read_runs(inspect_log)
    assert (found.benchmark, found.model) == ("colours", "mockllm/model")
    assert [item.credit for item in found.items] == [1, 0, 1, None]
    silent = found.items[3]
    assert silent.note == "picture x.png cannot be read"
    assert (silent.question, silent.options, silent.tags) == (
        "Which colour?",
        {"A": "red", "B": "blue"},
        {"category": "colours"},
    )
    one = found.items[0]
    assert "Which colour? <b>" in one.question
    assert one.options == {"A": "red", "B": "blue"}
    assert (one.target, one.read, one.group, one.tags) == ("B", "B", "g", {"category": "colours"})
    assert max(Image.open(io.BytesIO(one.media[0])).size) == 320
    assert "accuracy" in json.dumps(found.figures)


def test_five_thousand_items_are_drawn_as_they_are_scrolled_to(tmp_path):
    """In a real browser, off line: few nodes at first, filters, wrong ones, no error, no script out of a text."""
    browser_path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser_path is None:
        pytest.skip("no browser on this machine")
    from playwright.sync_api import expect, sync_playwright

    rng = random.Random(0)
    items = [
        ReportItem(
            id=f"q{n}", question=f"number {n} {NASTY}", answer=NASTY, credit=float(rng.random() < 0.7), tags={"k": f"v{n % 3}"}
        )
        for n in range(5000)
    ]  # fmt: skip
    wrong = sum(item.credit == 0 for item in items)
    page_file = tmp_path / "r.html"
    page_file.write_text(report_page([ReportRun(benchmark="d", model="m", items=items)]), encoding="utf-8")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1000, "height": 800}, offline=True)
        errors = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("dialog", lambda dialog: errors.append("a text ran as script"))
        page.on("console", lambda line: errors.append(line.text) if line.type == "error" else None)
        page.goto(page_file.as_uri())
        page.wait_for_selector(".item")
        first = page.locator(".item").count()
        assert 0 < first < 300
        page.mouse.wheel(0, 20_000)
        expect(page.locator(".item")).not_to_have_count(first)
        page.select_option("#verdict", "wrong")
        expect(page.locator("#count")).to_have_text(f"{wrong} of 5000")
        assert page.locator(".item.right").count() == 0
        page.select_option("#verdict", "all")
        page.fill("#search", "number 4321")
        expect(page.locator("#count")).to_have_text("1 of 5000")
        assert NASTY[:30] in page.locator(".question").text_content()
        page.fill("#search", "")
        page.locator("#tags select").first.select_option("v1")
        expect(page.locator("#count")).to_have_text("1667 of 5000")
        before = page.evaluate("getComputedStyle(document.body).backgroundColor")
        page.click("#theme")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") != before
        browser.close()
    assert not errors
