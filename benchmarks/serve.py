"""The service under load: answers beside those made one by one, memory, throughput, and its ends.

A server runs in a process of its own; requests reach it over HTTP. Cases:

- mixed: requests of several families, some at once and then one by one. Answers that differ, lost
  ones, p50 and p95 of their times, and memory at the end beside that after a tenth of them.
- throughput: 16 requests of one model, whose options differ, with and without batching.
- disconnects: clients that go at random moments, and how long the next request takes.
- hostile: requests that are wrong in their types, sizes, files, names and origins.
- stops: SIGTERM while 8 requests run, SIGKILL, and a start after it.
"""

from __future__ import annotations

import base64
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import httpx
import numpy as np
import soundfile
from PIL import Image

from benchmarks.timing import Row

PART = "serve"
LIMIT = 300.0
ENDS_WITHIN = 15.0  # seconds; 1000 steps of the vocoder take longer, even on an idle machine
MODELS = ["digits", "masked", "digit-tokens", "edits", "speech"]
Request = tuple[str, dict[str, Any]]


@dataclass
class Server:
    """A server process.

    Attributes:
        process: the process.
        url: its address.
    """

    process: subprocess.Popen[str]
    url: str

    def post(self, request: Request, **more: Any) -> httpx.Response:
        """Return the response to a request on a connection of its own."""
        path, body = request
        return httpx.post(f"{self.url}/v1/{path}", json=body, timeout=LIMIT, **more)

    def memory_mb(self) -> float:
        """Return the memory that the process holds now."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) / 1024


@contextmanager
def serving(
    models: Sequence[str], threads: int, *options: str, port: str = "0"
) -> Iterator[Server]:
    """Yield a server of some models, which is ended at the end of the block."""
    command = [sys.executable, "-m", "multidiff", "serve", *models, "--port", port, *options]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        yield Server(process, line.split("at ")[1].split(",")[0])
    finally:
        process.terminate()
        process.wait(60)


# ------------------------------------------------------------------------- requests


def mixed_requests(count: int, seed: int = 0) -> list[Request]:
    """Return requests of several families, with options of many kinds."""
    draw = random.Random(seed)
    digits = ["seven", "a handwritten two", "the digit 3", "nine"]
    drafts = ["the eagle are a cheap cheap restaurant .", "near river is the the mill ."]

    def one(number: int) -> Request:
        kind = draw.random()
        if kind < 0.4:
            steps, scale = draw.choice([2, 3, 4]), draw.choice([1.0, 1.5, 2.5])
            options = {"steps": steps, "guidance_scale": scale}
            return "images/digits", {"prompt": draw.choice(digits), "seed": number, **options}
        if kind < 0.6:
            options = {"sampler": draw.choice(["random", "confidence"]), "steps": 4}
            return "texts/masked", {"length": draw.choice([6, 7]), "seed": number, **options}
        if kind < 0.8:
            infill = "the eagle is a [MASK] [MASK] ."
            return "texts/masked", {"infill": infill, "seed": number}
        if kind < 0.9:
            return "image-tokens/digit-tokens", {"prompt": "seven", "seed": number, "steps": 3}
        if kind < 0.97:
            return "edits/edits", {"source": draw.choice(drafts), "seed": number, "steps": 2}
        return "vocoder/speech", {"input": _recording(), "seed": number, "steps": 1}

    return [one(number) for number in range(count)]


def _recording() -> str:
    """Return a short sound in base64."""
    file, time_axis = BytesIO(), np.arange(6000) / 22_050
    soundfile.write(file, 0.3 * np.sin(2 * np.pi * 220 * time_axis), 22_050, format="WAV")
    return base64.b64encode(file.getvalue()).decode()


def _png(side: int) -> str:
    file = BytesIO()
    Image.new("1", (side, side)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def hostile_requests(count: int, seed: int = 0) -> list[tuple[str, str, bytes, dict[str, str]]]:
    """Return method, path, body and headers of requests that must be refused."""
    draw = random.Random(seed)
    bomb = _png(12_000)
    values = [None, "8", -1, 0.5, 10**30, [], {}, True, "../../etc/passwd", "x" * 100_000]
    fields = ["steps", "seed", "sampler", "guidance_scale", "size", "init_image", "../steps"]

    def one(number: int) -> tuple[str, str, bytes, dict[str, str]]:
        kind = number % 6
        plain = {"content-type": "application/json"}
        if kind == 0:
            body = {"prompt": draw.choice(values[2:7]), draw.choice(fields): draw.choice(values)}
            return "POST", "/v1/images", json.dumps(body).encode(), plain
        if kind == 1:
            body = {"prompt": "seven", "init_image": draw.choice([bomb, "!", "QUJD", ""])}
            return "POST", "/v1/images", json.dumps(body).encode(), plain
        if kind == 2:
            names = ["..%2f..%2fetc%2fpasswd", "%00", "digits/..", ".", "~root", "digits%20"]
            return "POST", f"/v1/images/{draw.choice(names)}", b"{}", plain
        if kind == 3:
            strange = [{"origin": "http://evil.example"}, {"host": "evil.example"},
                       {"origin": "null"}, {"sec-fetch-site": "cross-site"}]  # fmt: skip
            return "POST", "/v1/images", b'{"prompt": "seven"}', {**plain, **draw.choice(strange)}
        if kind == 4:
            huge = [b"[" * 1_000_000, b"x" * (20 << 20), b'{"prompt": "\xff"}', b"", b"null"]
            return "POST", "/v1/images", draw.choice(huge), plain
        return draw.choice(["PUT", "DELETE", "TRACE"]), "/v1/images", b"", plain

    return [one(number) for number in range(count)]


# ------------------------------------------------------------------------- cases


def mixed(server: Server, count: int) -> Iterator[Row]:
    """Compare requests at once with the same one by one, and memory over time."""
    requests, seconds = mixed_requests(count), []
    early = max(1, count // 10)

    def timed(request: Request) -> httpx.Response:
        began = time.perf_counter()
        response = server.post(request)
        seconds.append(time.perf_counter() - began)
        return response

    with ThreadPoolExecutor(16) as clients:
        answers = [*clients.map(timed, requests[:early])]
        before = server.memory_mb()
        answers += clients.map(timed, requests[early:])
    after = server.memory_mb()
    singly = [server.post(request) for request in requests]
    lost = sum(one.status_code != 200 for one in answers)
    differ = sum(a.content != b.content for a, b in zip(answers, singly, strict=True))
    case = f"{count} mixed, 16 at once"
    yield Row(PART, case, "lost", "answers", lost)
    yield Row(PART, case, "other bits than one by one", "answers", differ)
    yield Row(PART, case, "p50", "s", median(seconds))
    yield Row(PART, case, "p95", "s", quantiles(seconds, n=20)[-1])
    yield Row(PART, case, f"memory after {early}", "MB", before)
    yield Row(PART, case, "memory at the end", "MB", after, ratio=after / before)


def throughput(threads: int, rounds: int, steps: int) -> Iterator[Row]:
    """Compare 16 requests at once with and without batching, of images and of texts."""
    cases: dict[str, list[Request]] = {
        "16 digits": [
            ("images", {"prompt": "seven", "seed": n, "steps": steps + n % 2}) for n in range(16)
        ],
        "16 infilled texts": [
            ("texts", {"infill": "the eagle is a [MASK] [MASK] [MASK] .", "seed": n,
                       "temperature": 1 - n / 100}) for n in range(16)
        ],
    }  # fmt: skip
    taken: dict[tuple[str, str], list[float]] = {}
    for system, options in (("one by one", ("--batch", "1")), ("batched", ())):
        with serving(["digits", "masked"], threads, *options) as server:
            for case, requests in cases.items():
                for number in range(rounds + 1):  # the first is not counted
                    began = time.perf_counter()
                    with ThreadPoolExecutor(16) as clients:
                        list(clients.map(server.post, requests))
                    if number:
                        taken.setdefault((case, system), []).append(time.perf_counter() - began)
    for (case, system), own in taken.items():
        ratio = median(own) / median(taken[case, "one by one"])
        yield Row(PART, case, system, "s", median(own), min(own), max(own), ratio)


def disconnects(server: Server, count: int) -> Iterator[Row]:
    """Let clients go at random moments, and time the next request."""
    draw, waits = random.Random(0), []
    quick: Request = ("images", {"prompt": "seven", "steps": 1})

    def timed() -> float:
        began = time.perf_counter()
        server.post(quick)
        return time.perf_counter() - began

    usual = median(timed() for _ in range(5))
    for number in range(count):
        long: Request = ("images", {"prompt": "seven", "steps": 1000, "seed": number})
        if number % 4 == 0:
            long = ("vocoder", {"input": _recording(), "steps": 1000, "seed": number})
        leaves = httpx.Timeout(draw.uniform(0.001, 0.1), connect=5)
        with suppress(httpx.TimeoutException):
            httpx.post(f"{server.url}/v1/{long[0]}", json=long[1], timeout=leaves)
        if number % 10 == 9:
            waits.append(timed())
    running, until = 1.0, time.perf_counter() + ENDS_WITHIN
    while running and time.perf_counter() < until:  # each ends with its network evaluation
        time.sleep(0.05)
        running = _gauge(server, "multidiff_running") + _gauge(server, "multidiff_waiting")
    case = f"{count} clients that go"
    yield Row(PART, case, "a request before them", "s", usual)
    yield Row(PART, case, "the request after ten of them", "s", median(waits), min(waits),
              max(waits), median(waits) / usual)  # fmt: skip
    yield Row(PART, case, "still running at the end", "requests", running)


def _gauge(server: Server, name: str) -> float:
    lines = httpx.get(f"{server.url}/metrics", timeout=LIMIT).text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(f"{name}{{"))


def hostile(server: Server, count: int) -> Iterator[Row]:
    """Count answers to hostile requests that are no 4xx of one line; memory before and after."""
    wrong, before = [], server.memory_mb()
    with httpx.Client(timeout=LIMIT) as client:
        for method, path, body, headers in hostile_requests(count):
            found = client.request(method, f"{server.url}{path}", content=body, headers=headers)
            text = found.text
            fine = 400 <= found.status_code < 500 and text.count("\n") == 0
            if not fine or "Traceback" in text:
                wrong.append((method, path, body[:80], found.status_code))
    slow = _slow_upload(server)
    after = server.memory_mb()
    answered = server.post(("images", {"prompt": "seven", "steps": 1})).status_code
    for one in wrong:
        print(*one, file=sys.stderr)
    case = f"{count} hostile"
    yield Row(PART, case, "not refused in one line", "requests", len(wrong))
    yield Row(PART, case, "slow upload ends after", "s", slow)
    yield Row(PART, case, "memory before", "MB", before)
    yield Row(PART, case, "memory after", "MB", after, ratio=after / before)
    yield Row(PART, case, "good request after them", "status", answered)


def _slow_upload(server: Server) -> float:
    """Return the seconds until a body that never ends is refused."""
    host, port = server.url.removeprefix("http://").split(":")
    began = time.perf_counter()
    with socket.create_connection((host, int(port)), 60) as upload:
        head = f"POST /v1/images HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: 1000\r\n\r\n{{"
        upload.sendall(head.encode())
        upload.settimeout(60)
        answer = upload.recv(4096)
    assert b"408" in answer.split(b"\r\n")[0], answer
    return time.perf_counter() - began


def stops(threads: int) -> Iterator[Row]:
    """Stop a server that runs 8 requests, by SIGTERM and SIGKILL, and start it again."""
    requests: list[Request] = [
        ("images", {"prompt": "seven", "seed": n, "steps": 12}) for n in range(8)
    ]
    with serving(["digits"], threads) as server, ThreadPoolExecutor(8) as clients:
        found = [clients.submit(server.post, one) for one in requests]
        while _gauge(server, "multidiff_running") < 8:
            time.sleep(0.01)
        server.process.send_signal(signal.SIGTERM)
        answered = sum(one.result().status_code == 200 for one in found)
        status = server.process.wait(60)
    yield Row(PART, "SIGTERM in 8 requests", "answered", "requests", answered)
    yield Row(PART, "SIGTERM in 8 requests", "exit status", "", status)
    with serving(["digits"], threads) as server, ThreadPoolExecutor(8) as clients:
        port = server.url.rpartition(":")[2]
        found = [clients.submit(server.post, one) for one in requests]
        time.sleep(0.5)
        server.process.kill()
        server.process.wait(60)
        broken = sum(one.exception() is not None for one in found)
    began = time.perf_counter()
    with serving(["digits"], threads, port=port) as server:
        fresh = server.post(requests[0]).status_code
        yield Row(PART, "SIGKILL in 8 requests", "broken", "requests", broken)
        yield Row(PART, "start on the same port", "first answer", "s", time.perf_counter() - began)
        yield Row(PART, "start on the same port", "its status", "status", fresh)


def measure(
    threads: int,
    rounds: int,
    *,
    requests: int = 500,
    disconnected: int = 100,
    hostile_count: int = 300,
    steps: int = 20,
) -> list[Row]:
    """Measure the service; a number of 0 leaves a case out.

    Args:
        threads: threads of the server's torch.
        rounds: rounds of the throughput.
        requests: mixed requests.
        disconnected: clients that go.
        hostile_count: hostile requests.
        steps: steps of the digits in the throughput; none measures none.
    """
    rows = [*throughput(threads, rounds, steps)] if steps else []
    with serving(MODELS, threads, "--queue", "1000") as server:
        rows += mixed(server, requests) if requests else []
        rows += disconnects(server, disconnected) if disconnected else []
        rows += hostile(server, hostile_count) if hostile_count else []
    return [*rows, *stops(threads)]
