//! The drawing: one SVG file without references to anything else.
//!
//! Boxes stand on the function that called them, in the order of their names, so that two drawings can
//! be laid side by side. Pointing at a box shows its whole name and numbers; a click makes it as wide as
//! the drawing (`zoom.js`, inside of the file), a click on the lowest box undoes that.
//!
//! Limits: boxes narrower than a fifth of a unit are left out, with all that stands on them.

use std::fmt::Write as _;

use super::room::Room;
use super::tree::{Node, Tree};

/// Width of the drawing, in units that are pixels until it is scaled.
const WIDTH: f64 = 1200.0;
const BOX_HEIGHT: usize = 16;
/// Above the boxes: title and colours.
const HEAD_HEIGHT: usize = 48;
/// Narrower boxes are left out.
const WIDTH_MIN: f64 = 0.2;
/// Of a character at the size of letters below.
const LETTER_WIDTH: f64 = 6.7;
/// Left of the letters in a box.
const LETTERS_LEFT: f64 = 3.0;
/// Fewer letters of a name that is cut say nothing.
const LETTERS_MIN: usize = 4;
/// The change of a share at which red and blue are full.
const CHANGE_FULL: f64 = 0.05;
/// What the lowest box is called.
const ALL: &str = "all";

const STYLE: &str = "text{font:11px monospace;pointer-events:none}rect{stroke:#fff;stroke-width:.4}\
    g.f:hover rect{stroke:#000;stroke-width:1}.t{font-size:15px}";
const ZOOM: &str = include_str!("zoom.js");

/// Draws a tree that is not empty.
pub(super) fn draw(tree: &Tree, title: &str, unit: &str) -> String {
    let depth = shown_depth(&tree.root, WIDTH / tree.root.total as f64);
    let height = HEAD_HEIGHT + BOX_HEIGHT * depth + BOX_HEIGHT / 2;
    let mut drawing = Drawing { tree, unit, text: String::new(), height, rooms: Vec::new() };
    drawing.frame(ALL, &tree.root, 0, 0.0);
    let Drawing { text: boxes, rooms, .. } = drawing;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         height=\"{height}\">\n<style>{STYLE}</style>\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text class=\"t\" x=\"4\" y=\"18\">{}</text>\n{}{boxes}",
        escaped(title),
        legend(tree, rooms),
    );
    // In a section of its own, its `<` and `&` mean nothing to a reader of XML.
    write!(svg, "<script><![CDATA[\n{ZOOM}]]></script>\n</svg>\n").expect("a string takes everything");
    svg
}

struct Drawing<'t> {
    tree: &'t Tree,
    unit: &'t str,
    text: String,
    height: usize,
    /// Those that were drawn.
    rooms: Vec<Room>,
}

impl Drawing<'_> {
    fn frame(&mut self, name: &str, node: &Node, depth: usize, left: f64) {
        let whole = self.tree.root.total as f64;
        let width = WIDTH * node.total as f64 / whole;
        if width < WIDTH_MIN {
            return;
        }
        let room = Room::of(name);
        if !self.rooms.contains(&room) {
            self.rooms.push(room);
        }
        let change = self.tree.change(node);
        let [red, green, blue] = change.map_or_else(|| room.colour(), change_colour);
        let more = change.map_or_else(String::new, |change| format!("; {:+.2} % of all", 100.0 * change));
        let top = self.height - BOX_HEIGHT * (depth + 1);
        writeln!(
            self.text,
            "<g class=\"f\"><title>{} ({} {}, {:.2} %{more})</title><rect x=\"{left:.2}\" y=\"{top}\" \
             width=\"{width:.2}\" height=\"{BOX_HEIGHT}\" fill=\"rgb({red},{green},{blue})\"/>\
             <text x=\"{:.2}\" y=\"{}\">{}</text></g>",
            escaped(name),
            node.total,
            escaped(self.unit),
            100.0 * node.total as f64 / whole,
            left + LETTERS_LEFT,
            top + BOX_HEIGHT - 4,
            escaped(fitting(name, width)),
        )
        .expect("a string takes everything");
        let mut left = left;
        for (name, callee) in &node.callees {
            self.frame(name, callee, depth + 1, left);
            left += WIDTH * callee.total as f64 / whole;
        }
    }
}

