"""Products, prices, plans and coupons written to the sandbox: what never changes, lookup keys, and deletes."""

from __future__ import annotations

import json

import pytest
import stripe

from stripe_feed.sandbox import Sandbox
from tests.writing import Object, done, event_types, refused, send

PRODUCTS, PRICES, PLANS, COUPONS = "/v1/products", "/v1/prices", "/v1/plans", "/v1/coupons"
MONTHLY = {"currency": "EUR", "unit_amount": 900, "recurring[interval]": "month"}


@pytest.fixture
def box() -> Sandbox:
    return Sandbox(seed=5, customers=20, oddities=False)


@pytest.fixture
def product(box: Sandbox) -> str:
    return str(done(box, "POST", PRODUCTS, {"name": "Team"})["id"])


def price(box: Sandbox, product: str, **form: object) -> Object:
    return done(box, "POST", PRICES, MONTHLY | {"product": product} | form)


# Products


def test_a_product_has_an_id_of_the_clients_choice(box: Sandbox) -> None:
    made = done(
        box, "POST", PRODUCTS,
        {"id": "team-plan", "name": "Team", "images[0]": "https://x.test/a.png", "marketing_features[0][name]": "SSO"},
    )  # fmt: skip
    assert (made["id"], made["active"], made["type"]) == ("team-plan", True, "service")
    assert made["marketing_features"] == [{"name": "SSO"}]
    assert set(made) == set(Sandbox(seed=1).create("products"))
    taken = (400, "resource_already_exists", "id", "Product already exists.")
    assert refused(box, "POST", PRODUCTS, {"id": "team-plan", "name": "Again"}) == taken


def test_a_product_without_a_name_is_refused(box: Sandbox, product: str) -> None:
    assert refused(box, "POST", PRODUCTS)[1:] == (
        "parameter_missing",
        "name",
        "Missing required param: name.",
    )
    assert refused(box, "POST", PRODUCTS, {"name": ""})[1] == "parameter_invalid_empty"
    assert refused(box, "POST", PRODUCTS, {"name": " "})[1] == "parameter_invalid_string_blank"
    assert (
        refused(box, "POST", f"{PRODUCTS}/{product}", {"name": ""})[1] == "parameter_invalid_empty"
    )
    assert refused(box, "POST", PRODUCTS, {"name": "x", "url": "x.test"})[1:3] == (
        "url_invalid",
        "url",
    )


def test_a_product_is_updated_and_unset(box: Sandbox, product: str) -> None:
    path = f"{PRODUCTS}/{product}"
    box.advance(5)
    after = done(
        box,
        "POST",
        path,
        {"images[0]": "https://x.test/a.png", "description": "d", "active": "false"},
    )
    assert (after["images"], after["active"], after["updated"]) == (
        ["https://x.test/a.png"],
        False,
        box.now,
    )
    after = done(box, "POST", path, {"images": "", "description": ""})
    assert (after["images"], after["description"]) == ([], None)
    assert refused(box, "POST", path, {"type": "good"})[1:3] == ("parameter_unknown", "type")


def test_a_product_with_its_first_price(box: Sandbox) -> None:
    form = {
        f"default_price_data[{name}]": value
        for name, value in (("currency", "usd"), ("unit_amount", "500"))
    }
    made = done(box, "POST", PRODUCTS, {"name": "Team", **form, "expand[]": "default_price"})
    assert (
        made["default_price"]["unit_amount"] == 500
        and made["default_price"]["product"] == made["id"]
    )
    assert event_types(box) == ["product.created", "price.created", "product.updated"]


def test_a_product_goes_only_without_prices(box: Sandbox, product: str) -> None:
    made = price(box, product)
    done(box, "POST", f"{PRICES}/{made['id']}", {"active": "false"})
    message = "This product cannot be deleted because it has one or more user-created prices."
    assert refused(box, "DELETE", f"{PRODUCTS}/{product}")[::3] == (400, message)
    done(box, "DELETE", f"{PLANS}/{made['id']}")
    assert done(box, "DELETE", f"{PRODUCTS}/{product}") == {
        "id": product,
        "object": "product",
        "deleted": True,
    }
    assert refused(box, "GET", f"{PRODUCTS}/{product}")[0] == 404


# Prices


