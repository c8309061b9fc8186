/*
 * vfio_ferry.h: carries a VFIO device's migration state from one host to another.
 *
 * SPDX-License-Identifier: Apache-2.0 OR MIT
 *
 *   source                                        target
 *   vferry_connect                                vferry_listener_accept
 *   vferry_device_from_fd                         vferry_device_from_fd
 *   vferry_session_source                         vferry_session_target
 *     vferry_session_wait ... events                vferry_session_wait ... events
 *   stop the vCPUs
 *   vferry_session_switchover
 *     VFERRY_EVENT_FINISHED                         VFERRY_EVENT_FINISHED
 *   vferry_session_free                           vferry_session_free, start the vCPUs
 *
 * Calls answer with a vferry_status: VFERRY_OK (0), or why not. vferry_last_error says more, in a
 * sentence. Where a call does not succeed its out-parameters are as they were.
 *
 * Handles are opaque. Each is made by one call and freed by the _free call of its type, which takes
 * the address of the variable that holds it and sets that to NULL; so freeing a variable twice, or
 * one that is NULL, does nothing. A copy of the pointer in another variable is dead from then on.
 *
 * Fds that a call takes over are the library's only if the call succeeds. Fds that it says it
 * duplicates stay the caller's. Fds that it hands out to be polled are not to be read, written or
 * closed.
 *
 * Structs that are filled in begin with their size, which the caller sets to sizeof the struct
 * before each call. So a program and a library of different versions fit: what either does not know
 * is left out.
 *
 * Strings are UTF-8 and end with NUL. Enumerations cross as integers; a number that names nothing
 * is VFERRY_RANGE, and numbers that a program does not know may come from a later library.
 *
 * Threads: every call may be made from any thread, and calls with one handle at the same time, but
 * for _free, which must be the last. Nothing here calls back, and nothing blocks except where it
 * says so.
 */

#ifndef VFIO_FERRY_H
#define VFIO_FERRY_H

/* Generated from ffi/src by cbindgen: UPDATE_HEADER=1 cargo test -p vfio-ferry-ffi --test header */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/**
 * Version of this interface: larger where something was added. What was there stays as it is
 * for as long as the library's soname.
 */
#define VFERRY_ABI_VERSION 2

/**
 * Oldest version of the wire that this library speaks.
 */
#define VFERRY_WIRE_VERSION_MIN 1

/**
 * Newest version of the wire that this library speaks. Two hosts use the newest that both do.
 */
#define VFERRY_WIRE_VERSION_MAX 1

/**
 * For `vferry_device_embedded`: the device can save in PRE_COPY.
 */
#define VFERRY_EMBEDDED_PRECOPY 1

/**
 * For `vferry_device_embedded`: the VMM makes VFIO_MIG_GET_PRECOPY_INFO itself when it is asked to.
 */
#define VFERRY_EMBEDDED_PRECOPY_INFO 2

/**
 * For `vferry_device_embedded`: the VMM starts the device together with its VM, after the session
 * (target). VFERRY_WANT_RUNNING is not asked; the handover leaves the device in STOP, and both
 * hosts' sessions end as complete.
 */
#define VFERRY_EMBEDDED_STARTS_LATER 4

/**
 * For `vferry_device_precopy_info`: VFIO_PRECOPY_INFO_REINIT, there is new initial data.
 */
#define VFERRY_PRECOPY_INFO_REINIT 1

/**
 * Most streams of one session, and the room that `vferry_listener_accept` may need.
 */
#define VFERRY_STREAMS_MAX 64

/**
 * Most devices of one session.
 */
#define VFERRY_DEVICES_MAX 64

/**
 * Most bytes of one message, and of a device's opaque part.
 */
#define VFERRY_MESSAGE_BYTES_MAX 32768

/**
 * Most messages of one side that wait for the peer's engine to read, and most that wait for their
 * embedder to fetch them.
 */
#define VFERRY_MESSAGES_WAITING_MAX 64

/**
 * In a field for a device's number: no device, the whole session.
 */
#define VFERRY_DEVICE_NONE 4294967295

/**
 * In a field for a number of bytes or nanoseconds: not known.
 */
#define VFERRY_UNKNOWN 18446744073709551615ull

/**
 * Room for a text in an event, report or log line, the NUL included.
 */
#define VFERRY_TEXT_BYTES 512

/**
 * In an event's flags, of VFERRY_EVENT_BEGIN: the device saves in PRE_COPY.
 */
#define VFERRY_EVENT_FLAG_PRECOPY 1

/**
 * In an event's flags, of VFERRY_EVENT_BEGIN: the source's device has the P2P states.
 */
#define VFERRY_EVENT_FLAG_P2P 2

/**
 * In an event's flags, of VFERRY_EVENT_ESTIMATE: all devices' initial data is loaded at the target.
 */
#define VFERRY_EVENT_FLAG_INITIAL_DATA_LOADED 4

/**
 * What a call answers with: 0 for success, otherwise why not. Families, by who can do something
 * about it: 1 to 99 nothing is wrong, but not now; 100 the caller; 200 the device or its set-up on
 * this host; 300 the peer; 400 the network; 500 this host's system; 900 a defect of the library. A
 * number keeps its meaning for ever, and later versions may answer with new ones.
 *
 * On anything but success the out-parameters are as they were.
 */
enum vferry_status
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * Done.
     */
    VFERRY_OK = 0,
    /**
     * Nothing is there at this moment.
     */
    VFERRY_EMPTY = 1,
    /**
     * The time given for it is over.
     */
    VFERRY_TIMEOUT = 2,
    /**
     * There is no room at this moment.
     */
    VFERRY_FULL = 3,
    /**
     * The session, or the channel, has ended: nothing more will come.
     */
    VFERRY_OVER = 4,
    /**
     * A pointer that must not be NULL is NULL.
     */
    VFERRY_NULL = 100,
    /**
     * A number is outside its range, or names nothing.
     */
    VFERRY_RANGE = 101,
    /**
     * A struct's `size` is not the size of any version of the struct.
     */
    VFERRY_STRUCT_SIZE = 102,
    /**
     * A device's name is empty, or given twice.
     */
    VFERRY_NAME = 103,
    /**
     * A name, message or opaque part has more bytes than are allowed.
     */
    VFERRY_TOO_LONG = 104,
    /**
     * The buffers would need more memory than was allowed.
     */
    VFERRY_MEMORY = 105,
    /**
     * The call is for the other host's session or device.
     */
    VFERRY_WRONG_HOST = 106,
    /**
     * The session has no device or stream of this number.
     */
    VFERRY_UNKNOWN_NUMBER = 107,
    /**
     * An fd is not open, given twice, or not of the kind that is needed.
     */
    VFERRY_BAD_FD = 108,
    /**
     * The device already belongs to a session.
     */
    VFERRY_IN_USE = 109,
    /**
     * The call is for embedded devices.
     */
    VFERRY_NOT_EMBEDDED = 110,
    /**
     * The session has not ended yet.
     */
    VFERRY_NOT_ENDED = 111,
    /**
     * The buffer is too small.
     */
    VFERRY_BUFFER_SMALL = 112,
    /**
     * A string is not UTF-8.
     */
    VFERRY_NOT_TEXT = 113,
    /**
     * A rate cap was set, and a stream is not TCP.
     */
    VFERRY_PACING = 114,
    /**
     * Log lines were asked for before.
     */
    VFERRY_LOG_TAKEN = 115,
    /**
     * The device did not answer; the errno is the kernel's.
     */
    VFERRY_DEVICE = 200,
    /**
     * The device's driver offers no migration.
     */
    VFERRY_NOT_MIGRATABLE = 201,
    /**
     * There is no such device.
     */
    VFERRY_NO_DEVICE = 202,
    /**
     * The device is not bound to a VFIO driver, or has no IOMMU group.
     */
    VFERRY_NOT_BOUND = 203,
    /**
     * The device may not be opened by this process.
     */
    VFERRY_DENIED = 204,
    /**
     * The device's IOMMU group is in use by another process.
     */
    VFERRY_BUSY = 205,
    /**
     * Another device of the IOMMU group is not bound to VFIO.
     */
    VFERRY_NOT_VIABLE = 206,
    /**
     * The kernel's vfio modules are not loaded.
     */
    VFERRY_NO_VFIO = 207,
    /**
     * The peer does not speak this protocol, or not as it should.
     */
    VFERRY_PEER = 300,
    /**
     * A connection failed; the errno is the kernel's.
     */
    VFERRY_NETWORK = 400,
    /**
     * An address cannot be read or resolved.
     */
    VFERRY_ADDRESS = 401,
    /**
     * The system refused memory, threads, fds or a ring; the errno is the kernel's.
     */
    VFERRY_SYSTEM = 500,
    /**
     * The library has a defect. Sessions that exist still can be freed.
     */
    VFERRY_DEFECT = 900,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum vferry_status vferry_status;
