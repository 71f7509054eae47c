-- Pages by number, at the cost of pages by cursor: how many carts each hour,
-- day and month of creation has, by status. Page 50,000 is found by passing
-- over months, then days, then hours, and only the hour it begins in is read.
--
-- It is kept like the ledger of days (20261123000003_cart_ledger.sql): each
-- backend adds to rows of its own, hours only, and folding adds those to slot 0
-- of their hour, day and month.

create table cart_list_counts (
    level     smallint    not null,                     -- 0: an hour, 1: a day, 2: a month
    period    timestamptz not null,                     -- its start, in UTC, of carts.created_at
    slot      integer     not null,                     -- 0: folded; else the backend that adds here
    abandoned bigint      not null default 0,
    recovered bigint      not null default 0,
    expired   bigint      not null default 0,
    primary key (level, period, slot),
    constraint cart_list_counts_level_known   check (level in (0, 1, 2)),
    constraint cart_list_counts_hours_unfolded check (slot = 0 or level = 0)
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

create index cart_list_counts_unfolded on cart_list_counts (period) where slot <> 0;

-- What is there already. Nobody writes carts meanwhile.
lock table carts in share row exclusive mode;
insert into cart_list_counts (level, period, slot, abandoned, recovered, expired)
select level, date_trunc(unit, created_at, 'UTC'), 0, count(*) filter (where status = 'abandoned'),
       count(*) filter (where status = 'recovered'), count(*) filter (where status = 'expired')
from carts, (values (0, 'hour'), (1, 'day'), (2, 'month')) levels (level, unit)
group by 1, 2;

-- Where a page begins that has `skipped` carts of a status (null: of any) before
-- it: after `remaining` of those created before `before`. Null: there is no such page.
create function cart_list_position(wanted text, skipped bigint, out before timestamptz, out remaining bigint)
language plpgsql stable set timezone to 'UTC' as $$
declare
    from_level integer;
    lower timestamptz := '-infinity';
    newer bigint;
    unit text;
begin
    before := 'infinity';
    remaining := skipped;
    for from_level in reverse 2..0 loop
        unit := (array['hour', 'day', 'month'])[from_level + 1];
        select ranked.period, ranked.newer into lower, newer
        from (
            select counted.period, sum(counted.carts) as carts,
                   sum(sum(counted.carts)) over (order by counted.period desc) - sum(counted.carts) as newer
            from (
                select folded.period, case wanted when 'abandoned' then folded.abandoned when 'recovered' then folded.recovered
                       when 'expired' then folded.expired else folded.abandoned + folded.recovered + folded.expired end as carts
                from cart_list_counts folded
                where folded.level = from_level and folded.slot = 0 and folded.period >= lower and folded.period < before
                union all
                select date_trunc(unit, added.period), case wanted when 'abandoned' then added.abandoned when 'recovered' then added.recovered
                       when 'expired' then added.expired else added.abandoned + added.recovered + added.expired end
                from cart_list_counts added
                where added.slot <> 0 and added.period >= lower and added.period < before
            ) counted
            group by counted.period
        ) ranked
        where ranked.newer <= remaining and ranked.newer + ranked.carts > remaining;
        if not found then
            before := null;
            return;
        end if;
        remaining := remaining - newer;
        before := lower + ('1 ' || unit)::interval;
    end loop;
end $$;

-- The ledger's triggers as they were (20261123000010_cheaper_ledger.sql), and the hours with them.
create or replace function carts_count_inserted() returns trigger language plpgsql as $$
begin
    insert into cart_day_counts as ledger
    select line.day, line.currency, pg_backend_pid(), sum(line.abandoned), sum(line.abandoned_minor), sum(line.recovered),
           sum(line.recovered_minor), sum(line.now_abandoned), sum(line.now_recovered), sum(line.now_expired)
    from (
        select (abandoned_at at time zone 'UTC')::date as day, currency,
               count(*) as abandoned, sum(total_minor) as abandoned_minor, 0 as recovered, 0 as recovered_minor,
               count(*) filter (where status = 'abandoned') as now_abandoned,
               count(*) filter (where status = 'recovered') as now_recovered,
               count(*) filter (where status = 'expired') as now_expired
        from added group by 1, 2
        union all
        select (recovered_at at time zone 'UTC')::date, currency, 0, 0, count(*), sum(total_minor), 0, 0, 0
        from added where recovered_at is not null group by 1, 2
    ) line
    group by line.day, line.currency
    on conflict (day, currency, slot) do update set
        abandoned = ledger.abandoned + excluded.abandoned, abandoned_minor = ledger.abandoned_minor + excluded.abandoned_minor,
        recovered = ledger.recovered + excluded.recovered, recovered_minor = ledger.recovered_minor + excluded.recovered_minor,
        now_abandoned = ledger.now_abandoned + excluded.now_abandoned, now_recovered = ledger.now_recovered + excluded.now_recovered,
        now_expired = ledger.now_expired + excluded.now_expired;
    insert into cart_list_counts as ledger (level, period, slot, abandoned, recovered, expired)
    select 0, hour.period, pg_backend_pid(), hour.abandoned, hour.recovered, hour.expired
    from (
        select date_trunc('hour', created_at, 'UTC') as period,
               count(*) filter (where status = 'abandoned') as abandoned,
               count(*) filter (where status = 'recovered') as recovered,
               count(*) filter (where status = 'expired') as expired
        from added group by 1
    ) hour
    on conflict (level, period, slot) do update set
        abandoned = ledger.abandoned + excluded.abandoned, recovered = ledger.recovered + excluded.recovered,
        expired = ledger.expired + excluded.expired;
    return null;
end $$;

create or replace function carts_count_deleted() returns trigger language plpgsql as $$
begin
    insert into cart_day_counts as ledger
    select line.day, line.currency, pg_backend_pid(), -sum(line.abandoned), -sum(line.abandoned_minor), -sum(line.recovered),
           -sum(line.recovered_minor), -sum(line.now_abandoned), -sum(line.now_recovered), -sum(line.now_expired)
    from (
        select (abandoned_at at time zone 'UTC')::date as day, currency,
               count(*) as abandoned, sum(total_minor) as abandoned_minor, 0 as recovered, 0 as recovered_minor,
               count(*) filter (where status = 'abandoned') as now_abandoned,
               count(*) filter (where status = 'recovered') as now_recovered,
               count(*) filter (where status = 'expired') as now_expired
        from removed group by 1, 2
        union all
        select (recovered_at at time zone 'UTC')::date, currency, 0, 0, count(*), sum(total_minor), 0, 0, 0
        from removed where recovered_at is not null group by 1, 2
    ) line
    group by line.day, line.currency
    on conflict (day, currency, slot) do update set
        abandoned = ledger.abandoned + excluded.abandoned, abandoned_minor = ledger.abandoned_minor + excluded.abandoned_minor,
        recovered = ledger.recovered + excluded.recovered, recovered_minor = ledger.recovered_minor + excluded.recovered_minor,
        now_abandoned = ledger.now_abandoned + excluded.now_abandoned, now_recovered = ledger.now_recovered + excluded.now_recovered,
        now_expired = ledger.now_expired + excluded.now_expired;
    insert into cart_list_counts as ledger (level, period, slot, abandoned, recovered, expired)
    select 0, hour.period, pg_backend_pid(), hour.abandoned, hour.recovered, hour.expired
    from (
        select date_trunc('hour', created_at, 'UTC') as period,
               -count(*) filter (where status = 'abandoned') as abandoned,
               -count(*) filter (where status = 'recovered') as recovered,
               -count(*) filter (where status = 'expired') as expired
        from removed group by 1
    ) hour
    on conflict (level, period, slot) do update set
        abandoned = ledger.abandoned + excluded.abandoned, recovered = ledger.recovered + excluded.recovered,
        expired = ledger.expired + excluded.expired;
    return null;
end $$;

create or replace function carts_count_updated() returns trigger language plpgsql as $$
begin
    insert into cart_day_counts as ledger
    select line.day, line.currency, pg_backend_pid(), sum(line.abandoned), sum(line.abandoned_minor), sum(line.recovered),
           sum(line.recovered_minor), sum(line.now_abandoned), sum(line.now_recovered), sum(line.now_expired)
    from (
        select (abandoned_at at time zone 'UTC')::date as day, currency,
               count(*) as abandoned, sum(total_minor) as abandoned_minor, 0 as recovered, 0 as recovered_minor,
               count(*) filter (where status = 'abandoned') as now_abandoned,
               count(*) filter (where status = 'recovered') as now_recovered,
               count(*) filter (where status = 'expired') as now_expired
        from added group by 1, 2
        union all
        select (recovered_at at time zone 'UTC')::date, currency, 0, 0, count(*), sum(total_minor), 0, 0, 0
        from added where recovered_at is not null group by 1, 2
        union all
        select (abandoned_at at time zone 'UTC')::date, currency, -count(*), -sum(total_minor), 0, 0,
               -count(*) filter (where status = 'abandoned'),
               -count(*) filter (where status = 'recovered'),
               -count(*) filter (where status = 'expired')
        from removed group by 1, 2
        union all
        select (recovered_at at time zone 'UTC')::date, currency, 0, 0, -count(*), -sum(total_minor), 0, 0, 0
        from removed where recovered_at is not null group by 1, 2
    ) line
    group by line.day, line.currency
    -- An update of other columns changes no count and writes nothing.
    having sum(line.abandoned) <> 0 or sum(line.abandoned_minor) <> 0 or sum(line.recovered) <> 0 or sum(line.recovered_minor) <> 0
        or sum(line.now_abandoned) <> 0 or sum(line.now_recovered) <> 0 or sum(line.now_expired) <> 0
    on conflict (day, currency, slot) do update set
        abandoned = ledger.abandoned + excluded.abandoned, abandoned_minor = ledger.abandoned_minor + excluded.abandoned_minor,
        recovered = ledger.recovered + excluded.recovered, recovered_minor = ledger.recovered_minor + excluded.recovered_minor,
        now_abandoned = ledger.now_abandoned + excluded.now_abandoned, now_recovered = ledger.now_recovered + excluded.now_recovered,
        now_expired = ledger.now_expired + excluded.now_expired;
    insert into cart_list_counts as ledger (level, period, slot, abandoned, recovered, expired)
    select 0, hour.period, pg_backend_pid(), sum(hour.abandoned), sum(hour.recovered), sum(hour.expired)
    from (
        select date_trunc('hour', created_at, 'UTC') as period,
               count(*) filter (where status = 'abandoned') as abandoned,
               count(*) filter (where status = 'recovered') as recovered,
               count(*) filter (where status = 'expired') as expired
        from added group by 1
        union all
        select date_trunc('hour', created_at, 'UTC') as period,
               -count(*) filter (where status = 'abandoned') as abandoned,
               -count(*) filter (where status = 'recovered') as recovered,
               -count(*) filter (where status = 'expired') as expired
        from removed group by 1
    ) hour
    group by hour.period
    having sum(hour.abandoned) <> 0 or sum(hour.recovered) <> 0 or sum(hour.expired) <> 0
    on conflict (level, period, slot) do update set
        abandoned = ledger.abandoned + excluded.abandoned, recovered = ledger.recovered + excluded.recovered,
        expired = ledger.expired + excluded.expired;
    return null;
end $$;

create or replace function carts_count_truncated() returns trigger language plpgsql as $$
begin
    delete from cart_day_counts;
    delete from cart_list_counts;
    update cart_status_counts set abandoned = 0, recovered = 0, expired = 0;
    return null;
end $$;
