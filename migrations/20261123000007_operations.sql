-- What running it unattended needs: schedules that are known to everybody, a
-- rate that all processes share, traces that follow a request into its job.

-- Schedules as the workers read them from their environment, so that the api
-- can tell of them, and when a worker last looked whether a slot is due.
create table schedules (
    name       text primary key,
    cron       text        not null,                    -- six fields, seconds first, UTC
    catch_up   text        not null check (catch_up in ('latest', 'all')),
    queue      text        not null,                    -- where its jobs wait
    looked_at  timestamptz                              -- by whichever worker
) with (fillfactor = 50);

-- Which job a slot became; null for slots of before, and for those that a
-- waiting job stands for.
alter table schedule_slots add column job_id uuid;

-- A rate that all processes share: the moment at which the next call is free.
-- One row a rate; a call that finds the moment near takes its turn by moving it on.
create table rate_limits (
    name    text primary key,
    next_at timestamptz not null default now()
) with (fillfactor = 10);

-- The W3C traceparent of who asked for the job.
alter table jobs add column trace_context text;
