"""Who takes part in a comparison, what they answer for the same clips, and what that says together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from stabn.data.annotations.source import DataSource
from stabn.data.ground_truth import ClipTruth, check_truth_ids, read_truth, unused_truth_message
from stabn.errors import UserError
from stabn.evaluation.accuracy import skipped_note
from stabn.evaluation.comparison import NamedPredictions, compare_predictions
from stabn.evaluation.faithfulness import run_faithfulness
from stabn.evaluation.predict import Predictions, predict_split
from stabn.evaluation.seeds import compare_over_seeds
from stabn.nn import STABN
from stabn.runs import Run, network_class_names, open_runs


@dataclass(frozen=True)
class ComparedRun:
    """A run that takes part.

    Attributes:
        run: as it was opened.
        method: what it stands for; its folder where every run stands for itself.
        network: what it is, in a few words.
        class_names: of its network.
    """

    run: Run
    method: str
    network: str
    class_names: tuple[str, ...]


@dataclass(frozen=True)
class ComparisonPlan:
    """Who takes part.

    Attributes:
        repetitions: per seed one entry of each method, in the same order; a single one where every run stands for
            itself. The runs of a repetition have the same data.
        control: the method that the last one is judged against, or None for the first.
    """

    repetitions: tuple[tuple[ComparedRun, ...], ...]
    control: str | None

    @property
    def methods(self) -> tuple[str, ...]:
        """Their names, in order."""
        return tuple(entry.method for entry in self.repetitions[0])

    @property
    def class_names(self) -> tuple[str, ...]:
        """Those of every run."""
        return self.repetitions[0][0].class_names


def plan_comparison(
    folders: Sequence[Path],
    *,
    methods: Sequence[str] | None = None,
    control: Path | str | None = None,
    data: DataSource | None = None,
) -> ComparisonPlan:
    """Open the runs of a comparison and make sure that they can be compared.

    Args:
        folders: of finished runs, plain networks and ST-ABN as they come.
        methods: for runs that are repetitions one name per run; the first run of each method is its first repetition.
        control: one of the runs, or with `methods` one of these.
        data: labelled videos in place of those of the runs.

    Raises:
        UserError: fewer than two runs or methods, methods with unlike numbers of runs, runs on other data or with other
            classes, or no such control.
    """
    if len(folders) < 2:
        raise UserError(f"compare: got {len(folders)} run, expected at least two")
    names = [str(folder) for folder in folders] if methods is None else list(methods)
    if methods is None:
        rounds: list[list[Path]] = [list(folders)]
    else:
        rounds = _rounds(folders, names)
        names = list(dict.fromkeys(names))
    chosen = None if control is None else str(control)
    if chosen is not None and chosen not in names:
        raise UserError(f"--control: got {chosen}, expected one of {', '.join(names)}")
    if chosen == names[-1]:
        raise UserError(f"--control: got {chosen}, the last one, which is itself judged; name another one last")
    opened = [open_runs(paths, data) for paths in rounds]
    entries = tuple(tuple(_entry(run, name) for run, name in zip(runs, names, strict=True)) for runs in opened)
    first = entries[0][0]
    for entry in (entry for repetition in entries for entry in repetition):
        if entry.class_names != first.class_names:
            differing = sorted({*entry.class_names} ^ {*first.class_names})
            told = f"class {differing[0]!r} is in one of them only" if differing else "their classes have another order"
            raise UserError(f"{entry.run.folder}: has not the classes of {first.run.folder}, {told}; compare others")
    return ComparisonPlan(entries, chosen)


def _rounds(folders: Sequence[Path], names: Sequence[str]) -> list[list[Path]]:
    """The runs by repetition, the methods in the order in which they first come."""
    if len(names) != len(folders):
        raise UserError(f"--methods: got {len(names)} names for {len(folders)} runs, expected one name per run")
    of = {name: [f for f, n in zip(folders, names, strict=True) if n == name] for name in names}
    counts = {name: len(runs) for name, runs in of.items()}
    if len(of) < 2:
        raise UserError(f"--methods: got {names[0]!r} alone, expected at least two methods")
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise UserError(f"--methods: got unlike numbers of runs ({told}), expected equally many of each")
    if min(counts.values()) < 2:
        raise UserError("--methods: got one run of each, expected at least two seeds; leave --methods out")
    for folder in folders:
        if folders.count(folder) > 1:
            raise UserError(f"compare: got {folder} twice, expected every repetition once")
    return [list(runs) for runs in zip(*of.values(), strict=True)]


def _entry(run: Run, method: str) -> ComparedRun:
    model = run.model()
    network = f"{'ST-ABN' if isinstance(model, STABN) else 'plain network'}, {model.architecture}"
    return ComparedRun(run, method, network, network_class_names(model))


def describe_runs(entries: Sequence[ComparedRun]) -> str:
    """What the runs of a method are, in a few words."""
    told = " or ".join(dict.fromkeys(entry.network for entry in entries))
    runs = [entry.run for entry in entries]
    if all(run.origin is None for run in runs):
        return told
    counts = sorted({len(run.edited) for run in runs})
    number = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    edits = f"{number} edit" + ("" if number == "1" else "s")
    without = all(run.recipe.get("control") for run in runs)
    return f"{told}, fine-tuned {'without the loss of' if without else 'on'} {edits}"


def predict_runs(lineup: ComparisonPlan, split: str, **options: Any) -> list[list[Predictions]]:
    """What every run answers for the split, by repetition; options as for `stabn.evaluation.predict.predict`.

    Raises:
        UserError: the data has no such split, or a video cannot be read.
    """
    return [[predict_split(entry.run, split, **options)[0] for entry in entries] for entries in lineup.repetitions]


def comparison_truth(lineup: ComparisonPlan, split: str, path: Path) -> dict[str, ClipTruth]:
    """What a file says of every repetition's clips; to be asked before the networks are.

    Raises:
        UserError: it says nothing of them, or cannot be read, or the data has no such split.
    """
    truth = read_truth(path)
    for entries in lineup.repetitions:
        check_truth_ids(path, truth, [sample.clip_id for sample in entries[0].run.source.table().of_split(split)])
    return truth


def compare_runs(
    lineup: ComparisonPlan, answers: Sequence[Sequence[Predictions]], truth: Mapping[str, ClipTruth] | None = None
) -> dict[str, Any]:
    """One comparison, or what several repetitions say together.

    The edited classes are those of the last run of each repetition.

    Args:
        lineup: who takes part.
        answers: as `predict_runs` gives them.
        truth: by clip id, in place of what the data itself says of its clips.

    Returns:
        As `stabn.evaluation.comparison.compare_predictions`; over repetitions as `stabn.evaluation.seeds.compare_over_seeds`, with
        "repetitions": the comparison of each. And "notes": sentences that a reader should know.

    Raises:
        UserError: the truth does not fit the videos.
    """
    found, notes = [], []
    for entries, answered in zip(lineup.repetitions, answers, strict=True):
        contestants = [NamedPredictions(str(e.run.folder), a) for e, a in zip(entries, answered, strict=True)]
        control = next((c.name for c, e in zip(contestants, entries, strict=True) if e.method == lineup.control), None)
        known = entries[0].run.source.table().truth if truth is None else truth
        edited = entries[-1].run.edited_classes
        found.append(compare_predictions(contestants, lineup.class_names, edited, control=control, truth=known))
        looking = any(answer.temporal is not None for answer in answered)
        measured = any(method["frame_average_precision"] is not None for method in found[-1]["methods"])
        if looking and not measured and (told := unused_truth_message(known, answered[0].clip_ids)) and told not in notes:
            notes.append(told)
        skipped = answered[0].skipped_as_json
        found[-1]["skipped"] = skipped
        if skipped and (note := skipped_note(skipped, len(answered[0].clip_ids))) not in notes:
            notes.append(note)
        for entry in entries[:-1]:
            if entry.run.edited_classes and set(entry.run.edited_classes) != set(edited):
                notes.append(
                    f"{entry.run.folder} was fine-tuned on edits of other classes than {entries[-1].run.folder}; "
                    f"the edited classes are those of {entries[-1].run.folder}."
                )
    if len(found) == 1:
        return found[0] | {"notes": notes}
    return compare_over_seeds(lineup.methods, found, control=lineup.control) | {"notes": notes, "repetitions": found}


def runs_faithfulness(
    lineup: ComparisonPlan, split: str, truth: Mapping[str, ClipTruth] | None = None, **options: Any
) -> list[dict[str, Any]]:
    """Every run's faithfulness.

    Args:
        lineup: who takes part.
        split: train or validation.
        truth: by clip id, in place of what the data itself says.
        options: as for `stabn.evaluation.faithfulness.faithfulness`.

    Returns:
        Per run, repetition by repetition, {"method", "run", and what `faithfulness` gives}.

    Raises:
        UserError: as `faithfulness`.
    """
    entries = [entry for entries in lineup.repetitions for entry in entries]
    return [
        {
            "method": entry.method,
            "run": str(entry.run.folder),
            **run_faithfulness(entry.run, split, truth=truth, **options),
        }
        for entry in tqdm(entries, desc="faithfulness", unit="run", disable=None)
    ]