def test_a_price_is_a_plan_too(box: Sandbox, product: str) -> None:
    made = price(box, product, nickname="N", **{"metadata[k]": "v"})
    assert (made["currency"], made["unit_amount"], made["unit_amount_decimal"]) == (
        "eur",
        900,
        "900",
    )
    assert made["recurring"] == {
        "interval": "month", "interval_count": 1, "meter": None, "trial_period_days": None, "usage_type": "licensed",
    }  # fmt: skip
    plan = done(box, "GET", f"{PLANS}/{made['id']}")
    assert (plan["amount"], plan["interval"], plan["product"], plan["nickname"]) == (
        900,
        "month",
        product,
        "N",
    )
    assert sorted(event_types(box)[-2:]) == ["plan.created", "price.created"]
    assert set(made) == set(Sandbox(seed=1).create("prices"))
    shown = done(box, "GET", f"{PRICES}/{made['id']}?expand[]=currency_options&expand[]=tiers")
    assert list(shown["currency_options"]) == ["eur"] and shown["tiers"] is None


@pytest.mark.parametrize(
    ("form", "code", "param", "message"),
    [
        ({"product": ""}, "parameter_invalid_empty", "product", "You passed an empty string for 'product'."),
        ({"product": "prod_x"}, "resource_missing", "product", "No such product: 'prod_x'"),
        ({"product_data[name]": "x"}, "parameters_exclusive", "product", "You may only specify one of these parameters: product, product_data."),
        ({"unit_amount_decimal": "1"}, "parameters_exclusive", "unit_amount", "You may only specify one of these parameters: unit_amount,"),
        ({"unit_amount": "-1"}, "parameter_invalid_integer", "unit_amount", "This value must be greater than or equal to 0."),
        ({"currency": "euro"}, "", "currency", "Invalid currency: euro."),
        ({"recurring[usage_type]": "metered"}, "parameter_missing", "recurring[meter]", "Metered prices need a meter"),
        ({"recurring[interval]": "hour"}, "", "recurring[interval]", "Invalid recurring[interval]: must be one of day,"),
        ({"recurring[interval_count]": "37"}, "", "recurring[interval_count]", "The maximum billing interval is three years."),
        ({"tiers[0][up_to]": "inf", "tiers[0][unit_amount]": "1"}, "parameter_missing", "tiers_mode", "Missing required param: tiers_mode."),
    ],
)  # fmt: skip
def test_prices_that_are_refused(
    box: Sandbox, product: str, form: Object, code: str, param: str, message: str
) -> None:
    status, *found, said = refused(box, "POST", PRICES, MONTHLY | {"product": product} | form)
    assert (status, *found) == (400, code, param) and said.startswith(message)
    assert "price.created" not in event_types(box)


def test_a_price_needs_a_product_and_an_amount(box: Sandbox, product: str) -> None:
    assert refused(box, "POST", PRICES, MONTHLY)[3] == (
        "You must specify either `product` or `product_data` when creating a price."
    )
    assert refused(box, "POST", PRICES, {"currency": "usd", "product": product})[3] == (
        "Prices require an `unit_amount` or `unit_amount_decimal` parameter to be set."
    )
    tiered = {"billing_scheme": "tiered", "currency": "usd", "product": product}
    assert refused(box, "POST", PRICES, tiered)[1:3] == ("parameter_missing", "interval")


def test_amounts_with_fractions_tiers_and_free_amounts(box: Sandbox, product: str) -> None:
    whole, part = (
        done(box, "POST", PRICES, {"currency": "usd", "product": product, "unit_amount_decimal": amount})
        for amount in ("10.00", "0.5")
    )  # fmt: skip
    assert (whole["unit_amount"], whole["unit_amount_decimal"]) == (10, "10")
    assert (part["unit_amount"], part["unit_amount_decimal"], part["type"]) == (
        None,
        "0.5",
        "one_time",
    )
    tiered = done(
        box, "POST", PRICES,
        {"currency": "usd", "product": product, "recurring[interval]": "year", "billing_scheme": "tiered",
         "tiers_mode": "volume", "tiers[0][up_to]": "5", "tiers[0][unit_amount]": "7", "tiers[1][up_to]": "inf",
         "tiers[1][flat_amount]": "3", "expand[]": "tiers"},
    )  # fmt: skip
    assert [
        (tier["up_to"], tier["unit_amount"], tier["flat_amount"]) for tier in tiered["tiers"]
    ] == [(5, 7, None), (None, None, 3)]
    free = done(
        box,
        "POST",
        PRICES,
        {"currency": "usd", "product": product, "custom_unit_amount[enabled]": "true"},
    )
    assert free["custom_unit_amount"] == {"maximum": None, "minimum": None, "preset": None}


