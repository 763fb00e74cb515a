//! The messages between a plugin and its watchdog: one datagram each, its kind first.
//!
//! A crash is encoded on the alternate stack of a signal handler: into few bytes, without memory.

use std::mem;

/// The watchdog has settled, and a plugin that crashed may end.
pub(super) const READY: &[u8] = b"R";
pub(super) const DONE: &[u8] = b"D";
/// The plugin ends as it should.
pub(super) const GOODBYE: &[u8] = b"G";

const CRASH: u8 = b'C';
const PANIC: u8 = b'P';

/// The maximum length of a panic message, in bytes. Fits into a datagram, and into the socket's buffer more than once.
pub(super) const MAX_PANIC: usize = 32 * 1024;

/// A message of the plugin.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Message {
    Crash(Crash),
    Panic(String),
    Goodbye,
}

/// What a signal handler knows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Crash {
    pub(super) signal: i32,
    /// `si_code`: why the system sent it, or that a process did.
    pub(super) code: i32,
    pub(super) errno: i32,
    pub(super) thread: i32,
    /// If a process sent it.
    pub(super) sender: i32,
    pub(super) sender_user: u32,
    /// If the system sent it.
    pub(super) address: u64,
    pub(super) registers: Registers,
}

/// Where a thread was. All zero where we do not know how to find out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Registers {
    pub(super) instruction: u64,
    pub(super) stack: u64,
    pub(super) frame: u64,
    /// Where the function returns to; only on architectures that have a register for it.
    pub(super) link: u64,
}

const FIELDS: usize = 11;
pub(super) const CRASH_SIZE: usize = 1 + FIELDS * mem::size_of::<u64>();

impl Crash {
    pub(super) fn encode(&self) -> [u8; CRASH_SIZE] {
        let fields: [u64; FIELDS] = [
            self.signal as u64,
            self.code as u64,
            self.errno as u64,
            self.thread as u64,
            self.sender as u64,
            self.sender_user.into(),
            self.address,
            self.registers.instruction,
            self.registers.stack,
            self.registers.frame,
            self.registers.link,
        ];
        let mut bytes = [CRASH; CRASH_SIZE];
        for (target, field) in bytes[1..].chunks_exact_mut(mem::size_of::<u64>()).zip(fields) {
            target.copy_from_slice(&field.to_ne_bytes());
        }
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (fields, rest) = bytes.as_chunks();
        let fields: [[u8; 8]; FIELDS] = fields.try_into().ok().filter(|_| rest.is_empty())?;
        let [signal, code, errno, thread, sender, sender_user, address, pc, stack, frame, link] =
            fields.map(u64::from_ne_bytes);
        Some(Self {
            signal: signal as i32,
            code: code as i32,
            errno: errno as i32,
            thread: thread as i32,
            sender: sender as i32,
            sender_user: sender_user as u32,
            address,
            registers: Registers { instruction: pc, stack, frame, link },
        })
    }
}

impl Message {
    /// `None` for bytes that no plugin sends.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        match bytes.split_first()? {
            (&CRASH, rest) => Crash::decode(rest).map(Self::Crash),
            (&PANIC, rest) => Some(Self::Panic(String::from_utf8_lossy(rest).into_owned())),
            _ => (bytes == GOODBYE).then_some(Self::Goodbye),
        }
    }
}

/// The message of a panic, cut to what fits.
pub(super) fn panic(text: &str) -> Vec<u8> {
    let text = text.as_bytes();
    let mut bytes = vec![PANIC];
    bytes.extend_from_slice(&text[..text.len().min(MAX_PANIC)]);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_survives_the_socket() {
        let crash = Crash {
            signal: 11,
            code: -6,
            errno: 2,
            thread: 77,
            sender: 78,
            sender_user: u32::MAX,
            address: u64::MAX,
            registers: Registers { instruction: 1, stack: 2, frame: 3, link: 4 },
        };
        assert_eq!(Message::decode(&crash.encode()), Some(Message::Crash(crash)));
        assert_eq!(Message::decode(&panic("ouch")), Some(Message::Panic("ouch".to_owned())));
        assert_eq!(Message::decode(GOODBYE), Some(Message::Goodbye));
        assert_eq!(Message::decode(&crash.encode()[..40]), None);
        assert_eq!(Message::decode(b"?"), None);
    }

    #[test]
    fn a_long_panic_message_is_cut() {
        let text = "€".repeat(MAX_PANIC);
        let Some(Message::Panic(cut)) = Message::decode(&panic(&text)) else { panic!("no panic") };
        assert!(cut.starts_with(&text[..MAX_PANIC - 2]), "{} bytes", cut.len());
    }
}