/// What the colours mean, in a row of boxes.
fn legend(tree: &Tree, mut rooms: Vec<Room>) -> String {
    rooms.sort_unstable();
    let entries: Vec<(&str, [u8; 3])> = match tree.other_total {
        None => rooms.into_iter().map(|room| (room.name(), room.colour())).collect(),
        Some(_) => vec![("more than in the other", change_colour(1.0)), ("less", change_colour(-1.0))],
    };
    let (mut legend, mut left) = (String::new(), 4.0);
    for (name, [red, green, blue]) in entries {
        let width = name.len() as f64 * LETTER_WIDTH + 4.0 * LETTERS_LEFT;
        writeln!(
            legend,
            "<rect x=\"{left:.1}\" y=\"26\" width=\"{width:.1}\" height=\"{BOX_HEIGHT}\" \
             fill=\"rgb({red},{green},{blue})\"/><text x=\"{:.1}\" y=\"38\">{name}</text>",
            left + 2.0 * LETTERS_LEFT
        )
        .expect("a string takes everything");
        left += width + 4.0;
    }
    legend
}

/// How many boxes stand on each other where most do, the lowest counted.
fn shown_depth(node: &Node, scale: f64) -> usize {
    if node.total as f64 * scale < WIDTH_MIN {
        return 0;
    }
    1 + node.callees.values().map(|callee| shown_depth(callee, scale)).max().unwrap_or(0)
}

/// From white for no change to red for more and blue for less, pale enough for black letters.
fn change_colour(change: f64) -> [u8; 3] {
    let pale = 240.0 - 130.0 * (change.abs() / CHANGE_FULL).min(1.0);
    let pale = pale as u8;
    if change > 0.0 { [250, pale, pale] } else { [pale, pale, 250] }
}

/// As much of a name as fits into a box, with two dots when it is cut; nothing of it in a tiny one. The
/// modules in front go first: colours tell the room, and the end of a name tells most.
fn fitting(mut name: &str, width: f64) -> String {
    let letters = ((width - 2.0 * LETTERS_LEFT) / LETTER_WIDTH).max(0.0) as usize;
    let is_module = |part: &str| part.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_'));
    while name.chars().count() > letters {
        match name.split_once("::") {
            Some((module, inner)) if is_module(module) => name = inner,
            _ => break,
        }
    }
    if name.chars().count() <= letters {
        return name.to_owned();
    }
    if letters < LETTERS_MIN {
        return String::new();
    }
    name.chars().take(letters - 2).chain("..".chars()).collect()
}

