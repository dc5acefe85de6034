"""An image that a visitor brushes over, for the page.

It is drawn in two dimensions by the browser itself: gradio's editor needs WebGL, which takes most
of a minute for a stroke where no GPU draws it.
"""

from __future__ import annotations

from typing import Any

import gradio as gr
from PIL import Image

from multidiff.serve.pictures import opened
from multidiff.serve.settings import ServerSettings
from multidiff.serve.uploads import bytes_from, check_pixels

TEMPLATE = """
<p>${label}</p>
<canvas class="brushed" width="308" height="308"></canvas>
<p><label>Brush <input class="width" type="range" min="4" max="80" value="32"></label>
<button class="clear" type="button">Clear</button>
<input class="file" type="file" accept="image/*" aria-label="Image of your own"></p>
"""
STYLE = """
canvas { max-width: 100%; touch-action: none; cursor: crosshair; border: 1px solid #999; }
input[type=range] { vertical-align: middle; }
button { border: 1px solid #999; border-radius: 4px; padding: 0 0.6em; margin: 0 0.6em; }
"""
# The value is a data URL from Python, an image to begin with; and from the browser the image and
# what the brush covered, two data URLs with a space between.
SCRIPT = """
const MOST = 1024, canvas = element.querySelector("canvas"), ink = canvas.getContext("2d");
const covered = document.createElement("canvas"), trace = covered.getContext("2d");
let image = null, picture = "", from = null;
const show = () => {
  ink.drawImage(image, 0, 0, canvas.width, canvas.height);
  ink.globalAlpha = 0.7;
  ink.drawImage(covered, 0, 0);
  ink.globalAlpha = 1;
};
const tell = () => { props.value = picture + " " + covered.toDataURL(); };
const begin = source => {
  const loaded = new Image();
  loaded.onload = () => {
    const scale = Math.min(1, MOST / Math.max(loaded.width, loaded.height));
    for (const one of [canvas, covered]) {
      one.width = Math.max(1, Math.round(loaded.width * scale));
      one.height = Math.max(1, Math.round(loaded.height * scale));
    }
    image = loaded;
    ink.drawImage(image, 0, 0, canvas.width, canvas.height);
    picture = canvas.toDataURL();
    tell();
  };
  loaded.src = source;
};
const stroke = event => {
  const box = canvas.getBoundingClientRect(), scale = canvas.width / box.width;
  const to = [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
  trace.lineWidth = element.querySelector(".width").value * scale;
  trace.lineCap = "round";
  trace.strokeStyle = "#c72e63";
  trace.beginPath();
  trace.moveTo(...(from || to));
  trace.lineTo(...to);
  trace.stroke();
  from = to;
  show();
};
canvas.addEventListener("pointerdown", event => {
  if (!image) return;
  canvas.setPointerCapture(event.pointerId);
  stroke(event);
});
canvas.addEventListener("pointermove", event => { if (from) stroke(event); });
for (const end of ["pointerup", "pointercancel"])
  canvas.addEventListener(end, () => { if (from) { from = null; tell(); } });
element.querySelector(".clear").addEventListener("click", () => {
  if (!image) return;
  trace.clearRect(0, 0, covered.width, covered.height);
  show();
  tell();
});
element.querySelector(".file").addEventListener("change", event => {
  if (event.target.files[0]) begin(URL.createObjectURL(event.target.files[0]));
});
watch("value", () => { if (props.value && !props.value.includes(" ")) begin(props.value); });
"""


def brush(label: str) -> gr.HTML:
    """Return an image that can be brushed over; :func:`brushed` reads its value."""
    return gr.HTML("", html_template=TEMPLATE, css_template=STYLE, js_on_load=SCRIPT, label=label)


def brushed(value: Any, settings: ServerSettings) -> tuple[Image.Image, Image.Image] | None:
    """Return the image and what the brush covered, opaque there; None if there is no image.

    Raises:
        InputError: if they are no images, or too large.
    """
    parts = value.split(" ") if isinstance(value, str) else []
    if len(parts) != 2:
        return None
    image, covered = (bytes_from("image", one) for one in parts)
    for one in (image, covered):
        check_pixels("image", one, settings)
    return opened(image), opened(covered)