def test_most_of_a_price_never_changes(box: Sandbox, product: str) -> None:
    path = f"{PRICES}/{price(box, product)['id']}"
    for name in ("unit_amount", "currency", "product", "billing_scheme"):
        assert refused(box, "POST", path, {name: "1"})[1:] == (
            "parameter_unknown",
            name,
            f"Received unknown parameter: {name}",
        )
    after = done(
        box, "POST", path, {"nickname": "N", "tax_behavior": "inclusive", "metadata[k]": "v"}
    )
    assert (after["nickname"], after["tax_behavior"], after["metadata"]) == (
        "N",
        "inclusive",
        {"k": "v"},
    )
    assert refused(box, "POST", path, {"tax_behavior": "exclusive"})[2] == "tax_behavior"
    assert (
        done(
            box,
            "POST",
            path,
            {"currency_options[usd][unit_amount]": "950", "expand[]": "currency_options"},
        )["currency_options"]["usd"]["unit_amount"]
        == 950
    )
    assert refused(box, "DELETE", path)[3].startswith(f"Unrecognized request URL (DELETE: {path})")


def test_a_lookup_key_belongs_to_one_price_until_it_is_transferred(
    box: Sandbox, product: str
) -> None:
    old = price(box, product, lookup_key="standard")["id"]
    done(box, "POST", f"{PRICES}/{old}", {"active": "false"})
    taken = (400, "", "lookup_key", f"A price (`{old}`) already uses that lookup key.")
    assert (
        refused(box, "POST", PRICES, MONTHLY | {"product": product, "lookup_key": "standard"})
        == taken
    )
    seen = len(box.events)
    new = price(box, product, lookup_key="standard", transfer_lookup_key="true")
    assert new["lookup_key"] == "standard" and box.objects("prices")[old]["lookup_key"] is None
    told = [
        (event.type, event.object_id)
        for event in box.events[seen:]
        if event.type.startswith("price")
    ]
    assert told == [("price.updated", old), ("price.created", new["id"])]
    assert refused(box, "POST", f"{PRICES}/{old}", {"lookup_key": "standard"})[2] == "lookup_key"
    assert (
        done(box, "POST", f"{PRICES}/{new['id']}", {"lookup_key": "standard"})["lookup_key"]
        == "standard"
    )


def test_the_default_price_is_not_archived(box: Sandbox, product: str) -> None:
    first, second = price(box, product)["id"], price(box, product)["id"]
    done(box, "POST", f"{PRODUCTS}/{product}", {"default_price": first})
    message = "This price cannot be archived because it is the default price of its product."
    assert refused(box, "POST", f"{PRICES}/{first}", {"active": "false"})[3] == message
    done(box, "POST", f"{PRODUCTS}/{product}", {"default_price": second})
    assert done(box, "POST", f"{PRICES}/{first}", {"active": "false"})["active"] is False
    other = done(box, "POST", PRODUCTS, {"name": "Other"})["id"]
    assert (
        refused(box, "POST", f"{PRODUCTS}/{other}", {"default_price": second})[2] == "default_price"
    )


def test_a_price_may_bring_its_product(box: Sandbox) -> None:
    made = done(
        box, "POST", PRICES, MONTHLY | {"product_data[name]": "New", "product_data[id]": "new"}
    )
    assert made["product"] == "new" and box.objects("products")["new"]["name"] == "New"
    again = refused(
        box, "POST", PRICES, MONTHLY | {"product_data[name]": "New", "product_data[id]": "new"}
    )
    assert again[1] == "resource_already_exists"


# Plans


