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
 *   vferry_session_report                         vferry_session_report
 *   what the table below says                     what the table below says
 *   vferry_session_free                           vferry_session_free
 *
 * How it ended, and what the VMM does then. What is said of a device goes by its own report
 * (vferry_session_device_report): `state`, `home`, `stuck`.
 *
 *   source         device driven by the engine          device embedded
 *   HANDED_OVER    Destroy the VM.
 *                  It is in STOP.                       It is where the VMM left it.
 *   RETURNED       Bring back what the VMM moves, then resume the vCPUs.
 *                  It is where it was found, RUNNING    Nothing holds it: bring it to RUNNING, out
 *                  or STOP: nothing to do.              of ERROR with a reset.
 *   NOT_RETURNED   Do what is said here for each device, then resume the vCPUs.
 *                  `home` is 0: wait for                `home` is 0: a driver still holds an
 *                  VFERRY_EVENT_DEVICE_CAME_BACK, or    operation on it. The same; or bring it to
 *                  reset it.                            RUNNING at once, which ends most of them.
 *   UNCONFIRMED    Nothing runs here until a person, or a cluster manager, is certain that the target
 *                  does not run. Then as RETURNED; otherwise as HANDED_OVER.
 *                  It is in STOP or on its way there:   It is where the VMM left it: the VMM brings
 *                  the VMM sets RUNNING.                it to RUNNING.
 *
 *   target         device driven by the engine          device embedded
 *   RUNNING        Start the vCPUs.
 *                  It runs.                             It runs; with VFERRY_EMBEDDED_STARTS_LATER
 *                                                       the VMM starts it from STOP now.
 *   BLANK          The VM may be destroyed, or wait for another migration.
 *                  It is in RUNNING, reset or never     The same. With no device fd: the VMM has
 *                  touched.                             not moved it, or has reset it.
 *   NOT_BLANK      No device whose `home` is 0 goes to a guest before it was reset.
 *                  Reset it, or wait for                Reset it. Without a device fd each device
 *                  VFERRY_EVENT_DEVICE_CAME_BACK.       that was moved is such a one.
 *
 * Sections: versions and errors, limits and enumerations, options, threads, devices, embedded devices,
 * streams and channels, sessions, events, reports, figures, log.
 *
 * Errors. Calls return a vferry_status: VFERRY_OK (0), or VFERRY_ERR_ and the reason.
 * vferry_last_error tells more, in a sentence. Out-parameters are written on success only.
 *
 * Handles are opaque. Each is made by one call and freed by the _free call of its type, which takes
 * the address of the variable that holds it and sets that to NULL. So it does nothing when it is
 * called twice with one variable. Copies of the pointer must not be used after that.
 *
 * Fds. An fd that a call takes over is the library's only if the call succeeds. An fd that a call
 * duplicates stays the caller's. An fd that a call gives out for poll must not be read, written or
 * closed.
 *
 * Structs that a call fills in begin with their size, which the caller sets to sizeof the struct
 * before each call. So a program and a library of different versions work together: what either does
 * not know is left out.
 *
 * Strings are UTF-8 and end with NUL. Enumerations are passed as integers. The library refuses a
 * number that names nothing (VFERRY_ERR_RANGE); a later library may return numbers that a program
 * does not know.
 *
 * Times. A `timeout_ms` is how long a call may block: 0 for not at all, VFERRY_NO_LIMIT (-1) for as
 * long as it takes, other negative numbers are VFERRY_ERR_RANGE. Only calls that say so block.
 *
 * Threads. Every call may be made from any thread, also with the same handle at the same time. Only
 * _free must be the last call with its handle. The library never calls back, save where its threads are
 * started, if the VMM has asked for that: vferry_options_set_thread_start.
 *
 * Signals. The library's threads block all signals but those that a thread brings upon itself (SIGSEGV,
 * SIGSYS of a seccomp filter, and the like), so no other handler of the VMM's runs on them, and no
 * call of theirs is interrupted. Calls that block go on after a handler has run. The library raises no
 * SIGPIPE: not on its streams and channels, and not with a data fd that is a pipe or socket whose
 * other end is closed, because only its threads write to those. What the VMM itself writes to pipes and
 * sockets, such as its own migration channel, is the VMM's: it ignores SIGPIPE or passes MSG_NOSIGNAL.
 */

#ifndef VFIO_FERRY_H
#define VFIO_FERRY_H

/* Generated from ffi/src by cbindgen: UPDATE_HEADER=1 cargo test -p vfio-ferry-ffi --test header */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/* --- Versions and errors ---------------------------------------------------------------------- */

/**
 * Version of this interface. It grows when something is added. Nothing is changed or removed under
 * one soname.
 */
#define VFERRY_ABI_VERSION 7

/**
 * Oldest version of this interface whose programs run with this library; the number of its soname,
 * libvfio_ferry.so.3.
 */
#define VFERRY_ABI_VERSION_MIN 3

/**
 * The first number of the library's release.
 */
#define VFERRY_VERSION_MAJOR 0

/**
 * The second number of the library's release.
 */
#define VFERRY_VERSION_MINOR 1

/**
 * The third number of the library's release.
 */
#define VFERRY_VERSION_PATCH 0

/**
 * Oldest version of the wire that this library speaks.
 */
#define VFERRY_WIRE_VERSION_MIN 1

/**
 * Newest version of the wire that this library speaks. Two hosts use the newest that both speak.
 */
#define VFERRY_WIRE_VERSION_MAX 1

/**
 * `VFERRY_ABI_VERSION` of the library that runs. Where it is the header's or larger, the library has
 * everything that the header declares.
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
 * Copies a sentence about the last call that failed on this thread: more than its status tells.
 * Calls that succeed, and statuses below 100, do not change it.
 *
 * Up to `capacity - 1` bytes and a NUL are written to `buffer`; with a `capacity` of 0 it may be
 * NULL. Returns the length of the whole sentence without the NUL, 0 if no call has failed.
 */
size_t vferry_last_error(char *buffer, size_t capacity);

/**
 * The errno that belongs to `vferry_last_error`: the kernel's, or 0 where it gave none.
 */
int32_t vferry_last_errno(void);

/**
 * What a call returns: VFERRY_OK, or why it did nothing. The number's range says who can act:
 * 1 to 99 nothing is wrong, but there is nothing to be had now; 100 the caller; 200 the device or
 * its set-up on this host; 300 the peer; 400 the network; 500 this host's system; 900 a bug of the
 * library. A number keeps its meaning for ever. Later versions may return new ones.
 *
 * Out-parameters are written on success only.
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
     * Nothing waits at this moment.
     */
    VFERRY_ERR_EMPTY = 1,
    /**
     * The timeout expired.
     */
    VFERRY_ERR_TIMEOUT = 2,
    /**
     * There is no room at this moment.
     */
    VFERRY_ERR_FULL = 3,
    /**
     * The session or the channel has ended: nothing more will come.
     */
    VFERRY_ERR_ENDED = 4,
    /**
     * The wait was cancelled. Since version 5.
     */
    VFERRY_ERR_CANCELLED = 5,
    /**
     * A pointer is NULL that must not be.
     */
    VFERRY_ERR_NULL = 100,
    /**
     * A number is outside its range, or names nothing.
     */
    VFERRY_ERR_RANGE = 101,
    /**
     * A struct's `size` is not the size of any version of the struct.
     */
    VFERRY_ERR_STRUCT_SIZE = 102,
    /**
     * A device's name is empty, or given twice.
     */
    VFERRY_ERR_DEVICE_NAME = 103,
    /**
     * A name, message or opaque part has more bytes than are allowed.
     */
    VFERRY_ERR_TOO_LONG = 104,
    /**
     * The buffers would need more memory than `vferry_options_set_memory_bytes` allows.
     */
    VFERRY_ERR_MEMORY_LIMIT = 105,
    /**
     * The call belongs to the other host's session or device.
     */
    VFERRY_ERR_WRONG_HOST = 106,
    /**
     * The session has no device or stream of this number.
     */
    VFERRY_ERR_UNKNOWN_NUMBER = 107,
    /**
     * An fd is not open, given twice, or of the wrong kind.
     */
    VFERRY_ERR_BAD_FD = 108,
    /**
     * The device already belongs to a session, or is given twice.
     */
    VFERRY_ERR_DEVICE_IN_USE = 109,
    /**
     * The call is for embedded devices only.
     */
    VFERRY_ERR_NOT_EMBEDDED = 110,
    /**
     * The session has not ended yet.
     */
    VFERRY_ERR_NOT_ENDED = 111,
    /**
     * The buffer is too small.
     */
    VFERRY_ERR_BUFFER_TOO_SMALL = 112,
    /**
     * A string is not UTF-8.
     */
    VFERRY_ERR_NOT_UTF8 = 113,
    /**
     * A rate limit was set, and a stream is not TCP.
     */
    VFERRY_ERR_RATE_NEEDS_TCP = 114,
    /**
     * The process already collects log lines.
     */
    VFERRY_ERR_LOG_TAKEN = 115,
    /**
     * A stream would leave this host in plaintext, and that was not asked for. Since version 5.
     */
    VFERRY_ERR_PLAINTEXT = 116,
    /**
     * A certificate, key or name of this host's own cannot be used. Since version 5.
     */
    VFERRY_ERR_CREDENTIALS = 117,
    /**
     * Bytes and whole frames were pushed into one channel. Since version 7.
     */
    VFERRY_ERR_MIXED = 118,
    /**
     * A call to the device failed; `vferry_last_errno` is the kernel's errno.
     */
    VFERRY_ERR_DEVICE_IO = 200,
    /**
     * The device's driver has no migration support.
     */
    VFERRY_ERR_NOT_MIGRATABLE = 201,
    /**
     * There is no such device.
     */
    VFERRY_ERR_NO_SUCH_DEVICE = 202,
    /**
     * The device is not bound to a VFIO driver, or has no IOMMU group.
     */
    VFERRY_ERR_NOT_BOUND = 203,
    /**
     * This process may not open the device.
     */
    VFERRY_ERR_ACCESS_DENIED = 204,
    /**
     * Another process uses the device's IOMMU group.
     */
    VFERRY_ERR_GROUP_BUSY = 205,
    /**
     * Another device of the IOMMU group is not bound to VFIO.
     */
    VFERRY_ERR_GROUP_NOT_VIABLE = 206,
    /**
     * The kernel's vfio modules are not loaded.
     */
    VFERRY_ERR_NO_VFIO = 207,
    /**
     * The device is not in a state in which a migration begins: RUNNING, or STOP under a paused VM.
     * Since version 4.
     */
    VFERRY_ERR_DEVICE_STATE = 208,
    /**
     * The library was built without this function. Since version 5.
     */
    VFERRY_ERR_NOT_BUILT_IN = 209,
    /**
     * The peer does not speak this protocol, or broke it.
     */
    VFERRY_ERR_PEER_PROTOCOL = 300,
    /**
     * The peer is not who it has to be, or its certificate is not valid today. Since version 5.
     */
    VFERRY_ERR_PEER_UNTRUSTED = 301,
    /**
     * The peer does not trust this host. Since version 5.
     */
    VFERRY_ERR_PEER_REFUSED = 302,
    /**
     * A connection failed; `vferry_last_errno` is the kernel's errno.
     */
    VFERRY_ERR_CONNECTION = 400,
    /**
     * An address cannot be parsed or resolved.
     */
    VFERRY_ERR_ADDRESS = 401,
    /**
     * A protected stream was changed or cut on its way, or is none. Since version 5.
     */
    VFERRY_ERR_STREAM_CHANGED = 402,
    /**
     * The system refused memory, threads, fds or a ring; `vferry_last_errno` is the kernel's errno.
     */
    VFERRY_ERR_SYSTEM = 500,
    /**
     * A bug of the library. Sessions that exist can still be freed.
     */
    VFERRY_ERR_INTERNAL = 900,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum vferry_status vferry_status;
