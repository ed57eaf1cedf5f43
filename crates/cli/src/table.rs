//! Tables for people: aligned columns that fit the terminal.

use std::borrow::Cow;

/// Which side a column's text keeps to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// A table: a header and rows of as many cells.
#[derive(Clone, Debug)]
pub struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
}

/// Between two columns.
const GAP: &str = "  ";
/// A column is not cut below this, in cells.
const WIDTH_MIN: usize = 6;

impl Table {
    /// An empty table; a header that starts with `>` is of numbers.
    pub fn new(headers: &[&'static str]) -> Self {
        let column = |header: &&'static str| match header.strip_prefix('>') {
            Some(header) => (header, Align::Right),
            None => (*header, Align::Left),
        };
        Self {
            columns: headers.iter().map(column).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row. Missing cells are empty, and cells too many are left out.
    pub fn row(&mut self, cells: impl IntoIterator<Item = impl ToString>) {
        let mut row: Vec<String> = cells
            .into_iter()
            .take(self.columns.len())
            .map(|cell| printable(&cell.to_string()).into_owned())
            .collect();
        row.resize(self.columns.len(), String::new());
        self.rows.push(row);
    }

    /// The table as text, each line at most `width` cells where a width is given. Headers are
    /// dimmed by `style`.
    pub fn render(&self, width: Option<usize>, style: impl Fn(&str) -> String) -> String {
        let widths = self.widths(width);
        let header: Vec<&str> = self.columns.iter().map(|(header, _)| *header).collect();
        let mut text = style(&self.line(&header, &widths));
        text.push('\n');
        for row in &self.rows {
            let cells: Vec<&str> = row.iter().map(String::as_str).collect();
            text.push_str(&self.line(&cells, &widths));
            text.push('\n');
        }
        text
    }

    fn widths(&self, width: Option<usize>) -> Vec<usize> {
        let cell = |row: &Vec<String>, at: usize| console::measure_text_width(&row[at]);
        let widest = |(at, (header, _)): (usize, &(&str, Align))| {
            let rows = self.rows.iter().map(|row| cell(row, at));
            rows.max().unwrap_or(0).max(header.len())
        };
        let mut widths: Vec<usize> = self.columns.iter().enumerate().map(widest).collect();
        let Some(most) = width else {
            return widths;
        };
        let gaps = GAP.len() * widths.len().saturating_sub(1);
        // The widest column gives first, as that costs the reader least.
        while widths.iter().sum::<usize>() + gaps > most {
            match widths.iter_mut().max() {
                Some(widest) if *widest > WIDTH_MIN => *widest -= 1,
                _ => break,
            }
        }
        widths
    }

    fn line(&self, cells: &[&str], widths: &[usize]) -> String {
        let mut line = String::new();
        for (at, (cell, width)) in cells.iter().zip(widths).enumerate() {
            if at > 0 {
                line.push_str(GAP);
            }
            let cut = console::truncate_str(cell, *width, "…");
            let blank = " ".repeat(width.saturating_sub(console::measure_text_width(&cut)));
            match self.columns[at].1 {
                Align::Left => line.extend([cut.as_ref(), &blank]),
                Align::Right => line.extend([blank.as_str(), cut.as_ref()]),
            }
        }
        line.truncate(line.trim_end().len());
        line
    }
}

/// `text` without control characters: what a guest or a peer said must not steer the terminal.
pub fn printable(text: &str) -> Cow<'_, str> {
    if text.chars().any(char::is_control) {
        text.chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect::<String>()
            .into()
    } else {
        text.into()
    }
}

/// The same, keeping the ends of lines and tabs.
pub fn printable_lines(text: &str) -> String {
    let shown = |c: char| !c.is_control() || c == '\n' || c == '\t';
    text.chars()
        .map(|c| if shown(c) { c } else { ' ' })
        .collect()
}

/// Bytes with a binary unit, in three digits or so.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{count} B"),
        _ if value < 10.0 => format!("{value:.1} {}", UNITS[unit]),
        _ => format!("{value:.0} {}", UNITS[unit]),
    }
}

/// Microseconds as a duration that people read.
pub fn micros(us: u64) -> String {
    match us {
        0..1_000 => format!("{us} µs"),
        1_000..1_000_000 => format!("{:.1} ms", us as f64 / 1e3),
        _ => format!("{:.1} s", us as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(rows: &[&[&str]]) -> Table {
        let mut table = Table::new(&["NAME", ">COUNT"]);
        for row in rows {
            table.row(row.iter());
        }
        table
    }

    fn check(table: &Table, width: Option<usize>, expected: &str) {
        assert_eq!(table.render(width, str::to_owned), expected);
    }

    #[test]
    fn columns_are_aligned() {
        let table = table(&[&["a", "1"], &["longer", "1234567"]]);
        let expected = "NAME      COUNT\na             1\nlonger  1234567\n";
        check(&table, None, expected);
        check(&table, Some(80), expected);
    }

    #[test]
    fn the_widest_column_is_cut_to_fit() {
        let table = table(&[&["a-very-long-name-of-a-function", "1"]]);
        check(
            &table,
            Some(20),
            "NAME           COUNT\na-very-long-…      1\n",
        );
    }

    #[test]
    fn no_terminal_is_too_narrow() {
        let table = table(&[&["a-very-long-name", "123456789"]]);
        check(&table, Some(1), "NAME     COUNT\na-ver…  12345…\n");
    }

    #[test]
    fn rows_of_other_lengths_are_made_to_fit() {
        check(
            &table(&[&["a"], &["b", "2", "3"]]),
            None,
            "NAME  COUNT\na\nb         2\n",
        );
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        check(
            &table(&[&["a\u{1b}[2Jb\n", "1"]]),
            None,
            "NAME     COUNT\na [2Jb       1\n",
        );
    }

    #[test]
    fn amounts_have_units() {
        let shown = [0, 1023, 1024, 20 << 20, 3 << 30].map(bytes);
        assert_eq!(shown, ["0 B", "1023 B", "1.0 KiB", "20 MiB", "3.0 GiB"]);
        let shown = [7, 1_500, 2_500_000].map(micros);
        assert_eq!(shown, ["7 µs", "1.5 ms", "2.5 s"]);
    }
}
