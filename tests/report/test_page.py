import base64
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from stabn.data.video.clip import write_video
from stabn.errors import UserError
from stabn.report.charts.svg import shorten
from stabn.report.content import (
    ClassShares,
    Confusion,
    Curve,
    CurveGrid,
    CurvePair,
    Estimate,
    EstimateTable,
    Example,
    Explanations,
    Page,
    Reliability,
    Row,
)
from stabn.report.page import write_page

NASTY = "Putting <b>\"this\"</b> & 'that' $x^2$ {{ 7 * 7 }} </svg><script>"
SHARE = Estimate(0.5, 0.4, 0.6, 90)
GAIN, NONE = Estimate(0.1, 0.05, 0.15), Estimate(0.0, -0.1, 0.1)
BINS = [{"confidence": c, "accuracy": a, "count": n} for c, a, n in ((0.2, 0.1, 3), (None, None, 0), (0.8, 1.0, 1))]
PAIR = CurvePair((0.9, 0.3, 0.1), (0.1, 0.6, 0.9), 0.4, 0.55)
EPOCH = {"epoch": 1, "train_loss": 2.5, "train_top1": 0.25, "validation_loss": 2.75, "validation_top1": 0.125}


def shares(title="top-1", columns=("edited classes", "all"), names=("before", "longer", NASTY)):
    extra = {"longer": (("mended", "3"),), NASTY: (("mended", "30"), ("newly wrong", "12"))}
    rows = [Row(n, (SHARE,) * len(columns), NASTY, extra.get(n, ()), control=n == "longer") for n in names]
    return EstimateTable(title, columns, tuple(rows))


def gains(title, cells=(GAIN, None), name=NASTY) -> EstimateTable:
    columns = ("all", "frame AP")[: len(cells)]
    return EstimateTable(title, columns, (Row(name, cells, extra=((NASTY, NASTY), ("p (McNemar)", "1"))),))


def content(film: Path | None = None, **changes) -> Page:
    grid = ((PAIR, PAIR), (PAIR, PAIR))
    values = {
        "title": NASTY,
        "intro": NASTY,
        "reading": NASTY,
        "verdict": "No.",
        "comparison": shares(),
        "edited_classes": (NASTY,),
        "former": shares("former", ("formerly wrong, mended", "formerly right, kept"), ("longer", NASTY)),
        "differences": (gains(NASTY), gains("before", (NONE,), "after")),
        "reliabilities": (Reliability(NASTY, "10 (5 – 15)", BINS),),
        "classes": ClassShares(
            (NASTY, "b", "c", "d"),
            (4, 2, 0, 1),
            (NASTY,),
            (("before", (0.5, 1.0, None, 0.0)), ("longer", (0.5, 0.5, None, 0.0)), (NASTY, (0.75, 0.5, None, 0.0))),
            "longer",
        ),
        "explanations": Explanations(
            clips=7,
            drops=gains("its own", (GAIN,)),
            curves=tuple(CurveGrid(NASTY, b, (NASTY, "cam"), ("frames", "both"), grid) for b in ("blur", "mean")),
            against_others=(gains(f"others of {NASTY}", (GAIN,)),),
            localisation=(EstimateTable(NASTY, ("frame AP",), (Row("cam", (SHARE,)),), (0.2,)),),
        ),
        "examples": () if film is None else (Example("7", NASTY, film, NASTY),),
        "confusions": (Confusion(NASTY, (NASTY, "b", "c"), np.array([[4, 3, 0], [0, 5, 0], [0, 0, 0]])),),
        "curves": (Curve("first", (EPOCH, {**EPOCH, "epoch": 2})), Curve("second", (EPOCH,))),
        "facts": (("data", "https://example.org/data"), (NASTY, NASTY)),
        "caveats": (NASTY,),
    }
    return Page(**values | changes)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("films") / "film.mp4"
    write_video(path, np.zeros((2, 16, 16, 3), np.uint8), 4)
    return path


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory, film: Path) -> str:
    return written(tmp_path_factory.mktemp("page"), content(film))


def written(folder: Path, page: Page) -> str:
    write_page(folder / "page.html", page)
    return (folder / "page.html").read_text(encoding="utf-8")


def section(html: str, name: str) -> str:
    return html.split(f'<section id="{name}">')[1].split("</section>")[0]


def charts(html: str) -> list[ElementTree.Element]:
    return [ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL)]


def marks(html: str, words: str) -> list[tuple[float, float]]:
    """Where the marks are drawn whose tooltips begin so, in the units of their chart."""
    groups = [g for chart in charts(html) for g in chart.iter("g") if (g.findtext("title") or "").startswith(words)]
    return [(float(use.attrib["x"]), float(use.attrib["y"])) for group in groups for use in group.iter("use")]


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

    def values(self, attribute: str) -> list[str]:
        return [attributes[attribute] or "" for _, attributes in self.tags if attribute in attributes]


