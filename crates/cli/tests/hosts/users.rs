//! Users who call again and again while something happens, and what they see.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use super::cluster::{Cluster, NAMES};
use super::support::caller::{Caller, Reply};

/// Between two calls of one user: what is looked at is how calls fare, not how many there can be.
const PAUSE: Duration = Duration::from_millis(10);

/// Where a user calls, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum User {
    /// Waits for the reply.
    Calls(usize),
    /// Is content with the node's word that it will be seen to.
    Leaves(usize),
}

/// One call, as a user saw it.
#[derive(Debug)]
pub struct Seen {
    pub user: User,
    /// What had happened when it began: see [`Users::turn_page`].
    pub page: usize,
    pub body: String,
    /// An error where there was no answer at all.
    pub reply: io::Result<Reply>,
}

/// What all of them have seen so far.
#[derive(Default)]
pub struct Users {
    seen: Mutex<Vec<Seen>>,
    more: Condvar,
    page: AtomicUsize,
    is_over: AtomicBool,
    who: Vec<User>,
    /// How long each waits for an answer.
    patience: Duration,
}

/// Lets the users go home, also when the story fails.
struct Home<'a>(&'a Users);

impl Drop for Home<'_> {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::Relaxed);
    }
}

impl Users {
    /// Waits until every user has had so many more answers, or failures.
    pub fn more(&self, count: usize) {
        let of = |seen: &[Seen], user: &User| seen.iter().filter(|one| one.user == *user).count();
        let mut seen = self.seen.lock().unwrap();
        let before: Vec<_> = self.who.iter().map(|user| of(&seen, user)).collect();
        let done = |seen: &[Seen]| {
            let mut all = self.who.iter().zip(&before);
            all.all(|(user, before)| of(seen, user) >= before + count)
        };
        while !done(&seen) {
            seen = self.more.wait(seen).unwrap();
        }
    }

    /// Calls that begin from now on are on the next page.
    pub fn turn_page(&self) {
        self.page.fetch_add(1, Ordering::Relaxed);
    }

    fn call(&self, user: User, address: &str, token: &str) {
        let (node, prefer) = match user {
            User::Calls(node) => (node, ""),
            User::Leaves(node) => (node, "\r\nprefer: respond-async"),
        };
        let head = "POST /e2e/echo HTTP/1.1\r\nauthorization: Bearer";
        let head = format!("{head} {token}{prefer}");
        let mut kept: Option<Caller> = None;
        for number in 0.. {
            if self.is_over.load(Ordering::Relaxed) {
                return;
            }
            let page = self.page.load(Ordering::Relaxed);
            let body = format!("{}-{number}", NAMES[node]);
            let caller = match kept.take() {
                Some(caller) => Ok(caller),
                None => Caller::with_patience(address, self.patience),
            };
            let reply = caller.and_then(|mut caller| {
                let reply = caller.send(&head, &body)?;
                let closes = reply.headers.get("connection");
                kept = Some(caller).filter(|_| closes.is_none_or(|word| word != "close"));
                Ok(reply)
            });
            self.seen.lock().unwrap().push(Seen {
                user,
                page,
                body,
                reply,
            });
            self.more.notify_all();
            std::thread::sleep(PAUSE);
        }
    }
}

impl Seen {
    pub fn is_left(&self) -> bool {
        matches!(self.user, User::Leaves(_))
    }

    pub fn node(&self) -> usize {
        let (User::Calls(node) | User::Leaves(node)) = self.user;
        node
    }

    /// The reply was the right one, or the node accepted.
    pub fn is_good(&self) -> bool {
        let Ok(reply) = &self.reply else { return false };
        match self.is_left() {
            true => reply.status == 202,
            false => reply.status == 200 && reply.body == self.body,
        }
    }

    /// It was answered with this problem.
    pub fn is_problem(&self, status: u16, code: &str) -> bool {
        let reply = self.reply.as_ref();
        reply.is_ok_and(|reply| reply.status == status && reply.code() == code)
    }

    /// The node said nothing for as long as a user waits.
    pub fn is_hung(&self) -> bool {
        let waited = [io::ErrorKind::WouldBlock, io::ErrorKind::TimedOut];
        let error = self.reply.as_ref().err();
        error.is_some_and(|error| waited.contains(&error.kind()))
    }
}

impl Cluster {
    /// Lets users call while `story` happens; gives what they saw.
    pub fn with_users(&mut self, who: &[User], story: impl FnOnce(&mut Self, &Users)) -> Vec<Seen> {
        let users = Users {
            who: who.to_vec(),
            patience: self.patience(),
            ..Users::default()
        };
        let token = self.token.clone();
        let addresses: Vec<_> = self.nodes.iter().map(|node| node.address.clone()).collect();
        std::thread::scope(|scope| {
            let home = Home(&users);
            for user in who {
                let (User::Calls(node) | User::Leaves(node)) = user;
                let (users, token, address) = (&users, &token, &addresses[*node]);
                scope.spawn(move || users.call(*user, address, token));
            }
            story(self, &users);
            drop(home);
        });
        users.seen.into_inner().unwrap()
    }

    /// Everything that was accepted ended once, as it should: `tellers` are asked in turn.
    pub fn all_came_to_good(&self, seen: &[Seen], tellers: &[usize]) {
        let accepted = seen.iter().filter(|one| one.is_left() && one.is_good());
        let mut ids = Vec::new();
        for (one, teller) in accepted.zip(tellers.iter().cycle()) {
            let Ok(reply) = &one.reply else { continue };
            let id = reply.json()["id"].as_str().unwrap().to_owned();
            let ended = self.outcome(*teller, &id);
            assert_eq!(ended["state"], "succeeded", "{ended}");
            assert_eq!(self.result(*teller, &id), one.body, "{ended}");
            ids.push(id);
        }
        assert!(!ids.is_empty(), "nothing was accepted");
        let count = ids.len();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), count, "each call has an id of its own");
    }
}
