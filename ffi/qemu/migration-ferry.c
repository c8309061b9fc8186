/*
 * VFIO device state through vfio-ferry
 *
 * The library reads the data fd ahead of the link, compresses and checksums
 * what it reads, and on the other host verifies and writes it. QEMU makes the
 * SET_STATE calls and carries the library's bytes: from source to target in
 * the device's sections of the main channel, back as RETURN_DATA messages of
 * the return path.
 *
 *   source                                  target
 *   migration thread: asks who is there --> answers, if a device wants it
 *   save_setup: a session, PRE_COPY fd
 *   save_live_iterate: pulls, puts -------> load_state: gets, pushes
 *   return path thread: pushes <----------- ferry thread: pulls, sends
 *   save_live_complete_precopy: the rest
 *   save_state: waits until the target's device has taken all of it in
 *
 * Nothing in the library calls back or takes a lock of QEMU's. What it wants
 * done with the device is asked for with vferry_device_wanted() and done here:
 * on the source under the BQL, on the target by the ferry thread, which is the
 * only one that touches the device between load_setup and load_cleanup.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/error-report.h"
#include "qemu/lockable.h"
#include "qemu/main-loop.h"
#include "qemu/units.h"
#include <linux/vfio.h>
#include <sys/ioctl.h>
#include <vfio_ferry.h>

#include "hw/vfio/vfio-common.h"
#include "migration/misc.h"
#include "migration/qemu-file.h"
#include "migration/register.h"
#include "migration-ferry.h"
#include "qapi/error.h"
#include "system/runstate.h"
#include "trace.h"

/* Bytes that follow one VFIO_MIG_FLAG_DEV_FERRY at most. */
#define VFIO_FERRY_BLOCK (256 * KiB)

/* Bytes of one device that a round of iterating puts at most, as stock does. */
#define VFIO_FERRY_ROUND (1 * MiB)

/* How often a wait looks whether the migration has been cancelled. */
#define VFIO_FERRY_LOOK_MS 50

/* How long the target waits for what the source must have sent already. */
#define VFIO_FERRY_CONFIRM_MS 10000

/*
 * How long a cleanup, with the BQL held, waits for an operation that a driver
 * does not give back. After that a thread of the library waits on.
 */
#define VFIO_FERRY_CANCEL_MS 500

/*
 * QEMU watches over the connection, and while the guest runs the device's
 * turn may be long in coming: until RAM was sent for the first time nothing is
 * pulled. So only what no pass of RAM takes counts as a stall.
 */
#define VFIO_FERRY_STALL_MS (3600 * 1000)

/* How long the VM stands still for a device at most: after it the VM runs on. */
#define VFIO_FERRY_SWITCHOVER_MS (300 * 1000)

/* Resets of one device that a migration with on-reset=restart survives. */
#define VFIO_FERRY_RESTARTS 8

typedef struct VFIOFerry {
    VFIODevice *vbasedev;
    vferry_channel *channel;
    vferry_device *device;
    vferry_session *session;
    uint8_t *buffer;
    /* What events said. On the target under @lock. */
    bool all_sent;
    bool initial_data_loaded;
    bool finished;
    char *failure;
    /* Source: the data fd's duplicate, for VFIO_MIG_GET_PRECOPY_INFO. */
    int precopy_fd;
    bool switched_over;
    /* Target. */
    QemuThread thread;
    QemuMutex lock;
    QemuSemaphore confirmed;
    QLIST_ENTRY(VFIOFerry) next;
} VFIOFerry;

/*
 * The source's. Only the thread that holds the BQL or migrates changes the
 * list; the lock keeps a session alive while the return path's thread pushes.
 */
static QemuMutex leaving_lock;
static QLIST_HEAD(, VFIOFerry) leaving = QLIST_HEAD_INITIALIZER(leaving);

static void __attribute__((constructor)) vfio_ferry_init(void)
{
    qemu_mutex_init(&leaving_lock);
}

