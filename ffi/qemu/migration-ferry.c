/*
 * VFIO device state through vfio-ferry
 *
 * The library reads the data fd ahead of the link, compresses and checksums
 * what it reads, and on the other host verifies and writes it. QEMU makes the
 * SET_STATE calls and carries the library's bytes: from source to target in
 * the device's sections of the main channel, back as RETURN_DATA messages of
 * the return path. Where both hosts have multifd channels for device state the
 * library's frames travel over those (migration-ferry-multifd.c).
 *
 *   source                                  target
 *   migration thread: asks who is there --> each device that wants it answers
 *   save_setup: a session, PRE_COPY fd
 *   save_live_iterate: pulls, puts -------> load_state: gets, pushes
 *   return path thread: pushes <----------- ferry thread: pulls, sends
 *   save_live_stopped: the rest, until the target's device has taken it in
 *   save_state: the config space ---------> load_state
 *
 * Nothing in the library calls back or takes a lock of QEMU's. What it wants
 * done with the device is asked for with vferry_device_wanted() and done here:
 * on the source under the BQL, on the target by the ferry thread, which is the
 * only one that touches the device between load_setup and load_cleanup.
 *
 * Nothing here waits for the other host while it holds the BQL: a target that
 * is slow, frozen or dead leaves the source's QMP alone, and can be cancelled.
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

#include "migration/misc.h"
#include "migration/qemu-file.h"
#include "migration/register.h"
#include "migration-ferry.h"
#include "migration-ferry-multifd.h"
#include "qapi/clone-visitor.h"
#include "qapi/error.h"
#include "qapi/qapi-events-vfio.h"
#include "qapi/qapi-visit-migration.h"
#include "system/runstate.h"
#include "trace.h"

/* Bytes that follow one VFIO_MIG_FLAG_DEV_FERRY at most. */
#define VFIO_FERRY_BLOCK (256 * KiB)

/* Bytes of one device that a round of iterating puts at most, as stock does. */
#define VFIO_FERRY_ROUND (1 * MiB)

/* What the target's device can do, in its answer to the source's question. */
#define VFIO_FERRY_READY (1 << 0)
#define VFIO_FERRY_READY_MULTIFD (1 << 1)

/* How often a wait looks whether the migration has been cancelled. */
#define VFIO_FERRY_LOOK_MS 20

/* How long the target waits for its own thread to say what it knows. */
#define VFIO_FERRY_CONFIRM_MS 60000

/*
 * How long a driver may take to give back what was begun of a state that a
 * reset has made worthless. A cleanup, with the BQL held, waits for less; after
 * that a thread waits on.
 */
#define VFIO_FERRY_CANCEL_MS 30000
#define VFIO_FERRY_CLEANUP_MS 500

/*
 * QEMU watches over the connection, and while the guest runs the device's
 * turn may be long in coming: until RAM was sent for the first time nothing is
 * pulled. So only what no pass of RAM takes counts as a stall.
 */
#define VFIO_FERRY_STALL_MS (3600 * 1000)

/* How long the VM stands still for a device at most; then it runs on. */
#define VFIO_FERRY_SWITCHOVER_MS (300 * 1000)

/* Resets of one device that a migration with on-reset=restart survives. */
#define VFIO_FERRY_RESTARTS 8

/*
 * Most memory for the buffers of all devices: each of a migration's devices
 * gets an equal part of half of it, and no more than it can use. The other half
 * is for sessions of a migration before, which a driver holds.
 */
#define VFIO_FERRY_MEMORY (256 * MiB)
#define VFIO_FERRY_SESSION_MEMORY (32 * MiB)

/* More than any downtime allows: not to be stopped now. */
#define VFIO_FERRY_NOT_YET (100 * GiB)

/* linux/vfio.h of newer kernels: REINIT says that there is new initial data. */
#ifndef VFIO_PRECOPY_INFO_REINIT
#define VFIO_PRECOPY_INFO_REINIT (1 << 0)
#define VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2 12
#endif

/*
 * What the sessions of all devices share: the threads that compress, and the
 * memory for buffers. It is there as long as there is a session.
 */
static struct {
    QemuMutex lock;
    vferry_engine *engine;
    unsigned sessions;
} shared;

struct VFIOFerry {
    VFIODevice *vbasedev;
    char *name;
    vferry_host host;
    vferry_channel *channel;
    /* Source: its frames travel over multifd channels. */
    VFIOFerryFrames *frames;
    vferry_device *device;
    vferry_session *session;
    bool shares;
    uint8_t *buffer;
    /* What events said. On the target under @lock. */
    bool initial_data_loaded;
    bool was_reset;
    char *reset_reason;
    bool reset_restarts;
    bool finished;
    char *failure;
    uint64_t pending_bytes;
    double ratio;
    unsigned restarts;
    /* Source: it saves in PRE_COPY. */
    bool precopy;
    /* Source: the data fd's duplicate, for VFIO_MIG_GET_PRECOPY_INFO. */
    int precopy_fd;
    bool switched_over;
    /* Source: it is in the list, and who else uses it. Under leaving_lock. */
    bool listed;
    unsigned users;
    /* Target. */
    bool silent;
    QemuThread thread;
    QemuMutex lock;
    QemuSemaphore confirmed;
    QLIST_ENTRY(VFIOFerry) next;
};

