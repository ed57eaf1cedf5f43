//! `dunlin alias` and `dunlin rollback`: where names point.

use std::str::FromStr;

use api::v1;
use clap::{Args, Subcommand};
use client::Client;
use model::FunctionPath;

use super::short;
use crate::args::Node;
use crate::connect;
use crate::exit::{Exit, Failure, Outcome};
use crate::output::Output;
use crate::table::Table;

/// Arguments of `dunlin alias`.
#[derive(Debug, Args)]
pub struct Alias {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List the aliases of a function
    List {
        /// The function, as APP/FUNCTION
        path: FunctionPath,
        #[command(flatten)]
        node: Node,
    },
    /// Point an alias at one version, or at several with weights
    Set {
        /// The function, as APP/FUNCTION
        path: FunctionPath,
        /// The alias
        alias: String,
        /// A version, by the first digits of its digest, and its weight among them
        #[arg(required = true, value_name = "VERSION[=WEIGHT]")]
        targets: Vec<Target>,
        #[command(flatten)]
        node: Node,
    },
    /// Take an alias away
    Delete {
        /// The function, as APP/FUNCTION
        path: FunctionPath,
        /// The alias
        alias: String,
        #[command(flatten)]
        node: Node,
    },
}

/// A version and its share.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Target {
    version: String,
    weight: u32,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (version, weight) = match text.split_once('=') {
            Some((version, weight)) => {
                let weight = weight
                    .parse()
                    .ok()
                    .filter(|weight| (1..=WEIGHT_MAX).contains(weight));
                (
                    version,
                    weight.ok_or("a weight is a number from 1 to 1000000")?,
                )
            }
            None => (text, 1),
        };
        let digits = version.strip_prefix("sha256:").unwrap_or(version);
        let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if digits.len() < DIGITS_MIN || digits.len() > 64 || !digits.bytes().all(hex) {
            return Err(format!(
                "a version is named by {DIGITS_MIN} to 64 hexadecimal digits; see `dunlin versions`"
            ));
        }
        Ok(Self {
            version: digits.to_owned(),
            weight,
        })
    }
}

/// What a node accepts.
const WEIGHT_MAX: u32 = 1_000_000;
/// Fewer digits would too often mean several versions.
const DIGITS_MIN: usize = 4;

impl Alias {
    /// Lists, points or deletes.
    pub fn run(self, out: Output) -> Outcome {
        match self.action {
            Action::List { path, node } => list(&node, &path, out),
            Action::Set {
                path,
                alias,
                targets,
                node,
            } => set(&node, &path, &alias, &targets, out),
            Action::Delete { path, alias, node } => connect::with(&node, async |client| {
                client.delete_alias(&path, &alias).await?;
                out.say(&serde_json::json!({ "deleted": alias }), || {
                    format!("deleted alias `{alias}` of {path}")
                })
            }),
        }
    }
}

fn list(node: &Node, path: &FunctionPath, out: Output) -> Outcome {
    connect::with(node, async |client| {
        let function = client.function(path).await?;
        out.show(&function.aliases, || {
            let mut table = Table::new(&["ALIAS", "VERSION", ">SHARE"]);
            for alias in &function.aliases {
                for target in &alias.targets {
                    let share = share(alias, target);
                    table.row([alias.name.clone(), short(&target.version), share]);
                }
            }
            table
        })
    })
}

fn set(node: &Node, path: &FunctionPath, alias: &str, to: &[Target], out: Output) -> Outcome {
    connect::with(node, async |client| {
        let targets = resolve(&client, path, to).await?;
        let set = v1::AliasSet { targets };
        let alias = client.set_alias(path, alias, &set).await?;
        out.say(&alias, || pointed(path, &alias))
    })
}

/// Versions by their whole digests.
async fn resolve(
    client: &Client,
    path: &FunctionPath,
    targets: &[Target],
) -> Result<Vec<v1::Target>, Failure> {
    let known = client.versions(path).await?.versions;
    let mut resolved = Vec::new();
    for target in targets {
        let version = whole(known.iter().map(|version| version.digest.as_str()), target)?;
        resolved.push(v1::Target {
            version,
            weight: target.weight,
        });
    }
    Ok(resolved)
}

