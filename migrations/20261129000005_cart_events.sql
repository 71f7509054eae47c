-- The timeline of a cart: what happened to it, when and why. Append-only.
--
-- The rows of carts and payment_links contain their own latest events (cart_row_events,
-- payment_link_row_events), so storing, importing or expiring a million carts writes nothing here.
-- Triggers copy events to cart_events before an update would erase them from a row, whoever updates
-- it. Events that no row contains are inserted directly.

-- The order among events of the same moment: causes before effects.
create function cart_event_place(kind text, link integer) returns bigint language sql immutable as $$
    select case kind
        when 'created'              then 0
        when 'changed'              then 1
        when 'recovery_link_opened' then 1000000000000
        when 'link_requested'       then 2000000000000 + 10 * coalesce(link, 0)::bigint
        when 'link_made'            then 2000000000001 + 10 * coalesce(link, 0)::bigint
        when 'link_not_made'        then 2000000000002 + 10 * coalesce(link, 0)::bigint
        when 'payment_processing'   then 2000000000003 + 10 * coalesce(link, 0)::bigint
        when 'payment_failed'       then 2000000000004 + 10 * coalesce(link, 0)::bigint
        when 'payment_received'     then 2000000000005 + 10 * coalesce(link, 0)::bigint
        when 'not_recovered'        then 2000000000006 + 10 * coalesce(link, 0)::bigint
        when 'not_expired'          then 3000000000000
        when 'expired'              then 3000000000001
        when 'recovered'            then 3000000000002
        when 'reopened'             then 3000000000003
        when 'link_withdrawn'       then 4000000000000 + 10 * coalesce(link, 0)::bigint
        when 'session_closed'       then 4000000000001 + 10 * coalesce(link, 0)::bigint
        when 'refunded'             then 5000000000000 + 10 * coalesce(link, 0)::bigint
        when 'refund_failed'        then 5000000000001 + 10 * coalesce(link, 0)::bigint
        when 'dispute_opened'       then 5000000000002 + 10 * coalesce(link, 0)::bigint
        when 'dispute_won'          then 5000000000003 + 10 * coalesce(link, 0)::bigint
        when 'dispute_lost'         then 5000000000004 + 10 * coalesce(link, 0)::bigint
    end
$$;

-- No foreign key: a trigger deletes a cart's events with it, and inserting an event locks no cart.
-- Ids, codes, times and the names of changed fields only, nothing of the shopper.
create table cart_events (
    cart_id text collate "C" not null,
    at      timestamptz not null,
    kind    text        not null,
    link    integer,                                    -- payment_links.version
    why     text,
    details jsonb,
    place   bigint      not null generated always as (cart_event_place(kind, link)) stored,  -- null for an unknown kind
    primary key (cart_id, at, place),                   -- the order of the timeline
    constraint cart_events_why_form      check (why ~ '^[a-z0-9_]{1,60}$'),
    constraint cart_events_details_small check (jsonb_typeof(details) = 'object' and pg_column_size(details) <= 500)
);
-- Stored once per cart, not at each run of expiry.
create unique index cart_events_not_expired on cart_events (cart_id) where kind = 'not_expired';

