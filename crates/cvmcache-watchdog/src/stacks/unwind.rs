//! Stacks of all threads without gdb: it stops them, unwinds their stacks, and looks up symbols.

use std::fmt::Write;
use std::fs;
use std::io;

use framehop::{
    CacheNative, ExplicitModuleSectionInfo, FrameAddress, MayAllocateDuringUnwind,
    UnwindRegsNative, Unwinder, UnwinderNative,
};
use nix::unistd::Pid;
use thiserror::Error;

use super::super::message::{Crash, Registers};
use super::MAX_FRAMES;
use super::modules::{self, Memory, Module};
use super::threads::{self, StoppedThreads};

/// There are no stacks.
#[derive(Debug, Error)]
pub(super) enum NoStacks {
    #[error(
        "the watchdog may not look into the process ({0}): does /proc/sys/kernel/yama/ptrace_scope, \
         or a container, forbid that?"
    )]
    Stop(nix::Error),
    #[error("the process cannot be read ({0})")]
    Read(#[from] io::Error),
}

type UnwinderHere = UnwinderNative<Vec<u8>, MayAllocateDuringUnwind>;
type Cache = CacheNative<MayAllocateDuringUnwind>;

/// The stacks of all threads, the one that crashed first.
pub(super) fn stacks(process: Pid, crash: &Crash) -> Result<String, NoStacks> {
    let stopped = StoppedThreads::stop(process).map_err(NoStacks::Stop)?;
    let memory = Memory::open(process)?;
    let modules = modules::of(process, &memory)?;
    let mut unwinder = UnwinderHere::new();
    for module in &modules {
        unwinder.add_module(unwind_information(module, &memory));
    }
    let mut cache = Cache::new();
    let crashed = Pid::from_raw(crash.thread);
    let mut text = String::new();
    for thread in
        stopped.iter().filter(|&it| it == crashed).chain(stopped.iter().filter(|&it| it != crashed))
    {
        let comm = fs::read_to_string(format!("/proc/{process}/task/{thread}/comm"));
        let name = comm.unwrap_or_default();
        let _ = writeln!(text, "Thread {thread} ({}):", name.trim_end());
        // Of the one that crashed, the frames of the handler are of no interest.
        let registers = match thread == crashed && crash.registers != Registers::default() {
            true => Ok(crash.registers),
            false => threads::registers(thread),
        };
        match registers {
            Ok(registers) => {
                write_stack(&mut text, &unwinder, &mut cache, &modules, &memory, registers);
            }
            Err(error) => {
                let _ = writeln!(text, "its registers cannot be read ({error})");
            }
        }
        text.push('\n');
    }
    Ok(text)
}

fn unwind_information(module: &Module, memory: &Memory) -> framehop::Module<Vec<u8>> {
    let range = |name| module.section(name);
    // As they are mapped, so that nothing depends on what has become of the file.
    let data = |name| {
        let range = range(name)?;
        let start = range.start.checked_add(module.bias)?;
        memory.bytes(start..range.end.checked_add(module.bias)?)
    };
    let sections = ExplicitModuleSectionInfo {
        base_svma: 0,
        text_svma: range(".text"),
        text: data(".text"),
        got_svma: range(".got"),
        eh_frame_svma: range(".eh_frame"),
        eh_frame: data(".eh_frame"),
        eh_frame_hdr_svma: range(".eh_frame_hdr"),
        eh_frame_hdr: data(".eh_frame_hdr"),
        ..ExplicitModuleSectionInfo::default()
    };
    let name = module.path.display().to_string();
    framehop::Module::new(name, module.range.clone(), module.bias, sections)
}

fn write_stack(
    text: &mut String,
    unwinder: &UnwinderHere,
    cache: &mut Cache,
    modules: &[Module],
    memory: &Memory,
    registers: Registers,
) {
    let mut read = |address| memory.word(address).ok_or(());
    let start = registers.instruction;
    let mut frames = unwinder.iter_frames(start, native(registers), cache, &mut read);
    for number in 0.. {
        let frame = match frames.next() {
            Ok(Some(frame)) => frame,
            Ok(None) => return,
            Err(error) => {
                let _ = writeln!(text, "    the rest is not known ({error})");
                return;
            }
        };
        if number == MAX_FRAMES {
            text.push_str("    and so on\n");
            return;
        }
        write_frame(text, number, frame, modules);
    }
}

fn write_frame(text: &mut String, number: usize, frame: FrameAddress, modules: &[Module]) {
    let address = frame.address();
    let module = modules.iter().find(|module| module.range.contains(&address));
    let mut lines = String::new();
    match module {
        Some(module) => module.describe(address, frame.address_for_lookup(), &mut lines),
        None => {
            let _ = writeln!(lines, "{address:#018x} in no file");
        }
    }
    for (index, line) in lines.lines().enumerate() {
        let number = if index == 0 { format!("#{number}") } else { String::new() };
        let _ = writeln!(text, "{number:<4} {line}");
    }
}

#[cfg(target_arch = "x86_64")]
fn native(registers: Registers) -> UnwindRegsNative {
    UnwindRegsNative::new(registers.instruction, registers.stack, registers.frame)
}

#[cfg(target_arch = "aarch64")]
fn native(registers: Registers) -> UnwindRegsNative {
    use framehop::aarch64::PtrAuthMask;
    // Linux has 48 bits for addresses of programs; what is above may be a signature.
    let mask = PtrAuthMask::from_max_known_address((1 << 48) - 1);
    UnwindRegsNative::new_with_ptr_auth_mask(mask, registers.link, registers.stack, registers.frame)
}