#else
typedef int32_t vferry_status;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What a status means, in a few words. Static, never NULL; for numbers of later versions too.
 * `vferry_last_error` says more.
 */
const char *vferry_status_text(int32_t status);

/* --- Limits and enumerations that several parts share ----------------------------------------- */

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
 * Most messages from one host that wait for the peer's engine, and most that wait at the peer for
 * its embedder.
 */
#define VFERRY_MESSAGES_WAITING_MAX 64

/**
 * Room for a text in an event, report or log line, the NUL included.
 */
#define VFERRY_TEXT_BYTES 512

/**
 * In a field for a device's number: no device, the whole session.
 */
#define VFERRY_DEVICE_NONE 4294967295

/**
 * In a field for bytes or nanoseconds: not known.
 */
#define VFERRY_VALUE_UNKNOWN 18446744073709551615ull

/**
 * For a number of milliseconds that limits a wait: no limit.
 */
#define VFERRY_NO_LIMIT -1

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
    VFERRY_HOST_SOURCE = 1,
    /**
     * The host that the device goes to.
     */
    VFERRY_HOST_TARGET = 2,
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
     * Nobody knows: the call that would tell has failed, or has not returned.
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
 * The name of a `vferry_step`. Static, never NULL.
 */
const char *vferry_step_text(uint32_t step);

/**
 * The name of a `vferry_state`, as the kernel writes it. Static, never NULL.
 */
const char *vferry_state_text(int32_t state);

/**
 * A device's progress in its migration.
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
     * The hosts agree on the streams. The device is untouched.
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
     * The target has confirmed the loaded state; the source hands the device over.
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
 * How a session ended on this host, and with that what the VMM does next; the table at the top of
 * this header has all of it.
 */
enum vferry_ending
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * It has not ended.
     */
    VFERRY_ENDING_NONE = 0,
    /**
     * Source: the target runs the devices. Destroy the VM here.
     */
    VFERRY_ENDING_HANDED_OVER = 1,
    /**
     * Source: nothing of the devices is left to the session. Those that the engine drives are where
     * it found them; an embedded one is where its VMM left it, who brings it to RUNNING. Then resume
     * the vCPUs.
     */
    VFERRY_ENDING_RETURNED = 2,
    /**
     * Source: some device is not where the session found it, or nobody knows. The devices' reports
     * tell which (`home`). It may still come: VFERRY_EVENT_DEVICE_CAME_BACK. Bring it to RUNNING or
     * reset it before the vCPUs are resumed.
     */
    VFERRY_ENDING_NOT_RETURNED = 3,
    /**
     * Source: the target was told to run, and the source never heard whether it does. Nothing may run
     * here before it is certain that the target does not.
     */
    VFERRY_ENDING_UNCONFIRMED = 4,
    /**
     * Target: every device holds the whole state, and runs or, with VFERRY_EMBEDDED_STARTS_LATER, is
     * in STOP. Start the vCPUs.
     */
    VFERRY_ENDING_RUNNING = 5,
    /**
     * Target: no device holds any of the state: each was reset, or was not touched.
     */
    VFERRY_ENDING_BLANK = 6,
    /**
     * Target: some device may hold a part of the state. Reset it before it is used.
     */
    VFERRY_ENDING_NOT_BLANK = 7,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum vferry_ending vferry_ending;
#else
typedef uint32_t vferry_ending;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * How an epoch of a device ended. For what becomes of the VM see `vferry_ending`.
 */
enum vferry_epoch_ending
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * It has not ended.
     */
    VFERRY_EPOCH_NONE = 0,
    /**
     * The target's device holds the whole state, and the source has handed it over.
     */
    VFERRY_EPOCH_COMPLETE = 1,
    /**
     * The source has handed the device over, and never heard whether it runs at the target.
     */
    VFERRY_EPOCH_UNCONFIRMED = 2,
    /**
     * The epoch was discarded, and the device's saving was started again in the next one.
     */
    VFERRY_EPOCH_RESTARTED = 3,
    /**
     * The epoch ended without a handover, and no other follows.
     */
    VFERRY_EPOCH_ABORTED = 4,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum vferry_epoch_ending vferry_epoch_ending;
#else
typedef uint32_t vferry_epoch_ending;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What ended an epoch or a session.
 */
enum vferry_cause
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * Nothing: it was handed over.
     */
    VFERRY_CAUSE_NONE = 0,
    /**
     * The device was reset (guest FLR, hot reset, VFIO_DEVICE_RESET). It is in RUNNING again, and the
     * state saved or loaded so far is worthless.
     */
    VFERRY_CAUSE_DEVICE_RESET = 1,
    /**
     * The device or its firmware failed to save or load. Its migration state did not change.
     */
    VFERRY_CAUSE_DEVICE_FAILURE = 2,
    /**
     * The device is in ERROR and needs a reset.
     */
    VFERRY_CAUSE_DEVICE_ERROR = 3,
    /**
     * The peer aborted. The text has its reason.
     */
    VFERRY_CAUSE_PEER_ABORT = 4,
    /**
     * The peer broke the protocol.
     */
    VFERRY_CAUSE_PEER_MISBEHAVIOUR = 5,
    /**
     * A stream broke, ended early, or was silent for too long.
     */
    VFERRY_CAUSE_NETWORK = 6,
    /**
     * The embedder cancelled.
     */
    VFERRY_CAUSE_CANCELLED = 7,
    /**
     * This host failed: memory, threads, ring.
     */
    VFERRY_CAUSE_LOCAL = 8,
    /**
     * A limit of the session's options was over. The text names it, and who owed what.
     */
    VFERRY_CAUSE_TIME_LIMIT = 9,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum vferry_cause vferry_cause;
#else
typedef uint32_t vferry_cause;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * How the cause was found.
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
     * PRE_COPY to STOP_COPY gave a new data fd: the device had been reset in between.
     */
    VFERRY_OBSERVED_UNEXPECTED_FD = 4,
    /**
     * SET_STATE succeeded, but its data fd was dead at the first read.
     */
    VFERRY_OBSERVED_DEAD_ON_ARRIVAL = 5,
    /**
     * GET_STATE gave another state than the migration had set.
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
     * A stream of the session failed.
     */
    VFERRY_OBSERVED_STREAM = 10,
    /**
     * The embedder asked for it, or reported it.
     */
    VFERRY_OBSERVED_EMBEDDER = 11,
    /**
     * The engine itself reported it.
     */
    VFERRY_OBSERVED_ENGINE = 12,
    /**
     * The clock showed it.
     */
    VFERRY_OBSERVED_CLOCK = 13,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum vferry_observed vferry_observed;
#else
typedef uint32_t vferry_observed;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * The name of a `vferry_phase`. Static, never NULL.
 */
const char *vferry_phase_text(uint32_t phase);

/**
 * The name of a `vferry_ending`. Static, never NULL.
 */
const char *vferry_ending_text(uint32_t ending);

/**
 * The name of a `vferry_epoch_ending`. Static, never NULL.
 */
const char *vferry_epoch_ending_text(uint32_t ending);

/**
 * The name of a `vferry_cause`. Static, never NULL.
 */
const char *vferry_cause_text(uint32_t cause);

/**
 * The name of a `vferry_observed`. Static, never NULL.
 */
const char *vferry_observed_text(uint32_t observed);

/* --- Options ---------------------------------------------------------------------------------- */

/**
 * Whether to compress (source).
 */
enum vferry_policy
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * For each chunk what is faster at that moment. The default.
     */
    VFERRY_POLICY_ADAPTIVE = 0,
    /**
     * Never.
     */
    VFERRY_POLICY_RAW = 1,
    /**
     * Every chunk that shrinks, with zstd at a given level.
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
     * io_uring where the system allows it, plain system calls otherwise. The default.
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
 * The options of a session. Each host has its own; the hosts agree on what must be the same. Every
 * option has a default, and a session made with NULL for options has all defaults.
 *
 * Made by `vferry_options_new`, freed by `vferry_options_free`. A session copies its options: they
 * may be used for several sessions, changed and freed at any time.
 */
typedef struct vferry_options vferry_options;

/**
 * Makes options, all at their defaults.
 */
vferry_status vferry_options_new(vferry_options **options);

/**
 * Frees options and sets the variable to NULL. Does nothing where it, or `options`, is NULL.
 */
void vferry_options_free(vferry_options **options);

/**
 * Most bytes of state in one frame: 4096 to 4194304, by default 1048576. What is to be compressed is read in
 * 262144 bytes at most, or a quarter of this if that is more. The smaller of both hosts'
 * numbers is used. The range is checked when a session is made.
 */
vferry_status vferry_options_set_chunk_bytes(vferry_options *options,
                                             size_t bytes);

/**
 * Threads that compress (source) or decompress (target): 1 to 64, by default one for each core, but
 * no more than 8. The range is checked when a session is made.
 */
vferry_status vferry_options_set_workers(vferry_options *options, size_t workers);

/**
 * Whether to compress: a `vferry_policy`. `level` is zstd's, -7 to 19, and is used for
 * VFERRY_POLICY_ZSTD only.
 */
vferry_status vferry_options_set_policy(vferry_options *options,
                                        uint32_t policy,
                                        int32_t level);

/**
 * How the engine does its I/O: a `vferry_backend`.
 */
vferry_status vferry_options_set_backend(vferry_options *options, uint32_t backend);

/**
 * Whether the source may send with IORING_OP_SEND_ZC, on sockets where the kernel reports that it
 * did not copy. On by default.
 */
vferry_status vferry_options_set_zero_copy(vferry_options *options, bool zero_copy);

/**
 * Most memory for buffers, in bytes: up to 1 GiB, by default 32 MiB. A session allocates what it can
 * use of that at its start, and nothing later, whatever the state's size, the link or the peer.
 */
vferry_status vferry_options_set_memory_bytes(vferry_options *options,
                                              size_t bytes);

/**
 * Most bytes per second that all streams together send; 0, the default, for no limit. The kernel
 * enforces it (SO_MAX_PACING_RATE, an equal share for each stream), so the streams must be TCP:
 * otherwise `vferry_session_source` returns VFERRY_ERR_RATE_NEEDS_TCP. The limit of a
 * `vferry_channel` is how fast the VMM pulls.
 */
vferry_status vferry_options_set_rate(vferry_options *options, uint64_t bytes_per_s);

/**
 * What the streams take together, in bytes per second, where the VMM knows (source); 0, the default,
 * where it does not. What is to be compressed need not be found out then. Without it the engine
 * sends a megabyte of padding while there is nothing else to send, over TCP, and none through a
 * `vferry_channel`, of which it learns from the first megabytes of state. Since version 6.
 */
