//! Giving up on a Postgres that neither answers nor refuses: TCP takes a quarter
//! of an hour to notice, or never does.

use std::{
    io,
    task::{Poll, ready},
    time::Duration,
};

use futures_util::{
    Stream,
    stream::{self, BoxStream},
};

/// What `asked` answers, or, after `patience`, that there was no answer.
pub(crate) async fn in_time<T>(patience: Duration, asked: impl Future<Output = sqlx::Result<T>>) -> sqlx::Result<T> {
    match tokio::time::timeout(patience, asked).await {
        Ok(answer) => answer,
        Err(_) => Err(no_answer(patience)),
    }
}

/// The same for each item of an answer, which ends with the first that does not
/// come. A timer is set only where there is something to wait for: most rows are there already.
pub(crate) fn stream_in_time<'e, T: 'e>(
    patience: Duration,
    mut answers: BoxStream<'e, sqlx::Result<T>>,
) -> impl Stream<Item = sqlx::Result<T>> + Send + 'e {
    let (mut waiting, mut over) = (None, false);
    stream::poll_fn(move |context| {
        if over {
            return Poll::Ready(None);
        }
        if let Poll::Ready(answer) = answers.as_mut().poll_next(context) {
            waiting = None;
            return Poll::Ready(answer);
        }
        let sleep = waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        ready!(sleep.as_mut().poll(context));
        over = true;
        Poll::Ready(Some(Err(no_answer(patience))))
    })
}

fn no_answer(patience: Duration) -> sqlx::Error {
    let why = format!("Postgres did not answer within {patience:?}");
    sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, why))
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;

    use super::*;

    #[tokio::test]
    async fn what_does_not_come_is_given_up() {
        let patience = Duration::from_millis(20);
        let never = in_time(patience, std::future::pending::<sqlx::Result<()>>()).await;
        assert!(matches!(never, Err(sqlx::Error::Io(error)) if error.kind() == io::ErrorKind::TimedOut));
        let half = stream::iter([Ok(1), Ok(2)]).chain(stream::pending()).boxed();
        let seen: Vec<Option<i32>> = stream_in_time(patience, half).map(Result::ok).collect().await;
        assert_eq!(seen, [Some(1), Some(2), None]);
    }
}
