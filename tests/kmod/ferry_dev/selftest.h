/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The device's own test: raw ioctls and system calls, no engine, so that a
 * failure elsewhere is never the device's. Results are 0 or a count, or -errno.
 */
#ifndef SELFTEST_H
#define SELFTEST_H

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>
#include <linux/vfio.h>

/* Newer than the headers of an older build machine. */
enum {
	S_ERROR, S_STOP, S_RUNNING, S_STOP_COPY, S_RESUMING, S_RUNNING_P2P,
	S_PRE_COPY, S_PRE_COPY_P2P
};

struct precopy_info {
	uint32_t argsz, flags;
	uint64_t initial_bytes, dirty_bytes;
};

#define MIG_GET_PRECOPY_INFO _IO(';', 100 + 21)

struct dev {
	char uuid[40];
	char sys[128];
	int container, group, fd;
};

#define CHECK(cond)								\
	do {									\
		if (!(cond)) {							\
			printf("  %s:%d: %s\n", __FILE__, __LINE__, #cond);	\
			fflush(stdout);						\
			_exit(1);						\
		}								\
	} while (0)

#define EQ(expr, want)								\
	do {									\
		long long got_ = (expr), want_ = (want);			\
		if (got_ != want_) {						\
			printf("  %s:%d: %s is %lld, not %lld\n", __FILE__,	\
			       __LINE__, #expr, got_, want_);			\
			fflush(stdout);						\
			_exit(1);						\
		}								\
	} while (0)

struct dev *dev_new(const char *type);
void dev_close(struct dev *d);
void dev_remove(struct dev *d);
void dev_free(struct dev *d);			/* closes, removes, checks for leaks */
void dev_remove_all(void);

int set(struct dev *d, const char *path, const char *value);
void knob(struct dev *d, const char *name, const char *value);
void fault(struct dev *d, const char *line);
void get(struct dev *d, const char *path, char *to, size_t len);
long long stat_of(struct dev *d, const char *name);
uint64_t crc(struct dev *d);

int feature(struct dev *d, uint32_t flags, void *data, size_t len);
int mig_flags(struct dev *d);
int set_state(struct dev *d, int state, int *data_fd);
int move(struct dev *d, int state);		/* set_state that gives no fd */
int enter(struct dev *d, int state);		/* set_state that gives one */
int get_state(struct dev *d);
long long data_size(struct dev *d);
int reset(struct dev *d);
int precopy_info(int fd, struct precopy_info *info);

long rd(int fd, void *buf, size_t len);
long wr(int fd, const void *buf, size_t len);
int polled(int fd, int ms);
double now(void);

/* The whole of a stream; *len says how much. */
char *slurp(int fd, size_t *len);
/* The stream of RUNNING -> STOP_COPY. */
char *save_all(struct dev *d, size_t *len);
long pour(int fd, const char *from, size_t len);

struct test {
	const char *name;
	void (*run)(void);
};

extern const struct test stream_tests[], precopy_tests[], fd_tests[], reset_tests[],
	fault_tests[];

#endif
