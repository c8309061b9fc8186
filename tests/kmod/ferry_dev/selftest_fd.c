// SPDX-License-Identifier: GPL-2.0-only
/* Both kinds of data fd, and the time they take. */
#include <sys/epoll.h>

#include "selftest.h"

static void pollable_fd(void)
{
	struct dev *d = dev_new("full");
	struct epoll_event ev = { .events = EPOLLIN };
	char buf[4096];
	int ep = epoll_create1(0), fd, i;
	double start;

	knob(d, "save_latency_us", "100000");
	knob(d, "save_chunk_bytes", "64K");
	knob(d, "state_bytes", "128K");
	start = now();
	fd = enter(d, S_STOP_COPY);
	EQ(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev), 0);
	fcntl(fd, F_SETFL, O_NONBLOCK);
	/* The header is there at once. */
	EQ(rd(fd, buf, sizeof(buf)), 32);
	EQ(rd(fd, buf, sizeof(buf)), -EAGAIN);
	EQ(polled(fd, 0), 0);
	EQ(polled(fd, 5000), POLLIN | POLLRDNORM);
	CHECK(now() - start > 0.09);
	for (i = 0; i < 17; i++)
		rd(fd, buf, sizeof(buf));
	EQ(rd(fd, buf, sizeof(buf)), -EAGAIN);
	/* Blocking waits for the second chunk. */
	fcntl(fd, F_SETFL, 0);
	EQ(rd(fd, buf, sizeof(buf)), 4096);
	CHECK(now() - start > 0.19);
	knob(d, "nonblock", "0");
	close(fd);
	close(ep);
	dev_free(d);
}

static void unpollable_fd(void)
{
	struct dev *d = dev_new("full");
	struct epoll_event ev = { .events = EPOLLIN };
	int ep = epoll_create1(0), fd;
	char buf[4096];
	double start;

	knob(d, "pollable", "0");
	knob(d, "save_latency_us", "100000");
	fd = enter(d, S_STOP_COPY);
	EQ(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev), -1);
	EQ(errno, EPERM);
	EQ(polled(fd, 0), POLLIN | POLLRDNORM | POLLOUT);
	/* O_NONBLOCK changes nothing. */
	fcntl(fd, F_SETFL, O_NONBLOCK);
	start = now();
	EQ(rd(fd, buf, sizeof(buf)), 32);
	EQ(rd(fd, buf, sizeof(buf)), 4096);
	CHECK(now() - start > 0.05);
	close(fd);
	close(ep);
	dev_free(d);
}

static void pacing(void)
{
	struct dev *s = dev_new("full"), *t = dev_new("full");
	double start = now();
	size_t len;
	char *stream, buf[4096];
	int fd;

	knob(s, "state_bytes", "200K");
	knob(t, "state_bytes", "200K");
	knob(s, "read_rate", "1M");
	fd = enter(s, S_STOP_COPY);
	fcntl(fd, F_SETFL, O_NONBLOCK);
	len = 0;
	for (;;) {
		long n = rd(fd, buf, sizeof(buf));

		if (n == -EAGAIN) {
			len++;
			CHECK(polled(fd, 1000) & POLLIN);
		} else if (n <= 0) {
			EQ(n, 0);
			break;
		}
	}
	CHECK(len > 3);
	CHECK(now() - start > 0.17 && now() - start < 1);
	close(fd);
	EQ(move(s, S_RUNNING), 0);
	knob(s, "read_rate", "0");
	knob(s, "read_latency_us", "50000");
	start = now();
	stream = save_all(s, &len);
	CHECK(now() - start > 0.09);
	knob(t, "write_rate", "1M");
	knob(t, "write_latency_us", "10000");
	start = now();
	fd = enter(t, S_RESUMING);
	EQ(pour(fd, stream, len), len);
	CHECK(now() - start > 0.1);
	EQ(move(t, S_STOP), 0);
	CHECK(crc(s) == crc(t));
	close(fd);
	free(stream);
	dev_free(s);
	dev_free(t);
}

static void *read_some(void *fd)
{
	char buf[4096];

	rd((long)fd, buf, sizeof(buf));
	return NULL;
}

static void two_readers_are_seen(void)
{
	struct dev *d = dev_new("full");
	int fd = enter(d, S_STOP_COPY);
	pthread_t a, b;

	read_some((void *)(long)fd);
	EQ(stat_of(d, "concurrent_reads"), 0);
	knob(d, "read_latency_us", "200000");
	pthread_create(&a, NULL, read_some, (void *)(long)fd);
	pthread_create(&b, NULL, read_some, (void *)(long)fd);
	pthread_join(a, NULL);
	pthread_join(b, NULL);
	EQ(stat_of(d, "concurrent_reads"), 1);
	close(fd);
	dev_free(d);
}

const struct test fd_tests[] = {
	{ "pollable_fd", pollable_fd },
	{ "unpollable_fd", unpollable_fd },
	{ "pacing", pacing },
	{ "two_readers_are_seen", two_readers_are_seen },
	{ NULL, NULL }
};
