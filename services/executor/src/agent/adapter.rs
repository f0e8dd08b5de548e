//! One adapter for each program: how it is started, and how its lines are read.

use std::collections::BTreeMap;

use hopyard_contract::plan::{AgentCli, AgentSpec, Permissions};
use serde_json::{Value, json};

use super::event::AgentEvent;
use super::{claude, codex, gemini, generic, opencode};
use crate::metered::Entry;
use crate::wire::Wire;

/// Name of the variable that holds an agent's own token for the gateway, where a program lets us choose it.
const TOKEN: &str = "AGENT_GATEWAY_TOKEN";
/// Subcommand of this executable that plays an agent.
const FAKE_COMMAND: &str = "fake-agent";

/// What an agent shall do.
#[derive(Clone, Debug)]
pub(super) struct Order<'a> {
    /// This executable, which plays the fake agent.
    pub(super) own_program: &'a str,
    /// What the fake agent plays.
    pub(super) script: Option<&'a str>,
    /// Model; the program's own choice if absent.
    pub(super) model: Option<&'a str>,
    /// Most turns, where the program can be told.
    pub(super) max_turns: Option<u64>,
    /// Program and arguments of a generic one.
    pub(super) command: &'a [String],
    /// What it gets beside that to go on with a session.
    pub(super) resume_args: &'a [String],
    /// What it may do.
    pub(super) permissions: Permissions,
    /// Session to go on with.
    pub(super) resume: Option<&'a str>,
    /// Where it finds its models.
    pub(super) gateway: Option<&'a Entry>,
    /// Whether it runs as root, which some programs refuse.
    pub(super) root: bool,
}

/// How a program is started; its prompt is its standard input.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Launch {
    /// Program and arguments.
    pub(super) argv: Vec<String>,
    /// Environment beside the step's own.
    pub(super) env: BTreeMap<String, String>,
    /// Files below its HOME, by path.
    pub(super) files: BTreeMap<String, String>,
}

/// Whether a program says itself that it is done; otherwise its exit does.
pub(super) fn tells_its_end(cli: AgentCli, spec: &AgentSpec) -> bool {
    match cli {
        AgentCli::Opencode => false,
        AgentCli::Generic => spec.map.contains_key("done"),
        AgentCli::Claude | AgentCli::Codex | AgentCli::Gemini | AgentCli::Fake => true,
    }
}

/// Whether the sums that a program tells are those of a whole conversation, also of what came before it was resumed.
pub(super) fn sums_up_conversations(cli: AgentCli) -> bool {
    cli == AgentCli::Codex
}

/// How a program speaks to models; of a generic one only its model tells.
pub(super) fn wire(cli: AgentCli) -> Option<Wire> {
    match cli {
        AgentCli::Claude | AgentCli::Fake => Some(Wire::Anthropic),
        AgentCli::Codex => Some(Wire::Responses),
        AgentCli::Opencode => Some(Wire::Chat),
        AgentCli::Gemini => Some(Wire::Gemini),
        AgentCli::Generic => None,
    }
}

