//! Charts as SVG.

use crate::report::Entry;
use plotters::{coord::Shift, prelude::*};
use std::error::Error;

type Drawing<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Draws into an SVG of this size; a chart that cannot be drawn says so in its place.
pub(crate) fn svg(
    size: (u32, u32),
    draw: impl FnOnce(&Drawing<'_>) -> Result<(), Box<dyn Error>>,
) -> String {
    let mut svg = String::new();
    let drawn = {
        let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        draw(&area).and_then(|()| Ok(area.present()?)).map_err(|error| error.to_string())
    };
    // `with_string` gives width and height, by which the page could not scale it.
    let (width, height) = size;
    let fixed = format!("width=\"{width}\" height=\"{height}\" viewBox");
    drawn.map_or_else(|error| format!("<p>{error}"), |()| svg.replacen(&fixed, "viewBox", 1))
}

/// p50, p95 and p99 of each scenario, in seconds.
pub(crate) fn latency(entries: &[Entry]) -> String {
    let quantiles = [
        ("p50", RGBColor(120, 170, 220)),
        ("p95", RGBColor(50, 110, 180)),
        ("p99", RGBColor(20, 50, 100)),
    ];
    let value =
        |entry: &Entry, n: usize| [entry.seen.p50, entry.seen.p95, entry.seen.p99][n].as_secs_f64();
    let most = entries.iter().map(|entry| value(entry, 2)).fold(1.0, f64::max);
    bars(entries, "s", most, &quantiles, |entry, n| {
        let thickness = 0.8 / 3.0;
        let top = 0.1 + thickness * n as f64;
        ((0.0, top), (value(entry, n), top + thickness * 0.9))
    })
}

/// The share of calls that took 1, 2, 3, and 4 or more attempts.
pub(crate) fn attempts(entries: &[Entry]) -> String {
    let counts = [
        ("1", RGBColor(140, 190, 140)),
        ("2", RGBColor(230, 200, 110)),
        ("3", RGBColor(230, 150, 80)),
        ("4 or more", RGBColor(200, 80, 70)),
    ];
    bars(entries, "% of calls", 100.0, &counts, |entry, n| {
        let share = |n: usize| {
            let counted: usize = entry.seen.by_attempts.iter().take(n).sum();
            100.0 * counted as f64 / entry.seen.calls.max(1) as f64
        };
        let end = if n == 3 { 100.0 } else { share(n + 1) };
        ((share(n), 0.15), (end, 0.85))
    })
}

type Corners = ((f64, f64), (f64, f64));

/// Horizontal bars, a band of height 1 for each entry, in the order of the table.
fn bars(
    entries: &[Entry],
    unit: &str,
    most: f64,
    series: &[(&str, RGBColor)],
    corners: impl Fn(&Entry, usize) -> Corners,
) -> String {
    let bands = entries.len() as f64;
    svg((900, 40 * entries.len() as u32 + 90), |area| {
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(area)
            .margin(12)
            .x_label_area_size(36)
            .y_label_area_size(220)
            .build_cartesian_2d(0.0..most * 1.02, bands..0.0)?;
        let name = |band: &f64| {
            let entry = (band.fract() == 0.0).then(|| entries.get(*band as usize)).flatten();
            entry.map_or(String::new(), |entry| entry.name.to_owned())
        };
        chart
            .configure_mesh()
            .disable_y_mesh()
            .y_labels(entries.len() + 1)
            .y_label_formatter(&name)
            .y_label_offset(20)
            .x_desc(unit)
            .draw()?;
        for (n, (label, colour)) in series.iter().enumerate() {
            let colour = *colour;
            let rectangles = entries.iter().enumerate().map(|(band, entry)| {
                let ((left, top), (right, bottom)) = corners(entry, n);
                let band = band as f64;
                Rectangle::new([(left, band + top), (right, band + bottom)], colour.filled())
            });
            chart.draw_series(rectangles)?.label(*label).legend(move |(x, y)| {
                Rectangle::new([(x, y - 5), (x + 12, y + 5)], colour.filled())
            });
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::LowerRight)
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK.mix(0.2))
            .draw()?;
        Ok(())
    })
}
