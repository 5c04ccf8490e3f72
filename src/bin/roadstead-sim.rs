//! Runs seeds of the simulator: `roadstead-sim --seeds 0..10000 [--trace SEED]`.

use std::{collections::BTreeMap, ops::Range, process::ExitCode, time::Instant};

use clap::Parser;
use roadstead::sim::swarm::{Shape, run};

/// The controller's core against a fleet in memory, with faults drawn from a seed.
#[derive(Parser)]
#[command(after_help = "Examples:\n  roadstead-sim --seeds 0..20000\n  roadstead-sim --trace 4711")]
struct Arguments {
    /// FROM..TO, the end excluded.
    #[arg(long, value_parser = parse_range, default_value = "0..1000")]
    seeds: Range<u64>,
    /// Print one seed's trace and its end.
    #[arg(long)]
    trace: Option<u64>,
    /// Steps with faults.
    #[arg(long, default_value_t = Shape::default().steps)]
    steps: u32,
}

fn parse_range(text: &str) -> Result<Range<u64>, String> {
    let (from, to) = text.split_once("..").ok_or("write FROM..TO")?;
    let number = |text: &str| text.parse::<u64>().map_err(|error| format!("{text}: {error}"));
    Ok(number(from)?..number(to)?)
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let shape = Shape { steps: arguments.steps, ..Shape::default() };
    if let Some(seed) = arguments.trace {
        let outcome = run(seed, shape, true);
        for line in &outcome.trace {
            println!("{line}");
        }
        return if outcome.broken.is_some() { ExitCode::from(1) } else { ExitCode::SUCCESS };
    }
    let started = Instant::now();
    let (mut seeds, mut steps) = (0_u64, 0_u64);
    let mut faults: BTreeMap<&str, u64> = BTreeMap::new();
    let mut failed: BTreeMap<&str, Vec<(u64, String)>> = BTreeMap::new();
    for seed in arguments.seeds {
        let outcome = run(seed, shape, false);
        seeds += 1;
        steps += u64::from(outcome.steps);
        for (fault, count) in outcome.faults {
            *faults.entry(fault).or_default() += count;
        }
        if let Some(broken) = outcome.broken {
            failed.entry(broken.predicate).or_default().push((seed, broken.detail));
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    println!("{seeds} seeds, {steps} steps, {:.0} seeds/s", seeds as f64 / seconds);
    for (fault, count) in faults {
        println!("  {count:>9} × {fault}");
    }
    for (predicate, seeds) in &failed {
        println!("BROKEN {predicate}: {} seeds", seeds.len());
        for (seed, detail) in seeds.iter().take(5) {
            println!("  seed {seed}: {detail}");
        }
    }
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) }
}
