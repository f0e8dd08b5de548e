//! Settings: flag over `HOPYARD_*` over `hopyard.toml` over default, from one table that also documents them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use hopyard_contract::Name;
use hopyard_contract::duration::Span;

mod budgets;
mod providers;

pub use budgets::{BudgetSettings, Dollars, OnSpent};
pub use providers::ProviderSettings;

/// One setting: the table below is the only list of them, and the documentation is made from it.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Name without the prefix `HOPYARD_`.
    pub name: &'static str,
    /// Default in words; empty when there is none.
    pub default: &'static str,
    /// What it does.
    pub doc: &'static str,
}

const fn setting(name: &'static str, default: &'static str, doc: &'static str) -> Setting {
    Setting { name, default, doc }
}

/// All settings.
pub const SETTINGS: &[Setting] = &[
    setting(
        "STORE_URL",
        "sqlite:<data dir>/store",
        "Store: `sqlite:DIRECTORY` or `postgres://…`. `DATABASE_URL` is read when it is absent.",
    ),
    setting("NATS_URL", "nats://127.0.0.1:4222", "Bus."),
    setting("NATS_CREDS", "", "File with credentials for the bus."),
    setting("JS_REPLICAS", "1", "Replicas of every stream."),
    setting(
        "TOPOLOGY",
        "manage",
        "`manage` creates and updates streams and consumers; `verify` compares them and refuses to start when they differ.",
    ),
    setting("HTTP_ADDR", "127.0.0.1:8733", "Address of the API (ingest)."),
    setting("ADMIN_ADDR", "127.0.0.1:0", "Address of `/metrics`, `/livez` and `/readyz` of a service."),
    setting("DATA_DIR", "./.hopyard/data", "Directory for everything a service keeps on disk."),
    setting("HOST_ID", "the host's name", "Name of this host; janitor and executors of one disk share it."),
    setting("ID", "<service>-<host>", "Name of this process; executors of one host need different ones."),
    setting("POOL", "default", "Pool of an executor."),
    setting("SLOTS", "2 × cores", "Most attempts of an executor at once."),
    setting("LEASE", "20s", "Length of a lease (scheduler)."),
    setting("RENEW", "5s", "Time between renewals (scheduler tells executors)."),
    setting("GRACE", "10s", "Time between TERM and KILL when a step is ended."),
    setting(
        "FREEZE_LIMIT",
        "10m",
        "Longest time that a step is held still while its lease cannot be renewed (executor); then it is ended and its work kept. `1ms` ends it at once.",
    ),
    setting(
        "DRAIN_DELAY",
        "5s",
        "Time for which a door that was told to stop goes on answering while /readyz says that it drains: longer than a load balancer needs to see it (ingest).",
    ),
    setting("BLOBS", "<data dir>/blobs", "Blob store: a directory that all hosts share, or an object store's URL."),
    setting(
        "REPO_ALLOW",
        "https://,ssh://",
        "Prefixes of repository URLs that an executor may use, separated by commas; a path stands for a directory.",
    ),
    setting("GIT_FETCH_INTERVAL", "10s", "A mirror is fetched at most once in this time, unless a ref is not found."),
    setting("GIT_CREDENTIALS", "", "Credentials by host: `host=env:NAME` or `host=file:PATH`, separated by commas."),
    setting(
        "WARM",
        "2",
        "Checkouts of a repository of 500 files or more that are made ahead on a host, for the next workspaces; 0 for none (executor).",
    ),
    setting("WARM_BYTES", "10737418240", "Most bytes of all checkouts that are made ahead on a host (executor)."),
    setting(
        "PRICES",
        "",
        "Table of model prices that takes the place of the one that is built in: a TOML file of the same shape (executor).",
    ),
    setting("LOG_CAP", "67108864", "Most bytes of an attempt's log that are kept."),
    setting(
        "STEP_PROCESSES",
        "4096",
        "Processes that a step may be at once; one that is more is ended as `policy_denied`. 0 for no limit (executor).",
    ),
    setting("STEP_PATH", "the executor's PATH", "PATH of steps."),
    setting("MAX_AGE", "48h", "Age after which a workspace that the store does not know is removed (janitor)."),
    setting("SWEEP", "1h", "Time between full sweeps of the janitor."),
    setting(
        "HTTP_CONNECTIONS",
        "4096",
        "Connections of the API at once, as far as the process may open files; more are answered with 503 (ingest).",
    ),
    setting("HTTP_STREAMS", "2048", "Open event and log streams at once; more are answered with 429 (ingest)."),
    setting(
        "STREAM_PATIENCE",
        "30s",
        "A reader of a stream that takes nothing for this long is dropped, and its connection is cut after twice as long; it resumes by id (ingest).",
    ),
    setting(
        "INTAKE",
        "on",
        "`off` refuses every new submission with `intake_off`, for maintenance; set it on every ingest. Reads, cancels and what is under way go on.",
    ),
    setting("SUBMIT_RATE", "5000", "Runs per second that one client address may submit to a namespace; 0 for no limit (ingest)."),
    setting("SUBMIT_BURST", "20000", "Runs that it may submit at once (ingest)."),
    setting("PENDING_CAP", "100000", "Pending runs of a namespace beyond which it may not submit (ingest); 0 for no limit."),
    setting(
        "QUEUE_AGE",
        "6h",
        "Age of the oldest claimable step of a pool with live executors beyond which it gets no more runs (ingest).",
    ),
    setting("OUTBOX_AGE", "60s", "Age of the oldest unpublished commit beyond which no run is taken (ingest)."),
    setting("STORE_WAIT", "1s", "Wait for a connection to the store beyond which no run is taken (ingest)."),
    setting(
        "DISK_RESERVE",
        "536870912",
        "Free bytes on the volumes of data and blobs below which no run is taken; of a small volume a twentieth (ingest).",
    ),
    setting("CANARY", "off", "Time between two canary runs of every pool with a free slot, such as `60s`; `off` for none (ingest)."),
    setting("LOG", "info", "Filter of a service's own log, such as `info` or `hopyard_scheduler=debug`."),
    setting("URL", "http://127.0.0.1:8733", "API for the client commands."),
    setting("TOKEN", "", "Token for the client commands."),
    setting("NAMESPACE", "default", "Namespace for the client commands."),
];

