// SPDX-License-Identifier: GPL-2.0-only
/*
 * The module: a parent device, five types of mediated device (one for each set
 * of migration capabilities and one that has none, since VFIO fixes those before
 * a device is registered), and what each instance is made of.
 */
#include <linux/module.h>
#include <linux/device.h>
#include <linux/version.h>

#include "ferry_dev.h"

#define FERRY_INSTANCES_MAX 256

struct workqueue_struct *ferry_wq;

struct ferry_type {
	struct mdev_type type;
	unsigned int flags;
};

static struct ferry_type types[] = {
	{ { .sysfs_name = "stop_copy", .pretty_name = "STOP_COPY" },
	  VFIO_MIGRATION_STOP_COPY },
	{ { .sysfs_name = "p2p", .pretty_name = "STOP_COPY, P2P" },
	  VFIO_MIGRATION_STOP_COPY | VFIO_MIGRATION_P2P },
	{ { .sysfs_name = "pre_copy", .pretty_name = "STOP_COPY, PRE_COPY" },
	  VFIO_MIGRATION_STOP_COPY | VFIO_MIGRATION_PRE_COPY },
	{ { .sysfs_name = "full", .pretty_name = "STOP_COPY, P2P, PRE_COPY" },
	  VFIO_MIGRATION_STOP_COPY | VFIO_MIGRATION_P2P | VFIO_MIGRATION_PRE_COPY },
	{ { .sysfs_name = "none", .pretty_name = "no migration" }, 0 },
};

static struct mdev_type *mdev_types[] = {
	&types[0].type, &types[1].type, &types[2].type, &types[3].type,
	&types[4].type,
};

/* For a test that needs state_mutex taken for as long as it says. */
static void hold_work(struct work_struct *work)
{
	struct ferry *f = container_of(work, struct ferry, hold_work);

	ferry_state_lock(f);
	complete(&f->held);
	wait_event_idle(f->unblock_wait, !READ_ONCE(f->hold) || READ_ONCE(f->removing));
	ferry_state_unlock(f);
}

static int ferry_init(struct vfio_device *vdev)
{
	struct ferry *f = container_of(vdev, struct ferry, vdev);
	struct mdev_device *mdev = to_mdev_device(vdev->dev);
	int ret;

	mutex_init(&f->state_mutex);
	mutex_init(&f->image.lock);
	spin_lock_init(&f->reset_lock);
	spin_lock_init(&f->fault_lock);
	INIT_LIST_HEAD(&f->faults);
	init_waitqueue_head(&f->unblock_wait);
	init_completion(&f->held);
	INIT_WORK(&f->hold_work, hold_work);
	ferry_pci_init(f);

	/* No two devices alike, or a test could mistake a target never loaded for one that was. */
	ferry_knobs_init(f, xxh64(&mdev->uuid, sizeof(mdev->uuid), 0));
	ret = ferry_image_configure(f);
	if (ret)
		return ret;

	vdev->migration_flags = container_of(mdev->type, struct ferry_type, type)->flags;
	/* Without these every feature of theirs is ENOTTY, as with any plain driver. */
	if (vdev->migration_flags) {
		vdev->mig_ops = &ferry_migration_ops;
		vdev->log_ops = &ferry_log_ops;
	}
	f->state = VFIO_DEVICE_STATE_RUNNING;
	f->image.running = true;
	return 0;
}

static void ferry_release(struct vfio_device *vdev)
{
	struct ferry *f = container_of(vdev, struct ferry, vdev);

	ferry_fault_clear(f);
	ferry_image_free(&f->image);
	mutex_destroy(&f->config_lock);
	mutex_destroy(&f->state_mutex);
}

static int ferry_open(struct vfio_device *vdev)
{
	struct ferry *f = container_of(vdev, struct ferry, vdev);

	ferry_state_lock(f);
	WRITE_ONCE(f->state, VFIO_DEVICE_STATE_RUNNING);
	ferry_image_set_running(f, true);
	ferry_state_unlock(f);
	return 0;
}

