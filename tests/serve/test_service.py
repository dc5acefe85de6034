"""The service: answers are those of Python, requests are checked, strangers are refused."""

import base64
import io
import json
import runpy
from pathlib import Path

import pytest
import soundfile
import torch
from PIL import Image, PngImagePlugin
from starlette.testclient import TestClient

import multidiff as md
from multidiff.audio.data.sound import write_sound
from multidiff.cli.main import run
from multidiff.config.option_set import options_in
from multidiff.image.data.image_files import png_bytes, read_image
from multidiff.image.variations import Variation
from multidiff.serve import ServerSettings, create_app, images
from multidiff.serve.server import listening, loras_of, names_of
from multidiff.serve.wav import pcm
from multidiff.text.cli import requests_of
from multidiff.utils.errors import InputError

STEPS = 2
EVENTS = {"accept": "text/event-stream"}


@pytest.fixture(scope="module")
def models():
    found = {name: md.load(name) for name in ("digits", "masked", "edits", "kathleen")}
    return {**found, "speech": found["kathleen"].loaded_vocoder()}


@pytest.fixture(scope="module")
def client(models):
    settings = ServerSettings(max_bytes=1 << 20, max_pixels=4096, max_seconds=3)
    with TestClient(create_app(models, settings), base_url="http://localhost") as found:
        yield found


def events_of(answer):
    pieces = [one.split("\n") for one in answer.text.strip().split("\n\n")]
    return [(head.removeprefix("event: "), json.loads(data.removeprefix("data: ")))
            for head, data in pieces]  # fmt: skip


def in_base64(content):
    return base64.b64encode(content).decode()


def png(width, height, level=255):
    return png_bytes(torch.full((1, height, width), level, dtype=torch.uint8))


def inflated(size):
    """Return a small PNG with a text of that size in it."""
    about = io.BytesIO()
    info = PngImagePlugin.PngInfo()
    info.add_text("about", "a" * size, zip=True)
    Image.new("L", (28, 28)).save(about, "PNG", pnginfo=info)
    return about.getvalue()


def icon(width, height):
    file = io.BytesIO()
    Image.new("L", (width, height)).save(file, "ICO")
    return file.getvalue()


def test_an_image_is_that_of_python(client, models):
    request = {"prompt": "seven", "seed": 3, "steps": STEPS, "guidance_scale": 2}
    answer = client.post("/v1/images", json=request)
    assert answer.headers["content-type"] == "image/png"
    wanted = models["digits"].generate("seven", seed=3, steps=STEPS, guidance_scale=2.0)
    assert torch.equal(read_image(answer.content, "it", 1), wanted[0])
    assert Image.open(io.BytesIO(answer.content)).text["seed"] == "3"
    assert client.post("/v1/images/digits", json=request).content == answer.content


def test_inpainting_keeps_what_is_black(client):
    mask = png_bytes(torch.cat([torch.zeros(1, 14, 28), torch.full((1, 14, 28), 255)], 1).byte())
    files = {"init_image": in_base64(png(28, 28, 77)), "mask_image": in_base64(mask)}
    answer = client.post("/v1/images", json={"prompt": "two", "steps": STEPS, **files})
    made = read_image(answer.content, "it", 1)
    assert (made[:, :14] == 77).all()
    assert (made[:, 14:] != 77).any()


