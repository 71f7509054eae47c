-- SESSIONS carts, each with a recovery link and an open session.
insert into carts (id, customer_email, customer_name, items, total_minor, currency, abandoned_at, created_at, updated_at)
select 'cart_paid_ROUND_' || n, 'user' || n || '@example.com', 'Ada Lovelace',
    '[{"name":"Blue T-shirt","quantity":2,"price":19.90},{"name":"Running shoes","quantity":1,"price":89.00}]',
    12880, 'usd', left_at, left_at, left_at
from (select n, now() - n * interval '5 seconds' as left_at from generate_series(0, SESSIONS - 1) n) carts;
insert into recovery_links (token_hash, token, cart_id, expires_at)
select sha256(id::bytea), md5(id), id, now() + interval '7 days' from carts where id like 'cart\_paid\_ROUND\_%';
insert into payment_links (cart_id, version, status, job_id, session_expires_at, attempted_at, session_id, url, created_at, updated_at)
select id, 1, 'open', gen_random_uuid(), now() + interval '1 day', now(), 'cs_bench' || substr(id, 10),
    'https://checkout.stripe.com/c/pay/' || md5(id), now(), now()
from carts where id like 'cart\_paid\_ROUND\_%';
vacuum analyze carts;
vacuum analyze recovery_links;
vacuum analyze payment_links;
vacuum analyze stripe_events;
