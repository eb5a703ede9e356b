"""The page of `stabn compare`: turns a comparison and its predictions into the content of a page."""

import os
import platform
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch

from stabn.evaluation.accuracy import confusion_matrix
from stabn.evaluation.calibration import calibration
from stabn.evaluation.compare_runs import ComparisonPlan, describe_runs
from stabn.evaluation.comparison import FORMER_GROUPS, FRAME_AP, GROUPS, MEAN_CLASS, verdict
from stabn.evaluation.predict import Predictions
from stabn.report.content import (
    ClassShares,
    Confusion,
    Estimate,
    EstimateTable,
    Page,
    Reliability,
    Row,
)
from stabn.report.faithfulness_section import explanation_section
from stabn.report.page import write_page
from stabn.runs import Run

_TITLES = {
    "formerly wrong": "formerly wrong, mended",
    "formerly right": "formerly right, kept",
    FRAME_AP: "frame AP",
}
_READING = (
    "Each number is the percentage of clips whose first answer is right, with its 95 % bootstrap interval over clips "
    "and the number of clips; mean class accuracy is its mean over the classes that have clips. Where two intervals "
    "overlap, look at the differences, which rest on the same clips."
)
_READING_SEEDS = (
    "Each number is the mean over seeds of the percentage of clips whose first answer is right, with the 95 % interval "
    "of that mean (Student's t) and the number of seeds; mean class accuracy is averaged over the classes that have "
    "clips. Whether two methods differ is said by the differences, which are taken seed by seed."
)
_CAVEATS = (
    "The intervals resample the measured clips; they do not contain the chance of training. One run per row proves "
    "little: train several seeds and compare them with --methods before you believe a difference.",
    "A resampled interval has no width where a network gets all clips of a group right, or none.",
)
_CAVEATS_SEEDS = (
    "The intervals contain the chance of training, but where all seeds were measured on the same clips not the chance "
    "of these clips. They assume that the seeds' results are about normally distributed.",
    "Calibration, classes and confusions are of all seeds' answers together.",
)
_CAVEATS_ALWAYS = (
    "Clips that one network got wrong are found right more often by any other network, also by one that is no better: "
    "only the difference to the control says what a method mends or breaks.",
    "The calibration error of few clips is above zero by chance alone, even of a perfectly calibrated network.",
)


def write_comparison_report(
    path: Path,
    plan: ComparisonPlan,
    predictions: Sequence[Sequence[Predictions]],
    comparison: Mapping[str, Any],
    split: str,
) -> None:
    """Write the page of a comparison, atomically.

    Args:
        path: of the HTML file.
        plan: the runs.
        predictions: for `split`, by repetition.
        comparison: as `stabn.evaluation.compare_runs.compare_runs` gives it; with "faithfulness" where
            `runs_faithfulness` measured it.
        split: which was measured.
    """
    over_seeds = "seeds" in comparison
    titles = dict(zip(plan.methods, plan.methods if over_seeds else _short_names(plan.methods), strict=True))
    names = list(titles.values())
    control = None if comparison["against"] == plan.methods[0] else comparison["against"]
    by_method = list(zip(*predictions, strict=True))
    networks = {of_method[0].method: describe_runs(of_method) for of_method in zip(*plan.repetitions, strict=True)}
    # The edited classes of several repetitions may differ; then none are listed.
    edited = {tuple(one["edited_classes"]) for one in comparison.get("repetitions", [comparison])}
    last = comparison["difference"]
    page = Page(
        title="Methods over seeds" if over_seeds else "Runs side by side",
        intro=f"{', '.join(names[:-1])} and {names[-1]}, all measured on the same clips of “{split}”.",
        reading=_READING_SEEDS if over_seeds else _READING,
        comparison=comparison_table("top-1 accuracy", comparison["methods"], GROUPS, titles, control, networks),
        verdict=verdict({**last, "of": titles[last["of"]], "against": titles[last["against"]]}),
        edited_classes=edited.pop() if len(edited) == 1 else (),
        former=comparison_table("mended and kept clips", comparison["methods"][1:], FORMER_GROUPS, titles, control),
        differences=_difference_tables(comparison, titles),
        reliabilities=tuple(_reliability(n, of) for n, of in zip(names, by_method, strict=True)),
        classes=_class_shares(plan, titles, by_method, control),
        confusions=tuple(_confusion(n, of, plan.class_names) for n, of in zip(names, by_method, strict=True)),
        explanations=explanation_section(comparison["faithfulness"], names) if "faithfulness" in comparison else None,
        facts=_facts(plan, names, predictions, split, _command(plan, path, comparison, split)),
        caveats=(*comparison["notes"], *(_CAVEATS_SEEDS if over_seeds else _CAVEATS), *_CAVEATS_ALWAYS),
    )
    write_page(path, page)


