//! A bus that loses what it had gives the sequences of old messages to new ones.

use std::path::{Path, PathBuf};
use std::time::Duration;

use hopyard::servers::{NatsOptions, NatsServer, find_program, process_env};
use hopyard_contract::topology;
use hopyard_runtime::Config;
use hopyard_runtime::consume::{Consumer, Delivery};
use hopyard_runtime::topology::{Mode, Topology};
use tempfile::TempDir;

use crate::harness::bus::Bus;
use crate::harness::wait::{eventually, holds};

const TOPOLOGY: Topology = Topology { mode: Mode::Manage, replicas: 1 };
const SUBJECT: &str = "hopyard.cmd.submit.default";

/// A nats-server and a reader of the command stream.
struct Bench {
    dir: TempDir,
    nats: NatsServer,
    bus: hopyard_runtime::Bus,
    consumer: Consumer,
}

impl Bench {
    async fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("hopyard-it-").tempdir().unwrap();
        let program = find_program("nats-server", "HOPYARD_NATS_SERVER", &process_env).unwrap();
        let options = NatsOptions { program, data_dir: dir.path().join("bus"), addr: None, log_file: None };
        let nats = NatsServer::start(options).await.unwrap();
        let config = Config::load(&[("NATS_URL", Some(nats.url()))]).unwrap();
        let bus = hopyard_runtime::Bus::connect(&config, "reader", Duration::from_secs(10)).await.unwrap();
        TOPOLOGY.ensure_streams(&bus).await.unwrap();
        let consumer = Consumer::new(bus.clone(), TOPOLOGY, topology::ingest(), 16);
        Self { dir, nats, bus, consumer }
    }

    /// Stores a message once the stream is there, and takes it.
    async fn pass(&mut self, body: &str) -> Delivery {
        let addr = self.nats.addr();
        let stored = eventually("the stream takes messages", || async {
            let mut client = Bus::open(addr).await.map_err(|e| e.to_string())?;
            let answer = client.request(SUBJECT, &[], body.as_bytes()).await;
            let told: Result<serde_json::Value, _> = serde_json::from_slice(&answer.body);
            told.ok().and_then(|ack| ack["seq"].as_u64()).ok_or_else(|| format!("{answer:?}"))
        });
        let (sequence, mut taken) = futures::future::join(stored, self.consumer.next()).await;
        let delivery = taken.pop().expect("a batch has a message");
        assert_eq!((delivery.sequence, &delivery.body[..]), (sequence, body.as_bytes()));
        delivery
    }

    async fn unsettled(&self) -> u64 {
        Bus::connect(self.nats.addr()).await.unsettled("HOPYARD_CMD", "ingest").await.unwrap()
    }

    /// The message of before is acknowledged too late; the one that has its sequence now comes to its own end.
    async fn old_and_new(self, before: Delivery, now: Delivery) {
        assert_eq!(now.sequence, before.sequence, "another message with the same sequence");
        before.ack().await;
        self.bus.flush().await.unwrap();
        assert_eq!(self.unsettled().await, 1, "nobody has settled the new message");
        now.ack().await;
        eventually("the new message is settled", || async {
            let open = self.unsettled().await;
            holds(open == 0, format!("{open} are open"))
        })
        .await;
        let mut nats = self.nats;
        nats.stop().await.unwrap();
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), &target).unwrap();
        }
    }
}

#[tokio::test]
async fn what_a_wiped_bus_had_delivered_is_not_acknowledged_to_its_successor() {
    let mut bench = Bench::start().await;
    let before = bench.pass("before").await;
    bench.nats.wipe().await.unwrap();
    bench.nats.restart_same_port().await.unwrap();
    let now = bench.pass("now").await;
    bench.old_and_new(before, now).await;
}

#[tokio::test]
async fn what_a_bus_had_delivered_is_not_acknowledged_to_its_older_copy() {
    let mut bench = Bench::start().await;
    bench.pass("settled").await.ack().await;
    eventually("the first is settled", || async { holds(bench.unsettled().await == 0, "it is not".to_owned()) }).await;
    let (store, backup): (PathBuf, PathBuf) = (bench.dir.path().join("bus/nats"), bench.dir.path().join("backup"));
    bench.nats.stop().await.unwrap();
    copy(&store, &backup);
    bench.nats.restart_same_port().await.unwrap();
    let before = bench.pass("before").await;
    bench.nats.wipe().await.unwrap();
    copy(&backup, &store);
    bench.nats.restart_same_port().await.unwrap();
    let now = bench.pass("now").await;
    bench.old_and_new(before, now).await;
}
