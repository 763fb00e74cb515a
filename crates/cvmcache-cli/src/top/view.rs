//! Draws the state. What does not fit is left out; the most important is on top.

mod requests;

use std::time::{Duration, Instant};

use cvmcache::plugin::{CacheInfo, ObjectType};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, LineGauge, Paragraph, Row, Sparkline, Table, Wrap};

use super::state::{Count, Objects, State};
use crate::{object_type, output};

/// The line of keys, in full and for narrow terminals.
const KEYS: [&str; 2] = [" q quit   + - slower, faster   r ask now", " q + - r "];

/// From this height on, there is room for frames.
const ROOMY: u16 = 15;

/// From this width on, there is room for sizes beside the bars, and for clean-ups beside objects.
const WIDE: u16 = 56;

/// Draws the state. Without colours, the text has all information.
pub(super) fn draw(frame: &mut Frame<'_>, state: &State, now: Instant, in_colour: bool) {
    let trouble = trouble(state, now);
    let [head, banner, fill, foot, objects, requests, history] =
        places(frame.area(), trouble.is_some(), state);
    draw_head(frame, head, state, now);
    if let Some(trouble) = trouble {
        let banner_style = Style::new().fg(Color::Red).bold();
        let text = Paragraph::new(trouble).wrap(Wrap { trim: true }).style(banner_style);
        frame.render_widget(text, banner);
    }
    draw_fill(frame, fill, state);
    let beside = if frame.area().width < WIDE { 0 } else { 2 };
    let [objects, clean_ups] =
        Layout::horizontal([Constraint::Fill(3), Constraint::Fill(beside)]).areas(objects);
    draw_objects(frame, objects, state, now);
    draw_clean_ups(frame, clean_ups, state);
    requests::draw(frame, requests, state);
    draw_history(frame, history, state, now);
    let keys = KEYS.into_iter().find(|keys| keys.len() <= foot.width.into()).unwrap_or_default();
    frame.render_widget(Line::from(keys).dim(), foot);
    if !in_colour {
        let area = frame.area();
        frame.buffer_mut().set_style(area, Style::reset());
    }
}

/// Allots lines, to the most important first: what gets none is not drawn.
fn places(area: Rect, trouble: bool, state: &State) -> [Rect; 7] {
    let mut left = area.height;
    let mut take = |wanted: u16, at_least: u16| {
        let taken = if left < at_least { 0 } else { wanted.min(left) };
        left -= taken;
        taken
    };
    let roomy = area.height >= ROOMY;
    let head = take(if roomy { 2 } else { 1 }, 1);
    let banner = take(if trouble { 2 } else { 0 }, 1);
    let fill = take(if roomy { 4 } else { 2 }, 1);
    let foot = take(1, 1);
    // Metrics go before the objects: they are there only if the plugin is configured to serve them.
    let wanted = requests::height(state);
    let requests = take(wanted, wanted.min(4));
    let objects = take(8, 8);
    let history = take(u16::MAX, 3);
    let [head, banner, fill, requests, objects, history, _, foot] = Layout::vertical([
        Constraint::Length(head),
        Constraint::Length(banner),
        Constraint::Length(fill),
        Constraint::Length(requests),
        Constraint::Length(objects),
        Constraint::Length(history),
        Constraint::Fill(1),
        Constraint::Length(foot),
    ])
    .areas(area);
    [head, banner, fill, foot, objects, requests, history]
}

/// The error in the banner.
fn trouble(state: &State, now: Instant) -> Option<String> {
    if let Some((since, error)) = &state.lost {
        return Some(format!("Lost {} ago, trying again: {error}", age(now, *since)));
    }
    let silence = state.silence(now)?;
    Some(format!("No answer for {}", duration(silence)))
}

fn draw_head(frame: &mut Frame<'_>, area: Rect, state: &State, now: Instant) {
    let mut title = vec![Span::from("cvmcache top").bold(), Span::from("  ")];
    if let Some(plugin) = &state.plugin {
        title.push(Span::from(output::text(&plugin.name)).bold());
        if let Some(pid) = plugin.pid {
            title.push(format!(", process {pid}").into());
        }
        if state.lost.is_none() {
            title.push(format!(", connected for {}", age(now, plugin.since)).into());
        }
    }
    let place = format!("{}, asked every {}", state.locator, humantime(state.interval));
    frame.render_widget(Paragraph::new(vec![Line::from(title), Line::from(place).dim()]), area);
}

fn draw_fill(frame: &mut Frame<'_>, area: Rect, state: &State) {
    let block = if area.height > 2 { Block::bordered().title(" fill ") } else { Block::new() };
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let Some(info) = state.fill() else {
        let text = if state.info.is_some() { "the plugin does not report it" } else { "asking" };
        frame.render_widget(Line::from(text), inner);
        return;
    };
    let rows: [Rect; 2] = Layout::vertical([Constraint::Length(1); 2]).areas(inner);
    let parts = [("used  ", info.used_bytes), ("pinned", info.pinned_bytes)];
    for (row, (name, part)) in rows.into_iter().zip(parts) {
        draw_gauge(frame, row, name, part, info);
    }
}

