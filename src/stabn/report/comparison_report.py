"""A comparison as one page: turns what was found into what `stabn.report.comparison_content` shows."""

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stabn.evaluation.accuracy import confusion_matrix
from stabn.evaluation.calibration import calibration
from stabn.evaluation.compare_runs import ComparisonPlan, describe_runs
from stabn.evaluation.comparison import FORMER_GROUPS, FRAME_AP, GROUPS, run_verdict
from stabn.evaluation.predict import Predictions
from stabn.evaluation.seeds import seeds_verdict
from stabn.report.comparison_content import ClassShares, Evidence, Reliability, ReliabilityBin
from stabn.report.content import Cell, Comparison, Confusion, Contrast, ContrastRow, Difference, Row
from stabn.report.faithfulness_section import explanation_section
from stabn.report.finetuning_report import machine_facts, training_settings
from stabn.report.page import write_evidence

_FORMERLY = {"formerly wrong": "formerly wrong, mended", "formerly right": "formerly right, kept"}


def write_comparison_report(
    path: Path,
    lineup: ComparisonPlan,
    answers: Sequence[Sequence[Predictions]],
    found: Mapping[str, Any],
    split: str,
) -> None:
    """Write the page of a comparison, atomically.

    Args:
        path: of the HTML file.
        lineup: who took part.
        answers: what they answered for `split`.
        found: as `compare_runs.judge` gives it; with "faithfulness" where `compare_runs.look` measured it.
        split: which was measured.
    """
    seeds = "seeds" in found
    names = list(lineup.methods) if seeds else _short(lineup.methods)
    called = dict(zip(lineup.methods, names, strict=True))
    pooled = [[repetition[i] for repetition in answers] for i in range(len(names))]
    control = called[found["against"]] if found["against"] != lineup.methods[0] else None
    write_evidence(
        path,
        Evidence(
            title="Methods over seeds" if seeds else "Runs side by side",
            intro=f"{_listed(names)}, all measured on the same clips of “{split}”.",
            reading=_READING_SEEDS if seeds else _READING,
            comparison=_comparison(lineup, found, called, split, control),
            former=_former(found, called, split, control),
            contrasts=_contrasts(found, called),
            reliabilities=tuple(_reliability(n, p) for n, p in zip(names, pooled, strict=True)),
            classes=_classes(lineup, names, pooled, control),
            confusions=tuple(_confusion(n, p, lineup.class_names) for n, p in zip(names, pooled, strict=True)),
            looks=explanation_section(found["faithfulness"], names) if "faithfulness" in found else None,
            facts=_facts(lineup, names, answers, split, _command(lineup, path, found, split)),
            caveats=(*found["notes"], *(_CAVEATS_SEEDS if seeds else _CAVEATS), *_CAVEATS_ALWAYS),
        ),
    )


_READING = (
    "Each number is the percentage of clips whose first answer is right, with its 95 % bootstrap interval over clips "
    "and the number of clips. Where two intervals overlap, look at the differences, which rest on the same clips."
)
_READING_SEEDS = (
    "Each number is the mean over seeds of the percentage of clips whose first answer is right, with the 95 % interval "
    "of that mean (Student's t) and the number of seeds. Whether two methods differ is said by the differences, which "
    "are taken seed by seed."
)
_CAVEATS = (
    "The intervals resample the measured clips; they do not contain the chance of training. One run per row proves "
    "little: train several seeds and compare them with --methods before you believe a difference.",
    "A resampled interval has no width where a network gets all clips of a group right, or none.",
)
_CAVEATS_SEEDS = (
    "The intervals contain the chance of training, but where all seeds were measured on the same clips not the chance "
    "of these clips. They take the seeds' results to be about normally distributed.",
    "Calibration, classes and confusions are of all seeds' answers together.",
)
_CAVEATS_ALWAYS = (
    "Clips that one network got wrong are found right more often by any other network, also by one that is no better: "
    "only the difference to the control says what a method mends or breaks.",
    "The calibration error of few clips is above zero by chance alone, even of a network that knows its doubts.",
)


