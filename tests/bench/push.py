"""What a push costs: `python tests/bench/run.py --only push`. Its parts run as processes of their own:
`push.py URL KEY FOLDER MODE ROWS` runs, `push.py URL KEY FOLDER DATABASE` plans, and `push.py floor DATABASE`
compares by hand.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RATE = 200  # requests per second that the sandbox allows
ROWS, BAD = 10_000, 0.03
CUSTOMERS = 100_000
CRM: dict[str, Any] = {
    "name": "crm", "object": "customers", "key": "n", "match": "email",
    "map": {"email": "email", "name": "name", "metadata.tier": "tier", "address.city": "city",
            "phone": "phone", "tax_exempt": "exempt"},
}  # fmt: skip
PLANNED = """
    select id as n, email, name || case when hash(id) % 2 = 0 then ' x' else '' end as name,
           'gold' as tier, 'Bonn' as city, phone, null as exempt
    from customers
    where deleted_at is null and email is not null
    qualify row_number() over (partition by lower(email) order by id) = 1
"""
FLOOR = "select id, lower(email), email, name, phone, metadata, address from customers where deleted_at is null"


def rate(tools: Any) -> None:
    """10,000 rows, 3 % of them bad, at the rate limit."""
    flags = {"customers": 0, "invoices": 0, "subscriptions": 0}
    with (
        tempfile.TemporaryDirectory() as folder,
        tools.sandbox(0, **flags, rate=RATE, endpoint_rate=RATE, latency=0.05) as box,
    ):
        cost = tools.script("push", box, Path(folder), "insert", str(ROWS))
        by_status = box.requests()
    told = json.loads(cost.out)
    sent, share = _share_of_rate(by_status, told["seconds"])
    tools.show(
        f"writes of {ROWS:,} rows / allowed", f"{share:.1%}", ">= 95 %", share >= 0.95,
        f"{sent} in {told['seconds']:.1f} s, CPU {cost.cpu:.1f} s; refused by the limit: {by_status.get('429', 0)}",
    )  # fmt: skip
    counts, bad = told["counts"], round(ROWS * BAD)
    tools.show(
        "bad rows with a reason, exit code", f"{told['reasons']}, {told['exit_code']}", f"{bad}, 4",
        (told["reasons"], told["exit_code"], counts["created"]) == (bad, 4, ROWS - bad),
        str(told["kinds"]),
    )  # fmt: skip
    tools.show("peak memory of a push", f"{cost.rss} MB", "<= 300 MB", cost.rss <= 300)


def upsert(tools: Any) -> None:
    """An upsert by e-mail: each row is looked for first, and half of them exist. Fewer rows, since the
    sandbox walks all customers for each filtered list.
    """
    count = ROWS // 5
    flags = {"customers": 0, "invoices": 0, "subscriptions": 0}
    with (
        tempfile.TemporaryDirectory() as folder,
        tools.sandbox(0, **flags, rate=RATE, endpoint_rate=RATE, latency=0.05) as box,
    ):
        tools.script("push", box, Path(folder), "insert", str(count // 2))
        box.call("reset_counts", {})
        cost = tools.script("push", box, Path(folder), "upsert", str(count))
        by_status = box.requests()
    told = json.loads(cost.out)
    sent, share = _share_of_rate(by_status, told["seconds"])
    tools.show(
        f"requests of an upsert of {count:,} rows / allowed", f"{share:.1%}", ">= 95 %", share >= 0.95,
        f"{sent} in {told['seconds']:.1f} s, CPU {cost.cpu:.1f} s; {told['counts']}",
    )  # fmt: skip


def _share_of_rate(by_status: Mapping[str, int], seconds: float) -> tuple[int, float]:
    """How many requests were sent, and their share of what the rate allows."""
    sent = by_status.get("200", 0) + by_status.get("400", 0) - 1  # the account is read
    return sent, sent / seconds / RATE


def plan(tools: Any) -> None:
    """A plan of 100,000 rows over 100,000 customers of a fresh copy."""
    with (
        tempfile.TemporaryDirectory() as folder,
        tools.sandbox(0, customers=CUSTOMERS, invoices=1, subscriptions=1) as box,
    ):
        for _ in range(2):  # events follow the first lists
            tools.sync(Path(folder), box, "--resources", "customers", *tools.UNPACED)
        database = str(Path(folder) / "copy.duckdb")
        floor = tools.measure([sys.executable, __file__, "floor", database])
        cost = tools.script("push", box, Path(folder), database)
    told = json.loads(cost.out)
    ratio = cost.cpu / floor.cpu
    tools.show(
        "CPU of a plan / comparison without any check", f"{ratio:.1f}x", "<= 18x", ratio <= 18,
        f"{cost.cpu:.1f} s / {floor.cpu:.1f} s; {cost.rss} MB",
    )  # fmt: skip
    tools.show(
        f"CPU of a plan of {told['rows']:,} rows", f"{told['cpu']:.1f} s", "<= 20 s",
        told["cpu"] <= 20, f"wall {told['seconds']:.1f} s; {told['counts']}",
    )  # fmt: skip
    tools.show("requests of a plan", str(told["requests"]), "1 (whose key)", told["requests"] == 1)


def push_rows(count: int) -> list[dict[str, Any]]:
    """Rows of which 3 % cannot be sent: half of those we find, and half Stripe refuses."""
    rows: list[dict[str, Any]] = []
    for n in range(count):
        bad = n % round(1 / BAD) == 0 and n // round(1 / BAD) < count * BAD
        kind = n // round(1 / BAD) % 4 if bad else None
        rows.append({
            "n": n, "email": "nobody" if kind == 0 else f"p{n}@example.com", "name": f"P {n}",
            "tier": 10**5_000 if kind == 1 else "gold", "city": "Bonn",
            "phone": None, "exempt": "perhaps" if kind in (2, 3) else None,
        })  # fmt: skip
    return rows


def run_rows(url: str, key: str, mode: str, count: int) -> None:
    """Push some of the rows, and print what came of them."""
    from stripe_feed import open_push

    definition = CRM | {"mode": mode, "match": None if mode == "insert" else "email"}
    with (
        tempfile.TemporaryDirectory() as folder,
        open_push(
            definition, key, base=url, log=Path(folder) / "push.sqlite", max_rps=RATE, endpoint_rps=RATE
        ) as push,
    ):  # fmt: skip
        began = time.monotonic()
        result = push.run(push_rows(count))
        seconds = time.monotonic() - began
    rejected = [row for row in result.rows if row.status == "rejected"]
    kinds = Counter(row.reason[:40] for row in rejected)
    print(json.dumps({
        "seconds": seconds, "counts": result.counts(), "exit_code": result.exit_code,
        "reasons": sum(bool(row.reason) for row in rejected), "kinds": kinds,
    }))  # fmt: skip


def plan_rows(url: str, key: str, database: str) -> None:
    """Plan the rows of a query on the copy, and print what came of it."""
    from stripe_feed import open_push
    from stripe_feed.write.push.rows import query_rows

    with (
        tempfile.TemporaryDirectory() as folder,
        open_push(CRM, key, base=url, log=Path(folder) / "push.sqlite", database=database) as push,
    ):
        began, cpu = time.monotonic(), time.process_time()
        rows = query_rows(PLANNED, database)
        planned = push.plan(rows)
        print(json.dumps({
            "seconds": time.monotonic() - began, "cpu": time.process_time() - cpu,
            "rows": len(rows), "counts": planned.counts(),
            "requests": sum(push.lookup.api.counts.values()),
        }))  # fmt: skip


def floor_rows(database: str) -> None:
    """The same comparison by hand: both sides as rows, JSON decoded, fields compared."""
    import duckdb
    import msgspec

    with duckdb.connect(database, read_only=True) as db:
        db.execute("set schema = 'stripe'")
        wanted = db.execute(PLANNED).fetchall()
        held = {row[1]: row for row in db.execute(FLOOR).fetchall()}
    changed = []
    for n, email, name, tier, city, phone, _ in wanted:
        _, _, old_email, old_name, old_phone, metadata, address = held[email.lower()]
        old_metadata = msgspec.json.decode(metadata or "{}")
        old_address = msgspec.json.decode(address or "null") or {}
        before = (old_email, old_name, old_metadata.get("tier"), old_address.get("city"), old_phone)
        after = (email, name, tier, city, phone)
        if before != after:
            changed.append((n, before, after))
    print(len(changed))


if __name__ == "__main__":
    given = sys.argv[1:]
    if given[0] == "floor":
        floor_rows(given[1])
    elif len(given) == 4:
        plan_rows(given[0], given[1], given[3])
    else:
        run_rows(given[0], given[1], given[3], int(given[4]))
