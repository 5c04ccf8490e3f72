//! Runs seeds of the simulator: `roadstead-sim --seeds 0..10000 [--trace SEED]`.

use std::{
    collections::BTreeMap,
    ops::Range,
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Instant,
};

use clap::Parser;
use roadstead_sim::{
    Broken, Outcome, Predicate, Tell, run,
    scenario::{Scenario, Shape, draw},
    search::{Named, chain_breaks, crash_points, database_breaks, differs_from_calm, minimise, small_scope},
};

/// Scenarios make and drop small things without end.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The whole controller over a fleet in memory, with faults drawn from a seed
#[derive(Parser)]
#[command(
    arg_required_else_help = true,
    after_help = "\
Examples:
  roadstead-sim --seeds 0..20000              drawn scenarios; what broke, by predicate
  roadstead-sim --trace 4711                  one of them, told step by step
  roadstead-sim --minimise 4711 > seed.json   the smallest scenario that breaks the same predicate
  roadstead-sim --file seed.json              a written scenario, told step by step
  roadstead-sim --small-scope --crash-points  what is enumerated instead of drawn
  roadstead-sim --chains 0..500 --differential 0..500 --database 0..100"
)]
struct Arguments {
    /// FROM..TO, the end excluded
    #[arg(long, value_parser = parse_range)]
    seeds: Option<Range<u64>>,
    /// Tell one seed's story
    #[arg(long, value_name = "SEED")]
    trace: Option<u64>,
    /// Print the smallest scenario that breaks what this seed breaks
    #[arg(long, value_name = "SEED")]
    minimise: Option<u64>,
    /// Tell the story of a scenario in a file
    #[arg(long, value_name = "FILE")]
    file: Option<std::path::PathBuf>,
    /// A crash, and a loss, at each durable and remote step of each of a few stories
    #[arg(long)]
    crash_points: bool,
    /// Every pair of faults around one change in the smallest fleet
    #[arg(long)]
    small_scope: bool,
    /// Chains of manifest changes against their last manifests alone
    #[arg(long, value_parser = parse_range, value_name = "FROM..TO")]
    chains: Option<Range<u64>>,
    /// Ends of runs with faults against ends without
    #[arg(long, value_parser = parse_range, value_name = "FROM..TO")]
    differential: Option<Range<u64>>,
    /// A real database beside the one in memory: what it holds at each controller's start
    #[arg(long, value_parser = parse_range, value_name = "FROM..TO")]
    database: Option<Range<u64>>,
    /// Scenarios at once [default: one for each CPU]
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
}

