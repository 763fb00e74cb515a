//! What a server says of itself (`INFO`), as far as the cache depends on it.

/// The fields of INFO that matter. A server that leaves one out has the harmless value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ServerInfo {
    /// In bytes; 0 is no limit.
    pub(crate) maxmemory: u64,
    /// What its data take, in bytes.
    pub(crate) used_memory: u64,
    pub(crate) maxmemory_policy: String,
    pub(crate) is_cluster_node: bool,
    pub(crate) is_replica: bool,
}

impl ServerInfo {
    pub(crate) fn parse(text: &str) -> Self {
        let mut info = Self::default();
        for (name, value) in text.lines().filter_map(|line| line.trim_end().split_once(':')) {
            match name {
                "maxmemory" => info.maxmemory = value.parse().unwrap_or(0),
                "used_memory" => info.used_memory = value.parse().unwrap_or(0),
                "maxmemory_policy" => value.clone_into(&mut info.maxmemory_policy),
                "redis_mode" => info.is_cluster_node = value == "cluster",
                "role" => info.is_replica = value == "slave",
                _ => {}
            }
        }
        info
    }

    /// Whether the server evicts keys by itself when it is full.
    pub(crate) fn evicts(&self) -> bool {
        self.maxmemory > 0 && !matches!(self.maxmemory_policy.as_str(), "" | "noeviction")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn info_is_read_as_far_as_it_is_there() {
        let text = "# Server\r\nredis_mode:cluster\r\n\r\nmaxmemory:1048576\r\nmaxmemory_human:1M\r\n\
                    maxmemory_policy:volatile-lru\r\nrole:slave\r\n";
        let info = ServerInfo::parse(text);
        assert_eq!((info.maxmemory, info.maxmemory_policy.as_str()), (1 << 20, "volatile-lru"));
        assert!(info.is_cluster_node && info.is_replica && info.evicts());
        assert_eq!(ServerInfo::parse("x\r\nmaxmemory:many\r\n"), ServerInfo::default());
        assert!(!ServerInfo::parse("maxmemory:1\r\nmaxmemory_policy:noeviction\r\n").evicts());
        assert!(!ServerInfo::parse("maxmemory:0\r\nmaxmemory_policy:allkeys-lru\r\n").evicts());
    }
}
