/*
 * VFIO device state through vfio-ferry, over multifd channels
 *
 * Multifd gives each packet to whichever channel is idle, so packets overtake
 * each other, and a stream of bytes cannot be cut over them. Whole frames can:
 * the library puts them in order, and how many are under way is bounded by the
 * credit that the target's session gives, however slow its device is.
 *
 * While the VM runs the migration thread queues frames in the device's turn, as
 * the bandwidth allows. When it has stopped a thread for each device does, so
 * that no device waits for another one's frames.
 * The first frame, which opens the session, goes over the main channel: what
 * the target answers to it says that there is somebody for the others.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/units.h"

#include "migration/misc.h"
#include "migration/qemu-file.h"
#include "migration-ferry-multifd.h"
#include "qapi/error.h"
#include "trace.h"

/* Of a packet with a frame in it. Others are stock QEMU's, of version 0. */
#define VFIO_FERRY_PACKET_VERSION 1

/* How often a wait looks whether it is still wanted. */
#define VFIO_FERRY_FRAMES_LOOK_MS 20

/* The same beginning as VFIODeviceStatePacket; index and flags are zero. */
typedef struct VFIOFerryPacket {
    uint32_t version;
    uint32_t idx;
    uint32_t flags;
    uint8_t frame[0];
} QEMU_PACKED VFIOFerryPacket;

struct VFIOFerryFrames {
    VFIODevice *vbasedev;
    vferry_channel *channel;
    char *idstr;
    uint32_t instance_id;
    /* The frame that is being pulled, and how much of it there is. */
    VFIOFerryPacket *packet;
    size_t have;
    bool opened;
    QemuThread thread;
    bool started;
    bool stop;
    bool failed;
};

bool vfio_ferry_frames_possible(VFIODevice *vbasedev)
{
    return vbasedev->migration_multifd_transfer != ON_OFF_AUTO_OFF &&
           multifd_device_state_supported();
}

/* --- source -------------------------------------------------------------- */

VFIOFerryFrames *vfio_ferry_frames_new(VFIODevice *vbasedev,
                                       vferry_channel *channel, Error **errp)
{
    VFIOFerryFrames *frames = g_new0(VFIOFerryFrames, 1);

    frames->vbasedev = vbasedev;
    frames->channel = channel;
    if (!migrate_get_device_name(vbasedev, &frames->idstr,
                                 &frames->instance_id)) {
        error_setg(errp, "%s: the device has no name for its state",
                   vbasedev->name);
        g_free(frames);
        return NULL;
    }
    trace_vfio_ferry_multifd(vbasedev->name);
    return frames;
}

void vfio_ferry_frames_free(VFIOFerryFrames *frames)
{
    if (frames) {
        g_free(frames->idstr);
        g_free(frames->packet);
        g_free(frames);
    }
}

/* Pulls the next frame, or more of it. VFERRY_OK if it is whole. */
static vferry_status vfio_ferry_frames_pull(VFIOFerryFrames *frames)
{
    if (!frames->packet) {
        /* Memory that is not written to is not taken. */
        frames->packet = g_malloc(sizeof(*frames->packet) +
                                  VFERRY_FRAME_BYTES_MAX);
        frames->have = 0;
    }
    return vferry_channel_pull_frame(frames->channel, frames->packet->frame,
                                     VFERRY_FRAME_BYTES_MAX, &frames->have);
}

/*
 * Gives the frame to a channel. Waits for one, and is woken if the migration is
 * cancelled or has failed.
 */
static bool vfio_ferry_frames_queue(VFIOFerryFrames *frames)
{
    size_t len = sizeof(*frames->packet) + frames->have;

    frames->packet->version = cpu_to_be32(VFIO_FERRY_PACKET_VERSION);
    frames->packet->idx = 0;
    frames->packet->flags = 0;
    return multifd_queue_device_state_take(
        frames->idstr, frames->instance_id,
        (char *)g_steal_pointer(&frames->packet), len);
}

/*
 * Sends what the engine has ready, @most bytes or a little more: what it says
 * first into @f. Nothing once a thread does it. Negative if none takes it.
 */
