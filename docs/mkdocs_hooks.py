"""Hooks of mkdocs: README as the site's first page, model cards as pages, links out of docs/.

On the repository's own pages links may lead to any file. A site holds docs/ alone: links to cards
lead to their pages there, and links to other files keep their text and name the path.
"""

import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
CARDS = {
    path.parent.name: path for path in sorted((ROOT / "multidiff/pretrained").glob("*/card.md"))
}
# A link, neither an image nor an address: its text, its target and its anchor.
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?![a-z]+:|#)([^)#\s]+)(#[^)]*)?\)")


def on_config(config):
    """Put the cards' pages in the navigation."""
    for entry in config.nav:
        if entry.get("Models") == "MODELS":
            entry["Models"] = [{name: f"models/{name}.md"} for name in CARDS]
    return config


def on_files(files, config):
    """Add README and the cards as pages."""
    readme = (ROOT / "README.md").read_text("utf-8")
    readme = re.sub(r"^\[!\[.*\n", "", readme, flags=re.MULTILINE)  # badges
    files.append(File.generated(config, "index.md", content=readme.replace("](docs/", "](")))
    for name, card in CARDS.items():
        _, _, body = card.read_text("utf-8").split("---\n", 2)
        files.append(File.generated(config, f"models/{name}.md", content=body))
    return files


def on_page_markdown(markdown, page, config, files):
    """Lead links to files outside docs/ to pages of the site, or keep their text alone."""
    source = page.file.src_uri
    folder = ROOT if source == "index.md" else (DOCS / source).parent

    def resolved(found):
        text, target, anchor = found[1], found[2], found[3] or ""
        card = re.search(r"pretrained/([\w-]+)/card\.md$", target)
        if card:
            return f"[{text}]({'../' * source.count('/')}models/{card[1]}.md{anchor})"
        path = (folder / target).resolve()
        if not path.exists() or path.is_relative_to(DOCS):
            return found[0]  # mkdocs itself reports a link that leads nowhere
        name = str(path.relative_to(ROOT))
        return f"`{name}`" if name.startswith(text) else f"{text} (`{name}`)"

    return LINK.sub(resolved, markdown)