def test_daily_options_reach_a_request(client, models):
    """Variations, fitting, outpainting, a region at full size, enlargement: as from Python."""

    def made(**fields):
        answer = client.post("/v1/images", json={"prompt": "two", "steps": STEPS, **fields})
        assert answer.status_code == 200, answer.text
        image = Image.open(io.BytesIO(answer.content))
        return read_image(answer.content, "it", 1), image.text

    variation = {"variation": Variation([9], 0.4)}
    wanted = models["digits"].generate("two", seed=3, steps=STEPS, **variation)[0]
    found, facts = made(seed=3, variation_seed=9, variation_strength=0.4)
    assert torch.equal(found, wanted) and facts["variation_seed"] == "9"
    assert made(hires=1.5)[0].shape == (1, 42, 42)
    given = {"init_image": in_base64(png(20, 28, 77)), "outpaint": ["left=8"]}
    found, facts = made(**given)
    assert found.shape == (1, 28, 28) and (found[:, :, 8:] == 77).all()
    assert (found[:, :, :8] != 77).any() and facts["outpaint"] == "left=8"
    mask = torch.zeros(1, 40, 40, dtype=torch.uint8)
    mask[:, :10, :10] = 255
    given = {"init_image": in_base64(png(40, 40, 77)), "mask_image": in_base64(png_bytes(mask))}
    found, _ = made(**given, padding_mask_crop=2)
    changed = (found != 77).any(dim=0).nonzero()
    assert found.shape == (1, 40, 40) and len(changed) and int(changed.max()) < 10
    found, _ = made(**given, fit="crop", size="28x28")
    changed = (found != 77).any(dim=0).nonzero()
    assert found.shape == (1, 28, 28) and len(changed) and int(changed.max()) < 8


def test_a_text_token_by_token(client, models):
    infill = "the eagle is a [MASK] [MASK] ."
    request = {"infill": infill, "seed": 1}
    found = events_of(client.post("/v1/texts", json=request, headers=EVENTS))
    masks = [data["text"].count("[MASK]") for name, data in found if name == "text"]
    assert masks[-1] == 0 and masks[0] == 1
    (asked,) = requests_of(models["masked"], [], [infill], None, [])
    (wanted,) = models["masked"].generate([asked.request], seed=1)
    assert found[-1] == ("done", {"text": wanted, "seed": 1, "model": "masked"})
    assert client.post("/v1/texts", json=request).json()["text"] == wanted


def test_an_edit_says_what_changed(client, models):
    draft = "the eagle are a cheap cheap restaurant ."
    answer = client.post("/v1/edits", json={"source": draft, "edit_margin": -4}).json()
    model = models["edits"]
    histories = model.revise(model.numbers([draft]), seed=0, edit_margin=-4.0)
    assert answer["text"] == model.texts(histories)[0]
    assert len(answer["revision_beams"]) == len(histories[0]) - 1


def test_speech_is_that_of_python_and_arrives_in_chunks(client, models, tmp_path):
    request = {"text": "Well. Yes.", "steps": STEPS, "seed": 4}
    answer = client.post("/v1/speech", json=request)
    waves = (one.wave for one in models["kathleen"].speak("Well. Yes.", seed=4, steps=STEPS))
    write_sound(tmp_path / "a.wav", waves, 22_050)
    assert answer.content == (tmp_path / "a.wav").read_bytes()
    chunked = client.post("/v1/speech?chunked=true", json=request).content
    assert len(chunked) == len(answer.content) and chunked[:44] != answer.content[:44]
    found = events_of(client.post("/v1/speech", json=request, headers=EVENTS))
    assert [name for name, _ in found] == ["audio"] * (len(found) - 1) + ["done"]
    parts = [base64.b64decode(data["content"]) for name, data in found if name == "audio"]
    streamed = models["kathleen"].stream("Well. Yes.", seed=4, steps=STEPS)
    assert b"".join(parts) == chunked[44:] == b"".join(pcm(one.numpy()) for one in streamed)


def test_a_recording_through_the_vocoder(client):
    file = io.BytesIO()
    soundfile.write(file, 0.1 * torch.randn(8000).numpy(), 16_000, format="WAV")
    answer = client.post("/v1/vocoder", json={"input": in_base64(file.getvalue()), "steps": 1})
    sound, rate = soundfile.read(io.BytesIO(answer.content))
    assert (rate, len(sound)) == (22_050, 11_025)
    request = {"input": in_base64(file.getvalue()), "mel_scale": "log10"}
    refused = client.post("/v1/vocoder", json=request)
    assert refused.status_code == 422 and "mel_scale: input is a recording" in refused.text


def test_requests_have_the_options_of_the_configuration(client, models):
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    found = schemas["DigitsRequest"]["properties"]
    sampling = models["digits"].sampling
    for name, about in options_in(type(sampling)).items():
        assert found[name]["description"].startswith(about.help)
        assert found[name].get("default") == getattr(sampling, name)
    page = client.get("/docs").text
    assert "guidance_scale" in page and "/v1/speech/kathleen" in page
    assert "<script" not in page and "https:" not in page


