"""Opening the runs of a comparison, running them on the same clips, and comparing their predictions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from stabn.data.annotations.source import DataSource
from stabn.data.class_balance import count_classes, missing_class_notes
from stabn.data.ground_truth import ClipTruth, check_truth_ids, read_truth, unused_truth_message
from stabn.errors import UserError
from stabn.evaluation.accuracy import skipped_note
from stabn.evaluation.comparison import compare_predictions
from stabn.evaluation.faithfulness import run_faithfulness
from stabn.evaluation.predict import Predictions, predict_split
from stabn.evaluation.seeds import compare_over_seeds
from stabn.nn import has_attention
from stabn.runs import Run, network_class_names, open_runs


@dataclass(frozen=True)
class ComparedRun:
    """A run in a comparison.

    Attributes:
        run: the opened run.
        method: the method that it is a repetition of; its folder where every run stands for itself.
        network: kind and architecture, such as "ST-ABN, tiny".
        class_names: of its network.
    """

    run: Run
    method: str
    network: str
    class_names: tuple[str, ...]


@dataclass(frozen=True)
class ComparisonPlan:
    """The runs of a comparison by repetition and method.

    Attributes:
        repetitions: per seed one run of each method, in the same order; a single repetition where every run stands for
            itself. The runs of a repetition have the same data.
        control: the method that the last one is judged against, or None for the first.
    """

    repetitions: tuple[tuple[ComparedRun, ...], ...]
    control: str | None

    @property
    def methods(self) -> tuple[str, ...]:
        """Names of the methods, in order."""
        return tuple(compared.method for compared in self.repetitions[0])

    @property
    def class_names(self) -> tuple[str, ...]:
        """The class names, which all runs share."""
        return self.repetitions[0][0].class_names

    @property
    def runs(self) -> list[ComparedRun]:
        """All runs, repetition by repetition."""
        return [compared for repetition in self.repetitions for compared in repetition]


def plan_comparison(
    folders: Sequence[Path],
    *,
    methods: Sequence[str] | None = None,
    control: Path | str | None = None,
    data: DataSource | None = None,
) -> ComparisonPlan:
    """Open the runs of a comparison and check that they can be compared.

    Args:
        folders: of finished runs, plain networks and ST-ABN in any mixture.
        methods: for runs that are repetitions one name per run; the first run of each method is its first repetition.
        control: one of the runs, or with `methods` one of these.
        data: labelled videos in place of those of the runs.

    Raises:
        UserError: fewer than two runs or methods, a run twice, unequal numbers of runs per method, runs on other data
            or with other classes, or no such control.
    """
    if len(folders) < 2:
        raise UserError(f"compare: got {len(folders)} run, expected at least two")
    if methods is None and len({folder.resolve() for folder in folders}) < len(folders):
        raise UserError(f"compare: got a run twice in {', '.join(map(str, folders))}; leave one of them out")
    if methods is None:
        names, repetitions = [str(folder) for folder in folders], [list(folders)]
    else:
        names, repetitions = list(dict.fromkeys(methods)), _by_repetition(folders, methods)
    control = None if control is None else str(control)
    if control is not None and control not in names:
        raise UserError(f"--control: got {control}, expected one of {', '.join(names)}")
    if control == names[-1]:
        raise UserError(f"--control: got {control}, which is the last one and is itself judged; put another one last")
    plan = ComparisonPlan(
        tuple(
            tuple(_compared_run(run, name) for run, name in zip(open_runs(paths, data), names, strict=True))
            for paths in repetitions
        ),
        control,
    )
    for compared in plan.runs:
        if compared.class_names != plan.class_names:
            differing = sorted({*compared.class_names} ^ {*plan.class_names})
            reason = f"class {differing[0]!r} is in one of them only" if differing else "the order of classes differs"
            raise UserError(
                f"{compared.run.folder}: has other classes than {plan.runs[0].run.folder} ({reason}); compare runs "
                "that have the same classes"
            )
    return plan


def _by_repetition(folders: Sequence[Path], methods: Sequence[str]) -> list[list[Path]]:
    """The runs of each repetition, methods in the order in which they first appear."""
    if len(methods) != len(folders):
        raise UserError(f"--methods: got {len(methods)} names for {len(folders)} runs, expected one name per run")
    runs = {name: [f for f, n in zip(folders, methods, strict=True) if n == name] for name in dict.fromkeys(methods)}
    counts = {name: len(of_method) for name, of_method in runs.items()}
    if len(runs) < 2:
        raise UserError(f"--methods: got {methods[0]!r} alone, expected at least two methods")
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise UserError(f"--methods: got unequal numbers of runs ({listed}), expected the same number of each")
    if min(counts.values()) < 2:
        raise UserError("--methods: got one run of each, expected at least two seeds; leave --methods out")
    for folder in folders:
        if folders.count(folder) > 1:
            raise UserError(f"compare: got {folder} twice, expected every repetition once")
    return [list(repetition) for repetition in zip(*runs.values(), strict=True)]


def _compared_run(run: Run, method: str) -> ComparedRun:
    model = run.model()
    network = f"{'ST-ABN' if has_attention(model) else 'plain network'}, {model.architecture}"
    return ComparedRun(run, method, network, network_class_names(model))


def describe_runs(compared: Sequence[ComparedRun]) -> str:
    """Networks and fine-tuning of a method's runs, such as "ST-ABN, tiny, fine-tuned on 3 edits"."""
    networks = " or ".join(dict.fromkeys(one.network for one in compared))
    runs = [one.run for one in compared]
    if all(run.origin is None for run in runs):
        return networks
    counts = sorted({len(run.edited) for run in runs})
    number = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    edits = f"{number} edit" + ("" if number == "1" else "s")
    without_loss = all(run.recipe.get("control") for run in runs)
    return f"{networks}, fine-tuned {'without the loss of' if without_loss else 'on'} {edits}"


