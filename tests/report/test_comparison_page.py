import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from stabn.report.charts.svg import distinct
from stabn.report.comparison_content import (
    ClassShares,
    Evidence,
    ExplanationSection,
    LocalisationChart,
    PerturbationCurvePair,
    PerturbationPanels,
    Reliability,
    ReliabilityBin,
)
from stabn.report.content import Cell, Comparison, Confusion, Contrast, ContrastRow, Difference, Row
from stabn.report.page import write_evidence

NASTY = "Putting <b>\"this\"</b> & 'that' {{ 7 * 7 }} </svg><script>"
CELL = Cell(0.5, 0.4, 0.6, 90)
BETTER, LEVEL = Difference(0.1, 0.05, 0.15), Difference(0.0, -0.1, 0.1)
TRACE = PerturbationCurvePair((0.9, 0.3, 0.1), (0.1, 0.6, 0.9), 0.4, 0.55)


def comparison(columns=("edited classes", "other classes", "all"), names=("before", "control", NASTY)) -> Comparison:
    rows = tuple(Row(n, NASTY, (CELL,) * len(columns), (("frame AP", "0.5"),), control=n == "control") for n in names)
    return Comparison("validation", (NASTY,), rows, f"No {NASTY}.", tuple(columns))


def evidence(**changes) -> Evidence:
    values = {
        "title": NASTY,
        "intro": NASTY,
        "reading": NASTY,
        "comparison": comparison(),
        "former": comparison(("formerly wrong, mended", "formerly right, kept"), ("control", NASTY)),
        "contrasts": (
            Contrast(
                NASTY,
                ("all", "frame AP"),
                (ContrastRow(NASTY, (BETTER, None), ((NASTY, NASTY), ("p (McNemar)", "1"))),),
            ),
            Contrast("before", ("all",), (ContrastRow("after", (LEVEL,)),)),
        ),
        "reliabilities": (
            Reliability(NASTY, "10 (5 – 15)", (ReliabilityBin(0.2, 0.1, 3), ReliabilityBin(0.8, 1.0, 1))),
        ),
        "classes": ClassShares(
            (NASTY, "b", "c", "d"),
            (4, 2, 0, 1),
            (NASTY,),
            (("before", (0.5, 1.0, None, 0.0)), ("control", (0.5, 0.5, None, 0.0)), (NASTY, (0.75, 0.5, None, 0.0))),
            "control",
        ),
        "confusions": (Confusion(NASTY, (NASTY, "b"), np.array([[4, 3], [0, 5]])),),
        "looks": ExplanationSection(
            clips=7,
            drops=Contrast("its own", ("inverse-spatial",), (ContrastRow(NASTY, (BETTER,)),)),
            removals=tuple(
                PerturbationPanels(
                    NASTY, baseline, (NASTY, "cam"), ("frames", "both"), ((TRACE, TRACE), (TRACE, TRACE))
                )
                for baseline in ("blur", "mean")
            ),
            ahead=(Contrast(NASTY, ("frame AP",), (ContrastRow(NASTY, (BETTER,)),)),),
            located=(LocalisationChart(NASTY, ("frame AP",), (Row(NASTY, "", (CELL,)),), (0.2,)),),
        ),
        "facts": ((NASTY, NASTY),),
        "caveats": (NASTY,),
    }
    return Evidence(**values | changes)


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("evidence") / "page.html"
    write_evidence(path, evidence())
    return path.read_text(encoding="utf-8")


class Outline(HTMLParser):
    """Tags with attributes and text, and whether every tag is closed in its place."""

    VOID = ("meta", "br", "hr", "img", "input")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_the_page_is_well_formed_and_asks_nobody_for_anything(html):
    page = Outline(html)
    assert page.open == []
    assert not {"script", "link", "iframe", "object", "embed", "base", "img"} & {tag for tag, _ in page.tags}
    for _, attributes in page.tags:
        assert not {"src", "srcset", "action", "background", "poster"} & set(attributes)
        assert all(not name.startswith("on") for name in attributes)
        assert (attributes.get("href") or "#").startswith("#")
    assert "default-src 'none'" in html
    assert not re.search(r"https?:|@import|url\(", html)


def test_names_are_text_wherever_they_appear(html):
    assert Outline(html).text.count(NASTY) > 20
    assert '<b>"this"' not in html
    assert "<script" not in html


def test_the_contents_lead_to_every_section(html):
    page = Outline(html)
    sections = [attributes["id"] for tag, attributes in page.tags if tag == "section"]
    assert [a["href"] for tag, a in page.tags if tag == "a"] == [f"#{section}" for section in sections]
    assert sections == [
        "comparison",
        "differences",
        "calibration",
        "classes",
        "explanations",
        "confusions",
        "caveats",
        "settings",
    ]


def test_every_drawing_is_well_formed_named_and_coloured_by_the_page(html):
    drawings = re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL)
    assert len(drawings) == 12
    styles = set(re.findall(r"svg \.([\w-]+)", html))
    for drawing in drawings:
        root = ElementTree.fromstring(drawing)
        assert root.attrib["aria-label"]
        assert not re.search(r"(fill|stroke)=\"#|style=\"[^\"]*(fill|stroke)", drawing)
        assert {element.attrib.get("class") for element in root.iter()} - {None} <= styles | {"wide"}


def test_nothing_is_drawn_outside_its_drawing(html):
    for drawing in re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL):
        root = ElementTree.fromstring(drawing)
        _, _, width, height = map(float, root.attrib["viewBox"].split())
        for element in root.iter():
            for name, most in (("cx", width), ("x", width), ("cy", height), ("y", height)):
                if name in element.attrib:
                    assert 0 <= float(element.attrib[name]) <= most + 0.5


