//! What was found, in one table.

use crate::{Name, Side, all};
use std::{collections::BTreeMap, fmt};

/// What was measured, by row; nothing is shown of what was not.
#[derive(Debug, Default)]
pub(crate) struct Table {
    pub(crate) instructions: BTreeMap<Name, f64>,
    pub(crate) cpu: BTreeMap<Name, f64>,
    pub(crate) allocations: BTreeMap<Name, f64>,
}

const HEAD: [&str; 7] = ["", "instructions", "+", "CPU, µs", "×", "allocs", "+"];

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for side in [Side::Client, Side::Server] {
            let head = match side {
                Side::Client => "client",
                Side::Server => "server",
            };
            line(f, head, HEAD[1..].iter().map(|head| (*head).to_owned()))?;
            writeln!(f, "|{}|{}", "-".repeat(42), format!("{}:|", "-".repeat(13)).repeat(6))?;
            let rows = all().filter(|row| row.0 == side).collect::<Vec<_>>();
            let base = rows[0];
            for row in rows {
                let measured = [&self.instructions, &self.cpu, &self.allocations];
                if measured.iter().any(|found| found.contains_key(&row)) {
                    line(f, row.1, self.cells(row, base))?;
                }
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

impl Table {
    fn cells(&self, row: Name, base: Name) -> impl Iterator<Item = String> {
        let pair = |found: &BTreeMap<Name, f64>| {
            let own = found.get(&row).copied();
            own.map(|own| (own, found.get(&base).copied().unwrap_or(f64::NAN)))
        };
        let instructions = pair(&self.instructions);
        let instructions =
            instructions.map(|(own, base)| [format!("{own:.0}"), format!("{:.0}", own - base)]);
        let cpu = pair(&self.cpu);
        let cpu = cpu.map(|(own, base)| [format!("{own:.2}"), format!("{:.3}", own / base)]);
        let allocations = pair(&self.allocations);
        let allocations =
            allocations.map(|(own, base)| [format!("{own:.1}"), format!("{:.1}", own - base)]);
        [instructions, cpu, allocations].into_iter().flat_map(Option::unwrap_or_default)
    }
}

fn line(
    f: &mut fmt::Formatter<'_>,
    name: &str,
    cells: impl Iterator<Item = String>,
) -> fmt::Result {
    write!(f, "| {name:<40} |")?;
    for cell in cells {
        write!(f, " {cell:>12} |")?;
    }
    writeln!(f)
}
