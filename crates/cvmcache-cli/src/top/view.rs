//! Draws the state. What does not fit is left out; the most important is on top.

mod clients;
mod requests;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use cvmcache::plugin::{CacheInfo, ObjectType};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, LineGauge, Paragraph, Row, Sparkline, Table, Wrap};

use super::metrics::Tier;
use super::state::{Count, Objects, State};
use crate::{object_type, output};

/// The line of keys, in full and for narrow terminals.
const KEYS: [&str; 2] = [" q quit   + - slower, faster   r ask now", " q + - r "];

/// From this height on, there is room for frames.
const ROOMY: u16 = 15;

/// From this width on, there is room for sizes beside the bars, and for clean-ups beside objects.
const WIDE: u16 = 56;

/// The width of the objects beside the sessions.
const OBJECTS: u16 = 34;

/// Lines that the objects take, and those of the lowest history.
const LISTED: u16 = 8;
const LOWEST: u16 = 3;

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
    let widths = match &state.admin {
        _ if frame.area().width < WIDE => [Constraint::Fill(1), Constraint::Length(0)],
        Some(_) => [Constraint::Length(OBJECTS), Constraint::Fill(1)],
        None => [Constraint::Fill(3), Constraint::Fill(2)],
    };
    let [objects, beside] = Layout::horizontal(widths).areas(objects);
    draw_objects(frame, objects, state, now);
    match (&state.admin, &state.clients) {
        (None, _) => draw_clean_ups(frame, beside, state),
        (Some(_), Some(clients)) => clients::draw(frame, beside, clients),
        (Some(_), None) => {
            let block = Block::bordered().title(" sessions ");
            frame.render_widget(Paragraph::new("not known").block(block), beside);
        }
    }
    requests::draw(frame, requests, state);
    draw_histories(frame, history, state, now);
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
    let take = |left: &mut u16, wanted: u16, at_least: u16| {
        let taken = if *left < at_least { 0 } else { wanted.min(*left) };
        *left -= taken;
        taken
    };
    let roomy = area.height >= ROOMY;
    let head = take(&mut left, if roomy { 2 } else { 1 }, 1);
    let banner = take(&mut left, if trouble { 2 } else { 0 }, 1);
    let fill = take(&mut left, if roomy { 4 } else { 2 }, 1);
    let foot = take(&mut left, 1, 1);
    // Requests go before the objects, as long as the most frequent are there.
    let wanted = requests::height(state);
    let room = left.saturating_sub(LISTED + LOWEST).max(4);
    let requests = take(&mut left, wanted.min(room), wanted.min(4));
    let wanted = state.clients.as_ref().map_or(LISTED, clients::height);
    let listed = wanted.clamp(LISTED, (left / 2).max(LISTED));
    let objects = take(&mut left, listed, LISTED);
    let history = take(&mut left, u16::MAX, LOWEST);
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
        title.push(Span::from(output::plugin_name(&output::text(&plugin.name)).to_owned()).bold());
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
    let block =
        if area.height > 2 { Block::bordered().title(fill_title(state)) } else { Block::new() };
    let block = match state.tier().filter(|_| area.height > 2) {
        Some(tier) => block.title_bottom(store_title(tier)),
        None => block,
    };
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

/// With sessions beside the objects, the clean-ups have their place here.
fn fill_title(state: &State) -> String {
    let count = state.fill().and_then(|info| info.shrink_count);
    match count.filter(|_| state.admin.is_some()) {
        Some(count) => {
            let rate = state.clean_up_rate().map(|rate| format!(", {rate:.1}/min"));
            let count = output::count(count);
            format!(" fill, {count} clean-ups{} ", rate.unwrap_or_default())
        }
        None => " fill ".to_owned(),
    }
}

/// What is in the store of a tiered cache alone.
fn store_title(tier: Tier) -> Line<'static> {
    let (objects, bytes) = (output::count(tier.remote_objects), output::bytes(tier.remote_bytes));
    let mut spans = vec![Span::from(format!(" store: {objects} objects, {bytes}"))];
    spans.push(Span::from(format!(", {} recalling", output::count(tier.recalling))));
    for (count, what) in [(tier.failed_recalls, "failed"), (tier.lost, "lost")] {
        let text = format!(", {} {what}", output::count(count));
        spans.extend((count > 0).then(|| Span::from(text).fg(Color::Red)));
    }
    spans.push(Span::from(" "));
    Line::from(spans)
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

/// Bytes in use and, where they are known, requests.
fn draw_histories(frame: &mut Frame<'_>, area: Rect, state: &State, now: Instant) {
    let of_requests = if state.is_measured() && area.width >= WIDE { 1 } else { 0 };
    let widths = [Constraint::Fill(1), Constraint::Fill(of_requests)];
    let [used, requests] = Layout::horizontal(widths).areas(area);
    draw_history(frame, used, "used", &state.history, output::bytes, now);
    let rate = |rate| format!("{}/s", output::count(rate));
    draw_history(frame, requests, "requests", &state.request_rates, rate, now);
}

fn draw_history(
    frame: &mut Frame<'_>,
    area: Rect,
    name: &str,
    history: &VecDeque<(Instant, Option<u64>)>,
    text: impl Fn(u64) -> String,
    now: Instant,
) {
    let width = usize::from(area.width.saturating_sub(2));
    let shown: Vec<_> = history.iter().skip(history.len().saturating_sub(width)).collect();
    let largest = shown.iter().filter_map(|(_, used)| *used).max();
    let title = match (shown.first(), largest) {
        (Some((first, _)), Some(largest)) => {
            let (age, largest) = (age(now, *first), text(largest));
            let full = format!(" {name} in the last {age}, up to {largest} ");
            if full.len() <= width { full } else { format!(" {name}, up to {largest} ") }
        }
        _ => format!(" {name} "),
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
