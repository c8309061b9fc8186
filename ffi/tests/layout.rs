//! Where the fields of the header's structs are. `ffi/layout.txt` is the ledger; tests/c/layout.c
//! prints the same from C. A struct grows at its end, and keeps its `SIZE_MIN`.

use std::fmt::Write;
use std::mem::offset_of;

use vfio_ferry_ffi::*;

/// Writes a struct's fields. The pattern does not compile if one is missing.
macro_rules! layouts {
    ($text:ident; $($type:ident { $($field:ident),* })*) => {$(
        let _all = |value: $type| { let $type { $($field: _),* } = value; };
        let (size, align) = (size_of::<$type>(), align_of::<$type>());
        writeln!($text, "{} {size} {align}", stringify!($type)).expect("to a string");
        $(
            let name = stringify!($field).trim_start_matches("r#");
            let bytes = size_of_field(|value: &$type| &raw const value.$field);
            writeln!($text, "  {name} {} {bytes}", offset_of!($type, $field)).expect("to a string");
        )*
    )*};
}

fn size_of_field<T, F>(_: impl Fn(&T) -> *const F) -> usize {
    size_of::<F>()
}

#[test]
fn fields_are_where_they_always_were() {
    let mut text = String::new();
    layouts! { text;
        vferry_event { size, r#type, device, epoch, phase, ending, epoch_ending, cause, observed, os_error, state, flags, wire_version, reserved, bytes, payload_bytes, pending_bytes, stop_copy_bytes, state_bytes_per_s, downtime_ns, ratio, text, switchover_budget_ns, latency_ns, path_bytes_per_s }
        vferry_report { size, ending, cause, observed, os_error, device, backend, devices, streams, reserved, started_ns, connected_ns, stop_called_ns, running_ns, finished_ns, state_bytes, wire_bytes, text, fallback }
        vferry_device_report { size, device, epoch, epoch_ending, state, stuck, bytes, digest, discarded_bytes, wire_bytes, zero_chunks, raw_chunks, zstd_chunks, late_frames, home, was_reset, stop_ns, load_ns, run_ns }
        vferry_device_stats { size, device, state_bytes, wire_bytes, device_ns, worker_ns, link_ns }
        vferry_stream_stats { size, stream, sent_bytes, received_bytes, sent_frames, received_frames, send_ns }
        vferry_duration_stats { size, reserved, count, min_ns, mean_ns, p50_ns, p99_ns, max_ns }
        vferry_thread { size, kind, index, backend, name }
        vferry_log_line { size, level, time_ns, lost, text }
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/layout.txt");
    if std::env::var_os("UPDATE_HEADER").is_some() {
        std::fs::write(path, &text).expect("the ledger can be written");
    }
    let ledger = std::fs::read_to_string(path).unwrap_or_default();
    assert_eq!(ledger, text, "ffi/layout.txt: programs that were compiled before rely on it");
}
