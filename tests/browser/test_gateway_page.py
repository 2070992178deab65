"""The gateway's page in Chromium, over a whole stack: images in, masks to look at."""

from __future__ import annotations

import base64
import io
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from demo_scenes.scenes import draw
from PIL import Image
from playwright.sync_api import expect
from support.damaged import damaged

from maskq import Client, NamedImage, Output
from maskq.contract.image_formats import MEDIA_TYPES
from maskq.contract.outputs import FILES
from maskq_standalone.stack import Stack
from maskq_worker.outputs.pictures import mask_png

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, FilePayload, Page, Route

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

SLOW_MS = 90_000  # for a job on a busy machine


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with Stack(workers=1, http_api=True) as up:
        yield up


@pytest.fixture(scope="module")
def client(stack: Stack) -> Iterator[Client]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in stack.environment.items():
            patch.setenv(name, value)
        with Client.from_env() as connected:
            yield connected


@pytest.fixture(scope="module")
def scenes() -> list[bytes]:
    return [jpeg(draw(seed, size=(320, 240)).image) for seed in (102, 116)]


def jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def file(name: str, body: bytes, kind: str = "image/jpeg") -> FilePayload:
    return {"name": name, "mimeType": kind, "buffer": body}


class Visitor:
    """A person at the page; whatever the browser complains of, or asks other hosts for, is kept."""

    def __init__(self, context: BrowserContext, url: str, key: str) -> None:
        self.url, self.key = url, key
        self.complaints: list[str] = []
        self.tab: Page = context.new_page()
        self.tab.on("console", lambda message: self._hear(message.text))
        self.tab.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.tab.on("request", lambda request: self._see(request.url))

    def _hear(self, text: str) -> None:
        # `painted` reads the canvas more often than Chromium likes; the page itself never does.
        if not text.startswith("Canvas2D: "):
            self.complaints.append(text)

    def _see(self, url: str) -> None:
        if not url.startswith((self.url, "blob:", "data:")) or self.key in url:
            self.complaints.append(url)

    def enter(self, path: str = "") -> Page:
        self.tab.goto(f"{self.url}/{path}")
        self.tab.get_by_label("API key").fill(self.key)
        self.tab.get_by_role("button", name="Continue").click()
        self.tab.wait_for_selector("#app:not([hidden])")
        return self.tab


@pytest.fixture(params=[None, "acme"])
def tenant(request: pytest.FixtureRequest) -> str | None:
    return str(request.param) if request.param else None


@pytest.fixture
def key(client: Client, tenant: str | None) -> str:
    return client.create_api_key(["submit", "read"], tenant=tenant).text


@pytest.fixture
def visitor(browser: Browser, stack: Stack, key: str) -> Iterator[Visitor]:
    context = browser.new_context(viewport={"width": 1400, "height": 860})
    made = Visitor(context, stack.environment["MASKQ_GATEWAY_URL"], key)
    yield made
    context.close()
    assert made.complaints == []


def drop(tab: Page, files: list[FilePayload]) -> None:
    """As a person does who drags files onto the page."""
    code = """(files) => {
      const transfer = new DataTransfer();
      for (const { name, kind, body } of files) {
        const bytes = Uint8Array.from(atob(body), (c) => c.charCodeAt(0));
        transfer.items.add(new File([bytes], name, { type: kind }));
      }
      const options = { dataTransfer: transfer, bubbles: true, cancelable: true };
      for (const type of ["dragenter", "dragover", "drop"])
        document.body.dispatchEvent(new DragEvent(type, options));
    }"""
    tab.evaluate(
        code,
        [
            {
                "name": one["name"],
                "kind": one["mimeType"],
                "body": base64.b64encode(one["buffer"]).decode(),
            }
            for one in files
        ],
    )


def row(tab: Page, name: str) -> Any:
    return tab.locator("#jobs .row", has_text=name).first


def succeeded(tab: Page, name: str) -> Any:
    found = tab.locator("#jobs .row[data-status=succeeded]", has_text=name).first
    found.wait_for(timeout=SLOW_MS)
    return found


