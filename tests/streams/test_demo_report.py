"""The demo's report: complete, self-contained, and nothing in the data becomes markup."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from streams.testbed.demo.demo_report import coloured_width, write_report
from streams.testbed.demo.outcome import DemoOutcome
from streams.testbed.demo.precision import CUTS, Judgement
from streams.testbed.demo.swap_measurement import PHASES, Sent, SwapFigures
from streams.testbed.pages import charts
from streams.testbed.pages import number_text as texts
from streams.testbed.pages.inline_svg import COLOURS

HOSTILE = "<script>alert('x')</script> & \"><img src=http://evil.example/x>"
NAN = float("nan")
VARIANTS = ("coldstart", "evidence", "i2i2u", "random")
SECTIONS = [
    "The way of a song",
    "Who was pushed?",
    "How fast?",
    "One song, closely",
    "What did it take?",
    "Do it again",
]


class Page(HTMLParser):
    """The elements, the text outside the style sheet, and whether every element is closed in its turn."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.headings: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(source)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag != "meta":
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "h2":
            self.headings.append(data)
        if self._open and self._open[-1] != "style":
            self.text += re.sub(r"[ \n]+", " ", data).strip(" ") + "\n"

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture
def outcome() -> DemoOutcome:
    return DemoOutcome(
        dataset="tiny",
        citation=None,
        users=1000,
        warm_songs=200,
        uploads=20,
        songs_without_content=1,
        partitions=4,
        answered=20,
        dead_letters=3,
        dead_letters_identical=True,
        dead_letter_reasons={"InvalidField: title": 1, "Undecodable": 2},
        push_targets=12345,
        pushes_doubled=0,
        latencies={"first": [10.0, 20.0, 30.0, 400.0], "last": [20.0, 30.0, 40.0, 1500.0]},
        judgement=Judgement(
            songs=12,
            precision={arm: dict.fromkeys(CUTS, 0.4 / (n + 1)) for n, arm in enumerate(VARIANTS)},
            recall_200=dict.fromkeys(VARIANTS, 0.5),
            r_precision={
                "5-19": {"coldstart": 0.25, "evidence": 0.125, "songs": 8.0},
                ">=100": {"coldstart": 0.75, "evidence": 0.5, "songs": 4.0},
            },
        ),
        seconds={"data": 0.5, "training": 130.0},
        memory_mb={"total": 2048.0, "demo": 900.0, "audience-0": 150.0},
        listens=54321,
        example={
            "title": "A song",
            "tags": ["rock"],
            "neighbours": [("Another song", 0.9), ("", -0.1)],
            "pushes": 70,
            "best_score": 1.25,
        },
    )


def written(outcome: DemoOutcome, tmp_path: Path, command: str = "coldstart demo") -> tuple[str, Page]:
    path = tmp_path / "report.html"
    write_report(outcome, path, command)
    source = path.read_text(encoding="utf-8")
    return source, Page(source)


def test_says_what_happened_in_words(outcome: DemoOutcome, tmp_path: Path) -> None:
    _, page = written(outcome, tmp_path, "coldstart demo --seed 7")
    assert page.headings == SECTIONS
    for words in (
        "20 songs nobody had heard",
        "Every upload answered by every partition",
        "4 of 10",  # coldstart at 100
        "Anybody: 1 of 10, 4 times fewer",
        "25\u00a0ms",  # the median of the first pushes
        "12,345",
        "54,321",
        "5–19",
        "100+",
        "2\u00a0min 10\u00a0s",
        "2.0\u00a0GB",
        "audience worker 0",
        "Undecodable",
        "Another song",
        "-0.10",
        "coldstart demo --seed 7",
    ):
        assert words in page.text, words


def test_every_picture_says_in_words_what_it_shows(outcome: DemoOutcome, tmp_path: Path) -> None:
    _, page = written(outcome, tmp_path)
    pictures = page.named("svg")
    # Four arms, two of precision, two of latency, the waveform.
    assert len(pictures) == 9
    flow = next(each for each in page.named("div") if each.get("class") == "flow")
    assert all(picture["role"] == "img" and picture["aria-label"] for picture in (*pictures, flow))
    assert len(page.named("table")) == 8


def test_what_is_wrong_is_said(outcome: DemoOutcome, tmp_path: Path) -> None:
    outcome.answered, outcome.dead_letters_identical, outcome.pushes_doubled = 19, False, 2
    _, page = written(outcome, tmp_path)
    assert "19 of 20 uploads answered" in page.text
    assert "not exactly the malformed uploads" in page.text
    assert "pushes that came twice: 2" in page.text
    assert "Every upload answered by every partition" not in page.text


