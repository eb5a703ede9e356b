"""Every table that the verbs print."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stabn.data.annotations.listing import Listing
from stabn.data.annotations.prepare import problems_by_kind
from stabn.data.quality.findings import FAULTS, REMARKS
from stabn.edits.agreement import Agreement
from stabn.errors import join_names
from stabn.evaluation.accuracy import skipped_note
from stabn.evaluation.comparison import FORMER_GROUPS, FRAME_AP, GROUPS, MEAN_CLASS
from stabn.evaluation.localisation import MEASURES
from stabn.evaluation.perturbation import SCOPES
from stabn.nn.backbones.description import BackboneDescription
from stabn.training.profile import ClipTime, StepTime

_BAR = 40
"""Characters of the bar of a whole training step."""


def print_table(heading: Sequence[object], rows: Sequence[Sequence[object]]) -> None:
    """Print rows under a heading; the first column is flushed left, the others right."""
    lines = [[str(cell) for cell in row] for row in (heading, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    for first, *others in lines:
        flushed_right = (cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))
        print("  ".join((first.ljust(widths[0]), *flushed_right)).rstrip())
    print()


def print_accuracy(evaluation: Mapping[str, Any]) -> None:
    """Accuracy of both branches and of each class, with 95 % intervals."""
    rows: list[tuple[str, ...]] = []
    figures = ("top1", "mean_class_accuracy", "top5")
    for name, title in (("perception", "perception branch"), ("attention_branch", "attention branch")):
        if evaluation[name] is not None:
            intervals, calibration = evaluation["intervals"][name], evaluation["calibration"][name]
            shares = [_span(intervals[key] | {"mean": evaluation[name][key]}, ".1%") for key in figures]
            rows.append((title, *shares, _span(calibration, ".1%", "error")))
    trivial = evaluation["majority"]
    baseline = (f"{trivial['top1']:.1%}", f"{trivial['mean_class_accuracy']:.1%}")
    rows.append((f"always {trivial['class']!r}", *baseline, "", ""))
    measured, known = sum(c["count"] > 0 for c in evaluation["classes"]), len(evaluation["classes"])
    top1 = "top-1" if measured == known else f"top-1 of {measured} of {known} classes"
    print_table(("", top1, "mean class accuracy", "top-5", "calibration error"), rows)
    classes = [(c["name"], c["count"], _span(c, ".1%", "top1")) for c in evaluation["classes"]]
    print_table(("class", "clips", "top-1"), classes)
    print_skipped(evaluation["skipped"], evaluation["num_clips"])
    for note in evaluation["notes"]:
        print(f"Note: {note}")


def print_skipped(skipped: Sequence[Mapping[str, str]], measured: int) -> None:
    """How many clips could not be read, if any."""
    if skipped:
        print(skipped_note(skipped, measured))


def _span(value: Mapping[str, Any], form: str = ".3f", key: str = "mean") -> str:
    """A measure with its interval, or - where it is unknown."""
    if value[key] is None:
        return "-"
    return f"{value[key]:{form}} ({value['low']:{form}} to {value['high']:{form}})"


def print_comparison(comparison: Mapping[str, Any]) -> None:
    """Runs side by side, or methods over several seeds: the table, the verdict, and notes."""
    if "seeds" in comparison:
        _print_seeds(comparison)
    else:
        _print_runs(comparison)
    print(comparison["verdict"])
    for note in comparison.get("notes", ()):
        print(f"Note: {note}")


def _print_runs(comparison: Mapping[str, Any]) -> None:
    # comparisons of earlier versions have no differences; their cells stay empty
    differences = {d["of"]: d for d in comparison.get("differences", ()) if d["against"] == comparison["against"]}
    rows = []
    for method in comparison["methods"]:
        precision, error = method["frame_average_precision"], method.get("calibration_error")
        mean_class = method.get("mean_class_accuracy")
        difference = differences.get(method["name"])
        changed = zip(("mended", "newly_wrong"), (method.get(group) for group in FORMER_GROUPS), strict=True)
        rows.append(
            (
                method["name"],
                *(_percent_cell(method[group], "top1", ".1f") for group in comparison["groups"]),
                _percent_cell(mean_class, "mean", ".1f"),
                *(f"{method[key]} of {clips['count']}" if clips else method[key] for key, clips in changed),
                "-" if difference is None else _percent_cell(difference["all"], "points", "+.1f"),
                "-" if difference is None else f"{difference['mcnemar']['p']:.2g}",
                "-" if difference is None else _percent_cell(difference.get(MEAN_CLASS), "points", "+.1f"),
                "-" if error is None else f"{100 * error['error']:.1f}",
                "-" if precision is None else f"{precision:.3f}",
            )
        )
    against = f"against {comparison['difference']['against']}"
    columns = ("mended", "newly wrong", against, "p", "mean class gain", "calib. error", "frame AP")
    print_table(("top-1 in %", *comparison["groups"], "mean class acc.", *columns), rows)


def _percent_cell(share: Mapping[str, float] | None, key: str, form: str) -> str:
    if share is None:
        return "-"
    # + 0.0 makes 0.0 of -0.0
    return _span({name: round(100 * share[name], 1) + 0.0 for name in (key, "low", "high")}, form, key)


def _print_seeds(comparison: Mapping[str, Any]) -> None:
    against = comparison["against"]
    differences = {d["of"]: d for d in comparison["differences"] if d["against"] == against}
    rows = []
    for method in comparison["methods"]:
        difference = differences.get(method["name"])
        rows.append(
            (
                method["name"],
                *(_seeds_cell(method[name], 100) for name in (*GROUPS, *FORMER_GROUPS, MEAN_CLASS)),
                "-" if difference is None else _seeds_cell(difference["all"], 100, signed=True),
                _seeds_cell(method["calibration error"], 100),
                _seeds_cell(method[FRAME_AP], 1, digits=3),
            )
        )
    groups = (*GROUPS, *FORMER_GROUPS, MEAN_CLASS)
    heading = (f"{comparison['seeds']} seeds, top-1 in %", *groups, f"all, against {against}")
    print_table((*heading, "calibration error", "frame AP"), rows)


def _seeds_cell(interval: Mapping[str, float] | None, scale: int, *, digits: int = 1, signed: bool = False) -> str:
    if interval is None:
        return "-"
    mean = round(scale * interval["mean"], digits) + 0.0  # -0.0 becomes 0.0
    half = scale * (interval["high"] - interval["low"]) / 2
    return f"{mean:{'+' if signed else ''}.{digits}f} ± {half:.{digits}f}"


def print_faithfulness(faithfulness: Mapping[str, Any]) -> None:
    """How faithful explanations are, one table per kind of measurement."""
    methods, baselines = faithfulness["methods"], faithfulness["baselines"]
    if faithfulness["attention_replaced"] is not None:
        rows = [
            (
                name,
                _span(value["top1"], ".1%"),
                _span(value["mean_class_accuracy"], ".1%"),
                "" if name == "as-is" else _span(value["drop"], ".1f"),
            )
            for name, value in faithfulness["attention_replaced"].items()
        ]
        print_table(("attention replaced", "top-1", "mean class accuracy", "drop in points"), rows)
    if baselines:
        columns = [(scope, direction) for scope in SCOPES for direction in ("deletion", "insertion")]
        rows = [
            (
                f"{name}, {baseline}",
                *(f"{value[scope][baseline][direction]['auc']:.3f}" for scope, direction in columns),
                *(f"{value['frames'][baseline][key]['mean']:+.3f}" for key in ("comprehensiveness", "sufficiency")),
            )
            for name, value in methods.items()
            for baseline in baselines
        ]
        heading = [f"{scope} {'del.' if direction == 'deletion' else 'ins.'}" for scope, direction in columns]
        print_table((f"area, {len(faithfulness['perturbed'])} clips", *heading, "compreh.", "sufficiency"), rows)
    _print_truth(methods)
    _print_randomisation(methods, faithfulness["randomised"])
    _print_differences(faithfulness["differences"].get("attention", {}), baselines)


def _print_truth(methods: Mapping[str, Any]) -> None:
    """The attention against the truth, where there is one."""
    scores = {name: value["truth"] for name, value in methods.items() if value["truth"] is not None}
    if not scores:
        return
    first = next(iter(scores.values()))
    measures = [(side, measure) for side, measure in MEASURES if first[side] is not None]
    rows = [(name, *(_span(value[side][measure]) for side, measure in measures)) for name, value in scores.items()]
    rows.append(("by chance", *(f"{first[side][measure]['chance']:.3f}" for side, measure in measures)))
    print_table(("against the truth", *(MEASURES[key] for key in measures)), rows)


def _print_randomisation(methods: Mapping[str, Any], clips: int) -> None:
    """How much each explanation changes as the network's weights are randomised part by part."""
    first = next(iter(methods.values()))["randomisation"]["temporal"]
    rows = [
        (
            f"{name}, {'time' if side == 'temporal' else 'space'}",
            *(f"{step['mean']:+.2f}" for step in value["randomisation"][side]),
            "" if value["randomisation"]["changes"][side] else "does not change",
        )
        for name, value in methods.items()
        for side in ("temporal", "spatial")
    ]
    print_table((f"rank correlation, {clips} clips", *(step["part"] for step in first), ""), rows)


