"""The page in a real Chromium, as a person uses it; skipped where no Chromium is installed."""

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
import uvicorn
from small_run import FRAMES
from studio_client import TOKEN

from stabn.runs import open_run
from stabn.studio.app import build_app
from stabn.studio.security import Forwarding
from stabn.studio.serve import bind_socket, open_studio
from stabn.studio.session import Studio
from stabn.studio.storage.events import EditChange

sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = os.environ.get("STABN_CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium found; install one or set STABN_CHROMIUM")
WAIT = 30_000  # milliseconds; only what is broken takes this long
LOCAL = Forwarding()


@pytest.fixture(scope="module")
def browser() -> Iterator["sync_api.Browser"]:
    arguments = ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield opened
        opened.close()


@contextmanager
def served(run: Path, project: Path, port: int = 0, forwarding: Forwarding = LOCAL) -> Iterator[tuple[str, Studio]]:
    """A studio behind a real port."""
    with open_studio(open_run(run), project) as studio:
        listening = bind_socket(port)
        port = listening.getsockname()[1]
        app = build_app(studio, TOKEN, port, forwarding)
        config = uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{port}", studio
        finally:
            server.should_exit = True
            thread.join()
            listening.close()


@pytest.fixture
def site(trained: Path, collected: Path, tmp_path: Path) -> Iterator[tuple[str, Studio]]:
    with served(trained, shutil.copytree(collected, tmp_path / "edits")) as address_and_studio:
        yield address_and_studio


@contextmanager
def person(browser: "sync_api.Browser", address: str, name: str | None = "Ann", **options: object):
    """A fresh browser profile on the page; any error on its console, such as a missing file, fails the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 720}, **options)
    context.set_default_timeout(WAIT)
    page = context.new_page()
    errors: list[str] = []
    requested: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: message.type == "error" and errors.append(message.text))
    page.on("request", lambda request: requested.append(request.url))
    page.goto(f"{address}/?token={TOKEN}")
    if name is not None:
        page.fill("#name", name)
        page.click("#name-ok")
        page.wait_for_selector("#queue li, #queue-empty")
    yield page
    context.close()
    assert errors == []
    assert all(url.startswith((address, "blob:", "data:")) for url in requested), "the page asked another host"


@pytest.fixture
def address(site: tuple[str, Studio]) -> str:
    return site[0]


@pytest.fixture
def studio(site: tuple[str, Studio]) -> Studio:
    return site[1]


@pytest.fixture
def page(browser: "sync_api.Browser", address: str) -> Iterator["sync_api.Page"]:
    with person(browser, address) as page:
        yield page


@pytest.fixture
def by_bo(studio: Studio) -> Callable[[int], None]:
    """Stores Bo's edits of the first clips of the queue."""

    def store(count: int) -> None:
        for queued in studio.catalogue.queue[:count]:
            edit = queued.clip.edit((1.0,) * FRAMES, author="Bo", time="2026-01-31T09:30:00+00:00")
            studio.store.append(EditChange.importing(edit))

    return store


def open_first(page: "sync_api.Page") -> None:
    page.click("#continue")
    ready(page)


def ready(page: "sync_api.Page") -> None:
    """The clip is there, with all frames, and the network's answer to an edit can be asked for."""
    page.wait_for_selector("#timeline .cell")
    becomes(page, "document.querySelectorAll('#timeline .cell:not([data-loaded])').length === 0")


def clip_in(page: "sync_api.Page") -> str:
    return page.evaluate("new URLSearchParams(location.hash.split('?')[1]).get('id')")


def edited(page: "sync_api.Page") -> list[str]:
    return page.eval_on_selector_all("#timeline .cell", "cells => cells.map(cell => cell.dataset.edited)")


def shows(page: "sync_api.Page", expected: list[str]) -> None:
    """The edited scores, once the next picture is drawn."""
    until(page, lambda: edited(page) == expected, f"{expected} (now {edited(page)})")


def moved(page: "sync_api.Page") -> bool:
    """A class has another probability with this attention than with the network's own."""
    return page.eval_on_selector_all(
        "#what-if [data-label]", "rows => rows.some(row => Math.abs(row.dataset.before - row.dataset.now) > 1e-4)"
    )


def saved(page: "sync_api.Page") -> None:
    becomes(page, "document.querySelector('#saved-state')?.textContent.trim() === 'Saved'")


