-- Sessions of the dashboard that were signed out before their time. A session is
-- a signed cookie that no process keeps, so what ended it has to be kept instead.
create table ended_sessions (
    session_hash bytea primary key check (octet_length(session_hash) = 32),  -- SHA-256 of the cookie's value
    ends_at      timestamptz not null                                        -- when it would have ended by itself; then the row goes
);

-- Every api keeps them in memory beside the keys, and is told in the same way.
create trigger ended_sessions_tell after insert on ended_sessions
    for each statement execute function tell_of_api_keys();
