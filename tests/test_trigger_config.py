"""`triggers.toml`: refused whole, with the line and the reason of the first thing that is wrong in
it.
"""

from __future__ import annotations

import json
import logging
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from stripe_feed.api.text_file import read_text_file
from stripe_feed.delivery.endpoint_config import secret_variables
from stripe_feed.delivery.payloads import Payload, PayloadContext
from stripe_feed.delivery.transports import Endpoint, resolve_secret
from stripe_feed.errors import SetupError, UsageError
from stripe_feed.resources import FEED_RESOURCES
from stripe_feed.triggers.config import check_triggers, parse_trigger, read_triggers
from stripe_feed.triggers.run import split_triggers
from stripe_feed.triggers.trigger import Enrol, Guard
from tests.deliveries import made, nothing
from tests.feed_kills import a_change

HEAD = '[[trigger]]\nname = "t"\nresource = "invoices"\n'
TO = 'deliver = { file = "out" }\n'
HIDDEN = "c4n4ry"
CHOOSE = ", ".join(FEED_RESOURCES)
PRESETS = "customer_created, customer_updated, payment_failed, subscription_canceled, subscription_past_due, trial_ending, invoice_paid, first_payment, invoice_overdue, subscription_renewing_soon, trial_ending_soon, customer_churned, mrr_dropped"
FORMATS = "standard, stripe, change, record, cloudevents"
REFERENCES = (
    "takes references such as env:HOOK_SECRET or dlt:my_section.hook_secret, not the secret itself."
)
AUTH = 'deliver.auth is one of { bearer = "env:T" }, { basic = ["env:USER", "env:PASSWORD"] }, { header = ["X-Api-Key", "env:KEY"] }.'
PRIVATE = "is not public; allow_private = true is for tools on this machine or network."
RULES = (
    "is not allowed in a rule. Rules allow before, after, change, customer, subscription, invoice, texts, numbers, true, false, null, lists of these, comparisons, in, and, "
    "or, not, + - *, len, lower, upper, startswith, endswith."
)


def rule(words: str) -> str:
    return f"{HEAD}{words}\n{TO}"


def guard(words: str) -> str:
    return f"{HEAD}{TO}guard = {words}\n"


def to(words: str) -> str:
    return f"{HEAD}deliver = {{ {words} }}\n"


def to_url(words: str) -> str:
    return to(f'url = "https://example.com/hook", {words}')


def to_file(words: str) -> str:
    return to(f'file = "out", {words}')