/* --- what is common to both hosts ---------------------------------------- */

static uint32_t vfio_ferry_on_reset(const char *name)
{
    if (!g_strcmp0(name, "restart")) {
        return VFERRY_ON_RESET_RESTART;
    }
    if (!g_strcmp0(name, "stop-copy")) {
        return VFERRY_ON_RESET_STOP_COPY;
    }
    return VFERRY_ON_RESET_ABORT;
}

/* Whether the device's properties make sense. */
bool vfio_ferry_check(VFIODevice *vbasedev, Error **errp)
{
    const char *on_reset = vbasedev->migration_ferry_on_reset;

    if (on_reset && strcmp(on_reset, "abort") && strcmp(on_reset, "restart") &&
        strcmp(on_reset, "stop-copy")) {
        error_setg(errp, "%s: x-migration-ferry-on-reset is abort, restart or "
                   "stop-copy, not '%s'", vbasedev->name, on_reset);
        return false;
    }
    if (vbasedev->migration_ferry == ON_OFF_AUTO_ON &&
        vbasedev->migration_multifd_transfer == ON_OFF_AUTO_ON) {
        error_setg(errp, "%s: x-migration-ferry=on and "
                   "x-migration-multifd-transfer=on exclude each other",
                   vbasedev->name);
        return false;
    }
    return true;
}

static void vfio_ferry_free(VFIOFerry *ferry)
{
    /*
     * Freeing it waits for a driver's operation, within the cancel bound, and
     * for no peer.
     */
    vferry_session_cancel(ferry->session);
    vferry_channel_free(&ferry->channel);
    vferry_session_free(&ferry->session);
    vferry_device_free(&ferry->device);
    if (ferry->precopy_fd != -1) {
        close(ferry->precopy_fd);
    }
    qemu_mutex_destroy(&ferry->lock);
    qemu_sem_destroy(&ferry->confirmed);
    g_free(ferry->failure);
    g_free(ferry->buffer);
    g_free(ferry);
}

/*
 * A session for this device. The device is named alike on both hosts, because
 * the section that its bytes travel in already says which one it is.
 */
static VFIOFerry *vfio_ferry_new(VFIODevice *vbasedev, vferry_host host,
                                 uint32_t flags, Error **errp)
{
    VFIOFerry *ferry = g_new0(VFIOFerry, 1);
    vferry_options *options = NULL;
    int stream = -1;
    bool ok;

    ferry->vbasedev = vbasedev;
    ferry->precopy_fd = -1;
    ferry->buffer = g_malloc(VFIO_FERRY_BLOCK);
    qemu_mutex_init(&ferry->lock);
    qemu_sem_init(&ferry->confirmed, 0);

    ok = !vferry_options_new(&options) &&
         !vferry_options_set_peer_silence_ms(options, VFERRY_NO_LIMIT) &&
         !vferry_options_set_handshake_limit_ms(options, VFERRY_NO_LIMIT) &&
         !vferry_options_set_idle_limit_ms(options, VFERRY_NO_LIMIT) &&
         !vferry_options_set_stall_limit_ms(options, VFIO_FERRY_STALL_MS) &&
         !vferry_options_set_switchover_budget_ms(options,
                                                  VFIO_FERRY_SWITCHOVER_MS) &&
         !vferry_options_set_cancel_bound_ms(options, VFIO_FERRY_CANCEL_MS) &&
         !vferry_device_embedded("vfio", host, flags, vbasedev->fd,
                                 &ferry->device) &&
         !vferry_device_set_on_reset(
             ferry->device,
             vfio_ferry_on_reset(vbasedev->migration_ferry_on_reset),
             VFIO_FERRY_RESTARTS, VFERRY_ON_RESET_STOP_COPY) &&
         !vferry_channel_new(&ferry->channel, &stream);
    if (ok) {
        ok = !(host == VFERRY_HOST_SOURCE ?
               vferry_session_source(options, &ferry->device, 1, &stream, 1,
                                     &ferry->session) :
               vferry_session_target(options, &ferry->device, 1, &stream, 1,
                                     &ferry->session));
        if (!ok) {
            close(stream);
        }
    }
    if (!ok) {
        char text[VFERRY_TEXT_BYTES] = "";

        vferry_last_error(text, sizeof(text));
        error_setg(errp, "%s: vfio-ferry cannot start: %s", vbasedev->name,
                   text);
        vferry_options_free(&options);
        vfio_ferry_free(ferry);
        return NULL;
    }
    vferry_options_free(&options);
    return ferry;
}