def look_at(tab: Page, name: str) -> None:
    row(tab, name).locator("a.open").click()
    tab.locator("#view h2", has_text=name).wait_for()
    tab.wait_for_selector(".stage[data-ready]", timeout=SLOW_MS)


def painted(tab: Page) -> np.ndarray[Any, Any]:
    """RGBA of the mask's canvas, once it has been drawn."""
    code = """async () => {
      await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
      const canvas = document.querySelector("canvas.mask");
      const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
      return [canvas.width, canvas.height, ...data];
    }"""
    width, height, *data = tab.evaluate(code)
    return np.array(data, np.uint8).reshape(height, width, 4)


def mask_of(client: Client, tab: Page) -> np.ndarray[Any, Any]:
    job = client.get(tab.url.rpartition("/")[2])
    return np.asarray(job.wait(timeout=60).mask())


def test_two_dropped_photos_become_two_masks_that_are_still_there_after_a_reload(
    visitor: Visitor, client: Client, scenes: list[bytes]
) -> None:
    tab = visitor.enter()
    drop(tab, [file("lake.jpg", scenes[0]), file("street.jpg", scenes[1])])
    for name in ("lake.jpg", "street.jpg"):
        succeeded(tab, name)
        look_at(tab, name)
        assert tab.locator(".before").inner_text() == "Image"
        canvas, mask = painted(tab), mask_of(client, tab)
        legend = tab.locator(".legend .entry")
        assert legend.count() == len(np.unique(mask))
        # A colour for each class; two classes may share one.
        for class_id in np.unique(mask):
            assert len(np.unique(canvas[mask == class_id], axis=0)) == 1
    # Highlight the largest class: the others are dimmed.
    largest = np.bincount(mask.ravel()).argmax()
    tab.locator(".legend .entry").first.click()
    canvas = painted(tab)
    assert canvas[mask != largest][:, :3].max() < 30
    assert canvas[mask == largest][:, :3].max() > 60
    assert tab.locator(".legend .entry").first.get_attribute("aria-pressed") == "true"
    place = tab.url
    tab.reload()
    assert tab.url == place
    tab.wait_for_selector(".stage[data-ready]", timeout=SLOW_MS)
    assert tab.locator("#view h2").inner_text() == "street.jpg"
    assert (
        tab.locator(".before").inner_text() == "Overlay"
    )  # the image was in the memory of the tab
    for name in ("lake.jpg", "street.jpg"):
        succeeded(tab, name)


def test_a_file_that_is_no_image_shows_its_reason_and_a_retry(visitor: Visitor) -> None:
    tab = visitor.enter()
    drop(tab, [file("notes.png", damaged("no image"), "image/png")])
    failed = tab.locator("#jobs .row[data-status=failed]", has_text="notes.png").first
    failed.wait_for(timeout=SLOW_MS)
    assert "invalid_image" in failed.inner_text()
    assert "invalid_image" in tab.locator("#view .problem").inner_text()
    first = tab.url
    tab.locator("#view").get_by_role("button", name="Retry").click()
    tab.wait_for_url(lambda url: url != first)
    tab.locator("#view .problem").wait_for(timeout=SLOW_MS)


def test_the_file_chooser_offers_the_accepted_formats(visitor: Visitor) -> None:
    accept = visitor.enter().locator("#files").get_attribute("accept")
    assert accept
    assert {*MEDIA_TYPES, *MEDIA_TYPES.values()} == {*accept.split(",")}


def test_an_image_that_cannot_be_sent_says_why_and_is_sent_again(
    visitor: Visitor, scenes: list[bytes]
) -> None:
    tab = visitor.enter()
    tab.route("**/v1/jobs", lambda route: route.abort())
    tab.set_input_files("#files", [file("later.jpg", scenes[0])])
    unsent = tab.locator("#jobs .row[data-status=unsent]")
    unsent.wait_for()
    assert "the gateway does not answer" in unsent.inner_text()
    tab.unroute("**/v1/jobs")
    tab.locator("#view").get_by_role("button", name="Send again").click()
    succeeded(tab, "later.jpg")
    tab.wait_for_selector(".stage[data-ready]", timeout=SLOW_MS)
    visitor.complaints.clear()  # of the request that was refused


