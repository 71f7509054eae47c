-- The timeline of a cart: what happened to it, when and why; append-only.
--
-- A row of carts or payment_links tells its own latest events: when and how it
-- was made, and how it came to be as it is. Such an event costs nothing beyond
-- the row that is written anyway, so that storing, importing or expiring a
-- million carts writes no line here. An update that would erase what a row
-- tells moves it to cart_events first, by a trigger, so in the same statement,
-- whoever changes the row. Straight into cart_events goes only what no row tells.

-- Why the cart is in its status. Null: it never changed, or that is not known.
alter table carts
    add column imported boolean not null default false,
    add column status_reason text;
alter table carts add constraint carts_status_reason_known
    check (status_reason in ('age', 'operator', 'payment', 'import', 'sql')) not valid;

-- (No checks here: Postgres reads each anew for each statement, which makes every
-- step of a link dearer by 2 µs. Two types in common/src/payment_links stand for them.)
alter table payment_links
    add column requested_by text,                       -- 'api', 'shopper' or 'replacement'; null: from before this was kept
    add column opened_at    timestamptz,                -- when the session was there
    add column ended_at     timestamptz,                -- when it left 'pending', 'open' and 'closing' for its status
    add column failure_code text;                       -- why there is none, for machines; never the shopper's data

-- Openings of the recovery link, so that few of very many are noted.
alter table recovery_links
    add column opened_at timestamptz,                   -- when the last one was noted
    add column openings  integer not null default 0;    -- how many were

-- Where an event stands among those of the same moment: causes before effects.
create function cart_event_place(kind text, link integer) returns bigint language sql immutable as $$
    select case kind
        when 'created'              then 0
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
    end
$$;

-- No foreign key: the trigger below does what its cascade would, and a writer
-- need not lock the cart to append. Ids, codes and times, nothing of the shopper.
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
-- Said once a cart, not at every expiry that comes by.
create unique index cart_events_not_expired on cart_events (cart_id) where kind = 'not_expired';