/// How a program is started.
pub(super) fn launch(cli: AgentCli, order: &Order<'_>) -> Launch {
    match cli {
        AgentCli::Claude => start_claude(order),
        AgentCli::Codex => start_codex(order),
        AgentCli::Opencode => start_opencode(order),
        AgentCli::Gemini => start_gemini(order),
        AgentCli::Generic => start_generic(order),
        AgentCli::Fake => start_fake(order),
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn option(argv: &mut Vec<String>, name: &str, value: Option<&str>) {
    argv.extend(value.into_iter().flat_map(|value| [name.to_owned(), value.to_owned()]));
}

fn variables<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn start_claude(order: &Order<'_>) -> Launch {
    let mut argv = words(&["claude", "-p", "--output-format", "stream-json", "--verbose"]);
    if order.gateway.is_none() {
        // The true tokens of a reply are in its last piece; a gateway knows them anyway.
        argv.push("--include-partial-messages".to_owned());
    }
    match order.permissions {
        Permissions::Full => argv.extend(words(&["--permission-mode", "bypassPermissions"])),
        Permissions::Edit => argv.extend(words(&["--permission-mode", "acceptEdits"])),
        Permissions::Read => argv.extend(words(&["--permission-mode", "dontAsk", "--allowedTools", "Read,Grep,Glob,LS"])),
    }
    option(&mut argv, "--model", order.model);
    option(&mut argv, "--max-turns", order.max_turns.map(|turns| turns.to_string()).as_deref());
    option(&mut argv, "--resume", order.resume);
    let mut env = variables([
        ("DISABLE_AUTOUPDATER", "1"),
        ("DISABLE_TELEMETRY", "1"),
        ("DISABLE_ERROR_REPORTING", "1"),
        ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1"),
    ]);
    if order.root && order.permissions == Permissions::Full {
        // As root it ends at once with nothing said, unless it is told that it may.
        env.insert("IS_SANDBOX".to_owned(), "1".to_owned());
    }
    if let Some(gateway) = order.gateway {
        env.extend(variables([("ANTHROPIC_BASE_URL", gateway.url.as_str()), ("ANTHROPIC_API_KEY", gateway.token.as_str())]));
    }
    Launch { argv, env, files: BTreeMap::new() }
}

fn start_codex(order: &Order<'_>) -> Launch {
    let mut argv = words(&["codex", "exec"]);
    if let Some(thread) = order.resume {
        argv.extend(words(&["resume", thread]));
    }
    argv.extend(words(&["--json", "--skip-git-repo-check"]));
    let sandbox = match order.permissions {
        Permissions::Full => "danger-full-access",
        Permissions::Edit => "workspace-write",
        Permissions::Read => "read-only",
    };
    argv.extend(words(&["-c", &format!("sandbox_mode=\"{sandbox}\"")]));
    option(&mut argv, "--model", order.model);
    argv.push("-".to_owned());
    let mut config = "check_for_update_on_startup = false\n".to_owned();
    let mut env = BTreeMap::new();
    if let Some(gateway) = order.gateway {
        config.push_str("model_provider = \"hopyard\"\n");
        env.insert(TOKEN.to_owned(), gateway.token.to_owned());
    }
    config.push_str("\n[analytics]\nenabled = false\n");
    if let Some(gateway) = order.gateway {
        let url = &gateway.url;
        config.push_str(&format!(
            "\n[model_providers.hopyard]\nname = \"hopyard\"\nbase_url = \"{url}/v1\"\nwire_api = \"responses\"\nenv_key = \"{TOKEN}\"\n"
        ));
    }
    Launch { argv, env, files: BTreeMap::from([(".codex/config.toml".to_owned(), config)]) }
}

fn start_opencode(order: &Order<'_>) -> Launch {
    let mut argv = words(&["opencode", "run", "--format", "json"]);
    let model = order.model.map(|model| if order.gateway.is_some() { format!("hopyard/{model}") } else { model.to_owned() });
    option(&mut argv, "-m", model.as_deref());
    option(&mut argv, "--session", order.resume);
    let mut config = json!({ "autoupdate": false, "share": "disabled" });
    let denied = |kinds: &[&str]| kinds.iter().map(|kind| ((*kind).to_owned(), Value::from("deny"))).collect::<serde_json::Map<_, _>>();
    match order.permissions {
        Permissions::Full => {}
        Permissions::Edit => config["permission"] = denied(&["bash"]).into(),
        Permissions::Read => config["permission"] = denied(&["bash", "edit"]).into(),
    }
    let mut env =
        variables([("OPENCODE_DISABLE_AUTOUPDATE", "1"), ("OPENCODE_DISABLE_MODELS_FETCH", "1"), ("OPENCODE_DISABLE_LSP_DOWNLOAD", "1")]);
    if let Some(gateway) = order.gateway {
        let models: serde_json::Map<String, Value> = order.model.map(|model| (model.to_owned(), json!({}))).into_iter().collect();
        let options = json!({ "baseURL": format!("{}/v1", gateway.url), "apiKey": format!("{{env:{TOKEN}}}") });
        config["provider"] = json!({ "hopyard": { "npm": "@ai-sdk/openai-compatible", "options": options, "models": models } });
        env.insert(TOKEN.to_owned(), gateway.token.to_owned());
    }
    Launch { argv, env, files: BTreeMap::from([(".config/opencode/opencode.json".to_owned(), config.to_string())]) }
}

fn start_gemini(order: &Order<'_>) -> Launch {
    let mut argv = words(&["gemini", "-o", "stream-json", "--skip-trust"]);
    match order.permissions {
        Permissions::Full => argv.push("--yolo".to_owned()),
        Permissions::Edit => argv.extend(words(&["--approval-mode", "auto_edit"])),
        Permissions::Read => {}
    }
    option(&mut argv, "-m", order.model);
    option(&mut argv, "--resume", order.resume);
    let settings = json!({ "general": { "enableAutoUpdate": false }, "privacy": { "usageStatisticsEnabled": false } });
    let mut env = BTreeMap::new();
    if let Some(gateway) = order.gateway {
        env.extend(variables([("GOOGLE_GEMINI_BASE_URL", gateway.url.as_str()), ("GEMINI_API_KEY", gateway.token.as_str())]));
    }
    Launch { argv, env, files: BTreeMap::from([(".gemini/settings.json".to_owned(), settings.to_string())]) }
}

fn start_generic(order: &Order<'_>) -> Launch {
    let model = order.model.unwrap_or_default();
    let mut argv: Vec<String> = order.command.iter().map(|word| word.replace("{model}", model)).collect();
    if let Some(session) = order.resume {
        argv.extend(order.resume_args.iter().map(|word| word.replace("{session}", session)));
    }
    let mut env = BTreeMap::new();
    if let Some(gateway) = order.gateway {
        // Whatever way to speak it has, there is one address; another wire than the provider's is refused there.
        let (url, token, openai) = (gateway.url.as_str(), gateway.token.as_str(), format!("{}/v1", gateway.url));
        env.extend(variables([
            ("AGENT_GATEWAY_URL", url),
            (TOKEN, token),
            ("ANTHROPIC_BASE_URL", url),
            ("ANTHROPIC_API_KEY", token),
            ("OPENAI_BASE_URL", &openai),
            ("OPENAI_API_KEY", token),
            ("GOOGLE_GEMINI_BASE_URL", url),
            ("GEMINI_API_KEY", token),
        ]));
    }
    Launch { argv, env, files: BTreeMap::new() }
}

fn start_fake(order: &Order<'_>) -> Launch {
    const SCRIPT: &str = ".fake-agent/script.jsonl";
    let mut argv = words(&[order.own_program, FAKE_COMMAND]);
    option(&mut argv, "--model", order.model);
    option(&mut argv, "--max-turns", order.max_turns.map(|turns| turns.to_string()).as_deref());
    option(&mut argv, "--permissions", Some(order.permissions.as_str()));
    option(&mut argv, "--resume", order.resume);
    let mut env = BTreeMap::new();
    if let Some(gateway) = order.gateway {
        env.extend(variables([("ANTHROPIC_BASE_URL", gateway.url.as_str()), ("ANTHROPIC_API_KEY", gateway.token.as_str())]));
    }
    Launch { argv, env, files: order.script.iter().map(|script| (SCRIPT.to_owned(), (*script).to_owned())).collect() }
}

/// Reads the lines of one program, in order.
#[derive(Debug)]
pub(super) enum Parser {
    /// Claude Code keeps the reply that its pieces belong to.
    Claude(claude::Parser),
    /// A generic one says it where its step says.
    Generic(generic::Parser),
    /// The others tell everything in each line.
    Plain(fn(&Value) -> Vec<AgentEvent>),
}

impl Parser {
    /// The one for a program.
    pub(super) fn of(cli: AgentCli, map: &BTreeMap<String, String>) -> Self {
        match cli {
            AgentCli::Generic => Self::Generic(generic::Parser::new(map)),
            AgentCli::Claude | AgentCli::Fake => Self::Claude(claude::Parser::default()),
            AgentCli::Codex => Self::Plain(codex::parse),
            AgentCli::Opencode => Self::Plain(opencode::parse),
            AgentCli::Gemini => Self::Plain(gemini::parse),
        }
    }

    /// What a line says.
    pub(super) fn parse(&mut self, line: &Value) -> Vec<AgentEvent> {
        match self {
            Self::Claude(parser) => parser.parse(line),
            Self::Generic(parser) => parser.parse(line),
            Self::Plain(parse) => parse(line),
        }
    }
}
