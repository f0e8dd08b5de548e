//! The command line: one enum of subcommands and the one place that carries them out.

use std::path::PathBuf;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Args, CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;
use hopyard_contract::Name;
use hopyard_runtime::Config;

use crate::audit::{self, AuditArgs};
use crate::client::bench::BenchCommand;
use crate::client::fleet::{DlqCommand, ExecutorsCommand, UsageArgs, WorkspacesCommand};
use crate::client::output::{self, Format};
use crate::client::runs::RunsCommand;
use crate::client::submit::RunArgs;
use crate::client::workflows::WorkflowsCommand;
use crate::client::{Api, bench, fleet, runs, submit, workflows};
use crate::demo::DemoArgs;
use crate::dev::DevArgs;
use crate::evidence::{self, EvidenceCommand};
use crate::exit::{Exit, Failure};
use crate::fake_agent::{self, FakeAgentArgs};
use crate::fake_provider::{self, FakeProviderArgs};
use crate::operate::providers::{self, ProvidersCommand};
use crate::operate::{MigrateArgs, TopologyCommand, doctor};
use crate::prompts::PromptsCommand;
use crate::prune::JanitorArgs;
use crate::service::{Service, ServiceFlags};
use crate::{demo, dev, operate, prompts, prune, service};

/// Runs workflows of shell steps in git workspaces, on NATS
#[derive(Debug, Parser)]
#[command(name = "hopyard", version, disable_help_subcommand = true, arg_required_else_help = true)]
#[command(
    after_help = "Examples:\n  hopyard dev\n  hopyard run -f examples/hello.yaml --follow\n  hopyard runs list --since 2h\n\nExit codes: 0 done, 1 failed, 2 usage, 3 killed, 4 timed out waiting, 5 server unreachable, 130 interrupted."
)]
pub struct Cli {
    /// What all client commands share
    #[command(flatten)]
    pub globals: Globals,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// What all client commands share.
#[derive(Clone, Debug, Default, Args)]
pub struct Globals {
    /// Namespace (HOPYARD_NAMESPACE)
    #[arg(short, long, global = true, value_name = "NAME")]
    pub namespace: Option<String>,
    /// How data is printed
    #[arg(short, long, global = true, value_enum, value_name = "FORMAT", default_value_t)]
    pub output: Format,
    /// Short for -o json
    #[arg(long, global = true)]
    pub json: bool,
    /// Address of the API [HOPYARD_URL; http://127.0.0.1:8733]
    #[arg(long, global = true, value_name = "URL")]
    pub url: Option<String>,
}

/// All subcommands but `step-nursery`, which executors start.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Submits a run
    #[command(
        after_help = "Examples:\n  hopyard run fix-bug --repo . -i message='off by one' --follow\n  hopyard run -f examples/hello.yaml --wait --timeout 5m --json"
    )]
    Run(Box<RunArgs>),
    /// Lists, shows, follows, ends and repeats runs
    #[command(subcommand, after_help = "Example:\n  hopyard runs list --status running")]
    Runs(RunsCommand),
    /// Stores, shows and checks workflows
    #[command(subcommand, after_help = "Example:\n  hopyard workflows apply -f fix-bug.yaml")]
    Workflows(WorkflowsCommand),
    /// Lists and drains executors
    #[command(subcommand, after_help = "Example:\n  hopyard executors list")]
    Executors(ExecutorsCommand),
    /// Lists workspaces, and frees the disk of this host
    #[command(subcommand, after_help = "Example:\n  hopyard workspaces list")]
    Workspaces(WorkspacesCommand),
    /// Sums up tokens and cost by workflow or by repository
    #[command(after_help = "Examples:\n  hopyard usage --since 24h\n  hopyard usage --since 7d --by repository")]
    Usage(UsageArgs),
    /// Shows, requeues and drops messages that could not be processed
    #[command(subcommand, after_help = "Example:\n  hopyard dlq list")]
    Dlq(DlqCommand),
    /// Checks on the live system that what is recorded can be true and that nothing was lost
    #[command(
        after_help = "Examples:\n  hopyard audit --since 1h\n  hopyard audit --data-dir /var/lib/hopyard --deep --json\n\nExit codes: 0 nothing found, 1 something is wrong, 2 usage, 5 the store or the bus does not answer."
    )]
    Audit(AuditArgs),
    /// Checks archives of runs without a server, and makes keys to sign them
    #[command(subcommand, after_help = "Example:\n  hopyard evidence verify run.evidence")]
    Evidence(EvidenceCommand),
    /// Prints, makes and compares streams and consumers of the bus
    #[command(subcommand, after_help = "Example:\n  hopyard topology diff")]
    Topology(TopologyCommand),
    /// Brings the store's schema to this version
    #[command(after_help = "Example:\n  hopyard migrate --check")]
    Migrate(MigrateArgs),
    /// Reads, renders and tests prompt files
    #[command(subcommand, after_help = "Example:\n  hopyard prompts render prompts/fix.prompt.md -i task='off by one'")]
    Prompts(PromptsCommand),
    /// Lists providers of models, and asks them
    #[command(subcommand, after_help = "Example:\n  hopyard providers list")]
    Providers(ProvidersCommand),
    /// Says what is missing, and what helps
    #[command(after_help = "Example:\n  hopyard doctor")]
    Doctor,
    /// Measures
    #[command(subcommand, after_help = "Example:\n  hopyard bench latency --runs 100")]
    Bench(BenchCommand),
    /// Runs everything on this machine: a private bus, the embedded store, all services
    #[command(
        after_help = "Examples:\n  hopyard dev\n  hopyard dev --executors 2 --data-dir /tmp/h --http-addr 127.0.0.1:0 --nats-addr 127.0.0.1:0 --json"
    )]
    Dev(DevArgs),
    /// Shows one real run on this checkout, end to end
    #[command(after_help = "Example:\n  hopyard demo")]
    Demo(DemoArgs),
    /// Plays a coding agent from a script: no model, no key, no bill
    #[command(
        after_help = "Examples:\n  echo 'say hello' | hopyard fake-agent\n  hopyard fake-agent --script plays/fix.jsonl --max-turns 3 < prompt.md"
    )]
    FakeAgent(FakeAgentArgs),
    /// Asks a model for a step; executors start it
    #[command(hide = true, after_help = "Example:\n  hopyard llm-step < order.json")]
    LlmStep,
    /// Plays the recorded log of a step; executors start it
    #[command(hide = true, after_help = "Example:\n  hopyard replay-step recorded.log 0")]
    ReplayStep {
        /// Stored log
        log: PathBuf,
        /// Exit code
        code: u8,
    },
    /// Serves model calls from a script, on the wires of real providers
    #[command(after_help = "Example:\n  hopyard fake-provider --listen 127.0.0.1:8799 --script replies.jsonl --journal served.jsonl")]
    FakeProvider(FakeProviderArgs),
    /// Prints a completion script
    #[command(after_help = "Example:\n  hopyard completions bash > ~/.local/share/bash-completion/completions/hopyard")]
    Completions {
        /// Shell
        shell: Shell,
    },
    /// The door: HTTP API, event streams, submissions over the bus
    #[command(after_help = "Example:\n  hopyard ingest --http-addr 0.0.0.0:8733 --store-url postgres://hopyard@db/hopyard")]
    Ingest(ServiceFlags),
    /// The only writer of run state
    #[command(after_help = "Example:\n  hopyard scheduler --store-url postgres://hopyard@db/hopyard --nats-url nats://bus:4222")]
    Scheduler(ServiceFlags),
    /// Runs attempts of steps in workspaces
    #[command(
        after_help = "Example:\n  hopyard executor --pool gpu --slots 4 --data-dir /var/lib/hopyard --repo-allow https://git.example.com/"
    )]
    Executor(ServiceFlags),
    /// Folds events into counters
    #[command(after_help = "Example:\n  hopyard metrics --admin-addr 0.0.0.0:9100")]
    Metrics(ServiceFlags),
    /// Frees workspaces and mirrors of its host
    #[command(
        after_help = "Examples:\n  hopyard janitor --data-dir /var/lib/hopyard\n  hopyard janitor --once --dry-run --max-age 48h --json"
    )]
    Janitor(JanitorArgs),
}

