"""The verbs around people's edits; as in `stabn.cli.train`, parameters and docstring are options and help."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from stabn.cli.printing import print_table
from stabn.data.annotations.source import DataSource
from stabn.data.ground_truth import ClipTruth, read_truth
from stabn.edits.agreement import measure_agreement
from stabn.edits.formats import choose_format
from stabn.edits.project import open_project
from stabn.edits.simulate import Simulation, has_truth
from stabn.edits.simulate import simulate_edits as simulate
from stabn.engine.config import EngineRecipe
from stabn.errors import UserError
from stabn.evaluation.accuracy import left_out
from stabn.evaluation.collect import collect as collect_project
from stabn.files import atomic_write
from stabn.runs import open_run
from stabn.training.cross_validation import predict_out_of_fold


def studio_command(
    run: Path,
    edits: Path | None = None,
    bound: float = 0.5,
    database: str | None = None,
    port: int = 8713,
    browser: bool = False,
    max_upload_mb: int = 512,
    memory_mb: int = 1024,
    data: DataSource | None = None,
) -> dict[str, Any]:
    """Correct a run's mistakes in the browser: see when and where it looked, paint when it should, fine-tune.

    Serves a page on this machine only and prints its address. Edits are kept in PROJECT/studio.db as they are made, and
    in PROJECT/edits.jsonl for every other verb.

    Args:
        run: a finished run.
        edits: the folder of the edit project; by default RUN/edits. If there is none, the mistakes are collected first.
        bound: when collecting, classes with a training accuracy below this share are weak; the paper's is 0.5.
        database: where edits are kept, as postgresql://USER:PASSWORD@HOST/NAME for a team; by default a file in the
            project.
        port: where the page is served; if it is taken, another one.
        browser: open the page.
        max_upload_mb: size of an uploaded video at most.
        memory_mb: what opened clips may take.
        data: the labelled videos; by default those of the run.
    """
    # Here, because the other verbs should not wait for a web server and a database to load.
    from stabn.studio.serve import serve, studio_on

    for name, value in (("max_upload_mb", max_upload_mb), ("memory_mb", memory_mb)):
        if value < 1:
            raise UserError(f"--{name}: got {value}, expected at least 1")
    if not 0 <= port < 2**16:
        raise UserError(f"--port: got {port}, expected 0..65535; 0 takes any free one")
    opened, folder = open_run(run, data), edits or run / "edits"
    if not (folder / "project.json").exists():
        print(f"{folder}: no edit project yet; collecting the mistakes of {run} ...", flush=True)
        collect_project(opened, folder, bound=bound)
    with studio_on(
        opened, folder, database=database, max_upload=max_upload_mb * 2**20, memory=memory_mb * 2**20
    ) as desk:
        serve(desk, port=port, browser=browser)
        return {"project": str(folder), "edits": len(desk.store.current())}


def simulate_edits_command(
    project: Path,
    truth: Path | None = None,
    boundary_noise: int = 0,
    wrong: float = 0.0,
    count: int | None = None,
    shuffle: bool = False,
    constant: float | None = None,
    seed: int = 0,
    author: str = "simulated",
    data: DataSource | None = None,
) -> dict[str, Any]:
    """Correct a project's clips as a person who knows the truth would, or one with faults.

    So one can measure what edits are worth, where the truth is known. Clips that have an edit already, and those whose
    truth is not known, stay as they are.

    Args:
        project: the folder of an edit project.
        truth: JSON lines like Tabletop's truth.jsonl; by default what the labelled videos' own table says.
        boundary_noise: source frames; the start and the end of what is marked are off by up to so many.
        wrong: share of the clips in which as many frames are marked, but at a random place.
        count: only so many clips, chosen at random and evenly from the classes; by default all.
        shuffle: every clip gets the scores of another clip.
        constant: every frame gets this score in 0..1; no truth is needed.
        seed: of all chance.
        author: whose name the edits carry; their comment says how they were simulated.
        data: the labelled videos; by default those of the project's run.
    """
    simulation = Simulation(boundary_noise, wrong, count, shuffle, constant, seed)
    opened = open_project(project)
    known: Mapping[str, ClipTruth] = {}
    if truth is not None:
        known = read_truth(truth)
    elif constant is None:
        source = open_run(opened.run, data).source
        known = source.table().truth
        if not known:
            raise UserError(
                f"{source.annotations}: does not say when anything happens; give --truth, or name the table's columns "
                "with --data.columns.start and --data.columns.end"
            )
    added = simulate(opened, known, simulation, author)
    unknown = 0 if constant is not None else sum(not has_truth(clip, known) for clip in opened.clips)
    without = f"; {unknown} clips have no truth" if unknown else ""
    print(f"{opened.edits_file}: {added} edits added ({simulation.comment}){without}")
    return {
        "project": str(project),
        "edits": added,
        "without_truth": unknown,
        "author": author,
        "simulation": asdict(simulation),
    }


def check_edits_command(project: Path) -> dict[str, Any]:
    """Check a project's edits file, count what is corrected, and measure how far people agree.

    Args:
        project: the folder of an edit project.
    """
    opened = open_project(project)
    edits = opened.current()
    edited = len({edit.clip_id for edit in edits})
    print(f"{opened.edits_file}: {edited} of {len(opened.clips)} clips have an edit; all lines are valid")
    people = sorted(Counter(edit.author for edit in edits).items())
    if people:
        print_table(("person", "clips"), people)
    agreed = measure_agreement(edits, {clip.clip_id: clip.label for clip in opened.clips})
    if len(people) > 1:
        rows = [("all", agreed.project), *agreed.classes.items()]
        print_table(("class", "agreement"), [(name, "-" if a is None else f"{a:.2f}") for name, a in rows])
        print("Agreement is Krippendorff's alpha (ordinal): 1 is perfect, 0 is chance, - is undefined.")
    return {
        "project": str(project),
        "clips": len(opened.clips),
        "edited": edited,
        "people": dict(people),
        "agreement": asdict(agreed),
    }


def export_edits_command(project: Path, out: Path, format: str | None = None) -> dict[str, Any]:
    """Write everybody's edits to a file for other programs: the last edit of each person for each clip.

    Args:
        project: the folder of an edit project.
        out: the new file; .jsonl, .csv, or .json for Label Studio.
        format: jsonl, csv or label-studio, where the file's name does not say it.
    """
    chosen, opened = choose_format(out, format), open_project(project)
    edits = opened.current()
    if not edits:
        raise UserError(f"{opened.edits_file}: holds no edit; correct some clips first")
    if out.exists():
        raise UserError(f"{out}: exists; choose another file, so that nobody's work is overwritten")
    text = chosen.write(edits, {clip.clip_id: clip for clip in opened.clips})
    with atomic_write(out) as temporary:
        temporary.write_bytes(text.encode())  # line ends as the format has them
    print(f"{out}: {len(edits)} edits of {len({edit.author for edit in edits})} people written")
    return {"project": str(project), "file": str(out), "edits": len(edits)}


def import_edits_command(project: Path, file: Path, format: str | None = None) -> dict[str, Any]:
    """Add the edits of a file to a project, all or none; what the project knows already is not added again.

    Args:
        project: the folder of an edit project.
        file: as `stabn export-edits` writes it, or a JSON export of Label Studio.
        format: jsonl, csv or label-studio, where the file's name does not say it.
    """
    chosen, opened = choose_format(file, format), open_project(project)
    try:
        text = file.read_bytes().decode("utf-8")
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror}); give a file of edits") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: is not UTF-8 text ({error}); save it as UTF-8") from None
    edits = chosen.read(text, str(file), {clip.clip_id: clip for clip in opened.clips})
    known = set(opened.history())
    new = [edit for edit in dict.fromkeys(edits) if edit not in known]
    if new:
        opened.add(new)
    print(f"{opened.edits_file}: {len(new)} edits added, {len(edits) - len(new)} were there already")
    return {"project": str(project), "imported": len(new), "unchanged": len(edits) - len(new)}


def collect_command(
    run: Path,
    out: Path,
    bound: float = 0.5,
    weakest: int | None = None,
    recognised: bool = False,
    max_clips: int | None = None,
    folds: int = 0,
    data: DataSource | None = None,
    batch_size: int = 16,
    workers: int = 0,
    engine: EngineRecipe = EngineRecipe(devices="1"),  # noqa: B008
) -> dict[str, Any]:
    """Collect the misrecognised training clips of the weak classes into an edit project.

    Args:
        run: a finished run.
        out: folder for the project.
        bound: classes with a training accuracy below this share are weak; the paper's is 0.5.
        weakest: so many classes of the lowest accuracy are weak, whatever the bound; for data with few classes.
        recognised: collect the recognised clips of the weak classes instead, to compare what editing them is worth.
        max_clips: at most so many clips, evenly from the weak classes; by default all.
        folds: on small data a network knows its training clips by heart; 5 trains five networks by the run's recipe,
            each on four fifths of the clips, and collects what they get wrong in the fifth they have not seen. They
            are kept in a folder beside the project, OUT-folds; an interrupted command goes on.
        data: the labelled videos; by default those of the run.
        batch_size: videos at once.
        workers: processes that decode.
        engine: on what it runs.
    """
    opened = open_run(run, data)
    between = out.with_name(out.name + "-folds")
    out_of_fold = partial(predict_out_of_fold, opened, between, folds=folds, batch_size=batch_size, engine=engine)
    found = collect_project(
        opened,
        out,
        bound=bound,
        weakest=weakest,
        recognised=recognised,
        max_clips=max_clips,
        batch_size=batch_size,
        workers=workers,
        engine=engine,
        answer=out_of_fold if folds else None,
        folds=folds,
    )
    rows = [(c["name"], c["count"], f"{c['top1']:.1%}", c["collected"]) for c in found["classes"]]
    measured = "training top-1" if not folds else "out-of-fold top-1"
    print_table(("weak class", "clips", measured, "to correct"), rows)
    if found["skipped"]:
        print(left_out(found["skipped"], found["measured"]))
    print(f"{out}: {found['collected']} clips to correct, listed in {out / 'clips.jsonl'}")
    print(
        f"To see one: stabn explain {run} {open_project(out).clips[0].path} --out {out.with_name(out.name + '-seen')}"
    )
    return {"project": str(out), **found}