def test_a_difference_is_bold_where_its_interval_excludes_none(html):
    assert "<strong>+10.0</strong><small>+5.0 to +15.0</small>" in html
    assert "<strong>+0.0</strong>" not in html
    assert "+0.0<small>−10.0 to +10.0</small>" in html


def test_classes_that_gained_come_first_and_those_without_clips_are_left_out(html):
    shares = evidence().classes
    assert shares.most_changed(9) == (0, 3, 1)
    assert shares.most_changed(2) == (0, 1)
    assert [shares.change(k) for k in range(4)] == [0.25, -0.5, 0.0, 0.0]
    drawn = html.split('id="classes"')[1].split("</svg>")[0]
    assert "+25.0" in drawn
    assert "-50.0" in drawn
    assert drawn.count('class="gain"') == drawn.count('class="loss"') == 1


def test_a_dot_stands_at_its_confidence_and_its_share_of_right_answers(html):
    drawn = html.split('id="calibration"')[1].split("</svg>")[0]
    (x1, y1), (x2, y2) = (map(float, c) for c in re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', drawn))
    grid = [float(x) for x in re.findall(r'"rule" d="M([\d.]+) ', drawn)]
    left, right = grid[0], grid[-1]
    assert (x1 - left) / (right - left) == pytest.approx(0.2, abs=0.01)
    assert (x2 - left) / (right - left) == pytest.approx(0.8, abs=0.01)
    assert (y1 - y2) / (right - left) == pytest.approx(0.9, abs=0.01)


def test_curves_go_through_their_values(html):
    drawn = html.split("insertion and deletion curves")[1].split("</svg>")[0]
    points = re.search(r'class="insertion" d="M([\d. ]+)"><title>', drawn)[1].split()
    x, y = np.array(points, dtype=float).reshape(-1, 2).T
    assert np.allclose(np.diff(x), np.diff(x)[0], atol=0.11)
    assert (y[0] - y[1]) / (y[0] - y[2]) == pytest.approx((0.6 - 0.1) / (0.9 - 0.1), abs=0.01)
    assert "ins 0.55, del 0.40" in drawn


def test_a_page_of_a_table_alone_is_a_page(tmp_path: Path):
    empty = {"former": None, "contrasts": (), "reliabilities": (), "classes": None, "confusions": (), "looks": None}
    write_evidence(tmp_path / "p.html", evidence(**empty, facts=(), caveats=()))
    page = Outline((tmp_path / "p.html").read_text(encoding="utf-8"))
    assert [a["id"] for tag, a in page.tags if tag == "section"] == ["comparison"]


@pytest.mark.parametrize("classes", [2, 30, 174])
def test_few_and_many_classes_with_names_that_begin_alike_stay_apart(classes, tmp_path):
    names = tuple(f"Pretending to put something behind something else number {k}" for k in range(classes))
    rng = np.random.default_rng(0)
    networks = tuple((name, tuple(rng.random(classes).tolist())) for name in ("before", "after"))
    shares = ClassShares(names, (5,) * classes, (), networks)
    write_evidence(tmp_path / "p.html", evidence(classes=shares))
    html = (tmp_path / "p.html").read_text(encoding="utf-8")
    drawn = html.split('id="classes"')[1].split("</svg>")[0]
    labels = re.findall(r'text-anchor="end">(Pretending[^<]*)<', drawn)
    assert len(set(labels)) == len(labels) == min(classes, 40)
    assert (f"Of {classes} classes, the 40 that changed most" in html) == (classes > 40)


def test_the_same_evidence_gives_the_same_bytes(tmp_path: Path):
    for name in ("a.html", "b.html"):
        write_evidence(tmp_path / name, evidence())
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_shortened_names_show_how_they_end_where_they_begin_alike():
    assert distinct(["short", "long enough to be cut"], 10) == ["short", "long enou…"]
    assert distinct(["a name that ends in one", "a name that ends in two"], 12) == ["a nam…in one", "a nam…in two"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Difference(0.5, 0.6, 0.7), "outside its interval"),
        (lambda: Difference(1.5, 1.4, 1.6), r"expected -1\.\.1"),
        (lambda: Contrast("a", (), ()), "at least one"),
        (lambda: Contrast("a", ("all",), (ContrastRow("b", (None, None)),)), "got 2 changes, expected 1"),
        (lambda: ReliabilityBin(0.5, 1.5, 3), "shares in 0..1"),
        (lambda: Reliability("a", "", ()), "at least one"),
        (lambda: Reliability("a", "", (ReliabilityBin(0.5, 0.5, 1), ReliabilityBin(0.4, 0.5, 1))), "rising"),
        (lambda: ClassShares(("a",), (1,), (), (("n", (0.5,)),)), "at least two"),
        (lambda: ClassShares(("a",), (1,), (), (("n", (0.5,)), ("m", ()))), "got 0 numbers, expected 1"),
        (lambda: ClassShares(("a",), (1,), (), (("n", (0.5,)), ("m", (1.5,)))), "shares in 0..1"),
        (lambda: PerturbationCurvePair((0.5,), (0.5,), 0.5, 0.5), "from two"),
        (lambda: PerturbationCurvePair((0.5, 2.0), (0.5, 0.5), 0.5, 0.5), r"got 2\.0"),
        (lambda: PerturbationPanels("a", "blur", ("m",), ("frames",), ((TRACE, TRACE),)), "expected 1 rows of 1"),
        (lambda: LocalisationChart("a", ("x",), (), ()), "chance: got 0 values"),
    ],
)
def test_what_makes_no_sense_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
