//! The environment of a step, built from nothing, and the search for the program in it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The search path of steps unless it is configured.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Names with this prefix are Hopyard's own.
pub const RESERVED_PREFIX: &str = "HOPYARD_";
pub use hopyard_runtime::processes::ATTEMPT;

/// Who the step is and which places belong to it.
#[derive(Debug, Clone)]
pub struct Identity<'a> {
    /// Id of the run.
    pub run: &'a str,
    /// Name of the step.
    pub step: &'a str,
    /// `<run>.<step>.<attempt>`.
    pub attempt: &'a str,
    /// Name of the workflow.
    pub workflow: &'a str,
    /// Directory of the run's work.
    pub workspace: &'a str,
    /// File that takes the outputs of the step.
    pub output: &'a str,
    /// File that takes a question of the step to a person.
    pub question: &'a str,
    /// What a person answered to the question of the attempt before.
    pub answer: Option<&'a str>,
    /// Home directory of this attempt alone.
    pub home: &'a str,
    /// Directory for temporary files of this attempt alone.
    pub tmp: &'a str,
}

/// Why an environment cannot be built.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum EnvironmentError {
    /// A name is empty or holds `=` or NUL.
    #[error("{0:?} cannot be the name of an environment variable")]
    Name(String),
    /// A value holds NUL.
    #[error("the value of environment variable {0} holds a nul character")]
    Value(String),
    /// A name is Hopyard's own.
    #[error("environment variable {0} is set by hopyard and cannot be declared")]
    Reserved(String),
}

/// Builds the environment: fixed values, then what the step declares, then the identity of the attempt.
///
/// `path` is the configured search path; what is declared may replace everything but `HOPYARD_*`.
///
/// # Errors
/// [`EnvironmentError`] for the first name or value that no process can be given.
pub fn build(
    identity: &Identity<'_>,
    path: Option<&str>,
    declared: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, EnvironmentError> {
    let mut env = BTreeMap::new();
    let mut set = |name: &str, value: &str| env.insert(name.to_owned(), value.to_owned());
    set("PATH", path.unwrap_or(DEFAULT_PATH));
    set("HOME", identity.home);
    set("TMPDIR", identity.tmp);
    set("LANG", "C.UTF-8");
    set("CI", "true");
    for (name, value) in declared {
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err(EnvironmentError::Name(name.clone()));
        }
        if value.contains('\0') {
            return Err(EnvironmentError::Value(name.clone()));
        }
        if name.starts_with(RESERVED_PREFIX) {
            return Err(EnvironmentError::Reserved(name.clone()));
        }
        set(name, value);
    }
    set("HOPYARD_RUN_ID", identity.run);
    set("HOPYARD_STEP", identity.step);
    set(ATTEMPT, identity.attempt);
    set("HOPYARD_WORKFLOW", identity.workflow);
    set("HOPYARD_WORKSPACE", identity.workspace);
    set("HOPYARD_OUTPUT", identity.output);
    set("HOPYARD_QUESTION", identity.question);
    if let Some(answer) = identity.answer {
        set("HOPYARD_ANSWER", answer);
    }
    Ok(env)
}

/// Why a program cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// No argument at all.
    #[error("the step has no command")]
    Empty,
    /// Nothing executable of that name on the search path.
    #[error("program {program} not found, searched {searched}")]
    NotFound {
        /// As it was asked for.
        program: String,
        /// The search path.
        searched: String,
    },
    /// The path names nothing that can be executed.
    #[error("program {program} cannot be executed: {why}")]
    NotExecutable {
        /// As it was asked for.
        program: String,
        /// What is wrong with it.
        why: String,
    },
    /// The first line of a script names a missing interpreter.
    #[error("interpreter {interpreter} of script {script} not found")]
    Interpreter {
        /// The first word after `#!`.
        interpreter: String,
        /// The script.
        script: String,
    },
}

/// Finds the program of a command as a shell would: a name with a slash is a path from `cwd`, others are searched.
///
/// # Errors
/// [`ProgramError`] with the path that was searched.
pub fn resolve(program: &str, path: &str, cwd: &Path) -> Result<PathBuf, ProgramError> {
    if program.is_empty() {
        return Err(ProgramError::Empty);
    }
    if program.contains('/') {
        let found = cwd.join(program);
        return match executable(&found) {
            Ok(()) => check_interpreter(found, cwd),
            Err(why) => Err(ProgramError::NotExecutable { program: program.to_owned(), why }),
        };
    }
    // An empty entry means the current directory, as in every shell.
    match path.split(':').map(|entry| cwd.join(entry).join(program)).find(|found| executable(found).is_ok()) {
        Some(found) => check_interpreter(found, cwd),
        None => Err(ProgramError::NotFound { program: program.to_owned(), searched: path.to_owned() }),
    }
}

