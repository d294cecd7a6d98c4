"""Lay out what the site is built from: the pages, the README as the first one, and the references, made of the code.

`python docs/generate.py FOLDER` writes into an empty folder; `make docs` builds the site from it.
"""

from __future__ import annotations

import ast
import csv
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import typer

import stripe_feed
from stripe_feed import errors
from stripe_feed.api.credentials import key_form
from stripe_feed.cli.main import app
from stripe_feed.extract.tables.codec import ADDED_COLUMNS, HASH_COLUMN, LOAD_COLUMN
from stripe_feed.resources import CHANGE_COLUMNS, RESOURCES
from stripe_feed.resources.groups import GROUPS
from stripe_feed.resources.model import Child, Column, Parent, Resource
from stripe_feed.resources.push_tables import PUSH_TABLES, PushTable

ROOT = Path(__file__).resolve().parents[1]
TYPES = {"ref": "text", "decimal": "decimal(38, 12)", "timestamp": "timestamp with time zone"}
LANGUAGES = {".py": "python", ".yml": "yaml", ".conf": "nginx"}
ON_THE_SITE = {
    "pipelines": "reference/scripts.md",
    "CHANGELOG.md": "reference/changelog.md",
    "DECISIONS.md": "reference/decisions.md",
    "CONTRIBUTING.md": "reference/contributing.md",
}


def generate(folder: Path) -> None:
    """Write all pages of the site."""
    for page in (ROOT / "docs").glob("*.md"):
        write(folder / page.name, page.read_text(encoding="utf-8"))
    shutil.copytree(ROOT / "docs" / "images", folder / "images", dirs_exist_ok=True)
    write(folder / "index.md", linked((ROOT / "README.md").read_text(encoding="utf-8")))
    reference = folder / "reference"
    write(reference / "commands.md", commands())
    write(reference / "tables.md", tables())
    write(reference / "python.md", names())
    write(reference / "scripts.md", scripts())
    write(reference / "write-back.md", write_back())
    for name in ("CHANGELOG.md", "DECISIONS.md", "CONTRIBUTING.md"):
        write(folder / ON_THE_SITE[name], unlinked((ROOT / name).read_text(encoding="utf-8")))


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def linked(text: str) -> str:
    """The README with links as they are on the site; a link to a file that is not there becomes its words."""

    def link(match: re.Match[str]) -> str:
        words, to = match.groups()
        if to.startswith(("https://", "<https://")):
            return match[0]
        to = ON_THE_SITE.get(to, to)
        if to.startswith(("docs/", "reference/")):
            return f"[{words}]({to.removeprefix('docs/')})"
        return words

    return re.sub(r"\[([^]]+)\]\(([^)]+)\)", link, text)


def unlinked(text: str) -> str:
    """A file of the repository without its links to other files."""
    return re.sub(r"\[([^]]+)\]\((?!<?https://)[^)]+\)", r"\1", text)


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    cells = [
        list(heads),
        ["---"] * len(heads),
        *([one.replace("|", "\\|") for one in row] for row in rows),
    ]
    return "".join(f"| {' | '.join(row)} |\n" for row in cells)


# -- commands ---------------------------------------------------------------------------------------------------------------


def commands() -> str:
    """Each command with its arguments and options, as its help says."""
    root: Any = typer.main.get_command(app)
    verbs = "".join(
        _command(root.commands[name], f"stripe-feed {name}") for name in sorted(root.commands)
    )
    return f"# Commands\n\n{root.help}\n\n{root.epilog or ''}\n\n{verbs}"


def _command(command: Any, name: str) -> str:
    deeper = getattr(command, "commands", {})
    text = f"{'#' * len(name.split())} {name}\n\n{command.help}\n\n"
    if name == "stripe-feed sandbox":
        own_help = [sys.executable, "-m", "stripe_feed.sandbox", "--help"]
        return f"{text}```text\n{subprocess.run(own_help, check=True, capture_output=True, text=True).stdout}```\n\n"
    if not deeper:
        text += f"{table(('option', 'default', 'meaning'), map(_parameter, command.params))}\n"
    return text + "".join(_command(one, f"{name} {inner}") for inner, one in sorted(deeper.items()))