fn draw_gauge(frame: &mut Frame<'_>, area: Rect, name: &str, part: u64, info: CacheInfo) {
    let ratio = output::fraction(part, info.size_bytes);
    let percent = format!("{:>3.0} %", ratio * 100.0);
    let size = output::bytes(part);
    let text = match info.size_bytes {
        u64::MAX if area.width < WIDE => size,
        u64::MAX => format!("{size}, no limit"),
        _ if area.width < WIDE => percent,
        whole => format!("{size} of {}  {percent}", output::bytes(whole)),
    };
    let text_width = if area.width < WIDE { text.len() as u16 + 1 } else { 30 };
    let [bar, beside] =
        Layout::horizontal([Constraint::Fill(1), Constraint::Length(text_width)]).areas(area);
    let colour = match ratio {
        r if r >= 0.95 => Color::Red,
        r if r >= 0.8 => Color::Yellow,
        _ => Color::Green,
    };
    let gauge = LineGauge::default().ratio(ratio).label(name);
    let gauge = gauge.filled_symbol("█").filled_style(colour);
    frame.render_widget(gauge.unfilled_symbol("░").unfilled_style(Color::DarkGray), bar);
    frame.render_widget(Line::from(text).right_aligned(), beside);
}

fn draw_objects(frame: &mut Frame<'_>, area: Rect, state: &State, now: Instant) {
    let block = Block::bordered().title(" objects ");
    let block = match (&state.objects, state.counting) {
        (Objects::Known { took, at, .. }, _) => {
            let (ago, took) = (age(now, *at), humantime((*took).max(Duration::from_millis(1))));
            block.title_bottom(format!(" listed {ago} ago in {took} "))
        }
        (_, Some(so_far)) => block.title_bottom(format!(" {} so far ", output::count(so_far))),
        _ => block,
    };
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let counts = match &state.objects {
        Objects::Known { counts, .. } => counts,
        other => {
            let text = match other {
                Objects::Failed(_) if state.lost.is_some() => "not known".to_owned(),
                Objects::Failed(error) => format!("cannot be listed: {error}"),
                Objects::Off => "not listed (--no-list)".to_owned(),
                _ => "listing them".to_owned(),
            };
            frame.render_widget(Paragraph::new(text).wrap(Wrap { trim: true }), inner);
            return;
        }
    };
    let all = counts.iter().fold(Count::default(), |all, count| Count {
        objects: all.objects + count.objects,
        pinned: all.pinned + count.pinned,
    });
    let names = ObjectType::ALL.map(object_type::name).into_iter().chain(["all"]);
    let rows = names.zip(counts.iter().chain([&all])).map(|(name, count)| {
        let numbers = [count.objects, count.pinned].map(|n| right(output::count(n)));
        Row::new([Line::from(name)].into_iter().chain(numbers))
    });
    let header = [Line::from("type"), right("objects"), right("pinned")];
    let widths = [Constraint::Length(10), Constraint::Fill(1), Constraint::Fill(1)];
    frame.render_widget(Table::new(rows, widths).header(Row::new(header).dim()), inner);
}

fn draw_clean_ups(frame: &mut Frame<'_>, area: Rect, state: &State) {
    let lines = match state.fill().and_then(|info| info.shrink_count) {
        Some(count) => {
            let rate = match state.clean_up_rate() {
                Some(rate) => format!("{rate:.1}/min"),
                None => "no rate yet".to_owned(),
            };
            vec![Line::from(format!("{} in all", output::count(count))), Line::from(rate)]
        }
        None if state.info.is_some() => vec![Line::from("not counted")],
        None => vec![],
    };
    frame.render_widget(Paragraph::new(lines).block(Block::bordered().title(" clean-ups ")), area);
}

fn draw_history(frame: &mut Frame<'_>, area: Rect, state: &State, now: Instant) {
    let width = usize::from(area.width.saturating_sub(2));
    let shown: Vec<_> =
        state.history.iter().skip(state.history.len().saturating_sub(width)).collect();
    let largest = shown.iter().filter_map(|(_, used)| *used).max();
    let title = match (shown.first(), largest) {
        (Some((first, _)), Some(largest)) => {
            format!(" used in the last {}, up to {} ", age(now, *first), output::bytes(largest))
        }
        _ => " used ".to_owned(),
    };
    let sparkline = Sparkline::default()
        .data(shown.into_iter().map(|(_, used)| *used))
        .max(largest.unwrap_or(0).max(1))
        .style(Style::new().fg(Color::Cyan))
        .absent_value_symbol("·");
    frame.render_widget(sparkline.block(Block::bordered().title(title)), area);
}

fn right(text: impl Into<String>) -> Line<'static> {
    Line::from(text.into()).right_aligned()
}

fn age(now: Instant, since: Instant) -> String {
    duration(now.saturating_duration_since(since))
}

/// A time to the second.
fn duration(time: Duration) -> String {
    humantime(Duration::from_secs(time.as_secs()))
}

/// A time to the millisecond, and not to the nanosecond.
fn humantime(time: Duration) -> String {
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    humantime::format_duration(Duration::from_millis(millis)).to_string()
}

#[cfg(test)]
mod tests;