impl Globals {
    fn format(&self) -> Format {
        if self.json { Format::Json } else { self.output }
    }

    fn config(&self) -> Result<Config> {
        Config::load(&[("URL", self.url.clone()), ("NAMESPACE", self.namespace.clone())])
    }

    fn api(&self, config: &Config) -> Result<Api> {
        let namespace: Option<Name> =
            config.get("NAMESPACE").map(str::parse).transpose().map_err(|e| Failure::usage(format!("the namespace is no name: {e}")))?;
        Api::new(&config.text("URL", "http://127.0.0.1:8733"), namespace, config.get("TOKEN").map(str::to_owned))
    }
}

/// Reads the command line, does what it says, and returns the exit code.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse_from(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to stdout with code 0, the rest to stderr with code 2, which is ours too.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match run(cli) {
        Ok(exit) => exit.into(),
        Err(error) => {
            let exit = Exit::of_error(&error);
            if exit != Exit::Interrupted {
                output::progress(&format!("hopyard: {error:#}"));
            }
            exit.into()
        }
    }
}

fn run(cli: Cli) -> Result<Exit> {
    let service = match &cli.command {
        Command::Ingest(flags) => Some((Service::Ingest, flags)),
        Command::Scheduler(flags) => Some((Service::Scheduler, flags)),
        Command::Executor(flags) => Some((Service::Executor, flags)),
        Command::Metrics(flags) => Some((Service::Metrics, flags)),
        Command::Janitor(args) if !args.once => Some((Service::Janitor, &args.flags)),
        _ => None,
    };
    if let Some((kind, flags)) = service {
        service::run(kind, flags)?;
        return Ok(Exit::Done);
    }
    // One thread is enough for everything that is no service.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    match &cli.command {
        // It works in a directory of others, where no setting of ours may be read.
        Command::FakeAgent(args) => runtime.block_on(fake_agent::run(args)),
        Command::LlmStep => runtime.block_on(async { Ok(if hopyard_executor::llm_main().await? { Exit::Done } else { Exit::Failed }) }),
        Command::ReplayStep { log, code } => hopyard_executor::replay_main(log).map(|()| Exit::Scripted(*code)),
        Command::FakeProvider(args) => runtime.block_on(fake_provider::run(args)),
        _ => runtime.block_on(Box::pin(client(cli))),
    }
}

