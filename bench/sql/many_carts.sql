-- Carts $1 to $2 of $3, over 400 days: of five, two were abandoned, one recovered a day later, two expired.
insert into carts (id, customer_email, customer_name, items, total_minor, currency, status, abandoned_at, recovered_at, expired_at, created_at, updated_at)
select 'cart_' || lpad(to_hex((extract(epoch from left_at) * 1000)::bigint), 12, '0') || substr(md5(i::text), 1, 14),
    'user' || i || '@example.com', 'User ' || i,
    '[{"name":"Blue T-shirt","quantity":2,"price":19.90},{"name":"Running shoes","quantity":1,"price":89.00}]',
    12880 + i % 1000, 'usd', (array['abandoned', 'abandoned', 'recovered', 'expired', 'expired'])[i % 5 + 1], left_at,
    case when i % 5 = 2 then left_at + interval '1 day' end, case when i % 5 > 2 then left_at + interval '30 days' end,
    left_at, left_at
from (select i, now() - ($3 - i) / $3::float8 * interval '400 days' as left_at from generate_series($1, $2) i) carts
