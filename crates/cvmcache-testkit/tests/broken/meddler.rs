//! A man in the middle: between clients and a sound plugin, with an eye on each message.
//!
//! The SDK does not let a plugin be wrong on the wire. So what is wrong there is put in here.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use cvmcache::{Locator, RunningServer, ServerBuilder};
use cvmcache_proto::{ClientMessage, Decoder, DecoderLimits, Frame, ServerMessage, frame};
use parking_lot::Mutex;
use tempfile::TempDir;

use super::tamper::{Out, Tamper, WireFlaw};

/// A plugin, and the man in the middle before it.
#[derive(Debug)]
pub(crate) struct Meddler {
    locator: Locator,
    stop: Arc<AtomicBool>,
    listening: Option<JoinHandle<()>>,
    plugin: Option<RunningServer>,
    _directory: TempDir,
}

/// What all connections know of.
#[derive(Debug, Default)]
pub(crate) struct Common {
    /// How many are open.
    pub(crate) open: AtomicUsize,
    /// How many Ioctls came.
    pub(crate) ioctls: AtomicUsize,
}

impl Meddler {
    /// Serves the plugin, with a flaw or as it is.
    pub(crate) fn start(plugin: ServerBuilder, flaw: Option<WireFlaw>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let behind = directory.path().join("plugin");
        let plugin = plugin.listen(&Locator::Unix(behind.clone())).unwrap().spawn().unwrap();
        let before = directory.path().join("meddler");
        let listener = UnixListener::bind(&before).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let listening = thread::spawn(move || {
            let common = Arc::new(Common::default());
            for (number, client) in listener.incoming().enumerate() {
                if stopped.load(Ordering::SeqCst) {
                    break;
                }
                let tamper = Tamper::new(flaw, number, common.clone());
                serve(client.unwrap(), &behind, tamper).unwrap();
            }
        });
        Self {
            locator: Locator::Unix(before),
            stop,
            listening: Some(listening),
            plugin: Some(plugin),
            _directory: directory,
        }
    }

    /// Where clients are listened to.
    pub(crate) fn locator(&self) -> &Locator {
        &self.locator
    }
}

impl Drop for Meddler {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Locator::Unix(path) = &self.locator {
            // Wakes the thread that accepts.
            let _ = UnixStream::connect(path);
        }
        let listened = self.listening.take().map(JoinHandle::join);
        let served = self.plugin.take().map(|plugin| {
            plugin.handle().terminate();
            plugin.wait()
        });
        if !thread::panicking() {
            listened.unwrap().unwrap();
            served.unwrap().unwrap();
        }
    }
}

/// The two ends that a connection in the middle has.
#[derive(Debug)]
struct Ends {
    client: UnixStream,
    plugin: UnixStream,
    tamper: Mutex<Tamper>,
    to_client: Mutex<()>,
    to_plugin: Mutex<()>,
}

fn serve(client: UnixStream, plugin: &Path, tamper: Tamper) -> io::Result<()> {
    tamper.common().open.fetch_add(1, Ordering::SeqCst);
    let ends = Arc::new(Ends {
        client,
        plugin: UnixStream::connect(plugin)?,
        tamper: Mutex::new(tamper),
        to_client: Mutex::default(),
        to_plugin: Mutex::default(),
    });
    let same = ends.clone();
    thread::spawn(move || {
        // An end that is closed ends the connection, however it shows.
        let _ = same.pass(&same.client, |tamper, frame, out| {
            let message = ClientMessage::from_frame(frame).map_err(io::Error::other)?;
            tamper.asked(message, out);
            Ok(())
        });
        let _ = same.plugin.shutdown(Shutdown::Write);
    });
    thread::spawn(move || {
        let _ = ends.pass(&ends.plugin, |tamper, frame, out| {
            let message = ServerMessage::from_frame(frame).map_err(io::Error::other)?;
            tamper.answered(message, out);
            Ok(())
        });
        let tamper = ends.tamper.lock();
        tamper.common().open.fetch_sub(1, Ordering::SeqCst);
        if !tamper.stays_open() {
            let _ = ends.client.shutdown(Shutdown::Both);
        }
    });
    Ok(())
}

impl Ends {
    /// Passes on what comes from one end, as far as it is let through.
    fn pass(
        &self,
        mut from: &UnixStream,
        look: impl Fn(&mut Tamper, Frame, &mut Out) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut limits = DecoderLimits::default();
        limits.max_message = frame::MAX_LEN;
        let mut decoder = Decoder::new(limits);
        let mut chunk = vec![0; 64 * 1024];
        loop {
            while let Some(frame) = decoder.next_frame().map_err(io::Error::other)? {
                let mut out = Out::default();
                look(&mut self.tamper.lock(), frame, &mut out)?;
                self.send(out)?;
            }
            match from.read(&mut chunk)? {
                0 => return Ok(()),
                len => decoder.buffer().extend_from_slice(&chunk[..len]),
            }
        }
    }

    fn send(&self, out: Out) -> io::Result<()> {
        // Before the plugin can close the connection for what it gets.
        for message in out.to_client {
            let (message, attachment) = message.into_wire();
            let mut bytes = Vec::new();
            frame::encode(message, attachment.len(), &mut bytes).map_err(io::Error::other)?;
            attachment.pieces().for_each(|piece| bytes.extend_from_slice(piece));
            let _turn = self.to_client.lock();
            (&self.client).write_all(&bytes)?;
        }
        for message in out.to_plugin {
            let (message, attachment) = message.into_wire();
            let mut bytes = Vec::new();
            frame::encode(message, attachment.len(), &mut bytes).map_err(io::Error::other)?;
            bytes.extend_from_slice(&attachment);
            let _turn = self.to_plugin.lock();
            (&self.plugin).write_all(&bytes)?;
        }
        if out.close {
            self.client.shutdown(Shutdown::Both)?;
        }
        Ok(())
    }
}
