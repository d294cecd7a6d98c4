"""The resource table against the pinned SDK's own annotations, and against itself."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from typing import Any

import pytest
import stripe

from stripe_feed.resources import RESOURCES, TABLES
from stripe_feed.resources.model import (
    Child,
    Column,
    ColumnKind,
    Expandable,
    Resource,
    field_names,
    index_by_table,
    parse_columns,
)

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
    ids=[f"{resource.table}.{extra.column.name}" for resource, extra in EXPANDABLE],
)

DELETED = "deleted"  # only in the stub of a deleted object; `deleted_at` is ours

OURS = {"account_id", "deleted_at", "extra", "_version", "_hash", "_dlt_load_id"}

TIMESTAMPS = {
    "automatically_finalizes_at",
    "billed_until",
    "billing_cycle_anchor",
    "cancel_at",
    "canceled_at",
    "created",
    "current_period_end",
    "current_period_start",
    "due_date",
    "effective_at",
    "ended_at",
    "next_payment_attempt",
    "next_pending_invoice_item_invoice",
    "period_end",
    "period_start",
    "start_date",
    "trial_end",
    "trial_start",
    "updated",
    "webhooks_delivered_at",
}
"""Unix seconds: the SDK annotates them as plain `int`."""

SCALARS: dict[str, ColumnKind] = {
    "int": "bigint",
    "str": "text",
    "bool": "bool",
    "float": "double",
    "Decimal": "decimal",
}


def sdk_class(row: Resource | Child) -> Any:
    """Find the SDK's class by the table's name: `invoice_line_items` is `stripe.InvoiceLineItem`."""
    return getattr(
        stripe, "".join(word.capitalize() for word in row.table.removesuffix("s").split("_"))
    )


def sdk_fields(row: Resource | Child) -> dict[str, ast.expr]:
    """Read the fields that the SDK's class annotates, as source, so that nothing has to be
    resolved.
    """
    (definition,) = ast.parse(inspect.getsource(sdk_class(row))).body
    assert isinstance(definition, ast.ClassDef)
    annotated = {
        node.target.id: node.annotation
        for node in definition.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    return {name: annotation for name, annotation in annotated.items() if name != "OBJECT_NAME"}


def sdk_kind(name: str, annotation: ast.expr) -> ColumnKind:
    """Tell the kind that an annotation asks for; whatever is no scalar, no enum and no expandable
    id is JSON.
    """
    match annotation:
        case ast.Subscript(value=ast.Name(id="Optional"), slice=inner):
            return sdk_kind(name, inner)
        case ast.Name(id="int") if name in TIMESTAMPS:
            return "timestamp"
        case ast.Name(id=scalar) if scalar in SCALARS:
            return SCALARS[scalar]
        case ast.Subscript(value=ast.Name(id="ExpandableField")):
            return "ref"
        case ast.Subscript(value=ast.Name(id="Literal")):
            return "text"
        case ast.Subscript(
            value=ast.Name(id="Union"), slice=ast.Tuple(elts=[*_, ast.Name(id="str")])
        ):
            return "text"
    return "json"


def declared(row: Resource | Child) -> list[Column]:
    """List the columns, those that only come when expanded included."""
    extra = [extra.column for extra in row.expandable] if isinstance(row, Resource) else []
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
    return Resource(
        name, name, (Column("id", "text", "Id."),), "rak_x_read", "X", children=children
    )


# against the SDK


@each_table
def test_object_is_the_sdks(row: Resource | Child) -> None:
    """Stripe calls the object as the table says."""
    assert row.object == sdk_class(row).OBJECT_NAME


@each_table
def test_fields_are_the_sdks(row: Resource | Child) -> None:
    """Every field that the pinned SDK knows has its place in the table, and no other."""
    theirs = set(sdk_fields(row)) - {DELETED}
    new, gone = sorted(theirs - set(field_names(row))), sorted(set(field_names(row)) - theirs)

    assert not new and not gone, (
        f"{row.table}, stripe {stripe.VERSION}: new in the SDK: {new}; gone from it: {gone}"
    )


@each_table
def test_kinds_are_the_sdks(row: Resource | Child) -> None:
    """Every column has the kind that the SDK's annotation asks for."""
    theirs = {name: sdk_kind(name, annotation) for name, annotation in sdk_fields(row).items()}
    wrong = [
        f"{name} is {kind}, the SDK says {theirs[name]}"
        for name, kind in kinds(row).items()
        if theirs.get(name, kind) != kind
    ]

    assert wrong == []


