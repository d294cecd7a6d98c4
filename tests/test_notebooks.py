"""The notebooks run from top to bottom on the sandbox, and are committed with what they show.

`python tests/test_notebooks.py` executes them anew, in place.
"""

from __future__ import annotations

import ast
import base64
import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from stripe_feed.sandbox import Sandbox

NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "notebooks").glob("*.ipynb"))
PNG = b"\x89PNG\r\n\x1a\n"

MODELS = [path for path in NOTEBOOKS if path.stem[:2] in ("03", "04", "05")]
"""Those about models: imports, the account, and its load are their first cells, the end is their last."""

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]


def execute(notebook: Any, folder: Path) -> None:
    client = NotebookClient(
        notebook, timeout=120, record_timing=False, resources={"metadata": {"path": str(folder)}}
    )
    client.execute()
    notebook.metadata["language_info"] = {"name": "python"}  # without the version of whoever ran it


def code(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(notebook: Any) -> list[Any]:
    return [output for cell in code(notebook) for output in cell.outputs]


def pictures(notebook: Any) -> list[bytes]:
    found = [
        output.data["image/png"]
        for output in outputs(notebook)
        if "image/png" in output.get("data", {})
    ]
    return [base64.b64decode(picture) for picture in found]


def words(notebook: Any) -> list[str]:
    """What the outputs say in plain text."""
    return [output["data"]["text/plain"] for output in outputs(notebook) if "data" in output]


def test_there_are_notebooks() -> None:
    assert [path.stem for path in NOTEBOOKS] == [
        "01_quickstart",
        "02_change_feed",
        "03_mrr_and_churn",
        "04_collections",
        "05_payouts",
    ]


@each_notebook
def test_it_is_committed_as_it_ran(path: Path) -> None:
    notebook = read(path)

    assert [cell.execution_count for cell in code(notebook)] == list(
        range(1, len(code(notebook)) + 1)
    )
    assert {output.output_type for output in outputs(notebook)} == {
        "execute_result"
    }  # no error, no warning, no log
    assert pictures(notebook)
    for picture in pictures(notebook):
        assert picture.startswith(PNG)
        assert int.from_bytes(picture[16:20], "big") >= 600, "a picture is as wide as the page"


@each_notebook
def test_it_gives_nothing_away(path: Path) -> None:
    """No folder of a machine, no key, no port: neither in the code nor in what it shows."""
    text = "\n".join(str(dict(output)) for output in outputs(read(path))) + "\n".join(
        cell.source for cell in read(path).cells
    )

    assert re.findall(r"/(?:home|root|Users|tmp|var|work|private)/\S*", text) == []
    assert re.findall(r"\b[sr]k_(?:test|live)_\w+", text) == []
    assert re.findall(r"127\.0\.0\.1:\d+", text) == []
    assert set(read(path).metadata) == {"kernelspec", "language_info"}


@each_notebook
def test_it_starts_with_the_sandbox_and_asserts_what_it_shows(path: Path) -> None:
    source = "\n".join(cell.source for cell in code(read(path)))

    assert 'ACCOUNT = "sandbox"' in source
    assert source.count("\nassert ") >= 3


@each_notebook
def test_what_it_imports_is_there(path: Path) -> None:
    """And all of its code is Python."""
    cells = ast.parse("\n".join(cell.source for cell in code(read(path))))
    imports: list[ast.stmt] = [
        node for node in cells.body if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    assert imports
    exec(compile(ast.Module(imports, []), path.name, "exec"), {})


@each_notebook
def test_it_runs_and_says_what_is_committed(path: Path, tmp_path: Path) -> None:
    notebook = read(path)

    execute(notebook, tmp_path)

    assert words(notebook) == words(read(path)), "execute it anew: python tests/test_notebooks.py"
    assert len(pictures(notebook)) == len(pictures(read(path)))
    assert [item.name for item in tmp_path.iterdir()] == []  # the sandbox leaves nothing behind


def test_those_about_models_say_over_one_copy_what_is_committed(tmp_path: Path) -> None:
    """In one kernel, after the load of the one that needs most tables."""
    *others, largest = (read(path) for path in MODELS)
    imports, start, load, *cells = code(largest)
    committed = [one for notebook in (*others, largest) for one in words(notebook)]
    first = [code(one)[0] for one in others]
    rest = [cell for one in others for cell in code(one)[3:-1]]
    for one in others:
        assert code(one)[1].source == start.source
    together = read(MODELS[-1])
    together.cells = [imports, *first, start, load, *rest, *cells]

    execute(together, tmp_path)

    assert words(together) == committed, "execute them anew: python tests/test_notebooks.py"
    assert all(picture.startswith(PNG) for picture in pictures(together))


@pytest.mark.broad
def test_those_about_models_say_of_an_empty_account_that_there_is_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = Sandbox(customers=0, invoices=0, subscriptions=0, products=0)
    for path in MODELS:
        notebook = read(path)
        for cell in notebook.cells:
            cell.source = cell.source.replace('ACCOUNT = "sandbox"', 'ACCOUNT = "mine"')
        with box.serve() as url:
            monkeypatch.setenv("STRIPE_API_BASE", url)
            monkeypatch.setenv("STRIPE_SECRET_KEY", box.key)

            execute(notebook, tmp_path)

        assert len(words(notebook)) == len(words(read(path)))
        assert all(said.endswith(".'") for said in words(notebook)), words(notebook)
    assert (tmp_path / "stripe_feed.duckdb").exists()


if __name__ == "__main__":
    for path in NOTEBOOKS:
        notebook = read(path)
        with TemporaryDirectory() as folder:
            execute(notebook, Path(folder))
        nbformat.write(notebook, path)  # type: ignore[no-untyped-call]
