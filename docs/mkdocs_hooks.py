"""Hooks of mkdocs: README as the site's first page, model cards as pages, links out of docs/.

On the repository's own pages links may lead to any file. A site holds docs/ alone: links to cards
lead to their pages there, and links to other files keep their text and name the path.
"""

import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).parent.parent
CARDS = {
    card.parent.name: card for card in sorted((ROOT / "multidiff/pretrained").glob("*/card.md"))
}
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?![a-z]+:|#)([^)#\s]+)(#[^)]*)?\)")


def on_config(config):
    """Put the cards' pages in the navigation."""
    for entry in config.nav:
        if entry.get("Models") == "MODELS":
            entry["Models"] = [{name: f"models/{name}.md"} for name in CARDS]
    return config


def on_files(files, config):
    """Add README and the cards as pages."""
    text = re.sub(r"(\]\(|src=\")docs/", r"\1", (ROOT / "README.md").read_text("utf-8"))
    files.append(File.generated(config, "index.md", content=text))
    for name, card in CARDS.items():
        _, _, body = card.read_text("utf-8").split("---\n", 2)
        files.append(File.generated(config, f"models/{name}.md", content=body))
    return files


def on_page_markdown(markdown, page, config, files):
    """Lead links to files outside docs/ to pages of the site, or keep their text alone."""
    depth = page.file.src_uri.count("/")

    def resolved(found):
        text, target, anchor = found[1], found[2], found[3] or ""
        card = re.search(r"pretrained/([\w-]+)/card\.md$", target)
        if card:
            return f"[{text}]({'../' * depth}models/{card[1]}.md{anchor})"
        inside = Path(page.file.src_uri).parent / target
        if not target.startswith("../") and files.get_file_from_path(inside.as_posix()):
            return found[0]
        if page.file.src_uri == "index.md" or (ROOT / "docs" / inside).resolve().exists():
            path = (ROOT / ("" if page.file.src_uri == "index.md" else "docs") / inside).resolve()
            if path.is_relative_to(ROOT / "docs"):
                return found[0]
            return f"{text} (`{path.relative_to(ROOT)}`)" if path.exists() else found[0]
        return found[0]

    return LINK.sub(resolved, markdown)
