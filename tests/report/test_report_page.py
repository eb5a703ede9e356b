import base64
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from stabn.data.video.clip import write_video
from stabn.errors import UserError
from stabn.report.page import Cell, Comparison, Confusion, Curve, Example, Report, Row, write_report

NASTY = "Putting <b>\"this\"</b> & 'that' $x^2$ onto {{ 7 * 7 }}"
CELL = Cell(0.5, 0.4, 0.6, 90)
EPOCH = {"epoch": 1, "train_loss": 2.5, "train_top1": 0.25, "validation_loss": 2.75, "validation_top1": 0.125}


class Page(HTMLParser):
    """Every tag with its attributes, and the text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def values(self, attribute: str) -> list[str]:
        return [attrs[attribute] or "" for _, attrs in self.tags if attribute in attrs]


def comparison(**changes) -> Comparison:
    rows = (
        Row("before", "trained", (CELL, CELL, CELL)),
        Row("longer", "as long as after", (CELL, CELL, CELL), (("mended", "3"),), control=True),
        Row("after", NASTY, (Cell(0.65, 0.6, 0.7, 90), CELL, CELL), (("mended", "30"), ("newly wrong", "12"))),
    )
    return Comparison(**{"split": "validation", "edited_classes": (NASTY,), "rows": rows, "verdict": "No.", **changes})


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("films") / "film.mp4"
    write_video(path, np.zeros((2, 16, 16, 3), np.uint8), 4)
    return path


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory, film: Path) -> str:
    report = Report(
        title=NASTY,
        intro="What came out.",
        curves=(Curve("first", (EPOCH, {**EPOCH, "epoch": 2})), Curve("second", (EPOCH,))),
        comparison=comparison(),
        confusions=(Confusion(NASTY, (NASTY, "b", "c"), np.array([[4, 3, 0], [0, 5, 0], [0, 0, 0]])),),
        examples=(Example("7", NASTY, film, NASTY),),
        facts=(("data", "https://example.org/data"), (NASTY, NASTY)),
        caveats=(NASTY,),
    )
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(path, report)
    return path.read_text(encoding="utf-8")


def test_the_page_asks_nobody_for_anything(html: str):
    page = Page(html)
    assert not {"script", "link", "iframe", "object", "embed", "base"} & {tag for tag, _ in page.tags}
    assert page.values("src")
    assert all(value.startswith("data:") for value in page.values("src"))
    assert all(value.startswith("#") for value in (*page.values("href"), *page.values("xlink:href")))
    assert not {"srcset", "poster", "action", "background"} & {name for _, attrs in page.tags for name in attrs}
    assert "default-src 'none'" in html
    # the one address in the file is a setting that the caller gave, as text
    assert re.findall(r"https?:[^<]*", html) == ["https://example.org/data"]
    assert "@import" not in html
    assert all(address.startswith("#") for address in re.findall(r"url\((.*?)\)", html))


def test_names_appear_as_they_are_and_never_as_markup(html: str):
    page = Page(html)
    assert page.text.count(NASTY) >= 6
    assert "<b>&#34;" not in html
    assert '<b>"this"' not in html


def test_the_film_inside_is_the_file(html: str, film: Path):
    (source,) = (attrs["src"] for tag, attrs in Page(html).tags if tag == "video")
    kind, content = source.split(",")
    assert kind == "data:video/mp4;base64"
    assert base64.b64decode(content) == film.read_bytes()


def test_contents_lead_to_every_section(html: str):
    page = Page(html)
    sections = [attrs["id"] for tag, attrs in page.tags if tag == "section"]
    links = [attrs["href"] for tag, attrs in page.tags if tag == "a"]
    assert links == [f"#{section}" for section in sections]
    assert len(sections) == 6


def test_every_drawing_is_well_formed_and_named(html: str):
    drawings = re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL)
    assert len(drawings) == 4
    for drawing in drawings:
        assert ElementTree.fromstring(drawing).attrib["aria-label"]
    ids = re.findall(r'\bid="(.*?)"', html)
    assert len(ids) == len(set(ids))


def test_drawings_take_their_colours_from_the_page(html: str):
    for drawing in re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL):
        assert "#0" not in drawing.replace('"#', "")
        assert "DejaVu" not in drawing
        assert "<style" not in drawing


def test_the_same_report_gives_the_same_bytes(tmp_path: Path):
    for name in ("a.html", "b.html"):
        write_report(tmp_path / name, Report("t", "i", curves=(Curve("run", (EPOCH,)),)))
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_the_control_and_the_verdict_are_named(html: str):
    text = Page(html).text
    assert "longer (control)" in text
    assert 'class="tag">control' in html
    assert 'class="verdict">No.' in html


def test_a_missing_extra_value_is_a_dash(html: str):
    rows = re.findall(r"<tr>.*?</tr>", html, flags=re.DOTALL)
    assert rows[1].count("–</td>") == 2
    assert rows[2].count("–</td>") == 1


def test_counts_of_a_small_matrix_are_printed_and_its_worst_mistakes_listed(html: str):
    assert f"{NASTY}, taken for b: 3 of 7" in Page(html).text
    assert re.findall(r'font-size:12px">(\d+)</text>', html.split('id="confusions"')[1])[-3:] == ["4", "3", "5"]


def test_a_matrix_of_many_classes_stays_small(tmp_path: Path):
    names = tuple(f"class number {i}" for i in range(174))
    confusion = Confusion("big", names, np.eye(174, dtype=np.int64) * 9)
    write_report(tmp_path / "r.html", Report("t", "i", confusions=(confusion,)))
    assert (tmp_path / "r.html").stat().st_size < 100_000
    assert "class number 173: 9 of 9 called class number 173" in (tmp_path / "r.html").read_text(encoding="utf-8")


def test_a_report_of_a_title_alone_is_a_page(tmp_path: Path):
    write_report(tmp_path / "r.html", Report("Nothing yet", ""))
    page = Page((tmp_path / "r.html").read_text(encoding="utf-8"))
    assert "Nothing yet" in page.text
    assert not [tag for tag, _ in page.tags if tag == "section"]


def test_curves_may_have_gaps(tmp_path: Path):
    epochs = ({"epoch": 1, "train_loss": 2.0}, {"epoch": 2, "train_loss": None, "validation_top1": 0.5})
    write_report(tmp_path / "r.html", Report("t", "i", curves=(Curve("run", epochs),)))
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "train 2.00" in text
    assert "validation 50.0" in text


def test_intervals_at_the_ends_of_the_scale_stay_inside_their_panel(tmp_path: Path):
    row = Row("all right", "", (Cell(1.0, 0.9, 1.0, 5), Cell(0.0, 0.0, 0.1, 5), Cell(0.5, 0.0, 1.0, 5)))
    write_report(tmp_path / "r.html", Report("t", "i", comparison=comparison(rows=(row,))))
    drawing = re.search(r"<svg.*?</svg>", (tmp_path / "r.html").read_text(encoding="utf-8"), flags=re.DOTALL)
    assert drawing is not None
    centres = [float(x) for x in re.findall(r'cx="([\d.]+)"', drawing[0])]
    assert centres == sorted(centres)
    assert 0 < centres[0] < centres[-1] < 1060


def test_a_film_that_is_missing_leaves_the_old_report_alone(tmp_path: Path):
    path = tmp_path / "r.html"
    path.write_text("old", encoding="utf-8")
    example = Example("7", "t", tmp_path / "none.mp4", "c")
    with pytest.raises(UserError, match=r"none\.mp4: cannot be read"):
        write_report(path, Report("t", "i", examples=(example,)))
    assert path.read_text(encoding="utf-8") == "old"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Cell(0.5, 0.6, 0.7, 9), "outside its interval"),
        (lambda: Cell(1.5, 0.6, 1.7, 9), r"expected 0\.\.1"),
        (lambda: Cell(0.5, 0.4, 0.7, 0), "at least one clip"),
        (lambda: Cell(float("nan"), 0.4, 0.7, 9), "finite"),
        (lambda: Curve("run", ()), "epochs: got none"),
        (lambda: Curve("run", (EPOCH, EPOCH)), "rising"),
        (lambda: Curve("run", ({"epoch": 1},)), "epochs: got none of train_loss"),
        (lambda: Curve("run", ({**EPOCH, "train_top1": 25.0},)), r"train_top1: got 25\.0"),
        (lambda: comparison(rows=()), "expected at least one"),
        (lambda: comparison(columns=("all",)), "got 3 cells, expected 1"),
        (lambda: comparison(verdict=" "), "verdict"),
        (lambda: Confusion("n", ("a", "b"), np.zeros((2, 3), int)), r"expected integers \(2, 2\)"),
        (lambda: Confusion("n", ("a",), np.array([[0.5]])), "expected integers"),
        (lambda: Confusion("n", ("a",), np.array([[-1]])), "numbers from 0"),
        (lambda: Example("7", "t", Path("film.avi"), "c"), r"\.mp4 or \.webm"),
        (lambda: Report("", "i"), "title"),
    ],
)
def test_what_makes_no_sense_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
