//! A Cluster of three servers on loopback.

use redis::cmd;

use super::{RedisServer, Setup, eventually};

/// Three servers that share the slots. Dropping it kills them.
pub(crate) struct RedisCluster {
    pub(crate) servers: Vec<RedisServer>,
}

const SLOTS: u16 = 16_384;

impl RedisCluster {
    pub(crate) fn start() -> Self {
        Self::with(&Setup::new())
    }

    /// Servers with this setup.
    pub(crate) fn with(setup: &Setup) -> Self {
        let servers: Vec<_> = (0..3).map(|_| setup.clone().cluster().start()).collect();
        let share = |n: usize| (usize::from(SLOTS) * n / 3) as u16;
        for (n, server) in servers.iter().enumerate() {
            let range = (share(n), share(n + 1) - 1);
            server.ask::<()>(cmd("CLUSTER").arg("SET-CONFIG-EPOCH").arg(n + 1));
            server.ask::<()>(cmd("CLUSTER").arg("ADDSLOTSRANGE").arg(range.0).arg(range.1));
            let (port, bus) = (servers[0].port(), servers[0].bus_port());
            if n > 0 {
                server.ask::<()>(cmd("CLUSTER").arg("MEET").arg("127.0.0.1").arg(port).arg(bus));
            }
        }
        let cluster = Self { servers };
        cluster.wait();
        cluster
    }

    /// Until all servers agree that all is well.
    pub(crate) fn wait(&self) {
        for server in &self.servers {
            eventually("the Cluster is well", || {
                let state: String = server.ask(cmd("CLUSTER").arg("INFO"));
                let nodes: String = server.ask(cmd("CLUSTER").arg("NODES"));
                state.contains("cluster_state:ok")
                    && state.contains("cluster_slots_ok:16384")
                    && nodes.matches("connected").count() >= 3
                    && !nodes.contains("fail")
            });
        }
    }

    /// How a plugin gets to it: by one server, which knows the others.
    pub(crate) fn url(&self) -> String {
        format!("redis+cluster://127.0.0.1:{}", self.servers[0].port())
    }

    /// The server that has the slot of this key.
    pub(crate) fn owner(&self, key: &str) -> usize {
        let slot: u16 = self.servers[0].ask(cmd("CLUSTER").arg("KEYSLOT").arg(key));
        self.servers.iter().position(|server| has(server, slot)).unwrap()
    }

    /// Gives the slot of this key, with all that is in it, to another server, as `redis-cli
    /// --cluster reshard` does.
    pub(crate) fn move_slot(&self, key: &str, to: usize) {
        let from = self.owner(key);
        if from == to {
            return;
        }
        let slot: u16 = self.servers[0].ask(cmd("CLUSTER").arg("KEYSLOT").arg(key));
        let id = |n: usize| -> String { self.servers[n].ask(cmd("CLUSTER").arg("MYID")) };
        let set = |n: usize, state: &str, id: &str| {
            self.servers[n].ask::<()>(cmd("CLUSTER").arg("SETSLOT").arg(slot).arg(state).arg(id));
        };
        let (source, target) = (id(from), id(to));
        set(to, "IMPORTING", &source);
        set(from, "MIGRATING", &target);
        loop {
            let keys: Vec<Vec<u8>> =
                self.servers[from].ask(cmd("CLUSTER").arg("GETKEYSINSLOT").arg(slot).arg(100));
            if keys.is_empty() {
                break;
            }
            let mut migrate = cmd("MIGRATE");
            migrate.arg("127.0.0.1").arg(self.servers[to].port()).arg("").arg(0).arg(10_000);
            self.servers[from].ask::<()>(migrate.arg("KEYS").arg(keys));
        }
        for n in [to, from, 3 - from - to] {
            set(n, "NODE", &target);
        }
        // Servers that do not know of the latest change may undo it with the next.
        eventually("all have heard of it", || {
            let epochs = self.servers.iter().map(|server| {
                let state: String = server.ask(cmd("CLUSTER").arg("INFO"));
                let epoch = state.lines().find(|line| line.contains("current_epoch"));
                epoch.unwrap().to_owned()
            });
            let epochs: Vec<_> = epochs.collect();
            epochs.iter().all(|epoch| *epoch == epochs[0])
        });
        assert!(has(&self.servers[to], slot), "the slot has moved");
    }
}

fn has(server: &RedisServer, slot: u16) -> bool {
    let nodes: String = server.ask(cmd("CLUSTER").arg("NODES"));
    let own = nodes.lines().find(|line| line.contains("myself")).unwrap();
    own.split(' ').skip(8).filter(|range| !range.starts_with('[')).any(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        (first.parse().unwrap()..=last.parse().unwrap()).contains(&slot)
    })
}
