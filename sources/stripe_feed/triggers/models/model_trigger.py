"""A trigger on a model: rows that enter it, leave it or change, and the endpoint for its messages."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from ...delivery.endpoint_config import EndpointConfig
from ...feed.change import Change
from ..expressions import Expression
from ..trigger import Enrol, Guard, Per, Trigger

RowEvent = Literal["entered", "left", "changed"]
ROW_EVENTS: dict[str, str] = {"entered": "c", "left": "d", "changed": "u"}
"""What can happen to a row of a model, and the `op` of its message."""

DEFAULT_EVERY = 600  # seconds between evaluations without a load

MODEL_PRESETS: dict[str, dict[str, Any]] = {
    "invoice_overdue": {"model": "overdue_invoices", "key": "invoice_id"},
    "subscription_renewing_soon": {
        "model": "renewals_due",
        "rows": "is_renewing and not is_trial_end and days_until_renewal <= 7",
        "key": ["subscription_id", "renews_at"],
        "enrol": "once",
    },
    "trial_ending_soon": {
        "model": "renewals_due",
        "rows": "is_trial_end and days_until_renewal <= 3",
        "key": ["subscription_id", "renews_at"],
        "enrol": "once",
    },
    "customer_churned": {
        "model": "churn_events",
        "key": ["customer_id", "churned_at", "currency"],
    },
    "mrr_dropped": {
        "model": "mrr_monthly_customer",
        "rows": "not is_complete",
        "key": ["customer_id", "currency"],
        "watch": "mrr",
        "on": ["changed", "left"],
        "where": "change.op == 'd' or after.mrr < before.mrr",
    },
}
"""Rules on models by name; a trigger's own settings replace those of its preset."""


@dataclass(frozen=True, slots=True)
class ModelTrigger:
    """A rule on the rows of a model, or of the user's own SQL, and the endpoint that gets a message
    for each row that meets it.

    `model` is the name in messages; `rows`, a condition in SQL, selects the rows that count; `on`
    are events of rows, and `watch` the columns whose changes count. `every`: seconds after which it
    is evaluated though nothing was loaded.
    """

    name: str
    model: str
    key: tuple[str, ...]
    deliver: EndpointConfig
    sql: str | None = None
    rows: str | None = None
    watch: tuple[str, ...] = ()
    on: tuple[RowEvent, ...] = ("entered",)
    every: int = DEFAULT_EVERY
    where: Expression | None = None
    enrol: Enrol = field(default_factory=Enrol)
    per: Per = "object_id"
    guard: Guard = field(default_factory=Guard)

    @property
    def related_tables(self) -> frozenset[str]:
        """The related objects that its rule must look up."""
        return self.where.related_tables if self.where else frozenset()

    @property
    def keeps_rows(self) -> bool:
        """Whether its messages need the previous rows."""
        return self.on != ("entered",)

    @property
    def rule(self) -> str:
        """What its rows depend on, as text: if it changes, the next evaluation is a new baseline."""
        parts = (self.model, self.sql, self.rows, self.key, self.watch, self.on)
        return msgspec.json.encode(parts).decode()

    def lane(self, change: Change) -> str:
        """The key that is enrolled and ordered by: the customer or the row."""
        return (change.customer_id if self.per == "customer_id" else None) or change.object_id


AnyTrigger = Trigger | ModelTrigger
