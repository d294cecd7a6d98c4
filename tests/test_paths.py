"""Paths into the JSON of an object, as people write them: in filters, transitions, rules and
templates alike.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stripe_feed.delivery.payloads import PayloadContext, compile_template, render
from stripe_feed.errors import UsageError
from stripe_feed.extract.tables.diff import changed_paths, difference
from stripe_feed.feed.filters import compile_filter
from stripe_feed.feed.paths import MAX_LENGTH, normalize_path, split_paths, split_prefix, value_at
from stripe_feed.triggers.expressions import compile_expression
from tests.deliveries import made
from tests.feed_kills import a_change

QUICK = settings(derandomize=True, deadline=None, max_examples=200, database=None)
KEYS = st.text(
    st.characters(codec="utf-8", exclude_characters="[]"), min_size=1, max_size=40
)  # as Stripe allows


@pytest.mark.parametrize(("text", "names"), [
    ("status", "status"), (" status ", "status"), ("items.data.0.price.id", "items.data.0.price.id"), ("items.data[0].price", "items.data.0.price"),
    ('metadata."app.plan"', "metadata.app.plan"), ('metadata["app.plan"]', "metadata.app.plan"), ("metadata['app.plan']", "metadata.app.plan"),
    ("metadata.app.plan", "metadata.app.plan"), ("metadata.Order No.", "metadata.Order No."), (r'metadata["5\" \\ pipe"]', '5" \\ pipe'), ('metadata.5" pipe', '5" pipe'),
])  # fmt: skip
def test_a_path_has_one_form(text: str, names: str) -> None:
    assert normalize_path(text) in (names, f"metadata.{names}")


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        ".status",
        "status.",
        "a..b",
        "metadata[",
        'metadata["x',
        "metadata[x]",
        'metadata["x"]y',
        "a." * 60 + "b",
        "x" * (MAX_LENGTH + 1),
    ],
)
def test_what_is_no_path_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="path"):
        normalize_path(text)


def test_the_path_that_an_object_has_is_the_one() -> None:
    image = {
        "metadata": {"app": "x", "app.plan": "b", "app.": "c"},
        "lines": {"data": [{"a.b": {"c": 1}}]},
    }
    assert value_at(image, "metadata.app.plan") == "b"
    assert value_at(image, "metadata.app") == "x"
    assert value_at(image, "metadata.app.") == "c"
    assert value_at(image, "lines.data.0.a.b.c") == 1
    assert (
        value_at(image, "lines.data.²")
        is value_at(image, "lines.data.1")
        is value_at(image, "metadata.app.plan.b")
        is None
    )


@QUICK
@given(key=KEYS, more=KEYS)
def test_every_key_of_metadata_can_be_named_everywhere(key: str, more: str) -> None:
    """Quoted, in transitions, `changed`, `where` and templates; and as `changed` of a change names
    it.
    """
    old, new = (
        {"id": "sub_1", "metadata": {more: "a"} | {key: "a"}},
        {"id": "sub_1", "metadata": {more: "a"} | {key: "b"}},
    )
    previous = difference(old, new)
    change = made(a_change(1, after=new, previous=previous, changed=changed_paths(previous)))
    quoted = key.replace("\\", "\\\\").replace('"', '\\"')
    path = f'metadata["{quoted}"]'

    assert value_at(new, change.changed[0]) == "b"
    assert compile_filter(transition={path: ("a", "b")}, changed=path).matches(change)
    assert not compile_filter(transition={path: ("b", "a")}).matches(change)
    assert compile_expression(
        f"before.metadata[{key!r}] == 'a' and after.metadata[{key!r}] == 'b'"
    ).holds(change)
    body = render(
        compile_template(
            {"x": f"<{{after.{path}}}>", "y": f"{{before.{path}|money:before.{path}}}"}
        ),
        PayloadContext(change, "t", "m"),
    )
    assert json.loads(body.content) == {"x": "<b>", "y": None}


def test_a_key_that_only_begins_alike_did_not_change() -> None:
    change = made(
        a_change(
            1,
            after={"metadata": {"app.plan": "b"}},
            previous={"metadata": {"app.plan": "a"}},
            changed=["metadata.app.plan"],
        )
    )
    assert compile_filter(changed="metadata.app.plan").matches(change) and compile_filter(
        changed="metadata"
    ).matches(change)
    assert not compile_filter(changed="metadata.app").matches(change)


def test_lists_of_paths_and_what_follows_one() -> None:
    assert split_paths(["a, b", 'metadata["x,y"],c']) == ["a", "b", 'metadata["x,y"]', "c"]
    assert split_prefix('after.metadata["a|b"]|money:after.x') == (
        'after.metadata["a|b"]',
        "|money:after.x",
    )
    image: Any = {"metadata": {"a}{": 5}}
    body = render(
        compile_template('{after.metadata["a}{"]}'),
        PayloadContext(made(a_change(1, after=image)), "t", "m"),
    )
    assert body.content == b"5"
