//! The part of the VFIO UAPI that migration needs, in one place: names, numbers and layouts.
//!
//! Structs and constants are vfio-bindings' (generated from `include/uapi/linux/vfio.h`). That
//! crate has no ioctl numbers, because bindgen cannot evaluate the `_IO` macros, so these are
//! computed here from its VFIO_TYPE and VFIO_BASE, with the offsets of vfio.h. Everything is
//! asserted at compile time against numbers worked out by hand from the header, so that a change
//! of the crate cannot change what is sent to the kernel.

use std::mem::{align_of, offset_of, size_of};

pub(super) use vfio_bindings::bindings::vfio::{
    VFIO_DEVICE_FEATURE_GET, VFIO_DEVICE_FEATURE_MIG_DATA_SIZE,
    VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE, VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2,
    VFIO_DEVICE_FEATURE_MIGRATION, VFIO_DEVICE_FEATURE_SET, VFIO_PRECOPY_INFO_REINIT,
    vfio_precopy_info,
};

use vfio_bindings::bindings::vfio as bindings;

use super::state::{DeviceState, FLAG_P2P, FLAG_PRE_COPY, FLAG_STOP_COPY};

/// `_IO(VFIO_TYPE, VFIO_BASE + offset)`: an ioctl number with neither direction nor size.
const fn io(offset: u32) -> libc::Ioctl {
    ((bindings::VFIO_TYPE as u32) << 8 | (bindings::VFIO_BASE + offset)) as libc::Ioctl
}

/// vfio.h: `_IO(VFIO_TYPE, VFIO_BASE + 11)`.
pub(super) const VFIO_DEVICE_RESET: libc::Ioctl = io(11);
/// vfio.h: `_IO(VFIO_TYPE, VFIO_BASE + 17)`.
pub(super) const VFIO_DEVICE_FEATURE: libc::Ioctl = io(17);
/// vfio.h: `_IO(VFIO_TYPE, VFIO_BASE + 21)`, on the data fd.
pub(super) const VFIO_MIG_GET_PRECOPY_INFO: libc::Ioctl = io(21);

/// A payload of VFIO_DEVICE_FEATURE: plain C data without padding, any bit pattern of which is a
/// value, because the kernel writes into it. The layouts are asserted below.
pub(super) trait Payload: Copy {}

/// Payload of VFIO_DEVICE_FEATURE_MIGRATION.
pub(super) type Migration = bindings::vfio_device_feature_migration;
/// Payload of VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE.
pub(super) type MigState = bindings::vfio_device_feature_mig_state;
/// Payload of VFIO_DEVICE_FEATURE_MIG_DATA_SIZE.
pub(super) type DataSize = bindings::vfio_device_feature_mig_data_size;

impl Payload for Migration {}
impl Payload for MigState {}
impl Payload for DataSize {}
/// VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2 has none.
impl Payload for () {}

/// `struct vfio_device_feature` with its payload behind it, as one C object.
#[repr(C)]
pub(super) struct Feature<P: Payload> {
    /// Size of the whole in bytes. Private: the kernel believes it.
    argsz: u32,
    flags: u32,
    /// `data[]`.
    pub(super) payload: P,
}

impl<P: Payload> Feature<P> {
    /// A request: `flags` is the feature's index and VFIO_DEVICE_FEATURE_GET or SET.
    pub(super) fn new(flags: u32, payload: P) -> Feature<P> {
        Feature { argsz: size_of::<Feature<P>>() as u32, flags, payload }
    }
}

