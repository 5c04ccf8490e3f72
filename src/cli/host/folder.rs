//! The manifests' folder, as the host commands read it.

use std::path::{Path, PathBuf};

use crate::{
    api::view::status::StatusView,
    cli::{Context, failure::Failure},
};
use roadstead_control::control::ingest::check_expression;
use roadstead_core::{
    manifest::{self, Admission, Limits, SourceFile, SourceTree},
    model::{desired::Desired, diagnostic::Diagnostic},
};

/// The folder that was named, else the running controller's.
pub(super) async fn locate(context: &Context, named: Option<&Path>) -> Result<PathBuf, Failure> {
    if let Some(folder) = named {
        return Ok(folder.to_owned());
    }
    let status: Result<StatusView, Failure> = context.client.get("/v1/status").await;
    let folder = status.ok().map(|status| PathBuf::from(status.manifests)).filter(|folder| folder.is_dir());
    folder.ok_or_else(|| {
        Failure::not_tried("which manifests? no controller answers that has its directory on this machine")
            .hint("name the directory with --manifests DIR")
    })
}

/// What the folder declares now.
pub(super) fn read(folder: &Path) -> Result<SourceTree, Failure> {
    manifest::read_tree(folder, &Limits::default()).map_err(Failure::not_tried)
}

/// Judged as if nothing was in force.
pub(super) fn admit(tree: &SourceTree) -> Admission {
    manifest::admit(tree, &Desired::default(), check_expression)
}

/// What would be wrong with a file of this text in the folder.
pub(super) fn judge(tree: &SourceTree, file: &str, text: &str) -> (Admission, Vec<Diagnostic>) {
    let mut tree = tree.clone();
    tree.files.insert(file.to_owned(), SourceFile::new(file, text));
    let admission = admit(&tree);
    let errors = admission
        .diagnostics
        .iter()
        .filter(|diagnostic| diagnostic.is_error() && diagnostic.place.file == file)
        .cloned()
        .collect();
    (admission, errors)
}
