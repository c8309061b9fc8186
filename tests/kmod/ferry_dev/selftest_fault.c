// SPDX-License-Identifier: GPL-2.0-only
/* Every fault that can be armed, at every kind of place. */
#include "selftest.h"

/* Reads until something other than data comes; *total says how much did. */
static long read_on(int fd, size_t *total)
{
	char buf[50000];
	long n;

	*total = 0;
	while ((n = rd(fd, buf, sizeof(buf))) > 0)
		*total += n;
	return n;
}

static void grammar(void)
{
	static const char *const bad[] = {
		"reset", "reset@", "reset@nowhere=1", "explode@read=1", "reset@read",
		"reset@read=x", "reset@read=1x", "reset@before=RUNNING", "eio@before=RUNNING-MARS",
		"savefail@before=RUNNING-STOP", "reset@reset", "stall@read=1,x",
	};
	struct dev *d = dev_new("full");
	char buf[4096];

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		EQ(set(d, "control/fault", bad[i]), -EINVAL);
	fault(d, "reset@read=64K\neio@write=end\n\n block@before=*-STOP_COPY \nstall@get_state,5");
	get(d, "control/fault", buf, sizeof(buf));
	EQ(strcmp(buf, "reset@read=65536\neio@write=end\nblock@before=*-STOP_COPY\n"
		  "stall@get_state=1,5\n"), 0);
	fault(d, "clear");
	get(d, "control/fault", buf, sizeof(buf));
	EQ(buf[0], 0);
	EQ(set(d, "knobs/pollable", "2"), -EINVAL);
	EQ(set(d, "knobs/state_bytes", "0"), -EINVAL);
	EQ(set(d, "knobs/content", "fog"), -EINVAL);
	dev_free(d);
}

static void reset_at_read(void)
{
	struct dev *d = dev_new("full");
	long long size = data_size(d);
	size_t total;
	int fd;

	fault(d, "reset@read=64K");
	fd = enter(d, S_STOP_COPY);
	EQ(read_on(fd, &total), -ENODEV);
	EQ(total, 65536);
	EQ(get_state(d), S_RUNNING);
	close(fd);

	fault(d, "reset@read=end");
	fd = enter(d, S_STOP_COPY);
	EQ(read_on(fd, &total), -ENODEV);
	EQ(total, size);
	close(fd);

	/* Drained looks converged; here it is dead. */
	fault(d, "reset@read=1049000");
	fd = enter(d, S_PRE_COPY);
	EQ(read_on(fd, &total), -ENOMSG);
	EQ(total, size - 32);
	EQ(reset(d), 0);
	EQ(read_on(fd, &total), -ENODEV);
	close(fd);
	EQ(stat_of(d, "faults_fired"), 2);
	dev_free(d);
}

static void reset_at_write(void)
{
	struct dev *s = dev_new("full"), *t = dev_new("full");
	size_t len;
	char *stream = save_all(s, &len);
	int fd;

	fault(t, "reset@write=100000");
	fd = enter(t, S_RESUMING);
	EQ(wr(fd, stream, 65536), 65536);
	EQ(wr(fd, stream + 65536, 65536), 100000 - 65536);
	EQ(wr(fd, stream + 100000, 100), -ENODEV);
	EQ(get_state(t), S_RUNNING);
	close(fd);

	/* Silent: every write went well, and so does leaving. */
	fault(t, "reset@write=end");
	fd = enter(t, S_RESUMING);
	EQ(pour(fd, stream, len), len);
	EQ(move(t, S_RUNNING), 0);
	EQ(stat_of(t, "loads"), 0);
	CHECK(crc(s) != crc(t));
	close(fd);

	/* An oversized write does not even hear that the fd is dead. */
	fd = enter(t, S_RESUMING);
	EQ(wr(fd, stream, 4096), 4096);
	EQ(reset(t), 0);
	EQ(wr(fd, stream, len), -ENOMEM);
	EQ(wr(fd, stream, 1), -ENODEV);
	close(fd);
	EQ(move(s, S_RUNNING), 0);
	free(stream);
	dev_free(s);
	dev_free(t);
}

