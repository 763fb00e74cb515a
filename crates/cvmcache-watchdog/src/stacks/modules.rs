//! The mapped files of a process: the program and its libraries, and the one at an address.

use std::fmt::Write;
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use addr2line::{Loader, demangle_auto};
use nix::unistd::Pid;

/// The memory of a process that this one may trace.
pub(super) struct Memory(File);

impl Memory {
    pub(super) fn open(process: Pid) -> io::Result<Self> {
        File::open(format!("/proc/{process}/mem")).map(Self)
    }

    pub(super) fn word(&self, address: u64) -> Option<u64> {
        let mut bytes = [0; 8];
        self.0.read_exact_at(&mut bytes, address).ok()?;
        Some(u64::from_ne_bytes(bytes))
    }

    pub(super) fn bytes(&self, range: Range<u64>) -> Option<Vec<u8>> {
        let length = range.end.checked_sub(range.start).filter(|&length| length <= MAX_SECTION)?;
        let mut bytes = vec![0; usize::try_from(length).ok()?];
        self.0.read_exact_at(&mut bytes, range.start).ok()?;
        Some(bytes)
    }
}

/// More than any real program has of what is needed to unwind.
const MAX_SECTION: u64 = 256 * 1024 * 1024;

/// A file that is mapped with code in it.
pub(super) struct Module {
    pub(super) path: PathBuf,
    /// All of its addresses in the process.
    pub(super) range: Range<u64>,
    /// What to add to addresses in the file.
    pub(super) bias: u64,
    /// `None` if the file cannot be read, or is no longer what was mapped.
    file: Option<Loader>,
}

/// The modules of a process.
pub(super) fn of(process: Pid, memory: &Memory) -> io::Result<Vec<Module>> {
    let executable = fs::read_link(format!("/proc/{process}/exe"))?;
    let maps = fs::read_to_string(format!("/proc/{process}/maps"))?;
    let mut modules: Vec<Module> = Vec::new();
    for mapping in maps.lines().filter_map(Mapping::parse) {
        match modules.last_mut() {
            Some(module) if module.path == mapping.path => module.range.end = mapping.range.end,
            _ if mapping.offset == 0 => {
                // Of a program that was replaced, there is still this.
                let opened = match mapping.path == executable {
                    true => Loader::new(format!("/proc/{process}/exe")),
                    false => Loader::new(mapping.path),
                };
                modules.push(Module {
                    path: mapping.path.to_owned(),
                    bias: bias(&mapping.range, memory),
                    range: mapping.range,
                    file: opened.ok(),
                });
            }
            _ => {}
        }
    }
    Ok(modules)
}

/// Position-independent files are linked for address 0, others for where they are.
fn bias(range: &Range<u64>, memory: &Memory) -> u64 {
    const TYPE: u64 = 16;
    const EXECUTABLE: [u8; 2] = 2_u16.to_ne_bytes();
    let start = range.start + TYPE;
    match memory.bytes(start..start + 2) {
        Some(kind) if kind == EXECUTABLE => 0,
        _ => range.start,
    }
}

impl Module {
    /// The offset of a section in the file.
    pub(super) fn section(&self, name: &str) -> Option<Range<u64>> {
        let range = self.file.as_ref()?.get_section_range(name.as_bytes())?;
        Some(range.begin..range.end)
    }

    /// Writes the functions at an address, one a line: several if some are inlined.
    pub(super) fn describe(&self, address: u64, at: u64, text: &mut String) {
        let probe = at.wrapping_sub(self.bias);
        let mut found = false;
        let frames = self.file.as_ref().and_then(|file| file.find_frames(probe).ok());
        if let Some(mut frames) = frames {
            while let Ok(Some(frame)) = frames.next() {
                let Some(name) = &frame.function else { continue };
                let Ok(name) = name.demangle() else { continue };
                let _ = write!(text, "{address:#018x} in {name}");
                if let Some(location) = frame.location {
                    let file = location.file.unwrap_or("?");
                    let _ = write!(text, " at {file}:{}", location.line.unwrap_or(0));
                }
                text.push('\n');
                found = true;
            }
        }
        if found {
            return;
        }
        let file = self.path.display();
        match self.file.as_ref().and_then(|file| file.find_symbol(probe)) {
            Some(name) => {
                let name = demangle_auto(name.into(), None);
                let _ = writeln!(text, "{address:#018x} in {name} from {file}");
            }
            None => {
                let _ = writeln!(text, "{address:#018x} in {file} + {probe:#x}");
            }
        }
    }
}

/// A line of `/proc/PID/maps` about a file.
#[derive(Debug, PartialEq, Eq)]
struct Mapping<'a> {
    range: Range<u64>,
    offset: u64,
    path: &'a Path,
}

impl<'a> Mapping<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let path = &line[line.find('/')?..];
        let mut fields = line.split_ascii_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let _permissions = fields.next()?;
        let offset = fields.next()?;
        let number = |text| u64::from_str_radix(text, 16).ok();
        Some(Self {
            range: number(start)?..number(end)?,
            offset: number(offset)?,
            path: Path::new(path),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lines_of_mapped_files_are_parsed() {
        let line = "7f01c000-7f01e000 r-xp 00002000 fe:00 1234     /usr/lib/a b.so (deleted)";
        let expected = Mapping {
            range: 0x7f01_c000..0x7f01_e000,
            offset: 0x2000,
            path: Path::new("/usr/lib/a b.so (deleted)"),
        };
        assert_eq!(Mapping::parse(line), Some(expected));
        for line in ["7f01c000-7f01e000 rw-p 00000000 00:00 0 ", "7ffc-7ffd r-xp 0 00:00 0 [vdso]"]
        {
            assert_eq!(Mapping::parse(line), None);
        }
    }
}
