//! A page on a terminal: text and a drawing, fields, what is run, and what that has printed.

use super::guide::{Busy, Guide, Message};
use super::step::Step;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Position, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

/// Where values begin, behind the mark of the chosen one and the longest name.
const VALUE_COLUMN: usize = 13;
/// Rows that output has at least, where there is any.
const OUTPUT_ROWS: usize = 6;
/// Rows of commands, of the word and of a value at most; what is longer is said to go on.
const COMMAND_ROWS: usize = 8;
const MESSAGE_ROWS: usize = 3;
const VALUE_ROWS: usize = 3;

const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
const DIM: Style = Style::new().add_modifier(Modifier::DIM);
const CHOSEN: Style = Style::new().add_modifier(Modifier::REVERSED);
const RED: Style = Style::new().fg(Color::Red);
const GREEN: Style = Style::new().fg(Color::Green);

/// Draws all of it.
pub fn draw(guide: &Guide, frame: &mut Frame<'_>) {
    let (width, height) = (usize::from(frame.area().width).max(1), usize::from(frame.area().height));
    let message = message(guide, width);
    let room = height.saturating_sub(message.len() + 1);
    let top = Top::of(guide, width, room);
    let heights = [top.lines.len(), 0, message.len(), 1].map(|rows| Constraint::Length(rows as u16));
    let heights = [heights[0], Constraint::Min(0), heights[2], heights[3]];
    let [page, output, word, keys] = Layout::vertical(heights).areas(frame.area());
    if let Some((row, column)) = top.cursor.filter(|(row, _)| *row < usize::from(page.height)) {
        frame.set_cursor_position(Position::new(page.x + column as u16, page.y + row as u16));
    }
    frame.render_widget(Paragraph::new(top.lines), page);
    draw_output(guide, frame, output);
    frame.render_widget(Paragraph::new(message), word);
    frame.render_widget(Paragraph::new(keys_of(guide)).style(DIM), keys);
}

/// What stands above the output.
struct Top {
    lines: Vec<Line<'static>>,
    /// Row and column of the line editor.
    cursor: Option<(usize, usize)>,
}

impl Top {
    /// As much as there is room for: the drawing goes first, then the text.
    fn of(guide: &Guide, width: usize, room: usize) -> Self {
        let step = guide.step();
        let has_output = !guide.output.is_empty();
        let room = room.saturating_sub(if has_output { OUTPUT_ROWS } else { 0 });
        let plain = |lines: &'static [&'static str], style| {
            lines.iter().map(move |line| Line::styled(*line, style)).chain([Line::default()])
        };
        let mut head = vec![steps(guide), Line::default(), Line::styled(step.title(), BOLD)];
        let text: Vec<_> = plain(step.text(), Style::new()).collect();
        let diagram: Vec<_> = plain(step.diagram(), DIM).collect();
        let (fields, cursor) = fields(guide, width);
        let commands = commands(guide, width);
        let below = fields.len() + commands.len();
        if !has_output && head.len() + text.len() + below <= room {
            head.extend(text);
            if head.len() + diagram.len() + below <= room {
                head.extend(diagram);
            }
        } else {
            head.push(Line::default());
        }
        let cursor = cursor.map(|(row, column)| (head.len() + row, column));
        head.extend(fields);
        head.extend(commands);
        Self { lines: head, cursor }
    }
}

/// All steps in a line, with marks on those that are done.
fn steps(guide: &Guide) -> Line<'static> {
    let mut spans = vec![Span::styled("dair setup  ", BOLD)];
    for step in Step::ALL {
        let mark = match (guide.state.completed.contains(&step), guide.is_done(step)) {
            (true, _) => "\u{2713}",
            (false, true) => "-",
            (false, false) => " ",
        };
        let style = if step == guide.step() { CHOSEN } else { Style::new() };
        spans.push(Span::styled(format!(" {} {} {mark} ", step.number(), step.name()), style));
    }
    Line::from(spans)
}

