// SPDX-License-Identifier: GPL-2.0-only
/*
 * The migration states, and the reset that may come late.
 *
 * Which steps lead where is the VFIO core's table; here is what a step does:
 *
 *	into a saving state from outside	a new save file
 *	PRE_COPY[_P2P] -> STOP_COPY		the same file gets its last part
 *	out of the saving states		the save file dies
 *	STOP -> RESUMING			a new resume file
 *	RESUMING -> STOP			load, then the resume file dies
 *
 * The reset, deferred kind (mlx5, virtio, xe, mtty): whoever resets never waits
 * for state_mutex. If it is taken, its holder applies the reset on its way out,
 * through ferry_state_unlock(). So VFIO_DEVICE_RESET can return before anything
 * happened, GET_STATE can tell the state of before, a write can succeed into a
 * session that is gone when it returns, and SET_STATE can hand out a dead fd.
 * Plain kind (hisi, qat, pds): the mutex is waited for.
 *
 * A device error (pds) is the same thing with another state at its end.
 */
#include <linux/overflow.h>

#include "ferry_dev.h"

const char *const ferry_state_names[] = {
	[VFIO_DEVICE_STATE_ERROR] = "ERROR",
	[VFIO_DEVICE_STATE_STOP] = "STOP",
	[VFIO_DEVICE_STATE_RUNNING] = "RUNNING",
	[VFIO_DEVICE_STATE_STOP_COPY] = "STOP_COPY",
	[VFIO_DEVICE_STATE_RESUMING] = "RESUMING",
	[VFIO_DEVICE_STATE_RUNNING_P2P] = "RUNNING_P2P",
	[VFIO_DEVICE_STATE_PRE_COPY] = "PRE_COPY",
	[VFIO_DEVICE_STATE_PRE_COPY_P2P] = "PRE_COPY_P2P",
	NULL
};

static bool saving(enum vfio_device_mig_state s)
{
	return s == VFIO_DEVICE_STATE_PRE_COPY ||
	       s == VFIO_DEVICE_STATE_PRE_COPY_P2P ||
	       s == VFIO_DEVICE_STATE_STOP_COPY;
}

static bool running(enum vfio_device_mig_state s)
{
	return s == VFIO_DEVICE_STATE_RUNNING ||
	       s == VFIO_DEVICE_STATE_RUNNING_P2P ||
	       s == VFIO_DEVICE_STATE_PRE_COPY ||
	       s == VFIO_DEVICE_STATE_PRE_COPY_P2P;
}

bool ferry_in_precopy(struct ferry *f)
{
	return saving(f->state) && running(f->state);
}

void ferry_disable_files(struct ferry *f)
{
	if (f->save) {
		ferry_file_disable(ferry_save_file(f->save));
		f->save = NULL;
	}
	if (f->resume) {
		ferry_file_disable(ferry_resume_file(f->resume));
		f->resume = NULL;
	}
}

static void move_to(struct ferry *f, enum vfio_device_mig_state to)
{
	WRITE_ONCE(f->state, to);
	ferry_image_set_running(f, running(to));
}

void ferry_state_lock(struct ferry *f)
{
	mutex_lock(&f->state_mutex);
}

void ferry_state_unlock(struct ferry *f)
{
	enum vfio_device_mig_state to;

again:
	spin_lock(&f->reset_lock);
	if (f->deferred_reset) {
		f->deferred_reset = false;
		to = f->reset_to;
		spin_unlock(&f->reset_lock);
		move_to(f, to);
		ferry_disable_files(f);
		if (to == VFIO_DEVICE_STATE_RUNNING)
			ferry_image_reset(f);
		ferry_count(f, STAT_RESETS_APPLIED, 1);
		goto again;
	}
	/* Inside reset_lock: or a reset could see the mutex held by nobody who looks again. */
	mutex_unlock(&f->state_mutex);
	spin_unlock(&f->reset_lock);
}

/* For a holder of state_mutex: what a reset from elsewhere does just now. */
void ferry_reset_held(struct ferry *f, enum vfio_device_mig_state to)
{
	spin_lock(&f->reset_lock);
	f->deferred_reset = true;
	f->reset_to = to;
	spin_unlock(&f->reset_lock);
	ferry_count(f, STAT_RESETS, 1);
	ferry_count(f, STAT_RESETS_DEFERRED, 1);
}

void ferry_reset(struct ferry *f, enum vfio_device_mig_state to)
{
	bool taken = ferry_knob(f, KNOB_RESET_KIND) == RESET_PLAIN;

	ferry_count(f, STAT_RESETS, 1);
	if (taken)
		ferry_state_lock(f);
	spin_lock(&f->reset_lock);
	f->deferred_reset = true;
	f->reset_to = to;
	taken = taken || mutex_trylock(&f->state_mutex);
	spin_unlock(&f->reset_lock);
	if (taken)
		ferry_state_unlock(f);
	else
		ferry_count(f, STAT_RESETS_DEFERRED, 1);
}

static struct file *step(struct ferry *f, enum vfio_device_mig_state next)
{
	enum vfio_device_mig_state cur = f->state;
	int ret;

	ret = ferry_fault_arc(f, AT_STEP, cur, next);
	if (ret)
		return ERR_PTR(ret);

