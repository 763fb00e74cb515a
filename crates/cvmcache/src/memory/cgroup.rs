//! The limits of memory cgroups, of version 1 and 2: those of the process's own, and of all above it.

use std::fs;
use std::path::{Path, PathBuf};

use procfs_core::process::MountInfo;
use procfs_core::{FromRead, ProcessCGroup, ProcessCGroups};

use super::{MemoryLimit, MemoryLimitSource};

/// Of version 2: beyond `memory.high`, the kernel reclaims from the process and holds it up.
const UNIFIED_FILES: [&str; 2] = ["memory.max", "memory.high"];

/// Of version 1. Without a limit, it has a number that no machine has as memory.
const LEGACY_FILES: [&str; 1] = ["memory.limit_in_bytes"];

/// All limits of a process whose `/proc` and cgroups are below `root`.
pub(super) fn limits(root: &Path) -> Vec<MemoryLimit> {
    let mounts = read(&root.join("proc/self/mountinfo"));
    let cgroups = read(&root.join("proc/self/cgroup"));
    let Ok(cgroups) = ProcessCGroups::from_read(cgroups.as_bytes()) else { return Vec::new() };
    // Other mounts may have lines that make no sense to the parser.
    let mounts = mounts.lines().filter(|line| line.contains(" - cgroup"));
    let mut limits = Vec::new();
    for mount in mounts.filter_map(|line| MountInfo::from_line(line).ok()) {
        for cgroup in cgroups.0.iter().filter(|cgroup| is_memory(&mount, cgroup)) {
            limits_on_path(root, &mount, cgroup, &mut limits);
        }
    }
    limits
}

/// Whether the hierarchy that is mounted there is that of the cgroup, and can limit memory.
fn is_memory(mount: &MountInfo, cgroup: &ProcessCGroup) -> bool {
    match mount.fs_type.as_str() {
        "cgroup2" => cgroup.hierarchy == 0,
        "cgroup" => {
            mount.super_options.contains_key("memory")
                && cgroup.controllers.iter().any(|name| name == "memory")
        }
        _ => false,
    }
}

/// The limits of a cgroup and of those above it, as far as they are mounted.
fn limits_on_path(
    root: &Path,
    mount: &MountInfo,
    cgroup: &ProcessCGroup,
    limits: &mut Vec<MemoryLimit>,
) {
    let relative = |path: &Path| path.strip_prefix("/").unwrap_or(path).to_owned();
    let (mount_point, mount_root) =
        (unescaped(&mount.mount_point.to_string_lossy()), unescaped(&mount.root));
    let top = root.join(relative(&mount_point));
    // In a container the mount begins at the container's own cgroup, and in a cgroup namespace the
    // cgroup may be outside of what is mounted: what is visible has to do then.
    let below = Path::new(&cgroup.pathname).strip_prefix(&mount_root).unwrap_or(Path::new(""));
    let is_outside = below.components().any(|part| part.as_os_str() == "..");
    let own = if is_outside { top.clone() } else { top.join(relative(below)) };
    let is_unified = mount.fs_type == "cgroup2";
    let files = if is_unified { &UNIFIED_FILES[..] } else { &LEGACY_FILES[..] };
    for directory in own.ancestors().take_while(|directory| directory.starts_with(&top)) {
        let shown = Path::new("/").join(directory.strip_prefix(root).unwrap_or(directory));
        let bounds =
            files.iter().filter_map(|file| read(&directory.join(file)).trim().parse().ok());
        limits.extend(bounds.map(|bytes| limit(bytes, &shown)));
    }
    if !is_unified {
        // It includes cgroups that are not mounted here.
        let stat = read(&own.join("memory.stat"));
        let hierarchical = stat.lines().find_map(|l| l.strip_prefix("hierarchical_memory_limit "));
        let shown = Path::new("/").join(own.strip_prefix(root).unwrap_or(&own));
        let bytes = hierarchical.and_then(|bytes| bytes.trim().parse().ok());
        limits.extend(bytes.map(|bytes| limit(bytes, &shown)));
    }
}

