"""A cart from its creation to the day's numbers. The models in api.py are made
from the API's own document: mypy checks every field, pydantic every answer."""

import os
import uuid
from typing import TypeVar

import httpx
from pydantic import BaseModel

import api

Data = TypeVar("Data", bound=BaseModel)
client = httpx.Client(
    base_url=os.environ.get("API_URL", "http://localhost:3000"),
    headers={"x-api-key": os.environ["API_KEY"]},
    timeout=30,
)


def must(answer: httpx.Response, model: type[Data]) -> Data:
    """The data of a success; an error becomes an exception that says why."""
    if answer.is_error:
        error = api.Error.model_validate_json(answer.content).error
        raise RuntimeError(f"{error.code.value}: {error.message}")
    return model.model_validate(answer.json()["data"])


def body(model: BaseModel) -> dict[str, object]:
    return model.model_dump(mode="json", by_alias=True, exclude_unset=True)


order = f"order-{uuid.uuid4()}"
teapots = api.CartItem(name="Teapot", quantity=2, price=49.99, sku="TP-1")
shipping = api.CartAdjustment(name="Shipping", amount=4.90)
new = api.NewCart(
    externalId=order,
    customerEmail="ada@example.com",
    customerName="Ada Lovelace",
    currency="eur",
    items=[teapots],
    adjustments=[shipping],
    locale="de-AT",
    metadata={"channel": "web"},
)
once = {"idempotency-key": str(uuid.uuid4())}
cart = must(client.post("/api/carts", json=body(new), headers=once), api.Cart)
print(f"{cart.id}: {cart.totalValue.root} {cart.currency.root}, {cart.status.value}")

asked = client.post(f"/api/carts/{cart.id}/payment-link")
if asked.status_code == httpx.codes.ACCEPTED:
    print(f"pending: {must(asked, api.PendingPaymentLink).jobId}")
else:
    print(f"put into a mail: {must(asked, api.ReadyPaymentLink).recoveryUrl}")

# The same link without a checkout, for carts whose mails are rarely opened.
recovery = must(client.post(f"/api/carts/{cart.id}/recovery-link"), api.RecoveryLink)
print(f"{recovery.recoveryUrl} works until {recovery.recoveryExpiresAt}")

# The shopper comes back and takes one more.
new.items[0].quantity = 3
again = must(client.post("/api/carts", json=body(new)), api.Cart)
assert again.id == cart.id
print(f"{again.id}: now {again.totalValue.root} {again.currency.root}")

page = must(client.get("/api/carts", params={"status": "abandoned", "limit": 5}), api.CartList)
print(f"{page.pagination.total} abandoned carts, the newest is {page.carts[0].id}")

# Changed only if it is still what was read.
known = {"if-match": client.get(f"/api/carts/{cart.id}").headers["etag"]}
change = api.CartChange(status=api.CartStatus.recovered)
paid = must(client.patch(f"/api/carts/{cart.id}", json=body(change), headers=known), api.Cart)
print(f"{paid.status.value} at {paid.recoveredAt}")

summary = must(client.get("/api/analytics", params={"period": "7d", "currency": "eur"}), api.Analytics).summary
print(f"{summary.totalRecovered} of {summary.totalAbandoned} won back, {summary.recoveryRate.root} %")
