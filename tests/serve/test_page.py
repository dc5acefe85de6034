"""The page: what it sends and marks, and its tabs in a browser without any other network."""

import re
import shutil
import socket
import threading
import time

import numpy as np
import pytest
from PIL import Image

import multidiff as md
from multidiff.audio.mel import PRESETS
from multidiff.cli.main import run
from multidiff.serve import create_app
from multidiff.serve.marking import changes, fillings
from multidiff.serve.pictures import enlarged, painted, spectrogram

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
    small = Image.fromarray(np.arange(28 * 28, dtype=np.uint32).reshape(28, 28).astype(np.uint8))
    shown = enlarged(small)
    assert shown.size == (308, 308)
    layer = np.zeros((308, 308, 4), np.uint8)
    layer[:154, :, 3] = 255
    image, mask = painted({"background": shown, "layers": [Image.fromarray(layer)]}, (28, 28))
    assert np.array_equal(np.asarray(image.convert("L")), np.asarray(small))
    assert (np.asarray(mask)[:14] == 255).all()
    assert (np.asarray(mask)[14:] == 0).all()


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


@pytest.fixture(scope="module")
def address():
    import uvicorn

    from multidiff.serve.page import mount_page

    models = {name: md.load(name) for name in ("kathleen", "digits", "edits", "masked")}
    app = mount_page(create_app(models))
    for name, fields in (
        ("kathleen", {"text": "Good."}),
        ("digits", {"prompt": "one"}),
        ("edits", {"source": "the eagle ."}),
        ("masked", {"infill": "the [MASK] ."}),
    ):
        app.state.service.answer(name, fields)  # what the first of all takes longer for
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
        thread.start()
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"
        server.should_exit = True
        thread.join()


@pytest.fixture
def visitor(address):
    """A page of a browser that reaches the server alone; it must ask for nothing else."""
    api = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("no chromium is installed")
    outside, faults = [], []

    def only_here(route):
        if route.request.url.startswith((address, "data:", "blob:")):
            return route.continue_()
        outside.append(route.request.url)
        return route.abort()

    with api.sync_playwright() as player:
        browser = player.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1100, "height": 860})
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.route("**/*", only_here)
        page.goto(address)
        page.get_by_role("tab", name="Speak").wait_for(timeout=60_000)
        yield page
        browser.close()
    assert outside == []
    assert faults == []


def seconds(page, button, result):
    """Click, and return the seconds until the result is there."""
    began = time.perf_counter()
    page.get_by_role("button", name=button, exact=True).click()
    result.wait_for(timeout=60_000)
    return time.perf_counter() - began


@pytest.mark.long
def test_every_tab_as_a_visitor_uses_it(visitor):
    page = visitor
    tab = lambda name: page.get_by_role("tab", name=name, exact=True).click()  # noqa: E731
    tab("Speak")
    picture = page.locator(".image-frame img, .image-container img").locator("visible=true")
    assert seconds(page, "Speak", picture.first) < LONGEST
    tab("Draw")
    assert (
        seconds(page, "Draw", page.locator(".thumbnail-item img").locator("visible=true").first)
        < LONGEST
    )
    tab("Edit")
    page.get_by_label("Draft").fill("the eagle are a cheap cheap restaurant .")
    page.get_by_label(re.compile("Edit margin")).locator("visible=true").first.fill("-4")
    assert seconds(page, "Revise", page.get_by_text("deleted").first) < LONGEST
    tab("Infill")
    assert seconds(page, "Fill in", page.get_by_text("filled").first) < LONGEST
    tab("Inpaint")
    page.get_by_role("button", name="Draw an image to begin with").click()
    canvas = page.locator("canvas").first
    canvas.wait_for(timeout=60_000)