vferry_status vferry_options_set_path_rate(vferry_options *options,
                                           uint64_t bytes_per_s);

/**
 * Whether a stream that leaves this host may be in plaintext: for fds that the VMM connected itself, or
 * that it had from `vferry_listener_accept`, where the path is guarded otherwise. False by default: such
 * a stream is VFERRY_ERR_PLAINTEXT. Whoever is on an unguarded path can read and change the guest's
 * state. What is no IP, a `vferry_channel` among it, is the VMM's to guard. Since version 5.
 */
vferry_status vferry_options_set_plaintext(vferry_options *options,
                                           bool plaintext);

/**
 * The 16 bytes that name the session, which the target can be told to expect
 * (`vferry_door_set_session`); of the source. They are the caller's to make random and to keep secret.
 * NULL, the default: the library makes them. Since version 5.
 */
vferry_status vferry_options_set_session(vferry_options *options,
                                         const uint8_t *session);

/**
 * How long the peer may be silent before it counts as lost: 1 to 86400000 ms (a day), or
 * VFERRY_NO_LIMIT where something else watches the connection. By default 10000. An engine that has
 * nothing to send sends pings: what must go on is limited by the stall limit.
 */
vferry_status vferry_options_set_peer_silence_ms(vferry_options *options,
                                                 int64_t timeout_ms);

/**
 * How long the handshake may take, from the session's start until both hosts have agreed on every
 * stream: 1 to 86400000 ms (a day), or VFERRY_NO_LIMIT. By default 10000. After it, as after each of
 * the limits below, the session is given up with VFERRY_CAUSE_TIME_LIMIT, and the text says who owed
 * what.
 */
vferry_status vferry_options_set_handshake_limit_ms(vferry_options *options,
                                                    int64_t timeout_ms);

/**
 * How long what is owed may make no progress: a call or an operation that a driver holds, an answer
 * that the engine wants of an embedded device's VMM, frames that the peer does not take, state that
 * does not come once its device has stopped. 1 to 86400000 ms (a day), or VFERRY_NO_LIMIT. By default
 * 30000. Pings are no progress, nor are bytes that trickle.
 */
vferry_status vferry_options_set_stall_limit_ms(vferry_options *options,
                                                int64_t timeout_ms);

/**
 * How long a source may send none of the state before its switchover, when it owes none (target):
 * 1 to 86400000 ms (a day), or VFERRY_NO_LIMIT. By default 3600000, an hour.
 */
vferry_status vferry_options_set_idle_limit_ms(vferry_options *options, int64_t timeout_ms);

/**
 * How long the guest may stand still (source): from `vferry_session_switchover` until the state is
 * handed over, 1 to 86400000 ms (a day). After it the migration is given up, and the guest runs on
 * here. VFERRY_NO_LIMIT, the default: for as long as there is progress.
 */
vferry_status vferry_options_set_switchover_budget_ms(vferry_options *options,
                                                      int64_t timeout_ms);

/**
 * How long the source waits, after the handover, for the target's word that it runs: 1 to 86400000
 * ms (a day), or VFERRY_NO_LIMIT. By default 30000. After it the session ends as
 * VFERRY_ENDING_UNCONFIRMED.
 */
vferry_status vferry_options_set_confirm_limit_ms(vferry_options *options,
                                                  int64_t timeout_ms);

/**
 * How long a session that is cancelled, freed or given up may take to its end, in every stage of
 * either host: 1 to 86400000 ms (a day), by default 2000. Half of it is for operations that are
 * blocked in a driver, the rest for the devices' way back. What is still blocked then keeps a thread
 * of its own, and the reports say so (`stuck`, `home`).
 */
vferry_status vferry_options_set_cancel_bound_ms(vferry_options *options,
                                                 int64_t timeout_ms);

/**
 * How long the engine waits before it asks a device again that had no PRE_COPY data: 1 to 86400000
 * ms (a day), by default 20.
 */
vferry_status vferry_options_set_precopy_poll_ms(vferry_options *options,
                                                 int64_t interval_ms);

/* --- Threads ---------------------------------------------------------------------------------- */

/**
 * Room for a thread's name, the NUL included; as much as the kernel keeps.
 */
#define VFERRY_THREAD_NAME_BYTES 16

/**
 * What a thread does, and so which system calls it makes.
 */
enum vferry_thread_kind
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * Not one of the library's: the VMM's, which makes sessions and talks to them. The library's own
     * are such a thread until their hook is called.
     */
    VFERRY_THREAD_EMBEDDER = 0,
    /**
     * ferry-net: one a session, its streams and its decisions.
     */
    VFERRY_THREAD_NET = 1,
    /**
     * ferry-ctl-N: one a device, its ioctls.
     */
    VFERRY_THREAD_CONTROL = 2,
    /**
     * ferry-fd-N: one a device: reads and writes of data fds that have a poll, and of all with plain
     * system calls. For the others io_uring has workers in the kernel.
     */
    VFERRY_THREAD_DATA = 3,
    /**
     * ferry-zstd-N: compresses, decompresses, checks.
     */
    VFERRY_THREAD_WORKER = 4,
    /**
     * ferry-tls-N: carries a stream that is guarded by TLS. Since version 5.
     */
    VFERRY_THREAD_TLS = 5,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum vferry_thread_kind vferry_thread_kind;
#else
typedef uint32_t vferry_thread_kind;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * A thread of the library that is about to begin its work.
 */
typedef struct vferry_thread {
    /**
     * sizeof(vferry_thread) in the library that runs. A later one may be longer.
     */
    uint32_t size;
    /**
     * A `vferry_thread_kind`.
     */
    uint32_t kind;
    /**
     * Which of its kind: the device's number, the worker's, or the stream's; 0 for VFERRY_THREAD_NET.
     */
    uint32_t index;
    /**
     * How it does its I/O: VFERRY_BACKEND_IO_URING or VFERRY_BACKEND_SYSCALLS.
     */
    uint32_t backend;
    /**
     * Its name, as the system shows it.
     */
    char name[VFERRY_THREAD_NAME_BYTES];
} vferry_thread;

/**
 * What the VMM does on a thread before it works. `thread` lives for as long as the call. Returns 0,
 * or an errno: then the session is not made.
 */
typedef int (*vferry_thread_hook)(const vferry_thread *thread, void *opaque);

/**
 * What is done on each of a session's threads before it works: a seccomp filter, an affinity. NULL,
 * the default, for nothing. Since version 5.
 *
 * This is the only thing that the library ever calls. It is called once on each thread, on that
 * thread, while `vferry_session_source` or `vferry_session_target` waits for it, and must not call
 * the library with the session's handles. The thread has its ring and its fds by then, so a filter
 * that is set here need allow no more than what `vferry_system_calls` gives for `kind` and `backend`;
 * whatever the filter's action is, such a thread does not meet it. ferry-net comes last. The signals
 * that a thread brings upon itself are not blocked, SIGSYS among them: where a filter traps, the VMM's
 * handler runs.
 *
 * Where the hook returns an errno, `vferry_session_source` and `vferry_session_target` return
 * VFERRY_ERR_SYSTEM, and `vferry_last_error` names the thread. `opaque` is the VMM's own, must be good
 * for any thread, and for as long as these options may be used.
 */
vferry_status vferry_options_set_thread_start(vferry_options *options,
                                              vferry_thread_hook hook,
                                              void *opaque);

/**
 * Gives the system calls of threads of a kind (a `vferry_thread_kind`), as numbers of this
 * architecture, ascending. `backend` is VFERRY_BACKEND_IO_URING or VFERRY_BACKEND_SYSCALLS; with the
 * latter none of io_uring's is among them, and a session with that backend does not even look whether
 * there is one. Since version 5.
 *
 * For the library's own threads these are their calls from their hook until their end. For
 * VFERRY_THREAD_EMBEDDER those that make a session, talk to it and free it, all threads' included,
 * because a filter passes on to the threads that are started under it. What another allocator than
 * glibc's does is not in here. glibc's is why every thread may call openat: it reads a file, so a
 * filter may demand that the third argument is O_RDONLY | O_CLOEXEC on the library's own threads.
 *
 * `numbers` has room for `capacity` of them: VFERRY_ERR_BUFFER_TOO_SMALL if that is too little, 128 is
 * enough. `*count` is how many there are.
 */
vferry_status vferry_system_calls(uint32_t kind,
                                  uint32_t backend,
                                  int64_t *numbers,
                                  size_t capacity,
                                  size_t *count);

/* --- Engines ---------------------------------------------------------------------------------- */

/**
 * Workers and memory for buffers that several sessions share, as where a VMM has a session for each
 * device. Without one each session has its own. Any thread may use it. Since version 6.
 *
 * It also keeps for ten minutes what sources over TCP have found out about the paths to other hosts,
 * and about compression: the next source begins with that in place of a guess, and measures all the
 * same.
 *
 * Made by `vferry_engine_new`, freed by `vferry_engine_free`, at any time: sessions keep what they need
 * of it.
 */
typedef struct vferry_engine vferry_engine;

/**
 * Makes an engine, whose workers are started here. Their number is that of `options`
 * (`vferry_options_set_workers`), and what is done on each thread first
 * (`vferry_options_set_thread_start`); NULL for the defaults. `memory_bytes` is most memory for the
 * buffers of all sessions together, up to 16 GiB; 0 for the default, 128 MiB. Since version 6.
 */
vferry_status vferry_engine_new(vferry_engine **engine,
                                const vferry_options *options,
                                size_t memory_bytes);

/**
 * Frees an engine and sets the variable to NULL. Its threads end with the last session that has it.
 * Does nothing where it, or `engine`, is NULL. Since version 6.
 */
void vferry_engine_free(vferry_engine **engine);

/**
 * Bytes of an engine's memory that no session has; 0 for NULL. Since version 6.
 */
uint64_t vferry_engine_memory_left(const vferry_engine *engine);

/**
 * What a session shares with others of this process: the engine's workers, in place of its own, and the
 * engine's memory, of which it takes `vferry_options_set_memory_bytes` or what is left; too little is
 * VFERRY_ERR_MEMORY_LIMIT when the session is made. NULL for none. Since version 6.
 */
vferry_status vferry_options_set_engine(vferry_options *options,
                                        const vferry_engine *engine);

/* --- Devices ---------------------------------------------------------------------------------- */

/**
 * What the source does when a device is reset while its state is saved.
 */
enum vferry_on_reset
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * The whole migration is aborted: the devices return to RUNNING, and the target is told why. The
     * default.
     */
    VFERRY_ON_RESET_ABORT = 0,
    /**
     * Both hosts discard the device's epoch, and its saving starts again in PRE_COPY. Other devices
     * go on.
     */
    VFERRY_ON_RESET_RESTART = 1,
    /**
     * Both hosts discard the device's epoch, and its whole state is sent from STOP_COPY after the
     * switchover. Other devices go on.
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
 * A device to be migrated, under the name that both hosts give it.
 *
 * Made by `vferry_device_open`, `vferry_device_from_fd` or `vferry_device_embedded`, freed by
 * `vferry_device_free` at any time: a session keeps what it needs of its devices until it is
 * freed. A device belongs to one session at a time, an embedded device to one session for good.
 * Options are set before the session is made.
 */
