//! Draws the metrics: rates, latencies and hits.

use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::{Constraint, Rect};
use ratatui::text::Line;
use ratatui::widgets::{Block, Paragraph, Row, Table, Wrap};

use super::right;
use crate::output;
use crate::top::metrics::{Operation, Rates};
use crate::top::state::State;

/// How many operations are shown: those of a mount in use.
const OPERATIONS: usize = 6;

/// The height in lines.
pub(super) fn height(state: &State) -> u16 {
    match &state.rates {
        _ if !state.is_measured() => 0,
        Ok(Some(rates)) => rates.operations.len().clamp(1, OPERATIONS) as u16 + 3,
        _ => 4,
    }
}

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, state: &State) {
    let block = Block::bordered().title(" requests ");
    match &state.rates {
        _ if !state.is_measured() => {}
        Err(error) => {
            let text = Paragraph::new(output::text(error.as_bytes())).wrap(Wrap { trim: true });
            frame.render_widget(text.block(block), area);
        }
        Ok(None) => frame.render_widget(Paragraph::new("asking").block(block), area),
        Ok(Some(rates)) => {
            let block = block.title_bottom(summary(rates));
            let header = ["operation", "req/s", "p50", "p99", "errors/s"];
            let [first, others @ ..] = header;
            let header = [Line::from(first)].into_iter().chain(others.map(right));
            let rows = rates.operations.iter().take(OPERATIONS).map(row);
            let widths = [3, 2, 2, 2, 3].map(Constraint::Fill);
            let table = Table::new(rows, widths).header(Row::new(header)).block(block);
            frame.render_widget(table, area);
        }
    }
}

fn row(operation: &Operation) -> Row<'static> {
    Row::new([
        Line::from(operation.name.clone()),
        right(number(operation.requests)),
        right(latency(operation.median)),
        right(latency(operation.slowest)),
        right(number(operation.failed)),
    ])
}

fn summary(rates: &Rates) -> String {
    let hits = rates
        .hits
        .map_or_else(|| "none opened".to_owned(), |part| format!("hits {:.0} %", part * 100.0));
    let bytes = |rate: f64| output::bytes(rate as u64);
    let (read, stored) = (bytes(rates.read), bytes(rates.stored));
    let evicted = rates.evicted.map(|evicted| format!(", evicted {}/s", bytes(evicted)));
    format!(" {hits}, read {read}/s, stored {stored}/s{} ", evicted.unwrap_or_default())
}

pub(super) fn number(rate: f64) -> String {
    match rate {
        0.0 => "0".to_owned(),
        0.0..10.0 => format!("{rate:.1}"),
        _ => output::count(rate.round() as u64),
    }
}

fn latency(time: Option<Duration>) -> String {
    output::latency(time.map(|time| time.as_secs_f64() * 1e6))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_have_a_unit_that_suits_them() {
        let shown = |micros| latency(Some(Duration::from_micros(micros)));
        assert_eq!(shown(2), "2.0 us");
        assert_eq!(shown(730), "730 us");
        assert_eq!(shown(1_500), "1.5 ms");
        assert_eq!(shown(25_000), "25 ms");
        assert_eq!(shown(2_500_000), "2.5 s");
        assert_eq!(latency(None), "-");
    }
}
