"""Rules as small expressions: what they come to, that nothing else can be written, and that no JSON
makes them fail.
"""

from __future__ import annotations

import operator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stripe_feed.errors import UsageError
from stripe_feed.feed.change import SOURCE_COLUMNS, Change, change_from_row, entry_from_row
from stripe_feed.triggers.expressions import ConditionResult, compile_expression, field_paths
from tests.feed_kills import a_change

QUICK = settings(derandomize=True, deadline=None, max_examples=80, database=None)
MORE = settings(QUICK, max_examples=400)

AFTER: dict[str, Any] = {
    "id": "in_1", "amount_paid": 500, "currency": "eur", "ratio": 2.5, "paid": True, "one": 1, "empty": "", "none": None,
    "metadata": {"plan": "gold", "a key": "x", "from": "here", "items": "mine"}, "large": 2**70, "huge": 10**400,
    "lines": {"data": [{"id": "il_1", "price": {"id": "price_1"}}, {"id": "il_2"}]}, "tags": ["a", "b", 1], "true_tags": [True],
}  # fmt: skip


def made(after: Any = AFTER, **given: Any) -> Change:
    row = {
        **a_change(5, "in_1", after=after, previous={"currency": "usd", "amount_paid": 400}),
        **given,
        "_dlt_load_id": "17.5",
    }
    return change_from_row(1, 1, entry_from_row([row[name] for name in SOURCE_COLUMNS]))


def holds(text: str, one: Change | None = None) -> bool:
    return compile_expression(text).holds(one or made())


TRUE = (
    "after.amount_paid >= 500 and after.currency == 'eur'",
    "after.amount_paid == 500.0", "after.ratio == 2.5", "after.one == 1", "after.one != true", "after.paid == true", "after.paid == True",
    "after.paid != 1", "after.paid is not None", "after['currency'] == 'eur'", "after.metadata.plan == 'gold'", "after.metadata['a key'] == 'x'",
    "after.metadata['from'] == 'here'", "after.metadata.items == 'mine'", "after.lines.data[0].price.id == 'price_1'", "after.lines.data[1].id == 'il_2'",
    "after.lines.data[2] is None", "after.lines.data[2].id == null", "after.lines['data'][1]['id'] == 'il_2'", "after.lines['0'] is null",
    "after.nothing is None", "after.nothing.at.all == None", "after.none is null", "after.currency.upper is None", "after.tags.append == null",
    "before.currency == 'usd' and before.amount_paid == 400", "after != before", "after == after", "after.currency != before.currency",
    "400 < after.amount_paid <= 500", "not 400 < after.amount_paid < 500", "before.amount_paid < after.amount_paid > 3",
    "after.currency in ['eur', 'usd']", "after.currency in ('eur', null)", "after.none in [null]", "after.currency not in ['usd']",
    "'a' in after.tags", "'c' not in after.tags", "1 in after.tags", "true not in after.tags", "1 not in after.true_tags", "'ur' in after.currency",
    "'plan' in after.metadata", "1 not in after.currency", "null not in after.nothing", "after.true_tags != [1]", "after.tags == ['a', 'b', 1.0]",
    "after.amount_paid - before.amount_paid == 100", "after.amount_paid * 2 + 1 == 1001", "-after.amount_paid == -500", "after.one in [-1, 1]",
    "after.nothing + 1 is None", "after.currency + 'x' is None", "after.paid + 1 is None", "after.currency * 3 is None", "-after.currency is None",
    "after.large * 1.5 > 1", "after.huge * 1.5 is None", "1.5 < after.huge", "(after.nothing or 'x') == 'x'", "(after.empty or after.none or after.one) == 1", "not (after.nothing and after.one)",
    "len(after.tags) == 3", "len(after.currency) == 3", "len(after.metadata) == 4", "len(after.one) is None", "upper(after.currency) == 'EUR'",
    "lower('EUR') == after.currency", "lower(after.one) is None", "startswith(after.id, 'in_')", "endswith(after.id, '_1')",
    "not startswith(after.nothing, 'x')", "not endswith(after.id, after.one)",
    "change.op == 'u' and change.resource == 'subscriptions'", "change.object_id == after.id", "change.customer_id == 'cus_1'",
    "change.origin in ['event', 'diff']", "change.event_type == 'customer.subscription.updated'", "'status' in change.changed",
    "change.changed[0] == 'status'", "change['op'] == 'u'", "change.livemode == false", "change.occurred_at == 1767225605", "change.op.name is None",
    "true", "1", "'text'", "not null", "\n after.one == 1   # the first\n and after.paid\n", "after.one == 1 or (\n after.two == 2)",
    "after.ﬁne is None", "18446744073709551616 < after.large",
)  # fmt: skip