fn parse_range(text: &str) -> Result<Range<u64>, String> {
    let (from, to) = text.split_once("..").ok_or("write FROM..TO")?;
    let number = |text: &str| text.replace('_', "").parse::<u64>().map_err(|error| format!("{text}: {error}"));
    Ok(number(from)?..number(to)?)
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let shape = Shape::default();
    if let Some(seed) = arguments.trace {
        return tell(&draw(seed, shape));
    }
    if let Some(seed) = arguments.minimise {
        return print_smallest(&draw(seed, shape));
    }
    if let Some(file) = &arguments.file {
        let read = std::fs::read_to_string(file).map_err(|error| error.to_string());
        return match read.and_then(|text| serde_json::from_str(&text).map_err(|error| error.to_string())) {
            Ok(scenario) => tell(&scenario),
            Err(error) => {
                eprintln!("{}: {error}", file.display());
                ExitCode::from(2)
            }
        };
    }
    let jobs = arguments.jobs.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from)).max(1);
    let mut all_well = true;
    if arguments.crash_points {
        all_well &= named("crash points", crash_points().collect(), jobs);
    }
    if arguments.small_scope {
        all_well &= named("small scope", small_scope().collect(), jobs);
    }
    if let Some(seeds) = arguments.chains {
        all_well &= judged("chains", seeds, jobs, chain_breaks);
    }
    if let Some(seeds) = arguments.differential {
        all_well &= judged("differential", seeds, jobs, |seed| differs_from_calm(&draw(seed, shape)));
    }
    if let Some(seeds) = arguments.database {
        all_well &= judged("database", seeds, jobs, |seed| database_breaks(&draw(seed, shape)));
    }
    if let Some(seeds) = arguments.seeds {
        all_well &= campaign(seeds, jobs, shape);
    }
    if all_well { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

fn tell(scenario: &Scenario) -> ExitCode {
    let outcome = run(scenario, Tell::Print);
    if outcome.broken.is_some() { ExitCode::from(1) } else { ExitCode::SUCCESS }
}

fn print_smallest(scenario: &Scenario) -> ExitCode {
    match minimise(scenario) {
        Some((smallest, broken)) => {
            eprintln!("{broken}");
            eprintln!("{} happenings, {} services", smallest.script.len(), smallest.desired.services.len());
            match serde_json::to_string_pretty(&smallest) {
                Ok(text) => println!("{text}"),
                Err(error) => eprintln!("{error}"),
            }
            ExitCode::from(1)
        }
        None => {
            eprintln!("nothing breaks");
            ExitCode::SUCCESS
        }
    }
}

/// What many runs came to.
#[derive(Default)]
struct Sum {
    runs: u64,
    steps: u64,
    plans: u64,
    faults: BTreeMap<&'static str, u64>,
    /// Of all traces: the same for the same seeds.
    hash: u64,
    broken: BTreeMap<Predicate, Vec<(u64, String)>>,
}

impl Sum {
    fn add(&mut self, number: u64, outcome: Outcome) {
        self.runs += 1;
        self.steps += outcome.steps;
        self.plans += outcome.plans;
        self.hash = self.hash.wrapping_add(outcome.hash.wrapping_mul(2 * number + 1));
        for (fault, count) in outcome.faults {
            *self.faults.entry(fault).or_default() += count;
        }
        self.judge(number, outcome.broken);
    }

    fn judge(&mut self, number: u64, broken: Option<Broken>) {
        if let Some(broken) = broken {
            self.broken.entry(broken.predicate).or_default().push((number, broken.detail));
        }
    }

    fn print_broken(&self, name: impl Fn(u64) -> String) -> bool {
        for (predicate, found) in &self.broken {
            println!("BROKEN {predicate:?}: {} times", found.len());
            let mut found = found.clone();
            found.sort();
            for (number, detail) in found.iter().take(8) {
                println!("  {}: {detail:.400}", name(*number));
            }
        }
        self.broken.is_empty()
    }
}

/// Does something for each number, on several threads.
fn each(numbers: Range<u64>, jobs: usize, work: impl Fn(u64, &Mutex<Sum>) + Sync) -> (Sum, f64) {
    let (sum, next, started) = (Mutex::new(Sum::default()), AtomicU64::new(numbers.start), Instant::now());
    thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= numbers.end {
                        return;
                    }
                    work(number, &sum);
                }
            });
        }
    });
    (sum.into_inner().unwrap_or_else(PoisonError::into_inner), started.elapsed().as_secs_f64())
}

fn named(what: &str, scenarios: Vec<Named>, jobs: usize) -> bool {
    let (sum, seconds) = each(0..scenarios.len() as u64, jobs, |number, sum| {
        if let Some(named) = scenarios.get(number as usize) {
            let outcome = run(&named.scenario, Tell::Nothing);
            sum.lock().unwrap_or_else(PoisonError::into_inner).add(number, outcome);
        }
    });
    println!("{what}: {} runs in {seconds:.0} s, {} decisions", sum.runs, sum.steps);
    sum.print_broken(|number| scenarios.get(number as usize).map(|named| named.name.clone()).unwrap_or_default())
}

fn judged(what: &str, seeds: Range<u64>, jobs: usize, check: impl Fn(u64) -> Result<(), Broken> + Sync) -> bool {
    let (sum, seconds) = each(seeds, jobs, |seed, sum| {
        let broken = check(seed).err();
        let mut sum = sum.lock().unwrap_or_else(PoisonError::into_inner);
        sum.runs += 1;
        sum.judge(seed, broken);
    });
    println!("{what}: {} seeds in {seconds:.0} s", sum.runs);
    sum.print_broken(|seed| format!("seed {seed}"))
}

fn campaign(seeds: Range<u64>, jobs: usize, shape: Shape) -> bool {
    let (sum, seconds) = each(seeds, jobs, |seed, sum| {
        let outcome = run(&draw(seed, shape), Tell::Nothing);
        sum.lock().unwrap_or_else(PoisonError::into_inner).add(seed, outcome);
    });
    let for_each = |count: u64| count as f64 / sum.runs.max(1) as f64;
    println!(
        "{} seeds in {seconds:.0} s on {jobs} threads: {:.0} seeds/s; for each {:.0} decisions, {:.0} of them planned",
        sum.runs,
        sum.runs as f64 / seconds,
        for_each(sum.steps),
        for_each(sum.plans)
    );
    println!("traces {:016x}", sum.hash);
    for (fault, count) in &sum.faults {
        println!("{count:>11} × {fault}");
    }
    sum.print_broken(|seed| format!("seed {seed}"))
}
