//! `--progress tty`: finished things scroll by, running stages stand below with their time and progress, and under them what
//! still waits. Draws through `indicatif`, which draws nothing where there is no terminal.

use super::{
    Reporter, Stamped,
    plain::line_of,
    story::Story,
    summary::{self, LAST_LINES, Palette, finished_line},
};
use crate::{event::RunEvent, name::StageName};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::{collections::HashMap, time::Duration};

/// How often a spinner turns: slow enough for terminals over a network.
const TICK: Duration = Duration::from_millis(120);

/// Names of waiting stages in the last line; the rest is counted.
const WAITING_SHOWN: usize = 4;

/// Draws on a terminal.
pub struct Tty {
    bars: MultiProgress,
    running: HashMap<StageName, ProgressBar>,
    waiting: ProgressBar,
    palette: Palette,
    story: Story,
}

impl Tty {
    pub fn new(target: ProgressDrawTarget, palette: Palette) -> Self {
        let bars = MultiProgress::with_draw_target(target);
        let waiting = bars.add(ProgressBar::new_spinner().with_style(style("  {msg}")));
        Self {
            bars,
            running: HashMap::new(),
            waiting,
            palette,
            story: Story::new(LAST_LINES),
        }
    }

    fn line(&self, text: &str) {
        // A terminal that is gone is no error of the run.
        let _ = self.bars.println(text);
    }

    fn start(&mut self, stage: &StageName, plugin: &str, attempt: u32) {
        let bar = ProgressBar::new_spinner().with_style(style("{spinner} {prefix} {elapsed} {msg}"));
        let bar = self.bars.insert_before(&self.waiting, bar);
        let again = if attempt > 1 {
            format!(" (attempt {attempt})")
        } else {
            String::new()
        };
        bar.set_prefix(format!("{stage}{again}"));
        bar.set_message(plugin.to_string());
        bar.enable_steady_tick(TICK);
        if let Some(old) = self.running.insert(stage.clone(), bar) {
            old.finish_and_clear();
        }
    }

    fn stop(&mut self, stage: &StageName) {
        if let Some(bar) = self.running.remove(stage) {
            bar.finish_and_clear();
        }
    }

    fn show_waiting(&self) {
        self.waiting.set_message(waiting_line(&self.story));
    }
}

impl Reporter for Tty {
    fn event(&mut self, stamped: &Stamped) {
        self.story.event(stamped);
        match &stamped.event {
            RunEvent::StageStarted {
                stage,
                attempt,
                plugin,
            } => self.start(stage, &plugin.name, *attempt),
            RunEvent::StageProgress {
                stage,
                done,
                total,
                note,
                ..
            } => {
                if let Some(bar) = self.running.get(stage) {
                    bar.set_message(progress_text(*done, *total, note.as_deref()));
                }
            }
            RunEvent::StageFinished { stage, report, .. } => {
                self.stop(stage);
                self.line(&format!("[{stage}] {}", finished_line(report, self.palette)));
            }
            RunEvent::RunFinished { .. } => {
                let stages: Vec<StageName> = self.running.keys().cloned().collect();
                stages.iter().for_each(|stage| self.stop(stage));
                self.waiting.finish_and_clear();
                self.line(summary::render(&self.story, self.palette).trim_end());
                return;
            }
            other => {
                if let RunEvent::StageRetrying { stage, .. } = other {
                    self.stop(stage);
                }
                match line_of(other, self.palette) {
                    Some((Some(stage), text)) => self.line(&format!("[{stage}] {text}")),
                    Some((None, text)) => self.line(&text),
                    None => {}
                }
            }
        }
        self.show_waiting();
    }

    fn finish(&mut self) {
        self.waiting.finish_and_clear();
    }
}

/// What has not started, and what it waits for: everything that runs.
fn waiting_line(story: &Story) -> String {
    let waiting: Vec<&str> = story
        .stages
        .iter()
        .filter(|(_, stage)| stage.started.is_none() && stage.report.is_none())
        .map(|(name, _)| name.as_str())
        .collect();
    if waiting.is_empty() || story.end.is_some() {
        return String::new();
    }
    let shown = waiting
        .iter()
        .take(WAITING_SHOWN)
        .copied()
        .collect::<Vec<_>>()
        .join(", ");
    match waiting.len().saturating_sub(WAITING_SHOWN) {
        0 => format!("waiting: {shown}"),
        more => format!("waiting: {shown} and {more} more"),
    }
}

fn progress_text(done: u64, total: Option<u64>, note: Option<&str>) -> String {
    let note = note.unwrap_or_default();
    match total {
        Some(total) => format!("{done}/{total} {note}"),
        None => format!("{done} {note}"),
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples;
    use indicatif::TermLike;
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    /// Keeps everything that was ever drawn.
    #[derive(Clone, Debug, Default)]
    struct Drawn(Arc<Mutex<String>>);

    impl Drawn {
        fn take(&self) -> String {
            std::mem::take(&mut self.0.lock().expect("not poisoned"))
        }

        fn add(&self, text: &str) -> io::Result<()> {
            self.0.lock().expect("not poisoned").push_str(text);
            Ok(())
        }
    }

    impl TermLike for Drawn {
        fn width(&self) -> u16 {
            200
        }
        fn height(&self) -> u16 {
            60
        }
        fn move_cursor_up(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_down(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_right(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_left(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn write_line(&self, text: &str) -> io::Result<()> {
            self.add(text)?;
            self.add("\n")
        }
        fn write_str(&self, text: &str) -> io::Result<()> {
            self.add(text)
        }
        fn clear_line(&self) -> io::Result<()> {
            Ok(())
        }
        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_stands_on_the_screen() {
        let drawn = Drawn::default();
        let target = ProgressDrawTarget::term_like(Box::new(drawn.clone()));
        let mut tty = Tty::new(target, Palette { colour: false });
        let events = samples::failed_run();
        let (first, rest) = events.split_at(2);
        first.iter().for_each(|stamped| tty.event(stamped));
        tty.running.values().for_each(ProgressBar::tick);
        let live = drawn.take();
        for part in ["run 01hf7yat00", "migrate 0s migrate", "waiting: web, notify"] {
            assert!(live.contains(part), "{part} in\n{live}");
        }
        rest.iter().for_each(|stamped| tty.event(stamped));
        tty.finish();
        let end = drawn.take();
        for part in [
            "[migrate] ✓ succeeded in 1.2 s: 3 migrations applied",
            "next: windlass run --from web",
        ] {
            assert!(end.contains(part), "{part} in\n{end}");
        }
    }

    #[test]
    fn what_waits() {
        let mut story = Story::new(0);
        let events = samples::failed_run();
        story.event(&events[0]);
        assert_eq!(waiting_line(&story), "waiting: migrate, web, notify");
        events.iter().for_each(|stamped| story.event(stamped));
        assert_eq!(waiting_line(&story), "", "nothing waits once the run is over");
    }
}