/// A path of mountinfo, in which blanks and backslashes are octal: slices of systemd have backslashes in
/// their names (seq_path_root of the kernel).
fn unescaped(path: &str) -> PathBuf {
    let mut parts = path.split('\\');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let byte = part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match byte.filter(u8::is_ascii) {
            Some(byte) => {
                plain.push(byte.into());
                plain.push_str(&part[3..]);
            }
            None => {
                plain.push('\\');
                plain.push_str(part);
            }
        }
    }
    plain.into()
}

fn limit(bytes: u64, cgroup: &Path) -> MemoryLimit {
    MemoryLimit::new(bytes, MemoryLimitSource::Cgroup(PathBuf::from(cgroup)))
}

/// The text of a file; empty if there is none.
fn read(path: &Path) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: u64 = 1 << 34;

    const UNIFIED: &str = "29 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw\n";
    const LEGACY: &str = "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";

    /// What limits a process of a machine with these files.
    fn physical(files: &[(&str, &str)]) -> (u64, String) {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path.trim_start_matches('/'));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let limit = MemoryLimit::physical_of(MACHINE, root.path());
        match limit.source {
            MemoryLimitSource::Cgroup(path) => (limit.bytes, path.display().to_string()),
            _ => (limit.bytes, String::new()),
        }
    }

    #[test]
    fn the_limit_of_the_own_cgroup_counts() {
        let unified = physical(&[
            ("/proc/self/cgroup", "0::/system.slice/ram.service\n"),
            ("/proc/self/mountinfo", UNIFIED),
            ("/sys/fs/cgroup/system.slice/ram.service/memory.max", "419430400\n"),
            ("/sys/fs/cgroup/system.slice/ram.service/memory.high", "max\n"),
            ("/sys/fs/cgroup/system.slice/memory.max", "max\n"),
        ]);
        assert_eq!(unified, (419430400, "/sys/fs/cgroup/system.slice/ram.service".into()));
        let legacy = physical(&[
            ("/proc/self/cgroup", "9:cpu,cpuacct:/a\n4:memory:/b\n0::/c\n"),
            ("/proc/self/mountinfo", LEGACY),
            ("/sys/fs/cgroup/memory/b/memory.limit_in_bytes", "419430400\n"),
            ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ]);
        assert_eq!(legacy, (419430400, "/sys/fs/cgroup/memory/b".into()));
    }

    #[test]
    fn the_smallest_limit_of_those_above_it_counts() {
        let unified = physical(&[
            ("/proc/self/cgroup", "0::/a/b/c\n"),
            ("/proc/self/mountinfo", UNIFIED),
            ("/sys/fs/cgroup/a/b/c/memory.max", "3000000000\n"),
            ("/sys/fs/cgroup/a/b/memory.max", "2000000000\n"),
            ("/sys/fs/cgroup/a/memory.high", "1000000000\n"),
            ("/sys/fs/cgroup/other/memory.max", "1\n"),
        ]);
        assert_eq!(unified, (1000000000, "/sys/fs/cgroup/a".into()));
        let legacy = physical(&[
            ("/proc/self/cgroup", "4:memory:/a/b\n"),
            ("/proc/self/mountinfo", LEGACY),
            ("/sys/fs/cgroup/memory/a/memory.limit_in_bytes", "1000000000\n"),
            ("/sys/fs/cgroup/memory/a/b/memory.limit_in_bytes", "2000000000\n"),
        ]);
        assert_eq!(legacy, (1000000000, "/sys/fs/cgroup/memory/a".into()));
    }

    #[test]
    fn a_container_sees_its_own_cgroup_as_the_top() {
        let mounted = "35 31 0:32 /docker/1 /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";
        let legacy = physical(&[
            ("/proc/self/cgroup", "4:memory:/docker/1/job\n"),
            ("/proc/self/mountinfo", mounted),
            ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "1000000000\n"),
            ("/sys/fs/cgroup/memory/job/memory.limit_in_bytes", "2000000000\n"),
        ]);
        assert_eq!(legacy.0, 1000000000);
        for cgroup in ["0::/\n", "0::/../sibling\n", "0::/not/mounted\n"] {
            let namespace = physical(&[
                ("/proc/self/cgroup", cgroup),
                ("/proc/self/mountinfo", UNIFIED),
                ("/sys/fs/cgroup/memory.max", "1000000000\n"),
            ]);
            assert_eq!(namespace, (1000000000, "/sys/fs/cgroup".into()), "{cgroup}");
        }
    }

    #[test]
    fn names_that_mountinfo_escapes_are_found() {
        let mounted = r"35 31 0:32 /a\134x2db.slice /sys/fs/c\040g ro - cgroup2 cgroup2 rw";
        let unified = physical(&[
            ("/proc/self/cgroup", "0::/a\\x2db.slice/c\\x2dd.scope\n"),
            ("/proc/self/mountinfo", mounted),
            ("/sys/fs/c g/c\\x2dd.scope/memory.max", "1000000000\n"),
        ]);
        assert_eq!(unified, (1000000000, r"/sys/fs/c g/c\x2dd.scope".into()));
        assert_eq!(unescaped(r"/a\9\\1"), Path::new(r"/a\9\\1"));
    }

    #[test]
    fn a_limit_above_what_is_mounted_is_found_in_the_statistics_of_version_1() {
        let legacy = physical(&[
            ("/proc/self/cgroup", "4:memory:/\n"),
            ("/proc/self/mountinfo", LEGACY),
            ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("/sys/fs/cgroup/memory/memory.stat", "cache 0\nhierarchical_memory_limit 4096000\n"),
        ]);
        assert_eq!(legacy.0, 4096000);
    }

    #[test]
    fn both_versions_can_be_mounted() {
        let hybrid = physical(&[
            ("/proc/self/cgroup", "4:memory:/a\n0::/b\n"),
            (
                "/proc/self/mountinfo",
                &format!(
                    "{LEGACY}{}",
                    UNIFIED.replace(" /sys/fs/cgroup", " /sys/fs/cgroup/unified")
                ),
            ),
            ("/sys/fs/cgroup/memory/a/memory.limit_in_bytes", "1000000000\n"),
        ]);
        assert_eq!(hybrid, (1000000000, "/sys/fs/cgroup/memory/a".into()));
    }

    #[test]
    fn without_a_limit_or_with_files_that_make_no_sense_the_machine_counts() {
        for (cgroup, mounts) in [
            ("0::/a\n", UNIFIED),
            ("", UNIFIED),
            ("0::/a\n", ""),
            ("nonsense\n", "nonsense - cgroup2\n"),
            ("4:memory:/a\n", UNIFIED),
            ("0::/a\n", LEGACY),
        ] {
            let files = [
                ("/proc/self/cgroup", cgroup),
                ("/proc/self/mountinfo", mounts),
                ("/sys/fs/cgroup/a/memory.max", "max\n"),
                ("/sys/fs/cgroup/memory/a/memory.limit_in_bytes", "-1\n"),
            ];
            assert_eq!(physical(&files), (MACHINE, String::new()), "{cgroup:?} {mounts:?}");
        }
    }

    #[test]
    fn lines_of_other_mounts_that_make_no_sense_are_skipped() {
        let mounts = format!("1 2 0:9 / /odd rw -\n\n{UNIFIED}");
        let unified = physical(&[
            ("/proc/self/cgroup", "0::/a\n"),
            ("/proc/self/mountinfo", &mounts),
            ("/sys/fs/cgroup/a/memory.max", "5000000\n"),
        ]);
        assert_eq!(unified.0, 5000000);
    }
}
