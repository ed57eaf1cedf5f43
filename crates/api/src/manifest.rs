//! The manifest `dunlin.toml`: an app and its functions, as their author writes them down.
//!
//! ```toml
//! app = "shop"
//!
//! [[function]]
//! name = "hello"
//! kind = "command"
//! artifact = "build/hello.wasm"
//! build = "make build/hello.wasm"
//! args = ["--verbose"]
//! env = { GREETING = "hello" }
//! limits = { deadline_ms = 1000 }
//! routes = ["/hello"]
//! allow = { state = [{ prefix = "seen/", access = "write" }], egress = ["example.com:443"] }
//! ```
//!
//! Any text may be given to [`Manifest::parse`]: it answers with a manifest that is valid in every
//! part, or with the problems found, each with its line. Nothing is read from disk here; paths
//! stay as they were written, relative to the manifest's folder.

use std::collections::{BTreeMap, BTreeSet};

use model::{AppName, FunctionName, Grants, Kind, Limits, Settings, StateGrant};
use toml::Spanned;

pub mod keys;
mod raw;
#[cfg(test)]
mod tests;

use keys::{Problem, Problems};

/// The manifest's file name.
pub const FILE_NAME: &str = "dunlin.toml";
/// Longest manifest that is read, in bytes.
pub const BYTES_MAX: usize = 1 << 20;
/// Most functions of one manifest.
pub const FUNCTIONS_MAX: usize = 256;
/// Most arguments, variables and routes of one function, each.
pub const ENTRIES_MAX: usize = 256;
/// Longest text value, in bytes.
pub const TEXT_BYTES_MAX: usize = 32 << 10;
/// Longest route, in bytes.
pub const ROUTE_BYTES_MAX: usize = 1024;

/// A valid manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The app that its functions belong to.
    pub app: AppName,
    /// Its functions, in the order they are written.
    pub functions: Vec<Function>,
}

/// One function of a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Its name within the app.
    pub name: FunctionName,
    /// Its kind; found from the artifact where it is not given.
    pub kind: Option<Kind>,
    /// Path of the Wasm file, relative to the manifest.
    pub artifact: String,
    /// Folder that the build command runs in, relative to the manifest; its own folder by default.
    pub source: Option<String>,
    /// Shell command that makes the artifact.
    pub build: Option<String>,
    /// Arguments, environment and limits.
    pub settings: Settings,
    /// Path prefixes that lead to the function beside `/APP/FUNCTION`.
    pub routes: Vec<String>,
    /// Paths of what the artifact, a runtime, loads before it is frozen, relative to the manifest.
    pub layers: Vec<String>,
    /// Files that every invocation begins with, of the app and then of its own.
    pub files: Vec<FileMount>,
}

/// Files of the author's, and where a function finds them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileMount {
    /// A file or folder, relative to the manifest; with `*`, `?` or `**`, all that fit.
    pub source: String,
    /// Where the function finds it; at the same path if it is not said.
    pub destination: Option<String>,
}

impl Manifest {
    /// Reads a manifest.
    pub fn parse(text: &str) -> Result<Self, Problems> {
        if text.len() > BYTES_MAX {
            let bytes = text.len();
            return Err(Problems::one(Problem::whole(format!(
                "a manifest of {bytes} bytes is too long: at most {BYTES_MAX}"
            ))));
        }
        let unknown = keys::unknown(text, raw::SHAPE)?;
        if !unknown.is_empty() {
            return Err(Problems::new(unknown));
        }
        let raw = toml::from_str::<raw::Manifest>(text)
            .map_err(|error| Problems::one(Problem::of_toml(text, &error)))?;
        Reader::new(text).manifest(raw)
    }

    /// The JSON Schema of a manifest, as it is published for editors.
    pub fn schema() -> serde_json::Value {
        let mut schema = schemars::schema_for!(raw::Manifest);
        schema.insert("title".into(), "dunlin.toml".into());
        schema.insert(
            "$id".into(),
            "https://github.com/dunlin/dunlin/docs/dunlin.schema.json".into(),
        );
        schema.to_value()
    }
}

/// Turns what was written into what it means, and collects what is wrong with it.
struct Reader<'a> {
    text: &'a str,
    problems: Vec<Problem>,
}

