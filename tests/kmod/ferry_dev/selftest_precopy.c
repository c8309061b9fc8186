// SPDX-License-Identifier: GPL-2.0-only
/* PRE_COPY: rounds, who asks for the next one, and initial data again. */
#include "selftest.h"

/* Every PRE_COPY read and ioctl until converged or bored; what was read goes to out. */
static void drain_precopy(int fd, int out, int drained, struct precopy_info *info)
{
	static char buf[100000];
	long n;

	while ((n = rd(fd, buf, sizeof(buf))) > 0)
		EQ(pour(out, buf, n), n);
	EQ(n, drained);
	EQ(precopy_info(fd, info), 0);
}

static void precopy(void)
{
	for (int kind = 0; kind < 8; kind++) {
		struct dev *s = dev_new(kind & 1 ? "pre_copy" : "full"), *t = dev_new("full");
		int drained = kind & 2 ? 0 : -ENOMSG;
		struct precopy_info info;
		int in, out, round;
		size_t len;
		char *rest;

		knob(s, "state_bytes", "2M");
		knob(t, "state_bytes", "2M");
		knob(s, "dirty_rate", "20M");
		knob(s, "drained", kind & 2 ? "zero" : "enomsg");
		knob(s, "pollable", kind & 4 ? "1" : "0");
		in = enter(s, S_PRE_COPY);
		out = enter(t, S_RESUMING);
		EQ(precopy_info(in, &info), 0);
		EQ(info.initial_bytes, 65536);
		CHECK(info.dirty_bytes >= (2 << 20) - 65536);
		for (round = 0; round < 5; round++) {
			drain_precopy(in, out, drained, &info);
			EQ(info.initial_bytes, 0);
			usleep(20000);
		}
		CHECK(stat_of(s, "saves") > 1);
		if (kind & 1) {
			EQ(move(s, S_PRE_COPY_P2P), -EINVAL);
		} else {
			EQ(move(s, S_PRE_COPY_P2P), 0);
			EQ(precopy_info(in, &info), 0);
		}
		CHECK(data_size(s) > 0);
		EQ(move(s, S_STOP_COPY), 0);
		EQ(precopy_info(in, &info), -EINVAL);
		rest = slurp(in, &len);
		CHECK(len < 2 << 20);
		EQ(pour(out, rest, len), len);
		EQ(move(t, S_RUNNING), 0);
		CHECK(crc(s) == crc(t));
		CHECK(stat_of(s, "bytes_read") > 2 << 20);
		EQ(stat_of(s, "bytes_read"), stat_of(t, "bytes_written"));
		free(rest);
		close(in);
		close(out);
		dev_free(s);
		dev_free(t);
	}
}

/* Nothing more comes without the ioctl, unless the device is told otherwise. */
static void precopy_asks(void)
{
	struct dev *d = dev_new("full");
	struct precopy_info info;
	char buf[65536];
	int fd;

	knob(d, "precopy_bytes", "64K");
	knob(d, "initial_bytes", "1G");
	fd = enter(d, S_PRE_COPY);
	EQ(precopy_info(fd, &info), 0);
	EQ(info.initial_bytes, 65536);
	EQ(info.dirty_bytes, 32);
	while (rd(fd, buf, sizeof(buf)) > 0)
		;
	EQ(stat_of(d, "bytes_read"), 65536 + 32 + 24);
	EQ(polled(fd, 0), 0);
	knob(d, "dirty_rate", "100M");
	knob(d, "dirty_span", "4K");
	usleep(10000);
	EQ(rd(fd, buf, sizeof(buf)), -ENOMSG);
	EQ(precopy_info(fd, &info), 0);
	EQ(info.dirty_bytes, 4096);
	EQ(polled(fd, 0), POLLIN | POLLRDNORM);
	EQ(rd(fd, buf, sizeof(buf)), 4096 + 24);
	knob(d, "precopy_needs_ioctl", "0");
	usleep(10000);
	EQ(rd(fd, buf, sizeof(buf)), 4096 + 24);
	close(fd);
	dev_free(d);
}

static void reinit(void)
{
	struct dev *s = dev_new("full"), *t = dev_new("full");
	struct precopy_info info;
	int in, out;
	size_t len;
	char *rest;

	EQ(set(s, "control/reinit", "64K"), -EINVAL);
	in = enter(s, S_PRE_COPY);
	out = enter(t, S_RESUMING);
	drain_precopy(in, out, -ENOMSG, &info);
	EQ(info.initial_bytes + info.dirty_bytes, 0);
	EQ(set(s, "control/reinit", "128K"), 0);
	EQ(precopy_info(in, &info), 0);
	EQ(info.initial_bytes, 131072);
	EQ(info.dirty_bytes, 0);
	/* Without the opt-in, flags are what the user put in. */
	info.flags = 0x55;
	EQ(ioctl(in, MIG_GET_PRECOPY_INFO, &info), 0);
	EQ(info.flags, 0x55);
	drain_precopy(in, out, -ENOMSG, &info);
	EQ(move(s, S_STOP_COPY), 0);
	rest = slurp(in, &len);
	EQ(pour(out, rest, len), len);
	EQ(move(t, S_STOP), 0);
	CHECK(crc(s) == crc(t));
	free(rest);
	close(in);
	close(out);
	dev_free(s);
	dev_free(t);
}

static void reinit_flag(void)
{
	struct dev *d = dev_new("full");
	struct precopy_info info;
	char buf[65536];
	int fd;

	if (feature(d, 12 | VFIO_DEVICE_FEATURE_SET, buf, 0)) {
		printf("SKIP vm: reinit_flag: this kernel has no MIG_PRECOPY_INFOv2\n");
		dev_free(d);
		return;
	}
	fd = enter(d, S_PRE_COPY);
	EQ(rd(fd, buf, sizeof(buf)), sizeof(buf));
	EQ(set(d, "control/reinit", "64K"), 0);
	info = (struct precopy_info){ .argsz = sizeof(info), .flags = 0x55 };
	EQ(ioctl(fd, MIG_GET_PRECOPY_INFO, &info), 0);
	EQ(info.flags, 1);
	CHECK(info.initial_bytes > (1 << 20) - 65536);
	EQ(info.dirty_bytes, 0);
	info.flags = 0x55;
	EQ(ioctl(fd, MIG_GET_PRECOPY_INFO, &info), 0);
	EQ(info.flags, 0);
	close(fd);
	dev_free(d);
}

const struct test precopy_tests[] = {
	{ "precopy", precopy },
	{ "precopy_asks", precopy_asks },
	{ "reinit", reinit },
	{ "reinit_flag", reinit_flag },
	{ NULL, NULL }
};