#else
typedef int32_t vferry_status;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * Which host of a migration this is.
 */
enum vferry_host
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * The host that the device leaves.
     */
    VFERRY_SOURCE = 1,
    /**
     * The host that the device goes to.
     */
    VFERRY_TARGET = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum vferry_host vferry_host;
#else
typedef uint32_t vferry_host;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * A device's migration state: the numbers of `enum vfio_device_mig_state` in linux/vfio.h.
 */
enum vferry_state
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * Not known: it could not be read, or was not asked for.
     */
    VFERRY_STATE_UNKNOWN = -1,
    /**
     * The device has failed and must be reset.
     */
    VFERRY_STATE_ERROR = 0,
    /**
     * Stopped.
     */
    VFERRY_STATE_STOP = 1,
    /**
     * Running normally.
     */
    VFERRY_STATE_RUNNING = 2,
    /**
     * Stopped, and its state can be read from the data fd.
     */
    VFERRY_STATE_STOP_COPY = 3,
    /**
     * Stopped, and its state can be written to the data fd.
     */
    VFERRY_STATE_RESUMING = 4,
    /**
     * Running without DMA to other devices.
     */
    VFERRY_STATE_RUNNING_P2P = 5,
    /**
     * Running, and its state can be read while it changes.
     */
    VFERRY_STATE_PRE_COPY = 6,
    /**
     * PRE_COPY without DMA to other devices.
     */
    VFERRY_STATE_PRE_COPY_P2P = 7,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum vferry_state vferry_state;
#else
typedef int32_t vferry_state;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * Where in its migration a device is.
 */
enum vferry_phase
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * None.
     */
    VFERRY_PHASE_NONE = 0,
    /**
     * Streams are being agreed on; the device has not been touched.
     */
    VFERRY_PHASE_CONNECT = 1,
    /**
     * The device is entering its first saving state (source) or RESUMING (target).
     */
    VFERRY_PHASE_START = 2,
    /**
     * The guest runs and the device saves in PRE_COPY (source) or loads (target).
     */
    VFERRY_PHASE_PRE_COPY = 3,
    /**
     * From the call that stops the device until it is in STOP_COPY.
     */
    VFERRY_PHASE_STOP = 4,
    /**
     * The stopped device's last state is read and sent (source), or received and written (target).
     */
    VFERRY_PHASE_STOP_COPY = 5,
    /**
     * The source has sent everything; the target verifies and leaves RESUMING.
     */
    VFERRY_PHASE_LOAD = 6,
    /**
     * The target has confirmed; the source lets go.
     */
    VFERRY_PHASE_HANDOVER = 7,
    /**
     * The target's device goes to RUNNING.
     */
    VFERRY_PHASE_RESUME = 8,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum vferry_phase vferry_phase;
#else
typedef uint32_t vferry_phase;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * How a device's epoch, or a migration, ended on this host.
 */
enum vferry_ending
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * It has not.
     */
    VFERRY_ENDING_NONE = 0,
    /**
     * The target's device holds the whole state and runs; the source has let go.
     */
    VFERRY_ENDING_COMPLETE = 1,
    /**
     * The source let go after the target had confirmed the loaded state, and then lost the target
     * before it heard of RUNNING. The device stays stopped here. It may be resumed only once it is
     * certain that the target does not run it.
     */
    VFERRY_ENDING_UNCONFIRMED = 2,
    /**
     * The device's epoch was discarded, and its saving started again.
     */
    VFERRY_ENDING_RESTARTED = 3,
    /**
     * The device was not handed over.
     */
    VFERRY_ENDING_ABORTED = 4,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum vferry_ending vferry_ending;
#else
typedef uint32_t vferry_ending;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * Who or what ended an epoch or a migration.
 */
enum vferry_cause
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * Nothing: it completed.
     */
    VFERRY_CAUSE_NONE = 0,
    /**
     * The device was reset (guest FLR, hot reset, VFIO_DEVICE_RESET): it is in RUNNING again, and
     * the state saved or loaded so far is worthless.
     */
    VFERRY_CAUSE_DEVICE_RESET = 1,
    /**
     * The device or its firmware failed to save or load; its state did not change.
     */
    VFERRY_CAUSE_DEVICE_FAILURE = 2,
    /**
     * The device is in ERROR and needs a reset.
     */
    VFERRY_CAUSE_DEVICE_ERROR = 3,
    /**
     * The peer aborted, and said why.
     */
    VFERRY_CAUSE_PEER_ABORT = 4,
    /**
     * The peer sent what the protocol does not allow.
     */
    VFERRY_CAUSE_PEER_MISBEHAVIOUR = 5,
    /**
     * A stream broke, ended early or stayed silent too long.
     */
    VFERRY_CAUSE_NETWORK = 6,
    /**
     * The embedder cancelled.
     */
    VFERRY_CAUSE_CANCELLED = 7,
    /**
     * This host could not go on: memory, threads, ring.
     */
    VFERRY_CAUSE_LOCAL = 8,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum vferry_cause vferry_cause;
#else
typedef uint32_t vferry_cause;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * How the cause came to be known.
 */
