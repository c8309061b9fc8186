/*
 * VFIO device state through vfio-ferry, over multifd channels
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VFIO_MIGRATION_FERRY_MULTIFD_H
#define HW_VFIO_MIGRATION_FERRY_MULTIFD_H

#include "migration-ferry.h"
#include <vfio_ferry.h>

/* What the source's device knows of the multifd channels. */
typedef struct VFIOFerryFrames VFIOFerryFrames;

/* Either host: whether the device's frames may travel so, for all it knows. */
bool vfio_ferry_frames_possible(VFIODevice *vbasedev);

/* Source. */
VFIOFerryFrames *vfio_ferry_frames_new(VFIODevice *vbasedev,
                                       vferry_channel *channel, Error **errp);
void vfio_ferry_frames_free(VFIOFerryFrames *frames);
ssize_t vfio_ferry_frames_put(VFIOFerryFrames *frames, QEMUFile *f,
                              size_t most);
void vfio_ferry_frames_start(VFIOFerryFrames *frames);
bool vfio_ferry_frames_started(VFIOFerryFrames *frames);
void vfio_ferry_frames_stop(VFIOFerryFrames *frames, bool abort);

/* Target. */
bool vfio_ferry_frames_push(vferry_channel *channel, const char *name,
                            const uint8_t *frame, size_t len, Error **errp);
bool vfio_ferry_frames_packet(vferry_channel *channel, const char *name,
                              const char *packet, size_t len, Error **errp);

#endif
