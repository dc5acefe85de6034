"""The page: what it sends and marks, and its tabs in a browser without any other network."""

import base64
import io
import os
import re
import runpy
import shutil
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

import multidiff as md
from multidiff.audio.mel import PRESETS
from multidiff.cli.main import run
from multidiff.serve import ServerSettings, create_app
from multidiff.serve.marking import changes, fillings
from multidiff.serve.pictures import enlarged, in_base64, painted, spectrogram
from multidiff.utils.errors import InputError

LONGEST = 10  # seconds; 5 on a machine that does nothing else
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


def test_changes_are_marked_word_by_word():
    found = changes("the eagle are cheap", "the eagle is a cheap")
    assert found == [
        ("the eagle ", None), ("are ", "deleted"), ("is a ", "inserted"), ("cheap ", None),
    ]  # fmt: skip
    assert changes("a b", "a b") == [("a b ", None)]


def test_fillings_are_marked():
    found = fillings("it is [MASK] [MASK] .", "it is cheap [MASK].")
    marks = [("it ", None), ("is ", None), ("cheap ", "filled"), ("[MASK] ", "open"), (". ", None)]
    assert found == marks


def test_a_brush_becomes_a_mask_in_pixels_of_the_model():
    from multidiff.serve.brush import brushed  # with gradio, a third of all imports of tests

    small = Image.fromarray(np.arange(28 * 28, dtype=np.uint32).reshape(28, 28).astype(np.uint8))
    shown = enlarged(small)
    assert shown.size == (308, 308)
    layer = np.zeros((308, 308, 4), np.uint8)
    layer[:154, :, 3] = 255
    urls = " ".join(map(in_base64, (shown, Image.fromarray(layer))))
    image, mask = painted(*brushed(urls, ServerSettings()), (28, 28))
    assert np.array_equal(np.asarray(image.convert("L")), np.asarray(small))
    assert (np.asarray(mask)[:14] == 255).all()
    assert (np.asarray(mask)[14:] == 0).all()
    assert brushed("", ServerSettings()) is None
    with pytest.raises(InputError, match="image: has 94,864 pixels"):
        brushed(urls, ServerSettings(max_pixels=10_000))


def test_a_spectrogram_shows_high_tones_above():
    preset = PRESETS["hifigan-22k"]
    times = np.arange(8192) / preset.sample_rate_hz
    rows = {}
    for hertz in (300, 4000):
        samples = (20_000 * np.sin(2 * np.pi * hertz * times)).astype(np.int16)
        picture = np.asarray(spectrogram(samples, preset).convert("L"), dtype=float)
        assert picture.shape == (3 * preset.n_mels, 3 * (8192 // preset.hop_length))
        rows[hertz] = picture.mean(axis=1).argmax()
    assert rows[4000] < rows[300]


def test_without_gradio_the_command_says_what_brings_it(monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "gradio", None)
    assert run(["serve", "digits", "--page"]) == 2
    said = capsys.readouterr().err
    # Here gradio is installed and does not load, which is said too.
    assert "gradio" in said and '"multidiff[serve]"' in said and said.count("\n") == 1


def example(name):
    return Path(__file__).parents[2] / "examples" / "service" / name


@pytest.fixture
def own_page():
    """The example of a page of one's own."""
    return runpy.run_path(str(example("own_page.py")))["main"]()


def test_the_example_of_a_page_asks_for_what_its_service_has(own_page):
    with TestClient(own_page, base_url="http://localhost") as client:
        page = client.get("/own").text
        (route,) = re.findall(r'fetch\("([^"]+)"', page)
        answer = client.post(route, json={"prompt": "seven", "seed": 0, "steps": 1})
    assert answer.content.startswith(b"\x89PNG")
    assert "http:" not in page and "https:" not in page


# ------------------------------------------------------------------------ in a browser

# Models of the page, and a request that does what the first of all takes longer for.
FIRST = {
    "kathleen": {"text": "Good."},
    "digits": {"prompt": "one"},
    "digit-tokens": {"prompt": "one"},
    "edits": {"source": "the eagle ."},
    "masked": {"infill": "the [MASK] ."},
    "digits-joint": {"given": {"text": "voice-3 says seven"}},
}


@contextmanager
def listening(app):
    import uvicorn

    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
        thread.start()
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def address():
    from multidiff.serve.page import mount_page

    app = mount_page(create_app({name: md.load(name) for name in FIRST}))
    for name, fields in FIRST.items():  # as many at once as are drawn
        jobs = [app.state.service.submit(name, fields) for _ in range(4)]
        for job in jobs:
            *_, _last = job.events()
    with listening(app) as found:
        yield found


@pytest.fixture(scope="module")
def visitor(address):
    """A page of a browser that reaches this machine alone; it must ask for nothing else."""
    api = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("no chromium is installed")
    outside, faults = [], []

    def only_here(route):
        if route.request.url.startswith(("http://127.0.0.1:", "data:", "blob:")):
            return route.continue_()
        outside.append(route.request.url)
        return route.abort()

    with api.sync_playwright() as player:
        browser = player.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1100, "height": 860})
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.route("**/*", only_here)
        page.goto(address)
        page.get_by_role("tab", name="Speak").wait_for()
        yield page
        browser.close()
    assert outside == []
    assert faults == []


