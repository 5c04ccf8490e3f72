//! `init`: a small directory to begin with.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    path::PathBuf,
};

use clap::Args;

use super::{Context, failure::Failure};

#[derive(Args)]
#[command(after_help = "\
Example:
  roadstead init fleet
  roadstead controller --manifests fleet --data state

Nothing that exists is overwritten.")]
pub(super) struct Options {
    /// The directory; made when it does not exist
    #[arg(default_value = "manifests", value_name = "DIR")]
    directory: PathBuf,
}

const FILES: &[(&str, &str)] = &[
    ("cluster.yaml", include_str!("init/cluster.yaml")),
    ("hosts/this-machine.yaml", include_str!("init/this-machine.yaml")),
    ("services/hello.yaml", include_str!("init/hello.yaml")),
];

pub(super) fn run(context: &Context, options: &Options) -> Result<(), Failure> {
    let directory = &options.directory;
    let mut written = 0;
    for (name, text) in FILES {
        let path = directory.join(name);
        let cannot = |error: io::Error| Failure::failed(format!("cannot write {}: {error}", path.display()));
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(cannot)?;
        }
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(mut file) => file.write_all(text.as_bytes()).map_err(cannot)?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                context.printer.notice(&format!("{} is there already and stays as it is", path.display()));
                continue;
            }
            Err(error) => return Err(cannot(error)),
        }
        written += 1;
        context.printer.line(&path.display().to_string())?;
    }
    if written > 0 {
        let shown = directory.display();
        context.printer.notice(&format!(
            "\nNext:\n  roadstead validate {shown}\n  roadstead host add root@ADDRESS --manifests {shown}      for each further machine\n  roadstead controller --manifests {shown} --data state"
        ));
    }
    Ok(())
}