/// Settings of one process, by name.
#[derive(Clone, Debug, Default)]
pub struct Config {
    values: BTreeMap<String, String>,
    /// Names that were given but are not known; reported once telemetry is up.
    pub unknown: Vec<String>,
    /// Providers of models, by name; only a file can name them.
    pub providers: BTreeMap<String, ProviderSettings>,
    /// Budgets that runs share; only a file can name them.
    pub budgets: BudgetSettings,
}

impl Config {
    /// Reads `hopyard.toml` (or the file of `HOPYARD_CONFIG`), then the environment, then the given flags.
    ///
    /// # Errors
    /// When a named file cannot be read or is no TOML.
    pub fn load(flags: &[(&str, Option<String>)]) -> anyhow::Result<Self> {
        let named = environment("HOPYARD_CONFIG").map(PathBuf::from);
        let file = named.clone().unwrap_or_else(|| PathBuf::from("hopyard.toml"));
        let mut config = Self::default();
        match std::fs::read_to_string(&file) {
            Ok(text) => config.read_file(&file, &text)?,
            Err(error) if named.is_some() => {
                return Err(error).with_context(|| format!("the settings file {} cannot be read", file.display()));
            }
            Err(_) => {}
        }
        for (key, value) in std::env::vars() {
            if let Some(name) = key.strip_prefix("HOPYARD_") {
                config.put(name, value);
            }
        }
        if !config.values.contains_key("STORE_URL")
            && let Some(url) = environment("DATABASE_URL")
        {
            config.put("STORE_URL", url);
        }
        for (name, value) in flags {
            if let Some(value) = value {
                config.put(name, value.clone());
            }
        }
        Ok(config)
    }