fn fields(guide: &Guide, width: usize) -> (Vec<Line<'static>>, Option<(usize, usize)>) {
    let (mut lines, mut cursor) = (Vec::new(), None);
    let room = width.saturating_sub(VALUE_COLUMN + 1).max(1);
    for field in guide.step().fields() {
        let is_chosen = guide.field() == *field;
        let name = format!("{} {:<2$}", if is_chosen { ">" } else { " " }, field.name(), VALUE_COLUMN - 2);
        let name = Span::styled(name, if is_chosen { BOLD } else { Style::new() });
        if let Some(editor) = guide.editor.as_ref().filter(|_| is_chosen) {
            let scroll = editor.visual_scroll(room);
            cursor = Some((lines.len(), VALUE_COLUMN + editor.visual_cursor().max(scroll) - scroll));
            let shown = columns(editor.value(), scroll, room);
            lines.push(Line::from(vec![name, Span::styled(format!("{shown:<room$}"), CHOSEN)]));
        } else {
            let rows = limited(value_rows(guide.state.config.value(*field), room), VALUE_ROWS, room);
            let mut rows = rows.into_iter();
            lines.push(Line::from(vec![name, Span::raw(rows.next().unwrap_or_default())]));
            lines.extend(rows.map(|row| Line::raw(format!("{:VALUE_COLUMN$}{row}", ""))));
        }
    }
    lines.push(Line::styled(format!("{:VALUE_COLUMN$}{}", "", guide.field().hint()), DIM));
    lines.push(Line::default());
    (lines, cursor)
}

/// What the page runs. Each can be copied: lines that go on end as a shell wants it.
fn commands(guide: &Guide, width: usize) -> Vec<Line<'static>> {
    let actions = guide.actions(guide.step());
    if actions.is_empty() {
        return vec![Line::raw("Nothing is run here: this machine works alone.")];
    }
    let mut lines = vec![Line::raw("r runs, and you may do by hand:")];
    let room = width.saturating_sub(2).max(1);
    let rows: Vec<_> = actions.iter().flat_map(|action| command_rows(&action.shown(&guide.world), room)).collect();
    lines.extend(limited(rows, COMMAND_ROWS, room).into_iter().map(|row| Line::raw(format!("  {row}"))));
    lines.push(Line::default());
    lines
}

/// The last word, of what goes on or of what was.
fn message(guide: &Guide, width: usize) -> Vec<Line<'static>> {
    let (text, style) = match (&guide.busy, &guide.message) {
        (Busy::Running(step, time), _) => {
            (format!("{} is being done, {} s ...", step.name(), time.as_secs()), Style::new())
        }
        (Busy::Discovering, _) => ("looking for workers ...".into(), Style::new()),
        (Busy::Idle, Some(Message::Note(line))) => (line.clone(), GREEN),
        (Busy::Idle, Some(Message::Error(line))) => (line.clone(), RED),
        (Busy::Idle, None) => return vec![Line::default()],
    };
    limited(rows(&text, width), MESSAGE_ROWS, width).into_iter().map(|row| Line::styled(row, style)).collect()
}

fn keys_of(guide: &Guide) -> String {
    match (&guide.editor, guide.busy) {
        (Some(_), _) => "Enter takes it  Esc leaves it as it was".into(),
        (None, Busy::Running(..)) => "s stops it  PgUp PgDn scroll  q quits".into(),
        (None, Busy::Discovering) => "q quits".into(),
        (None, Busy::Idle) => {
            let discover = if guide.step() == Step::Nodes { "  d discover" } else { "" };
            let field = if guide.step().fields().len() > 1 { "  Up Down field" } else { "" };
            format!("r run  e edit{field}{discover}  n next  p back  1-5 go to  q quit")
        }
    }
}

fn draw_output(guide: &Guide, frame: &mut Frame<'_>, area: Rect) {
    let (width, height) = (usize::from(area.width).max(1), usize::from(area.height));
    let all: Vec<_> = guide.output.lines().flat_map(|line| rows(line, width)).collect();
    let end = all.len() - guide.scroll.min(all.len().saturating_sub(height));
    let shown = all[end.saturating_sub(height)..end].iter().map(|row| Line::raw(row.clone()));
    frame.render_widget(Paragraph::new(shown.collect::<Vec<_>>()), area);
}

/// How many columns a text takes.
fn columns_of(text: &str) -> usize {
    Span::raw(text).width()
}

/// The part of a text from column `from` on, at most `room` columns.
fn columns(text: &str, from: usize, room: usize) -> String {
    let (mut column, mut part) = (0, String::new());
    for c in text.chars() {
        let width = columns_of(c.encode_utf8(&mut [0; 4]));
        if column >= from && column + width <= from + room {
            part.push(c);
        }
        column += width;
    }
    part
}

/// A text in rows of `width` columns, cut between words where that goes.
fn rows(text: &str, width: usize) -> Vec<String> {
    rows_of(text.split_inclusive(' '), width)
}

