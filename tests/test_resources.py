"""The resource table against the pinned SDK's own annotations, and against itself."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from dlt.common.normalizers.naming.snake_case import NamingConvention

from stripe_feed.extract.tables.changes import ChangeRow
from stripe_feed.feed.change import LOG_COLUMNS, Change
from stripe_feed.resources import CHANGE_COLUMNS, RESOURCES, TABLES
from stripe_feed.resources.column_files import (
    DETAILS,
    FOLDER,
    HEADER,
    parse_columns,
    with_columns,
)
from stripe_feed.resources.groups import DEFAULT_GROUP, GROUPS
from stripe_feed.resources.model import (
    Child,
    Column,
    ColumnKind,
    Expandable,
    Resource,
    field_names,
    index_by_table,
)
from tests import sdk_columns
from tests.sdk_columns import add_new, differences, sdk_classes, sdk_fields, stored_lines

each_table = pytest.mark.parametrize("row", TABLES.values(), ids=list(TABLES))
each_resource = pytest.mark.parametrize("resource", RESOURCES.values(), ids=list(RESOURCES))

CHILDREN = [(resource, child) for resource in RESOURCES.values() for child in resource.children]
each_child = pytest.mark.parametrize(
    ("resource", "child"), CHILDREN, ids=[child.table for _, child in CHILDREN]
)

EXPANDABLE = [(resource, extra) for resource in RESOURCES.values() for extra in resource.expandable]
each_expandable = pytest.mark.parametrize(
    ("resource", "extra"),
    EXPANDABLE,
    ids=[f"{resource.table}.{extra.name}" for resource, extra in EXPANDABLE],
)

SNAKE_CASE = NamingConvention()
OURS = {"account_id", "deleted_at", "extra", "_version", "_hash", "_dlt_load_id"}
FILES = sorted(path.stem for path in FOLDER.glob("*.tsv"))


def sdk_class(row: Resource | Child) -> str:
    """The name of the SDK's class."""
    return sdk_classes()[row.object][0]


def annotation(row: Resource | Child, field: str) -> str:
    """The SDK's annotation of a field, without the marks of what may be missing."""
    text = sdk_fields(row.object)[field].annotation
    return re.sub(r"^Optional\[(.*)\]$", r"\1", text)


def objects_of(row: Resource | Child) -> tuple[str, ...]:
    """Stripe's names for the objects of a table."""
    return row.objects if isinstance(row, Resource) else (row.object,)


def declared(row: Resource | Child) -> list[Column]:
    """List the columns, those that only come when expanded included."""
    opt_in = row.expandable if isinstance(row, Resource) else ()
    extra = [extra.column for extra in opt_in if not extra.always]
    return [*row.columns, *extra]


def kinds(row: Resource | Child) -> dict[str, ColumnKind]:
    """Map each column to its kind."""
    return {column.name: column.kind for column in declared(row)}


def everywhere() -> Iterator[tuple[str, Column]]:
    """Yield every column with its place, `table.column`."""
    for row in TABLES.values():
        for column in declared(row):
            yield f"{row.table}.{column.name}", column


def plain(name: str, *children: Child) -> Resource:
    """Make the smallest resource."""
    return Resource(name, name, (Column("id", "text", "Id."),), children=children)


SECRETS = {
    "issuing_cards": ("number", "cvc"),
    "verification_sessions": ("url",),
    "webhook_endpoints": ("secret",),
}
"""Fields that grant access, whatever they are called."""
LISTS_OF_OTHERS = {
    "accounts": ("external_accounts",),
    "files": ("links",),
    "treasury_transactions": ("entries",),
}
"""Lists of objects that belong to tables of their own."""
X = Column("x", "text", "X.")


# against the SDK


@pytest.mark.parametrize("object_name", FILES)
def test_fields_and_kinds_are_the_sdks(object_name: str) -> None:
    """Every field that the pinned SDK knows is in the file of its object, with the kind that the
    annotation asks for, and no other.
    """
    assert differences(object_name) == []


def test_every_object_has_its_file_and_every_file_its_object() -> None:
    """No file is left over."""
    assert {name for row in TABLES.values() for name in objects_of(row)} == set(FILES)


@each_table
def test_every_field_has_one_place(row: Resource | Child) -> None:
    """A row takes each field of its object's file as a column, or says why not; more it does not
    have, except the parent's id.
    """
    added = {row.parent} if isinstance(row, Child) else {row.parent.column} if row.parent else set()
    added |= {DETAILS.name} if isinstance(row, Resource) and row.folded else set()

    fields = {name for object_name in objects_of(row) for name in stored_lines(object_name)}
    assert set(field_names(row)) - added == fields - added


