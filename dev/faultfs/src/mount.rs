//! The disk as a folder: mounted, steered and cut off.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fuser::{BackgroundSession, Config, MountOption};
use hw_kit::Rng;

use crate::cut::Survival;
use crate::faults::Faults;
use crate::fs::{Door, Power, Shared, State};
use crate::tree::{Journal, Tree};

/// Requests that are answered side by side: a sync that takes its time holds up nobody else.
const THREADS: usize = 4;

/// What the disk did.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counts {
    /// Parts of files that were read.
    pub reads: u64,
    /// Writes.
    pub writes: u64,
    /// Syncs of files and folders.
    pub syncs: u64,
    /// Changes of names.
    pub names: u64,
    /// Power cuts.
    pub cuts: u64,
}

/// A mounted disk. Unmounted on drop; its content is gone then.
pub struct FaultDisk {
    path: PathBuf,
    shared: Arc<Shared>,
    survival: Survival,
    session: Option<BackgroundSession>,
}

impl FaultDisk {
    /// Mounts an empty disk on a folder that exists. Fails where FUSE is not there or not permitted.
    pub fn mount(path: &Path, survival: Survival) -> io::Result<FaultDisk> {
        let mut tree = Tree::new();
        tree.journal = match survival {
            Survival::Any => Journal::Folders,
            Survival::Ordered => Journal::Whole,
        };
        let shared = Shared::new(State {
            tree,
            faults: Faults::default(),
            power: Power::On,
            sync_delay: Duration::ZERO,
            cut_after: None,
            counts: Counts::default(),
        });
        let mut disk = FaultDisk { path: path.to_owned(), shared, survival, session: None };
        disk.open()?;
        Ok(disk)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Changes what goes wrong.
    pub fn set(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.shared.lock().faults);
    }

    /// How many acts have failed on purpose.
    pub fn hits(&self) -> u64 {
        self.shared.lock().faults.hits
    }

    /// Bytes of all files.
    pub fn used(&self) -> u64 {
        self.shared.lock().tree.used()
    }

    /// What was done so far.
    pub fn counts(&self) -> Counts {
        self.shared.lock().counts
    }

    /// How long each sync takes from now on.
    pub fn set_sync_delay(&self, delay: Duration) {
        self.shared.lock().sync_delay = delay;
    }

    /// Everything is written and synced, as after a quiet minute.
    pub fn settle(&self) {
        self.shared.lock().tree.settle();
    }

    /// The power is gone, now: nothing that is asked from here on is done or answered. Whoever used the disk is to be killed
    /// next, then [`FaultDisk::end_waiting`] lets the kernel go.
    pub fn freeze(&self) {
        self.shared.set_power(Power::Cut);
    }

    /// The power goes after so many further requests, in the middle of whatever that is.
    pub fn freeze_after(&self, requests: u64) {
        self.shared.lock().cut_after = Some(requests);
    }

    /// Waits until the power is gone, but not longer than that; gives whether it is.
    pub fn wait_for_cut(&self, patience: Duration) -> bool {
        self.shared.wait_for_cut(patience)
    }

    /// Requests that were under way when the power went end with an error, for nobody.
    pub fn end_waiting(&self) {
        self.shared.set_power(Power::Off);
    }

    /// The power comes back: mounted anew with what survived.
    pub fn power_on(&mut self, rng: &mut Rng) -> io::Result<()> {
        self.end_waiting();
        self.close()?;
        {
            let mut state = self.shared.lock();
            state.tree.cut(self.survival, rng);
            state.counts.cuts += 1;
            state.cut_after = None;
            state.power = Power::On;
        }
        self.open()
    }

    fn open(&mut self) -> io::Result<()> {
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("faultfs".to_owned()), MountOption::NoAtime];
        config.n_threads = Some(THREADS);
        self.session = Some(fuser::spawn_mount(Door(self.shared.clone()), &self.path, &config)?);
        Ok(())
    }

    fn close(&mut self) -> io::Result<()> {
        self.session.take().map_or(Ok(()), BackgroundSession::umount_and_join)
    }
}

impl Drop for FaultDisk {
    fn drop(&mut self) {
        self.end_waiting();
        // The folder stays behind in use, and whoever removes it says so.
        let _ = self.close();
    }
}
