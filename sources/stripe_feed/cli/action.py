"""`stripe-feed action …` looks up or changes one object; `forget` deletes and erases a customer. stdout
is the result, stderr is talk.
"""

from __future__ import annotations

import json as jsonlib
import os
import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..api.text_file import read_text_file
from ..errors import UsageError
from .options import (
    ClientOptions,
    ConnectedAccount,
    InteractiveClientOptions,
    Json,
    LocalCopyOptions,
    split_names,
)

if TYPE_CHECKING:
    from ..forget_run import AtStripe
    from ..resources.writable import Writable
    from ..write.result import ActionResult

SHOWN = (
    "email",
    "name",
    "status",
    "customer",
    "product",
    "unit_amount",
    "total",
    "currency",
    "active",
    "type",
    "value",
)
"""Fields of a found object that the table shows, if the objects have them."""
_SCHEMA = "schema"

Pairs = list[str] | None


def action(
    *,
    resource: Annotated[
        str,
        typer.Argument(
            metavar="RESOURCE",
            help="One of customers, products, prices, plans, coupons, subscriptions, invoices, invoice_items, quotes; or schema, which prints the JSON Schema of the actions.",
        ),
    ],
    verb: Annotated[
        str | None,
        typer.Argument(
            metavar="VERB",
            help="Such as get, search, upsert, cancel or finalize; without one, an error lists them.",
        ),
    ] = None,
    object_id: Annotated[
        str | None, typer.Argument(metavar="ID", help="The object; or find it with --match.")
    ] = None,
    match: Annotated[
        Pairs,
        typer.Option(
            metavar="NAME=VALUE", help="Find the object by this property; may be repeated."
        ),
    ] = None,
    set: Annotated[
        Pairs,
        typer.Option(
            metavar="NAME=VALUE",
            help='Set this field, such as name=Jane, metadata.plan=pro or items=\'[{"price": "price_1"}]\'.',
        ),
    ] = None,
    unset: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Clear this field; may be repeated.")
    ] = None,
    where: Annotated[
        Pairs,
        typer.Option(
            metavar="CONDITION",
            help="Such as status=active, name~jane, created>=2026-01-31 or metadata.plan=pro; all must hold.",
        ),
    ] = None,
    any_of: Annotated[bool, typer.Option("--any", help="One --where is enough.")] = False,
    limit: Annotated[int, typer.Option(metavar="N", min=1, help="How many objects to find.")] = 10,
    expand: Annotated[
        list[str] | None, typer.Option(metavar="FIELD", help="Expand this field; may be repeated.")
    ] = None,
    nulls: Annotated[
        str, typer.Option(metavar="POLICY", help="What an empty value means: skip, unset or error.")
    ] = "skip",
    only_if_empty: Annotated[
        bool, typer.Option("--only-if-empty", help="Keep the values that an object has already.")
    ] = False,
    if_several: Annotated[
        str,
        typer.Option(
            metavar="POLICY", help="What to do if several match: error, newest, oldest or all."
        ),
    ] = "error",
    at_period_end: Annotated[
        bool, typer.Option("--at-period-end", help="Cancel at the end of the period, not now.")
    ] = False,
    tax_id: Annotated[
        str | None, typer.Option(metavar="ID", help="The tax id that delete_tax_id deletes.")
    ] = None,
    reason: Annotated[
        str | None, typer.Option(metavar="WORD", help="Why it is canceled, such as too_expensive.")
    ] = None,
    comment: Annotated[
        str | None, typer.Option(metavar="TEXT", help="A comment on the cancellation.")
    ] = None,
    input: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="JSON with these options by name, - for stdin."),
    ] = None,
    idempotency_key: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="Repeat a write whose outcome is unknown, with its key."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Look up and check; show what would be sent.")
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Confirm what cannot be undone, or bills, on live data.")
    ] = False,
    database: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Copy that answers look-ups while it is fresh."),
    ] = None,
    destination: Annotated[
        str | None, typer.Option(metavar="NAME", help="The same, in another dlt destination.")
    ] = None,
    dataset: Annotated[
        str, typer.Option(metavar="NAME", help="Schema that holds the tables of the copy.")
    ] = "stripe",
    account: ConnectedAccount = None,
    client: ClientOptions,
    flat: Annotated[
        bool, typer.Option("--flat", help="With --json: object, id, status and message only.")
    ] = False,
    json: Json = False,
) -> int:
    """Look up, create, change, cancel or delete one object at Stripe."""
    from ..write.actions import open_actions
    from ..write.lookup.find import writable
    from . import output

    if resource == _SCHEMA:
        return print_schema(verb, object_id)
    row = writable(resource)
    if verb is None:
        raise UsageError(f"Give a verb for {resource}: {', '.join(verbs(row))}.")
    order: dict[str, Any] = {
        "id": object_id,
        "match": parse_pairs(match, "--match", row, verb),
        "set": parse_pairs(set, "--set", row, verb),
        "unset": split_names(unset, "--unset"),
        "where": parse_where(where, any_of),
        "limit": limit if limit != 10 else None,
        "expand": split_names(expand, "--expand"),
        "nulls": nulls if nulls != "skip" else None,
        "only_if_empty": only_if_empty or None,
        "if_several": if_several if if_several != "error" else None,
        "at_period_end": at_period_end or None,
        "tax_id": tax_id,
        "reason": reason,
        "comment": comment,
        "idempotency_key": idempotency_key,
        "dry_run": dry_run or None,
        "confirm": yes or None,
    }
    order = {
        **read_input(input),
        **{name: value for name, value in order.items() if value is not None},
    }
    with open_actions(
        database=database,
        destination=destination,
        dataset=dataset,
        account=account,
        threads=1,
        **client.for_client(),
    ) as actions:
        result = actions.run(resource, verb, **order)
    if json or flat:
        output.print_json(result.to_dict(flat))
    else:
        print_result(result)
    if not result.ok:
        output.echo_err(f"error: {result.message}")
    return result.exit_code