/* Takes in what there is to hear. */
static void vfio_ferry_hear(VFIOFerry *ferry)
{
    const char *name = ferry->vbasedev->name;
    VFIOMigration *migration = ferry->vbasedev->migration;
    vferry_event event = { .size = sizeof(event) };

    for (; !vferry_session_poll(ferry->session, &event);
         event.size = sizeof(event)) {
        QEMU_LOCK_GUARD(&ferry->lock);

        switch (event.type) {
        case VFERRY_EVENT_PHASE:
            trace_vfio_ferry_phase(name, vferry_phase_text(event.phase));
            ferry->all_sent |= event.phase >= VFERRY_PHASE_LOAD;
            break;
        case VFERRY_EVENT_ESTIMATE:
            migration->precopy_init_size = 0;
            migration->precopy_dirty_size = event.pending_bytes;
            ferry->initial_data_loaded =
                event.flags & VFERRY_EVENT_FLAG_INITIAL_DATA_LOADED;
            break;
        case VFERRY_EVENT_COMPLETION:
            trace_vfio_ferry_completion(name,
                                        vferry_epoch_ending_text(
                                            event.epoch_ending),
                                        vferry_cause_text(event.cause),
                                        vferry_observed_text(event.observed),
                                        event.os_error, event.bytes);
            if (event.epoch_ending == VFERRY_EPOCH_RESTARTED) {
                ferry->initial_data_loaded = false;
                migration->precopy_init_size = 0;
                migration->precopy_dirty_size = 0;
                warn_report("%s: %s; its migration starts again",
                            name, event.text);
            }
            break;
        case VFERRY_EVENT_FINISHED:
            ferry->finished = true;
            if (event.ending != VFERRY_ENDING_HANDED_OVER &&
                event.ending != VFERRY_ENDING_RUNNING) {
                ferry->failure = g_strdup(event.text);
            }
            qemu_sem_post(&ferry->confirmed);
            break;
        default:
            break;
        }
    }
}

/* False, with the reason, once the session has ended without success. */
static bool vfio_ferry_is_well(VFIOFerry *ferry, Error **errp)
{
    QEMU_LOCK_GUARD(&ferry->lock);

    if (ferry->failure) {
        error_setg(errp, "%s: %s", ferry->vbasedev->name, ferry->failure);
        return false;
    }
    return true;
}

/* GET_STATE: after a reset the device is not where QEMU has put it. */
static void vfio_ferry_refresh_state(VFIODevice *vbasedev)
{
    uint64_t buf[DIV_ROUND_UP(sizeof(struct vfio_device_feature) +
                              sizeof(struct vfio_device_feature_mig_state),
                              sizeof(uint64_t))] = {};
    struct vfio_device_feature *feature = (struct vfio_device_feature *)buf;
    struct vfio_device_feature_mig_state *state =
        (struct vfio_device_feature_mig_state *)feature->data;

    feature->argsz = sizeof(buf);
    feature->flags =
        VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE;
    if (!ioctl(vbasedev->fd, VFIO_DEVICE_FEATURE, feature)) {
        vbasedev->migration->device_state = state->device_state;
    }
}

