"""Starts the studio: from a run and its edit project to a page in the browser."""

import logging
import secrets
import shutil
import signal
import socket
import webbrowser
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from urllib.parse import quote

import uvicorn
from filelock import FileLock, Timeout
from sqlalchemy import URL

from stabn.edits.project import Project, open_project
from stabn.errors import UserError
from stabn.nn import STABN, has_attention
from stabn.runs import Run, network_preprocessing, weights_digest
from stabn.studio.app import build_app
from stabn.studio.catalogue import Catalogue
from stabn.studio.jobs.manager import JobManager
from stabn.studio.session import Studio
from stabn.studio.storage.edits_file import EditsFile
from stabn.studio.storage.events import Store
from stabn.studio.thumbnails import Thumbnails
from stabn.studio.viewer import Viewer

HOST = "127.0.0.1"

log = logging.getLogger(__name__)


@contextmanager
def open_studio(
    run: Run, folder: Path, *, database: str | None = None, max_upload: int = 512 * 2**20, memory: int = 2**30
) -> Iterator[Studio]:
    """Open a studio on an edit project, and close it again.

    Args:
        run: a finished run with attention.
        folder: an edit project of that run.
        database: a SQLAlchemy URL; by default PROJECT/studio.db.
        max_upload: bytes of an uploaded video at most.
        memory: bytes that opened clips may take.

    Raises:
        UserError: a file is missing or damaged, the project is not of this run, or another studio has it open.
    """
    project = open_project(folder)
    model = run.model()
    if not has_attention(model):
        raise UserError(f"{run.folder}: is the plain network, which has no attention to correct; train ST-ABN")
    _check_fit(run, project, model)
    uploads = project.folder / ".uploads"
    with ExitStack() as stack:
        lock = FileLock(project.folder / ".studio.lock")
        try:
            stack.enter_context(lock.acquire(timeout=0))
        except Timeout:
            message = f"{project.folder}: is open in another studio; use its page, or stop it first"
            raise UserError(message) from None
        stack.callback(shutil.rmtree, uploads, ignore_errors=True)
        shutil.rmtree(uploads, ignore_errors=True)  # a studio that was killed could not remove them
        catalogue = Catalogue(project, run.table(model))
        default = URL.create("sqlite", database=str((project.folder / "studio.db").absolute()))
        store = stack.enter_context(closing(Store(database or default, project.id)))
        edits_file = EditsFile(
            project.edits_file,
            store,
            lambda: {clip_id: clip.frame_indices for clip_id, clip in catalogue.project_clips.items()},
        )
        stack.callback(edits_file.close)
        preprocessing = network_preprocessing(model, str(run.folder))
        viewer = Viewer(model, preprocessing, catalogue.recorded_prediction, memory=memory)
        stack.callback(viewer.close)
        studio = Studio(
            run=run,
            catalogue=catalogue,
            viewer=viewer,
            thumbnails=Thumbnails(catalogue),
            store=store,
            edits_file=edits_file,
            jobs=JobManager(project.folder / "jobs", run),
            uploads=uploads,
            max_upload=max_upload,
        )
        studio.queue_shared_clips()
        edits_file.push()
        try:
            yield studio
        finally:
            edits_file.close()
            if edits_file.problem:
                log.warning("The edits are in the database, but not all in the file: %s", edits_file.problem)


def serve(studio: Studio, *, port: int, browser: bool) -> None:
    """Serve a studio on this machine's loopback until it is interrupted.

    Args:
        studio: what to serve.
        port: where; if it is taken, a free one. The page stores its settings by port.
        browser: open the page.
    """
    listener = bind_socket(port)
    port = listener.getsockname()[1]
    token = _read_or_create_token(studio.catalogue.project)
    address = f"http://{HOST}:{port}/?token={quote(token)}"
    print(
        f"Correct {studio.catalogue.project.folder} in your browser; Ctrl-C ends the studio:\n\n    {address}\n",
        flush=True,
    )
    if browser:
        webbrowser.open(address)
    # No access log, because the first address contains the token. The application logs errors.
    config = uvicorn.Config(
        build_app(studio, token, port),
        log_level="critical",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=3,
    )
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:  # by default the process would end without cleaning up
            signal.signal(number, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        _Server(config, studio).run(sockets=[listener])
    except KeyboardInterrupt:
        pass  # uvicorn raises it again after it has closed everything
    finally:
        listener.close()
    print("The studio has ended; every edit is saved.")


class _Server(uvicorn.Server):
    """A server that does not wait for clips that are being opened when it ends."""

    def __init__(self, config: uvicorn.Config, studio: Studio) -> None:
        super().__init__(config)
        self.studio = studio

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop serving."""
        self.studio.viewer.close()
        await super().shutdown(sockets)


def bind_socket(port: int) -> socket.socket:
    """Open a listening socket on this machine's loopback, at the port or, if that is taken, at a free one.

    Raises:
        UserError: no port is free.
    """
    for candidate in (port, 0):
        # With the protocol named, asyncio sends responses at once; otherwise each waits 40 ms for an acknowledgement.
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, candidate))
            listener.listen(128)  # a browser that opens the address before uvicorn runs waits instead of being refused
        except OSError:
            listener.close()
            continue
        return listener
    raise UserError(f"--port: got {port}, but no port of this machine is free; stop another server")


def _read_or_create_token(project: Project) -> str:
    """The project's secret; it is stored, so that an open page still works after a restart."""
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
    """Refuse a project of another run: its recorded predictions and what-if would come from different networks."""
    same = project.weights == weights_digest(run.folder) if project.weights else project.run == run.folder.resolve()
    if not same or any(len(clip.frame_indices) != model.frames for clip in project.clips):
        raise UserError(
            f"{project.folder}: was collected from {project.run}, not from {run.folder}; give that run, or another "
            "--edits to collect from this run"
        )