def test_the_tool_adds_what_is_new_and_keeps_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`make columns` neither reorders nor rewords, reports what is gone, and adds what is new."""
    monkeypatch.setattr(sdk_columns, "FOLDER", tmp_path)
    file = tmp_path / "coupon.tsv"
    kept = "name\tbigint\tOurs.\nid\ttext\tId.\nold\ttext\tOld.\n"
    file.write_text(HEADER + kept)

    assert {"coupon.name is bigint, the SDK says text", "coupon.old is gone"} < set(
        differences("coupon")
    )
    add_new("coupon")
    text = file.read_text()
    assert text.startswith(HEADER + kept) and "\nredeem_by\ttimestamp\tDate after which " in text
    assert not any(line.endswith("is new") for line in differences("coupon"))


def test_no_new_timestamp_is_taken_for_a_number() -> None:
    """No number has a name that sounds like a time."""
    numbers = [
        place
        for place, column in everywhere()
        if column.kind == "bigint" and column.name not in sdk_columns.NUMBERS
    ]

    assert [
        place for place in numbers if re.search(r"(_at|_date|_start|_end|_until|_anchor)$", place)
    ] == []


@pytest.mark.parametrize("table", ["reviews", "issuing_cards", "terminal_locations"])
def test_a_resource_is_a_row_a_file_and_a_kind_of_the_sandbox(table: str) -> None:
    """No other file of the package names it."""
    package = FOLDER.parents[1]
    word = re.compile(rf"\b{table}\b")
    places = sorted(
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if word.search(path.read_text(encoding="utf-8"))
    )

    assert [place.rpartition("/")[0] for place in places] == ["resources", "sandbox/state/kinds"]
    assert (FOLDER / f"{RESOURCES[table].object}.tsv").exists()


# columns


def test_descriptions_are_one_line() -> None:
    """Every column is described in one line that begins with a capital and ends in a full stop."""
    sentence = re.compile(r"[A-Z][^\n]{0,118}[^.\s]\.")

    assert [
        place for place, column in everywhere() if not sentence.fullmatch(column.description)
    ] == []


def test_timestamps_name_their_zone() -> None:
    """The description of every timestamp says that it is UTC."""
    timestamps = [(place, column) for place, column in everywhere() if column.kind == "timestamp"]

    assert [place for place, column in timestamps if "UTC" not in column.description] == []


def test_money_names_its_unit() -> None:
    """The description of every amount says that it is in minor units."""
    money = re.compile(
        r"\b(amount|amount_\w+|\w+_amount(_decimal)?|amount_decimal|(sub)?total\w*|\w*balance)$"
    )
    amounts = [
        c for _, c in everywhere() if c.kind in ("bigint", "decimal") and money.search(c.name)
    ]

    assert [c.name for c in amounts if "minor units" not in c.description] == []
    assert len(amounts) > 20


@each_table
def test_names_are_unique(row: Resource | Child) -> None:
    """No field is declared twice."""
    assert len(field_names(row)) == len(set(field_names(row)))


@each_table
def test_names_stay_as_they_are(row: Resource | Child) -> None:
    """Every column's name is one that dlt leaves as it is, and none of ours."""
    names = [column.name for column in declared(row)]

    assert [name for name in names if SNAKE_CASE.normalize_identifier(name) != name] == []
    assert OURS.isdisjoint(names)


@each_table
def test_every_row_has_an_id(row: Resource | Child) -> None:
    """The first column is the id, as text: the merge depends on it."""
    assert (row.columns[0].name, row.columns[0].kind) == ("id", "text")


@each_table
def test_object_names_itself(row: Resource | Child) -> None:
    """The column `object` is described by the object's own name."""
    *others, last = objects_of(row)
    said = f"One of {', '.join(f'`{name}`' for name in others)} and `{last}`."
    assert [c.description for c in row.columns if c.name == "object"] == [
        said if others else f"Always `{row.object}`."
    ]


def test_columns_read_a_file() -> None:
    """A line is a name, a kind and a description; folded fields share a column."""
    lines = "id\ttext\tId of it.\ncard\tfolded\tCard.\npaid\tbool\tPaid?  Yes.\n"
    assert parse_columns(HEADER + lines) == (
        (Column("id", "text", "Id of it."), Column("paid", "bool", "Paid?  Yes.")),
        ("card",),
    )


def test_columns_refuse_an_unknown_kind() -> None:
    """A kind that does not exist is refused by name."""
    with pytest.raises(ValueError, match="'id': unknown kind 'string'"):
        parse_columns(HEADER + "id\tstring\tId.\n")


def test_columns_refuse_a_line_without_description() -> None:
    """A column without description is refused."""
    with pytest.raises(ValueError):
        parse_columns(HEADER + "id\ttext\n")