/* VFIO_MIG_GET_PRECOPY_INFO, which QEMU makes because it moves the device. */
static int vfio_ferry_precopy_info(VFIOFerry *ferry,
                                   struct vfio_precopy_info *info)
{
    *info = (struct vfio_precopy_info) { .argsz = sizeof(*info) };
    return ioctl(ferry->precopy_fd, VFIO_MIG_GET_PRECOPY_INFO, info) ? -errno
                                                                     : 0;
}

/* Gives the engine the fd that the last SET_STATE may have left. */
static void vfio_ferry_moved(VFIOFerry *ferry, uint32_t state)
{
    VFIOMigration *migration = ferry->vbasedev->migration;
    struct vfio_precopy_info info;
    int fd = migration->data_fd;

    migration->data_fd = -1;
    if (state == VFIO_DEVICE_STATE_PRE_COPY && fd != -1) {
        if (ferry->precopy_fd != -1) {
            close(ferry->precopy_fd);
        }
        ferry->precopy_fd = qemu_dup(fd);
        /* Until the engine has an estimate. */
        if (!vfio_ferry_precopy_info(ferry, &info)) {
            migration->precopy_init_size = info.initial_bytes;
            migration->precopy_dirty_size = info.dirty_bytes;
        }
    }
    if (vferry_device_state_done(ferry->device, state, fd, 0) && fd != -1) {
        close(fd);
    }
}

static void vfio_ferry_move(VFIOFerry *ferry, uint32_t state)
{
    VFIODevice *vbasedev = ferry->vbasedev;
    Error *local_err = NULL;
    int ret;

    vfio_ferry_refresh_state(vbasedev);
    ret = vfio_migration_set_state(vbasedev, state,
                                   vbasedev->migration->device_state,
                                   &local_err);
    if (ret) {
        error_report_err(local_err);
        vferry_device_state_done(ferry->device, state, -1, -ret);
    } else {
        vfio_ferry_moved(ferry, state);
    }
}

static void vfio_ferry_tell_precopy_info(VFIOFerry *ferry)
{
    struct vfio_precopy_info info = {};
    int ret = 0;

    /* Once the VM has stopped there is none, and that says nothing. */
    if (!ferry->switched_over) {
        ret = vfio_ferry_precopy_info(ferry, &info);
    }
    vferry_device_precopy_info_done(ferry->device, info.initial_bytes,
                                    info.dirty_bytes, 0, -ret);
}

/* Does with the device what the engine wants done. */
static void vfio_ferry_serve(VFIOFerry *ferry)
{
    uint32_t want = VFERRY_WANT_NOTHING;

    vferry_device_wanted(ferry->device, &want);
    switch (want) {
    case VFERRY_WANT_NOTHING:
        break;
    case VFERRY_WANT_PRECOPY_INFO:
        vfio_ferry_tell_precopy_info(ferry);
        break;
    default: /* The states have the kernel's numbers. */
        vfio_ferry_move(ferry, want);
        break;
    }
}

/* The same on the source, where others move the device as well. */
static void vfio_ferry_serve_locked(VFIOFerry *ferry)
{
    uint32_t want = VFERRY_WANT_NOTHING;

    vferry_device_wanted(ferry->device, &want);
    if (want == VFERRY_WANT_PRECOPY_INFO) {
        vfio_ferry_serve(ferry);
    } else if (want != VFERRY_WANT_NOTHING) {
        BQL_LOCK_GUARD();
        vfio_ferry_serve(ferry);
    }
}

/*
 * Waits until there is something to hear or to pull, or something to do: for
 * this device, and once the VM has stopped for all that leave with it.
 */