WRONG: list[tuple[str, int, str]] = [
    # what a file is made of
    ("a = ", 1, "not valid TOML: Invalid value (at end of document)."),
    (f"{HEAD}x = \n", 4, "not valid TOML: Invalid value (at line 4, column 5)."),
    (f'{HEAD}name = "again"\n', 4, "not valid TOML: Cannot overwrite a value (at line 4, column 15)."),
    ("triggers = 1\n", 1, "unknown key 'triggers'. A file consists of [[trigger]] tables."),
    (f"{HEAD}{TO}\n[settings]\na = 1\n", 6, "unknown key 'settings'. A file consists of [[trigger]] tables."),
    ('# mine\n[trigger]\nname = "t"\n', 2, "write [[trigger]], with two brackets."),
    ('trigger = "x"\n', 1, "write [[trigger]], with two brackets."),
    ('trigger = ["x"]\n', 1, "write [[trigger]], with two brackets."),
    # names
    (f"[[trigger]]\n{TO}", 1, "a trigger needs a name of letters, digits and the characters _ . -."),
    (f'[[trigger]]\nname = "a b"\n{TO}', 2, "a trigger needs a name of letters, digits and the characters _ . -."),
    (f'[[trigger]]\nname = "{"x" * 81}"\n{TO}', 2, "a trigger needs a name of letters, digits and the characters _ . -."),
    (f"{HEAD}{TO}\n{HEAD}{TO}", 7, "there are two triggers called 't'."),
    (f"{HEAD}{TO}[[trigger]]\nwhere = \"after.name == 'name'\"\nname = \"t\"\npreset = 'invoice_paid'\n{TO}", 7, "there are two triggers called 't'."),
    (rule('resouce = "x"'), 4, "unknown key resouce; did you mean 'resource'?"),
    (rule("zzz = 1"), 4, "unknown key zzz. Known are: name, preset, resource, op, event, origin, origin_push, transition, changed, where, enrol, per, net, guard, deliver, model, sql, key, rows, watch, on, every."),
    (rule('enrolled_by = "select 1"'), 4, "unknown key enrolled_by; did you mean 'enrol'?"),
    (f'[[trigger]]\nname = "t"\n{TO}', 2, f"say which resource it is about: {CHOOSE}."),
    (f'[[trigger]]\nname = "t"\nresource = "invoice"\n{TO}', 3, "There is no resource 'invoice'. Did you mean invoices or invoice_items? `stripe-feed status` lists what is loaded."),
    (f'[[trigger]]\nname = "t"\nresource = 5\n{TO}', 3, "resource takes a text or a list of texts."),
    (f'[[trigger]]\nname = "t"\npreset = "churn"\n{TO}', 3, f"there is no preset 'churn'. Choose from: {PRESETS}."),
    (f'[[trigger]]\nname = "t"\npreset = ["invoice_paid"]\n{TO}', 3, f"there is no preset ['invoice_paid']. Choose from: {PRESETS}."),
    # what it fires for
    (rule('op = "changed"'), 4, "There is no kind of change 'changed'. Choose from: c, u, d, r, added, updated, removed."),
    (rule('event = ["invoice.paid", "invoice.payed"]'), 4, "no change comes of the event 'invoice.payed'; near are ['invoice.paid', 'invoice.updated', 'invoice.created']."),
    (rule('event = "customer.created"'), 4, "no change comes of the event 'customer.created'; near are ['invoice.created']."),
    (rule('origin = ["event", "webhook"]'), 4, "there is no origin 'webhook'. Choose from: event, diff, list, snapshot."),
    (rule('transition = "paid"'), 4, 'transition takes a table, such as { status = { from = "active", to = "past_due" } }.'),
    (rule('transition = { status = "paid" }'), 4, "the transition of 'status' takes { from = \"…\", to = \"…\" }."),
    (rule('transition = { status = { form = "draft" } }'), 4, "the transition of 'status' takes { from = \"…\", to = \"…\" }."),
    (rule("transition = { status = { to = [] } }"), 4, "the transition of 'status' takes { from = \"…\", to = \"…\" }."),
    (rule("transition = { status = {} }"), 4, "the transition of 'status' takes { from = \"…\", to = \"…\" }."),
    (f'{HEAD}{TO}[trigger.transition]\nstatus = {{ to = "x" }}\ntotal = 5\n', 7, "the transition of 'total' takes { from = \"…\", to = \"…\" }."),
    (rule("changed = [1]"), 4, "changed takes a text or a list of texts."),
    (rule('changed = [""]'), 4, "changed takes a text or a list of texts."),
    (rule("where = 1"), 4, "where takes an expression as text."),
    (rule('where = ""'), 4, "where: The rule is empty. Write a condition such as `after.amount_paid >= 10000`, or leave `where` out."),
    (rule('where = "after.amount_paid >"'), 4, "where: The rule cannot be read at column 20: invalid syntax."),
    (rule("where = \"__import__('os').system('x')\""), 4, f"where: A call of \"__import__('os').system\" at column 1 {RULES}"),
    (rule("where = \"after.a == 1 and exec('1')\""), 4, f"where: A call of 'exec' at column 18 {RULES}"),
    (rule('where = "after.__class__"'), 4, f"where: The name '__class__' at column 1 {RULES}"),
    (rule('where = "open"'), 4, f"where: The name 'open' at column 1 {RULES}"),
    (rule('where = "[x for x in after]"'), 4, f"where: ListComp at column 1 {RULES}"),
    (rule('where = "(lambda: 1)()"'), 4, f"where: A call of 'lambda: 1' at column 1 {RULES}"),
    (rule('where = "before.a ** 9"'), 4, f"where: An operator other than + - * at column 1 {RULES}"),
    # how often
    (rule('enrol = "twice"'), 4, 'enrol is "always", "once", "no_concurrency", or such as "cooldown 7d".'),
    (rule('enrol = "cooldown"'), 4, 'enrol is "always", "once", "no_concurrency", or such as "cooldown 7d".'),
    (rule("enrol = 1"), 4, 'enrol is "always", "once", "no_concurrency", or such as "cooldown 7d".'),
    (rule('enrol = "cooldown soon"'), 4, "enrol: 'soon' is not a duration. Use a form such as 90d, 12h, 30m or 45s."),
    (rule('per = "customer"'), 4, 'per is "object_id" or "customer_id".'),
    (rule('net = "yes"'), 4, "net must be true or false."),
    (guard("5"), 5, "guard takes a table, such as { max = 1000, share = 0.5 }."),
    (guard("{ most = 5 }"), 5, "unknown key guard.most. Known are: max, share."),
    (guard("{ max = -1 }"), 5, "guard.max is a whole number of messages."),
    (guard("{ max = true }"), 5, "guard.max is a whole number of messages."),
    (guard("{ share = 2 }"), 5, "guard.share is between 0 and 1."),
    # where to
    (HEAD, 1, 'say where messages go, such as deliver = { url = "https://…" }.'),
    (rule('deliver = "out"').replace(TO, ""), 4, 'say where messages go, such as deliver = { url = "https://…" }.'),
    (to(""), 4, "deliver takes one of url, command, python, file."),
    (to('file = "a", command = "b"'), 4, "deliver takes one of url, command, python, file."),
    (to("file = 1"), 4, "deliver.file must be a string."),
    (to_file("template = { a = 0x1_ffff_ffff_ffff_ffff }"), 1, "an integer has more than 64 bits."),
    (to_file("template = " + "[" * 90 + "]" * 90), 1, "the nesting is more than 60 deep."),
    (to('command = ""'), 4, "deliver.command must be a string."),
    (to('command = " "'), 4, "deliver.command must be a string."),
    (to('file = "a\\u0000b"'), 4, "deliver.file must be a string."),
    (rule(f'enrol = "cooldown {"9" * 5_000}d"'), 4, f"enrol: {'9' * 40!r} is too long: the maximum is 36525d, a hundred years."),
    (rule('changed = "metadata["'), 4, "The path 'metadata[' cannot be read at character 9. Write it like items.data.0 or metadata[\"a.b\"]."),
    (to('fil = "a"'), 4, "unknown key deliver.fil; did you mean 'file'?"),
    (to('url = "https://"'), 4, "deliver.url: The URL has no host or port that can be called. Give one like https://example.com/hook."),
    (to(f'url = "http://example.com/{HIDDEN}"'), 4, "deliver.url: The URL to example.com must begin with https://; http:// takes allow_private = true."),
    (to(f'url = "ftp://example.com/{HIDDEN}", allow_private = true'), 4, "deliver.url: The URL to example.com must begin with https://; http:// takes allow_private = true."),
    (to(f'url = "https://user:{HIDDEN}@example.com/"'), 4, "deliver.url: The URL to example.com holds a user or password. Give them as auth, by reference."),
    (to(f'url = "https://10.1.2.3/{HIDDEN}"'), 4, f"deliver.url: 10.1.2.3 {PRIVATE}"),
    (to(f'url = "https://localhost:5678/{HIDDEN}"'), 4, f"deliver.url: localhost {PRIVATE}"),
    (to(f'url = "https://[::1]/{HIDDEN}"'), 4, f"deliver.url: ::1 {PRIVATE}"),
    (to(f'url = "https://169.254.169.254/{HIDDEN}", allow_private = true'), 4, f"deliver.url: 169.254.169.254 {PRIVATE}"),
    (f'{HEAD}[trigger.deliver]\nurl = "https://example.com"\nformat = "xml"\n', 6, f"there is no format 'xml'. Choose from: {FORMATS}."),
    (f'{HEAD}deliver.url = "https://example.com"\ndeliver.timeout = 0\n', 5, "deliver.timeout is in seconds, at most 120."),
    (to_file('format = "xml"'), 4, f"there is no format 'xml'. Choose from: {FORMATS}."),
    (to_file('format = "record", template = { a = "b" }'), 4, "deliver takes a format or a template, not both."),
    (to_file('template = { a = "{after.email" }'), 4, "deliver.template: template.a, character 1: unmatched brace. Write a literal brace twice."),
    (to_file('template = { a = "{email}" }'), 4, "deliver.template: template.a, character 1: 'email' is not a path. Paths begin with after, before, change, customer, subscription, invoice, trigger, account_id; such as `after.email`."),
    (to_file('template = { a = ["x {after.x|upper}"] }'), 4, "deliver.template: template.a[0], character 3: unknown filter 'upper'. Choose from: money:<path of the currency>, date."),
    (to_url(f'secrets = ["env:A", "whsec_{HIDDEN}"]'), 4, f"deliver.secrets {REFERENCES}"),
    (to_url(f'secrets = "{HIDDEN}"'), 4, f"deliver.secrets {REFERENCES}"),
    (to_url(f'secrets = ["env:A {HIDDEN}"]'), 4, f"deliver.secrets {REFERENCES}"),
    (to_url("secrets = 5"), 4, 'deliver.secrets is a list, such as ["env:HOOK_SECRET"].'),
    (to_url(f'auth = {{ bearer = "{HIDDEN}" }}'), 4, f"deliver.auth {REFERENCES}"),
    (to_url(f'auth = {{ basic = ["env:USER", "{HIDDEN}"] }}'), 4, f"deliver.auth {REFERENCES}"),
    (to_url(f'auth = {{ header = ["X-Api-Key", "{HIDDEN}"] }}'), 4, f"deliver.auth {REFERENCES}"),
    (to_url('auth = { basic = "env:U" }'), 4, "deliver.auth.basic takes 2 values."),
    (to_url('auth = { token = "env:U" }'), 4, "unknown key auth.token. Known are: bearer, basic, header."),
    (to_url(f'auth = "{HIDDEN}"'), 4, AUTH),
    (to_url('auth = { bearer = "env:A", basic = ["env:B", "env:C"] }'), 4, AUTH),
    (to_url(f'headers = {{ authorization = "Bearer {HIDDEN}" }}'), 4, "deliver.headers holds no secrets: give deliver.auth, by reference."),
    (to_url(f'headers = {{ Host = "{HIDDEN}" }}'), 4, "deliver.headers: Host is set by stripe-feed."),
    (to_url(f'headers = {{ X = "a\\n{HIDDEN}" }}'), 4, "deliver.headers: the value of X has a line break or another character not allowed in headers."),
    (to_url("headers = { X = 1 }"), 4, "deliver.headers must be a table of strings."),
    (to_url('format = "stripe"'), 4, "the format stripe is signed: set deliver.secrets."),
    (to_file("timeout = 0"), 4, "deliver.timeout is in seconds, at most 120."),
    (to_file("timeout = 121"), 4, "deliver.timeout is in seconds, at most 120."),
    (to_file("timeout = true"), 4, "deliver.timeout is in seconds, at most 120."),
    (to_file('timeout = "5"'), 4, "deliver.timeout is in seconds, at most 120."),
    (to_file('on_exhausted = "stop"'), 4, 'deliver.on_exhausted is "skip" or "block".'),
    (to_file("allow_private = 1"), 4, "allow_private must be true or false."),
    (to_file("synthetic = 1"), 4, "synthetic must be true or false."),
]  # fmt: skip