enum vferry_observed
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * There is no cause.
     */
    VFERRY_OBSERVED_NONE = 0,
    /**
     * A read of the data fd failed.
     */
    VFERRY_OBSERVED_READ = 1,
    /**
     * A poll of the data fd reported RDHUP or an error.
     */
    VFERRY_OBSERVED_POLL = 2,
    /**
     * VFIO_MIG_GET_PRECOPY_INFO failed.
     */
    VFERRY_OBSERVED_PRECOPY_INFO = 3,
    /**
     * PRE_COPY to STOP_COPY gave a new data fd: the session that it belonged to had died.
     */
    VFERRY_OBSERVED_UNEXPECTED_FD = 4,
    /**
     * SET_STATE succeeded, but the fd that it gave was already dead.
     */
    VFERRY_OBSERVED_DEAD_ON_ARRIVAL = 5,
    /**
     * The device's state was not what the migration had left it in.
     */
    VFERRY_OBSERVED_STATE_CHECK = 6,
    /**
     * A write to the resume fd failed.
     */
    VFERRY_OBSERVED_WRITE = 7,
    /**
     * SET_STATE failed.
     */
    VFERRY_OBSERVED_SET_STATE = 8,
    /**
     * The peer said so.
     */
    VFERRY_OBSERVED_PEER = 9,
    /**
     * A stream of the session showed it.
     */
    VFERRY_OBSERVED_STREAM = 10,
    /**
     * The embedder said or asked for it.
     */
    VFERRY_OBSERVED_EMBEDDER = 11,
    /**
     * This host's own mechanism reported it.
     */
    VFERRY_OBSERVED_ENGINE = 12,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum vferry_observed vferry_observed;
#else
typedef uint32_t vferry_observed;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * A step that a chunk of state, or a request to a device, goes through.
 */
enum vferry_step
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * A chunk was read from the data fd, waiting for the device included.
     */
    VFERRY_STEP_READ = 1,
    /**
     * A chunk waited for a worker and was compressed.
     */
    VFERRY_STEP_ENCODE = 2,
    /**
     * A frame was sent: until the kernel had all of it.
     */
    VFERRY_STEP_SEND = 3,
    /**
     * A body was received: from its header until its last byte.
     */
    VFERRY_STEP_RECEIVE = 4,
    /**
     * A body waited for a worker and was decompressed.
     */
    VFERRY_STEP_DECODE = 5,
    /**
     * A chunk was written to the resume fd, waiting for the device included.
     */
    VFERRY_STEP_WRITE = 6,
    /**
     * A request to the device: SET_STATE, GET_STATE, GET_PRECOPY_INFO, RESET.
     */
    VFERRY_STEP_CONTROL = 7,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum vferry_step vferry_step;
#else
typedef uint32_t vferry_step;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * Whether to compress (source).
 */
enum vferry_policy
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * Decided for each chunk by what is faster at that moment. The default.
     */
    VFERRY_POLICY_ADAPTIVE = 0,
    /**
     * Never.
     */
    VFERRY_POLICY_RAW = 1,
    /**
     * Whatever shrinks, with zstd at a level of your choice.
     */
    VFERRY_POLICY_ZSTD = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum vferry_policy vferry_policy;
#else
typedef uint32_t vferry_policy;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * How the engine does its I/O.
 */
enum vferry_backend
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * io_uring where it is granted, plain system calls otherwise. The default.
     */
    VFERRY_BACKEND_AUTO = 0,
    /**
     * io_uring, or no session.
     */
    VFERRY_BACKEND_IO_URING = 1,
    /**
     * Plain system calls.
     */
    VFERRY_BACKEND_SYSCALLS = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum vferry_backend vferry_backend;
#else
typedef uint32_t vferry_backend;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What follows when a device is reset while its state is being saved.
 */
enum vferry_on_reset
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * The whole migration is aborted: the devices are back in RUNNING, the target is told. The
     * default.
     */
    VFERRY_ON_RESET_ABORT = 0,
    /**
     * The device's epoch is discarded on both hosts, and its saving starts again in PRE_COPY; other
     * devices go on.
     */
    VFERRY_ON_RESET_RESTART = 1,
    /**
     * The device's epoch is discarded, and its whole state is sent from STOP_COPY at the switchover.
     */
    VFERRY_ON_RESET_STOP_COPY = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum vferry_on_reset vferry_on_reset;
#else
typedef uint32_t vferry_on_reset;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What the engine waits for the VMM to do with an embedded device. The states have the kernel's
 * numbers.
 */
enum vferry_want
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * Nothing.
     */
    VFERRY_WANT_NOTHING = 0,
    /**
     * SET_STATE(STOP), on the target: the driver takes the loaded state in. Answer with
     * `vferry_device_moved` and no fd.
     */
    VFERRY_WANT_STOP = 1,
    /**
     * SET_STATE(RUNNING), on the target: the device is handed over. Answer with
     * `vferry_device_moved` and no fd.
     */
    VFERRY_WANT_RUNNING = 2,
    /**
     * SET_STATE(STOP_COPY), on the source, after the switchover. Answer with `vferry_device_moved`
     * and the fd if the kernel gave one. From PRE_COPY it must not: one that comes all the same
     * tells the engine that the device had been reset.
     */
    VFERRY_WANT_STOP_COPY = 3,
    /**
     * SET_STATE(RESUMING), on the target. Answer with `vferry_device_moved` and the fd.
     */
    VFERRY_WANT_RESUMING = 4,
    /**
     * SET_STATE(PRE_COPY), on the source. Answer with `vferry_device_moved` and the fd.
     */
    VFERRY_WANT_PRE_COPY = 6,
    /**
     * VFIO_MIG_GET_PRECOPY_INFO on the data fd, where the VMM makes that call. Make it now: with
     * some drivers it is what starts the next save. Answer with `vferry_device_precopy_info`.
     */
    VFERRY_WANT_PRECOPY_INFO = 100,
    /**
     * VFIO_DEVICE_RESET, on the target, where the engine has no device fd: what was loaded so far
     * is worthless. Answer with `vferry_device_reset_done`.
     */
    VFERRY_WANT_RESET = 101,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum vferry_want vferry_want;
#else
typedef uint32_t vferry_want;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What an event is about, and which of `vferry_event`'s fields it fills in besides `size` and
 * `type`.
 */
enum vferry_event_type
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * The streams are agreed on: `wire_version`; `bytes` in a frame at most.
     */
    VFERRY_EVENT_CONNECTED = 1,
    /**
     * A device entered a phase: `device`, `phase`.
     */
    VFERRY_EVENT_PHASE = 2,
    /**
     * A device was announced, and its name checked (target): `device`, `flags`, its name in `text`,
     * its opaque part as the payload.
     */
    VFERRY_EVENT_BEGIN = 3,
    /**
     * The target has written a device's initial PRE_COPY data: `device`.
     */
    VFERRY_EVENT_INITIAL_DATA_LOADED = 4,
    /**
     * What the downtime would be now (source, in PRE_COPY): `flags`, `pending_bytes`,
     * `stop_copy_bytes`, `state_bytes_per_s`, `downtime_ns`, `ratio`. Only the newest one waits.
     */
    VFERRY_EVENT_ESTIMATE = 5,
    /**
     * A device's epoch, or its migration, ended: `device`, `epoch`, `phase`, `ending`, `cause`,
     * `observed`, `os_error`, `state_after`, `bytes`, `text`.
     */
    VFERRY_EVENT_COMPLETION = 6,
    /**
     * The source has let go, and RUNNING follows (target).
     */
    VFERRY_EVENT_HANDED_OVER = 7,
    /**
     * Bytes of the peer's embedder, as the payload.
     */
    VFERRY_EVENT_MESSAGE = 8,
    /**
     * The session has ended; the last event: `ending`, `cause`, `observed`, `os_error`, `device`,
     * `text`. `vferry_session_report` has all of it.
     */
    VFERRY_EVENT_FINISHED = 9,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum vferry_event_type vferry_event_type;