static void vfio_ferry_wait(VFIOFerry *ferry, int timeout_ms)
{
    GPollFD fds[2 + VFERRY_DEVICES_MAX] = {};
    VFIOFerry *each;
    int i, count = 0;

    vferry_session_event_fd(ferry->session, &fds[count++].fd);
    vferry_channel_fd(ferry->channel, &fds[count++].fd);
    vferry_device_event_fd(ferry->device, &fds[count++].fd);
    if (ferry->switched_over) {
        QLIST_FOREACH(each, &leaving, next) {
            if (each != ferry && count < ARRAY_SIZE(fds)) {
                vferry_device_event_fd(each->device, &fds[count++].fd);
            }
        }
    }
    for (i = 0; i < count; i++) {
        fds[i].events = G_IO_IN;
    }
    g_poll(fds, count, timeout_ms);
}

/* --- source -------------------------------------------------------------- */

int vfio_ferry_save_prepare(VFIODevice *vbasedev, Error **errp)
{
    if (vbasedev->migration_ferry == ON_OFF_AUTO_ON &&
        !migrate_return_data_possible()) {
        error_setg(errp, "%s: x-migration-ferry=on needs the return path: "
                   "set the migration capability return-path on both hosts",
                   vbasedev->name);
        return -EINVAL;
    }
    return 0;
}

/*
 * After the device's first state was set. Makes a session if there is to be
 * one, and gives it the PRE_COPY fd.
 */
int vfio_ferry_save_setup(VFIODevice *vbasedev, Error **errp)
{
    VFIOMigration *migration = vbasedev->migration;
    bool precopy = migration->device_state == VFIO_DEVICE_STATE_PRE_COPY;
    VFIOFerry *ferry;

    if (vbasedev->migration_ferry == ON_OFF_AUTO_OFF ||
        runstate_check(RUN_STATE_SAVE_VM) ||
        (vbasedev->migration_ferry == ON_OFF_AUTO_AUTO &&
         migration->multifd_transfer)) {
        return 0;
    }
    if (!migrate_return_data_answered()) {
        if (vbasedev->migration_ferry == ON_OFF_AUTO_ON) {
            error_setg(errp, "%s: x-migration-ferry=on, but no device of the "
                       "target takes its state so: its QEMU needs vfio-ferry, "
                       "and x-migration-ferry=on or auto on the device",
                       vbasedev->name);
            return -EOPNOTSUPP;
        }
        trace_vfio_ferry_not_used(vbasedev->name);
        return 0;
    }

    ferry = vfio_ferry_new(vbasedev, VFERRY_HOST_SOURCE,
                           precopy ? VFERRY_EMBEDDED_PRECOPY |
                           VFERRY_EMBEDDED_PRECOPY_INFO : 0, errp);
    if (!ferry) {
        return -EINVAL;
    }
    if (precopy) {
        vfio_ferry_moved(ferry, VFIO_DEVICE_STATE_PRE_COPY);
    }
    trace_vfio_ferry_used(vbasedev->name, vferry_version_text());
    WITH_QEMU_LOCK_GUARD(&leaving_lock) {
        migration->ferry = ferry;
        QLIST_INSERT_HEAD(&leaving, ferry, next);
    }
    return 0;
}

/*
 * What the return path brought. The lock is not held while there is no room,
 * so that a session that nobody reads can be cleaned up.
 */
bool vfio_ferry_return_data(void *opaque, const uint8_t *buf, size_t len,
                            Error **errp)
{
    VFIODevice *vbasedev = opaque;
    vferry_status status = VFERRY_OK;
    size_t pushed;

    while (len && status <= VFERRY_ERR_FULL) {
        if (status == VFERRY_ERR_FULL) {
            g_usleep(1000);
        }
        WITH_QEMU_LOCK_GUARD(&leaving_lock) {
            VFIOFerry *ferry = vbasedev->migration->ferry;

            if (!ferry) {
                return true;
            }
            status = vferry_channel_push(ferry->channel, buf, len, &pushed);
        }
        if (status == VFERRY_OK) {
            buf += pushed;
            len -= pushed;
        }
    }
    /* A session that is over has nobody left to hear the rest. */
    return true;
}