WRONG = {
    "steps": ({"steps": 0}, "steps: input should be greater than or equal to 1, got 0"),
    "text for a number": ({"steps": "8"}, "steps: input should be a valid integer"),
    "unknown": ({"stepz": 8}, "stepz"),
    "seed": ({"seed": 2**70}, "seed"),
    "choice": ({"sampler": "magic"}, "sampler: input should be 'ddpm'"),
    "model's own check": ({"sampler": "scheduler"}, "sampler scheduler: this model has none"),
    "huge size": ({"size": "999999x999999"}, "pixels"),
    "no base64": ({"init_image": "/etc/passwd"}, "init_image: is not base64"),
    "no image": ({"init_image": in_base64(b"hello")}, "init_image"),
    "large image": ({"init_image": in_base64(png(100, 100))}, "10,000 pixels; 3,136 at most"),
    "mask alone": ({"mask_image": in_base64(png(28, 28))}, "send init_image"),
    "outpainting nothing": ({"outpaint": ["left=4"]}, "outpaint: changes an image"),
    "no side": ({"outpaint": ["up=4"]}, "outpaint up=4: write sides"),
    "no size to fit": (
        {"init_image": in_base64(png(28, 28)), "fit": "pad", "size": "0x28"},
        "size 0x28: write WIDTHxHEIGHT",
    ),
    "infinite guidance": ({"guidance_scale": 1e308}, "the state is not finite"),
    "infinite enlargement": ({"hires": 1e200}, "28x28 times 1e+200: has inf pixels"),
    "inflated text": ({"init_image": in_base64(inflated(80 << 20))}, "init_image: is truncated or"),
    "an icon": ({"init_image": in_base64(icon(40, 40))}, "init_image: is not an image that can"),
    "huge enlargement": ({"hires": 2.5}, "28x28 times 2.5: has 4,900 pixels; 3,136 at most"),
    "region of nothing": ({"padding_mask_crop": 3}, "padding_mask_crop: changes an image"),
    "long prompt": ({"prompt": "x" * 9999}, "prompt: string should have at most 5000"),
}


def test_a_huge_size_is_refused_before_an_image_is_fitted_to_it(client, monkeypatch):
    def made(*_):
        raise MemoryError

    monkeypatch.setattr(images, "fitted", made)
    monkeypatch.setattr(images, "outpainted", made)
    given = {"prompt": "two", "init_image": in_base64(png(28, 28))}
    for more in ({"fit": "pad", "size": "9999x9999"}, {"outpaint": ["left=9999"]}):
        answer = client.post("/v1/images", json={**given, **more})
        assert answer.status_code == 422 and "3,136 at most here" in answer.json()["detail"]


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_request_is_one_line(client, case):
    fields, message = WRONG[case]
    answer = client.post("/v1/images", json={"prompt": "seven", **fields})
    detail = answer.json()["detail"]
    assert answer.status_code == 422 and message in detail and "\n" not in detail


@pytest.mark.parametrize(
    ("path", "body", "headers", "status"),
    [
        ("/v1/images", b"{", {}, 422),
        ("/v1/images", b"[" * 200_000, {}, 400),
        ("/v1/images", b"x" * (2 << 20), {}, 413),
        ("/v1/images", b"{}", {"content-type": "text/plain"}, 422),
        ("/v1/images/..%2f..%2fetc%2fpasswd", b"{}", {}, 404),
        ("/v1/images", b"{}", {"host": "evil.example"}, 403),
        ("/v1/images", b"{}", {"origin": "http://evil.example"}, 403),
        ("/v1/images", b"{}", {"origin": "null"}, 403),
        ("/v1/images", b"{}", {"origin": "http://["}, 403),
        ("/v1/images", b"{}", {"host": "[::1"}, 403),
        ("/v1/images", b"{}", {"sec-fetch-site": "cross-site"}, 403),
    ],
)
def test_strangers_and_nonsense_are_refused(client, path, body, headers, status):
    headers = {"content-type": "application/json", **headers}
    answer = client.post(path, content=body, headers=headers)
    assert answer.status_code == status and "\n" not in answer.json()["detail"]


