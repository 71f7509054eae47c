-- Exact counts of carts, for analytics and for the list's totals. Reading them takes time by the
-- length of the period, not by the number of carts.
--
-- Each statement that changes carts, also SQL by hand, appends what it changed to cart_count_deltas
-- in its own transaction. Nobody updates a row that others update, so nobody waits, and an open
-- snapshot (a backup) keeps no chain of old versions alive. add_up_cart_counts() moves deltas into
-- the sums. Sums and deltas together equal a count over carts in every snapshot.

-- Sums by the quarter of an hour in which carts were abandoned or recovered. Offsets from UTC are
-- whole quarters since 1980, so the days of every time zone begin with one, and the sums of another
-- TIME_ZONE's days are added up from these.
create table cart_counts (
    period          timestamptz not null,               -- start of the quarter of an hour
    currency        text        not null,
    abandoned       bigint      not null default 0,     -- carts abandoned in the period, whatever their status now
    abandoned_minor numeric     not null default 0,     -- sum of their total_minor
    cohort_recovered bigint     not null default 0,     -- of these, carts that are recovered now
    recovered       bigint      not null default 0,     -- carts recovered in the period
    recovered_minor numeric     not null default 0,     -- sum of their total_minor
    recovery_seconds numeric    not null default 0,     -- sum of recovered_at - abandoned_at
    paid            bigint      not null default 0,     -- of these, carts whose link was paid
    paid_minor      numeric     not null default 0,     -- sum of their total_minor
    refunded_minor  numeric     not null default 0,     -- sum of the refunded_minor of the recovered
    primary key (currency, period)
) with (fillfactor = 80, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

-- The same sums by day, for each time zone in cart_count_progress.zones. Analytics read these.
create table cart_day_counts (
    zone            text    not null,
    currency        text    not null,
    day             date    not null,
    abandoned       bigint  not null,
    abandoned_minor numeric not null,
    cohort_recovered bigint not null,
    recovered       bigint  not null,
    recovered_minor numeric not null,
    recovery_seconds numeric not null,
    paid            bigint  not null,
    paid_minor      numeric not null,
    refunded_minor  numeric not null,
    primary key (zone, currency, day)
) with (fillfactor = 80, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

-- Sums by status now.
create table cart_totals (
    currency  text   primary key,
    abandoned bigint not null default 0,
    recovered bigint not null default 0,
    expired   bigint not null default 0
);

-- The horizon: deltas of transactions before it are in the sums. One row.
create table cart_count_progress (
    only_row   boolean primary key default true check (only_row),
    horizon    xid8    not null default '0',
    written_by xid8    not null default '0',            -- the transaction that last changed the row
    zones      text[]  not null default '{}'            -- the time zones of cart_day_counts
);
insert into cart_count_progress default values;

-- What statements changed, and not yet in the sums.
create table cart_count_deltas (
    period          timestamptz not null,
    currency        text        not null,
    abandoned       bigint      not null default 0,
    abandoned_minor numeric     not null default 0,
    cohort_recovered bigint     not null default 0,
    recovered       bigint      not null default 0,
    recovered_minor numeric     not null default 0,
    recovery_seconds numeric    not null default 0,
    paid            bigint      not null default 0,
    paid_minor      numeric     not null default 0,
    refunded_minor  numeric     not null default 0,
    now_abandoned   bigint      not null default 0,     -- by status now
    now_recovered   bigint      not null default 0,
    now_expired     bigint      not null default 0,
    xid             xid8        not null default pg_current_xact_id()
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
create index cart_count_deltas_by_xid on cart_count_deltas (xid);

create function cart_count_period(at timestamptz) returns timestamptz language sql immutable as $$
    select date_bin('15 minutes', at, '2000-01-01Z')
$$;

-- One function for the three kinds of statements; only the transition tables of the kind exist.
create function carts_count() returns trigger language plpgsql as $$
begin
    if tg_op = 'UPDATE' then
        if not exists (
            select status, status_reason, currency, total_minor, refunded_minor, abandoned_at, recovered_at from added
            except all
            select status, status_reason, currency, total_minor, refunded_minor, abandoned_at, recovered_at from removed
        ) then
            return null;
        end if;
    end if;
    if tg_op <> 'DELETE' then
        insert into cart_count_deltas (period, currency, abandoned, abandoned_minor, cohort_recovered, now_abandoned, now_recovered, now_expired)
        select cart_count_period(abandoned_at), currency, count(*), sum(total_minor), count(recovered_at),
               count(*) filter (where status = 'abandoned'), count(*) filter (where status = 'recovered'),
               count(*) filter (where status = 'expired')
        from added group by 1, 2;
        insert into cart_count_deltas (period, currency, recovered, recovered_minor, recovery_seconds, paid, paid_minor, refunded_minor)
        select cart_count_period(recovered_at), currency, count(*), sum(total_minor),
               sum(extract(epoch from recovered_at - abandoned_at)), count(*) filter (where status_reason = 'payment'),
               coalesce(sum(total_minor) filter (where status_reason = 'payment'), 0), coalesce(sum(refunded_minor), 0)
        from added where recovered_at is not null group by 1, 2;
    end if;
    if tg_op <> 'INSERT' then
        insert into cart_count_deltas (period, currency, abandoned, abandoned_minor, cohort_recovered, now_abandoned, now_recovered, now_expired)
        select cart_count_period(abandoned_at), currency, -count(*), -sum(total_minor), -count(recovered_at),
               -count(*) filter (where status = 'abandoned'), -count(*) filter (where status = 'recovered'),
               -count(*) filter (where status = 'expired')
        from removed group by 1, 2;
        insert into cart_count_deltas (period, currency, recovered, recovered_minor, recovery_seconds, paid, paid_minor, refunded_minor)
        select cart_count_period(recovered_at), currency, -count(*), -sum(total_minor),
               -sum(extract(epoch from recovered_at - abandoned_at)), -count(*) filter (where status_reason = 'payment'),
               -coalesce(sum(total_minor) filter (where status_reason = 'payment'), 0), -coalesce(sum(refunded_minor), 0)
        from removed where recovered_at is not null group by 1, 2;
    end if;
    return null;
end $$;

create trigger carts_count_inserted after insert on carts referencing new table as added
    for each statement execute function carts_count();
create trigger carts_count_deleted after delete on carts referencing old table as removed
    for each statement execute function carts_count();
create trigger carts_count_updated after update on carts referencing new table as added old table as removed
    for each statement execute function carts_count();

create function carts_count_truncated() returns trigger language plpgsql as $$
begin
    if current_setting('transaction_isolation') <> 'read committed' then
        raise exception 'truncate carts in a read committed transaction: its snapshot may miss counts to delete';
    end if;
    perform from cart_count_progress for update; -- waits for add_up_cart_counts()
    delete from cart_counts;
    delete from cart_day_counts;
    delete from cart_totals;
    delete from cart_count_deltas;
    return null;
end $$;
create trigger carts_count_truncated after truncate on carts
    for each statement execute function carts_count_truncated();

-- The horizon of this server. A restored dump has that of another server, whose transactions have
-- other numbers: Postgres then shows another writer of the row than the row itself. 0 is as exact,
-- because deltas that are in the sums are deleted, and takes longer.
create function cart_count_horizon(progress cart_count_progress, writer xid) returns xid8 language sql stable as $$
    select case when writer = progress.written_by::xid and progress.horizon <= pg_snapshot_xmin(pg_current_snapshot())
                then progress.horizon else '0' end
$$;

-- The deltas that are not in the sums. By index from the horizon on, so that rows which an open
-- snapshot keeps alive are not read again; the planner would rather scan the whole table.
create function cart_count_deltas_to_add() returns setof cart_count_deltas language sql stable
set enable_seqscan = off set enable_bitmapscan = off set jit = off as $$
    select * from cart_count_deltas
    where xid >= (select cart_count_horizon(progress, progress.xmin) from cart_count_progress progress)
$$;

-- The day of a quarter of an hour: that of its last second. (Before 1980 and in Newfoundland until
-- 2011, dates change within a quarter.)
create function cart_count_day(period timestamptz, zone text) returns date language sql immutable as $$
    select ((period + interval '899 seconds') at time zone zone)::date
$$;

-- Adds up the days of a time zone, unless it was done. Waits for add_up_cart_counts().
create function count_cart_days(new_zone text) returns void language plpgsql as $$
begin
    update cart_count_progress progress
    set zones = zones || new_zone, horizon = cart_count_horizon(progress, progress.xmin), written_by = pg_current_xact_id()
    where new_zone <> all (zones);
    if found then
        insert into cart_day_counts (zone, currency, day, abandoned, abandoned_minor, cohort_recovered, recovered,
                                     recovered_minor, recovery_seconds, paid, paid_minor, refunded_minor)
        select new_zone, currency, cart_count_day(period, new_zone), sum(abandoned), sum(abandoned_minor), sum(cohort_recovered),
               sum(recovered), sum(recovered_minor), sum(recovery_seconds), sum(paid), sum(paid_minor), sum(refunded_minor)
        from cart_counts group by 2, 3;
    end if;
end $$;

-- Deletes the sums by day; the next reader of a time zone has them added up again.
create function forget_cart_days() returns void language plpgsql as $$
begin
    update cart_count_progress progress
    set zones = '{}', horizon = cart_count_horizon(progress, progress.xmin), written_by = pg_current_xact_id();
    delete from cart_day_counts;
end $$;

-- The number of carts by currency and status: sums and deltas. Several rows per currency.
create view cart_status_counts as
    select currency, abandoned, recovered, expired from cart_totals
    union all
    select currency, now_abandoned, now_recovered, now_expired from cart_count_deltas_to_add();

-- Moves the deltas of all transactions that ended into the sums; returns how many. Only one
-- transaction does so at a time, others return 0 at once.
create function add_up_cart_counts() returns bigint language sql
set enable_seqscan = off set enable_bitmapscan = off set jit = off as $$
    with bounds as materialized (
        select cart_count_horizon(progress, progress.xmin) as since, pg_snapshot_xmin(pg_current_snapshot()) as until, zones
        from cart_count_progress progress
        for update skip locked
    ), taken as (
        delete from cart_count_deltas
        where xid >= (select since from bounds) and xid < (select until from bounds)
        returning *
    ), periods as (
        insert into cart_counts as sums (period, currency, abandoned, abandoned_minor, cohort_recovered, recovered,
                                         recovered_minor, recovery_seconds, paid, paid_minor, refunded_minor)
        select period, currency, sum(abandoned), sum(abandoned_minor), sum(cohort_recovered), sum(recovered),
               sum(recovered_minor), sum(recovery_seconds), sum(paid), sum(paid_minor), sum(refunded_minor)
        from taken group by period, currency
        having (sum(abandoned), sum(abandoned_minor), sum(cohort_recovered), sum(recovered), sum(recovered_minor),
                sum(recovery_seconds), sum(paid), sum(paid_minor), sum(refunded_minor)) <> (0, 0, 0, 0, 0, 0, 0, 0, 0)
        on conflict (currency, period) do update set
            abandoned = sums.abandoned + excluded.abandoned, abandoned_minor = sums.abandoned_minor + excluded.abandoned_minor,
            cohort_recovered = sums.cohort_recovered + excluded.cohort_recovered, recovered = sums.recovered + excluded.recovered,
            recovered_minor = sums.recovered_minor + excluded.recovered_minor,
            recovery_seconds = sums.recovery_seconds + excluded.recovery_seconds,
            paid = sums.paid + excluded.paid, paid_minor = sums.paid_minor + excluded.paid_minor,
            refunded_minor = sums.refunded_minor + excluded.refunded_minor
    ), days as (
        insert into cart_day_counts as sums (zone, currency, day, abandoned, abandoned_minor, cohort_recovered, recovered,
                                             recovered_minor, recovery_seconds, paid, paid_minor, refunded_minor)
        select zone, currency, cart_count_day(period, zone), sum(abandoned), sum(abandoned_minor), sum(cohort_recovered),
               sum(recovered), sum(recovered_minor), sum(recovery_seconds), sum(paid), sum(paid_minor), sum(refunded_minor)
        from taken, unnest((select zones from bounds)) zone
        group by 1, 2, 3
        having (sum(abandoned), sum(abandoned_minor), sum(cohort_recovered), sum(recovered), sum(recovered_minor),
                sum(recovery_seconds), sum(paid), sum(paid_minor), sum(refunded_minor)) <> (0, 0, 0, 0, 0, 0, 0, 0, 0)
        on conflict (zone, currency, day) do update set
            abandoned = sums.abandoned + excluded.abandoned, abandoned_minor = sums.abandoned_minor + excluded.abandoned_minor,
            cohort_recovered = sums.cohort_recovered + excluded.cohort_recovered, recovered = sums.recovered + excluded.recovered,
            recovered_minor = sums.recovered_minor + excluded.recovered_minor,
            recovery_seconds = sums.recovery_seconds + excluded.recovery_seconds,
            paid = sums.paid + excluded.paid, paid_minor = sums.paid_minor + excluded.paid_minor,
            refunded_minor = sums.refunded_minor + excluded.refunded_minor
    ), totals as (
        insert into cart_totals as sums (currency, abandoned, recovered, expired)
        select currency, sum(now_abandoned), sum(now_recovered), sum(now_expired)
        from taken group by currency
        having (sum(now_abandoned), sum(now_recovered), sum(now_expired)) <> (0, 0, 0)
        on conflict (currency) do update set
            abandoned = sums.abandoned + excluded.abandoned, recovered = sums.recovered + excluded.recovered,
            expired = sums.expired + excluded.expired
    ), progress as (
        update cart_count_progress set horizon = bounds.until, written_by = pg_current_xact_id()
        from bounds where exists (select from taken)
    )
    select count(*) from taken
$$;

-- Corrects the counts, for example after changes without triggers (a restore by hand): appends the
-- difference to a count over carts. Returns the number of carts, of periods, and of corrections.
-- One statement and so one snapshot: it may run beside everything but itself.
create function correct_cart_counts(out carts bigint, out periods bigint, out corrected bigint) language sql set jit = off as $$
    with lines as materialized (
        select cart_count_period(abandoned_at) as period, currency, count(*) as abandoned, sum(total_minor) as abandoned_minor,
               count(recovered_at) as cohort_recovered,
               0::bigint as recovered, 0::numeric as recovered_minor, 0::numeric as recovery_seconds, 0::bigint as paid, 0::numeric as paid_minor,
               0::numeric as refunded_minor, count(*) filter (where status = 'abandoned') as now_abandoned,
               count(*) filter (where status = 'recovered') as now_recovered, count(*) filter (where status = 'expired') as now_expired
        from carts group by 1, 2
        union all
        select cart_count_period(recovered_at), currency, 0, 0, 0, count(*), sum(total_minor),
               sum(extract(epoch from recovered_at - abandoned_at)),
               count(*) filter (where status_reason = 'payment'),
               coalesce(sum(total_minor) filter (where status_reason = 'payment'), 0), coalesce(sum(refunded_minor), 0), 0, 0, 0
        from carts where recovered_at is not null group by 1, 2
    ), stored as (
        select period, currency, abandoned, abandoned_minor, cohort_recovered, recovered, recovered_minor,
               recovery_seconds, paid, paid_minor, refunded_minor
        from cart_counts
        union all
        select period, currency, abandoned, abandoned_minor, cohort_recovered, recovered, recovered_minor,
               recovery_seconds, paid, paid_minor, refunded_minor
        from cart_count_deltas
    ), stored_totals as (
        select currency, abandoned, recovered, expired from cart_totals
        union all
        select currency, now_abandoned, now_recovered, now_expired from cart_count_deltas
    ), differences as (
        select period, currency, sum(abandoned) as abandoned, sum(abandoned_minor) as abandoned_minor,
               sum(cohort_recovered) as cohort_recovered, sum(recovered) as recovered, sum(recovered_minor) as recovered_minor,
               sum(recovery_seconds) as recovery_seconds, sum(paid) as paid, sum(paid_minor) as paid_minor,
               sum(refunded_minor) as refunded_minor
        from (
            select period, currency, abandoned, abandoned_minor, cohort_recovered, recovered, recovered_minor,
                   recovery_seconds, paid, paid_minor, refunded_minor from lines
            union all
            select period, currency, -abandoned, -abandoned_minor, -cohort_recovered, -recovered, -recovered_minor, -recovery_seconds,
                   -paid, -paid_minor, -refunded_minor
            from stored
        ) line
        group by period, currency
        having (sum(abandoned), sum(abandoned_minor), sum(cohort_recovered), sum(recovered), sum(recovered_minor),
                sum(recovery_seconds), sum(paid), sum(paid_minor), sum(refunded_minor)) <> (0, 0, 0, 0, 0, 0, 0, 0, 0)
    ), totals as (
        select currency, sum(now_abandoned) as now_abandoned, sum(now_recovered) as now_recovered, sum(now_expired) as now_expired
        from (
            select currency, now_abandoned, now_recovered, now_expired from lines
            union all
            select currency, -abandoned, -recovered, -expired from stored_totals
        ) line
        group by currency
        having (sum(now_abandoned), sum(now_recovered), sum(now_expired)) <> (0, 0, 0)
    ), appended as (
        insert into cart_count_deltas (period, currency, abandoned, abandoned_minor, cohort_recovered, recovered, recovered_minor,
                                       recovery_seconds, paid, paid_minor, refunded_minor, now_abandoned, now_recovered, now_expired)
        select period, currency, abandoned, abandoned_minor, cohort_recovered, recovered, recovered_minor, recovery_seconds, paid,
               paid_minor, refunded_minor, 0, 0, 0
        from differences
        union all
        select '2000-01-01Z', currency, 0, 0, 0, 0, 0, 0, 0, 0, 0, now_abandoned, now_recovered, now_expired from totals
        returning 1
    )
    select (select sum(lines.abandoned)::bigint from lines), (select count(*) from lines), (select count(*) from appended)
$$;
