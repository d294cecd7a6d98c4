"""Dagster (1.10 or newer): a copy of each connected account as a partition; new accounts become partitions, and each
is brought up to date every hour.

`dagster dev -f dagster_accounts.py`. The key of the platform comes from STRIPE_SECRET_KEY or
.dlt/secrets.toml. Dagster's concurrency pool `stripe` says how many accounts are read at once.
"""

import os

import dagster as dg

from stripe_feed import connected_accounts, sync

FOLDER = os.environ.get("STRIPE_FOLDER", ".")
ACCOUNTS = dg.DynamicPartitionsDefinition(name="stripe_accounts")


@dg.asset(partitions_def=ACCOUNTS, pool="stripe")
def account_copy(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
    """The tables and changes of one account, in a file of its own."""
    account = context.partition_key
    done = sync(
        account=account, database=f"{FOLDER}/stripe_feed_{account.lower()}.duckdb", wait=600
    )
    return dg.MaterializeResult(metadata={**done.rows, "requests": done.requests})


copies = dg.define_asset_job("copies", selection=[account_copy])


@dg.schedule(job=copies, cron_schedule="7 * * * *")
def hourly_accounts(context: dg.ScheduleEvaluationContext) -> list[dg.RunRequest]:
    """A run per connected account. One that is no longer connected keeps its partition and copy."""
    accounts = connected_accounts()
    context.instance.add_dynamic_partitions(str(ACCOUNTS.name), accounts)
    hour = f"{context.scheduled_execution_time:%Y-%m-%dT%H}"
    return [dg.RunRequest(run_key=f"{hour} {id}", partition_key=id) for id in accounts]


defs = dg.Definitions(assets=[account_copy], jobs=[copies], schedules=[hourly_accounts])
