// SPDX-License-Identifier: GPL-2.0-only
/* Resets: what each party sees, early, late, and under a storm. */
#include "selftest.h"

static void expect_dead_save(int fd)
{
	struct precopy_info info;
	char buf[64];

	EQ(rd(fd, buf, sizeof(buf)), -ENODEV);
	EQ(rd(fd, buf, sizeof(buf)), -ENODEV);
	EQ(precopy_info(fd, &info), -EINVAL);
	EQ(polled(fd, 0), POLLIN | POLLRDNORM | POLLRDHUP);
}

static void reset_kills(void)
{
	static const char *const kinds[] = { "deferred", "plain" };

	for (int kind = 0; kind < 2; kind++) {
		struct dev *d = dev_new("full");
		uint64_t before = crc(d);
		char buf[64] = "";
		int fd;

		knob(d, "reset_kind", kinds[kind]);
		fd = enter(d, S_PRE_COPY);
		EQ(rd(fd, buf, sizeof(buf)), sizeof(buf));
		EQ(reset(d), 0);
		expect_dead_save(fd);
		EQ(get_state(d), S_RUNNING);
		CHECK(crc(d) != before);
		EQ(stat_of(d, "generation"), 1);
		close(fd);

		fd = enter(d, S_STOP_COPY);
		EQ(reset(d), 0);
		expect_dead_save(fd);
		close(fd);

		fd = enter(d, S_RESUMING);
		EQ(reset(d), 0);
		EQ(wr(fd, buf, sizeof(buf)), -ENODEV);
		EQ(ioctl(fd, MIG_GET_PRECOPY_INFO, buf), -1);
		EQ(errno, ENOTTY);
		/* Silent: only the state told, and only before this. */
		EQ(move(d, S_RUNNING), 0);
		EQ(stat_of(d, "loads"), 0);
		close(fd);

		EQ(stat_of(d, "resets_applied"), 3);
		EQ(stat_of(d, "resets_deferred"), 0);
		EQ(set(d, "control/reset", "1"), 0);
		EQ(stat_of(d, "generation"), 4);
		dev_free(d);
	}
}

/* With content that is all zeros too, a reset shows. */
static void reset_changes_zeros(void)
{
	struct dev *d = dev_new("stop_copy");
	uint64_t before;

	knob(d, "content", "zero");
	knob(d, "state_bytes", "64");
	before = crc(d);
	EQ(reset(d), 0);
	CHECK(crc(d) != before);
	before = crc(d);
	EQ(reset(d), 0);
	CHECK(crc(d) != before);
	dev_free(d);
}

static void function_level_reset(void)
{
	struct dev *d = dev_new("full");
	struct vfio_region_info region = { .argsz = sizeof(region),
					   .index = VFIO_PCI_CONFIG_REGION_INDEX };
	uint16_t control = 0x8000;
	int fd = enter(d, S_PRE_COPY);

	EQ(ioctl(d->fd, VFIO_DEVICE_GET_REGION_INFO, &region), 0);
	EQ(pwrite(d->fd, &control, 2, region.offset + 0x48), 2);
	EQ(pread(d->fd, &control, 2, region.offset + 0x48), 2);
	EQ(control, 0);
	expect_dead_save(fd);
	EQ(get_state(d), S_RUNNING);
	close(fd);
	dev_free(d);
}

/* RESET has returned 0, and nothing has happened yet. */
static void reset_comes_late(void)
{
	struct dev *d = dev_new("full");
	char buf[64], state[32];
	int fd = enter(d, S_STOP_COPY);

	EQ(set(d, "control/hold_state", "1"), 0);
	EQ(reset(d), 0);
	EQ(stat_of(d, "resets_deferred"), 1);
	EQ(stat_of(d, "resets_applied"), 0);
	EQ(rd(fd, buf, sizeof(buf)), 32 + 32);
	EQ(polled(fd, 0), POLLIN | POLLRDNORM);
	get(d, "stats/state", state, sizeof(state));
	EQ(strcmp(state, "STOP_COPY\n"), 0);
	EQ(set(d, "control/hold_state", "0"), 0);
	expect_dead_save(fd);
	EQ(get_state(d), S_RUNNING);
	close(fd);
	dev_free(d);
}

