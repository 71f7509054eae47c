//! Storing, finding and listing carts for many requests at once; see `common::batch`.

use std::{collections::HashMap, sync::Arc, time::Duration};

use axum::body::Bytes;
use common::{
    audit::KeyName,
    batch::{Batch, Batcher},
    carts::{
        self, Cart, CartId, CartStatus, Source,
        list::{self, CartPage, Start},
    },
    clock::Clock,
    db::{Connection, Database},
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    http::{
        body,
        pagination::{Page, Pagination},
    },
    upkeep::Upkeep,
};

/// The batches of the carts' routes.
#[derive(Debug)]
pub(crate) struct CartBatches {
    pub(crate) store: Batcher<StoreCarts>,
    pub(crate) find: Batcher<FindCarts>,
    pub(crate) list: Batcher<ListCarts>,
}

impl CartBatches {
    pub(crate) fn start(database: &Database, clock: &Clock, upkeep: &Upkeep) -> Self {
        Self {
            store: Batcher::start(StoreCarts, database.clone()),
            find: Batcher::start(FindCarts { clock: clock.clone() }, database.clone()),
            list: Batcher::start(
                ListCarts { database: database.clone(), clock: clock.clone(), upkeep: upkeep.clone() },
                database.clone(),
            ),
        }
    }
}

/// Stores new carts: one commit for all that arrive together.
#[derive(Debug)]
pub(crate) struct StoreCarts;

impl Batch for StoreCarts {
    /// The cart, and the name of its API key.
    type Request = (Arc<Cart>, KeyName);
    type Response = ();
    /// One, so that carts wait for the batch in progress and share the next one.
    const CONCURRENCY: usize = 1;
    const MAX_BATCH: usize = 100;
    const TRANSACTION: Option<Duration> = None;

    async fn run(&self, conn: &mut Connection, new: &[(Arc<Cart>, KeyName)]) -> sqlx::Result<Vec<()>> {
        let (carts, keys): (Vec<&Cart>, Vec<&str>) = new.iter().map(|(cart, key)| (&**cart, key.as_str())).unzip();
        carts::insert(conn, &carts, &keys, Source::Api).await?;
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

/// Lists carts: reads the totals once for a batch, and each page once, concurrently if a second connection is free.
#[derive(Debug)]
pub(crate) struct ListCarts {
    database: Database,
    clock: Clock,
    upkeep: Upkeep,
}

impl Batch for ListCarts {
    type Request = ListRequest;
    type Response = RenderedPage;
    /// One, so that requests wait for the batch in progress and share the next one.
    const CONCURRENCY: usize = 1;
    const MAX_BATCH: usize = 16;
    const TRANSACTION: Option<Duration> = None;

    async fn run(&self, conn: &mut Connection, requests: &[ListRequest]) -> sqlx::Result<Vec<RenderedPage>> {
        let (totals, pages) = match self.database.acquire_spare().await {
            Some(mut spare) => tokio::try_join!(list::totals(&mut spare), self.pages(conn, requests))?,
            None => (list::totals(conn).await?, self.pages(conn, requests).await?),
        };
        self.upkeep.counts_read(totals.deltas);
        let rendered: HashMap<&ListRequest, RenderedPage> = pages
            .into_iter()
            .map(|(request, found)| (request, render(request.page, totals.of(request.status), found)))
            .collect();
        Ok(requests.iter().map(|request| rendered[request].clone()).collect())
    }
}

impl ListCarts {
    /// Each page once.
    async fn pages<'r>(
        &self,
        conn: &mut Connection,
        requests: &'r [ListRequest],
    ) -> sqlx::Result<HashMap<&'r ListRequest, CartPage>> {
        let mut pages = HashMap::new();
        for request in requests {
            if !pages.contains_key(request) {
                let ListRequest { status, page, start } = request.clone();
                pages.insert(request, list::page(conn, status, start, page.limit, self.clock.now()).await?);
            }
        }
        Ok(pages)
    }
}

/// A page of carts, newest first.
#[derive(Serialize, ToSchema)]
pub(crate) struct CartList {
    carts: Vec<Cart>,
    pagination: Pagination,
}

/// A page as it is returned.
#[derive(Debug, Clone)]
pub(crate) struct RenderedPage {
    /// The whole response body.
    pub(crate) body: Bytes,
    /// The cursor of the next page; `None` on the last one.
    pub(crate) next: Option<String>,
}

/// Renders the body of a page.
pub(crate) fn render(page: Page, total: i64, found: CartPage) -> RenderedPage {
    let next = found.next.map(|cursor| cursor.to_string());
    let pagination = Pagination::new(page, total).with_cursor(next.clone());
    RenderedPage { body: body::render(&CartList { carts: found.carts, pagination }), next }
}
