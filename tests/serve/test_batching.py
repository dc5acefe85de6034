"""Batches of network calls: equal to separate calls to the bit, joined and left at any step."""

import gc
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import multidiff as md
from multidiff.core.gaussian.schedules import NoiseLevel
from multidiff.image.data.image_files import read_image
from multidiff.image.stable_diffusion.lora import with_loras
from multidiff.models.views import call_before, shared_copy
from multidiff.serve.batching import Batcher, Call, ExactNetwork
from multidiff.serve.jobs import Busy
from multidiff.serve.merging import equal, merged, parted, signature
from multidiff.serve.service import Service
from multidiff.serve.settings import ServerSettings
from multidiff.utils.errors import InputError


class Network(nn.Module):
    """Layers whose kernels differ by batch size, and the level of each row."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(1, 384), nn.SiLU(), nn.Linear(384, 96))
        self.mix, self.conv = nn.Conv2d(96, 96, 1), nn.Conv2d(4, 96, 3, padding=1)

    def forward(self, xt, level, condition=None):
        hidden = self.conv(xt) + self.embed(level.time.float()[:, None])[..., None, None]
        hidden = self.mix(hidden).relu()
        return hidden if condition is None else hidden + condition["shift"][:, None, None, None]


class MeanFree(nn.Module):
    """A network whose rows depend on each other."""

    def forward(self, xt):
        return xt - xt.mean(0)


def level(time):
    time = torch.full((2,), time, dtype=torch.float64)
    return NoiseLevel(time, 1 - time, time)


def test_structures_are_merged_and_parted():
    calls = [(torch.rand(2, 3), level(t), {"shift": torch.rand(2)}, None) for t in (0.2, 0.7)]
    together = merged(calls)
    assert together[0].shape == (4, 3) and together[1].time.tolist() == [0.2, 0.2, 0.7, 0.7]
    assert all(equal(one, other) for one, other in zip(parted(together, 2), calls, strict=True))
    assert signature(calls[0]) == signature(calls[1])
    assert signature(calls[0]) != signature((torch.rand(2, 4), *calls[0][1:]))
    assert signature(level(0.2)) != signature(NoiseLevel(*level(0.2).parts(), "noise"))


@pytest.mark.parametrize("count", [2, 3, 5, 8])
@torch.no_grad()
def test_a_batch_equals_separate_calls_to_the_bit(count):
    torch.manual_seed(0)
    network = Network()
    exact = ExactNetwork(network)
    for _ in range(2):  # the first batch of a kind is evaluated in both ways
        calls = [Call((torch.randn(2, 4, 8, 8), level(0.1 * n))) for n in range(count)]
        exact.evaluate(calls)
        assert [*exact._batches.values()] == [True]
        for call in calls:
            assert torch.equal(call.output, network(*call.inputs[0]))


@torch.no_grad()
def test_a_network_whose_batches_differ_is_not_batched():
    exact = ExactNetwork(MeanFree())
    for _ in range(2):
        calls = [Call((torch.randn(2, 3),)) for _ in range(2)]
        exact.evaluate(calls)
        assert all(torch.equal(c.output, c.inputs[0][0] - c.inputs[0][0].mean(0)) for c in calls)


def test_calls_of_several_threads_are_one_evaluation(monkeypatch):
    monkeypatch.setattr("multidiff.serve.batching.LEAST_SECONDS", 60.0)
    sizes, network, begun = [], Network(), []
    batcher = Batcher(network, 16, sizes.append)
    batcher.coming = lambda: 4 - len(begun)  # the first waits for those that have not begun
    start = torch.randn(2, 4, 8, 8)

    def request(number):
        with batcher.running(), torch.no_grad():
            begun.append(number)
            return [batcher(start, level(0.1 * number)) for _ in range(3 + number % 2)]

    with ThreadPoolExecutor(4) as threads:
        found = [*threads.map(request, range(4))]
    batcher.close()
    assert sizes == [4, 4, 4, 2]
    with torch.no_grad():
        for number, outputs in enumerate(found):
            assert all(torch.equal(one, network(start, level(0.1 * number))) for one in outputs)


def test_an_error_reaches_its_own_caller():
    batcher = Batcher(Network(), 16)

    def request(condition):
        with batcher.running(), torch.no_grad():
            try:
                return batcher(torch.zeros(2, 4, 8, 8), level(0.5), condition)
            except KeyError as error:
                return error

    with ThreadPoolExecutor(2) as threads:
        good, bad = threads.map(request, [{"shift": torch.zeros(2)}, {"shuft": torch.zeros(2)}])
    batcher.close()
    assert isinstance(bad, KeyError) and good.shape == (2, 96, 8, 8)


def test_a_view_shares_weights_and_nothing_else():
    model, calls = nn.Sequential(nn.Sequential(nn.Linear(2, 2)), nn.Dropout()), []
    view = shared_copy(model)
    call_before(view, lambda: calls.append(1))
    assert view[0][0].weight is model[0][0].weight and view[0] is not model[0]
    view(torch.zeros(1, 2))
    view.eval()
    model(torch.zeros(1, 2))
    assert calls == [1, 1] and model[1].training
    view[0][0].weight = nn.Parameter(torch.ones(2, 2))
    assert not torch.equal(view[0][0].weight, model[0][0].weight)


# ------------------------------------------------------------------------- with models


@pytest.fixture(scope="module")
def digits():
    return md.load("digits")


REQUESTS = [
    {"prompt": "seven", "seed": 1, "steps": 2},
    {"prompt": "a handwritten two", "seed": 2, "steps": 3, "guidance_scale": 2.5},
    {"prompt": "nine", "seed": 3, "steps": 2, "sampler": "ddim"},
    {"prompt": "nine", "seed": 4, "steps": 3, "guidance_scale": 1.0},
]


def test_requests_with_other_options_share_evaluations(digits):
    service, alone = (Service({"it": digits}, ServerSettings(batch=n)) for n in (4, 1))
    with ThreadPoolExecutor(4) as threads:
        answers = [*threads.map(lambda one: service.answer("it", one), REQUESTS)]
    wanted = [alone.answer("it", one) for one in REQUESTS]
    assert [one.content for one in answers] == [one.content for one in wanted]
    text = service.metrics.text().decode()
    shared = [line for line in text.splitlines() if 'batch_requests_bucket{le="1.0"' in line]
    total = [line for line in text.splitlines() if "batch_requests_count" in line]
    assert float(shared[0].split()[-1]) < float(total[0].split()[-1])
    service.close()
    alone.close()


@pytest.mark.parametrize("batch", [1, 4])
def test_a_cancelled_request_stops_within_a_step(digits, batch):
    service = Service({"it": digits}, ServerSettings(batch=batch))
    job = service.submit("it", {"prompt": "seven", "steps": 1000})
    steps = []
    for event in job.events():
        if event.name == "progress":
            steps.append(event.data["step"])
            job.cancel()
    assert event.data["status"] == 499 and len(steps) <= 2
    assert service.answer("it", {"prompt": "seven", "steps": 1}).media_type == "image/png"
    service.close()


def test_time_and_queue_are_limited(digits):
    limits = ServerSettings(batch=1, queue=1, time_limit_seconds=0.3)
    service = Service({"it": digits}, limits)
    endless = {"prompt": "seven", "steps": 1000}
    first = service.submit("it", endless)
    while service.models["it"].worker.running == 0:
        time.sleep(0.01)
    waiting = service.submit("it", endless)
    with pytest.raises(Busy) as busy:
        service.submit("it", endless)
    assert busy.value.seconds >= 1
    waiting.cancel()
    *_, last = first.events()
    assert last.data["status"] == 504 and "0.3 s" in last.data["detail"]
    with pytest.raises(InputError, match="model its"):
        service.submit("its", {})
    service.close()
    assert not [one for one in threading.enumerate() if one.name.startswith("it-")]


def test_a_lora_of_one_request_does_not_touch_the_others(digits, tmp_path):
    network = digits.denoiser
    path = next(p for p, one in network.named_modules() if isinstance(one, nn.Linear))
    layer, file = network.get_submodule(path), tmp_path / "red.safetensors"
    matrices = {
        f"unet.{path}.lora_A.weight": torch.randn(2, layer.in_features),
        f"unet.{path}.lora_B.weight": torch.randn(layer.out_features, 2),
    }
    save_file(matrices, file)
    before = layer.weight.clone()
    service = Service({"it": digits}, ServerSettings(batch=4, loras={"red": file}))
    plain = {"prompt": "seven", "seed": 1, "steps": 2}
    requests = [plain, {**plain, "lora": {"red": 0.1}}, {**plain, "lora": {"red": 0.0}}]
    with ThreadPoolExecutor(3) as threads:
        answers = [*threads.map(lambda one: service.answer("it", one).content, requests)]
    assert torch.equal(layer.weight, before) and network is digits.denoiser
    assert answers[0] == answers[2] != answers[1]
    view = with_loras(digits, [(file, 0.1)])
    changed = (
        before
        + 0.1 * matrices[f"unet.{path}.lora_B.weight"] @ (matrices[f"unet.{path}.lora_A.weight"])
    )
    assert torch.allclose(view.denoiser.get_submodule(path).weight, changed, atol=1e-5)
    wanted = view.generate("seven", seed=1, steps=2)
    assert torch.equal(read_image(answers[1], "it", 1), wanted[0])
    with pytest.raises(InputError, match="lora blue"):
        service.answer("it", {**plain, "lora": {"blue": 1.0}})
    service.close()


def test_a_closed_service_lets_go_of_its_model(digits):
    model = shared_copy(digits)
    service, gone = Service({"it": model}, ServerSettings(batch=2)), weakref.ref(model)
    service.answer("it", {"prompt": "seven", "steps": 1})
    service.close()
    del service, model
    gc.collect()
    assert gone() is None


def test_a_forked_process_is_refused(digits, monkeypatch):
    service = Service({"it": digits}, ServerSettings(batch=1))
    with monkeypatch.context() as other:
        other.setattr("os.getpid", lambda: 1)
        with pytest.raises(RuntimeError, match="create one after forking"):
            service.submit("it", {"prompt": "seven"})
    service.close()


FORKED = """
import os, torch
import multidiff as md

torch.set_num_threads(2)
model = md.load("digits")
before = model.generate("seven", seed=0, steps=2)
if os.fork() == 0:
    torch.set_num_threads(1)
    after = model.generate("seven", seed=0, steps=2)
    os._exit(0 if int((after.int() - before.int()).abs().max()) <= 1 else 1)
os._exit(os.waitstatus_to_exitcode(os.wait()[1]))
"""


@pytest.mark.long  # a process that imports all
def test_a_process_forked_after_use_computes_with_one_thread():
    subprocess.run([sys.executable, "-c", FORKED], check=True, timeout=120)
