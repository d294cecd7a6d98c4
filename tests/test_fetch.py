"""One page with all that belongs to it: parameters, embedded lists that are cut, objects that are
gone, test clocks.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, cast

import pytest

from stripe_feed.api.client import Api, InvalidBody, Reply
from stripe_feed.errors import CursorGone, NotFound, RequestRefused
from stripe_feed.extract.paging.fetch import MAX_RESTARTS, fetch_list_page, path_segment
from stripe_feed.extract.paging.reader import ListPage
from stripe_feed.extract.paging.windows import PageRequest, RowKey, Window
from stripe_feed.extract.tables.codec import Record, TableCodec
from stripe_feed.extract.tables.rejected import Rejected
from stripe_feed.resources.model import Child, Column, Resource
from tests.core import CORE

ASK = PageRequest(Window(10, 90), 10, 90, "x_9")
REQUESTED_AT = 1_780_000_000
LINES = "/v1/invoices/in_1/lines"

Answer = dict[str, Any] | Exception | Callable[[Mapping[str, Any]], Any]


class Script:
    """What `page_of` needs of an `Api`: answers by path, one after the other; the last one stays."""

    def __init__(self, answers: Mapping[str, Answer | list[Answer]]) -> None:
        self.answers = {
            path: found if isinstance(found, list) else [found] for path, found in answers.items()
        }
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.token_taken: list[bool] = []

    def get(
        self,
        path: str,
        params: Mapping[str, Any],
        decode: Callable[[bytes], Any],
        *,
        token_taken: bool = False,
    ) -> Reply[Any]:
        self.asked.append((path, dict(params)))
        self.token_taken.append(token_taken)
        script = self.answers[path]
        answer = script.pop(0) if len(script) > 1 else script[0]
        if callable(answer):
            answer = answer(params)
        if isinstance(answer, Exception):
            raise answer
        return Reply(decode(json.dumps(answer).encode()), REQUESTED_AT)


def listed(*objects: dict[str, Any], has_more: bool = False) -> dict[str, Any]:
    return {"object": "list", "url": "/v1/x", "data": list(objects), "has_more": has_more}


def fetch(
    script: Script,
    table: str = "invoices",
    expand: tuple[str, ...] = (),
    walk: int = 0,
    clocks: bool = False,
) -> ListPage[Record]:
    resource = CORE[table]
    return fetch_list_page(
        cast(Api, script),
        resource,
        TableCodec(resource, expand),
        resource.list_filters[walk],
        ASK,
        clocks,
    )


def left_out_of(script: Script, kept: list[str]) -> list[tuple[str | None, str]]:
    """What of a page cannot be taken, and why; all its objects with ids lead the pager."""
    odd: list[Rejected] = []
    resource = CORE["invoices"]
    page = fetch_list_page(
        cast(Api, script),
        resource,
        TableCodec(resource),
        resource.list_filters[0],
        ASK,
        reject=odd.append,
    )
    assert list(page.rows) == kept
    assert {head.id for head in page.keys} == {*kept, *(one.id for one in odd if one.id)}
    return [(one.id, one.reason) for one in odd]


def invoice(*lines: str, more: bool = False, **fields: Any) -> dict[str, Any]:
    return {
        "id": "in_1",
        "created": 50,
        "lines": listed(*({"id": id} for id in lines), has_more=more),
    } | fields


def lines_of(page: ListPage[Record]) -> list[list[str]]:
    return [[line.id for line in record.row.lines.data] for record in page.rows.values()]


def pages_of(count: int, size: int = 100) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """A sub-list of so many lines, by Stripe's rules."""

    def answer(params: Mapping[str, Any]) -> dict[str, Any]:
        assert params["limit"] == 100
        cursor = params.get("starting_after")
        first = 0 if cursor is None else int(cursor.removeprefix("il_")) + 1
        return listed(
            *({"id": f"il_{n}"} for n in range(first, min(first + size, count))),
            has_more=first + size < count,
        )

    return answer


@pytest.mark.parametrize(
    ("table", "walk", "filters"),
    [
        ("customers", 0, {}),
        ("invoices", 0, {}),
        ("products", 0, {}),
        ("plans", 0, {}),
        ("subscriptions", 0, {"status": "all"}),
        ("prices", 0, {"active": "true"}),
        ("prices", 1, {"active": "false"}),
    ],
)
def test_a_page_is_asked_for_with_the_filters_of_its_walk(
    table: str, walk: int, filters: dict[str, str]
) -> None:
    """Without `status=all` canceled subscriptions would be missing, without a second walk archived
    prices; its token is already taken.
    """
    script = Script({f"/v1/{table}": listed()})
    fetch(script, table, walk=walk)

    window = {"limit": 100, "created": {"lt": 90, "gte": 10}, "starting_after": "x_9"}
    assert script.asked == [(f"/v1/{table}", filters | window)]
    assert script.token_taken == [True]