async fn client(cli: Cli) -> Result<Exit> {
    let Cli { globals, command } = cli;
    let format = globals.format();
    let config = globals.config()?;
    let api = || globals.api(&config);
    match command {
        Command::Run(args) => submit::run(&api()?, format, &args).await,
        Command::Runs(command) => runs::run(&api()?, format, &command).await,
        Command::Workflows(command) => workflows::run(&api()?, format, &command).await,
        Command::Executors(command) => fleet::executors(&api()?, format, &command).await,
        Command::Workspaces(WorkspacesCommand::List { status }) => fleet::workspaces(&api()?, format, status.as_deref()).await,
        Command::Workspaces(WorkspacesCommand::Prune(args)) => prune::prune(format, &args).await,
        Command::Janitor(args) => prune::janitor(format, &args).await,
        Command::Usage(args) => fleet::usage(&api()?, format, &args).await,
        Command::Dlq(command) => fleet::dlq(&api()?, format, &command).await,
        Command::Audit(args) => audit::run(format, &args).await,
        Command::Topology(command) => operate::run_topology(&config, format, &command).await,
        Command::Migrate(args) => operate::migrate(&config, args).await,
        Command::Evidence(command) => evidence::run(format, &command),
        Command::Prompts(command) => prompts::run(format, &command),
        Command::Providers(command) => providers::run(&config, format, &command).await,
        Command::Doctor => Ok(doctor::run(&config, &api()?, format).await),
        Command::Bench(command) => {
            let server = config.get("URL").is_some().then(api).transpose()?;
            bench::run(server.as_ref(), &command).await
        }
        Command::Dev(mut args) => {
            args.json |= globals.json;
            dev::run(&args).await
        }
        Command::Demo(args) => demo::run(&args).await,
        Command::Completions { shell } => {
            completions(shell);
            Ok(Exit::Done)
        }
        Command::Ingest(_) | Command::Scheduler(_) | Command::Executor(_) | Command::Metrics(_) => {
            unreachable!("services have returned before")
        }
        Command::FakeAgent(_) | Command::FakeProvider(_) | Command::LlmStep | Command::ReplayStep { .. } => {
            unreachable!("what works for a step has returned before")
        }
    }
}

