//! Asking for payment links: written down for the worker, for many carts in one transaction.

use std::{collections::HashMap, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use common::{
    batches::{Batch, Batches},
    carts::{self, CartId, CartStatus, LockedCart},
    clock::Clock,
    db::{Connection, Database},
    payment_links::{self, LinkStatus, NewRequest, PaymentLink, RequestedBy},
    recovery_links::{self, RecoveryLink},
    traces,
};

use crate::{
    AppState,
    cart_locks::{self, Locked},
    error::ApiError,
};

/// Stripe ends a session after 24 hours at the latest
/// (<https://docs.stripe.com/api/checkout/sessions/create#create_checkout_session-expires_at>).
/// Five minutes less, so that neither clocks nor a slow first attempt break the bound.
const LONGEST_SESSION: TimeDelta = TimeDelta::minutes(24 * 60 - 5);
/// … and takes none shorter than 30 minutes; five more for retries.
const SHORTEST_SESSION: TimeDelta = TimeDelta::minutes(35);

/// The batches of the links' routes.
#[derive(Debug)]
pub(crate) struct LinkBatches {
    asking: AskForLinks,
    ask: Batches<AskForLinks>,
    wake: Batches<WakeWorkers>,
    pub(crate) latest: Batches<LatestLinks>,
}

impl LinkBatches {
    pub(crate) const LANES: usize = AskForLinks::LANES + WakeWorkers::LANES + LatestLinks::LANES;

    /// A recovery link that is asked for is good for `recovery_ttl`.
    pub(crate) fn start(database: &Database, clock: &Clock, recovery_ttl: Duration) -> Self {
        let asking = AskForLinks { clock: clock.clone(), recovery_ttl };
        Self {
            ask: Batches::start(asking.clone(), database.clone()),
            wake: Batches::start(WakeWorkers, database.clone()),
            latest: Batches::start(LatestLinks, database.clone()),
            asking,
        }
    }
}

/// Whether asking makes the recovery link good for longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RecoveryTime {
    /// The shop asked.
    Extend,
    /// A shopper opened the link.
    Keep,
}

/// What was asked for, or was there.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) link: PaymentLink,
    pub(crate) recovery: Option<RecoveryLink>,
}

/// The cart's live link, or a request for one. Nothing has to be undone if the
/// caller goes away.
pub(crate) async fn request(state: &AppState, id: &CartId, recovery: RecoveryTime) -> Result<Asked, ApiError> {
    let question = LinkQuestion { id: id.clone(), recovery, trace: traces::current_context() };
    let asked = match state.links.ask.ask(question.clone()).await? {
        Some(answer) => answer?,
        // Somebody holds the cart, or there is none: this request waits for it alone.
        None => alone(state, &question).await?,
    };
    if asked.link.status == LinkStatus::Pending
        && let Err(error) = state.links.wake.ask(()).await
    {
        tracing::debug!(%error, "the workers find the job by looking"); // it is queued all the same
    }
    Ok(asked)
}

async fn alone(state: &AppState, question: &LinkQuestion) -> Result<Asked, ApiError> {
    // Twenty at once stand in line here, and nineteen find the first one's request.
    let Locked { permit: _permit, mut tx, cart } = cart_locks::lock(state, &question.id).await?;
    let locked = HashMap::from([(question.id.to_string(), cart)]);
    let answers = state.links.asking.answer_locked(&mut tx, std::slice::from_ref(question), &locked).await?;
    let asked = answers.into_iter().next().flatten().ok_or_else(ApiError::cart_not_found)??;
    tx.commit().await?;
    Ok(asked)
}

#[derive(Debug, Clone)]
struct LinkQuestion {
    id: CartId,
    recovery: RecoveryTime,
    /// Where the request stands in its trace.
    trace: Option<String>,
}

/// Requests for links that come at the same time, in one transaction.
#[derive(Debug, Clone)]
struct AskForLinks {
    clock: Clock,
    recovery_ttl: Duration,
}