def test_jobs_of_others_arrive_by_themselves_and_batches_show_their_progress(
    visitor: Visitor, client: Client, scenes: list[bytes], tenant: str | None
) -> None:
    tab = visitor.enter()
    tab.wait_for_selector("#connection", state="hidden")
    named = [NamedImage(f"holiday/{n}.jpg", scene) for n, scene in enumerate(scenes)]
    batch = client.submit_many(named, tenant=tenant)
    tab.locator(".batch", has_text="2 of 2 ended").wait_for(timeout=SLOW_MS)
    tab.locator(".batch", has_text=batch.id[-8:]).click()
    expect(tab.locator("#jobs .row")).to_have_count(2)
    assert {row(tab, f"{n}.jpg").locator("a.open").is_visible() for n in range(2)} == {True}
    # Without an overlay the mask stands alone.
    tab.locator("#jobs a.open").first.click()
    tab.wait_for_selector(".stage.bare[data-ready]", timeout=SLOW_MS)


def test_queued_jobs_tell_their_place_and_when_they_start(
    visitor: Visitor, stack: Stack, client: Client, scenes: list[bytes]
) -> None:
    redis, prefix = client.session.ledger.redis, client.session.key_prefix
    minute = redis.time()[0] // 60
    model = client.models()[0].name
    tab = visitor.enter()
    (worker,) = stack.workers
    os.kill(worker.pid, signal.SIGSTOP)
    try:
        for number, scene in enumerate(scenes):
            drop(tab, [file(f"waits-{number}.jpg", scene)])
            row(tab, f"waits-{number}").locator("[data-kind=waiting]").wait_for()
        expect(row(tab, "waits-0").locator(".place")).to_have_text(re.compile("^next in the queue"))
        expect(row(tab, "waits-1").locator(".place")).to_have_text(re.compile("^1 job before it"))
        tab.get_by_role("button", name="Cancel").focus()
        redis.hset(f"{prefix}:pace:{model}", f"work:{minute % 8}", f"{minute} 20 400000")
        said = re.compile(r"^1 job before it · starts in (about )?\d+")
        expect(tab.locator("#view .place")).to_have_text(said)
        expect(tab.get_by_role("button", name="Cancel")).to_be_focused()
    finally:
        os.kill(worker.pid, signal.SIGCONT)
        redis.delete(f"{prefix}:pace:{model}")
    for number in range(2):
        succeeded(tab, f"waits-{number}")
        expect(row(tab, f"waits-{number}").locator(".place")).to_have_count(0)


def test_the_list_is_filtered_and_searched(
    visitor: Visitor, client: Client, scenes: list[bytes]
) -> None:
    tab = visitor.enter()
    drop(tab, [file("found.jpg", scenes[0]), file("other.png", damaged("no image"), "image/png")])
    succeeded(tab, "found.jpg")
    tab.locator("#jobs .row[data-status=failed]", has_text="other.png").wait_for(timeout=SLOW_MS)
    tab.get_by_label("Status").select_option("failed")
    rows = tab.locator("#jobs .row")
    expect(rows.and_(tab.locator("[data-status=succeeded]"))).to_have_count(0)
    expect(rows.first).to_be_visible()
    tab.get_by_label("Status").select_option("")
    search = tab.get_by_label("Search by job id or file name")
    search.fill("found")
    expect(rows.filter(has_not_text="found.jpg")).to_have_count(0)
    expect(rows.first).to_be_visible()
    search.fill("nothing is called so")
    tab.locator("#nothing", has_text="No such job").wait_for()


