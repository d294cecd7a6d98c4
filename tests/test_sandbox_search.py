"""The sandbox's search: what its clauses find, how far it is behind, its pages and its limits."""

from __future__ import annotations

from urllib.parse import urlencode

import pytest
import stripe

from stripe_feed.sandbox import Sandbox
from tests.writing import Object, done, new_customer, refused, send

SEARCH = "/v1/customers/search"


@pytest.fixture
def box() -> Sandbox:
    """An account whose search is not behind."""
    box = Sandbox(seed=5, customers=20, oddities=False)
    box.faults.search_lag = 0
    box.advance(1)
    return box


def path(query: str, table: str = "customers", **params: object) -> str:
    return f"/v1/{table}/search?{urlencode({'query': query} | params)}"


def found(box: Sandbox, query: str, table: str = "customers") -> list[str]:
    return [one["id"] for one in done(box, "GET", path(query, table, limit=100))["data"]]


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ('name:"ada lovelace"', ["Ada Lovelace"]),
        ('name:"king LOVELACE"', ["Ada King Lovelace?"]),
        ("name:'ada'", ["Ada King Lovelace?", "Ada Lovelace"]),
        ('name~"lovel"', ["Ada King Lovelace?", "Ada Lovelace"]),
        ('email:"ada@x.test"', ["Ada King Lovelace?", "Ada Lovelace"]),
        ('metadata["plan"]:"GOLD"', ["Ada Lovelace"]),
        ('metadata["plan"]:"gol"', []),
        ('-metadata["plan"]:null name~"ada"', ["Ada Lovelace"]),
        ('phone:null AND name:"ada" and email~"x.test"', ["Ada King Lovelace?", "Ada Lovelace"]),
        ('name:"grace" OR metadata["plan"]:"gold"', ["Ada Lovelace", 'Grace "G" Hopper']),
        ('name:"grace \\"g\\" hopper"', ['Grace "G" Hopper']),
        ('-name:"ada" email~"x.test"', ['Grace "G" Hopper']),
    ],
)  # fmt: skip
def test_what_a_query_finds(box: Sandbox, query: str, names: list[str]) -> None:
    """A phrase is found inside longer texts, an e-mail inside longer ones: search is not exact."""
    made = {
        new_customer(box, name=name, email=email, **more): name
        for name, email, more in (
            ("Ada Lovelace", "ada@x.test", {"metadata[plan]": "Gold"}),
            ("Ada King Lovelace?", "the.ada@x.test.example", {}),
            ('Grace "G" Hopper', "grace@x.test", {}),
        )
    }
    assert sorted(made[id] for id in found(box, query) if id in made) == sorted(names)


def test_numbers_are_compared(box: Sandbox) -> None:
    first = box.now
    one = new_customer(box, name="a")
    box.advance(10)
    two = new_customer(box, name="b")
    assert found(box, f"created>={first}") == [two, one]
    assert found(box, f"created>{first} created<{first + 11}") == [two]
    assert found(box, f"created:{first}") == [one]
    assert found(box, f'created<="{first}" created>"{first - 1}"') == [one]


@pytest.mark.parametrize(
    ("table", "query"),
    [
        ("products", 'created>5'), ("prices", 'billing_scheme:"tiered"'), ("invoices", "due_date>5"),
        ("customers", 'metadata:"x"'), ("customers", 'email["k"]:"x"'), ("subscriptions", 'customer:"cus_1"'),
    ],
)  # fmt: skip
def test_fields_that_cannot_be_searched(box: Sandbox, table: str, query: str) -> None:
    status, _, param, message = refused(box, "GET", path(query, table))
    assert (status, param) == (400, "query") and "is an unsupported search field" in message


@pytest.mark.parametrize(
    "query",
    [
        'name:ada', 'name:"ada', '(name:"a")', 'name:"a" AND name:"b" OR name:"c"', 'AND name:"a"', 'name:"a" AND', "name",
        'created:"x"', " ",
    ],
)  # fmt: skip
def test_queries_that_are_no_queries(box: Sandbox, query: str) -> None:
    assert refused(box, "GET", path(query))[::3] == (
        400,
        'We were unable to parse your search query. Try using the format `metadata["key"]:"value"` to query for metadata '
        'or key:"value" to query for other fields.',
    )


