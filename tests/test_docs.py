"""The README and the pages are true: their blocks run as a reader runs them, and their tables and
numbers are those of the code.
"""

from __future__ import annotations

import os
import re
import runpy
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
import tomlkit
import typer

import stripe_feed
from stripe_feed import errors, open_actions
from stripe_feed.agents.acting import look_up_tools, writing_tools
from stripe_feed.agents.place import AgentContext
from stripe_feed.agents.reading import MAX_ROWS, QUERY_SECONDS, reading_tools
from stripe_feed.api import rate_limits
from stripe_feed.cli import main
from stripe_feed.delivery.endpoint_config import DELIVER_KEYS
from stripe_feed.delivery.payloads import FORMATS
from stripe_feed.destination import locks
from stripe_feed.destination.pipeline import DLT_SETTINGS
from stripe_feed.doctor import EVENTS
from stripe_feed.extract.next_step import RETENTION, SECONDS_PER_DAY, TOO_OLD
from stripe_feed.extract.options import LOOK_BACK, SETTLE
from stripe_feed.models.render import load_project
from stripe_feed.resources import CHANGE_COLUMNS, RESOURCES, TABLES
from stripe_feed.resources.model import Resource
from stripe_feed.resources.writable import WRITABLE
from stripe_feed.sandbox import Sandbox
from stripe_feed.sandbox.__main__ import make_parser
from stripe_feed.server.app import create_app
from stripe_feed.server.context import ServerConfig
from stripe_feed.server.page import page_files as page_files
from stripe_feed.triggers import config
from stripe_feed.triggers.models.model_trigger import MODEL_PRESETS
from stripe_feed.triggers.trigger import PRESETS
from stripe_feed.write.consequences import DESTRUCTIVE, SIDE_EFFECTS
from stripe_feed.write.verbs import verbs_of
from tests.commands import loaded
from tests.core import CORE, CORE_TABLES
from tests.model_engines import DIALECTS, PARSED, RAN, documented_engines
from tests.pages import BIN, ROOT, Block, Reader, agree, blocks
from tests.receiver import receiving
from tests.stores import documented

PAGES = {
    f"docs/{name}.md": (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
    for name in (
        "changes", "triggers", "serve", "tables", "models", "python", "destinations", "operations", "connect", "actions", "agents", "push", "recipes", "how-it-works",
        "resources",        "faq",
    )
}  # fmt: skip
README = (ROOT / "README.md").read_text(encoding="utf-8")
ALL = {"README.md": README, **PAGES}
RUN_ELSEWHERE = "[[trigger]]"  # on the page of recipes; tests/test_recipes.py delivers each one
WRITE_KEY = "rk_test_may_write"
PLATFORM_KEY = "rk_test_platform"
GROUPS_KEY = "rk_test_groups"
KEY = re.findall(r"export STRIPE_SECRET_KEY=(\S+)", README)[0]
BEHIND = 55  # seconds of the account's clock, which the changes of one day put ahead again


def table(page: str, first: str) -> list[list[str]]:
    """The cells of the Markdown table of a page whose first heading this is."""
    text = ALL[page]
    lines = text[text.index(f"\n| {first} |") + 1 :].split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def commands() -> Iterator[tuple[str, Any]]:
    """Each command with its whole name, groups too."""

    def below(command: Any, name: str) -> Iterator[tuple[str, Any]]:
        yield name, command
        for inner, one in getattr(command, "commands", {}).items():
            yield from below(one, f"{name} {inner}")

    yield from below(typer.main.get_command(main.app), "stripe-feed")


def names(cell: str) -> list[str]:
    """What stands in backticks."""
    return re.findall(r"`([^`]+)`", cell)


# -- the blocks
# -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expected", "same"),
    [
        ("a b c", True),
        ("a ... c", True),
        ("... c", True),
        ("a ...", True),
        ("a b ... c", True),
        ("a c", False),
        ("a ... d", False),
        ("... b", False),
        ("b ...", False),
        ("a b", False),
    ],
)
def test_three_dots_stand_for_any_lines(expected: str, same: bool) -> None:
    assert agree(expected.split(), ["a", "b", "c"]) is same