FALSE = (
    "after.nothing > 0", "after.nothing < 0", "after.nothing <= null", "null >= null", "after.currency > 1", "after.one < '2'", "after.paid > 0",
    "after.paid >= true", "after.tags < ['b']", "after.metadata > after.metadata", "after.amount_paid > 500", "1 == '1'", "0 == false", "null == false",
    "null == 0", "after.empty", "null", "false", "[]", "after.nothing", "after.one == 1 and after.one == 2", "after.one < 2 < 'x'", "'' == null",
    "after.lines.data['0'] == after.lines.data[0]", "after.lines[0] is not None", "true in [1]", "2 in after.one",
)  # fmt: skip


@pytest.mark.parametrize("text", TRUE)
def test_it_holds(text: str) -> None:
    assert holds(text)


@pytest.mark.parametrize("text", FALSE)
def test_it_does_not_hold(text: str) -> None:
    assert not holds(text)


def test_a_deletion_has_no_after_and_a_creation_no_before() -> None:
    gone = made(None, op="d", previous={"id": "in_1", "status": "open"})
    assert holds(
        "after is None and after.status is None and after.a.b[0] is None and before.status == 'open'",
        gone,
    )
    assert not holds("after.amount_paid < 1 or after.amount_paid >= 1 or after == before", gone)

    new = made(op="c", previous=None)
    assert holds("before is null and before.status is null and after is not null", new)
    forgotten = made(None, previous=None, livemode=None, customer_id=None)
    assert holds(
        "after is null and before is null and change.livemode is null and change.customer_id is null",
        forgotten,
    )


def test_the_parts_tell_what_held_and_with_which_values() -> None:
    rule = compile_expression(
        "after.amount_paid >= 10000 and (after.currency == 'eur' or before.x[0]['a b']) and change.op == 'u'"
    )

    assert rule.explain(made()) == [
        ConditionResult("after.amount_paid >= 10000", False, {"after.amount_paid": 500}),
        ConditionResult(
            "after.currency == 'eur' or before.x[0]['a b']",
            True,
            {"after.currency": "eur", "before.x.0['a b']": None},
        ),
        ConditionResult("change.op == 'u'", True, {"change.op": "u"}),
    ]
    assert field_paths(rule) == [
        "after.amount_paid",
        "after.currency",
        "before.x.0['a b']",
        "change.op",
    ]
    assert [part.text for part in compile_expression("not (after.a and after.b)").conditions] == [
        "not (after.a and after.b)"
    ]
    assert [
        part.text for part in compile_expression("\n after.ü == 'ä'\n and after.b\n").conditions
    ] == ["after.ü == 'ä'", "after.b"]


def test_values_do_not_show_in_a_log() -> None:
    assert "500" not in repr(compile_expression("after.amount_paid").explain(made()))


HOSTILE = (
    "__import__('os').system('id')", "open('/etc/passwd')", "eval('1')", "exec", "().__class__", "after.__class__.__mro__", "after.x.__dict__",
    "''.__class__", "'x'.format(after)", "f'{after}'", "f''", "lambda: 1", "[x for x in after]", "{x for x in after}", "{x: 1 for x in after}",
    "(x for x in after)", "x for x in after", "{'a': 1}", "{1}", "(a := 1)", "a := 1", "2 ** 9", "after % 2", "after / 2", "after // 2", "1 << 9",
    "1 | 2", "1 & 2", "1 ^ 2", "~1", "+1", "after @ after", "1 if after else 2", "[*after]", "len(*after)", "len(x=1)", "len()", "len(after, after)",
    "startswith(after.id)", "len", "len.x", "after()", "after.get('id')", "after.id.upper()", "getattr(after, 'id')", "len(after)(1)", "(after or before).id",
    "lower(after.id).x", "[after][0]", "[after.id]", "[[1]]", "after[:1]", "after[-1]", "after[true]", "after[1.0]", "after[after.id]", "after[1, 2]",
    "after[None]", "await after", "yield", "yield after", "after; before", "import os", "x = 1", "after.x = 1", "del after", "1j", "b'x'", "...",
    "name", "after2", "True.real", "null.x", "change", "change.after", "change['previous']", "change[0]", "change.__class__", "change == 1",
    "18446744073709551617", "-18446744073709551617", "1e999", "after[18446744073709551617]", "after.x is 1", "after.x is not 'a'", "after is before",
    "after,", "1, 2", "", "  \n ", "# only a comment", "after.x ==", "(after.x", "after.x)", "after.x) or (after.y", "after)(", "'open", "'\\d'",
    "after\x00", "'\ud800'", "1_", "1and 2 x", "after.from", "not " * 51 + "1", "1" + " + 1" * 60, "after" + ".a" * 60, "(" * 400 + "1" + ")" * 400,
    "-" * 900 + "1", "after" + "[0]" * 60, "after.a == '" + "x" * 2_000 + "'",
)  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"column \d+|empty|characters"):
        compile_expression(text)