#else
typedef uint32_t vferry_event_type;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * How much a log line matters.
 */
enum vferry_log_level
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * Something failed that should not.
     */
    VFERRY_LOG_ERROR = 1,
    /**
     * Something that an administrator should look at.
     */
    VFERRY_LOG_WARN = 2,
    /**
     * What a migration came to, and fallbacks.
     */
    VFERRY_LOG_INFO = 3,
    /**
     * For those who look for a fault.
     */
    VFERRY_LOG_DEBUG = 4,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum vferry_log_level vferry_log_level;
#else
typedef uint32_t vferry_log_level;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * A stream whose bytes the VMM carries on a channel of its own: it pulls what the session would
 * send, and pushes what came from the peer's VMM.
 *
 * What is pulled is a stream of bytes: it may be cut anywhere on its way, and must be pushed at the
 * peer whole and in order. No call blocks, and what waits inside is bounded by a socket buffer in
 * each direction: a VMM that does not pull holds the engine back.
 *
 * Made by `vferry_channel_new`, freed by `vferry_channel_free`, independently of the session that
 * has the other end. All calls may be made from any thread.
 */
typedef struct vferry_channel vferry_channel;

/**
 * A device that is to be migrated, under the name that both hosts know it by.
 *
 * Made by `vferry_device_open`, `vferry_device_from_fd` or `vferry_device_embedded`, freed by
 * `vferry_device_free` at any time: a session keeps what it needs of its devices until it is
 * freed. A device belongs to one session at a time, an embedded device to one session for good.
 * Options are set before the session is made.
 */
typedef struct vferry_device vferry_device;

/**
 * A TCP socket that waits for a source's streams.
 *
 * Made by `vferry_listener_new`, freed by `vferry_listener_free`. It has no part in the sessions
 * whose streams it accepted.
 */
typedef struct vferry_listener vferry_listener;

/**
 * What a session is made with. Each host has its own; what must be the same is agreed between
 * them. Every option has a default, and a session made without options has them all.
 *
 * Made by `vferry_options_new`, freed by `vferry_options_free`. A session copies what it needs:
 * options may be used for several, changed and freed at any time.
 */
typedef struct vferry_options vferry_options;

/**
 * A migration that runs on this host, of one or more devices over one or more streams.
 *
 * It has threads of its own, never calls back, and takes no lock of the caller's. The caller
 * fetches events (`vferry_session_poll`, `vferry_session_wait`) until VFERRY_EVENT_FINISHED, and
 * tells a source when its vCPUs have stopped (`vferry_session_switchover`).
 *
 * Made by `vferry_session_source` or `vferry_session_target`, freed by `vferry_session_free`. All
 * calls may be made from any thread, but events should be fetched by one.
 */
typedef struct vferry_session vferry_session;

/**
 * An event. Set `size` to sizeof(vferry_event) before the call. Fields that do not belong to its
 * type are 0, VFERRY_DEVICE_NONE, VFERRY_UNKNOWN or VFERRY_STATE_UNKNOWN.
 */
typedef struct vferry_event {
    /**
     * In: bytes that there is room for. Out: bytes that were filled in.
     */
    uint32_t size;
    /**
     * A `vferry_event_type`. Skip those that you do not know: later versions have more.
     */
    uint32_t type;
    /**
     * The device's number, or VFERRY_DEVICE_NONE.
     */
    uint32_t device;
    /**
     * The device's saving session, counted from 0: a discard starts the next one.
     */
    uint32_t epoch;
    /**
     * A `vferry_phase`.
     */
    uint32_t phase;
    /**
     * A `vferry_ending`.
     */
    uint32_t ending;
    /**
     * A `vferry_cause`: why, unless it completed.
     */
    uint32_t cause;
    /**
     * A `vferry_observed`: how that was seen.
     */
    uint32_t observed;
    /**
     * The errno that the kernel gave; 0 where there was none. 512 is a leaked ERESTARTSYS.
     */
    int32_t os_error;
    /**
     * A `vferry_state`: the device's state afterwards.
     */
    int32_t state_after;
    /**
     * VFERRY_EVENT_FLAG_ bits.
     */
    uint32_t flags;
    /**
     * The agreed version of the wire.
     */
    uint32_t wire_version;
    /**
     * Bytes of device state read (source) or written (target) in the epoch.
     */
    uint64_t bytes;
    /**
     * Bytes that `vferry_session_payload` has for this event.
     */
    uint64_t payload_bytes;
    /**
     * Bytes of PRE_COPY data that the devices report as still to be read, and those that were read
     * and have not been sent.
     */
    uint64_t pending_bytes;
    /**
     * Bytes that the devices expect to give out in STOP_COPY, or VFERRY_UNKNOWN.
     */
    uint64_t stop_copy_bytes;
    /**
     * Measured: bytes of state per second through the whole path.
     */
    uint64_t state_bytes_per_s;
    /**
     * What the downtime would be now, in nanoseconds, or VFERRY_UNKNOWN.
     */
    uint64_t downtime_ns;
    /**
     * Measured: bytes of state over bytes on the wire.
     */
    double ratio;
    /**
     * A sentence for a person: what happened, and what to do about it where there is something.
     */
    char text[VFERRY_TEXT_BYTES];
} vferry_event;

/**
 * A session that has ended. Set `size` to sizeof(vferry_report) before the call.
 *
 * Times are nanoseconds of CLOCK_MONOTONIC, which the processes of one host share; 0 where it did
 * not happen on this host. The downtime is from the source's `stop_called_ns` to the target's
 * `running_ns`.
 */
typedef struct vferry_report {
    /**
     * In: bytes that there is room for. Out: bytes that were filled in.
     */
    uint32_t size;
    /**
     * A `vferry_ending`: complete, unconfirmed or aborted.
     */
    uint32_t ending;
    /**
     * A `vferry_cause`: why, unless it completed.
     */
    uint32_t cause;
    /**
     * A `vferry_observed`: how that was seen.
     */
    uint32_t observed;
    /**
     * The errno that the kernel gave; 0 where there was none.
     */
    int32_t os_error;
    /**
     * The device that the cause concerns, or VFERRY_DEVICE_NONE.
     */
    uint32_t device;
    /**
     * What the streams ran on: VFERRY_BACKEND_IO_URING or VFERRY_BACKEND_SYSCALLS.
     */
    uint32_t backend;
    /**
     * Devices of the session.
     */
    uint32_t devices;
    /**
     * Streams of the session.
     */
    uint32_t streams;
    /**
     * Zero.
     */
    uint32_t reserved;
    /**
     * The session's thread began.
     */
    uint64_t started_ns;
    /**
     * The streams were agreed on.
     */
    uint64_t connected_ns;
    /**
     * The first call that stops a device was made (source).
     */
    uint64_t stop_called_ns;
    /**
     * The last device was in RUNNING (target).
     */
    uint64_t running_ns;
    /**
     * The session ended.
     */
    uint64_t finished_ns;
    /**
     * Bytes of state, all devices and epochs.
     */
    uint64_t state_bytes;
    /**
     * Bytes on the wire, the larger direction.
     */
    uint64_t wire_bytes;
    /**
     * Why, in a sentence for a person; empty if it completed.
     */
    char text[VFERRY_TEXT_BYTES];
    /**
     * Why io_uring was not used where it was wanted; empty otherwise.
     */
    char fallback[VFERRY_TEXT_BYTES];
} vferry_report;