def test_timestamps_are_listed() -> None:
    """The exceptions to the SDK's `int` are exactly the timestamps of the table."""
    timestamps = {column.name for _, column in everywhere() if column.kind == "timestamp"}

    assert timestamps == TIMESTAMPS


def test_no_new_timestamp_is_taken_for_a_number() -> None:
    """No number has a name that sounds like a time."""
    numbers = [place for place, column in everywhere() if column.kind == "bigint"]

    assert [
        place for place in numbers if re.search(r"(_at|_date|_start|_end|_until|_anchor)$", place)
    ] == []


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

    assert [name for name in names if not re.fullmatch(r"[a-z]+(_[a-z]+)*", name)] == []
    assert OURS.isdisjoint(names)


@each_table
def test_every_row_has_an_id(row: Resource | Child) -> None:
    """The first column is the id, as text: the merge depends on it."""
    assert (row.columns[0].name, row.columns[0].kind) == ("id", "text")


@each_table
def test_object_names_itself(row: Resource | Child) -> None:
    """The column `object` is described by the object's own name."""
    assert [c.description for c in row.columns if c.name == "object"] == [f"Always `{row.object}`."]


def test_columns_read_a_table_of_text() -> None:
    """A line is a name, a kind and a description with spaces."""
    assert parse_columns("\n  id   text  Id of it.\n  paid bool  Paid?  Yes.\n") == (
        Column("id", "text", "Id of it."),
        Column("paid", "bool", "Paid?  Yes."),
    )


def test_columns_refuse_an_unknown_kind() -> None:
    """A kind that does not exist is refused by name."""
    with pytest.raises(ValueError, match="'id': unknown kind 'string'"):
        parse_columns("id string Id.")


def test_columns_refuse_a_line_without_description() -> None:
    """A column without description is refused."""
    with pytest.raises(ValueError):
        parse_columns("id text")


# tables


def test_order_of_display() -> None:
    """Tables come in the order of display, children after their parent."""
    assert list(RESOURCES) == [
        "customers",
        "products",
        "prices",
        "plans",
        "subscriptions",
        "invoices",
    ]
    assert list(TABLES) == [
        *list(RESOURCES)[:5],
        "subscription_items",
        "invoices",
        "invoice_line_items",
    ]


def test_tables_are_keyed_by_their_name() -> None:
    """Each key is its row's own table."""
    assert [row.table for row in TABLES.values()] == list(TABLES)


def test_objects_are_unique() -> None:
    """No two tables hold the same kind of object."""
    objects = [row.object for row in TABLES.values()]

    assert len(objects) == len(set(objects))


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
        Resource("a", "a", parse_columns("x text X.\nx bool X."), "rak_x_read", "X"),
        Resource(
            "a",
            "a",
            parse_columns("x text X."),
            "rak_x_read",
            "X",
            expandable=(Expandable(parse_columns("x json X.")[0]),),
        ),
        Resource(
            "a",
            "a",
            parse_columns("x text X."),
            "rak_x_read",
            "X",
            children=(Child("x", "b", "b", "a", "/v1/b", ()),),
        ),
        Resource("a", "a", parse_columns("x text X."), "rak_x_read", "X", excluded=("x",)),
        plain("a", Child("x", "b", "b", "a", "/v1/b", parse_columns("x text X.\nx text X."))),
    ],
)
def test_a_field_declared_twice_is_refused(row: Resource) -> None:
    """A field has one place: column, expandable, child or never."""
    with pytest.raises(ValueError, match=r"[ab]: declared twice: x"):
        index_by_table(row)


# resources


@each_resource
def test_path_is_the_tables(resource: Resource) -> None:
    """The list endpoint is the table's name below /v1."""
    assert resource.path == f"/v1/{resource.table}"


@each_resource
def test_created_is_the_cursor(resource: Resource) -> None:
    """Every resource has `created`, the cursor of its list."""
    assert kinds(resource)["created"] == "timestamp"


