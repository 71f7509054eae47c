//! What jobs that run at the same time write about links, in one statement each.

use common::{
    batches::{Batch, Batches},
    checkout::{self, CheckoutCart},
    clock::Clock,
    db::{Connection, Database, by_key},
    jobs::CreatePaymentLink,
    payment_links::{self, Opening, PaymentLink},
};

/// See the functions of the same names; what they could not do the job does alone.
#[derive(Debug)]
pub(crate) struct LinkBatches {
    pub(crate) begin: Batches<Begin>,
    pub(crate) open: Batches<Open>,
}

impl LinkBatches {
    /// Each keeps a connection while it is busy.
    pub(crate) const LANES: usize = Begin::LANES + Open::LANES;

    /// On connections of their own.
    pub(crate) fn start(database: &Database, clock: &Clock, livemode: Option<bool>) -> Self {
        let database = by_key(database, u32::try_from(Self::LANES).unwrap_or(u32::MAX));
        Self {
            begin: Batches::start(Begin { clock: clock.clone(), livemode }, database.clone()),
            open: Batches::start(Open { clock: clock.clone() }, database.clone()),
        }
    }
}

/// [`checkout::begin_free`]
#[derive(Debug)]
pub(crate) struct Begin {
    clock: Clock,
    /// Of the worker's key.
    livemode: Option<bool>,
}

impl Batch for Begin {
    type Question = CreatePaymentLink;
    type Answer = Option<(PaymentLink, CheckoutCart)>;
    const LANES: usize = 2;
    const MOST: usize = 50;
    const ENOUGH: usize = 8;

    async fn answer(&self, conn: &mut Connection, jobs: &[CreatePaymentLink]) -> sqlx::Result<Vec<Self::Answer>> {
        let cart_ids: Vec<&str> = jobs.iter().map(|job| job.cart_id.as_str()).collect();
        let versions: Vec<i32> = jobs.iter().map(|job| job.version).collect();
        let mut begun = checkout::begin_free(conn, &cart_ids, &versions, self.livemode, self.clock.now()).await?;
        let mut take = |job: &CreatePaymentLink| {
            let place =
                begun.iter().position(|(link, _)| link.cart_id == job.cart_id && link.version == job.version)?;
            Some(begun.swap_remove(place))
        };
        Ok(jobs.iter().map(&mut take).collect())
    }
}

/// [`payment_links::open_free`], and [`payment_links::tell`] of what was opened.
#[derive(Debug)]
pub(crate) struct Open {
    clock: Clock,
}

impl Batch for Open {
    type Question = Opening;
    /// Whether it is open.
    type Answer = bool;
    const LANES: usize = 2;
    const MOST: usize = 50;
    const ENOUGH: usize = 8;

    async fn answer(&self, conn: &mut Connection, openings: &[Opening]) -> sqlx::Result<Vec<bool>> {
        let opened = payment_links::open_free(conn, openings, self.clock.now()).await?;
        if let Err(error) = payment_links::tell(conn, &opened).await {
            tracing::debug!(%error, "who waits for the links finds them by looking"); // they are made all the same
        }
        Ok(openings.iter().map(|opening| opened.contains(&opening.cart_id)).collect())
    }
}
