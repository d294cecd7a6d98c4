"""dlt as it is, in half the time: what it asks again and again in a run is answered once.

Answers about types, and about the fields of configurations, never change. A schema on disk is read
again only if its content is another. Plain dicts are copied in C.
DuckDB gets one thread, since tables of a few rows are not worth more, and compresses nothing: to
try every method on every column takes half the time of closing a file.
"""

from __future__ import annotations

import copy
import functools
import marshal
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

ABOUT_TYPES = (
    "get_origin",
    "get_args",
    "is_union_type",
    "is_optional_type",
    "is_literal_type",
    "is_list_generic_type",
    "is_dict_generic_type",
    "is_typeddict",
    "is_newtype_type",
    "is_subclass",
    "is_generic_alias",
    "extract_inner_type",
    "extract_type_if_modifier",
)
VERSIONS = {"version", "version_hash", "imported_version_hash", "previous_hashes"}
ABOUT_FIELDS = ("is_secret_hint", "extract_inner_hint", "is_credentials_inner_hint")


def install() -> None:
    """Change the functions of dlt in this process."""
    from dlt.common import typing as questions
    from dlt.common import validation  # imports them by name
    from dlt.common.configuration.specs import base_configuration

    for name in ABOUT_TYPES:
        _replace(vars(questions)[name], name, (questions, validation))
    loaded = [module for key, module in list(sys.modules.items()) if key.startswith("dlt.")]
    for name in ABOUT_FIELDS:
        _replace(vars(base_configuration)[name], name, loaded)
    _remember_hints(validation)
    _remember_fields(base_configuration.BaseConfiguration)
    _remember_what_is_not_set()
    _remember_configurations()
    _keep_schemas()
    _remember_schemas()
    _copy_in_c()
    _set_duckdb_for_few_rows()


def _replace(asked: Callable[..., Any], name: str, modules: Any) -> None:
    answer = _remembered(asked)
    for module in modules:
        if vars(module).get(name) is asked:
            setattr(module, name, answer)


def _remembered(ask: Callable[..., Any]) -> Callable[..., Any]:
    """By identity, since the hash of a union takes longer than most answers; what was asked about is
    kept, so that no other has its identity.
    """
    known: dict[Any, tuple[Any, Any]] = {}

    @functools.wraps(ask)
    def answer(*about: Any, **options: Any) -> Any:
        key = (*map(id, about), *options.items())
        found = known.get(key)
        if found is None:
            found = known[key] = (about, ask(*about, **options))
        return found[1]

    return answer


def _remember_hints(validation: Any) -> None:
    """Of a typed dict; the namespace that dlt gives is always that of its module."""
    read = validation.get_type_hints

    @functools.cache
    def of(spec: Any) -> Any:
        module = sys.modules.get(spec.__module__)
        return read(spec, globalns=None if module is None else vars(module))

    def get_type_hints(spec: Any, globalns: Any = None) -> Any:
        return of(spec)

    validation.get_type_hints = get_type_hints


def _remember_fields(configuration: Any) -> None:
    """Each truth value of a configuration counts its fields."""
    fields = configuration.get_resolvable_fields.__func__
    names = configuration.__iter__

    def kept(cls: Any, name: str, make: Callable[[], Any]) -> Any:
        if name not in vars(cls):
            setattr(cls, name, make())
        return vars(cls)[name]

    def get_resolvable_fields(cls: Any) -> dict[str, Any]:
        return dict(kept(cls, "_kept_fields", lambda: fields(cls)))

    def iterate(self: Any) -> Iterator[str]:
        return iter(kept(type(self), "_kept_names", lambda: tuple(names(self))))

    def count(self: Any) -> int:
        return len(kept(type(self), "_kept_names", lambda: tuple(names(self))))

    configuration.get_resolvable_fields = classmethod(get_resolvable_fields)
    configuration.__iter__, configuration.__len__ = iterate, count