fn executable(file: &Path) -> Result<(), String> {
    let meta = fs::metadata(file).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => "no such file".to_owned(),
        _ => error.to_string(),
    })?;
    if !meta.is_file() {
        return Err("it is no regular file".to_owned());
    }
    if meta.permissions().mode() & 0o111 == 0 {
        return Err("it has no execute permission".to_owned());
    }
    Ok(())
}

/// The kernel reports a missing interpreter as if the script were missing, which sends people the wrong way.
fn check_interpreter(script: PathBuf, cwd: &Path) -> Result<PathBuf, ProgramError> {
    use std::io::Read;
    let mut head = Vec::with_capacity(256);
    // A program that may be executed but not read has no first line to check.
    let read = fs::File::open(&script).and_then(|file| file.take(256).read_to_end(&mut head));
    if read.is_ok()
        && let Some(line) = head.strip_prefix(b"#!")
    {
        let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let line = String::from_utf8_lossy(line);
        let interpreter = line.split_whitespace().next().unwrap_or_default();
        if !interpreter.is_empty() && !cwd.join(interpreter).exists() {
            return Err(ProgramError::Interpreter { interpreter: interpreter.to_owned(), script: script.display().to_string() });
        }
    }
    Ok(script)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity<'static> {
        Identity {
            run: "r",
            step: "s",
            attempt: "r.s.1",
            workflow: "w",
            workspace: "/ws",
            output: "/out",
            question: "/ask",
            answer: None,
            home: "/home",
            tmp: "/tmp/x",
        }
    }

    #[test]
    fn the_environment_is_what_is_listed_and_nothing_else() {
        let declared = BTreeMap::from([("A".to_owned(), "x=y\n \u{fc}".to_owned()), ("CI".to_owned(), "1".to_owned())]);
        let env = build(&identity(), None, &declared).unwrap();
        let names: Vec<_> = env.keys().map(String::as_str).collect();
        let expected = [
            "A",
            "CI",
            "HOME",
            "HOPYARD_ATTEMPT",
            "HOPYARD_OUTPUT",
            "HOPYARD_QUESTION",
            "HOPYARD_RUN_ID",
            "HOPYARD_STEP",
            "HOPYARD_WORKFLOW",
            "HOPYARD_WORKSPACE",
            "LANG",
            "PATH",
            "TMPDIR",
        ];
        assert_eq!(names, expected);
        assert_eq!(env["A"], "x=y\n \u{fc}");
        assert_eq!(env["CI"], "1");
        assert_eq!(env["PATH"], DEFAULT_PATH);
        assert_eq!(build(&identity(), Some("/opt/bin"), &declared).unwrap()["PATH"], "/opt/bin");
    }

    #[test]
    fn names_and_values_no_process_can_have_are_refused() {
        let with = |name: &str, value: &str| build(&identity(), None, &BTreeMap::from([(name.to_owned(), value.to_owned())])).unwrap_err();
        assert_eq!(with("", "x"), EnvironmentError::Name(String::new()));
        assert_eq!(with("A=B", "x"), EnvironmentError::Name("A=B".to_owned()));
        assert_eq!(with("A", "x\0"), EnvironmentError::Value("A".to_owned()));
        assert_eq!(with("HOPYARD_ATTEMPT", "other"), EnvironmentError::Reserved("HOPYARD_ATTEMPT".to_owned()));
    }

    #[test]
    fn a_missing_program_names_the_searched_path() {
        let dir = tempfile::tempdir().unwrap();
        assert!(resolve("sh", DEFAULT_PATH, dir.path()).is_ok());
        let text = |program: &str| resolve(program, "/usr/bin:/bin", dir.path()).unwrap_err().to_string();
        assert_eq!(text("no-such-program"), "program no-such-program not found, searched /usr/bin:/bin");
        assert_eq!(text("./gone"), "program ./gone cannot be executed: no such file");
        std::fs::write(dir.path().join("plain"), "x").unwrap();
        assert_eq!(text("./plain"), "program ./plain cannot be executed: it has no execute permission");
        let script = dir.path().join("script");
        std::fs::write(&script, "#!/no/such/interpreter -x\n").unwrap();
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert!(text("./script").starts_with("interpreter /no/such/interpreter of script "));
    }
}
