//! Timeouts for an unresponsive Postgres: TCP detects a dead peer only after about 15 minutes, or
//! never.

use std::{
    io,
    task::{Poll, ready},
    time::Duration,
};

use futures_util::{
    Stream,
    stream::{self, BoxStream},
};

/// The result of `statement`, or an I/O error of kind `TimedOut` after `timeout`.
pub(crate) async fn with_timeout<T>(
    timeout: Duration,
    statement: impl Future<Output = sqlx::Result<T>>,
) -> sqlx::Result<T> {
    match tokio::time::timeout(timeout, statement).await {
        Ok(result) => result,
        Err(_) => Err(timed_out(timeout)),
    }
}

/// Applies `timeout` to the wait for each item of a stream, which ends after the first timeout.
/// Sets a timer only if an item is not available at once, because most are.
pub(crate) fn stream_with_timeout<'e, T: 'e>(
    timeout: Duration,
    mut rows: BoxStream<'e, sqlx::Result<T>>,
) -> impl Stream<Item = sqlx::Result<T>> + Send + 'e {
    let (mut waiting, mut over) = (None, false);
    stream::poll_fn(move |context| {
        if over {
            return Poll::Ready(None);
        }
        if let Poll::Ready(row) = rows.as_mut().poll_next(context) {
            waiting = None;
            return Poll::Ready(row);
        }
        let sleep = waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        ready!(sleep.as_mut().poll(context));
        over = true;
        Poll::Ready(Some(Err(timed_out(timeout))))
    })
}

fn timed_out(timeout: Duration) -> sqlx::Error {
    let why = format!("Postgres did not answer within {timeout:?}");
    sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, why))
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;

    use super::*;

    #[tokio::test]
    async fn a_missing_answer_is_an_error() {
        let timeout = Duration::from_millis(20);
        let never = with_timeout(timeout, std::future::pending::<sqlx::Result<()>>()).await;
        assert!(matches!(never, Err(sqlx::Error::Io(error)) if error.kind() == io::ErrorKind::TimedOut));
        let half = stream::iter([Ok(1), Ok(2)]).chain(stream::pending()).boxed();
        let seen: Vec<Option<i32>> = stream_with_timeout(timeout, half).map(Result::ok).collect().await;
        assert_eq!(seen, [Some(1), Some(2), None]);
    }
}
