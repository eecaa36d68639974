//! What each figure may be at most, and what is said of one that is not within its bound.

/// The bounds that are in force: a line for each figure, its bound in a dev and in a release build.
pub(super) const BOUNDS: &str = include_str!("../../counts.txt");

/// A bound that would be set to less than this part of itself has been outgrown: it would let a
/// regression through.
const LOOSE: f64 = 0.85;

/// What another compiler than that of the bounds may make of the same code, in percent.
const COMPILER_PERCENT: f64 = 15.0;

/// What begins the line that names the bounds' compiler.
const COMPILER: &str = "# compiler: ";

/// An optimisation whose figures have bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Profile {
    Dev,
    Release,
}

/// How this program was built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Build {
    pub(super) profile: Profile,
    /// By the compiler that the bounds are of.
    pub(super) same_compiler: bool,
}

impl Build {
    /// This program's; `None` when it is optimised as neither profile.
    pub(super) fn this(bounds: &str) -> Option<Self> {
        let profile = match (env!("PINION_TESTS_OPT_LEVEL"), cfg!(debug_assertions)) {
            ("1", true) => Profile::Dev,
            ("3", false) => Profile::Release,
            _ => return None,
        };
        let compiler = bounds.lines().find_map(|line| line.strip_prefix(COMPILER));
        Some(Self { profile, same_compiler: compiler == Some(env!("PINION_TESTS_COMPILER")) })
    }
}

/// Something that was counted.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Figure {
    /// What; its name in the list of bounds.
    pub(super) name: String,
    /// How much.
    pub(super) value: f64,
}

/// A line of the list of bounds.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Bound {
    pub(super) name: String,
    dev: f64,
    release: f64,
}

impl Bound {
    /// As it is listed.
    fn listed(&self, profile: Profile) -> f64 {
        match profile {
            Profile::Dev => self.dev,
            Profile::Release => self.release,
        }
    }

    /// What the figure of a build may be at most.
    pub(super) fn at(&self, build: Build) -> f64 {
        let listed = self.listed(build.profile);
        if build.same_compiler || !Kind::of(&self.name).is_compiled() {
            return listed;
        }
        listed * (1.0 + COMPILER_PERCENT / 100.0)
    }
}

/// What a figure depends on, by its name, and so how far its bound is from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// On our code and the compiler: exact. A little room for a change of no importance elsewhere in a
    /// crate, which changes what is inlined.
    Compiled,
    /// On our code alone: exact.
    Exact,
    /// On how soon the disk has written: it decides how many writes share one sync. At most one for each
    /// turn of the core.
    Synced,
    /// On our code, and on how soon the disk has written.
    CallsOfPuts,
    /// On our code and on the moment at which the kernel has done its part.
    Calls,
    /// On things that happen once in a while: the allocator grows.
    Rare,
}

impl Kind {
    fn of(name: &str) -> Self {
        match name.rsplit_once(": ").map_or(name, |(_, what)| what) {
            "instructions" | "bytes copied" => Self::Compiled,
            "allocations" => Self::Exact,
            "synced writes" => Self::Synced,
            "other system calls" => Self::Rare,
            _ if name.starts_with("process: put") => Self::CallsOfPuts,
            _ => Self::Calls,
        }
    }

    fn is_compiled(self) -> bool {
        self == Self::Compiled
    }

    /// The bound of a figure.
    fn bound(self, value: f64) -> f64 {
        let most = match self {
            Self::Compiled => value * 1.03,
            Self::Exact => value,
            Self::Synced => value * 2.0,
            Self::CallsOfPuts => value * 1.5,
            Self::Calls => value * 1.25,
            Self::Rare => value + 0.02,
        };
        if most >= 100.0 { most.ceil() } else { (most * 1_000.0).ceil() / 1_000.0 }
    }
}