def _parameter(parameter: Any) -> tuple[str, str, str]:
    is_argument = parameter.param_type_name == "argument"
    value = (
        "" if getattr(parameter, "is_flag", False) else parameter.metavar or parameter.name.upper()
    )
    spelled = value if is_argument else " ".join(filter(None, (", ".join(parameter.opts), value)))
    default = (
        ""
        if parameter.default in (None, False, ()) or parameter.required
        else f"`{parameter.default}`"
    )
    return f"`{spelled}`", "required" if parameter.required else default, parameter.help or ""


# -- tables -----------------------------------------------------------------------------------------------------------------


def tables() -> str:
    """Each table with its keys and columns, as the rows of the resources say."""
    shared = [*ADDED_COLUMNS, HASH_COLUMN, LOAD_COLUMN]
    parts = [
        "# Table reference\n",
        "The primary key of each table is `id`, of `changes` it is `change_id`; those of pushes are named with them.\n",
        *(_resource(row) for row in RESOURCES.values()),
        "## Columns that every table has\n",
        "`changes` has only `account_id` and `_dlt_load_id` of these; child tables have no `_hash`, and their `deleted_at` is always null.\n",
        _columns(shared),
        "## changes\n",
        "One row per transition of an object; read with the permission `rak_event_read`.\n",
        _columns(CHANGE_COLUMNS),
        "In the feed a change also has `offset`, `object_version` and `before`, which is computed from `after` and `previous`.\n",
        *(_push_table(one) for one in PUSH_TABLES.values()),
        "## Compared with other tools\n",
        *compared(),
    ]
    return "\n".join(parts)


COMPARED = {
    "A": "Airbyte 5.14", "F": "Fivetran's dbt package and pages", "I": "ingestr", "T": "tap-stripe 3.3", "S": "sync-engine 0.48",
    "D": "dlt's verified source", "E": "Estuary", "P": "PostHog",
}  # fmt: skip
"""The letters of `compared-tables.tsv`, and whose code or documentation they were read from, in November 2026."""


def compared() -> Iterator[str]:
    """Which of Stripe's lists other tools load, and the table that holds it here."""
    rows = lists_of_others()
    held = sum(bool(row["table"]) for row in rows)
    yield f"Other tools load {len(rows)} of Stripe's lists; {held} of them have a table here.\n"
    cells = (
        [f"`/v1/{row['list']}`", f"`{row['table']}`" if row["table"] else "no",
         ", ".join(COMPARED[letter].split("'")[0].split()[0] for letter in row["tools"])]
        for row in rows
    )  # fmt: skip
    yield table(("list", "here", "others"), cells)
    yield f"Read from {', '.join(COMPARED.values())}, in November 2026.\n"


