// SPDX-License-Identifier: GPL-2.0-only
/* Data: what is saved is what is loaded, whatever its size and pieces. */

#include "selftest.h"

static void device_info(void)
{
	struct dev *d = dev_new("full");
	struct vfio_device_info info = { .argsz = sizeof(info) };
	struct vfio_region_info region = { .argsz = sizeof(region),
					   .index = VFIO_PCI_CONFIG_REGION_INDEX };
	struct vfio_irq_info irq = { .argsz = sizeof(irq), .index = VFIO_PCI_ERR_IRQ_INDEX };
	uint32_t value;
	uint16_t id[2];
	off_t bar;

	EQ(ioctl(d->fd, VFIO_DEVICE_GET_INFO, &info), 0);
	EQ(info.flags, VFIO_DEVICE_FLAGS_PCI | VFIO_DEVICE_FLAGS_RESET);
	EQ(ioctl(d->fd, VFIO_DEVICE_GET_IRQ_INFO, &irq), 0);
	EQ(irq.count, 0);
	EQ(ioctl(d->fd, VFIO_DEVICE_GET_REGION_INFO, &region), 0);
	EQ(region.size, 256);
	EQ(pread(d->fd, id, 4, region.offset), 4);
	EQ(id[1], 0xfe44);

	/* A BAR is sized by writing ones. */
	value = 0xffffffff;
	EQ(pwrite(d->fd, &value, 4, region.offset + 0x10), 4);
	EQ(pread(d->fd, &value, 4, region.offset + 0x10), 4);
	EQ(value, 0xfffff000);

	region.index = VFIO_PCI_BAR0_REGION_INDEX;
	EQ(ioctl(d->fd, VFIO_DEVICE_GET_REGION_INFO, &region), 0);
	EQ(region.size, 4096);
	bar = region.offset;
	value = 0x12345678;
	EQ(pwrite(d->fd, &value, 4, bar + 0xc), 4);
	value = 0;
	EQ(pread(d->fd, &value, 4, bar + 0xc), 4);
	EQ(value, 0x12345678);
	EQ(pread(d->fd, &value, 4, bar + 4096), -1);
	EQ(feature(d, 6 | VFIO_DEVICE_FEATURE_PROBE | VFIO_DEVICE_FEATURE_SET, &value, 0), 0);
	dev_free(d);
}

static void no_migration(void)
{
	static const uint32_t asked[] = {
		1 | VFIO_DEVICE_FEATURE_GET, 2 | VFIO_DEVICE_FEATURE_GET,
		2 | VFIO_DEVICE_FEATURE_SET, 6 | VFIO_DEVICE_FEATURE_SET,
		9 | VFIO_DEVICE_FEATURE_GET,
	};
	struct dev *d = dev_new("none");
	uint64_t before = crc(d), data[4] = { S_RUNNING };

	for (int i = 0; i < 5; i++)
		EQ(feature(d, asked[i], data, sizeof(data)), -ENOTTY);
	CHECK(crc(d) == before);
	EQ(ioctl(d->fd, VFIO_DEVICE_RESET), 0);
	CHECK(crc(d) != before);
	dev_free(d);
}

static void capabilities(void)
{
	static const struct { const char *type; int flags; } types[] = {
		{ "stop_copy", 1 }, { "p2p", 3 }, { "pre_copy", 5 }, { "full", 7 },
	};

	for (int i = 0; i < 4; i++) {
		struct dev *d = dev_new(types[i].type);
		int fd, precopy = types[i].flags & 4, p2p = types[i].flags & 2;

		EQ(mig_flags(d), types[i].flags);
		EQ(get_state(d), S_RUNNING);
		EQ(set_state(d, S_PRE_COPY, &fd), precopy ? 0 : -EINVAL);
		if (fd >= 0)
			close(fd);
		EQ(move(d, S_RUNNING), 0);
		EQ(move(d, S_RUNNING_P2P), p2p ? 0 : -EINVAL);
		EQ(set_state(d, S_PRE_COPY_P2P, &fd), precopy && p2p ? 0 : -EINVAL);
		if (fd >= 0)
			close(fd);
		EQ(move(d, 17), -EINVAL);
		EQ(move(d, S_ERROR), -EINVAL);
		close(enter(d, S_RESUMING));
		EQ(get_state(d), S_RESUMING);
		EQ(move(d, S_RUNNING), -EINVAL);
		EQ(get_state(d), S_RESUMING);
		EQ(reset(d), 0);
		EQ(get_state(d), S_RUNNING);
		dev_free(d);
	}
}