const _: () = {
    assert!(VFIO_DEVICE_RESET == 0x3B6F);
    assert!(VFIO_DEVICE_FEATURE == 0x3B75);
    assert!(VFIO_MIG_GET_PRECOPY_INFO == 0x3B79);

    assert!(bindings::VFIO_DEVICE_FEATURE_MASK == 0xffff);
    assert!(VFIO_DEVICE_FEATURE_GET == 1 << 16);
    assert!(VFIO_DEVICE_FEATURE_SET == 1 << 17);
    assert!(VFIO_DEVICE_FEATURE_MIGRATION == 1);
    assert!(VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE == 2);
    assert!(VFIO_DEVICE_FEATURE_MIG_DATA_SIZE == 9);
    assert!(VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2 == 12);
    assert!(VFIO_PRECOPY_INFO_REINIT == 1);

    // struct vfio_device_feature { u32 argsz@0; u32 flags@4; u8 data[]@8 }
    assert!(offset_of!(bindings::vfio_device_feature, argsz) == 0);
    assert!(offset_of!(bindings::vfio_device_feature, flags) == 4);
    assert!(offset_of!(bindings::vfio_device_feature, data) == 8);
    assert!(size_of::<bindings::vfio_device_feature>() == 8);
    assert!(offset_of!(Feature<Migration>, argsz) == 0);
    assert!(offset_of!(Feature<Migration>, flags) == 4);
    assert!(offset_of!(Feature<Migration>, payload) == 8);
    assert!(offset_of!(Feature<MigState>, payload) == 8);
    assert!(offset_of!(Feature<DataSize>, payload) == 8);
    assert!(size_of::<Feature<()>>() == 8);
    assert!(size_of::<Feature<Migration>>() == 16);
    assert!(size_of::<Feature<MigState>>() == 16);
    assert!(size_of::<Feature<DataSize>>() == 16);

    assert!(offset_of!(Migration, flags) == 0);
    assert!(offset_of!(MigState, device_state) == 0);
    assert!(offset_of!(MigState, data_fd) == 4);
    assert!(offset_of!(DataSize, stop_copy_length) == 0);

    // struct vfio_precopy_info { u32 argsz@0; u32 flags@4; u64 initial_bytes@8; u64 dirty_bytes@16 }
    assert!(offset_of!(vfio_precopy_info, argsz) == 0);
    assert!(offset_of!(vfio_precopy_info, flags) == 4);
    assert!(offset_of!(vfio_precopy_info, initial_bytes) == 8);
    assert!(offset_of!(vfio_precopy_info, dirty_bytes) == 16);
    assert!(size_of::<vfio_precopy_info>() == 24);
    assert!(align_of::<vfio_precopy_info>() == 8);

    assert!(bindings::VFIO_MIGRATION_STOP_COPY as u64 == FLAG_STOP_COPY);
    assert!(bindings::VFIO_MIGRATION_P2P as u64 == FLAG_P2P);
    assert!(bindings::VFIO_MIGRATION_PRE_COPY as u64 == FLAG_PRE_COPY);

    use bindings::*;
    assert!(DeviceState::Error as u32 == vfio_device_mig_state_VFIO_DEVICE_STATE_ERROR);
    assert!(DeviceState::Stop as u32 == vfio_device_mig_state_VFIO_DEVICE_STATE_STOP);
    assert!(DeviceState::Running as u32 == vfio_device_mig_state_VFIO_DEVICE_STATE_RUNNING);
    assert!(DeviceState::StopCopy as u32 == vfio_device_mig_state_VFIO_DEVICE_STATE_STOP_COPY);
    assert!(DeviceState::Resuming as u32 == vfio_device_mig_state_VFIO_DEVICE_STATE_RESUMING);
    assert!(DeviceState::RunningP2p as u32 == vfio_device_mig_state_VFIO_DEVICE_STATE_RUNNING_P2P);
    assert!(DeviceState::PreCopy as u32 == vfio_device_mig_state_VFIO_DEVICE_STATE_PRE_COPY);
    assert!(DeviceState::PreCopyP2p as u32 == vfio_device_mig_state_VFIO_DEVICE_STATE_PRE_COPY_P2P);
    assert!(DeviceState::ALL.len() as u32 == vfio_device_mig_state_VFIO_DEVICE_STATE_NR);
};
