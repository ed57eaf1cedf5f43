//! Jobs that are admitted first and given what they run with afterwards.
//!
//! Whoever could also run a job elsewhere asks for a place without joining a queue, and keeps the
//! job, whose body may not have been read yet, where there is none.

use std::sync::Arc;
use std::time::Duration;

use ::http::Request;
use bytes::Bytes;
use sandbox::Body;

use crate::executor::{admit, fits, run_in_lane};
use crate::gate::{NoPlace, Place};
use crate::pool::Pool;
use crate::{Executor, Finished, HttpReply, Job, Leftover, Rejected, Scope};

/// A job that has its place. Dropping it gives the place back.
pub struct Admitted {
    executor: Executor,
    pool: Arc<Pool>,
    job: Job,
    place: Place,
}

impl std::fmt::Debug for Admitted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admitted")
            .field("job", &self.job)
            .finish_non_exhaustive()
    }
}

/// What a call of a version is likely to take, by those that ran here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// Wall-clock time.
    pub time: Duration,
    /// Linear memory.
    pub memory_bytes: u64,
}

impl Executor {
    /// Admits a job that need not wait; gives it back, with the reason, where it would have to.
    pub fn admit_at_once(&self, job: Job) -> Result<Admitted, Box<(Job, Rejected)>> {
        let pool = self.inner.pool(&job);
        let no_place = match pool.seat.try_take(pool.bound()) {
            Some(Ok(place)) => {
                return Ok(Admitted {
                    executor: self.clone(),
                    pool,
                    job,
                    place,
                });
            }
            // Nothing was refused to anybody yet: no rejection is counted.
            None => Rejected::QueueFull {
                scope: Scope::Wait,
                retry_after: pool.retry_after(),
            },
            Some(Err(NoPlace::Closed)) => Rejected::Draining,
            Some(Err(NoPlace::Full(scope))) => Rejected::QueueFull {
                scope,
                retry_after: pool.retry_after(),
            },
        };
        Err(Box::new((job, no_place)))
    }

    /// Admits a job, after a wait in the queue if need be. Dropping the future leaves the queue.
    pub async fn admit(&self, job: Job) -> Result<Admitted, Rejected> {
        let pool = self.inner.pool(&job);
        let place = admit(&pool).await?;
        Ok(Admitted {
            executor: self.clone(),
            pool,
            job,
            place,
        })
    }

    /// What a call of the job's version is likely to take.
    pub fn expected(&self, job: &Job) -> Expected {
        let view = self.inner.pool(job).view();
        Expected {
            time: view.service_time,
            memory_bytes: view.memory_peak_bytes,
        }
    }

    /// Invocations that run on this node, and that wait.
    pub fn occupied(&self) -> (u32, u32) {
        let gate = &self.inner.services.gate;
        (gate.running(), gate.queued())
    }

    /// Invocations that may run on this node at once, and that may wait.
    pub fn places(&self) -> (u32, u32) {
        let config = &self.inner.services.config;
        (config.node_running_max, config.node_queued_max)
    }
}

impl Admitted {
    /// Runs a command or reactor to its end. Dropping the future cancels the invocation.
    pub async fn invoke(
        self,
        body: Bytes,
        args: Vec<String>,
        env: Vec<(String, String)>,
    ) -> Result<Finished, Rejected> {
        self.invoke_to(None, body, args, env).await
    }

    /// As [`Self::invoke`], for one who hands the reply to another task: the sandbox may be left
    /// to `leftover`, to be reset after that.
    pub async fn invoke_to(
        self,
        leftover: Option<Arc<Leftover>>,
        body: Bytes,
        args: Vec<String>,
        env: Vec<(String, String)>,
    ) -> Result<Finished, Rejected> {
        let bytes = fits(&self.job, &body)?;
        let begun = self.executor.begin(self.pool, self.job, self.place, bytes);
        let (mut running, way) = begun.await?;
        running.leftover = leftover;
        Ok(run_in_lane(running, way, body, args, env).await)
    }

    /// Runs an http component until its response begins; as [`Executor::invoke_http`].
    pub async fn invoke_http(self, request: Request<Body>) -> Result<HttpReply, Rejected> {
        let begun = self.executor.begin(self.pool, self.job, self.place, 0);
        let (running, way) = begun.await?;
        Ok(running.serve(way, request, false).await)
    }
}
