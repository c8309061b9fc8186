// SPDX-License-Identifier: GPL-2.0-only
/* How a test gets at a device, and the system calls with their errors as results. */
#include <dirent.h>
#include <libgen.h>

#include "selftest.h"

#define PARENT "/sys/class/ferry_dev/ferry_dev/mdev_supported_types/ferry_dev-"
#define DEVICES "/sys/bus/mdev/devices"

static int put(const char *path, const char *value)
{
	int fd = open(path, O_WRONLY);
	int ret = 0;

	if (fd < 0)
		return -errno;
	if (write(fd, value, strlen(value)) < 0)
		ret = -errno;
	close(fd);
	return ret;
}

struct dev *dev_new(const char *type)
{
	static int nr;
	struct dev *d = calloc(1, sizeof(*d));
	struct vfio_group_status status = { .argsz = sizeof(status) };
	char path[256], link[256];
	ssize_t n;

	snprintf(d->uuid, sizeof(d->uuid), "%08x-0000-4000-8000-%012x", getpid(), nr++);
	snprintf(d->sys, sizeof(d->sys), DEVICES "/%s", d->uuid);
	snprintf(path, sizeof(path), PARENT "%s/create", type);
	EQ(put(path, d->uuid), 0);

	snprintf(path, sizeof(path), "%s/iommu_group", d->sys);
	n = readlink(path, link, sizeof(link) - 1);
	CHECK(n > 0);
	link[n] = 0;
	snprintf(path, sizeof(path), "/dev/vfio/%s", basename(link));
	d->container = open("/dev/vfio/vfio", O_RDWR | O_CLOEXEC);
	d->group = open(path, O_RDWR | O_CLOEXEC);
	CHECK(d->container >= 0 && d->group >= 0);
	EQ(ioctl(d->group, VFIO_GROUP_GET_STATUS, &status), 0);
	CHECK(status.flags & VFIO_GROUP_FLAGS_VIABLE);
	EQ(ioctl(d->group, VFIO_GROUP_SET_CONTAINER, &d->container), 0);
	EQ(ioctl(d->container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU), 0);
	d->fd = ioctl(d->group, VFIO_GROUP_GET_DEVICE_FD, d->uuid);
	CHECK(d->fd >= 0);
	return d;
}

void dev_close(struct dev *d)
{
	close(d->fd);
	close(d->group);
	close(d->container);
}

void dev_remove(struct dev *d)
{
	EQ(set(d, "remove", "1"), 0);
}

void dev_free(struct dev *d)
{
	dev_close(d);
	EQ(stat_of(d, "open_data_fds"), 0);
	dev_remove(d);
	free(d);
}

void dev_remove_all(void)
{
	DIR *dir = opendir(DEVICES);
	struct dirent *e;
	char path[512];

	while (dir && (e = readdir(dir))) {
		snprintf(path, sizeof(path), DEVICES "/%s/remove", e->d_name);
		put(path, "1");
	}
	if (dir)
		closedir(dir);
}

int set(struct dev *d, const char *path, const char *value)
{
	char full[256];

	snprintf(full, sizeof(full), "%s/%s", d->sys, path);
	return put(full, value);
}

void knob(struct dev *d, const char *name, const char *value)
{
	char path[64];

	snprintf(path, sizeof(path), "knobs/%s", name);
	EQ(set(d, path, value), 0);
}

void fault(struct dev *d, const char *line)
{
	EQ(set(d, "control/fault", line), 0);
}

void get(struct dev *d, const char *path, char *to, size_t len)
{
	char full[256];
	ssize_t n;
	int fd;

	snprintf(full, sizeof(full), "%s/%s", d->sys, path);
	fd = open(full, O_RDONLY);
	CHECK(fd >= 0);
	n = read(fd, to, len - 1);
	CHECK(n >= 0);
	to[n] = 0;
	close(fd);
}