def comparison_table(
    title: str,
    methods: Sequence[Mapping[str, Any]],
    columns: Sequence[str],
    titles: Mapping[str, str],
    control: str | None,
    descriptions: Mapping[str, str] | None = None,
) -> EstimateTable | None:
    """The accuracies of a comparison's methods, or of methods over seeds, as a table.

    Args:
        title: of the table.
        methods: of "methods" of a comparison.
        columns: groups of clips; those in which a method has no value are left out.
        titles: by the methods' names, their names on the page.
        control: name of the control, or None.
        descriptions: by the methods' names, what they are; with further columns per row. None for accuracies alone.

    Returns:
        None where no group has a value for every method.
    """
    present = [column for column in columns if all(method[column] is not None for method in methods)]
    if not present:
        return None
    rows = tuple(
        Row(
            titles[method["name"]],
            tuple(_share(method[column]) for column in present),
            "" if descriptions is None else descriptions[method["name"]],
            () if descriptions is None else _extra_columns(method, is_first=number == 0),
            control=method["name"] == control,
        )
        for number, method in enumerate(methods)
    )
    return EstimateTable(title, tuple(_TITLES.get(column, column) for column in present), rows)


def _share(value: Mapping[str, Any]) -> Estimate:
    """A share over clips, or the mean share over seeds."""
    mean, count = (value["top1"], value["count"]) if "top1" in value else (value["mean"], len(value["values"]))
    return Estimate.clamped(mean, value["low"], value["high"], count)


def _difference(value: Mapping[str, Any] | None) -> Estimate | None:
    if value is None:
        return None
    return Estimate.clamped(value["points"] if "points" in value else value["mean"], value["low"], value["high"])


def _extra_columns(method: Mapping[str, Any], *, is_first: bool) -> tuple[tuple[str, str], ...]:
    """A method's further columns, of one run or over seeds."""
    columns: list[tuple[str, str]] = []
    if "calibration_error" not in method:  # over seeds
        mean_class = method[MEAN_CLASS]
        half = 50 * (mean_class["high"] - mean_class["low"])
        columns.append((MEAN_CLASS, f"{100 * mean_class['mean']:.1f} ± {half:.1f}"))
        error, precision = method["calibration error"], method[FRAME_AP]
        columns.append(("calibration error", f"{100 * error['mean']:.1f} ± {50 * (error['high'] - error['low']):.1f}"))
        if precision is not None:
            half = (precision["high"] - precision["low"]) / 2
            columns.append(("frame AP", f"{precision['mean']:.3f} ± {half:.3f}"))
        return tuple(columns)
    columns.append((MEAN_CLASS, _in_percent(method["mean_class_accuracy"], "mean")))
    for title, key, group in (("mended", "mended", FORMER_GROUPS[0]), ("newly wrong", "newly_wrong", FORMER_GROUPS[1])):
        if not is_first:
            columns.append((title, str(method[key]) + (f" of {method[group]['count']}" if method[group] else "")))
    error, interval = method["calibration_error"], method["frame_average_precision_interval"]
    columns.append(("calibration error", _in_percent(error, "error")))
    if interval is not None:
        precision = method["frame_average_precision"]
        columns.append(("frame AP", f"{precision:.3f} ({interval['low']:.3f} – {interval['high']:.3f})"))
    return tuple(columns)


def _difference_tables(comparison: Mapping[str, Any], titles: Mapping[str, str]) -> tuple[EstimateTable, ...]:
    """Differences to the control and to the first method."""
    tables = []
    for against in dict.fromkeys((comparison["against"], comparison["methods"][0]["name"])):
        differences = [d for d in comparison["differences"] if d["against"] == against]
        columns = [
            c for c in (*GROUPS, *FORMER_GROUPS, MEAN_CLASS, FRAME_AP) if any(d[c] is not None for d in differences)
        ]
        rows = []
        for difference in differences:
            extra: tuple[tuple[str, str], ...] = ()
            if "mcnemar" in difference:
                test = difference["mcnemar"]
                extra = (
                    ("it alone right", str(test["only_ours"])),
                    (f"{titles[against]} alone right", str(test["only_theirs"])),
                    ("p (McNemar)", f"{test['p']:.2g}"),
                )
            cells = tuple(_difference(difference[column]) for column in columns)
            rows.append(Row(titles[difference["of"]], cells, extra=extra))
        shown = tuple(_TITLES.get(column, column) for column in columns)
        tables.append(EstimateTable(titles[against], shown, tuple(rows)))
    return tuple(tables)


