//! From the run's events to every report that was asked for: redacted once, stamped once, on a thread of its own.

use crate::{
    event::{RunEvent, StageReport},
    failure::Failure,
    journal::{Journal, LogLine},
    report::{Reporter, Stamped, redact::Redactor},
};
use std::sync::Arc;
use tokio::sync::mpsc;

/// The reports of one run.
pub(super) struct Reports {
    redactor: Redactor,
    journal: Arc<dyn Journal>,
    reporters: Vec<Box<dyn Reporter>>,
}

impl Reports {
    pub(super) fn new(redactor: Redactor, journal: Arc<dyn Journal>) -> Self {
        Self {
            redactor,
            journal,
            reporters: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, reporter: impl Reporter + 'static) {
        self.reporters.push(Box::new(reporter));
    }

    /// Until the last sender of events is gone.
    pub(super) fn consume(mut self, mut events: mpsc::Receiver<RunEvent>) {
        while let Some(mut event) = events.blocking_recv() {
            redact(&mut event, &self.redactor);
            if let RunEvent::StageLog {
                stage,
                attempt,
                level,
                message,
                fields,
            } = &event
            {
                let (stage, attempt, level) = (stage.clone(), *attempt, *level);
                self.journal.log(LogLine {
                    stage,
                    attempt,
                    level,
                    message: message.clone(),
                    fields: fields.clone(),
                });
            }
            let stamped = Stamped {
                ts: jiff::Timestamp::now(),
                event,
            };
            self.reporters
                .iter_mut()
                .for_each(|reporter| reporter.event(&stamped));
        }
        self.reporters.iter_mut().for_each(|reporter| reporter.finish());
    }
}

/// Masks every text of an event that somebody outside may have written.
fn redact(event: &mut RunEvent, redactor: &Redactor) {
    let text = |text: &mut String| *text = redactor.redact(text);
    match event {
        RunEvent::RunStarted { .. } | RunEvent::StageStarted { .. } => {}
        RunEvent::StageLog { message, fields, .. } => {
            text(message);
            for (key, value) in fields {
                text(key);
                text(value);
            }
        }
        RunEvent::StageProgress { note, .. } => note.iter_mut().for_each(text),
        RunEvent::StageRetrying { failure, .. } => redact_failure(failure, redactor),
        RunEvent::StageKnown { report, .. } | RunEvent::StageFinished { report, .. } => {
            redact_report(report, redactor)
        }
        RunEvent::StageCompensated { summary, failure, .. } => {
            text(summary);
            failure
                .iter_mut()
                .for_each(|failure| redact_failure(failure, redactor));
        }
        RunEvent::Notice { message, .. } => text(message),
        RunEvent::RunFinished { next, .. } => next.iter_mut().for_each(text),
    }
}

fn redact_report(report: &mut StageReport, redactor: &Redactor) {
    report.summary = redactor.redact(&report.summary);
    let outputs = std::mem::take(&mut report.outputs);
    report.outputs = outputs
        .into_iter()
        .map(|(key, mut value)| {
            redactor.redact_json(&mut value);
            (redactor.redact(&key), value)
        })
        .collect();
    report
        .failure
        .iter_mut()
        .for_each(|failure| redact_failure(failure, redactor));
}

fn redact_failure(failure: &mut Failure, redactor: &Redactor) {
    failure.code = redactor.redact(&failure.code);
    failure.message = redactor.redact(&failure.message);
    failure.help = failure.help.as_deref().map(|help| redactor.redact(help));
    failure
        .details
        .iter_mut()
        .for_each(|details| redactor.redact_json(details));
    failure
        .stack
        .iter_mut()
        .for_each(|frame| *frame = redactor.redact(frame));
}