def test_nothing_in_the_data_becomes_markup(outcome: DemoOutcome, tmp_path: Path) -> None:
    clean, plain = written(outcome, tmp_path)
    outcome.dataset = outcome.citation = HOSTILE
    outcome.dead_letter_reasons = {f"InvalidField: {HOSTILE}": 1, "Undecodable": 2}
    outcome.example = {
        "title": HOSTILE,
        "tags": [HOSTILE],
        "neighbours": [(HOSTILE, 0.9), ("", -0.1)],
        "pushes": 70,
        "best_score": 1.25,
    }
    outcome.seconds = {HOSTILE: 0.5, "training": 130.0}
    outcome.memory_mb = {"total": 2048.0, HOSTILE: 900.0, "audience-0": 150.0}
    outcome.judgement = replace(
        outcome.judgement, r_precision={HOSTILE: {"coldstart": 0.25, "evidence": 0.125, "songs": 8.0}, ">=100": {}}
    )
    source, page = written(outcome, tmp_path, HOSTILE)
    # The footer with its paragraph is the citation's; all else is the same elements with other text.
    drawn = ("defs", "g", "path", "text", "use")
    assert [name for name, _ in page.elements if name not in drawn] == [
        name for name, _ in plain.elements if name not in drawn
    ] + ["footer", "p"]
    assert "<script" not in source
    assert "<img" not in source
    assert page.text.count("<script>alert('x')</script>") >= 9
    assert "http" not in clean.replace("http-equiv", "")


def test_loads_nothing(outcome: DemoOutcome, tmp_path: Path) -> None:
    source, page = written(outcome, tmp_path)
    assert not re.search(r"https?:|@import|url\((?!#)", source)
    assert not {"script", "link", "img", "iframe", "object"} & {name for name, _ in page.elements}
    # What a drawing uses twice stands in it.
    used = [attributes.pop("href") or "" for name, attributes in page.elements if name == "use"]
    assert used
    assert all(each.startswith("#") for each in used)
    assert not any(set(attributes) & {"src", "href", "xlink:href"} for _, attributes in page.elements)
    policy = next(each for each in page.named("meta") if each.get("http-equiv") == "Content-Security-Policy")
    assert policy["content"] == "default-src 'none'; style-src 'unsafe-inline'"


def test_a_swap_has_a_section_with_a_dot_for_each_upload_that_led_to_pushes(
    outcome: DemoOutcome, tmp_path: Path
) -> None:
    sent = {phase: Sent(100.0 * number, phase, "s") for number, phase in enumerate(PHASES)}
    waits = {phase: 30.0 for phase in PHASES if phase != "after"}
    starts = {phase: 100.0 * number for number, phase in enumerate(PHASES)}
    spaces = {phase: frozenset(["a"]) for phase in PHASES}
    outcome.swapped = SwapFigures(sent, waits, (), spaces, (), ("a", "b"), starts, 450.0)
    _, page = written(outcome, tmp_path)
    assert page.headings == [*SECTIONS[:-1], "Another model, while songs come in", SECTIONS[-1]]
    assert sum((dot["href"] or "").startswith("#swap-") for dot in page.named("use")) == 4
    assert "None failed, and none waited more than 1.0\u00a0s for a swap." in page.text
    outcome.swapped = replace(outcome.swapped, waits=waits | {"swap": 1500.0})
    _, page = written(outcome, tmp_path)
    assert "✗ Not as it must be: swap of models: an upload waited 1,500 ms" in page.text


def test_a_run_without_pushes_has_a_page_with_dashes(outcome: DemoOutcome, tmp_path: Path) -> None:
    outcome.latencies = {"first": [], "last": []}
    outcome.example, outcome.seconds, outcome.memory_mb, outcome.dead_letter_reasons = {}, {}, {}, {}
    outcome.push_targets = outcome.dead_letters = 0
    outcome.judgement = Judgement(
        songs=0,
        precision={arm: dict.fromkeys(CUTS, NAN) for arm in VARIANTS},
        recall_200=dict.fromkeys(VARIANTS, NAN),
        r_precision={"5-19": {"coldstart": NAN, "evidence": NAN, "songs": 0.0}},
    )
    source, page = written(outcome, tmp_path)
    assert page.headings == SECTIONS
    assert "– of 10" in page.text
    assert "there is nothing to time" in page.text
    assert "there is nothing to show" in page.text
    assert "nan" not in re.sub(r"<style>.*</style>", "", source, flags=re.DOTALL).lower()