def forget(
    *,
    customer: Annotated[str, typer.Argument(metavar="CUSTOMER", help="The customer: cus_….")],
    only_here: Annotated[
        bool, typer.Option("--only-here", help="Leave the customer at Stripe as it is.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Confirm it on live data.")] = False,
    is_dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what ends at Stripe; delete and erase nothing.")
    ] = False,
    push_log: Annotated[
        str | None,
        typer.Option(
            "--push-log",
            metavar="FILE",
            help="The log of your pushes. Beside the DuckDB file by default.",
        ),
    ] = None,
    copy: LocalCopyOptions,
    client: InteractiveClientOptions,
    json: Json = False,
) -> None:
    """Delete a customer at Stripe, and erase it here: rows, changes, messages. This cannot be undone.

    Rows keep ids, amounts and times. Stripe itself keeps invoices, payments and events.
    """
    from .. import forget_run
    from ..destination.pipeline import dlt_settings
    from ..write.push.log import log_beside
    from .feed import open_feed_for_cli
    from .output import print_receipt

    forget_run.check_customer(customer, asks_stripe=not only_here)
    if push_log is not None and not os.path.exists(push_log):
        raise UsageError(f"There is no push log {push_log}. Nothing was done: name the right one.")
    with open_feed_for_cli(copy, allow_empty=True) as feed, dlt_settings():
        stripe: forget_run.AtStripe = "kept"
        if not only_here and copy.account is None and feed.holds_many_accounts():
            raise UsageError(
                "This dataset holds several accounts. Name the customer's with --account acct_..., "
                "or add --only-here. Nothing was deleted."
            )
        feed.check_erasable(customer)
        if not only_here:
            stripe = delete_customer(
                customer, {"account": copy.account, **client.for_client()}, yes, is_dry_run
            )
        if not is_dry_run:
            path = push_log or log_beside(copy.database)
            print_receipt(forget_run.erase_here(feed, customer, stripe, path), json)


def delete_customer(
    customer: str, options: dict[str, Any], yes: bool, is_dry_run: bool
) -> AtStripe:
    """Say what the deletion at Stripe drags along, then do it. Raises `UsageError` without --yes on
    live data.
    """
    from ..forget_run import delete_at_stripe, describe_deletion
    from ..write.actions import open_actions
    from .output import echo_err

    with open_actions(threads=1, **options) as actions:
        effect = describe_deletion(actions, customer)
        if effect is None:
            echo_err(f"{customer} is deleted at Stripe already.")
            return "deleted before"
        echo_err(f"{customer} at Stripe: {effect}")
        if not is_dry_run:
            delete_at_stripe(actions, customer, confirm=yes)
    return "kept" if is_dry_run else "deleted"


