"""What people write today: the official SDK's lists, its objects as dicts, and dlt's defaults.
Usage: rival.py URL KEY FILE.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import dlt
import stripe

NAMES = ("customers", "products", "prices", "plans", "subscriptions", "invoices")


def rows(client: stripe.StripeClient, name: str) -> Iterator[list[dict[str, Any]]]:
    params: dict[str, Any] = {
        "limit": 100,
        **({"status": "all"} if name == "subscriptions" else {}),
    }
    page = getattr(client.v1, name).list(params)
    while True:
        yield [item.to_dict(for_json=True) for item in page.data]
        if not page.has_more:
            return
        page = getattr(client.v1, name).list({**params, "starting_after": page.data[-1].id})


def main(url: str, key: str, file: str) -> None:
    client = stripe.StripeClient(key, base_addresses={"api": url}, max_network_retries=2)
    found = [
        dlt.resource(rows(client, name), name=name, primary_key="id", write_disposition="merge")
        for name in NAMES
    ]
    pipeline = dlt.pipeline(
        "rival",
        destination=dlt.destinations.duckdb(file),
        dataset_name="stripe",
        pipelines_dir=file + ".state",
    )
    pipeline.run(found)


if __name__ == "__main__":
    main(*sys.argv[1:])
