//! A Cluster of three servers on loopback, one of which may have a replica.

use redis::cmd;

use super::{RedisServer, Setup, eventually};

/// Three servers that share the slots. Dropping it kills them.
#[derive(Debug)]
pub struct RedisCluster {
    /// The servers, the first of which is in the URL for plugins.
    pub servers: Vec<RedisServer>,
    /// That of the first one.
    replica: Option<RedisServer>,
}

const SLOTS: u16 = 16_384;

impl RedisCluster {
    /// Servers without TLS, passwords and persistence.
    pub fn start() -> Self {
        Self::with(&Setup::new())
    }

    /// Servers with this setup.
    pub fn with(setup: &Setup) -> Self {
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
        let cluster = Self { servers, replica: None };
        cluster.wait();
        cluster
    }

    /// Servers with this setup, and a replica of the first one.
    pub fn with_a_replica(setup: &Setup) -> Self {
        let mut cluster = Self::with(setup);
        let master = &cluster.servers[0];
        let replica = setup.clone().cluster().start();
        let (port, bus) = (master.port(), master.bus_port());
        replica.ask::<()>(cmd("CLUSTER").arg("MEET").arg("127.0.0.1").arg(port).arg(bus));
        let id: String = master.ask(cmd("CLUSTER").arg("MYID"));
        eventually("the replica knows its master", || {
            let nodes: String = replica.ask(cmd("CLUSTER").arg("NODES"));
            nodes.matches("master").count() >= 4 && nodes.contains(&id)
        });
        replica.ask::<()>(cmd("CLUSTER").arg("REPLICATE").arg(id));
        eventually("the others know the replica", || {
            cluster.servers.iter().all(|server| {
                let nodes: String = server.ask(cmd("CLUSTER").arg("NODES"));
                nodes.contains("slave")
            })
        });
        cluster.replica = Some(replica);
        cluster.wait();
        cluster
    }

    /// Waits until the replica is up to date.
    pub fn wait_for_the_replica(&self) {
        let (master, replica) = (&self.servers[0], self.replica.as_ref().expect("a replica"));
        eventually("the replica has all", || {
            master.info("connected_slaves") == 1
                && master.info("master_repl_offset") == replica.info("slave_repl_offset")
        });
    }

    /// Waits until the replica is up to date, and cuts it off from what is written later.
    pub fn cut_off_the_replica(&self) {
        self.wait_for_the_replica();
        let (master, replica) = (&self.servers[0], self.replica.as_ref().expect("a replica"));
        replica.pause();
        master.say("CLIENT KILL TYPE replica");
    }

    /// Lets the replica of a master that is dead take over, and waits until it has its slots.
    pub fn let_the_replica_take_over(&mut self) {
        let replica = self.replica.take().expect("a replica");
        replica.resume();
        self.servers[0] = replica;
        self.wait();
    }

    /// Waits until all servers report the Cluster as ok.
    pub fn wait(&self) {
        for server in &self.servers {
            eventually("the Cluster is well", || {
                let state: String = server.ask(cmd("CLUSTER").arg("INFO"));
                let nodes: String = server.ask(cmd("CLUSTER").arg("NODES"));
                let failed = nodes.lines().filter(|node| node.contains("fail"));
                state.contains("cluster_state:ok")
                    && state.contains("cluster_slots_ok:16384")
                    && nodes.matches("connected").count() >= 3
                    // A server that a replica has replaced has no slots and does not count.
                    && failed.filter(|node| node.split(' ').count() > 8).count() == 0
            });
        }
    }

    /// The URL for a plugin: one server, which knows the others.
    pub fn url(&self) -> String {
        self.servers[0].url().replacen("://", "+cluster://", 1)
    }

    /// The server that has the slot of this key.
    pub fn owner(&self, key: &str) -> usize {
        let slot: u16 = self.servers[0].ask(cmd("CLUSTER").arg("KEYSLOT").arg(key));
        self.servers.iter().position(|server| has(server, slot)).unwrap()
    }

    /// Gives the slot of this key, with all that is in it, to another server, as `redis-cli
    /// --cluster reshard` does.
    pub fn move_slot(&self, key: &str, to: usize) {
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
        // A server with an old epoch may undo the change with the next one.
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
