//! The demo's screen: panels repainted in a terminal, a line now and then elsewhere.

use std::io::{IsTerminal, Stdout, stdout};
use std::time::Duration;

use anyhow::Result;
use comfy_table::{CellAlignment, Table, presets};
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Stylize;
use ratatui::text::Line;
use ratatui::widgets::{Block, Row, Table as TableWidget};

use super::panels::Panel;
use crate::output::print;

/// The figures beside the panels.
pub(super) struct Figures {
    pub(super) elapsed: Duration,
    pub(super) facts: u64,
    pub(super) p50: Duration,
    pub(super) p99: Duration,
    /// How far the views are, and behind what.
    pub(super) lag: String,
}

impl Figures {
    pub(super) fn line(&self) -> String {
        let rate = self.facts as f64 / self.elapsed.as_secs_f64().max(0.001);
        format!(
            "{} facts in {:.1} s ({rate:.0}/s), freshness p50 {} p99 {}; {}",
            self.facts,
            self.elapsed.as_secs_f64(),
            millis(self.p50),
            millis(self.p99),
            self.lag,
        )
    }
}

fn millis(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1000.0)
}

/// Where the demo is shown. A terminal is as it was before once this is dropped.
pub(super) struct Screen {
    terminal: Option<Terminal<CrosstermBackend<Stdout>>>,
}

impl Screen {
    pub(super) fn new() -> Result<Self> {
        if !stdout().is_terminal() {
            return Ok(Self { terminal: None });
        }
        // Keys keep their meaning, so that an interrupt ends the demo.
        execute!(stdout(), EnterAlternateScreen)?;
        Ok(Self { terminal: Some(Terminal::new(CrosstermBackend::new(stdout()))?) })
    }

    /// How often to show.
    pub(super) fn period(&self) -> Duration {
        Duration::from_millis(if self.terminal.is_some() { 500 } else { 5000 })
    }

    /// Whether panels are shown while the demo runs.
    pub(super) fn is_live(&self) -> bool {
        self.terminal.is_some()
    }

    pub(super) fn show(&mut self, panels: &[Panel], figures: &Figures) -> Result<()> {
        match &mut self.terminal {
            Some(terminal) => {
                terminal.draw(|frame| {
                    let [top, body] =
                        Layout::vertical([Constraint::Length(1), Constraint::Fill(1)])
                            .areas(frame.area());
                    frame.render_widget(Line::from(figures.line()).bold(), top);
                    for (panel, area) in panels.iter().zip(areas(body, panels)) {
                        frame.render_widget(widget(panel), area);
                    }
                })?;
                Ok(())
            }
            None => print(&format!("{}\n", figures.line())),
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if self.terminal.is_some() {
            // The terminal is gone if this fails.
            drop(execute!(stdout(), LeaveAlternateScreen, Show));
        }
    }
}

/// Two columns of panels, each as high as its rows need, and the last panel below both.
fn areas(body: Rect, panels: &[Panel]) -> Vec<Rect> {
    const FRAME_LINES: usize = 3;
    let height = |panel: &Panel| u16::try_from(panel.rows.len() + FRAME_LINES).unwrap_or(u16::MAX);
    let Some((last, sides)) = panels.split_last() else { return Vec::new() };
    let rows = sides.chunks(2).map(|pair| {
        let highest = pair.iter().map(height).max().unwrap_or_default();
        Constraint::Length(highest)
    });
    let rows = Layout::vertical(rows.chain([Constraint::Min(height(last))])).split(body);
    let halves = [Constraint::Ratio(1, 2); 2];
    let mut areas = Vec::with_capacity(panels.len());
    for (row, pair) in rows.iter().zip(sides.chunks(2)) {
        areas.extend(Layout::horizontal(halves).split(*row).iter().take(pair.len()));
    }
    areas.extend(rows.last());
    areas
}

fn widget(panel: &Panel) -> TableWidget<'_> {
    let widths = panel.header.iter().enumerate().map(|(column, name)| {
        let cells = panel.rows.iter().filter_map(|row| row.get(column));
        let widest = cells.map(|cell| cell.chars().count()).max().unwrap_or_default();
        Constraint::Length(u16::try_from(widest.max(name.len())).unwrap_or(u16::MAX))
    });
    let cells = |row: &'_ Vec<String>| Row::new(row.clone());
    TableWidget::new(panel.rows.iter().map(cells), widths)
        .header(Row::new(panel.header.clone()).bold())
        .column_spacing(2)
        .block(Block::bordered().title(panel.title.as_str()))
}

/// The panels as they are at the end, on standard output.
pub(super) fn print_panels(panels: &[Panel]) -> Result<()> {
    let mut out = String::new();
    for panel in panels {
        let mut table = Table::new();
        table.load_preset(presets::UTF8_FULL_CONDENSED).set_header(&panel.header);
        table.add_rows(&panel.rows);
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        out.push_str(&format!("\n{}\n{table}\n", panel.title));
    }
    print(&out)
}
