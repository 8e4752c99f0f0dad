//! Bugs to plant into the simulated machine, to see that the invariants find them.

/// One deliberate defect of the world around the server's machines. The machines themselves stay as they are.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Planted {
    /// None: the real thing.
    #[default]
    Nothing,
    /// Appends are reported durable when they were written, before the sync.
    AckBeforeSync,
    /// The disk reports syncs that it does not do.
    LyingDisk,
    /// Recovery does not hand over the log's last frame.
    LostLastFrame,
    /// Recovery replaces acknowledgements by commands that do nothing.
    ForgottenAcks,
    /// Recovery replaces purges and deletes by commands that do nothing.
    ForgottenPurges,
    /// The clock's alarms never ring.
    DeafToTime,
    /// One read of a segment in four is never answered.
    LostReads,
    /// Recovery hands over one message with another payload.
    FlippedPayload,
    /// Recovery forgets which message ids were seen, by taking the ids off the messages.
    ForgottenIds,
    /// Recovery takes the first message off every batch.
    TornBatches,
    /// Checkpoints overwrite nothing of what they should.
    KeptBytes,
}

impl Planted {
    /// All of them but `Nothing`.
    pub const ALL: [Planted; 11] = [
        Planted::AckBeforeSync,
        Planted::LyingDisk,
        Planted::LostLastFrame,
        Planted::ForgottenAcks,
        Planted::ForgottenPurges,
        Planted::DeafToTime,
        Planted::LostReads,
        Planted::FlippedPayload,
        Planted::ForgottenIds,
        Planted::TornBatches,
        Planted::KeptBytes,
    ];
}
