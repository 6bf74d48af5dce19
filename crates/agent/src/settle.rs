//! What happens once starting is over.

use std::time::Duration;

use tokio::time::sleep;

/// How long the first configuration and the first requests take to have run their course.
const STARTED: Duration = Duration::from_secs(2);

/// Gives back the memory that only starting needed, once it is over: most of what runs beside a workload runs idle.
pub async fn settle() {
    sleep(STARTED).await;
    maille_net::release_startup_code();
}
