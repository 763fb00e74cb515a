//! The types of `libcvmfs_cache.h`, with their layout in C.
//!
//! The assertions at the end are the numbers of the interface on systems of 64 bit; `tests/c/plugins/layout.h` has the
//! same for a C compiler.

use std::ffi::{c_char, c_int, c_uchar, c_uint, c_void};
use std::mem::{align_of, offset_of, size_of};

use cvmcache::plugin::ObjectId;

/// `CVMCACHE_SIZE_UNKNOWN`.
pub const SIZE_UNKNOWN: u64 = u64::MAX;

/// `struct cvmcache_hash`: the name of an object.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Hash {
    /// The digest.
    pub digest: [c_uchar; ObjectId::DIGEST_LEN],
    /// An `enum cvmcache_hash_algorithm`.
    pub algorithm: c_char,
}

/// `enum cvmcache_object_type`.
pub type ObjectTypeNumber = c_uint;

/// `struct cvmcache_object_info`.
#[derive(Debug)]
#[repr(C)]
pub struct ObjectInfo {
    /// The object's name.
    pub id: Hash,
    /// Its size in bytes.
    pub size: u64,
    /// Its type.
    pub object_type: ObjectTypeNumber,
    /// Not 0 if it has references.
    pub pinned: c_int,
    /// A string from `malloc`, or null.
    pub description: *mut c_char,
}

/// `struct cvmcache_info`.
#[derive(Debug)]
#[repr(C)]
pub struct Info {
    /// What the cache can hold, in bytes.
    pub size_bytes: u64,
    /// What its objects take, in bytes.
    pub used_bytes: u64,
    /// The part of that in open objects.
    pub pinned_bytes: u64,
    /// How often it was cleaned up; negative if that is not counted.
    pub no_shrink: i64,
}

/// `struct cvmcache_session`.
#[derive(Debug)]
#[repr(C)]
pub struct Session {
    /// The number of the session, 0 for none.
    pub id: u64,
    /// The repository, or null.
    pub repository_name: *mut c_char,
    /// The instance, or null.
    pub client_instance: *mut c_char,
}

/// `struct cvmcache_breadcrumb`.
#[derive(Debug)]
#[repr(C)]
pub struct Breadcrumb {
    /// The root catalog.
    pub catalog_hash: Hash,
    /// When it was published, in seconds since 1970.
    pub timestamp: u64,
    /// The revision of the repository, 0 for none.
    pub revision: u64,
}

/// `struct cvmcache_callbacks`. C++ compilers let exceptions out of what they compile, hence
/// `C-unwind`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
#[allow(missing_docs, reason = "the header has it")]
pub struct Callbacks {
    pub chrefcnt: Option<unsafe extern "C-unwind" fn(*mut Hash, i32) -> c_int>,
    pub obj_info: Option<unsafe extern "C-unwind" fn(*mut Hash, *mut ObjectInfo) -> c_int>,
    pub pread: Option<unsafe extern "C-unwind" fn(*mut Hash, u64, *mut u32, *mut c_uchar) -> c_int>,
    pub start_txn: Option<unsafe extern "C-unwind" fn(*mut Hash, u64, *mut ObjectInfo) -> c_int>,
    pub write_txn: Option<unsafe extern "C-unwind" fn(u64, *mut c_uchar, u32) -> c_int>,
    pub commit_txn: Option<unsafe extern "C-unwind" fn(u64) -> c_int>,
    pub abort_txn: Option<unsafe extern "C-unwind" fn(u64) -> c_int>,
    pub info: Option<unsafe extern "C-unwind" fn(*mut Info) -> c_int>,
    pub shrink: Option<unsafe extern "C-unwind" fn(u64, *mut u64) -> c_int>,
    pub listing_begin: Option<unsafe extern "C-unwind" fn(u64, ObjectTypeNumber) -> c_int>,
    pub listing_next: Option<unsafe extern "C-unwind" fn(i64, *mut ObjectInfo) -> c_int>,
    pub listing_end: Option<unsafe extern "C-unwind" fn(i64) -> c_int>,
    pub breadcrumb_store:
        Option<unsafe extern "C-unwind" fn(*const c_char, *const Breadcrumb) -> c_int>,
    pub breadcrumb_load:
        Option<unsafe extern "C-unwind" fn(*const c_char, *mut Breadcrumb) -> c_int>,
    pub capabilities: c_int,
}

/// `struct cvmcache_context`, of which C sees nothing but a pointer.
#[derive(Debug)]
#[repr(C)]
pub struct Context {
    _opaque: [u8; 0],
}

/// `cvmcache_option_map`, of which C sees nothing but a pointer.
pub use crate::options::OptionMap;

#[cfg(target_pointer_width = "64")]
const _: () = {
    let pointer = size_of::<*const c_void>();

    assert!(size_of::<Hash>() == 21 && align_of::<Hash>() == 1);
    assert!(offset_of!(Hash, algorithm) == 20);

    assert!(size_of::<ObjectInfo>() == 48);
    assert!(offset_of!(ObjectInfo, id) == 0);
    assert!(offset_of!(ObjectInfo, size) == 24);
    assert!(offset_of!(ObjectInfo, object_type) == 32);
    assert!(offset_of!(ObjectInfo, pinned) == 36);
    assert!(offset_of!(ObjectInfo, description) == 40);

    assert!(size_of::<Info>() == 32);
    assert!(offset_of!(Info, size_bytes) == 0);
    assert!(offset_of!(Info, used_bytes) == 8);
    assert!(offset_of!(Info, pinned_bytes) == 16);
    assert!(offset_of!(Info, no_shrink) == 24);

    assert!(size_of::<Session>() == 24);
    assert!(offset_of!(Session, id) == 0);
    assert!(offset_of!(Session, repository_name) == 8);
    assert!(offset_of!(Session, client_instance) == 16);

    assert!(size_of::<Breadcrumb>() == 40);
    assert!(offset_of!(Breadcrumb, catalog_hash) == 0);
    assert!(offset_of!(Breadcrumb, timestamp) == 24);
    assert!(offset_of!(Breadcrumb, revision) == 32);

    assert!(size_of::<Callbacks>() == 15 * pointer);
    assert!(offset_of!(Callbacks, chrefcnt) == 0);
    assert!(offset_of!(Callbacks, obj_info) == pointer);
    assert!(offset_of!(Callbacks, pread) == 2 * pointer);
    assert!(offset_of!(Callbacks, start_txn) == 3 * pointer);
    assert!(offset_of!(Callbacks, write_txn) == 4 * pointer);
    assert!(offset_of!(Callbacks, commit_txn) == 5 * pointer);
    assert!(offset_of!(Callbacks, abort_txn) == 6 * pointer);
    assert!(offset_of!(Callbacks, info) == 7 * pointer);
    assert!(offset_of!(Callbacks, shrink) == 8 * pointer);
    assert!(offset_of!(Callbacks, listing_begin) == 9 * pointer);
    assert!(offset_of!(Callbacks, listing_next) == 10 * pointer);
    assert!(offset_of!(Callbacks, listing_end) == 11 * pointer);
    assert!(offset_of!(Callbacks, breadcrumb_store) == 12 * pointer);
    assert!(offset_of!(Callbacks, breadcrumb_load) == 13 * pointer);
    assert!(offset_of!(Callbacks, capabilities) == 14 * pointer);
};
