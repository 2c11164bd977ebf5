//! Charts as SVG.

use crate::entry::Entry;
use plotters::{coord::Shift, prelude::*};
use std::{error::Error, time::Duration};

type Drawing<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Draws into an SVG of this size; a chart that cannot be drawn is replaced by the error.
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

/// A colour, and its meaning.
type Key = (&'static str, RGBColor);

/// The ends of a bar, and its upper and lower edge in the band of its entry.
type Bar = ((f64, f64), (f64, f64));

/// p50, p95 and p99 of each scenario, on a logarithmic scale that begins at 1 ms.
pub(crate) fn latency(entries: &[Entry]) -> String {
    let keys = [
        ("p50", RGBColor(120, 170, 220)),
        ("p95", RGBColor(50, 110, 180)),
        ("p99", RGBColor(20, 50, 100)),
    ];
    let decades = |value: Duration| (value.as_secs_f64() * 1e3).log10().max(0.0);
    let name = |decade: &f64| match decade.round() as u32 {
        n if (decade - f64::from(n)).abs() > 0.01 => String::new(),
        n @ 0..=2 => format!("{} ms", 10_u32.pow(n)),
        n => format!("{} s", 10_u32.pow(n - 3)),
    };
    bars(entries, 4.6, &name, &keys, |Entry { seen, .. }, n| {
        let (top, thickness) = (0.1 + 0.27 * n as f64, 0.24);
        ((0.0, decades([seen.p50, seen.p95, seen.p99][n])), (top, top + thickness))
    })
}

/// The share of calls that took 1, 2, 3, and 4 or more attempts.
pub(crate) fn attempts(entries: &[Entry]) -> String {
    let keys = [
        ("1", RGBColor(140, 190, 140)),
        ("2", RGBColor(230, 200, 110)),
        ("3", RGBColor(230, 150, 80)),
        ("4 or more", RGBColor(200, 80, 70)),
    ];
    bars(entries, 100.0, &|percent| format!("{percent:.0} %"), &keys, |Entry { seen, .. }, n| {
        let up_to = |n: usize| {
            let counted: usize = seen.by_attempts.iter().take(n).sum();
            100.0 * counted as f64 / seen.calls.max(1) as f64
        };
        ((up_to(n), if n == 3 { 100.0 } else { up_to(n + 1) }), (0.15, 0.85))
    })
}

pub(crate) const GREEN: RGBColor = RGBColor(60, 150, 80);
pub(crate) const RED: RGBColor = RGBColor(200, 80, 70);

/// A line, by its name, its points and its colour.
pub(crate) type Line = (&'static str, Vec<(f64, f64)>, RGBColor);

/// Lines from 0 on, with what the axes are.
pub(crate) fn lines((x, y): (&str, &str), lines: &[Line]) -> String {
    let most = |of: fn(&(f64, f64)) -> f64| {
        lines.iter().flat_map(|(_, points, _)| points).map(of).fold(1.0, f64::max)
    };
    let (right, top) = (most(|point| point.0), most(|point| point.1) * 1.1);
    let drawing = svg((900, 300), |area| {
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(area)
            .margin(12)
            .x_label_area_size(40)
            .y_label_area_size(60)
            .build_cartesian_2d(0.0..right, 0.0..top)?;
        chart.configure_mesh().x_desc(x).y_desc(y).light_line_style(TRANSPARENT).draw()?;
        for (_, points, colour) in lines {
            let style = colour.stroke_width(3);
            chart.draw_series(LineSeries::new(points.iter().copied(), style))?;
        }
        Ok(())
    });
    let keys: Vec<Key> = lines.iter().map(|(name, _, colour)| (*name, *colour)).collect();
    format!("<figure><figcaption>{}</figcaption>{drawing}</figure>", legend(&keys))
}

fn legend(keys: &[Key]) -> String {
    keys.iter().fold(String::new(), |legend, (name, RGBColor(r, g, b))| {
        legend + &format!("<i style='background:rgb({r},{g},{b})'></i>{name} ")
    })
}

/// Horizontal bars, a band of height 1 for each entry, in the order of the table; and the legend.
fn bars(
    entries: &[Entry],
    most: f64,
    value_name: &dyn Fn(&f64) -> String,
    keys: &[Key],
    bar: impl Fn(&Entry, usize) -> Bar,
) -> String {
    let bands = entries.len() as f64;
    let entry_name = |band: &f64| {
        let entry = (band.fract() == 0.0).then(|| entries.get(*band as usize)).flatten();
        entry.map_or(String::new(), |entry| entry.name.to_owned())
    };
    let drawing = svg((900, 36 * entries.len() as u32 + 50), |area| {
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(area)
            .margin(12)
            .margin_right(30)
            .x_label_area_size(28)
            .y_label_area_size(220)
            .build_cartesian_2d(0.0..most, bands..0.0)?;
        chart
            .configure_mesh()
            .disable_y_mesh()
            .light_line_style(TRANSPARENT)
            .y_labels(entries.len() + 1)
            .y_label_formatter(&entry_name)
            .y_label_offset(18)
            .x_label_formatter(value_name)
            .draw()?;
        for (n, (_, colour)) in keys.iter().enumerate() {
            let rectangle = |(band, entry)| {
                let ((left, right), (top, bottom)) = bar(entry, n);
                let band = band as f64;
                Rectangle::new([(left, band + top), (right, band + bottom)], colour.filled())
            };
            chart.draw_series(entries.iter().enumerate().map(rectangle))?;
        }
        Ok(())
    });
    format!("<figcaption>{}</figcaption>{drawing}", legend(keys))
}
