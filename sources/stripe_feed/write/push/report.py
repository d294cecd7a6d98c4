"""A plan or a result as JSON, and a plan as one page of HTML."""

from __future__ import annotations

import json
from html import escape
from typing import Any

from ...api.rate_limits import ENDPOINT_RPS
from .decision import Decision
from .run import Plan, Result

STYLE = (
    "body{font:15px system-ui;margin:2em}table{border-collapse:collapse}"
    "td,th{border:1px solid #ccc;padding:.3em .6em;text-align:left;vertical-align:top}"
)


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


def plan_to_html(plan: Plan) -> str:
    """A plan as one page. Whatever rows and objects hold is escaped."""
    counts = ", ".join(f"{name} {count}" for name, count in plan.counts().items())
    rows = "".join(_html_row(one) for one in plan.decisions if one.action != "none")
    refusal = f"<p><strong>{escape(plan.refusal)}</strong></p>" if plan.refusal else ""
    title = f"{plan.push.name}: {plan.push.mode} of {plan.push.object}"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{STYLE}</style><h1>{escape(title)}</h1><p>{escape(counts)}. {plan.writes} writes, "
        f"about {seconds(plan):g} s.</p>{refusal}<table><tr><th>row<th>action<th>object<th>field"
        f"<th>before<th>after<th>why</tr>{rows}</table></html>\n"
    )


def _html_row(one: Decision) -> str:
    why = " ".join((one.reason, *one.notes)).strip()
    head = [one.key, one.action, one.object_id or ""]
    changes = [[c.field, _shown(c.before), _shown(c.after)] for c in one.changes] or [["", "", ""]]
    lines = [
        [*(head if n == 0 else [""] * 3), *change, why if n == 0 else ""]
        for n, change in enumerate(changes)
    ]
    return "".join(f"<tr>{''.join(f'<td>{escape(cell)}' for cell in line)}</tr>" for line in lines)


def _shown(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return json.dumps(value, default=str)