/* Puts what the engine has ready, @most bytes or a little more. */
static size_t vfio_ferry_put(QEMUFile *f, VFIOFerry *ferry, size_t most)
{
    size_t total = 0;
    size_t count;

    while (total < most &&
           !vferry_channel_pull(ferry->channel, ferry->buffer,
                                VFIO_FERRY_BLOCK, &count)) {
        qemu_put_be64(f, VFIO_MIG_FLAG_DEV_FERRY);
        qemu_put_be32(f, count);
        qemu_put_buffer(f, ferry->buffer, count);
        total += count;
    }
    vfio_mig_add_bytes_transferred(total);
    return total;
}

/* Hears, serves and puts. Negative, with the reason, if it cannot go on. */
static ssize_t vfio_ferry_turn(QEMUFile *f, VFIOFerry *ferry, size_t most,
                               Error **errp)
{
    VFIOFerry *each;

    vfio_ferry_hear(ferry);
    if (!vfio_ferry_is_well(ferry, errp)) {
        /* The last of it tells the target why. */
        vfio_ferry_put(f, ferry, SIZE_MAX);
        qemu_fflush(f);
        return -EIO;
    }
    vfio_ferry_serve_locked(ferry);
    if (ferry->switched_over) {
        QLIST_FOREACH(each, &leaving, next) {
            vfio_ferry_serve_locked(each);
        }
    }
    return vfio_ferry_put(f, ferry, most);
}

static int vfio_ferry_failed(int ret, Error *err)
{
    migration_file_set_error(ret, err);
    return ret;
}

int vfio_ferry_save_iterate(QEMUFile *f, VFIODevice *vbasedev)
{
    VFIOMigration *migration = vbasedev->migration;
    VFIOFerry *ferry = migration->ferry;
    bool converged;
    Error *local_err = NULL;
    ssize_t put;

    put = vfio_ferry_turn(f, ferry, VFIO_FERRY_ROUND, &local_err);
    converged = !migration->precopy_init_size && !migration->precopy_dirty_size;
    if (!put && !converged) {
        /* The device is behind: let it, rather than ask again at once. */
        vfio_ferry_wait(ferry, 1);
        put = vfio_ferry_turn(f, ferry, VFIO_FERRY_ROUND, &local_err);
    }
    if (put < 0) {
        return vfio_ferry_failed(put, local_err);
    }

    if (migrate_switchover_ack() && ferry->initial_data_loaded &&
        !migration->initial_data_sent) {
        qemu_put_be64(f, VFIO_MIG_FLAG_DEV_INIT_DATA_SENT);
        migration->initial_data_sent = true;
    } else {
        qemu_put_be64(f, VFIO_MIG_FLAG_END_OF_STATE);
    }
    if (put) {
        /* The target's answers are waited for, so it must have all of it. */
        qemu_fflush(f);
    }
    trace_vfio_save_iterate(vbasedev->name, migration->precopy_init_size,
                            migration->precopy_dirty_size);
    return converged;
}

/* Turns until @done, the session has ended badly, or the channel has failed. */
static int vfio_ferry_turn_until(QEMUFile *f, VFIOFerry *ferry,
                                 const bool *done, Error **errp)
{
    ssize_t put;
    int ret;

    do {
        put = vfio_ferry_turn(f, ferry, SIZE_MAX, errp);
        if (put < 0) {
            return put;
        }
        qemu_fflush(f);
        ret = qemu_file_get_error(f);
        if (ret) {
            error_setg_errno(errp, -ret, "%s: the migration channel failed",
                             ferry->vbasedev->name);
            return ret;
        }
        if (!put && !*done) {
            vfio_ferry_wait(ferry, VFIO_FERRY_LOOK_MS);
        }
    } while (put || !*done);
    return 0;
}

/*
 * The VM has stopped. All devices begin to save at once, each into its own
 * buffers, while the channel takes one after the other.
 */
