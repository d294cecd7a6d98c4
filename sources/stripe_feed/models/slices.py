"""Rebuild models for the customers whose rows changed, and keep the rows of all others. DuckDB only.

A model with `meta: {per_customer: true}` has a column `customer_id`, and its rows of a customer
come from the rows of that customer and from tables that belong to nobody. The same SQL runs over
a slice of the copy, in memory, and its rows take the place of the customers' rows.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from hashlib import blake2b

from .database import (
    CUSTOMER_MARKS,
    BuiltModel,
    ModelDatabase,
    existing_relations,
)
from .render import ModelTarget, Project, RenderedModel

SLICE = "_stripe_feed_slice"  # the attached database
LARGEST_SHARE = 0.2  # of the customers; beyond, everything is built
CLOCK = "current_timestamp"  # in the SQL of a model that time alone changes

_OWNERS = {
    "customers": "t.id",
    "subscriptions": "t.customer",
    "invoices": "t.customer",
    "discounts": "t.customer",
    "changes": "t.customer_id",
    "subscription_items": "parents.customer",
    "invoice_line_items": "parents.customer",
}
"""Raw tables that belong to customers: the customer of a row `t`, or of its parent."""
_PARENTS = {
    "subscription_items": ("subscription", "subscriptions"),
    "invoice_line_items": ("invoice", "invoices"),
}
_ROW_MARKS = ("id", "change_id", "_dlt_load_id", "_version", "deleted_at")
_CLOCK_COLUMNS = {"as_of": "{now}", "closes_at": "case when is_complete then closes_at else {now} end"}  # fmt: skip


def digest_of(*parts: object) -> str:
    """A digest of the texts of values."""
    return blake2b("\0".join(map(str, parts)).encode(), digest_size=16).hexdigest()


def can_slice(database: ModelDatabase, project: Project, stand_ins: Mapping[str, str]) -> bool:
    """Whether models can be built in slices of customers."""
    models = project.properties
    return (
        database.target.type == "duckdb"
        and not _OWNERS.keys() & stand_ins.keys()
        and any(is_per_customer(project, name) for name in models)
    )


def is_per_customer(project: Project, name: str) -> bool:
    """Whether the project says so of a model."""
    config = project.properties.get(name, {}).get("config", {})
    return bool(config.get("meta", {}).get("per_customer"))


class CustomerSlices:
    """What a build knows about the customers: which changed since the last one.

    `definitions`: the digest of each model's own SQL; `render` renders one model for a target;
    `now`: the SQL of the moment that the models speak of.
    """

    def __init__(
        self,
        database: ModelDatabase,
        project: Project,
        models: Mapping[str, RenderedModel],
        raw_tables: Mapping[str, frozenset[str]],
        history: Mapping[str, BuiltModel],
        load_id: str,
        *,
        definitions: Mapping[str, str],
        render: Callable[[ModelTarget, str], RenderedModel],
        now: str,
    ) -> None:
        self._database, self._project, self._models = database, project, models
        self._raw_tables, self._history, self._load_id = raw_tables, history, load_id
        self._definitions, self._render, self._now = definitions, render, now
        real = database.target
        self._target = ModelTarget(real.type, SLICE, real.dataset, real.schema)
        self._marks: dict[str, str] = {}
        self._made: set[str] = set()
        self._made_raw: set[str] = set()
        self._changed: bool | None = None
        self._is_attached = self._is_marked = False
        self._stored_load = self._read_stored_load()

    def basis(self, name: str) -> str:
        """What a model's rows of unchanged customers depend on, as of this load."""
        return digest_of(self._mark(name), self._load_id)

    def rebuild(self, model: RenderedModel, past: BuiltModel | None) -> bool:
        """Replace the rows of the changed customers in a built model, if its other rows are as its SQL
        would give them; return whether they are.
        """
        name = model.name
        if model.kind != "table" or past is None:
            return False
        if past.basis != digest_of(self._mark(name), self._stored_load):
            return False
        if self._changed is None:
            self._changed = self._find_changed()
        if not self._changed:
            return False
        self._make(name, is_built=True)
        relation, sliced = self._database.target.relation(name), self._target.relation(name)
        if not self._is_as_built(relation, sliced, past):
            return False
        with self._database.transaction():
            self._database.execute(f"delete from {relation} where {_is_changed('customer_id')}")
            self._database.execute(f"insert into {relation} select * from {sliced}")
            if changes := self._clock_changes(name):
                self._database.execute(f"update {relation} set {', '.join(changes)}")
        return True

    def _is_as_built(self, relation: str, sliced: str, past: BuiltModel) -> bool:
        """Whether a table has the rows and columns that its last build left: somebody may have deleted
        some.
        """
        ((count,),) = self._database.execute(f"select count(*) from {relation}")
        shapes = [self._database.columns(f"select * from {table}") for table in (relation, sliced)]
        return count == past.rows and shapes[0] == shapes[1]

    def close(self, is_whole: bool) -> None:
        """Keep what the customers were built from if every model is built, and drop the slice."""
        if is_whole and self._stored_load != self._load_id:
            self._mark_customers()
            relation = self._database.target.relation(CUSTOMER_MARKS)
            self._database.execute(
                f"create or replace table {relation} as select '{self._load_id}' as load_id, * from {SLICE}.main.marks"
            )
        if self._is_attached:
            self._database.execute(f"detach {SLICE}")

    def _read_stored_load(self) -> str:
        if CUSTOMER_MARKS not in existing_relations(self._database):
            return ""
        relation = self._database.target.relation(CUSTOMER_MARKS)
        rows = self._database.execute(f"select load_id from {relation} limit 1")
        return str(rows[0][0]) if rows else ""

    def _mark(self, name: str) -> str:
        """A digest of a model's SQL and of what it reads that belongs to nobody."""
        if name not in self._marks:
            model = self._models[name]
            if self._belongs_to_nobody(model):
                self._marks[name] = self._content(model)
            else:
                inputs = [self._mark(ref) for ref in model.refs]
                self._marks[name] = digest_of(self._definitions[name], *inputs)
        return self._marks[name]

    def _belongs_to_nobody(self, model: RenderedModel) -> bool:
        if model.kind == "table":
            return not is_per_customer(self._project, model.name)
        return model.kind == "view" and not model.refs and not _OWNERS.keys() & set(model.sources)

    def _content(self, model: RenderedModel) -> str:
        columns = self._project.properties.get(model.name, {}).get("columns", ())
        moving = [column["name"] for column in columns if column["name"] in _CLOCK_COLUMNS]
        shown = f"* exclude ({', '.join(moving)})" if moving else "*"
        relation = self._database.target.relation(model.name)
        (row,) = self._database.execute(
            f"select count(*), sum(hash(r)) from (select {shown} from {relation}) as r"
        )
        return digest_of(*row)

    def _attach(self) -> None:
        if not self._is_attached:
            self._database.execute(f"attach ':memory:' as {SLICE}")
            self._is_attached = True
            self._database.execute(f'create schema {SLICE}."{self._target.dataset}"')
            self._database.execute(f'create schema {SLICE}."{self._target.schema}"')

    def _mark_customers(self) -> None:
        """Sum up the rows of every customer in the slice's table `marks`."""
        if self._is_marked:
            return
        self._attach()
        self._is_marked = True
        parts = [
            f"select coalesce({_OWNERS[table]}, '') as customer_id, hash({number}, {self._row_mark(table)}) as mark "
            f"from {self._owned(table)}"
            for number, table in enumerate(_OWNERS)
            if self._is_owned(table)
        ]
        self._database.execute(
            f"create table {SLICE}.main.marks as select customer_id, sum(mark) as mark "
            f"from ({' union all '.join(parts)}) as rows_of_customers group by customer_id"
        )

    def _is_owned(self, table: str) -> bool:
        """Whether a raw table is there, and its parent's."""
        parent = _PARENTS.get(table, ("", table))[1]
        return table in self._raw_tables and parent in self._raw_tables

    def _owned(self, table: str) -> str:
        """A raw table as `t`, with the parents of its rows."""
        if table not in _PARENTS:
            return f"{self._raw(table)} as t"
        column, parent = _PARENTS[table]
        return f"{self._raw(table)} as t left join {self._raw(parent)} as parents on parents.id = t.{column}"

    def _row_mark(self, table: str) -> str:
        columns = self._raw_tables[table]
        return ", ".join(f"t.{name}" for name in _ROW_MARKS if name in columns)

    def _raw(self, table: str) -> str:
        return self._database.target.relation(table, self._database.target.dataset)

    def _find_changed(self) -> bool:
        """Fill the slice's table `changed` with the customers whose rows changed, or with whom time
        alone changed something. Return false if there are too many, or rows that belong to nobody.
        """
        if not self._stored_load:
            return False
        self._attach()
        times = self._time_changes(existing_relations(self._database))
        if times is None:
            return False
        stored, changed = self._database.target.relation(CUSTOMER_MARKS), f"{SLICE}.main.changed"
        if self._stored_load != self._load_id:
            self._mark_customers()
            times += (
                f" union select coalesce(new.customer_id, old.customer_id) from {SLICE}.main.marks as new "
                f"full join {stored} as old on old.customer_id = new.customer_id where new.mark is distinct from old.mark"
            )
        self._database.execute(f"create table {changed} as {times}")
        ((count, ownerless, total),) = self._database.execute(
            "select count(*), count(*) filter (where coalesce(customer_id, '') = ''), "
            f"(select count(*) from {stored}) from {changed}"
        )
        return not ownerless and count <= LARGEST_SHARE * total

    def _time_changes(self, known: Collection[str]) -> str | None:
        """Select the customers of whom something begins or ends between the last build and an hour
        from now; None if the models that tell are not built.
        """
        spans, images = "int_stripe__net_mrr", "int_stripe__subscription_images"
        built = [
            past.built_at
            for name, past in self._history.items()
            if is_per_customer(self._project, name)
        ]
        if not {spans, images} <= set(known) or not built:
            return None
        since = f"(cast('{min(built)}' as timestamp) - interval '1 hour')"
        until = f"({self._now} + interval '1 hour')"
        relation = self._database.target.relation
        moments = [
            (relation(spans), "valid_from"),
            (relation(spans), "valid_to"),
            (relation(images), "trial_end_at"),
            (relation("stg_stripe__subscriptions"), "trial_end_at"),
        ]
        return " union ".join(
            f"select customer_id from {table} where {column} > {since} and {column} <= {until}"
            for table, column in moments
        )

    def _make(self, name: str, is_built: bool = False) -> None:
        """Create a model in the slice, with all that it reads: from its SQL if it `is_built` there or
        is a view of customers' rows, else as a view of the built one.
        """
        if name in self._made:
            return
        model = self._render(self._target, name)
        relation, real = self._target.relation(name), self._database.target.relation(name)
        if is_built or (model.kind == "view" and not self._belongs_to_nobody(model)):
            for table in model.sources:
                self._make_raw(table)
            for ref in model.refs:
                self._make(ref)
            kind = "table" if is_built else "view"
            self._database.execute(f"create {kind} {relation} as {model.sql}")
        else:
            own = (
                f" where {_is_changed('customer_id')}"
                if is_per_customer(self._project, name)
                else ""
            )
            self._database.execute(f"create view {relation} as select * from {real}{own}")
        self._made.add(name)

    def _make_raw(self, table: str) -> None:
        if table in self._made_raw:
            return
        self._made_raw.add(table)
        relation = self._target.relation(table, self._target.dataset)
        if self._is_owned(table):
            self._database.execute(
                f"create table {relation} as select t.* from {self._owned(table)} where {_is_changed(_OWNERS[table])}"
            )
        else:
            self._database.execute(f"create view {relation} as select * from {self._raw(table)}")

    def _clock_changes(self, name: str) -> list[str]:
        """The columns of a model that move with the clock, and what they become."""
        if CLOCK not in self._now:
            return []
        columns = self._project.properties.get(name, {}).get("columns", ())
        shown = {column["name"] for column in columns}
        months = self._database.target.relation("months")
        is_monthly = "months" in self._models[name].refs
        now = f"(select max(as_of) from {months})" if is_monthly else self._now
        return [
            f"{column} = {value.format(now=now)}"
            for column, value in _CLOCK_COLUMNS.items()
            if column in shown
        ]


def _is_changed(column: str) -> str:
    return f"{column} in (select customer_id from {SLICE}.main.changed)"
