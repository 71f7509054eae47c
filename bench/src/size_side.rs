//! One of the two databases that `size` compares, and the requests to both.

use crate::drain::Queue;

pub(crate) const SMALL: &str = "small";

/// Carts per import.
pub(crate) const IMPORTED: u32 = 40_000;

pub(crate) const LIST: &str = "/api/carts?status=abandoned&limit=10";

pub(crate) const ANALYTICS: &str = "/api/analytics?period=90d";

/// One of the databases.
pub(crate) struct Side {
    pub(crate) database: &'static str,
    pub(crate) queue: Queue,
}
