//! Storing, finding and listing carts for many requests at once; see `common::batch`.

use std::{collections::HashMap, sync::Arc, time::Duration};

use axum::body::Bytes;
use common::{
    analytics,
    batch::{Batch, Batcher},
    carts::{
        self, Cart, CartId, CartStatus, Source,
        list::{self, CartPage, Start},
    },
    clock::Clock,
    db::{Connection, Database},
};
use serde::Serialize;
use tokio::sync::Mutex;
use utoipa::ToSchema;

use crate::http::{
    body,
    pagination::{Page, Pagination},
};

/// The batches of the carts' routes.
#[derive(Debug)]
pub(crate) struct CartBatches {
    pub(crate) store: Batcher<StoreCarts>,
    pub(crate) find: Batcher<FindCarts>,
    pub(crate) list: Batcher<ListCarts>,
}

impl CartBatches {
    pub(crate) fn start(database: &Database, clock: &Clock) -> Self {
        Self {
            store: Batcher::start(StoreCarts, database.clone()),
            find: Batcher::start(FindCarts { clock: clock.clone() }, database.clone()),
            list: Batcher::start(ListCarts::new(clock, database), database.clone()),
        }
    }
}

/// Stores new carts: one commit for all that arrive together.
#[derive(Debug)]
pub(crate) struct StoreCarts;

impl Batch for StoreCarts {
    type Request = Arc<Cart>;
    type Response = ();
    /// One, so that carts wait for the batch in progress and share the next one.
    const CONCURRENCY: usize = 1;
    const MAX_BATCH: usize = 100;
    const TRANSACTION: Option<Duration> = None;

    async fn run(&self, conn: &mut Connection, new: &[Arc<Cart>]) -> sqlx::Result<Vec<()>> {
        carts::insert(conn, new, Source::Api).await?;
        Ok(vec![(); new.len()])
    }
}

/// Finds carts by their ids.
#[derive(Debug)]
pub(crate) struct FindCarts {
    clock: Clock,
}

impl Batch for FindCarts {
    type Request = CartId;
    type Response = Option<Arc<Cart>>;
    const CONCURRENCY: usize = 2;
    const MAX_BATCH: usize = 100;
    const TRANSACTION: Option<Duration> = None;

    async fn run(&self, conn: &mut Connection, ids: &[CartId]) -> sqlx::Result<Vec<Option<Arc<Cart>>>> {
        let texts: Vec<&str> = ids.iter().map(CartId::as_str).collect();
        let found = carts::find_many(conn, &texts, self.clock.now()).await?;
        let found: HashMap<String, Arc<Cart>> =
            found.into_iter().map(|cart| (cart.id.clone(), Arc::new(cart))).collect();
        Ok(texts.into_iter().map(|id| found.get(id).cloned()).collect())
    }
}

/// A requested page of the list.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct ListRequest {
    pub(crate) status: Option<CartStatus>,
    pub(crate) page: Page,
    pub(crate) start: Start,
}

/// Lists carts: reads the totals once for a batch, and each page once.
#[derive(Debug)]
pub(crate) struct ListCarts {
    clock: Clock,
    database: Database,
    /// Locked while the counts are being added up, and for a pause after it.
    adding_up: Arc<Mutex<()>>,
}

/// Adding up the counts is worth its cost from this number of deltas on. The worker adds them up
/// by its schedule, at a busy shop too seldom for lists to stay fast.
const MAX_DELTAS: i64 = 1_000;
/// While an old transaction is open, adding up changes nothing, however often it is tried.
const ADD_UP_PAUSE: Duration = Duration::from_secs(1);

impl ListCarts {
    fn new(clock: &Clock, database: &Database) -> Self {
        Self { clock: clock.clone(), database: database.clone(), adding_up: Arc::default() }
    }

    /// Adds up the counts in the background, unless that is in progress. If it fails, a later list or
    /// the worker does it.
    fn add_up(&self) {
        let Ok(in_progress) = self.adding_up.clone().try_lock_owned() else { return };
        let database = self.database.clone();
        tokio::spawn(async move {
            let add_up = async {
                let mut conn = database.acquire().await?;
                analytics::add_up(&mut conn).await?;
                conn.commit().await
            };
            if let Err(error) = add_up.await {
                tracing::debug!(%error, "could not add up the counts of carts");
            }
            tokio::time::sleep(ADD_UP_PAUSE).await;
            drop(in_progress);
        });
    }
}

impl Batch for ListCarts {
    type Request = ListRequest;
    /// The whole response body.
    type Response = Bytes;
    /// One, so that requests wait for the batch in progress and share the next one.
    const CONCURRENCY: usize = 1;
    const MAX_BATCH: usize = 16;
    const TRANSACTION: Option<Duration> = None;

    async fn run(&self, conn: &mut Connection, requests: &[ListRequest]) -> sqlx::Result<Vec<Bytes>> {
        let totals = list::totals(conn).await?;
        if totals.deltas > MAX_DELTAS {
            self.add_up();
        }
        let mut bodies: HashMap<&ListRequest, Bytes> = HashMap::new();
        for request in requests {
            if !bodies.contains_key(request) {
                let (status, page) = (request.status, request.page);
                let found = list::page(conn, status, request.start.clone(), page.limit, self.clock.now()).await?;
                bodies.insert(request, render(page, totals.of(status), found));
            }
        }
        Ok(requests.iter().map(|request| bodies[request].clone()).collect())
    }
}

/// A page of carts, newest first.
#[derive(Serialize, ToSchema)]
pub(crate) struct CartList {
    carts: Vec<Cart>,
    pagination: Pagination,
}

/// Renders the body of a page.
pub(crate) fn render(page: Page, total: i64, found: CartPage) -> Bytes {
    let pagination = Pagination::new(page, total).with_cursor(found.next.map(|cursor| cursor.to_string()));
    body::render(&CartList { carts: found.carts, pagination })
}
