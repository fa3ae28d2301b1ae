//! Where a router's configuration comes from: a file, and on top of it what its command line says.

use std::io::ErrorKind;
use std::path::PathBuf;

use crate::config::configuration::Configuration;
use crate::config::configuration::Effective;
use crate::config::configuration::NotAssigned;
use crate::config::configuration::Origin;
use crate::config::directories::Directories;
use crate::config::file;
use crate::config::file::FileError;

/// One value of the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// The section of its key.
    pub section: &'static str,
    /// The key.
    pub name: &'static str,
    /// The value, as in the file.
    pub text: String,
}

/// Can be read again at any time.
#[derive(Debug, Clone)]
pub struct Source {
    path: PathBuf,
    /// The default file need not be there.
    must_exist: bool,
    said: Vec<Said>,
}

/// Why it says nothing.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// The command line cannot.
    #[error("{}", match .error {
        NotAssigned::Value(reason) => format!("`{name}`: {reason}"),
        NotAssigned::Section | NotAssigned::Key => format!("there is no `{name}`"),
    })]
    Said {
        /// Of which key.
        name: &'static str,
        /// Why not.
        error: NotAssigned,
    },
}

impl Source {
    /// The file that was named, or the one of the installation, if it is there.
    pub fn new(directories: &Directories, named: Option<PathBuf>, said: Vec<Said>) -> Self {
        let must_exist = named.is_some();
        let path = named.unwrap_or_else(|| file::default_path(directories));
        Self {
            path,
            must_exist,
            said,
        }
    }

    /// The file, if there is one, and what holds.
    ///
    /// # Errors
    /// One of the two cannot be used.
    pub fn read(&self) -> Result<(Option<PathBuf>, Effective), SourceError> {
        let (path, mut effective) = match file::read(&self.path) {
            Ok(effective) => (Some(self.path.clone()), effective),
            Err(FileError::Unreadable { error, .. })
                if !self.must_exist && error.kind() == ErrorKind::NotFound =>
            {
                (None, Effective::default())
            }
            Err(error) => return Err(error.into()),
        };
        for Said {
            section,
            name,
            text,
        } in &self.said
        {
            let assigned = effective.assign(section, name, text, Origin::CommandLine);
            assigned.map_err(|error| SourceError::Said { name, error })?;
        }
        Ok((path, effective))
    }

    /// The same, once it was read: a file that was there must be there still. Where one is gone for
    /// a moment, because an editor replaces it, the defaults are not what its owner wants.
    ///
    /// # Errors
    /// As above.
    pub fn read_again(
        &self,
        had_file: bool,
    ) -> Result<(Option<PathBuf>, Configuration), SourceError> {
        let source = Self {
            must_exist: self.must_exist || had_file,
            ..self.clone()
        };
        let (path, effective) = source.read()?;
        Ok((path, effective.into_configuration()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_counts_before_the_file_every_time() {
        let root = tempfile::tempdir().unwrap();
        let directories = Directories::new(root.path().to_owned(), root.path().join("run"));
        let said = Said {
            section: "limits",
            name: "sessions_max",
            text: "7".to_owned(),
        };
        let source = Source::new(&directories, None, vec![said]);
        let limits = |had_file| {
            let (path, configuration) = source.read_again(had_file)?;
            Ok::<_, SourceError>((path.is_some(), configuration.limits))
        };
        let (found, read) = limits(false).unwrap();
        assert_eq!((found, read.sessions_max), (false, 7));
        let file = root.path().join("pgs.toml");
        let text = "[limits]\nsessions_max = 3\ncancels_in_flight_max = 2\n";
        std::fs::write(&file, text).unwrap();
        let (found, read) = limits(false).unwrap();
        assert!(found);
        assert_eq!((read.sessions_max, read.cancels_in_flight_max), (7, 2));
        std::fs::remove_file(&file).unwrap();
        assert!(limits(true).is_err(), "a file that was there must be there");
        assert!(limits(false).is_ok());
    }
}
