//! The outputs of a step: `name=value` lines that it appended to the file named by `HOPYARD_OUTPUT`.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;

/// Largest output file in bytes.
pub const MAX_BYTES: u64 = 64 * 1024;
/// Longest name of an output in bytes.
pub const MAX_NAME: usize = 64;

/// Why an output file is refused.
#[derive(Debug, thiserror::Error)]
pub enum OutputsError {
    /// The file holds too much.
    #[error("the output file is longer than {MAX_BYTES} bytes")]
    TooLong,
    /// A directory, a link, a pipe or a device stands in its place.
    #[error("the output file is no regular file")]
    NotAFile,
    /// A line is not UTF-8 or holds a NUL character.
    #[error("line {line} of the output file is no text")]
    NotText {
        /// Counted from 1.
        line: usize,
    },
    /// A line has no `=`.
    #[error("line {line} of the output file is not of the form name=value")]
    NotAnAssignment {
        /// Counted from 1.
        line: usize,
    },
    /// A name has other characters or is too long.
    #[error("line {line} of the output file has a name that is not [A-Za-z_][A-Za-z0-9_-]{{0,63}}")]
    BadName {
        /// Counted from 1.
        line: usize,
    },
    /// The file cannot be read.
    #[error("cannot read the output file: {0}")]
    Io(#[from] io::Error),
}

impl OutputsError {
    /// The stable failure code of an attempt whose outputs are refused.
    pub fn code(&self) -> &'static str {
        "invalid_output"
    }
}

/// Reads the outputs; a missing file has none, empty lines are passed over, and a later line wins.
///
/// # Errors
/// [`OutputsError`] for the first fault.
pub fn parse(file: &Path) -> Result<BTreeMap<String, String>, OutputsError> {
    parse_lines(&read(file)?)
}

/// Reads the question that a step left in the file named by `HOPYARD_QUESTION`; `None` when there is no text in it.
///
/// # Errors
/// [`OutputsError`] when it is too long, no text or no file.
pub fn question(file: &Path) -> Result<Option<String>, OutputsError> {
    let text = String::from_utf8(read(file)?).map_err(|_| OutputsError::NotText { line: 1 })?;
    let text = text.trim();
    if text.contains('\0') {
        return Err(OutputsError::NotText { line: 1 });
    }
    Ok((!text.is_empty()).then(|| text.to_owned()))
}

/// The bytes of a file that a step may have written; none if it is not there.
fn read(file: &Path) -> Result<Vec<u8>, OutputsError> {
    // The step may have put anything there: a link to a file it cannot read itself, or a pipe that never ends.
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let file = match OpenOptions::new().read(true).custom_flags(flags.bits()).open(file) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) if error.raw_os_error() == Some(Errno::ELOOP as i32) => return Err(OutputsError::NotAFile),
        Err(error) => return Err(error.into()),
    };
    if !file.metadata()?.is_file() {
        return Err(OutputsError::NotAFile);
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(OutputsError::TooLong);
    }
    Ok(bytes)
}

fn parse_lines(bytes: &[u8]) -> Result<BTreeMap<String, String>, OutputsError> {
    let mut outputs = BTreeMap::new();
    for (index, bytes) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let line = index + 1;
        let text = str::from_utf8(bytes).map_err(|_| OutputsError::NotText { line })?;
        if text.contains('\0') {
            return Err(OutputsError::NotText { line });
        }
        if text.is_empty() {
            continue;
        }
        let (name, value) = text.split_once('=').ok_or(OutputsError::NotAnAssignment { line })?;
        if !is_name(name) {
            return Err(OutputsError::BadName { line });
        }
        outputs.insert(name.to_owned(), value.to_owned());
    }
    Ok(outputs)
}

fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
        && name.len() <= MAX_NAME
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_keep_everything_after_the_first_equals_sign_and_later_lines_win() {
        let outputs = parse_lines("a=1\n\nb=x=y z\ncaf\u{e9}=".replace("caf\u{e9}", "c-1").as_bytes()).unwrap();
        assert_eq!(outputs["b"], "x=y z");
        assert_eq!(outputs["c-1"], "");
        let outputs = parse_lines("a=1\na=\u{fc}\n".as_bytes()).unwrap();
        assert_eq!(outputs, BTreeMap::from([("a".to_owned(), "\u{fc}".to_owned())]));
    }

    #[test]
    fn faults_name_their_line() {
        assert!(matches!(parse_lines(b"a=1\nb"), Err(OutputsError::NotAnAssignment { line: 2 })));
        assert!(matches!(parse_lines(b"1a=1"), Err(OutputsError::BadName { line: 1 })));
        assert!(matches!(parse_lines(b" a=1"), Err(OutputsError::BadName { line: 1 })));
        assert!(matches!(parse_lines(b"=1"), Err(OutputsError::BadName { line: 1 })));
        assert!(matches!(parse_lines(b"a=\xff"), Err(OutputsError::NotText { line: 1 })));
        assert!(matches!(parse_lines(b"a=\0"), Err(OutputsError::NotText { line: 1 })));
        assert!(parse_lines(format!("{}=1", "n".repeat(64)).as_bytes()).is_ok());
        assert!(matches!(parse_lines(format!("{}=1", "n".repeat(65)).as_bytes()), Err(OutputsError::BadName { line: 1 })));
    }

    #[test]
    fn only_a_regular_file_of_bounded_size_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        assert!(parse(&at("missing")).unwrap().is_empty());
        assert!(matches!(parse(dir.path()), Err(OutputsError::NotAFile)));
        std::os::unix::fs::symlink("/etc/hostname", at("link")).unwrap();
        assert!(matches!(parse(&at("link")), Err(OutputsError::NotAFile)));
        nix::unistd::mkfifo(&at("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(matches!(parse(&at("pipe")), Err(OutputsError::NotAFile)));
        std::fs::write(at("full"), format!("a={}", "x".repeat(65_534))).unwrap();
        assert_eq!(parse(&at("full")).unwrap()["a"].len(), 65_534);
        std::fs::write(at("long"), format!("a={}", "x".repeat(65_535))).unwrap();
        let error = parse(&at("long")).unwrap_err();
        assert!(matches!(error, OutputsError::TooLong));
        assert_eq!(error.code(), "invalid_output");
    }
}