def test_a_page_tells_what_the_planner_needs() -> None:
    """Ids and seconds of all rows, whether there is more, its size, and Stripe's time when it was
    asked for.
    """
    answer = listed({"id": "cus_1", "created": 50}, {"id": "cus_2", "created": None}, has_more=True)
    page = fetch(Script({"/v1/customers": answer}), "customers")

    assert page.keys == [RowKey("cus_1", 50), RowKey("cus_2", None)]
    assert (page.has_more, page.size, page.requested_at) == (
        True,
        len(json.dumps(answer)),
        REQUESTED_AT,
    )
    assert list(page.rows) == ["cus_1", "cus_2"]


def test_a_created_of_another_type_does_not_stop_the_pager() -> None:
    """It counts as unknown; rows with a good one keep it."""
    answer = listed({"id": "cus_1", "created": "yesterday"}, {"id": "cus_2", "created": 40})

    assert fetch(Script({"/v1/customers": answer}), "customers").keys == [
        RowKey("cus_1", None),
        RowKey("cus_2", 40),
    ]


def test_expanded_fields_are_asked_for() -> None:
    """For each row of the list."""
    script = Script({"/v1/customers": listed()})
    fetch(script, "customers", expand=("tax", "tax_ids"))

    assert script.asked[0][1]["expand"] == ["data.tax", "data.tax_ids"]


def test_a_whole_embedded_list_costs_no_request() -> None:
    """Ten lines or fewer are all there."""
    script = Script({"/v1/invoices": listed(invoice("il_1", "il_2"))})

    assert lines_of(fetch(script)) == [["il_1", "il_2"]]
    assert len(script.asked) == 1