def _print_differences(differences: Mapping[str, Any], baselines: Sequence[str]) -> None:
    """The temporal attention beside CAM and Grad-CAM, clip by clip."""
    others = {name: value for name, value in differences.items() if name in ("cam", "grad-cam")}
    if not others:
        return
    rows = [
        (
            f"frames {direction}, {baseline}",
            *(_verdict_cell(value["frames"][baseline][direction]) for value in others.values()),
        )
        for direction in ("deletion", "insertion")
        for baseline in baselines
    ]
    if all("temporal" in value.get("truth", {}) for value in others.values()):
        precisions = (_verdict_cell(value["truth"]["temporal"]["average_precision"]) for value in others.values())
        rows.append(("frame AP", *precisions))
    print_table(("attention minus", *others), rows)


def _verdict_cell(value: Mapping[str, Any]) -> str:
    return f"{_span(value, '+.3f')} {value['verdict']}"


def print_collection(result: Mapping[str, Any], measured_on: str) -> None:
    """The weak classes of a collection, and how many clips of each are to be corrected."""
    rows = [(c["name"], c["count"], f"{c['top1']:.1%}", c["collected"]) for c in result["classes"]]
    print_table(("weak class", "clips", f"{measured_on} top-1", "to correct"), rows)
    print_skipped(result["skipped"], result["measured"])


