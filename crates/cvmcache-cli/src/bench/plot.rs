//! The results as a plot: for each workload a row, with latencies to the left and throughput to the
//! right, and for each candidate a colour.

use std::error::Error as StdError;
use std::io;
use std::ops::Range;

use plotters::coord::Shift;
use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::compare::LIMIT;
use super::measure::Latencies;
use super::report::rate;
use super::results::{Report, Result as Measured, Results};
use crate::output::{FileError, ResultFile};

/// Distinguishable with red-green colour blindness, too.
const COLORS: [RGBColor; 2] = [RGBColor(0, 114, 178), RGBColor(213, 94, 0)];

/// Grey, as the raw socket is no plugin.
const LIMIT_COLOR: RGBColor = RGBColor(120, 120, 120);

/// All in pixels.
const WIDTH: u32 = 900;
const LATENCY_WIDTH: i32 = 520;
const HEAD_HEIGHT: u32 = 64;
const ROW_HEIGHT: u32 = 210;

/// Where the axis of percentiles ends: at 99.999 %, five nines.
const NINES: f64 = 5.0;

const FONT: &str = "sans-serif";

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = std::result::Result<(), Box<dyn StdError>>;

/// Writes the picture of a report to a file.
pub(super) fn draw(file: ResultFile<'_>, report: &Report) -> Result<(), FileError> {
    let mut picture = String::new();
    let drawn = picture_of(report, &mut picture);
    file.write(drawn.map(|()| picture).map_err(|error| io::Error::other(error.to_string())))
}

fn picture_of(report: &Report, picture: &mut String) -> Drawn {
    let rows = report.workloads.len();
    let height = HEAD_HEIGHT + ROW_HEIGHT * rows as u32;
    let root = SVGBackend::with_string(picture, (WIDTH, height)).into_drawing_area();
    root.fill(&WHITE)?;
    let (head, body) = root.split_vertically(HEAD_HEIGHT);
    if let Some(first) = report.workloads.first() {
        legend(&head, first)?;
    }
    for (row, results) in body.split_evenly((rows.max(1), 1)).iter().zip(&report.workloads) {
        let (left, right) = row.split_horizontally(LATENCY_WIDTH);
        latencies(&left, results)?;
        throughput(&right, results)?;
    }
    root.present()?;
    Ok(())
}

/// Each candidate with its colour.
fn colored(results: &Results) -> impl Iterator<Item = (&Measured, RGBColor)> {
    let color = |result: &Measured, n: usize| match result.candidate == LIMIT {
        true => LIMIT_COLOR,
        false => COLORS[n % COLORS.len()],
    };
    results.results.iter().enumerate().map(move |(n, result)| (result, color(result, n)))
}

/// Draws the legend: the colour of each candidate.
fn legend(area: &Area<'_>, results: &Results) -> Drawn {
    let style = (FONT, 17).into_font().color(&BLACK);
    area.draw(&Text::new("Latency at each percentile", (20, 38), style.clone()))?;
    area.draw(&Text::new("Throughput", (LATENCY_WIDTH + 20, 38), style))?;
    let style = (FONT, 14).into_font().color(&BLACK);
    let mut x = 20;
    for (result, color) in colored(results) {
        area.draw(&Rectangle::new([(x, 10), (x + 14, 24)], color.filled()))?;
        area.draw(&Text::new(result.candidate.clone(), (x + 20, 10), style.clone()))?;
        // There are no metrics of the font that will be used; this is wide enough for most.
        x += 50 + 8 * result.candidate.chars().count() as i32;
    }
    Ok(())
}

fn latencies(area: &Area<'_>, results: &Results) -> Drawn {
    let drawn = |result: &&Measured| !result.latencies.is_empty();
    let least = results.results.iter().filter(drawn).map(|r| r.latencies.min()).min();
    let most = results.results.iter().filter(drawn).map(|r| r.latencies.max()).max();
    let decade = |latency: Option<u64>| (latency.unwrap_or(1).max(1) as f64).log10();
    let (low, high) = (decade(least).floor(), decade(most).ceil());
    let high = high.max(low + 1.0);
    let decades = (0..=20).map(f64::from).filter(|d| (low..=high).contains(d)).collect();
    let latency = Axis { range: low..high, ticks: decades, label: power };
    // The median is at 0.3, as 90 % are at 1.
    let ticks = vec![2f64.log10(), 1.0, 2.0, 3.0, 4.0, NINES];
    let mut chart = ChartBuilder::on(area)
        .caption(results.workload.name(), (FONT, 16))
        .margin_right(24)
        .x_label_area_size(28)
        .y_label_area_size(64)
        .build_cartesian_2d(Axis { range: 0.0..NINES, ticks, label: percent }, latency)?;
    let mut mesh = chart.configure_mesh();
    mesh.light_line_style(TRANSPARENT).label_style((FONT, 12)).draw()?;
    for (result, color) in colored(results).filter(|(result, _)| drawn(result)) {
        let line = curve(&result.latencies).map(|(x, latency)| (x, decade(Some(latency))));
        chart.draw_series(LineSeries::new(line, color.stroke_width(2)))?;
    }
    Ok(())
}

