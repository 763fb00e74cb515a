//! The flaws of a plugin, and which case of the suite has to fail for each.

/// One thing that a plugin does wrong. All else it does right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// A check for an absent object succeeds.
    LooksAreGranted,
    /// An object that is absent is opened.
    OpensWhatIsAbsent,
    /// An object that is absent is closed.
    ClosesWhatIsAbsent,
    /// An absent object is reported as empty.
    KnowsWhatIsAbsent,
    /// An object is there only for the session that stored it.
    PrivateObjects,
    /// An object is evicted at its last close.
    GoesWhenClosed,
    /// An empty object is refused.
    RefusesEmpty,
    /// A last part that is full cannot be read.
    LosesFullLastPart,
    /// Objects go by their digest alone.
    IgnoresAlgorithm,
    /// A digest of zeros is refused.
    RefusesZeroDigest,
    /// Every object is reported as regular.
    ForgetsType,
    /// An object that is there is not stored again.
    RefusesSecondStore,
    /// An object that is stored again is empty.
    SecondStoreEmpties,

    /// A read beyond the end is empty.
    BeyondTheEndIsEmpty,
    /// A read at the end is beyond it.
    TheEndIsOutOfBounds,
    /// A read over the end is refused.
    RefusesShortReads,
    /// A read over the end is filled up with zeros.
    PadsShortReads,
    /// Offsets have 32 bits.
    Offsets32,
    /// Offsets have 24 bits.
    Offsets24,
    /// A read ends with the part in which it begins.
    StopsAtParts,
    /// A read from the beginning of a part begins a byte too early.
    OffByOneAtParts,

    /// One close more than opens succeeds.
    Saturates,
    /// A check for existence opens the object.
    LooksOpen,
    /// A count changes by one, whatever was requested.
    StepsOfOne,
    /// A close too many closes all.
    FailedCloseClosesAll,
    /// A commit leaves no reference.
    CommitHoldsNothing,
    /// A commit leaves no reference if the object was there.
    SecondCommitHoldsNothing,
    /// A commit leaves two references.
    CommitHoldsTwice,
    /// An object that is open is not opened again.
    OneOpener,
    /// A close gives back all references.
    CloseClosesForAll,

    /// An object appears with its first part.
    AppearsEarly,
    /// An upload of nothing but whole parts cannot be finished.
    RefusesWholeParts,
    /// An upload has to announce its size.
    NeedsSize,
    /// An upload that is aborted is committed.
    AbortCommits,
    /// An abort ends the other uploads of the object, too.
    AbortTakesOthers,
    /// There is one upload of an object at a time.
    OneUploadOfAnObject,
    /// There is one upload at a time.
    OneUploadAtATime,
    /// All uploads are written to one buffer.
    OneBuffer,
    /// There is one upload at a time; and parts take long, so that uploads overlap.
    OneSlowUploadAtATime,
    /// There is one upload of an object at a time, and parts take long.
    OneSlowUploadOfAnObject,

    /// More is pinned than used.
    PinnedBeyondUsed,
    /// More is used than there is.
    UsedBeyondSize,
    /// The cache has no size.
    NoSize,
    /// Less than 4 KiB count for nothing.
    SmallIsFree,
    /// An object is pinned as often as it is open.
    PinnedByReference,
    /// What was open once is pinned for ever.
    StaysPinned,
    /// Nothing is pinned.
    NothingCountsAsPinned,
    /// Clean-ups are not counted, though it is declared.
    NoCleanUps,

    /// One object survives every shrink.
    KeepsOne,
    /// A shrink reports success, but evicts nothing.
    ShrinkDoesNothing,
    /// What is evicted is still counted.
    CountsEvicted,
    /// What is evicted is still there, but not counted.
    KeepsEvicted,
    /// A shrink evicts everything, whatever it was to leave.
    ShrinkEvictsAll,
    /// A shrink evicts half of what was requested.
    ShrinksByHalf,
    /// What is open is evicted.
    EvictsOpen,
    /// A shrink always reports that it has reached its target.
    NeverPartial,
    /// Open uploads count as used.
    UploadsCount,
    /// A shrink drops open uploads.
    ShrinkEndsUploads,
    /// The cache grows without a limit.
    NoQuota,
    /// An object is taken as long as the cache is not larger than it may be.
    OneTooMany,
    /// Nothing is evicted for a new object.
    RefusesWhenFull,
    /// A new object for which others are evicted is lost.
    FullTakesNothing,
    /// When an object is refused, one that is open goes.
    RefusalLosesOpen,
    /// Once an object was refused, all are.
    NoRoomAgain,

    /// A listing has objects of all types.
    ListsAllTypes,
    /// A listing misses an object.
    SkipsAnEntry,
    /// A listing has an object twice.
    RepeatsAnEntry,
    /// A listing ends after 4096 objects.
    ShortListings,
    /// There is one listing at a time.
    OneListing,
    /// In a listing nothing is pinned.
    ListsNothingPinned,
    /// In a listing everything is pinned.
    ListsAllPinned,
    /// In a listing, what was open once is pinned.
    ListsPinnedForEver,
    /// Descriptions become UTF-8.
    LossyDescriptions,
    /// Descriptions have 100 bytes at most.
    ShortDescriptions,
    /// Descriptions are not kept.
    NoDescriptions,

    /// A repository without a breadcrumb has one.
    BreadcrumbForAll,
    /// The revision is lost.
    LosesRevision,
    /// Timestamps have 32 bits.
    Timestamps32,
    /// The algorithm of the catalog's digest is lost.
    LosesAlgorithm,
    /// A breadcrumb is there only for the session that stored it.
    PrivateBreadcrumbs,
    /// The first breadcrumb stays.
    FirstBreadcrumbStays,
    /// The breadcrumb with the highest revision stays.
    HighestBreadcrumbStays,
    /// There is one breadcrumb for all repositories.
    OneBreadcrumb,
    /// Names of repositories become UTF-8.
    LossyNames,
    /// Of the names of repositories, 100 bytes count.
    ShortNames,
}