def _short_names(folders: Sequence[str]) -> list[str]:
    """Folders of runs without the parents that they all have."""
    paths = [os.path.abspath(folder) for folder in folders]
    common = os.path.commonpath([os.path.dirname(path) for path in paths])
    return [os.path.relpath(path, common) for path in paths]


def _reliability(name: str, predictions: Sequence[Predictions]) -> Reliability:
    probabilities = np.concatenate([one.probabilities for one in predictions])
    measured = calibration(probabilities, np.concatenate([one.labels for one in predictions]))
    return Reliability(name, _in_percent(measured, "error"), measured["bins"])


def _in_percent(measured: Mapping[str, Any], key: str) -> str:
    """A share with its interval, in percent."""
    return "{:.1f} ({:.1f} – {:.1f})".format(*(100 * measured[name] for name in (key, "low", "high")))


def _class_shares(
    plan: ComparisonPlan, titles: Mapping[str, str], by_method: Sequence[Sequence[Predictions]], control: str | None
) -> ClassShares:
    classes = range(len(plan.class_names))
    networks = []
    for name, predictions in zip(titles.values(), by_method, strict=True):
        labels = np.concatenate([one.labels for one in predictions])
        correct = np.concatenate([one.correct for one in predictions])
        shares = tuple(float(correct[labels == k].mean()) if (labels == k).any() else None for k in classes)
        networks.append((name, shares))
    counts = tuple(int((labels == k).sum()) for k in classes)
    edited = dict.fromkeys(name for repetition in plan.repetitions for name in repetition[-1].run.edited_classes)
    return ClassShares(plan.class_names, counts, tuple(edited), tuple(networks), titles.get(control or ""))


def _confusion(name: str, predictions: Sequence[Predictions], class_names: tuple[str, ...]) -> Confusion:
    counts = np.sum([confusion_matrix(one, len(class_names)) for one in predictions], axis=0)
    return Confusion(name, class_names, counts)


def _command(plan: ComparisonPlan, path: Path, comparison: Mapping[str, Any], split: str) -> str:
    """The command that makes the page again."""
    words = ["stabn", "compare", *(str(compared.run.folder) for compared in plan.runs)]
    words += ["--methods", ",".join(compared.method for compared in plan.runs)] if "seeds" in comparison else []
    words += [] if plan.control is None else ["--control", plan.control]
    words += ["--faithfulness"] if "faithfulness" in comparison else []
    return shlex.join([*words, "--split", split, "--out", str(path)])


def _facts(
    plan: ComparisonPlan, names: Sequence[str], predictions: Sequence[Sequence[Predictions]], split: str, command: str
) -> tuple[tuple[str, str], ...]:
    data = dict.fromkeys(repetition[0].run.source.annotations for repetition in plan.repetitions)
    facts = [("data", ", ".join(data)), ("measured on", f"{len(predictions[0][0].clip_ids)} clips of split {split}")]
    for name, compared in zip(names, zip(*plan.repetitions, strict=True), strict=True):
        facts.append((name, "\n".join(f"{one.run.folder}: {training_settings(one.run)}" for one in compared)))
    return (*facts, ("command", command), *machine_facts())


def training_settings(run: Run) -> str:
    """The settings that a run was trained with, in one line."""
    if not run.recipe:
        return "a network without a recipe"
    optimizer = run.recipe["optimizer"]
    balance = f", class balance by {optimizer['class_balance']}" if "class_balance" in optimizer else ""
    gamma = f", gamma {run.recipe['gamma']:g}" if "gamma" in run.recipe and not run.recipe["control"] else ""
    return (
        f"{optimizer['name']}, learning rate {optimizer['learning_rate']:g}, {optimizer['epochs']} epochs, "
        f"batch {optimizer['batch_size']}{balance}{gamma}, seed {run.recipe['seed']}"
    )


def machine_facts() -> tuple[tuple[str, str], ...]:
    """The machine and the versions of libraries, as facts of a page."""
    versions = f"Python {platform.python_version()}, torch {torch.__version__}, lightning {lightning.__version__}"
    return (
        ("machine", f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}"),
        ("versions", versions),
    )
