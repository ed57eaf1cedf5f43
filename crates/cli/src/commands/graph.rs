//! `dunlin graph`: which invocation called which, when, and what that took.

use std::collections::HashMap;
use std::fmt::Write as _;

use api::v1::{Graph as Calls, GraphNode, StartKind};
use clap::Args;
use model::InvocationId;

use super::short;
use crate::args::Node;
use crate::connect;
use crate::exit::Outcome;
use crate::output::{Output, note, print};
use crate::table::{Table, micros, printable};

/// Arguments of `dunlin graph`.
#[derive(Debug, Args)]
pub struct Graph {
    /// The id of an invocation that made calls, or of one that was called by it
    id: InvocationId,
    /// Print a graph in the DOT language, for Graphviz
    #[arg(long)]
    dot: bool,
    #[command(flatten)]
    node: Node,
}

impl Graph {
    /// Shows the tree of calls.
    pub fn run(self, out: Output) -> Outcome {
        connect::with(&self.node, async |client| {
            let calls = client.graph(self.id).await?;
            if self.dot {
                return print(&dot(&calls));
            }
            let exit = out.show(&calls, || table(&calls))?;
            if out.is_for_people() {
                if calls.left_out > 0 {
                    note(&format!("{} more calls are not shown", calls.left_out));
                }
                if calls.cost > 0.0 {
                    note(&format!("cost: {:.6} {}", calls.cost, calls.currency));
                }
            }
            Ok(exit)
        })
    }
}

/// The nodes from the root down, each with the lines that lead to it. A node whose parent is not
/// shown stands at the left.
fn in_order(calls: &Calls) -> Vec<(String, &GraphNode)> {
    let shown: HashMap<&str, &GraphNode> =
        calls.nodes.iter().map(|node| (&*node.id, node)).collect();
    let mut children: HashMap<&str, Vec<&GraphNode>> = HashMap::new();
    let mut tops = Vec::new();
    for node in &calls.nodes {
        match node.parent.as_deref().filter(|id| shown.contains_key(id)) {
            Some(parent) => children.entry(parent).or_default().push(node),
            None => tops.push(node),
        }
    }
    let mut ordered = Vec::with_capacity(calls.nodes.len());
    // A stack, as a node may tell of any depth.
    let mut stack: Vec<_> = tops.into_iter().rev().map(|top| (top, None)).collect();
    while let Some((node, place)) = stack.pop() {
        let (lead, below) = match place {
            None => (String::new(), String::new()),
            Some((above, true)) => (format!("{above}└─ "), format!("{above}   ")),
            Some((above, false)) => (format!("{above}├─ "), format!("{above}│  ")),
        };
        ordered.push((lead, node));
        // Taken out: so a node that tells of a circle does not keep this from its end.
        let children = children.remove(&*node.id).unwrap_or_default();
        let below_each = children.into_iter().rev().enumerate();
        stack.extend(below_each.map(|(at, child)| (child, Some((below.clone(), at == 0)))));
    }
    ordered
}

fn table(calls: &Calls) -> Table {
    let mut table = Table::new(&[
        "CALL", "START", ">OFFSET", ">WALL", ">CPU", "STATUS", "NODE", "ID",
    ]);
    let begun = calls.nodes.first().map_or(0, |root| root.begun_unix_us);
    for (lead, node) in in_order(calls) {
        let end = node.end.as_ref();
        let detached = if node.detached { " (detached)" } else { "" };
        table.row([
            format!("{lead}{}/{}{detached}", node.app, node.function),
            end.map_or("", start_of).to_owned(),
            micros(node.begun_unix_us.saturating_sub(begun)),
            end.map_or_else(String::new, |end| micros(end.wall_us)),
            end.map_or_else(String::new, |end| micros(end.usage.cpu_us)),
            end.map_or_else(|| "runs".to_owned(), |end| end.status.clone()),
            node.node.clone(),
            node.id.clone(),
        ]);
    }
    table
}

fn start_of(end: &api::v1::GraphEnd) -> &'static str {
    match end.start {
        Some(StartKind::Cold) => "cold",
        Some(StartKind::Restored) => "restored",
        Some(StartKind::Reused) => "reused",
        None => "",
    }
}