int vfio_ferry_save_complete(QEMUFile *f, VFIODevice *vbasedev)
{
    VFIOFerry *ferry = vbasedev->migration->ferry;
    VFIOFerry *each;
    Error *local_err = NULL;
    int ret;

    trace_vfio_save_complete_precopy_start(vbasedev->name);
    QLIST_FOREACH(each, &leaving, next) {
        if (!each->switched_over) {
            each->switched_over = true;
            vferry_session_switchover(each->session);
        }
    }
    ret = vfio_ferry_turn_until(f, ferry, &ferry->all_sent, &local_err);
    qemu_put_be64(f, VFIO_MIG_FLAG_END_OF_STATE);
    trace_vfio_save_complete_precopy(vbasedev->name, ret);
    return ret ? vfio_ferry_failed(ret, local_err) : 0;
}

/*
 * Before the device's config space: waits until the target's driver has taken
 * the whole state in, and both hosts agree on that.
 */
int vfio_ferry_save_confirm(QEMUFile *f, VFIODevice *vbasedev, Error **errp)
{
    VFIOFerry *ferry = vbasedev->migration->ferry;

    return ferry ? vfio_ferry_turn_until(f, ferry, &ferry->finished, errp) : 0;
}

void vfio_ferry_save_cleanup(VFIODevice *vbasedev)
{
    VFIOFerry *ferry;

    WITH_QEMU_LOCK_GUARD(&leaving_lock) {
        ferry = vbasedev->migration->ferry;
        if (!ferry) {
            return;
        }
        vbasedev->migration->ferry = NULL;
        QLIST_REMOVE(ferry, next);
    }
    vfio_ferry_free(ferry);
    vfio_ferry_refresh_state(vbasedev);
}

/* --- target -------------------------------------------------------------- */

bool vfio_ferry_return_data_ready(void *opaque)
{
    VFIODevice *vbasedev = opaque;

    return vbasedev->migration_ferry != ON_OFF_AUTO_OFF;
}

/* Until the session is over: hears, serves, and sends back what it pulls. */
static void *vfio_ferry_load_thread(void *opaque)
{
    VFIOFerry *ferry = opaque;
    g_autofree uint8_t *buf = g_malloc(MIGRATION_RETURN_DATA_MAX);
    bool over = false;
    size_t count;

    while (!over || !ferry->finished) {
        vfio_ferry_hear(ferry);
        vfio_ferry_serve(ferry);
        switch (vferry_channel_pull(ferry->channel, buf,
                                    MIGRATION_RETURN_DATA_MAX, &count)) {
        case VFERRY_OK:
            /* A return path that broke breaks the migration by itself. */
            migrate_send_return_data(ferry->vbasedev, buf, count);
            break;
        case VFERRY_ERR_EMPTY:
            vfio_ferry_wait(ferry, -1);
            break;
        default:
            over = true;
            if (!ferry->finished) {
                vfio_ferry_wait(ferry, VFIO_FERRY_LOOK_MS);
            }
            break;
        }
    }
    return NULL;
}

static VFIOFerry *vfio_ferry_load_begin(VFIODevice *vbasedev, Error **errp)
{
    VFIOFerry *ferry;

    if (vbasedev->migration_ferry == ON_OFF_AUTO_OFF) {
        error_setg(errp, "%s: the source sends its state through vfio-ferry, "
                   "but x-migration-ferry=off here", vbasedev->name);
        return NULL;
    }
    ferry = vfio_ferry_new(vbasedev, VFERRY_HOST_TARGET,
                           VFERRY_EMBEDDED_STARTS_LATER, errp);
    if (ferry) {
        /* load_setup has set RESUMING. */
        vfio_ferry_moved(ferry, VFIO_DEVICE_STATE_RESUMING);
        vbasedev->migration->ferry = ferry;
        qemu_thread_create(&ferry->thread, "vfio-ferry", vfio_ferry_load_thread,
                           ferry, QEMU_THREAD_JOINABLE);
        trace_vfio_ferry_used(vbasedev->name, vferry_version_text());
    }
    return ferry;
}

