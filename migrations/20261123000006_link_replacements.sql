-- A request whose idempotency key is spent (Stripe stored a 500 under it) is
-- replaced by one with the next version. How many in a row, so that it ends.
alter table payment_links add column replacements smallint not null default 0 check (replacements >= 0);