    fn read_file(&mut self, file: &Path, text: &str) -> anyhow::Result<()> {
        let table: toml::Table = text.parse().with_context(|| format!("{} is no TOML", file.display()))?;
        for (key, value) in table {
            if key == "providers" {
                self.providers = providers::read(value).with_context(|| format!("{}: `providers`", file.display()))?;
                continue;
            }
            if key == "budgets" {
                self.budgets = budgets::read(value).with_context(|| format!("{}: `budgets`", file.display()))?;
                continue;
            }
            let value = match value {
                toml::Value::String(text) => text,
                toml::Value::Integer(number) => number.to_string(),
                toml::Value::Boolean(flag) => flag.to_string(),
                toml::Value::Array(items) => items.iter().filter_map(toml::Value::as_str).collect::<Vec<_>>().join(","),
                _ => bail!("{}: `{key}` is neither a text nor a number nor a list of texts", file.display()),
            };
            self.put(&key.to_ascii_uppercase(), value);
        }
        Ok(())
    }

    fn put(&mut self, name: &str, value: String) {
        // Names of programs and folders that the set-up scripts hand over are not settings of a service.
        const SETUP: [&str; 9] = ["CONFIG", "TOOLS", "TOOLS_DIR", "NATS_SERVER", "PG_BIN", "PYTHON", "KEEP", "BWRAP", "AGENTS"];
        // Armed points are read where they are; a build without them says that it does not know the setting.
        let failpoints = cfg!(debug_assertions) && ["FAILPOINTS", "FAILPOINTS_ONCE"].contains(&name);
        if SETUP.contains(&name) || failpoints {
            return;
        }
        if SETTINGS.iter().any(|s| s.name == name) {
            self.values.insert(name.to_owned(), value);
        } else {
            self.unknown.push(name.to_owned());
        }
    }

    /// A setting as text, if it was given and is not empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        debug_assert!(SETTINGS.iter().any(|s| s.name == name), "{name} is not in the table");
        self.values.get(name).map(String::as_str).filter(|v| !v.is_empty())
    }

    /// A setting as text, or its default.
    pub fn text(&self, name: &str, default: &str) -> String {
        self.get(name).unwrap_or(default).to_owned()
    }

    /// A setting of another type, or its default.
    ///
    /// # Errors
    /// When the text does not parse; the error names the setting.
    pub fn parsed<T: std::str::FromStr>(&self, name: &str, default: T) -> anyhow::Result<T>
    where
        T::Err: std::fmt::Display,
    {
        match self.get(name) {
            None => Ok(default),
            Some(text) => text.parse().map_err(|e| anyhow::anyhow!("HOPYARD_{name}: `{text}` is not valid: {e}")),
        }
    }

    /// A duration.
    ///
    /// # Errors
    /// When the text is no duration.
    pub fn span(&self, name: &str, default_ms: u64) -> anyhow::Result<Span> {
        self.parsed(name, Span::from_millis(default_ms))
    }

    /// Where the service keeps its files.
    pub fn data_dir(&self) -> PathBuf {
        PathBuf::from(self.text("DATA_DIR", "./.hopyard/data"))
    }

    /// The store's URL.
    pub fn store_url(&self) -> String {
        self.get("STORE_URL").map_or_else(|| format!("sqlite:{}", self.data_dir().join("store").display()), str::to_owned)
    }

    /// The blob store's URL or directory.
    pub fn blobs(&self) -> String {
        self.get("BLOBS").map_or_else(|| self.data_dir().join("blobs").display().to_string(), str::to_owned)
    }

    /// Name of this host.
    ///
    /// # Errors
    /// When the given name is no name.
    pub fn host(&self) -> anyhow::Result<Name> {
        self.parsed("HOST_ID", name_of_host())
    }

    /// Name of this process.
    ///
    /// # Errors
    /// When the given name is no name.
    pub fn id(&self, service: &str) -> anyhow::Result<Name> {
        let default = shorten(&format!("{service}-{}", self.host()?));
        self.parsed("ID", default)
    }

    /// All values, for handing them to child processes.
    pub fn values(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values.iter().map(|(k, v)| (k.as_str(), v.as_str()))
    }
}