/**
 * What became of one device of a session that has ended. Set `size` to
 * sizeof(vferry_device_report) before the call.
 */
typedef struct vferry_device_report {
    /**
     * In: bytes that there is room for. Out: bytes that were filled in.
     */
    uint32_t size;
    /**
     * The device's number.
     */
    uint32_t device;
    /**
     * Its last epoch: how often its saving started again.
     */
    uint32_t epoch;
    /**
     * A `vferry_ending`.
     */
    uint32_t ending;
    /**
     * A `vferry_state`: the device's state at the end.
     */
    int32_t state_after;
    /**
     * Not 0: the driver never gave back an operation. A thread, its buffers and the data fd stay
     * behind until it does.
     */
    uint32_t stuck;
    /**
     * Bytes of state in the last epoch.
     */
    uint64_t bytes;
    /**
     * Digest of the state in the last epoch: the same on both hosts.
     */
    uint8_t digest[16];
    /**
     * Bytes of state in discarded epochs.
     */
    uint64_t discarded_bytes;
    /**
     * Bytes that its frames took on the wire (source).
     */
    uint64_t wire_bytes;
    /**
     * Chunks that were sent as nothing but their length, because they were zero (source).
     */
    uint64_t zero_chunks;
    /**
     * Chunks that were sent as they were (source).
     */
    uint64_t raw_chunks;
    /**
     * Chunks that were sent compressed (source).
     */
    uint64_t zstd_chunks;
    /**
     * Frames of discarded epochs that came late and were dropped (target).
     */
    uint64_t late_frames;
} vferry_device_report;

/**
 * What was summed up for one device, all epochs. Set `size` to sizeof(vferry_device_stats) before
 * the call. Times are added up over what runs at the same time.
 */
typedef struct vferry_device_stats {
    /**
     * In: bytes that there is room for. Out: bytes that were filled in.
     */
    uint32_t size;
    /**
     * The device's number.
     */
    uint32_t device;
    /**
     * Bytes of state read (source) or written (target).
     */
    uint64_t state_bytes;
    /**
     * Bytes that its data frames took on the wire.
     */
    uint64_t wire_bytes;
    /**
     * Time in which its data fd was being read or written.
     */
    uint64_t device_ns;
    /**
     * Time in which its chunks waited for a worker or were with one.
     */
    uint64_t worker_ns;
    /**
     * Time in which its frames were being sent or received.
     */
    uint64_t link_ns;
} vferry_device_stats;

/**
 * What was summed up for one stream. Set `size` to sizeof(vferry_stream_stats) before the call.
 */
typedef struct vferry_stream_stats {
    /**
     * In: bytes that there is room for. Out: bytes that were filled in.
     */
    uint32_t size;
    /**
     * The stream's number: its place among the fds that the session was made with.
     */
    uint32_t stream;
    /**
     * Bytes sent.
     */
    uint64_t sent_bytes;
    /**
     * Bytes received.
     */
    uint64_t received_bytes;
    /**
     * Frames sent.
     */
    uint64_t sent_frames;
    /**
     * Frames received.
     */
    uint64_t received_frames;
    /**
     * Time in which a send was under way.
     */
    uint64_t send_ns;
} vferry_stream_stats;

/**
 * How long something took, over all times that it happened. Set `size` to
 * sizeof(vferry_duration_stats) before the call. All in nanoseconds, to three digits; 0 where it
 * did not happen.
 */
typedef struct vferry_duration_stats {
    /**
     * In: bytes that there is room for. Out: bytes that were filled in.
     */
    uint32_t size;
    /**
     * Zero.
     */
    uint32_t reserved;
    /**
     * How often it happened.
     */
    uint64_t count;
    /**
     * The shortest.
     */
    uint64_t min_ns;
    /**
     * The mean.
     */
    uint64_t mean_ns;
    /**
     * Half of them took at most this.
     */
    uint64_t p50_ns;
    /**
     * 99 of 100 took at most this.
     */
    uint64_t p99_ns;
    /**
     * The longest.
     */
    uint64_t max_ns;
} vferry_duration_stats;

/**
 * A log line. Set `size` to sizeof(vferry_log_line) before the call.
 */
typedef struct vferry_log_line {
    /**
     * In: bytes that there is room for. Out: bytes that were filled in.
     */
    uint32_t size;
    /**
     * A `vferry_log_level`.
     */
    uint32_t level;
    /**
     * When it was written, in nanoseconds since 1970.
     */
    uint64_t time_ns;
    /**
     * Lines that were lost just before this one, because the queue was full.
     */
    uint64_t lost;
    /**
     * The line.
     */
    char text[VFERRY_TEXT_BYTES];
} vferry_log_line;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * What a status means, in a few words. Static, never NULL; for numbers of later versions too.
 * `vferry_last_error` says more.
 */
const char *vferry_status_text(int32_t status);

/**
 * `VFERRY_ABI_VERSION` of the library that runs, to be compared with the header's: one that is
 * larger or equal has everything that the header has.
 */
uint32_t vferry_abi_version(void);

/**
 * `VFERRY_WIRE_VERSION_MIN` of the library that runs.
 */
uint32_t vferry_wire_version_min(void);

/**
 * `VFERRY_WIRE_VERSION_MAX` of the library that runs.
 */
uint32_t vferry_wire_version_max(void);

/**
 * The library's release, such as "0.1.0". Static, never NULL.
 */
const char *vferry_version_text(void);

/**
 * Says what the last call that failed on this thread failed of, in one sentence: more than its
 * status does. Calls that succeed, and statuses below 100, leave it as it was.
 *
 * Up to `capacity - 1` bytes and a NUL are written to `buffer`; with a `capacity` of 0 it may be
 * NULL. Returns the length of the whole sentence without the NUL, 0 if no call has failed.
 */
size_t vferry_last_error(char *buffer, size_t capacity);

/**
 * The errno that belongs to `vferry_last_error`: the kernel's own answer, or 0 where it gave none.
 */
int32_t vferry_last_errno(void);

/**
 * The name of a `vferry_phase`. Static, never NULL.
 */
const char *vferry_phase_text(uint32_t phase);

/**
 * The name of a `vferry_ending`. Static, never NULL.
 */
const char *vferry_ending_text(uint32_t ending);

/**
 * The name of a `vferry_cause`. Static, never NULL.
 */
const char *vferry_cause_text(uint32_t cause);

/**
 * The name of a `vferry_observed`. Static, never NULL.
 */
