"""Images before and after a change: what Stripe's `previous_attributes` mean, put back and taken
out again.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stripe_feed.extract.tables.diff import (
    Image,
    align_lists,
    changed_paths,
    difference,
    project_onto,
    revert,
)
from stripe_feed.resources.model import Column, Resource
from stripe_feed.sandbox import Sandbox
from stripe_feed.sandbox.state.api_versions import previous_attributes
from tests.core import CORE

QUICK = settings(derandomize=True, deadline=None, max_examples=80, database=None)
DEEP = settings(deadline=None, max_examples=10_000, database=None, print_blob=True)

EXAMPLES: tuple[tuple[str, Image, Image, Image], ...] = (
    ("a value", {"status": "paid", "total": 5}, {"status": "open"}, {"status": "open", "total": 5}),
    ("a value that was not set", {"phone": "1"}, {"phone": None}, {"phone": None}),
    ("a hash, in part", {"card": {"brand": "visa", "exp": 2}}, {"card": {"exp": 1}}, {"card": {"brand": "visa", "exp": 1}}),
    ("a hash deep inside", {"a": {"b": {"c": 2, "d": 3}, "e": 4}}, {"a": {"b": {"c": 1}}}, {"a": {"b": {"c": 1, "d": 3}, "e": 4}}),
    ("a hash that was not set", {"address": {"city": "Ulm"}}, {"address": None}, {"address": None}),
    ("a hash that is gone", {"address": None}, {"address": {"city": "Ulm"}}, {"address": {"city": "Ulm"}}),
    ("an array, whole", {"locales": ["de"]}, {"locales": ["de", "en"]}, {"locales": ["de", "en"]}),
    ("an array of hashes, whole", {"tiers": [{"up_to": 2}]}, {"tiers": [{"up_to": 1}]}, {"tiers": [{"up_to": 1}]}),
    ("an array inside a hash", {"refunds": {"data": [{"id": "re_1"}], "total_count": 1, "url": "/"}},
     {"refunds": {"data": [], "total_count": 0}}, {"refunds": {"data": [], "total_count": 0, "url": "/"}}),
    ("metadata: a key that came", {"metadata": {"test": "1"}}, {"metadata": {"test": None}}, {"metadata": {}}),
    ("metadata: a key that went", {"metadata": {}}, {"metadata": {"test": "1"}}, {"metadata": {"test": "1"}}),
    ("metadata: another value", {"metadata": {"a": "2", "b": "1"}}, {"metadata": {"a": "1"}}, {"metadata": {"a": "1", "b": "1"}}),
    ("metadata inside a hash", {"parent": {"details": {"metadata": {"a": "1", "b": "1"}, "x": 1}}},
     {"parent": {"details": {"metadata": {"a": None}}}}, {"parent": {"details": {"metadata": {"b": "1"}, "x": 1}}}),
    ("a null outside of metadata stays a key", {"recovery": {"expires_at": 5}}, {"recovery": {"expires_at": None}},
     {"recovery": {"expires_at": None}}),
    ("false and zero are no nulls", {"active": True, "balance": 1}, {"active": False, "balance": 0}, {"active": False, "balance": 0}),
)  # fmt: skip


@pytest.mark.parametrize(
    ("after", "old", "before"), [one[1:] for one in EXAMPLES], ids=[one[0] for one in EXAMPLES]
)
def test_the_old_values_give_the_image_before(after: Image, old: Image, before: Image) -> None:
    """As Stripe documents them, and as its own fixtures have them."""
    untouched = copy.deepcopy((after, old))

    assert revert(after, old) == before
    assert (after, old) == untouched
    assert revert(after, difference(before, after)) == before


def test_nothing_changed_gives_nothing() -> None:
    image = {"a": 1, "b": {"c": [1, {"d": None}]}, "metadata": {}}
    assert difference(image, copy.deepcopy(image)) == {}
    assert revert(image, {}) == image


@pytest.mark.parametrize(
    ("old", "new"),
    [(1, True), (0, False), (1, 1.0), ("1", 1), (None, {}), ([], {}), ([], None), ([False], [0])],
)
def test_values_that_only_look_alike_are_a_change(old: Any, new: Any) -> None:
    """Python takes some of them for equal; JSON does not."""
    assert difference({"field": old}, {"field": new}) == {"field": old}


def test_paths_name_what_changed() -> None:
    """Dotted, the deepest name; arrays as a whole."""
    old = {
        "status": "open",
        "metadata": {"plan": None, "a.b": "x"},
        "items": {"data": [{"id": "si_1"}]},
        "address": {},
        "discount": None,
    }
    assert changed_paths(old) == [
        "status",
        "metadata.plan",
        "metadata.a.b",
        "items.data",
        "address",
        "discount",
    ]
    assert changed_paths({}) == []


# F5: for any change of an object, the old values and the image after give the image before

WORDS = st.text('abcäß "\\\0', max_size=3)
LEAVES: dict[str, st.SearchStrategy[Any]] = {
    "text": WORDS,
    "ref": WORDS,
    "decimal": st.sampled_from(["1", "0.000000000001"]),
    "bool": st.booleans(),
    "bigint": st.integers(-2, 2),
    "timestamp": st.integers(0, 3),
    "double": st.sampled_from([0.0, 0.5, 25.0]),
}
MAP = st.dictionaries(st.sampled_from("abcd"), WORDS, max_size=4)
LEAF = st.none() | st.booleans() | st.integers(0, 2) | WORDS
ARRAY = st.lists(
    LEAF | st.fixed_dictionaries({"id": WORDS, "amount": st.integers(0, 2), "metadata": MAP}),
    max_size=3,
)
INNER = st.fixed_dictionaries({"city": LEAF, "lines": ARRAY, "metadata": MAP})
HASH = st.fixed_dictionaries(
    {
        "kind": LEAF,
        "inner": st.none() | INNER,
        "list": ARRAY,
        "deep": st.fixed_dictionaries({"er": INNER}),
    }
)


def value_of(column: Column) -> st.SearchStrategy[Any]:
    """Any value of a field: a hash has always the same keys, but for metadata."""
    if column.name == "metadata":
        return MAP
    return st.none() | HASH | ARRAY if column.kind == "json" else st.none() | LEAVES[column.kind]


@st.composite
def transitions(draw: st.DrawFn, resource: Resource) -> tuple[Image, Image]:
    """An object of a resource and what became of it: some of its fields are others."""
    drawn = {name: value_of(column) for name, column in _columns(resource).items()}
    before: Image = {name: draw(values) for name, values in drawn.items()}
    changed = draw(st.sets(st.sampled_from(sorted(drawn)), min_size=1, max_size=6))
    return before, before | {name: draw(drawn[name]) for name in sorted(changed)}


def _columns(resource: Resource) -> dict[str, Column]:
    kinds = ("json", "text", "bool", "bigint")
    fixed = [
        *(c for c in resource.columns if c.kind == "json"),
        *(c for k in kinds[1:] for c in [_first(resource, k)] if c),
    ]
    return {column.name: column for column in fixed[:6]} | {
        "metadata": Column("metadata", "json", "")
    }


def _first(resource: Resource, kind: str) -> Column | None:
    return next((column for column in resource.columns if column.kind == kind), None)


def check(before: Image, after: Image) -> None:
    """Stripe's own old values (as the sandbox computes them) and ours lead back, and say the same."""
    told = previous_attributes(before, after)
    assert exact(revert(after, told)) == exact(before)
    assert exact(difference(before, after)) == exact(told)
    assert bool(changed_paths(told)) == (exact(before) != exact(after))