def becomes(page: "sync_api.Page", expression: str, arg: object = None) -> None:
    """Wait until an expression or function is true; the page's policy forbids playwright's own waiting, an eval."""
    until(page, lambda: page.evaluate(expression, arg), expression)


def until(page: "sync_api.Page", condition: Callable[[], bool], what: str = "it") -> None:
    for _ in range(WAIT // 50):
        if condition():
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"{what} did not come true")


def test_a_range_is_painted_with_keys_alone_undone_saved_and_there_after_a_reload(page, studio) -> None:
    page.keyboard.press("Tab")  # focus is somewhere; the rest goes by keys
    page.focus("#continue")
    page.keyboard.press("Enter")
    ready(page)
    shows(page, [""] * FRAMES)
    for key in ("ArrowRight", "ArrowRight", "Shift+ArrowRight", "Shift+ArrowRight", "3"):
        page.keyboard.press(key)
    painted = ["0", "0", "1", "1", "1", *["0"] * (FRAMES - 5)]
    shows(page, painted)
    until(page, lambda: moved(page))
    page.keyboard.press("Control+Z")
    shows(page, [""] * FRAMES)
    page.keyboard.press("Control+Shift+Z")
    shows(page, painted)
    page.keyboard.press("ArrowRight")
    page.keyboard.press("2")
    saved(page)
    first = clip_in(page)
    page.reload()
    ready(page)
    assert clip_in(page) == first
    shows(page, ["0", "0", "1", "1", "1", "0.5", *["0"] * (FRAMES - 6)])
    page.keyboard.press("Control+Z")
    page.keyboard.press("Control+Z")
    shows(page, [""] * FRAMES)
    page.keyboard.press("Control+Y")
    saved(page)
    page.keyboard.press("Enter")
    until(page, lambda: clip_in(page) != first, f"another clip than {first}")
    ready(page)
    assert clip_in(page) != first
    [edit] = studio.store.current()
    assert (edit.clip_id, edit.author) == (first, "Ann")
    assert [f"{score:g}" for score in edit.scores] == painted


def test_a_queue_of_twenty_is_finished_with_the_keyboard(page, studio) -> None:
    count = min(20, len(studio.catalogue.queue))
    open_first(page)
    for number in range(count):
        ready(page)
        before = clip_in(page)
        for key in ("ArrowRight", "Shift+ArrowRight", "3", "Enter"):
            page.keyboard.press(key)
        if number + 1 < len(studio.catalogue.queue):
            until(page, lambda before=before: clip_in(page) != before, f"another clip than {before}")
    saved(page)
    page.click("nav >> text=Queue")
    becomes(
        page, "count => document.querySelector('#queue-progress')?.textContent.startsWith(`${count} of`)", arg=count
    )
    assert len(studio.store.current()) == count
    assert {edit.scores[1:3] for edit in studio.store.current()} == {(1.0, 1.0)}


def test_the_mouse_paints_every_cell_it_passes_over(page, studio) -> None:
    open_first(page)
    boxes = [cell.bounding_box() for cell in page.query_selector_all("#timeline .cell")]
    low = boxes[0]["y"] + 0.75 * boxes[0]["height"]
    middle = [box["x"] + box["width"] / 2 for box in boxes]
    page.mouse.move(middle[1], low)
    page.mouse.down()
    page.mouse.move(middle[FRAMES - 2], low, steps=2)
    page.mouse.up()
    shows(page, ["0", *["1"] * (FRAMES - 2), "0"])
    saved(page)
    page.keyboard.press("Control+Z")
    shows(page, [""] * FRAMES)  # one stroke is one step
    assert len(studio.store.events(studio.catalogue.queue[0].clip.clip_id)) >= 1


def test_a_finger_paints_too(browser, address) -> None:
    with person(browser, address, has_touch=True) as page:
        open_first(page)
        box = page.query_selector_all("#timeline .cell")[3].bounding_box()
        page.touchscreen.tap(box["x"] + box["width"] / 2, box["y"] + 0.75 * box["height"])
        becomes(page, "document.querySelectorAll('#timeline .cell')[3].dataset.edited === '1'")
        saved(page)