typedef struct vferry_device vferry_device;

/**
 * Opens a VFIO device by its folder in sysfs (/sys/bus/pci/devices/ADDRESS,
 * /sys/bus/mdev/devices/UUID), or by its bare address or UUID, with a group and container of its
 * own. The engine drives its state machine. It maps no memory for DMA: a VMM that runs a guest on
 * the device opens it itself and uses `vferry_device_from_fd`.
 *
 * A library that was built without this answers VFERRY_ERR_NOT_BUILT_IN.
 *
 * `name` is 1 to 255 bytes of UTF-8 and the same on both hosts. On success `*device` is the
 * caller's, to be freed by `vferry_device_free`.
 */
vferry_status vferry_device_open(const char *name, const char *path, vferry_device **device);

/**
 * Takes a VFIO device that the VMM has opened (VFIO_GROUP_GET_DEVICE_FD, or a bound cdev). The
 * engine drives its state machine, so the VMM makes no migration ioctls meanwhile.
 *
 * `fd` is duplicated and stays the caller's. The duplicate is closed when the device was freed and
 * its session has ended. `name` is as in `vferry_device_open`.
 */
vferry_status vferry_device_from_fd(const char *name, int fd, vferry_device **device);

/**
 * Frees a device and sets the variable to NULL. Does nothing where it, or `device`, is NULL. A
 * session that has the device keeps what it needs.
 */
void vferry_device_free(vferry_device **device);

/**
 * Whether to save in PRE_COPY while the guest runs, where the device can (source). On by default.
 */
vferry_status vferry_device_set_precopy(vferry_device *device, bool precopy);

/**
 * What to do when the device is reset while its state is saved: a `vferry_on_reset` (source).
 *
 * `attempts` and `fallback` are used for VFERRY_ON_RESET_RESTART only: how often this device may be
 * restarted in one session, and what to do after that, VFERRY_ON_RESET_ABORT or
 * VFERRY_ON_RESET_STOP_COPY. More attempts than a target takes are refused when a session is made
 * (VFERRY_ERR_RANGE; the sentence has the number).
 */
vferry_status vferry_device_set_on_reset(vferry_device *device,
                                         uint32_t on_reset,
                                         uint32_t attempts,
                                         uint32_t fallback);

/**
 * Whether the device may be reset where SET_STATE does not bring it back to where it was found
 * (source). The guest then finds a reset device, and the device's report says so (`was_reset`). Off
 * by default: the session ends as VFERRY_ENDING_NOT_RETURNED. For a device that the engine drives.
 */
vferry_status vferry_device_set_reset_to_return(vferry_device *device, bool reset_to_return);

/**
 * What the device's transitions take, in nanoseconds, VFERRY_VALUE_UNKNOWN for what is not known, as
 * by default (source): what `vferry_device_report` had of the device's last migration, or of another
 * of its kind. The forecast of the downtime (VFERRY_EVENT_ESTIMATE) goes by it; nothing else does.
 * Since version 6.
 */
vferry_status vferry_device_set_latencies(vferry_device *device,
                                          uint64_t stop_ns,
                                          uint64_t load_ns,
                                          uint64_t run_ns);

/**
 * The device's weight when the devices of its session share the link, 1 or more (source). By default
 * 1.
 */
vferry_status vferry_device_set_weight(vferry_device *device,
                                       uint32_t weight);

/**
 * Bytes that the target's embedder gets as the payload of the device's VFERRY_EVENT_BEGIN, at most
 * VFERRY_MESSAGE_BYTES_MAX (source). The engine does not look at them. They are copied; `bytes` may
 * be NULL if `count` is 0.
 */
vferry_status vferry_device_set_opaque(vferry_device *device,
                                       const uint8_t *bytes,
                                       size_t count);

/* --- Embedded devices: the VMM makes the ioctls ----------------------------------------------- */

/**
 * For `vferry_device_embedded`: the device can save in PRE_COPY. Not for the device of a paused VM,
 * which must not run.
 */
#define VFERRY_EMBEDDED_PRECOPY 1

/**
 * For `vferry_device_embedded`: the VMM makes VFIO_MIG_GET_PRECOPY_INFO itself, when the engine
 * wants it.
 */
#define VFERRY_EMBEDDED_PRECOPY_INFO 2

/**
 * For `vferry_device_embedded`: the VMM starts the device together with its VM, after the session
 * (target). The engine then never wants VFERRY_WANT_RUNNING: the handover leaves the device in STOP,
 * and both hosts' sessions end as if it ran.
 */
#define VFERRY_EMBEDDED_STARTS_LATER 4

/**
 * For `vferry_device_embedded`: the kernel has accepted VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2 for
 * this device. Where the engine makes VFIO_MIG_GET_PRECOPY_INFO it then heeds REINIT. Since version
 * 4.
 */
#define VFERRY_EMBEDDED_PRECOPY_INFO_V2 8

/**
 * For `vferry_device_precopy_info_done`: VFIO_PRECOPY_INFO_REINIT, there is new initial data.
 */
#define VFERRY_PRECOPY_INFO_REINIT 1

/**
 * An ioctl that the engine wants the VMM to make for an embedded device. The states have the
 * kernel's numbers, so that VFERRY_WANT_STOP_COPY is also the state that SET_STATE takes.
 */
enum vferry_want
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * None.
     */
    VFERRY_WANT_NOTHING = 0,
    /**
     * SET_STATE(STOP), on the target: the driver loads the state. It gives no fd. Answer with
     * `vferry_device_state_done`.
     */
    VFERRY_WANT_STOP = 1,
    /**
     * SET_STATE(RUNNING), on the target: the device is handed over. It gives no fd. Answer with
     * `vferry_device_state_done`.
     */
    VFERRY_WANT_RUNNING = 2,
    /**
     * SET_STATE(STOP_COPY), on the source, after the switchover. Answer with
     * `vferry_device_state_done` and the fd if the kernel gave one. Out of PRE_COPY it gives none; if
     * it does, the engine knows that the device had been reset.
     */
    VFERRY_WANT_STOP_COPY = 3,
    /**
     * SET_STATE(RESUMING), on the target. Answer with `vferry_device_state_done` and the fd.
     */
    VFERRY_WANT_RESUMING = 4,
    /**
     * SET_STATE(PRE_COPY), on the source. Answer with `vferry_device_state_done` and the fd.
     * Never wanted of a device that stands in STOP_COPY, as far as the VMM or the kernel has said.
     */
    VFERRY_WANT_PRE_COPY = 6,
    /**
     * VFIO_MIG_GET_PRECOPY_INFO on the data fd, where the VMM makes that call. Make it now and not
     * earlier: some drivers start the next save in it. Answer with
     * `vferry_device_precopy_info_done`.
     */
    VFERRY_WANT_PRECOPY_INFO = 100,
    /**
     * VFIO_DEVICE_RESET, on the target, where the engine has no device fd: the state loaded so far is
     * worthless. Answer with `vferry_device_reset_done`.
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
 * Makes an embedded device: the VMM makes its ioctls, when the engine wants them
 * (`vferry_device_wanted`), and hands the data fds in. There are no callbacks.
 *
 * `host` is a `vferry_host`, `flags` are VFERRY_EMBEDDED_ bits, `name` is as in
 * `vferry_device_open`. `device_fd` is the VFIO device fd, or -1; it is duplicated and stays the
 * caller's. The engine uses it for GET_STATE, which tells a reset from a failure; for MIG_DATA_SIZE;
 * and to reset a target device whose epoch was discarded or whose session was given up. Without it
 * the device's state is what the VMM said last, and unknown before; and a call that fails as it does
 * for a device that was reset (EINVAL from VFIO_MIG_GET_PRECOPY_INFO, ENODEV, a hang-up of the data
 * fd) counts as one.
 *
 * A VMM that finds its device reset calls `vferry_device_state_done` with VFERRY_STATE_RUNNING: the
 * session acts on that at once, also while it wants nothing. What the engine wanted of the device as
 * it was is withdrawn, and wanted again when the saving begins anew.
 *
 * When its session has ended the device is the VMM's again, in the state that it was left in: the
 * table at the top of this header says what the VMM does then. Its answers are still taken, and their
 * fds closed.
 */
vferry_status vferry_device_embedded(const char *name,
                                     uint32_t host,
                                     uint32_t flags,
                                     int device_fd,
                                     vferry_device **device);

/**
 * Tells which ioctl the engine waits for: a `vferry_want`. Never blocks. It stays until it is
 * answered or the session ends; answering clears it at once, so that polling again cannot repeat
 * the ioctl.
 */
vferry_status vferry_device_wanted(vferry_device *device, uint32_t *want);

/**
 * Gives an eventfd that is readable while the engine wants something; for poll, epoll or an event
 * loop. It belongs to the device and lives as long as it does: do not read, write or close it.
 */
vferry_status vferry_device_event_fd(vferry_device *device, int *fd);

/**
 * Answers with the result of SET_STATE(`state`): `os_error` is 0, or the positive errno that it
 * failed with. `data_fd` is the fd that the kernel gave, or -1; it is -1 where SET_STATE failed.
 * Never blocks.
 *
 * An answer may come before the engine wants it, and is kept until then. Answers may come in any
 * order and from any thread: what the engine wanted, and a state that it will still want, is not lost
 * to a later answer. Where the VM stops before the engine has asked for PRE_COPY, STOP_COPY answers
 * that as well, and the engine reads its fd: it never wants PRE_COPY of a device in STOP_COPY.
 *
 * VFERRY_STATE_RUNNING, and VFERRY_STATE_ERROR, about a device that saves or loads say that it was
 * reset, or has failed: see `vferry_device_embedded`.
 *
 * On success `data_fd` is the engine's, which closes it when the epoch or the session ends; the
 * caller does not use the number again. On failure it is still the caller's.
 */
vferry_status vferry_device_state_done(vferry_device *device,
                                       int32_t state,
                                       int data_fd,
                                       int32_t os_error);

/**
 * Answers with the result of VFIO_MIG_GET_PRECOPY_INFO: `os_error` is 0, or the positive errno that
 * it failed with, and then the sizes do not matter. Sizes are in bytes; `flags` is 0 or
 * VFERRY_PRECOPY_INFO_REINIT. Never blocks.
 *
 * Pass REINIT only if the kernel accepted VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2: without it the
 * kernel returns in `flags` what the caller put there. Pass EINVAL on as any other errno: a device
 * that was reset answers so, and the engine finds out. So does one that the VMM has stopped
 * meanwhile; that is no failure.
 */
vferry_status vferry_device_precopy_info_done(vferry_device *device,
                                              uint64_t initial_bytes,
                                              uint64_t dirty_bytes,
                                              uint32_t flags,
                                              int32_t os_error);

/**
 * Answers with the result of VFIO_DEVICE_RESET: `os_error` is 0, or the positive errno that it
 * failed with. Where it was not wanted it tells of a reset, too. Never blocks.
 */
vferry_status vferry_device_reset_done(vferry_device *device, int32_t os_error);

/**
 * Hands in the result of VFIO_DEVICE_FEATURE_MIG_DATA_SIZE, in bytes, where the engine has no device
 * fd to ask with. May be called again when it has changed.
 */