const char *vferry_observed_text(uint32_t observed);

/**
 * The name of a `vferry_step`. Static, never NULL.
 */
const char *vferry_step_text(uint32_t step);

/**
 * The name of a `vferry_state`, as the kernel writes it. Static, never NULL.
 */
const char *vferry_state_text(int32_t state);

/**
 * Makes options, all at their defaults.
 */
vferry_status vferry_options_new(struct vferry_options **options);

/**
 * Frees options and sets the variable to NULL. Where it, or `options` itself, is NULL there is
 * nothing to do.
 */
void vferry_options_free(struct vferry_options **options);

/**
 * Bytes of state that one frame carries at most: 4096 to 4194304, by default 262144. The smaller
 * of both hosts' counts holds. Whether a count can be used is said when a session is made.
 */
vferry_status vferry_options_set_chunk_bytes(struct vferry_options *options, size_t bytes);

/**
 * Threads that compress (source) or decompress (target): 1 to 64, by default one for each core, 8
 * at most.
 */
vferry_status vferry_options_set_workers(struct vferry_options *options, size_t workers);

/**
 * Whether to compress: a `vferry_policy`. `level` is zstd's, -7 to 19, and counts for
 * `VFERRY_POLICY_ZSTD` only.
 */
vferry_status vferry_options_set_policy(struct vferry_options *options,
                                        uint32_t policy,
                                        int32_t level);

/**
 * How the engine does its I/O: a `vferry_backend`.
 */
vferry_status vferry_options_set_backend(struct vferry_options *options, uint32_t backend);

/**
 * Whether the source may send with IORING_OP_SEND_ZC, on sockets where the kernel proves to copy
 * nothing. On by default.
 */
vferry_status vferry_options_set_zero_copy(struct vferry_options *options, bool zero_copy);

/**
 * Most memory for buffers, in bytes: up to 1 GiB, by default 32 MiB. A session takes what it can
 * use of it at its start and never more, whatever the state's size, the link or the peer.
 */
vferry_status vferry_options_set_memory_bytes(struct vferry_options *options, size_t bytes);

/**
 * Most bytes per second that all streams together send; 0 for no limit, which is the default. The
 * kernel keeps it, with SO_MAX_PACING_RATE and an equal share for each stream, so streams must be
 * TCP: for others `vferry_session_source` answers VFERRY_PACING. What a `vferry_channel` carries is
 * limited by how fast it is pulled.
 */
vferry_status vferry_options_set_rate(struct vferry_options *options, uint64_t bytes_per_s);

/**
 * How long the peer may be silent before it counts as lost, in milliseconds; by default 10000. An
 * engine that has nothing to say sends pings.
 */
vferry_status vferry_options_set_peer_silence_ms(struct vferry_options *options,
                                                 uint32_t milliseconds);

/**
 * How long a cancel waits for an operation that a driver holds, and an abort for the devices' way
 * back, in milliseconds; by default 2000. What is still held then is left to a thread of its own,
 * and the report says so.
 */
vferry_status vferry_options_set_cancel_bound_ms(struct vferry_options *options,
                                                 uint32_t milliseconds);

/**
 * How long to wait before a device that had no PRE_COPY data is asked again, in milliseconds; by
 * default 20.
 */
vferry_status vferry_options_set_precopy_poll_ms(struct vferry_options *options,
                                                 uint32_t milliseconds);

/**
 * Opens a VFIO device by its folder in sysfs (/sys/bus/pci/devices/ADDRESS,
 * /sys/bus/mdev/devices/UUID), or by its bare address or UUID, with a group and container of its
 * own. The engine drives its state machine. No memory is mapped for DMA: a VMM that runs a guest
 * on the device opens it itself and uses `vferry_device_from_fd`.
 *
 * `name` is 1 to 255 bytes of UTF-8 and the same on both hosts. On success `*device` is the
 * caller's, to be freed by `vferry_device_free`.
 */
vferry_status vferry_device_open(const char *name, const char *path, struct vferry_device **device);

/**
 * Takes a VFIO device that the VMM has opened (VFIO_GROUP_GET_DEVICE_FD, or a bound cdev). The
 * engine drives its state machine, so the VMM makes no migration ioctls meanwhile.
 *
 * `fd` is duplicated and stays the caller's. The duplicate is closed when the device was freed and
 * no session has it any more. `name` is as in `vferry_device_open`.
 */
vferry_status vferry_device_from_fd(const char *name, int fd, struct vferry_device **device);

/**
 * Frees a device and sets the variable to NULL. Where it, or `device` itself, is NULL there is
 * nothing to do. A session that has the device keeps it.
 */
void vferry_device_free(struct vferry_device **device);

/**
 * Whether to save in PRE_COPY while the guest runs, where the device can (source). On by default.
 */
vferry_status vferry_device_set_precopy(struct vferry_device *device, bool precopy);

/**
 * What follows a reset while the state is being saved: a `vferry_on_reset` (source).
 *
 * `attempts` and `fallback` count for VFERRY_ON_RESET_RESTART only: how often this device may be
 * restarted in one session, and what follows then, VFERRY_ON_RESET_ABORT or
 * VFERRY_ON_RESET_STOP_COPY.
 */
vferry_status vferry_device_set_on_reset(struct vferry_device *device,
                                         uint32_t on_reset,
                                         uint32_t attempts,
                                         uint32_t fallback);

/**
 * The device's share of the link against the other devices of its session, 1 or more (source). By
 * default 1.
 */
vferry_status vferry_device_set_weight(struct vferry_device *device, uint32_t weight);

/**
 * Bytes that the target's embedder gets with the device's VFERRY_EVENT_BEGIN: at most 32768, which
 * the engine does not look at (source). They are copied; `bytes` may be NULL if `count` is 0.
 */
vferry_status vferry_device_set_opaque(struct vferry_device *device,
                                       const uint8_t *bytes,
                                       size_t count);

/**
 * Makes a device whose ioctls the VMM makes: it moves the device from state to state when the
 * engine wants it to (`vferry_device_wanted`), and hands the data fds in. There are no callbacks.
 *
 * `host` is the `vferry_host` that this is, `flags` are VFERRY_EMBEDDED_ bits, `name` is as in
 * `vferry_device_open`. `device_fd` is the VFIO device fd, or -1. It is duplicated and stays the
 * caller's. With it the engine asks GET_STATE, and so tells a reset from a failure; asks for
 * MIG_DATA_SIZE; and resets a target device whose epoch was discarded. Without it the device's
 * state is what the VMM said last: one that finds its device reset calls `vferry_device_moved` with
 * VFERRY_STATE_RUNNING and -1.
 *
 * When its session has ended the device is the VMM's again, in the state that it was left in: after
 * an abort it is the VMM that brings a source device to RUNNING and resets a target device.
 */
vferry_status vferry_device_embedded(const char *name,
                                     uint32_t host,
                                     uint32_t flags,
                                     int device_fd,
                                     struct vferry_device **device);

/**
 * Says what the engine waits for: a `vferry_want`. Never blocks. It stays until it is answered, or
 * until the session ends.
 */
vferry_status vferry_device_wanted(struct vferry_device *device, uint32_t *want);

