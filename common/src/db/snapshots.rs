//! Finds the oldest snapshot, which keeps Postgres from removing dead rows.

use std::{fmt, time::Duration};

use super::Connection;

/// An oldest snapshot of this age is reported to the operator.
const OLD: Duration = Duration::from_secs(10 * 60);
/// The age in transactions from which a snapshot of unknown age counts as old: about an hour at 300
/// writes a second.
const OLD_TRANSACTIONS: i32 = 1_000_000;

/// The oldest snapshot, and its holder: a session (also of a standby with `hot_standby_feedback`), a
/// prepared transaction, or a replication slot.
#[derive(Debug, Clone, PartialEq)]
pub struct OldestSnapshot {
    /// The holder, for example `session 4711`.
    pub holder: String,
    /// The `application_name` of the session; `None` if it has none.
    pub application: Option<String>,
    /// The role of the session or of the prepared transaction.
    pub role: Option<String>,
    /// The client's address; `None` for a socket, or if [`OldestSnapshot::is_hidden`].
    pub client: Option<String>,
    /// The state of the session, for example `idle in transaction`; `None` if
    /// [`OldestSnapshot::is_hidden`].
    pub state: Option<String>,
    /// Whether this role may not see client, state and start of another role's session.
    pub is_hidden: bool,
    /// How long the transaction has been open. If Postgres does not report that, the age of the
    /// first run of a schedule that is younger than the snapshot, a lower bound; `None` if there is
    /// no such run within a day.
    pub seconds: Option<f64>,
    /// Number of transactions since.
    pub transactions: i32,
    /// Whether the transaction has written: then counts of carts are not added up before it ends.
    pub writes: bool,
}

impl OldestSnapshot {
    /// Whether it is older than ten minutes.
    pub fn is_old(&self) -> bool {
        self.seconds.map_or(self.transactions >= OLD_TRANSACTIONS, |seconds| seconds >= OLD.as_secs_f64())
    }

    /// What it costs, and the remedy.
    pub fn advice(&self) -> String {
        let counts = if self.writes { ", and counts of carts are added up only afterwards" } else { "" };
        format!(
            "Until it ends, Postgres can't remove dead rows: tables grow, and reading them gets slower{counts}. A \
             backup ends by itself; otherwise end the session (`select pg_terminate_backend(pid)`) or the prepared \
             transaction, or drop the replication slot."
        )
    }
}

impl fmt::Display for OldestSnapshot {
    /// For example `session 4711 (pg_dump, role backup, client 10.0.0.7, idle in transaction), for 12
    /// min`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let details = [
            self.application.clone(),
            self.role.as_ref().map(|role| format!("role {role}")),
            self.client.as_ref().map(|client| format!("client {client}")),
            self.state.clone(),
        ];
        let details: Vec<String> = details.into_iter().flatten().collect();
        write!(f, "{}", self.holder)?;
        if !details.is_empty() {
            write!(f, " ({})", details.join(", "))?;
        }
        match self.seconds.map(|seconds| seconds / 60.0) {
            Some(minutes) if self.is_hidden => write!(f, ", for at least {minutes:.0} min"),
            Some(minutes) => write!(f, ", for {minutes:.0} min"),
            None => write!(f, ", for {} transactions", self.transactions),
        }
    }
}

/// The oldest snapshot that others than this session hold; `None` if there is none.
///
/// Any role sees the snapshots, applications and roles of all sessions. Client, state and start of
/// other roles' sessions are visible to members of `pg_read_all_stats`.
pub async fn oldest(conn: &mut Connection) -> sqlx::Result<Option<OldestSnapshot>> {
    sqlx::query_as!(
        OldestSnapshot,
        r#"
        with oldest as (
            -- Sessions without a role are Postgres' own; a vacuum does not wait for another. Snapshots
            -- in other databases hold up nothing here, but transactions that write anywhere do.
            select 'session ' || pid as holder, nullif(application_name, '') as application, usename::text as role,
                   host(client_addr) as client, state, backend_type is null as is_hidden, xact_start as since,
                   snapshot, is_xid as writes
            from pg_stat_activity
            cross join lateral (values
                (backend_xid, true), (case when datid is null or datname = current_database() then backend_xmin end, false)
            ) as held (snapshot, is_xid)
            where usesysid is not null and pid <> pg_backend_pid()
            union all
            select 'the prepared transaction ' || quote_literal(gid), null, owner::text, null, null, false, prepared, transaction, true
            from pg_prepared_xacts
            union all
            select 'the replication slot ' || quote_literal(slot_name), null, null, null, null, true, null, xmin, false
            from pg_replication_slots
        )
        select holder as "holder!", application, role, client, state, is_hidden as "is_hidden!",
               extract(epoch from now() - coalesce(since, (
                   select min(admitted_at) from schedule_slots
                   where schedule = 'add_up_counts' and slot > now() - interval '1 day'
                     and age(schedule_slots.xmin) <= age(snapshot)
               )))::float8 as seconds,
               age(snapshot) as "transactions!", writes as "writes!"
        from oldest
        where snapshot is not null
        order by age(snapshot) desc, since
        limit 1
        "#
    )
    .fetch_optional(conn)
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(seconds: Option<f64>, transactions: i32) -> OldestSnapshot {
        OldestSnapshot {
            holder: "session 7".to_owned(),
            application: Some("pg_dump".to_owned()),
            role: Some("backup".to_owned()),
            client: None,
            state: None,
            is_hidden: true,
            seconds,
            transactions,
            writes: false,
        }
    }

    #[test]
    fn a_snapshot_is_old_after_ten_minutes() {
        assert!(!snapshot(Some(599.0), i32::MAX).is_old(), "the time is known");
        assert!(snapshot(Some(600.0), 1).is_old());
        assert!(!snapshot(None, 999_999).is_old());
        assert!(snapshot(None, 1_000_000).is_old());
    }

    #[test]
    fn nothing_is_claimed_that_is_not_visible() {
        assert_eq!(snapshot(Some(720.0), 9).to_string(), "session 7 (pg_dump, role backup), for at least 12 min");
        assert_eq!(snapshot(None, 9).to_string(), "session 7 (pg_dump, role backup), for 9 transactions");
        let seen = OldestSnapshot {
            client: Some("10.0.0.7".to_owned()),
            state: Some("idle in transaction".to_owned()),
            is_hidden: false,
            ..snapshot(Some(720.0), 9)
        };
        let text = "session 7 (pg_dump, role backup, client 10.0.0.7, idle in transaction), for 12 min";
        assert_eq!(seen.to_string(), text);
        assert!(!seen.advice().contains("counts"));
        assert!(OldestSnapshot { writes: true, ..seen }.advice().contains("counts of carts are added up"));
    }
}
