//! The figures on a terminal: what a moment looks like, and the speed of the last minutes.

use super::figures::Cluster;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Paragraph, Row, Sparkline, Table};
use std::collections::VecDeque;

/// As many moments as the widest terminal has columns.
const MOMENTS_MAX: usize = 1024;
/// Bars are drawn of whole numbers: so many of them for a token per second.
const BAR_STEPS: f64 = 100.0;

/// Speeds that are drawn over time: where they are, and their names.
const SPEEDS: [(&str, &str); 2] =
    [("/rates/completion_tokens_per_s", "answer tokens/s"), ("/rates/prompt_tokens_per_s", "prompt tokens/s")];

/// What is on the terminal.
#[derive(Debug)]
pub struct View {
    url: String,
    now: Cluster,
    /// Of each speed the last moments, the newest last.
    speeds: [VecDeque<f64>; SPEEDS.len()],
    /// Why the figures are old.
    trouble: Option<String>,
}

impl View {
    /// Of a server at its first moment.
    pub fn new(url: String, first: Cluster) -> Self {
        let mut view = Self { url, now: first.clone(), speeds: Default::default(), trouble: None };
        view.show(first);
        view
    }

    /// Another moment.
    pub fn show(&mut self, now: Cluster) {
        for ((pointer, _), moments) in SPEEDS.iter().zip(&mut self.speeds) {
            moments.push_back(now.number(pointer).unwrap_or(0.0));
            if moments.len() > MOMENTS_MAX {
                moments.pop_front();
            }
        }
        (self.now, self.trouble) = (now, None);
    }

    /// The server does not answer: the figures stay, and are said to be old.
    pub fn lose(&mut self, why: String) {
        self.trouble = Some(why);
    }

    /// Draws all of it.
    pub fn draw(&self, frame: &mut Frame<'_>) {
        let (lines, nodes) = (self.now.lines(), self.now.nodes());
        let heights = [2, 6, lines.len() as u16 + 1, nodes.len() as u16 + 1].map(Constraint::Length);
        let areas = Layout::vertical(heights.into_iter().chain([Constraint::Min(0), Constraint::Length(1)]));
        let [title, speeds, figures, table, events, keys] = areas.areas(frame.area());
        self.draw_title(frame, title);
        let halves: [Rect; SPEEDS.len()] =
            Layout::horizontal([Constraint::Fill(1); SPEEDS.len()]).spacing(2).areas(speeds);
        for (((_, name), moments), area) in SPEEDS.iter().zip(&self.speeds).zip(halves) {
            draw_speed(frame, area, name, moments);
        }
        let line =
            |(name, text): (&str, String)| Line::from(vec![Span::styled(format!("{name:<10}"), DIM), text.into()]);
        frame.render_widget(Paragraph::new(lines.into_iter().map(line).collect::<Vec<_>>()), figures);
        draw_nodes(frame, table, &nodes);
        let list: Vec<Line<'_>> = self.now.events().take(events.height.into()).map(Line::from).collect();
        frame.render_widget(Paragraph::new(list), events);
        frame.render_widget(Paragraph::new("q or Esc ends").style(DIM), keys);
    }

    fn draw_title(&self, frame: &mut Frame<'_>, area: Rect) {
        let what = Line::from(vec![Span::styled(self.now.title(), BOLD), Span::styled(format!("  {}", self.url), DIM)]);
        let trouble = self.trouble.as_ref().map(|why| Line::styled(format!("{why}; asking again"), Color::Red));
        frame.render_widget(Paragraph::new(vec![what, trouble.unwrap_or_default()]), area);
    }
}

const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
const DIM: Style = Style::new().add_modifier(Modifier::DIM);

fn draw_speed(frame: &mut Frame<'_>, area: Rect, name: &str, moments: &VecDeque<f64>) {
    let seen = moments.len().saturating_sub(area.width.into());
    let shown = moments.iter().skip(seen);
    let most = shown.clone().fold(0.0, |most: f64, speed| most.max(*speed));
    let title = format!("{name} {:.1}, at most {most:.1}", moments.back().unwrap_or(&0.0));
    let bars: Vec<u64> = shown.map(|speed| (speed * BAR_STEPS) as u64).collect();
    let chart = Sparkline::default().block(Block::new().title(title)).data(bars).style(Color::Cyan);
    frame.render_widget(chart, area);
}

fn draw_nodes(frame: &mut Frame<'_>, area: Rect, rows: &[Vec<String>]) {
    let Some((head, nodes)) = rows.split_first() else { return };
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count() as u16).max().unwrap_or(0);
    let widths = (0..head.len()).map(|column| Constraint::Length(width(column)));
    let row = |cells: &Vec<String>| {
        let style = if Cluster::takes_part(cells) { Style::new() } else { Color::Red.into() };
        Row::new(cells.clone()).style(style)
    };
    let table = Table::new(nodes.iter().map(row), widths).header(Row::new(head.clone()).style(DIM)).column_spacing(2);
    frame.render_widget(table, area);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::top::figures::example;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    fn drawn(view: &View, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal of memory");
        terminal.draw(|frame| view.draw(frame)).expect("it draws");
        let buffer = terminal.backend().buffer();
        let row = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned() + "\n";
        (0..height).map(row).collect()
    }

    #[test]
    fn a_moment_is_drawn_whole() {
        let mut view = View::new("http://box:8080".into(), example());
        view.show(example());
        let want = "\
smollm2, up for 1 h 2 min  http://box:8080

answer tokens/s 41.2, at most 41.2       prompt tokens/s 0.0, at most 0.0
██
██
██
██
██
speed     41.2 tokens/s of answers, 0 of prompts, 2.50 rows in a batch
requests  2 running of 4, 1 waiting; 9 served, 0 refused, 3 cancelled, 0 failed
tokens    250 of answers, 100 of prompts, 40 of them known from before
KV cache  512 tokens in 4 slots of 2048 positions, 6.25 %
network   12.3 MB sent, 999 B received, 1.50 s in exchanges

NODE           STATE  SHARE   MEMORY   PASSES  COMPUTE ms
root           here   62.5 %  –        100     12.3
10.0.0.2:9990  out    37.5 %  1.50 GB  –       –

2026-11-27T10:00:05Z  computing 40 tokens again
2026-11-27T10:00:00Z  left out: worker 10.0.0.2:9990



q or Esc ends
";
        assert_eq!(drawn(&view, 80, 24), want);
    }

    #[test]
    fn a_server_that_is_gone_is_said_so_until_it_is_back() {
        let mut view = View::new("http://box:8080".into(), example());
        view.lose("cannot reach http://box:8080".into());
        let text = drawn(&view, 80, 24);
        assert!(text.contains("cannot reach http://box:8080; asking again") && text.contains("root"), "{text}");
        view.show(example());
        assert!(!drawn(&view, 80, 24).contains("asking again"));
    }

    #[test]
    fn terminals_of_any_size_are_drawn_on() {
        let mut view = View::new("http://box:8080".into(), example());
        (0..2 * MOMENTS_MAX).for_each(|_| view.show(example()));
        assert!(view.speeds[0].len() <= MOMENTS_MAX);
        for (width, height) in [(1, 1), (20, 3), (80, 10), (300, 100)] {
            drawn(&view, width, height);
        }
    }
}
