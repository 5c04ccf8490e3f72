//! `completion`: for shells.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Cli, Context, failure::Failure};

#[derive(Args)]
#[command(after_help = "\
Examples:
  roadstead completion bash > /etc/bash_completion.d/roadstead
  roadstead completion zsh > \"${fpath[1]}/_roadstead\"
  roadstead completion fish > ~/.config/fish/completions/roadstead.fish")]
pub(super) struct Options {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

pub(super) fn run(context: &Context, options: &Options) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(options.shell, &mut Cli::command(), "roadstead", &mut script);
    context.printer.text(&String::from_utf8_lossy(&script))
}
