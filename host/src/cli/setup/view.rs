//! A page on a terminal: text and a drawing, fields, what is run, the last word, and the keys.

use super::guide::{Guide, Message};
use super::step::Step;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Position};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

/// Where values begin, behind the mark of the chosen one and the longest name.
const VALUE_COLUMN: usize = 13;
/// Rows of commands, of the last word and of a value at most; what is longer is said to go on.
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
    let mut below = message(guide, width);
    below.extend(styled(rows_of(keys_of(guide).split_inclusive("  "), width), DIM));
    let room = height.saturating_sub(below.len());
    let (mut page, cursor) = page(guide, width, room);
    if page.len() > room {
        page.truncate(room.saturating_sub(1));
        page.push(Line::raw("... this terminal is too small"));
    }
    let rows = Constraint::Length(below.len() as u16);
    let [top, bottom] = Layout::vertical([Constraint::Min(0), rows]).areas(frame.area());
    if let Some((row, column)) = cursor.filter(|(row, _)| *row < usize::from(top.height)) {
        frame.set_cursor_position(Position::new(top.x + column as u16, top.y + row as u16));
    }
    frame.render_widget(Paragraph::new(page), top);
    frame.render_widget(Paragraph::new(below), bottom);
}

/// Lines, and row and column of the line editor.
type Lines = (Vec<Line<'static>>, Option<(usize, usize)>);

/// As much of a page as there is room for: the drawing goes first, then the text.
fn page(guide: &Guide, width: usize, room: usize) -> Lines {
    let page = guide.step().page();
    let mut lines = vec![steps(guide, width), Line::default()];
    lines.extend(styled(rows(&guide.step().title(), width), BOLD));
    let (fields, cursor) = fields(guide, width);
    let commands = commands(guide, width, room.saturating_sub(lines.len() + 1 + fields.len()));
    let diagram = page.diagram.iter().map(|line| (*line).to_owned()).collect();
    let head = lines.len();
    for block in [styled(rows(page.text, width), Style::new()), styled(diagram, DIM)] {
        if lines.len() + block.len() + 1 + fields.len() + commands.len() > room {
            break;
        }
        lines.extend(block);
        lines.push(Line::default());
    }
    if lines.len() == head {
        lines.push(Line::default());
    }
    let cursor = cursor.map(|(row, column)| (lines.len() + row, column));
    lines.extend(fields);
    lines.extend(commands);
    (lines, cursor)
}

/// All steps in a line, with marks on those that are done.
fn steps(guide: &Guide, width: usize) -> Line<'static> {
    let mut spans = vec![];
    for step in Step::ALL {
        let mark = match (guide.state.completed.contains(&step), guide.is_done(step)) {
            (true, _) => "\u{2713}",
            (false, true) => "-",
            (false, false) => " ",
        };
        let style = if step == guide.step() { CHOSEN } else { Style::new() };
        spans.push(Span::styled(format!(" {} {} {mark} ", step.number(), step.name()), style));
    }
    let name = Span::styled("dair setup  ", BOLD);
    if name.width() + spans.iter().map(Span::width).sum::<usize>() <= width {
        spans.insert(0, name);
    }
    Line::from(spans)
}

fn fields(guide: &Guide, width: usize) -> Lines {
    let (mut lines, mut cursor) = (Vec::new(), None);
    let room = width.saturating_sub(VALUE_COLUMN + 1).max(1);
    let set_in = |row: String| format!("{:VALUE_COLUMN$}{row}", "");
    for field in guide.step().page().fields {
        let is_chosen = guide.field() == *field;
        let name = format!("{} {:<2$}", if is_chosen { ">" } else { " " }, field.name(), VALUE_COLUMN - 2);
        let name = Span::styled(name, if is_chosen { BOLD } else { Style::new() });
        if let Some(editor) = guide.editor.as_ref().filter(|_| is_chosen) {
            let scroll = editor.visual_scroll(room);
            cursor = Some((lines.len(), VALUE_COLUMN + editor.visual_cursor().max(scroll) - scroll));
            let shown = columns(editor.value(), scroll, room);
            lines.push(Line::from(vec![name, Span::styled(format!("{shown:<room$}"), CHOSEN)]));
        } else {
            let value = guide.state.config.value(*field);
            let value = if value.is_empty() { "(empty)" } else { value };
            let mut rows = limited(rows(value, room), VALUE_ROWS).into_iter();
            lines.push(Line::from(vec![name, Span::raw(rows.next().unwrap_or_default())]));
            lines.extend(rows.map(|row| Line::raw(set_in(row))));
        }
    }
    lines.extend(styled(rows(guide.field().hint(), room + 1).into_iter().map(set_in).collect(), DIM));
    lines.push(Line::default());
    (lines, cursor)
}

