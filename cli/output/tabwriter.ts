// Columns as Go's text/tabwriter lays them out with Docker's settings: a cell ends at a tab, a column is as wide as
// the widest cell of the lines around it that have that column, the last cell of a line is not padded. Pure.

const WIDTH_MIN = 10;
const PADDING = 3;

/** Lines with tabs between their cells, as lines with blanks. */
export function alignColumns(lines: readonly string[]): string[] {
  const rows = lines.map((line) => line.split('\t'));
  const widths = rows.map((): number[] => []);
  measure(rows, widths, 0, rows.length, 0);
  return rows.map((cells, row) =>
    cells
      .map((cell, column) => {
        const width = widths[row]?.[column];
        return width === undefined ? cell : cell + ' '.repeat(width - displayWidth(cell));
      })
      .join(''),
  );
}

/** Finds the blocks of lines from `start` to `end` that have a cell ended by a tab in `column`. */
function measure(rows: string[][], widths: number[][], start: number, end: number, column: number): void {
  for (let row = start; row < end; row++) {
    if (!hasColumn(rows[row], column)) continue;
    let blockEnd = row;
    let width = WIDTH_MIN;
    for (; blockEnd < end && hasColumn(rows[blockEnd], column); blockEnd++)
      width = Math.max(width, displayWidth(rows[blockEnd]?.[column] ?? '') + PADDING);
    for (let line = row; line < blockEnd; line++) (widths[line] as number[])[column] = width;
    measure(rows, widths, row, blockEnd, column + 1);
    row = blockEnd - 1;
  }
}

function hasColumn(cells: readonly string[] | undefined, column: number): boolean {
  return cells !== undefined && column < cells.length - 1;
}

/** Go counts code points. */
function displayWidth(text: string): number {
  return [...text].length;
}
