//! What the view shows, on terminals of every size.

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use snapbox::{assert_data_eq, str};

use super::super::metrics::Sample;
use super::super::state::Update;
use super::*;
use crate::admin::Admin;
use crate::admin::schema::{Session, Statistics};

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

/// The same with an administration socket: sessions of `repositories`, and requests.
fn administered(start: Instant, repositories: u64) -> State {
    let mut state = state(start);
    state.admin = Some(Admin::new("/socket.admin".into(), Duration::from_secs(1)));
    for second in 0..=30_u64 {
        let at = start + second as u32 * SECOND;
        let sessions = (0..repositories).map(|n| session(n, second)).collect();
        state.apply(Update::Clients { sessions, at }, at);
        let sample = Sample::of(&statistics(second));
        state.apply(Update::Measured { sample, at }, at);
    }
    state
}

fn session(n: u64, second: u64) -> Session {
    let answer = serde_json::json!({
        "id": n, "repository": format!("repository-{n}-of-many.cern.ch"), "age_seconds": second,
        "references": 100 * n, "uploads": 0, "in_flight": n % 4, "unsent_bytes": 0,
        "requests": 1000 * second * (n + 1), "hits": 90 + n, "misses": 10,
    });
    serde_json::from_value(answer).unwrap()
}

fn statistics(second: u64) -> Statistics {
    let operations = ["read", "open", "close", "store", "exists", "info", "list"];
    let operations = operations.iter().zip(1..).map(|(name, n)| {
        let requests = second * second * 100 / n;
        serde_json::json!({
            "operation": name, "requests": requests, "by_status": { "OK": requests },
            "latency_us": { "p50": 10 * n, "p99": 400 * n },
        })
    });
    let window = serde_json::json!({
        "seconds": second, "requests": 0, "connections": 0, "hits": 9 * second, "misses": second,
        "read_bytes": second << 20, "stored_bytes": 0, "stored_objects": 0,
        "operations": operations.collect::<Vec<_>>(),
    });
    let answer = serde_json::json!({ "since_start": window, "last_minute": window, "plugin": [] });
    serde_json::from_value(answer).unwrap()
}