-- ISO 8601 as the rest of the API writes it, for details.
create function cart_event_time(at timestamptz) returns text language sql stable as $$
    select replace(to_char(at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'), '.000Z', 'Z')
$$;

-- What a cart's row tells. Its status changes in the moment of updated_at,
-- while recovered_at and expired_at may be told to be earlier.
-- (Strict, because that keeps it from being inlined: the planner fails then, with
-- "variable not found in subplan target list".)
create function cart_row_events(cart carts)
returns table (at timestamptz, kind text, link integer, why text, details jsonb) language sql stable strict as $$
    select cart.created_at, 'created', null::integer, case when cart.imported then 'import' else 'api' end, null::jsonb
    union all
    select greatest(cart.updated_at, cart.recovered_at, cart.expired_at),
           case cart.status when 'abandoned' then 'reopened' else cart.status end, null::integer,
           -- Whoever does not know of reasons leaves the last one: what can't be true is not told.
           case when (cart.status_reason = 'age' and cart.status <> 'expired')
                  or (cart.status_reason = 'payment' and cart.status <> 'recovered') then null else cart.status_reason end,
           case when cart.status = 'recovered' then jsonb_build_object('recoveredAt', cart_event_time(cart.recovered_at))
                when cart.status = 'expired' then jsonb_build_object('expiredAt', cart_event_time(cart.expired_at)) end
    where cart.status <> 'abandoned' or cart.status_reason is not null
$$;

-- What a payment link's row tells: that it was asked for, that it was made, how it ended.
create function payment_link_row_events(asked payment_links)
returns table (at timestamptz, kind text, link integer, why text, details jsonb) language sql stable strict as $$
    select asked.created_at, 'link_requested', asked.version, asked.requested_by, null::jsonb
    union all
    select asked.opened_at, 'link_made', asked.version, null, null
    where asked.opened_at is not null
    union all
    select ended.at, ended.kind, asked.version,
           case when ended.kind = 'link_not_made' then asked.failure_code end, null
    from (select asked.ended_at as at, case asked.status
              when 'failed' then case when asked.failure_code is not null then 'link_not_made' end
              when 'settling' then case when asked.failure_code is not null then 'link_not_made'
                                        when asked.failure is null then 'link_withdrawn' end
              when 'processing' then 'payment_processing'
              when 'paid' then 'payment_received'
              when 'payment_failed' then 'payment_failed'
              when 'closed' then case when asked.attempted_at is null then 'link_withdrawn'
                                      when asked.session_id is not null then 'session_closed' end
          end as kind) ended
    where ended.at is not null and ended.kind is not null
$$;

create function carts_keep_events() returns trigger language plpgsql as $$
begin
    insert into cart_events (cart_id, at, kind, link, why, details)
    select old.id, told.* from (select * from cart_row_events(old) except select * from cart_row_events(new)) told
    on conflict do nothing;
    return null;
end $$;

-- False for a cart that expires or is recovered for the first time. (Here and
-- below: Postgres reads a condition anew for each statement, so it is short.)
create trigger carts_keep_events after update of status on carts for each row
    when (old.expired_at is not null or old.recovered_at is not null or old.status_reason is not null)
    execute function carts_keep_events();

create function payment_links_keep_events() returns trigger language plpgsql as $$
begin
    -- Once its cart is gone nobody asks.
    if exists (select from carts where id = old.cart_id) then
        insert into cart_events (cart_id, at, kind, link, why, details)
        select old.cart_id, told.* from (
            select * from payment_link_row_events(old)
            except select line.* from payment_link_row_events(new) line where tg_op = 'UPDATE'
        ) told
        on conflict do nothing;
    end if;
    return null;
end $$;

-- False for a link on its usual way: asked for, made, paid or closed.
create trigger payment_links_keep_events after update of status on payment_links for each row
    when (old.ended_at is not null)
    execute function payment_links_keep_events();
create trigger payment_links_keep_events_of_deleted after delete on payment_links for each row
    execute function payment_links_keep_events();

-- A job that is to make a link and is given up leaves the request as it is, to
-- be found by whoever asks next: what happened is told here. The queue knows
-- nothing of carts, so this is where it is said.
create function jobs_tell_link_not_made() returns trigger language plpgsql as $$
begin
    if new.kind <> 'create_payment_link' or old.state = 'dead' then
        return null;
    end if;
    insert into cart_events (cart_id, at, kind, link, why, details)
    select asked.cart_id, date_trunc('milliseconds', greatest(new.finished_at, asked.updated_at)), 'link_not_made', asked.version,
           case when new.attempts >= new.max_attempts then 'attempts_exhausted' else 'job_cancelled' end,
           jsonb_build_object('attempts', new.attempts)
    from payment_links asked
    where asked.cart_id = new.payload->>'cartId' and asked.job_id = new.id and asked.status = 'pending'
      and exists (select from carts where id = asked.cart_id)
    on conflict do nothing;
    return null;
end $$;

create trigger jobs_tell_link_not_made after update of state on jobs for each row
    when (new.state = 'dead')
    execute function jobs_tell_link_not_made();

-- A timeline goes with its cart, and not otherwise.
create function carts_forget_events() returns trigger language plpgsql as $$
begin
    delete from cart_events using removed where cart_events.cart_id = removed.id;
    return null;
end $$;

create trigger carts_forget_events after delete on carts referencing old table as removed
    for each statement execute function carts_forget_events();

create function carts_forget_all_events() returns trigger language plpgsql as $$
begin
    truncate cart_events;
    return null;
end $$;

create trigger carts_forget_all_events after truncate on carts
    for each statement execute function carts_forget_all_events();

create function cart_events_append_only() returns trigger language plpgsql as $$
begin
    if tg_op = 'DELETE' and not exists (select from carts where id = old.cart_id) then
        return old;
    end if;
    raise exception 'the timeline of a cart is append-only' using errcode = 'restrict_violation';
end $$;

create trigger cart_events_append_only before update or delete on cart_events
    for each row execute function cart_events_append_only();

-- As it was (20261123000002_carts.sql), and what hand-made SQL leaves out of the timeline besides.
create or replace function carts_complete_status_times() returns trigger language plpgsql as $$
begin
    new.recovered_at := case when new.status = 'recovered' then coalesce(new.recovered_at, now()) end;
    new.expired_at   := case when new.status = 'expired'   then coalesce(new.expired_at, now()) end;
    if tg_op = 'UPDATE' then
        new.status_reason := 'sql';
        if new.updated_at = old.updated_at then
            new.updated_at := now();
        end if;
    end if;
    return new;
end $$;
