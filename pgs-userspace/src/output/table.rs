//! Rows in columns as wide as their widest cell.

use crate::output::sanitised_line;

/// Rows under a heading, all with the same number of cells.
#[derive(Debug, Clone)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table with these column names.
    pub fn new(heading: &[&str]) -> Self {
        Self {
            rows: vec![heading.iter().map(|name| (*name).to_owned()).collect()],
        }
    }

    /// One more row. Text from outside is made harmless here.
    pub fn row<const CELLS: usize>(&mut self, cells: [&str; CELLS]) {
        self.rows
            .push(cells.iter().map(|cell| sanitised_line(cell)).collect());
    }

    /// Whether there is nothing but the heading.
    pub fn is_empty(&self) -> bool {
        self.rows.len() == 1
    }

    /// The lines, without an end of line at the end.
    pub fn render(&self) -> String {
        let columns = self.rows.first().map_or(0, Vec::len);
        let width = |column: usize| {
            self.rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell| length(cell))
                .max()
        };
        let widths: Vec<_> = (0..columns)
            .map(|column| width(column).unwrap_or(0))
            .collect();
        let lines: Vec<_> = self
            .rows
            .iter()
            .map(|row| render_row(row, &widths))
            .collect();
        lines.join("\n")
    }
}

fn render_row(row: &[String], widths: &[usize]) -> String {
    let mut line = String::new();
    for (cell, width) in row.iter().zip(widths) {
        line.push_str(cell);
        line.extend(std::iter::repeat_n(
            ' ',
            width.saturating_sub(length(cell)) + 2,
        ));
    }
    line.truncate(line.trim_end().len());
    line
}

fn length(cell: &str) -> usize {
    cell.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_nothing_trails() {
        let mut table = Table::new(&["A", "LONG"]);
        assert!(table.is_empty());
        table.row(["wide cell", "x"]);
        table.row(["é\n", ""]);
        assert_eq!(table.render(), "A          LONG\nwide cell  x\né\\n");
    }
}
