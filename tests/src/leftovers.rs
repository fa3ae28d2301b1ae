//! What a run left behind that was killed before it could take its tenants down.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::process;

/// Where the directories of all runs lie. Short, because the path of a Unix socket has to fit into
/// 107 bytes.
pub(crate) const PARENT: &str = "/tmp";

const PREFIX: &str = "pgs-e2e-";
const LIMIT: Duration = Duration::from_secs(60);

/// What the name of this run's directories begins with: it says whose they are.
pub(crate) fn prefix() -> String {
    format!("{PREFIX}{}-", std::process::id())
}

/// Removes containers, volumes and directories of runs whose process is gone.
pub(crate) fn remove() -> anyhow::Result<()> {
    for entry in fs::read_dir(PARENT)? {
        let entry = entry?;
        let name = entry.file_name();
        let process_id = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        let process_id = process_id.and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        let Some(process_id) = process_id else {
            continue;
        };
        if !Path::new(&format!("/proc/{process_id}")).exists() {
            remove_installation(&entry.path())?;
        }
    }
    Ok(())
}

/// By the label with which pgs says whose a container or a volume is.
fn remove_installation(directory: &Path) -> anyhow::Result<()> {
    let label = format!(
        "label=dev.pgs.state-dir={}",
        directory.join("state").display()
    );
    let kinds: [(&[&str], &[&str]); 2] = [
        (&["ps", "--all", "--quiet"], &["rm", "--force", "--volumes"]),
        (&["volume", "ls", "--quiet"], &["volume", "rm"]),
    ];
    for (list, remove) in kinds {
        let mut command = Command::new("docker");
        command.args(list).args(["--filter", &label]);
        let found = process::run(&mut command, LIMIT)?.success()?;
        if !found.trim().is_empty() {
            let mut command = Command::new("docker");
            command.args(remove).args(found.split_whitespace());
            process::run(&mut command, LIMIT)?.success()?;
        }
    }
    Ok(fs::remove_dir_all(directory)?)
}