def test_the_pointer_tells_the_class_and_confidence_can_be_seen(
    visitor: Visitor, client: Client, scenes: list[bytes]
) -> None:
    tab = visitor.enter()
    tab.locator("[data-sample=lake]").click()
    tab.wait_for_selector(".stage[data-ready]", timeout=SLOW_MS)
    mask = mask_of(client, tab)
    record = client.get(tab.url.rpartition("/")[2]).record
    assert record
    assert record.result
    box = tab.locator(".stage").bounding_box()
    assert box
    height, width = mask.shape
    for x, y in ((0.1, 0.05), (0.5, 0.5), (0.9, 0.95)):
        tab.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
        label = record.result.labels[int(mask[int(y * height), int(x * width)])]
        tab.locator(".readout bdi", has_text=label).wait_for()
        assert "% sure" in tab.locator(".readout .sure").inner_text()
    before = painted(tab)
    tab.get_by_role("button", name="Confidence").first.click()
    assert (painted(tab) != before).any()
    with tab.expect_download() as downloading:
        tab.locator(".downloads").get_by_role("button", name="Mask").click()
    saved = downloading.value
    assert saved.suggested_filename == "sample-lake-mask.png"
    assert (np.asarray(Image.open(saved.path())) == mask).all()


def test_every_output_of_a_job_can_be_downloaded(
    visitor: Visitor, client: Client, tenant: str | None, scenes: list[bytes]
) -> None:
    named = {"filename": "lake.jpg"}
    job = client.submit(scenes[0], tenant=tenant, outputs=set(Output), metadata=named)
    job.wait(timeout=SLOW_MS / 1000)
    result = job.result()
    tab = visitor.enter(f"#/jobs/{job.id}")
    tab.wait_for_selector(".stage[data-ready]", timeout=SLOW_MS)
    downloads = tab.locator(".downloads")
    downloads.locator("summary", has_text="binary, one file per class").click()
    (class_id, label), *_ = result.labels.items()
    names = {one.value: files.name for one, files in FILES.items() if not files.is_per_class}
    for text, name, expected in [
        *((text, name, result.read(name)) for name, text in names.items()),
        (label, f"binary-{class_id}", result.read("binary", class_id)),
    ]:
        with tab.expect_download() as downloading:
            downloads.get_by_role("button", name=text, exact=True).click()
        saved = downloading.value
        assert saved.suggested_filename.startswith(f"lake-{name}.")
        assert Path(saved.path()).read_bytes() == expected


def test_the_keyboard_walks_the_list_and_escape_leaves(
    visitor: Visitor, scenes: list[bytes]
) -> None:
    tab = visitor.enter()
    tab.set_input_files("#files", [file(f"{n}.jpg", scenes[n]) for n in (0, 1)])
    succeeded(tab, "0.jpg")
    succeeded(tab, "1.jpg")
    tab.wait_for_selector(".stage[data-ready]", timeout=SLOW_MS)
    row(tab, "1.jpg").locator("a.open").focus()
    first = tab.evaluate("() => document.activeElement.hash")
    tab.keyboard.press("ArrowDown")
    tab.keyboard.press("ArrowUp")
    assert tab.evaluate("() => [document.activeElement.hash, location.hash]") == [first, first]
    tab.wait_for_selector(".stage[data-ready]", timeout=SLOW_MS)
    tab.locator(".legend .entry").first.focus()
    tab.keyboard.press("Enter")
    tab.keyboard.press("Escape")  # shows all classes again
    assert tab.evaluate("() => location.hash") == first
    tab.keyboard.press("Escape")  # leaves the job
    tab.wait_for_url("**/#/")
    expect(tab.locator("#jobs a.open:focus")).to_have_attribute("href", first)


def test_a_key_that_is_refused_opens_nothing_and_none_is_kept(
    browser: Browser, stack: Stack, key: str
) -> None:
    context = browser.new_context()
    tab = context.new_page()
    tab.goto(stack.environment["MASKQ_GATEWAY_URL"])
    tab.get_by_label("API key").fill("maskq_0123456789_" + "x" * 43)
    tab.get_by_role("button", name="Continue").click()
    tab.get_by_role("alert").filter(has_text="refused this key").wait_for()
    assert tab.locator("#app").is_hidden()
    tab.get_by_label("API key").fill(key)
    tab.get_by_role("button", name="Continue").click()
    tab.wait_for_selector("#app:not([hidden])")
    tab.get_by_role("button", name="Forget key").click()
    tab.wait_for_selector("#gate:not([hidden])")
    assert tab.evaluate("() => sessionStorage.length + localStorage.length") == 0
    context.close()