@pytest.mark.parametrize(("text", "told"), [
    ("after.a == open('x')", "A call of 'open' at column 12"),
    ("after.ä == 'ö' and foo == 1", "The name 'foo' at column 20"),
    ("after.a == 1\nand after.b ** 2", "An operator other than + - * at line 2, column 5"),
    ("after.a == '\u2028' and\n\nx", "The name 'x' at line 3, column 1"),
    ("after.a >= ", "cannot be read at column"),
    ("(after.b", "cannot be read at column 1: '(' was never closed"),
    ("after.a and\nafter.b == 'x", "cannot be read at line 2, column 12: unterminated string"),
    ("after.a is 3", "`is` with anything but None at column 12"),
    ("change.colour == 1", "change.colour (there is change.op, change.resource, "),
    ("(lambda: 1)", "Lambda at column 2"),
])  # fmt: skip
def test_a_refusal_names_what_and_where(text: str, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        compile_expression(text)
    assert told in str(caught.value)


def test_the_limits_are_where_they_are_said_to_be() -> None:
    assert holds("not " * 48 + "true")
    assert holds("after.a != '" + "x" * 1_987 + "'")
    assert holds("18446744073709551616 > -18446744073709551616")


# --- whatever JSON comes
# ------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["", "a", "b", "ab", "\ud800"])
    | st.just(10**400),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
    ),
    max_leaves=12,
)
IMAGES = st.none() | st.dictionaries(st.sampled_from("abc"), JSON, max_size=3)

Tree = tuple[Any, ...]
CONSTANTS = st.sampled_from([None, True, False, 0, 1, -1, 1.0, 2.5, 2**64, "", "a", "ab"])
LEAVES = st.one_of(
    st.tuples(st.just("value"), CONSTANTS),
    st.tuples(st.just("value"), st.lists(CONSTANTS, max_size=3)),
    st.tuples(
        st.just("field"),
        st.sampled_from(["before", "after"]),
        st.lists(st.sampled_from(["a", "b", "c", 0, 1]), max_size=3),
    ),
)
COMPARED: dict[str, Any] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
TREES: st.SearchStrategy[Tree] = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.tuples(
            st.sampled_from([*COMPARED, "==", "!=", "in", "not in", "and", "or", "+", "-", "*"]),
            inner,
            inner,
        ),
        st.tuples(st.sampled_from(["not", "neg", "len", "lower", "upper"]), inner),
        st.tuples(st.sampled_from(["startswith", "endswith"]), inner, inner),
    ),
    max_leaves=8,
)


def written(tree: Tree) -> str:
    match tree:
        case ("value", value):
            return repr(value)
        case ("field", root, keys):
            return str(root) + "".join(
                f".{key}" if isinstance(key, str) else f"[{key}]" for key in keys
            )
        case ("not", one):
            return f"(not {written(one)})"
        case ("neg", one):
            return f"(-{written(one)})"
        case (("len" | "lower" | "upper") as name, one):
            return f"{name}({written(one)})"
        case (("startswith" | "endswith") as name, one, other):
            return f"{name}({written(one)}, {written(other)})"
        case (op, one, other):
            return f"({written(one)} {op} {written(other)})"
    raise AssertionError(tree)


def kind(value: Any) -> str:
    """What it is in JSON."""
    names = {
        type(None): "null",
        bool: "truth",
        int: "number",
        float: "number",
        str: "text",
        list: "list",
        dict: "object",
    }
    return names[type(value)]


def equal(one: Any, other: Any) -> bool:
    if kind(one) != kind(other):
        return False
    if kind(one) == "list":
        return len(one) == len(other) and all(equal(*pair) for pair in zip(one, other, strict=True))
    if kind(one) == "object":
        return sorted(one) == sorted(other) and all(equal(one[name], other[name]) for name in one)
    return bool(one == other)


def within(one: Any, other: Any) -> bool:
    if kind(other) == "list":
        return any(equal(one, each) for each in other)
    return kind(one) == "text" and kind(other) in ("text", "object") and one in other


def small(value: Any) -> bool:
    return kind(value) == "number" and (isinstance(value, float) or abs(value) < 2**256)


def computed(op: str, one: Any, other: Any) -> Any:
    if not small(one) or not small(other):
        return None
    try:
        return one + other if op == "+" else one - other if op == "-" else one * other
    except OverflowError:
        return None


