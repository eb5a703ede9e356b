"""Starts the studio: from a run and its edit project to a page in the browser."""

import errno
import logging
import secrets
import shutil
import signal
import socket
import webbrowser
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from types import FrameType
from urllib.parse import quote

import uvicorn
from filelock import Timeout
from sqlalchemy import URL

from stabn.data.dataset import VideoDataset
from stabn.edits.project import Project, open_project
from stabn.engine.stop_signals import StopSignal
from stabn.errors import UserError
from stabn.files import lock_file
from stabn.nn import STABN, has_attention
from stabn.runs import Run, network_preprocessing, weights_digest
from stabn.studio.app import build_app
from stabn.studio.catalogue import Catalogue
from stabn.studio.jobs.manager import JobManager
from stabn.studio.security import ANY_HOST, LOOPBACK, Forwarding
from stabn.studio.session import Studio
from stabn.studio.storage.edits_file import EditsFile
from stabn.studio.storage.events import Store
from stabn.studio.thumbnails import Thumbnails
from stabn.studio.viewer import Viewer
from stabn.training.kept_features import kept_views_of

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
        try:
            stack.enter_context(lock_file(project.folder / ".studio.lock"))
        except Timeout:
            message = f"{project.folder}: is open in another studio; use its page, or stop it first"
            raise UserError(message) from None
        stack.callback(shutil.rmtree, uploads, ignore_errors=True)
        shutil.rmtree(uploads, ignore_errors=True)  # a studio that was killed could not remove them
        table = run.table(model)
        catalogue = Catalogue(project, table)
        default = URL.create("sqlite", database=str((project.folder / "studio.db").absolute()))
        store = stack.enter_context(closing(Store(database or default, project.id)))
        edits_file = EditsFile(
            project.edits_file,
            store,
            lambda: {clip_id: clip.frame_indices for clip_id, clip in catalogue.project_clips.items()},
        )
        stack.callback(edits_file.close)
        preprocessing = network_preprocessing(model, str(run.folder))
        dataset = VideoDataset(table.samples, preprocessing, class_names=table.class_names)
        kept = kept_views_of(run, model, dataset)
        viewer = Viewer(model, preprocessing, catalogue.recorded_prediction, kept=kept, memory=memory)
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


def serve(studio: Studio, *, port: int, browser: bool, forwarding: Forwarding = Forwarding()) -> None:  # noqa: B008
    """Serve a studio until the process is told to end.

    Args:
        studio: what to serve.
        port: where; if it is taken, a free one, unless a forwarder needs this one. The page stores its settings by
            port.
        browser: open the page.
        forwarding: where browsers reach it; by default on this machine only.

    Raises:
        UserError: it cannot listen there.
        StopSignal: it was told to end; always, unless another program stopped the server.
    """
    listener = bind_socket(port, forwarding.host, exactly=not forwarding.is_local)
    port = listener.getsockname()[1]
    token = _read_or_create_token(studio.catalogue.project)
    host = HOST if forwarding.host in ANY_HOST else forwarding.host
    here = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    addresses = [f"{origin}{forwarding.root_path}/?token={quote(token)}" for origin in forwarding.origins or (here,)]
    shown = "".join(f"    {address}\n" for address in addresses)
    print(
        f"Correct {studio.catalogue.project.folder} in your browser; Ctrl-C ends the studio:\n\n{shown}",
        flush=True,
    )
    if forwarding.host not in LOOPBACK:
        log.warning(
            "note: it listens on %s: other machines reach it, too, and only the token in the address keeps them out; "
            "without HTTPS in front of it the network can read that",
            forwarding.host,
        )
    if browser:
        webbrowser.open(addresses[0])
    # No access log, because the first address contains the token. The application logs errors.
    config = uvicorn.Config(
        build_app(studio, token, port, forwarding),
        log_level="critical",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=3,
    )
    server = _Server(config, studio)
    with server.ended_by_hangup():
        try:
            server.run(sockets=[listener])
        except KeyboardInterrupt:
            pass  # uvicorn raises it again after it has closed everything
        finally:
            listener.close()
    if server.stopped_by is not None:
        running = "; the fine-tuning goes on" if studio.jobs.is_busy() else ""
        raise StopSignal(server.stopped_by, f"every edit is saved, and the same command continues{running}")


class _Server(uvicorn.Server):
    """A server that does not wait for clips that are being opened when it ends.

    Attributes:
        stopped_by: the number of the signal that ended it, or None.
    """

    def __init__(self, config: uvicorn.Config, studio: Studio) -> None:
        super().__init__(config)
        self.studio = studio
        self.stopped_by: int | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End the server, and remember why."""
        self.stopped_by = self.stopped_by or sig
        super().handle_exit(sig, frame)

    @contextmanager
    def ended_by_hangup(self) -> Iterator[None]:
        """Within the block SIGHUP ends the server, too, which uvicorn does not know."""
        number = getattr(signal, "SIGHUP", None)
        if number is None or signal.getsignal(number) == signal.SIG_IGN:
            yield
            return
        before = signal.signal(number, self.handle_exit)
        try:
            yield
        finally:
            signal.signal(number, before)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop serving."""
        self.studio.viewer.close()
        await super().shutdown(sockets)


def bind_socket(port: int, host: str = HOST, *, exactly: bool = False) -> socket.socket:
    """Open a listening socket at the port or, if that is taken, at a free one.

    Args:
        port: which; 0 for a free one.
        host: an address of this machine.
        exactly: refuse a port that is taken.

    Raises:
        UserError: the port, or every port, is taken, or the machine has no such address.
    """
    try:
        family, kind, protocol, _, (address, *_) = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise UserError(f"--host: got {host!r} ({error.strerror}); give an address of this machine") from None
    for candidate in (port,) if exactly else (port, 0):
        # With the protocol named, asyncio sends responses at once; otherwise each waits 40 ms for an acknowledgement.
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((address, candidate))
            listener.listen(128)  # a browser that opens the address before uvicorn runs waits instead of being refused
        except OSError as error:
            listener.close()
            if error.errno == errno.EADDRNOTAVAIL:
                raise UserError(f"--host: got {host!r}, which this machine does not have; give 0.0.0.0") from None
            if error.errno == errno.EACCES:
                raise UserError(f"--port: got {port}, which is the system's; give one from 1024") from None
            continue
        return listener
    remedy = "give another one, and forward that" if exactly else "stop another server"
    raise UserError(f"--port: got {port}, but {'it' if exactly else 'every port of this machine'} is taken; {remedy}")


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