/**
 * An eventfd that is readable while the engine waits for something; for poll, epoll or an event
 * loop. It belongs to the device and lives as long as it does: do not read, write or close it.
 */
vferry_status vferry_device_event_fd(struct vferry_device *device, int *fd);

/**
 * SET_STATE(`state`) succeeded, and gave `data_fd`, or -1 if it gave none. Never blocks. The answer
 * may come before the question: it is kept for it, and dropped when another question is asked. But the
 * fd of a PRE_COPY that was never asked for, because the switchover came first, is STOP_COPY's if the
 * kernel gives none there.
 *
 * On success `data_fd` is the engine's, which closes it when the epoch or the session ends; the
 * caller does not use the number again. On failure it is still the caller's.
 */
vferry_status vferry_device_moved(struct vferry_device *device,
                                  int32_t state,
                                  int data_fd);

/**
 * SET_STATE(`state`) failed with this positive errno. Never blocks.
 */
vferry_status vferry_device_failed(struct vferry_device *device, int32_t state, int32_t os_error);

/**
 * VFIO_MIG_GET_PRECOPY_INFO gave these sizes in bytes; `flags` is 0 or VFERRY_PRECOPY_INFO_REINIT.
 * Pass REINIT only if the kernel accepted VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2: without it the
 * kernel leaves in `flags` whatever was there before. Never blocks.
 */
vferry_status vferry_device_precopy_info(struct vferry_device *device,
                                         uint64_t initial_bytes,
                                         uint64_t dirty_bytes,
                                         uint32_t flags);

/**
 * VFIO_MIG_GET_PRECOPY_INFO failed with this positive errno. Never blocks. A device that was reset
 * answers EINVAL: hand it in, and the engine finds out.
 */
vferry_status vferry_device_precopy_info_failed(struct vferry_device *device, int32_t os_error);

/**
 * VFIO_DEVICE_RESET returned: `os_error` is 0, or the positive errno that it failed with. Never
 * blocks.
 */
vferry_status vferry_device_reset_done(struct vferry_device *device, int32_t os_error);

/**
 * What VFIO_DEVICE_FEATURE_MIG_DATA_SIZE says, in bytes, where the engine has no device fd to ask
 * with. May be called again when it has changed.
 */
vferry_status vferry_device_set_stop_copy_length(struct vferry_device *device, uint64_t bytes);

/**
 * Connects `count` streams to a target that uses `vferry_listener_accept`. Blocks for as long as
 * the network takes.
 *
 * `address` is HOST:PORT, an IPv6 address in brackets. On success `fds` has `count` connected
 * sockets, which are the caller's, to be given to `vferry_session_source` or closed.
 */
vferry_status vferry_connect(const char *address, int *fds, size_t count);

/**
 * Listens on `address`, which is IP:PORT, with port 0 for any that is free. On success `*listener`
 * is the caller's, to be freed by `vferry_listener_free`.
 */
vferry_status vferry_listener_new(const char *address, struct vferry_listener **listener);

/**
 * Frees a listener and sets the variable to NULL. Where it, or `listener` itself, is NULL there is
 * nothing to do.
 */
void vferry_listener_free(struct vferry_listener **listener);

/**
 * The port that is listened on.
 */
vferry_status vferry_listener_port(const struct vferry_listener *listener, uint16_t *port);

/**
 * The listening socket, readable when a source connects; for poll, epoll or an event loop. It
 * belongs to the listener: do not close it.
 */
vferry_status vferry_listener_fd(const struct vferry_listener *listener, int *fd);

/**
 * Accepts all streams of one session, as many as its source has: blocks until they are there, for
 * `timeout_ms` at most. VFERRY_TIMEOUT when that is over, VFERRY_PEER where something else than a
 * source connects.
 *
 * `fds` has room for `capacity` fds, VFERRY_STREAMS_MAX always being enough. On success the first
 * `*count` are connected sockets, which are the caller's, to be given to `vferry_session_target`
 * or closed.
 */
vferry_status vferry_listener_accept(struct vferry_listener *listener,
                                     uint32_t timeout_ms,
                                     int *fds,
                                     size_t capacity,
                                     size_t *count);

/**
 * Makes a channel. On success `*channel` is the caller's, to be freed by `vferry_channel_free`, and
 * `*stream_fd` is the session's end of it, to be given to `vferry_session_source` or
 * `vferry_session_target` as one of its streams, or closed.
 */
vferry_status vferry_channel_new(struct vferry_channel **channel, int *stream_fd);

/**
 * Frees a channel and sets the variable to NULL. Where it, or `channel` itself, is NULL there is
 * nothing to do. To a session that still runs it is a stream that broke.
 */
void vferry_channel_free(struct vferry_channel **channel);

/**
 * Takes up to `capacity` bytes that are to be carried to the peer. On success `*pulled` says how
 * many there are in `buffer`, at least one.
 *
 * VFERRY_EMPTY when there are none at this moment; VFERRY_OVER when the session has closed the
 * stream and all of it was pulled: tell the peer's VMM, which calls `vferry_channel_close`.
 */
vferry_status vferry_channel_pull(struct vferry_channel *channel,
                                  uint8_t *buffer,
                                  size_t capacity,
                                  size_t *pulled);

/**
 * Gives up to `count` bytes that were pulled at the peer. On success `*pushed` says how many were
 * taken, at least one unless `count` is 0; push the rest again.
 *
 * VFERRY_FULL when there is no room at this moment; VFERRY_OVER when the session has closed the
 * stream, and takes no more.
 */
vferry_status vferry_channel_push(struct vferry_channel *channel,
                                  const uint8_t *bytes,
                                  size_t count,
                                  size_t *pushed);

/**
 * Nothing more will be pushed: the peer's stream is over, or the VMM's channel broke. What waits to
 * be pulled still can be. A session that had not ended takes it as a stream that broke.
 */
vferry_status vferry_channel_close(struct vferry_channel *channel);

/**
 * An fd that is readable while there is something to pull, or to be told; and writable while a push
 * finds room. For poll, epoll or an event loop. It belongs to the channel: do not read, write or
 * close it.
 */
vferry_status vferry_channel_fd(const struct vferry_channel *channel, int *fd);

/**
 * Starts to migrate devices away, to the target at the other end of the streams.
 *
 * `options` may be NULL for all defaults. `devices` are `device_count` devices (1 to
 * VFERRY_DEVICES_MAX), numbered in their order; the target has the same names in the same order.
 * `fds` are `stream_count` connected stream sockets (1 to VFERRY_STREAMS_MAX), all to one target.
 *
 * On success `*session` is the caller's, to be freed by `vferry_session_free`, and the fds are the
 * session's, which closes them at its end; the caller does not use the numbers again. On failure
 * the fds are still the caller's, and the devices are as they were.
 */
vferry_status vferry_session_source(const struct vferry_options *options,
                                    struct vferry_device *const *devices,
                                    size_t device_count,
                                    const int *fds,
                                    size_t stream_count,
                                    struct vferry_session **session);

/**
 * Starts to take devices in, from the source at the other end of the streams. As
 * `vferry_session_source` otherwise. The devices are in RUNNING, and their guest does not run.
 */