def test_an_example_with_nothing_known_has_dashes(outcome: DemoOutcome, tmp_path: Path) -> None:
    outcome.example = {"title": "", "tags": [], "neighbours": [("", NAN)], "pushes": None, "best_score": None}
    source, page = written(outcome, tmp_path)
    assert "– people pushed; the best score is –." in page.text
    assert "nan%" not in source


def test_no_meter_is_shorter_than_nothing(outcome: DemoOutcome, tmp_path: Path) -> None:
    _, page = written(outcome, tmp_path)
    widths = [each["style"] for each in page.named("span") if each.get("class") == "meter"]
    assert "width: 0.0%; margin-left: 0.0%" in widths
    assert not any("-" in (each or "").replace("margin-left", "") for each in widths)


@pytest.mark.parametrize("partitions", [1, 2, 4, 16])
def test_the_flow_names_partitions_up_to_four(outcome: DemoOutcome, tmp_path: Path, partitions: int) -> None:
    outcome.partitions = partitions
    _, page = written(outcome, tmp_path)
    assert len(re.findall(r"^partition \d+$", page.text, re.MULTILINE)) == (partitions if partitions <= 4 else 3)
    assert page.text.count("… 13 more") == (1 if partitions == 16 else 0)


@pytest.mark.parametrize(
    ("fraction", "width"),
    [(0.0, 1), (0.25, 2 * 26 + 1 + 9), (0.3, 3 * 26 + 1), (1.0, 261), (None, 1), (NAN, 1)],
)
def test_people_are_coloured_from_the_left(fraction: float | None, width: float) -> None:
    assert coloured_width(fraction) == pytest.approx(width)


@pytest.mark.parametrize(
    ("values", "span"),
    [([12.0, 480.0], (10, 500)), ([10.0, 500.0], (10, 500)), ([30.0], (20, 100)), ([], (1, 100)), ([-3.0], (0.1, 1))],
)
def test_the_axis_of_times_is_round(values: list[float], span: tuple[float, float]) -> None:
    assert charts.rounded_span(values) == pytest.approx(span)


def test_every_time_stands_in_the_histogram() -> None:
    page = Page(charts.histogram("times", [10.0, 10.0, 100.0, 1000.0], (10, 1000), "default", "words"))
    bars = [each for each in page.named("path") if "fill: var(--default)" in (each.get("style") or "")]
    # Both ends of the axis and its middle; the others have no height.
    assert sum(len({point.split()[1] for point in (bar["d"] or "")[2:].split(" L ")}) > 1 for bar in bars) == 3


def test_the_same_figures_make_the_same_page(outcome: DemoOutcome, tmp_path: Path) -> None:
    assert written(outcome, tmp_path)[0] == written(outcome, tmp_path)[0]


def test_no_two_elements_have_one_id_and_every_one_that_is_meant_is_there(outcome: DemoOutcome, tmp_path: Path) -> None:
    source, page = written(outcome, tmp_path)
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"""(?:url\(|href=")#([\w-]+)""", source)) == set(ids)


def test_every_colour_of_a_drawing_is_the_style_sheets_by_day_and_by_night(
    outcome: DemoOutcome, tmp_path: Path
) -> None:
    source, page = written(outcome, tmp_path)
    assert all(f"--{name}: light-dark(#" in source for name in COLOURS)
    drawn = " ".join(attributes["style"] or "" for name, attributes in page.elements if "style" in attributes)
    assert re.findall(r"(?:fill|stroke): (?!none|var)[^;]*", drawn) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (texts.milliseconds(4.16), "4.2\u00a0ms"),
        (texts.milliseconds(64.6), "65\u00a0ms"),
        (texts.milliseconds(1500), "1.5\u00a0s"),
        (texts.seconds(90.2), "90\u00a0s"),
        (texts.seconds(125), "2\u00a0min 5\u00a0s"),
        (texts.share(0.2859), "28.6\u00a0%"),
        (texts.of_ten(0.2859), "2.9"),
        (texts.of_ten(1.0), "10"),
        (texts.of_ten(0.0), "0"),
        (texts.count(144089), "144,089"),
        (texts.megabytes(146.4), "146\u00a0MB"),
        *((shown(missing), "–") for missing in (None, NAN)
          for shown in (texts.milliseconds, texts.seconds, texts.share, texts.of_ten, texts.count, texts.megabytes)),
    ],
)  # fmt: skip
def test_numbers_as_a_person_reads_them(text: str, expected: str) -> None:
    assert text == expected