def test_the_page_is_well_formed_and_asks_nobody_for_anything(html):
    page = Outline(html)
    assert page.open == []
    assert not {"script", "link", "iframe", "object", "embed", "base", "img"} & {tag for tag, _ in page.tags}
    assert page.values("src")
    assert all(value.startswith("data:") for value in page.values("src"))
    assert all(value.startswith("#") for value in (*page.values("href"), *page.values("xlink:href")))
    names = {name for _, attributes in page.tags for name in attributes}
    assert not any(name.startswith(("on", "srcset", "poster", "action", "background")) for name in names)
    assert "default-src 'none'" in html
    assert "@import" not in html
    assert all(address.startswith("#") for address in re.findall(r"url\((.*?)\)", html))
    # the one address in the file is a setting that the caller gave, as text
    assert re.findall(r"https?:[^<]*", html) == ["https://example.org/data"]


def test_names_are_text_wherever_they_appear(html):
    assert Outline(html).text.count(NASTY) > 20
    assert '<b>"this"' not in html
    assert "<b>&#34;" not in html
    assert "<script" not in html


def test_the_film_inside_is_the_file(html, film):
    (source,) = (attributes["src"] for tag, attributes in Outline(html).tags if tag == "video")
    kind, data = source.split(",")
    assert kind == "data:video/mp4;base64"
    assert base64.b64decode(data) == film.read_bytes()


def test_the_contents_lead_to_every_section(html):
    page = Outline(html)
    sections = [attributes["id"] for tag, attributes in page.tags if tag == "section"]
    assert [a["href"] for tag, a in page.tags if tag == "a"] == [f"#{name}" for name in sections]
    assert (
        " ".join(sections)
        == "comparison differences calibration classes explanations examples confusions training caveats settings"
    )


@pytest.mark.parametrize("changes", [{}, {"comparison": shares(), "verdict": "No."}])
def test_parts_without_content_are_left_out(changes, tmp_path):
    page = Outline(written(tmp_path, Page("Nothing yet", "", **changes)))
    assert "Nothing yet" in page.text
    assert [a["id"] for tag, a in page.tags if tag == "section"] == list(changes)[:1]


def test_every_chart_is_named_and_takes_its_colours_and_fonts_from_the_page(html):
    assert len(charts(html)) == 14
    assert all(chart.attrib["aria-label"] and chart.attrib["role"] == "img" for chart in charts(html))
    classes = {element.attrib.get("class") for chart in charts(html) for element in chart.iter()} - {None, "wide"}
    assert classes <= set(re.findall(r"svg \.([\w-]+)", html))
    for drawing in re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL):
        colours = re.findall(r"(?:fill|stroke)[=:] ?\"?([^;\"]+)", drawing)
        assert all(colour.startswith(("none", "currentColor", "var(--")) for colour in colours), set(colours)
        assert "DejaVu" not in drawing
        assert "<style" not in drawing
    ids = re.findall(r'\bid="(.*?)"', html)
    assert len(ids) == len(set(ids))


def test_nothing_is_drawn_outside_its_chart(html):
    for chart in charts(html):
        _, _, width, height = map(float, chart.attrib["viewBox"].split())
        for element in chart.iter():
            for name, most in (("cx", width), ("x", width), ("cy", height), ("y", height)):
                if name in element.attrib:
                    assert 0 <= float(element.attrib[name]) <= most + 0.5


def test_the_same_content_gives_the_same_bytes(tmp_path):
    assert written(tmp_path, content()) == written(tmp_path, content())


def test_tables_name_control_and_verdict_mark_what_is_missing_and_what_excludes_zero(html):
    assert "longer (control)" in Outline(html).text
    assert 'class="tag">control' in html
    assert 'class="verdict">No.' in html
    rows = re.findall(r"<tr>.*?</tr>", section(html, "comparison"), flags=re.DOTALL)
    assert [row.count("–</td>") for row in rows[1:]] == [2, 1, 0]
    assert "<strong>+10.0</strong><small>+5.0 to +15.0</small>" in html
    assert "<strong>+0.0</strong>" not in html
    assert "+0.0<small>−10.0 to +10.0</small>" in html


