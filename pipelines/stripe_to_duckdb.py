"""Load a Stripe account into stripe_feed.duckdb; run it again for what happened since.

The key comes from STRIPE_SECRET_KEY, or from `api_key` under [sources.stripe_feed] in
.dlt/secrets.toml.
"""

import dlt

from stripe_feed import stripe_source

if __name__ == "__main__":
    pipeline = dlt.pipeline("stripe_feed", destination="duckdb", dataset_name="stripe")
    pipeline.run(stripe_source())
    for table, rows in pipeline.dataset().row_counts().fetchall():
        print(f"{table:<20} {rows:>10,}")
