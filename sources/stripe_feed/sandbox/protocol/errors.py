"""Stripe's error answers."""

from __future__ import annotations

from typing import Any

import msgspec

HELP = "or we can help at https://support.stripe.com/."


class Refusal(Exception):
    """An answer with another status than 200."""

    def __init__(
        self,
        status: int,
        message: str,
        code: str = "",
        param: str = "",
        type: str = "invalid_request_error",
        headers: dict[str, str] | None = None,
        decline_code: str = "",
    ) -> None:
        super().__init__(message)
        self.decline_code = decline_code
        self.status, self.code, self.param, self.type = status, code, param, type
        self.headers = headers or {}

    def body(self, request_id: str, now: int, mode: str) -> bytes:
        error: dict[str, Any] = {}
        if self.code:
            error["code"] = self.code
            error["doc_url"] = f"https://stripe.com/docs/error-codes/{self.code.replace('_', '-')}"
        if self.decline_code:
            error["decline_code"] = self.decline_code
        error["message"] = str(self)
        if self.param:
            error["param"] = self.param
        if self.status not in (401, 429, 500):
            error["request_log_url"] = (
                f"https://dashboard.stripe.com{mode}/logs/{request_id}?t={now}"
            )
        error["type"] = self.type
        return msgspec.json.format(msgspec.json.encode({"error": error}), indent=2)


def missing(
    object: str, id: str, param: str = "id", status: int = 404, other_mode: str = ""
) -> Refusal:
    """`other_mode` is the mode in which an object with this id exists."""
    message = f"No such {object}: '{id}'"
    if other_mode:
        used = "test" if other_mode == "live" else "live"
        message += f"; a similar object exists in {other_mode} mode, but a {used} mode key was used to make this request."
    return Refusal(status, message, "resource_missing", param)


def unknown_parameters(names: list[str]) -> Refusal:
    many = "s" if len(names) > 1 else ""
    return Refusal(
        400, f"Received unknown parameter{many}: {', '.join(names)}", "parameter_unknown", names[0]
    )


def bad_integer(param: str, value: object) -> Refusal:
    return Refusal(400, f"Invalid integer: {value}", "parameter_invalid_integer", param)


def bad_limit(value: int) -> Refusal:
    bound = "less than or equal to 100" if value > 100 else "greater than or equal to 1"
    return Refusal(400, f"This value must be {bound}.", "parameter_invalid_integer", "limit")


def bad_choice(param: str, choices: tuple[str, ...]) -> Refusal:
    return Refusal(400, f"Invalid {param}: must be one of {', '.join(choices)}", param=param)


def required(param: str) -> Refusal:
    return Refusal(400, f"Missing required param: {param}.", "parameter_missing", param)


def not_expandable(path: str, hint: str = "") -> Refusal:
    message = f"This property cannot be expanded ({path})."
    return Refusal(
        400,
        message + (f" You may want to try expanding '{hint}' instead." if hint else ""),
        param="expand",
    )


def unset_refused(param: str) -> Refusal:
    return Refusal(
        400,
        f"You passed an empty string for '{param}'. We assume empty values are an attempt to unset a parameter; "
        f"however '{param}' cannot be unset. You should remove '{param}' from your request or supply a non-empty value.",
        "parameter_invalid_empty",
        param,
    )


def blank(param: str) -> Refusal:
    return Refusal(
        400, f"The value of '{param}' cannot be blank.", "parameter_invalid_string_blank", param
    )


def exclusive(*params: str) -> Refusal:
    return Refusal(
        400,
        f"You may only specify one of these parameters: {', '.join(params)}.",
        "parameters_exclusive",
        params[0],
    )


def too_long(param: str, value: str, most: int) -> Refusal:
    return Refusal(
        400, f"Invalid string: {value[:20]}...; must be at most {most} characters", param=param
    )


def key_in_use(key: str) -> Refusal:
    return Refusal(
        409,
        f"There is currently another in-progress request using this Idempotent Key (that probably means you submitted "
        f"twice, and the other request is still going through): {key}. Please try again later.",
        "idempotency_key_in_use",
        type="idempotency_error",
    )


