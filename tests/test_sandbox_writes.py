"""What the sandbox's writes do and refuse, as Stripe does: customers, parameters, metadata, idempotency, faults."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import stripe
import urllib3

from stripe_feed.sandbox import Sandbox
from stripe_feed.sandbox.protocol.parameters import nested, parse
from tests import write_parameters
from tests.writing import Object, done, event_types, new_customer, refused, send

CUSTOMERS = "/v1/customers"


@pytest.fixture
def box() -> Sandbox:
    return Sandbox(seed=5, customers=20, oddities=False)


# Parameters


def test_the_table_of_parameters_is_the_sdks() -> None:
    """With a new SDK, `python tests/write_parameters.py` renews the table."""
    held = write_parameters.TABLE.read_text(encoding="utf-8").splitlines()
    assert sorted(set(held) ^ set(write_parameters.table().splitlines())) == []


def test_brackets_nest() -> None:
    form = "items[1][price]=b&items[0][price]=a&items[0][tax_rates][]=x&metadata[7]=y&expand[]=q&created[gte]=1"
    assert parse(form)["items"] == [{"price": "a", "tax_rates": ["x"]}, {"price": "b"}]
    assert parse(form)["expand"] == ["q"] and parse(form)["created"] == {"gte": "1"}
    assert nested(form)["metadata"] == {"7": "y"}
    assert parse("a[][b]=1&a[][c]=2&a[][b]=3") == {"a": [{"b": "1", "c": "2"}, {"b": "3"}]}


EMPTY_REFUSED = (
    "You passed an empty string for '{0}'. We assume empty values are an attempt to unset a parameter; however '{0}' "
    "cannot be unset. You should remove '{0}' from your request or supply a non-empty value."
)


@pytest.mark.parametrize(
    ("form", "code", "param", "message"),
    [
        ({"coupon": "x"}, "parameter_unknown", "coupon", "Received unknown parameter: coupon"),
        ({"address[zip]": "1"}, "parameter_unknown", "address[zip]", "Received unknown parameter: address[zip]"),
        ({"shipping[name]": "x"}, "parameter_missing", "shipping[address]", "Missing required param: shipping[address]."),
        ({"balance": "1.5"}, "parameter_invalid_integer", "balance", "Invalid integer: 1.5"),
        ({"balance": ""}, "parameter_invalid_empty", "balance", EMPTY_REFUSED.format("balance")),
        ({"test_clock": ""}, "parameter_invalid_empty", "test_clock", EMPTY_REFUSED.format("test_clock")),
        ({"email": "nobody"}, "email_invalid", "email", "Invalid email address: nobody"),
        ({"tax_exempt": "yes"}, "", "tax_exempt", "Invalid tax_exempt: must be one of exempt, none, reverse"),
        ({"validate": "1"}, "parameter_invalid_boolean", "validate", "Invalid boolean: 1"),
        ({"address": "here"}, "", "address", "Invalid object"),
        ({"preferred_locales": "de"}, "", "preferred_locales", "Invalid array"),
        ({"phone": "1" * 21}, "", "phone", f"Invalid string: {'1' * 20}...; must be at most 20 characters"),
        ({"test_clock": "clock_x"}, "resource_missing", "test_clock", "No such test_clock: 'clock_x'"),
    ],
)  # fmt: skip
def test_parameters_that_are_refused(
    box: Sandbox, form: Object, code: str, param: str, message: str
) -> None:
    assert refused(box, "POST", CUSTOMERS, form) == (400, code, param, message)
    assert box.events == []


def test_an_array_may_be_too_long(box: Sandbox) -> None:
    form = {
        f"invoice_settings[custom_fields][{n}][{name}]": "x"
        for n in range(5)
        for name in ("name", "value")
    }
    assert refused(box, "POST", CUSTOMERS, form)[2] == "invoice_settings[custom_fields]"


# Customers


def test_a_customer_has_what_was_sent_and_stripes_defaults(box: Sandbox) -> None:
    made = done(
        box, "POST", CUSTOMERS,
        {"email": "a@example.com", "address[city]": "Köln", "metadata[k]": "v", "preferred_locales[0]": "de",
         "invoice_settings[custom_fields][0][name]": "PO", "invoice_settings[custom_fields][0][value]": "7",
         "balance": "-50"},
    )  # fmt: skip
    assert made["email"] == "a@example.com" and made["balance"] == -50 and made["name"] is None
    assert made["address"] == {
        "city": "Köln", "country": None, "line1": None, "line2": None, "postal_code": None, "state": None,
    }  # fmt: skip
    assert made["invoice_settings"]["custom_fields"] == [{"name": "PO", "value": "7"}]
    assert (made["metadata"], made["preferred_locales"], made["created"]) == (
        {"k": "v"},
        ["de"],
        box.now,
    )
    assert set(made) == set(Sandbox(seed=1).create("customers"))
    assert (
        done(box, "GET", f"{CUSTOMERS}/{made['id']}")
        == made
        == box.objects("customers")[made["id"]]
    )


def test_an_update_merges_hashes_and_metadata_and_unsets_by_the_empty_string(box: Sandbox) -> None:
    id = new_customer(
        box,
        **{
            "phone": "1",
            "address[city]": "Bonn",
            "address[line1]": "x",
            "metadata[a]": "1",
            "metadata[b]": "2",
        },
    )
    path = f"{CUSTOMERS}/{id}"
    after = done(
        box,
        "POST",
        path,
        {"address[line1]": "", "metadata[a]": "", "metadata[c]": "3", "phone": ""},
    )
    assert (after["address"]["city"], after["address"]["line1"], after["phone"]) == (
        "Bonn",
        None,
        None,
    )
    assert after["metadata"] == {"b": "2", "c": "3"}
    after = done(box, "POST", path, {"address": "", "metadata": "", "tax_exempt": "exempt"})
    assert (after["address"], after["metadata"], after["tax_exempt"]) == (None, {}, "exempt")
    assert done(box, "POST", path, {"tax_exempt": ""})["tax_exempt"] == "none"
    assert refused(box, "POST", path, {"default_source": ""})[1:3] == (
        "parameter_invalid_empty",
        "default_source",
    )


def test_limits_of_metadata_count_the_merged_keys(box: Sandbox) -> None:
    id = new_customer(box, **{f"metadata[{n}]": "x" for n in range(49)})
    path = f"{CUSTOMERS}/{id}"
    assert refused(box, "POST", path, {"metadata[a]": "1", "metadata[b]": "1"}) == (
        400, "", "metadata", "Metadata can have up to 50 keys, but you've set 51.",
    )  # fmt: skip
    assert "Invalid key: " in refused(box, "POST", path, {f"metadata[{'k' * 41}]": "v"})[3]
    assert refused(box, "POST", path, {"metadata[k]": "v" * 501})[3].endswith(
        "a string under 500 characters"
    )
    assert len(done(box, "POST", path, {"metadata[a]": "1", "metadata[0]": ""})["metadata"]) == 49


def test_a_deleted_customer_leaves_a_stub_and_ends_its_subscriptions(box: Sandbox) -> None:
    id = new_customer(box)
    running = box.create("subscriptions", customer=id, status="active", discounts=[])["id"]
    seen = len(box.events)
    stub = {"id": id, "object": "customer", "deleted": True}
    assert done(box, "DELETE", f"{CUSTOMERS}/{id}", request_id="ignored") == stub
    assert event_types(box)[seen:] == ["customer.subscription.deleted", "customer.deleted"]
    assert box.objects("subscriptions")[running]["status"] == "canceled"
    assert done(box, "GET", f"{CUSTOMERS}/{id}") == stub
    missing = (404, "resource_missing", "id", f"No such customer: '{id}'")
    assert refused(box, "POST", f"{CUSTOMERS}/{id}", {"name": "x"}) == missing
    assert refused(box, "DELETE", f"{CUSTOMERS}/{id}") == missing
    assert (
        refused(box, "DELETE", f"{CUSTOMERS}/{new_customer(box)}?name=x")[1] == "parameter_unknown"
    )


def test_a_discount_is_deleted_by_its_customer(box: Sandbox) -> None:
    id = box.create("customers")["id"]
    box.update(
        "customers",
        id,
        discount={"id": "di_1", "object": "discount", "source": {"coupon": "C", "type": "coupon"}},
    )
    gone = done(box, "DELETE", f"{CUSTOMERS}/{id}/discount")
    assert (gone["id"], gone["deleted"]) == ("di_1", True)
    assert "customer.discount.deleted" in event_types(box)
    assert refused(box, "DELETE", f"{CUSTOMERS}/{id}/discount")[:2] == (404, "resource_missing")


def test_tax_ids_come_and_go(box: Sandbox) -> None:
    id = new_customer(
        box, **{"tax_id_data[0][type]": "eu_vat", "tax_id_data[0][value]": "DE123456789"}
    )
    made = done(
        box, "POST", f"{CUSTOMERS}/{id}/tax_ids", {"type": "gb_vat", "value": "GB123456789"}
    )
    assert (made["type"], made["country"], made["customer"]) == ("gb_vat", "GB", id)
    assert [one["value"] for one in done(box, "GET", f"{CUSTOMERS}/{id}/tax_ids")["data"]] == [
        "DE123456789",
        "GB123456789",
    ]
    assert done(box, "DELETE", f"{CUSTOMERS}/{id}/tax_ids/{made['id']}")["deleted"] is True
    assert [one["value"] for one in done(box, "GET", f"{CUSTOMERS}/{id}/tax_ids")["data"]] == [
        "DE123456789"
    ]
    assert event_types(box)[-2:] == ["customer.tax_id.created", "customer.tax_id.deleted"]
    wrong = {"type": "eu_vat", "value": "123"}
    assert refused(box, "POST", f"{CUSTOMERS}/{id}/tax_ids", wrong)[1:] == (
        "tax_id_invalid",
        "value",
        "Invalid value for eu_vat.",
    )


def test_a_restricted_key_needs_the_permission_to_write(box: Sandbox) -> None:
    key = {"authorization": f"Bearer {box.restrict(permissions=['rak_customer_read'])}"}
    status, _, _, message = refused(box, "POST", CUSTOMERS, {}, **key)
    assert status == 403 and "'rak_customer_write'" in message


# Events


def test_an_event_names_the_request_that_made_it(box: Sandbox) -> None:
    answer = send(box, "POST", CUSTOMERS, {"name": "A"}, idempotency_key="sf-1")
    id = json.loads(answer.body)["id"]
    send(box, "POST", f"{CUSTOMERS}/{id}", {"name": "A"})  # changes nothing, so there is no event
    renamed = send(box, "POST", f"{CUSTOMERS}/{id}", {"name": "B"})
    events = done(box, "GET", "/v1/events")["data"]
    told = {event["type"]: event for event in events}
    assert len(events) == 2
    assert told["customer.created"]["request"] == {
        "id": answer.headers["Request-Id"],
        "idempotency_key": "sf-1",
    }
    assert told["customer.updated"]["request"] == {
        "id": renamed.headers["Request-Id"],
        "idempotency_key": None,
    }
    assert told["customer.updated"]["data"]["previous_attributes"] == {"name": "A"}


# Idempotency


def test_a_repeated_key_gives_the_stored_outcome_and_changes_nothing(box: Sandbox) -> None:
    first = send(box, "POST", CUSTOMERS, {"name": "A"}, idempotency_key="k")
    again = send(box, "POST", CUSTOMERS, {"name": "A"}, idempotency_key="k")
    assert (again.status, again.body) == (200, first.body)
    assert (
        again.headers["Idempotent-Replayed"] == "true"
        and "Idempotent-Replayed" not in first.headers
    )
    assert (
        again.headers["Original-Request"]
        == first.headers["Request-Id"]
        != again.headers["Request-Id"]
    )
    assert len(box.events) == 1
    box.advance(86_401)
    assert send(box, "POST", CUSTOMERS, {"name": "A"}, idempotency_key="k").body != first.body


def test_a_key_belongs_to_one_request(box: Sandbox) -> None:
    id = json.loads(send(box, "POST", CUSTOMERS, {"name": "A"}, idempotency_key="k").body)["id"]
    other = refused(box, "POST", CUSTOMERS, {"name": "B"}, idempotency_key="k")
    assert other == (
        400, "", "",
        "Keys for idempotent requests can only be used with the same parameters they were first used with. "
        "Try using a key other than 'k' if you meant to execute a different request.",
    )  # fmt: skip
    elsewhere = refused(box, "POST", f"{CUSTOMERS}/{id}", {"name": "A"}, idempotency_key="k")[3]
    assert (
        f"for the same endpoint they were first used for ('{CUSTOMERS}/{id}' vs '{CUSTOMERS}')"
        in elsewhere
    )
    assert refused(box, "POST", CUSTOMERS, {}, idempotency_key="k" * 256)[0] == 400


def test_a_refusal_is_stored_once_the_execution_began(box: Sandbox) -> None:
    """Refused parameters are not; a customer that does not exist is."""
    assert refused(box, "POST", CUSTOMERS, {"nam": "A"}, idempotency_key="k")[0] == 400
    assert send(box, "POST", CUSTOMERS, {"name": "A"}, idempotency_key="k").status == 200

    first = send(box, "POST", f"{CUSTOMERS}/cus_new", {"name": "A"}, idempotency_key="k2")
    box.create("customers", id="cus_new")
    again = send(box, "POST", f"{CUSTOMERS}/cus_new", {"name": "A"}, idempotency_key="k2")
    assert (again.status, again.body) == (404, first.body)
    assert again.headers["Idempotent-Replayed"] == "true"
    assert (
        send(box, "POST", f"{CUSTOMERS}/cus_new", {"name": "A"}, idempotency_key="k3").status == 200
    )


def test_deletes_ignore_idempotency_keys(box: Sandbox) -> None:
    id = new_customer(box)
    assert send(box, "DELETE", f"{CUSTOMERS}/{id}", idempotency_key="k").status == 200
    assert send(box, "DELETE", f"{CUSTOMERS}/{id}", idempotency_key="k").status == 404


# Faults


def test_a_500_after_the_execution_is_stored(box: Sandbox) -> None:
    box.faults.once[f"POST {CUSTOMERS}"] = ["500_after"]
    before = len(box.objects("customers"))
    assert send(box, "POST", CUSTOMERS, {"name": "A"}, idempotency_key="k").status == 500
    again = send(box, "POST", CUSTOMERS, {"name": "A"}, idempotency_key="k")
    assert (again.status, again.headers["Idempotent-Replayed"]) == (500, "true")
    assert len(box.objects("customers")) == before + 1
    assert done(box, "GET", "/v1/events")["data"][0]["request"]["idempotency_key"] == "k"


def test_a_500_before_the_execution_is_not_stored(box: Sandbox) -> None:
    box.faults.once[f"POST {CUSTOMERS}"] = [500, 409, "lock_timeout"]
    statuses = [send(box, "POST", CUSTOMERS, {}, idempotency_key="k").status for _ in range(4)]
    assert statuses == [500, 409, 429, 200]


def test_a_stored_refusal_on_request(box: Sandbox) -> None:
    box.faults.once[CUSTOMERS] = [None, "refused"]
    assert send(box, "POST", CUSTOMERS, {}).status == 200
    assert [send(box, "POST", CUSTOMERS, {}, idempotency_key="k").status for _ in range(2)] == [
        400,
        400,
    ]
    assert send(box, "POST", CUSTOMERS, {}, idempotency_key="k2").status == 200


def test_a_share_of_writes_is_executed_and_answered_500(box: Sandbox) -> None:
    box.faults.error_500_after = 0.5
    statuses = [send(box, "POST", CUSTOMERS, {}).status for _ in range(20)]
    assert set(statuses) == {200, 500} and event_types(box) == ["customer.created"] * 20
    assert all(send(box, "GET", CUSTOMERS).status == 200 for _ in range(20))


def test_a_slow_write_holds_its_key_and_its_object(box: Sandbox) -> None:
    id = new_customer(box)
    time = [100.0]
    box.account.idempotency.clock = box.account.locks.clock = lambda: time[0]
    box.faults.write_time = 5.0
    slow = send(box, "POST", f"{CUSTOMERS}/{id}", {"name": "A"}, idempotency_key="k")
    assert slow.delay == 5.0
    again = refused(box, "POST", f"{CUSTOMERS}/{id}", {"name": "A"}, idempotency_key="k")
    assert again[:2] == (409, "idempotency_key_in_use")
    assert refused(box, "POST", f"{CUSTOMERS}/{id}", {"name": "B"})[:2] == (429, "lock_timeout")
    assert refused(box, "DELETE", f"{CUSTOMERS}/{id}")[:2] == (429, "lock_timeout")
    assert send(box, "POST", CUSTOMERS, {"name": "other"}).status == 200
    time[0] += 5.0
    assert (
        send(box, "POST", f"{CUSTOMERS}/{id}", {"name": "A"}, idempotency_key="k").body == slow.body
    )
    assert done(box, "POST", f"{CUSTOMERS}/{id}", {"name": "B"})["name"] == "B"


def test_a_slow_write_holds_what_it_belongs_to(box: Sandbox) -> None:
    id = new_customer(box, **{"invoice_settings[default_payment_method]": "pm_1"})
    form = {
        "currency": "usd",
        "unit_amount": "1",
        "recurring[interval]": "month",
        "product_data[name]": "P",
    }
    price = done(box, "POST", "/v1/prices", form)["id"]
    made = done(box, "POST", "/v1/subscriptions", {"customer": id, "items[0][price]": price})
    box.account.locks.clock = lambda: 100.0
    box.faults.write_time = 5.0
    item = f"/v1/subscription_items/{made['items']['data'][0]['id']}"
    assert send(box, "POST", item, {"quantity": "2"}).status == 200
    for path in (item, f"/v1/subscriptions/{made['id']}", f"{CUSTOMERS}/{id}"):
        assert refused(box, "POST", path, {"metadata[k]": "v"})[1] == "lock_timeout"
    assert refused(box, "POST", "/v1/invoices", {"customer": id})[1] == "lock_timeout"
    assert send(box, "GET", f"{CUSTOMERS}/{id}").status == 200


# Over the wire


@pytest.fixture
def client(box: Sandbox) -> Iterator[stripe.StripeClient]:
    with box.serve() as url:
        yield stripe.StripeClient(box.key, base_addresses={"api": url}, max_network_retries=0)


def test_the_official_client_writes_customers(box: Sandbox, client: stripe.StripeClient) -> None:
    made = client.v1.customers.create(
        {
            "email": "a@example.com",
            "metadata": {"k": "v"},
            "address": {"line1": "x"},
            "preferred_locales": ["de", "en"],
        }
    )
    changed = client.v1.customers.update(
        made.id, {"metadata": {"k": ""}, "shipping": {"name": "N", "address": {"city": "c"}}}
    )
    shown = changed.to_dict()
    assert (shown["metadata"], shown["preferred_locales"]) == ({}, ["de", "en"])
    assert changed.shipping is not None and changed.shipping.name == "N"
    assert client.v1.customers.delete(made.id).deleted is True
    with pytest.raises(stripe.InvalidRequestError) as caught:
        client.v1.customers.update(made.id, {"email": "nobody"})
    assert (caught.value.code, caught.value.param) == ("email_invalid", "email")


def test_a_reset_comes_after_the_execution(box: Sandbox) -> None:
    box.faults.once[f"POST {CUSTOMERS}"] = ["reset"]
    headers = {"Authorization": f"Bearer {box.key}", "Idempotency-Key": "k"}
    with box.serve() as url, urllib3.PoolManager(retries=False) as pool:
        with pytest.raises(urllib3.exceptions.ProtocolError):
            pool.request("POST", url + CUSTOMERS, headers=headers, body="name=A")
        again = pool.request("POST", url + CUSTOMERS, headers=headers, body="name=A")
    assert again.headers["Idempotent-Replayed"] == "true" and again.json()["name"] == "A"
    assert event_types(box) == ["customer.created"]


def test_whoever_gives_up_waiting_finds_the_write_in_flight(box: Sandbox) -> None:
    id = new_customer(box)
    box.faults.write_time = 60.0
    with box.serve() as url, urllib3.PoolManager(retries=False) as pool:

        def post(name: str, key: str, timeout: float) -> urllib3.BaseHTTPResponse:
            headers = {"Authorization": f"Bearer {box.key}", "Idempotency-Key": key}
            path = f"{url}{CUSTOMERS}/{id}"
            return pool.request("POST", path, headers=headers, body=f"name={name}", timeout=timeout)

        with pytest.raises(urllib3.exceptions.ReadTimeoutError):
            post("A", "k", timeout=0.2)
        assert [post("A", "k", timeout=30).status, post("B", "k2", timeout=30).status] == [409, 429]
    assert box.objects("customers")[id]["name"] == "A"