struct caller {
	struct dev *d;
	int fd;
	volatile int done;
	volatile long ret;
	pthread_t thread;
	void *(*call)(void *);
};

static void *call_reset(void *arg)
{
	struct caller *c = arg;

	c->ret = reset(c->d);
	c->done = 1;
	return NULL;
}

static void *call_read(void *arg)
{
	struct caller *c = arg;
	char buf[4096];

	c->ret = rd(c->fd, buf, sizeof(buf));
	c->done = 1;
	return NULL;
}

static void begin(struct caller *c)
{
	c->done = 0;
	EQ(pthread_create(&c->thread, NULL, c->call, c), 0);
}

static long end(struct caller *c)
{
	pthread_join(c->thread, NULL);
	return c->ret;
}

static void plain_reset_waits(void)
{
	struct dev *d = dev_new("full");
	struct caller c = { .d = d, .call = call_reset };
	int fd = enter(d, S_STOP_COPY);

	knob(d, "reset_kind", "plain");
	EQ(set(d, "control/hold_state", "1"), 0);
	begin(&c);
	usleep(100000);
	EQ(c.done, 0);
	EQ(set(d, "control/hold_state", "0"), 0);
	EQ(end(&c), 0);
	EQ(stat_of(d, "resets_deferred"), 0);
	expect_dead_save(fd);
	close(fd);
	dev_free(d);
}

static void blocked_reader_wakes(void)
{
	struct dev *d = dev_new("full");
	struct caller c = { .d = d, .call = call_read };
	char buf[64];

	knob(d, "save_latency_us", "60000000");
	c.fd = enter(d, S_STOP_COPY);
	EQ(rd(c.fd, buf, 64), 32);
	begin(&c);
	usleep(100000);
	EQ(c.done, 0);
	EQ(polled(c.fd, 0), 0);
	EQ(reset(d), 0);
	EQ(end(&c), -ENODEV);
	expect_dead_save(c.fd);
	close(c.fd);
	/* The worker of the dead session lets go too. */
	usleep(50000);
	dev_free(d);
}

/* A reader that sleeps under its lock keeps the reset waiting. */
static void reset_waits_for_reader(void)
{
	struct dev *d = dev_new("full");
	struct caller r = { .d = d, .call = call_read }, c = { .d = d, .call = call_reset };

	knob(d, "pollable", "0");
	knob(d, "sleep_locked", "1");
	knob(d, "reset_kind", "plain");
	fault(d, "block@read=0");
	r.fd = enter(d, S_STOP_COPY);
	begin(&r);
	while (!stat_of(d, "blocked"))
		usleep(1000);
	begin(&c);
	usleep(100000);
	EQ(c.done, 0);
	EQ(set(d, "control/unblock", "1"), 0);
	EQ(end(&c), 0);
	end(&r);
	CHECK(r.ret == -ENODEV || r.ret == 4096);
	close(r.fd);
	dev_free(d);
}

/* The old fd's ioctl while a new session is open. */
static void old_fd_new_session(void)
{
	struct dev *d = dev_new("full");
	struct precopy_info info;
	char buf[64];
	int old = enter(d, S_PRE_COPY), new;

	EQ(reset(d), 0);
	new = enter(d, S_PRE_COPY);
	EQ(precopy_info(old, &info), -ENODEV);
	EQ(rd(old, buf, 64), -ENODEV);
	EQ(precopy_info(new, &info), 0);
	EQ(rd(new, buf, 64), 64);
	close(old);
	close(new);
	dev_free(d);
}