def test_a_row_refuses_fields_that_its_object_does_not_have() -> None:
    """A misspelt field is found when the table is made."""
    with pytest.raises(ValueError, match="plans: not among its fields: secrets, tims"):
        list(with_columns([Resource("plans", "plan", excluded=("secrets",), volatile=("tims",))]))


def test_a_parent_that_a_child_does_not_name_is_a_column() -> None:
    """Some of Stripe's objects do not say to which object they belong."""
    child = Child("lines", "a_lines", "price", "bill_of_sale", "/v1/a/{id}/lines")
    (row,) = with_columns(
        [Resource("subscriptions", "subscription", children=(replace(child, field="items"),))]
    )

    assert row.children[0].columns[1] == Column(
        "bill_of_sale", "text", "Bill of sale that it belongs to (id)."
    )


# tables


def test_order_of_display() -> None:
    """Tables come in the order of display, the default group first, children after their parent."""
    assert list(RESOURCES)[:6] == list(GROUPS[DEFAULT_GROUP])
    assert list(GROUPS[DEFAULT_GROUP]) == [
        "customers",
        "products",
        "prices",
        "plans",
        "subscriptions",
        "invoices",
    ]
    assert list(TABLES)[:8] == [
        *list(RESOURCES)[:5],
        "subscription_items",
        "invoices",
        "invoice_line_items",
    ]


def test_tables_are_keyed_by_their_name() -> None:
    """Each key is its row's own table."""
    assert [row.table for row in TABLES.values()] == list(TABLES)


def test_an_event_is_about_one_resource() -> None:
    """No two resources hold the same kind of object and have a type of event in common."""
    found = [
        (name, type)
        for row in RESOURCES.values()
        for name in row.objects
        for type in row.events or [row.table]
    ]

    assert len(found) == len(set(found))


@pytest.mark.parametrize(
    "rows",
    [
        (plain("a"), plain("a")),
        (plain("a"), plain("b", Child("a", "a", "x", "b", "/v1/x", ()))),
    ],
)
def test_a_table_declared_twice_is_refused(rows: tuple[Resource, ...]) -> None:
    """Two rows for one table fail at import, children included."""
    with pytest.raises(ValueError, match="tables: declared twice: a"):
        index_by_table(*rows)


@pytest.mark.parametrize(
    "row",
    [
        Resource("a", "a", (X, X)),
        Resource(
            "a",
            "a",
            (X,),
            expandable=(Expandable("x"),),
        ),
        Resource(
            "a",
            "a",
            (X,),
            children=(Child("x", "b", "b", "a", "/v1/b", ()),),
        ),
        Resource("a", "a", (X,), excluded=("x",)),
        plain("a", Child("x", "b", "b", "a", "/v1/b", (X, X))),
    ],
)
def test_a_field_declared_twice_is_refused(row: Resource) -> None:
    """A field has one place: column, expandable, child or never."""
    with pytest.raises(ValueError, match=r"[ab]: declared twice: x"):
        index_by_table(row)


# resources


@each_resource
def test_path_is_the_tables(resource: Resource) -> None:
    """The list endpoint is below /v1, by default with the table's name; what others hold has none."""
    assert bool(resource.path) is not bool(resource.holders)
    assert resource.holders or re.fullmatch(r"/v1(/[a-z_]+|/\{id\}){1,3}", resource.path)
    assert Resource("coupons", "coupon").path == "/v1/coupons"


@each_resource
def test_created_is_the_cursor(resource: Resource) -> None:
    """The field by which a list is filtered is a time."""
    assert not resource.created_field or kinds(resource)[resource.created_field] == "timestamp"


@each_resource
def test_roles_are_among_the_events(resource: Resource) -> None:
    """What reports a birth or an end is one of the resource's events, and not both."""
    created_by, deleted_by = set(resource.created_by), set(resource.deleted_by)

    assert created_by | deleted_by <= set(resource.events)
    assert not created_by & deleted_by


@each_resource
def test_permission_is_a_read_permission(resource: Resource) -> None:
    """A key only needs to read, and the label names area and row of the Dashboard's list."""
    assert re.fullmatch(r"rak_[a-z]+(_[a-z]+)*_read", resource.permission)
    assert re.fullmatch(r"[A-Z][A-Za-z ]+ > [A-Z][A-Za-z -]+", resource.label)


def test_plans_share_the_prices_permission() -> None:
    """Plans and prices are one permission, which Stripe calls by the older name."""
    assert {RESOURCES[name].permission for name in ("plans", "prices")} == {"rak_plan_read"}


def test_walks() -> None:
    """The lists that hide objects by default are asked for all of them; active prices first."""
    filtered = {
        "subscriptions": ((("status", "all"),),),
        "prices": ((("active", "true"),), (("active", "false"),)),
        "features": ((("archived", "false"),), (("archived", "true"),)),
        "tax_registrations": ((("status", "all"),),),
    }

    for name, resource in RESOURCES.items():
        assert resource.list_filters == filtered.get(name, ((),))


