/*
 * VFIO device state through vfio-ferry
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VFIO_MIGRATION_FERRY_H
#define HW_VFIO_MIGRATION_FERRY_H

#if __has_include("hw/vfio/vfio-common.h") /* QEMU 10.0 */
#include "hw/vfio/vfio-common.h"
#define vfio_migration_add_bytes_transferred vfio_mig_add_bytes_transferred
#else
#include "hw/vfio/vfio-device.h"
#include "vfio-migration-internal.h"
#endif
#include "migration/misc.h"

#ifdef CONFIG_VFIO_FERRY

/* Both hosts: whether this migration moves the device's state so. */
static inline bool vfio_ferry_active(VFIODevice *vbasedev)
{
    return vbasedev->migration->ferry;
}

bool vfio_ferry_check(VFIODevice *vbasedev, Error **errp);

/* Source, in the order of a migration. */
int vfio_ferry_save_prepare(VFIODevice *vbasedev, Error **errp);
int vfio_ferry_save_setup(VFIODevice *vbasedev, Error **errp);
void vfio_ferry_save_pending(VFIODevice *vbasedev, uint64_t stop_copy,
                             uint64_t *must_precopy);
int vfio_ferry_save_iterate(QEMUFile *f, VFIODevice *vbasedev);
void vfio_ferry_vm_changed(VFIODevice *vbasedev, bool running);
int vfio_ferry_save_complete(QEMUFile *f, VFIODevice *vbasedev);
void vfio_ferry_save_cleanup(VFIODevice *vbasedev);
void vfio_ferry_unplug(VFIODevice *vbasedev);
void vfio_ferry_unplugged(VFIODevice *vbasedev);

/* Target. */
int vfio_ferry_load_block(QEMUFile *f, VFIODevice *vbasedev, bool frame);
bool vfio_ferry_load_packet(VFIODevice *vbasedev, const char *data, size_t len,
                            Error **errp);
bool vfio_ferry_load_allowed(VFIODevice *vbasedev);
int vfio_ferry_load_confirm(VFIODevice *vbasedev);
void vfio_ferry_load_cleanup(VFIODevice *vbasedev);

/* SaveVMHandlers */
bool vfio_ferry_stopped_pending(void *opaque);
int vfio_ferry_save_stopped(QEMUFile *f, void *opaque);
uint8_t vfio_ferry_return_data_ready(void *opaque);
bool vfio_ferry_return_data(void *opaque, MigrationReturnData kind,
                            const uint8_t *buf, size_t len, Error **errp);

#else

static inline bool vfio_ferry_active(VFIODevice *vbasedev)
{
    return false;
}

static inline bool vfio_ferry_check(VFIODevice *vbasedev, Error **errp)
{
    return true;
}

static inline int vfio_ferry_save_prepare(VFIODevice *vbasedev, Error **errp)
{
    return 0;
}

static inline int vfio_ferry_save_setup(VFIODevice *vbasedev, Error **errp)
{
    return 0;
}

static inline int vfio_ferry_save_iterate(QEMUFile *f, VFIODevice *vbasedev)
{
    g_assert_not_reached();
}

static inline int vfio_ferry_save_complete(QEMUFile *f, VFIODevice *vbasedev)
{
    g_assert_not_reached();
}

static inline void vfio_ferry_save_pending(VFIODevice *vbasedev,
                                           uint64_t stop_copy,
                                           uint64_t *must_precopy)
{
}

static inline void vfio_ferry_vm_changed(VFIODevice *vbasedev, bool running)
{
}

static inline void vfio_ferry_unplug(VFIODevice *vbasedev)
{
}

static inline void vfio_ferry_unplugged(VFIODevice *vbasedev)
{
}

static inline void vfio_ferry_save_cleanup(VFIODevice *vbasedev)
{
}

static inline int vfio_ferry_load_block(QEMUFile *f, VFIODevice *vbasedev,
                                        bool frame)
{
    return -EINVAL;
}

static inline bool vfio_ferry_load_packet(VFIODevice *vbasedev,
                                          const char *data, size_t len,
                                          Error **errp)
{
    g_assert_not_reached();
}

static inline bool vfio_ferry_load_allowed(VFIODevice *vbasedev)
{
    return true;
}

static inline int vfio_ferry_load_confirm(VFIODevice *vbasedev)
{
    return 0;
}

static inline void vfio_ferry_load_cleanup(VFIODevice *vbasedev)
{
}

#define vfio_ferry_stopped_pending NULL
#define vfio_ferry_save_stopped NULL
#define vfio_ferry_return_data_ready NULL
#define vfio_ferry_return_data NULL

#endif

#endif