class Tab:
    """A tab of the page, and how long its answers take."""

    def __init__(self, page, name):
        self.page, self.name = page, name
        page.get_by_role("tab", name=name, exact=True).click()

    def seen(self, selector):
        return self.page.locator(selector).locator("visible=true")

    def press(self, button, result):
        """Click, and wait for the result, no longer than a visitor may have to."""
        began, before = time.perf_counter(), time.process_time()
        self.page.get_by_role("button", name=button, exact=True).locator("visible=true").click()
        result()
        taken = time.perf_counter() - began
        own = time.process_time() - before
        print(f"{self.name}, {button}: {taken:.1f} s, of which the server computes {own:.1f} s")
        assert taken < LONGEST

    def keep(self, name):
        """Write a screenshot, where docs/gallery is to have new ones."""
        if folder := os.environ.get("MULTIDIFF_SCREENSHOTS"):
            self.page.wait_for_timeout(700)  # of the progress that fades out
            self.page.screenshot(path=f"{folder}/page-{name}.png")


@pytest.mark.long
def test_a_visitor_hears_a_text(visitor):
    tab = Tab(visitor, "Speak")
    tab.press("Speak", tab.seen(".image-frame img, .image-container img").first.wait_for)
    tab.keep("speak")


@pytest.mark.long
def test_a_visitor_draws_with_two_models(visitor):
    tab = Tab(visitor, "Draw")
    images = tab.seen(".thumbnail-item img")
    tab.press("Draw", images.first.wait_for)
    images.nth(3).wait_for()
    first = images.first.get_attribute("src")
    tab.seen("input[aria-label=Model]").click()
    visitor.get_by_role("option", name="digit-tokens").click()
    changed = f"() => !document.querySelector('.thumbnail-item img[src=\"{first}\"]')"
    tab.press("Draw", lambda: visitor.wait_for_function(changed))
    images.nth(3).wait_for()
    tab.keep("draw")


