//! A bound on the memory that a server can make the plugin take. The redis crate collects a reply
//! until it is complete, however long the server announces it; here, the announced lengths are checked
//! while the bytes come in. There is no I/O in this file.

/// The largest reply to one command, in bytes. The largest one that is requested is a read, of
/// 512 KiB at most.
pub(super) const MAX_REPLY: u64 = 16 * 1024 * 1024;

/// The largest number of values in one reply.
pub(super) const MAX_VALUES: u64 = 64 * 1024;

/// The longest line: a length, a number, an error.
const MAX_LINE: usize = 64 * 1024;

#[derive(Debug, PartialEq, Eq)]
pub(super) struct ReplyTooLarge;

/// Follows the announced lengths in a stream of replies. It follows lengths and nothing else: what is
/// invalid otherwise is for the parser to refuse.
#[derive(Debug)]
pub(super) struct ReplyScanner {
    /// The line that has begun.
    line: Vec<u8>,
    /// What is left of a string of known length, and its end of line.
    string: u64,
    /// How many values of this reply are still to come.
    values: u64,
    /// How many bytes and values this reply has announced.
    bytes: u64,
    seen: u64,
}

impl ReplyScanner {
    pub(super) fn new() -> Self {
        Self { line: Vec::new(), string: 0, values: 1, bytes: 0, seen: 0 }
    }

    /// Whether no reply has begun.
    pub(super) fn is_between(&self) -> bool {
        let nothing = (self.values, self.bytes, self.seen) == (1, 0, 0);
        self.line.is_empty() && self.string == 0 && nothing
    }

    pub(super) fn take(&mut self, mut input: &[u8]) -> Result<(), ReplyTooLarge> {
        while !input.is_empty() {
            if self.string > 0 {
                let part = usize::try_from(self.string).unwrap_or(usize::MAX).min(input.len());
                self.string -= part as u64;
                input = &input[part..];
                if self.string == 0 {
                    self.value_ended();
                }
                continue;
            }
            let end = input.iter().position(|&byte| byte == b'\n');
            let part = end.map_or(input.len(), |end| end + 1);
            self.line.extend_from_slice(&input[..part]);
            input = &input[part..];
            if self.line.len() > MAX_LINE {
                return Err(ReplyTooLarge);
            }
            if end.is_some() {
                self.line_ended()?;
            }
        }
        Ok(())
    }

    fn line_ended(&mut self) -> Result<(), ReplyTooLarge> {
        let length = self.line.trim_ascii_end().get(1..).unwrap_or_default();
        let length = str::from_utf8(length).ok().and_then(|length| length.parse::<i64>().ok());
        // A negative length is that of a value which is not there.
        let length = length.and_then(|length| u64::try_from(length).ok());
        self.bytes += self.line.len() as u64;
        match (self.line.first(), length) {
            (Some(b'$' | b'=' | b'!'), Some(length)) => {
                self.bytes = self.bytes.saturating_add(length);
                self.string = length.saturating_add(2);
            }
            (Some(b'*' | b'~' | b'>'), Some(length)) => self.values_announced(length),
            (Some(b'%' | b'|'), Some(length)) => self.values_announced(length.saturating_mul(2)),
            _ => self.value_ended(),
        }
        self.line.clear();
        if self.bytes > MAX_REPLY || self.seen > MAX_VALUES { Err(ReplyTooLarge) } else { Ok(()) }
    }

    fn values_announced(&mut self, number: u64) {
        self.seen = self.seen.saturating_add(number);
        self.values = self.values.saturating_add(number);
        self.value_ended();
    }

    fn value_ended(&mut self) {
        self.values = self.values.saturating_sub(1);
        if self.values == 0 {
            (self.values, self.bytes, self.seen) = (1, 0, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn taken(input: &[u8]) -> Result<ReplyScanner, ReplyTooLarge> {
        let mut replies = ReplyScanner::new();
        replies.take(input).map(|()| replies)
    }

    #[test]
    fn a_reply_ends_where_the_protocol_says() {
        for reply in [
            &b"+OK\r\n"[..],
            b"-OOM command not allowed\r\n",
            b":12\r\n",
            b"$-1\r\n",
            b"$0\r\n\r\n",
            b"$5\r\n*9\r\n\n\r\n",
            b"*-1\r\n",
            b"*0\r\n",
            b"*2\r\n$1\r\na\r\n*2\r\n:1\r\n$-1\r\n",
            b"%1\r\n+a\r\n*0\r\n",
        ] {
            let text = String::from_utf8_lossy(reply);
            for cut in 1..=reply.len() {
                let replies = taken(&reply[..cut]).unwrap();
                assert_eq!(replies.is_between(), cut == reply.len(), "{text:?} after {cut} bytes");
            }
        }
    }

    #[test]
    fn a_reply_that_is_too_large_is_refused_when_its_length_is_announced() {
        let largest = format!("${}\r\n", MAX_REPLY - 32);
        assert!(taken(largest.as_bytes()).is_ok());
        let many_small =
            format!("*1000\r\n{}", "$100000\r\n".to_owned() + &"x".repeat(100_002)).into_bytes();
        assert!(taken(&many_small).is_ok());
        for reply in [
            format!("${}\r\n", MAX_REPLY + 1),
            format!("${}\r\n", i64::MAX),
            format!("*{}\r\n", MAX_VALUES + 1),
            format!("%{}\r\n", MAX_VALUES),
            format!("*{}\r\n*{}\r\n", MAX_VALUES / 2, MAX_VALUES),
            format!("*2\r\n$9\r\n123456789\r\n${}\r\n", MAX_REPLY),
            "+".repeat(MAX_LINE + 1),
        ] {
            assert_eq!(taken(reply.as_bytes()).err(), Some(ReplyTooLarge), "{:.40}", reply);
        }
    }

    #[test]
    fn the_bound_is_for_each_reply_and_not_for_their_sum() {
        let reply = format!("${}\r\n{}\r\n", 1 << 20, "x".repeat(1 << 20));
        let mut replies = ReplyScanner::new();
        for _ in 0..=MAX_REPLY >> 20 {
            replies.take(reply.as_bytes()).unwrap();
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_not_panic(input: Vec<u8>, lines in "([$*%+:-][0-9-]{0,20}\r\n){0,9}") {
            let _ = taken(&input);
            let _ = taken(lines.as_bytes());
        }
    }
}
