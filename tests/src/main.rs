//! One command per class of trials: `cargo run --release -p pinion-tests -- <class>`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, ValueEnum};
use pinion_tests::trials::{CLASSES, Class, MUST_FAIL, Trials, append_result, result_json};

/// Runs trials of one class and prints what was counted. `list` prints the classes.
#[derive(Debug, Parser)]
#[command(name = "pinion-tests")]
struct Arguments {
    /// The class, or `list`.
    class: String,
    /// How many trials; without it as many as `--size` says.
    #[arg(long, conflicts_with = "size")]
    count: Option<u64>,
    /// How many trials, by the occasion.
    #[arg(long, value_enum, default_value_t = Size::Submission)]
    size: Size,
    /// The first seed; seeds follow each other.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Threads that run trials; without it one for every online cpu.
    #[arg(long)]
    workers: Option<usize>,
    /// A JSON file to put the run into, beside what it holds already.
    #[arg(long)]
    result: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Size {
    Submission,
    Full,
    Release,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.class == "list" {
        list();
        return ExitCode::SUCCESS;
    }
    let Some(class) = Class::named(&arguments.class) else {
        eprintln!("there is no class {:?}; `list` prints them", arguments.class);
        return ExitCode::from(2);
    };
    let count = arguments.count.unwrap_or(match arguments.size {
        Size::Submission => class.submission,
        Size::Full => class.full,
        Size::Release => class.release,
    });
    let mut trials = Trials::new(class, count);
    trials.first_seed = arguments.seed;
    trials.progress = true;
    trials.workers = arguments.workers.unwrap_or(trials.workers);
    let begun = Instant::now();
    let counts = (class.run)(&trials);
    let took = begun.elapsed();
    println!("{}: {} {} from seed {}", class.name, trials.count, class.unit, trials.first_seed);
    for (name, count) in counts.iter() {
        println!("  {count:>14} {name}");
    }
    let per_second = trials.count as f64 / took.as_secs_f64();
    println!("  {:.1} s, {per_second:.1} {}/s on {} threads", took.as_secs_f64(), class.unit, trials.workers);
    if let Some(path) = arguments.result
        && let Err(error) = append_result(&path, result_json(&trials, &counts, took))
    {
        eprintln!("the result was not written to {}: {error}", path.display());
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn list() {
    println!("{:<18} {:>12} {:>12} {:>12}  what", "class", "submission", "full", "release");
    for class in CLASSES {
        let Class { name, about, unit, submission, full, release, .. } = class;
        println!("{name:<18} {submission:>12} {full:>12} {release:>12}  {unit}: {about}");
    }
    println!("must fail:");
    for Class { name, about, unit, .. } in MUST_FAIL {
        println!("{name:<57}  {unit}: {about}");
    }
}
