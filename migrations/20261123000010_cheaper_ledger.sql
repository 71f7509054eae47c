-- The ledger's triggers, cheaper: each kind of line is counted by plain
-- aggregates over the transition table, where every cart used to be spread into
-- lines of numerics first. What they add is the same. It matters where one
-- statement changes thousands of carts: expiry, imports, an operator's own SQL.

-- What a transition table means to the ledger is written out in each function:
-- a function can't be handed a transition table.
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
    return null;
end $$;

-- Gone is what they called for each cart; common/src/rebuild.rs counts in the same way.
drop function cart_ledger_lines(timestamptz, timestamptz, text, bigint, integer);
