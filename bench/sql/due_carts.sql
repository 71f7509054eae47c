truncate carts, payment_links, recovery_links, jobs cascade;
-- 1,000,000 due carts over 90 days, like in the peer's table.
insert into carts (id, customer_email, customer_name, items, total_minor, currency, abandoned_at, created_at, updated_at)
select 'cart_' || lpad(to_hex((extract(epoch from left_at) * 1000)::bigint), 12, '0') || substr(md5(i::text), 1, 14),
    'user' || i || '@example.com', 'User ' || i,
    '[{"name":"Blue T-shirt","quantity":2,"price":19.90},{"name":"Running shoes","quantity":1,"price":89.00}]',
    12880, 'usd', left_at, left_at, left_at
from (select i, now() - interval '31 days' - (1000000 - i) * interval '7.776 seconds' as left_at
      from generate_series(1, 1000000) i) carts;
-- One in twenty has a link, one in a thousand an open session.
insert into recovery_links (token_hash, token, cart_id, expires_at)
select sha256(id::bytea), md5(id), id, now() - interval '1 day'
from (select id, row_number() over (order by id) as n from carts) carts where n % 20 = 0;
insert into payment_links (cart_id, version, status, job_id, session_expires_at, attempted_at, session_id, url, created_at, updated_at)
select id, 1, case when n % 1000 = 0 then 'open' else 'closed' end, gen_random_uuid(), now() - interval '1 day', now(),
    'cs_' || md5(id), 'https://checkout.stripe.com/c/pay/' || md5(id), now(), now()
from (select id, row_number() over (order by id) as n from carts) carts where n % 20 = 0;
-- Between them 1,000 whose recovery link is good and 1,000 whose payment is in progress: these must be spared.
insert into carts (id, customer_email, customer_name, items, total_minor, currency, abandoned_at, created_at, updated_at)
select 'cart_' || kind || n, 'user' || n || '@example.com', 'User ' || n, '[]', 12880, 'usd', left_at, left_at, left_at
from (select kind, n, now() - interval '31 days' - n * interval '2 hours' as left_at
      from generate_series(1, 1000) n, (values ('linked'), ('paying')) kinds (kind)) carts;
insert into recovery_links (token_hash, token, cart_id, expires_at)
select sha256(id::bytea), md5(id), id, now() + interval '1 day' from carts where id like 'cart\_linked%';
insert into payment_links (cart_id, version, status, job_id, session_expires_at, attempted_at, session_id, created_at, updated_at)
select id, 1, 'processing', gen_random_uuid(), now() - interval '1 day', now(), 'cs_' || md5(id), now(), now()
from carts where id like 'cart\_paying%';
vacuum analyze carts;
vacuum analyze payment_links;
vacuum analyze recovery_links;
checkpoint;
