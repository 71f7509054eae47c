//! What is asked of carts by many requests at once; see `common::batches`.

use std::{collections::HashMap, sync::Arc};

use axum::body::Bytes;
use common::{
    batches::{Batch, Batches},
    cart_list::{self, CartPage, Cursor, NEAR, Start, Totals},
    cart_search::{self, EmailToFind},
    carts::{self, Cart, CartId, CartStatus},
    clock::Clock,
    db::{Connection, Database},
};
use serde::Serialize;

use crate::{
    body,
    pagination::{Page, Pagination},
};

/// The batches of the carts' routes.
#[derive(Debug)]
pub(crate) struct CartBatches {
    pub(crate) store: Batches<StoreCarts>,
    pub(crate) find: Batches<FindCarts>,
    pub(crate) list: Batches<ListCarts>,
    pub(crate) deep: Batches<DeepPages>,
    pub(crate) search: Batches<SearchCarts>,
}

impl CartBatches {
    /// Of those on `by_key`.
    pub(crate) const LANES: usize = StoreCarts::LANES + FindCarts::LANES + ListCarts::LANES + DeepPages::LANES;

    /// `by_key` is for what is found by an index; a search needs all of the planner, on `database`.
    pub(crate) fn start(by_key: &Database, database: &Database, clock: &Clock) -> Self {
        Self {
            store: Batches::start(StoreCarts, by_key.clone()),
            find: Batches::start(FindCarts { clock: clock.clone() }, by_key.clone()),
            list: Batches::start(ListCarts { clock: clock.clone() }, by_key.clone()),
            deep: Batches::start(DeepPages(ListCarts { clock: clock.clone() }), by_key.clone()),
            search: Batches::start(SearchCarts { clock: clock.clone() }, database.clone()),
        }
    }
}

/// Stores new carts: one commit for all of them.
#[derive(Debug)]
pub(crate) struct StoreCarts;

impl Batch for StoreCarts {
    type Question = Arc<Cart>;
    type Answer = ();
    /// More than one, so that a batch is made ready while another waits for the disk.
    const LANES: usize = 4;
    const MOST: usize = 100;
    const ENOUGH: usize = 16;

    async fn answer(&self, conn: &mut Connection, new: &[Arc<Cart>]) -> sqlx::Result<Vec<()>> {
        carts::insert(conn, new).await?;
        Ok(vec![(); new.len()])
    }
}

/// Finds carts by their ids.
#[derive(Debug)]
pub(crate) struct FindCarts {
    clock: Clock,
}

impl Batch for FindCarts {
    type Question = CartId;
    type Answer = Option<Arc<Cart>>;
    const LANES: usize = 2;
    const MOST: usize = 100;
    const ENOUGH: usize = 16;

    async fn answer(&self, conn: &mut Connection, ids: &[CartId]) -> sqlx::Result<Vec<Option<Arc<Cart>>>> {
        let texts: Vec<&str> = ids.iter().map(CartId::as_str).collect();
        let found = carts::find_many(conn, &texts, self.clock.now()).await?;
        let found: HashMap<String, Arc<Cart>> =
            found.into_iter().map(|cart| (cart.id.clone(), Arc::new(cart))).collect();
        Ok(texts.into_iter().map(|id| found.get(id).cloned()).collect())
    }
}

/// A page of the list that somebody asks for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct ListQuestion {
    pub(crate) status: Option<CartStatus>,
    pub(crate) page: Page,
    pub(crate) cursor: Option<Cursor>,
}

impl ListQuestion {
    pub(crate) fn is_deep(&self) -> bool {
        self.cursor.is_none() && self.page.offset() > NEAR
    }
}

/// Lists carts: the totals are read once for all, and the same page once for all who ask for it.
#[derive(Debug)]
pub(crate) struct ListCarts {
    clock: Clock,
}

impl Batch for ListCarts {
    type Question = ListQuestion;
    /// The whole body.
    type Answer = Bytes;
    const LANES: usize = 4;
    const MOST: usize = 16;
    const ENOUGH: usize = 8;

    async fn answer(&self, conn: &mut Connection, questions: &[ListQuestion]) -> sqlx::Result<Vec<Bytes>> {
        let totals = cart_list::totals(conn).await?;
        let mut bodies: HashMap<&ListQuestion, Bytes> = HashMap::new();
        for question in questions {
            if !bodies.contains_key(question) {
                bodies.insert(question, self.page(conn, question, &totals).await?);
            }
        }
        Ok(questions.iter().map(|question| bodies[question].clone()).collect())
    }
}

/// Pages by number that lie deep in the list may take a while each, where an
/// hour holds very many carts: they keep nobody else waiting.
#[derive(Debug)]
pub(crate) struct DeepPages(ListCarts);

impl Batch for DeepPages {
    type Question = ListQuestion;
    type Answer = Bytes;
    const LANES: usize = 4;
    const MOST: usize = 2;
    const ENOUGH: usize = 1;

    async fn answer(&self, conn: &mut Connection, questions: &[ListQuestion]) -> sqlx::Result<Vec<Bytes>> {
        self.0.answer(conn, questions).await
    }
}

/// A page of carts, newest first.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct CartList {
    carts: Vec<Cart>,
    pagination: Pagination,
}

impl ListCarts {
    async fn page(&self, conn: &mut Connection, question: &ListQuestion, totals: &Totals) -> sqlx::Result<Bytes> {
        let ListQuestion { status, page, cursor } = question;
        let total = totals.of(*status);
        let start = cursor.clone().map_or(Start::Offset(page.offset()), Start::After);
        let (carts, next) = if matches!(start, Start::Offset(offset) if offset >= total) {
            (Vec::new(), None) // past the end: nothing to look for
        } else {
            let found = cart_list::page(conn, *status, start, page.limit, self.clock.now()).await?;
            (found.carts, found.next)
        };
        Ok(render(*page, total, CartPage { carts, next }))
    }
}

fn render(page: Page, total: i64, found: CartPage) -> Bytes {
    let pagination = Pagination::new(page, total).with_cursor(found.next.map(|cursor| cursor.to_string()));
    body::render(&CartList { carts: found.carts, pagination })
}

/// A page of a shopper's carts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct SearchQuestion {
    pub(crate) email: EmailToFind,
    pub(crate) list: ListQuestion,
}

/// Searches look at all carts: few at a time, so that they leave Postgres to everything else.
#[derive(Debug)]
pub(crate) struct SearchCarts {
    clock: Clock,
}

impl Batch for SearchCarts {
    type Question = SearchQuestion;
    /// The whole body.
    type Answer = Bytes;
    const LANES: usize = 2;
    const MOST: usize = 4;
    const ENOUGH: usize = 1;

    async fn answer(&self, conn: &mut Connection, questions: &[SearchQuestion]) -> sqlx::Result<Vec<Bytes>> {
        let mut bodies: HashMap<&SearchQuestion, Bytes> = HashMap::new();
        for question in questions {
            if !bodies.contains_key(question) {
                let ListQuestion { status, page, cursor } = question.list.clone();
                let start = cursor.map_or(Start::Offset(page.offset()), Start::After);
                let now = self.clock.now();
                let found = cart_search::by_email(conn, &question.email, status, start, page.limit, now).await?;
                bodies.insert(question, render(page, found.total, found.page));
            }
        }
        Ok(questions.iter().map(|question| bodies[question].clone()).collect())
    }
}
