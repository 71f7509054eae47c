-- Added to the run's database after the product has migrated it:
-- triggers that block a process at a named moment, and an audit written by the
-- audited statements themselves.
create schema chaos;

-- Returns at once unless the run holds the lock of this point.
create function chaos.point() returns trigger language plpgsql as $$
begin
    perform pg_advisory_xact_lock_shared(tg_argv[0]::bigint);
    return coalesce(new, old); -- of a delete there is no new row
end $$;

create trigger chaos_before_stripe before update on payment_links for each row
    when (old.attempted_at is null and new.attempted_at is not null) execute function chaos.point('7001');
create trigger chaos_after_stripe before update on payment_links for each row
    when (old.status = 'pending' and new.status = 'open') execute function chaos.point('7002');
create trigger chaos_after_closing before update on payment_links for each row
    when (old.status in ('closing', 'settling') and new.status = 'closed') execute function chaos.point('7003');
create trigger chaos_before_ack before update on jobs for each row
    when (old.state = 'running' and new.state = 'done') execute function chaos.point('7004');
create trigger chaos_request_row before insert on payment_links for each row execute function chaos.point('7005');
create trigger chaos_webhook before insert on stripe_events for each row execute function chaos.point('7006');
create trigger chaos_cart before insert on carts for each row execute function chaos.point('7007');
create trigger chaos_delete before delete on carts for each row execute function chaos.point('7008');

-- Every run of a job: when it was taken, when it ended, and under which token.
create table chaos.runs (
    job_id uuid not null, token uuid not null, worker text, taken_at timestamptz not null default clock_timestamp(),
    ended_at timestamptz, ended_as text, primary key (job_id, token)
);
create function chaos.job() returns trigger language plpgsql as $$
begin
    if new.state = 'running' and new.lease_token is distinct from old.lease_token then
        insert into chaos.runs (job_id, token, worker) values (new.id, new.lease_token, new.worker);
    elsif old.state = 'running' and new.state <> 'running' then
        update chaos.runs set ended_at = clock_timestamp(), ended_as = new.state where job_id = old.id and token = old.lease_token;
    end if;
    return null;
end $$;
create trigger chaos_job after update of state, lease_token on jobs for each row execute function chaos.job();

-- Committed changes of status.
create table chaos.changes (what text not null, id text not null, was text, became text not null, at timestamptz not null default clock_timestamp());
create index on chaos.changes (what, id);
create function chaos.cart() returns trigger language plpgsql as $$
begin
    insert into chaos.changes (what, id, was, became) values ('cart', new.id, old.status, new.status);
    return null;
end $$;
create trigger chaos_cart_change after update of status on carts for each row
    when (old.status <> new.status) execute function chaos.cart();
create function chaos.link() returns trigger language plpgsql as $$
begin
    insert into chaos.changes (what, id, was, became)
    values ('link', new.cart_id || ' v' || new.version, old.status, new.status);
    return null;
end $$;
create trigger chaos_link_change after update of status on payment_links for each row
    when (old.status <> new.status) execute function chaos.link();
