/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * ferry_dev: a VFIO migration device with no hardware behind it.
 *
 * It exists to show user space, on demand and every time, what real drivers
 * show once in a thousand runs: fds that die, resets that come late, saves
 * that take their time, state of any size.
 *
 * Locks, outer first:
 *   ferry.state_mutex  the migration state and which data file is current
 *   ferry_file.lock    one data file's stream
 *   ferry_image.lock   the device's contents
 *   ferry.reset_lock, ferry.fault_lock  leaf spinlocks
 */
#ifndef FERRY_DEV_H
#define FERRY_DEV_H

#include <linux/atomic.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/ktime.h>
#include <linux/mdev.h>
#include <linux/mutex.h>
#include <linux/prandom.h>
#include <linux/spinlock.h>
#include <linux/timer.h>
#include <linux/vfio.h>
#include <linux/wait.h>
#include <linux/workqueue.h>
#include <linux/xarray.h>
#include <linux/xxhash.h>

#include "stream.h"

#define FERRY_PAGE 4096UL
#define FERRY_CONFIG_BYTES 256
#define FERRY_BAR0_BYTES 4096

/* Every knob is a u64; sysfs.c has the table with names, ranges and defaults. */
enum ferry_knob {
	KNOB_STATE_BYTES,
	KNOB_SEED,
	KNOB_CONTENT,
	KNOB_DIRTY_RATE,
	KNOB_DIRTY_SPAN,
	KNOB_INITIAL_BYTES,
	KNOB_PRECOPY_BYTES,
	KNOB_RECORD_BYTES,
	KNOB_SAVE_CHUNK_BYTES,
	KNOB_SAVE_LATENCY_US,
	KNOB_READ_RATE,
	KNOB_WRITE_RATE,
	KNOB_READ_LATENCY_US,
	KNOB_WRITE_LATENCY_US,
	KNOB_SHORT_READ_MAX,
	KNOB_SHORT_WRITE_MAX,
	KNOB_POLLABLE,
	KNOB_NONBLOCK,
	KNOB_DRAINED,
	KNOB_PRECOPY_NEEDS_IOCTL,
	KNOB_RESET_KIND,
	KNOB_SLEEP_LOCKED,
	KNOB_OVERSIZE_FIRST,
	FERRY_KNOBS
};

enum { CONTENT_STRUCTURED, CONTENT_ZERO, CONTENT_RANDOM };
enum { DRAINED_ENOMSG, DRAINED_ZERO };
enum { RESET_DEFERRED, RESET_PLAIN };

enum ferry_stat {
	STAT_SESSIONS,
	STAT_SAVES,
	STAT_LOADS,
	STAT_RESETS,
	STAT_RESETS_APPLIED,
	STAT_RESETS_DEFERRED,
	STAT_DEAD_ON_ARRIVAL,
	STAT_OPEN_DATA_FDS,
	STAT_CONCURRENT_READS,
	STAT_CONCURRENT_WRITES,
	STAT_BYTES_READ,
	STAT_BYTES_WRITTEN,
	STAT_FAULTS_FIRED,
	STAT_BLOCKED,
	STAT_STOPPED_NS,
	STAT_RAN_NS,
	FERRY_STATS
};

/* Where a fault can strike, and what it can do: see fault.c. */
enum ferry_point {
	AT_READ,
	AT_WRITE,
	AT_BEFORE,
	AT_STEP,
	AT_AFTER,
	AT_GET_STATE,
	AT_DATA_SIZE,
	AT_PRECOPY_INFO,
	AT_RESET,
	FERRY_POINTS
};

/*
 * The device's contents: a function of (seed, generation, page), plus what was
 * rewritten or loaded since. Only loaded, non-zero pages cost memory.
 */
struct ferry_image {
	struct mutex lock;
	/* absent: as generated; value 0: zeros; value N: rewrite N; else: a page */
	struct xarray *pages;
	unsigned long *dirty;		/* rewritten since the saving session took it */
	u64 bytes;
	unsigned int nr_pages;
	u64 seed;
	u64 content;
	u64 generation;			/* one more with every reset */
	u64 rewrites;
	u64 change;			/* moves whenever any byte may have changed */
	u64 digest;
	u64 digest_change;
	bool running;
	u64 aged_until_ns;
};

struct ferry;

enum ferry_avail { AVAIL_WAIT, AVAIL_DATA, AVAIL_DRAINED, AVAIL_EOF, AVAIL_DEAD };

/* What a save file and a resume file share. */
struct ferry_file {
	struct ferry *ferry;		/* holds a reference: the fd may outlive the device's fd */
	struct file *filp;
	struct mutex lock;
	wait_queue_head_t wait;		/* moves of avail, of pacing, and the device's unblock */
	enum ferry_avail avail;
	int broken;			/* errno of every later call, or 0 */
	u64 pos;
	atomic_t calls;			/* reads or writes inside the driver now */
	u64 free_at_ns;			/* when the rate limit has caught up */
	struct timer_list timer;	/* wakes pollers at free_at_ns */
	struct rnd_state rnd;
	struct xxh64_state hash;
	bool resuming;
};

struct ferry_save;
struct ferry_resume;

struct ferry {
	struct vfio_device vdev;
	u64 knob[FERRY_KNOBS];
	atomic64_t stat[FERRY_STATS];
	struct ferry_image image;

