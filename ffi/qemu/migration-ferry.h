/*
 * VFIO device state through vfio-ferry
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VFIO_MIGRATION_FERRY_H
#define HW_VFIO_MIGRATION_FERRY_H

#include "hw/vfio/vfio-common.h"

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
int vfio_ferry_save_iterate(QEMUFile *f, VFIODevice *vbasedev);
int vfio_ferry_save_complete(QEMUFile *f, VFIODevice *vbasedev);
int vfio_ferry_save_confirm(QEMUFile *f, VFIODevice *vbasedev, Error **errp);
void vfio_ferry_save_cleanup(VFIODevice *vbasedev);

/* Target. */
int vfio_ferry_load_block(QEMUFile *f, VFIODevice *vbasedev);
bool vfio_ferry_load_allowed(VFIODevice *vbasedev);
int vfio_ferry_load_confirm(VFIODevice *vbasedev);
void vfio_ferry_load_cleanup(VFIODevice *vbasedev);

/* SaveVMHandlers */
bool vfio_ferry_return_data_ready(void *opaque);
bool vfio_ferry_return_data(void *opaque, const uint8_t *buf, size_t len,
                            Error **errp);

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

static inline int vfio_ferry_save_confirm(QEMUFile *f, VFIODevice *vbasedev,
                                          Error **errp)
{
    return 0;
}

static inline void vfio_ferry_save_cleanup(VFIODevice *vbasedev)
{
}

static inline int vfio_ferry_load_block(QEMUFile *f, VFIODevice *vbasedev)
{
    return -EINVAL;
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

#define vfio_ferry_return_data_ready NULL
#define vfio_ferry_return_data NULL

#endif

#endif
