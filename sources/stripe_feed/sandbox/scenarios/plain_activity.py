"""Activity on the objects of the chosen groups: they are created, changed with and without an event,
deleted, and come again under their old id. Money moves by the rules of `money`, so that it adds up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..money import charges, settlement
from ..samples.annotations import fields_of
from ..samples.values import Object
from ..state import mutations
from ..state.account import Account
from ..state.kinds import EMBEDDED, KINDS, Kind
from ..state.table import Row
from .tricky_activity import Action, random_object

PAST = 60 * 86_400
"""How old the objects of the groups are at most when the sandbox starts."""

CURRENCIES_OF_CHARGES = ("usd", "usd", "eur")
NOT_EDITED = frozenset(
    {"currency", "customer_account", "number", "failure_message", "failure_code"}
)
"""Texts that say something about other fields."""

Flow = Callable[[Account], Action | None]


def kinds_of(groups: Sequence[str]) -> list[Kind]:
    """The kinds of these groups, without those that have an activity of their own."""
    return [kind for kind in KINDS.values() if kind.group in groups and kind.group != "core"]


def add_past(account: Account, kinds: Sequence[Kind], count: int) -> None:
    """Let the clock run through the last weeks: one creation of each kind, then `count` actions."""
    now = account.now
    account.rewind(PAST)
    settlement.start_payouts(account)
    times = sorted(int(account.rng.random() * PAST) for _ in range(count))
    for kind in kinds:
        create_one(account, kind)
    begin = account.now
    for time in times:
        account.advance(begin + time - account.now)
        act(account, kinds)
    account.advance(now - account.now)


def act(account: Account, kinds: Sequence[Kind]) -> Action | None:
    """Take one action on a kind."""
    kind = account.rng.pick(kinds)
    drawn = account.rng.random()
    if drawn < 0.4 or not account.tables[kind.name].rows:
        return create_one(account, kind)
    if drawn < 0.85 or not kind.deletable:
        return change_one(account, kind)
    return delete_one(account, kind)


def create_one(account: Account, kind: Kind) -> Action | None:
    """Create an object, now and then under the id of a deleted one if the account chooses ids."""
    if kind.name in FLOWS:
        return FLOWS[kind.name](account)
    deleted = list(account.deleted[kind.name]) if kind.client_ids else []
    fields: Object = (
        {"id": account.rng.pick(deleted)} if deleted and account.rng.chance(0.5) else {}
    )
    made = mutations.create(account, kind.name, fields)
    if kind.name in SHOWN_BY_OWNER:
        show_in_owner(account, kind, made)
    return "created", kind.name, made["id"]


def show_in_owner(account: Account, kind: Kind, made: Object) -> None:
    """Change the fields of its owner that a new object shows in, as Stripe does."""
    owner = account.tables[kind.name].rows[made["id"]].group
    row = account.tables[kind.owners].rows.get(owner)
    if row is not None:
        mutations.update(
            account, kind.owners, owner, SHOWN_BY_OWNER[kind.name](row.content(), made)
        )


def change_one(account: Account, kind: Kind) -> Action | None:
    """Change one field of a random object, or the list that it embeds."""
    row = random_object(account, kind.name)
    if row is None or kind.immutable:
        return create_one(account, kind)
    content = row.content()
    possible = [
        fields
        for fields in possible_changes(account, kind, row, content)
        if account.silent_changes or has_event(kind, content, fields)
    ]
    if not possible:
        return create_one(account, kind)
    mutations.update(account, kind.name, row.id, account.rng.pick(possible))
    return "updated", kind.name, row.id


def has_event(kind: Kind, before: Object, fields: Object) -> bool:
    """Whether Stripe has an event for a change of these fields."""
    after = before | fields
    return (
        "updated" in kind.events
        or any(change.happened(before, after) for change in kind.changing)
        or (fields.get("status", before.get("status")) in kind.reaching and "status" in fields)
    )


def possible_changes(account: Account, kind: Kind, row: Row, content: Object) -> list[Object]:
    rng, documented = account.rng, fields_of(content["object"])
    found: list[Object] = []
    for name, field in documented.items():
        if name not in content or name == kind.owner or name in NOT_EDITED:
            continue
        if name == "metadata":
            rest = {key: value for key, value in (content[name] or {}).items() if rng.chance(0.7)}
            found += [{name: rest}, {name: rest | {f"tag_{int(rng.random() * 5)}": rng.word(4)}}]
        elif field.nature == "text" and field.nullable:
            found.append({name: None if content[name] else f"text {rng.word(5)}"})
        elif kind.name in FLOWS:
            continue
        elif field.nature == "boolean" and name != "livemode" and content[name] is not None:
            found.append({name: not content[name]})
        elif name == "status":
            found += [{name: status} for status in field.choices if status != content[name]]
    if kind.name in FLOWS:
        return found
    statuses = [*kind.reaching, *(one.value for one in kind.changing if one.field == "status")]
    found += [{"status": status} for status in statuses if status != content.get("status")]
    found += [
        {one.field: one.value}
        for one in kind.changing
        if isinstance(one.value, bool) and content[one.field] != one.value
    ]
    if kind.name in EMBEDDED:
        kept = [{"id": id} for id in mutations.children_by_id(account, kind.name, row.id)]
        longer: list[Object] = [*kept, *({} for _ in range(1 + int(rng.random() * 12)))]
        found.append({EMBEDDED[kind.name].field: rng.pick((longer, kept[1:]))})
    return found


def delete_one(account: Account, kind: Kind) -> Action | None:
    row = random_object(account, kind.name)
    if row is None or not (account.silent_changes or "deleted" in kind.events):
        return None
    mutations.delete(account, kind.name, row.id)
    return "deleted", kind.name, row.id


def _amount(account: Account) -> int:
    return 500 + int(account.rng.random() * 40_000)


def _charge(account: Account) -> Action | None:
    row = random_object(account, "customers")
    if row is None:
        return None
    currency = account.rng.pick(CURRENCIES_OF_CHARGES)
    make = charges.decline if account.rng.chance(0.15) else charges.charge_customer
    return "created", "charges", make(account, _amount(account), currency, row.id)["id"]


def _refund(account: Account) -> Action | None:
    row = _settled_charge(account)
    if row is None:
        return _charge(account)
    amount = None if account.rng.chance(0.4) else 1 + int(account.rng.random() * 400)
    return "created", "refunds", charges.refund(account, row.id, amount)["id"]


def _settled_charge(account: Account) -> Row | None:
    """A charge that is paid, not disputed and not refunded."""
    return random_object(
        account,
        "charges",
        lambda row: all(
            part in row.raw
            for part in (b'"disputed":false', b'"refunded":false', b'"balance_transaction":"txn_')
        ),
    )


def _dispute(account: Account) -> Action | None:
    open_one = random_object(
        account, "disputes", lambda row: b'"status":"needs_response"' in row.raw
    )
    if open_one and account.rng.chance(0.6):
        charges.close_dispute(account, open_one.id, won=account.rng.chance(0.4))
        return "updated", "disputes", open_one.id
    row = _settled_charge(account)
    if row is None:
        return _charge(account)
    return "created", "disputes", charges.dispute(account, row.id)["id"]


def _pay_out(account: Account) -> Action | None:
    made = settlement.pay_out(account)
    return ("created", "payouts", made[0]["id"]) if made else _charge(account)


def _pay_fee(account: Account) -> Action | None:
    """Stripe bills something without a source."""
    amount = 10 + int(account.rng.random() * 200)
    made = settlement.settle(account, None, "stripe_fee", -amount, "usd", category="fee")
    return "created", "balance_transactions", made["id"]


def _transfer(account: Account) -> Action | None:
    row = random_object(account, "transfers", lambda row: b'"reversed":false' in row.raw)
    if row and account.rng.chance(0.4):
        charges.reverse_transfer(account, row.id, 1 + int(account.rng.random() * 900))
        return "updated", "transfers", row.id
    sent = charges.transfer(account, _amount(account) // 10, "usd", account.rng.id("acct"))
    return "created", "transfers", sent["id"]


def _top_up(account: Account) -> Action | None:
    return "created", "topups", charges.top_up(account, _amount(account), "usd")["id"]


def _attempt(account: Account) -> Action | None:
    """Attempt what an intent waits for: it succeeds or fails with its last attempt."""
    row = random_object(
        account, "setup_intents", lambda row: b'"status":"requires_confirmation"' in row.raw
    )
    intent = (
        row.id
        if row
        else mutations.create(account, "setup_intents", {"status": "requires_confirmation"})["id"]
    )
    status = account.rng.pick(("succeeded", "failed"))
    made = mutations.create(account, "setup_attempts", {"setup_intent": intent, "status": status})
    after = "succeeded" if status == "succeeded" else "requires_payment_method"
    fields = {"latest_attempt": made["id"], "status": after}
    mutations.update(account, "setup_intents", intent, fields)
    return "created", "setup_attempts", made["id"]


def _balance(customer: Object, made: Object) -> Object:
    return {"balance": (customer["balance"] or 0) + made["amount"]}


def _capable(owner: Object, made: Object) -> Object:
    return {"capabilities": {**(owner["capabilities"] or {}), made["id"]: made["status"]}}


SHOWN_BY_OWNER: dict[str, Callable[[Object, Object], Object]] = {
    "customer_balance_transactions": _balance,
    "capabilities": _capable,
}
"""Table -> the fields of the owner of a new object, from the owner and the object."""

FLOWS: dict[str, Flow] = {
    "charges": _charge,
    "refunds": _refund,
    "disputes": _dispute,
    "payouts": _pay_out,
    "balance_transactions": _pay_fee,
    "transfers": _transfer,
    "topups": _top_up,
    "setup_attempts": _attempt,
}
"""Table -> what creates its objects so that the amounts agree."""
