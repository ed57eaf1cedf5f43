//! Calls that running invocations make: in the parent's stead, or spawned.
//!
//! A parent that waits for its child gives nothing to do to the place that it holds; so the child
//! runs in its stead: it takes no place, waits in no queue, and is not refused by a drain. A child
//! that is spawned runs beside its parent, and so has to find a place of its own; only while its
//! parent waits for it may it be let in without one (see [`Stead`](crate::Stead)).
//!
//! Invariant: on the guest runtime a child runs in its caller's task. Nothing is spawned for it and
//! no other thread is woken; a guest that holds its thread holds its caller's.

use std::sync::Arc;

use ::http::Request;
use bytes::Bytes;
use sandbox::{Body, Payload};
use tokio::runtime::Handle;

use crate::executor::{fits, not_placed, run_in_lane};
use crate::gate::{NoPlace, Place, Queueing, Standing};
use crate::lane::Lane;
use crate::pool::{Pool, Way};
use crate::running::Running;
use crate::stead::Heir;
use crate::{Executor, Finished, HttpReply, Job, Rejected};

/// A spawned child that is admitted, or waits for that. Dropping it leaves the queue.
pub struct Enqueued {
    executor: Executor,
    pool: Arc<Pool>,
    job: Job,
    entry: Entry,
}

enum Entry {
    Placed(Place),
    Queues(Queueing, Heir),
}

impl std::fmt::Debug for Enqueued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let queues = matches!(self.entry, Entry::Queues(..));
        f.debug_struct("Enqueued")
            .field("job", &self.job)
            .field("queues", &queues)
            .finish_non_exhaustive()
    }
}

impl Executor {
    /// Runs a command or reactor for a parent that waits for it. Dropping the future cancels the
    /// invocation.
    pub async fn invoke_nested(
        &self,
        job: Job,
        body: Bytes,
        args: Vec<String>,
        env: Vec<(String, String)>,
    ) -> Result<Finished, Rejected> {
        let bytes = fits(&job, &body)?;
        let pool = self.inner.pool(&job);
        let place = pool.seat.in_stead(None);
        let (running, way) = self.begin(pool, job, place, bytes).await?;
        Ok(self.run_here(running, way, body, args, env).await)
    }

    /// Runs an http component for a parent that waits for it; as [`Executor::invoke_http`].
    pub async fn invoke_http_nested(
        &self,
        job: Job,
        request: Request<Body>,
    ) -> Result<HttpReply, Rejected> {
        let pool = self.inner.pool(&job);
        let place = pool.seat.in_stead(None);
        let (running, way) = self.begin(pool, job, place, 0).await?;
        Ok(running.serve(way, request, self.is_here()).await)
    }

    /// Admits a spawned child, or lets it wait for that; it waits from now on. On a node that is
    /// stopping it is admitted in its parent's stead.
    pub fn enqueue(&self, job: Job, heir: Heir) -> Result<Enqueued, Rejected> {
        let pool = self.inner.pool(&job);
        let entry = match pool.seat.stand(pool.bound()) {
            Ok(Standing::Placed(place)) => Entry::Placed(place),
            Ok(Standing::Queues(queueing)) => Entry::Queues(queueing, heir),
            Err(NoPlace::Closed) => Entry::Placed(pool.seat.in_stead(None)),
            Err(no_place) => return Err(not_placed(&pool, no_place)),
        };
        Ok(Enqueued {
            executor: self.clone(),
            pool,
            job,
            entry,
        })
    }

    /// Whether this thread may be held by guests.
    fn is_here(&self) -> bool {
        let guests = self.inner.services.guests.id();
        Handle::try_current().is_ok_and(|here| here.id() == guests)
    }

    async fn run_here(
        &self,
        mut running: Running,
        way: Way,
        body: Bytes,
        args: Vec<String>,
        env: Vec<(String, String)>,
    ) -> Finished {
        if !self.is_here() {
            return run_in_lane(running, way, body, args, env).await;
        }
        if !way.cooperative {
            running.lane = Lane::Guest;
        }
        running.resets_here = true;
        running.run(Payload::Bytes { body, args, env }).await
    }
}

impl Enqueued {
    /// Runs a command or reactor once it is admitted. Dropping the future cancels the invocation.
    pub async fn invoke(
        self,
        body: Bytes,
        args: Vec<String>,
        env: Vec<(String, String)>,
    ) -> Result<Finished, Rejected> {
        let bytes = fits(&self.job, &body)?;
        let (executor, running, way) = self.begin(bytes).await?;
        Ok(executor.run_here(running, way, body, args, env).await)
    }

    /// Runs an http component once it is admitted; as [`Executor::invoke_http`].
    pub async fn invoke_http(self, request: Request<Body>) -> Result<HttpReply, Rejected> {
        let (executor, running, way) = self.begin(0).await?;
        let here = executor.is_here();
        Ok(running.serve(way, request, here).await)
    }

    /// Whether it has its place.
    pub fn is_placed(&self) -> bool {
        matches!(self.entry, Entry::Placed(_))
    }

    /// Waits until it is admitted. Dropping the future leaves the queue.
    pub async fn admitted(self) -> Result<Self, Rejected> {
        let (executor, pool, job, place) = self.place().await?;
        Ok(Self {
            executor,
            pool,
            job,
            entry: Entry::Placed(place),
        })
    }

    async fn place(self) -> Result<(Executor, Arc<Pool>, Job, Place), Rejected> {
        let pool = self.pool;
        let place = match self.entry {
            Entry::Placed(place) => place,
            Entry::Queues(queueing, mut heir) => {
                tokio::select! {
                    // A place of its own is the better one: the stead is left to others.
                    biased;
                    place = queueing.wait() => {
                        place.map_err(|no_place| not_placed(&pool, no_place))?
                    }
                    () = heir.let_in() => pool.seat.in_stead(Some(heir)),
                }
            }
        };
        Ok((self.executor, pool, self.job, place))
    }

    async fn begin(self, input_bytes: u64) -> Result<(Executor, Running, Way), Rejected> {
        let (executor, pool, job, place) = self.place().await?;
        let (running, way) = executor.begin(pool, job, place, input_bytes).await?;
        Ok((executor, running, way))
    }
}
