//! Clients: each submits one invocation until that is acknowledged, and waits for its end, at any
//! node.

use std::sync::Arc;
use std::time::Duration;

use invoker::{Invocation, Invoker, InvokerError, Receipt, Request, Select, Submission};
use model::InvocationId;
use tokio::sync::oneshot;

use crate::dice::Throw;
use crate::world::World;

/// After which an acknowledgement does not come any more.
const PATIENCE: Duration = Duration::from_secs(4);
/// Before another node is asked, at most.
const PAUSE_MAX: Duration = Duration::from_millis(400);
/// Longer than any simulation.
const LONG: Duration = Duration::from_secs(3600);

/// In which many clients begin.
const BURST: Duration = Duration::from_millis(500);

/// What all clients call.
pub(crate) const FUNCTION: &str = "app/f";

/// Does all that client `n` does.
pub(crate) async fn run(world: Arc<World>, n: u64) {
    let mut throw = world.dice.throw("client", &[n]);
    let begins = match throw.chance(600) {
        true => throw.time(world.plan.span),
        // The others come all at once.
        false => world.plan.span / 4 * (1 + throw.below(3) as u32) + throw.time(BURST),
    };
    tokio::time::sleep(begins).await;
    let id = submit(&world, n, &mut throw).await;
    wait(&world, id, &mut throw).await;
}

fn submission(n: u64, throw: &mut Throw) -> Submission {
    // Some are blobs.
    let bytes = if throw.chance(200) { 3000 } else { 30 };
    let mut body = vec![n as u8; bytes];
    body.extend(n.to_le_bytes());
    Submission {
        // A name of two parts is a function's.
        path: FUNCTION.parse().expect("a path"),
        select: Select::Live,
        request: Request::plain(body),
        idempotency_key: Some(format!("client {n}")),
        traceparent: None,
    }
}

async fn submit(world: &Arc<World>, n: u64, throw: &mut Throw) -> InvocationId {
    let submission = submission(n, throw);
    let mut heard: Option<InvocationId> = None;
    loop {
        let again = submission.clone();
        let node = throw.index(world.plan.nodes);
        let receipt = visit(world, node, async move |invoker: Invoker| {
            tokio::time::timeout(PATIENCE, invoker.submit(again)).await
        });
        if let Some(Ok(Ok(Receipt { id, .. }))) = receipt.await {
            world.witness.lock().accepted(world.post.now(), id, heard);
            // Now and then the acknowledgement does not reach the client, which asks again.
            let is_lost = throw.chance(50);
            heard = Some(id);
            if !is_lost {
                return id;
            }
        }
        tokio::time::sleep(throw.time(PAUSE_MAX)).await;
    }
}

async fn wait(world: &Arc<World>, id: InvocationId, throw: &mut Throw) {
    loop {
        let node = throw.index(world.plan.nodes);
        world.waits.lock().insert(id, (node, world.post.now()));
        let ended = visit(world, node, async move |invoker: Invoker| {
            let ended = invoker.wait(id, LONG).await?;
            let reply = match ended.state.is_final() {
                true => invoker.reply(id).await?,
                false => None,
            };
            Ok::<_, InvokerError>((ended, reply))
        });
        match ended.await {
            Some(Ok((ended, reply))) if ended.state.is_final() => {
                let now = world.post.now();
                let mut witness = world.witness.lock();
                match reply {
                    Some(reply) => witness.replied(now, id, &reply.body),
                    None => check_without(&mut witness, now, &ended),
                }
                world.waits.lock().remove(&id);
                return;
            }
            Some(Err(InvokerError::UnknownInvocation(id))) => {
                let what = format!("{id} was acknowledged and is not there");
                return world.witness.lock().broken(world.post.now(), what);
            }
            _ => tokio::time::sleep(throw.time(PAUSE_MAX)).await,
        }
    }
}

/// An invocation that has no reply has not run to an end.
fn check_without(witness: &mut crate::witness::Witness, now: Duration, ended: &Invocation) {
    if ended.state == invoker::InvocationState::Succeeded {
        witness.broken(now, format!("{} has succeeded without a reply", ended.id));
    }
}

/// Does something at a node; none where it is not up, or dies meanwhile.
async fn visit<F, R>(world: &World, node: usize, act: impl FnOnce(Invoker) -> F) -> Option<R>
where
    F: Future<Output = R> + Send + 'static,
    R: Send + 'static,
{
    let host = world.host(node)?;
    let act = act(host.invoker()?.clone());
    let (reply, answer) = oneshot::channel();
    // One that nobody waits for any more is no answer.
    host.spawn(async move { drop(reply.send(act.await)) });
    answer.await.ok()
}