def _short(names: Sequence[str]) -> list[str]:
    """Runs' folders without the parents that they all have."""
    paths = [os.path.abspath(name) for name in names]
    common = os.path.commonpath([os.path.dirname(path) for path in paths])
    return [os.path.relpath(path, common) for path in paths]


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _cell(value: Mapping[str, Any] | None) -> Cell | None:
    """A share over clips or over seeds, its interval cut to what a share can be."""
    if value is None:
        return None
    middle, count = (value["top1"], value["count"]) if "top1" in value else (value["mean"], len(value["values"]))
    return Cell(middle, max(0.0, min(value["low"], middle)), min(1.0, max(value["high"], middle)), count)


def _change(value: Mapping[str, Any] | None) -> Difference | None:
    if value is None:
        return None
    middle = value["points"] if "points" in value else value["mean"]
    return Difference(middle, max(-1.0, min(value["low"], middle)), min(1.0, max(value["high"], middle)))


def _rows(
    methods: Sequence[Mapping[str, Any]], columns: Sequence[str], called: Mapping[str, str], control: str | None,
    describe: Mapping[str, str], extra: Mapping[str, tuple[tuple[str, str], ...]],
) -> tuple[Row, ...]:  # fmt: skip
    rows = []
    for method in methods:
        name = called[method["name"]]
        cells = tuple(cell for cell in (_cell(method[column]) for column in columns) if cell is not None)
        rows.append(Row(name, describe.get(name, ""), cells, extra.get(name, ()), control=name == control))
    return tuple(rows)


