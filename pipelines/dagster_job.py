"""Dagster: the copy as an asset, an hourly schedule, and a sensor that starts a run for each change
of a subscription's status.

`dagster dev -f dagster_job.py`. The key comes from STRIPE_SECRET_KEY or .dlt/secrets.toml.
"""

import os

import dagster as dg

from stripe_feed import open_feed, open_pipeline, sync

DATABASE = os.environ.get("STRIPE_DATABASE", "stripe_feed.duckdb")


@dg.asset
def stripe_copy(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
    """The tables and changes of the account."""
    done = sync(database=DATABASE, wait=600)
    return dg.MaterializeResult(
        metadata={**done.rows, "requests": done.requests, "seconds": done.seconds}
    )


@dg.op(config_schema={"change_id": str, "object_id": str})
def handle(context: dg.OpExecutionContext) -> None:
    """Replace this with the play."""
    context.log.info(
        "%s changed (%s)", context.op_config["object_id"], context.op_config["change_id"]
    )


@dg.job
def on_change() -> None:
    """One run per change."""
    handle()


@dg.sensor(job=on_change, minimum_interval_seconds=60)
def subscription_status(context: dg.SensorEvaluationContext) -> dg.SensorResult:
    """A run per change, whose id is the run key: Dagster stores the cursor after the runs are
    there, and starts none twice.
    """
    with open_feed(open_pipeline(DATABASE)) as feed:
        after = int(context.cursor or feed.head)
        changes = feed.read(after, 100, resource="subscriptions", changed="status")
        upto = changes[-1].offset if len(changes) == 100 else feed.head
    runs = []
    for change in changes:
        config = {"change_id": change.change_id, "object_id": change.object_id}
        runs.append(dg.RunRequest(change.change_id, {"ops": {"handle": {"config": config}}}))
    return dg.SensorResult(run_requests=runs, cursor=str(upto))


hourly = dg.ScheduleDefinition(
    name="hourly", target=dg.AssetSelection.assets(stripe_copy), cron_schedule="7 * * * *"
)
defs = dg.Definitions(
    assets=[stripe_copy], jobs=[on_change], schedules=[hourly], sensors=[subscription_status]
)
