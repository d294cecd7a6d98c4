"""A dlt resource that takes the hints it can follow and refuses the others at once; what a run
leaves on disk stays private.
"""

from __future__ import annotations

import inspect
import os
from contextlib import suppress
from typing import Any

import dlt
from dlt.extract import DltResource

from ...destination.place import place_of
from ...errors import UsageError

OURS: dict[str, tuple[Any, ...]] = {
    "parent_table_name": (),
    "primary_key": ("id", ["id"], ("id",)),
    "merge_key": (),
    "incremental": (),
    "write_disposition": ("merge",),
}
"""Hints that tables, merges and cursors rely on, and the values that change nothing."""

PRIVATE = (
    "delete_completed_jobs",
    "truncate_staging_dataset",
)  # or rows stay in dlt's folder and in its staging dataset
KEEPS_NAME = "it keeps its name, for others refer to it. Use another dataset_name, or a view."


class StripeResource(DltResource):
    """A resource whose tables have their names, keys and merges."""

    def apply_hints(self, *given: Any, **hints: Any) -> StripeResource:
        """As dlt's. Raises `UsageError` for what would double or lose rows."""
        asked = inspect.signature(DltResource.apply_hints).bind(self, *given, **hints).arguments
        if not asked.get("create_table_variant"):
            self._check(asked)
        super().apply_hints(*given, **hints)
        return self

    def _check(self, asked: dict[str, Any]) -> None:
        if asked.get("table_name") not in (None, self.name):
            raise UsageError(f"{self.name}: {KEEPS_NAME}")
        for hint, fine in OURS.items():
            value = asked.get(hint)
            if (
                isinstance(value, dict)
                and value.get("disposition") == "merge"
                and value.get("strategy") == "delete-insert"
            ):
                continue
            if value is not None and value not in fine:
                raise UsageError(
                    f"{self.name}: {hint} cannot be set, since rows are merged by id and version. Leave it out."
                )

    def with_name(self, new_name: str, new_section: str | None = None) -> StripeResource:
        """Raises `UsageError`: state and tables go by the name."""
        raise UsageError(f"{self.name}: {KEEPS_NAME}")

    def parallelize(self) -> StripeResource:
        """Does nothing: all resources are read side by side already, within the rate limits."""
        return self


def is_limited(resource: DltResource | None) -> bool:
    """Whether `add_limit` asks for a part: pages come one by one then."""
    return resource is not None and resource.limit is not None


def keep_private(pipeline: Any) -> None:
    """Let nobody else into dlt's folder of a pipeline, and no rows stay there or in staging, unless
    the settings say so.
    """
    with suppress(OSError):
        os.chmod(pipeline.working_dir, 0o700)
    for name in PRIVATE:
        if dlt.config.get(f"load.{name}") is None:
            dlt.config[f"{pipeline.pipeline_name}.load.{name}"] = True


def load_in_turn(pipeline: Any) -> None:
    """Let SQLite's jobs, which would only get in each other's way, follow each other, unless the
    settings say otherwise.
    """
    if place_of(pipeline).is_sqlite and dlt.config.get("load.workers") is None:
        dlt.config[f"{pipeline.pipeline_name}.load.workers"] = 1
