-- Jobs $1 to $2 of $3, done one after the other within the last twenty hours.
insert into jobs (id, queue, kind, payload, state, attempts, max_attempts, run_at, worker, created_at, started_at, finished_at)
select (lpad(to_hex((extract(epoch from done_at) * 1000)::bigint), 12, '0') || '7' || substr(md5(i::text), 1, 3)
        || '8' || substr(md5(i::text), 4, 15))::uuid,
    'bench', 'no_op', jsonb_build_object('n', i), 'done', 1, 5, done_at, 'bench-' || substr(md5((i % 4)::text), 1, 12), done_at, done_at, done_at
from (select i, now() - ($3 - i) / $3::float8 * interval '20 hours' as done_at from generate_series($1, $2) i) jobs
