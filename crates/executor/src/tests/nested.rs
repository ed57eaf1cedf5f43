//! Calls that a parent waits for.

use std::sync::OnceLock;

use ::http::Request;
use futures::future::BoxFuture;
use http_body_util::BodyExt;
use sandbox::host::{Arg, Errno, Host, HostCall, Mapper, Session};
use sandbox::{Branch, TreeLimits, Trunk, empty_body};

use super::*;

const TREE: TreeLimits = TreeLimits {
    calls_max: 100,
    depth_max: 10,
};

/// A host whose one call calls the guest's own function again, with one less than it was told.
#[derive(Default)]
struct Again(Arc<OnceLock<Executor>>);

struct Caller {
    executor: Executor,
    guest: sandbox::host::Guest,
}

fn here() -> Bytes {
    let name = std::thread::current().name().map(str::to_owned);
    name.unwrap_or_default().into()
}

impl Host for Again {
    fn table(&self) -> &'static [HostCall] {
        &[]
    }

    fn session(&self, guest: sandbox::host::Guest) -> Box<dyn Session> {
        let executor = self.0.get().expect("an executor").clone();
        Box::new(Caller { executor, guest })
    }
}

impl Caller {
    async fn again(&self, left: u32) -> Result<Finished, Errno> {
        let guest = &self.guest;
        let trunk = Trunk::new(guest.id, guest.branch.as_deref(), TREE);
        let branch = trunk.grow(guest.id, guest.deadline, guest.trace);
        let job = Job {
            id: InvocationId::new(2),
            path: guest.path.clone(),
            version: guest.spec.digest(),
            spec: guest.spec.clone(),
            log: Arc::new(NoLog),
            trace: guest.trace.child(),
            branch: Some(Arc::new(branch.map_err(|_| Errno::Exhausted)?)),
        };
        let body = Bytes::from(left.to_string());
        let called = self
            .executor
            .invoke_nested(job, body, Vec::new(), Vec::new());
        called.await.map_err(|_| Errno::Unavailable)
    }
}

impl Session for Caller {
    fn call<'a>(
        &'a mut self,
        _: usize,
        args: &'a mut [Arg<'_>],
        _: Option<&'a mut dyn Mapper>,
    ) -> BoxFuture<'a, Result<u64, Errno>> {
        Box::pin(async move {
            let [Arg::Bytes(body), Arg::Out(reply)] = args else {
                return Err(Errno::Invalid);
            };
            let text = std::str::from_utf8(body).map_err(|_| Errno::Invalid)?;
            let left: u32 = text.parse().map_err(|_| Errno::Invalid)?;
            let text = match left.checked_sub(1) {
                None => here(),
                Some(left) => {
                    let finished = self.again(left).await?;
                    let replied = finished.outcome.status.is_ok();
                    let reply = replied.then_some(finished.reply);
                    reply.ok_or(Errno::Failed)?
                }
            };
            reply.write(0, &text);
            Ok(text.len() as u64)
        })
    }
}

fn house_of_callers() -> House {
    let again = Again::default();
    let executor = again.0.clone();
    let house = house_with(Config {
        host: Arc::new(again),
        ..Config::default()
    });
    assert!(executor.set(house.executor.clone()).is_ok());
    house
}

fn alone() -> Limits {
    limits(|limits| {
        limits.concurrency_max = 1;
        limits.queue_max = 0;
    })
}

/// What was called by a root that may take so long.
fn branch(left: Duration) -> Option<Arc<Branch>> {
    let root = InvocationId::new(7);
    let trunk = Trunk::new(root, None, TREE);
    let trace = model::TraceParent::root(root);
    let grown = trunk.grow(root, Instant::now() + left, trace);
    Some(Arc::new(grown.expect("there is room")))
}

async fn nested(house: &House, job: Job) -> Result<Finished, Rejected> {
    let body = Bytes::from_static(b"x");
    let run = house.executor.invoke_nested(job, body, vec![], vec![]);
    run.await
}

#[tokio::test]
async fn a_function_of_one_place_waits_for_itself_many_times_over() {
    let house = house_of_callers();
    let job = house.job_with(&Guest::Ask, "a/f", alone());
    let finished = house.run(job, "5").await.expect("runs");
    assert_eq!(finished.outcome.status, Status::Ok);
    let reported = house.reported();
    assert_eq!(reported, vec![Status::Ok; 6]);
    assert_eq!(house.running(), 0);
}

#[tokio::test]
async fn a_tree_that_grows_too_deep_ends_with_an_error_at_each_level() {
    let house = house_of_callers();
    let job = house.job_with(&Guest::Ask, "a/f", alone());
    let finished = house.run(job, "50").await.expect("runs");
    let failed = |errno: Errno| Status::Exit { code: errno as i32 };
    assert_eq!(finished.outcome.status, failed(Errno::Failed));
    let mut expected = vec![failed(Errno::Failed); TREE.depth_max as usize + 1];
    expected[0] = failed(Errno::Exhausted);
    assert_eq!(house.reported(), expected);
}

#[tokio::test]
async fn a_child_runs_while_its_node_is_full_and_draining() {
    let house = house_with(Config {
        node_running_max: 1,
        node_queued_max: 0,
        ..Config::default()
    });
    let parent = house.start(house.job(&hold()));
    house.gate("g").came(1).await;
    let executor = house.executor.clone();
    let drain = tokio::spawn(async move { executor.drain(Duration::from_secs(600)).await });
    house
        .until(|| house.executor.inner.services.gate.is_closed())
        .await;
    let job = house.job_with(&Guest::Echo, "a/child", alone());
    let finished = nested(&house, job).await.expect("runs");
    assert_eq!(finished.reply, "x");
    assert!(!drain.is_finished());
    house.gate("g").open(1);
    assert!(parent.await.expect("joins").is_ok());
    assert_eq!(drain.await.expect("joins"), 0);
}