def test_lists_that_hide_test_clocks() -> None:
    """The lists that leave out objects on a test clock are those that take its id."""
    hiding = {name for name, resource in RESOURCES.items() if resource.hides_test_clocks}

    assert hiding <= {"customers", "subscriptions", "quotes"}
    assert {"customers", "subscriptions"} <= hiding


@each_resource
def test_volatile_fields_are_columns(resource: Resource) -> None:
    """What `_hash` leaves out is a column, and never one that the rows are read by."""
    names = {column.name for column in resource.columns}

    assert set(resource.volatile) <= names - {"id", "object", "created", "livemode"}


def test_signed_links_are_volatile() -> None:
    """The links that are signed anew on each request do not make a new version of an invoice."""
    assert {"hosted_invoice_url", "invoice_pdf"} <= set(RESOURCES["invoices"].volatile)


def test_secrets_are_never_loaded() -> None:
    """No column has a secret's name."""
    secret = re.compile(r"secret|password|cvc$|issuing_cards\.number")

    assert [place for place, _ in everywhere() if secret.search(place)] == []
    assert RESOURCES["invoices"].excluded == ("confirmation_secret",)


@each_resource
def test_never_is_a_secret_or_a_resource_of_its_own(resource: Resource) -> None:
    """What is never loaded is a secret, or a list that another resource loads whole."""
    others = SECRETS.get(resource.table, ()) + LISTS_OF_OTHERS.get(resource.table, ())

    assert [
        name
        for name in resource.excluded
        if not name.endswith("_secret") and name not in (*RESOURCES, *others)
    ] == []


# expandable fields and children


@each_expandable
def test_expandable_fields_are_json(resource: Resource, extra: Expandable) -> None:
    """What only comes when expanded is an object or a list."""
    assert extra.column.kind == "json"


@each_expandable
def test_a_list_names_its_rest(resource: Resource, extra: Expandable) -> None:
    """An expandable list has the path of its rest, and nothing else has one."""
    is_list = "ListObject" in annotation(resource, extra.name)

    assert bool(extra.path) == is_list
    assert not is_list or "{id}" in " ".join([extra.path, *(value for _, value in extra.params)])


@each_expandable
def test_expandable_paths(resource: Resource, extra: Expandable) -> None:
    """The rest of an expandable list is below /v1."""
    assert re.fullmatch(r"|/v1/[a-z_]+(/\{id\}/[a-z_]+)?", extra.path)


@each_child
def test_children_are_embedded_lists(resource: Resource, child: Child) -> None:
    """A child's field is a list that the SDK's parent class embeds."""
    assert f"ListObject['{sdk_class(child)}']" == annotation(resource, child.field)


@each_child
def test_children_know_their_parent(resource: Resource, child: Child) -> None:
    """The parent's id is a column of the child, named as the parent's object, or its end."""
    assert kinds(child)[child.parent] in ("text", "ref")
    assert resource.object.replace(".", "_").endswith(child.parent)


@each_child
def test_children_path(resource: Resource, child: Child) -> None:
    """The whole list is below its parent, or takes the parent's id as a parameter."""
    below = child.path == f"{resource.path}/{{id}}/{child.field}" and child.params == ()
    folder = resource.path.rpartition("/")[0]
    beside = child.params == ((child.parent, "{id}"),) and child.table.endswith(
        child.path.removeprefix(f"{folder}/")
    )

    assert below or beside


@each_child
def test_embeds_are_whole_objects(resource: Resource, child: Child) -> None:
    """A full object inside a child is a JSON column, and of the class that the SDK names."""
    for field, name in child.embeds:
        assert kinds(child)[field] == "json"
        assert annotation(child, field) == f"'{sdk_class(RESOURCES[name])}'"


def test_no_embedded_object_is_missed() -> None:
    """No child embeds one of our resources without saying so."""
    names = {sdk_class(resource): resource.table for resource in RESOURCES.values()}
    for _, child in CHILDREN:
        annotated = {
            field: annotation(child, field).strip("'") for field in sdk_fields(child.object)
        }

        assert set(child.embeds) == {
            (field, names[name]) for field, name in annotated.items() if name in names
        }


def test_a_change_has_the_columns_of_its_table_everywhere() -> None:
    """What is stored, logged and given to consumers differs by what each adds."""
    columns = {column.name for column in CHANGE_COLUMNS}
    given = {field.name for field in dataclasses.fields(Change)}

    assert given == columns | {"offset", "object_version", "load_id"}
    assert {*LOG_COLUMNS} == columns - {"after", "previous"} | {"load_id", "body"}
    assert {*ChangeRow.__struct_fields__} == columns - {
        "observed_at",
        "account_id",
        "livemode",
        "seq",
    }