/* Contents and state stay as they are, to be looked at; only the sessions end. */
static void ferry_close(struct vfio_device *vdev)
{
	struct ferry *f = container_of(vdev, struct ferry, vdev);

	ferry_state_lock(f);
	ferry_disable_files(f);
	ferry_state_unlock(f);
}

static const struct vfio_device_ops ferry_ops = {
	.name = "ferry_dev",
	.init = ferry_init,
	.release = ferry_release,
	.open_device = ferry_open,
	.close_device = ferry_close,
	.read = ferry_pci_read,
	.write = ferry_pci_write,
	.ioctl = ferry_pci_ioctl,
#if LINUX_VERSION_CODE >= KERNEL_VERSION(7, 0, 0)
	.get_region_info_caps = ferry_pci_region_info,
#endif
	.bind_iommufd = vfio_iommufd_emulated_bind,
	.unbind_iommufd = vfio_iommufd_emulated_unbind,
	.attach_ioas = vfio_iommufd_emulated_attach_ioas,
	.detach_ioas = vfio_iommufd_emulated_detach_ioas,
};

static int ferry_probe(struct mdev_device *mdev)
{
	struct ferry *f = vfio_alloc_device(ferry, vdev, &mdev->dev, &ferry_ops);
	int ret;

	if (IS_ERR(f))
		return PTR_ERR(f);
	dev_set_drvdata(&mdev->dev, f);
	ret = vfio_register_emulated_iommu_dev(&f->vdev);
	if (ret)
		vfio_put_device(&f->vdev);
	return ret;
}

static void ferry_remove(struct mdev_device *mdev)
{
	struct ferry *f = dev_get_drvdata(&mdev->dev);

	/* Whoever is kept waiting on purpose would keep the removal waiting too. */
	WRITE_ONCE(f->removing, true);
	wake_up_all(&f->unblock_wait);
	cancel_work_sync(&f->hold_work);
	vfio_unregister_group_dev(&f->vdev);
	vfio_put_device(&f->vdev);
}

static struct mdev_driver ferry_driver = {
	.device_api = VFIO_DEVICE_API_PCI_STRING,
	.max_instances = FERRY_INSTANCES_MAX,
	.driver = {
		.name = "ferry_dev",
		.owner = THIS_MODULE,
		.mod_name = KBUILD_MODNAME,
		.dev_groups = ferry_groups,
	},
	.probe = ferry_probe,
	.remove = ferry_remove,
};

static const struct class ferry_class = { .name = "ferry_dev" };
static struct device *parent_dev;
static struct mdev_parent parent;

static int __init ferry_module_init(void)
{
	int ret;

	ferry_sysfs_init();
	ferry_wq = alloc_workqueue("ferry_dev", WQ_UNBOUND, 0);
	if (!ferry_wq)
		return -ENOMEM;
	ret = mdev_register_driver(&ferry_driver);
	if (ret)
		goto err_wq;
	ret = class_register(&ferry_class);
	if (ret)
		goto err_driver;
	parent_dev = device_create(&ferry_class, NULL, 0, NULL, "ferry_dev");
	if (IS_ERR(parent_dev)) {
		ret = PTR_ERR(parent_dev);
		goto err_class;
	}
	ret = mdev_register_parent(&parent, parent_dev, &ferry_driver, mdev_types,
				   ARRAY_SIZE(mdev_types));
	if (ret)
		goto err_device;
	return 0;

err_device:
	device_unregister(parent_dev);
err_class:
	class_unregister(&ferry_class);
err_driver:
	mdev_unregister_driver(&ferry_driver);
err_wq:
	destroy_workqueue(ferry_wq);
	return ret;
}

static void __exit ferry_module_exit(void)
{
	mdev_unregister_parent(&parent);
	device_unregister(parent_dev);
	class_unregister(&ferry_class);
	mdev_unregister_driver(&ferry_driver);
	destroy_workqueue(ferry_wq);
}

module_init(ferry_module_init);
module_exit(ferry_module_exit);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("VFIO migration test device");
MODULE_SOFTDEP("pre: vfio_iommu_type1");