/// `None`: the cart is not there, or somebody holds it.
type Answer = Option<Result<Asked, ApiError>>;

impl Batch for AskForLinks {
    type Question = LinkQuestion;
    type Answer = Answer;
    const LANES: usize = 2;
    const MOST: usize = 50;
    const ENOUGH: usize = 8;
    const TRANSACTION: bool = true;

    async fn answer(&self, conn: &mut Connection, questions: &[LinkQuestion]) -> sqlx::Result<Vec<Answer>> {
        let ids: Vec<&str> = questions.iter().map(|question| question.id.as_str()).collect();
        let locked = carts::lock_free(conn, &ids).await?;
        self.answer_locked(conn, questions, &locked).await
    }
}

impl AskForLinks {
    /// Answers for the carts that are `locked` until `conn`'s transaction ends.
    async fn answer_locked(
        &self,
        conn: &mut Connection,
        questions: &[LinkQuestion],
        locked: &HashMap<String, LockedCart>,
    ) -> sqlx::Result<Vec<Answer>> {
        let now = self.clock.now();
        let ids: Vec<&str> = locked.keys().map(String::as_str).collect();
        let latest = payment_links::latest_of(conn, &ids).await?;
        // Most carts have no link yet, and need no second look.
        let linked: Vec<&str> = latest.keys().map(String::as_str).collect();
        let processing = payment_links::processing_of(conn, &linked).await?;
        let verdicts: Vec<Verdict> = questions
            .iter()
            .map(|question| match locked.get(question.id.as_str()) {
                None => Verdict::NotLocked,
                Some(_) if processing.contains(question.id.as_str()) => Verdict::Refused(under_way()),
                Some(cart) => match check_payable(cart) {
                    Err(refusal) => Verdict::Refused(refusal),
                    Ok(()) => match latest.get(question.id.as_str()).filter(|link| link.is_live(now)) {
                        Some(link) => Verdict::Live(link.clone()),
                        None => Verdict::Wanted,
                    },
                },
            })
            .collect();
        let recovery = self.recovery_links(conn, questions, &verdicts, now).await?;
        let made = make(conn, questions, &verdicts, &latest, &recovery, now).await?;
        Ok(verdicts
            .into_iter()
            .zip(questions)
            .map(|(verdict, question)| {
                let id = question.id.as_str();
                let recovery = recovery.get(id).cloned();
                match verdict {
                    Verdict::NotLocked => None,
                    Verdict::Refused(refusal) => Some(Err(refusal)),
                    Verdict::Live(link) => Some(Ok(Asked { link, recovery })),
                    Verdict::Wanted => Some(match made.get(id) {
                        Some(link) => Ok(Asked { link: link.clone(), recovery }),
                        None => Err(ApiError::conflict("The cart's recovery link has expired")),
                    }),
                }
            })
            .collect())
    }

    /// The recovery links of all who get an answer, extended where that was asked for.
    async fn recovery_links(
        &self,
        conn: &mut Connection,
        questions: &[LinkQuestion],
        verdicts: &[Verdict],
        now: DateTime<Utc>,
    ) -> sqlx::Result<HashMap<String, RecoveryLink>> {
        let (mut extend, mut find) = (Vec::new(), Vec::new());
        for (question, verdict) in questions.iter().zip(verdicts) {
            match (verdict, question.recovery) {
                (Verdict::Wanted, RecoveryTime::Extend) => extend.push(question.id.as_str()),
                (Verdict::Wanted, RecoveryTime::Keep) | (Verdict::Live(_), _) => find.push(question.id.as_str()),
                (Verdict::NotLocked | Verdict::Refused(_), _) => {}
            }
        }
        // No statement can insert or update the same row twice.
        extend.sort_unstable();
        extend.dedup();
        let mut links = HashMap::new();
        if !find.is_empty() {
            links = recovery_links::find_many(conn, &find).await?;
        }
        if !extend.is_empty() {
            let until = now + TimeDelta::from_std(self.recovery_ttl).unwrap_or(TimeDelta::MAX);
            links.extend(recovery_links::extend(conn, &extend, until).await?);
        }
        Ok(links)
    }
}