def test_nothing_is_lost_when_the_server_is_away_and_the_tab_is_closed(browser, trained, collected, tmp_path):
    project = shutil.copytree(collected, tmp_path / "edits")
    context = browser.new_context(viewport={"width": 1280, "height": 720})
    context.set_default_timeout(WAIT)
    page = context.new_page()
    with served(trained, project) as (address, _):
        page.goto(f"{address}/?token={TOKEN}")
        page.fill("#name", "Ann")
        page.click("#name-ok")
        page.wait_for_selector("#queue li")
        open_first(page)
        clip_id = clip_in(page)
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("3")
    becomes(page, "document.querySelector('#saved-state')?.textContent.includes('1')")
    page.close()
    port = int(address.rsplit(":", 1)[1])
    with served(trained, project, port) as (again, studio):
        assert again == address
        page = context.new_page()
        page.goto(f"{address}/#/")
        until(page, lambda: [edit.clip_id for edit in studio.store.current()] == [clip_id])
        assert studio.store.current()[0].scores[:3] == (1.0, 1.0, 0.0)
        context.close()


@contextmanager
def forwarded(prefix: str) -> Iterator[tuple[str, list[str]]]:
    """A forwarder that takes a path away and speaks to 127.0.0.1, as those of notebooks do.

    Yields:
        Its origin, and a list that is to receive the address of the server.
    """
    upstream: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *words: object) -> None:
            pass

        def do_GET(self) -> None:
            assert self.path.startswith(prefix)
            headers = {name: value for name, value in self.headers.items() if name.lower() != "host"}
            content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            answer = httpx.request(
                self.command, upstream[0] + self.path.removeprefix(prefix), headers=headers, content=content, timeout=60
            )
            self.send_response(answer.status_code)
            for name, value in answer.headers.items():
                if name not in ("content-encoding", "content-length", "connection", "transfer-encoding"):
                    self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer.content)

        do_POST = do_GET  # noqa: N815 -- the library's name

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://localhost:{server.server_port}", upstream
    server.shutdown()
    server.server_close()


def test_behind_a_forwarder_with_a_path_the_page_is_whole_and_saves(browser, trained, collected, tmp_path) -> None:
    project, prefix = shutil.copytree(collected, tmp_path / "edits"), "/user/ann/proxy/8713"
    with (
        forwarded(prefix) as (origin, upstream),
        served(trained, project, forwarding=Forwarding((origin,), prefix)) as (address, studio),
    ):
        upstream.append(address)
        with person(browser, f"{origin}{prefix}") as page:
            open_first(page)
            page.keyboard.press("3")
            saved(page)
        assert [edit.author for edit in studio.store.current()] == ["Ann"]


def test_names_and_comments_are_shown_as_text(browser, address, studio) -> None:
    evil = "<img src=x onerror=alert(1)><script>alert(1)</script>"
    with person(browser, address, name=evil) as page:
        page.on("dialog", lambda dialog: pytest.fail("a script ran"))
        open_first(page)
        page.keyboard.press("3")
        page.fill("#comment", evil)
        page.keyboard.press("Enter")
        saved(page)
        for place in ("#/", "#/people", "#/data"):
            page.goto(f"{address}/{place}")
            page.wait_for_timeout(250)
            assert page.query_selector("main img[src='x'], main script") is None
        page.goto(f"{address}/#/people")
        page.wait_for_selector(f"text={evil}")
    assert {edit.comment for edit in studio.store.current()} == {evil}


def test_validation_clips_are_for_looking_only(page, studio, address) -> None:
    clip_id = next(sample.clip_id for sample in studio.catalogue.samples.values() if sample.split == "validation")
    page.goto(f"{address}/#/clip?id={clip_id}")
    ready(page)
    assert "measure" in page.inner_text("#read-only")
    page.keyboard.press("3")
    until(page, lambda: moved(page))
    page.wait_for_timeout(500)
    assert studio.store.current() == ()


@pytest.mark.parametrize(("size", "scheme"), [((1280, 720), "light"), ((1024, 768), "dark")])
def test_the_editor_fits_the_screen_and_nothing_jumps_while_it_loads(browser, address, size, scheme) -> None:
    with person(browser, address, color_scheme=scheme) as page:
        page.set_viewport_size({"width": size[0], "height": size[1]})
        page.evaluate(
            """() => { window.shift = 0; new PerformanceObserver(list => {
                 for (const entry of list.getEntries()) if (!entry.hadRecentInput) window.shift += entry.value;
               }).observe({ type: 'layout-shift', buffered: false }); }"""
        )
        open_first(page)
        page.wait_for_timeout(300)
        assert page.evaluate("window.shift") < 0.05
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        for part in ("#timeline", "#what-if", "#play"):
            box = page.query_selector(part).bounding_box()
            assert box["y"] + box["height"] <= size[1], f"{part} is below the screen"