def test_intervals_at_the_ends_of_the_scale_stay_inside_their_panel(tmp_path):
    cells = (Estimate(1.0, 0.9, 1.0, 5), Estimate(0.0, 0.0, 0.1, 5), Estimate(0.5, 0.0, 1.0, 5))
    table = EstimateTable("t", ("a", "b", "c"), (Row("all right", cells),))
    html = written(tmp_path, Page("t", "i", comparison=table, verdict="No."))
    places = [x for column in "abc" for x, _ in marks(html, f"all right, {column}:")]
    assert len(places) == 3
    assert places == sorted(places)
    assert 0 < places[0] < places[-1] < float(charts(html)[0].attrib["viewBox"].split()[2])


def test_classes_that_gained_come_first_and_those_without_clips_are_left_out(html):
    classes = content().classes
    assert classes.most_changed(9) == (0, 3, 1)
    assert classes.most_changed(2) == (0, 1)
    assert [classes.change(k) for k in range(4)] == [0.25, -0.5, 0.0, 0.0]
    drawn = section(html, "classes")
    assert "+25.0" in drawn
    assert "-50.0" in drawn
    ((_, first),), ((_, last),) = marks(drawn, "before: 50.0 %"), marks(drawn, "before: 100.0 %")
    assert first < last
    assert not marks(drawn, "before: 0.0 % of c")


def test_a_dot_stands_at_its_confidence_and_its_share_of_right_answers(html):
    drawn = section(html, "calibration")
    ((x1, y1),), ((x2, y2),) = marks(drawn, "confidence 20 %: 10 % right of 3"), marks(drawn, "confidence 80 %: 100 %")
    side = (x2 - x1) / 0.6
    assert (y1 - y2) / side == pytest.approx(0.9, abs=0.01)


def test_curves_go_through_their_values(html):
    drawn = next(c for c in charts(html) if c.attrib["aria-label"].endswith("insertion and deletion curves"))
    group = next(g for g in drawn.iter("g") if g.findtext("title") == "cam, insertion: area 0.550")
    points = re.findall(r"[\d.]+", group.find("path").attrib["d"])
    x, y = np.array(points, dtype=float).reshape(-1, 2).T
    assert np.allclose(np.diff(x), np.diff(x)[0], atol=0.11)
    assert (y[0] - y[1]) / (y[0] - y[2]) == pytest.approx((0.6 - 0.1) / (0.9 - 0.1), abs=0.01)
    assert "ins 0.55, del 0.40" in "".join(drawn.itertext())


@pytest.mark.parametrize("classes", [2, 30, 174])
def test_few_and_many_classes_with_names_that_begin_alike_stay_apart(classes, tmp_path):
    names = tuple(f"Pretending to put something behind something else number {k}" for k in range(classes))
    rng = np.random.default_rng(0)
    networks = tuple((name, tuple(rng.random(classes).tolist())) for name in ("before", "after"))
    drawn = section(written(tmp_path, content(classes=ClassShares(names, (5,) * classes, (), networks))), "classes")
    labels = re.findall(r">(Pretending[^<]*)</text>", drawn)
    assert len(set(labels)) == len(labels) == min(classes, 40)
    assert (f"Of {classes} classes, the 40" in drawn) == (classes > 40)


def test_counts_of_a_small_matrix_are_printed_and_its_worst_mistakes_listed(html):
    assert f"{NASTY}, taken for b: 3 of 7" in Outline(html).text
    assert re.findall(r'font-size:12px">(\d+)</text>', section(html, "confusions"))[-3:] == ["4", "3", "5"]


def test_a_matrix_of_many_classes_stays_small(tmp_path):
    names = tuple(f"class number {i}" for i in range(174))
    html = written(tmp_path, Page("t", "i", confusions=(Confusion("big", names, np.eye(174, dtype=np.int64) * 9),)))
    assert len(html) < 100_000
    assert "class number 173: 9 of 9 called class number 173" in html


def test_training_curves_may_have_gaps(tmp_path):
    epochs = ({"epoch": 1, "train_loss": 2.0}, {"epoch": 2, "train_loss": None, "validation_top1": 0.5})
    html = written(tmp_path, Page("t", "i", curves=(Curve("run", epochs),)))
    assert "train 2.00" in html
    assert "validation 50.0" in html


def test_a_film_that_is_missing_leaves_the_old_page_alone(tmp_path):
    path = tmp_path / "page.html"
    path.write_text("old", encoding="utf-8")
    with pytest.raises(UserError, match=r"none\.mp4"):
        write_page(path, Page("t", "i", examples=(Example("7", "t", tmp_path / "none.mp4", "c"),)))
    assert path.read_text(encoding="utf-8") == "old"


def test_shortened_names_show_how_they_end_where_they_begin_alike():
    assert shorten(["short", "long enough to be cut"], 10) == ["short", "long enou…"]
    assert shorten(["a name that ends in one", "a name that ends in two"], 12) == ["a nam…in one", "a nam…in two"]
