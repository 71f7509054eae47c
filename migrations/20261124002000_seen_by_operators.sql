-- What operators look at, and nothing else told them.

-- Webhooks that failed verification, by UTC day. A counter of a process is not
-- enough: there are many, and they restart. Only the api writes here, and each
-- at most once every few seconds however many it refuses (anybody may send them).
create table refused_webhooks (
    day     date primary key,
    count   bigint      not null check (count > 0),
    last_at timestamptz not null
) with (fillfactor = 50);

-- The processes that work on the queue, busy or not: each says every few seconds
-- that it lives. One that says nothing for half a minute is taken for gone.
create table workers (
    name        text primary key,                       -- jobs.worker of what it runs
    queues      text[]      not null,
    concurrency integer     not null check (concurrency > 0),
    started_at  timestamptz not null default now(),
    seen_at     timestamptz not null default now()
) with (fillfactor = 50);
