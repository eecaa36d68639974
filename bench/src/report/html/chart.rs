//! Lines over two axes, as SVG.
//!
//! A chart is drawn twice, once for a wide page and once for a phone, and the style sheet shows the one
//! that fits: scaled down from the wide one, labels could not be read. Colours come from the style
//! sheet too. A line of more points than the plot has columns keeps the least and the greatest of each
//! column, so that no stall is averaged away.

use std::fmt::{self, Display};

use super::Text;
use super::scale::Scale;

/// Colours that the style sheet has for lines, and one more for what was not measured.
const COLOURS: usize = 6;
/// The colour of a line that says what was asked for.
pub(super) const PLANNED: usize = COLOURS;
/// Around the plot: tick labels, and the axes' titles above and below.
const LEFT: f64 = 58.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 30.0;
const BOTTOM: f64 = 42.0;
/// Room of a line of the y axis' labels.
const TICK_HEIGHT: f64 = 20.0;

/// One chart.
pub(super) struct Chart<'c> {
    /// What it shows, for those who do not see it.
    pub(super) about: &'c str,
    pub(super) x: Axis<'c>,
    pub(super) y: Axis<'c>,
    pub(super) lines: Vec<Line<'c>>,
    /// Places on the x axis to be marked, and what they mean.
    pub(super) marks: Option<(&'c str, Vec<f64>)>,
}

pub(super) struct Axis<'c> {
    pub(super) title: &'c str,
    pub(super) scale: Scale,
    /// The widest label, in pixels.
    pub(super) label_width: f64,
}

pub(super) struct Line<'c> {
    pub(super) name: &'c str,
    pub(super) colour: usize,
    /// Ascending in x.
    pub(super) points: Vec<(f64, f64)>,
}

impl Display for Chart<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.legend(f)?;
        self.draw(f, "wide", 800.0, 320.0)?;
        self.draw(f, "narrow", 370.0, 280.0)
    }
}

impl Chart<'_> {
    fn legend(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<ul class=\"legend\">")?;
        for line in &self.lines {
            write!(
                f,
                "<li><svg viewBox=\"0 0 26 10\" aria-hidden=\"true\"><path class=\"line s{}\" d=\"M1 5H25\"/></svg>{}</li>",
                line.class(),
                Text(line.name)
            )?;
        }
        if let Some((meaning, _)) = self.marks.as_ref().filter(|(_, places)| !places.is_empty()) {
            write!(
                f,
                "<li><svg viewBox=\"0 0 26 10\" aria-hidden=\"true\"><path class=\"mark\" d=\"M13 0V10\"/></svg>{}</li>",
                Text(meaning)
            )?;
        }
        f.write_str("</ul>\n")
    }

    fn draw(&self, f: &mut fmt::Formatter<'_>, class: &str, width: f64, height: f64) -> fmt::Result {
        let plot = Plot { width: width - LEFT - RIGHT, height: height - TOP - BOTTOM };
        let (right, bottom) = (LEFT + plot.width, TOP + plot.height);
        writeln!(
            f,
            "<svg class=\"chart {class}\" viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{}\">",
            Text(self.about)
        )?;
        for tick in self.y.scale.ticks((plot.height / TICK_HEIGHT) as usize) {
            let y = plot.y(tick.at);
            writeln!(f, "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{right}\"/>")?;
            let (x, y) = (LEFT - 8.0, y + 4.0);
            writeln!(f, "<text x=\"{x}\" y=\"{y:.1}\" text-anchor=\"end\">{}</text>", Text(&tick.label))?;
        }
        let columns = (plot.width / self.x.label_width) as usize;
        for tick in self.x.scale.ticks(columns) {
            let x = plot.x(tick.at);
            writeln!(f, "<path class=\"grid\" d=\"M{x:.1} {TOP}V{}\"/>", bottom + 4.0)?;
            let y = bottom + 18.0;
            writeln!(f, "<text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\">{}</text>", Text(&tick.label))?;
        }
        writeln!(f, "<text x=\"2\" y=\"14\">{}</text>", Text(self.y.title))?;
        let (middle, below) = (LEFT + plot.width / 2.0, height - 6.0);
        writeln!(
            f,
            "<text x=\"{middle}\" y=\"{below}\" text-anchor=\"middle\">{}</text>",
            Text(self.x.title)
        )?;
        let places = self.marks.iter().flat_map(|(_, places)| places);
        let mut places: Vec<f64> =
            places.filter_map(|place| Some(plot.x(self.x.scale.position(*place)?).round())).collect();
        places.dedup();
        for x in places {
            writeln!(f, "<path class=\"mark\" d=\"M{x} {bottom}v-8\"/>")?;
        }
        for line in &self.lines {
            write!(f, "<path class=\"line s{}\" d=\"", line.class())?;
            self.path(f, line, plot)?;
            f.write_str("\"/>\n")?;
        }
        f.write_str("</svg>\n")
    }

    /// The line, broken where a value has no place.
    fn path(&self, f: &mut fmt::Formatter<'_>, line: &Line<'_>, plot: Plot) -> fmt::Result {
        let places: Vec<Option<(f64, f64)>> = line
            .points
            .iter()
            .map(|(x, y)| Some((plot.x(self.x.scale.position(*x)?), plot.y(self.y.scale.position(*y)?))))
            .collect();
        // Two points of each run.
        let run = match places.len() as f64 > plot.width {
            true => (2.0 * places.len() as f64 / plot.width).ceil() as usize,
            false => 1,
        };
        for part in places.split(Option::is_none).filter(|part| !part.is_empty()) {
            let part: Vec<(f64, f64)> = part.iter().copied().flatten().collect();
            let (x, y) = part[0];
            // A line without length shows as a dot: ends are round.
            write!(f, "M{x:.1} {y:.1}h0")?;
            for (x, y) in thinned(&part, run) {
                write!(f, "L{x:.1} {y:.1}")?;
            }
        }
        Ok(())
    }
}