@pytest.mark.long
def test_a_visitor_brushes(visitor):
    tab = Tab(visitor, "Inpaint")
    canvas = tab.seen("canvas.brushed").first
    canvas.wait_for()
    prompt = visitor.get_by_label("Prompt").locator("visible=true")
    prompt.fill("a handwritten four")
    picture = "document.querySelector('canvas.brushed').toDataURL()"
    empty = visitor.evaluate(picture)
    drawn = f"() => {picture} != '{empty}'"
    tab.press("Draw an image to begin with", lambda: visitor.wait_for_function(drawn))
    before = visitor.evaluate(picture)
    box = canvas.bounding_box()
    at = lambda x, y: (box["x"] + x * box["width"], box["y"] + y * box["height"])  # noqa: E731
    tab.seen("input.width").evaluate("one => { one.value = 80; }")
    visitor.mouse.move(*at(0.15, 0.25))
    visitor.mouse.down()
    visitor.mouse.move(*at(0.85, 0.25), steps=8)
    visitor.mouse.up()
    prompt.fill("a handwritten nine")
    result = tab.seen(".image-frame img, .image-container img").first
    tab.press("Inpaint", result.wait_for)
    made = Image.open(io.BytesIO(visitor.request.get(result.get_attribute("src")).body()))
    begun = Image.open(io.BytesIO(base64.b64decode(before.partition(",")[2])))
    one, other = (np.asarray(each.convert("L")) for each in (begun, made))
    assert one.shape == other.shape
    assert np.array_equal(one[one.shape[0] // 2 :], other[one.shape[0] // 2 :])
    assert not np.array_equal(one, other)
    tab.keep("inpaint")


@pytest.mark.long
def test_a_visitor_revises_and_infills(visitor):
    tab = Tab(visitor, "Edit")
    visitor.get_by_label("Draft").fill("the eagle are a cheap cheap restaurant .")
    visitor.get_by_label(re.compile("Edit margin")).locator("visible=true").first.fill("-4")
    tab.press("Revise", visitor.get_by_text("deleted").first.wait_for)
    tab.keep("edit")
    tab = Tab(visitor, "Infill")
    tab.press("Fill in", visitor.get_by_text("filled").first.wait_for)
    tab.keep("infill")


@pytest.mark.long
def test_a_visitor_goes_from_each_medium_to_the_others(visitor):
    files = Path(__file__).parents[2] / "docs" / "given"

    def part(name, about, inside):
        return f"#digits-joint-{name}-{about} {inside}"

    def image():
        tab.seen(part("image", "made", "img")).first.wait_for()

    def audio():
        tab.seen(part("audio", "made", ".waveform-container")).first.wait_for()

    def text():
        box = part("text", "made", "textarea")
        visitor.wait_for_function(f"() => document.querySelector('{box}').value.includes('seven')")

    for name, others in (
        ("text", (image, audio)),
        ("image", (text, audio)),
        ("audio", (text, image)),
    ):
        visitor.reload()
        tab = Tab(visitor, "digits-joint")
        if name == "text":
            tab.seen(part(name, "given", "textarea")).fill("voice-3 says seven")
        else:
            file = files / ("seven.png" if name == "image" else "seven.flac")
            visitor.locator(part(name, "given", "input[type=file]")).set_input_files(file)
            # It is there when it can be removed.
            tab.seen(
                part(name, "given", ":is([aria-label*=lear], [aria-label*=emove])")
            ).first.wait_for()
        tab.press("Make the others", lambda others=others: [result() for result in others])
        tab.keep(f"joint-from-{name}")


@pytest.mark.long
def test_a_visitor_of_a_page_of_ones_own(visitor, own_page):
    with listening(own_page) as found:
        page = visitor.context.browser.new_page()
        page.goto(f"{found}/own")
        page.get_by_role("button", name="Draw").click()
        page.wait_for_function("() => document.querySelector('img').naturalWidth == 28")
        page.close()


@pytest.mark.long
def test_the_example_with_curl(address, tmp_path):
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", example("client.sh"), address],
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "event: text" in done.stdout and "event: done" in done.stdout
    seven, two = (np.asarray(Image.open(tmp_path / f"{name}.png")) for name in ("seven", "two"))
    assert np.array_equal(seven[:14], two[:14]) and not np.array_equal(seven, two)
    assert (tmp_path / "morning.wav").read_bytes()[:4] == b"RIFF"