def test_a_plan_is_a_price_too(box: Sandbox, product: str) -> None:
    form = {
        "id": "gold",
        "amount": "1500",
        "currency": "usd",
        "interval": "year",
        "product": product,
        "trial_period_days": "7",
    }
    made = done(box, "POST", PLANS, form)
    assert (made["id"], made["amount"], made["interval"], made["trial_period_days"]) == (
        "gold",
        1500,
        "year",
        7,
    )
    assert done(box, "GET", f"{PRICES}/gold")["unit_amount"] == 1500
    assert refused(box, "POST", PLANS, form)[1] == "resource_already_exists"
    assert refused(box, "POST", f"{PLANS}/gold", {"amount": "1"})[1] == "parameter_unknown"
    assert (
        done(box, "POST", f"{PLANS}/gold", {"nickname": "G", "active": "false"})["nickname"] == "G"
    )
    assert box.objects("prices")["gold"]["active"] is False
    assert done(box, "DELETE", f"{PLANS}/gold") == {"id": "gold", "object": "plan", "deleted": True}
    assert refused(box, "GET", f"{PRICES}/gold")[0] == 404
    brief = {"amount": "1", "currency": "usd", "interval": "day", "product[name]": "Inline"}
    inline = done(box, "POST", PLANS, brief)
    assert box.objects("products")[inline["product"]]["name"] == "Inline"


# Coupons


def test_a_coupon_is_made_read_changed_and_deleted(box: Sandbox) -> None:
    made = done(
        box,
        "POST",
        COUPONS,
        {"id": "SPRING", "percent_off": "12.5", "duration": "repeating", "duration_in_months": "3"},
    )
    assert (made["percent_off"], made["duration_in_months"], made["valid"]) == (12.5, 3, True)
    assert done(box, "GET", f"{COUPONS}/SPRING") == made
    other = done(
        box,
        "POST",
        COUPONS,
        {"amount_off": "500", "currency": "EUR", "applies_to[products][0]": "prod_1"},
    )
    assert (other["currency"], other["duration"]) == ("eur", "once")
    assert [one["id"] for one in done(box, "GET", COUPONS)["data"]] == [other["id"], "SPRING"]
    assert done(box, "GET", f"{COUPONS}/{other['id']}?expand[]=applies_to")["applies_to"] == {
        "products": ["prod_1"]
    }
    assert done(box, "POST", f"{COUPONS}/SPRING", {"name": "Spring"})["name"] == "Spring"
    assert done(box, "DELETE", f"{COUPONS}/SPRING")["deleted"] is True
    assert event_types(box) == [
        "coupon.created",
        "coupon.created",
        "coupon.updated",
        "coupon.deleted",
    ]


@pytest.mark.parametrize(
    ("form", "param"),
    [
        ({}, "percent_off"), ({"percent_off": "101"}, "percent_off"), ({"percent_off": "1", "amount_off": "1"}, ""),
        ({"amount_off": "5"}, "currency"), ({"percent_off": "5", "duration": "repeating"}, "duration_in_months"),
        ({"percent_off": "5", "redeem_by": "1"}, "redeem_by"), ({"percent_off": "x"}, "percent_off"),
        ({"percent_off": "5", "name": "n" * 41}, "name"),
    ],
)  # fmt: skip
def test_coupons_that_are_refused(box: Sandbox, form: Object, param: str) -> None:
    assert refused(box, "POST", COUPONS, form)[::2] == (400, param)


# Over the wire


def test_the_official_client_replaces_a_price(box: Sandbox) -> None:
    with box.serve() as url:
        client = stripe.StripeClient(box.key, base_addresses={"api": url}, max_network_retries=0)
        product = client.v1.products.create(
            {
                "name": "Team",
                "default_price_data": {
                    "currency": "usd",
                    "unit_amount": 500,
                    "recurring": {"interval": "month"},
                },
            }
        )
        old = str(product.default_price)
        client.v1.prices.update(old, {"lookup_key": "team"})
        new = client.v1.prices.create(
            {"product": product.id, "currency": "usd", "unit_amount": 600, "recurring": {"interval": "month"},
             "lookup_key": "team", "transfer_lookup_key": True}
        )  # fmt: skip
        client.v1.products.update(product.id, {"default_price": new.id})
        archived = client.v1.prices.update(old, {"active": False})
        found = client.v1.prices.list({"lookup_keys": ["team"]})
    assert (archived.active, archived.lookup_key, [one.id for one in found.data]) == (
        False,
        None,
        [new.id],
    )


def test_the_price_in_a_subscription_shows_the_change(box: Sandbox, product: str) -> None:
    made = price(box, product)["id"]
    id = box.create("subscriptions", items=[{"price": made}])["id"]
    assert send(box, "POST", f"{PRICES}/{made}", {"nickname": "Shown"}).status == 200
    shown = json.loads(send(box, "GET", f"/v1/subscriptions/{id}").body)
    assert shown["items"]["data"][0]["price"]["nickname"] == "Shown"