-- A time in details, as the API writes times.
create function cart_event_time(at timestamptz) returns text language sql stable as $$
    select replace(to_char(at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'), '.000Z', 'Z')
$$;

-- The name of an API key in details; null if there is none.
create function cart_event_key(key text) returns jsonb language sql immutable as $$
    select case when key is not null then jsonb_build_object('key', key) end
$$;

-- The events that a cart's row contains. recovered_at and expired_at may be earlier than the change
-- of the status. (Strict, so that it is not inlined: the planner would fail with "variable not found
-- in subplan target list".)
create function cart_row_events(cart carts)
returns table (at timestamptz, kind text, link integer, why text, details jsonb) language sql stable strict as $$
    select cart.created_at, 'created', null::integer, case when cart.imported then 'import' else 'api' end,
           cart_event_key(cart.created_key)
    union all
    select greatest(cart.status_changed_at, cart.recovered_at, cart.expired_at),
           case cart.status when 'abandoned' then 'reopened' else cart.status end, null::integer,
           -- SQL by hand may leave an earlier reason, which can't be true.
           case when (cart.status_reason = 'age' and cart.status <> 'expired')
                  or (cart.status_reason = 'payment' and cart.status <> 'recovered') then null else cart.status_reason end,
           nullif(
               case when cart.status = 'recovered' then jsonb_build_object('recoveredAt', cart_event_time(cart.recovered_at))
                    when cart.status = 'expired' then jsonb_build_object('expiredAt', cart_event_time(cart.expired_at))
                    else '{}' end
               -- Other changes leave an earlier key.
               || coalesce(case when cart.status_reason in ('operator', 'api') then cart_event_key(cart.status_key) end, '{}'),
               '{}')
    where cart.status <> 'abandoned' or cart.status_changed_at is not null
$$;

-- The events that a payment link's row contains.
create function payment_link_row_events(request payment_links)
returns table (at timestamptz, kind text, link integer, why text, details jsonb) language sql stable strict as $$
    select request.created_at, 'link_requested', request.version, request.requested_by, cart_event_key(request.requested_key)
    union all
    select request.opened_at, 'link_made', request.version, null, null
    where request.opened_at is not null
    union all
    select ended.at, ended.kind, request.version,
           case when ended.kind = 'link_not_made' then request.failure_code end, null
    from (select request.ended_at as at, case request.status
              when 'failed' then case when request.failure_code is not null then 'link_not_made' end
              when 'settling' then case when request.failure_code is not null then 'link_not_made'
                                        when request.failure is null then 'link_withdrawn' end
              when 'processing' then 'payment_processing'
              when 'paid' then 'payment_received'
              when 'payment_failed' then 'payment_failed'
              when 'closed' then case when request.attempted_at is null then 'link_withdrawn'
                                      when request.session_id is not null then 'session_closed' end
          end as kind) ended
    where ended.at is not null and ended.kind is not null
$$;

create function carts_keep_events() returns trigger language plpgsql as $$
begin
    insert into cart_events (cart_id, at, kind, link, why, details)
    select old.id, event.* from (select * from cart_row_events(old) except select * from cart_row_events(new)) event
    on conflict do nothing;
    return null;
end $$;

-- The WHEN condition is false for the first change of a cart's status.
create trigger carts_keep_events after update of status on carts for each row
    when (old.status <> 'abandoned' or old.status_changed_at is not null)
    execute function carts_keep_events();

create function payment_links_keep_events() returns trigger language plpgsql as $$
begin
    -- The timeline of a deleted cart is gone.
    if exists (select from carts where id = old.cart_id) then
        insert into cart_events (cart_id, at, kind, link, why, details)
        select old.cart_id, event.* from (
            select * from payment_link_row_events(old)
            except select line.* from payment_link_row_events(new) line where tg_op = 'UPDATE'
        ) event
        on conflict do nothing;
    end if;
    return null;
end $$;

-- The WHEN condition is false for a link that is requested, created, and paid or closed.
create trigger payment_links_keep_events after update of status on payment_links for each row
    when (old.ended_at is not null)
    execute function payment_links_keep_events();
create trigger payment_links_keep_events_of_deleted after delete on payment_links for each row
    execute function payment_links_keep_events();

-- A job that gives up leaves the request pending, for the next client that asks. The event is
-- inserted here, because the queue knows nothing of carts.
--
-- Locks the cart, so that no event is added to a cart that is being deleted. Waits for nobody: a
-- transaction that deletes the cart holds its lock, or waits for this one and deletes the event.
create function jobs_add_link_not_made() returns trigger language plpgsql as $$
begin
    if new.kind <> 'create_payment_link' or old.state = 'dead' then
        return null;
    end if;
    perform from carts where id = new.payload->>'cartId' for key share skip locked;
    if not found then
        return null;
    end if;
    insert into cart_events (cart_id, at, kind, link, why, details)
    select request.cart_id, date_trunc('milliseconds', greatest(new.finished_at, request.updated_at)), 'link_not_made', request.version,
           case when new.interruptions > old.interruptions then 'job_lost'
                when new.attempts >= new.max_attempts then 'attempts_exhausted' else 'job_cancelled' end,
           jsonb_build_object('attempts', new.attempts)
    from payment_links request
    where request.cart_id = new.payload->>'cartId' and request.job_id = new.id and request.status = 'pending'
    on conflict do nothing;
    return null;
end $$;

create trigger jobs_add_link_not_made after update of state on jobs for each row
    when (new.state = 'dead')
    execute function jobs_add_link_not_made();

-- A timeline is deleted with its cart, and not otherwise.
create function carts_delete_events() returns trigger language plpgsql as $$
begin
    if tg_op = 'TRUNCATE' then
        truncate cart_events;
    else
        delete from cart_events using removed where cart_events.cart_id = removed.id;
    end if;
    return null;
end $$;

create trigger carts_delete_events after delete on carts referencing old table as removed
    for each statement execute function carts_delete_events();
create trigger carts_delete_all_events after truncate on carts
    for each statement execute function carts_delete_events();

create function cart_events_append_only() returns trigger language plpgsql as $$
begin
    if tg_op = 'DELETE' and not exists (select from carts where id = old.cart_id) then
        return old;
    end if;
    raise exception 'the timeline of a cart is append-only' using errcode = 'restrict_violation';
end $$;

create trigger cart_events_append_only before update or delete on cart_events
    for each row execute function cart_events_append_only();
