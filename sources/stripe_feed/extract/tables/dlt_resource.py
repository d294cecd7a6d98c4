"""A dlt resource that accepts harmless hints and refuses the others at once. Files that a run
leaves on disk stay private.
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

FIXED_HINTS: dict[str, tuple[Any, ...]] = {
    "parent_table_name": (),
    "primary_key": ("id", ["id"], ("id",)),
    "merge_key": (),
    "incremental": (),
    "write_disposition": ("merge",),
}
"""Hints that tables, merges and cursors rely on, each with the values that change nothing."""

PRIVACY_SETTINGS = (
    "delete_completed_jobs",
    "truncate_staging_dataset",
)  # or rows stay in dlt's folder and in its staging dataset
KEEPS_NAME = "its name is fixed, since others refer to it. Use another dataset_name, or a view."
APPLY_HINTS = inspect.signature(DltResource.apply_hints)


class StripeResource(DltResource):
    """A resource whose table names, keys and merges are fixed."""

    def apply_hints(self, *given: Any, **hints: Any) -> StripeResource:
        """Like dlt's. Raises `UsageError` for hints that would duplicate or lose rows."""
        asked = APPLY_HINTS.bind(self, *given, **hints).arguments
        if not asked.get("create_table_variant"):
            self._check(asked)
        super().apply_hints(*given, **hints)
        return self

    def _check(self, asked: dict[str, Any]) -> None:
        if asked.get("table_name") not in (None, self.name):
            raise UsageError(f"{self.name}: {KEEPS_NAME}")
        for hint, harmless in FIXED_HINTS.items():
            value = asked.get(hint)
            if (
                isinstance(value, dict)
                and value.get("disposition") == "merge"
                and value.get("strategy") == "delete-insert"
            ):
                continue
            if value is not None and value not in harmless:
                raise UsageError(
                    f"{self.name}: {hint} cannot be set, since rows are merged by id and version. Leave it out."
                )

    def with_name(self, new_name: str, new_section: str | None = None) -> StripeResource:
        """Raises `UsageError`: state and tables depend on the name."""
        raise UsageError(f"{self.name}: {KEEPS_NAME}")

    def parallelize(self) -> StripeResource:
        """Do nothing: all resources are read in parallel already, within the rate limits."""
        return self


def is_limited(resource: DltResource | None) -> bool:
    """Whether `add_limit` limits the resource; its pages are then yielded one by one."""
    return resource is not None and resource.limit is not None


def restrict_access(pipeline: Any) -> None:
    """Close dlt's folder of a pipeline to other users, and leave no rows there or in staging, unless
    the settings say otherwise.
    """
    with suppress(OSError):
        os.chmod(pipeline.working_dir, 0o700)
    for name in PRIVACY_SETTINGS:
        if dlt.config.get(f"load.{name}") is None:
            dlt.config[f"{pipeline.pipeline_name}.load.{name}"] = True


def load_sqlite_serially(pipeline: Any) -> None:
    """Run SQLite's load jobs one after the other, since they would lock each other out; unless the
    settings say otherwise.
    """
    if place_of(pipeline).is_sqlite and dlt.config.get("load.workers") is None:
        dlt.config[f"{pipeline.pipeline_name}.load.workers"] = 1