/// The bounds in a text. Lines that begin with # are for people.
///
/// # Panics
/// When a line is none, or a figure has two.
pub(super) fn parse(text: &str) -> Vec<Bound> {
    let mut bounds: Vec<Bound> = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
        let bound = parse_line(line).unwrap_or_else(|| panic!("not `name  dev  release`: {line:?}"));
        assert!(bounds.iter().all(|other| other.name != bound.name), "two bounds for {:?}", bound.name);
        bounds.push(bound);
    }
    bounds
}

fn parse_line(line: &str) -> Option<Bound> {
    let (rest, release) = line.trim_end().rsplit_once(' ')?;
    let (name, dev) = rest.trim_end().rsplit_once(' ')?;
    let number = |text: &str| text.parse().ok().filter(|number: &f64| number.is_finite() && *number >= 0.0);
    Some(Bound { name: name.trim_end().to_owned(), dev: number(dev)?, release: number(release)? })
}

/// What was found of the figures of one run.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Verdict {
    /// Within their bounds.
    pub(super) within: usize,
    /// What is wrong, a line each: over a bound, without a bound, a bound without a figure.
    pub(super) wrong: Vec<String>,
    /// Bounds that figures have outgrown, a line each.
    pub(super) loose: Vec<String>,
}

/// Compares figures with bounds. `skipped` are names that could not be counted, or begin with it.
pub(super) fn judge(bounds: &[Bound], figures: &[Figure], skipped: &[String], build: Build) -> Verdict {
    let mut verdict = Verdict::default();
    for Figure { name, value } in figures {
        let Some(bound) = bounds.iter().find(|bound| bound.name == *name) else {
            verdict.wrong.push(format!("{name}: {} has no bound; give it one", shown(*value)));
            continue;
        };
        let most = bound.at(build);
        if *value > most {
            verdict.wrong.push(format!("{name}: {}, at most {}", shown(*value), shown(most)));
            continue;
        }
        verdict.within += 1;
        if Kind::of(name).bound(*value) < most * LOOSE {
            verdict.loose.push(format!("{name}: {}, far below {}", shown(*value), shown(most)));
        }
    }
    for bound in bounds {
        let counted = figures.iter().any(|figure| figure.name == bound.name);
        if !counted && !skipped.iter().any(|skipped| bound.name.starts_with(skipped)) {
            verdict.wrong.push(format!("{}: has a bound and was not counted; take it out", bound.name));
        }
    }
    verdict
}

/// The list of bounds with those of this profile as they follow from these figures.
pub(super) fn propose(text: &str, figures: &[Figure], profile: Profile) -> String {
    let mut proposed = String::new();
    for line in text.lines().take_while(|line| line.starts_with('#')) {
        proposed.push_str(&match line.strip_prefix(COMPILER) {
            Some(_) => format!("{COMPILER}{}\n", env!("PINION_TESTS_COMPILER")),
            None => format!("{line}\n"),
        });
    }
    let bounds = parse(text);
    for Figure { name, value } in figures {
        let before = bounds.iter().find(|bound| bound.name == *name);
        let before = |profile| before.map_or(0.0, |bound| bound.listed(profile));
        let new = Kind::of(name).bound(*value);
        let (dev, release) = match profile {
            Profile::Dev => (new, before(Profile::Release)),
            Profile::Release => (before(Profile::Dev), new),
        };
        proposed.push_str(&format!("{name:<58} {:>8} {:>8}\n", shown(dev), shown(release)));
    }
    proposed
}