def _full(methods: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> list[str]:
    """The columns in which every method has a value."""
    return [column for column in columns if all(method[column] is not None for method in methods)]


def _comparison(
    lineup: ComparisonPlan, found: Mapping[str, Any], called: Mapping[str, str], split: str, control: str | None
) -> Comparison:
    columns = _full(found["methods"], GROUPS)
    kinds = {called[of[0].method]: describe_runs(of) for of in zip(*lineup.repetitions, strict=True)}
    extra = {called[method["name"]]: _extra(method, number) for number, method in enumerate(found["methods"])}
    # The classes of several repetitions may differ; then none are listed.
    edited = {tuple(one["edited_classes"]) for one in found.get("repetitions", [found])}
    rows = _rows(found["methods"], columns, called, control, kinds, extra)
    return Comparison(split, edited.pop() if len(edited) == 1 else (), rows, _verdict(found, called), tuple(columns))


def _extra(method: Mapping[str, Any], number: int) -> tuple[tuple[str, str], ...]:
    """A method's further columns, of one run or over seeds."""
    if "calibration_error" not in method:
        error, precision = method["calibration error"], method[FRAME_AP]
        columns = [("calibration error", f"{100 * error['mean']:.1f} ± {_half(error, 100):.1f}")]
        if precision is not None:
            columns.append(("frame AP", f"{precision['mean']:.3f} ± {_half(precision, 1):.3f}"))
        return tuple(columns)
    changed = (
        [("mended", "mended", FORMER_GROUPS[0]), ("newly wrong", "newly_wrong", FORMER_GROUPS[1])] if number else []
    )
    columns = [
        (told, str(method[key]) + (f" of {method[group]['count']}" if method[group] else ""))
        for told, key, group in changed
    ]
    error, interval = method["calibration_error"], method["frame_average_precision_interval"]
    columns.append(
        ("calibration error", f"{100 * error['error']:.1f} ({100 * error['low']:.1f} – {100 * error['high']:.1f})")
    )
    if interval is not None:
        told = f"{method['frame_average_precision']:.3f} ({interval['low']:.3f} – {interval['high']:.3f})"
        columns.append(("frame AP", told))
    return tuple(columns)


def _half(interval: Mapping[str, Any], scale: float) -> float:
    return scale * (interval["high"] - interval["low"]) / 2


def _verdict(found: Mapping[str, Any], called: Mapping[str, str]) -> str:
    """The verdict with the page's names."""
    last = found["difference"]
    last = last | {key: called[last[key]] for key in ("of", "against")}
    return seeds_verdict(last) if "seeds" in found else run_verdict(last)


def _former(found: Mapping[str, Any], called: Mapping[str, str], split: str, control: str | None) -> Comparison | None:
    methods = found["methods"][1:]
    columns = _full(methods, FORMER_GROUPS)
    if not columns:
        return None
    rows = _rows(methods, columns, called, control, {}, {})
    return Comparison(split, (), rows, _verdict(found, called), tuple(_FORMERLY[column] for column in columns))


def _contrasts(found: Mapping[str, Any], called: Mapping[str, str]) -> tuple[Contrast, ...]:
    contrasts = []
    for against in dict.fromkeys((found["against"], found["methods"][0]["name"])):
        changes = [d for d in found["differences"] if d["against"] == against]
        columns = [c for c in (*GROUPS, *FORMER_GROUPS, FRAME_AP) if any(d[c] is not None for d in changes)]
        rows = []
        for d in changes:
            extra: list[tuple[str, str]] = []
            if "mcnemar" in d:
                test = d["mcnemar"]
                extra = [
                    ("it alone right", str(test["only_ours"])),
                    (f"{called[against]} alone right", str(test["only_theirs"])),
                    ("p (McNemar)", f"{test['p']:.2g}"),
                ]
            rows.append(ContrastRow(called[d["of"]], tuple(_change(d[c]) for c in columns), tuple(extra)))
        shown = tuple(_FORMERLY.get(c, "frame AP" if c == FRAME_AP else c) for c in columns)
        contrasts.append(Contrast(called[against], shown, tuple(rows)))
    return tuple(contrasts)


def _reliability(name: str, answers: Sequence[Predictions]) -> Reliability:
    value = calibration(np.concatenate([a.probabilities for a in answers]), np.concatenate([a.labels for a in answers]))
    bins = tuple(ReliabilityBin(b["confidence"], b["accuracy"], b["count"]) for b in value["bins"] if b["count"])
    error = "{:.1f} ({:.1f} – {:.1f})".format(*(100 * value[key] for key in ("error", "low", "high")))
    return Reliability(name, error, bins)


def _classes(
    lineup: ComparisonPlan, names: Sequence[str], pooled: Sequence[Sequence[Predictions]], control: str | None
) -> ClassShares:
    numbers = range(len(lineup.class_names))
    networks = []
    for name, answers in zip(names, pooled, strict=True):
        labels, right = np.concatenate([a.labels for a in answers]), np.concatenate([a.correct for a in answers])
        networks.append(
            (name, tuple(float(right[labels == k].mean()) if (labels == k).any() else None for k in numbers))
        )
    counts = tuple(int((labels == k).sum()) for k in numbers)
    edited = dict.fromkeys(c for entries in lineup.repetitions for c in entries[-1].run.edited_classes)
    return ClassShares(lineup.class_names, counts, tuple(edited), tuple(networks), control)


def _confusion(name: str, answers: Sequence[Predictions], class_names: tuple[str, ...]) -> Confusion:
    counts = np.sum([confusion_matrix(a, len(class_names)) for a in answers], axis=0)
    return Confusion(name, class_names, counts)


def _command(lineup: ComparisonPlan, path: Path, found: Mapping[str, Any], split: str) -> str:
    """What makes this page again."""
    entries = [entry for entries in lineup.repetitions for entry in entries]
    words = ["stabn", "compare", *(str(entry.run.folder) for entry in entries)]
    words += ["--methods", ",".join(entry.method for entry in entries)] if "seeds" in found else []
    words += [] if lineup.control is None else ["--control", lineup.control]
    words += ["--faithfulness"] if "faithfulness" in found else []
    return shlex.join([*words, "--split", split, "--out", str(path)])


def _facts(
    lineup: ComparisonPlan, names: Sequence[str], answers: Sequence[Sequence[Predictions]], split: str, command: str
) -> tuple[tuple[str, str], ...]:
    data = dict.fromkeys(entries[0].run.source.annotations for entries in lineup.repetitions)
    facts = [("data", ", ".join(data)), ("measured on", f"{len(answers[0][0].clip_ids)} clips of split {split}")]
    for i, name in enumerate(names):
        runs = [entries[i].run for entries in lineup.repetitions]
        facts.append((name, "\n".join(f"{run.folder}: {training_settings(run)}" for run in runs)))
    return (*facts, ("command", command), *machine_facts())