@pytest.mark.parametrize("count", [11, 100, 101, 250])
def test_a_cut_embedded_list_is_read_whole(count: int) -> None:
    """From its beginning: the tenth line may be gone. Each request of it pays for itself."""
    script = Script(
        {"/v1/invoices": listed(invoice("il_0", "gone", more=True)), LINES: pages_of(count)}
    )

    assert lines_of(fetch(script)) == [[f"il_{n}" for n in range(count)]]
    assert script.asked[1] == (LINES, {"limit": 100})
    assert script.token_taken == [True] + [False] * -(-count // 100)


def test_the_digest_is_that_of_the_whole_object() -> None:
    """An invoice with eleven lines has the same one, whether they came embedded or not."""
    whole = fetch(Script({"/v1/invoices": listed(invoice(*(f"il_{n}" for n in range(11))))}))
    cut = fetch(Script({"/v1/invoices": listed(invoice("il_0", more=True)), LINES: pages_of(11)}))
    short = fetch(Script({"/v1/invoices": listed(invoice("il_0"))}))

    first, second, third = (page.rows["in_1"].hash for page in (whole, cut, short))
    assert first == second != third


@pytest.mark.parametrize("embedded", [None, "odd", {"data": 5}])
def test_an_embedded_list_that_is_none_is_read_from_its_endpoint(embedded: object) -> None:
    """Whatever Stripe makes of the field, the children are complete; lists beside it cost nothing
    more.
    """
    other = invoice("il_7") | {"id": "in_2"}
    script = Script({"/v1/invoices": listed(invoice(lines=embedded), other), LINES: pages_of(3)})

    assert lines_of(fetch(script)) == [["il_0", "il_1", "il_2"], ["il_7"]]
    assert len(script.asked) == 2


def test_items_are_asked_for_by_their_subscription() -> None:
    """Their list is no sub-path."""
    cut = {"id": "sub_1", "created": 50, "items": listed({"id": "si_1"}, has_more=True)}
    script = Script(
        {
            "/v1/subscriptions": listed(cut),
            "/v1/subscription_items": listed({"id": "si_1"}, {"id": "si_2"}),
        }
    )
    page = fetch(script, "subscriptions")

    assert script.asked[1] == ("/v1/subscription_items", {"limit": 100, "subscription": "sub_1"})
    assert [item.id for item in page.rows["sub_1"].row.items.data] == ["si_1", "si_2"]


def test_ids_in_a_path_are_quoted() -> None:
    """Accounts choose some ids, with any character."""
    cut = invoice("il_0", more=True) | {"id": "a/b?c=1 é"}
    script = Script(
        {"/v1/invoices": listed(cut), "/v1/invoices/a%2Fb%3Fc%3D1%20%C3%A9/lines": pages_of(2)}
    )

    assert lines_of(fetch(script)) == [["il_0", "il_1"]]


def test_an_object_that_is_gone_is_left_out_but_counts_for_the_pager() -> None:
    """Deleted between its page and its lines: the delete event, or the next list, tells."""
    both = listed(invoice("il_0", more=True), invoice("il_9") | {"id": "in_2"})
    page = fetch(Script({"/v1/invoices": both, LINES: NotFound("gone")}))

    assert lines_of(page) == [["il_9"]]
    assert [head.id for head in page.keys] == ["in_1", "in_2"]


def test_a_sub_list_starts_over_when_its_cursor_is_gone() -> None:
    """A line was removed from a draft between two pages: what was read so far may be wrong as well."""
    gone = CursorGone("gone", "resource_missing", "starting_after")
    script = Script(
        {
            "/v1/invoices": listed(invoice("il_0", more=True)),
            LINES: [
                listed({"id": "il_0"}, {"id": "il_1"}, has_more=True),
                gone,
                listed({"id": "il_0"}, {"id": "il_2"}),
            ],
        }
    )

    assert lines_of(fetch(script)) == [["il_0", "il_2"]]
    assert [params.get("starting_after") for path, params in script.asked[1:]] == [
        None,
        "il_1",
        None,
    ]


@pytest.mark.parametrize(
    "second",
    [
        CursorGone("gone", "resource_missing", "starting_after"),
        listed(has_more=True),
        listed({"id": "il_0"}, has_more=True),
    ],
    ids=["gone", "empty", "repeated"],
)
def test_a_sub_list_that_never_ends_leaves_its_object_out(second: Answer) -> None:
    """Not cut short in silence, and not taken for a cursor of the listing itself; the others of the
    page are taken.
    """

    def answer(params: Mapping[str, Any]) -> Any:
        return second if "starting_after" in params else listed({"id": "il_0"}, has_more=True)

    script = Script(
        {"/v1/invoices": listed(invoice("il_0", more=True), invoice(id="in_2")), LINES: answer}
    )

    assert left_out_of(script, kept=["in_2"]) == [
        ("in_1", "one of its lists changes faster than it can be read")
    ]
    assert len(script.asked) == 1 + 2 * (MAX_RESTARTS + 1)


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        (RequestRefused("no", "lines_off"), "Stripe refuses one of its lists (lines_off)"),
        (listed({"id": "il_0"}, {"id": None}), "of its invoice_line_items, one: it has no id"),
        (listed({"id": "il_0"}, {"id": "il_1"}), None),
    ],
    ids=["refused", "odd", "fine"],
)
def test_an_object_whose_list_cannot_be_read_is_left_out_alone(
    lines: Answer, why: str | None
) -> None:
    """By its own name; what has none leads no pager, and what is there twice counts once."""
    objects = (
        invoice("il_0", more=True),
        invoice(id=None),
        invoice(id="in_2"),
        invoice(id="in_2", total=5),
        invoice(id="in_3"),
    )
    script = Script({"/v1/invoices": listed(*objects), LINES: lines})

    kept = ["in_2", "in_3"] if why else ["in_1", "in_2", "in_3"]
    assert left_out_of(script, kept) == [*([("in_1", why)] if why else []), (None, "it has no id")]


def test_a_stub_of_a_deleted_object_is_no_row() -> None:
    """And nothing to tell of: its event does. A stub can hold more than the id."""
    stub = {"id": "in_2", "object": "invoice", "deleted": True}
    objects = (invoice(), stub, invoice(id="in_3", deleted=True), invoice(id="in_4", deleted=False))

    found = fetch(Script({"/v1/invoices": listed(*objects)}))
    assert list(found.rows) == ["in_1", "in_4"]
    assert [head.id for head in found.keys] == ["in_1", "in_2", "in_3", "in_4"]


@pytest.mark.parametrize(
    ("id", "path"),
    [("a/b?c#d%", "a%2Fb%3Fc%23d%25"), ("..", "%2E%2E"), (".", "%2E"), ("..x", "..x")],
)
def test_an_id_is_one_segment_of_a_path(id: str, path: str) -> None:
    """Accounts chose ids of plans and products as they liked."""
    assert path_segment(id) == path


def test_an_empty_page_of_a_sub_list_that_has_more_is_asked_again() -> None:
    """The end is what `has_more` says."""
    script = Script(
        {
            "/v1/invoices": listed(invoice("il_0", more=True)),
            LINES: [listed({"id": "il_0"}, has_more=True), listed(has_more=True), pages_of(3)],
        }
    )

    assert lines_of(fetch(script)) == [["il_0", "il_1", "il_2"]]


