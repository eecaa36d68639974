//! The text format itself: families, samples, labels.

use std::fmt::{Display, Write};

/// What a family is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
    Summary,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Summary => "summary",
        }
    }
}

/// The text as it grows.
#[derive(Debug, Default)]
pub(super) struct Exposition {
    text: String,
}

/// A name and a value.
pub(super) type Label<'a> = (&'a str, &'a str);

impl Exposition {
    /// Begins a family; its samples follow at once.
    pub(super) fn family(&mut self, name: &str, kind: Kind, help: &str) {
        self.push(format_args!("# HELP {name} {help}\n# TYPE {name} {}\n", kind.name()));
    }

    pub(super) fn sample(&mut self, name: &str, labels: &[Label<'_>], value: impl Display) {
        self.text.push_str(name);
        for (index, (label, text)) in labels.iter().enumerate() {
            self.push(format_args!("{}{label}=\"{}\"", if index == 0 { '{' } else { ',' }, escape(text)));
        }
        self.push(format_args!("{} {value}\n", if labels.is_empty() { "" } else { "}" }));
    }

    /// The samples of a histogram: `counts` up to each of `bounds` (in seconds) and beyond the last, and the
    /// sum of what was counted if it is known.
    pub(super) fn histogram(
        &mut self,
        name: &str,
        labels: &[Label<'_>],
        bounds: &[f64],
        counts: &[u64],
        sum_seconds: Option<f64>,
    ) {
        let bucket = format!("{name}_bucket");
        let mut below = 0_u64;
        let texts = bounds.iter().map(f64::to_string).chain(std::iter::once("+Inf".to_owned()));
        for (bound, count) in texts.zip(counts) {
            below = below.saturating_add(*count);
            self.sample(&bucket, &[labels, &[("le", &bound)]].concat(), below);
        }
        if let Some(sum_seconds) = sum_seconds {
            self.sample(&format!("{name}_sum"), labels, sum_seconds);
        }
        self.sample(&format!("{name}_count"), labels, below);
    }

    pub(super) fn finish(self) -> String {
        self.text
    }

    fn push(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing to a string never fails.
        let _ = self.text.write_fmt(text);
    }
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_stand_as_the_format_says() {
        let mut out = Exposition::default();
        out.family("f_total", Kind::Counter, "What it is");
        out.sample("f_total", &[], 3);
        out.sample("f_total", &[("a", "x\"y\\z\n"), ("b", "1")], 0.5);
        out.histogram("h", &[("op", "read")], &[0.001, 0.01], &[1, 2, 3], Some(1.5));
        assert_eq!(
            out.finish(),
            "# HELP f_total What it is\n# TYPE f_total counter\nf_total 3\n\
             f_total{a=\"x\\\"y\\\\z\\n\",b=\"1\"} 0.5\n\
             h_bucket{op=\"read\",le=\"0.001\"} 1\nh_bucket{op=\"read\",le=\"0.01\"} 3\n\
             h_bucket{op=\"read\",le=\"+Inf\"} 6\nh_sum{op=\"read\"} 1.5\nh_count{op=\"read\"} 6\n"
        );
    }
}
