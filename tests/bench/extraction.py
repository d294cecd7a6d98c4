"""Extraction alone, without normalize and load: prints the seconds. Usage: extraction.py URL KEY
FILE RPS ENDPOINT_RPS.
"""

from __future__ import annotations

import sys
import time

import dlt

from stripe_feed import stripe_source


def main(url: str, key: str, file: str, rps: str, endpoint_rps: str) -> None:
    pipeline = dlt.pipeline(
        "extraction",
        destination=dlt.destinations.duckdb(file),
        dataset_name="stripe",
        pipelines_dir=file + ".state",
    )
    source = stripe_source(key, api_base=url, max_rps=float(rps), endpoint_rps=float(endpoint_rps))
    began = time.monotonic()
    pipeline.extract(source)
    print(time.monotonic() - began)


if __name__ == "__main__":
    main(*sys.argv[1:])
