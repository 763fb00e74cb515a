//! What the view shows, on terminals of every size.

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use snapbox::{assert_data_eq, str};

use super::super::state::Update;
use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn drawn(state: &State, now: Instant, (width, height): (u16, u16)) -> TestBackend {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, state, now, true)).unwrap();
    terminal.backend().clone()
}

fn screen(state: &State, now: Instant, size: (u16, u16)) -> String {
    let lines = drawn(state, now, size).to_string();
    lines.lines().map(|line| format!("{}\n", line.trim_matches('"').trim_end())).collect()
}

fn info(used_mib: u64) -> Update {
    Update::Info(Some(
        CacheInfo::new(1 << 30, used_mib << 20, 128 << 20).with_shrink_count(used_mib / 100),
    ))
}

/// A plugin that has been watched for half a minute.
fn state(start: Instant) -> State {
    let mut state = State::new("unix=/socket", 2 * SECOND, true);
    state.apply(Update::Connected { name: b"ram".to_vec(), pid: Some(42) }, start);
    for second in 0..=30 {
        state.apply(info(30 * u64::from(second)), start + second * SECOND);
    }
    let count = |objects, pinned| Count { objects, pinned };
    let counts = [count(1_234_567, 0), count(42, 41), count(0, 0)];
    state.apply(Update::Counted { counts, took: SECOND / 2 }, start + 25 * SECOND);
    state
}

#[test]
fn the_view_has_fill_objects_clean_ups_and_history() {
    let start = Instant::now();
    let shown = screen(&state(start), start + 30 * SECOND, (80, 24));
    assert_data_eq!(
        shown,
        str![[r#"
cvmcache top  ram, process 42, connected for 30s
unix=/socket, asked every 2s
┌ fill ────────────────────────────────────────────────────────────────────────┐
│used   ████████████████████████████████████░░░░░   900.0 MiB of 1.0 GiB   88 %│
│pinned █████░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░   128.0 MiB of 1.0 GiB   12 %│
└──────────────────────────────────────────────────────────────────────────────┘
┌ objects ─────────────────────────────────────┐┌ clean-ups ───────────────────┐
│type                 objects            pinned││9 in all                      │
│regular            1,234,567                 0││18.0/min                      │
│catalog                   42                41││                              │
│volatile                   0                 0││                              │
│all                1,234,609                41││                              │
│                                              ││                              │
└ listed 5s ago in 500ms ──────────────────────┘└──────────────────────────────┘
┌ used in the last 30s, up to 900.0 MiB ───────────────────────────────────────┐
│                           ▂▄▆█                                               │
│                      ▁▂▄▆█████                                               │
│                  ▁▃▅▇█████████                                               │
│              ▂▄▅▇█████████████                                               │
│          ▂▄▆██████████████████                                               │
│     ▁▃▅▆██████████████████████                                               │
│ ▁▃▅▇██████████████████████████                                               │
└──────────────────────────────────────────────────────────────────────────────┘
 q quit   + - slower, faster   r ask now

"#]]
    );
}

#[test]
fn a_small_terminal_has_the_fill_first() {
    let start = Instant::now();
    let shown = screen(&state(start), start + 30 * SECOND, (20, 5));
    assert_data_eq!(
        shown,
        str![[r#"
cvmcache top  ram, p
used   ██████░  88 %
pinned ░░░░░░░  12 %

 q + - r

"#]]
    );
}

#[test]
fn a_narrow_terminal_has_the_objects_alone() {
    let start = Instant::now();
    let shown = screen(&state(start), start + 30 * SECOND, (40, 12));
    assert_data_eq!(
        shown,
        str![[r#"
cvmcache top  ram, process 42, connected
used   ███████████████████████░░░░  88 %
pinned ███░░░░░░░░░░░░░░░░░░░░░░░░  12 %
┌ objects ─────────────────────────────┐
│type             objects        pinned│
│regular        1,234,567             0│
│catalog               42            41│
│volatile               0             0│
│all            1,234,609            41│
│                                      │
└ listed 5s ago in 500ms ──────────────┘
 q quit   + - slower, faster   r ask now

"#]]
    );
}

#[test]
fn a_lost_connection_is_shown_in_a_banner() {
    let start = Instant::now();
    let mut state = state(start);
    state.apply(Update::Lost("the plugin closed the connection".into()), start + 31 * SECOND);
    state.apply(Update::NotCounted("the plugin closed the connection".into()), start);
    assert_data_eq!(
        screen(&state, start + 40 * SECOND, (80, 18)),
        str![[r#"
cvmcache top  ram, process 42
unix=/socket, asked every 2s
Lost 9s ago, trying again: the plugin closed the connection

┌ fill ────────────────────────────────────────────────────────────────────────┐
│used   ████████████████████████████████████░░░░░   900.0 MiB of 1.0 GiB   88 %│
│pinned █████░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░   128.0 MiB of 1.0 GiB   12 %│
└──────────────────────────────────────────────────────────────────────────────┘
┌ objects ─────────────────────────────────────┐┌ clean-ups ───────────────────┐
│not known                                     ││9 in all                      │
│                                              ││18.0/min                      │
│                                              ││                              │
│                                              ││                              │
│                                              ││                              │
│                                              ││                              │
└──────────────────────────────────────────────┘└──────────────────────────────┘

 q quit   + - slower, faster   r ask now

"#]]
    );
}

#[test]
fn missing_capabilities_are_named_in_the_view() {
    let start = Instant::now();
    let mut state = State::new("tcp=a:1", SECOND, false);
    state.apply(Update::Connected { name: b"none".to_vec(), pid: None }, start);
    state.apply(Update::Info(None), start);
    assert_data_eq!(
        screen(&state, start, (60, 16)),
        str![[r#"
cvmcache top  none, connected for 0s
tcp=a:1, asked every 1s
┌ fill ────────────────────────────────────────────────────┐
│the plugin does not report it                             │
│                                                          │
└──────────────────────────────────────────────────────────┘
┌ objects ─────────────────────────┐┌ clean-ups ───────────┐
│not listed (--no-list)            ││not counted           │
│                                  ││                      │
│                                  ││                      │
│                                  ││                      │
│                                  ││                      │
│                                  ││                      │
└──────────────────────────────────┘└──────────────────────┘

 q quit   + - slower, faster   r ask now

"#]]
    );
}

#[test]
fn a_name_has_no_terminal_control_sequence() {
    let start = Instant::now();
    let mut state = state(start);
    state.apply(Update::Connected { name: b"\x1b[2J\xff\n".to_vec(), pid: None }, start);
    assert!(screen(&state, start, (80, 24)).contains(r"cvmcache top  \u{1b}[2J\xff\n,"));
}

#[test]
fn every_terminal_size_can_be_drawn() {
    let start = Instant::now();
    let mut lost = state(start);
    lost.apply(Update::Lost("gone".into()), start);
    let new = State::new("unix=/socket", SECOND, true);
    for state in [&state(start), &lost, &new] {
        for width in [0, 1, 2, 3, 5, 8, 13, 21, 34, 55] {
            for height in [0, 1, 2, 3, 4, 5, 6, 8, 11, 14, 15, 17, 20] {
                drawn(state, start, (width, height));
            }
        }
        drawn(state, start, (300, 100));
    }
}

#[test]
fn without_colours_there_are_none() {
    let start = Instant::now();
    let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
    terminal.draw(|frame| draw(frame, &state(start), start, false)).unwrap();
    let buffer = terminal.backend().buffer();
    assert!(buffer.content().iter().all(|cell| cell.style() == buffer.content()[0].style()));
    assert_eq!(buffer.content()[0].fg, Color::Reset);
}