vferry_status vferry_device_set_stop_copy_length(vferry_device *device,
                                                 uint64_t bytes);

/* --- Streams and channels --------------------------------------------------------------------- */

/**
 * Why a connection did not become a stream. Since version 5.
 */
enum vferry_reason
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * In place of a reason: all of them.
     */
    VFERRY_REASON_ANY = 0,
    /**
     * It did not say a source's first words in time.
     */
    VFERRY_REASON_SILENT = 1,
    /**
     * It was closed before its session was complete, or while that waited to be taken.
     */
    VFERRY_REASON_CLOSED = 2,
    /**
     * It spoke something else.
     */
    VFERRY_REASON_NOT_A_HELLO = 3,
    /**
     * It asked for what no session can have.
     */
    VFERRY_REASON_BAD_HELLO = 4,
    /**
     * It did not fit the other streams of the session that it named.
     */
    VFERRY_REASON_MISFIT = 5,
    /**
     * The other streams of its session did not come in time.
     */
    VFERRY_REASON_INCOMPLETE = 6,
    /**
     * It had to make room for another one.
     */
    VFERRY_REASON_CROWDED = 7,
    /**
     * Its session is not the one that was expected.
     */
    VFERRY_REASON_UNEXPECTED = 8,
    /**
     * It was in plaintext and came from another host.
     */
    VFERRY_REASON_UNPROTECTED = 9,
    /**
     * As many sessions as may wait did, or the listener was freed.
     */
    VFERRY_REASON_BUSY = 10,
    /**
     * It is not who it has to be, or its certificate is not valid today (TLS).
     */
    VFERRY_REASON_UNTRUSTED = 11,
    /**
     * Its handshake failed, or it spoke something else (TLS).
     */
    VFERRY_REASON_NO_HANDSHAKE = 12,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum vferry_reason vferry_reason;
#else
typedef uint32_t vferry_reason;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * Ends waits from another thread. Since version 5.
 *
 * Made by `vferry_canceller_new`, freed by `vferry_canceller_free` when no call has it any more.
 */
typedef struct vferry_canceller vferry_canceller;

/**
 * How a session's streams are guarded on their way, and what a listener lets in. NULL in its place
 * has all defaults: streams stay on this host. Since version 5.
 *
 * Made by `vferry_door_new`, freed by `vferry_door_free`. What it is given to copies it: it may be used
 * several times, changed and freed at any time.
 */
typedef struct vferry_door vferry_door;

/**
 * Makes a door with all defaults. On success `*door` is the caller's, to be freed by
 * `vferry_door_free`. Since version 5.
 */
vferry_status vferry_door_new(vferry_door **door);

/**
 * Frees a door and sets the variable to NULL. Does nothing where it, or `door`, is NULL. Since
 * version 5.
 */
void vferry_door_free(vferry_door **door);

/**
 * Whether streams may leave this host in plaintext. False by default: an address that is not of this
 * host is VFERRY_ERR_PLAINTEXT. True says that the path is guarded otherwise, by a tunnel or a network
 * of its own: whoever is on it can read the guest's state, change it, or leave two hosts with the same
 * device running. Since version 5.
 */
vferry_status vferry_door_set_plaintext(vferry_door *door,
                                        bool plaintext);

/**
 * Guards streams by TLS 1.3 with certificates on both sides, from a folder as QEMU's `tls-creds-x509`
 * has it: `ca-cert.pem`, and `client-cert.pem` with `client-key.pem` for a source (VFERRY_HOST_SOURCE),
 * `server-cert.pem` with `server-key.pem` for a target. The peer is whoever has a certificate of that
 * authority with `name` in it: a DNS name or an IP address. A target may give NULL: any name; a source
 * may not. VFERRY_ERR_CREDENTIALS where anything of that cannot be used. Since version 5.
 */
vferry_status vferry_door_set_tls_folder(vferry_door *door,
                                         uint32_t host,
                                         const char *folder,
                                         const char *name);

/**
 * Guards streams by TLS 1.3, as `vferry_door_set_tls_folder`, with a certificate and its key in PEM.
 * The peer is whoever has one of `count` keys: each is SHA-256 of a certificate's SubjectPublicKeyInfo,
 * 32 bytes, one after another at `keys`, which whoever starts both hosts carries from one to the other.
 * Names and dates then mean nothing. Since version 5.
 */
vferry_status vferry_door_set_tls_keys(vferry_door *door,
                                       uint32_t host,
                                       const char *certificate,
                                       const char *key,
                                       const uint8_t *keys,
                                       size_t count);

/**
 * Whether the kernel may seal and open the records of streams that TLS guards, where it can (a module
 * called `tls`): that spares a thread, two copies and 264 KiB a stream. True by default; where the kernel
 * cannot, or not this cipher, the library does it: `vferry_session_tls_in_kernel` says who did. The
 * kernel keeps a stream's first keys, which are good for 362 GiB in each direction (256 GiB from a peer
 * that does it by itself), and a stream that gets there breaks: false is for whoever moves that much over
 * one stream. VFERRY_ERR_EMPTY where the door has no TLS yet. Since version 6.
 */
vferry_status vferry_door_set_tls_kernel(vferry_door *door,
                                         bool kernel);

/**
 * Most connections that a listener holds at once while their sessions are not complete, and most of
 * one address (of IPv6: of one /64): as many fds. When one more comes, the one that has been silent
 * for longest goes, of the address that has the most. 1 to 4096; by default 256 and 128. A session
 * with more streams than one address may have is kept out. Since version 5.
 */
vferry_status vferry_door_set_connections(vferry_door *door,
                                          size_t in_all_max,
                                          size_t per_address_max);

/**
 * Most complete sessions that wait at a listener to be taken: 1 to 1024, by default 16. The source of
 * another one is told that there is no room. Since version 5.
 */
vferry_status vferry_door_set_sessions_max(vferry_door *door,
                                           size_t sessions_max);

/**
 * How long a connection may take for the first words of a source: 1 to 86400000 ms (a day), by
 * default 5000. Since version 5.
 */
vferry_status vferry_door_set_greeting_limit_ms(vferry_door *door, int64_t limit_ms);

/**
 * How long the streams of one session may take, from the first one's words to the last one's: 1 to
 * 86400000 ms, by default 10000. Since version 5.
 */
vferry_status vferry_door_set_gathering_limit_ms(vferry_door *door, int64_t limit_ms);

/**
 * The one session that a listener lets in: the 16 bytes that its source has given to
 * `vferry_options_set_session`. NULL, the default: any. Since version 5.
 */
vferry_status vferry_door_set_session(vferry_door *door, const uint8_t *session);

/**
 * A reason's name, as it is in logs. Static, never NULL; for numbers of later versions too. Since
 * version 5.
 */
const char *vferry_reason_text(uint32_t reason);

/**
 * Makes a canceller. On success `*canceller` is the caller's, to be freed by `vferry_canceller_free`.
 * Since version 5.
 */
vferry_status vferry_canceller_new(vferry_canceller **canceller);

/**
 * Ends the waits that the canceller was given to, and those that it will be given to: they return
 * VFERRY_ERR_CANCELLED. Returns at once; from any thread. Since version 5.
 */
vferry_status vferry_canceller_cancel(const vferry_canceller *canceller);

/**
 * Frees a canceller and sets the variable to NULL. Does nothing where it, or `canceller`, is NULL.
 * Since version 5.
 */
void vferry_canceller_free(vferry_canceller **canceller);

/**
 * A TCP socket that lets sources in: one session after another, or several at once, whoever else
 * connects. Each connection has a short time to say what session it belongs to; what does not become a
 * session is dropped and counted (`vferry_listener_turned_away`). A source whose session is not taken is
 * told so, and its session ends with VFERRY_CAUSE_PEER_ABORT.
 *
 * It has no thread: it works while somebody calls. All calls may be made from any thread. Made by
 * `vferry_listener_new` or `vferry_listener_new_with`, freed by `vferry_listener_free` when no call has
 * it any more: the sessions whose streams it accepted do not use it.
 */
typedef struct vferry_listener vferry_listener;

/**
 * The connected streams of one session. Since version 5.
 *
 * Made by `vferry_listener_take` or `vferry_connect_with`; freed by `vferry_streams_free`, or given to
 * `vferry_session_source_over` or `vferry_session_target_over`.
 */
typedef struct vferry_streams vferry_streams;

/**
 * How many streams there are: 1 to VFERRY_STREAMS_MAX; 0 for NULL. Since version 5.
 */
size_t vferry_streams_count(const vferry_streams *streams);

/**
 * Copies where a stream leads to, IP:PORT, to `buffer`, which has room for `capacity` bytes; 64 are
 * always enough. Since version 5.
 */
vferry_status vferry_streams_peer(const vferry_streams *streams,
                                  size_t stream,
                                  char *buffer,
                                  size_t capacity);

/**
 * Copies SHA-256 of the SubjectPublicKeyInfo that the peer has shown on every stream, 32 bytes, to
 * `key`. VFERRY_ERR_EMPTY where the streams are not guarded by TLS. Since version 5.
 */
vferry_status vferry_streams_peer_key(const vferry_streams *streams, uint8_t *key);

/**
 * Copies the 16 bytes that name the session, which its source has said, to `session`: of streams that a
 * listener gave. VFERRY_ERR_EMPTY of others. Since version 5.
 */
vferry_status vferry_streams_session(const vferry_streams *streams,
                                     uint8_t *session);

/**
 * Closes the streams and sets the variable to NULL. Does nothing where it, or `streams`, is NULL. Since
 * version 5.
 */
void vferry_streams_free(vferry_streams **streams);

/**
 * Connects `count` streams to a target on this host that uses `vferry_listener_accept`. Blocks,
 * `timeout_ms` at most after the host's name was resolved; VFERRY_ERR_TIMEOUT then. VFERRY_NO_LIMIT: for
 * as long as the kernel tries. To another host: `vferry_connect_with`; VFERRY_ERR_PLAINTEXT here, since
 * version 5.
 *
 * `address` is HOST:PORT, an IPv6 address in brackets. On success `fds` has `count` connected
 * sockets, which are the caller's, to be given to `vferry_session_source` or closed.
 */
vferry_status vferry_connect(const char *address,
                             int64_t timeout_ms,
                             int *fds,
                             size_t count);

/**
 * Connects `count` streams to a target's listener, guarded as `door` says; NULL: on this host only.
 * `timeout_ms` is as in `vferry_connect`. `cancel` may be NULL; once it is cancelled this returns
 * VFERRY_ERR_CANCELLED, at once unless the host's name is being resolved. On success `*streams` is the
 * caller's. Since version 5.
 */
vferry_status vferry_connect_with(const char *address,
                                  const vferry_door *door,
                                  int64_t timeout_ms,
                                  const vferry_canceller *cancel,
                                  size_t count,
                                  vferry_streams **streams);

/**
 * Listens on `address`, which is IP:PORT, with port 0 for any that is free. It is one of this host's:
 * 127.0.0.1 or `[::1]`; VFERRY_ERR_PLAINTEXT otherwise, since version 5. To be reached from others:
 * `vferry_listener_new_with`. On success `*listener` is the caller's, to be freed by
 * `vferry_listener_free`.
 */
vferry_status vferry_listener_new(const char *address,
                                  vferry_listener **listener);

