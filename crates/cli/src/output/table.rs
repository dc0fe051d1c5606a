//! Tables without borders: readable for people, and easy to split with `awk`.

use comfy_table::{ContentArrangement, Table, presets};

/// An empty table with these column names.
pub fn table<const N: usize>(columns: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic).set_header(columns);
    table
}