long long stat_of(struct dev *d, const char *name)
{
	char path[64], value[64];

	snprintf(path, sizeof(path), "stats/%s", name);
	get(d, path, value, sizeof(value));
	return atoll(value);
}

uint64_t crc(struct dev *d)
{
	char value[64];

	get(d, "stats/state_crc", value, sizeof(value));
	return strtoull(value, NULL, 16);
}

int feature(struct dev *d, uint32_t flags, void *data, size_t len)
{
	uint64_t raw[16] = { 0 };
	struct vfio_device_feature *f = (void *)raw;
	int ret;

	f->argsz = sizeof(*f) + len;
	f->flags = flags;
	memcpy(f->data, data, len);
	ret = ioctl(d->fd, VFIO_DEVICE_FEATURE, f) < 0 ? -errno : 0;
	memcpy(data, f->data, len);
	return ret;
}

int mig_flags(struct dev *d)
{
	uint64_t flags = 0;

	EQ(feature(d, 1 | VFIO_DEVICE_FEATURE_GET, &flags, sizeof(flags)), 0);
	return flags;
}

int set_state(struct dev *d, int state, int *data_fd)
{
	int32_t mig[2] = { state, -7 };
	int ret = feature(d, 2 | VFIO_DEVICE_FEATURE_SET, mig, sizeof(mig));

	*data_fd = mig[1];
	return ret;
}

int move(struct dev *d, int state)
{
	int fd, ret = set_state(d, state, &fd);

	EQ(fd, -1);
	return ret;
}

int enter(struct dev *d, int state)
{
	int fd;

	EQ(set_state(d, state, &fd), 0);
	CHECK(fd >= 0);
	return fd;
}

int get_state(struct dev *d)
{
	int32_t mig[2] = { 0 };
	int ret = feature(d, 2 | VFIO_DEVICE_FEATURE_GET, mig, sizeof(mig));

	return ret ? ret : mig[0];
}

long long data_size(struct dev *d)
{
	uint64_t bytes = 0;
	int ret = feature(d, 9 | VFIO_DEVICE_FEATURE_GET, &bytes, sizeof(bytes));

	return ret ? ret : (long long)bytes;
}

int reset(struct dev *d)
{
	return ioctl(d->fd, VFIO_DEVICE_RESET) < 0 ? -errno : 0;
}

int precopy_info(int fd, struct precopy_info *info)
{
	memset(info, 0, sizeof(*info));
	info->argsz = sizeof(*info);
	return ioctl(fd, MIG_GET_PRECOPY_INFO, info) < 0 ? -errno : 0;
}

long rd(int fd, void *buf, size_t len)
{
	ssize_t n = read(fd, buf, len);

	return n < 0 ? -errno : n;
}

long wr(int fd, const void *buf, size_t len)
{
	ssize_t n = write(fd, buf, len);

	return n < 0 ? -errno : n;
}

int polled(int fd, int ms)
{
	struct pollfd p = { .fd = fd, .events = POLLIN | POLLRDNORM | POLLRDHUP | POLLOUT };

	CHECK(poll(&p, 1, ms) >= 0);
	return p.revents;
}

double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

char *slurp(int fd, size_t *len)
{
	size_t have = 0, room = 1 << 20;
	char *buf = malloc(room);
	long n;

	while ((n = rd(fd, buf + have, room - have)) > 0) {
		have += n;
		if (have == room)
			buf = realloc(buf, room *= 2);
	}
	EQ(n, 0);
	*len = have;
	return buf;
}

char *save_all(struct dev *d, size_t *len)
{
	int fd = enter(d, S_STOP_COPY);
	char *buf = slurp(fd, len);

	close(fd);
	return buf;
}

long pour(int fd, const char *from, size_t len)
{
	size_t done = 0;

	while (done < len) {
		long n = wr(fd, from + done, len - done < 65536 ? len - done : 65536);

		if (n < 0)
			return n;
		CHECK(n > 0);
		done += n;
	}
	return done;
}
