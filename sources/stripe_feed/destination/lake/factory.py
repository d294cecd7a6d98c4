"""dlt's filesystem destination with tables in Delta or Iceberg, merged as on a database: the newest
version of a row wins, and children are complete.

It is configured as dlt's: `destination.filesystem.bucket_url` and `.credentials`; for Iceberg
`iceberg_catalog` as well, see https://dlthub.com/docs/dlt-ecosystem/destinations/iceberg.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from dlt.common.destination import DestinationCapabilitiesContext
from dlt.destinations.impl.filesystem.factory import filesystem

from .client import LakeClient
from .tables import LakeFormat


class _Lake(filesystem):
    table_format: ClassVar[LakeFormat]

    @property
    def destination_name(self) -> str:
        """The section of its settings: dlt's own, unless another name is given."""
        return self.configured_name or "filesystem"

    @property
    def client_class(self) -> type[LakeClient]:
        return LakeClient

    def _raw_capabilities(self) -> DestinationCapabilitiesContext:
        capabilities = super()._raw_capabilities()
        capabilities.preferred_loader_file_format = "parquet"
        capabilities.supported_table_formats = [self.table_format]
        capabilities.preferred_table_format = self.table_format
        capabilities.supported_merge_strategies = ["delete-insert"]
        capabilities.merge_strategies_selector = _every_strategy
        return capabilities


def _every_strategy(strategies: Sequence[Any], /, *, table_schema: Any) -> Sequence[Any]:
    return strategies


class delta(_Lake):
    """A copy in Delta tables, one commit per table and package. Needs `stripe-feed[delta]`."""

    table_format = "delta"


class iceberg(_Lake):
    """A copy in Iceberg tables, one commit per table and package. Needs `stripe-feed[iceberg]`, and in
    a bucket a catalog.
    """

    table_format = "iceberg"


LAKES: dict[str, type[_Lake]] = {"delta": delta, "iceberg": iceberg}