def print_people(clips_by_author: Mapping[str, int], agreement: Agreement) -> None:
    """How many clips each person edited, and how far people agree, where there are any."""
    if clips_by_author:
        print_table(("person", "clips"), list(clips_by_author.items()))
    if len(clips_by_author) > 1:
        rows = [("all", agreement.project), *agreement.classes.items()]
        print_table(("class", "agreement"), [(name, "-" if a is None else f"{a:.2f}") for name, a in rows])
        print("Agreement is Krippendorff's alpha (ordinal): 1 is perfect, 0 is chance, - is undefined.")


def print_profile(step: StepTime, clip: ClipTime, rates: Mapping[int, float], suggestions: Sequence[str]) -> None:
    """Where the time of a training step goes, how fast clips are prepared, and what to change."""
    print(f"a step of {step.clips} clips, the mean of {step.steps}:")
    rows = [
        (
            part,
            f"{1000 * seconds:.1f}",
            f"{seconds / step.total:.0%}",
            ("#" * round(_BAR * seconds / step.total)).ljust(_BAR),
        )
        for part, seconds in step.seconds.items()
    ]
    print_table(("part", "ms", "share", ""), [*rows, ("together", f"{1000 * step.total:.1f}", "", "")])
    print(
        f"a clip, in the process that prepares it: {1000 * clip.reading:.1f} ms reading {clip.num_frames} frames of "
        f"{clip.short_side} pixels, {1000 * clip.fitting:.1f} ms resizing and cropping"
    )
    if rates:
        print(f"the network could take {step.wanted:.1f} clips/s; workers prepare, when nothing else runs:")
        print_table(("workers", "clips/s"), [(workers, f"{rate:.1f}") for workers, rate in rates.items()])
    if step.peak_gib is not None:
        print(f"peak memory: {step.peak_gib:.2f} GiB")
    if suggestions:
        print("\n".join(("what to change:", *suggestions)))
    else:
        print("nothing to change: the network takes most of the time")


def print_export(report: Mapping[str, Any]) -> None:
    """The outputs of an exported network, and how far they differ from the network's own."""
    rows = [
        (output["name"], " x ".join(("B", *map(str, output["shape"][1:]))), f"{output['largest_difference']:.1e}")
        for output in report["outputs"]
    ]
    print_table(("output", "shape", "largest difference"), rows)
    accepted = report["input"]
    shape = " x ".join("B" if side is None else str(side) for side in accepted["shape"])
    print(f"compared with the network's own answers on {report['compared_on']}")
    print(f"{report['file']}: takes {accepted['type']} {accepted['name']}, {shape}")