static void reset_at_arcs(void)
{
	struct dev *d = dev_new("full");
	struct precopy_info info;
	size_t total;
	int old, fd;
	char buf[64];

	/* A new fd out of PRE_COPY -> STOP_COPY: what was sent before is worthless. */
	old = enter(d, S_PRE_COPY);
	fault(d, "reset@before=PRE_COPY-STOP_COPY");
	fd = enter(d, S_STOP_COPY);
	EQ(rd(old, buf, 64), -ENODEV);
	EQ(read_on(fd, &total), 0);
	EQ(total, 1 << 20 | (32 + 24 + 32));
	close(old);
	close(fd);
	EQ(move(d, S_RUNNING), 0);

	/* Dead on arrival. */
	fault(d, "reset@after=RUNNING-PRE_COPY");
	fd = enter(d, S_PRE_COPY);
	EQ(rd(fd, buf, 64), -ENODEV);
	EQ(precopy_info(fd, &info), -EINVAL);
	EQ(stat_of(d, "dead_on_arrival"), 1);
	EQ(get_state(d), S_RUNNING);
	close(fd);

	/* The same where no fd is due: 0, no fd, and the device is RUNNING. */
	fd = enter(d, S_PRE_COPY);
	fault(d, "reset@after=PRE_COPY-STOP_COPY");
	EQ(move(d, S_STOP_COPY), 0);
	EQ(get_state(d), S_RUNNING);
	EQ(rd(fd, buf, 64), -ENODEV);
	close(fd);
	dev_free(d);
}

static void reset_at_calls(void)
{
	struct dev *d = dev_new("full");
	struct precopy_info info;
	int fd = enter(d, S_PRE_COPY);

	/* Counted from the arming on, not from the beginning. */
	EQ(get_state(d), S_PRE_COPY);
	fault(d, "reset@get_state=2");
	EQ(get_state(d), S_PRE_COPY);
	EQ(get_state(d), S_PRE_COPY);	/* stale */
	EQ(get_state(d), S_RUNNING);
	close(fd);

	fd = enter(d, S_PRE_COPY);
	fault(d, "reset@precopy_info");
	EQ(precopy_info(fd, &info), 0);
	EQ(info.initial_bytes, 65536);
	EQ(precopy_info(fd, &info), -EINVAL);
	close(fd);

	fd = enter(d, S_PRE_COPY);
	fault(d, "reset@data_size");
	CHECK(data_size(d) > 1 << 20);
	EQ(get_state(d), S_RUNNING);
	close(fd);

	fault(d, "eagain@reset");
	EQ(reset(d), -EAGAIN);
	EQ(reset(d), 0);
	dev_free(d);
}

static void save_fails(void)
{
	struct dev *d = dev_new("full");
	struct precopy_info info;
	size_t total;
	int fd;

	fault(d, "savefail@read=5000");
	fd = enter(d, S_PRE_COPY);
	EQ(read_on(fd, &total), -ENODEV);
	EQ(total, 5000);
	EQ(read_on(fd, &total), -ENODEV);
	EQ(precopy_info(fd, &info), -ENODEV);
	EQ(polled(fd, 0), POLLIN | POLLRDNORM | POLLRDHUP);
	EQ(get_state(d), S_PRE_COPY);
	EQ(move(d, S_STOP_COPY), -ENODEV);
	/* On failure the device is somewhere on the path. */
	EQ(get_state(d), S_PRE_COPY_P2P);
	EQ(move(d, S_RUNNING), 0);
	close(fd);
	dev_free(d);
}

static void device_errors(void)
{
	struct dev *d = dev_new("full");
	uint64_t before = crc(d);
	size_t total;
	int fd;

	fault(d, "error@read=5000");
	fd = enter(d, S_STOP_COPY);
	EQ(read_on(fd, &total), -ENODEV);
	EQ(total, 5000);
	EQ(get_state(d), S_ERROR);
	EQ(move(d, S_RUNNING), -EIO);
	EQ(move(d, S_STOP), -EIO);
	CHECK(crc(d) == before);
	EQ(reset(d), 0);
	EQ(get_state(d), S_RUNNING);
	CHECK(crc(d) != before);
	close(fd);
	fault(d, "error@after=*-RESUMING");
	fd = enter(d, S_RESUMING);
	EQ(wr(fd, "", 1), -ENODEV);
	EQ(get_state(d), S_ERROR);
	close(fd);
	dev_free(d);
}

static void errnos(void)
{
	struct dev *s = dev_new("full"), *t = dev_new("full");
	size_t total, len;
	char *stream;
	int fd;

	fault(s, "eio@read=5000\nenotconn@read=6000");
	fd = enter(s, S_STOP_COPY);
	EQ(read_on(fd, &total), -EIO);
	EQ(total, 5000);
	EQ(read_on(fd, &total), -ENOTCONN);
	EQ(total, 1000);
	EQ(read_on(fd, &total), 0);
	close(fd);
	EQ(move(s, S_RUNNING), 0);

	stream = save_all(s, &len);
	fault(t, "eio@write=5000");
	fd = enter(t, S_RESUMING);
	EQ(wr(fd, stream, 6000), 5000);
	EQ(wr(fd, stream + 5000, 1000), -EIO);
	EQ(pour(fd, stream + 5000, len - 5000), len - 5000);
	/* The path is RESUMING, STOP, RUNNING_P2P, RUNNING: fail on its way. */
	fault(t, "eio@before=RESUMING-RUNNING\nebusy@step=STOP-RUNNING_P2P");
	EQ(move(t, S_RUNNING), -EIO);
	EQ(get_state(t), S_RESUMING);
	EQ(move(t, S_RUNNING), -EBUSY);
	EQ(get_state(t), S_STOP);
	EQ(move(t, S_RUNNING), 0);
	CHECK(crc(s) == crc(t));
	close(fd);
	fault(t, "etimedout@after=RUNNING-STOP_COPY");
	EQ(set_state(t, S_STOP_COPY, &fd), -ETIMEDOUT);
	EQ(fd, -1);
	EQ(get_state(t), S_STOP_COPY);
	free(stream);
	dev_free(s);
	dev_free(t);
}