def oracle(tree: Tree, scope: dict[str, Any]) -> Any:
    """The same by plain recursion over the tree that the text was written from."""
    if tree[0] == "value":
        return tree[1]
    if tree[0] == "field":
        found = scope[tree[1]]
        for key in tree[2]:
            fits = kind(found) == ("object" if isinstance(key, str) else "list")
            found = (
                (
                    found[key]
                    if key in (found if kind(found) == "object" else range(len(found)))
                    else None
                )
                if fits
                else None
            )
        return found
    op, one = tree[0], oracle(tree[1], scope)
    other = oracle(tree[2], scope) if len(tree) == 3 else None
    match op:
        case "==" | "!=":
            return equal(one, other) is (op == "==")
        case "in" | "not in":
            return within(one, other) is (op == "in")
        case "and" | "or":
            return (other if one else one) if op == "and" else (one if one else other)
        case "not":
            return not one
        case "neg":
            return -one if small(one) else None
        case "+" | "-" | "*":
            return computed(op, one, other)
        case "len":
            return len(one) if kind(one) in ("text", "list", "object") else None
        case "lower" | "upper":
            return (one.lower() if op == "lower" else one.upper()) if kind(one) == "text" else None
        case "startswith" | "endswith":
            return kind(one) == kind(other) == "text" and (
                one.startswith(other) if op == "startswith" else one.endswith(other)
            )
    return kind(one) == kind(other) and kind(one) in ("text", "number") and COMPARED[op](one, other)


def like(one: Any, other: Any) -> bool:
    return repr(one) == repr(other)  # not a number is like itself


def check_against_reading(tree: Tree, before: Any, after: Any) -> None:
    scope = {"before": before, "after": after}
    rule = compile_expression(written(tree))

    wanted = oracle(tree, scope)
    values = [part.evaluate(scope) for part in rule.conditions]
    assert all(map(bool, values)) is bool(wanted)
    if len(values) == 1:
        assert like(values[0], wanted)


@QUICK
@given(tree=TREES, before=IMAGES, after=IMAGES)
def test_it_never_fails_and_comes_to_what_a_plain_reading_gives(
    tree: Tree, before: Any, after: Any
) -> None:
    check_against_reading(tree, before, after)


@pytest.mark.broad
@MORE
@given(tree=TREES, before=IMAGES, after=IMAGES)
def test_more_trees_come_to_what_a_plain_reading_gives(tree: Tree, before: Any, after: Any) -> None:
    check_against_reading(tree, before, after)


TEXTS = st.text(max_size=60) | st.lists(st.sampled_from([
    "after", "before", "change", ".a", "[0]", "['b']", "(", ")", "[", "]", ",", " and ", " or ", " not ", " in ", " is ", "None", "==", "<", "1", "-", "*",
    "len", "'x'", "\n", "#", ":", "lambda", " for x in ", "{", "}", "**", "__class__", ".op", "=", "\\",
]), max_size=14).map("".join)  # fmt: skip


def check_text(text: str) -> None:
    try:
        rule = compile_expression(text)
    except UsageError:
        return
    assert isinstance(rule.holds(made()), bool)


@QUICK
@given(text=TEXTS)
def test_any_text_is_compiled_or_refused(text: str) -> None:
    check_text(text)


@pytest.mark.broad
@MORE
@given(text=TEXTS)
def test_more_texts_are_compiled_or_refused(text: str) -> None:
    check_text(text)


class Counted(dict[str, Any]):
    """A scope that counts how often a root is read."""

    reads = 0

    def __getitem__(self, name: str) -> Any:
        self.reads += 1
        return super().__getitem__(name)


NESTED = (
    "0 != ({}) != 2",
    "0 < len({}) < 9",
    "({}) in [1, 2] in [true]",
    "not ({})",
    "({}) or after.x",
    "({}) and (after.x or 1)",
    "1 == ({}) == after.x",
)


@pytest.mark.parametrize("around", NESTED)
def test_each_field_is_read_once_however_deeply_the_rule_is_nested(around: str) -> None:
    text = "after.name"
    for _ in range(12):
        text = around.replace("{}", text)
    (rule,) = compile_expression(f"({text}) or false").conditions
    scope = Counted(after={"name": "x"})

    rule.evaluate(scope)

    assert scope.reads <= text.count("after.")


def test_numbers_stay_small() -> None:
    rule = compile_expression(" * ".join(["after.huge"] * 40))
    assert rule.conditions[0].evaluate({"after": {"huge": 10**70}}) is None
    assert holds(
        "after.large * after.large > 0 and after.large * after.large * after.large * after.large * after.large is None"
    )


def test_json_that_is_nested_very_deeply_is_no_error() -> None:
    deep: Any = None
    for _ in range(100_000):
        deep = [deep]
    one = compile_expression("after.a == before.a or after.a in before.b or after.a != 1")
    assert one.conditions[0].evaluate(
        {"after": {"a": deep}, "before": {"a": [deep], "b": [deep]}}
    ) in (
        True,
        False,
    )
    while deep:  # its end, one by one: Python would go deep for it
        deep = deep.pop()