#[tokio::test]
async fn a_drain_waits_for_those_without_a_place() {
    let house = house();
    let job = house.job(&hold());
    let executor = house.executor.clone();
    let child = tokio::spawn(async move {
        executor
            .invoke_nested(job, Bytes::new(), vec![], vec![])
            .await
    });
    house.gate("g").came(1).await;
    assert_eq!(house.running(), 1);
    let executor = house.executor.clone();
    let drain = tokio::spawn(async move { executor.drain(Duration::from_secs(600)).await });
    house
        .until(|| house.executor.inner.services.gate.is_closed())
        .await;
    assert!(!drain.is_finished());
    house.gate("g").open(1);
    assert!(child.await.expect("joins").is_ok());
    assert_eq!(drain.await.expect("joins"), 0);
}

#[tokio::test]
async fn no_child_outlives_the_patience_of_those_who_wait_for_it() {
    let house = house();
    for guest in [hold(), Guest::Loop] {
        let mut job = house.job(&guest);
        job.branch = branch(Duration::from_millis(20));
        let finished = nested(&house, job).await.expect("runs");
        assert_eq!(finished.outcome.status, Status::Timeout);
    }
}

#[tokio::test]
async fn a_child_for_which_nobody_waits_any_longer_does_not_run() {
    let house = house();
    house.run(house.job(&Guest::Echo), "x").await.expect("runs");
    house.until(|| house.pool().idle == 1).await;
    let mut job = house.job(&Guest::Echo);
    job.branch = branch(Duration::ZERO);
    let finished = nested(&house, job).await.expect("ends");
    assert_eq!(finished.outcome.status, Status::Timeout);
    assert_eq!(house.reported(), [Status::Ok, Status::Timeout]);
    house.until(|| house.pool().idle == 1).await;
    assert_eq!(house.backend.counts().resets, 1, "its sandbox stayed fresh");
}

#[tokio::test]
async fn on_the_guest_runtime_a_child_runs_on_its_callers_thread() {
    let house = house_of_callers();
    let job = house.job_with(&Guest::Ask, "a/f", alone());
    let (executor, guests) = (
        house.executor.clone(),
        house.guests.as_ref().expect("lives"),
    );
    let (thread, reply) = guests
        .spawn(async move {
            // Polled once only: what would be spawned could not end by then.
            let body = Bytes::from_static(b"3");
            executor.inner.pool(&job).load().await.expect("loads");
            let run = executor.invoke_nested(job, body, vec![], vec![]);
            (here(), futures::FutureExt::now_or_never(run))
        })
        .await
        .expect("joins");
    let finished = reply.expect("it ends in one poll").expect("runs");
    assert_eq!(finished.reply, thread);
    assert_eq!(house.reported(), vec![Status::Ok; 4]);
}

#[tokio::test]
async fn off_the_guest_runtime_a_child_runs_in_its_lane() {
    let house = house_of_callers();
    let job = house.job_with(&Guest::Ask, "a/f", alone());
    let run = house
        .executor
        .invoke_nested(job, Bytes::from_static(b"0"), vec![], vec![]);
    let finished = run.await.expect("runs");
    assert_ne!(finished.reply, here());
}

#[tokio::test]
async fn children_end_with_a_parent_that_goes_away() {
    let house = house();
    let job = house.job(&hold());
    let executor = house.executor.clone();
    let guests = house.guests.as_ref().expect("lives");
    let child = guests.spawn(async move {
        executor
            .invoke_nested(job, Bytes::new(), vec![], vec![])
            .await
    });
    house.gate("g").came(1).await;
    child.abort();
    assert_eq!(house.reports(1).await, [Status::Cancelled]);
    house.until(|| house.running() == 0).await;
    house.until(|| house.pool().idle == 1).await;
}

#[tokio::test]
async fn an_http_child_runs_in_its_parents_stead() {
    let house = house_with(Config {
        node_running_max: 1,
        node_queued_max: 0,
        ..Config::default()
    });
    let parent = house.start(house.job(&hold()));
    house.gate("g").came(1).await;
    let job = house.job_with(&Guest::HttpEcho, "a/child", alone());
    let request = Request::builder().uri("http://host/");
    let request = request.body(sandbox::body_of("hello")).expect("a request");
    let reply = house.executor.invoke_http_nested(job, request).await;
    let reply = reply.expect("runs");
    let body = reply.head.expect("a response").into_body();
    assert_eq!(body.collect().await.expect("a body").to_bytes(), "hello");
    assert_eq!(reply.done.await.status, Status::Ok);
    house.gate("g").open(1);
    assert!(parent.await.expect("joins").is_ok());
    house.until(|| house.running() == 0).await;
}

#[tokio::test]
async fn an_http_child_ends_with_the_patience_of_those_who_wait_for_it() {
    let house = house();
    let mut job = house.job(&Guest::HttpHold("h".into()));
    job.branch = branch(Duration::from_millis(20));
    let request = Request::builder().uri("http://host/");
    let request = request.body(empty_body()).expect("a request");
    let reply = house.executor.invoke_http_nested(job, request).await;
    let reply = reply.expect("runs");
    assert_eq!(reply.done.await.status, Status::Timeout);
}