/**
 * As `vferry_listener_new`, guarded and bounded as `door` says; NULL: by the defaults. Since version 5.
 */
vferry_status vferry_listener_new_with(const char *address,
                                       const vferry_door *door,
                                       vferry_listener **listener);

/**
 * Frees a listener and sets the variable to NULL. Does nothing where it, or `listener`, is NULL.
 */
void vferry_listener_free(vferry_listener **listener);

/**
 * Tells the port of the listening socket.
 */
vferry_status vferry_listener_port(const vferry_listener *listener, uint16_t *port);

/**
 * Gives an fd that is readable when there is something to do: then `vferry_listener_take` or
 * `vferry_listener_accept`, with a timeout of 0, does it, and gives a session once one is complete. For
 * poll, epoll or an event loop. It belongs to the listener: do not read, write or close it.
 */
vferry_status vferry_listener_fd(const vferry_listener *listener,
                                 int *fd);

/**
 * Accepts all streams of one session, as many as its source announces. Blocks until they have
 * connected, `timeout_ms` at most; VFERRY_ERR_TIMEOUT then. Whatever else connects meanwhile is turned
 * away, and does not end this.
 *
 * `fds` has room for `capacity` fds; VFERRY_STREAMS_MAX is always enough. Where it is too small the
 * session stays, and the next call gives it. On success the first `*count` are connected sockets, which
 * are the caller's, to be given to `vferry_session_target` or closed. What the session's door said is
 * not known of them: where that was plaintext, `vferry_options_set_plaintext` says it again.
 */
vferry_status vferry_listener_accept(vferry_listener *listener,
                                     int64_t timeout_ms,
                                     int *fds,
                                     size_t capacity,
                                     size_t *count);

/**
 * Gives the next session that is complete, and waits for it, `timeout_ms` at most; VFERRY_ERR_TIMEOUT
 * then. `cancel` may be NULL; once it is cancelled this returns VFERRY_ERR_CANCELLED. On success
 * `*streams` is the caller's. Since version 5.
 */
vferry_status vferry_listener_take(const vferry_listener *listener,
                                   int64_t timeout_ms,
                                   const vferry_canceller *cancel,
                                   vferry_streams **streams);

/**
 * Tells how many connections were turned away so far for a reason (`enum vferry_reason`);
 * VFERRY_REASON_ANY: in all. The log has them by name. Since version 5.
 */
vferry_status vferry_listener_turned_away(const vferry_listener *listener,
                                          uint32_t reason,
                                          uint64_t *count);

/**
 * Bytes of the longest frame. A buffer of so many takes any frame. Since version 7.
 */
#define VFERRY_FRAME_BYTES_MAX 4194368

/**
 * A stream whose bytes the VMM carries itself: it pulls what the session sends, and pushes what came
 * from the peer's VMM.
 *
 * The bytes may be cut anywhere, and must reach the peer whole and in order. No call blocks. A socket
 * buffer in each direction holds what was not pulled or not received yet: a VMM that does not pull
 * slows the engine down.
 *
 * A VMM whose own channel has several lanes carries whole frames instead, which may overtake each
 * other: `vferry_channel_pull_frame` at one host, `vferry_channel_push_frame` at the other. Each
 * direction is the VMM's choice, the same at both hosts.
 *
 * Made by `vferry_channel_new`, freed by `vferry_channel_free` at any time. All calls may be made
 * from any thread.
 */
typedef struct vferry_channel vferry_channel;

/**
 * Makes a channel. On success `*channel` is the caller's, to be freed by `vferry_channel_free`, and
 * `*stream_fd` is the session's end of it, to be given to `vferry_session_source` or
 * `vferry_session_target` as one of its streams, or closed.
 */
vferry_status vferry_channel_new(vferry_channel **channel, int *stream_fd);

/**
 * Frees a channel and sets the variable to NULL. Does nothing where it, or `channel`, is NULL. A
 * session that still runs takes it for a broken stream.
 */
void vferry_channel_free(vferry_channel **channel);

/**
 * Takes up to `capacity` bytes for the peer. On success `*pulled` of them are in `buffer`, at least
 * one.
 *
 * VFERRY_ERR_EMPTY when there are none at this moment; VFERRY_ERR_ENDED when the session has closed
 * the stream and everything was pulled: then the peer's VMM has to call `vferry_channel_close`.
 */
vferry_status vferry_channel_pull(vferry_channel *channel,
                                  uint8_t *buffer,
                                  size_t capacity,
                                  size_t *pulled);

/**
 * Gives up to `count` bytes from the peer to the session. On success `*pushed` of them were taken, at
 * least one unless `count` is 0; push the rest again.
 *
 * VFERRY_ERR_FULL when there is no room at this moment; VFERRY_ERR_ENDED when the session has closed
 * the stream; VFERRY_ERR_MIXED where whole frames were pushed before.
 */
vferry_status vferry_channel_push(vferry_channel *channel,
                                  const uint8_t *bytes,
                                  size_t count,
                                  size_t *pushed);

/**
 * Takes one whole frame for the peer, to be given to its `vferry_channel_push_frame` by whatever way:
 * frames may overtake each other.
 *
 * `*have` says how many of its bytes are in `buffer` already: 0 of a new frame. On success it is the
 * frame's length, and the whole frame is in `buffer`. VFERRY_ERR_EMPTY when it is not whole at this
 * moment: call again with the same `buffer` and `*have`, which may have grown, and which is written
 * in any case. VFERRY_ERR_ENDED when the session has closed the stream and everything was pulled.
 * VFERRY_ERR_BUFFER_TOO_SMALL when the frame is longer than `capacity`: call again with a longer
 * buffer that begins with the same bytes; VFERRY_FRAME_BYTES_MAX is always enough.
 * VFERRY_ERR_PEER_PROTOCOL when the bytes in `buffer` do not begin a frame, as after a
 * `vferry_channel_pull` that ended inside of one. One thread at a time pulls. Since version 7.
 */
vferry_status vferry_channel_pull_frame(vferry_channel *channel,
                                        uint8_t *buffer,
                                        size_t capacity,
                                        size_t *have);

/**
 * Gives the session one whole frame that was pulled at the peer by `vferry_channel_pull_frame`. The
 * frames of a channel may come in any order and from any thread: one that comes before its turn is
 * copied, and waits in memory for those before it. They have a bound, which an honest peer cannot
 * exceed (`vferry_channel_hold_at_most`).
 *
 * On success the frame was taken; call `vferry_channel_flush` then. VFERRY_ERR_ENDED when the session
 * has closed the stream. VFERRY_ERR_PEER_PROTOCOL for what is no frame, comes twice, is too far ahead,
 * or is more than the bound: the session sees a broken stream, and nothing more is taken.
 * VFERRY_ERR_MIXED where bytes were pushed before. A frame that never comes is noticed by the session,
 * as a silent peer (`vferry_options_set_peer_silence_ms`). Since version 7.
 */
vferry_status vferry_channel_push_frame(const vferry_channel *channel,
                                        const uint8_t *bytes,
                                        size_t count);

/**
 * Passes frames on to the session that were pushed and are in order. VFERRY_ERR_FULL when some wait
 * for room: call again when the channel's fd is writable. A session makes room as long as its peer
 * keeps to its credit, however slow the device is. VFERRY_ERR_ENDED when the session has closed the
 * stream. Since version 7.
 */
vferry_status vferry_channel_flush(const vferry_channel *channel);

/**
 * Sets how many bytes of frames may wait in memory for an earlier one: 8388736 to 1077936128, by
 * default 37748736, which suits sessions with the default memory
 * (`vferry_options_set_memory_bytes`); otherwise the session's memory and 4 MiB. Since version 7.
 */
vferry_status vferry_channel_hold_at_most(const vferry_channel *channel, size_t bytes);

/**
 * How many bytes of frames were pushed and are not with the session yet. 0 for NULL. Since version 7.
 */
size_t vferry_channel_held_bytes(const vferry_channel *channel);

/**
 * Says that nothing more will be pushed: the peer has closed its stream, or the VMM's own channel
 * broke. What was not pulled yet still can be. A session that still runs takes it for a broken
 * stream.
 */
vferry_status vferry_channel_close(vferry_channel *channel);

/**
 * Gives an fd that is readable while a pull would not return VFERRY_ERR_EMPTY, and writable while a
 * push would not return VFERRY_ERR_FULL. For poll, epoll or an event loop. It belongs to the
 * channel: do not read, write or close it.
 */
vferry_status vferry_channel_fd(const vferry_channel *channel, int *fd);

/* --- Sessions --------------------------------------------------------------------------------- */

/**
 * One migration on this host: one or more devices over one or more streams.
 *
 * It runs on threads of its own and never calls back. The caller fetches events
 * (`vferry_session_poll`, `vferry_session_wait`) until VFERRY_EVENT_FINISHED, and tells a source when
 * its vCPUs have stopped (`vferry_session_switchover`).
 *
 * Made by `vferry_session_source` or `vferry_session_target`, freed by `vferry_session_free`. All
 * calls may be made from any thread, but one thread should fetch the events.
 */
typedef struct vferry_session vferry_session;

/**
 * Starts to migrate devices to the target at the other end of the streams.
 *
 * `options` may be NULL for all defaults. `devices` are `device_count` devices (1 to
 * VFERRY_DEVICES_MAX), numbered in their order; the target has the same names in the same order.
 * `fds` are `stream_count` connected stream sockets (1 to VFERRY_STREAMS_MAX), all to one target. What
 * is something else, or given twice, is VFERRY_ERR_BAD_FD; a device that is given twice is
 * VFERRY_ERR_DEVICE_IN_USE, whatever its names. A device that the engine drives is in RUNNING, or in
 * STOP where the VM is paused: it then stays there until the switchover, and comes back to STOP.
 * VFERRY_ERR_DEVICE_STATE otherwise. Each is asked for that here, on the caller's thread, which takes
 * as long as its driver does.
 *
 * On success `*session` is the caller's, to be freed by `vferry_session_free`, and the fds are the
 * session's, which closes them at its end; the caller does not use the numbers again. On failure
 * the fds are still the caller's, and the devices are unchanged.
 */
vferry_status vferry_session_source(const vferry_options *options,
                                    vferry_device *const *devices,
                                    size_t device_count,
                                    const int *fds,
                                    size_t stream_count,
                                    vferry_session **session);

/**
 * Starts to load devices from the source at the other end of the streams. As
 * `vferry_session_source` otherwise. The vCPUs must be stopped.
 */
vferry_status vferry_session_target(const vferry_options *options,
                                    vferry_device *const *devices,
                                    size_t device_count,
                                    const int *fds,
                                    size_t stream_count,
                                    vferry_session **session);

/**
 * As `vferry_session_source`, over streams that `vferry_connect_with` gave. On success `*streams`
 * is the session's, and is NULL afterwards; on failure too, and they are closed. Since version 5.
 */
vferry_status vferry_session_source_over(const vferry_options *options,
                                         vferry_device *const *devices,
                                         size_t device_count,
                                         vferry_streams **streams,
                                         vferry_session **session);

/**
 * As `vferry_session_target`, over streams that `vferry_listener_take` gave. On success `*streams`
 * is the session's, and is NULL afterwards; on failure too, and they are closed. Since version 5.
 */
