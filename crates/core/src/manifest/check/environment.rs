//! Environment variables, written out or in files next to the manifests.

use std::collections::{BTreeMap, BTreeSet};

use super::join;
use crate::{
    manifest::{
        node::{Step, at},
        read::Attachments,
        report::{Scope, quote},
        suggest::did_you_mean,
    },
    model::{
        spec::task_definition::{EnvironmentFile, EnvironmentFileType},
        time::Timestamp,
    },
};

/// Files of one container (ECS).
const MAX_FILES: usize = 10;

/// Variables of one file.
const MAX_VARIABLES: usize = 2_000;

/// What lies next to a manifest.
#[derive(Clone, Copy, Debug)]
pub struct Beside<'a> {
    /// The manifest's folder: empty, or ending in `/`.
    pub folder: &'a str,
    /// All files of the tree that are no manifests and may be named by some.
    pub attachments: &'a Attachments,
    /// Certificates and keys; none when nobody looked for any.
    pub pems: Option<&'a Attachments>,
    /// When the tree was read.
    pub now: Option<Timestamp>,
}

/// Checks the variables that are written out.
pub fn written(base: &[Step<'_>], scope: &mut Scope<'_>) {
    let path = join(base, &[Step::Key("environment")]);
    let Some(node) = scope.node.find(&path) else { return };
    let listed = node.items().unwrap_or_default().iter().filter_map(|pair| pair.get("name"));
    let listed = listed.filter_map(|name| Some((name.text()?, name.word())));
    let mapped = node.entries().unwrap_or_default().iter().map(|entry| (entry.key.as_str(), entry.key_span));
    let mut seen = BTreeSet::new();
    for (name, span) in listed.chain(mapped) {
        if !is_name(name) {
            let message = format!("{} cannot be the name of an environment variable", quote(name));
            scope.error(&path, "environment", message).label("no `=`, no blanks, not empty").at(span);
        } else if !seen.insert(name) {
            let message = format!("the environment variable {} is given twice", quote(name));
            scope.error(&path, "environment", message).label("again here").at(span);
        }
    }
}

/// Takes the contents of environment files in.
pub fn files(files: &mut [EnvironmentFile], index: usize, beside: Beside<'_>, scope: &mut Scope<'_>) {
    if files.len() > MAX_FILES {
        let path = at!["containerDefinitions", index, "environmentFiles", MAX_FILES];
        scope.error(path, "environment-file", format!("{} files, {MAX_FILES} are the most", files.len()));
        return;
    }
    for (number, file) in files.iter_mut().enumerate() {
        let path = at!["containerDefinitions", index, "environmentFiles", number, "value"];
        match read(file, beside) {
            Ok(variables) => file.variables = variables,
            Err(wrong) => {
                scope.error(path, "environment-file", wrong.message).maybe_help(wrong.help);
            }
        }
    }
}

struct Wrong {
    message: String,
    help: Option<String>,
}

fn wrong(message: String, help: Option<String>) -> Wrong {
    Wrong { message, help }
}

fn read(file: &EnvironmentFile, beside: Beside<'_>) -> Result<BTreeMap<String, String>, Wrong> {
    let value = file.value.as_str();
    // An ARN names an object of a bucket: its last part is the file's name.
    let in_s3 = file.kind == EnvironmentFileType::S3 || value.starts_with("arn:");
    let name = if in_s3 { value.rsplit(['/', ':']).next().unwrap_or_default() } else { value };
    let Some(path) = inside(beside.folder, name) else {
        return Err(wrong(
            format!("{} leads out of the manifests' folder", quote(value)),
            Some("copy the file next to this one".to_owned()),
        ));
    };
    if !path.ends_with(".env") {
        let help = "give it a name that ends in `.env`, as ECS asks".to_owned();
        return Err(wrong(format!("{} is not an environment file", quote(value)), Some(help)));
    }
    let Some(found) = beside.attachments.get(&path) else {
        let help = match in_s3 {
            true => Some(format!("there is no S3 here: put the file next to this one, as {}", quote(name))),
            false => did_you_mean(&path, beside.attachments.keys().map(String::as_str))
                .or_else(|| Some("it is looked for from this manifest's folder; hidden files are not read".to_owned())),
        };
        return Err(wrong(format!("there is no file {}", quote(&path)), help));
    };
    let text = found.as_ref().map_err(|why| wrong(format!("{} {why}", quote(&path)), None))?;
    parse(text).map_err(|(line, what)| wrong(format!("{}:{line}: {what}", quote(&path)), None))
}

/// A path from a folder, as the tree has it; `None` when it leads out of the tree.
pub(super) fn inside(folder: &str, path: &str) -> Option<String> {
    if path.starts_with('/') {
        return None;
    }
    let mut parts: Vec<&str> = folder.split_terminator('/').collect();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop().filter(|left| !matches!(*left, "" | "." | ".."))?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// ECS's and Docker's syntax: `NAME=value` lines, of which quotes and blanks are part; `#` begins a comment. What is wrong, and
/// in which line.
fn parse(text: &str) -> Result<BTreeMap<String, String>, (usize, String)> {
    let mut variables = BTreeMap::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = line.split_once('=').ok_or_else(|| (index + 1, "it is not `NAME=value`".to_owned()))?;
        if !is_name(name) {
            // Of what might be a part of a secret nothing is shown.
            return Err((index + 1, "what is before `=` cannot be the name of an environment variable".to_owned()));
        }
        if value.contains('\0') {
            return Err((index + 1, format!("the value of {} holds a byte that no variable can", quote(name))));
        }
        variables.insert(name.to_owned(), value.to_owned());
        if variables.len() > MAX_VARIABLES {
            return Err((index + 1, format!("more than {MAX_VARIABLES} variables")));
        }
    }
    Ok(variables)
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(|c: char| c == '=' || c.is_whitespace() || c.is_control())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_those_of_ecs_and_docker() {
        let parsed = |text: &str| parse(text).map(|variables| variables.into_iter().collect::<Vec<_>>());
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            parsed("# a comment\r\n\r\nA=1\r\n  B= \"two\" # not a comment\nEMPTY=\nURL=a=b\nA=3\n").unwrap(),
            [pair("A", "3"), pair("B", " \"two\" # not a comment"), pair("EMPTY", ""), pair("URL", "a=b")]
        );
        for (text, line) in [("A=1\nexport\n", 2), ("=1", 1), ("export A=1", 1), ("A=1\n\nB=\0", 3)] {
            assert_eq!(parsed(text).unwrap_err().0, line, "{text:?}");
        }
        let many: String = (0..=MAX_VARIABLES).map(|number| format!("A{number}=1\n")).collect();
        assert!(parsed(&many).is_err());
    }

    #[test]
    fn paths_stay_in_the_tree() {
        for (folder, path, found) in [
            ("", "app.env", Some("app.env")),
            ("web/", "./app.env", Some("web/app.env")),
            ("web/", "../shared/app.env", Some("shared/app.env")),
            ("web/", "../../app.env", None),
            ("", "/etc/app.env", None),
            ("/srv/web/", "../app.env", Some("/srv/app.env")),
            ("./", "app.env", Some("./app.env")),
            ("../web/", "../../app.env", None),
        ] {
            assert_eq!(inside(folder, path).as_deref(), found, "{folder} {path}");
        }
    }
}