@each_resource
def test_permission_is_a_read_permission(resource: Resource) -> None:
    """A key only needs to read, and the label names area and row of the Dashboard's list."""
    assert re.fullmatch(r"rak_[a-z]+(_[a-z]+)*_read", resource.permission)
    assert re.fullmatch(r"(Core|Billing) > [A-Z][a-z]+", resource.label)


def test_plans_share_the_prices_permission() -> None:
    """Plans and prices are one permission, which Stripe calls by the older name."""
    assert {RESOURCES[name].permission for name in ("plans", "prices")} == {"rak_plan_read"}


def test_walks() -> None:
    """The lists that hide objects by default are asked for all of them; active prices first."""
    assert {
        name: resource.list_filters
        for name, resource in RESOURCES.items()
        if resource.list_filters != ((),)
    } == {
        "subscriptions": ((("status", "all"),),),
        "prices": ((("active", "true"),), (("active", "false"),)),
    }


def test_lists_that_hide_test_clocks() -> None:
    """The lists that leave out objects on a test clock are those of customers and subscriptions."""
    assert [name for name, resource in RESOURCES.items() if resource.hides_test_clocks] == [
        "customers",
        "subscriptions",
    ]


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
    assert [place for place, _ in everywhere() if re.search(r"secret|password|token", place)] == []
    assert RESOURCES["invoices"].excluded == ("confirmation_secret",)


@each_resource
def test_never_is_a_secret_or_a_resource_of_its_own(resource: Resource) -> None:
    """What is never loaded is a secret, or a list that another resource loads whole."""
    assert [
        name for name in resource.excluded if not name.endswith("_secret") and name not in RESOURCES
    ] == []


# expandable fields and children


@each_expandable
def test_expandable_fields_are_json(resource: Resource, extra: Expandable) -> None:
    """What only comes when expanded is an object or a list."""
    assert extra.column.kind == "json"


@each_expandable
def test_a_list_names_its_rest(resource: Resource, extra: Expandable) -> None:
    """An expandable list has the path of its rest, and nothing else has one."""
    is_list = "ListObject" in ast.unparse(sdk_fields(resource)[extra.column.name])

    assert bool(extra.path) == is_list
    assert not is_list or "{id}" in " ".join([extra.path, *(value for _, value in extra.params)])


@each_expandable
def test_expandable_paths(resource: Resource, extra: Expandable) -> None:
    """The rest of an expandable list is below /v1."""
    assert re.fullmatch(r"|/v1/[a-z_]+(/\{id\}/[a-z_]+)?", extra.path)


@each_child
def test_children_are_embedded_lists(resource: Resource, child: Child) -> None:
    """A child's field is a list that the SDK's parent class embeds."""
    assert f"ListObject['{sdk_class(child).__name__}']" == ast.unparse(
        sdk_fields(resource)[child.field]
    )


@each_child
def test_children_know_their_parent(resource: Resource, child: Child) -> None:
    """The parent's id is a column of the child, named as the parent's object."""
    assert kinds(child)[child.parent] == "text"
    assert child.parent == resource.object


@each_child
def test_children_path(resource: Resource, child: Child) -> None:
    """The whole list is below its parent, or takes the parent's id as a parameter."""
    below = child.path == f"{resource.path}/{{id}}/{child.field}" and child.params == ()
    beside = child.path == f"/v1/{child.table}" and child.params == ((child.parent, "{id}"),)

    assert below or beside


@each_child
def test_embeds_are_whole_objects(resource: Resource, child: Child) -> None:
    """A full object inside a child is a JSON column, and of the class that the SDK names."""
    for field, name in child.embeds:
        assert kinds(child)[field] == "json"
        assert ast.unparse(sdk_fields(child)[field]) == f"'{sdk_class(RESOURCES[name]).__name__}'"


def test_no_embedded_object_is_missed() -> None:
    """No child embeds one of our resources without saying so."""
    names = {sdk_class(resource).__name__: resource.table for resource in RESOURCES.values()}
    for _, child in CHILDREN:
        annotated = {
            field: ast.unparse(annotation).strip("'")
            for field, annotation in sdk_fields(child).items()
        }

        assert set(child.embeds) == {
            (field, names[name]) for field, name in annotated.items() if name in names
        }