@pytest.fixture(scope="module")
def box() -> Sandbox:
    """An account in our time whose key may do what the README says, and nothing else."""
    account = Sandbox(seed=7, customers=20, now=int(time.time()) - BEHIND, real_time=True)
    reads = [permission for name, permission in parse_qsl(form().query) if name != "name"]
    account.restrict(KEY, reads)
    writes = {row.permission for row in WRITABLE.values()}
    account.restrict(WRITE_KEY, [*writes, "rak_customer_read"])
    account.restrict(PLATFORM_KEY, [*reads, "rak_connected_account_read"])
    account.restrict(GROUPS_KEY, [*reads, *(row.permission for row in RESOURCES.values())])
    for customers in (2, 3):
        account.connect(customers=customers, products=1)
    account.account_needs_permission = True
    return account


@pytest.fixture(scope="module")
def reader(box: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """Someone who has read the README and goes on with the pages in the same folder, with the same
    copy.
    """
    folder = tmp_path_factory.mktemp("reader")
    with ExitStack() as stack:
        env = {
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "STRIPE_API_BASE": stack.enter_context(box.serve()),
            "DLT_DATA_DIR": str(folder / "dlt"),
            "WELCOME_URL": stack.enter_context(receiving()).url,
        }
        someone = Reader(box, folder, env, stack)
        for block in blocks("README.md", README):
            someone.read(block)
        yield someone


@pytest.mark.checklist("C9")
def test_the_readme_leads_to_the_first_query_change_and_trigger(
    box: Sandbox, reader: Reader
) -> None:
    """Its blocks have run, and what they print is the account's."""
    printed = {block.place: reader.printed[block.place] for block in blocks("README.md", README)}
    account = len(loaded(box, "customers"))

    assert len(printed) == README.count("```") / 2
    status, query = (
        printed[block_with("README.md", words).place]
        for words in ("stripe-feed status", "stripe-feed query")
    )
    assert (found := re.search(r"^ customers +(\d+) ", status, re.M)) and 0 < int(
        found[1]
    ) <= account
    assert (
        query.split()[:4] == ["currency", "status", "invoices", "due"]
        and len(query.splitlines()) > 3
    )
    assert any(
        line.count("  ")
        for line in printed[block_with("README.md", "feed tail").place].splitlines()
    )
    assert "welcome: customers, added" in printed[block_with("README.md", "triggers check").place]


@pytest.mark.checklist("S39")
@pytest.mark.parametrize("page", PAGES)
def test_every_block_of_a_page_runs(reader: Reader, page: str) -> None:
    found = blocks(page, PAGES[page])
    assert len(found) == PAGES[page].count("```") / 2
    env = dict(reader.env)
    for block in found:
        if not (page == "docs/recipes.md" and RUN_ELSEWHERE in block.body):
            reader.read(block)
    reader.env = env
    for file in (reader.folder / ".dlt").glob("*.toml"):  # of this page alone
        file.unlink()


@pytest.mark.checklist("H22 N26 N27")
def test_the_recipes_that_write_did_what_they_say(box: Sandbox, reader: Reader) -> None:
    """Each page runs before this test, or the recipes do now."""
    page = "docs/recipes.md"
    places = [one for one in blocks(page, PAGES[page]) if one.language == "python"]
    if places[0].place not in reader.printed:
        test_every_block_of_a_page_runs(reader, page)
    customers = {one["email"]: one for one in box.objects("customers").values()}
    usage = {one["description"]: one for one in box.objects("invoiceitems").values()}
    (price,) = [one for one in box.objects("prices").values() if one["lookup_key"] == "lamp"]

    assert customers["dora@example.com"]["metadata"]["plan"] == "pro"
    assert (price["product"], price["unit_amount"], price["currency"]) == ("lamp", 7_900, "eur")
    item = usage["12000 calls in 2026-10"]
    assert (item["customer"], item["amount"]) == (customers["dora@example.com"]["id"], 2_400)
    assert customers["fay@example.com"]["metadata"] == {"plan": "trial"}
    assert "'create': 2" in reader.printed[places[2].place]
    assert reader.printed[places[3].place] == "success Customer created successfully\n"


def block_with(page: str, words: str) -> Block:
    """The first block of a page that has these words."""
    return next(block for block in blocks(page, ALL[page]) if words in block.body)


# -- what they say
# ----------------------------------------------------------------------------------------------------------


def form() -> Any:
    """The link to the prefilled form for a key."""
    return urlsplit(
        re.findall(r"<(https://dashboard\.stripe\.com/apikeys/create\?\S+)>", README)[0]
    )


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 130


def test_the_decisions_are_numbered_once() -> None:
    text = (ROOT / "DECISIONS.md").read_text(encoding="utf-8")
    numbers = [int(number) for number in re.findall(r"(?m)^## (\d+)\. ", text)]

    assert numbers == list(range(1, len(numbers) + 1))


def test_a_decision_has_one_line_each_of_context_decision_and_rejected() -> None:
    text = (ROOT / "DECISIONS.md").read_text(encoding="utf-8")
    entry = re.compile(
        r".+ \(\d{4}-\d\d-\d\d\)\n\n- Context: .+\n- Decision: .+\n- Rejected: .+\n\n?"
    )

    entries = re.split(r"(?m)^## \d+\. ", text)[1:]
    assert [one for one in entries if not entry.fullmatch(one)] == []


def test_every_page_is_tested() -> None:
    assert {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")} - {
        "docs/index.md"
    } == PAGES.keys()


def test_the_permissions_are_those_of_the_resources() -> None:
    expected = [(row.table, row.permission, row.label) for row in CORE.values()]
    changes, _, permission, label = EVENTS

    assert table("docs/operations.md", "resource") == [
        [f"`{name}`", f"`{needed}`", at]
        for name, needed, at in (*expected, (changes, permission, label))
    ]


def test_the_destinations_are_those_of_the_tests() -> None:
    """What ran, what was only parsed, and what is refused: never more than the tests show."""
    assert table("docs/destinations.md", "destination") == documented()


def test_the_engines_of_the_models_are_those_of_the_tests() -> None:
    assert table("docs/models.md", "engine") == documented_engines()
    assert set(PARSED.values()) <= set(DIALECTS)
    for place in RAN.values():
        file, _, name = place.partition("::")
        assert f"def {name}(" in Path(__file__).with_name(file).read_text(encoding="utf-8")


@pytest.mark.checklist("H3")
def test_the_actions_are_those_of_the_rows() -> None:
    usual = ["search", "get", "list", "insert", "create", "update", "upsert"]
    rows = table("docs/actions.md", "object")

    assert {names(first)[0]: (names(needed)[0], names(verbs)) for first, needed, verbs in rows} == {
        row.table: (row.permission, [verb for verb in verbs_of(row) if verb not in usual])
        for row in WRITABLE.values()
    }


def test_what_cannot_be_undone_is_told() -> None:
    text = ALL["docs/actions.md"]
    section = text[text.index("## What cannot be undone") :].split("\n## ")[0]
    prose = section.partition("```")[0]

    assert {verb for _, verb in DESTRUCTIVE} <= {*names(prose)}
    assert {name for _, name in SIDE_EFFECTS} <= {*names(prose)}


def test_the_form_asks_for_each_permission_once() -> None:
    needed = dict.fromkeys((*(row.permission for row in CORE.values()), EVENTS[2]))

    expected = [
        ("name", "stripe-feed"),
        *((f"permissions[{n}]", permission) for n, permission in enumerate(needed)),
    ]

    assert parse_qsl(form().query) == expected


def test_the_tables_are_those_of_the_resources() -> None:
    assert [names(first)[0] for first, _ in table("docs/tables.md", "table")] == [
        *CORE_TABLES,
        "changes",
    ]


def test_the_groups_are_those_of_the_resources() -> None:
    """Resources, permissions and the form for a key of each group."""
    expected = runpy.run_path(str(ROOT / "docs" / "generate.py"))["groups"]()

    assert table("docs/resources.md", "group | resources") == [
        [f"`{group}`", resources] for group, (resources, _, _) in expected.items()
    ]
    assert table("docs/resources.md", "group | permissions") == [
        [f"`{group}`", permissions, form] for group, (_, permissions, form) in expected.items()
    ]


def test_the_marts_are_those_of_the_project() -> None:
    project = load_project()
    marts = {name for name, model in project.models.items() if model.folder == "marts"}
    grains = {name: project.properties[name]["config"]["meta"]["grain"] for name in marts}

    assert {row[0].strip("`"): row[1] for row in table("docs/models.md", "mart")} == grains
    told = {row[0].strip("`"): row[1].strip("`") for row in table("docs/models.md", "variable")}
    followed = {"source_dataset_name", "source_database_name", "price_tiers", "loaded_tables"}
    assert told == {
        name: str(value) for name, value in project.variables.items() if name not in followed
    }


def test_the_comparison_of_tables_is_true() -> None:
    """What is said to be here is a table, and what is said to be missing is read from nowhere."""
    rows = runpy.run_path(str(ROOT / "docs" / "generate.py"))["lists_of_others"]()
    read = {row.path for row in TABLES.values()}

    assert len(rows) > 50
    assert [row for row in rows if row["table"] and row["table"] not in (*TABLES, "changes")] == []
    assert [row for row in rows if not row["table"] and f"/v1/{row['list']}" in read] == []


def test_the_keys_of_triggers_are_those_of_the_code() -> None:
    rows = table("docs/triggers.md", "key")
    keys = {key for first, _ in rows for key in names(first)}
    presets = next(names(value) for first, value in rows if first == "`preset`")
    text = ALL["docs/triggers.md"]
    deliver = {key for line in text[text.index("## Deliver") :].splitlines() if line.startswith("| `")
               for key in names(line.split("|")[1])}  # fmt: skip
    formats = next(line for line in text.splitlines() if line.startswith("| `format`"))

    assert keys == {*config.TRIGGER_KEYS}
    assert presets == [*PRESETS, *MODEL_PRESETS]
    assert deliver == {*DELIVER_KEYS}
    assert {*FORMATS} <= {*names(formats)}


def test_the_routes_are_those_of_the_server() -> None:
    feed: Any = None
    app: Any = create_app(ServerConfig(feed, "a-token-of-sixteen"))
    routes = {f"{method} {route.path}" for route in app.routes for method in route.methods}
    of_the_page = {"/retry", *(path for path, _, _ in page_files())}

    documented = {route for first, _ in table("docs/serve.md", "route") for route in names(first)}
    assert documented == {
        route.replace(":path", "")
        for route in routes
        if not route.startswith("HEAD") and route.split()[1] not in of_the_page
    }


def test_the_errors_exist() -> None:
    """What the pages call by the name of a class is one of ours; `Date` is a header."""
    known = {*vars(errors), *stripe_feed.__all__, "True", "Date"}

    for page, text in ALL.items():
        assert set(re.findall(r"`([A-Z][a-z]+(?:[A-Z][a-z]+)*)`", text)) <= known, page


def test_the_exit_codes_are_those_of_the_errors() -> None:
    root = errors.StripeFeedError
    codes = {
        fault.exit_code
        for fault in vars(errors).values()
        if isinstance(fault, type) and issubclass(fault, root)
    }

    assert [int(code) for code, _, _ in table("docs/operations.md", "exit code")] == [
        0,
        *sorted(codes),
        130,
    ]


def test_every_option_exists() -> None:
    """Those of `make` and `pip` aside, all that the pages mention are the commands'."""
    known = {
        option
        for _, command in commands()
        for one in command.params
        for option in (*one.opts, *one.secondary_opts)
    } | {"--help"}
    known |= {option for one in make_parser()._actions for option in one.option_strings}

    for page, text in ALL.items():
        assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text)) <= known, page