def test_a_long_sound_is_refused_while_it_is_read(client):
    file = io.BytesIO()
    soundfile.write(file, torch.zeros(8000 * 60).numpy() + 0.1, 8000, format="FLAC")
    answer = client.post("/v1/vocoder", json={"input": in_base64(file.getvalue())})
    assert answer.status_code == 422 and "longer than 3 s" in answer.json()["detail"]


def test_a_token_is_asked_for(models):
    app = create_app({"digits": models["digits"]}, ServerSettings(token="secret"))
    with TestClient(app, base_url="http://localhost") as client:
        assert client.get("/health").status_code == client.get("/ready").status_code == 200
        for headers in ({}, {"authorization": "Bearer secrets"}, {"authorization": "Basic secret"}):
            assert client.get("/v1/models", headers=headers).status_code == 401
        good = client.get("/v1/models", headers={"authorization": "Bearer secret"})
        assert good.json()["digits"]["route"] == "/v1/images/digits"
        # A browser opens the address with the token once, and carries a cookie from then on.
        assert client.get("/docs?token=secret").status_code == 200
        assert client.get("/docs").status_code == 200


@pytest.mark.parametrize("others", ["a/b=1", 'seen={"a": 1}', "a b=1", 'x="'])
def test_cookies_of_other_services_do_no_harm(models, others):
    app = create_app({"digits": models["digits"]}, ServerSettings(token="se;cr=et"))
    with TestClient(app, base_url="http://localhost") as client:
        assert client.get("/v1/models", headers={"cookie": others}).status_code == 401
        given = client.get("/docs?token=se%3Bcr%3Det", follow_redirects=False).headers["set-cookie"]
        for both in (f"{others}; {given}", f"{given}; {others}"):
            client.cookies.clear()
            assert client.get("/v1/models", headers={"cookie": both}).status_code == 200


def test_names_of_this_machine_in_either_case(models):
    app = create_app({"digits": models["digits"]}, ServerSettings(hosts=("My-Box.example",)))
    with TestClient(app, base_url="http://localhost") as client:
        for host, status in {"my-box.example": 200, "MY-BOX.example:80": 200, "else": 403}.items():
            assert client.get("/health", headers={"host": host}).status_code == status


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["digitz"], "no model 'digitz'"),
        (["digits", "--host", "0.0.0.0"], "--host 0.0.0.0: other machines can reach it; set"),
        (["digits", "digits"], "has the name digits too"),
        (["digit-features", "--port", "0"], "digit-features: ImageClassifier generates nothing"),
    ],
)
def test_what_cannot_be_served(words, message, capsys, monkeypatch):
    monkeypatch.delenv("MULTIDIFF_TOKEN", raising=False)
    assert run(["serve", *words]) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1


def test_names_in_paths(tmp_path):
    assert names_of(["digits", "some/one@v1"]) == {"digits": "digits", "one": "some/one@v1"}
    for name in ("a", "b"):
        (tmp_path / name).touch()
    with pytest.raises(InputError, match="has the name x too"):
        loras_of([f"x={tmp_path / 'a'}", f"x={tmp_path / 'b'}"])


def test_a_port_in_use(capsys):
    with listening("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        assert run(["serve", "digits", "--port", str(port)]) == 2
    said = capsys.readouterr().err
    assert f"--port {port}: address already in use" in said.lower() and said.count("\n") == 1


def test_the_example_of_a_client(client, tmp_path):
    path = Path(__file__).parents[2] / "examples" / "service" / "client.py"
    texts = runpy.run_path(str(path))["ask"](client, tmp_path)
    assert "[MASK]" in texts[0] and "[MASK]" not in texts[-1]
    assert read_image(tmp_path / "seven.png", channels=1).shape == (1, 28, 28)
    assert (tmp_path / "morning.wav").read_bytes()[:4] == b"RIFF"