vferry_status vferry_session_target_over(const vferry_options *options,
                                         vferry_device *const *devices,
                                         size_t device_count,
                                         vferry_streams **streams,
                                         vferry_session **session);

/**
 * Frees a session and sets the variable to NULL. Does nothing where it, or `session`, is NULL. No
 * other thread may be in a call with this session.
 *
 * A session that has not ended is cancelled first, and its end is waited for: the cancel bound at
 * most, in every stage of either host, whatever a driver or the peer does. How it ended nobody can
 * ask any more, so a VMM that must know fetches VFERRY_EVENT_FINISHED before. One that has ended is
 * freed at once. A thread of the library's stays with the streams until the peer has closed them,
 * for half a second at most (`vferry_session_wait_closed` waits for it), and one with each operation
 * that is still blocked in a driver.
 */
void vferry_session_free(vferry_session **session);

/**
 * Says that the vCPUs are stopped (source): the session stops the devices, sends the rest of their
 * state, and hands over. Returns at once. VFERRY_ERR_WRONG_HOST on a target, VFERRY_ERR_ENDED once
 * the session has ended.
 */
vferry_status vferry_session_switchover(vferry_session *session);

/**
 * Cancels the migration. Returns at once, and may be called at any time. VFERRY_EVENT_FINISHED
 * follows within the cancel bound, even while an operation is blocked in a driver. After the handover
 * it undoes nothing: a source that has not heard by then that the target runs ends as
 * VFERRY_ENDING_UNCONFIRMED, a target whose devices do not run by then as VFERRY_ENDING_NOT_BLANK.
 * After the end it changes nothing.
 */
vferry_status vferry_session_cancel(vferry_session *session);

/**
 * Says that a device was reset, for example by the VMM itself for the guest's FLR (source). The
 * session then acts as if it had found the reset: see `vferry_device_set_on_reset`. Of an embedded
 * device `vferry_device_state_done` with VFERRY_STATE_RUNNING says the same: a reset that was told
 * in both ways, or found by the engine as well, counts once. Returns at once.
 * VFERRY_ERR_WRONG_HOST on a target, VFERRY_ERR_ENDED once the session has ended.
 */
vferry_status vferry_session_device_was_reset(vferry_session *session, uint32_t device);

/**
 * Sends up to VFERRY_MESSAGE_BYTES_MAX bytes to the peer's embedder, who gets them as
 * VFERRY_EVENT_MESSAGE. With one stream, messages arrive in their order. The bytes are copied. Returns
 * at once. VFERRY_ERR_ENDED once the session has ended.
 *
 * VFERRY_ERR_FULL while VFERRY_MESSAGES_WAITING_MAX messages wait for the peer's engine to read them:
 * the message was not taken; send it again later. No event tells when there is room. A peer's
 * embedder that leaves more than VFERRY_MESSAGES_WAITING_MAX messages unfetched ends its session.
 */
vferry_status vferry_session_send(vferry_session *session,
                                  const uint8_t *bytes,
                                  size_t count);

/**
 * Whether a stream of a session, counted from 0, is guarded by TLS; and, of one that is, how it broke,
 * where the session only knows that it did: to `fault`, which has room for `capacity` bytes, with a NUL
 * after it; an empty text if it did not. VFERRY_TEXT_BYTES are enough. Since version 5.
 */
vferry_status vferry_session_protection(const vferry_session *session,
                                        size_t stream,
                                        bool *tls,
                                        char *fault,
                                        size_t capacity);

/**
 * Whether the kernel seals and opens the records of a session's stream, counted from 0; else the library
 * does, on a thread of the stream's own. VFERRY_ERR_EMPTY where TLS does not guard it. Since version 6.
 */
vferry_status vferry_session_tls_in_kernel(const vferry_session *session,
                                           size_t stream,
                                           bool *in_kernel);

/**
 * Gives an eventfd that is readable while an event waits; for poll, epoll or an event loop. It
 * belongs to the session: do not read, write or close it.
 */
vferry_status vferry_session_event_fd(const vferry_session *session, int *fd);

/**
 * Copies the payload of the event that was fetched last: a message, or a device's opaque part.
 * `buffer` has room for `capacity` bytes; the event's `payload_bytes` is how many are needed, and
 * `*count` how many were copied. VFERRY_ERR_BUFFER_TOO_SMALL, and nothing is written, where they do
 * not fit. The payload stays until the next event is fetched.
 */
vferry_status vferry_session_payload(const vferry_session *session,
                                     uint8_t *buffer,
                                     size_t capacity,
                                     size_t *count);

/* --- Events ----------------------------------------------------------------------------------- */

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
 * In an event's flags, of VFERRY_EVENT_ESTIMATE: waiting cannot make it better. Every device is
 * drained, and its initial data is loaded.
 */
#define VFERRY_EVENT_FLAG_CONVERGED 8

/**
 * In an event's flags, of VFERRY_EVENT_DEVICE_CAME_BACK: as `home` in a `vferry_device_report`.
 */
#define VFERRY_EVENT_FLAG_HOME 16

/**
 * In an event's flags, of VFERRY_EVENT_DEVICE_CAME_BACK: as `was_reset` in a
 * `vferry_device_report`.
 */
#define VFERRY_EVENT_FLAG_WAS_RESET 32

/**
 * What an event is about, and which fields of `vferry_event` it fills in besides `size` and `type`.
 */
enum vferry_event_type
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * Both hosts have agreed on the streams: `wire_version`, and the most `bytes` of a frame.
     */
    VFERRY_EVENT_CONNECTED = 1,
    /**
     * A device entered a phase: `device`, `phase`.
     */
    VFERRY_EVENT_PHASE = 2,
    /**
     * The source announced a device, and its name is the expected one (target): `device`, `flags`,
     * its name in `text`, its opaque part as the payload.
     */
    VFERRY_EVENT_BEGIN = 3,
    /**
     * The target has written a device's initial PRE_COPY data: `device`.
     */
    VFERRY_EVENT_INITIAL_DATA_LOADED = 4,
    /**
     * What the downtime would be now (source, in PRE_COPY): `flags`, `pending_bytes`,
     * `stop_copy_bytes`, `state_bytes_per_s`, `downtime_ns`, `ratio`, `switchover_budget_ns`. A newer
     * one replaces one that was not fetched.
     */
    VFERRY_EVENT_ESTIMATE = 5,
    /**
     * An epoch of a device ended: `device`, `epoch`, `phase`, `epoch_ending`, `cause`, `observed`,
     * `os_error`, `state`, `bytes`, `text`. It says nothing about the session.
     */
    VFERRY_EVENT_COMPLETION = 6,
    /**
     * The source has let go, and RUNNING follows (target). An embedded device is not moved before
     * that is wanted: one that runs until then counts as reset.
     */
    VFERRY_EVENT_HANDED_OVER = 7,
    /**
     * A message of the peer's embedder: the payload.
     */
    VFERRY_EVENT_MESSAGE = 8,
    /**
     * The session has ended: `ending`, `cause`, `observed`, `os_error`, `device`, `text`.
     * `vferry_session_report` tells more. The last event, unless a device is late.
     */
    VFERRY_EVENT_FINISHED = 9,
    /**
     * A device whose driver had not answered when the session ended has been let go of since:
     * `device`, `epoch`, `epoch_ending`, `state`, `bytes`, and in `flags` whether it is where it was
     * found. Once a device, after VFERRY_EVENT_FINISHED.
     */
    VFERRY_EVENT_DEVICE_CAME_BACK = 10,
    /**
     * How fast the path is, found out with padding while there was nothing else to send (source):
     * `path_bytes_per_s`, `latency_ns`. A source without PRE_COPY that waits for it, a few tenths of a
     * second at most, switches over with what it says. It does not come on streams that the VMM
     * carries, where the engine seals TLS records, where `vferry_options_set_path_rate` has said
     * it, nor where there was always something to send. Since version 7.
     */
    VFERRY_EVENT_PATH = 11,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum vferry_event_type vferry_event_type;
#else
typedef uint32_t vferry_event_type;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * An event. Set `size` to sizeof(vferry_event) before the call. Fields that do not belong to its
 * type are 0, VFERRY_DEVICE_NONE, VFERRY_VALUE_UNKNOWN or VFERRY_STATE_UNKNOWN.
 */
typedef struct vferry_event {
    /**
     * In: the caller's sizeof. Out: the bytes that were filled in.
     */
    uint32_t size;
    /**
     * A `vferry_event_type`. Ignore unknown ones: later versions have more.
     */
    uint32_t type;
    /**
     * The device's number, or VFERRY_DEVICE_NONE.
     */
    uint32_t device;
    /**
     * The device's saving session, counted from 0. A discard starts the next one.
     */
    uint32_t epoch;
    /**
     * A `vferry_phase`.
     */
    uint32_t phase;
    /**
     * A `vferry_ending`: how the session ended.
     */
    uint32_t ending;
    /**
     * A `vferry_epoch_ending`: how the device's epoch ended.
     */
    uint32_t epoch_ending;
    /**
     * A `vferry_cause`: why, unless it was handed over.
     */
    uint32_t cause;
    /**
     * A `vferry_observed`: how the cause was found.
     */
    uint32_t observed;
    /**
     * The kernel's errno; 0 where there was none. 512 is ERESTARTSYS, which some drivers leak.
     */
    int32_t os_error;
    /**
     * A `vferry_state`: the device's state, as the kernel or the VMM said last.
     */
    int32_t state;
    /**
     * VFERRY_EVENT_FLAG_ bits.
     */
    uint32_t flags;
    /**
     * The agreed version of the wire.
     */
    uint32_t wire_version;
    /**
     * Zero.
     */
    uint32_t reserved;
    /**
     * Bytes of device state read (source) or written (target) in the epoch.
     */
    uint64_t bytes;
    /**
     * Bytes that `vferry_session_payload` has for this event.
     */
    uint64_t payload_bytes;
    /**
     * Bytes of PRE_COPY data that the devices report as unread, plus those read and not yet sent.
     */
    uint64_t pending_bytes;
    /**
     * Bytes of STOP_COPY data that the devices expect, or VFERRY_VALUE_UNKNOWN.
     */
    uint64_t stop_copy_bytes;
    /**
     * Measured bytes of state per second from device to device.
     */
    uint64_t state_bytes_per_s;
    /**
     * What the downtime would be now, in nanoseconds, or VFERRY_VALUE_UNKNOWN.
     */
    uint64_t downtime_ns;
    /**
     * Measured bytes of state over bytes on the wire.
     */
    double ratio;
    /**
     * A sentence for a person: what happened, and what to do about it.
     */
    char text[VFERRY_TEXT_BYTES];
    /**
     * The limit of the switchover, in nanoseconds, or VFERRY_VALUE_UNKNOWN where there is none. Since
     * version 4.
     */
    uint64_t switchover_budget_ns;
    /**
     * What of `downtime_ns` are the devices' transitions and the way there and back; of
     * VFERRY_EVENT_PATH, the way to the target's engine and back. In nanoseconds. Since version 6.
     */
    uint64_t latency_ns;
    /**
     * What one stream takes, in bytes per second on the wire. Since version 7.
     */
    uint64_t path_bytes_per_s;
} vferry_event;

