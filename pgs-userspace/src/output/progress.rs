//! What a command is doing while it takes time: a spinner on a terminal, else a line each.

use std::collections::BTreeMap;

use indicatif::ProgressBar;
use indicatif::ProgressDrawTarget;
use indicatif::ProgressStyle;

use crate::config::limits::SPINNER_INTERVAL;
use crate::container::image::PullProgress;
use crate::output::Printer;

/// Something that is being done. Its line goes away when it ends.
#[derive(Debug)]
pub struct Step {
    bar: Option<ProgressBar>,
}

impl Printer {
    /// Says what is being done from now on.
    pub fn step(self, text: &str) -> Step {
        if !self.progress {
            self.note(text);
            return Step { bar: None };
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        bar.set_message(text.to_owned());
        bar.enable_steady_tick(SPINNER_INTERVAL);
        Step { bar: Some(bar) }
    }

    /// How much of an image is here already.
    pub fn download(self, image: &str) -> Download {
        let text = format!("pulling image `{image}`");
        if !self.progress {
            self.note(&text);
            return Download {
                bar: None,
                layers: BTreeMap::new(),
            };
        }
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
        let template = "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec}";
        // The template is fixed text; the plain bar serves if it should not parse.
        bar.set_style(
            ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()),
        );
        bar.set_message(text);
        bar.enable_steady_tick(SPINNER_INTERVAL);
        Download {
            bar: Some(bar),
            layers: BTreeMap::new(),
        }
    }
}

impl Step {
    /// What is being done now instead.
    pub fn becomes(&self, printer: Printer, text: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(text.to_owned()),
            None => printer.note(text),
        }
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// An image on its way here, layer by layer.
#[derive(Debug)]
pub struct Download {
    bar: Option<ProgressBar>,
    layers: BTreeMap<String, (u64, u64)>,
}

impl Download {
    /// One layer has come further.
    pub fn advance(&mut self, progress: PullProgress) {
        let (Some(bar), Some(bytes)) = (&self.bar, progress.bytes) else {
            return;
        };
        // Unpacking counts from zero again; only the download has a meaningful sum.
        if progress.status != "Downloading" {
            return;
        }
        self.layers.insert(progress.layer, bytes);
        bar.set_length(self.layers.values().map(|(_, total)| total).sum());
        bar.set_position(self.layers.values().map(|(current, _)| current).sum());
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