ssize_t vfio_ferry_frames_put(VFIOFerryFrames *frames, QEMUFile *f,
                              size_t most)
{
    size_t total = 0;

    if (frames->started) {
        return qatomic_read(&frames->failed) ? -EIO : 0;
    }
    while (total < most && !vfio_ferry_frames_pull(frames)) {
        total += frames->have;
        if (!frames->opened) {
            qemu_put_be64(f, VFIO_MIG_FLAG_DEV_FERRY_FRAME);
            qemu_put_be32(f, frames->have);
            qemu_put_buffer(f, frames->packet->frame, frames->have);
            frames->opened = true;
            frames->have = 0;
        } else if (!vfio_ferry_frames_queue(frames)) {
            return -EIO;
        }
    }
    return total;
}

/* Until the session is over, or this is: pulls and queues. */
static void *vfio_ferry_frames_thread(void *opaque)
{
    VFIOFerryFrames *frames = opaque;
    GPollFD fd = { .events = G_IO_IN };

    vferry_channel_fd(frames->channel, &fd.fd);
    while (!qatomic_read(&frames->stop)) {
        switch (vfio_ferry_frames_pull(frames)) {
        case VFERRY_OK:
            vfio_migration_add_bytes_transferred(frames->have);
            if (!vfio_ferry_frames_queue(frames)) {
                qatomic_set(&frames->failed, true);
                return NULL;
            }
            break;
        case VFERRY_ERR_EMPTY:
            g_poll(&fd, 1, VFIO_FERRY_FRAMES_LOOK_MS);
            break;
        case VFERRY_ERR_ENDED:
            return NULL;
        default:
            qatomic_set(&frames->failed, true);
            return NULL;
        }
    }
    return NULL;
}

/* The VM has stopped, and nobody else pulls any more. */
void vfio_ferry_frames_start(VFIOFerryFrames *frames)
{
    if (frames && frames->opened && !frames->started) {
        frames->started = true;
        qemu_thread_create(&frames->thread, "vfio-ferry-save",
                           vfio_ferry_frames_thread, frames,
                           QEMU_THREAD_JOINABLE);
    }
}

bool vfio_ferry_frames_started(VFIOFerryFrames *frames)
{
    return frames && frames->started;
}

/*
 * Ends the thread (BQL held). With @abort the migration has come to nothing,
 * and it does not wait for a target that is slow or gone; nor does anybody.
 */
void vfio_ferry_frames_stop(VFIOFerryFrames *frames, bool abort)
{
    if (!frames) {
        return;
    }
    qatomic_set(&frames->stop, true);
    if (abort) {
        multifd_send_abort();
    }
    if (frames->started) {
        qemu_thread_join(&frames->thread);
        frames->started = false;
    }
}

/* --- target -------------------------------------------------------------- */

/*
 * Takes in one frame, in whatever order it came. Waits until the session has
 * what is in order, which takes no longer than a copy: the source sends no more
 * than it was given credit for, and who does so all the same ends the session.
 */
bool vfio_ferry_frames_push(vferry_channel *channel, const char *name,
                            const uint8_t *frame, size_t len, Error **errp)
{
    GPollFD fd = { .events = G_IO_OUT };
    char text[VFERRY_TEXT_BYTES] = "";
    vferry_status status;

    vferry_channel_fd(channel, &fd.fd);
    status = vferry_channel_push_frame(channel, frame, len);
    while (status == VFERRY_OK) {
        status = vferry_channel_flush(channel);
        if (status == VFERRY_OK) {
            return true;
        }
        if (status == VFERRY_ERR_FULL) {
            g_poll(&fd, 1, VFIO_FERRY_FRAMES_LOOK_MS);
            status = VFERRY_OK;
        }
    }
    if (status == VFERRY_ERR_ENDED) {
        return true; /* Why is known, or about to be. */
    }
    vferry_last_error(text, sizeof(text));
    error_setg(errp, "%s: %s", name, text);
    return false;
}

/* The same of a multifd packet. */
bool vfio_ferry_frames_packet(vferry_channel *channel, const char *name,
                              const char *data, size_t len, Error **errp)
{
    const VFIOFerryPacket *packet = (const VFIOFerryPacket *)data;

    if (len <= sizeof(*packet) ||
        packet->version != cpu_to_be32(VFIO_FERRY_PACKET_VERSION) ||
        packet->idx || packet->flags) {
        error_setg(errp, "%s: a multifd packet of %zu bytes that is none of "
                   "vfio-ferry's", name, len);
        return false;
    }
    return vfio_ferry_frames_push(channel, name, packet->frame,
                                  len - sizeof(*packet), errp);
}
