//! A look on the whole screen. Keys: q ends, s sorts by the next column, r turns the order round, b shows plain numbers,
//! space stops and goes on.

use std::time::{Duration, Instant};

use ratatui::Frame;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyModifiers};
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Cell, Paragraph, Row, Table};

use super::{Look, ORDERS, View, look, table};
use crate::command::connect::Session;
use crate::command::error::Failure;

/// How long a key may go unseen.
const KEY_WAIT: Duration = Duration::from_millis(100);
/// How wide the columns are; names take what is left.
const WIDTHS: [Constraint; 12] = [
    Constraint::Length(7),
    Constraint::Length(21),
    Constraint::Min(10),
    Constraint::Length(10),
    Constraint::Length(6),
    Constraint::Length(9),
    Constraint::Length(11),
    Constraint::Length(11),
    Constraint::Length(10),
    Constraint::Length(10),
    Constraint::Length(14),
    Constraint::Length(11),
];

/// What a key asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Wish {
    End,
    Pause,
    Redraw,
}

/// Shows looks until a key, or their number, ends it. The screen is given back in any case.
pub async fn run(
    session: &Session,
    (which, mut shown): (&str, Look),
    mut view: View,
    (interval, looks): (Duration, u64),
) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::request("use the terminal", error);
    let mut terminal = ratatui::try_init().map_err(failed)?;
    let (mut count, mut paused, mut due) = (1, false, Instant::now() + interval);
    let outcome = loop {
        if let Err(error) = terminal.draw(|frame| draw(frame, &shown, (&view, paused))) {
            break Err(failed(error));
        }
        match next_key().await {
            Ok(Some(key)) => match wish(key, &mut view) {
                Some(Wish::End) => break Ok(()),
                Some(Wish::Pause) => paused = !paused,
                Some(Wish::Redraw) | None => {}
            },
            Ok(None) => {}
            Err(error) => break Err(failed(error)),
        }
        if paused || Instant::now() < due {
            continue;
        }
        if count >= looks {
            break Ok(());
        }
        match look(session, which, &shown).await {
            Ok(newer) => (shown, count, due) = (newer, count + 1, Instant::now() + interval),
            Err(failure) => break Err(failure),
        }
    };
    ratatui::restore();
    outcome
}

/// Waits a little for a key.
async fn next_key() -> std::io::Result<Option<KeyEvent>> {
    let wait = || -> std::io::Result<Option<KeyEvent>> {
        if !event::poll(KEY_WAIT)? {
            return Ok(None);
        }
        match event::read()? {
            Event::Key(key) if key.is_press() => Ok(Some(key)),
            _ => Ok(None),
        }
    };
    tokio::task::spawn_blocking(wait).await.map_err(std::io::Error::other)?
}

fn wish(key: KeyEvent, view: &mut View) -> Option<Wish> {
    match key.code {
        KeyCode::Char('q') | KeyCode::Esc => Some(Wish::End),
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => Some(Wish::End),
        KeyCode::Char(' ') => Some(Wish::Pause),
        KeyCode::Char('s') => {
            view.sort = (view.sort + 1) % ORDERS.len();
            Some(Wish::Redraw)
        }
        KeyCode::Char('r') => {
            view.reverse = !view.reverse;
            Some(Wish::Redraw)
        }
        KeyCode::Char('b') => {
            view.raw = !view.raw;
            Some(Wish::Redraw)
        }
        _ => None,
    }
}

fn draw(frame: &mut Frame<'_>, look: &Look, (view, paused): (&View, bool)) {
    let [head, body, foot] =
        Layout::vertical([Constraint::Length(5), Constraint::Min(1), Constraint::Length(1)])
            .areas(frame.area());
    let lines: Vec<Line<'_>> = table::head(look, view).into_iter().map(Line::from).collect();
    frame.render_widget(Paragraph::new(lines), head);
    let rows = table::chosen(look, view);
    let rows = rows.iter().map(|connection| Row::new(table::row(connection, view).map(Cell::from)));
    let bold = Style::new().add_modifier(Modifier::BOLD);
    frame.render_widget(Table::new(rows, WIDTHS).header(Row::new(table::COLUMNS).style(bold)), body);
    let state = if paused { "  stopped" } else { "" };
    let order = if view.reverse { "lowest first" } else { "" };
    let text =
        format!("q quit  s sort: {} {order}  r reverse  b bytes  space stop{state}", ORDERS[view.sort]);
    frame.render_widget(Paragraph::new(text), foot);
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;
    use crate::command::server::report::Connection;

    #[test]
    fn keys_change_the_view() {
        let mut view = View { sort: ORDERS.len() - 1, reverse: false, raw: false, most: 5 };
        let press = |code| KeyEvent::new(code, KeyModifiers::NONE);
        assert_eq!(wish(press(KeyCode::Char('s')), &mut view), Some(Wish::Redraw));
        assert_eq!(wish(press(KeyCode::Char('r')), &mut view), Some(Wish::Redraw));
        assert_eq!(wish(press(KeyCode::Char('b')), &mut view), Some(Wish::Redraw));
        assert_eq!((view.sort, view.reverse, view.raw), (0, true, true));
        assert_eq!(wish(press(KeyCode::Char('c')), &mut view), None);
        let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(wish(interrupt, &mut view), Some(Wish::End));
        assert_eq!(wish(press(KeyCode::Char('q')), &mut view), Some(Wish::End));
    }

    #[test]
    fn a_look_fills_the_screen() {
        let view = View { sort: 0, reverse: false, raw: false, most: 5 };
        let connection = Connection { cid: 77, name: "worker".into(), ..Connection::default() };
        let look = Look { connections: vec![connection], ..Look::default() };
        let mut terminal = Terminal::new(TestBackend::new(160, 12)).unwrap();
        terminal.draw(|frame| draw(frame, &look, (&view, true))).unwrap();
        let text: String = terminal.backend().buffer().content().iter().map(|cell| cell.symbol()).collect();
        for wanted in ["Server", "Msgs/s", "CID", "77", "worker", "stopped"] {
            assert!(text.contains(wanted), "{wanted}: {text}");
        }
    }
}