def test_the_event_stream_goes_on_where_it_broke_off(
    visitor: Visitor, client: Client, scenes: list[bytes], tenant: str | None
) -> None:
    before = client.submit(scenes[0], tenant=tenant, metadata={"filename": "before.jpg"})
    cursors: list[str | None] = []

    def events(route: Route) -> None:
        cursors.append(route.request.headers.get("last-event-id"))
        if len(cursors) == 1:
            text = "id: 0-0\n: connected\n\n"
            route.fulfill(body=text, content_type="text/event-stream")
        else:
            route.continue_()

    visitor.tab.route("**/v1/events", events)
    tab = visitor.enter()
    tab.locator("#connection", has_text="Not connected").wait_for()
    tab.locator("#connection").wait_for(state="hidden")
    assert cursors == [None, "0-0"]
    tab.locator(f"#jobs a[href='#/jobs/{before.id}']").wait_for()
    succeeded(tab, "before.jpg")


def test_a_key_that_may_only_read_is_told_so_when_it_submits(
    browser: Browser, stack: Stack, client: Client, scenes: list[bytes]
) -> None:
    context = browser.new_context()
    key = client.create_api_key(["read"]).text
    visitor = Visitor(context, stack.environment["MASKQ_GATEWAY_URL"], key)
    tab = visitor.enter()
    tab.set_input_files("#files", [file("mine.jpg", scenes[0])])
    unsent = tab.locator("#jobs .row[data-status=unsent]", has_text="mine.jpg")
    unsent.wait_for()
    assert "does not have the scope 'submit'" in unsent.inner_text()
    context.close()


def answer_with(tab: Page, body: bytes) -> None:
    tab.route("**/outputs/mask**", lambda route: route.fulfill(body=body))


def show_mask(tab: Page, ids: np.ndarray[Any, Any], num_labels: int) -> None:
    """Open a job whose mask this is: a worker would take minutes for so large a one."""
    height, width = ids.shape
    found = {str(one): f"class number {one}" for one in np.unique(ids)}
    record = {
        "id": "0199d3c0-0000-7000-8000-000000000000", "status": "succeeded", "model": "large",
        "priority": "normal", "attempt": 1, "created_ms": 1, "started_ms": 2, "ended_ms": 3,
        "request": {"image_uri": "s3://photos/large.jpg"},
        "result": {"width": width, "height": height, "model": "large", "labels": found,
                   "outputs": {"mask": "s3://masks/mask.png"}, "stats": []},
    }  # fmt: skip
    answer_with(tab, mask_png(ids, num_labels))
    path = f"**/v1/jobs/{record['id']}"
    tab.route(path, lambda route: route.fulfill(json=record))
    tab.evaluate(f"() => location.hash = '#/jobs/{record['id']}'")
    tab.wait_for_selector(".stage[data-ready]", timeout=SLOW_MS)


def test_24_megapixels_do_not_freeze_the_page(visitor: Visitor) -> None:
    tab = visitor.enter()
    tab.evaluate("""() => {
      window.tasks = [];
      const see = (list) => window.tasks.push(...list.getEntries().map((one) => one.duration));
      new PerformanceObserver(see).observe({ entryTypes: ["longtask"] });
    }""")
    ids = np.zeros((4000, 6000), np.uint8)
    ids[1000:3000, 2000:4000] = 7
    ids[3999, 5999] = 3  # a single pixel is read though it is not drawn
    show_mask(tab, ids, 150)
    assert tab.locator(".percent").all_inner_texts() == ["83.3 %", "16.7 %", "<0.1 %"]
    tab.locator(".entry").nth(1).hover()
    tab.locator(".stage.chosen").wait_for()
    tasks = tab.evaluate("() => window.tasks")
    print(f"\nlongest task of the page's thread with 24 megapixels: {max(tasks, default=0):.0f} ms")
    assert max(tasks, default=0) < 500