fn whole<'a>(known: impl Iterator<Item = &'a str>, target: &Target) -> Result<String, Failure> {
    let prefix = format!("sha256:{}", target.version);
    let mut found = known.filter(|digest| digest.starts_with(&prefix));
    let named = &target.version;
    let list = "`dunlin versions APP/FUNCTION` lists the versions";
    match (found.next(), found.next()) {
        (Some(version), None) => Ok(version.to_owned()),
        (None, _) => {
            Err(Failure::new(Exit::NotFound, format!("there is no version {named}")).next(list))
        }
        (Some(_), Some(_)) => Err(Failure::new(
            Exit::Refused,
            format!("several versions begin with {named}"),
        )
        .next(list)),
    }
}

fn pointed(path: &FunctionPath, alias: &v1::Alias) -> String {
    let shown =
        |target: &v1::Target| format!("{} ({})", short(&target.version), share(alias, target));
    let targets: Vec<_> = alias.targets.iter().map(shown).collect();
    format!("{} of {path} points at {}", alias.name, targets.join(", "))
}

/// How much of an alias's invocations go to `target`.
fn share(alias: &v1::Alias, target: &v1::Target) -> String {
    let sum: u64 = alias
        .targets
        .iter()
        .map(|target| u64::from(target.weight))
        .sum();
    let percent = f64::from(target.weight) * 100.0 / sum.max(1) as f64;
    // Whole shares are the usual ones, and read better without a fraction.
    match percent.fract() == 0.0 {
        true => format!("{percent:.0} %"),
        false => format!("{percent:.2} %"),
    }
}

/// Arguments of `dunlin rollback`.
#[derive(Debug, Args)]
pub struct Rollback {
    /// The function, as APP/FUNCTION
    path: FunctionPath,
    #[command(flatten)]
    node: Node,
}

impl Rollback {
    /// Points `live` back.
    pub fn run(self, out: Output) -> Outcome {
        connect::with(&self.node, async |client| {
            let rollback = v1::Rollback::default();
            let alias = client.rollback(&self.path, &rollback).await?;
            out.say(&alias, || pointed(&self.path, &alias))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_have_a_version_and_a_weight() {
        let target = |version: &str, weight| {
            Ok(Target {
                version: version.into(),
                weight,
            })
        };
        assert_eq!("abcd12".parse(), target("abcd12", 1));
        assert_eq!("sha256:abcd12=25".parse(), target("abcd12", 25));
        for text in [
            "",
            "abc",
            "ABCD",
            "abcd=0",
            "abcd=1000001",
            "abcd=x",
            "xyzw",
        ] {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
    }

    #[test]
    fn shares_are_parts_of_the_whole() {
        let target = |weight| v1::Target {
            version: String::new(),
            weight,
        };
        let alias = v1::Alias {
            name: "live".into(),
            targets: vec![target(1), target(3)],
        };
        assert_eq!(share(&alias, &alias.targets[0]), "25 %");
        let thirds = v1::Alias {
            name: "live".into(),
            targets: vec![target(1), target(2)],
        };
        assert_eq!(share(&thirds, &thirds.targets[1]), "66.67 %");
    }

    #[test]
    fn a_version_is_found_by_its_first_digits() {
        let known = ["sha256:abcd1", "sha256:abcd2", "sha256:ffff1"];
        let find = |digits: &str| {
            let target = Target {
                version: digits.into(),
                weight: 100,
            };
            whole(known.into_iter(), &target).map_err(|failure| failure.exit)
        };
        assert_eq!(find("ffff"), Ok("sha256:ffff1".into()));
        assert_eq!(find("abcd"), Err(Exit::Refused));
        assert_eq!(find("0000"), Err(Exit::NotFound));
    }
}