/// Reads one variable of the environment: the only place that does.
#[expect(clippy::disallowed_methods, reason = "this is the place where the environment is read")]
pub fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|v| !v.is_empty())
}

fn name_of_host() -> Name {
    let text = nix::unistd::gethostname().ok().and_then(|n| n.into_string().ok()).unwrap_or_else(|| "host".to_owned());
    shorten(&text)
}

/// Makes a valid name of any text.
fn shorten(text: &str) -> Name {
    let clean: String = text
        .to_ascii_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '_' || c == '-' { c } else { '-' })
        .take(64)
        .collect();
    clean.trim_start_matches('-').parse().unwrap_or_else(|_| Name::literal("host"))
}

/// The table of settings as Markdown.
pub fn settings_page() -> String {
    let mut page = String::from("| setting | default | what it does |\n|---|---|---|\n");
    for s in SETTINGS {
        page.push_str(&format!("| `HOPYARD_{}` | {} | {} |\n", s.name, if s.default.is_empty() { "–" } else { s.default }, s.doc));
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_and_unknown_names_are_kept_for_a_warning() {
        let mut config = Config::default();
        config.read_file(Path::new("hopyard.toml"), "pool = \"gpu\"\nslots = 4\nrepo_allow = [\"a\", \"b\"]\ncolour = \"red\"\n").unwrap();
        assert_eq!(config.get("POOL"), Some("gpu"));
        assert_eq!(config.parsed("SLOTS", 1u32).unwrap(), 4);
        assert_eq!(config.get("REPO_ALLOW"), Some("a,b"));
        assert_eq!(config.unknown, ["COLOUR"]);
        assert!(config.parsed::<u32>("POOL", 1).unwrap_err().to_string().contains("HOPYARD_POOL"));
    }

    #[test]
    fn providers_are_tables_and_a_wrong_field_is_named() {
        let read = |text: &str| {
            let mut config = Config::default();
            config.read_file(Path::new("hopyard.toml"), text).map(|()| config.providers)
        };
        let text =
            "[providers.anthropic]\nwire = \"anthropic\"\nbase_url = \"https://api.anthropic.com\"\nkey_from = \"env:KEY\"\nrpm = 50\n";
        let providers = read(text).unwrap();
        let anthropic = &providers["anthropic"];
        assert_eq!((anthropic.base_url.as_str(), anthropic.rpm, anthropic.concurrency), ("https://api.anthropic.com", 50, 0));
        for (bad, word) in [
            ("[providers.a]\nwire = \"anthropic\"\n", "base_url"),
            ("[providers.a]\nwire = \"x\"\nbase_url = \"http://h\"\n", "wire"),
            ("[providers.a]\nwire = \"chat\"\nbase_url = \"h\"\n", "base_url"),
            ("[providers.a]\nwire = \"chat\"\nbase_url = \"http://h\"\nrmp = 1\n", "rmp"),
            ("[providers.\"a b\"]\nwire = \"chat\"\nbase_url = \"http://h\"\n", "a b"),
            ("providers = 1\n", "providers"),
        ] {
            let error = format!("{:#}", read(bad).unwrap_err());
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn any_host_name_becomes_a_name() {
        assert_eq!(shorten("My.Host").as_str(), "my-host");
        assert_eq!(shorten("--").as_str(), "host");
    }
}