/// What comes of a question, as far as it is known without writing.
enum Verdict {
    NotLocked,
    Refused(ApiError),
    Live(PaymentLink),
    Wanted,
}

/// Writes down the requests for those links that are wanted and whose recovery
/// links are good: by the carts' ids. Who asks twice is answered once.
async fn make(
    conn: &mut Connection,
    questions: &[LinkQuestion],
    verdicts: &[Verdict],
    latest: &HashMap<String, PaymentLink>,
    recovery: &HashMap<String, RecoveryLink>,
    now: DateTime<Utc>,
) -> sqlx::Result<HashMap<String, PaymentLink>> {
    let mut made = HashMap::new();
    let mut first: HashMap<&str, NewRequest> = HashMap::new();
    for (question, _) in questions.iter().zip(verdicts).filter(|(_, verdict)| matches!(verdict, Verdict::Wanted)) {
        let id = question.id.as_str();
        let Some(recovery) = recovery.get(id).filter(|recovery| recovery.expires_at > now) else { continue };
        // A session should not outlive the link that leads to it, as far as Stripe's bounds allow.
        let session_expires_at = recovery.expires_at.clamp(now + SHORTEST_SESSION, now + LONGEST_SESSION);
        let requested_by = match question.recovery {
            RecoveryTime::Extend => RequestedBy::Api,
            RecoveryTime::Keep => RequestedBy::Shopper,
        };
        match latest.get(id) {
            Some(pending) if pending.status == LinkStatus::Pending => {
                if !made.contains_key(id) {
                    let newest = Some(pending.clone());
                    let link =
                        payment_links::request(conn, &question.id, newest, session_expires_at, requested_by, now)
                            .await?;
                    made.insert(id.to_owned(), link);
                }
            }
            older => {
                let version = older.map_or(1, |link| link.version + 1);
                let (cart_id, trace) = (id.to_owned(), question.trace.clone());
                first.insert(
                    id,
                    NewRequest { cart_id, version, replacements: 0, session_expires_at, requested_by, trace },
                );
            }
        }
    }
    let links = payment_links::request_first(conn, first.into_values().collect(), now).await?;
    made.extend(links.into_iter().map(|link| (link.cart_id.clone(), link)));
    Ok(made)
}

pub(crate) fn under_way() -> ApiError {
    ApiError::conflict("A payment for this cart is under way")
}

fn check_payable(cart: &LockedCart) -> Result<(), ApiError> {
    if cart.status != CartStatus::Abandoned {
        return Err(ApiError::conflict(format!("The cart is {}, not abandoned", cart.status.as_str())));
    }
    cart.currency.check_chargeable(cart.total_minor).map_err(|why| ApiError::invalid("totalValue", why.to_string()))
}

/// Wakes the workers once for all who asked at the same time.
#[derive(Debug)]
struct WakeWorkers;

impl Batch for WakeWorkers {
    type Question = ();
    type Answer = ();
    const LANES: usize = 1;
    const MOST: usize = 100;
    const ENOUGH: usize = 1;

    async fn answer(&self, conn: &mut Connection, questions: &[()]) -> sqlx::Result<Vec<()>> {
        payment_links::wake(conn).await?;
        Ok(questions.to_vec())
    }
}

/// The newest requests for the links of carts.
#[derive(Debug)]
pub(crate) struct LatestLinks;

impl Batch for LatestLinks {
    type Question = String;
    type Answer = Option<PaymentLink>;
    const LANES: usize = 2;
    const MOST: usize = 100;
    const ENOUGH: usize = 8;

    async fn answer(&self, conn: &mut Connection, cart_ids: &[String]) -> sqlx::Result<Vec<Option<PaymentLink>>> {
        let ids: Vec<&str> = cart_ids.iter().map(String::as_str).collect();
        let latest = payment_links::latest_of(conn, &ids).await?;
        Ok(ids.into_iter().map(|id| latest.get(id).cloned()).collect())
    }
}