static void migrate(struct dev *s, struct dev *t)
{
	size_t len;
	char *stream = save_all(s, &len);
	int fd = enter(t, S_RESUMING);

	EQ(len, stat_of(s, "bytes_read"));
	EQ(pour(fd, stream, len), len);
	EQ(move(t, S_RUNNING), 0);
	close(fd);
	CHECK(crc(s) == crc(t));
	EQ(move(s, S_RUNNING), 0);
	free(stream);
}

static void round_trip(void)
{
	static const char *const sizes[] = { "1", "176", "4096", "4097", "1M", "5000001" };
	static const char *const contents[] = { "structured", "zero", "random" };

	for (int size = 0; size < 6; size++) {
		for (int kind = 0; kind < 6; kind++) {
			struct dev *s = dev_new("full"), *t = dev_new("stop_copy");

			knob(s, "content", contents[kind % 3]);
			knob(s, "pollable", kind < 3 ? "0" : "1");
			knob(s, "state_bytes", sizes[size]);
			knob(t, "state_bytes", sizes[size]);
			if (kind % 3 == 2)
				CHECK(crc(s) != crc(t));
			if (kind >= 3) {
				knob(s, "short_read_max", size < 4 ? "7" : "9999");
				knob(t, "short_write_max", size < 4 ? "5" : "8888");
				knob(s, "save_chunk_bytes", "300K");
				knob(s, "save_latency_us", "1");
				knob(s, "record_bytes", "40K");
			}
			migrate(s, t);
			EQ(stat_of(t, "loads"), 1);
			dev_free(s);
			dev_free(t);
		}
	}
}

static void data_size_is_exact(void)
{
	struct dev *d = dev_new("full");
	char buf[1000];
	long long size;
	size_t len;
	int fd;

	knob(d, "state_bytes", "3000000");
	knob(d, "record_bytes", "64K");
	knob(d, "save_chunk_bytes", "200K");
	size = data_size(d);
	fd = enter(d, S_STOP_COPY);
	EQ(data_size(d), size);
	EQ(rd(fd, buf, sizeof(buf)), sizeof(buf));
	EQ(data_size(d), size - (long long)sizeof(buf));
	free(slurp(fd, &len));
	EQ(len, size - sizeof(buf));
	EQ(data_size(d), 0);
	/* The end repeats. */
	EQ(rd(fd, buf, sizeof(buf)), 0);
	EQ(rd(fd, buf, sizeof(buf)), 0);
	close(fd);
	dev_free(d);
}

static void file_shape(void)
{
	struct dev *d = dev_new("full");
	struct precopy_info info = { .argsz = 8 };
	char buf[16];
	int fd = enter(d, S_STOP_COPY);

	EQ(lseek(fd, 0, SEEK_SET), -1);
	EQ(errno, ESPIPE);
	EQ(pread(fd, buf, 1, 0), -1);
	EQ(errno, ESPIPE);
	EQ(wr(fd, buf, 1), -EBADF);
	EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
	EQ(rd(fd, (void *)8, 16), -EFAULT);
	EQ(ioctl(fd, MIG_GET_PRECOPY_INFO, &info), -1);
	EQ(errno, EINVAL);
	EQ(ioctl(fd, VFIO_DEVICE_RESET, 0), -1);
	EQ(errno, ENOTTY);
	EQ(precopy_info(fd, &info), -EINVAL);
	close(fd);
	fd = enter(d, S_RESUMING);
	EQ(rd(fd, buf, 1), -EBADF);
	EQ(precopy_info(fd, &info), -ENOTTY);
	EQ(pwrite(fd, buf, 1, 0), -1);
	EQ(errno, ESPIPE);
	close(fd);
	dev_free(d);
}

