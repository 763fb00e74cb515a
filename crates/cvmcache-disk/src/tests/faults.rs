//! A layer below the cache that injects faults: a kill after so many changes, a power cut that drops what was
//! not synchronised, a full disk, and blocks that cannot be read.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use cvmcache::plugin::ReadBuffer;
use parking_lot::Mutex;

use crate::files::{FileSystem, System};

#[derive(Debug)]
pub(super) struct FaultyFiles {
    graveyard: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// How many changes are made until the process is killed; `None` for all.
    left: Option<usize>,
    /// Files with bytes that have not been synchronised, by inode, and how many have been.
    unsynced: HashMap<u64, (File, u64)>,
    /// How to take back the changes of names, oldest first.
    names: Vec<Undo>,
    buried: usize,
    /// How many bytes the disk has left; `None` for more than are written.
    room: Option<u64>,
    unreadable: HashSet<u64>,
}

#[derive(Debug)]
enum Undo {
    Remove(PathBuf),
    Rename(PathBuf, PathBuf),
}

impl FaultyFiles {
    /// `graveyard` is where removed files are kept, should their removal be undone.
    pub(super) fn new(graveyard: &Path) -> Self {
        fs::create_dir_all(graveyard).expect("a directory");
        Self { graveyard: graveyard.to_owned(), state: Mutex::default() }
    }

    pub(super) fn kill_after(self, changes: usize) -> Self {
        self.state.lock().left = Some(changes);
        self
    }

    pub(super) fn with_room(self, bytes: u64) -> Self {
        self.state.lock().room = Some(bytes);
        self
    }

    pub(super) fn is_killed(&self) -> bool {
        self.state.lock().left == Some(0)
    }

    /// Reads of this file fail from now on.
    pub(super) fn make_unreadable(&self, path: &Path) {
        let inode = fs::metadata(path).expect("a file").ino();
        self.state.lock().unreadable.insert(inode);
    }

    /// Cuts the power: of the changes of names since directories were last synchronised, only a share of
    /// `kept` in 4, the oldest, has reached the disk, and no byte that was not synchronised has.
    pub(super) fn cut_power(&self, kept: usize) {
        let mut state = self.state.lock();
        let kept = state.names.len() * kept / 4;
        for undo in state.names.split_off(kept).into_iter().rev() {
            match undo {
                Undo::Remove(path) => fs::remove_file(path).expect("it was made"),
                Undo::Rename(from, to) => fs::rename(from, to).expect("it was renamed"),
            }
        }
        for (file, synced) in state.unsynced.values() {
            file.set_len(*synced).expect("it can be cut");
        }
    }

    fn change<T>(&self, work: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.state.lock();
        match &mut state.left {
            Some(0) => return Err(io::Error::other("killed")),
            Some(left) => *left -= 1,
            None => {}
        }
        work(&mut state)
    }

    /// Keeps a file that is about to lose its name.
    fn bury(&self, state: &mut State, path: &Path) -> io::Result<()> {
        if state.room.is_some() {
            // It would go on to take room.
            return Ok(());
        }
        let grave = self.graveyard.join(state.buried.to_string());
        state.buried += 1;
        fs::hard_link(path, &grave)?;
        state.names.push(Undo::Rename(grave, path.to_owned()));
        Ok(())
    }
}

impl FileSystem for FaultyFiles {
    fn create(&self, path: &Path, mode: u32) -> io::Result<File> {
        self.change(|state| {
            if state.room == Some(0) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let file = System.create(path, mode)?;
            state.unsynced.insert(file.metadata()?.ino(), (file.try_clone()?, 0));
            state.names.push(Undo::Remove(path.to_owned()));
            Ok(file)
        })
    }

    fn open(&self, path: &Path) -> io::Result<File> {
        System.open(path)
    }

    fn open_cached(&self, path: &Path) -> io::Result<File> {
        System.open_cached(path)
    }

    fn write_at(&self, file: &File, data: &[u8], offset: u64) -> io::Result<()> {
        self.change(|state| {
            if let Some(room) = &mut state.room {
                let left = room.checked_sub(data.len() as u64);
                *room = left.ok_or(io::ErrorKind::StorageFull)?;
            }
            System.write_at(file, data, offset)
        })
    }

    fn read_at(&self, file: &File, buffer: &mut ReadBuffer, offset: u64) -> io::Result<usize> {
        if self.state.lock().unreadable.contains(&file.metadata()?.ino()) {
            return Err(rustix::io::Errno::IO.into());
        }
        System.read_at(file, buffer, offset)
    }

    fn read_cached(&self, file: &File, buffer: &mut ReadBuffer, offset: u64) -> io::Result<usize> {
        // The page cache has nothing of what cannot be read.
        if self.state.lock().unreadable.contains(&file.metadata()?.ino()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        System.read_cached(file, buffer, offset)
    }

    fn sync(&self, files: &[&File]) -> io::Result<()> {
        self.change(|state| {
            for file in files {
                state.unsynced.remove(&file.metadata()?.ino());
            }
            Ok(())
        })
    }

    fn sync_directory(&self, _path: &Path) -> io::Result<()> {
        self.change(|state| {
            state.names.clear();
            Ok(())
        })
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change(|state| {
            System.link(from, to)?;
            state.names.push(Undo::Remove(to.to_owned()));
            Ok(())
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change(|state| {
            if to.exists() {
                self.bury(state, to)?;
            }
            System.rename(from, to)?;
            state.names.push(Undo::Rename(to.to_owned(), from.to_owned()));
            Ok(())
        })
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change(|state| {
            System.rename_new(from, to)?;
            state.names.push(Undo::Rename(to.to_owned(), from.to_owned()));
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.change(|state| {
            let metadata = fs::symlink_metadata(path)?;
            self.bury(state, path)?;
            fs::remove_file(path)?;
            if metadata.nlink() == 1
                && let Some(room) = &mut state.room
            {
                *room += metadata.len();
            }
            Ok(())
        })
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        System.metadata(path)
    }
}