fn completions(shell: Shell) {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "hopyard", &mut script);
    output::bytes(&script);
}

/// Reads a command line, for tests of it.
///
/// # Errors
/// When it is not valid.
pub fn parse(args: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(args)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Result<Cli, clap::Error> {
        parse(text.split_whitespace())
    }

    #[test]
    fn the_definition_of_the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_an_example() {
        fn check(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("hopyard "), "{path} shows no example");
            assert!(command.get_about().is_some(), "{path} says nothing about itself");
            command.get_subcommands().for_each(|sub| check(sub, &path));
        }
        check(&Cli::command(), "");
    }

    #[test]
    fn globals_stand_before_and_after_the_command() {
        let cli = line("hopyard -n team --url http://h runs list -o jsonl").unwrap();
        assert_eq!((cli.globals.namespace.as_deref(), cli.globals.format()), (Some("team"), Format::Jsonl));
        assert_eq!(line("hopyard runs list --json").unwrap().globals.format(), Format::Json);
    }

    #[test]
    fn a_run_names_a_workflow_or_a_file() {
        let Command::Run(args) = line("hopyard run fix -i a=1 -i @b.json -l t=x --wait --timeout 90s --repo . --ref main").unwrap().command
        else {
            panic!("another command")
        };
        assert_eq!((args.workflow.as_deref(), args.inputs.len(), args.then.timeout.map(|t| t.millis())), (Some("fix"), 2, Some(90_000)));
        for bad in [
            "hopyard run",
            "hopyard run a -f b.yaml",
            "hopyard run a --wait --follow",
            "hopyard run a --timeout 5m",
            "hopyard run a --ref main",
            "hopyard run a --wait --timeout soon",
            "hopyard runs get nothing",
            "hopyard nothing",
        ] {
            let error = line(bad).expect_err(bad);
            assert_eq!(error.exit_code(), 2, "{bad}");
        }
    }

    #[test]
    fn dev_reads_its_addresses() {
        let Command::Dev(args) =
            line("hopyard dev --data-dir d --http-addr 127.0.0.1:0 --nats-addr 127.0.0.1:0 --executors 3 --store postgres://x --json")
                .unwrap()
                .command
        else {
            panic!("another command")
        };
        assert_eq!((args.executors, args.http_addr.port(), args.store.as_deref()), (3, 0, Some("postgres://x")));
        assert!(line("hopyard dev --http-addr somewhere").is_err());
    }

    #[test]
    fn a_pass_of_the_janitor_has_two_names() {
        let Command::Janitor(args) = line("hopyard janitor --once --dry-run --max-age 48h --json").unwrap().command else {
            panic!("another command")
        };
        assert_eq!((args.once, args.dry_run, args.flags.max_age.as_deref()), (true, true, Some("48h")));
        let Command::Workspaces(WorkspacesCommand::Prune(args)) =
            line("hopyard workspaces prune --dry-run --max-age 2h --data-dir d").unwrap().command
        else {
            panic!("another command")
        };
        assert_eq!((args.dry_run, args.max_age.map(|age| age.millis())), (true, Some(7_200_000)));
        for bad in ["hopyard janitor --dry-run", "hopyard workspaces prune --max-age soon", "hopyard dlq show x", "hopyard dlq drop"] {
            assert_eq!(line(bad).expect_err(bad).exit_code(), 2, "{bad}");
        }
    }

    #[test]
    fn flags_of_services_become_settings() {
        let Command::Executor(flags) = line("hopyard executor --pool gpu --slots 4 --admin-addr 127.0.0.1:1").unwrap().command else {
            panic!("another command")
        };
        let settings = flags.settings();
        let value = |name| settings.iter().find(|(n, _)| *n == name).and_then(|(_, v)| v.as_deref());
        assert_eq!((value("POOL"), value("SLOTS"), value("ADMIN_ADDR"), value("ID")), (Some("gpu"), Some("4"), Some("127.0.0.1:1"), None));
        let known: Vec<_> = hopyard_runtime::config::SETTINGS.iter().map(|s| s.name).collect();
        assert!(settings.iter().all(|(name, _)| known.contains(name)));
    }
}
