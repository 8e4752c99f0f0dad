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
    /// Recovery forgets whom a replica voted for, and the last term.
    LostVotes,
    /// Recovery forgets changes of a group's members.
    ForgottenMembers,
    /// Recovery replaces deliveries by commands that do nothing.
    ForgottenDeliveries,
    /// Recovery leaves out one command in ten.
    SkippedCommands,
    /// Recovery does one command in ten twice.
    RepeatedCommands,
    /// A store that is lost comes back as the member that it was.
    OldIdentity,
    /// Links between servers drop frames now and then.
    DroppedFrames,
    /// They let frames overtake each other.
    ReorderedFrames,
    /// Who is cut off from everybody believes that everybody hears it, always.
    EndlessLease,
    /// Followers that ask how far the log is, to answer reads, hear that it has only begun.
    OldReadIndexes,
    /// Every vote counts as a yes.
    FalseVotes,
    /// Followers apply what is not decided.
    EagerCommits,
    /// Entries lose their commands on their way to followers.
    LostEntries,
    /// Entries arrive with another payload.
    ChangedEntries,
    /// A state that is fetched is said to contain one entry more than it does.
    TransfersTooFar,
    /// A state is fetched without messages.
    TransfersCutShort,
    /// A state is fetched without consumers.
    TransfersWithoutConsumers,
    /// A state is fetched without the message ids of its duplicate window.
    TransfersWithoutIds,
}

impl Planted {
    /// All that one server can have.
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

    /// Within how many seeds of clusters it is found.
    pub fn within(self) -> u64 {
        match self {
            Planted::LostVotes => 200,
            _ => 80,
        }
    }

    /// All that a cluster can have.
    pub const CLUSTER: [Planted; 28] = [
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
        Planted::LostVotes,
        Planted::ForgottenMembers,
        Planted::ForgottenDeliveries,
        Planted::SkippedCommands,
        Planted::RepeatedCommands,
        Planted::OldIdentity,
        Planted::DroppedFrames,
        Planted::ReorderedFrames,
        Planted::EndlessLease,
        Planted::OldReadIndexes,
        Planted::FalseVotes,
        Planted::EagerCommits,
        Planted::LostEntries,
        Planted::ChangedEntries,
        Planted::TransfersTooFar,
        Planted::TransfersCutShort,
        Planted::TransfersWithoutConsumers,
        Planted::TransfersWithoutIds,
    ];
}