fn rows_of<'a>(words: impl Iterator<Item = &'a str>, width: usize) -> Vec<String> {
    let (mut rows, mut row, mut used) = (Vec::new(), String::new(), 0);
    for word in words {
        if used > 0 && used + columns_of(word.trim_end()) > width {
            rows.push(std::mem::take(&mut row));
            used = 0;
        }
        for c in word.chars() {
            let columns = columns_of(c.encode_utf8(&mut [0; 4]));
            // A space at the end may stand beyond the edge, where nobody sees it.
            if used > 0 && used + columns > width && c != ' ' {
                rows.push(std::mem::take(&mut row));
                used = 0;
            }
            row.push(c);
            used += columns;
        }
    }
    rows.push(row);
    rows
}

/// As [`rows`], with what tells a shell that a command goes on: the rows can be copied. Those after the first are set in.
fn command_rows(command: &str, width: usize) -> Vec<String> {
    let mut is_quoted = false;
    let words = command.split_inclusive(move |c| {
        is_quoted ^= c == '\'';
        c == ' ' && !is_quoted
    });
    let mut rows = rows_of(words, width.saturating_sub(4).max(1));
    let last = rows.len() - 1;
    for (index, row) in rows.iter_mut().enumerate() {
        let indent = if index == 0 { "" } else { "  " };
        // Within a word that is longer than a row nothing may be put.
        let is_between_words = index < last && row.ends_with(' ') && row.matches('\'').count() % 2 == 0;
        *row = format!("{indent}{row}{}", if is_between_words { "\\" } else { "" });
    }
    rows
}

/// The rows of a value: of a path or a list there are no words to keep whole.
fn value_rows(value: &str, width: usize) -> Vec<String> {
    if value.is_empty() { vec!["(empty)".into()] } else { rows(value, width) }
}