@pytest.mark.parametrize(("text", "line", "reason"), WRONG)
def test_a_wrong_file_is_refused_with_line_and_reason(
    text: str, line: int, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    Path("triggers.toml").write_text(text, encoding="utf-8")

    with pytest.raises(UsageError) as fault:
        read_triggers()

    assert str(fault.value) == f"triggers.toml:{line}: {reason}"
    assert HIDDEN not in str(fault.value) + caplog.text
    assert fault.value.exit_code == 2


@pytest.mark.parametrize(
    ("text", "line"), [(text, line) for text, line, reason in WRONG if text.startswith(HEAD)]
)
def test_a_trigger_that_is_fine_before_it_does_not_hide_it(text: str, line: int) -> None:
    fine = '[[trigger]]\nname = "fine"\npreset = "invoice_paid"\ndeliver.file = "out"\n\n'
    Path("mine.toml").write_text(fine + text, encoding="utf-8")

    with pytest.raises(UsageError, match=rf"^mine\.toml:{line + 5}: "):
        read_triggers("mine.toml")


def test_a_file_that_is_not_there_or_no_text_is_refused() -> None:
    with pytest.raises(
        UsageError, match=r"^There is no file none\.toml\. `stripe-feed triggers init`"
    ):
        read_triggers("none.toml")
    Path("odd.toml").write_bytes(b"\xff")
    with pytest.raises(UsageError, match=r"^odd\.toml cannot be read \(UnicodeDecodeError\)"):
        read_triggers(Path("odd.toml"))
    with pytest.raises(UsageError, match=r"^/dev/zero cannot be read \(OSError\)"):  # has no end
        read_triggers("/dev/zero")


def test_the_ends_of_lines_do_not_change_what_a_file_says(tmp_path: Path) -> None:
    """A trigger on a model whose SQL changed would begin anew."""
    for content in (b"\xef\xbb\xbfselect 1\r\nfrom t\r\n", b"select 1\rfrom t\r"):
        (tmp_path / "rows.sql").write_bytes(content)
        assert read_text_file(tmp_path / "rows.sql", "utf-8-sig") == "select 1\nfrom t\n"


@pytest.mark.parametrize("value", ["[" * 3_000 + "]" * 3_000, "9" * 5_000])
def test_what_is_beyond_the_reader_of_toml_is_refused(value: str) -> None:
    Path("odd.toml").write_text(rule(f"x = {value}"), encoding="utf-8")
    with pytest.raises(
        UsageError,
        match=r"^odd\.toml: a number is too long, or the nesting is too deep\.$",
    ):
        read_triggers("odd.toml")


ANYTHING = (
    "0",
    "-1",
    "1e400",
    "nan",
    "true",
    '""',
    '"x"',
    "[]",
    "[[]]",
    "[{}]",
    "{}",
    "{ a = 1 }",
    "2026-01-01",
    "12:00:00",
    '["", 1]',
)
KEYS = ("name", "preset", "resource", "op", "event", "origin", "transition", "changed", "where", "enrol", "per", "net", "guard", "guard.max", "guard.share", "deliver",
        "deliver.url", "deliver.command", "deliver.python", "deliver.format", "deliver.template", "deliver.secrets", "deliver.auth", "deliver.headers", "deliver.timeout",
        "deliver.on_exhausted", "deliver.allow_private", "transition.status", "transition.status.to")  # fmt: skip


@pytest.mark.parametrize("key", KEYS)
def test_any_value_of_any_key_is_fine_or_refused(key: str) -> None:
    for value in ANYTHING:
        rest = [
            line
            for line in ('name = "t"', 'resource = "invoices"', 'deliver.file = "out"')
            if not line.startswith(key.partition(".")[0])
        ]
        Path("any.toml").write_text(
            "\ufeff" + "\n\t".join(["[[trigger]]", *rest, f"{key} = {value}"]), encoding="utf-8"
        )
        with suppress(UsageError):
            for trigger in check_triggers("any.toml").triggers:
                assert trigger.rule and trigger.deliver.shown


def test_an_empty_file_has_no_triggers() -> None:
    Path("triggers.toml").write_text("# nothing yet\n", encoding="utf-8")

    assert read_triggers() == []


EVERYTHING = """
[[trigger]]
name = "welcome"
preset = "customer_created"
deliver = { url = "https://example.com/hook?a=b", format = "standard", secrets = ["env:HOOK_SECRET"] }

[[trigger]]
name = "big_invoice.paid-1"
resource = ["invoices"]
op = ["u", "added"]
event = ["invoice.updated", "invoice.paid"]
origin = ["event", "diff", "list", "snapshot"]
transition = { status = { from = ["draft", "open"], to = "paid" }, "metadata.plan" = { from = "null" }, "a.b" = { to = "*" } }
changed = ["status", "metadata.plan"]
where = '''
after.amount_paid >= 10000
and after.currency == 'eur'
'''
enrol = "cooldown 7d"
per = "customer_id"
net = true
guard = { max = 10, share = 0.25 }
[trigger.deliver]
url = "http://127.0.0.1:5678/webhook"
template = { to = "{after.email}", nested = { list = ["{change.type}", 1, true] } }
secrets = ["env:NEW", "dlt:hooks.old_secret"]
auth = { header = ["X-Api-Key", "env:KEY"] }
headers = { "X-Source" = "stripe" }
allow_private = true
timeout = 2.5
on_exhausted = "block"
synthetic = true

[[trigger]]
name = "collect"
resource = "subscriptions"
enrol = "no_concurrency"
deliver.command = "./collect.sh"
deliver.auth.basic = ["env:USER", "dlt:password"]

[[trigger]]
name = "count"
event = "customer.subscription.paused"
deliver = { python = "my_module:function", auth = { bearer = "env:T" }, secrets = "env:ONE" }
"""


def test_a_file_may_say_everything() -> None:
    Path("triggers.toml").write_text(EVERYTHING, encoding="utf-8")

    welcome, big, collect, count = split_triggers(read_triggers())[0]

    assert (welcome.name, welcome.filter.resources, welcome.filter.ops, welcome.origin) == (
        "welcome",
        ("customers",),
        ("c",),
        ("event", "diff", "list"),
    )
    assert (welcome.deliver.kind, welcome.deliver.to, welcome.deliver.secrets) == (
        "url",
        "https://example.com/hook?a=b",
        ("env:HOOK_SECRET",),
    )
    assert (welcome.enrol, welcome.guard, welcome.net, welcome.per, welcome.where) == (
        Enrol(),
        Guard(1_000, 0.5),
        False,
        "object_id",
        None,
    )
    assert (big.filter.resources, big.filter.ops, big.event) == (
        ("invoices",),
        ("u", "c"),
        ("invoice.updated", "invoice.paid"),
    )
    assert big.origin == ("event", "diff", "list", "snapshot")
    assert big.transition == {
        "status": (["draft", "open"], "paid"),
        "metadata.plan": (None, "*"),
        "a.b": ("*", "*"),
    }
    assert (big.changed, big.enrol, big.per, big.net, big.guard) == (
        ("status", "metadata.plan"),
        Enrol("cooldown", 604_800),
        "customer_id",
        True,
        Guard(10, 0.25),
    )
    assert big.where and [part.text for part in big.where.conditions] == [
        "after.amount_paid >= 10000",
        "after.currency == 'eur'",
    ]
    there = big.deliver
    assert (there.kind, there.to, there.secrets) == (
        "url",
        "http://127.0.0.1:5678/webhook",
        ("env:NEW", "dlt:hooks.old_secret"),
    )
    assert (there.auth, there.headers) == (
        {"header": ("X-Api-Key", "env:KEY")},
        {"X-Source": "stripe"},
    )
    assert (there.allow_private, there.timeout, there.on_exhausted, there.synthetic) == (
        True,
        2.5,
        "block",
        True,
    )
    assert there.template["nested"]["list"][2] is True
    assert (collect.enrol.kind, collect.deliver.kind, collect.deliver.to) == (
        "no_concurrency",
        "command",
        "./collect.sh",
    )
    assert collect.deliver.auth == {"basic": ("env:USER", "dlt:password")}
    assert (count.filter.resources, count.event, count.deliver.secrets) == (
        (),
        ("customer.subscription.paused",),
        ("env:ONE",),
    )


def test_the_same_in_python_may_name_a_function() -> None:
    trigger = parse_trigger(
        {"name": "t", "resource": "subscriptions", "op": "updated", "deliver": {"python": nothing}}
    )

    assert trigger.deliver.to is nothing
    assert trigger.fires(made(a_change(1)))
    with pytest.raises(UsageError, match="did you mean 'resource'"):
        parse_trigger({"name": "t", "resorce": "x", "deliver": {"python": nothing}})


# Secrets


def receiver_of(**words: Any) -> Endpoint:
    trigger = parse_trigger(
        {
            "name": "t",
            "resource": "subscriptions",
            "deliver": {"url": "https://example.com/hook", **words},
        }
    )
    return Endpoint("t", trigger.deliver, lambda: 1_767_225_600.9)


SECRET = "whsec_" + "QUFB" * 8


def test_secrets_are_looked_up_in_the_environment_and_by_dlt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import dlt

    monkeypatch.setenv("HOOK_SECRET", f"{SECRET}\n")
    monkeypatch.setenv("HOOKS__OLD", SECRET)
    assert dlt.secrets.get("hooks.old") == SECRET

    assert (resolve_secret("env:HOOK_SECRET"), resolve_secret("dlt:hooks.old")) == (SECRET, SECRET)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"secrets": ["env:NOT_SET"]}, "The secret env:NOT_SET is not set. Set it in the environment, or remove it from the trigger."),
        ({"secrets": ["dlt:no.such"]}, "The secret dlt:no.such is not set. Set it in .dlt/secrets.toml, or remove it from the trigger."),
        ({"auth": {"bearer": "env:NOT_SET"}}, "The secret env:NOT_SET is not set. Set it in the environment, or remove it from the trigger."),
        ({"secrets": ["env:SHORT"]}, "deliver.secrets of t: A secret is not of the form whsec_<base64 of at least 24 bytes>. Copy it anew, or have a new one made."),
    ],
)  # fmt: skip
def test_a_secret_that_is_not_there_is_said_before_anything_is_sent(
    words: Any, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHORT", f"whsec_{HIDDEN}")

    with pytest.raises(SetupError) as fault:
        receiver_of(**words)
    assert str(fault.value) == message


def test_a_url_may_be_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is shown by its name, and looked up before anything is sent."""
    monkeypatch.setenv("SLACK_URL", f"https://hooks.example.com/{HIDDEN}\n")
    receiver = receiver_of(url="env:SLACK_URL")

    assert receiver.transport._connections.target.host == "hooks.example.com"  # type: ignore[attr-defined]
    assert receiver.deliver.shown == "env:SLACK_URL"
    assert HIDDEN not in repr(receiver.deliver)
    receiver.close()


def test_of_a_url_that_is_a_secret_no_note_tells_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK_URL", f"https://{HIDDEN}.example.com/")
    deliver = parse_trigger(
        {"name": "t", "resource": "subscriptions", "deliver": {"url": "env:HOOK_URL"}}
    ).deliver
    for address, words in (
        ("10.0.0.1", "env:HOOK_URL leads to an address that is not public."),
        (None, "No address was found for env:HOOK_URL."),
    ):
        found = [(0, 1, 6, "", (address, 443))] if address else []
        receiver = Endpoint("t", deliver, lambda: 0.0, lookup=lambda *_, found=found, **__: found)
        assert receiver.send("msg_1", Payload(b"{}")).note.startswith(words)


@pytest.mark.parametrize(
    "url",
    [
        f"http://example.com/{HIDDEN}",
        f"{HIDDEN}",
        f"https://10.0.0.1/{HIDDEN}",
        f"https://{HIDDEN}@example.com/",
    ],
)
def test_a_secret_that_is_no_url_is_said_without_it(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLACK_URL", url)
    with pytest.raises(SetupError, match="The secret env:SLACK_URL is not a usable URL") as fault:
        receiver_of(url="env:SLACK_URL")
    assert HIDDEN not in str(fault.value)
    with pytest.raises(SetupError, match="The secret env:NOT_SET is not set"):
        receiver_of(url="env:NOT_SET")


def test_the_secrets_of_all_receivers_are_hidden_from_commands() -> None:
    words = (
        {"url": "env:SLACK_URL", "secrets": ["dlt:hooks.old"]},
        {"url": "https://example.com/", "auth": {"basic": ["env:USER_1", "env:PW"]}},
    )
    found = [
        parse_trigger({"name": "t", "resource": "subscriptions", "deliver": one}).deliver
        for one in words
    ]
    assert secret_variables(found) == {"SLACK_URL", "HOOKS__OLD", "USER_1", "PW"}


def test_headers_carry_the_id_the_time_and_a_signature_per_secret(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NEW", SECRET)
    monkeypatch.setenv("OLD", "whsec_" + "QkJC" * 8)
    telling = PayloadContext(made(a_change(1)), "t", "msg_1")

    plain, signed, stripe = (
        receiver_of(),
        receiver_of(secrets=["env:NEW", "env:OLD"]),
        receiver_of(secrets=["env:NEW"], format="stripe"),
    )

    assert plain.headers("msg_1", plain.body(telling)) == {
        "content-type": "application/json",
        "webhook-id": "msg_1",
        "webhook-timestamp": "1767225600",
    }
    found = signed.headers("msg_1", signed.body(telling))
    assert [one[:3] for one in found["webhook-signature"].split(" ")] == ["v1,", "v1,"]
    assert set(stripe.headers("msg_1", stripe.body(telling))) == {
        "content-type",
        "webhook-id",
        "webhook-timestamp",
        "stripe-signature",
    }
    assert json.loads(stripe.body(telling).content)["id"] == "evt_1"


@pytest.mark.parametrize(
    ("auth", "header"),
    [
        ({"bearer": "env:TOKEN"}, {"Authorization": "Bearer t0ken"}),
        ({"basic": ["env:USER_NAME", "env:TOKEN"]}, {"Authorization": "Basic bWU6dDBrZW4="}),
        ({"header": ["X-Api-Key", "env:TOKEN"]}, {"X-Api-Key": "t0ken"}),
    ],
)  # fmt: skip
def test_credentials_go_into_a_header(
    auth: Any, header: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "t0ken")
    monkeypatch.setenv("USER_NAME", "me")
    seen: dict[str, Any] = {}
    monkeypatch.setattr(
        "stripe_feed.delivery.transports.WebhookTransport", lambda url, **given: seen.update(given)
    )

    receiver_of(auth=auth, headers={"X-Source": "stripe"})

    assert seen["headers"] == {"X-Source": "stripe", **header}
    assert "t0ken" not in repr(
        parse_trigger(
            {
                "name": "t",
                "resource": "plans",
                "deliver": {"url": "https://example.com", "auth": auth},
            }
        )
    )