def test_other_refusals(box: Sandbox) -> None:
    assert (
        refused(box, "GET", path('metadata["k"]>"v"'))[3]
        == "Operator `>` is not supported for field `metadata`."
    )
    assert refused(box, "GET", path('status~"act"', "subscriptions"))[3].startswith("Operator `~`")
    assert refused(box, "GET", path('name~"ad"'))[0] == 400
    assert refused(box, "GET", path(" ".join(['name:"a"'] * 11)))[0] == 400
    assert refused(box, "GET", SEARCH)[1:3] == ("parameter_missing", "query")
    assert refused(box, "GET", path('name:"a"', starting_after="cus_1"))[1] == "parameter_unknown"
    assert refused(box, "GET", path('name:"a"', limit=101))[2] == "limit"
    assert refused(box, "GET", "/v1/quotes/search?query=x")[0] == 400
    key = f"Bearer {box.restrict(permissions=['rak_invoice_read'])}"
    assert refused(box, "GET", path('name:"a"'), authorization=key)[0] == 403


def test_other_resources_are_searched(box: Sandbox) -> None:
    product = done(box, "POST", "/v1/products", {"name": "Team plan", "url": "https://x.test/p"})[
        "id"
    ]
    price = done(
        box, "POST", "/v1/prices",
        {"product": product, "currency": "chf", "unit_amount": "5", "lookup_key": "team_plan", "recurring[interval]": "month"},
    )["id"]  # fmt: skip
    customer = new_customer(box, **{"invoice_settings[default_payment_method]": "pm_1"})
    made = done(
        box,
        "POST",
        "/v1/subscriptions",
        {"customer": customer, "items[0][price]": price, "metadata[k]": "v"},
    )
    assert found(box, 'active:"true" name:"team"', "products") == [product]
    assert found(box, 'url:"x.test/p"', "products") == [product]
    assert found(box, 'lookup_key:"team_plan" currency:"CHF" type:"recurring"', "prices") == [price]
    assert found(box, f'product:"{product}"', "prices") == [price]
    assert found(box, 'status:"active" metadata["k"]:"v"', "subscriptions") == [made["id"]]
    assert found(box, f'subscription:"{made["id"]}" total>4 status:"paid"', "invoices") == [
        made["latest_invoice"]
    ]
    assert found(box, f'customer:"{customer}"', "invoices") == [made["latest_invoice"]]


def test_the_index_is_behind_by_the_clock_of_the_sandbox() -> None:
    """What is new is not found, what changed is found by its old content and shown as it is."""
    box = Sandbox(seed=5, customers=20, oddities=False)
    id = new_customer(box, name="Old name", **{"metadata[k]": "v"})
    assert found(box, 'name:"old name"') == []
    box.advance(60)
    assert found(box, 'name:"old name"') == [id]
    done(box, "POST", f"/v1/customers/{id}", {"name": "New name"})
    assert found(box, 'name:"new name"') == []
    (stale,) = done(box, "GET", path('name:"old name"'))["data"]
    assert stale["name"] == "New name"
    done(box, "DELETE", f"/v1/customers/{id}")
    assert found(box, 'metadata["k"]:"v"') == []


def test_pages_follow_each_other_by_token(box: Sandbox) -> None:
    ids = [new_customer(box, **{"metadata[k]": "v"}) for _ in range(5)]
    query, seen, token = 'metadata["k"]:"v"', list[str](), None
    for size in (2, 2, 1):
        page: Object = done(box, "GET", path(query, limit=2, **({"page": token} if token else {})))
        assert (len(page["data"]), page["object"], page["url"]) == (size, "search_result", SEARCH)
        seen += [one["id"] for one in page["data"]]
        token = page["next_page"]
        assert page["has_more"] == (token is not None)
    assert sorted(seen) == sorted(ids)
    first = done(box, "GET", path(query, limit=2, **{"expand[]": "total_count"}))
    assert first["total_count"] == 5
    other = path('metadata["k"]:"w"', page=first["next_page"])
    assert refused(box, "GET", other)[2] == refused(box, "GET", path(query, page="x"))[2] == "page"


def test_all_searches_share_a_rate(box: Sandbox) -> None:
    now = [0.0]
    box.faults.clock, box.faults.search_rate = (lambda: now[0]), 20
    targets = [path('metadata["k"]:"v"', table) for table in ("customers", "products")] * 11
    statuses = [send(box, "GET", target).status for target in targets]
    assert statuses == [200] * 20 + [429] * 2
    assert send(box, "GET", "/v1/customers").status == 200
    now[0] = 1.0
    assert send(box, "GET", targets[0]).status == 200


def test_the_official_client_searches(box: Sandbox) -> None:
    ids = {new_customer(box, **{"metadata[k]": "v"}) for _ in range(3)}
    with box.serve() as url:
        client = stripe.StripeClient(box.key, base_addresses={"api": url})
        page = client.v1.customers.search({"query": 'metadata["k"]:"v"', "limit": 2})
        assert {one.id for one in page.auto_paging_iter()} == ids