use Flaw::*;

/// Which cases have to catch what.
pub(crate) const TABLE: &[(Flaw, &[&str])] = &[
    (LooksAreGranted, &["object-absent", "upload-commit"]),
    (OpensWhatIsAbsent, &["object-absent"]),
    (ClosesWhatIsAbsent, &["object-absent"]),
    (KnowsWhatIsAbsent, &["object-absent", "pipeline-replies"]),
    (PrivateObjects, &["object-stored", "reference-each-session"]),
    (GoesWhenClosed, &["object-stored", "reference-balance"]),
    (RefusesEmpty, &["object-empty"]),
    (LosesFullLastPart, &["object-sizes"]),
    (IgnoresAlgorithm, &["object-algorithms"]),
    (RefusesZeroDigest, &["object-zero-digest"]),
    (ForgetsType, &["object-types"]),
    (RefusesSecondStore, &["object-stored-again", "reference-of-upload", "concurrent-uploads"]),
    (SecondStoreEmpties, &["object-stored-again", "upload-same-object"]),
    (BeyondTheEndIsEmpty, &["read-bounds", "object-empty", "read-large-offsets"]),
    (TheEndIsOutOfBounds, &["read-bounds", "object-empty"]),
    (RefusesShortReads, &["read-short"]),
    (PadsShortReads, &["read-short"]),
    (Offsets32, &["read-large-offsets"]),
    (Offsets24, &["read-large-object"]),
    (StopsAtParts, &["read-anywhere", "read-short", "read-large-object"]),
    (OffByOneAtParts, &["object-sizes", "pipeline-reads", "upload-interleaved"]),
    (Saturates, &["reference-balance", "reference-check"]),
    (LooksOpen, &["reference-check"]),
    (StepsOfOne, &["reference-steps"]),
    (FailedCloseClosesAll, &["reference-steps"]),
    (CommitHoldsNothing, &["reference-of-upload", "reload-keeps-references"]),
    (SecondCommitHoldsNothing, &["reference-of-upload"]),
    (CommitHoldsTwice, &["reference-of-upload", "info-pinned"]),
    (OneOpener, &["reference-each-session", "reference-balance"]),
    (CloseClosesForAll, &["reference-each-session", "reference-of-upload"]),
    (AppearsEarly, &["upload-commit", "upload-abort"]),
    (RefusesWholeParts, &["upload-empty-last-part"]),
    (NeedsSize, &["upload-unknown-size"]),
    (AbortCommits, &["upload-abort"]),
    (AbortTakesOthers, &["upload-abort-one-of-two"]),
    (OneUploadOfAnObject, &["upload-same-object", "upload-abort-one-of-two"]),
    (OneUploadAtATime, &["upload-interleaved"]),
    (OneBuffer, &["upload-interleaved", "upload-same-object"]),
    (OneSlowUploadAtATime, &["concurrent-clients"]),
    (OneSlowUploadOfAnObject, &["concurrent-uploads"]),
    (PinnedBeyondUsed, &["info-consistent"]),
    (UsedBeyondSize, &["info-consistent"]),
    (NoSize, &["info-consistent"]),
    (SmallIsFree, &["info-used"]),
    (PinnedByReference, &["info-pinned"]),
    (StaysPinned, &["info-pinned"]),
    (NothingCountsAsPinned, &["info-pinned"]),
    (NoCleanUps, &["info-clean-ups"]),
    (KeepsOne, &["evict-all"]),
    (ShrinkDoesNothing, &["evict-all", "evict-to-target"]),
    (CountsEvicted, &["evict-all"]),
    (KeepsEvicted, &["evict-all"]),
    (ShrinkEvictsAll, &["evict-none"]),
    (ShrinksByHalf, &["evict-to-target"]),
    (EvictsOpen, &["evict-keeps-pinned", "quota-under-pressure", "reload-keeps-pinned"]),
    (NeverPartial, &["evict-keeps-pinned"]),
    (UploadsCount, &["evict-keeps-uploads"]),
    (ShrinkEndsUploads, &["evict-keeps-uploads"]),
    (NoQuota, &["quota-under-pressure", "quota-all-pinned"]),
    (OneTooMany, &["quota-all-pinned"]),
    (RefusesWhenFull, &["quota-under-pressure"]),
    (FullTakesNothing, &["quota-under-pressure"]),
    (RefusalLosesOpen, &["quota-all-pinned"]),
    (NoRoomAgain, &["quota-all-pinned"]),
    (ListsAllTypes, &["list-types"]),
    (SkipsAnEntry, &["list-types", "list-pinned"]),
    (RepeatsAnEntry, &["list-types", "list-pinned"]),
    (ShortListings, &["list-in-parts"]),
    (OneListing, &["list-concurrent"]),
    (ListsNothingPinned, &["list-pinned"]),
    (ListsAllPinned, &["list-pinned"]),
    (ListsPinnedForEver, &["list-pinned"]),
    (LossyDescriptions, &["list-descriptions"]),
    (ShortDescriptions, &["list-descriptions"]),
    (NoDescriptions, &["list-descriptions"]),
    (BreadcrumbForAll, &["breadcrumb-absent"]),
    (LosesRevision, &["breadcrumb-kept"]),
    (Timestamps32, &["breadcrumb-kept"]),
    (LosesAlgorithm, &["breadcrumb-kept"]),
    (PrivateBreadcrumbs, &["breadcrumb-kept"]),
    (FirstBreadcrumbStays, &["breadcrumb-replaced"]),
    (HighestBreadcrumbStays, &["breadcrumb-replaced"]),
    (OneBreadcrumb, &["breadcrumb-names"]),
    (LossyNames, &["breadcrumb-names"]),
    (ShortNames, &["breadcrumb-names"]),
];