def key_too_long() -> Refusal:
    return Refusal(
        400, "Idempotency keys can only be up to 255 characters long.", type="idempotency_error"
    )


def refused() -> Refusal:
    return Refusal(400, "The sandbox refuses this once it began, as it was told to.")


def reused_key(key: str, what: str) -> Refusal:
    return Refusal(
        400,
        f"Keys for idempotent requests can only be used {what}. "
        f"Try using a key other than '{key}' if you meant to execute a different request.",
        type="idempotency_error",
    )


def unknown_url(method: str, path: str) -> Refusal:
    return Refusal(
        404,
        f"Unrecognized request URL ({method}: {path}). Please see https://stripe.com/docs {HELP}",
    )


def not_set_up(path: str) -> Refusal:
    product = path.split("/")[2].replace("_", " ").title()
    return Refusal(
        400,
        f"Your account is not set up to use {product}. Please visit "
        f"https://dashboard.stripe.com/{path.split('/')[2]}/overview to get started.",
    )


def no_key() -> Refusal:
    return Refusal(
        401,
        "You did not provide an API key. You need to provide your API key in the Authorization header, using Bearer "
        "auth (e.g. 'Authorization: Bearer YOUR_SECRET_KEY'). See https://stripe.com/docs/api#authentication for "
        "details, " + HELP,
        headers={"WWW-Authenticate": 'Basic realm="Stripe"'},
    )


def bad_key(key: str, expired: bool = False) -> Refusal:
    headers = {"WWW-Authenticate": 'Basic realm="Stripe"'}
    if expired:
        return Refusal(
            401, f"Expired API Key provided: {mask_key(key)}", "api_key_expired", headers=headers
        )
    return Refusal(401, f"Invalid API Key provided: {mask_key(key)}", headers=headers)


def publishable() -> Refusal:
    return Refusal(
        401,
        "This API call cannot be made with a publishable API key. Please use a secret API key. "
        "You can find a list of your API keys at https://dashboard.stripe.com/account/apikeys.",
        "secret_key_required",
    )


def no_access(key: str, account: str) -> Refusal:
    return Refusal(
        403,
        f"The provided key '{mask_key(key)}' does not have access to account '{account}' (or that account does not "
        "exist). Application access may have been revoked.",
        "account_invalid",
    )


def no_connect_permissions(key: str) -> Refusal:
    return Refusal(
        403,
        f"The provided key '{mask_key(key)}' does not have any Connect permissions. To act on connected accounts, "
        "give the key Connect permissions in the Dashboard.",
    )


def forbidden(key: str, account: str, permissions: list[str]) -> Refusal:
    """The answer is a 401 for live keys, and a 403 for those of the test mode."""
    named = " or ".join(f"'{permission}'" for permission in permissions)
    return Refusal(
        401 if "_live_" in key else 403,
        f"The provided key '{mask_key(key)}' does not have the required permissions for this endpoint on account "
        f"'{account}'. Having the {named} permission would allow this request to continue.",
    )


def mask_key(key: str) -> str:
    """`sk_test_****abcd`, with one asterisk per hidden character."""
    head = "_".join(key.split("_")[:2]) + "_" if key.count("_") >= 2 else ""
    rest = key[len(head) :]
    return head + "*" * max(0, len(rest) - 4) + rest[-4:]


def rate_limited(reason: str) -> Refusal:
    return Refusal(
        429,
        "Request rate limit exceeded. You can learn more about rate limits here https://stripe.com/docs/rate-limits.",
        "rate_limit",
        headers={"Stripe-Rate-Limited-Reason": reason, "Stripe-Should-Retry": "false"},
    )


def lock_timeout_error() -> Refusal:
    return Refusal(
        429,
        "This object cannot be accessed right now because another API request or Stripe process is currently accessing "
        "it. If you see this error intermittently, retry the request. If you see this error frequently and are making "
        "multiple concurrent requests to a single object, make your requests serially or at a lower rate.",
        "lock_timeout",
    )


def server_error() -> Refusal:
    return Refusal(
        500,
        "An unknown error occurred. The Stripe team has been notified.",
        type="api_error",
        headers={"Stripe-Should-Retry": "true"},
    )
