"""Random writes: the sandbox answers each of them, and its objects stay consistent."""

from __future__ import annotations

import json
from collections import Counter
from random import Random
from urllib.parse import urlencode

import pytest

from stripe_feed.sandbox import Sandbox
from stripe_feed.sandbox.http.routes import ROUTES, Route
from stripe_feed.sandbox.protocol.write_parameters import Spec, specs
from tests.writing import done, new_customer, send

TABLES = {
    "customer": "customers", "price": "prices", "plan": "plans", "product": "products", "default_price": "prices",
    "subscription": "subscriptions", "invoice": "invoices", "coupon": "coupons", "quote": "quotes",
}  # fmt: skip
USUAL = {"customer", "items", "price", "quantity", "unit_amount", "product", "line_items"}
TEXTS = {"currency": "usd", "email": "a@b.test", "url": "https://x.test"}
DESTRUCTIVE = {"customer_delete", "plan_delete", "product_delete", "subscription_cancel"}


class Writer:
    """Makes random requests out of the table of parameters."""

    def __init__(self, box: Sandbox, rng: Random) -> None:
        self.box, self.rng = box, rng

    def request(self, route: Route) -> tuple[str, dict[str, str]]:
        form: dict[str, str] = {}
        for name, spec in specs()[route.verb].inner.items():
            if spec.required or self.rng.random() < (0.95 if name in USUAL else 0.05):
                self.fill(spec, name, name, form)
        path = route.place[1]
        is_item = path.startswith("/v1/subscription_items")
        own = self.items() if is_item else self.ids(route.table)
        return path.replace(":id", self.rng.choice(own), 1).replace(":id", "txi_1"), form

    def fill(self, spec: Spec, name: str, last: str, form: dict[str, str]) -> None:
        if "hash" in spec.kinds:
            for key, inner in spec.inner.items():
                usual = key in USUAL and self.rng.random() < 0.8
                if key not in ("[]", "*") and (inner.required or usual or self.rng.random() < 0.1):
                    self.fill(inner, f"{name}[{key}]", key, form)
        elif "list" in spec.kinds:
            self.fill(spec.inner["[]"], f"{name}[0]", last, form)
        elif "map" in spec.kinds:
            self.fill(spec.inner["*"], f"{name}[eur]", last, form)
        else:
            form[name] = self.value(spec, last)

    def value(self, spec: Spec, last: str) -> str:
        if self.rng.random() < 0.02:
            return ""
        if last in TABLES:
            return self.rng.choice(self.ids(TABLES[last]))
        kind = self.rng.choice(spec.kinds or ("string",))
        match kind:
            case "integer":
                return str(self.rng.choice([0, 1, 5, 100, self.box.now + 10_000, -1]))
            case "boolean":
                return self.rng.choice(["true", "false"])
            case "number" | "decimal":
                return self.rng.choice(["1", "2.5", "50"])
            case "string" | "any":
                return TEXTS.get(last, "abc")
        return self.rng.choice(kind.removeprefix("=").split("|"))

    def ids(self, table: str) -> list[str]:
        return list(self.box.account.tables[table].rows)[-12:] or ["x"]

    def items(self) -> list[str]:
        return list(self.box.children("subscription_items"))[-12:] or ["si_x"]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_every_write_is_answered(seed: int) -> None:
    box, rng = Sandbox(seed=seed, customers=3, oddities=False), Random(seed)
    writer, statuses = Writer(box, rng), Counter[int]()
    for place in range(6):
        new_customer(box, **{"invoice_settings[default_payment_method]": "pm_1"})
        cycle = {"recurring[interval]": "month"} if place % 3 else {}
        form = {"product_data[name]": "x", "currency": "usd", "unit_amount": "500"}
        done(box, "POST", "/v1/prices", form | cycle)
    for _ in range(1500):
        route = rng.choice(list(ROUTES.values()))
        if route.verb in DESTRUCTIVE and rng.random() < 0.8:
            continue
        path, given = writer.request(route)
        target = f"{path}?{urlencode(given)}" if route.method == "DELETE" else path
        answer = send(box, route.method, target, {} if route.method == "DELETE" else given)
        statuses[answer.status] += 1
        assert answer.status in (200, 400, 402, 404), (target, given, box.account.failures)
        box.advance(rng.choice([0, 0, 0, 60, 86_400]))

    assert statuses[200] > 100
    _check_consistency(box)


def _check_consistency(box: Sandbox) -> None:
    keys = Counter(price["lookup_key"] for price in box.objects("prices").values())
    assert all(count == 1 for key, count in keys.items() if key)
    lines = Counter[str]()
    for line in box.children("invoice_line_items").values():
        lines[line["invoice"]] += line["amount"] + sum(tax["amount"] for tax in line["taxes"])
    for id, invoice in box.objects("invoices").items():
        assert invoice["total"] == lines[id]
    last = {(event.table, event.object_id): event for event in box.events}
    for (table, id), event in last.items():
        if table == "subscriptions":
            assert (
                json.loads(event.body)["data"]["object"]["status"]
                == box.objects(table)[id]["status"]
            )