def predict_runs(plan: ComparisonPlan, split: str, **options: Any) -> list[list[Predictions]]:
    """Predictions of every run for a split, by repetition; options as for `stabn.evaluation.predict.predict`.

    Raises:
        UserError: the data has no such split, or a video cannot be read.
    """
    return [[predict_split(one.run, split, **options)[0] for one in repetition] for repetition in plan.repetitions]


def comparison_truth(plan: ComparisonPlan, split: str, path: Path) -> dict[str, ClipTruth]:
    """Read a file of truth and check that it covers clips of every repetition; cheap, so do it before predicting.

    Raises:
        UserError: it has none of the clips, or cannot be read, or the data has no such split.
    """
    truth = read_truth(path)
    for repetition in plan.repetitions:
        check_truth_ids(path, truth, [sample.clip_id for sample in repetition[0].run.source.table().of_split(split)])
    return truth


def compare_runs(
    plan: ComparisonPlan,
    predictions: Sequence[Sequence[Predictions]],
    split: str,
    truth: Mapping[str, ClipTruth] | None = None,
) -> dict[str, Any]:
    """Compare runs, or methods over several repetitions.

    The edited classes are those of the last run of each repetition.

    Args:
        plan: the runs.
        predictions: as `predict_runs` gives them.
        split: that was predicted.
        truth: by clip id, in place of the data's own.

    Returns:
        As `stabn.evaluation.comparison.compare_predictions`; with repetitions as
        `stabn.evaluation.seeds.compare_over_seeds`, and "repetitions": the comparison of each. And "notes": sentences
        that a reader should know.

    Raises:
        UserError: the truth does not fit the videos.
    """
    results, notes = [], dict[str, None]()  # in order, each note once
    for repetition, predicted in zip(plan.repetitions, predictions, strict=True):
        runs = [(str(one.run.folder), p) for one, p in zip(repetition, predicted, strict=True)]
        control = next((str(one.run.folder) for one in repetition if one.method == plan.control), None)
        clip_truth = repetition[0].run.source.table().truth if truth is None else truth
        last = repetition[-1].run
        result = compare_predictions(runs, plan.class_names, last.edited_classes, control=control, truth=clip_truth)
        counts = {split: count_classes(predicted[0].labels, len(plan.class_names))}
        notes |= dict.fromkeys(missing_class_notes(counts, plan.class_names))
        clip_ids, skipped = predicted[0].clip_ids, predicted[0].skipped_as_json
        results.append(result | {"skipped": skipped})
        has_attention = any(one.temporal is not None for one in predicted)
        measured = any(method["frame_average_precision"] is not None for method in result["methods"])
        if has_attention and not measured and (message := unused_truth_message(clip_truth, clip_ids)):
            notes[message] = None
        if skipped:
            notes[skipped_note(skipped, len(clip_ids))] = None
        for run in (one.run for one in repetition[:-1]):
            if run.edited_classes and set(run.edited_classes) != set(last.edited_classes):
                notes[
                    f"{run.folder} was fine-tuned on edits of other classes than {last.folder}; "
                    f"the edited classes are those of {last.folder}."
                ] = None
    if len(results) == 1:
        return results[0] | {"notes": list(notes)}
    over_seeds = compare_over_seeds(plan.methods, results, control=plan.control)
    return over_seeds | {"notes": list(notes), "repetitions": results}


def runs_faithfulness(
    plan: ComparisonPlan, split: str, truth: Mapping[str, ClipTruth] | None = None, **options: Any
) -> list[dict[str, Any]]:
    """Measure the faithfulness of every run's explanations.

    Args:
        plan: the runs.
        split: train, validation, or any other that the table of clips names.
        truth: by clip id, in place of the data's own.
        options: as for `stabn.evaluation.faithfulness.faithfulness`.

    Returns:
        Per run, repetition by repetition, {"method", "run", and what `faithfulness` gives}.

    Raises:
        UserError: as `faithfulness`.
    """
    return [
        {
            "method": compared.method,
            "run": str(compared.run.folder),
            **run_faithfulness(compared.run, split, truth=truth, **options),
        }
        for compared in tqdm(plan.runs, desc="faithfulness", unit="run", disable=None)
    ]
