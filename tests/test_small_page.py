"""docs/validation.md has the tables of docs/small/."""

import importlib.util
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_the_page_has_the_tables_of_the_files():
    spec = importlib.util.spec_from_file_location("small_page", ROOT / "docs" / "small.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    page = script.PAGE.read_text(encoding="utf-8")
    assert page.count("<!-- small ") == 2
    assert script.insert_tables(page) == page, "python docs/small.py"
