//! Draws the clients, by repository.

use ratatui::Frame;
use ratatui::layout::{Constraint, Rect};
use ratatui::style::Stylize;
use ratatui::text::Line;
use ratatui::widgets::{Block, Row, Table};

use super::requests::number;
use super::right;
use crate::output;
use crate::top::clients::{Clients, Repository};

/// Lines besides those of repositories: a frame and a header.
const OTHERS: usize = 3;

/// The height in lines that all repositories take.
pub(super) fn height(clients: &Clients) -> u16 {
    (clients.repositories.len() + OTHERS).try_into().unwrap_or(u16::MAX)
}

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, clients: &Clients) {
    let sessions = match clients.sessions() {
        1 => "1 session".to_owned(),
        sessions => format!("{} sessions", output::count(sessions as u64)),
    };
    let block = Block::bordered().title(format!(" {sessions} "));
    let shown = usize::from(area.height).saturating_sub(OTHERS);
    let block = match clients.repositories.len().saturating_sub(shown) {
        0 => block,
        more => block.title_bottom(format!(" and {more} more ")),
    };
    let header = ["repository", "n", "refs", "busy", "req/s", "hits"];
    let [first, others @ ..] = header;
    let header = [Line::from(first)].into_iter().chain(others.map(right));
    let others = [4, 5, 4, 7, 5];
    // A blank before each, and the frame.
    let taken = others.iter().map(|width| width + 1).sum::<u16>() + 2;
    let room = area.width.saturating_sub(taken).into();
    let rows = clients.repositories.iter().take(shown).map(|repository| row(repository, room));
    let others = others.map(Constraint::Length);
    let widths = [Constraint::Fill(1)].into_iter().chain(others);
    let table = Table::new(rows, widths).header(Row::new(header).dim()).block(block);
    frame.render_widget(table, area);
}

/// The name has so many columns.
fn row(repository: &Repository, room: usize) -> Row<'static> {
    Row::new([
        Line::from(output::shortened(&output::escaped(&repository.name), room)),
        right(repository.sessions.to_string()),
        right(repository.references.to_string()),
        right(repository.in_flight.to_string()),
        right(repository.rate.map_or_else(|| "-".to_owned(), number)),
        right(output::percent(repository.hit_ratio())),
    ])
}
