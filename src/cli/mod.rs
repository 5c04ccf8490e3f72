//! The command line: one file a command, one printer, one client.

mod archive;
mod brake;
mod cert;
mod client;
mod completion;
mod confirm;
mod controller;
mod describe;
mod endpoint;
mod events;
mod exec;
mod failure;
mod get;
mod host;
mod init;
mod logs;
mod name;
mod plan;
mod printer;
mod protect;
mod rollout;
mod rows;
mod run;
mod schema;
mod status;
mod stop;
mod table;
mod text;
mod validate;
mod version;
mod volume;
mod why;

use std::{ffi::OsString, process::ExitCode};

use clap::{Args, Parser, Subcommand};

use client::Client;
use endpoint::Endpoint;
use failure::Failure;
use printer::{Format, Printer};

/// What Amazon ECS gives people who rent machines, for people who own a few.
#[derive(Parser)]
#[command(name = "roadstead", bin_name = "roadstead", version, max_term_width = 100, subcommand_required = true, arg_required_else_help = true, infer_long_args = true, after_help = AFTER_HELP)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Begin:
  roadstead init fleet                                     a small directory to begin with
  roadstead controller --manifests fleet --data state      run the controller
  roadstead get services -w                                watch it work

Exit status: 0 done; 1 what you asked for did not succeed; 2 it could not be tried.";

/// Options of every command.
#[derive(Args)]
struct Global {
    /// The controller: unix:PATH or ADDRESS:PORT
    #[arg(
        long,
        global = true,
        env = "ROADSTEAD_ENDPOINT",
        hide_env_values = true,
        value_name = "ENDPOINT",
        help_heading = "Global options"
    )]
    endpoint: Option<Endpoint>,
    /// The controller's token, when the endpoint is TCP
    #[arg(
        long,
        global = true,
        env = "ROADSTEAD_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN",
        help_heading = "Global options"
    )]
    token: Option<String>,
    /// How results are printed: table, wide, json, yaml, name
    #[arg(
        short,
        long,
        global = true,
        value_enum,
        default_value_t,
        hide_possible_values = true,
        value_name = "FORMAT",
        help_heading = "Global options"
    )]
    output: Format,
    /// Only this cluster
    #[arg(long, global = true, value_name = "NAME", help_heading = "Global options")]
    cluster: Option<String>,
    /// No progress and no notices
    #[arg(short, long, global = true, help_heading = "Global options")]
    quiet: bool,
    /// More about what is done
    #[arg(short, long, global = true, action = clap::ArgAction::Count, conflicts_with = "quiet", help_heading = "Global options")]
    verbose: u8,
    /// No colour; also with NO_COLOR in the environment
    #[arg(long, global = true, help_heading = "Global options")]
    no_color: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Run the controller
    Controller(controller::Options),
    /// Write a small directory of manifests to begin with
    Init(init::Options),
    /// Check manifests without a controller
    Validate(validate::Options),
    /// Say what would happen, and why; changes nothing
    Plan(plan::Options),
    /// List things, or one of them
    Get(get::Options),
    /// List tasks: the same as `get tasks`
    Ps(get::Alias),
    /// List services: the same as `get services`
    Ls(get::Alias),
    /// Everything about one thing
    Describe(describe::Options),
    /// Say why a service or a task is as it is
    Why(why::Options),
    /// What happened, oldest first
    Events(events::Options),
    /// What the containers of a service or a task print
    Logs(logs::Options),
    /// Run a command inside a container
    Exec(exec::Options),
    /// Add, check and take care of hosts
    #[command(subcommand)]
    Host(host::HostCommand),
    /// How a service's deployment goes; let it stand still, go back, or begin anew
    #[command(subcommand)]
    Rollout(rollout::RolloutCommand),
    /// Where the data of tasks is, and its way to another host
    #[command(subcommand)]
    Volume(volume::VolumeCommand),
    /// Start tasks by themselves: placed once, never replaced
    Run(run::Options),
    /// Stop a task; its service starts another
    Stop(stop::Options),
    /// Keep a task through scale-in and deployments for a while
    Protect(protect::Options),
    /// Carry out a change of the manifests that the controller holds back
    Confirm(confirm::Options),
    /// The brake: nothing is replaced while most of the fleet is silent
    #[command(subcommand)]
    Brake(brake::BrakeCommand),
    /// Certificates of load balancers, and what clients are to trust
    #[command(subcommand)]
    Cert(cert::CertCommand),
    /// How the controller is
    Status(status::Options),
    /// JSON Schema of the manifests, for editors
    Schema(schema::Options),
    /// Completion for a shell
    Completion(completion::Options),
    /// The version of this program and of the controller
    Version(version::Options),
}

/// What every command gets.
struct Context {
    printer: Printer,
    client: Client,
    token: Option<String>,
    cluster: Option<String>,
    verbose: bool,
}

/// Runs the program with these arguments.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Its own exit statuses are ours: 0 for help and version, 2 for usage.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let Cli { global, command } = cli;
    let printer = Printer::new(global.output, global.no_color, global.quiet);
    let context = Context {
        client: Client::new(global.endpoint.unwrap_or_default(), global.token.clone()),
        token: global.token,
        cluster: global.cluster,
        verbose: global.verbose > 0,
        printer,
    };
    match execute(&context, command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            context.printer.failure(&failure);
            ExitCode::from(failure.exit_status())
        }
    }
}

fn execute(context: &Context, command: Command) -> Result<(), Failure> {
    match command {
        Command::Controller(options) => controller::run(context, options),
        Command::Init(options) => init::run(context, &options),
        Command::Validate(options) => validate::run(context, &options),
        Command::Schema(options) => schema::run(context, &options),
        Command::Completion(options) => completion::run(context, &options),
        Command::Plan(options) => wait(plan::run(context, options)),
        Command::Get(options) => wait(get::run(context, options)),
        Command::Ps(alias) => wait(get::run(context, alias.of(get::Kind::Tasks))),
        Command::Ls(alias) => wait(get::run(context, alias.of(get::Kind::Services))),
        Command::Describe(options) => wait(describe::run(context, options)),
        Command::Why(options) => wait(why::run(context, options)),
        Command::Events(options) => wait(events::run(context, options)),
        Command::Logs(options) => wait(logs::run(context, options)),
        Command::Exec(options) => wait(exec::run(context, options)),
        Command::Host(command) => wait(host::run(context, command)),
        Command::Rollout(command) => wait(rollout::run(context, command)),
        Command::Volume(command) => wait(volume::run(context, command)),
        Command::Run(options) => wait(run::run(context, options)),
        Command::Stop(options) => wait(stop::run(context, options)),
        Command::Protect(options) => wait(protect::run(context, options)),
        Command::Confirm(options) => wait(confirm::run(context, options)),
        Command::Brake(command) => wait(brake::run(context, command)),
        Command::Cert(command) => wait(cert::run(context, command)),
        Command::Status(options) => wait(status::run(context, options)),
        Command::Version(options) => wait(version::run(context, options)),
    }
}

/// Runs a command that talks to somebody.
fn wait(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::not_tried)?;
    let done = runtime.block_on(command);
    // A read of the terminal may still be under way; nobody waits for it.
    runtime.shutdown_background();
    done
}
