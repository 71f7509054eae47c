//! Kills a process at a named moment, without code in the product: a trigger in the run's database
//! blocks the statement of that moment until the process that sent it is dead.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use sqlx::PgConnection;

use crate::{
    stage::{Scene, restart},
    weather::Scope,
};

/// The maximum wait for a process to reach the point.
const TIMEOUT: Duration = Duration::from_secs(12);

/// A moment at which a process can be killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Point {
    pub(crate) name: &'static str,
    /// The key of its lock; see `watch.sql`.
    key: i64,
}

/// All points.
pub(crate) const POINTS: [Point; 8] = [
    Point { name: "killed after the request row, before Stripe is asked", key: 7001 },
    Point { name: "killed after Stripe's answer, before it is kept", key: 7002 },
    Point { name: "killed after Stripe closed a session, before it is noted", key: 7003 },
    Point { name: "killed before the ack of a job", key: 7004 },
    Point { name: "killed while the request for a link is written", key: 7005 },
    Point { name: "killed in the middle of a webhook", key: 7006 },
    Point { name: "killed while carts are stored", key: 7007 },
    Point { name: "killed in the middle of a delete", key: 7008 },
];

/// Kills the first process that reaches the point. If `finishes`, Postgres then completes the
/// statement of the dead process, as if its packet had arrived before; otherwise the statement is
/// dropped. `None` if no process reached the point.
pub(crate) async fn kill_at(scene: &Scene, point: Point, finishes: bool, pause: Duration) -> Result<Option<String>> {
    let mut session = scene.server.session().await?;
    if !arm(&mut session, point).await? {
        return Ok(None);
    }
    let killed = kill_waiting(scene, &mut session, point, finishes, pause).await;
    // The lock is released with the session.
    drop(session);
    killed
}

/// Takes the point's lock. A transaction past the point holds a share of it. The lock is tried
/// instead of waited for, because all other processes would queue behind a waiting one.
async fn arm(session: &mut PgConnection, point: Point) -> Result<bool> {
    let begun = Instant::now();
    while begun.elapsed() < TIMEOUT {
        let armed =
            sqlx::query_scalar("select pg_try_advisory_lock($1)").bind(point.key).fetch_one(&mut *session).await?;
        if armed {
            return Ok(true);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(false)
}

async fn kill_waiting(
    scene: &Scene,
    session: &mut PgConnection,
    point: Point,
    finishes: bool,
    pause: Duration,
) -> Result<Option<String>> {
    let begun = Instant::now();
    while begun.elapsed() < TIMEOUT {
        for (backend, port) in waiting(session, point).await? {
            let port = u16::try_from(port).context("a port")?;
            let Some(member) = scene.members.iter().find(|member| member.proxy.has_port(port)) else { continue };
            let Some(mut held) = member.try_hold() else { continue };
            let _storm = scene.weather.begin(Scope::Process(member.number));
            held.kill().await?;
            if !finishes {
                sqlx::query("select pg_terminate_backend($1)").bind(backend).execute(&mut *session).await?;
            }
            sqlx::query("select pg_advisory_unlock($1)").bind(point.key).execute(&mut *session).await?;
            tokio::time::sleep(pause).await;
            restart(scene, &mut held).await?;
            return Ok(Some(member.name()));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(None)
}

/// The sessions blocked at the point: their process ids and the clients' ports.
async fn waiting(session: &mut PgConnection, point: Point) -> sqlx::Result<Vec<(i32, i32)>> {
    sqlx::query_as(
        "select pid, client_port from pg_locks join pg_stat_activity using (pid)
         where locktype = 'advisory' and not granted and classid = 0 and objid = $1::bigint::oid and client_port is not null",
    )
    .bind(point.key)
    .fetch_all(session)
    .await
}
