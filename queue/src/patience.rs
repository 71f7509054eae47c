//! Giving up on a Postgres that neither answers nor refuses: TCP takes a quarter
//! of an hour to notice, or never does.

use std::{io, time::Duration};

use futures_util::{StreamExt, stream, stream::BoxStream};

/// What `asked` answers, or, after `patience`, that there was no answer.
pub(crate) async fn in_time<T>(patience: Duration, asked: impl Future<Output = sqlx::Result<T>>) -> sqlx::Result<T> {
    match tokio::time::timeout(patience, asked).await {
        Ok(answer) => answer,
        Err(_) => Err(no_answer(patience)),
    }
}

/// The same for each item of an answer, which ends with the first that does not come.
pub(crate) fn stream_in_time<'e, T: Send + 'e>(
    patience: Duration,
    answers: BoxStream<'e, sqlx::Result<T>>,
) -> BoxStream<'e, sqlx::Result<T>> {
    let answers = stream::unfold(Some(answers), move |answers| async move {
        let mut answers = answers?;
        match tokio::time::timeout(patience, answers.next()).await {
            Ok(answer) => answer.map(|answer| (answer, Some(answers))),
            Err(_) => Some((Err(no_answer(patience)), None)),
        }
    });
    answers.boxed()
}

fn no_answer(patience: Duration) -> sqlx::Error {
    let why = format!("Postgres did not answer within {patience:?}");
    sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, why))
}

#[cfg(test)]
mod tests {
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