impl<'a> Reader<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            text,
            problems: Vec::new(),
        }
    }

    fn manifest(mut self, raw: raw::Manifest) -> Result<Manifest, Problems> {
        let app = self.name(&raw.app);
        if raw.function.len() > FUNCTIONS_MAX {
            let count = raw.function.len();
            self.whole(format!(
                "{count} functions are too many: at most {FUNCTIONS_MAX}"
            ));
        } else if raw.function.is_empty() {
            self.whole("it has no function: add a [[function]] table with name and artifact");
        }
        let shared = self.files(raw.files);
        let mut names = BTreeSet::new();
        let mut routes = BTreeSet::new();
        let mut functions = Vec::new();
        for function in raw.function.into_iter().take(FUNCTIONS_MAX) {
            let at = function.name.span().start;
            let Some(mut function) = self.function(function, &mut routes) else {
                continue;
            };
            function.files.splice(0..0, shared.iter().cloned());
            if !names.insert(function.name.clone()) {
                self.at(at, format!("function `{}` is written twice", function.name));
            }
            functions.push(function);
        }
        match app {
            Some(app) if self.problems.is_empty() => Ok(Manifest { app, functions }),
            _ => Err(Problems::new(self.problems)),
        }
    }

    fn function(&mut self, raw: raw::Function, routes: &mut BTreeSet<String>) -> Option<Function> {
        let at = raw.name.span().start;
        let name = self.name(&raw.name);
        let kind = raw.kind.map(Kind::from);
        let artifact = self.path("artifact", &raw.artifact);
        let source = raw
            .source
            .as_ref()
            .map(|source| self.path("source", source));
        let build = raw.build.map(|build| self.text("build", build));
        self.count(at, "args", raw.args.len());
        self.count(at, "env", raw.env.len());
        self.count(at, "routes", raw.routes.len());
        if raw.layers.len() > model::LAYERS_MAX {
            let most = model::LAYERS_MAX;
            self.at(
                at,
                format!("{} layers are too many: at most {most}", raw.layers.len()),
            );
        }
        if raw.near.len() > model::NEAR_MAX {
            let (count, most) = (raw.near.len(), model::NEAR_MAX);
            self.at(at, format!("`near` names {count} keys: at most {most}"));
        }
        let near = self.each_grant(raw.near);
        let layers = raw
            .layers
            .iter()
            .map(|layer| self.path("layers", layer))
            .collect();
        let args = raw.args.into_iter().take(ENTRIES_MAX);
        let args = args.map(|arg| self.text("an argument", arg)).collect();
        let env = self.env(raw.env);
        let limits = self.limits(raw.limits);
        let allow = self.grants(at, raw.allow);
        let files = self.files(raw.files);
        let mut kept = Vec::new();
        for route in raw.routes.into_iter().take(ENTRIES_MAX) {
            self.route(&route, routes);
            kept.push(route.into_inner());
        }
        Some(Function {
            name: name?,
            kind,
            artifact,
            source,
            build,
            settings: Settings {
                args,
                env,
                limits,
                allow,
                reuse: raw.reuse.into(),
                layers: Vec::new(),
                files: None,
                isolation: raw.isolation.into(),
                snapshot: raw.snapshot.into(),
                near,
            },
            routes: kept,
            layers,
            files,
        })
    }

    fn name<N: std::str::FromStr<Err = model::NameError>>(
        &mut self,
        raw: &Spanned<String>,
    ) -> Option<N> {
        match raw.get_ref().parse() {
            Ok(name) => Some(name),
            Err(error) => {
                self.at(raw.span().start, error.to_string());
                None
            }
        }
    }

    fn text(&mut self, what: &str, raw: Spanned<String>) -> String {
        let at = raw.span().start;
        let text = raw.into_inner();
        if text.contains('\0') {
            self.at(at, format!("{what} contains a zero byte"));
        }
        if text.len() > TEXT_BYTES_MAX {
            let bytes = text.len();
            self.at(
                at,
                format!("{what} of {bytes} bytes is too long: at most {TEXT_BYTES_MAX}"),
            );
        }
        text
    }

    fn path(&mut self, what: &str, raw: &Spanned<String>) -> String {
        if raw.get_ref().is_empty() {
            self.at(raw.span().start, format!("`{what}` is empty: write a path"));
        }
        self.text(&format!("`{what}`"), raw.clone())
    }

    fn env(&mut self, raw: BTreeMap<String, Spanned<String>>) -> BTreeMap<String, String> {
        let mut env = BTreeMap::new();
        for (key, value) in raw.into_iter().take(ENTRIES_MAX) {
            if key.is_empty() || key.len() > TEXT_BYTES_MAX || key.contains(['=', '\0']) {
                let key: String = key.chars().take(40).collect();
                self.at(
                    value.span().start,
                    format!("`{key}` cannot name a variable of the environment"),
                );
            }
            let value = self.text(&format!("the value of `{key:.40}`"), value);
            env.insert(key, value);
        }
        env
    }

    fn limits(&mut self, raw: Option<Spanned<raw::Limits>>) -> Limits {
        let Some(raw) = raw else {
            return Limits::default();
        };
        let at = raw.span().start;
        let limits = raw.into_inner().over(Limits::default());
        if let Err(error) = limits.check() {
            self.at(at, error.to_string());
        }
        limits
    }

    fn files(&mut self, raw: Vec<Spanned<raw::Files>>) -> Vec<FileMount> {
        let mut mounts = Vec::new();
        for files in raw {
            let at = files.span().start;
            let (source, destination) = match files.into_inner() {
                raw::Files::Same(source) => (source, None),
                raw::Files::Placed(placed) => (placed.source, Some(placed.destination)),
            };
            if mounts.len() >= ENTRIES_MAX {
                self.at(
                    at,
                    format!("`files` has too many entries: at most {ENTRIES_MAX}"),
                );
                break;
            }
            if let Err(why) = check_mount(&source, destination.as_deref()) {
                self.at(
                    at,
                    format!("`{source:.80}` cannot be among the files: {why}"),
                );
            }
            mounts.push(FileMount {
                source,
                destination,
            });
        }
        mounts
    }

    fn grants(&mut self, at: usize, raw: raw::Allow) -> Grants {
        let mut grants = Grants::default();
        for state in raw.state {
            grants.state.push(StateGrant {
                prefix: state.prefix.into_inner(),
                access: state.access.into(),
                durability: state.durability.into(),
            });
        }
        grants.call = self.each_grant(raw.call);
        grants.egress = self.each_grant(raw.egress);
        if let Err(error) = grants.check() {
            self.at(at, error.to_string());
        }
        grants
    }

    fn each_grant<G, E>(&mut self, raw: Vec<Spanned<String>>) -> Vec<G>
    where
        G: std::str::FromStr<Err = E>,
        E: std::fmt::Display,
    {
        let mut grants = Vec::new();
        for grant in raw {
            match grant.get_ref().parse::<G>() {
                Ok(grant) => grants.push(grant),
                Err(error) => self.at(grant.span().start, error.to_string()),
            }
        }
        grants
    }

    fn route(&mut self, raw: &Spanned<String>, seen: &mut BTreeSet<String>) {
        let at = raw.span().start;
        if let Err(why) = check_route(raw.get_ref()) {
            let shown: String = raw.get_ref().chars().take(40).collect();
            self.at(at, format!("`{shown}` is not a route: {why}"));
        } else if !seen.insert(raw.get_ref().clone()) {
            self.at(at, format!("route `{}` is written twice", raw.get_ref()));
        }
    }

    fn count(&mut self, at: usize, what: &str, count: usize) {
        if count > ENTRIES_MAX {
            self.at(
                at,
                format!("{count} entries of `{what}` are too many: at most {ENTRIES_MAX}"),
            );
        }
    }

    fn at(&mut self, offset: usize, message: impl Into<String>) {
        self.problems
            .push(Problem::at(self.text, offset, message.into()));
    }

    fn whole(&mut self, message: impl Into<String>) {
        self.problems.push(Problem::whole(message.into()));
    }
}

