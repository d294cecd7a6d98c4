"""The account itself, and test clocks."""

from __future__ import annotations

from .values import Object, Random


def test_clock(rng: Random, created: int, frozen_time: int) -> Object:
    return {
        "id": rng.id("clock"),
        "object": "test_helpers.test_clock",
        "created": created,
        "deletes_after": created + 30 * 86_400,
        "frozen_time": frozen_time,
        "livemode": False,
        "name": "Annual renewal",
        "status": "ready",
        "status_details": {},
    }


def account_object(rng: Random, id: str, created: int) -> Object:
    return {
        "id": id,
        "object": "account",
        "business_profile": {"mcc": "5734", "name": "Sandbox Bikes", "url": "https://example.com"},
        "business_type": "company",
        "capabilities": {"card_payments": "active", "transfers": "active"},
        "charges_enabled": True,
        "controller": {"type": "account"},
        "country": "DE",
        "created": created,
        "default_currency": "eur",
        "details_submitted": True,
        "email": "owner@example.com",
        "metadata": {},
        "payouts_enabled": True,
        "settings": {"dashboard": {"display_name": "Sandbox Bikes", "timezone": "Etc/UTC"}},
        "type": "standard",
    }
