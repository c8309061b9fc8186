/* Prints where every field of every struct is, as ffi/layout.txt has it from Rust. */
#include <stddef.h>
#include <stdio.h>
#include <vfio_ferry.h>

#define STRUCT(type) printf("%s %zu %zu\n", #type, sizeof(type), _Alignof(type))
#define FIELD(type, field) \
    printf("  %s %zu %zu\n", #field, offsetof(type, field), sizeof(((type *)0)->field))

int main(void)
{
    STRUCT(vferry_event);
    FIELD(vferry_event, size);
    FIELD(vferry_event, type);
    FIELD(vferry_event, device);
    FIELD(vferry_event, epoch);
    FIELD(vferry_event, phase);
    FIELD(vferry_event, ending);
    FIELD(vferry_event, epoch_ending);
    FIELD(vferry_event, cause);
    FIELD(vferry_event, observed);
    FIELD(vferry_event, os_error);
    FIELD(vferry_event, state);
    FIELD(vferry_event, flags);
    FIELD(vferry_event, wire_version);
    FIELD(vferry_event, reserved);
    FIELD(vferry_event, bytes);
    FIELD(vferry_event, payload_bytes);
    FIELD(vferry_event, pending_bytes);
    FIELD(vferry_event, stop_copy_bytes);
    FIELD(vferry_event, state_bytes_per_s);
    FIELD(vferry_event, downtime_ns);
    FIELD(vferry_event, ratio);
    FIELD(vferry_event, text);
    FIELD(vferry_event, switchover_budget_ns);
    FIELD(vferry_event, latency_ns);
    FIELD(vferry_event, path_bytes_per_s);
    STRUCT(vferry_report);
    FIELD(vferry_report, size);
    FIELD(vferry_report, ending);
    FIELD(vferry_report, cause);
    FIELD(vferry_report, observed);
    FIELD(vferry_report, os_error);
    FIELD(vferry_report, device);
    FIELD(vferry_report, backend);
    FIELD(vferry_report, devices);
    FIELD(vferry_report, streams);
    FIELD(vferry_report, reserved);
    FIELD(vferry_report, started_ns);
    FIELD(vferry_report, connected_ns);
    FIELD(vferry_report, stop_called_ns);
    FIELD(vferry_report, running_ns);
    FIELD(vferry_report, finished_ns);
    FIELD(vferry_report, state_bytes);
    FIELD(vferry_report, wire_bytes);
    FIELD(vferry_report, text);
    FIELD(vferry_report, fallback);
    STRUCT(vferry_device_report);
    FIELD(vferry_device_report, size);
    FIELD(vferry_device_report, device);
    FIELD(vferry_device_report, epoch);
    FIELD(vferry_device_report, epoch_ending);
    FIELD(vferry_device_report, state);
    FIELD(vferry_device_report, stuck);
    FIELD(vferry_device_report, bytes);
    FIELD(vferry_device_report, digest);
    FIELD(vferry_device_report, discarded_bytes);
    FIELD(vferry_device_report, wire_bytes);
    FIELD(vferry_device_report, zero_chunks);
    FIELD(vferry_device_report, raw_chunks);
    FIELD(vferry_device_report, zstd_chunks);
    FIELD(vferry_device_report, late_frames);
    FIELD(vferry_device_report, home);
    FIELD(vferry_device_report, was_reset);
    FIELD(vferry_device_report, stop_ns);
    FIELD(vferry_device_report, load_ns);
    FIELD(vferry_device_report, run_ns);
    STRUCT(vferry_device_stats);
    FIELD(vferry_device_stats, size);
    FIELD(vferry_device_stats, device);
    FIELD(vferry_device_stats, state_bytes);
    FIELD(vferry_device_stats, wire_bytes);
    FIELD(vferry_device_stats, device_ns);
    FIELD(vferry_device_stats, worker_ns);
    FIELD(vferry_device_stats, link_ns);
    STRUCT(vferry_stream_stats);
    FIELD(vferry_stream_stats, size);
    FIELD(vferry_stream_stats, stream);
    FIELD(vferry_stream_stats, sent_bytes);
    FIELD(vferry_stream_stats, received_bytes);
    FIELD(vferry_stream_stats, sent_frames);
    FIELD(vferry_stream_stats, received_frames);
    FIELD(vferry_stream_stats, send_ns);
    STRUCT(vferry_duration_stats);
    FIELD(vferry_duration_stats, size);
    FIELD(vferry_duration_stats, reserved);
    FIELD(vferry_duration_stats, count);
    FIELD(vferry_duration_stats, min_ns);
    FIELD(vferry_duration_stats, mean_ns);
    FIELD(vferry_duration_stats, p50_ns);
    FIELD(vferry_duration_stats, p99_ns);
    FIELD(vferry_duration_stats, max_ns);
    STRUCT(vferry_thread);
    FIELD(vferry_thread, size);
    FIELD(vferry_thread, kind);
    FIELD(vferry_thread, index);
    FIELD(vferry_thread, backend);
    FIELD(vferry_thread, name);
    STRUCT(vferry_log_line);
    FIELD(vferry_log_line, size);
    FIELD(vferry_log_line, level);
    FIELD(vferry_log_line, time_ns);
    FIELD(vferry_log_line, lost);
    FIELD(vferry_log_line, text);
    return 0;
}