def lists_of_others() -> list[dict[str, str]]:
    """The rows of `compared-tables.tsv`."""
    with (ROOT / "docs" / "compared-tables.tsv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def _resource(row: Resource) -> str:
    opt_in = [Column(f"{extra.name}", extra.column.kind, f"Opt-in: `--expand {row.table}.{extra.name}`. "
                     f"{extra.column.description}") for extra in row.expandable if not extra.always]  # fmt: skip
    parts = [
        f"## {row.table}\n",
        f"Group `{row.group}`. {_where(row)} with the permission {permission_of(row)} ({row.label}).",
        f"{_how_new(row)} {_how_changed(row)} {_how_gone(row)}\n",
        _columns([*row.columns, *opt_in]),
        *(_child(child, row) for child in row.children),
    ]
    return "\n".join(parts)


def permission_of(row: Resource) -> str:
    """The permission as code, with a question mark if its name is only likely."""
    return f"`{row.permission}`{'?' if row.permission_guessed else ''}"


def _where(row: Resource) -> str:
    if row.holders:
        return f"They come with the objects that they are on, those of {', '.join(f'`{name}`' for name in dict.fromkeys(holder.resource for holder in row.holders))},"
    return f"Read from `GET {row.path}`"


def _how_new(row: Resource) -> str:
    if row.holders:
        return "A row is fetched when another row names it first."
    if row.parent is not None:
        return _how_swept(row, row.parent)
    if not row.created_field:
        return "The list is read whole once a day, and compared with the rows."
    again = (
        f"; once a day those of the last {row.relist_days} days are read again"
        if row.relist_days
        else ""
    )
    return f"New objects come from the list, by `{row.created_field}`{again}."


def _how_swept(row: Resource, parent: Parent) -> str:
    which = f"Each of the `{parent.table}`{f' with `{parent.flag}`' if parent.flag else ''} has a list of its own: all are read once, later those of new"
    names = ", ".join(f"`{name}`" for name in parent.fields or ())
    changed = (
        f" and changed ones{f' ({names})' if names else ''}" if parent.fields != () else " ones"
    )
    again = "; once a day all are read again" if row.relist_days else ""
    return f"{which}{changed}{again}."


def _how_changed(row: Resource) -> str:
    if row.holders:
        return "The row says what that object showed then."
    if row.parent and row.parent.events:
        types = ", ".join(f"`{type}`" for type in row.parent.events)
        return f"{types} says whose list has changed; it is read again."
    if not row.events:
        return f"Stripe has no events for them: changes are seen when {'a' if row.parent else 'the'} list is read."
    types = ", ".join(f"`{type}`" for type in row.events if type not in row.deleted_by)
    return f"Changes are seen by the events {types}." if types else ""


def _how_gone(row: Resource) -> str:
    if row.holders:
        return "A row stays; whether it is still in force, the object that it is on says."
    if row.deleted_by:
        return f"Deletes are seen by {', '.join(f'`{type}`' for type in row.deleted_by)}."
    if row.parent is not None:
        return "What the list of its parent no longer shows counts as deleted."
    if not row.created_field:
        return (
            "What the list no longer shows, and Stripe does not have any more, counts as deleted."
        )
    return "No event reports a delete: `reconcile` finds them, if there are any."


def groups() -> dict[str, list[str]]:
    """The rows of the two tables of `resources.md`, by group: resources, and permissions with the form for a key."""
    rows = {}
    for group, names in GROUPS.items():
        members = [RESOURCES[name] for name in names]
        surest = sorted(members, key=lambda row: row.permission_guessed)
        marks = {row.permission: permission_of(row) for row in surest[::-1]}
        permissions = [marks[name] for name in dict.fromkeys(row.permission for row in members)]
        needed = dict.fromkeys((*(row.permission for row in members), "rak_event_read"))
        rows[group] = [
            ", ".join(f"`{name}`" for name in names), ", ".join(permissions), f"[form](<{key_form(needed)}>)",
        ]  # fmt: skip
    return rows


def _push_table(one: PushTable) -> str:
    keys = ", ".join(f"`{name}`" for name in one.key)
    return (
        f"## {one.name}\n\n{one.description} Its primary key is {keys}.\n\n{_columns(one.columns)}"
    )


def _child(child: Child, row: Resource) -> str:
    parts = [
        f"## {child.table}\n",
        f"The complete list `{child.field}` of each row of `{row.table}`; `{child.parent}` holds its id.\n",
        _columns(child.columns),
    ]
    return "\n".join(parts)


def _columns(columns: Iterable[Column]) -> str:
    rows = (
        (f"`{column.name}`", TYPES.get(column.kind, column.kind), column.description)
        for column in columns
    )
    return table(("column", "type", "meaning"), rows)


# -- Python and scripts -----------------------------------------------------------------------------------------------------


def names() -> str:
    """Each public name; mkdocstrings puts its signature and docstring there."""
    public = sorted(
        (
            name
            for name in stripe_feed.__all__
            if not name.startswith("__") and name not in vars(errors)
        ),
        key=str.lower,
    )
    directives = "".join(f"::: stripe_feed.{name}\n\n" for name in public)
    return f"# Python reference\n\nImport these names from `stripe_feed`.\n\n{directives}::: stripe_feed.errors\n"


def scripts() -> str:
    """Each file that users copy, as it stands in `pipelines/`."""
    parts = [
        f"## {path.name}\n\n```{LANGUAGES.get(path.suffix, 'text')}\n{path.read_text(encoding='utf-8')}```\n"
        for path in sorted((ROOT / "pipelines").iterdir())
        if path.is_file()
    ]
    return (
        "# Scripts to copy\n\nThese files are in `pipelines/` of the repository.\n\n"
        + "\n".join(parts)
    )


# -- what other tools state -------------------------------------------------------------------------------------------------

TOOLS = {
    "N": ("Nappai: Stripe Customer", "https://doc.nappai.ai"),
    "C": ("Cargo: the actions", "https://docs.getcargo.io"),
    "S": ("Stripe: the Customer object", "https://docs.stripe.com/api/customers"),
    "SP": ("Stripe: parameters of a customer", "https://docs.stripe.com/api/customers/create"),
    "H": ("Hightouch: Stripe as a destination", "https://hightouch.com/docs"),
}
"""The first letters of the rows of `write-back.tsv`, whose documentation they come from, and where it is."""
ROW_ID = re.compile(r"\b(?:N|C|SP|S|H)\d+[a-f]?\b")


def write_back() -> str:
    """What other tools state that they write to Stripe, row by row, with the tests that stand for each row."""
    with (ROOT / "docs" / "write-back.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    tests = evidence()
    holds = sum(row["holds"] == "yes" for row in rows)
    parts = [
        "# Write back, compared\n",
        f"What the documentation of other tools states, row by row: {holds} of {len(rows)} rows hold.",
        "Where one holds in part or not at all, it says why.",
        "The last column has the tests that stand for it; a row without a test fails the suite.\n",
    ]
    for letters, (title, address) in TOOLS.items():
        own = [row for row in rows if row["id"].rstrip("abcdef0123456789") == letters]
        cells = (
            [row["id"], row["stated"], row["here"], row["holds"], _named(tests.get(row["id"], []))]
            for row in own
        )
        parts += [
            f"## {title}\n",
            f"Stated in <{address}>.\n",
            table(("row", "stated", "here", "holds", "tests"), cells),
        ]
    return "\n".join(parts)


def _named(tests: Sequence[str]) -> str:
    return ", ".join(f"`{test}`" for test in tests)


def evidence() -> dict[str, list[str]]:
    """The tests that stand for each row: those that are marked with it, and those that run a table
    named `CHECKLIST...` whose entries begin with it.
    """
    found: dict[str, list[str]] = {}
    for path in sorted((ROOT / "tests").glob("test_*.py")):
        text = path.read_text(encoding="utf-8")
        if "checklist" in text.lower():
            for test, words in _marked(ast.parse(text)):
                for row in ROW_ID.findall(words):
                    found.setdefault(row, []).append(f"{path.stem}: {test}")
    return {row: list(dict.fromkeys(tests)) for row, tests in found.items()}


def _marked(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Each test with the text that names its rows."""
    tables = {
        target.id: list(_entries(node.value))
        for node in tree.body
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name) and target.id.startswith("CHECKLIST")
    }
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef) or not node.name.startswith("test_"):
            continue
        for inner in ast.walk(node):
            if isinstance(inner, ast.Name) and inner.id in tables:
                yield from ((name or node.name, words) for name, words in tables[inner.id])
        for mark in node.decorator_list:
            if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.checklist":
                yield node.name, " ".join(map(ast.literal_eval, mark.args))


def _entries(table: ast.expr) -> Iterator[tuple[str, str]]:
    """Each key of a hash with the function that it stands for, or the first text of each entry of a list."""
    match table:
        case ast.Dict(keys=keys, values=values):
            for key, value in zip(keys, values, strict=True):
                if isinstance(key, ast.Constant) and isinstance(value, ast.Name):
                    yield value.id, str(key.value)
        case ast.List(elts=elements):
            for one in elements:
                if isinstance(one, ast.Tuple) and isinstance(one.elts[0], ast.Constant):
                    yield "", str(one.elts[0].value)


if __name__ == "__main__":
    target = Path(sys.argv[1])
    shutil.rmtree(target, ignore_errors=True)
    generate(target)