static void loading(void)
{
	struct dev *s = dev_new("full"), *t = dev_new("full");
	size_t len;
	char *stream = save_all(s, &len), was;
	uint64_t before = crc(t);
	int fd;

	/* Short of one byte: refused, and nothing is lost. */
	fd = enter(t, S_RESUMING);
	EQ(pour(fd, stream, len - 1), len - 1);
	EQ(move(t, S_RUNNING), -EINVAL);
	EQ(get_state(t), S_RESUMING);
	CHECK(crc(t) == before);
	EQ(wr(fd, stream + len - 1, 2), -ENOMEM);
	EQ(wr(fd, stream + len - 1, 1), 1);
	EQ(wr(fd, stream, 1), -ENOMEM);
	EQ(move(t, S_RUNNING), 0);
	CHECK(crc(t) == crc(s));
	EQ(wr(fd, stream, 1), -ENOMEM);
	knob(t, "oversize_first", "0");
	EQ(wr(fd, stream, 1), -ENODEV);
	close(fd);

	/* A byte changed, anywhere. */
	stream[len / 2] ^= 1;
	fd = enter(t, S_RESUMING);
	EQ(pour(fd, stream, len), len);
	EQ(move(t, S_STOP), -EINVAL);
	close(fd);
	stream[len / 2] ^= 1;
	EQ(reset(t), 0);

	/* Not ours. */
	was = stream[0];
	stream[0] ^= 1;
	fd = enter(t, S_RESUMING);
	EQ(wr(fd, stream, 100), -EFAULT);
	EQ(wr(fd, stream, 100), -EFAULT);
	close(fd);
	stream[0] = was;
	EQ(reset(t), 0);

	/* An unknown record. */
	fd = enter(t, S_RESUMING);
	stream[32] = 77;
	EQ(wr(fd, stream, 100), -EOPNOTSUPP);
	stream[32] = 1;
	close(fd);
	EQ(reset(t), 0);

	/* Of another size. */
	knob(t, "state_bytes", "2M");
	fd = enter(t, S_RESUMING);
	EQ(set(t, "knobs/state_bytes", "1M"), -EBUSY);
	EQ(wr(fd, stream, len), -EFAULT);
	EQ(wr(fd, (void *)8, 100), -EFAULT);
	close(fd);
	EQ(move(s, S_RUNNING), 0);
	free(stream);
	dev_free(s);
	dev_free(t);
}

static void big_state(void)
{
	struct dev *s = dev_new("full"), *t = dev_new("full");
	const size_t len = 1 << 18;
	char *buf = malloc(len);
	double start;
	long n, total = 0;
	int in, out;

	knob(s, "state_bytes", "1G");
	in = enter(s, S_STOP_COPY);
	start = now();
	while (total < 128 << 20) {
		n = rd(in, buf, len);
		CHECK(n > 0);
		total += n;
	}
	printf("  structured: %.0f MB/s out\n", total / 1e6 / (now() - start));
	close(in);
	EQ(move(s, S_RUNNING), 0);
	knob(s, "content", "zero");
	/* Zero pages take no memory: a GiB goes into a machine with less. */
	knob(t, "state_bytes", "1G");
	in = enter(s, S_STOP_COPY);
	out = enter(t, S_RESUMING);
	start = now();
	while ((n = rd(in, buf, len)) > 0)
		EQ(pour(out, buf, n), n);
	printf("  zero: %.0f MB/s through\n", (1 << 30) / 1e6 / (now() - start));
	EQ(move(t, S_STOP), 0);
	start = now();
	CHECK(crc(s) == crc(t));
	printf("  crc: %.0f MB/s\n", (2LL << 30) / 1e6 / (now() - start));
	close(in);
	close(out);
	dev_free(s);
	dev_free(t);
}

static void fd_outlives_device(void)
{
	struct dev *d = dev_new("full");
	struct precopy_info info;
	int in = enter(d, S_PRE_COPY);
	char buf[64];

	EQ(rd(in, buf, 64), 64);
	dev_close(d);
	EQ(stat_of(d, "open_data_fds"), 1);
	EQ(rd(in, buf, 64), -ENODEV);
	dev_remove(d);
	EQ(rd(in, buf, 64), -ENODEV);
	CHECK(precopy_info(in, &info) == -ENODEV || precopy_info(in, &info) == -EINVAL);
	EQ(polled(in, 0), POLLIN | POLLRDNORM | POLLRDHUP);
	close(in);
}

const struct test stream_tests[] = {
	{ "device_info", device_info },
	{ "capabilities", capabilities },
	{ "no_migration", no_migration },
	{ "round_trip", round_trip },
	{ "data_size_is_exact", data_size_is_exact },
	{ "file_shape", file_shape },
	{ "loading", loading },
	{ "big_state", big_state },
	{ "fd_outlives_device", fd_outlives_device },
	{ NULL, NULL }
};
