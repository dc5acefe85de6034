"""A page of one's own beside a model: a word becomes a digit, drawn at /own.

python examples/service/own_page.py, then open http://127.0.0.1:8000/own
"""

import uvicorn
from fastapi import FastAPI
from fastapi.responses import HTMLResponse

import multidiff as md
from multidiff.serve import create_app

PAGE = """<!doctype html><title>Digits</title>
<input id=prompt value=seven> <input id=seed type=number value=0> <button>Draw</button><br>
<img width=280 style="image-rendering: pixelated">
<script>
document.querySelector("button").onclick = async () => {
  const body = JSON.stringify({prompt: prompt.value, seed: Number(seed.value)});
  const headers = {"Content-Type": "application/json"};
  const answer = await fetch("/v1/images/digits", {method: "POST", headers, body});
  if (!answer.ok) return alert((await answer.json()).detail);
  document.querySelector("img").src = URL.createObjectURL(await answer.blob());
};
const [prompt, seed] = ["prompt", "seed"].map(name => document.getElementById(name));
</script>"""


def main() -> FastAPI:
    """Return the service of the digits, with one page more."""
    app = create_app({"digits": md.load("digits")})
    app.get("/own", response_class=HTMLResponse)(lambda: PAGE)
    return app


if __name__ == "__main__":
    uvicorn.run(main(), port=8000)
