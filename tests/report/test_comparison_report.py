"""Runs side by side, from the command line to the page."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch

from stabn.cli.main import main
from stabn.evaluation.compare_runs import describe_runs, plan_comparison
from stabn.nn import load_pretrained
from stabn.report.faithfulness_section import explanation_section


@pytest.fixture
def stubborn(trained, tmp_path):
    """Makes a run whose network answers one class, whatever it sees; options change what run.json says."""

    def make(name: str, label: int, **changes) -> Path:
        folder = shutil.copytree(trained, tmp_path / name)
        model = load_pretrained(folder)
        with torch.no_grad():
            model.backbone.fc.bias[label] += 100
        model.save_pretrained(folder)
        value = json.loads((folder / "run.json").read_text())
        relative = {} if "data" in changes else {"relative": value["relative"]}
        (folder / "run.json").write_text(json.dumps({**value, "relative": {}, **relative, **changes}))
        return folder

    return make


@pytest.fixture
def compare(tmp_path, capsys):
    """Runs `stabn compare`, and gives its JSON, its page and what it printed."""

    def run(*words):
        page, result = tmp_path / "page.html", tmp_path / "c.json"
        main(["compare", *map(str, words), "--out", str(page), "--json", str(result)])
        return json.loads(result.read_text()), page.read_text(), capsys.readouterr().out

    return run


def test_plain_networks_and_st_abn_stand_in_one_table_and_on_one_page(plain, trained, tmp_path, compare):
    found, html, told = compare(plain, trained)
    assert found["format"] == "stabn-comparison/1"
    assert [method["name"] for method in found["methods"]] == [str(plain), str(trained)]
    assert [method["frame_average_precision"] is None for method in found["methods"]] == [True, False]
    assert found["notes"] == []
    assert found["verdict"] in told
    assert "plain network, tiny" in html
    assert "ST-ABN, tiny" in html
    assert f"stabn compare {plain} {trained} --split validation --out {tmp_path / 'page.html'}" in html
    assert str(plain.parent) not in html.split('id="settings"')[0]  # names are short, and the settings have the paths
    assert not re.search(r"https?:", html)
    for section in ("comparison", "differences", "calibration", "classes", "confusions"):
        assert f'<section id="{section}">' in html
    assert '<section id="explanations">' not in html


def test_repetitions_are_judged_by_method_and_seed_by_seed(stubborn, compare):
    # Of 14 classes with a clip each, every one of these is right once: no method can be better.
    runs = [stubborn(f"{method}{seed}", label) for method, label in (("a", 1), ("b", 5)) for seed in (0, 1)]
    found, html, told = compare(*runs, "--methods", "one,one, <two>,<two>", "--control", "one")
    assert found["format"] == "stabn-seeds/1"
    assert found["seeds"] == len(found["repetitions"]) == 2
    assert [method["name"] for method in found["methods"]] == ["one", "<two>"]
    assert [method["runs"] for method in found["methods"]] == [list(map(str, runs[:2])), list(map(str, runs[2:]))]
    assert found["difference"]["all"] == {"mean": 0.0, "low": 0.0, "high": 0.0, "values": [0.0, 0.0]}
    assert found["methods"][1]["formerly right"]["values"] == [0.0, 0.0]
    assert found["verdict"] in told
    assert "Methods over seeds" in html
    assert "&lt;two&gt;" in html
    assert "<two>" not in html


def test_explanations_are_measured_if_asked_for(plain, trained, compare):
    found, html, _ = compare(plain, trained, "--faithfulness", "--max_clips", 1)
    measured = found["faithfulness"]
    assert [one["run"] for one in measured] == [str(plain), str(trained)]
    assert measured[0]["attention_replaced"] is None
    for heading in ("Without its own attention", "Insertion and deletion", "Against the truth"):
        assert f"<h3>{heading}</h3>" in html
    assert html.count("insertion and deletion curves") == 2 * len(measured[0]["baselines"])
    one, three = (explanation_section(measured * seeds, ["plain", "ST-ABN"]) for seeds in (1, 3))
    areas = [[p.insertion_area for grid in of.curves for row in grid.curves for p in row] for of in (one, three)]
    assert areas[0] == pytest.approx(areas[1])
    (drop,) = three.drops.rows
    assert [cell.value for cell in drop.cells] == pytest.approx([cell.value for cell in one.drops.rows[0].cells])
    assert all(cell.high - cell.low < 1e-9 for cell in drop.cells)  # three seeds that are one
    drawn = measured[1]["attention_replaced"]["inverse-spatial"]["drop"]["mean"]
    assert drop.cells[0].value == pytest.approx(drawn / 100)
    ahead = measured[1]["differences"]["attention"]["cam"]["frames"]["blur"]["deletion"]["mean"]
    (row,) = [row for row in one.against_others[0].rows if row.name == "cam"]
    assert row.cells[1].value == pytest.approx(-ahead)  # less area under deletion is better


def test_edits_of_other_classes_are_told(stubborn, compare):
    one = stubborn("one", 0, edited_classes=["Lifting something"], origin="x", edited=["3"])
    two = stubborn("two", 0, edited_classes=["Dropping something"], origin="x", edited=["4", "5"])
    found, html, told = compare(one, two)
    assert found["edited_classes"] == ["Dropping something"]
    (note,) = found["notes"]
    assert str(one) in note
    assert f"Note: {note}" in told
    assert note in html


def test_what_a_methods_runs_are_is_said_in_a_few_words(stubborn, trained, plain):
    recipe = json.loads((trained / "run.json").read_text())["recipe"]
    runs = [stubborn(str(n), 0, origin="x", edited=["3"] * n) for n in (1, 3)]
    control = stubborn("c", 0, origin="x", edited=["3"], recipe=recipe | {"control": True})
    entries = plan_comparison([plain, trained, *runs, control]).repetitions[0]
    assert describe_runs(entries[:1]) == "plain network, tiny"
    assert describe_runs(entries[2:4]) == "ST-ABN, tiny, fine-tuned on 1 to 3 edits"
    assert describe_runs(entries[4:]) == "ST-ABN, tiny, fine-tuned without the loss of 1 edit"


class TestMistakesEndInOneLine:
    @pytest.mark.parametrize(
        ("words", "told"),
        [
            (["a"], "compare: got 1 run"),
            (["a", "b", "--out", "page.pdf"], "--out: got page.pdf"),
            (["a", "b", "--control", "c"], "--control: got c"),
            (["a", "b", "--methods", "x"], "--methods: got 1"),
            (["a", "b", "--methods", "x,x"], "--methods: got 'x'"),
            (["a", "b", "c", "--methods", "x,x,y"], r"--methods: .*\(x 2, y 1\)"),
            (["a", "b", "--methods", "x,y"], "--methods: got one"),
            (["a", "a", "b", "c", "--methods", "x,x,y,y"], "compare: got a"),
            (["a", "b", "c", "d", "--methods", "x,x,y,y", "--control", "a"], "--control: got a"),
            (["a", "b", "c", "d", "--methods", "x,x,y,y", "--control", "y"], "--control: got y"),
            (["a", "b", "--control", "b"], "--control: got b"),
            (["a", "b"], "error: a: "),
        ],
    )
    def test_runs_methods_and_controls(self, words, told, one_line, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert re.search(told, one_line("compare", *words))
        assert not list(tmp_path.iterdir())

    def test_networks_with_other_classes(self, one_line, trained, stubborn):
        other = stubborn("other", 0)
        config = json.loads((other / "config.json").read_text())
        names = config["class_names"]
        for changed, named in ((["Zapping", *names[1:]], "'"), (names[::-1], "order")):
            (other / "config.json").write_text(json.dumps(config | {"class_names": changed}))
            message = one_line("compare", trained, other)
            assert named in message
            assert str(other) in message

    def test_splits_that_are_not_there(self, one_line, trained, plain):
        assert "test" in one_line("compare", trained, plain, "--split", "test")

    def test_runs_on_other_data_unless_they_are_other_seeds(self, one_line, trained, stubborn, tabletop, tmp_path):
        copied = shutil.copytree(tabletop, tmp_path / "copied")
        source = {"annotations": str(copied), "videos": None}
        elsewhere = [stubborn(name, label, data=source) for name, label in (("one", 0), ("two", 1))]
        assert str(elsewhere[0]) in one_line("compare", trained, elsewhere[0])
        here = [stubborn(name, label) for name, label in (("three", 0), ("four", 1))]
        runs = [str(run) for pair in zip(here, elsewhere, strict=True) for run in pair]
        main(["compare", *runs, "--methods", "a,a,b,b"])
        message = one_line("compare", *here, *elsewhere, "--methods", "a,a,b,b")
        assert any(str(run) in message for run in elsewhere)


class TestReportsOfRunsThatDoNotBelongTogether:
    @pytest.fixture
    def after(self, stubborn):
        def make(origin) -> Path:
            edited = {"edited": ["3"], "edited_classes": ["Moving something up"]}
            return stubborn("after", 0, origin=None if origin is None else str(origin), **edited)

        return make

    def test_a_run_of_another_origin_is_refused(self, one_line, trained, plain, after, tmp_path):
        message = one_line("report", trained, after(plain), "--out", tmp_path / "r.html")
        assert all(str(folder) in message for folder in (plain, trained, tmp_path / "after"))
        assert not (tmp_path / "r.html").exists()

    def test_a_run_that_was_not_fine_tuned_is_refused(self, one_line, trained, after, tmp_path):
        assert str(tmp_path / "after") in one_line("report", trained, after(None), "--out", tmp_path / "r.html")

    @pytest.mark.parametrize("moved", [True, False])
    def test_a_run_whose_origin_was_moved_is_noted_and_one_known_through_a_link_is_not(
        self, trained, after, tmp_path, moved
    ):
        (tmp_path / "link").symlink_to(trained)
        origin = tmp_path / "gone" if moved else trained.resolve()
        page = tmp_path / "r.html"
        main(["report", str(tmp_path / "link"), str(after(origin)), "--out", str(page), "--examples", "0"])
        caveats = page.read_text().split('id="caveats"')[1].split("</ul>")[0]
        assert (str(origin) in caveats) == moved
