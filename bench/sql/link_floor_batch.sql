-- The same as `link_floor.sql` for five links in each statement:
-- pgbench -n -M prepared -c 3 -T 8 -f bench/sql/link_floor_batch.sql
begin;
with new as (
    select 'cart_' || nextval('floor') as cart, gen_random_uuid() as job, gen_random_uuid()::text as token
    from generate_series(1, 5)
), recovery as (
    insert into recovery_links (token_hash, token, cart_id, expires_at)
    select sha256(token::bytea), replace(token, '-', ''), cart, now() + '7 days' from new
), link as (
    insert into payment_links
        (cart_id, version, status, job_id, session_expires_at, replacements, requested_by, created_at, updated_at,
         amount_minor, currency)
    select cart, 1, 'pending', job, now() + '23 hours', 0, 'api', now(), now(), 12880, 'usd' from new
), queued as (
    insert into jobs (id, queue, kind, payload, max_attempts, run_at, unique_key, subject)
    select job, 'payment-links', 'create_payment_link', jsonb_build_object('cartId', cart, 'version', 1), 20, now(),
           'create_payment_link-' || cart, cart
    from new
)
select array_agg(cart) as carts, array_agg(job) as jobs from new \gset
commit;
update jobs
set state = 'running', attempts = attempts + 1, started_at = now(), lease_token = gen_random_uuid(), worker = 'w',
    lease_until = now() + interval '1 minute'
where id = any (:jobs::uuid[]);
update payment_links
set attempted_at = now(), settings = jsonb_build_object('successUrl', '/paid', 'promotionCodes', false), updated_at = now()
where cart_id = any (:carts::text[]) and version = 1;
update payment_links
set status = 'open', session_id = 'cs_test_' || cart_id, url = '/c/pay/cs_test_' || cart_id, livemode = false,
    opened_at = now(), updated_at = now()
where cart_id = any (:carts::text[]) and version = 1;
update jobs set state = 'done', finished_at = now(), lease_token = null, lease_until = null where id = any (:jobs::uuid[]);
