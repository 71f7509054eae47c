-- The durable queue behind apalis' Backend trait. Why it is ours and not
-- apalis-postgres: see queue/src/lib.rs. It knows nothing of carts.

create table jobs (
    id           uuid primary key,                      -- UUIDv7: newest first is "order by id desc"
    queue        text        not null,
    kind         text        not null,                  -- which handler runs it
    payload      jsonb       not null,                  -- ids only, never personal data
    state        text        not null default 'pending',
    attempts     smallint    not null default 0,        -- counted when a worker takes the job, not when it ends
    max_attempts smallint    not null check (max_attempts > 0),
    run_at       timestamptz not null default now(),
    unique_key   text,                                  -- at most one unfinished job has it
    slot         timestamptz,                           -- which tick of a schedule it stands for
    lease_token  uuid,                                  -- fences the holder: random, never repeated
    lease_until  timestamptz,
    worker       text,                                  -- who holds it or held it last
    last_error   text,
    attempt_log  jsonb       not null default '[]',     -- [{attempt, at, worker, error}], failures only
    created_at   timestamptz not null default now(),
    started_at   timestamptz,
    finished_at  timestamptz,
    constraint jobs_state_known      check (state in ('pending', 'running', 'done', 'dead')),
    constraint jobs_lease_if_running check ((state = 'running') = (lease_token is not null)),
    constraint jobs_lease_complete   check ((lease_token is null) = (lease_until is null)),
    constraint jobs_finished_at_set  check ((state in ('done', 'dead')) = (finished_at is not null))
) with (
    fillfactor = 70,                                    -- room on the page, so that renewals stay HOT
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_cost_delay = 0
);

-- What is ready or scheduled; the only index a fetch reads. Finished rows are
-- in none of these but the last, so that history costs a fetch nothing.
create index jobs_pending on jobs (queue, run_at, id) where state = 'pending';
-- What is running: the reaper looks for leases that ran out. lease_until stays
-- out of it, because a renewal must not touch an index.
create index jobs_running on jobs (id) where state = 'running';
-- What retention deletes, oldest first.
create index jobs_finished on jobs (state, finished_at) where state in ('done', 'dead');
-- "Already queued" is a conflict here, never an error.
create unique index jobs_unique_key on jobs (unique_key) where unique_key is not null and state in ('pending', 'running');

-- What operators set on a queue. A queue without a row is not paused.
create table queues (
    name      text primary key,
    paused_at timestamptz
);

-- The ledger of schedules: a slot is let in once, whoever proposes it.
create table schedule_slots (
    schedule    text        not null,
    slot        timestamptz not null,
    admitted_at timestamptz not null default now(),
    primary key (schedule, slot)
);
