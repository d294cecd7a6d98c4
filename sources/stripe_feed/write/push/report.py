"""What a run would do or did: a plan and a result, as JSON, and a plan as one page of HTML."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Any, Literal

from ...api.rate_limits import ENDPOINT_RPS
from ...currencies import in_major_units
from ...errors import StripeFeedError
from ...wording import counted
from .decision import Decision
from .definition import Definition

IN_SMALLEST_UNIT = (
    "amount",
    "unit_amount",
    "unit_amount_decimal",
)  # in the smallest unit of the currency
STYLE = (
    "body{font:15px system-ui;margin:2em}table{border-collapse:collapse}"
    "td,th{border:1px solid #ccc;padding:.3em .6em;text-align:left;vertical-align:top}"
)


PushStatus = Literal[
    "created", "updated", "deleted", "unchanged", "skipped", "rejected", "unknown", "not_sent"
]
STATUSES: tuple[PushStatus, ...] = (
    "created", "updated", "deleted", "unchanged", "skipped", "rejected", "unknown", "not_sent",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class RowResult:
    """What became of a row that was not as it was before."""

    key: str
    status: PushStatus
    object_id: str | None = None
    reason: str = ""
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run would do; `unchanged` rows are only counted."""

    push: Definition
    decisions: tuple[Decision, ...]
    unchanged: int
    refusal: str = ""  # why a run would stop before it sends anything
    creations: int = 0  # of other objects that rows name

    def counts(self) -> dict[str, int]:
        """How many rows need what."""
        found = Counter(decision.action for decision in self.decisions)
        return {
            "create": found["create"],
            "update": found["update"],
            "delete": found["delete"],
            "settle": found["settle"],
            "unchanged": self.unchanged + found["none"],
            "skip": found["skip"] + found["drop"],
            "reject": found["reject"],
        }

    @property
    def writes(self) -> int:
        """How many requests a run would send, look-ups aside."""
        return self.creations + sum(len(decision.steps) for decision in self.decisions)


@dataclass(frozen=True, slots=True)
class Result:
    """What a run did; `error` is what stopped it."""

    push: Definition
    run: int
    rows: tuple[RowResult, ...]
    unchanged: int
    error: StripeFeedError | None = None

    def counts(self) -> dict[str, int]:
        """How many rows ended how."""
        found = Counter(row.status for row in self.rows)
        found["unchanged"] += self.unchanged
        return {status: found[status] for status in STATUSES}

    @property
    def exit_code(self) -> int:
        """What the command line ends with."""
        if self.error is not None:
            return self.error.exit_code
        counts = self.counts()
        return 4 if counts["rejected"] or counts["unknown"] else 0


def plan_to_dict(plan: Plan) -> dict[str, Any]:
    """A plan as JSON has it; unchanged rows are only counted."""
    return {
        "push": plan.push.name,
        "object": plan.push.object,
        "mode": plan.push.mode,
        "counts": plan.counts(),
        "writes": plan.writes,
        "seconds": seconds(plan),
        "refusal": plan.refusal or None,
        "rows": [_decision(one) for one in plan.decisions if one.action != "none"],
    }


def seconds(plan: Plan) -> float:
    """How long the writes of a plan take at the usual rate."""
    return round(plan.writes / ENDPOINT_RPS, 1)


def _decision(one: Decision) -> dict[str, Any]:
    return {
        "key": one.key,
        "action": one.action,
        "object_id": one.object_id,
        "changes": [
            {"field": change.field, "before": change.before, "after": change.after}
            for change in one.changes
        ],
        "reason": one.reason or None,
        "notes": list(one.notes),
        "requests": [
            {"method": step.method.upper(), "path": step.path, "params": step.params}
            for step in one.steps
        ],
    }


def result_to_dict(result: Result) -> dict[str, Any]:
    """A result as JSON has it; unchanged rows are only counted."""
    return {
        "push": result.push.name,
        "object": result.push.object,
        "run": result.run,
        "counts": result.counts(),
        "error": str(result.error) if result.error else None,
        "rows": [
            {
                "key": row.key,
                "status": row.status,
                "object_id": row.object_id,
                "reason": row.reason or None,
                "request_id": row.request_id,
            }
            for row in result.rows
            if row.status != "unchanged"
        ],
    }


def money_of(row: Mapping[str, Any], field: str, value: Any) -> str:
    """An amount of a row of a plan in major units, by which somebody sees that it was meant so; empty
    for anything else, or if the requests name no currency.
    """
    params = row["requests"][0]["params"] if row["requests"] else {}
    amount = in_major_units(value, params.get("currency")) if field in IN_SMALLEST_UNIT else None
    return "" if amount is None else f"({amount} {str(params['currency']).upper()})"


def plan_to_html(plan: Plan) -> str:
    """A plan as one page. Whatever rows and objects hold is escaped."""
    counts = ", ".join(f"{name} {count}" for name, count in plan.counts().items())
    rows = "".join(_html_row(one) for one in plan.decisions if one.action != "none")
    refusal = f"<p><strong>{escape(plan.refusal)}</strong></p>" if plan.refusal else ""
    title = f"{plan.push.name}: {plan.push.mode} of {plan.push.object}"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{STYLE}</style><h1>{escape(title)}</h1><p>{escape(counts)}. {counted(plan.writes, 'write')}, "
        f"about {seconds(plan):g} s.</p>{refusal}<table><tr><th>row<th>action<th>object<th>field"
        f"<th>before<th>after<th>why</tr>{rows}</table></html>\n"
    )


def _html_row(one: Decision) -> str:
    why = " ".join((one.reason, *one.notes)).strip()
    head, row = [one.key, one.action, one.object_id or ""], _decision(one)
    changes = [
        [c.field, _shown(c.before), f"{_shown(c.after)} {money_of(row, c.field, c.after)}".strip()]
        for c in one.changes
    ] or [["", "", ""]]
    lines = [
        [*(head if n == 0 else [""] * 3), *change, why if n == 0 else ""]
        for n, change in enumerate(changes)
    ]
    return "".join(f"<tr>{''.join(f'<td>{escape(cell)}' for cell in line)}</tr>" for line in lines)


def _shown(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return json.dumps(value, default=str)