def test_an_expanded_list_that_is_cut_is_read_whole_with_its_bytes() -> None:
    """It is a JSON column: a list as Stripe would show it, with all of its rows."""
    cut = listed({"id": "txi_0"}, has_more=True)
    script = Script(
        {
            "/v1/customers": listed(
                {"id": "cus_1", "tax_ids": cut},
                {"id": "cus_2", "tax_ids": listed()},
                {"id": "cus_3"},
            ),
            "/v1/customers/cus_1/tax_ids": listed({"id": "txi_0", "value": 1.50}, {"id": "txi_1"}),
        }
    )
    page = fetch(script, "customers", expand=("tax_ids",))
    found = [json.loads(bytes(record.row.tax_ids)) for record in page.rows.values()]

    assert [one and [row["id"] for row in one["data"]] for one in found] == [
        ["txi_0", "txi_1"],
        [],
        None,
    ]
    assert [one and one["has_more"] for one in found] == [False, False, None]
    assert b'{"id": "txi_0", "value": 1.5}' in bytes(page.rows["cus_1"].row.tax_ids)


SESSION = Resource(
    table="checkout_sessions",
    object="checkout.session",
    path="/v1/checkout/sessions",
    columns=tuple(
        Column(name, "timestamp" if name == "created" else "text", "")
        for name in ("id", "object", "created")
    ),
    children=(
        Child(
            field="line_items",
            table="checkout_session_line_items",
            object="item",
            parent="checkout_session",
            path="/v1/checkout/sessions/{id}/line_items",
            columns=tuple(
                Column(name, "text", "") for name in ("id", "object", "checkout_session")
            ),
            expand=True,
        ),
    ),
)
"""An object whose list of line items only comes if it is expanded."""


def test_a_child_that_is_expanded_comes_with_the_page_and_whole() -> None:
    """A hundred objects cost one request; a list that is cut costs its own, and none of an object
    that Stripe keeps no list of any more.
    """
    path = "/v1/checkout/sessions"
    script = Script(
        {
            path: listed(
                {"id": "cs_1", "line_items": listed({"id": "li_0"}, {"id": "li_1"})},
                {"id": "cs_2", "line_items": listed({"id": "li_0"}, has_more=True)},
                {"id": "cs_3", "line_items": None},
            ),
            f"{path}/cs_2/line_items": pages_of(12),
            f"{path}/cs_3/line_items": NotFound("Could not find line items"),
        }
    )
    page = fetch_list_page(cast(Api, script), SESSION, TableCodec(SESSION), (), ASK)
    rows = [record.row for record in page.rows.values()]

    assert script.asked[0][1]["expand"] == ["data.line_items"]
    assert [[item.id for item in row.line_items.data] for row in rows] == [
        ["li_0", "li_1"],
        [f"il_{n}" for n in range(12)],
        [],
    ]
    assert {item.checkout_session for row in rows for item in row.line_items.data} == {
        "cs_1",
        "cs_2",
    }
    assert len(script.asked) == 3


def test_a_sub_list_that_is_no_list_is_malformed() -> None:
    """The transport asks again."""
    cut = {"id": "cus_1", "tax_ids": listed(has_more=True)}
    script = Script(
        {
            "/v1/customers": listed(cut),
            "/v1/customers/cus_1/tax_ids": {"data": [5], "has_more": False},
        }
    )

    with pytest.raises(InvalidBody):
        fetch(script, "customers", expand=("tax_ids",))


@pytest.mark.parametrize("table", ["customers", "subscriptions", "invoices"])
def test_rows_on_a_test_clock_are_left_out_unless_asked_for(table: str) -> None:
    """They live in simulated time. Also when another row's `test_clock` has an odd type; a clock
    that is expanded counts.
    """
    clocked: list[dict[str, Any]] = [
        {"id": "x_1", "test_clock": "clock_1"},
        {"id": "x_2", "test_clock": None},
        {"id": "x_3"},
        {"id": "x_4", "test_clock": {"id": "clock_1"}},
        {"id": "x_5", "test_clock": 5},
    ]
    rows = [row | {child.field: listed() for child in CORE[table].children} for row in clocked]

    def kept(*some: dict[str, Any], clocks: bool = False) -> list[str]:
        page = fetch(Script({f"/v1/{table}": listed(*some)}), table, clocks=clocks)
        assert len(page.keys) == len(some)
        return [record.row.id for record in page.rows.values()]

    assert kept(*rows[:4]) == ["x_2", "x_3"]
    assert kept(*rows) == ["x_2", "x_3", "x_5"]
    assert kept(*rows, clocks=True) == ["x_1", "x_2", "x_3", "x_4", "x_5"]