def exact(value: Any) -> Any:
    """Equal where JSON is: 1, 1.0 and true are three values."""
    if isinstance(value, dict):
        return {name: exact(one) for name, one in value.items()}
    return (
        [exact(one) for one in value] if isinstance(value, list) else (type(value).__name__, value)
    )


@pytest.mark.parametrize("table", CORE)
def test_f5_the_image_before_is_exact(table: str) -> None:
    """Nested hashes, arrays, metadata with keys that come, go and change."""

    @QUICK
    @given(transitions(CORE[table]))
    def holds(change: tuple[Image, Image]) -> None:
        check(*change)

    holds()


@pytest.mark.long
@pytest.mark.parametrize("table", CORE)
def test_f5_the_image_before_is_exact_in_many_more_cases(table: str) -> None:
    """The same with new cases each time."""

    @DEEP
    @given(transitions(CORE[table]))
    def holds(change: tuple[Image, Image]) -> None:
        check(*change)

    holds()


def test_the_events_of_a_life_lead_back() -> None:
    """Each update of a busy account, reverted, is the object before it."""
    box = Sandbox(seed=4, customers=25)
    box.live(20_000, 400)
    before = {(one.id, one.table, one.at): one for one in box.history if one.operation == "updated"}
    assert len(before) > 100
    for one in before.values():
        assert one.before is not None and one.after is not None
        assert revert(one.after, previous_attributes(one.before, one.after)) == one.before
        assert difference(one.before, one.after) == previous_attributes(one.before, one.after)


@pytest.mark.parametrize("data", [None, 5, "x", {}, [None, 5, {}, {"id": None}, {"id": ["x"]}]])
def test_a_list_that_is_none_ends_nothing(data: object) -> None:
    """Events of old versions and odd ones come with what they have; what is held stays as it is."""
    held = {"id": "in_1", "lines": {"data": [{"id": "il_1"}], "has_more": False}}

    assert align_lists(held, {"lines": {"data": data, "has_more": False}}, ["lines"])["lines"][
        "data"
    ] == [{"id": "il_1"}]
    assert align_lists({"lines": {"data": data}}, held, ["lines"])["lines"]["data"] == []
    assert project_onto([{"id": ["x"]}], [{"id": ["y"]}]) == [{"id": ["y"]}]


def test_a_column_that_only_names_the_parent_is_not_compared() -> None:
    """Tables add it where Stripe's items do not say whose they are, such as lines of credit notes."""

    def note(*items: Image) -> Image:
        return {"id": "cn_1", "lines": {"data": list(items), "has_more": False}}

    held = note({"id": "l_2", "amount": 5, "credit_note": "cn_1"}, {"id": "l_1", "amount": 1})
    now = note({"id": "l_1", "amount": 1}, {"id": "l_2", "amount": 5})
    changed = note({"id": "l_1", "amount": 1}, {"id": "l_2", "amount": 6})
    naming = note({"id": "l_1", "amount": 1, "credit_note": "cn_1"})

    assert difference(align_lists(held, now, ["lines"]), now) == {}
    assert difference(align_lists(held, changed, ["lines"]), changed) == {
        "lines": {"data": [{"id": "l_1", "amount": 1}, {"id": "l_2", "amount": 5}]}
    }
    assert align_lists(held, naming, ["lines"])["lines"]["data"][1]["credit_note"] == "cn_1"