vferry_status vferry_session_target(const struct vferry_options *options,
                                    struct vferry_device *const *devices,
                                    size_t device_count,
                                    const int *fds,
                                    size_t stream_count,
                                    struct vferry_session **session);

/**
 * Frees a session and sets the variable to NULL. Where it, or `session` itself, is NULL there is
 * nothing to do. No other call with this session may be under way.
 *
 * One that has not ended is cancelled first. Blocks until its threads have let go of devices and
 * streams: within the cancel bound if it had not ended, and half a second more at most for the peer
 * to hear the last of it. Then all memory and fds are given back, except what a driver still holds.
 */
void vferry_session_free(struct vferry_session **session);

/**
 * The vCPUs are stopped: stop the devices, send the rest, hand over (source). Returns at once.
 * VFERRY_WRONG_HOST on a target, VFERRY_OVER once the session has ended.
 */
vferry_status vferry_session_switchover(struct vferry_session *session);

/**
 * Gives the migration up. May be called from any thread, at any time; returns at once.
 * VFERRY_EVENT_FINISHED follows within the cancel bound, even while a driver holds an operation.
 * After the handover, and after the end, a cancel comes too late and changes nothing.
 */
vferry_status vferry_session_cancel(struct vferry_session *session);

/**
 * The VMM knows that a device was reset (it carried out the guest's FLR, say): the device's epoch
 * is discarded as if the engine had seen it, and what was chosen for the device follows (source).
 * Returns at once. VFERRY_WRONG_HOST on a target, VFERRY_OVER once the session has ended.
 */
vferry_status vferry_session_device_was_reset(struct vferry_session *session, uint32_t device);

/**
 * Carries up to VFERRY_MESSAGE_BYTES_MAX bytes to the peer's embedder, who gets them as
 * VFERRY_EVENT_MESSAGE: unchanged, and in their order where there is one stream. They are copied.
 * Returns at once. VFERRY_OVER once the session has ended.
 *
 * VFERRY_FULL while VFERRY_MESSAGES_WAITING_MAX messages wait for the peer's engine to read: the
 * message was not taken, send it again later. No event says when there is room; a peer that reads
 * nothing for long ends the session. The peer's embedder, too, may leave as many waiting to be
 * fetched: one more ends its session.
 */
vferry_status vferry_session_send(struct vferry_session *session,
                                  const uint8_t *bytes,
                                  size_t count);

/**
 * An eventfd that is readable while an event waits; for poll, epoll or an event loop. It belongs
 * to the session: do not read, write or close it.
 */
vferry_status vferry_session_event_fd(const struct vferry_session *session, int *fd);

/**
 * Copies the bytes that belong to the event that was fetched last: a message, or a device's opaque
 * part. `buffer` has room for `capacity` bytes; the event's `payload_bytes` says how many there
 * are, and so does `*count` on success. They stay until the next event is fetched.
 */
vferry_status vferry_session_payload(const struct vferry_session *session,
                                     uint8_t *buffer,
                                     size_t capacity,
                                     size_t *count);

/**
 * Fetches the next event. Never blocks. VFERRY_EMPTY when none waits at this moment, VFERRY_OVER
 * when VFERRY_EVENT_FINISHED was fetched.
 */
vferry_status vferry_session_poll(struct vferry_session *session, struct vferry_event *event);

/**
 * Waits for the next event, for `timeout_ms` at most, or for ever if that is negative.
 * VFERRY_TIMEOUT when the time is over, VFERRY_OVER when VFERRY_EVENT_FINISHED was fetched.
 */
vferry_status vferry_session_wait(struct vferry_session *session,
                                  int32_t timeout_ms,
                                  struct vferry_event *event);

/**
 * Whether an event says that stopping the VM now would mean a downtime of `downtime_ns_max` at
 * most, with all initial data loaded at the target. Where too little has moved to reckon a downtime
 * from, it is enough that nothing more can be moved while the guest runs. False for events other
 * than VFERRY_EVENT_ESTIMATE, and for NULL.
 */
bool vferry_event_is_ready(const struct vferry_event *event, uint64_t downtime_ns_max);

/**
 * Waits until the downtime would be `downtime_ms_max` at most, as `vferry_event_is_ready` says, for
 * `patience_ms` at most (source). Events that come meanwhile are dropped: who wants them waits with
 * `vferry_session_wait`. VFERRY_TIMEOUT when the patience is over, and that is no reason against
 * stopping; VFERRY_OVER when the session ended. Without a device that saves in PRE_COPY there is
 * nothing to wait for, and no estimate comes.
 */
vferry_status vferry_session_wait_ready(struct vferry_session *session,
                                        uint32_t downtime_ms_max,
                                        uint32_t patience_ms);

/**
 * Says what a session came to, once VFERRY_EVENT_FINISHED waits or was fetched. Never blocks.
 * VFERRY_NOT_ENDED before.
 */
vferry_status vferry_session_report(const struct vferry_session *session,
                                    struct vferry_report *report);

/**
 * Says what became of one device. As `vferry_session_report` otherwise.
 */
vferry_status vferry_session_device_report(const struct vferry_session *session,
                                           uint32_t device,
                                           struct vferry_device_report *report);

/**
 * Waits for the session's end, for `timeout_ms` at most, or for ever if that is negative, and says
 * what it came to. Events that come meanwhile are dropped. VFERRY_TIMEOUT when the time is over.
 */
vferry_status vferry_session_finish(struct vferry_session *session,
                                    int32_t timeout_ms,
                                    struct vferry_report *report);

/**
 * What was measured of one device so far. Never blocks. While the session runs it may be a tenth of
 * a second old.
 */
vferry_status vferry_session_device_stats(const struct vferry_session *session,
                                          uint32_t device,
                                          struct vferry_device_stats *stats);

/**
 * What was measured of one stream so far. As `vferry_session_device_stats` otherwise.
 */
vferry_status vferry_session_stream_stats(const struct vferry_session *session,
                                          uint32_t stream,
                                          struct vferry_stream_stats *stats);

/**
 * How long the chunks of all devices took at a `vferry_step`. As `vferry_session_device_stats`
 * otherwise.
 */
vferry_status vferry_session_step_stats(const struct vferry_session *session,
                                        uint32_t step,
                                        struct vferry_duration_stats *stats);

/**
 * How long the devices spent in a `vferry_phase`: one value each time that a device left it. As
 * `vferry_session_device_stats` otherwise.
 */
vferry_status vferry_session_phase_stats(const struct vferry_session *session,
                                         uint32_t phase,
                                         struct vferry_duration_stats *stats);

/**
 * Begins to keep log lines up to `level`, a `vferry_log_level`, of all sessions of the process:
 * the newest `lines_max` (1 to 65536) that were not fetched. Once in a process; VFERRY_LOG_TAKEN
 * after that, and where the process is a Rust program that has a `tracing` subscriber of its own.
 * Without this call nothing is logged anywhere.
 */
vferry_status vferry_log_start(uint32_t level, size_t lines_max);

/**
 * Fetches the oldest log line. Never blocks. VFERRY_EMPTY when there is none.
 */
vferry_status vferry_log_next(struct vferry_log_line *line);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* VFIO_FERRY_H */