struct blocked {
	struct dev *d;
	int fd;
	bool write;
	long ret;
	pthread_t thread;
};

static void ignore(int sig)
{
	(void)sig;
}

static void *call_blocked(void *arg)
{
	struct blocked *b = arg;
	char buf[64] = "";

	b->ret = b->fd < 0 ? get_state(b->d) : b->write ? wr(b->fd, buf, 1) :
					       rd(b->fd, buf, sizeof(buf));
	return NULL;
}

static void begin(struct blocked *b)
{
	struct sigaction sa = { .sa_handler = ignore };

	sigaction(SIGUSR1, &sa, NULL);
	EQ(pthread_create(&b->thread, NULL, call_blocked, b), 0);
	while (!stat_of(b->d, "blocked"))
		usleep(1000);
}

static void blocks(void)
{
	struct dev *d = dev_new("full");
	struct blocked b = { .d = d };

	b.fd = enter(d, S_STOP_COPY);
	fault(d, "block@read=0");
	begin(&b);
	EQ(set(d, "control/unblock", "1"), 0);
	pthread_join(b.thread, NULL);
	EQ(b.ret, 64);

	fault(d, "block@read=64");
	begin(&b);
	pthread_kill(b.thread, SIGUSR1);
	pthread_join(b.thread, NULL);
	EQ(b.ret, -EINTR);

	fault(d, "block@read=64");
	begin(&b);
	EQ(reset(d), 0);
	pthread_join(b.thread, NULL);
	EQ(b.ret, -ENODEV);
	close(b.fd);

	b.fd = enter(d, S_RESUMING);
	b.write = true;
	fault(d, "block@write=0");
	begin(&b);
	EQ(get_state(d), S_RESUMING);
	EQ(set(d, "control/unblock", "1"), 0);
	pthread_join(b.thread, NULL);
	EQ(b.ret, 1);
	/* Under the state mutex: a reset is deferred past the write, which succeeds. */
	knob(d, "sleep_locked", "1");
	fault(d, "block@write=1");
	begin(&b);
	EQ(reset(d), 0);
	EQ(stat_of(d, "resets_deferred"), 1);
	EQ(set(d, "control/unblock", "1"), 0);
	pthread_join(b.thread, NULL);
	EQ(b.ret, -ENODEV);
	close(b.fd);

	b.fd = -1;
	fault(d, "block@get_state");
	begin(&b);
	pthread_kill(b.thread, SIGUSR1);
	pthread_join(b.thread, NULL);
	EQ(b.ret, -EINTR);
	EQ(stat_of(d, "blocked"), 0);
	dev_free(d);
}

static void stalls(void)
{
	struct dev *d = dev_new("full");
	struct blocked b = { .d = d };
	double start = now();

	b.fd = enter(d, S_STOP_COPY);
	fault(d, "stall@read=0,300");
	begin(&b);
	pthread_kill(b.thread, SIGUSR1);
	pthread_join(b.thread, NULL);
	/* Not to be interrupted. */
	CHECK(now() - start >= 0.3);
	EQ(b.ret, 64);
	close(b.fd);
	dev_free(d);
}

/* A device goes while a call is blocked in it, and while faults are armed. */
static void removal_frees_the_blocked(void)
{
	struct dev *d = dev_new("full");
	struct blocked b = { .d = d };

	b.fd = enter(d, S_STOP_COPY);
	fault(d, "block@read=0\nreset@read=64K");
	begin(&b);
	dev_close(d);
	pthread_join(b.thread, NULL);
	EQ(b.ret, -ENODEV);
	EQ(set(d, "control/hold_state", "1"), 0);
	dev_remove(d);
	close(b.fd);
}

const struct test fault_tests[] = {
	{ "grammar", grammar },
	{ "reset_at_read", reset_at_read },
	{ "reset_at_write", reset_at_write },
	{ "reset_at_arcs", reset_at_arcs },
	{ "reset_at_calls", reset_at_calls },
	{ "save_fails", save_fails },
	{ "device_errors", device_errors },
	{ "errnos", errnos },
	{ "blocks", blocks },
	{ "stalls", stalls },
	{ "removal_frees_the_blocked", removal_frees_the_blocked },
	{ NULL, NULL }
};
