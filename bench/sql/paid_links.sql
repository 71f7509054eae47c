-- The next $3 recovered carts after ($1, $2) get a recovery link, a paid link and its event.
with carts as (
    select id, created_at, recovered_at from carts
    where status = 'recovered' and (created_at, id) > ($1, $2) order by created_at, id limit $3
), recoveries as (
    insert into recovery_links (token_hash, token, cart_id, expires_at)
    select sha256(id::bytea), md5(id), id, created_at + interval '7 days' from carts
), links as (
    insert into payment_links (cart_id, version, status, job_id, session_expires_at, attempted_at, session_id, url, created_at, updated_at, ended_at)
    select id, 1, 'paid', gen_random_uuid(), created_at + interval '1 day', created_at,
        'cs_live_' || md5(id) || md5(id || 'b'), 'https://checkout.stripe.com/c/pay/cs_live_' || md5(id) || md5(id || 'b'), created_at, recovered_at, recovered_at
    from carts
), events as (
    insert into stripe_events (id, kind, object_id, cart_id, created_at, received_at, effect)
    select 'evt_' || substr(md5(id), 1, 24), 'checkout.session.completed', 'cs_live_' || md5(id) || md5(id || 'b'), id,
        recovered_at, recovered_at, 'recovered'
    from carts
)
select (select created_at from carts order by created_at desc, id desc limit 1),
    (select id from carts order by created_at desc, id desc limit 1), (select count(*) from carts)