/* Third way of the list: leaving, closing, and never knowing. */
static void abort_never_knows(void)
{
	struct dev *d = dev_new("full");
	int fd = enter(d, S_PRE_COPY);

	EQ(reset(d), 0);
	EQ(close(fd), 0);
	EQ(move(d, S_RUNNING), 0);
	dev_free(d);
}

static void *storm_thread(void *arg)
{
	struct caller *c = arg;
	unsigned int seed = 1;

	while (!c->done) {
		EQ(reset(c->d), 0);
		usleep(rand_r(&seed) % 300);
	}
	return NULL;
}

static bool among(long got, const int *of)
{
	for (; *of != 1; of++)
		if (got == *of)
			return true;
	return got > 0;
}

static void storm(const char *kind, int rounds)
{
	static const int read_errs[] = { 0, -ENODEV, -ENOMSG, 1 };
	static const int write_errs[] = { -ENODEV, -EFAULT, 1 };
	static const int info_errs[] = { 0, -ENODEV, -EINVAL, 1 };
	struct dev *d = dev_new("full"), *s = dev_new("full");
	struct caller c = { .d = d };
	struct precopy_info info;
	char buf[20000], *stream;
	int fd, i, j, ret;
	size_t len;
	long n;

	stream = save_all(s, &len);
	knob(d, "reset_kind", kind);
	knob(d, "save_latency_us", "50");
	knob(d, "dirty_rate", "10M");
	pthread_create(&c.thread, NULL, storm_thread, &c);
	for (i = 0; i < rounds; i++) {
		fd = enter(d, i & 1 ? S_PRE_COPY : S_PRE_COPY_P2P);
		for (j = 0; j < 3; j++) {
			CHECK(among(rd(fd, buf, sizeof(buf)), read_errs));
			CHECK(among(precopy_info(fd, &info), info_errs));
		}
		close(fd);
		/* A fd of its own if a reset came in between. */
		ret = set_state(d, S_STOP_COPY, &fd);
		EQ(ret, 0);
		if (fd >= 0) {
			CHECK(among(rd(fd, buf, sizeof(buf)), read_errs));
			close(fd);
		}
		fd = enter(d, S_RESUMING);
		n = wr(fd, stream, 20000);
		CHECK(among(n, write_errs));
		ret = set_state(d, S_RUNNING, &j);
		CHECK(ret == 0 || ret == -EINVAL);
		close(fd);
		ret = get_state(d);
		CHECK(ret == S_RUNNING || ret == S_RESUMING);
		move(d, S_STOP_COPY == ret ? S_STOP : S_RUNNING);
		if (ret == S_RESUMING)
			EQ(reset(d), 0);
	}
	c.done = 1;
	pthread_join(c.thread, NULL);
	printf("  %s: %lld resets, %lld deferred, %lld fds dead on arrival\n", kind,
	       stat_of(d, "resets_applied"), stat_of(d, "resets_deferred"),
	       stat_of(d, "dead_on_arrival"));
	EQ(stat_of(d, "concurrent_reads"), 0);
	EQ(stat_of(d, "loads"), 0);
	free(stream);
	usleep(10000);
	dev_free(s);
	dev_free(d);
}

static void storm_deferred(void)
{
	storm("deferred", 3000);
}

static void storm_plain(void)
{
	storm("plain", 3000);
}

const struct test reset_tests[] = {
	{ "reset_kills", reset_kills },
	{ "reset_changes_zeros", reset_changes_zeros },
	{ "function_level_reset", function_level_reset },
	{ "reset_comes_late", reset_comes_late },
	{ "plain_reset_waits", plain_reset_waits },
	{ "blocked_reader_wakes", blocked_reader_wakes },
	{ "reset_waits_for_reader", reset_waits_for_reader },
	{ "old_fd_new_session", old_fd_new_session },
	{ "abort_never_knows", abort_never_knows },
	{ "storm_deferred", storm_deferred },
	{ "storm_plain", storm_plain },
	{ NULL, NULL }
};
