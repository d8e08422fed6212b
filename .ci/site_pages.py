"""Pages of the site that do not lie in docs/, and links between them (hooks of mkdocs)."""

import base64
import json
import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parent.parent
MOVED = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "examples/README.md": "examples.md",
    "examples/what_fourierft_does.ipynb": "what_fourierft_does.md",
    "examples/compare_methods.ipynb": "compare_methods.md",
}
"""Files of the checkout and the pages that they become."""


def on_config(config):
    """Put pages of docs/ that the menu does not name behind the others."""
    named = set(re.findall(r"\w+\.md", str(config.nav)))
    others = sorted({path.name for path in (ROOT / "docs").glob("*.md")} - named)
    if others:
        config.nav.append({"Further pages": others})
    return config


def on_files(files, config):
    """Add the files that lie elsewhere, and the page of the package's names."""
    for name, page in MOVED.items():
        text, pictures = (ROOT / name).read_text(encoding="utf-8"), {}
        if name.endswith(".ipynb"):
            text, pictures = format_notebook(json.loads(text), page.removesuffix(".md"))
        files.append(File.generated(config, page, content=text))
        for picture, content in pictures.items():
            files.append(File.generated(config, picture, content=content))
    files.append(File.generated(config, "api.md", content=format_api()))
    return files


def format_notebook(notebook, stem):
    """Return a notebook with its stored outputs as a page, and the contents of its pictures."""
    parts, pictures = [], {}
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if "image/png" in data:
                name = f"{stem}_{len(pictures) + 1}.png"
                pictures[name] = base64.b64decode(data["image/png"])
                parts.append(f'<img src="{name}" alt="Picture drawn by the cell above">')
            elif "text/html" in data:
                table = "".join(data["text/html"])
                parts.append(re.sub(r"<style.*?</style>", "", table, flags=re.S))
            else:
                text = "".join(output.get("text") or data["text/plain"]).rstrip()
                parts.append(f"```text\n{text}\n```")
    return "\n\n".join(parts), pictures


def format_api():
    """Return a page that shows the docstring of every public name."""
    names = re.search(r"__all__ = \[(.*?)\]", (ROOT / "fourierft/__init__.py").read_text(), re.S)[1]
    return "# Names of the package\n\n" + "\n\n".join(
        f"::: fourierft.{name}" for name in re.findall(r'"(\w+)"', names)
    )


def on_page_markdown(markdown, page, config, files):
    """Lead links to where the pages are; a link to a file that is no page becomes its text."""
    source = page.file.src_uri
    of_page = {page: name for name, page in MOVED.items()}
    place = posixpath.dirname(of_page.get(source, f"docs/{source}"))

    def relink(match):
        text, target, anchor = match.groups()
        if re.match(r"\w+:", target) or not target:
            return match[0]
        path = posixpath.normpath(posixpath.join(place, target))
        uri = MOVED.get(path, path.removeprefix("docs/"))
        if files.get_file_from_path(uri) is None:
            return text
        return f"[{text}]({posixpath.relpath(uri, posixpath.dirname(source) or '.')}{anchor})"

    return re.sub(r"(?<!`)\[([^\]\[]*)\]\(([^)#\s]*)((?:#[^)\s]*)?)\)", relink, markdown)