/// At most so many rows; the last one says that there are more.
fn limited(mut rows: Vec<String>, most: usize, width: usize) -> Vec<String> {
    if rows.len() > most {
        let more = rows.len() - most + 1;
        rows.truncate(most - 1);
        rows.push(columns(&format!("... and {more} rows more"), 0, width));
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::super::config::Field;
    use super::super::guide::Effect;
    use super::super::guide::tests::{new, press};
    use super::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use ratatui::crossterm::event::KeyCode;
    use std::time::Duration;

    fn drawn(guide: &Guide, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal of memory");
        terminal.draw(|frame| draw(guide, frame)).expect("it draws");
        let buffer = terminal.backend().buffer();
        let row = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned() + "\n";
        (0..height).map(row).collect()
    }

    /// A guide with values that are as long as they are in life.
    fn with_nodes() -> Guide {
        let mut guide = new();
        let world = guide.world.clone();
        for (field, text) in [(Field::Nodes, "pi@10.0.0.2, pi@10.0.0.3:2222"), (Field::Model, "~/there/smollm2.m")] {
            guide.state.config.set(field, text, &world).expect(text);
        }
        guide.state.model_file = Some("/home/ann/there/smollm2.m".into());
        guide
    }

    #[test]
    fn the_first_page_is_drawn_whole() {
        let mut guide = with_nodes();
        guide.state.completed.insert(Step::Model);
        let want = "\
dair setup   1 nodes    2 model \u{2713}  3 key    4 deployment    5 answer

Nodes: which machines compute
This machine is the root: it takes questions. Other machines may be workers,
which compute a part of every token. Leave the list empty to use this machine
alone; d looks for workers that run in this network already.

                  +--> worker 10.0.0.2:9990
  this machine ---+
     (root)       +--> worker 10.0.0.3:9990

> nodes      pi@10.0.0.2, pi@10.0.0.3:2222
  nodes_file /home/ann/.config/dair/nodes
             [USER@]HOST[:PORT], ...: behind USER@ the port is ssh's

r runs, and you may do by hand:
  mkdir -p ~/.config/dair && printf '%s\\n' '# Written by dair setup.' \\
    pi@10.0.0.2 pi@10.0.0.3:2222 > ~/.config/dair/nodes





r run  e edit  Up Down field  d discover  n next  p back  1-5 go to  q quit
";
        let text = drawn(&guide, 80, 24);
        assert_eq!(text, want, "{text}");
    }

    #[test]
    fn every_page_is_whole_on_a_small_terminal() {
        for alone in [true, false] {
            let mut guide = if alone { new() } else { with_nodes() };
            for step in Step::ALL {
                guide.state.current = step;
                let text = drawn(&guide, 80, 24);
                let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
                let page = squeezed(&text).replace("\\ ", "");
                let parts = step.text().iter().chain(step.diagram()).map(|line| (*line).to_owned());
                let parts = parts.chain(step.fields().iter().map(|field| guide.state.config.value(*field).to_owned()));
                let parts = parts.chain(guide.actions(step).into_iter().map(|action| action.shown(&guide.world)));
                for part in parts.chain([step.title().to_owned(), keys_of(&guide)]) {
                    assert!(page.contains(&squeezed(&part)), "{part:?} is missing in\n{text}");
                }
                for index in 0..step.fields().len() {
                    guide.focus = index;
                    let hint = format!("             {}\n", guide.field().hint());
                    assert!(drawn(&guide, 80, 24).contains(&hint), "{hint}");
                }
                guide.focus = 0;
                assert_eq!(text.contains("Nothing is run here"), alone && !matches!(step, Step::Model | Step::Answer));
            }
        }
    }

    #[test]
    fn an_edited_field_has_a_cursor_and_shows_the_end_of_what_is_long() {
        let mut guide = new();
        press(&mut guide, &format!("e{}END", "host-0.example.org,".repeat(8)));
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).expect("a terminal of memory");
        terminal.draw(|frame| draw(&guide, frame)).expect("it draws");
        let at = terminal.get_cursor_position().expect("a cursor");
        let text = drawn(&guide, 80, 24);
        let row = text.lines().nth(at.y.into()).expect("its row");
        assert!(row.starts_with("> nodes") && row.ends_with("END") && usize::from(at.x) == row.len(), "{at} {text}");
        assert!(text.ends_with("Enter takes it  Esc leaves it as it was\n"));
        press(&mut guide, "\n");
        assert!(drawn(&guide, 80, 24).contains("is on line 1 already"));
    }

    #[test]
    fn output_takes_the_place_of_the_explanation_and_can_be_scrolled() {
        let mut guide = new();
        press(&mut guide, "2r");
        guide.tick(Duration::from_secs(7));
        (1..=40).for_each(|number| guide.hear(format!("line {number}\n").as_bytes()));
        let text = drawn(&guide, 80, 24);
        assert!(text.contains("line 40\nmodel is being done, 7 s ...\ns stops it"), "{text}");
        assert!(!text.contains("A name of the catalogue") && text.contains("dair pull"), "{text}");
        guide.ended(Err("dair pull ended with exit code 1".into()));
        (0..3).for_each(|_| assert_eq!(guide.key(KeyCode::PageUp.into()), Effect::Draw));
        let text = drawn(&guide, 80, 24);
        assert!(text.contains("line 25\n") && !text.contains("line 26"), "{text}");
        assert!(text.contains("dair pull ended with exit code 1. r tries it again.\nr run"), "{text}");
    }

    #[test]
    fn commands_are_cut_so_that_a_shell_puts_them_together() {
        let command = "dair generate --chat --prompt 'What is the capital of France?' --key ~/k";
        assert_eq!(
            command_rows(command, 40),
            ["dair generate --chat --prompt \\", "  'What is the capital of France?' \\", "  --key ~/k"]
        );
        assert_eq!(rows("one two", 4), ["one ", "two"]);
        assert_eq!(rows("abcdefgh", 3), ["abc", "def", "gh"]);
        assert_eq!(limited(rows("a b c d", 1), 3, 20), ["a ", "b ", "... and 2 rows more"]);
    }

    #[test]
    fn terminals_of_any_size_are_drawn_on() {
        let mut guide = with_nodes();
        let many: String = (0..255).map(|node| format!("pi@node-{node}.example.org ")).collect();
        let world = guide.world.clone();
        guide.state.config.set(Field::Nodes, &many, &world).unwrap();
        for (width, height) in [(1, 1), (2, 30), (20, 3), (80, 10), (300, 100)] {
            for keys in ["1", "4r", "5", "1e"] {
                press(&mut guide, keys);
                guide.hear("caf\u{e9} \u{1f600}\u{1f600} word\n".repeat(50).as_bytes());
                drawn(&guide, width, height);
            }
            press(&mut guide, "\x1b");
        }
        assert!(drawn(&guide, 80, 24).contains("rows more"));
    }
}