def test_every_command_exists() -> None:
    """Those in backticks; the blocks run."""
    known = {name for name, _ in commands()}

    for page, text in ALL.items():
        for verb in re.findall(r"`stripe-feed ([a-z]+)", text):
            assert f"stripe-feed {verb}" in known, f"{page}: stripe-feed {verb}"
        for group, verb in re.findall(r"`(?:stripe-feed )?(feed|triggers|webhook) ([a-z]+)", text):
            assert f"stripe-feed {group} {verb}" in known, f"{page}: {group} {verb}"


def test_the_numbers_are_those_of_the_code() -> None:
    budget = f"{rate_limits.LIVE_RPS:.0f} requests per second in live mode, {rate_limits.TEST_RPS:.0f} in test mode, "
    everything = "\n".join(ALL.values())

    assert f"{budget}{rate_limits.ENDPOINT_RPS:.0f} per endpoint" in everything
    assert set(re.findall(r"(\d+) seconds", everything)) - {"15"} == {
        str(LOOK_BACK),
        str(SETTLE),
        f"{locks.DEFAULT_WAIT:.0f}",
        f"{QUERY_SECONDS:g}",
    }
    assert set(re.findall(r"(\d+) days", everything)) == {
        str(RETENTION // SECONDS_PER_DAY),
        str(TOO_OLD // SECONDS_PER_DAY),
    }


def test_the_settings_are_those_of_sync() -> None:
    given: dict[str, Any] = tomlkit.parse(
        block_with("docs/python.md", "# .dlt/config.toml").body
    ).unwrap()

    flat = {
        name.upper(): str(value).lower()
        for name, value in given.items()
        if not isinstance(value, dict)
    }
    sections = {section: all for section, all in given.items() if isinstance(all, dict)}
    flat |= {
        f"{section}__{name}".upper(): str(value).lower()
        for section, all in sections.items()
        for name, value in all.items()
    }

    assert flat == DLT_SETTINGS


def test_links_lead_somewhere() -> None:
    """Between the pages, to their headings, and to files; the references are checked where they are
    built.
    """
    for page, text in ALL.items():
        for link in re.findall(r"\]\(<?([^)>]+)>?\)", text):
            file, _, anchor = link.partition("#")
            if link.startswith("https://") or file.startswith("reference/"):
                continue
            path = (ROOT / page).parent / file if file else ROOT / page
            assert path.exists(), f"{page}: {link}"
            heads = (
                re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.M)
                if path.suffix == ".md"
                else []
            )
            anchors = {
                re.sub(r"[^\w -]", "", head).strip().lower().replace(" ", "-") for head in heads
            }
            assert not anchor or anchor in anchors, f"{page}: {link}"


# -- the references and the site --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def laid_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the site is built from."""
    folder = tmp_path_factory.mktemp("pages")
    runpy.run_path(str(ROOT / "docs" / "generate.py"))["generate"](folder)
    return folder


def test_the_references_have_every_command_name_and_column(laid_out: Path) -> None:
    of_commands, python, tables = (
        (laid_out / "reference" / f"{name}.md").read_text()
        for name in ("commands", "python", "tables")
    )

    for name, command in commands():
        part = of_commands[of_commands.index(f"# {name}\n") :] if " " in name else of_commands
        assert command.help in part, name
        options = [
            option
            for parameter in command.params
            for option in parameter.opts
            if " " in name and option.startswith("--")
        ]
        assert [
            option for option in options if f"`{option}" not in part and f", {option}" not in part
        ] == []
    assert {*re.findall(r"^::: stripe_feed\.(\w+)$", python, re.M)} == {
        "errors",
        *({*stripe_feed.__all__} - {"__version__"} - vars(errors).keys()),
    }
    for table, row in TABLES.items():
        part = tables[tables.index(f"## {table}\n") :].split("\n## ")[0]
        expandable = [extra.column for extra in row.expandable] if isinstance(row, Resource) else []
        assert [
            column.name
            for column in (*row.columns, *expandable)
            if f"| `{column.name}` |" not in part
        ] == []
    assert [
        column.name
        for column in CHANGE_COLUMNS
        if f"| `{column.name}` |" not in tables.partition("## changes\n")[2]
    ] == []


def test_the_first_page_is_the_readme_with_links_of_the_site(laid_out: Path) -> None:
    index = (laid_out / "index.md").read_text()

    assert [line for line in index.splitlines() if line.startswith("#")] == re.findall(
        r"^#.*$", README, re.M
    )
    links = [
        link for link in re.findall(r"\]\(([^)<]+)\)", index) if not link.startswith("https://")
    ]
    assert (
        links and [link for link in links if not (laid_out / link.partition("#")[0]).exists()] == []
    )


def test_each_row_that_other_tools_state_has_a_test(laid_out: Path) -> None:
    """And each that does not hold says why; no test stands for a row that is not there."""
    pages = runpy.run_path(str(ROOT / "docs" / "generate.py"))
    lines = (ROOT / "docs" / "write-back.tsv").read_text(encoding="utf-8").splitlines()
    holds = {line.split("\t")[0]: line.split("\t")[3] for line in lines[1:]}
    numbers = {"N": 36, "C": 22, "SP": 22, "H": 23}
    expected = {f"{letters}{n}" for letters, last in numbers.items() for n in range(1, last + 1)}
    split = {f"{row}{letter}" for row in ("H6", "H11") for letter in "abcdef"}

    assert {*holds} == expected - {"H6", "H11"} | split | {f"S{n}" for n in range(29, 40)}
    assert {*pages["evidence"]()} == {*holds}
    assert [
        row for row, word in holds.items() if not re.match(r"yes$|(Partly|No): .+\.$", word)
    ] == []
    page = (laid_out / "reference" / "write-back.md").read_text(encoding="utf-8")
    rows = [line.split(" | ") for line in page.splitlines() if re.match(r"\| \w+\d", line)]
    assert [row[0].strip("| ") for row in rows] == [line.split("\t")[0] for line in lines[1:]]
    named = [row[0] for row in rows if re.match(r"`test_\w+: (?:test|c)_\w+`", row[4])]
    assert named == [row[0] for row in rows]


@pytest.mark.docs
def test_the_site_has_every_page_and_loads_nothing_from_elsewhere() -> None:
    pages = {
        path.relative_to(ROOT / "site").as_posix(): path.read_text()
        for path in (ROOT / "site").rglob("*.html")
    }
    references = {
        f"reference/{name}.html"
        for name in (
            "commands",
            "tables",
            "python",
            "scripts",
            "decisions",
            "changelog",
            "write-back",
        )
    }

    assert {
        "index.html",
        *references,
        *(f"{Path(page).stem}.html" for page in PAGES),
    } <= pages.keys()
    for name in {*stripe_feed.__all__} - {"__version__"}:
        place = f"errors.{name}" if name in vars(errors) else name
        assert f'id="stripe_feed.{place}"' in pages["reference/python.html"], name
    for page, text in pages.items():
        loaded_from = re.findall(r"<(?:script|img|iframe)[^>]+src=[\"']?([^\"' >]+)", text)
        loaded_from += re.findall(r"<link[^>]+href=[\"']?([^\"' >]+)", text)
        assert [place for place in loaded_from if re.match(r"(https?:)?//", place)] == [], page


@pytest.mark.parametrize("page", ALL)
def test_one_sentence_per_line(page: str) -> None:
    prose = re.sub(r"^```.*?^```$", "", ALL[page], flags=re.M | re.S)

    assert [
        line
        for line in prose.splitlines()
        if not line.startswith("|") and re.search(r"[.!?] [A-Z`]", line)
    ] == []


def test_the_tools_for_agents_are_those_of_the_page() -> None:
    told = [name for row in table("docs/agents.md", "tool") for name in names(row[0])]
    place = AgentContext(open_actions)
    reading = [*reading_tools(place), *look_up_tools(place)]
    *listed, update, finalize = told
    assert listed == [tool.name for tool in reading]
    assert {update, finalize} < {tool.name for tool in writing_tools(place)}
    text = " ".join(PAGES["docs/agents.md"].split())
    assert f"at most {MAX_ROWS:,} rows and {QUERY_SECONDS:g} seconds" in text
