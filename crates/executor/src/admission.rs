//! Who may run now: places per function, app and node, and fair, bounded queues. Pure.
//!
//! ```text
//!             room at all three levels
//!   ask ─────────────────────────────────▶ running ──release──▶ gone
//!    └─ no room ─▶ waiting ──grant───────────▲
//!                     └─ abandon ─▶ gone
//! ```
//!
//! Invariants:
//! - No level ever has more running than it permits.
//! - Nobody waits who could run: each release and each abandonment grants all that fit. So an
//!   arrival that finds room overtakes nobody.
//! - Within a function the first to come is the first to run; functions of an app take turns, and
//!   so do apps, so that no long queue starves a short one.
//!
//! Every step is constant time but for a logarithm of the queue's length.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use model::{AppName, FunctionPath};

use crate::Scope;

/// How many may run and wait at one level.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bound {
    pub running_max: u32,
    pub queued_max: u32,
}

/// The answer to who asks for a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The place is theirs.
    Admitted,
    /// There is room to wait: see [`Admission::wait`].
    MayWait,
    /// There is no room to wait.
    Full(Scope),
    /// The node is draining.
    Closed,
}

/// Names a registered function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FunctionKey(usize);

/// Names one who waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Waiter(u64);

struct Waiting<W> {
    running_max: u32,
    wake: W,
}

struct Function<W> {
    path: FunctionPath,
    app: usize,
    uses: u32,
    running: u32,
    waiting: BTreeMap<Waiter, Waiting<W>>,
    /// Whether it stands in its app's ring.
    listed: bool,
}

struct App {
    name: AppName,
    functions: u32,
    running: u32,
    queued: u32,
    /// Functions whose turn may come.
    ring: VecDeque<usize>,
    /// Whether it stands in the node's ring.
    listed: bool,
}

/// The state of all places and queues of a node. `W` is what wakes one who waits.
pub(crate) struct Admission<W> {
    node: Bound,
    app: Bound,
    functions: Vec<Option<Function<W>>>,
    apps: Vec<Option<App>>,
    by_path: HashMap<FunctionPath, usize>,
    by_name: HashMap<AppName, usize>,
    ring: VecDeque<usize>,
    running: u32,
    queued: u32,
    waiters: u64,
    /// Sent away, and not yet told so.
    dismissed: HashSet<Waiter>,
    closed: bool,
}

fn keep<T>(slots: &mut Vec<Option<T>>, value: T) -> usize {
    if let Some(free) = slots.iter().position(Option::is_none) {
        slots[free] = Some(value);
        return free;
    }
    slots.push(Some(value));
    slots.len() - 1
}

impl<W> Function<W> {
    fn next_fits(&self) -> bool {
        let next = self.waiting.first_key_value();
        next.is_some_and(|(_, next)| self.running < next.running_max)
    }
}

impl<W> Admission<W> {
    pub(crate) fn new(node: Bound, app: Bound) -> Self {
        Self {
            node,
            app,
            functions: Vec::new(),
            apps: Vec::new(),
            by_path: HashMap::new(),
            by_name: HashMap::new(),
            ring: VecDeque::new(),
            running: 0,
            queued: 0,
            waiters: 0,
            dismissed: HashSet::new(),
            closed: false,
        }
    }

    /// Makes `path` known, once more; each needs its [`Admission::unregister`].
    pub(crate) fn register(&mut self, path: &FunctionPath) -> FunctionKey {
        if let Some(&index) = self.by_path.get(path) {
            self.function(index).uses += 1;
            return FunctionKey(index);
        }
        let app = self.register_app(&path.app);
        let function = Function {
            path: path.clone(),
            app,
            uses: 1,
            running: 0,
            waiting: BTreeMap::new(),
            listed: false,
        };
        let index = keep(&mut self.functions, function);
        self.by_path.insert(path.clone(), index);
        FunctionKey(index)
    }

    fn register_app(&mut self, name: &AppName) -> usize {
        if let Some(&index) = self.by_name.get(name) {
            self.app(index).functions += 1;
            return index;
        }
        let app = App {
            name: name.clone(),
            functions: 1,
            running: 0,
            queued: 0,
            ring: VecDeque::new(),
            listed: false,
        };
        let index = keep(&mut self.apps, app);
        self.by_name.insert(name.clone(), index);
        index
    }

    /// Undoes one [`Admission::register`]; with the last, nothing may run or wait any more.
    pub(crate) fn unregister(&mut self, key: FunctionKey) {
        let function = self.function(key.0);
        function.uses -= 1;
        if function.uses > 0 {
            return;
        }
        debug_assert!(function.running == 0 && function.waiting.is_empty());
        let app_index = function.app;
        if let Some(gone) = self.functions[key.0].take() {
            self.by_path.remove(&gone.path);
        }
        let app = self.app(app_index);
        app.ring.retain(|&index| index != key.0);
        app.functions -= 1;
        if app.functions > 0 {
            return;
        }
        if let Some(gone) = self.apps[app_index].take() {
            self.by_name.remove(&gone.name);
        }
        self.ring.retain(|&index| index != app_index);
    }

