"""Comparison of methods that were trained with several seeds, so that the intervals cover the chance of training."""

from collections.abc import Mapping, Sequence
from typing import Any

from stabn.evaluation.comparison import FORMER_GROUPS, FRAME_AP, GROUPS, MEAN_CLASS, verdict
from stabn.evaluation.intervals import seed_interval

MEASURES = (*GROUPS, *FORMER_GROUPS, MEAN_CLASS, "calibration error", FRAME_AP)


def compare_over_seeds(
    methods: Sequence[str], repetitions: Sequence[Mapping[str, Any]], *, control: str | None = None
) -> dict[str, Any]:
    """Summarise several comparisons of the same methods, one per seed.

    Each repetition has the edited classes of its own last run, and its formerly wrong clips are those of its own first
    run. Differences are taken within a repetition.

    Args:
        methods: distinct names, in the order of each repetition's runs.
        repetitions: at least two results of `stabn.evaluation.comparison.compare_predictions`, one per seed.
        control: the method before the last that the last one is judged against; None for the first.

    Returns:
        {"groups", "seeds": their number, "methods": [{"name", "runs", per measure {"mean", "low", "high", "values"}}],
        "against": the control's name, "differences": [{"of", "against", per measure likewise}], "difference": the last
        method's against the control, "verdict": one sentence}. Measures are those of `MEASURES`; "values" holds a
        number per repetition, None where it has none. Where fewer than two repetitions have one, a measure is None.
    """
    control = methods[0] if control is None else control
    runs = {name: [repetition["methods"][i] for repetition in repetitions] for i, name in enumerate(methods)}
    values = {name: {m: [_value(run, m) for run in of_method] for m in MEASURES} for name, of_method in runs.items()}

    def difference(of: str, against: str) -> dict[str, Any]:
        # The first method's own answers define the former groups, so a difference to it there would say nothing.
        measures = [m for m in MEASURES if m not in FORMER_GROUPS or against != methods[0]]
        changes = {m: _change(values[of][m], values[against][m]) for m in measures}
        return {"of": of, "against": against, **{m: changes.get(m) for m in MEASURES}}

    differences = [
        difference(of, against) for of in methods for against in dict.fromkeys((control, methods[0])) if of != against
    ]
    last = next(d for d in differences if (d["of"], d["against"]) == (methods[-1], control))
    return {
        "groups": list(GROUPS),
        "seeds": len(repetitions),
        "methods": [
            {
                "name": name,
                "runs": [run["name"] for run in of_method],
                **{measure: _summary(values[name][measure]) for measure in MEASURES},
            }
            for name, of_method in runs.items()
        ],
        "against": control,
        "differences": differences,
        "difference": last,
        "verdict": verdict(last),
    }


def _value(run: Mapping[str, Any], measure: str) -> float | None:
    """One number of one run of a comparison."""
    if measure == "calibration error":
        return run["calibration_error"]["error"]
    if measure == MEAN_CLASS:
        return run["mean_class_accuracy"]["mean"]
    if measure == FRAME_AP:
        return run["frame_average_precision"]
    return None if run[measure] is None else run[measure]["top1"]


def _summary(values: Sequence[float | None]) -> dict[str, Any] | None:
    present = [value for value in values if value is not None]
    return {**seed_interval(present).as_json(), "values": list(values)} if len(present) > 1 else None


def _change(ours: Sequence[float | None], theirs: Sequence[float | None]) -> dict[str, Any] | None:
    pairs = zip(ours, theirs, strict=True)
    return _summary([None if a is None or b is None else round(a - b, 6) for a, b in pairs])
