// SPDX-License-Identifier: GPL-2.0-only
/*
 * What save and resume files share: life, death, and taking time.
 *
 * A file dies when its session ends, by the state leaving or by a reset, and
 * stays dead: the fd may be open for as long as user space likes, and keeps
 * the device's memory alive, but never sees another session's bytes.
 *
 * Sleeping is the one thing drivers differ in most. By default a call sleeps
 * with no lock held, so a reset gets through and wakes it. With sleep_locked,
 * a read sleeps under the file's lock and a write under the state mutex too:
 * a reset then waits for the reader (xe), or is deferred past the write (mlx5).
 */
#include <linux/anon_inodes.h>
#include <linux/sched/signal.h>

#include "ferry_dev.h"

/* How far a stream may run ahead of its rate; a jiffy is the timer's grain. */
#define BURST_NS (8 * NSEC_PER_MSEC)

static void wake_paced(struct timer_list *timer)
{
	struct ferry_file *file = container_of(timer, struct ferry_file, timer);

	wake_up_interruptible(&file->wait);
}

int ferry_file_init(struct ferry_file *file, struct ferry *f,
		    const struct file_operations *fops, bool resuming)
{
	file->filp = anon_inode_getfile(resuming ? "ferry_resume" : "ferry_save",
					fops, file, resuming ? O_WRONLY : O_RDONLY);
	if (IS_ERR(file->filp))
		return PTR_ERR(file->filp);

	stream_open(file->filp->f_inode, file->filp);
	get_device(&f->vdev.device);
	file->ferry = f;
	file->resuming = resuming;
	mutex_init(&file->lock);
	init_waitqueue_head(&file->wait);
	timer_setup(&file->timer, wake_paced, 0);
	prandom_seed_state(&file->rnd, ferry_knob(f, KNOB_SEED));
	xxh64_reset(&file->hash, 0);
	ferry_count(f, STAT_SESSIONS, 1);
	ferry_count(f, STAT_OPEN_DATA_FDS, 1);
	return 0;
}

void ferry_file_release(struct ferry_file *file)
{
	struct ferry *f = file->ferry;

	timer_delete_sync(&file->timer);
	mutex_destroy(&file->lock);
	ferry_count(f, STAT_OPEN_DATA_FDS, -1);
	vfio_put_device(&f->vdev);
}

void ferry_file_disable(struct ferry_file *file)
{
	mutex_lock(&file->lock);
	WRITE_ONCE(file->avail, AVAIL_DEAD);
	mutex_unlock(&file->lock);
	wake_up_all(&file->wait);
	wake_up_all(&file->ferry->unblock_wait);
	fput(file->filp);
}

/* The stream fails for good, and the device's state does not say so. */
void ferry_file_break(struct ferry_file *file, int err)
{
	mutex_lock(&file->lock);
	file->broken = err;
	WRITE_ONCE(file->avail, AVAIL_DEAD);
	mutex_unlock(&file->lock);
	wake_up_all(&file->wait);
}

/* A stream has one position: a second call inside is a bug of the caller's. */
void ferry_file_enter(struct ferry_file *file)
{
	if (atomic_inc_return(&file->calls) > 1)
		ferry_count(file->ferry, file->resuming ? STAT_CONCURRENT_WRITES :
			    STAT_CONCURRENT_READS, 1);
}

void ferry_file_leave(struct ferry_file *file)
{
	atomic_dec(&file->calls);
}

static bool sleep_lock(struct ferry_file *file)
{
	if (!ferry_knob(file->ferry, KNOB_SLEEP_LOCKED))
		return false;
	if (file->resuming)
		ferry_state_lock(file->ferry);
	mutex_lock(&file->lock);
	return true;
}

static void sleep_unlock(struct ferry_file *file, bool locked)
{
	if (!locked)
		return;
	mutex_unlock(&file->lock);
	if (file->resuming)
		ferry_state_unlock(file->ferry);
}

static bool dead(struct ferry_file *file)
{
	return READ_ONCE(file->avail) == AVAIL_DEAD;
}

static int sleep_ns(struct ferry_file *file, u64 ns)
{
	bool locked;
	int ret;

	if (!ns)
		return 0;
	locked = sleep_lock(file);
	ret = wait_event_interruptible_hrtimeout(file->wait, dead(file),
						 ns_to_ktime(ns));
	sleep_unlock(file, locked);
	return ret == -ERESTARTSYS ? ret : 0;
}

int ferry_file_sleep(struct ferry_file *file, u64 us)
{
	return sleep_ns(file, us * NSEC_PER_USEC);
}

static u64 ahead_ns(struct ferry_file *file)
{
	u64 free_at_ns = READ_ONCE(file->free_at_ns);
	u64 now = ktime_get_ns();

	return free_at_ns > now + BURST_NS ? free_at_ns - now : 0;
}

/* For poll: true, and a wakeup to come, when the rate says that it is too early. */
bool ferry_file_ahead(struct ferry_file *file)
{
	u64 ns = ahead_ns(file);

	if (!ns)
		return false;
	mod_timer(&file->timer, jiffies + nsecs_to_jiffies(ns) + 1);
	return true;
}

int ferry_file_pace(struct ferry_file *file, bool nonblock)
{
	u64 ns = ahead_ns(file);

	if (ns && nonblock)
		return -EAGAIN;
	return sleep_ns(file, ns);
}

void ferry_file_spend(struct ferry_file *file, u64 bytes, u64 rate)
{
	if (rate)
		WRITE_ONCE(file->free_at_ns, max(file->free_at_ns, ktime_get_ns()) +
			   mul_u64_u64_div_u64(bytes, NSEC_PER_SEC, rate));
}

/* Until someone writes to unblock, a signal comes, or the file dies. */
int ferry_file_block(struct ferry *f, struct ferry_file *file)
{
	bool locked = file && sleep_lock(file);
	unsigned int seen = READ_ONCE(f->unblocks);
	int ret;

	ferry_count(f, STAT_BLOCKED, 1);
	ret = wait_event_interruptible(f->unblock_wait,
				       READ_ONCE(f->unblocks) != seen ||
				       READ_ONCE(f->removing) ||
				       (file && dead(file)));
	ferry_count(f, STAT_BLOCKED, -1);
	if (locked)
		sleep_unlock(file, locked);
	return ret;
}

/* Seeded: a test that fails on one segmentation can have the same one again. */
size_t ferry_file_shorten(struct ferry_file *file, size_t len, u64 max)
{
	if (!max || !len)
		return len;
	return min_t(u64, len, 1 + prandom_u32_state(&file->rnd) % max);
}
