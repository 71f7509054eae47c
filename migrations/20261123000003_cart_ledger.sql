-- The ledger of counts: analytics and the list's totals, exact at any moment.
--
-- Every statement that touches carts, the product's or an operator's own SQL,
-- adds its difference here in the same transaction. So the sum of the ledger
-- always equals a count over carts as the same snapshot sees it, and reading
-- it costs the number of days, never the number of carts.
--
-- Two writers never meet in one row: each backend adds to a row of its own
-- (slot = its process id), so nobody waits and nothing can deadlock. The job
-- roll_up_days folds those rows into slot 0, which only it touches; until it
-- does, a sum just reads a few rows more.

create table cart_day_counts (
    day             date    not null,                   -- UTC
    currency        text    not null,
    slot            integer not null,                   -- 0: folded; else the backend that adds here
    abandoned       bigint  not null default 0,         -- by the day of abandoned_at, whatever became of them
    abandoned_minor numeric not null default 0,
    recovered       bigint  not null default 0,         -- by the day of recovered_at
    recovered_minor numeric not null default 0,
    now_abandoned   bigint  not null default 0,         -- not yet folded into cart_status_counts
    now_recovered   bigint  not null default 0,
    now_expired     bigint  not null default 0,
    primary key (day, currency, slot),
    constraint cart_day_counts_folded check (slot <> 0 or (now_abandoned = 0 and now_recovered = 0 and now_expired = 0))
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

create index cart_day_counts_unfolded on cart_day_counts (slot) where slot <> 0;

-- Carts by their status now, as far as folded. One row.
create table cart_status_counts (
    only_row  boolean primary key default true check (only_row),
    abandoned bigint not null default 0,
    recovered bigint not null default 0,
    expired   bigint not null default 0
);
insert into cart_status_counts default values;

-- What one cart means to the ledger: a line on the day it was abandoned, and
-- one on the day it was recovered. sign is 1 to add it, -1 to take it away.
create function cart_ledger_lines(
    abandoned_at timestamptz, recovered_at timestamptz, status text, total_minor bigint, sign integer,
    out day date, out abandoned integer, out abandoned_minor numeric, out recovered integer, out recovered_minor numeric,
    out now_abandoned integer, out now_recovered integer, out now_expired integer
) returns setof record language sql immutable as $$
    select * from (values
        (((abandoned_at at time zone 'UTC')::date), sign, (sign * total_minor)::numeric, 0, 0::numeric,
         case when status = 'abandoned' then sign else 0 end,
         case when status = 'recovered' then sign else 0 end,
         case when status = 'expired' then sign else 0 end),
        (((recovered_at at time zone 'UTC')::date), 0, 0::numeric, sign, (sign * total_minor)::numeric, 0, 0, 0)
    ) line (day, abandoned, abandoned_minor, recovered, recovered_minor, now_abandoned, now_recovered, now_expired)
    where line.day is not null
$$;

-- Statement triggers: five thousand carts expired at once add one line a day.
-- Three functions, because each kind of statement sees other transition tables.
create function carts_count_inserted() returns trigger language plpgsql as $$
begin
    insert into cart_day_counts as ledger
    select line.day, cart.currency, pg_backend_pid(), sum(line.abandoned), sum(line.abandoned_minor), sum(line.recovered),
           sum(line.recovered_minor), sum(line.now_abandoned), sum(line.now_recovered), sum(line.now_expired)
    from added cart, cart_ledger_lines(cart.abandoned_at, cart.recovered_at, cart.status, cart.total_minor, 1) line
    group by line.day, cart.currency
    on conflict (day, currency, slot) do update set
        abandoned = ledger.abandoned + excluded.abandoned, abandoned_minor = ledger.abandoned_minor + excluded.abandoned_minor,
        recovered = ledger.recovered + excluded.recovered, recovered_minor = ledger.recovered_minor + excluded.recovered_minor,
        now_abandoned = ledger.now_abandoned + excluded.now_abandoned, now_recovered = ledger.now_recovered + excluded.now_recovered,
        now_expired = ledger.now_expired + excluded.now_expired;
    return null;
end $$;

create function carts_count_deleted() returns trigger language plpgsql as $$
begin
    insert into cart_day_counts as ledger
    select line.day, cart.currency, pg_backend_pid(), sum(line.abandoned), sum(line.abandoned_minor), sum(line.recovered),
           sum(line.recovered_minor), sum(line.now_abandoned), sum(line.now_recovered), sum(line.now_expired)
    from removed cart, cart_ledger_lines(cart.abandoned_at, cart.recovered_at, cart.status, cart.total_minor, -1) line
    group by line.day, cart.currency
    on conflict (day, currency, slot) do update set
        abandoned = ledger.abandoned + excluded.abandoned, abandoned_minor = ledger.abandoned_minor + excluded.abandoned_minor,
        recovered = ledger.recovered + excluded.recovered, recovered_minor = ledger.recovered_minor + excluded.recovered_minor,
        now_abandoned = ledger.now_abandoned + excluded.now_abandoned, now_recovered = ledger.now_recovered + excluded.now_recovered,
        now_expired = ledger.now_expired + excluded.now_expired;
    return null;
end $$;

create function carts_count_updated() returns trigger language plpgsql as $$
begin
    insert into cart_day_counts as ledger
    select line.day, cart.currency, pg_backend_pid(), sum(line.abandoned), sum(line.abandoned_minor), sum(line.recovered),
           sum(line.recovered_minor), sum(line.now_abandoned), sum(line.now_recovered), sum(line.now_expired)
    from (
        select abandoned_at, recovered_at, status, total_minor, currency, 1 as sign from added
        union all
        select abandoned_at, recovered_at, status, total_minor, currency, -1 as sign from removed
    ) cart, cart_ledger_lines(cart.abandoned_at, cart.recovered_at, cart.status, cart.total_minor, cart.sign) line
    group by line.day, cart.currency
    -- An update of other columns changes no count and writes nothing.
    having sum(line.abandoned) <> 0 or sum(line.abandoned_minor) <> 0 or sum(line.recovered) <> 0 or sum(line.recovered_minor) <> 0
        or sum(line.now_abandoned) <> 0 or sum(line.now_recovered) <> 0 or sum(line.now_expired) <> 0
    on conflict (day, currency, slot) do update set
        abandoned = ledger.abandoned + excluded.abandoned, abandoned_minor = ledger.abandoned_minor + excluded.abandoned_minor,
        recovered = ledger.recovered + excluded.recovered, recovered_minor = ledger.recovered_minor + excluded.recovered_minor,
        now_abandoned = ledger.now_abandoned + excluded.now_abandoned, now_recovered = ledger.now_recovered + excluded.now_recovered,
        now_expired = ledger.now_expired + excluded.now_expired;
    return null;
end $$;

create function carts_count_truncated() returns trigger language plpgsql as $$
begin
    delete from cart_day_counts;
    update cart_status_counts set abandoned = 0, recovered = 0, expired = 0;
    return null;
end $$;

create trigger carts_count_inserted after insert on carts referencing new table as added
    for each statement execute function carts_count_inserted();
create trigger carts_count_deleted after delete on carts referencing old table as removed
    for each statement execute function carts_count_deleted();
create trigger carts_count_updated after update on carts referencing new table as added old table as removed
    for each statement execute function carts_count_updated();
create trigger carts_count_truncated after truncate on carts
    for each statement execute function carts_count_truncated();