def _remember_what_is_not_set() -> None:
    """A run asks five hundred times for settings that are in no environment variable; the answer
    holds until one changes, and where no file of settings is.
    """
    from dlt.common.configuration import resolve as module
    from dlt.common.configuration.container import Container
    from dlt.common.configuration.specs.config_section_context import ConfigSectionContext
    from dlt.common.configuration.specs.pluggable_run_context import PluggableRunContext

    resolve: Any = module
    search, variables = resolve._resolve_single_value, vars(os.environ)["_data"]
    missing: dict[Any, tuple[Any, list[Any]]] = {}
    seen: dict[Any, Any] = {}

    def find(key: str, hint: Any, inner: Any, section: str, outer: Any, embedded: Any) -> Any:
        container = Container()
        providers = container[PluggableRunContext].providers.providers
        if any(one.name != "Environment Variables" and not one.is_empty for one in providers):
            return search(key, hint, inner, section, outer, embedded)
        if variables != seen:
            missing.clear()
            seen.clear()
            seen.update(variables)
        context = container[ConfigSectionContext]
        asked = (
            *(key, id(hint), section, outer, embedded),
            *(context.pipeline_name, context.sections, len(providers)),
        )
        if (known := missing.get(asked)) is not None:
            return None, list(known[1])
        value, traces = search(key, hint, inner, section, outer, embedded)
        if value is None and not resolve.is_context_inner_hint(inner):
            missing[asked] = (hint, list(traces))  # with the hint, whose id no other gets meanwhile
        return value, traces

    resolve._resolve_single_value = find


def _remember_configurations() -> None:
    """Of a DuckDB file with a whole path, which each client reads anew: the next get a copy, with
    connections of their own.
    """
    from dlt.common.destination.reference import Destination
    from dlt.destinations.impl.duckdb.configuration import DuckDbClientConfiguration

    resolve: Any = Destination.configuration

    def configuration(self: Any, initial: Any, accept_partial: bool = False) -> Any:
        file = str(self.config_params.get("credentials", ""))
        if type(initial) is not DuckDbClientConfiguration or initial.credentials or accept_partial:
            return resolve(self, initial, accept_partial)
        if not os.path.isabs(file):  # it depends on the working directory and the pipeline
            return resolve(self, initial)
        asked = repr(dict(initial))
        kept = vars(self).setdefault("_kept_configurations", {})
        if asked not in kept:
            kept[asked] = resolve(self, initial)
            return kept[asked]
        found = kept[asked].copy()
        found.credentials.on_resolved()
        return found

    setattr(Destination, "configuration", configuration)  # noqa: B010  (mypy refuses the assignment)


def _keep_schemas() -> None:
    """The schema in memory stays if the one on disk has the same hash; each look at it would build a
    new one and copy it.
    """
    from dlt.common.storages.live_schema_storage import LiveSchemaStorage

    read = LiveSchemaStorage.__getitem__

    def get(self: Any, name: str) -> Any:
        live = self.live_schemas.get(name)
        if live is not None and not self.config.import_schema_path:
            try:
                stored = self._load_schema_json(name)["version_hash"]
            except (FileNotFoundError, KeyError):
                stored = None
            if stored == live.stored_version_hash and not live.is_modified:
                return live
        return read(self, name)

    setattr(LiveSchemaStorage, "__getitem__", get)  # noqa: B010  (mypy refuses the assignment)


def _remember_schemas() -> None:
    """The hash of a schema, and that it is valid: both follow from its content and cost far more than
    to write it down.
    """
    from dlt.common.schema import schema
    from dlt.common.schema import utils as schema_utils

    compute, validate = schema_utils.generate_version_hash, schema_utils.validate_stored_schema
    hashes, valid = dict[bytes, str](), set[bytes]()

    def generate_version_hash(stored: Any) -> str:
        try:
            content = marshal.dumps([item for item in stored.items() if item[0] not in VERSIONS], 0)
        except ValueError:  # not only plain values
            return str(compute(stored))
        if content not in hashes:
            hashes[content] = compute(stored)
        return hashes[content]

    def validate_stored_schema(stored: Any) -> None:
        try:
            content = marshal.dumps(stored, 0)
        except ValueError:
            return validate(stored)
        if content not in valid:
            validate(stored)
            valid.add(content)

    for module in (schema, schema_utils):
        for replaced in (generate_version_hash, validate_stored_schema):
            if hasattr(module, replaced.__name__):
                setattr(module, replaced.__name__, replaced)


def _copy_in_c() -> None:
    from dlt.common.schema import schema
    from dlt.common.schema import utils as schema_utils

    for module in (schema, schema_utils):
        setattr(module, "deepcopy", _copied)  # noqa: B010  (mypy refuses the assignment)


def _copied(value: Any) -> Any:
    """A deep copy; of what is not only dicts, lists and plain values, the slow way."""
    try:
        return marshal.loads(marshal.dumps(value))
    except ValueError:
        return copy.deepcopy(value)


def _set_duckdb_for_few_rows() -> None:
    import duckdb

    open_file = duckdb.connect

    def connect(
        database: Any = ":memory:", read_only: bool = False, config: Any = None
    ) -> duckdb.DuckDBPyConnection:
        settings = {"threads": 1, "force_compression": "uncompressed"} | (config or {})
        return open_file(database, read_only=read_only, config=settings)

    duckdb.connect = connect