def print_archive_summary(summary: Mapping[str, Any]) -> None:
    """What was done for an archive, how fast, and the first errors."""
    rows: list[tuple[str, object]] = [("clips", summary["clips"]), ("unreadable", summary["errors"])]
    if summary["top1"] is not None:
        rows.append((f"top-1 of the {summary['labelled']} with a label", f"{summary['top1']:.1%}"))
        rows.append(("their mean class accuracy", f"{summary['mean_class_accuracy']:.1%}"))
    speed = summary["speed"]
    if "clips_per_second" in speed:
        rows += [
            ("clips per second", speed["clips_per_second"]),
            ("reading, share of all processing", f"{speed['reading_share']:.0%}"),
            ("waiting for clips, share of the network's time", f"{speed['waiting_share']:.0%}"),
            ("hours for a million clips", speed["hours_per_million"]),
        ]
    if "price_per_million" in speed:
        rows.append((f"price of a million clips, {speed['price_per_hour']:g} an hour", speed["price_per_million"]))
    print_table(("archive", ""), rows)
    for clip in summary["first_errors"]:
        print(f"{clip['id']}: {clip['error']}")
    more = summary["errors"] - len(summary["first_errors"])
    if more:
        print(f"{more} more clips could not be read; their rows have an error")


def print_listing(sources: Sequence[Path], listing: Listing) -> None:
    """What a data set lists: its splits, its classes, notes, and the first problems of each kind."""
    samples = listing.table.samples
    print(f"{', '.join(map(str, sources))}: {listing.format}\n")
    labels: dict[str, list[int]] = {"train": [], "validation": [], "test": []}
    for sample in sorted(samples, key=lambda sample: sample.split):
        labels.setdefault(sample.split, []).append(sample.label)
    rows = [(split, len(of_split), len(set(of_split))) for split, of_split in labels.items() if of_split]
    if rows:
        print_table(("split", "clips", "classes"), rows)
    order = "in the order of the source" if listing.ordered else "in alphabetical order"
    print(f"{len(listing.table.class_names)} classes {order}: {join_names(listing.table.class_names)}")
    parts = [sample.segment for sample in samples if sample.segment is not None]
    kinds = f"{listing.frame_folders} frame folders, {len(samples) - listing.frame_folders} video files"
    print(f"{kinds}; {len(parts)} clips are parts, such as {parts[0]}" if parts else kinds)
    for note in listing.notes:
        print(f"note: {note}")
    for kind, problems in problems_by_kind(listing.problems).items():
        for problem in problems[:3]:
            print(f"{kind}: {problem.where}: {problem.clip_id}: {problem.problem}")
        if len(problems) > 3:
            print(f"{kind}: {len(problems) - 3} more")


def print_data_check(report: Mapping[str, Any], out: Path) -> None:
    """What `check` found, split by split, and the first clips of each kind of fault or remark."""
    splits = report["splits"]
    kinds = (*FAULTS, *REMARKS)
    rows = [("clips", "clips"), ("usable", "usable"), ("classes", "classes with usable clips")]
    rows += [(kind, kind) for kind in kinds if any(split[kind] for split in splits.values())]
    print_table(("", *splits), [(name, *(split[key] for split in splits.values())) for key, name in rows])
    for kind in kinds:
        messages = [one["told"] for one in (*report["faults"], *report["remarks"]) if one["kind"] == kind]
        for message in messages[:5]:
            print(f"{kind}: {message}")
        if len(messages) > 5:
            print(f"{kind}: and {len(messages) - 5} more, see {out / 'check.json'}")
    for split, names in report["empty_classes"].items():
        if names:
            print(f"split {split}: {len(names)} classes without a usable clip: {join_names(names, 5)}")
    if report["exclude"]:
        print(f"{len(report['exclude'])} clips to leave out: train with --data.exclude {out / 'exclude.txt'}")
    print(f"{out}: {report['files']} files, {report['read']} of them read now; all of it in {out / 'check.json'}")


def print_backbones(backbones: Sequence[BackboneDescription]) -> None:
    """Print base networks, one line each, and where their weights are."""
    rows = [
        (
            one.name,
            f"{one.frames} x {one.size}",
            f"{one.channels} x {one.steps} x {one.grid} x {one.grid}",
            f"{one.parameters / 1e6:.1f}",
            f"{one.gflop:.1f}",
        )
        for one in backbones
    ]
    print_table(("base network", "clip", "features", "million parameters", "GFLOP"), rows)
    for one in backbones:
        for weights in one.weights:
            place = f"at {weights.file}" if weights.file.exists() else f"not here, from {weights.source}"
            print(f"{one.name} --network.weights {weights.name}: {weights.trained_on}; {place}")
    print()
    print("clip: frames x side in pixels. features: channels x steps x rows x columns; a step has one temporal score.")
    print("GFLOP: of one clip, two for a multiplication with an addition. timm/NAME takes any 2D network of timm.")
