//! `host remove`: the manifest is what declares a host, so it is what goes.

use std::path::{Path, PathBuf};

use clap::Args;

use super::folder;
use crate::{
    api::view::host::HostView,
    cli::{Context, client::path, failure::Failure, text::count},
};
use roadstead_core::model::{desired::Desired, name::HostName, world::HostStatus};

#[derive(Args)]
#[command(after_help = "\
Example:
  roadstead host drain box-a
  roadstead host remove box-a")]
pub(in crate::cli) struct Options {
    /// The host
    name: String,
    /// The directory of manifests; the running controller's when absent
    #[arg(long, value_name = "DIR")]
    manifests: Option<PathBuf>,
}

pub(super) async fn run(context: &Context, options: Options) -> Result<(), Failure> {
    let name = options.name.as_str();
    let host: HostView = context.client.get(&path(&["hosts", name], &[])).await?;
    let tasks = (host.running_tasks_count + host.pending_tasks_count) as usize;
    if tasks > 0 {
        let next = match host.status {
            HostStatus::Draining => {
                format!("it is being drained: `roadstead get tasks --host {name} -w` shows when that is done")
            }
            HostStatus::Active
            | HostStatus::Cordoned
            | HostStatus::Suspect
            | HostStatus::Lost
            | HostStatus::Untrusted => {
                format!("`roadstead host drain {name}` moves them elsewhere first")
            }
        };
        return Err(Failure::failed(format!("host {name} still has {}", count(tasks, "task"))).hint(next));
    }
    let root = folder::locate(context, options.manifests.as_deref()).await?;
    let tree = folder::read(&root)?;
    let desired = folder::admit(&tree).desired;
    let Some(manifest) = desired.hosts.get(&HostName::from(name)) else {
        return Err(Failure::failed(format!("{} does not declare host {name}", root.display()))
            .hint("name the right directory with --manifests DIR"));
    };
    let file = root.join(&manifest.file);
    let text = tree.files.get(&manifest.file).map(|file| file.text.as_str()).unwrap_or_default();
    if is_shared(&desired, &manifest.file, text) {
        return Err(Failure::failed(format!("{} declares more than host {name}", file.display())).hint(format!(
            "take out its document, which begins at line {}; the controller then lets the host go",
            manifest.line
        )));
    }
    remove(&file)?;
    context.printer.line(&format!("{} removed", file.display()))?;
    context.printer.notice("nothing on the machine was changed; the controller lets it go when it reads the directory");
    Ok(())
}

fn remove(file: &Path) -> Result<(), Failure> {
    std::fs::remove_file(file).map_err(|error| Failure::failed(format!("cannot remove {}: {error}", file.display())))
}

/// Whether a file holds anything besides one host.
fn is_shared(desired: &Desired, file: &str, text: &str) -> bool {
    let hosts = desired.hosts.values().filter(|manifest| manifest.file == file).count();
    let others = desired.clusters.values().any(|manifest| manifest.file == file)
        || desired.services.values().any(|manifest| manifest.file == file)
        || desired.task_definitions.values().any(|manifest| manifest.file == file);
    // Kinds that this version does not know stand in the text only.
    let documents = text
        .split("\n---")
        .filter(|document| document.lines().any(|line| !line.trim().is_empty() && !line.starts_with(['#', '-'])));
    hosts != 1 || others || documents.count() > 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_holds_more_is_left_to_the_person() {
        let host = "apiVersion: roadstead/v1\nkind: Host\nmetadata: { name: a }\n";
        let tree = |text: &str| {
            let tree = roadstead_core::manifest::SourceTree::from_texts("/", [("a.yaml", text)]);
            folder::admit(&tree).desired
        };
        let one = format!("{host}spec: {{ address: local }}\n");
        let two = format!("{one}---\napiVersion: roadstead/v1\nkind: Cluster\nmetadata: {{ name: c }}\nspec: {{}}\n");
        let later = format!("{one}---\napiVersion: roadstead/v1\nkind: Subnet\nmetadata: {{ name: c }}\nspec: {{}}\n");
        for (text, shared) in
            [(one.clone(), false), (format!("---\n# a comment\n{one}---\n"), false), (two, true), (later, true)]
        {
            assert_eq!(is_shared(&tree(&text), "a.yaml", &text), shared, "{text}");
        }
    }
}