	/* No more rewrites once the last part is cut. */
	if (!running(next))
		ferry_image_set_running(f, false);

	if (next == VFIO_DEVICE_STATE_RESUMING)
		return ferry_resume_start(f);
	if (saving(next) && !saving(cur))
		return ferry_save_start(f, next != VFIO_DEVICE_STATE_STOP_COPY);

	if (next == VFIO_DEVICE_STATE_STOP_COPY)
		ret = ferry_save_finish(f->save);
	else if (cur == VFIO_DEVICE_STATE_RESUMING)
		ret = ferry_resume_load(f->resume);
	if (ret)
		return ERR_PTR(ret);

	if (!saving(next))
		ferry_disable_files(f);
	return NULL;
}

static struct file *walk(struct ferry *f, enum vfio_device_mig_state to)
{
	enum vfio_device_mig_state next;
	struct file *filp = NULL;
	int ret;

	while (f->state != to) {
		/* Only a reset leads out of it; the core must not be asked for another way. */
		if (f->state == VFIO_DEVICE_STATE_ERROR)
			return ERR_PTR(-EIO);
		ret = vfio_mig_get_next_state(&f->vdev, f->state, to, &next);
		if (ret)
			return ERR_PTR(ret);
		filp = step(f, next);
		if (IS_ERR(filp)) {
			ferry_image_set_running(f, running(f->state));
			return filp;
		}
		move_to(f, next);
	}
	return filp;
}

/* When the guest's device stood still, and when it ran again. */
static void note_time(struct ferry *f, enum ferry_stat what)
{
	atomic64_set(&f->stat[what], ktime_get_ns());
}

static bool runs_or_saves_live(enum vfio_device_mig_state state)
{
	return state == VFIO_DEVICE_STATE_RUNNING || state == VFIO_DEVICE_STATE_PRE_COPY;
}

static struct file *ferry_set_state(struct vfio_device *vdev,
				    enum vfio_device_mig_state to)
{
	struct ferry *f = container_of(vdev, struct ferry, vdev);
	enum vfio_device_mig_state from;
	struct ferry_file *file;
	struct file *filp;
	int ret;

	ret = ferry_fault_arc(f, AT_BEFORE, READ_ONCE(f->state), to);
	if (ret)
		return ERR_PTR(ret);

	ferry_state_lock(f);
	from = f->state;
	if (runs_or_saves_live(from) && !runs_or_saves_live(to))
		note_time(f, STAT_STOPPED_NS);
	filp = walk(f, to);
	if (!IS_ERR(filp) && to == VFIO_DEVICE_STATE_RUNNING)
		note_time(f, STAT_RAN_NS);
	if (!IS_ERR_OR_NULL(filp))
		get_file(filp);
	if (!IS_ERR(filp)) {
		ret = ferry_fault_arc(f, AT_AFTER, from, to);
		if (ret) {
			if (filp)
				fput(filp);
			filp = ERR_PTR(ret);
		}
	}
	ferry_state_unlock(f);

	if (!IS_ERR_OR_NULL(filp)) {
		file = filp->private_data;
		if (READ_ONCE(file->avail) == AVAIL_DEAD)
			ferry_count(f, STAT_DEAD_ON_ARRIVAL, 1);
	}
	return filp;
}

static int ferry_get_state(struct vfio_device *vdev,
			   enum vfio_device_mig_state *state)
{
	struct ferry *f = container_of(vdev, struct ferry, vdev);
	int ret;

	ferry_state_lock(f);
	*state = f->state;
	ret = ferry_fault_call(f, AT_GET_STATE, NULL);
	ferry_state_unlock(f);
	return ret;
}

static int ferry_get_data_size(struct vfio_device *vdev,
			       unsigned long *stop_copy_length)
{
	struct ferry *f = container_of(vdev, struct ferry, vdev);
	int ret;

	ferry_state_lock(f);
	*stop_copy_length = f->save ? ferry_save_left(f->save) :
				      ferry_stop_copy_bytes(f);
	ret = ferry_fault_call(f, AT_DATA_SIZE, NULL);
	ferry_state_unlock(f);
	return ret;
}

const struct vfio_migration_ops ferry_migration_ops = {
	.migration_set_state = ferry_set_state,
	.migration_get_state = ferry_get_state,
	.migration_get_data_size = ferry_get_data_size,
};

/*
 * The device does no DMA, so nothing is ever dirty; but a VMM asks, and refuses
 * to migrate a device that cannot say.
 */
static int ferry_log_start(struct vfio_device *vdev, struct rb_root_cached *ranges,
			   u32 nnodes, u64 *page_size)
{
	struct ferry *f = container_of(vdev, struct ferry, vdev);

	ferry_state_lock(f);
	ferry_state_unlock(f);
	return 0;
}

static int ferry_log_stop(struct vfio_device *vdev)
{
	return ferry_log_start(vdev, NULL, 0, NULL);
}

static int ferry_log_read_and_clear(struct vfio_device *vdev, unsigned long iova,
				    unsigned long length, struct iova_bitmap *dirty)
{
	return ferry_log_start(vdev, NULL, 0, NULL);
}

const struct vfio_log_ops ferry_log_ops = {
	.log_start = ferry_log_start,
	.log_stop = ferry_log_stop,
	.log_read_and_clear = ferry_log_read_and_clear,
};
