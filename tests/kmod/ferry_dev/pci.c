// SPDX-License-Identifier: GPL-2.0-only
/*
 * The face of a PCI function: enough config space, and one BAR, for a VMM to
 * put the device into a guest; and a function-level reset through config space,
 * which is how a guest resets its device in the middle of a migration.
 *
 * Region offsets are index << 40, as vfio-pci's users expect to be told.
 */
#include <linux/pci_regs.h>
#include <linux/uaccess.h>
#include <linux/unaligned.h>
#include <linux/version.h>

#include "ferry_dev.h"

#define REGION_SHIFT 40
#define REGION_OFFSET(index) ((u64)(index) << REGION_SHIFT)

#define FERRY_VENDOR 0x1af4		/* no real device's pair: nothing binds to it */
#define FERRY_DEVICE 0xfe44
#define EXP_CAP 0x40

/* BAR 0 */
enum { BAR_MAGIC = 0x0, BAR_GENERATION = 0x4, BAR_STATE = 0x8, BAR_SCRATCH = 0xc };
#define BAR_MAGIC_VALUE 0x46455252	/* "FERR" */

void ferry_pci_init(struct ferry *f)
{
	u8 *c = f->config, *w = f->config_writable;

	mutex_init(&f->config_lock);
	put_unaligned_le16(FERRY_VENDOR, c + PCI_VENDOR_ID);
	put_unaligned_le16(FERRY_DEVICE, c + PCI_DEVICE_ID);
	put_unaligned_le16(PCI_STATUS_CAP_LIST, c + PCI_STATUS);
	put_unaligned_le32(0xff000001, c + PCI_REVISION_ID);	/* class: unassigned */
	put_unaligned_le16(FERRY_VENDOR, c + PCI_SUBSYSTEM_VENDOR_ID);
	put_unaligned_le16(FERRY_DEVICE, c + PCI_SUBSYSTEM_ID);
	c[PCI_CAPABILITY_LIST] = EXP_CAP;

	c[EXP_CAP] = PCI_CAP_ID_EXP;
	put_unaligned_le16(2 | PCI_EXP_TYPE_ENDPOINT << 4, c + EXP_CAP + PCI_EXP_FLAGS);
	put_unaligned_le32(PCI_EXP_DEVCAP_FLR | PCI_EXP_DEVCAP_RBER,
			   c + EXP_CAP + PCI_EXP_DEVCAP);

	put_unaligned_le16(PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER |
			   PCI_COMMAND_INTX_DISABLE, w + PCI_COMMAND);
	put_unaligned_le32(~(u32)(FERRY_BAR0_BYTES - 1), w + PCI_BASE_ADDRESS_0);
	w[PCI_CACHE_LINE_SIZE] = 0xff;
	w[PCI_LATENCY_TIMER] = 0xff;
	w[PCI_INTERRUPT_LINE] = 0xff;
	put_unaligned_le16(0x7fff, w + EXP_CAP + PCI_EXP_DEVCTL);
}

static u64 region_bytes(u32 index)
{
	switch (index) {
	case VFIO_PCI_CONFIG_REGION_INDEX:
		return FERRY_CONFIG_BYTES;
	case VFIO_PCI_BAR0_REGION_INDEX:
		return FERRY_BAR0_BYTES;
	default:
		return 0;
	}
}

static void config_access(struct ferry *f, u64 at, u8 *bytes, size_t len, bool write)
{
	const u64 flr = EXP_CAP + PCI_EXP_DEVCTL + 1;
	size_t i;

	mutex_lock(&f->config_lock);
	if (!write)
		memcpy(bytes, f->config + at, len);
	for (i = 0; write && i < len; i++)
		f->config[at + i] = (f->config[at + i] & ~f->config_writable[at + i]) |
				    (bytes[i] & f->config_writable[at + i]);
	mutex_unlock(&f->config_lock);

	if (write && at <= flr && flr < at + len &&
	    bytes[flr - at] & (PCI_EXP_DEVCTL_BCR_FLR >> 8))
		ferry_reset(f, VFIO_DEVICE_STATE_RUNNING);
}

static void bar_access(struct ferry *f, u64 at, u8 *bytes, size_t len, bool write)
{
	u32 value = 0;

	at &= ~3ULL;
	switch (at) {
	case BAR_MAGIC:
		value = BAR_MAGIC_VALUE;
		break;
	case BAR_GENERATION:
		value = READ_ONCE(f->image.generation);
		break;
	case BAR_STATE:
		value = READ_ONCE(f->state);
		break;
	case BAR_SCRATCH:
		value = READ_ONCE(f->scratch);
		break;
	}
	if (!write) {
		put_unaligned_le32(value, bytes);
	} else if (at == BAR_SCRATCH) {
		memcpy(&value, bytes, len);
		WRITE_ONCE(f->scratch, value);
	}
}