/**
 * Whether an estimate says that the vCPUs can be stopped now: all initial data is loaded at the
 * target, and the downtime would be `downtime_ns_max` at most. Where too little was sent to measure
 * a rate, the second condition is that no PRE_COPY data is pending. False for events other than
 * VFERRY_EVENT_ESTIMATE, and for NULL.
 */
bool vferry_event_is_ready(const vferry_event *event, uint64_t downtime_ns_max);

/**
 * Fetches the next event. Never blocks. VFERRY_ERR_EMPTY when none waits at this moment; in its place
 * VFERRY_ERR_ENDED when VFERRY_EVENT_FINISHED was fetched before. Then only
 * VFERRY_EVENT_DEVICE_CAME_BACK may still come: for a device whose report has a `home` of 0.
 */
vferry_status vferry_session_poll(vferry_session *session,
                                  vferry_event *event);

/**
 * Fetches the next event and waits for one, `timeout_ms` at most. VFERRY_ERR_TIMEOUT when none
 * came by then; in its place VFERRY_ERR_ENDED when VFERRY_EVENT_FINISHED was fetched before. Then it
 * waits only while a device is late, which may be for as long as its driver does not answer.
 */
vferry_status vferry_session_wait(vferry_session *session,
                                  int64_t timeout_ms,
                                  vferry_event *event);

/**
 * Waits until `vferry_event_is_ready` is true of an estimate, `timeout_ms` at most (source). It
 * drops the events that come meanwhile: a VMM that needs them uses `vferry_session_wait`.
 *
 * VFERRY_ERR_TIMEOUT: the downtime would still be longer than `downtime_ns_max`; the VMM may stop
 * its vCPUs all the same. VFERRY_ERR_ENDED: the session ended. VFERRY_ERR_WRONG_HOST: it is a
 * target's. Where no device saves in PRE_COPY no estimate comes, and there is nothing to wait for.
 */
vferry_status vferry_session_wait_ready(vferry_session *session,
                                        uint64_t downtime_ns_max,
                                        int64_t timeout_ms);

/**
 * Waits until the session has ended and its streams are closed, `timeout_ms` at most. For a program
 * that exits right after the end: until then the system may drop what the peer has not read, the last
 * word of this host among it. After VFERRY_EVENT_FINISHED it takes half a second at most, where the
 * peer does not close its end. VFERRY_ERR_TIMEOUT when the streams are not closed by then.
 */
vferry_status vferry_session_wait_closed(vferry_session *session,
                                         int64_t timeout_ms);

/* --- Reports ---------------------------------------------------------------------------------- */

/**
 * A session that has ended. Set `size` to sizeof(vferry_report) before the call.
 *
 * Times are nanoseconds of CLOCK_MONOTONIC, which the processes of one host share; 0 for what did
 * not happen on this host. The downtime is from the source's `stop_called_ns` to the target's
 * `running_ns`.
 */
typedef struct vferry_report {
    /**
     * In: the caller's sizeof. Out: the bytes that were filled in.
     */
    uint32_t size;
    /**
     * A `vferry_ending`.
     */
    uint32_t ending;
    /**
     * A `vferry_cause`: why, unless it was handed over.
     */
    uint32_t cause;
    /**
     * A `vferry_observed`: how the cause was found.
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
     * How the engine did its I/O: VFERRY_BACKEND_IO_URING or VFERRY_BACKEND_SYSCALLS.
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
     * When the session's thread started.
     */
    uint64_t started_ns;
    /**
     * When both hosts had agreed on the streams.
     */
    uint64_t connected_ns;
    /**
     * When the first call was made that stops a device (source).
     */
    uint64_t stop_called_ns;
    /**
     * When the last device was in RUNNING (target).
     */
    uint64_t running_ns;
    /**
     * When the session ended.
     */
    uint64_t finished_ns;
    /**
     * Bytes of state of all devices and epochs.
     */
    uint64_t state_bytes;
    /**
     * Bytes on the wire, the larger direction.
     */
    uint64_t wire_bytes;
    /**
     * The cause in a sentence for a person; empty if it was handed over.
     */
    char text[VFERRY_TEXT_BYTES];
    /**
     * Why system calls were used where io_uring was asked for; empty otherwise.
     */
    char fallback[VFERRY_TEXT_BYTES];
} vferry_report;

/**
 * One device of a session that has ended. Set `size` to
 * sizeof(vferry_device_report) before the call.
 */
typedef struct vferry_device_report {
    /**
     * In: the caller's sizeof. Out: the bytes that were filled in.
     */
    uint32_t size;
    /**
     * The device's number.
     */
    uint32_t device;
    /**
     * Its last epoch: how often its saving was restarted.
     */
    uint32_t epoch;
    /**
     * A `vferry_epoch_ending`: how its last epoch ended.
     */
    uint32_t epoch_ending;
    /**
     * A `vferry_state`: the device's state, as the kernel or the VMM said last. Of an embedded device
     * that was handed over it is unknown: its VMM knows.
     */
    int32_t state;
    /**
     * Not 0: an operation is still blocked in the driver. A thread, its buffers and the data fd are
     * kept until it returns.
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
     * Bytes of its frames on the wire (source).
     */
    uint64_t wire_bytes;
    /**
     * Chunks of zeros, sent as a header only (source).
     */
    uint64_t zero_chunks;
    /**
     * Chunks that were sent uncompressed (source).
     */
    uint64_t raw_chunks;
    /**
     * Chunks that were sent compressed (source).
     */
    uint64_t zstd_chunks;
    /**
     * Frames of discarded epochs that arrived late and were dropped (target).
     */
    uint64_t late_frames;
    /**
     * Not 0: the device is where the session found it, RUNNING or STOP (target: and without any of
     * the state). An embedded device of the source: nothing of the engine's holds it, and it is its
     * VMM that brings it back. 0 where it was not brought there, or not yet, and where it was handed
     * over. Since version 4.
     */
    uint32_t home;
    /**
     * Not 0: it was reset on its way back, as `vferry_device_set_reset_to_return` has allowed
     * (source). Since version 4.
     */
    uint32_t was_reset;
    /**
     * From the switchover until the first byte of STOP_COPY was read, in nanoseconds, or
     * VFERRY_VALUE_UNKNOWN (source): for `vferry_device_set_latencies` of the next migration. Since
     * version 6.
     */
    uint64_t stop_ns;
    /**
     * From when the target had done with the last byte until its word that the state is loaded, in the
     * same way. Since version 6.
     */
    uint64_t load_ns;
    /**
     * From the handover until the target's word that the device runs, in the same way. Since version
     * 6.
     */
    uint64_t run_ns;
} vferry_device_report;

/**
 * Fills in the report of a session that has ended: as soon as VFERRY_EVENT_FINISHED can be fetched.
 * Never blocks. VFERRY_ERR_NOT_ENDED before.
 */
vferry_status vferry_session_report(const vferry_session *session, vferry_report *report);

/**
 * Fills in the report of one device, as it was when the session ended: of one that was late
 * VFERRY_EVENT_DEVICE_CAME_BACK says what it is now. As `vferry_session_report` otherwise.
 */
vferry_status vferry_session_device_report(const vferry_session *session,
                                           uint32_t device,
                                           vferry_device_report *report);

/**
 * Waits for the session's end, `timeout_ms` at most, and fills the report in. It drops the events
 * that come meanwhile. VFERRY_ERR_TIMEOUT when the session has not ended by then.
 */
vferry_status vferry_session_finish(vferry_session *session,
                                    int64_t timeout_ms,
                                    vferry_report *report);

/* --- Figures ---------------------------------------------------------------------------------- */

/**
 * Sums for one device, all epochs. Set `size` to sizeof(vferry_device_stats) before the call. Times
 * of operations that overlap are added up.
 */
typedef struct vferry_device_stats {
    /**
     * In: the caller's sizeof. Out: the bytes that were filled in.
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
     * Bytes of its data frames on the wire.
     */
    uint64_t wire_bytes;
    /**
     * Time in which its data fd was read or written.
     */
    uint64_t device_ns;
    /**
     * Time in which its chunks waited for a worker or were with one.
     */
    uint64_t worker_ns;
    /**
     * Time in which its frames were sent or received.
     */
    uint64_t link_ns;
} vferry_device_stats;

/**
 * Sums for one stream. Set `size` to sizeof(vferry_stream_stats) before the call.
 */
typedef struct vferry_stream_stats {
    /**
     * In: the caller's sizeof. Out: the bytes that were filled in.
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
 * The durations of something that happens often. Set `size` to sizeof(vferry_duration_stats) before
 * the call. Nanoseconds, exact to 1 %; 0 where it did not happen.
 */
typedef struct vferry_duration_stats {
    /**
     * In: the caller's sizeof. Out: the bytes that were filled in.
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
 * Fills in the sums of one device so far. Never blocks. While the session runs they may be a tenth
 * of a second old.
 */
vferry_status vferry_session_device_stats(const vferry_session *session,
                                          uint32_t device,
                                          vferry_device_stats *stats);

/**
 * Fills in the sums of one stream so far. As `vferry_session_device_stats` otherwise.
 */
vferry_status vferry_session_stream_stats(const vferry_session *session,
                                          uint32_t stream,
                                          vferry_stream_stats *stats);

/**
 * Fills in how long the chunks of all devices took at a `vferry_step`. As
 * `vferry_session_device_stats` otherwise.
 */
vferry_status vferry_session_step_stats(const vferry_session *session,
                                        uint32_t step,
                                        vferry_duration_stats *stats);

/**
 * Fills in how long the devices spent in a `vferry_phase`: one value each time that a device left
 * it. As `vferry_session_device_stats` otherwise.
 */
vferry_status vferry_session_phase_stats(const vferry_session *session,
                                         uint32_t phase,
                                         vferry_duration_stats *stats);

/* --- Log -------------------------------------------------------------------------------------- */

/**
 * The level of a log line.
 */
enum vferry_log_level
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * A failure that should not happen.
     */
    VFERRY_LOG_ERROR = 1,
    /**
     * Needs an administrator's attention.
     */
    VFERRY_LOG_WARN = 2,
    /**
     * Migration results and fallbacks.
     */
    VFERRY_LOG_INFO = 3,
    /**
     * Debugging detail.
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
 * A log line. Set `size` to sizeof(vferry_log_line) before the call.
 */
typedef struct vferry_log_line {
    /**
     * In: the caller's sizeof. Out: the bytes that were filled in.
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
     * Lines dropped just before this one, because the queue was full.
     */
    uint64_t lost;
    /**
     * The line.
     */
    char text[VFERRY_TEXT_BYTES];
} vferry_log_line;

/**
 * Starts to collect the log lines of all sessions of this process, up to `level` (a
 * `vferry_log_level`). The newest `lines_max` (1 to 65536) that were not fetched are kept. Without
 * this call nothing is logged anywhere.
 *
 * Once in a process: VFERRY_ERR_LOG_TAKEN after that, and in a Rust program that has a `tracing`
 * subscriber of its own.
 */
vferry_status vferry_log_start(uint32_t level, size_t lines_max);

/**
 * Fetches the oldest log line. Never blocks. VFERRY_ERR_EMPTY when none waits.
 */
vferry_status vferry_log_next(vferry_log_line *line);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* VFIO_FERRY_H */