def test_every_screen_loads_without_an_error(page, address, studio) -> None:
    clip_id = studio.catalogue.queue[0].clip.clip_id
    for place in ("", f"clip?id={clip_id}", "clip?end=1", "data", "people", "finetune", "nowhere"):
        page.goto(f"{address}/#/{place}")
        page.reload()
        page.wait_for_selector("main h1")
        page.wait_for_load_state("networkidle")
        assert len(page.query_selector_all("nav a")) == 4


def test_playback_keeps_the_time_of_the_video(page, studio) -> None:
    clip = studio.catalogue.queue[0].clip
    length = clip.timestamps[-1] - clip.timestamps[0]
    open_first(page)
    page.evaluate(
        """() => { window.seen = []; const cells = [...document.querySelectorAll('#timeline .cell')];
             new MutationObserver(() => { const at = cells.findIndex(c => c.hasAttribute('data-current'));
               if (at >= 0 && seen.at(-1)?.[0] !== at) seen.push([at, performance.now()]); })
             .observe(document.querySelector('#timeline'), { subtree: true, attributes: true }); }"""
    )
    page.keyboard.press("Space")
    becomes(page, "last => seen.some(([at]) => at === last)", arg=FRAMES - 1)
    seen = dict(page.evaluate("seen"))
    assert list(seen) == sorted(seen), "frames come in order"
    took = (seen[FRAMES - 1] - seen[1]) / 1000
    # frames are drawn at the screen's own beat; a slow machine may be late, never early
    assert took > 0.9 * (length - (clip.timestamps[1] - clip.timestamps[0])) - 0.05


def test_fine_tuning_goes_from_the_page_to_before_and_after(page, studio, address, by_bo) -> None:
    by_bo(2)
    page.goto(f"{address}/#/finetune")
    page.click("#more summary")
    page.fill("#epochs", "1")
    page.uncheck("#control")
    page.click("#start")
    page.wait_for_selector("#job[data-state=running]")
    page.reload()
    page.wait_for_selector("#to-outcome", timeout=240_000)
    page.click("#to-outcome")
    page.wait_for_selector("#headline[data-verdict=no-control]")
    page.wait_for_selector("#outcome-table tr[data-method='fine-tuned']")
    page.click("[data-kind=edited_clips]")
    page.wait_for_selector("#outcome-rows button[data-id]")
    page.wait_for_selector("[data-track=after] [data-position]")
    [job] = studio.jobs.list()
    assert (job["state"], job["edits"], job["author"]) == ("done", 2, "Ann")


def test_the_queue_is_filtered_by_class_and_state(page, studio, by_bo) -> None:
    def cards() -> list[str]:
        return page.eval_on_selector_all(".clip-card", "cards => cards.map(card => card.dataset.id)")

    by_bo(1)
    page.reload()
    page.wait_for_selector(".clip-card")
    clips = [queued.clip for queued in studio.catalogue.queue]
    assert cards() == [clip.clip_id for clip in clips]
    page.click("[data-state=edited]:not(.clip-card)")
    until(page, lambda: cards() == [clips[0].clip_id])
    assert "Bo" in page.inner_text(".clip-card .clip-people")
    page.reload()
    until(page, lambda: cards() == [clips[0].clip_id])
    page.click("[data-state=all]:not(.clip-card)")
    page.select_option("#filter-class", clips[0].label)
    until(page, lambda: cards() == [clip.clip_id for clip in clips if clip.label == clips[0].label])


def test_another_attention_can_be_chosen_and_painting_shows_what_it_does_itself(page) -> None:
    open_first(page)
    for choice in ("#what-if-temporal", "#what-if-spatial"):
        page.select_option(choice, "inverse")
        until(page, lambda: moved(page))
        page.select_option(choice, "original")
        until(page, lambda: not moved(page))
    page.select_option("#what-if-temporal", "uniform")
    page.focus("#what-if-temporal")
    page.keyboard.press("3")
    shows(page, ["1", *["0"] * (FRAMES - 1)])
    assert page.input_value("#what-if-temporal") == "edited"
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.id") == "timeline"
    page.click("#scheme")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("3")
    shows(page, ["1", "1", *["0"] * (FRAMES - 2)])