/* One naturally aligned access of 1, 2 or 4 bytes; its length, or 0. */
static size_t access(struct ferry *f, u64 pos, u8 *bytes, size_t len, bool write)
{
	u32 index = pos >> REGION_SHIFT;
	u64 at = pos & (REGION_OFFSET(1) - 1);

	if (len >= 4 && !(at & 3))
		len = 4;
	else if (len >= 2 && !(at & 1))
		len = 2;
	else
		len = 1;
	if (at + len > region_bytes(index))
		return 0;
	if (index == VFIO_PCI_CONFIG_REGION_INDEX)
		config_access(f, at, bytes, len, write);
	else
		bar_access(f, at, bytes, len, write);
	return len;
}

ssize_t ferry_pci_read(struct vfio_device *vdev, char __user *buf, size_t len,
		       loff_t *ppos)
{
	struct ferry *f = container_of(vdev, struct ferry, vdev);
	size_t done = 0, n;
	u8 bytes[4];

	for (; done < len; done += n) {
		n = access(f, *ppos + done, bytes, len - done, false);
		if (!n)
			return -EINVAL;
		if (copy_to_user(buf + done, bytes, n))
			return -EFAULT;
	}
	*ppos += done;
	return done;
}

ssize_t ferry_pci_write(struct vfio_device *vdev, const char __user *buf, size_t len,
			loff_t *ppos)
{
	struct ferry *f = container_of(vdev, struct ferry, vdev);
	size_t done = 0, n;
	u8 bytes[4];

	for (; done < len; done += n) {
		if (copy_from_user(bytes, buf + done, min_t(size_t, 4, len - done)))
			return -EFAULT;
		n = access(f, *ppos + done, bytes, len - done, true);
		if (!n)
			return -EINVAL;
	}
	*ppos += done;
	return done;
}

static int region_info(struct vfio_region_info *info)
{
	if (info->index >= VFIO_PCI_NUM_REGIONS)
		return -EINVAL;
	info->offset = REGION_OFFSET(info->index);
	info->size = region_bytes(info->index);
	info->flags = info->size ?
		VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE : 0;
	info->cap_offset = 0;
	return 0;
}

#if LINUX_VERSION_CODE >= KERNEL_VERSION(7, 0, 0)
int ferry_pci_region_info(struct vfio_device *vdev, struct vfio_region_info *info,
			  struct vfio_info_cap *caps)
{
	return region_info(info);
}
#endif

static long get_device_info(void __user *arg)
{
	unsigned long minsz = offsetofend(struct vfio_device_info, num_irqs);
	struct vfio_device_info info;

	if (copy_from_user(&info, arg, minsz))
		return -EFAULT;
	if (info.argsz < minsz)
		return -EINVAL;
	info.flags = VFIO_DEVICE_FLAGS_PCI | VFIO_DEVICE_FLAGS_RESET;
	info.num_regions = VFIO_PCI_NUM_REGIONS;
	info.num_irqs = VFIO_PCI_NUM_IRQS;
	return copy_to_user(arg, &info, minsz) ? -EFAULT : 0;
}

static long get_region_info(void __user *arg)
{
	unsigned long minsz = offsetofend(struct vfio_region_info, offset);
	struct vfio_region_info info;
	int ret;

	if (copy_from_user(&info, arg, minsz))
		return -EFAULT;
	if (info.argsz < minsz)
		return -EINVAL;
	ret = region_info(&info);
	if (ret)
		return ret;
	return copy_to_user(arg, &info, minsz) ? -EFAULT : 0;
}

/* The device has no interrupts: every index exists and is empty. */
static long get_irq_info(void __user *arg)
{
	unsigned long minsz = offsetofend(struct vfio_irq_info, count);
	struct vfio_irq_info info;

	if (copy_from_user(&info, arg, minsz))
		return -EFAULT;
	if (info.argsz < minsz || info.index >= VFIO_PCI_NUM_IRQS)
		return -EINVAL;
	info.flags = 0;
	info.count = 0;
	return copy_to_user(arg, &info, minsz) ? -EFAULT : 0;
}

static long set_irqs(void __user *arg)
{
	unsigned long minsz = offsetofend(struct vfio_irq_set, count);
	struct vfio_irq_set set;

	if (copy_from_user(&set, arg, minsz))
		return -EFAULT;
	if (set.argsz < minsz || set.index >= VFIO_PCI_NUM_IRQS || set.count)
		return -EINVAL;
	return 0;
}

static long reset(struct ferry *f)
{
	int ret = ferry_fault_call(f, AT_RESET, NULL);

	if (!ret)
		ferry_reset(f, VFIO_DEVICE_STATE_RUNNING);
	return ret;
}

long ferry_pci_ioctl(struct vfio_device *vdev, unsigned int cmd, unsigned long arg)
{
	void __user *uarg = (void __user *)arg;

	switch (cmd) {
	case VFIO_DEVICE_GET_INFO:
		return get_device_info(uarg);
	case VFIO_DEVICE_GET_REGION_INFO:
		return get_region_info(uarg);
	case VFIO_DEVICE_GET_IRQ_INFO:
		return get_irq_info(uarg);
	case VFIO_DEVICE_SET_IRQS:
		return set_irqs(uarg);
	case VFIO_DEVICE_RESET:
		return reset(container_of(vdev, struct ferry, vdev));
	default:
		return -ENOTTY;
	}
}