def verbs(row: Writable) -> list[str]:
    """The verbs of a resource."""
    from ..write.verbs import verbs_of

    return verbs_of(row)


def print_schema(resource: str | None, verb: str | None) -> int:
    """Print the JSON Schema of every action, of those of a resource, or of one."""
    from ..write.schema import schemas
    from .output import print_json

    print_json(schemas(resource, verb))
    return 0


def parse_pairs(given: Pairs, option: str, row: Writable, verb: str) -> dict[str, Any] | None:
    """Turn `name=value` options into a hash; a list or hash is written as JSON. Raises `UsageError`."""
    if not given:
        return None
    known = row.parameters.get(verb) or row.parameters.get("create", {})
    pairs: dict[str, Any] = {}
    for text in given:
        name, sign, value = text.partition("=")
        name = name.strip()
        if not sign or not name:
            raise UsageError(f"{option} takes NAME=VALUE.")
        if name in pairs:
            raise UsageError(f"{option} {name} is given twice.")
        parameter = known.get(name)
        is_nested = parameter and {"hash", "list", "map"} & {*parameter.types}
        pairs[name] = (
            _parse_json(f"{option} {name}", value)
            if is_nested and value[:1] in "[{" and value
            else value
        )
    return pairs


def _parse_json(what: str, text: str) -> Any:
    """Parse JSON; numbers with a point stay exact. Raises `UsageError`."""
    from decimal import Decimal

    try:
        return jsonlib.loads(text, parse_float=Decimal)
    except ValueError:
        raise UsageError(f"{what} is no JSON.") from None


def parse_where(conditions: Iterable[str] | None, any_of: bool) -> Any:
    """Turn `--where` options into one filter; None without any."""
    from ..write.lookup.filters import Group, parse

    if not conditions:
        return None
    return Group(any_of, tuple(parse(text) for text in conditions))


def read_input(file: str | None) -> dict[str, Any]:
    """Read the options of `--input`. Raises `UsageError`."""
    if file is None:
        return {}
    try:
        text = sys.stdin.read() if file == "-" else read_text_file(file)
    except (OSError, UnicodeDecodeError) as fault:
        raise UsageError(f"--input cannot be read ({type(fault).__name__}).") from None
    found = _parse_json("--input", text)
    if not isinstance(found, Mapping):
        raise UsageError('--input is a JSON object such as {"match": {...}, "set": {...}}.')
    return dict(found)


def print_result(result: ActionResult) -> None:
    """Print what was found as a table, and anything else as one line, with the requests of a dry run;
    of one object that was retrieved, the plain fields.
    """
    from .output import console_out, echo_err, escape_control, make_table

    if result.objects is not None:
        columns = ["id", *(name for name in SHOWN if any(name in o for o in result.objects))]
        rows = [[short(item.get(name)) for name in columns] for item in result.objects]
        console_out().print(make_table(columns, rows))
        echo_err(f"{result.message}.")
        return
    if result.ok:
        line = f"{result.status}  {result.id or '-'}  {result.message}"
        sys.stdout.write(f"{escape_control(line)}\n")
    if result.ok and result.object is not None and result.action.endswith(".get"):
        shown = {name: short(value) for name, value in result.object.items()}
        rows = [[name, value] for name, value in shown.items() if _is_plain(value)]
        console_out().print(make_table(["field", "value"], rows))
    for request in result.requests:
        sys.stdout.write(f"{request.method.upper()} {request.path}\n")
        for name, value in request.params.items():
            sys.stdout.write(
                f"  {escape_control(name)}={escape_control(jsonlib.dumps(value, default=str))}\n"
            )


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int | float) and value != ""


def short(value: Any) -> Any:
    """The id of an object that is expanded; anything else as it is."""
    return value.get("id") if isinstance(value, Mapping) else value