    /// Asks for a place for a call whose version has these bounds.
    pub(crate) fn ask(&mut self, key: FunctionKey, bound: Bound) -> Answer {
        if self.closed {
            return Answer::Closed;
        }
        let node_has_room = self.running < self.node.running_max;
        let (node, app_bound) = (self.node, self.app);
        let node_queued = self.queued;
        let app_index = self.function(key.0).app;
        let app = self.app(app_index);
        let (app_running, app_queued) = (app.running, app.queued);
        let function = self.function(key.0);
        if function.waiting.is_empty()
            && function.running < bound.running_max
            && app_running < app_bound.running_max
            && node_has_room
        {
            self.take_place(key.0);
            return Answer::Admitted;
        }
        if function.waiting.len() >= bound.queued_max as usize {
            return Answer::Full(Scope::Function);
        }
        if app_queued >= app_bound.queued_max {
            return Answer::Full(Scope::App);
        }
        if node_queued >= node.queued_max {
            return Answer::Full(Scope::Node);
        }
        Answer::MayWait
    }

    /// Takes a place in the queue, right after the answer [`Answer::MayWait`].
    pub(crate) fn wait(&mut self, key: FunctionKey, running_max: u32, wake: W) -> Waiter {
        self.waiters += 1;
        let waiter = Waiter(self.waiters);
        let function = self.function(key.0);
        let app = function.app;
        function
            .waiting
            .insert(waiter, Waiting { running_max, wake });
        self.app(app).queued += 1;
        self.queued += 1;
        self.list(key.0);
        waiter
    }

    /// Leaves the queue, or, if the place was granted meanwhile, gives it back; `granted` takes
    /// those who may run now. Who was sent away has nothing to give back.
    pub(crate) fn abandon(&mut self, key: FunctionKey, waiter: Waiter, granted: &mut Vec<W>) {
        let function = self.function(key.0);
        if function.waiting.remove(&waiter).is_none() {
            if !self.dismissed.remove(&waiter) {
                self.release(key, granted);
            }
            return;
        }
        let app = self.function(key.0).app;
        self.app(app).queued -= 1;
        self.queued -= 1;
        self.list(key.0);
        self.grant(granted);
    }

    /// Gives a place back; `granted` takes those who may run now.
    pub(crate) fn release(&mut self, key: FunctionKey, granted: &mut Vec<W>) {
        let function = self.function(key.0);
        function.running -= 1;
        let app = function.app;
        self.app(app).running -= 1;
        self.running -= 1;
        if self.queued > 0 {
            self.list(key.0);
            self.list_app(app);
            self.grant(granted);
        }
    }

    /// Admits nobody from now on; those who wait keep waiting.
    pub(crate) fn close(&mut self) {
        self.closed = true;
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Sends all who wait away. Each still has to [`Admission::abandon`] its wait.
    pub(crate) fn dismiss(&mut self) -> Vec<W> {
        let mut dismissed = Vec::new();
        for function in self.functions.iter_mut().flatten() {
            let waiting = std::mem::take(&mut function.waiting);
            for (waiter, waiting) in waiting {
                self.dismissed.insert(waiter);
                dismissed.push(waiting.wake);
            }
        }
        for app in self.apps.iter_mut().flatten() {
            app.queued = 0;
        }
        self.queued = 0;
        dismissed
    }

    pub(crate) fn running(&self) -> u32 {
        self.running
    }

    pub(crate) fn queued(&self) -> u32 {
        self.queued
    }

    /// How many of a function wait.
    pub(crate) fn queued_of(&self, key: FunctionKey) -> usize {
        let function = self.functions[key.0].as_ref();
        function.map_or(0, |function| function.waiting.len())
    }

    fn grant(&mut self, granted: &mut Vec<W>) {
        while self.running < self.node.running_max {
            let Some(app_index) = self.ring.pop_front() else {
                return;
            };
            let app_running_max = self.app.running_max;
            let app = self.app(app_index);
            app.listed = false;
            if app.running >= app_running_max {
                continue;
            }
            let Some((index, waiting)) = self.next_of(app_index) else {
                continue;
            };
            self.app(app_index).queued -= 1;
            self.queued -= 1;
            self.take_place(index);
            granted.push(waiting.wake);
            self.list(index);
            self.list_app(app_index);
        }
    }

    /// Takes the next to run out of an app's queues.
    fn next_of(&mut self, app_index: usize) -> Option<(usize, Waiting<W>)> {
        loop {
            let index = self.app(app_index).ring.pop_front()?;
            let function = self.function(index);
            function.listed = false;
            if function.next_fits() {
                let (_, waiting) = function.waiting.pop_first()?;
                return Some((index, waiting));
            }
        }
    }

    fn take_place(&mut self, index: usize) {
        let function = self.function(index);
        function.running += 1;
        let app = function.app;
        self.app(app).running += 1;
        self.running += 1;
    }

    /// Puts a function into its app's ring if its next fits, and the app into the node's.
    fn list(&mut self, index: usize) {
        let function = self.function(index);
        let app_index = function.app;
        if !function.listed && function.next_fits() {
            function.listed = true;
            self.app(app_index).ring.push_back(index);
        }
        self.list_app(app_index);
    }

    fn list_app(&mut self, index: usize) {
        let running_max = self.app.running_max;
        let app = self.app(index);
        if !app.listed && !app.ring.is_empty() && app.running < running_max {
            app.listed = true;
            self.ring.push_back(index);
        }
    }

    /// Keys come from `register` and die with their `unregister`, so a slot is never empty here.
    #[expect(
        clippy::expect_used,
        reason = "a key without its function is a bug of ours"
    )]
    fn function(&mut self, index: usize) -> &mut Function<W> {
        self.functions[index]
            .as_mut()
            .expect("registered functions have a slot")
    }

    #[expect(clippy::expect_used, reason = "an app lives as long as its functions")]
    fn app(&mut self, index: usize) -> &mut App {
        self.apps[index]
            .as_mut()
            .expect("registered apps have a slot")
    }
}

#[cfg(test)]
#[path = "admission_tests.rs"]
mod tests;
