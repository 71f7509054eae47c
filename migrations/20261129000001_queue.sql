-- The durable queue behind apalis' Backend trait. docs: queue/src/lib.rs. Knows nothing of carts.

-- One row per job.
create table jobs (
    id            uuid primary key,                     -- UUIDv7: newest first is "order by id desc"
    queue         text        not null,
    kind          text        not null,                 -- selects the handler
    payload       jsonb       not null,                 -- ids only, never personal data
    subject       text collate "C",                     -- id of what the job is about; null: of nothing in particular
    state         text        not null default 'pending',
    attempts      smallint    not null default 0,       -- counted when an attempt starts, not when it ends
    max_attempts  smallint    not null check (max_attempts > 0),
    interruptions smallint    not null default 0,       -- attempts that ended because their worker was lost; they do not count
    run_at        timestamptz not null default now(),
    unique_key    text,                                 -- unique among unfinished jobs
    slot          timestamptz,                          -- the scheduled time, for jobs of a schedule
    lease_token   uuid,                                 -- fencing token: random, never reused
    lease_until   timestamptz,
    worker        text,                                 -- the process that holds the job, or held it last
    last_error    text,
    attempt_log   jsonb       not null default '[]',    -- failed and interrupted: [{attempt, startedAt, endedAt, worker, error}]
    created_at    timestamptz not null default now(),
    started_at    timestamptz,
    finished_at   timestamptz,
    trace_context text,                                 -- W3C traceparent of the request
    constraint jobs_state_known      check (state in ('pending', 'running', 'done', 'dead')),
    constraint jobs_lease_if_running check ((state = 'running') = (lease_token is not null)),
    constraint jobs_lease_complete   check ((lease_token is null) = (lease_until is null)),
    constraint jobs_finished_at_set  check ((state in ('done', 'dead')) = (finished_at is not null))
) with (
    fillfactor = 70,                                    -- leaves room for HOT updates of leases
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_cost_delay = 0
);

-- For fetching. Finished jobs are only in the last of these indexes, so they cost a fetch nothing.
create index jobs_pending on jobs (queue, run_at, id) where state = 'pending';
-- For finding expired leases. Without lease_until, so that a renewal changes no index.
create index jobs_running on jobs (id) where state = 'running';
-- For deleting old jobs.
create index jobs_finished on jobs (state, finished_at) where state in ('done', 'dead');
-- For the jobs of a subject.
create index jobs_subject on jobs (subject) where subject is not null;
-- Enqueuing a job whose key is in use is a conflict here.
create unique index jobs_unique_key on jobs (unique_key) where unique_key is not null and state in ('pending', 'running');

-- Settings of queues. A queue without a row is not paused.
create table queues (
    name      text primary key,
    paused_at timestamptz
);

-- The processes that run jobs. Each updates seen_at every few seconds; one that has not for 30 s is
-- considered gone.
create table workers (
    name        text primary key,                       -- as in jobs.worker
    queues      text[]      not null,
    concurrency integer     not null check (concurrency > 0),
    started_at  timestamptz not null default now(),
    seen_at     timestamptz not null default now()
) with (fillfactor = 50);

-- Schedules, as the workers read them from their environment.
create table schedules (
    name      text primary key,
    cron      text not null,                            -- six fields, seconds first, UTC
    catch_up  text not null check (catch_up in ('latest', 'all')),
    queue     text not null,                            -- of its jobs
    job       jsonb not null default '{}',              -- the job to run by hand: its kind, payload and maxAttempts
    looked_at timestamptz,                              -- when a worker last checked for due slots
    run_by_hand uuid                                    -- the job of the last run by hand
) with (fillfactor = 50);

-- Slots (scheduled times) that were enqueued. The primary key admits each slot once.
create table schedule_slots (
    schedule    text        not null,
    slot        timestamptz not null,
    admitted_at timestamptz not null default now(),
    job_id      uuid,                                   -- null: a pending job of an earlier slot stands for this one
    primary key (schedule, slot)
);

-- Rate limits that all processes share. The last row of a name has the time of its next free permit;
-- rows before it mean nothing. Rows are replaced instead of updated: while a snapshot is open (a
-- backup), Postgres can't remove old versions of a row, and each reader would walk all of them. A
-- reader of the last row begins with it.
create table rate_limits (
    name    text        not null,
    next_at timestamptz not null,
    primary key (name, next_at)
);

-- Reserves permits: moves the time of the next free one by length (all permits of the caller), if it
-- is at most horizon ahead. Returns whether it did, and the seconds until the first permit.
create function take_permits(limit_name text, length interval, horizon interval, out taken boolean, out seconds float8)
language plpgsql set enable_seqscan = off as $$
declare
    latest  timestamptz;
    at      timestamptz;
begin
    -- Losing a reservation in a crash of Postgres is harmless.
    perform set_config('synchronous_commit', 'off', true);
    perform pg_advisory_xact_lock(hashtext('rate_limits'), hashtext(limit_name)); -- the next statement sees the last row
    select next_at into latest from rate_limits where name = limit_name order by next_at desc limit 1;
    at := clock_timestamp();
    taken := latest is null or latest <= at + horizon;
    at := greatest(latest, at);
    seconds := extract(epoch from at - clock_timestamp());
    if taken and length > '0' then
        insert into rate_limits (name, next_at) values (limit_name, at + length);
        delete from rate_limits where name = limit_name and next_at = latest;
    end if;
end $$;