/*
 * The source's. The thread that holds the BQL changes the list; the lock keeps
 * a session alive while the migration's and the return path's thread use it,
 * because a device may be unplugged meanwhile.
 */
static QemuMutex leaving_lock;
static QLIST_HEAD(, VFIOFerry) leaving = QLIST_HEAD_INITIALIZER(leaving);

static void __attribute__((constructor)) vfio_ferry_init(void)
{
    qemu_mutex_init(&leaving_lock);
    qemu_mutex_init(&shared.lock);
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
    return true;
}

/* How many devices may have a session in one migration. The BQL is held. */
static unsigned vfio_ferry_devices(void)
{
    VFIODevice *vbasedev;
    unsigned count = 0;

    QLIST_FOREACH(vbasedev, &vfio_device_list, global_next) {
        count += vbasedev->migration &&
                 vbasedev->migration_ferry != ON_OFF_AUTO_OFF;
    }
    return MAX(count, 1);
}

/*
 * The session is to have its part of what all share, and of the path: QEMU's
 * channel takes of each device in turn. How fast the channel is while the VM
 * stands still is known if the user has said so; max-bandwidth, which holds
 * until then, says nothing of that.
 */
static bool vfio_ferry_share(VFIOFerry *ferry, vferry_options *options)
{
    unsigned devices = vfio_ferry_devices();
    size_t memory = MIN(VFIO_FERRY_MEMORY / 2 / devices,
                        VFIO_FERRY_SESSION_MEMORY);
    QEMU_LOCK_GUARD(&shared.lock);

    if (!shared.sessions &&
        vferry_engine_new(&shared.engine, NULL, VFIO_FERRY_MEMORY)) {
        return false;
    }
    shared.sessions++;
    ferry->shares = true;
    return !vferry_options_set_engine(options, shared.engine) &&
           !vferry_options_set_memory_bytes(options, memory) &&
           !vferry_options_set_path_rate(
               options, migrate_avail_switchover_bandwidth() / devices);
}

static void vfio_ferry_unshare(VFIOFerry *ferry)
{
    QEMU_LOCK_GUARD(&shared.lock);

    if (ferry->shares && !--shared.sessions) {
        vferry_engine_free(&shared.engine);
    }
}

