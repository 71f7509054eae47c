-- no-transaction
-- A PaymentIntent belongs to one session.
create unique index concurrently if not exists payment_links_payment_intent
    on payment_links (payment_intent) where payment_intent is not null;