/// As text of XML; characters that no XML may hold are left out.
fn escaped(text: impl AsRef<str>) -> String {
    let mut escaped = String::new();
    for c in text.as_ref().chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\u{fffe}' | '\u{ffff}' => {}
            _ if c.is_control() => {}
            _ => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flame::Profile;

    fn drawing(profile: &str, other: Option<&str>) -> String {
        let parse = |text| Profile::parse(text).unwrap();
        let (profile, other) = (parse(profile), other.map(parse));
        draw(&Tree::new(&profile, other.as_ref()), "<title> & \"more\"", "samples")
    }

    /// Panics if elements do not close in order, or text holds what must be escaped.
    fn assert_well_formed(svg: &str) {
        let (before, script) = svg.split_once("<script><![CDATA[").unwrap();
        let (script, after) = script.split_once("]]>").unwrap();
        assert!(!script.contains("<![CDATA["));
        let mut open = Vec::new();
        for piece in format!("{before}<script>{after}").split('<').skip(1) {
            let (tag, text) = piece.split_once('>').unwrap();
            assert!(!text.contains('>') && tag.matches('"').count() % 2 == 0, "{piece}");
            for entity in piece.split('&').skip(1) {
                assert!(
                    ["amp;", "lt;", "gt;", "quot;"].iter().any(|known| entity.starts_with(known)),
                    "{piece}"
                );
            }
            if let Some(name) = tag.strip_prefix('/') {
                assert_eq!(open.pop(), Some(name.to_owned()), "{piece}");
            } else if !tag.ends_with('/') {
                open.push(tag.split(' ').next().unwrap().to_owned());
            }
        }
        assert!(open.is_empty(), "{open:?}");
    }

    #[test]
    fn boxes_are_as_wide_as_their_samples_and_stand_on_their_callers() {
        let svg = drawing("p;pinion_engine::a 3\np;pinion_engine::a;b_[k] 3\nq 6\n", None);
        assert_well_formed(&svg);
        assert!(!svg.contains("href") && svg.matches("<g class=\"f\">").count() == 5, "{svg}");
        for part in [
            "<title>all (12 samples, 100.00 %)</title><rect x=\"0.00\" y=\"104\" width=\"1200.00\"",
            "<title>p (6 samples, 50.00 %)</title><rect x=\"0.00\" y=\"88\" width=\"600.00\"",
            "<title>b_[k] (3 samples, 25.00 %)</title><rect x=\"0.00\" y=\"56\" width=\"300.00\" height=\"16\" \
             fill=\"rgb(240,175,120)\"",
            "<title>q (6 samples, 50.00 %)</title><rect x=\"600.00\" y=\"88\" width=\"600.00\"",
            ">engine</text>",
            ">kernel</text>",
        ] {
            assert!(svg.contains(part), "{part}\n{svg}");
        }
    }

    #[test]
    fn names_are_escaped_and_slivers_left_out() {
        let svg = drawing("p;<a::B<&'_ str> as \"c\">::d\u{1b}\u{0} 99999\np;sliver 1\n", None);
        assert_well_formed(&svg);
        assert!(
            svg.contains("<title>&lt;a::B&lt;&amp;'_ str&gt; as &quot;c&quot;&gt;::d (99999 samples"),
            "{svg}"
        );
        assert!(svg.contains(">&lt;title&gt; &amp; &quot;more&quot;</text>"));
        assert!(!svg.contains("sliver"));
    }

    #[test]
    fn a_comparison_is_red_for_more_and_blue_for_less() {
        let svg =
            drawing("p;more 60\np;less 20\np;same 20\n", Some("p;more 4\np;less 4\np;same 2\np;gone 0\n"));
        assert_well_formed(&svg);
        for (name, change, colour) in [
            ("more", "+20.00", "250,110,110"),
            ("less", "-20.00", "110,110,250"),
            ("same", "+0.00", "240,240,250"),
        ] {
            let title = svg.lines().find(|line| line.contains(&format!("<title>{name} "))).unwrap();
            assert!(title.contains(&format!("; {change} % of all")), "{title}");
            assert!(title.contains(&format!("rgb({colour})")), "{title}");
        }
    }

    #[test]
    fn names_are_cut_to_their_box() {
        assert_eq!(fitting("abcdef", 6.0 * LETTER_WIDTH + 2.0 * LETTERS_LEFT + 0.1), "abcdef");
        assert_eq!(fitting("äbcdef", 5.0 * LETTER_WIDTH + 2.0 * LETTERS_LEFT + 0.1), "äbc..");
        assert_eq!(fitting("abcdef", 20.0), "");
        let wide = |letters: f64| (letters + 0.1) * LETTER_WIDTH + 2.0 * LETTERS_LEFT;
        assert_eq!(fitting("a::b_c::D::e", wide(9.0)), "b_c::D::e");
        assert_eq!(fitting("a::b_c::D::e", wide(8.0)), "D::e");
        assert_eq!(fitting("a::Def<b::c>::d", wide(6.0)), "Def<..");
        assert_eq!(fitting("abcdef", 0.3), "");
    }
}