	struct mutex state_mutex;
	enum vfio_device_mig_state state;
	struct ferry_save *save;
	struct ferry_resume *resume;

	spinlock_t reset_lock;
	bool deferred_reset;
	enum vfio_device_mig_state reset_to;

	spinlock_t fault_lock;
	struct list_head faults;
	u64 calls[FERRY_POINTS];	/* made so far, of the points that are counted */
	wait_queue_head_t unblock_wait;
	unsigned int unblocks;
	bool removing;

	struct work_struct hold_work;
	struct completion held;
	bool hold;

	struct mutex config_lock;
	u8 config[FERRY_CONFIG_BYTES];
	u8 config_writable[FERRY_CONFIG_BYTES];
	u32 scratch;
};

static inline u64 ferry_knob(struct ferry *f, enum ferry_knob k)
{
	return READ_ONCE(f->knob[k]);
}

static inline void ferry_count(struct ferry *f, enum ferry_stat s, s64 n)
{
	atomic64_add(n, &f->stat[s]);
}

/* main.c */
extern struct workqueue_struct *ferry_wq;

/* sysfs.c */
extern const struct attribute_group *ferry_groups[];
void ferry_sysfs_init(void);
void ferry_knobs_init(struct ferry *f, u64 seed);

/* pci.c */
void ferry_pci_init(struct ferry *f);
ssize_t ferry_pci_read(struct vfio_device *vdev, char __user *buf, size_t len,
		       loff_t *ppos);
ssize_t ferry_pci_write(struct vfio_device *vdev, const char __user *buf,
			size_t len, loff_t *ppos);
long ferry_pci_ioctl(struct vfio_device *vdev, unsigned int cmd,
		     unsigned long arg);
int ferry_pci_region_info(struct vfio_device *vdev,
			  struct vfio_region_info *info,
			  struct vfio_info_cap *caps);

/* state.c */
extern const struct vfio_migration_ops ferry_migration_ops;
extern const struct vfio_log_ops ferry_log_ops;
extern const char *const ferry_state_names[];
void ferry_state_lock(struct ferry *f);
void ferry_state_unlock(struct ferry *f);
void ferry_reset(struct ferry *f, enum vfio_device_mig_state to);
void ferry_reset_held(struct ferry *f, enum vfio_device_mig_state to);
void ferry_disable_files(struct ferry *f);
bool ferry_in_precopy(struct ferry *f);

/* image.c */
int ferry_image_configure(struct ferry *f);
void ferry_image_free(struct ferry_image *img);
void ferry_image_set_running(struct ferry *f, bool running);
void ferry_image_age(struct ferry *f);
int ferry_image_rewrite(struct ferry *f, u64 bytes);
void ferry_image_reset(struct ferry *f);
void ferry_image_adopt(struct ferry *f, struct xarray *pages);
void ferry_image_page(struct ferry_image *img, unsigned int page, void *to);
u64 ferry_image_digest(struct ferry *f);
struct xarray *ferry_pages_new(void);
int ferry_pages_put(struct xarray *pages, unsigned int page, const void *from);
void ferry_pages_free(struct xarray *pages);

/* file.c */
int ferry_file_init(struct ferry_file *file, struct ferry *f,
		    const struct file_operations *fops, bool resuming);
void ferry_file_release(struct ferry_file *file);
void ferry_file_disable(struct ferry_file *file);
void ferry_file_break(struct ferry_file *file, int err);
void ferry_file_enter(struct ferry_file *file);
void ferry_file_leave(struct ferry_file *file);
int ferry_file_sleep(struct ferry_file *file, u64 us);
int ferry_file_pace(struct ferry_file *file, bool nonblock);
bool ferry_file_ahead(struct ferry_file *file);
void ferry_file_spend(struct ferry_file *file, u64 bytes, u64 rate);
int ferry_file_block(struct ferry *f, struct ferry_file *file);
size_t ferry_file_shorten(struct ferry_file *file, size_t len, u64 max);

/* save.c */
struct file *ferry_save_start(struct ferry *f, bool precopy);
int ferry_save_finish(struct ferry_save *save);
struct ferry_file *ferry_save_file(struct ferry_save *save);
u64 ferry_save_left(struct ferry_save *save);
int ferry_save_reinit(struct ferry *f, u64 bytes);
u64 ferry_stop_copy_bytes(struct ferry *f);

/* resume.c */
struct file *ferry_resume_start(struct ferry *f);
int ferry_resume_load(struct ferry_resume *res);
struct ferry_file *ferry_resume_file(struct ferry_resume *res);

/* fault.c */
#define FERRY_NO_FAULT U64_MAX
int ferry_fault_arm(struct ferry *f, const char *line);
void ferry_fault_clear(struct ferry *f);
ssize_t ferry_fault_show(struct ferry *f, char *buf);
u64 ferry_fault_next(struct ferry *f, enum ferry_point point);
int ferry_fault_stream(struct ferry_file *file, enum ferry_point point, bool end);
void ferry_fault_written(struct ferry_file *file, bool end);
int ferry_fault_arc(struct ferry *f, enum ferry_point point,
		    enum vfio_device_mig_state from,
		    enum vfio_device_mig_state to);
int ferry_fault_call(struct ferry *f, enum ferry_point point,
		     struct ferry_file *file);

#endif