/// An axis with its ticks.
struct Axis {
    range: Range<f64>,
    ticks: Vec<f64>,
    label: fn(f64) -> String,
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        let part = (value - self.range.start) / (self.range.end - self.range.start);
        limit.0 + (part * f64::from(limit.1 - limit.0)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        self.ticks.clone()
    }

    fn range(&self) -> Range<f64> {
        self.range.clone()
    }
}

impl ValueFormatter<f64> for Axis {
    fn format(value: &f64) -> String {
        value.to_string()
    }

    fn format_ext(&self, value: &f64) -> String {
        (self.label)(*value)
    }
}

/// The latencies at so many nines, up to the largest.
fn curve(latencies: &Latencies) -> impl Iterator<Item = (f64, u64)> + '_ {
    let end = (latencies.len() as f64).log10().min(NINES);
    let steps = (end * 50.0).ceil() as u32;
    (0..=steps).map(move |step| {
        let nines = (f64::from(step) / 50.0).min(end);
        let is_largest = step == steps && end < NINES;
        let quantile = if is_largest { 1.0 } else { 1.0 - 10f64.powf(-nines) };
        (nines, latencies.value_at_quantile(quantile))
    })
}

/// 1 is 90 %, 2 is 99 %, and so on.
fn percent(nines: f64) -> String {
    let decimals = (nines.round() as usize).saturating_sub(2);
    format!("{:.decimals$} %", 100.0 * (1.0 - 10f64.powf(-nines)))
}

/// A power of ten in nanoseconds, by its exponent.
fn power(exponent: f64) -> String {
    let exponent = exponent.round() as usize;
    let unit = ["ns", "µs", "ms", "s"][(exponent / 3).min(3)];
    format!("{} {unit}", 10u64.pow((exponent - (exponent / 3).min(3) * 3) as u32))
}

fn throughput(area: &Area<'_>, results: &Results) -> Drawn {
    let moves_bytes = results.results.iter().any(|result| result.bytes_per_second > 0.0);
    let (unit, figure): (_, fn(&Measured) -> f64) = match moves_bytes {
        true => ("MiB/s", |result| result.bytes_per_second / f64::from(1 << 20)),
        false => ("ops/s", |result| result.ops_per_second),
    };
    let most = results.results.iter().map(figure).fold(f64::MIN_POSITIVE, f64::max);
    let count = results.results.len() as f64;
    let mut chart = ChartBuilder::on(area)
        .caption(" ", (FONT, 16))
        .margin_right(24)
        .margin_left(20)
        .x_label_area_size(28)
        // The figures are written behind the bars.
        .build_cartesian_2d(0.0..most * 1.5, -count..0.0)?;
    let style = (FONT, 13).into_font().color(&BLACK).pos(Pos::new(HPos::Left, VPos::Center));
    for (n, (result, color)) in colored(results).enumerate() {
        let (top, value) = (-(n as f64), figure(result));
        let bar = [(0.0, top - 0.2), (value, top - 0.8)];
        chart.draw_series([Rectangle::new(bar, color.filled())])?;
        let text = format!("{} {unit}", rate(value));
        let behind = (value + most / 40.0, top - 0.5);
        chart.draw_series([Text::new(text, behind, style.clone())])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_labelled_with_its_nines() {
        assert_eq!(percent(2f64.log10()), "50 %");
        assert_eq!([1.0, 2.0, 3.0, 5.0].map(percent), ["90 %", "99 %", "99.9 %", "99.999 %"]);
    }

    #[test]
    fn a_latency_is_labelled_with_its_unit() {
        let labels = [0.0, 2.0, 3.0, 7.0, 9.0, 10.0].map(power);
        assert_eq!(labels, ["1 ns", "100 ns", "1 µs", "10 ms", "1 s", "10 s"]);
    }

    #[test]
    fn a_curve_begins_at_the_least_and_ends_at_the_largest() {
        let mut latencies = Latencies::new(3).unwrap();
        for latency in 1..=1000 {
            latencies.record(latency).unwrap();
        }
        let points: Vec<_> = curve(&latencies).collect();
        assert_eq!((points[0], points[points.len() - 1]), ((0.0, 1), (3.0, 1000)));
        assert!(points.is_sorted());
    }
}
