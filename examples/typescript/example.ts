// A cart from its creation to the day's numbers. Every path, field and status
// is checked by the compiler against api.d.ts, which is made from the API's own document.
import createClient from "openapi-fetch";
import type { components, paths } from "./api.js";

const api = createClient<paths>({
  baseUrl: process.env["API_URL"] ?? "http://localhost:3000",
  headers: { "x-api-key": process.env["API_KEY"] ?? "" },
});

/** The data of a success; an error becomes an exception that says why. */
function must<A extends { data: unknown }>(answer: { data?: A; error?: components["schemas"]["Error"] }): A["data"] {
  if (answer.data === undefined) throw new Error(`${answer.error?.error.code}: ${answer.error?.error.message}`);
  return answer.data.data;
}

const order: components["schemas"]["NewCart"] = {
  externalId: `order-${crypto.randomUUID()}`,
  customerEmail: "ada@example.com",
  customerName: "Ada Lovelace",
  currency: "eur",
  items: [{ name: "Teapot", quantity: 2, price: 49.99, sku: "TP-1" }],
  adjustments: [{ name: "Shipping", amount: 4.9 }],
  locale: "de-AT",
  metadata: { channel: "web" },
};
const cart = must(
  await api.POST("/api/carts", {
    params: { header: { "Idempotency-Key": crypto.randomUUID() } },
    body: order,
  }),
);
// A key without the scope read is answered what became of the cart, and nothing of its shopper.
if (!("totalValue" in cart)) throw new Error("the key lacks the scope read");
console.log(`${cart.id}: ${cart.totalValue} ${cart.currency}, ${cart.status}`);

const path = { id: cart.id };
const link = must(await api.POST("/api/carts/{id}/payment-link", { params: { path } }));
console.log("paymentLink" in link ? `put into a mail: ${link.recoveryUrl}` : `pending: ${link.jobId}`);

// The same link without a checkout, for carts whose mails are rarely opened.
const recovery = must(await api.POST("/api/carts/{id}/recovery-link", { params: { path } }));
console.log(`${recovery.recoveryUrl} works until ${recovery.recoveryExpiresAt}`);

// The shopper comes back and takes one more.
const more = { ...order, items: [{ name: "Teapot", quantity: 3, price: 49.99, sku: "TP-1" }] };
const again = must(await api.POST("/api/carts", { body: more }));
if (again.id !== cart.id || !("totalValue" in again)) throw new Error("the same order is another cart");
console.log(`${again.id}: now ${again.totalValue} ${again.currency}`);

const page = must(await api.GET("/api/carts", { params: { query: { status: "abandoned", limit: 5 } } }));
console.log(`${page.pagination.total} abandoned carts, the newest is ${page.carts[0]?.id}`);

// Changed only if it is still what was read.
const { response } = await api.GET("/api/carts/{id}", { params: { path } });
const header = { "If-Match": response.headers.get("etag") ?? "*" };
const paid = must(await api.PATCH("/api/carts/{id}", { params: { path, header }, body: { status: "recovered" } }));
console.log(`${paid.status} at ${paid.recoveredAt}`);

const { summary } = must(await api.GET("/api/analytics", { params: { query: { period: "7d", currency: "eur" } } }));
console.log(`${summary.totalRecovered} of ${summary.totalAbandoned} won back, ${summary.recoveryRate} %`);
