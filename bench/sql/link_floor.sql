-- The writes of a payment link, as plain as they can be, in a migrated database with 400,000 carts `cart_1`, `cart_2`, …:
-- psql -c 'create sequence floor', pgbench -n -M prepared -c 16 -T 8 -f bench/sql/link_floor.sql
select 'cart_' || nextval('floor') as cart, gen_random_uuid() as job, gen_random_uuid() as token \gset
begin;
insert into recovery_links (token_hash, token, cart_id, expires_at)
values (sha256(:token::text::bytea), replace(:token::text, '-', ''), :cart::text, now() + '7 days');
insert into payment_links
    (cart_id, version, status, job_id, session_expires_at, replacements, requested_by, created_at, updated_at,
     amount_minor, currency)
values (:cart::text, 1, 'pending', :job, now() + '23 hours', 0, 'api', now(), now(), 12880, 'usd');
insert into jobs (id, queue, kind, payload, max_attempts, run_at, unique_key, subject)
values (:job, 'payment-links', 'create_payment_link', jsonb_build_object('cartId', :cart::text, 'version', 1::int), 20, now(),
        'create_payment_link-' || :cart::text, :cart::text);
commit;
update jobs
set state = 'running', attempts = attempts + 1, started_at = now(), lease_token = :token, worker = 'w',
    lease_until = now() + interval '1 minute'
where id = :job;
update payment_links
set attempted_at = now(), settings = jsonb_build_object('successUrl', '/paid', 'promotionCodes', false), updated_at = now()
where cart_id = :cart::text and version = 1;
update payment_links
set status = 'open', session_id = 'cs_test_' || :token::text, url = '/c/pay/cs_test_' || :token::text, livemode = false,
    opened_at = now(), updated_at = now()
where cart_id = :cart::text and version = 1;
update jobs set state = 'done', finished_at = now(), lease_token = null, lease_until = null where id = :job;
