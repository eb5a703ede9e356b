"""The verbs of edits: collect, studio, simulate-edits, check-edits, export-edits and import-edits."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from stabn.cli.printing import print_collection, print_people
from stabn.data.annotations.source import DataSource
from stabn.data.ground_truth import ClipTruth, read_truth
from stabn.edits.agreement import measure_agreement
from stabn.edits.changed_files import check_edit_times, usable_clips
from stabn.edits.formats import choose_format
from stabn.edits.project import Project, open_project, project_data
from stabn.edits.simulate import Simulation, has_truth, simulate_edits
from stabn.engine.config import EngineRecipe
from stabn.errors import UserError
from stabn.evaluation.collect import collect_project
from stabn.files import atomic_write
from stabn.runs import network_preprocessing, open_run
from stabn.training.cross_validation import predict_out_of_fold


def studio_command(
    run: Path,
    edits: Path | None = None,
    bound: float = 0.5,
    database: str | None = None,
    port: int = 8713,
    origin: list[str] | None = None,
    root_path: str = "",
    host: str = "127.0.0.1",
    browser: bool = False,
    max_upload_mb: int = 512,
    memory_mb: int = 1024,
    data: DataSource = DataSource(),  # noqa: B008
) -> dict[str, Any]:
    """Correct a run's mistakes in the browser: see when and where it looked, paint when it should, fine-tune.

    Serves a page on this machine only and prints its address. Edits are stored in PROJECT/studio.db as they are made,
    and in PROJECT/edits.jsonl for every other verb.

    Args:
        run: a finished run.
        edits: the folder of the edit project; by default RUN/edits. If it does not exist, mistakes are collected first.
        bound: when collecting, classes with a training accuracy below this share are weak; the paper's is 0.5.
        database: postgresql://USER:PASSWORD@HOST/NAME for a team; by default a file in the project.
        port: TCP port of the page; if it is taken, another one is used.
        origin: scheme, host and port of the page in browsers where a forwarder shows it, such as
            https://name-8713.app.github.dev; several times for several. Changes from other pages are refused.
        root_path: the path under which a forwarder shows the page, such as /proxy/8713.
        host: this machine's address to listen on; 0.0.0.0 for all, as `docker run -p` needs. Other machines reach the
            page then, and only the token in its address keeps them out.
        browser: open the page in the browser.
        max_upload_mb: largest size of an uploaded video, in MiB.
        memory_mb: memory for opened clips, in MiB.
        data: the labelled videos; by default those of the run.
    """
    # a web server and a database, which the other verbs need not load
    from stabn.studio.security import Forwarding
    from stabn.studio.serve import open_studio, serve

    for name, value in (("max_upload_mb", max_upload_mb), ("memory_mb", memory_mb)):
        if value < 1:
            raise UserError(f"--{name}: got {value}, expected at least 1")
    if not 0 <= port < 2**16:
        raise UserError(f"--port: got {port}, expected 0..65535; 0 takes any free one")
    forwarding = Forwarding(tuple(origin or ()), root_path, host)
    opened, folder = open_run(run, data), edits or run / "edits"
    if not (folder / "project.json").exists():
        print(f"{folder}: no edit project yet; collecting the mistakes of {run} ...", flush=True)
        collect_project(opened, folder, bound=bound)
    with open_studio(
        opened, folder, database=database, max_upload=max_upload_mb * 2**20, memory=memory_mb * 2**20
    ) as studio:
        serve(studio, port=port, browser=browser, forwarding=forwarding)
        return {"project": str(folder), "edits": len(studio.store.current())}


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
    data: DataSource = DataSource(),  # noqa: B008
) -> dict[str, Any]:
    """Simulate the edits of a person who knows the truth, or of one who makes mistakes.

    This measures what edits are worth on data with known truth. Clips that already have an edit, and clips without
    truth, stay as they are.

    Args:
        project: the folder of an edit project.
        truth: JSON lines like Tabletop's truth.jsonl; by default from the table of the labelled videos.
        boundary_noise: largest error of the start and end of what is marked, in source frames.
        wrong: share of the clips in which as many frames are marked, but at a random place.
        count: number of clips, drawn at random and evenly from the classes; by default all.
        shuffle: give every clip the scores of another clip.
        constant: give every frame this score in 0..1; needs no truth.
        seed: for all random choices.
        author: the author of the edits; their comment says how they were simulated.
        data: the labelled videos; by default those of the project's run.
    """
    simulation = Simulation(boundary_noise, wrong, count, shuffle, constant, seed)
    opened = open_project(project)
    clip_truth: Mapping[str, ClipTruth] = {}
    if truth is not None:
        clip_truth = read_truth(truth)
    elif constant is None:
        source = project_data(opened, data)
        clip_truth = source.table().truth
        if not clip_truth:
            raise UserError(
                f"{source.annotations}: does not say when anything happens; give --truth, or name the table's columns "
                "with --data.columns.start and --data.columns.end"
            )
    added = simulate_edits(opened, clip_truth, simulation, author)
    without = 0 if constant is not None else sum(not has_truth(clip, clip_truth) for clip in opened.clips)
    note = f"; {without} clips have no truth" if without else ""
    print(f"{opened.edits_file}: {added} edits added ({simulation.comment}){note}")
    return {
        "project": str(project),
        "edits": added,
        "without_truth": without,
        "author": author,
        "simulation": asdict(simulation),
    }


def check_edits_command(
    project: Path,
    data: DataSource = DataSource(),  # noqa: B008
) -> dict[str, Any]:
    """Check a project's edits file and its videos, count the edited clips, and measure how far people agree.

    Every video has to be the one in which the clip was collected: the same frames at the same times, of the same size.

    Args:
        project: the folder of an edit project.
        data: the labelled videos; by default those of the project's run.
    """
    opened = open_project(project)
    edits = opened.latest_edits()
    edited = len({edit.clip_id for edit in edits})
    _check_files(opened, data)
    print(f"{opened.edits_file}: {edited} of {len(opened.clips)} clips have an edit; all lines are valid")
    people = dict(sorted(Counter(edit.author for edit in edits).items()))
    agreement = measure_agreement(edits, {clip.clip_id: clip.label for clip in opened.clips})
    print_people(people, agreement)
    return {
        "project": str(project),
        "clips": len(opened.clips),
        "edited": edited,
        "people": people,
        "agreement": asdict(agreement),
    }


def _check_files(project: Project, data: DataSource) -> None:
    """Name every clip whose video is missing or is not the one that was edited; a UserError if there are any."""
    samples = {sample.clip_id: sample for sample in project_data(project, data).full_table().samples}
    absent = [clip.clip_id for clip in project.clips if clip.clip_id not in samples]
    if absent:
        raise UserError(
            f"{project.folder}: clip {absent[0]!r} is not in the labelled videos; give those of the project's run with "
            "--data.annotations"
        )
    missing = [samples[c.clip_id].path for c in project.clips if not samples[c.clip_id].path.exists()]
    if missing:
        raise UserError(
            f"{missing[0]}: no such file, and {len(missing)} of the project's {len(project.clips)} videos are missing; "
            "say with --data.videos where they are"
        )
    run = project.run
    preprocessing = network_preprocessing(open_run(run).model(), str(run)) if (run / "run.json").exists() else None
    usable_clips(project, project.clips, samples, preprocessing)


def export_edits_command(project: Path, out: Path, format: str | None = None) -> dict[str, Any]:
    """Write the edits of all people to a file for other programs: the last edit of each person for each clip.

    Args:
        project: the folder of an edit project.
        out: the new file; .jsonl, .csv, or .json for Label Studio.
        format: jsonl, csv or label-studio; by default from the file's name.
    """
    chosen, opened = choose_format(out, format), open_project(project)
    edits = opened.latest_edits()
    if not edits:
        raise UserError(f"{opened.edits_file}: holds no edit; correct some clips first")
    if out.exists():
        raise UserError(f"{out}: exists; choose another file")
    text = chosen.write(edits, {clip.clip_id: clip for clip in opened.clips})
    with atomic_write(out) as temporary:
        temporary.write_bytes(text.encode())  # line ends as the format has them
    print(f"{out}: {len(edits)} edits of {len({edit.author for edit in edits})} people written")
    return {"project": str(project), "file": str(out), "edits": len(edits)}


def import_edits_command(project: Path, file: Path, format: str | None = None) -> dict[str, Any]:
    """Add the edits of a file to a project, all or none; edits that it has already are not added again.

    Args:
        project: the folder of an edit project.
        file: as `stabn export-edits` writes it, or a JSON export of Label Studio.
        format: jsonl, csv or label-studio; by default from the file's name.
    """
    chosen, opened = choose_format(file, format), open_project(project)
    try:
        text = file.read_bytes().decode("utf-8")
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror}); give a file of edits") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: is not UTF-8 text ({error}); save it as UTF-8") from None
    edits = chosen.read(text, str(file), {clip.clip_id: clip for clip in opened.clips})
    check_edit_times(edits, opened, file)
    history = set(opened.history())
    new = [edit for edit in dict.fromkeys(edits) if edit not in history]
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
    data: DataSource = DataSource(),  # noqa: B008
    batch_size: int = 16,
    workers: int = 0,
    engine: EngineRecipe = EngineRecipe(devices="1"),  # noqa: B008
) -> dict[str, Any]:
    """Collect the misrecognised training clips of the weak classes into an edit project.

    Args:
        run: a finished run.
        out: folder for the project.
        bound: classes with a training accuracy below this share are weak; the paper's is 0.5.
        weakest: take this many classes of the lowest accuracy, whatever the bound; for data with few classes.
        recognised: collect the recognised clips of the weak classes instead, to compare what editing them is worth.
        max_clips: largest number of clips, taken evenly from the weak classes; by default all.
        folds: cross-validation, for small data, of which a network misrecognises no training clip: 5 trains five
            networks by the run's recipe, each on four fifths of the clips, and collects what they get wrong in the
            other fifth. They are kept in OUT-folds; repeat the command to resume.
        data: the labelled videos; by default those of the run.
        batch_size: videos per batch.
        workers: processes that decode.
        engine: device, precision and number of processes.
    """
    opened = open_run(run, data)
    predict_folds = partial(
        predict_out_of_fold,
        opened,
        out.with_name(out.name + "-folds"),
        folds=folds,
        batch_size=batch_size,
        engine=engine,
    )
    result = collect_project(
        opened,
        out,
        bound=bound,
        weakest=weakest,
        recognised=recognised,
        max_clips=max_clips,
        batch_size=batch_size,
        workers=workers,
        engine=engine,
        get_predictions=predict_folds if folds else None,
        folds=folds,
    )
    print_collection(result, "out-of-fold" if folds else "training")
    print(f"{out}: {result['collected']} clips to correct, listed in {out / 'clips.jsonl'}")
    first = open_project(out).clips[0].path
    print(f"To see one: stabn explain {run} {first} --out {out.with_name(out.name + '-seen')}")
    return {"project": str(out), **result}