def test_masks_of_16_bits_are_read_at_full_depth(visitor: Visitor) -> None:
    tab = visitor.enter()
    ids = np.full((300, 400), 700, np.uint16)
    ids[:, 200:] = 700 - 512  # the same low byte
    show_mask(tab, ids, 900)
    assert sorted(tab.locator(".label").all_inner_texts()) == [
        "class number 188",
        "class number 700",
    ]
    canvas = painted(tab)
    assert len(np.unique(canvas.reshape(-1, 4), axis=0)) == 2
    box = tab.locator(".stage").bounding_box()
    assert box
    for x, label in ((0.25, "class number 700"), (0.75, "class number 188")):
        tab.mouse.move(box["x"] + x * box["width"], box["y"] + 50)
        tab.locator(".readout bdi", has_text=label).wait_for()


def test_a_mask_that_is_damaged_or_of_another_size_is_not_shown(visitor: Visitor) -> None:
    tab = visitor.enter()
    ids = np.full((30, 40), 7, np.uint8)
    show_mask(tab, ids, 150)
    for body, reason in (
        (mask_png(ids, 150)[:-20], "truncated"),
        (mask_png(ids[:29], 150), "the mask is 40 × 29 px"),  # noqa: RUF001
    ):
        tab.evaluate("() => location.hash = '#/'")
        tab.locator(".welcome").wait_for()
        answer_with(tab, body)
        tab.go_back()
        tab.locator("#view .problem", has_text=reason).wait_for()
        assert tab.locator(".stage").count() == 0


def test_it_is_light_and_quick(visitor: Visitor) -> None:
    tab = visitor.enter()
    told = tab.evaluate("""() => {
      const [page] = performance.getEntriesByType("navigation");
      const own = (one) => one.name.includes("/page/");
      const files = performance.getEntriesByType("resource").filter(own);
      const paint = performance.getEntriesByName("first-contentful-paint")[0].startTime;
      return [[page, ...files].reduce((sum, one) => sum + one.transferSize, 0), files.length + 1,
        page.domContentLoadedEventEnd, paint];
    }""")
    size, count, loaded, paint = told
    print(
        f"\n{size} bytes in {count} files, loaded after {loaded:.0f} ms, painted after {paint:.0f} ms"
    )
    assert size < 200_000


@pytest.mark.parametrize("width", [320, 390, 768, 1400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_every_window(
    browser: Browser,
    stack: Stack,
    client: Client,
    width: int,
    scheme: Any,
    pictures: Path | None,
) -> None:
    key = client.create_api_key(["submit", "read"], tenant=f"width-{width}-{scheme}").text
    context = browser.new_context(
        viewport={"width": width, "height": 844}, color_scheme=scheme, device_scale_factor=1
    )
    visitor = Visitor(context, stack.environment["MASKQ_GATEWAY_URL"], key)
    tab = visitor.enter()
    fits = "() => document.documentElement.scrollWidth <= innerWidth"
    assert tab.evaluate(fits)
    assert faults(tab) == []
    tab.locator("[data-sample=autumn]").click()
    tab.wait_for_selector(".stage[data-ready]", timeout=SLOW_MS)
    assert tab.evaluate(fits)
    assert faults(tab) == []
    if pictures:
        if width > 860:  # on a phone the list makes room for the job
            tab.locator(".thumb.drawn").first.wait_for()
        tab.screenshot(path=pictures / f"page-{scheme}-{width}.png")
    context.close()
    assert visitor.complaints == []


def faults(tab: Page) -> list[str]:
    """What axe-core finds, if AXE names its axe.min.js (npm pack axe-core)."""
    name = os.environ.get("AXE")
    if not name:
        return []
    tab.evaluate(Path(name).read_text(encoding="utf-8"))
    found = tab.evaluate("() => axe.run()")
    return [
        f"{one['id']} ({one['impact']}): {[node['html'][:200] for node in one['nodes'][:3]]}"
        for one in found["violations"]
    ]