/// What the page runs. Each can be copied: lines that go on end as a shell wants it.
fn commands(guide: &Guide, width: usize, room: usize) -> Vec<Line<'static>> {
    let actions = guide.actions(guide.step());
    if actions.is_empty() {
        return styled(rows("Nothing is run here: this machine works alone.", width), Style::new());
    }
    let shown = actions.iter().map(|action| action.shown(&guide.world));
    let commands = shown.flat_map(|command| command_rows(&command, width.saturating_sub(2).max(1))).collect();
    let commands = limited(commands, COMMAND_ROWS.min(room.saturating_sub(1)));
    let mut lines = vec!["r runs, and you may do by hand:".to_owned()];
    lines.extend(commands.into_iter().map(|row| format!("  {row}")));
    styled(lines, Style::new())
}

/// The last word.
fn message(guide: &Guide, width: usize) -> Vec<Line<'static>> {
    let (text, style) = match &guide.message {
        Some(Message::Note(line)) => (line, GREEN),
        Some(Message::Error(line)) => (line, RED),
        None => return vec![Line::default()],
    };
    styled(limited(rows(text, width), MESSAGE_ROWS), style)
}

fn keys_of(guide: &Guide) -> String {
    if guide.editor.is_some() {
        return "Enter takes it  Esc leaves it as it was".into();
    }
    let discover = if guide.step() == Step::Nodes { "  d discover" } else { "" };
    let field = if guide.step().page().fields.len() > 1 { "  Up Down field" } else { "" };
    format!("r run  e edit{field}{discover}  n next  p back  1-5 go to  q quit")
}

fn styled(rows: Vec<String>, style: Style) -> Vec<Line<'static>> {
    rows.into_iter().map(|row| Line::styled(row, style)).collect()
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

/// At most so many rows; the last one says that there are more.
fn limited(mut rows: Vec<String>, most: usize) -> Vec<String> {
    if rows.len() > most {
        let more = rows.len() - most + 1;
        rows.truncate(most.saturating_sub(1));
        rows.push(format!("... and {more} rows more"));
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::super::config::Field;
    use super::super::guide::tests::{new, press};
    use super::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

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
    fn every_page_is_whole_on_small_terminals() {
        let squeezed = |text: &str| text.split_whitespace().filter(|word| *word != "\\").collect::<Vec<_>>().join(" ");
        for (width, height, is_explained) in [(80, 24, true), (60, 20, false)] {
            for alone in [true, false] {
                let mut guide = if alone { new() } else { with_nodes() };
                for step in Step::ALL {
                    guide.state.current = step;
                    let text = drawn(&guide, width, height);
                    let page = step.page();
                    let fields = page.fields.iter().map(|field| guide.state.config.value(*field).to_owned());
                    let commands = guide.actions(step).into_iter().map(|action| action.shown(&guide.world));
                    let mut parts = vec![page.title.to_owned(), keys_of(&guide)];
                    parts.extend(fields.chain(commands));
                    if is_explained {
                        parts.extend(page.diagram.iter().chain([&page.text]).map(|line| (*line).to_owned()));
                    }
                    for part in parts {
                        assert!(squeezed(&text).contains(&squeezed(&part)), "{part:?} is missing in\n{text}");
                    }
                    for index in 0..page.fields.len() {
                        guide.focus = index;
                        let text = drawn(&guide, width, height);
                        assert!(squeezed(&text).contains(&squeezed(guide.field().hint())), "{text}");
                    }
                    guide.focus = 0;
                    let is_nothing = alone && !matches!(step, Step::Model | Step::Answer);
                    assert_eq!(text.contains("Nothing is run here"), is_nothing);
                }
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
        assert!(drawn(&guide, 80, 24).contains("is on the list twice"));
    }

    #[test]
    fn steps_have_marks_and_the_last_word_stands_above_the_keys() {
        let mut guide = with_nodes();
        guide.state.completed.insert(Step::Model);
        press(&mut guide, "4r");
        let text = drawn(&guide, 80, 24);
        assert!(text.starts_with("dair setup   1 nodes    2 model \u{2713}  3 key    4 deployment"), "{text}");
        assert!(text.contains("the step nodes comes first: 1 goes there\nr run  e edit"), "{text}");
        assert!(drawn(&new(), 60, 20).starts_with(" 1 nodes -  2 model    3 key -  4 deployment -  5 answer"));
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
        assert_eq!(limited(rows("a b c d", 1), 3), ["a ", "b ", "... and 2 rows more"]);
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
                drawn(&guide, width, height);
            }
            press(&mut guide, "\x1b");
        }
        assert!(drawn(&guide, 80, 24).contains("rows more") && drawn(&guide, 40, 8).contains("is too small\n"));
    }
}