/// Whether files can be taken from `source` to `destination`.
fn check_mount(source: &str, destination: Option<&str>) -> Result<(), &'static str> {
    let texts = [Some(source), destination];
    if texts
        .into_iter()
        .flatten()
        .any(|text| text.is_empty() || text.contains('\0'))
    {
        return Err("write a path");
    }
    let leaves = |path: &str| path.split('/').any(|name| name == "..");
    if destination.is_some_and(leaves) {
        return Err("the destination must not contain `..`");
    }
    if destination.is_some() && source.contains(['*', '?']) {
        return Err("a pattern has no destination: name a folder");
    }
    if destination.is_none() && (source.starts_with('/') || leaves(source)) {
        return Err("it lies outside of the manifest's folder: say its `destination`");
    }
    Ok(())
}

/// Whether `route` is a path prefix that a gateway can match byte by byte.
fn check_route(route: &str) -> Result<(), &'static str> {
    if !route.starts_with('/') {
        return Err("it must start with `/`");
    }
    if route.len() > ROUTE_BYTES_MAX {
        return Err("it is too long");
    }
    if !route.bytes().all(|byte| byte.is_ascii_graphic()) || route.contains(['?', '#', '%', '\\']) {
        return Err("use visible ASCII without `?`, `#`, `%` and `\\`");
    }
    if route.split('/').any(|part| part == "." || part == "..") {
        return Err("it must not contain `.` or `..` as a part");
    }
    if route.contains("//") {
        return Err("it has an empty part");
    }
    Ok(())
}