impl Line<'_> {
    /// More lines than colours take theirs again from the first.
    const fn class(&self) -> usize {
        if self.colour == PLANNED { PLANNED } else { self.colour % COLOURS }
    }
}

/// The area between the axes, in pixels.
#[derive(Debug, Clone, Copy)]
struct Plot {
    width: f64,
    height: f64,
}

impl Plot {
    fn x(self, at: f64) -> f64 {
        LEFT + at * self.width
    }

    fn y(self, at: f64) -> f64 {
        TOP + (1.0 - at) * self.height
    }
}

/// Of each run of so many neighbours the highest and the lowest, in their order.
fn thinned(points: &[(f64, f64)], run: usize) -> Vec<(f64, f64)> {
    let by_height = |a: &&(f64, f64), b: &&(f64, f64)| a.1.total_cmp(&b.1);
    let mut kept = Vec::new();
    for neighbours in points.chunks(run) {
        let ends = [neighbours.iter().min_by(by_height), neighbours.iter().max_by(by_height)];
        let mut ends: Vec<(f64, f64)> = ends.into_iter().flatten().copied().collect();
        ends.sort_by(|a, b| a.0.total_cmp(&b.0));
        ends.dedup();
        kept.extend(ends);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thinning_keeps_the_one_second_that_stalled() {
        let mut points: Vec<(f64, f64)> = (0..10_000).map(|x| (f64::from(x), 100.0)).collect();
        points[7777].1 = 3.0;
        let kept = thinned(&points, 30);
        assert!(kept.len() <= 2 * 334 && kept.contains(&(7777.0, 3.0)));
        assert!(kept.is_sorted_by(|a, b| a.0 < b.0));
        assert_eq!(thinned(&points[..5], 1), points[..5]);
    }

    #[test]
    fn a_line_is_broken_where_there_is_no_latency() {
        let axis = |scale| Axis { title: "<t>", scale, label_width: 40.0 };
        let chart = Chart {
            about: "a & b",
            x: axis(Scale::Linear { max: 4.0 }),
            y: axis(Scale::Log { min_us: 1.0, max_us: 100.0 }),
            lines: vec![Line {
                name: "p50",
                colour: 0,
                points: vec![(1.0, 10.0), (2.0, 0.0), (3.0, 10.0), (4.0, 1.0)],
            }],
            marks: Some(("failed", vec![2.0])),
        };
        let svg = chart.to_string();
        assert!(svg.contains("aria-label=\"a &amp; b\"") && svg.contains("&lt;t&gt;"), "{svg}");
        assert!(
            svg.contains("d=\"M237.5 154.0h0L237.5 154.0M596.5 154.0h0L596.5 154.0L776.0 278.0\""),
            "{svg}"
        );
        assert_eq!(svg.matches("class=\"mark\"").count(), 3);
    }
}
