//! What all requests share.

use crate::auth::Auth;
use crate::body::BodyBudget;
use crate::database::Database;
use crate::feed::Feeds;
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::registry::Registry;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// The state of the gateway. Nothing in it outlives a request or a stream: any number of gateways give the same answers.
pub struct Gateway {
    pub database: Arc<Database>,
    pub auth: Auth,
    pub limits: Limits,
    pub feeds: Feeds,
    pub registry: Registry,
    pub metrics: Metrics,
    pub bodies: BodyBudget,
    /// Streams end when it is cancelled.
    pub stopping: CancellationToken,
}

pub type Shared = Arc<Gateway>;
