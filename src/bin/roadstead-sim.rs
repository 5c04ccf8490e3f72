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
use roadstead::sim::{
    Outcome, Predicate, run,
    scenario::{Shape, draw},
};

/// The whole controller over a fleet in memory, with faults drawn from a seed
#[derive(Parser)]
#[command(after_help = "Examples:\n  roadstead-sim --seeds 0..20000\n  roadstead-sim --trace 4711")]
struct Arguments {
    /// FROM..TO, the end excluded
    #[arg(long, value_parser = parse_range, default_value = "0..1000")]
    seeds: Range<u64>,
    /// Print one seed's trace and its end
    #[arg(long, value_name = "SEED")]
    trace: Option<u64>,
    /// Seeds at once [default: one for each CPU]
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
    match arguments.trace {
        Some(seed) => trace(seed),
        None => campaign(arguments.seeds, arguments.jobs),
    }
}

fn trace(seed: u64) -> ExitCode {
    let outcome = run(&draw(seed, Shape::default()), true);
    for line in &outcome.trace {
        println!("{line}");
    }
    if outcome.broken.is_some() { ExitCode::from(1) } else { ExitCode::SUCCESS }
}

#[derive(Default)]
struct Sum {
    seeds: u64,
    steps: u64,
    faults: BTreeMap<&'static str, u64>,
    broken: BTreeMap<Predicate, Vec<(u64, String)>>,
}

impl Sum {
    fn add(&mut self, seed: u64, outcome: Outcome) {
        self.seeds += 1;
        self.steps += outcome.steps;
        for (fault, count) in outcome.faults {
            *self.faults.entry(fault).or_default() += count;
        }
        if let Some(broken) = outcome.broken {
            self.broken.entry(broken.predicate).or_default().push((seed, broken.detail));
        }
    }
}

fn campaign(seeds: Range<u64>, jobs: Option<usize>) -> ExitCode {
    let jobs = jobs.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from)).max(1);
    let (sum, next, started) = (Mutex::new(Sum::default()), AtomicU64::new(seeds.start), Instant::now());
    thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let outcome = run(&draw(seed, Shape::default()), false);
                    sum.lock().unwrap_or_else(PoisonError::into_inner).add(seed, outcome);
                }
            });
        }
    });
    let sum = sum.into_inner().unwrap_or_else(PoisonError::into_inner);
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "{} seeds in {seconds:.0} s on {jobs} threads: {:.0} seeds/s, {:.0} decisions for each",
        sum.seeds,
        sum.seeds as f64 / seconds,
        sum.steps as f64 / sum.seeds.max(1) as f64
    );
    for (fault, count) in &sum.faults {
        println!("{count:>11} × {fault}");
    }
    for (predicate, seeds) in &sum.broken {
        println!("BROKEN {predicate:?}: {} seeds", seeds.len());
        let mut seeds = seeds.clone();
        seeds.sort();
        for (seed, detail) in seeds.iter().take(5) {
            println!("  seed {seed}: {detail}");
        }
    }
    if sum.broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) }
}
