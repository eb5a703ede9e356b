"""Starting the studio: from a run and its edit project to a page in the browser."""

import secrets
import shutil
import signal
import socket
import sys
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import uvicorn
from filelock import FileLock, Timeout
from sqlalchemy import URL

from stabn.edits.project import Project, open_project
from stabn.errors import UserError
from stabn.nn import STABN
from stabn.runs import Run, preprocessing_of, weights_of
from stabn.studio.app import build_app
from stabn.studio.catalogue import Catalogue
from stabn.studio.jobs.manager import Jobs
from stabn.studio.session import Studio
from stabn.studio.storage.edits_file import EditsFile
from stabn.studio.storage.events import Store
from stabn.studio.thumbnails import Thumbnails
from stabn.studio.viewer import Looking

HOST = "127.0.0.1"


@contextmanager
def studio_on(
    run: Run, folder: Path, *, database: str | None = None, max_upload: int = 512 * 2**20, memory: int = 2**30
) -> Iterator[Studio]:
    """Open everything that a studio works with, and close it again.

    Args:
        run: a finished run with attention.
        folder: an edit project of that run.
        database: a SQLAlchemy URL; by default PROJECT/studio.db.
        max_upload: bytes of an uploaded video at most.
        memory: bytes that opened clips may take.

    Raises:
        UserError: something is missing or does not fit together, or another studio is at work on the project.
    """
    project = open_project(folder)
    model = run.model()
    if not isinstance(model, STABN):
        raise UserError(f"{run.folder}: is the plain network, which has no attention to correct; train ST-ABN")
    _check_fit(run, project, model)
    lock = FileLock(project.folder / ".studio.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(
            f"{project.folder}: another studio is at work on this project; use its page, or stop it first"
        ) from None
    uploads = project.folder / ".uploads"
    shutil.rmtree(uploads, ignore_errors=True)  # a studio that was killed could not remove them
    store = looking = file = None
    started = False
    try:
        catalogue = Catalogue(project, run.table(model))
        own = URL.create("sqlite", database=str((project.folder / "studio.db").absolute()))
        store = Store(database or own, project.id)
        looking = Looking(model, preprocessing_of(model, str(run.folder)), memory=memory)
        file = EditsFile(
            project.edits_file, store, lambda: {c.clip_id: c.frame_indices for c in catalogue.project.clips}
        )
        studio = Studio(
            run=run,
            catalogue=catalogue,
            looking=looking,
            thumbnails=Thumbnails(catalogue),
            store=store,
            file=file,
            jobs=Jobs(project.folder / "jobs", run),
            uploads=uploads,
            max_upload=max_upload,
        )
        studio.catch_up()
        file.push()
        started = True
        yield studio
    finally:
        for part in (looking, file, store):
            if part is not None:
                part.close()
        if file is not None and file.problem and started:
            print(f"The edits are in the database, but not all in the file: {file.problem}", file=sys.stderr)
        shutil.rmtree(uploads, ignore_errors=True)
        lock.release()


def serve(studio: Studio, *, port: int, browser: bool) -> None:
    """Serve a studio on this machine's loopback until it is interrupted.

    Args:
        studio: what to serve.
        port: where; if it is taken, a free one. The page keeps its settings by port.
        browser: open the page.
    """
    listening = listen(port)
    port = listening.getsockname()[1]
    token = _token(studio.catalogue.project)
    address = f"http://{HOST}:{port}/?token={quote(token)}"
    print(
        f"Correct {studio.catalogue.project.folder} in your browser; Ctrl-C ends the studio:\n\n    {address}\n",
        flush=True,
    )
    if browser:
        webbrowser.open(address)
    # No access log: the first address holds the token. Errors are told by the application.
    config = uvicorn.Config(
        build_app(studio, token, port),
        log_level="critical",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=3,
    )
    for word in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(word) == signal.SIG_DFL:  # else the studio would die of it without tidying up
            signal.signal(word, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        _Server(config, studio).run(sockets=[listening])
    except KeyboardInterrupt:
        pass  # uvicorn raises it again once everything is closed
    finally:
        listening.close()
    print("The studio has ended; every edit is saved.")


class _Server(uvicorn.Server):
    """Does not wait for clips that are being opened when it ends."""

    def __init__(self, config: uvicorn.Config, studio: Studio) -> None:
        super().__init__(config)
        self.studio = studio

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End."""
        self.studio.looking.close()
        await super().shutdown(sockets)


def listen(port: int) -> socket.socket:
    """A socket on this machine's loopback, at the port or, if that is taken, at a free one.

    Raises:
        UserError: there is none.
    """
    for wanted in (port, 0):
        # With the protocol named, asyncio sends answers at once; otherwise each waits 40 ms for an acknowledgement.
        listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((HOST, wanted))
            listening.listen(128)  # who opens the address at once waits, and is not refused
        except OSError:
            listening.close()
            continue
        return listening
    raise UserError(f"--port: got {port}, but no port of this machine is free; stop another server")


def _token(project: Project) -> str:
    """The project's secret; kept, so that an open page goes on after a restart."""
    file = project.folder / ".studio-token"
    if file.exists():
        token = file.read_text(encoding="ascii", errors="ignore").strip()
        if len(token) >= 32:
            return token
    file.unlink(missing_ok=True)
    file.touch(mode=0o600)
    token = secrets.token_urlsafe(32)
    file.write_text(token, encoding="ascii")
    return token


def _check_fit(run: Run, project: Project, model: STABN) -> None:
    """Refuse a project of another run: what the page shows would come from one network and what-if from another."""
    same = project.weights == weights_of(run.folder) if project.weights else project.run == run.folder.resolve()
    if not same or any(len(clip.frame_indices) != model.frames for clip in project.clips):
        raise UserError(
            f"{project.folder}: was collected from {project.run}, not from {run.folder}; give that run, or another "
            "--edits to collect anew"
        )