static void vfio_ferry_free(VFIOFerry *ferry)
{
    /*
     * Freeing it waits for a driver's operation, within the cancel bound, and
     * for no peer.
     */
    vferry_session_cancel(ferry->session);
    vfio_ferry_frames_free(ferry->frames);
    vferry_channel_free(&ferry->channel);
    vferry_session_free(&ferry->session);
    vferry_device_free(&ferry->device);
    vfio_ferry_unshare(ferry);
    if (ferry->precopy_fd != -1) {
        close(ferry->precopy_fd);
    }
    qemu_mutex_destroy(&ferry->lock);
    qemu_sem_destroy(&ferry->confirmed);
    g_free(ferry->name);
    g_free(ferry->failure);
    g_free(ferry->reset_reason);
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
    ferry->name = g_strdup(vbasedev->name);
    ferry->host = host;
    ferry->ratio = 1.0;
    ferry->precopy_fd = -1;
    ferry->buffer = g_malloc(VFIO_FERRY_BLOCK);
    qemu_mutex_init(&ferry->lock);
    qemu_sem_init(&ferry->confirmed, 0);

    ok = !vferry_options_new(&options) &&
         vfio_ferry_share(ferry, options) &&
         !vferry_options_set_peer_silence_ms(options, VFERRY_NO_LIMIT) &&
         !vferry_options_set_handshake_limit_ms(options, VFERRY_NO_LIMIT) &&
         !vferry_options_set_idle_limit_ms(options, VFERRY_NO_LIMIT) &&
         !vferry_options_set_stall_limit_ms(options, VFIO_FERRY_STALL_MS) &&
         !vferry_options_set_switchover_budget_ms(options,
                                                  VFIO_FERRY_SWITCHOVER_MS) &&
         !vferry_options_set_cancel_bound_ms(options,
                                             host == VFERRY_HOST_SOURCE ?
                                             VFIO_FERRY_CANCEL_MS :
                                             VFIO_FERRY_CLEANUP_MS) &&
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

/* An epoch of the device ended. */
static void vfio_ferry_hear_completion(VFIOFerry *ferry,
                                       const vferry_event *event)
{
    trace_vfio_ferry_completion(ferry->name,
                                vferry_epoch_ending_text(event->epoch_ending),
                                vferry_cause_text(event->cause),
                                vferry_observed_text(event->observed),
                                event->os_error, event->bytes);
    if (event->cause == VFERRY_CAUSE_DEVICE_RESET) {
        ferry->was_reset = true;
        g_free(ferry->reset_reason);
        ferry->reset_reason = g_strdup(event->text);
        ferry->reset_restarts = event->epoch_ending == VFERRY_EPOCH_RESTARTED;
    }
    if (event->epoch_ending == VFERRY_EPOCH_RESTARTED) {
        ferry->initial_data_loaded = false;
        ferry->pending_bytes = 0;
        ferry->restarts++;
        warn_report("%s: %s; its migration starts again", ferry->name,
                    event->text);
    }
}

/* Takes in what there is to hear. */
static void vfio_ferry_hear(VFIOFerry *ferry)
{
    vferry_event event = { .size = sizeof(event) };

    for (; !vferry_session_poll(ferry->session, &event);
         event.size = sizeof(event)) {
        QEMU_LOCK_GUARD(&ferry->lock);

        switch (event.type) {
        case VFERRY_EVENT_PHASE:
            trace_vfio_ferry_phase(ferry->name,
                                   vferry_phase_text(event.phase));
            break;
        case VFERRY_EVENT_ESTIMATE:
            ferry->pending_bytes = event.pending_bytes;
            ferry->ratio = MAX(event.ratio, 1.0);
            ferry->initial_data_loaded =
                event.flags & VFERRY_EVENT_FLAG_INITIAL_DATA_LOADED;
            break;
        case VFERRY_EVENT_COMPLETION:
            vfio_ferry_hear_completion(ferry, &event);
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

static void *vfio_ferry_free_thread(void *opaque)
{
    vfio_ferry_free(opaque);
    return NULL;
}

/* Ends and frees a session, and does not wait long for a driver. */
static void vfio_ferry_release(VFIOFerry *ferry)
{
    int64_t until = g_get_monotonic_time() + VFIO_FERRY_CLEANUP_MS * 1000;
    GPollFD fd = { .events = G_IO_IN };
    QemuThread thread;
    int64_t left;

    vferry_session_cancel(ferry->session);
    vferry_session_event_fd(ferry->session, &fd.fd);
    for (vfio_ferry_hear(ferry); !ferry->finished; vfio_ferry_hear(ferry)) {
        left = until - g_get_monotonic_time();
        if (left <= 0) {
            qemu_thread_create(&thread, "vfio-ferry-free",
                               vfio_ferry_free_thread, ferry,
                               QEMU_THREAD_DETACHED);
            return;
        }
        g_poll(&fd, 1, DIV_ROUND_UP(left, 1000));
    }
    vfio_ferry_free(ferry);
}

/* False, with the reason, once the session has ended without success. */
static bool vfio_ferry_is_well(VFIOFerry *ferry, Error **errp)
{
    QEMU_LOCK_GUARD(&ferry->lock);

    if (ferry->failure) {
        error_setg(errp, "%s: %s", ferry->name, ferry->failure);
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
    if (!ioctl(vbasedev->fd, VFIO_DEVICE_FEATURE, feature) &&
        vbasedev->migration->device_state != state->device_state) {
        vfio_migration_set_device_state(vbasedev, state->device_state);
    }
}

/* Asks the kernel for REINIT, which it reports from then on if it knows it. */
static void vfio_ferry_ask_for_reinit(VFIODevice *vbasedev)
{
    struct vfio_device_feature feature = {
        .argsz = sizeof(feature),
        .flags = VFIO_DEVICE_FEATURE_SET |
                 VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2,
    };

    ioctl(vbasedev->fd, VFIO_DEVICE_FEATURE, &feature);
}

/* VFIO_MIG_GET_PRECOPY_INFO, which QEMU makes because it moves the device. */
static int vfio_ferry_precopy_info(VFIOFerry *ferry,
                                   struct vfio_precopy_info *info)
{
    *info = (struct vfio_precopy_info) { .argsz = sizeof(*info) };
    return ioctl(ferry->precopy_fd, VFIO_MIG_GET_PRECOPY_INFO, info) ? -errno
                                                                     : 0;
}

/* Tells the engine of the last SET_STATE, and gives it the fd that it left. */
static void vfio_ferry_moved(VFIOFerry *ferry, uint32_t state)
{
    VFIOMigration *migration = ferry->vbasedev->migration;
    bool precopy = state == VFIO_DEVICE_STATE_PRE_COPY ||
                   state == VFIO_DEVICE_STATE_PRE_COPY_P2P;
    struct vfio_precopy_info info;
    int fd = migration->data_fd;

    trace_vfio_ferry_hand_out(ferry->name, state, fd);
    migration->data_fd = -1;
    if (precopy && fd != -1) {
        if (ferry->precopy_fd != -1) {
            close(ferry->precopy_fd);
        }
        ferry->precopy_fd = qemu_dup(fd);
        /* Until the engine has an estimate. */
        if (!vfio_ferry_precopy_info(ferry, &info)) {
            ferry->pending_bytes = info.initial_bytes + info.dirty_bytes;
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
    /* Without the kernel's consent it returns the flags that it was given. */
    vferry_device_precopy_info_done(ferry->device, info.initial_bytes,
                                    info.dirty_bytes,
                                    info.flags & VFIO_PRECOPY_INFO_REINIT ?
                                    VFERRY_PRECOPY_INFO_REINIT : 0, -ret);
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

/*
 * The same on the source, where others move the device as well, and may have
 * unplugged it.
 */
static void vfio_ferry_serve_locked(VFIOFerry *ferry)
{
    uint32_t want = VFERRY_WANT_NOTHING;

    vferry_device_wanted(ferry->device, &want);
    if (want == VFERRY_WANT_PRECOPY_INFO) {
        vfio_ferry_serve(ferry);
    } else if (want != VFERRY_WANT_NOTHING) {
        BQL_LOCK_GUARD();
        if (ferry->listed) {
            vfio_ferry_serve(ferry);
        }
    }
}

/*
 * Waits until there is something to hear or to pull, or something to do: for
 * this device, and once the VM has stopped for all that leave with it.
 */
static void vfio_ferry_wait(VFIOFerry *ferry, int timeout_ms)
{
    GPollFD fds[3 * VFERRY_DEVICES_MAX] = {};
    VFIOFerry *each = ferry;
    int i, count = 0;

    do {
        /* One that has finished may have its last word to be pulled yet. */
        if ((each == ferry || !each->finished) &&
            count + 3 <= ARRAY_SIZE(fds)) {
            vferry_session_event_fd(each->session, &fds[count++].fd);
            if (!vfio_ferry_frames_started(each->frames)) {
                vferry_channel_fd(each->channel, &fds[count++].fd);
            }
            vferry_device_event_fd(each->device, &fds[count++].fd);
        }
        if (!ferry->switched_over) {
            break;
        }
        each = each == ferry ? QLIST_FIRST(&leaving) : QLIST_NEXT(each, next);
        if (each == ferry) {
            each = QLIST_NEXT(each, next);
        }
    } while (each);
    for (i = 0; i < count; i++) {
        fds[i].events = G_IO_IN;
    }
    g_poll(fds, count, timeout_ms);
}

/* --- source -------------------------------------------------------------- */

static char *vfio_ferry_qom_path(VFIODevice *vbasedev)
{
    return object_get_canonical_path(
        vbasedev->ops->vfio_get_object(vbasedev));
}

/* Tells those who listen to QMP that the device was reset. */
static void vfio_ferry_tell_reset(VFIOFerry *ferry)
{
    VFIODevice *vbasedev = ferry->vbasedev;
    g_autofree char *qom_path = NULL;

    if (!ferry->was_reset) {
        return;
    }
    ferry->was_reset = false;
    BQL_LOCK_GUARD();
    if (!ferry->listed) {
        return; /* It was unplugged. */
    }
    if (vbasedev->migration_events) {
        qom_path = vfio_ferry_qom_path(vbasedev);
        qapi_event_send_vfio_ferry_reset(vbasedev->dev->id, qom_path,
                                         ferry->reset_reason,
                                         ferry->reset_restarts);
    }
    vfio_ferry_refresh_state(vbasedev);
}

/* Begins the figures that query-migrate shows of the device. */
static void vfio_ferry_stats_new(VFIODevice *vbasedev)
{
    VfioFerryStats *stats = g_new0(VfioFerryStats, 1);

    stats->device_id = g_strdup(vbasedev->dev->id ?: "");
    stats->qom_path = vfio_ferry_qom_path(vbasedev);
    stats->ratio = 1.0;
    vbasedev->migration->ferry_stats = stats;
}

static void vfio_ferry_stats_free(VFIODevice *vbasedev)
{
    qapi_free_VfioFerryStats(vbasedev->migration->ferry_stats);
    vbasedev->migration->ferry_stats = NULL;
}

/* Brings them up to date. */
static void vfio_ferry_stats_count(VFIOFerry *ferry)
{
    VfioFerryStats *stats = ferry->vbasedev->migration->ferry_stats;
    vferry_device_stats counted = { .size = sizeof(counted) };
    QEMU_LOCK_GUARD(&ferry->lock);

    stats->restarts = ferry->restarts;
    if (vferry_session_device_stats(ferry->session, 0, &counted)) {
        return;
    }
    stats->state_bytes = counted.state_bytes;
    stats->wire_bytes = counted.wire_bytes;
    if (counted.wire_bytes) {
        stats->ratio = (double)counted.state_bytes / counted.wire_bytes;
    }
}

/* The figures of all devices that leave or left so, for query-migrate. */
VfioFerryStatsList *vfio_ferry_query(void)
{
    VfioFerryStatsList *list = NULL;
    VFIODevice *vbasedev;

    QLIST_FOREACH(vbasedev, &vfio_device_list, global_next) {
        VFIOMigration *migration = vbasedev->migration;

        if (!migration || !migration->ferry_stats) {
            continue;
        }
        if (migration->ferry) {
            vfio_ferry_stats_count(migration->ferry);
        }
        QAPI_LIST_PREPEND(list,
                          QAPI_CLONE(VfioFerryStats, migration->ferry_stats));
    }
    return list;
}

/* Whether this migration may move the device's state so, as far as is known. */
static bool vfio_ferry_is_wanted(VFIODevice *vbasedev)
{
    return vbasedev->migration_ferry != ON_OFF_AUTO_OFF &&
           !runstate_check(RUN_STATE_SAVE_VM) && migrate_is_live();
}

int vfio_ferry_save_prepare(VFIODevice *vbasedev, Error **errp)
{
    vbasedev->migration->ferry_answered = false;
    vbasedev->migration->ferry_answered_multifd = false;
    vfio_ferry_stats_free(vbasedev);
    if (vfio_ferry_is_wanted(vbasedev) &&
        vbasedev->migration_ferry == ON_OFF_AUTO_ON &&
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
    bool frames = vfio_ferry_frames_possible(vbasedev) &&
                  migration->ferry_answered_multifd;
    VFIOFerry *ferry;

    if (!vfio_ferry_is_wanted(vbasedev) ||
        (vbasedev->migration_ferry == ON_OFF_AUTO_AUTO &&
         migration->multifd_transfer && !frames)) {
        return 0;
    }
    if (!migration->ferry_answered) {
        if (vbasedev->migration_ferry == ON_OFF_AUTO_ON) {
            error_setg(errp, "%s: x-migration-ferry=on, but this device of the "
                       "target does not take its state so: its QEMU needs "
                       "vfio-ferry, and x-migration-ferry=on or auto on the "
                       "device", vbasedev->name);
            return -EOPNOTSUPP;
        }
        trace_vfio_ferry_not_used(vbasedev->name);
        return 0;
    }
    if (vbasedev->migration_multifd_transfer == ON_OFF_AUTO_ON && !frames) {
        error_setg(errp, "%s: x-migration-multifd-transfer=on, but this device "
                   "of the target does not take its state through vfio-ferry "
                   "so: both hosts need the migration capability multifd, and "
                   "not x-migration-multifd-transfer=off", vbasedev->name);
        return -EOPNOTSUPP;
    }

    ferry = vfio_ferry_new(vbasedev, VFERRY_HOST_SOURCE,
                           precopy ? VFERRY_EMBEDDED_PRECOPY |
                           VFERRY_EMBEDDED_PRECOPY_INFO : 0, errp);
    if (!ferry) {
        return -EINVAL;
    }
    if (frames) {
        ferry->frames = vfio_ferry_frames_new(vbasedev, ferry->channel, errp);
        if (!ferry->frames) {
            vfio_ferry_free(ferry);
            return -EINVAL;
        }
        /* Not in stock QEMU's way. */
        migration->multifd_transfer = false;
    }
    ferry->precopy = precopy;
    vfio_ferry_stats_new(vbasedev);
    if (precopy) {
        vfio_ferry_ask_for_reinit(vbasedev);
        vfio_ferry_moved(ferry, VFIO_DEVICE_STATE_PRE_COPY);
    }
    trace_vfio_ferry_used(vbasedev->name, vferry_version_text());
    WITH_QEMU_LOCK_GUARD(&leaving_lock) {
        migration->ferry = ferry;
        ferry->listed = true;
        ferry->users = 1;
        QLIST_INSERT_HEAD(&leaving, ferry, next);
    }
    return 0;
}

/* The source's session, which stays until it is put back. */
static VFIOFerry *vfio_ferry_get(VFIODevice *vbasedev)
{
    QEMU_LOCK_GUARD(&leaving_lock);
    VFIOFerry *ferry = vbasedev->migration->ferry;

    if (ferry) {
        ferry->users++;
    }
    return ferry;
}

static void vfio_ferry_put_back(VFIOFerry *ferry)
{
    bool last = false;

    WITH_QEMU_LOCK_GUARD(&leaving_lock) {
        last = !--ferry->users;
    }
    if (last) {
        vfio_ferry_release(ferry);
    }
}

/*
 * The VM stopped or goes on, and the device was moved with it (BQL held). The
 * engine hears of it at once: a reset that neither has seen yet shows in a new
 * data fd.
 */
void vfio_ferry_vm_changed(VFIODevice *vbasedev, bool running)
{
    VFIOMigration *migration = vbasedev->migration;
    VFIOFerry *ferry = migration->ferry;
    Error *err = NULL;

    if (!ferry || ferry->host != VFERRY_HOST_SOURCE || ferry->finished) {
        return;
    }
    if (running && migrate_is_given_up()) {
        /* It is the end of a migration that came to nothing. */
        vferry_session_cancel(ferry->session);
        return;
    }
    if (running && vfio_ferry_on_reset(vbasedev->migration_ferry_on_reset) ==
        VFERRY_ON_RESET_ABORT) {
        error_setg(&err, "%s: the VM was stopped and went on while the device "
                   "was saved, which makes void what was saved of it; "
                   "x-migration-ferry-on-reset=restart would save it anew",
                   vbasedev->name);
        migrate_give_up(-ECANCELED, err);
        vferry_session_cancel(ferry->session);
        return;
    }
    vfio_ferry_moved(ferry, migration->device_state);
}

/*
 * What has to be sent yet, as QEMU counts it: bytes on the wire. @stop_copy are
 * those that come when the VM has stopped.
 */
void vfio_ferry_save_pending(VFIODevice *vbasedev, uint64_t stop_copy,
                             uint64_t *must_precopy)
{
    VFIOMigration *migration = vbasedev->migration;
    VFIOFerry *ferry = migration->ferry;

    if (!vfio_device_state_is_precopy(vbasedev)) {
        /* As stock: a VM that has stopped has nothing to lose. */
        if (!runstate_is_running()) {
            return;
        }
        if (!ferry->precopy) {
            *must_precopy += stop_copy / ferry->ratio;
            return;
        }
        /* It was reset, and what PRE_COPY will have anew is not known yet. */
        if (vfio_ferry_on_reset(vbasedev->migration_ferry_on_reset) !=
            VFERRY_ON_RESET_STOP_COPY &&
            ferry->restarts <= VFIO_FERRY_RESTARTS) {
            *must_precopy += VFIO_FERRY_NOT_YET;
            return;
        }
    }
    *must_precopy += (ferry->pending_bytes + stop_copy) / ferry->ratio;
    /* The target's consent was to data that a reset has made worthless. */
    if (migrate_switchover_ack() && migration->initial_data_sent &&
        !ferry->initial_data_loaded) {
        *must_precopy += VFIO_FERRY_NOT_YET;
    }
}

/*
 * What the return path brought. The lock is not held while there is no room,
 * so that a session that nobody reads can be cleaned up.
 */
bool vfio_ferry_return_data(void *opaque, MigrationReturnData kind,
                            const uint8_t *buf, size_t len, Error **errp)
{
    VFIODevice *vbasedev = opaque;
    vferry_status status = VFERRY_OK;
    size_t pushed;

    if (kind == MIGRATION_RETURN_DATA_READY) {
        vbasedev->migration->ferry_answered = true;
        vbasedev->migration->ferry_answered_multifd =
            len && buf[0] & VFIO_FERRY_READY_MULTIFD;
        return true;
    }
    while (len && status <= VFERRY_ERR_FULL) {
        if (status == VFERRY_ERR_FULL) {
            if (migrate_is_given_up()) {
                break;
            }
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

/*
 * Puts what the engine has ready, @most bytes or a little more. Negative if it
 * cannot be sent.
 */
static ssize_t vfio_ferry_put(QEMUFile *f, VFIOFerry *ferry, size_t most)
{
    ssize_t total = 0;
    size_t count;

    if (ferry->frames) {
        total = vfio_ferry_frames_put(ferry->frames, f, most);
        most = 0;
    }
    while (total < most &&
           !vferry_channel_pull(ferry->channel, ferry->buffer,
                                VFIO_FERRY_BLOCK, &count)) {
        qemu_put_be64(f, VFIO_MIG_FLAG_DEV_FERRY);
        qemu_put_be32(f, count);
        qemu_put_buffer(f, ferry->buffer, count);
        total += count;
    }
    if (total > 0) {
        vfio_migration_add_bytes_transferred(total);
    }
    return total;
}

/*
 * Hears, serves and puts a round's bytes. Negative if it cannot go on: then
 * the migration has its error.
 */
static ssize_t vfio_ferry_turn(QEMUFile *f, VFIOFerry *ferry)
{
    VFIOFerry *each;
    Error *err = NULL;

    vfio_ferry_hear(ferry);
    vfio_ferry_tell_reset(ferry);
    if (!vfio_ferry_is_well(ferry, &err)) {
        migrate_give_up(-EIO, err);
        /* The last of it tells the target why. */
        vfio_ferry_put(f, ferry, SIZE_MAX);
        return -EIO;
    }
    if (migrate_is_given_up()) {
        /* The return path broke, or the target has said why it refuses. */
        migration_file_set_error(-ECANCELED, NULL);
        return -ECANCELED;
    }
    vfio_ferry_serve_locked(ferry);
    if (ferry->switched_over) {
        QLIST_FOREACH(each, &leaving, next) {
            vfio_ferry_serve_locked(each);
        }
    }
    return vfio_ferry_put(f, ferry, VFIO_FERRY_ROUND);
}

int vfio_ferry_save_iterate(QEMUFile *f, VFIODevice *vbasedev)
{
    VFIOMigration *migration = vbasedev->migration;
    VFIOFerry *ferry = vfio_ferry_get(vbasedev);
    bool converged;
    ssize_t put;

    if (!ferry) {
        return -ENODEV;
    }
    put = vfio_ferry_turn(f, ferry);
    if (!put && ferry->pending_bytes) {
        /* The device is behind: let it, rather than ask again at once. */
        vfio_ferry_wait(ferry, 1);
        put = vfio_ferry_turn(f, ferry);
    }
    if (put < 0) {
        vfio_ferry_put_back(ferry);
        return put;
    }

    if (migrate_switchover_ack() && ferry->initial_data_loaded &&
        !migration->initial_data_sent) {
        qemu_put_be64(f, VFIO_MIG_FLAG_DEV_INIT_DATA_SENT);
        migration->initial_data_sent = true;
    } else {
        qemu_put_be64(f, VFIO_MIG_FLAG_END_OF_STATE);
    }
    trace_vfio_save_iterate(ferry->name, 0, ferry->pending_bytes);
    converged = !ferry->pending_bytes;
    if (put) {
        /* The target's answers are waited for, so it must have all of it. */
        qemu_fflush(f);
    }
    vfio_ferry_put_back(ferry);
    return converged;
}

/* Whether the target's device has not taken the whole state in. */
bool vfio_ferry_stopped_pending(void *opaque)
{
    VFIODevice *vbasedev = opaque;
    VFIOFerry *ferry = vbasedev->migration->ferry;

    return ferry && (!ferry->finished || ferry->failure);
}

/*
 * The VM has stopped. All devices begin to save at once, each into its own
 * buffers, and the channel takes of each in turn; until the target's drivers
 * have taken all of it in, and both hosts agree on that.
 */
int vfio_ferry_save_stopped(QEMUFile *f, void *opaque)
{
    VFIODevice *vbasedev = opaque;
    VFIOFerry *ferry = vbasedev->migration->ferry;
    VFIOFerry *each;
    ssize_t put;

    QLIST_FOREACH(each, &leaving, next) {
        if (!each->switched_over) {
            trace_vfio_save_complete_precopy_start(each->name);
            each->switched_over = true;
            vferry_session_switchover(each->session);
            vfio_ferry_frames_start(each->frames);
        }
    }
    put = vfio_ferry_turn(f, ferry);
    if (!put && !ferry->finished) {
        qemu_fflush(f);
        vfio_ferry_wait(ferry, VFIO_FERRY_LOOK_MS);
        put = vfio_ferry_turn(f, ferry);
    }
    if (put < 0) {
        return put;
    }
    qemu_put_be64(f, VFIO_MIG_FLAG_END_OF_STATE);
    return 0;
}

/* All of it was sent and taken in, or the migration has failed. */
int vfio_ferry_save_complete(QEMUFile *f, VFIODevice *vbasedev)
{
    if (vfio_ferry_stopped_pending(vbasedev)) {
        return -EIO;
    }
    qemu_put_be64(f, VFIO_MIG_FLAG_END_OF_STATE);
    trace_vfio_save_complete_precopy(vbasedev->name, 0);
    return 0;
}

/* Ends the session of a device that leaves or stays. False if it had none. */
static bool vfio_ferry_save_end(VFIODevice *vbasedev)
{
    VFIOFerry *ferry;

    WITH_QEMU_LOCK_GUARD(&leaving_lock) {
        ferry = vbasedev->migration->ferry;
        if (!ferry || ferry->host != VFERRY_HOST_SOURCE) {
            return false;
        }
        vbasedev->migration->ferry = NULL;
        ferry->listed = false;
        QLIST_REMOVE(ferry, next);
    }
    vfio_ferry_stats_count(ferry);
    vferry_session_cancel(ferry->session);
    vfio_ferry_frames_stop(ferry->frames, !ferry->finished || ferry->failure ||
                                          migrate_is_given_up());
    vfio_ferry_put_back(ferry);
    return true;
}

void vfio_ferry_save_cleanup(VFIODevice *vbasedev)
{
    if (vfio_ferry_save_end(vbasedev)) {
        vfio_ferry_refresh_state(vbasedev);
    }
}

/*
 * The guest has let go of a device that it was asked for before. Its state is
 * part of what the target has been told, so the migration fails; and before
 * the device's handlers go, so that nobody else finds a reason.
 */
void vfio_ferry_unplug(VFIODevice *vbasedev)
{
    VFIOFerry *ferry = vbasedev->migration->ferry;
    Error *err = NULL;

    if (ferry && ferry->host == VFERRY_HOST_SOURCE) {
        error_setg(&err, "%s was unplugged while its state was being sent",
                   vbasedev->name);
        migrate_give_up(-ENODEV, err);
    }
}

/* And now no thread of the migration's calls them any more. */
void vfio_ferry_unplugged(VFIODevice *vbasedev)
{
    if (vfio_ferry_save_end(vbasedev)) {
        /* save_cleanup, which would do so, is not called any more. */
        g_free(vbasedev->migration->data_buffer);
        vbasedev->migration->data_buffer = NULL;
    }
    vfio_ferry_stats_free(vbasedev);
}

/* --- target -------------------------------------------------------------- */

uint8_t vfio_ferry_return_data_ready(void *opaque)
{
    VFIODevice *vbasedev = opaque;

    if (vbasedev->migration_ferry == ON_OFF_AUTO_OFF) {
        return 0;
    }
    return VFIO_FERRY_READY | (vfio_ferry_frames_possible(vbasedev) ?
                               VFIO_FERRY_READY_MULTIFD : 0);
}

/* Why this device does not take in what comes: to the log and the source. */
static void vfio_ferry_refuse(VFIODevice *vbasedev, Error *err)
{
    const char *why = error_get_pretty(err);

    migrate_send_return_data(vbasedev, MIGRATION_RETURN_DATA_REFUSED,
                             (const uint8_t *)why, strlen(why));
    error_report_err(err);
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
            if (!qatomic_read(&ferry->silent)) {
                migrate_send_return_data(ferry->vbasedev,
                                         MIGRATION_RETURN_DATA_BYTES, buf,
                                         count);
            }
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
        vbasedev->migration->multifd_transfer = false;
        /* load_setup has set RESUMING. */
        vfio_ferry_moved(ferry, VFIO_DEVICE_STATE_RESUMING);
        vbasedev->migration->ferry = ferry;
        qemu_thread_create(&ferry->thread, "vfio-ferry", vfio_ferry_load_thread,
                           ferry, QEMU_THREAD_JOINABLE);
        trace_vfio_ferry_used(vbasedev->name, vferry_version_text());
    }
    return ferry;
}

/* Gives the session so many bytes of the stream; false once it is over. */
static bool vfio_ferry_load_push(VFIOFerry *ferry, const uint8_t *bytes,
                                 size_t size)
{
    GPollFD fd = { .events = G_IO_OUT };
    vferry_status status;
    size_t pushed;

    vferry_channel_fd(ferry->channel, &fd.fd);
    while (size) {
        status = vferry_channel_push(ferry->channel, bytes, size, &pushed);
        if (status == VFERRY_OK) {
            bytes += pushed;
            size -= pushed;
        } else if (status == VFERRY_ERR_FULL) {
            /* The device takes its time, as a write() to it would. */
            g_poll(&fd, 1, -1);
        } else {
            return false; /* Why is known, or about to be. */
        }
    }
    return true;
}

/* A multifd packet, in one of the threads of those channels. */
bool vfio_ferry_load_packet(VFIODevice *vbasedev, const char *data, size_t len,
                            Error **errp)
{
    VFIOFerry *ferry = vbasedev->migration->ferry;

    if (ferry->host != VFERRY_HOST_TARGET) {
        error_setg(errp, "%s: it leaves, and state of it came", ferry->name);
        return false;
    }
    return vfio_ferry_frames_packet(ferry->channel, ferry->name, data, len,
                                    errp);
}

/*
 * What follows VFIO_MIG_FLAG_DEV_FERRY, bytes of a stream, or
 * VFIO_MIG_FLAG_DEV_FERRY_FRAME, a whole @frame.
 */
int vfio_ferry_load_block(QEMUFile *f, VFIODevice *vbasedev, bool frame)
{
    VFIOFerry *ferry = vbasedev->migration->ferry;
    uint32_t size = qemu_get_be32(f);
    Error *local_err = NULL;

    if (!ferry) {
        ferry = vfio_ferry_load_begin(vbasedev, &local_err);
        if (!ferry) {
            vfio_ferry_refuse(vbasedev, local_err);
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

    if (!frame) {
        vfio_ferry_load_push(ferry, ferry->buffer, size);
    } else if (!vfio_ferry_frames_push(ferry->channel, ferry->name,
                                       ferry->buffer, size, &local_err)) {
        vfio_ferry_refuse(vbasedev, local_err);
        return -EINVAL;
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
    Error *err = NULL;

    if (vbasedev->migration->ferry) {
        error_setg(&err, "%s: state beside vfio-ferry's", vbasedev->name);
    } else if (vbasedev->migration_ferry == ON_OFF_AUTO_ON &&
               migrate_incoming_is_live()) {
        error_setg(&err, "%s: x-migration-ferry=on, but the source does not "
                   "send its state so", vbasedev->name);
    } else {
        return true;
    }
    vfio_ferry_refuse(vbasedev, err);
    return false;
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
    if (ferry->host != VFERRY_HOST_TARGET) {
        return;
    }
    /*
     * The thread goes on until the source has been told why, if it was this
     * device's fault; of others the source hears otherwise.
     */
    WITH_QEMU_LOCK_GUARD(&ferry->lock) {
        qatomic_set(&ferry->silent, !ferry->finished);
    }
    vferry_channel_close(ferry->channel);
    vferry_session_cancel(ferry->session);
    qemu_thread_join(&ferry->thread);
    vbasedev->migration->ferry = NULL;
    vfio_ferry_free(ferry);
    vfio_ferry_refresh_state(vbasedev);
}
