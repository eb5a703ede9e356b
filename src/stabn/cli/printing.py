"""Tables for a terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from stabn.evaluation.accuracy import left_out
from stabn.evaluation.comparison import FORMER, FRAME_AP, GROUPS
from stabn.evaluation.perturbation import SCOPES


def print_table(heading: Sequence[object], rows: Sequence[Sequence[object]]) -> None:
    """Print rows under a heading; the first column is flushed left, the others right."""
    lines = [[str(cell) for cell in row] for row in (heading, *rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heading))]
    for number, line in enumerate(lines):
        first, *others = (
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        print("  ".join((first, *others)).rstrip())
        if number == 0:
            print("  ".join("-" * width for width in widths))
    print()


def print_accuracy(found: Mapping[str, Any]) -> None:
    """What `accuracy` found, as a table of the branches and one of the classes, with 95 % intervals."""
    rows = []
    for name, shown in (("perception", "perception branch"), ("attention_branch", "attention branch")):
        if found[name] is not None:
            shares = (_told({"share": found[name][k], **found["intervals"][name][k]}) for k in ("top1", "top5"))
            error = found["calibration"][name]
            rows.append((shown, *shares, _told({"share": error["error"], "low": error["low"], "high": error["high"]})))
    print_table(("", "top-1", "top-5", "calibration error"), rows)
    classes = [(c["name"], c["count"], _told({"share": c["top1"], **c})) for c in found["classes"]]
    print_table(("class", "clips", "top-1"), classes)
    if found["skipped"]:
        print(left_out(found["skipped"], found["num_clips"]))


def _told(value: Mapping[str, Any]) -> str:
    if value["share"] is None:
        return "-"
    return f"{value['share']:.1%} ({value['low']:.1%} to {value['high']:.1%})"


def print_comparison(found: Mapping[str, Any]) -> None:
    """A comparison as one table and its verdict."""
    # What an earlier version wrote has no differences; its table has dashes there.
    changes = {d["of"]: d for d in found.get("differences", ()) if d["against"] == found["against"]}
    rows = []
    for method in found["methods"]:
        precision, error = method["frame_average_precision"], method.get("calibration_error")
        change = changes.get(method["name"])
        mended, broken = (_of(method, key, group) for key, group in zip(("mended", "newly_wrong"), FORMER, strict=True))
        rows.append(
            (
                method["name"],
                *(_cell(method[group], "top1") for group in found["groups"]),
                mended,
                broken,
                *(("-", "-") if change is None else (_cell(change["all"], "points"), f"{change['mcnemar']['p']:.2g}")),
                "-" if error is None else f"{100 * error['error']:.1f}",
                "-" if precision is None else f"{precision:.3f}",
            )
        )
    columns = ("mended", "newly wrong", f"against {found['difference']['against']}", "p", "calib. error", "frame AP")
    print_table(("top-1 in %", *found["groups"], *columns), rows)
    print(found["verdict"])


def _cell(share: Mapping[str, float] | None, key: str) -> str:
    if share is None:
        return "-"
    sign = "+" if key == "points" else ""
    middle, low, high = (f"{round(100 * share[name], 1) + 0.0:{sign}.1f}" for name in (key, "low", "high"))
    return f"{middle} ({low} to {high})"


def _of(method: Mapping[str, Any], key: str, group: str) -> str:
    """Clips that changed, of those that could."""
    clips = method.get(group)
    return str(method[key]) if clips is None else f"{method[key]} of {clips['count']}"


def print_seeds(found: Mapping[str, Any]) -> None:
    """Methods over seeds as one table and its verdict."""
    differences = {d["of"]: d for d in found["differences"] if d["against"] == found["against"]}
    rows = []
    for method in found["methods"]:
        difference = differences.get(method["name"])
        rows.append(
            (
                method["name"],
                *(_seed_cell(method[name], 100) for name in (*GROUPS, *FORMER)),
                "-" if difference is None else _seed_cell(difference["all"], 100, signed=True),
                _seed_cell(method["calibration error"], 100),
                _seed_cell(method[FRAME_AP], 1, digits=3),
            )
        )
    heading = (f"{found['seeds']} seeds, top-1 in %", *GROUPS, *FORMER, f"all, against {found['against']}")
    print_table((*heading, "calibration error", "frame AP"), rows)
    print(found["verdict"])


def _seed_cell(interval: Mapping[str, float] | None, scale: int, *, digits: int = 1, signed: bool = False) -> str:
    if interval is None:
        return "-"
    mean = round(scale * interval["mean"], digits) + 0.0  # -0.0 becomes 0.0
    half = scale * (interval["high"] - interval["low"]) / 2
    return f"{mean:{'+' if signed else ''}.{digits}f} ± {half:.{digits}f}"


def print_faithfulness(found: Mapping[str, Any]) -> None:
    """What `faithfulness` found, as one table per group."""
    methods, baselines = found["methods"], found["baselines"]
    if found["attention_replaced"] is not None:
        rows = [
            (name, _percent(value["top1"]), "" if name == "as-is" else _span(value["drop"], ".1f"))
            for name, value in found["attention_replaced"].items()
        ]
        print_table(("attention replaced", "top-1", "drop in points"), rows)
    if baselines:
        columns = [(scope, direction) for scope in SCOPES for direction in ("deletion", "insertion")]
        falls = ("comprehensiveness", "sufficiency")
        rows = [
            (
                f"{name}, {baseline}",
                *(f"{value[scope][baseline][direction]['auc']:.3f}" for scope, direction in columns),
                *(f"{value['frames'][baseline][fall]['mean']:+.3f}" for fall in falls),
            )
            for name, value in methods.items()
            for baseline in baselines
        ]
        heading = [f"{scope} {'del.' if direction == 'deletion' else 'ins.'}" for scope, direction in columns]
        print_table((f"area, {len(found['perturbed'])} clips", *heading, "compreh.", "sufficiency"), rows)
    _print_truth(methods)
    _print_randomisation(methods, found["randomised"])
    _print_differences(found["differences"].get("attention", {}), baselines)


def _print_truth(methods: Mapping[str, Any]) -> None:
    columns = {
        ("temporal", "average_precision"): "frame AP",
        ("temporal", "pointing"): "frame pointing",
        ("temporal", "iou"): "frame IoU",
        ("spatial", "pointing"): "box pointing",
        ("spatial", "energy"): "energy in box",
    }
    told = {name: value["truth"] for name, value in methods.items() if value["truth"] is not None}
    if not told:
        return
    first = next(iter(told.values()))
    known = [(side, measure) for side, measure in columns if first[side] is not None]
    rows = [(name, *(_span(value[side][measure]) for side, measure in known)) for name, value in told.items()]
    rows.append(("by chance", *(f"{first[side][measure]['chance']:.3f}" for side, measure in known)))
    print_table(("against the truth", *(columns[key] for key in known)), rows)


def _print_randomisation(methods: Mapping[str, Any], clips: int) -> None:
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


def _print_differences(against: Mapping[str, Any], baselines: Sequence[str]) -> None:
    """The temporal attention beside CAM and Grad-CAM, clip by clip."""
    others = {name: value for name, value in against.items() if name in ("cam", "grad-cam")}
    if not others:
        return
    rows = [
        (
            f"frames {direction}, {baseline}",
            *(_judged(value["frames"][baseline][direction]) for value in others.values()),
        )
        for direction in ("deletion", "insertion")
        for baseline in baselines
    ]
    if all("temporal" in value.get("truth", {}) for value in others.values()):
        precisions = (_judged(value["truth"]["temporal"]["average_precision"]) for value in others.values())
        rows.append(("frame AP", *precisions))
    print_table(("attention minus", *others), rows)


def _percent(value: Mapping[str, float]) -> str:
    return f"{value['mean']:.1%} ({value['low']:.1%} to {value['high']:.1%})"


def _span(value: Mapping[str, float], form: str = ".3f") -> str:
    return f"{value['mean']:{form}} ({value['low']:{form}} to {value['high']:{form}})"


def _judged(value: Mapping[str, Any]) -> str:
    return f"{_span(value, '+.3f')} {value['verdict']}"


def print_found(found: Mapping[str, Any]) -> None:
    """What `judge` found as one table, its verdict, and what else a reader should know."""
    if "seeds" in found:
        print_seeds(found)
    else:
        print_comparison(found)
    for note in found["notes"]:
        print(f"Note: {note}")


def print_looks(looked: Sequence[Mapping[str, Any]]) -> None:
    """What `look` found, run by run."""
    for found in looked:
        print(f"\n{found['run']}\n")
        print_faithfulness(found)


def print_summary(told: dict[str, Any]) -> None:
    """The summary of an archive."""
    rows: list[tuple[str, object]] = [("clips", told["clips"]), ("not to be read", told["errors"])]
    if told["top1"] is not None:
        rows.append((f"top-1 of the {told['labelled']} with a label", f"{told['top1']:.1%}"))
    measured = told["speed"]
    if "clips_per_second" in measured:
        rows += [
            ("clips per second", measured["clips_per_second"]),
            ("reading, share of all processing", f"{measured['reading_share']:.0%}"),
            ("waiting for clips, share of the network's time", f"{measured['waiting_share']:.0%}"),
            ("hours for a million clips", measured["hours_per_million"]),
        ]
    if "price_per_million" in measured:
        rows.append(
            (f"price of a million clips, {measured['price_per_hour']:g} an hour", measured["price_per_million"])
        )
    print_table(("archive", ""), rows)
    for broken in told["first_errors"]:
        print(f"{broken['id']}: {broken['error']}")
    more = told["errors"] - len(told["first_errors"])
    if more:
        print(f"{more} more clips were not to be read; their rows have an error")