/// The graph in the DOT language: detached calls are dashed, failures are red.
fn dot(calls: &Calls) -> String {
    let mut text = String::from("digraph calls {\n  node [shape=box, fontname=\"sans-serif\"];\n");
    for node in &calls.nodes {
        let end = node.end.as_ref();
        let status = end.map_or("runs", |end| &*end.status);
        let times = end.map_or_else(String::new, |end| {
            let (wall, cpu) = (micros(end.wall_us), micros(end.usage.cpu_us));
            format!("\\n{} {wall}, CPU {cpu}", start_of(end))
        });
        let label = format!(
            "{}/{}@{}\\n{}{times}",
            quoted(&node.app),
            quoted(&node.function),
            quoted(&short(&node.version)),
            quoted(status),
        );
        let failed = !matches!(status, "ok" | "runs");
        let colour = if failed { ", color=red" } else { "" };
        let id = quoted(&node.id);
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  \"{id}\" [label=\"{label}\"{colour}];");
        if let Some(parent) = &node.parent {
            let style = if node.detached { " [style=dashed]" } else { "" };
            let _ = writeln!(text, "  \"{}\" -> \"{id}\"{style};", quoted(parent));
        }
    }
    text.push_str("}\n");
    text
}

/// The inside of a DOT string: the node's words cannot end it.
fn quoted(text: &str) -> String {
    printable(text).replace('\\', "\\\\").replace('"', "\\\"")
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::v1::{GraphEnd, UsageView};

    fn node(id: &str, parent: Option<&str>, offset_us: u64, status: Option<&str>) -> GraphNode {
        let end = status.map(|status| GraphEnd {
            status: status.into(),
            detail: String::new(),
            start: Some(StartKind::Restored),
            wall_us: 100,
            usage: UsageView {
                cpu_us: 10,
                wall_ms: 1,
                memory_peak_bytes: 0,
                gb_s: 0.0,
                input_bytes: 0,
                output_bytes: 0,
                log_bytes: 0,
            },
            cost: 0.0,
        });
        GraphNode {
            id: id.into(),
            parent: parent.map(Into::into),
            app: "a".into(),
            function: format!("f{id}"),
            version: "sha256:0123456789abcdef".into(),
            node: "n".into(),
            detached: false,
            begun_unix_us: 1000 + offset_us,
            end,
        }
    }

    fn calls() -> Calls {
        let mut detached = node("4", Some("2"), 40, None);
        detached.detached = true;
        Calls {
            root: "1".into(),
            nodes: vec![
                node("1", None, 0, Some("ok")),
                node("2", Some("1"), 20, Some("ok")),
                node("3", Some("1"), 30, Some("trap")),
                detached,
                node("5", Some("3"), 50, Some("ok")),
            ],
            left_out: 0,
            cost: 0.0,
            currency: String::new(),
        }
    }

    #[test]
    fn calls_are_drawn_as_a_tree() {
        let shown = table(&calls()).render(None, str::to_owned);
        let expected = "\
CALL                   START     OFFSET    WALL    CPU  STATUS  NODE  ID
a/f1                   restored    0 µs  100 µs  10 µs  ok      n     1
├─ a/f2                restored   20 µs  100 µs  10 µs  ok      n     2
│  └─ a/f4 (detached)             40 µs                 runs    n     4
└─ a/f3                restored   30 µs  100 µs  10 µs  trap    n     3
   └─ a/f5             restored   50 µs  100 µs  10 µs  ok      n     5
";
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_circle_ends_and_the_child_of_a_stranger_is_shown() {
        let mut circle = calls();
        circle.nodes[1].parent = Some("4".into());
        circle.nodes[4].parent = Some("nobody".into());
        let ids: Vec<&str> = in_order(&circle)
            .iter()
            .map(|(_, node)| &*node.id)
            .collect();
        assert_eq!(ids, ["1", "3", "5"]);
    }

    #[test]
    fn graphviz_gets_each_call_once_and_nothing_unquoted() {
        let mut calls = calls();
        calls.nodes[0].function = "f\"];\n\\".into();
        let text = dot(&calls);
        assert_eq!(text.matches(" -> ").count(), 4);
        assert!(text.contains("\"2\" -> \"4\" [style=dashed];"), "{text}");
        assert!(text.contains("color=red"), "{text}");
        assert!(text.contains("a/f\\\"]; \\\\@0123456789ab"), "{text}");
    }
}
