//! Tables for people, and numbers that are names.

/// Rows of cells, one a line. All but the last cell of a row are as wide as their column.
pub fn aligned(rows: &[Vec<String>]) -> String {
    let width = |cell: &String| cell.chars().count();
    let mut widths = Vec::new();
    for row in rows {
        let cells = row.split_last().map_or(&[][..], |(_, cells)| cells);
        widths.resize(widths.len().max(cells.len()), 0);
        cells.iter().zip(&mut widths).for_each(|(cell, most)| *most = width(cell).max(*most));
    }
    let line = |row: &Vec<String>| {
        let mut line = String::new();
        for (index, cell) in row.iter().enumerate() {
            line += cell;
            if index + 1 < row.len() {
                line += &" ".repeat(widths[index] - width(cell) + 2);
            }
        }
        line + "\n"
    };
    rows.iter().map(line).collect()
}

/// Bytes as two digits each.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_cells_and_the_last_one_is_not() {
        let rows = [&["A", "B", "C"][..], &["äö", "1234", "x"], &["y", "a long reason"], &[]];
        let rows: Vec<Vec<_>> = rows.iter().map(|row| row.iter().map(ToString::to_string).collect()).collect();
        assert_eq!(aligned(&rows), "A   B     C\näö  1234  x\ny   a long reason\n\n");
    }
}
