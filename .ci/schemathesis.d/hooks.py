"""What a document can't say, told to schemathesis: dates lie in the past, prices
have two decimals, an empty parameter is as good as none, an idempotency key is
not used twice, lines of JSON are a file, and Stripe signs what it sends."""

import hashlib
import hmac
import json
import os
import time
import uuid
from datetime import datetime

import schemathesis
from hypothesis import strategies as st

PAST = st.datetimes(datetime(2020, 1, 1), datetime(2026, 1, 1)).map(lambda at: at.strftime("%Y-%m-%dT%H:%M:%SZ"))
schemathesis.openapi.format("date-time", PAST)


def possible(value, key=None):
    """Prices of whole cents; times that are over, also those that other answers told; names
    without NUL, which generated names have in spite of their pattern."""
    if isinstance(value, list):
        return [possible(item) for item in value]
    if isinstance(value, dict):
        return {key: possible(item, key) for key, item in value.items()}
    if key == "price" and isinstance(value, float):
        return round(value, 2)
    if key in ("abandonedAt", "recoveredAt") and isinstance(value, str) and value[:4] >= "2026" and value[-1:] == "Z":
        return "2025" + value[4:]
    if key in ("name", "customerName") and isinstance(value, str):
        return value.replace("\0", "0")
    return value


@schemathesis.hook
def map_body(context, body):
    return possible(body)


def is_none(parameter):
    """Of a repeated parameter the last counts; an object falls apart into others."""
    if isinstance(parameter, list):
        return not parameter or is_none(parameter[-1])
    return parameter in ("", None) or isinstance(parameter, dict)


@schemathesis.hook
def filter_case(context, case):
    return not any(is_none(parameter) for parameter in (case.query or {}).values())


@schemathesis.serializer("application/x-ndjson")
def lines_of_json(context, value):
    return (json.dumps(value) + "\n").encode()


@schemathesis.hook
def before_call(context, case, kwargs):
    good = case.meta is not None and case.meta.generation.mode.is_positive
    if good and "Idempotency-Key" in case.headers:
        case.headers["Idempotency-Key"] = str(uuid.uuid4())
    if good and case.path == "/api/webhooks/stripe":
        at = int(time.time())
        signed = f"{at}.{json.dumps(case.body)}".encode()  # as requests will write it
        signature = hmac.new(os.environ["STRIPE_WEBHOOK_SECRET"].encode(), signed, hashlib.sha256).hexdigest()
        case.headers["stripe-signature"] = f"t={at},v1={signature}"