/* What follows VFIO_MIG_FLAG_DEV_FERRY. */
int vfio_ferry_load_block(QEMUFile *f, VFIODevice *vbasedev)
{
    VFIOFerry *ferry = vbasedev->migration->ferry;
    uint32_t size = qemu_get_be32(f);
    size_t done = 0;
    Error *local_err = NULL;

    if (!ferry) {
        ferry = vfio_ferry_load_begin(vbasedev, &local_err);
        if (!ferry) {
            error_report_err(local_err);
            return -EINVAL;
        }
    }
    if (!size || size > VFIO_FERRY_BLOCK) {
        error_report("%s: a block of %" PRIu32 " bytes, not of 1 to %" PRIu64,
                     vbasedev->name, size, VFIO_FERRY_BLOCK);
        return -EINVAL;
    }
    if (qemu_get_buffer(f, ferry->buffer, size) != size) {
        return qemu_file_get_error(f) ?: -EIO;
    }

    while (done < size) {
        GPollFD fd = { .events = G_IO_OUT };
        size_t pushed;
        vferry_status status = vferry_channel_push(
            ferry->channel, ferry->buffer + done, size - done, &pushed);

        if (status == VFERRY_OK) {
            done += pushed;
        } else if (status == VFERRY_ERR_FULL) {
            /* The device takes its time, as a write() to it would. */
            vferry_channel_fd(ferry->channel, &fd.fd);
            g_poll(&fd, 1, -1);
        } else {
            break; /* Over. Why is known, or about to be. */
        }
    }
    if (!vfio_ferry_is_well(ferry, &local_err)) {
        error_report_err(local_err);
        return -EINVAL;
    }
    return 0;
}

/* Whether the source may send state in the way that stock QEMU does. */
bool vfio_ferry_load_allowed(VFIODevice *vbasedev)
{
    if (vbasedev->migration->ferry) {
        error_report("%s: state beside vfio-ferry's", vbasedev->name);
        return false;
    }
    if (vbasedev->migration_ferry == ON_OFF_AUTO_ON &&
        !runstate_check(RUN_STATE_RESTORE_VM)) {
        error_report("%s: x-migration-ferry=on, but the source does not send "
                     "its state so", vbasedev->name);
        return false;
    }
    return true;
}

/*
 * Before the config space is loaded: the device has taken the whole state in,
 * checked against the source's digest, or this fails. The source goes on to
 * the config space only after that, so it does not have to be waited for.
 */
int vfio_ferry_load_confirm(VFIODevice *vbasedev)
{
    VFIOFerry *ferry = vbasedev->migration->ferry;
    Error *local_err = NULL;

    if (!ferry) {
        return vfio_ferry_load_allowed(vbasedev) ? 0 : -EINVAL;
    }
    if (qemu_sem_timedwait(&ferry->confirmed, VFIO_FERRY_CONFIRM_MS)) {
        error_report("%s: config space before the whole state",
                     vbasedev->name);
        return -EINVAL;
    }
    if (!vfio_ferry_is_well(ferry, &local_err)) {
        error_report_err(local_err);
        return -EINVAL;
    }
    return 0;
}

void vfio_ferry_load_cleanup(VFIODevice *vbasedev)
{
    VFIOFerry *ferry = vbasedev->migration->ferry;

    if (!ferry) {
        return;
    }
    /* The thread goes on until the source has been told. */
    vferry_channel_close(ferry->channel);
    vferry_session_cancel(ferry->session);
    qemu_thread_join(&ferry->thread);
    vbasedev->migration->ferry = NULL;
    vfio_ferry_free(ferry);
    vfio_ferry_refresh_state(vbasedev);
}