/// A number with as many digits as say something.
pub(super) fn shown(value: f64) -> String {
    if value >= 100.0 {
        return format!("{value:.0}");
    }
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# compiler: rustc 1.0.0
# figure       dev  release
get: instructions      1000      400
get: allocations          0        0
process: get: enters  0.125    0.125
";

    const DEV: Build = Build { profile: Profile::Dev, same_compiler: true };

    fn figures(instructions: f64, allocations: f64, enters: f64) -> Vec<Figure> {
        [
            ("get: instructions", instructions),
            ("get: allocations", allocations),
            ("process: get: enters", enters),
        ]
        .map(|(name, value)| Figure { name: name.to_owned(), value })
        .into()
    }

    fn verdict(figures: &[Figure], build: Build) -> Verdict {
        judge(&parse(TEXT), figures, &[], build)
    }

    #[test]
    fn figures_at_their_bounds_are_within() {
        let verdict = verdict(&figures(1_000.0, 0.0, 0.125), DEV);
        assert_eq!(verdict, Verdict { within: 3, ..Verdict::default() });
    }

    #[test]
    fn a_figure_over_its_bound_is_named_with_both_numbers() {
        let said = |figures: Vec<Figure>, build| verdict(&figures, build).wrong;
        assert_eq!(said(figures(1_001.0, 0.0, 0.125), DEV), ["get: instructions: 1001, at most 1000"]);
        assert_eq!(said(figures(1_000.0, 0.001, 0.125), DEV), ["get: allocations: 0.001, at most 0"]);
        assert_eq!(said(figures(1_000.0, 0.0, 0.2), DEV), ["process: get: enters: 0.2, at most 0.125"]);
        // Each profile has bounds of its own.
        let release = Build { profile: Profile::Release, ..DEV };
        assert_eq!(said(figures(500.0, 0.0, 0.125), release), ["get: instructions: 500, at most 400"]);
    }

    #[test]
    fn another_compiler_has_more_room_for_what_it_compiles_and_nothing_else() {
        let other = Build { same_compiler: false, ..DEV };
        assert!(verdict(&figures(1_149.0, 0.0, 0.125), other).wrong.is_empty());
        assert_eq!(verdict(&figures(1_151.0, 1.0, 0.126), other).wrong.len(), 3);
    }

    #[test]
    fn a_figure_far_below_its_bound_asks_for_a_tighter_one_and_passes() {
        let verdict = verdict(&figures(700.0, 0.0, 0.125), DEV);
        assert_eq!((verdict.within, verdict.wrong.len()), (3, 0));
        assert_eq!(verdict.loose, ["get: instructions: 700, far below 1000"]);
    }

    #[test]
    fn figures_and_bounds_without_each_other_are_wrong() {
        let mut some = figures(1_000.0, 0.0, 0.125);
        let last = some.pop().unwrap();
        let missing = "process: get: enters: has a bound and was not counted; take it out";
        assert_eq!(verdict(&some, DEV).wrong, [missing]);
        let skipped = judge(&parse(TEXT), &some, &["process: ".to_owned()], DEV);
        assert_eq!((skipped.within, skipped.wrong.len()), (2, 0));
        let other = Figure { name: "scan: enters".to_owned(), value: 1.0 };
        let more = [some, vec![last, other]].concat();
        assert_eq!(verdict(&more, DEV).wrong, ["scan: enters: 1 has no bound; give it one"]);
    }

    #[test]
    fn what_is_proposed_is_a_list_that_holds() {
        let measured = figures(700.0, 0.0, 0.2);
        let proposed = propose(TEXT, &measured, Profile::Dev);
        let bounds = parse(&proposed);
        let found = judge(&bounds, &measured, &[], DEV);
        assert_eq!(found, Verdict { within: 3, ..Verdict::default() }, "{proposed}");
        assert_eq!((bounds[0].dev, bounds[0].release, bounds[2].dev), (721.0, 400.0, 0.25));
        assert!(Build::this(&proposed).is_none_or(|build| build.same_compiler), "{proposed}");
    }

    #[test]
    #[should_panic(expected = "not `name  dev  release`: \"get: 1\"")]
    fn a_line_without_two_numbers_is_refused() {
        parse("get: 1");
    }

    #[test]
    fn the_bounds_in_force_can_be_read() {
        assert!(parse(BOUNDS).len() > 40);
        assert!(BOUNDS.lines().any(|line| line.starts_with(COMPILER)));
    }
}