#[test]
fn with_an_administration_socket_the_view_has_sessions_and_requests_over_time() {
    let start = Instant::now();
    let shown = screen(&administered(start, 7), start + 30 * SECOND, (80, 24));
    assert_data_eq!(
        shown,
        str![[r#"
cvmcache top  ram, process 42, connected for 30s
unix=/socket, asked every 2s
┌ fill, 9 clean-ups, 18.0/min ─────────────────────────────────────────────────┐
│used   ████████████████████████████████████░░░░░   900.0 MiB of 1.0 GiB   88 %│
│pinned █████░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░   128.0 MiB of 1.0 GiB   12 %│
└──────────────────────────────────────────────────────────────────────────────┘
┌ requests ────────────────────────────────────────────────────────────────────┐
│operation                  req/s          p50           p99           errors/s│
│read                       5,900        10 us        400 us                  0│
│open                       2,950        20 us        800 us                  0│
│close                      1,967        30 us        1.2 ms                  0│
└ hits 90 %, read 1.0 MiB/s, stored 0 B/s ─────────────────────────────────────┘
┌ objects ───────────────────────┐┌ 7 sessions ────────────────────────────────┐
│type          objects     pinned││repository        n  refs busy   req/s  hits│
│regular     1,234,567          0││reposit…ern.ch    1   600    2   7,000  91 %│
│catalog            42         41││reposit…ern.ch    1   500    1   6,000  90 %│
│volatile            0          0││reposit…ern.ch    1   400    0   5,000  90 %│
│all         1,234,609         41││reposit…ern.ch    1   300    3   4,000  90 %│
│                                ││reposit…ern.ch    1   200    2   3,000  90 %│
└ listed 5s ago in 500ms ────────┘└ and 2 more ────────────────────────────────┘
┌ used, up to 900.0 MiB ───────────────┐┌ requests, up to 15,299/s ────────────┐
│    ▁▁▁▁▂▂▂▂▃▃▃▄▄▄▄▅▅▅▅▆▆▆▆▇▇▇█       ││    ▁▁▁▂▂▂▂▃▃▃▃▄▄▄▅▅▅▅▆▆▆▆▇▇▇█        │
└──────────────────────────────────────┘└──────────────────────────────────────┘
 q quit   + - slower, faster   r ask now

"#]]
    );
}

#[test]
fn a_tiered_cache_has_its_store_below_its_fill() {
    let start = Instant::now();
    let mut state = administered(start, 2);
    let gauge = |(name, value): (&str, u64)| serde_json::json!({ "name": name, "value": value, "description": "" });
    let mut shown = |failed: u64| {
        let mut statistics = statistics(31);
        let gauges = [
            ("remote_objects", 10_000_000),
            ("remote_bytes", 100 << 40),
            ("error_objects", failed),
            ("recalling_objects", 28),
            ("failed_recalls", failed),
        ];
        let gauges = gauges.into_iter().map(gauge).map(serde_json::from_value);
        statistics.plugin = gauges.collect::<Result<_, _>>().unwrap();
        let at = start + 31 * SECOND;
        state.apply(Update::Measured { sample: Sample::of(&statistics), at }, at);
        screen(&state, at, (80, 24))
    };
    let line = "└ store: 10,000,000 objects, 100.0 TiB, 28 recalling ─";
    assert!(shown(0).contains(line), "{}", shown(0));
    let line = "└ store: 10,000,000 objects, 100.0 TiB, 28 recalling, 1,234 failed, 1,234 lost ┘";
    let shown = shown(1234);
    assert!(shown.contains(line), "{shown}");
    assert!(shown.contains("┌ requests ") && shown.contains("2 sessions"), "{shown}");
}

#[test]
fn a_large_terminal_has_more_repositories_and_longer_histories() {
    let start = Instant::now();
    let shown = screen(&administered(start, 12), start + 30 * SECOND, (200, 50));
    assert_data_eq!(
        shown,
        str![[r#"
cvmcache top  ram, process 42, connected for 30s
unix=/socket, asked every 2s
┌ fill, 9 clean-ups, 18.0/min ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────┐
│used   █████████████████████████████████████████████████████████████████████████████████████████████████████████████████████████████████████████████░░░░░░░░░░░░░░░░░░░░   900.0 MiB of 1.0 GiB   88 %│
│pinned ████████████████████░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░   128.0 MiB of 1.0 GiB   12 %│
└──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────┘
┌ requests ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────┐
│operation                                                                    req/s                              p50                               p99                                         errors/s│
│read                                                                         5,900                            10 us                            400 us                                                0│
│open                                                                         2,950                            20 us                            800 us                                                0│
│close                                                                        1,967                            30 us                            1.2 ms                                                0│
│store                                                                        1,475                            40 us                            1.6 ms                                                0│
│exists                                                                       1,180                            50 us                            2.0 ms                                                0│
│info                                                                           984                            60 us                            2.4 ms                                                0│
└ hits 90 %, read 1.0 MiB/s, stored 0 B/s ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────┘
┌ objects ───────────────────────┐┌ 12 sessions ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────┐
│type          objects     pinned││repository                                                                                                                                n  refs busy   req/s  hits│
│regular     1,234,567          0││repository-11-of-many.cern.ch                                                                                                             1  1100    3  12,000  91 %│
│catalog            42         41││repository-10-of-many.cern.ch                                                                                                             1  1000    2  11,000  91 %│
│volatile            0          0││repository-9-of-many.cern.ch                                                                                                              1   900    1  10,000  91 %│
│all         1,234,609         41││repository-8-of-many.cern.ch                                                                                                              1   800    0   9,000  91 %│
│                                ││repository-7-of-many.cern.ch                                                                                                              1   700    3   8,000  91 %│
│                                ││repository-6-of-many.cern.ch                                                                                                              1   600    2   7,000  91 %│
│                                ││repository-5-of-many.cern.ch                                                                                                              1   500    1   6,000  90 %│
│                                ││repository-4-of-many.cern.ch                                                                                                              1   400    0   5,000  90 %│
│                                ││repository-3-of-many.cern.ch                                                                                                              1   300    3   4,000  90 %│
│                                ││repository-2-of-many.cern.ch                                                                                                              1   200    2   3,000  90 %│
│                                ││repository-1-of-many.cern.ch                                                                                                              1   100    1   2,000  90 %│
│                                ││repository-0-of-many.cern.ch                                                                                                              1     0    0   1,000  90 %│
└ listed 5s ago in 500ms ────────┘└────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────┘
┌ used in the last 30s, up to 900.0 MiB ───────────────────────────────────────────────────────────┐┌ requests in the last 29s, up to 15,299/s ────────────────────────────────────────────────────────┐
│                             ▃█                                                                   ││                            ▃█                                                                    │
│                           ▂▆██                                                                   ││                          ▂▆██                                                                    │
│                         ▁▅████                                                                   ││                         ▅████                                                                    │
│                        ▄██████                                                                   ││                       ▄██████                                                                    │
│                      ▃████████                                                                   ││                     ▃▇███████                                                                    │
│                    ▂▇█████████                                                                   ││                   ▁▆█████████                                                                    │
│                  ▁▆███████████                                                                   ││                  ▅███████████                                                                    │
│                 ▅█████████████                                                                   ││                ▄█████████████                                                                    │
│               ▄███████████████                                                                   ││              ▂▇██████████████                                                                    │
│             ▂▇████████████████                                                                   ││            ▁▆████████████████                                                                    │
│           ▁▆██████████████████                                                                   ││           ▅██████████████████                                                                    │
│          ▅████████████████████                                                                   ││         ▃████████████████████                                                                    │
│        ▄██████████████████████                                                                   ││       ▂▇█████████████████████                                                                    │
│      ▃▇███████████████████████                                                                   ││     ▁▅███████████████████████                                                                    │
│    ▂▆█████████████████████████                                                                   ││    ▄█████████████████████████                                                                    │
│  ▁▅███████████████████████████                                                                   ││  ▃███████████████████████████                                                                    │
│ ▄█████████████████████████████                                                                   ││▂▆████████████████████████████                                                                    │
└──────────────────────────────────────────────────────────────────────────────────────────────────┘└──────────────────────────────────────────────────────────────────────────────────────────────────┘
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
    let administered = administered(start, 9);
    for state in [&state(start), &administered, &lost, &new] {
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
