// SPDX-License-Identifier: GPL-2.0-only
/*
 * The save file: what a source reads.
 *
 * A SAVE moves pages from the image's dirty bitmap to this file's ready bitmap;
 * the reader's stream is made from the ready ones, page by page, as it is read.
 * A page rewritten between the two is dirty again, and travels again.
 *
 *	first SAVE in flight		WAIT: a read blocks, or -EAGAIN
 *	ready pages left		DATA
 *	PRE_COPY, none left		DRAINED: -ENOMSG, or 0, even with a SAVE in flight;
 *					the next SAVE starts at GET_PRECOPY_INFO
 *	STOP_COPY, more to cut		WAIT: the next SAVE starts by itself
 *	STOP_COPY, END read		EOF: 0, for ever
 *	disabled or broken		DEAD: -ENODEV
 */
#include <linux/bitmap.h>
#include <linux/module.h>
#include <linux/poll.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "save.h"

static const struct file_operations ferry_save_fops_poll;

struct ferry_file *ferry_save_file(struct ferry_save *save)
{
	return &save->file;
}

static u64 records_in(u64 pages, u64 record_pages, u64 chunk_pages)
{
	u64 chunks = pages / chunk_pages;

	return chunks * DIV_ROUND_UP_ULL(chunk_pages, record_pages) +
	       DIV_ROUND_UP_ULL(pages % chunk_pages, record_pages);
}

static unsigned int pages_of(u64 bytes, unsigned int nr_pages)
{
	u64 pages = bytes / FERRY_PAGE;

	return bytes ? clamp_t(u64, pages, 1, nr_pages) : nr_pages;
}

/* The size of a stream that begins in STOP_COPY. */
u64 ferry_stop_copy_bytes(struct ferry *f)
{
	unsigned int pages = f->image.nr_pages;
	u64 records = records_in(pages, pages_of(ferry_knob(f, KNOB_RECORD_BYTES), pages),
				 pages_of(ferry_knob(f, KNOB_SAVE_CHUNK_BYTES), pages));

	return sizeof(struct ferry_stream_header) + f->image.bytes +
	       (records + 1) * sizeof(struct ferry_stream_record) + sizeof(__le64);
}

/* SAVE: a snapshot of which pages go, bounded by save_chunk_bytes. */
static void cut(struct ferry_save *save)
{
	struct ferry_image *img = &save->file.ferry->image;
	unsigned int limit, from, to, room = save->chunk_pages;

	ferry_count(save->file.ferry, STAT_SAVES, 1);
	mutex_lock(&img->lock);
	limit = save->final ? img->nr_pages : save->precopy_pages;
	for_each_set_bitrange(from, to, img->dirty, limit) {
		to = min(to, from + room);
		bitmap_clear(img->dirty, from, to - from);
		for (; from < to; from++, room--)
			save->nr_ready += !__test_and_set_bit(from, save->ready);
		if (!room)
			break;
	}
	if (save->final && find_first_bit(img->dirty, limit) == limit)
		save->complete = true;
	mutex_unlock(&img->lock);

	save->saving = false;
	save->saved = true;
}

static enum ferry_avail avail(struct ferry_save *save)
{
	if (ferry_has_data(save))
		return AVAIL_DATA;
	if (!save->saved)
		return AVAIL_WAIT;
	if (!save->final)
		return AVAIL_DRAINED;
	if (!save->complete)
		return AVAIL_WAIT;
	return save->end_made ? AVAIL_EOF : AVAIL_DATA;
}

static void start_save(struct ferry_save *save)
{
	if (save->saving)
		return;
	if (!ferry_knob(save->file.ferry, KNOB_SAVE_LATENCY_US)) {
		cut(save);
		return;
	}
	save->saving = true;
	get_file(save->file.filp);
	queue_work(ferry_wq, &save->work);
}

/* Caller: file.lock. Says what is there to read, and asks for more where no one else will. */
static void refresh(struct ferry_save *save)
{
	enum ferry_avail now;

	if (save->file.avail == AVAIL_DEAD)
		return;
	now = avail(save);
	if (now == AVAIL_WAIT && !save->saving) {
		start_save(save);
		now = avail(save);
	}
	WRITE_ONCE(save->file.avail, now);
	if (now != AVAIL_WAIT)
		wake_up_interruptible(&save->file.wait);
}

static void save_work(struct work_struct *work)
{
	struct ferry_save *save = container_of(work, struct ferry_save, work);
	struct ferry_file *file = &save->file;
	struct ferry *f = file->ferry;
	u64 us = ferry_knob(f, KNOB_SAVE_LATENCY_US);

	wait_event_hrtimeout(file->wait, READ_ONCE(file->avail) == AVAIL_DEAD,
			     ns_to_ktime(us * NSEC_PER_USEC));
	ferry_state_lock(f);
	mutex_lock(&file->lock);
	if (file->avail != AVAIL_DEAD) {
		cut(save);
		refresh(save);
	}
	mutex_unlock(&file->lock);
	ferry_state_unlock(f);
	fput(file->filp);
}

static ssize_t copy_out(struct ferry_save *save, char __user *buf, size_t len)
{
	ssize_t done = 0;

	while (done < len) {
		size_t n;

		if (save->seg_at == save->seg_len && !ferry_make_segment(save))
			break;
		n = min_t(size_t, len - done, save->seg_len - save->seg_at);
		if (copy_to_user(buf + done, save->seg + save->seg_at, n))
			return done ? done : -EFAULT;
		save->seg_at += n;
		save->file.pos += n;
		done += n;
	}
	return done;
}

/* Caller: file.lock. -EAGAIN: nothing yet, and a blocking reader waits again. */
static ssize_t read_locked(struct ferry_save *save, char __user *buf, size_t len)
{
	struct ferry_file *file = &save->file;
	struct ferry *f = file->ferry;
	u64 fault_at;
	ssize_t done;

	/* mlx5's readers leave PRE_COPY data for the ioctl to ask for; others look for themselves. */
	if (file->avail == AVAIL_DRAINED && !ferry_knob(f, KNOB_PRECOPY_NEEDS_IOCTL)) {
		ferry_image_age(f);
		if (find_first_bit(f->image.dirty, save->precopy_pages) < save->precopy_pages) {
			start_save(save);
			refresh(save);
		}
	}

	switch (file->avail) {
	case AVAIL_DEAD:
		return file->broken ? file->broken : -ENODEV;
	case AVAIL_DRAINED:
		return ferry_knob(f, KNOB_DRAINED) == DRAINED_ZERO ? 0 : -ENOMSG;
	case AVAIL_EOF:
		return 0;
	case AVAIL_WAIT:
		return -EAGAIN;
	case AVAIL_DATA:
		break;
	}

	len = ferry_file_shorten(file, len, ferry_knob(f, KNOB_SHORT_READ_MAX));
	/* An armed fault strikes at its exact offset. */
	fault_at = ferry_fault_next(f, AT_READ);
	if (fault_at > file->pos)
		len = min_t(u64, len, fault_at - file->pos);
	done = copy_out(save, buf, len);
	if (done > 0) {
		ferry_count(f, STAT_BYTES_READ, done);
		ferry_file_spend(file, done, ferry_knob(f, KNOB_READ_RATE));
	}
	refresh(save);
	return done;
}

static bool nonblocking(struct ferry_save *save)
{
	struct ferry *f = save->file.ferry;

	return (save->file.filp->f_flags & O_NONBLOCK) && ferry_knob(f, KNOB_NONBLOCK) &&
	       save->file.filp->f_op == &ferry_save_fops_poll;
}

static int wait_to_read(struct ferry_save *save, bool nonblock)
{
	struct ferry_file *file = &save->file;
	int ret;

	if (!nonblock &&
	    wait_event_interruptible(file->wait, READ_ONCE(file->avail) != AVAIL_WAIT))
		return -ERESTARTSYS;
	if (READ_ONCE(file->avail) == AVAIL_WAIT)
		return -EAGAIN;
	ret = ferry_fault_stream(file, AT_READ, READ_ONCE(file->avail) == AVAIL_EOF);
	if (!ret)
		ret = ferry_file_pace(file, nonblock);
	if (!ret)
		ret = ferry_file_sleep(file, ferry_knob(file->ferry, KNOB_READ_LATENCY_US));
	return ret;
}

static ssize_t ferry_save_read(struct file *filp, char __user *buf, size_t len,
			       loff_t *ppos)
{
	struct ferry_save *save = filp->private_data;
	bool nonblock = nonblocking(save);
	ssize_t ret;

	if (ppos)
		return -ESPIPE;

	ferry_file_enter(&save->file);
	do {
		ret = wait_to_read(save, nonblock);
		if (ret)
			break;
		mutex_lock(&save->file.lock);
		ret = read_locked(save, buf, len);
		mutex_unlock(&save->file.lock);
	} while (ret == -EAGAIN && !nonblock);
	ferry_file_leave(&save->file);
	return ret;
}

static __poll_t ferry_save_poll(struct file *filp, struct poll_table_struct *wait)
{
	struct ferry_save *save = filp->private_data;

	poll_wait(filp, &save->file.wait, wait);
	switch (READ_ONCE(save->file.avail)) {
	case AVAIL_DEAD:
		return EPOLLIN | EPOLLRDNORM | EPOLLRDHUP;
	case AVAIL_DATA:
		return ferry_file_ahead(&save->file) ? 0 : EPOLLIN | EPOLLRDNORM;
	case AVAIL_EOF:
		return EPOLLIN | EPOLLRDNORM;
	default:
		return 0;
	}
}

/* Caller: file.lock. What a stop-copy would still have to carry, headers guessed. */
static u64 left_locked(struct ferry_save *save)
{
	struct ferry_image *img = &save->file.ferry->image;
	u64 pages;

	if (save->stream_bytes)
		return save->stream_bytes - save->file.pos;
	mutex_lock(&img->lock);
	pages = bitmap_weight(img->dirty, img->nr_pages);
	mutex_unlock(&img->lock);
	pages += save->nr_ready + (save->record_end - save->record_next);
	return pages * FERRY_PAGE + (save->seg_len - save->seg_at) +
	       DIV_ROUND_UP_ULL(pages, save->record_pages) *
	       sizeof(struct ferry_stream_record) +
	       (save->end_made ? 0 : sizeof(struct ferry_stream_record) + sizeof(__le64));
}

u64 ferry_save_left(struct ferry_save *save)
{
	u64 ret;

	mutex_lock(&save->file.lock);
	ret = left_locked(save);
	mutex_unlock(&save->file.lock);
	return ret;
}

/* Caller: state_mutex, file.lock; the state is a PRE_COPY one. */
static void precopy_info(struct ferry_save *save, struct vfio_precopy_info *info)
{
	struct ferry *f = save->file.ferry;
	bool reinit = save->reinit && f->state == VFIO_DEVICE_STATE_PRE_COPY;
	u64 ready, dirty;

	ferry_image_age(f);
	/* A suspended device (PRE_COPY_P2P) makes no SAVE. */
	if (f->state == VFIO_DEVICE_STATE_PRE_COPY && (reinit || !ferry_has_data(save)) &&
	    save->saved && !save->saving &&
	    find_first_bit(f->image.dirty, save->precopy_pages) < save->precopy_pages) {
		start_save(save);
		refresh(save);
	}

	ready = save->seg_len - save->seg_at + ((u64)save->nr_ready +
		save->record_end - save->record_next) * FERRY_PAGE;
	mutex_lock(&f->image.lock);
	dirty = bitmap_weight(f->image.dirty, save->precopy_pages) * FERRY_PAGE;
	mutex_unlock(&f->image.lock);

	/* What is unread comes before the new initial data, so it counts as such. */
	if (reinit)
		save->initial_end = save->file.pos + ready + dirty;
	save->reinit &= !reinit;
	if (save->initial_end > save->file.pos)
		info->initial_bytes = min(save->initial_end - save->file.pos, ready + dirty);
	else
		info->initial_bytes = 0;
	info->dirty_bytes = ready + dirty - info->initial_bytes;
#ifdef VFIO_PRECOPY_INFO_REINIT
	if (f->vdev.precopy_info_v2)
		info->flags = reinit ? VFIO_PRECOPY_INFO_REINIT : 0;
#endif
}

static long ferry_save_ioctl(struct file *filp, unsigned int cmd, unsigned long arg)
{
	struct ferry_save *save = filp->private_data;
	struct ferry *f = save->file.ferry;
	struct vfio_precopy_info info = {};
	unsigned long minsz = offsetofend(struct vfio_precopy_info, dirty_bytes);
	int ret = 0;

	if (cmd != VFIO_MIG_GET_PRECOPY_INFO)
		return -ENOTTY;
	if (copy_from_user(&info, (void __user *)arg, minsz))
		return -EFAULT;
	if (info.argsz < minsz)
		return -EINVAL;

	ferry_state_lock(f);
	/* The state first: after a reset the answer is -EINVAL, not -ENODEV. */
	if (!ferry_in_precopy(f)) {
		ret = -EINVAL;
		goto unlock;
	}
	mutex_lock(&save->file.lock);
	if (save->file.avail == AVAIL_DEAD)
		ret = save->file.broken ? save->file.broken : -ENODEV;
	else
		precopy_info(save, &info);
	mutex_unlock(&save->file.lock);
	if (!ret)
		ret = ferry_fault_call(f, AT_PRECOPY_INFO, &save->file);
unlock:
	ferry_state_unlock(f);
	if (!ret && copy_to_user((void __user *)arg, &info, minsz))
		ret = -EFAULT;
	return ret;
}

static int ferry_save_release(struct inode *inode, struct file *filp)
{
	struct ferry_save *save = filp->private_data;

	ferry_file_release(&save->file);
	kvfree(save->ready);
	kfree(save);
	return 0;
}

static const struct file_operations ferry_save_fops_poll = {
	.owner = THIS_MODULE,
	.read = ferry_save_read,
	.poll = ferry_save_poll,
	.unlocked_ioctl = ferry_save_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.release = ferry_save_release,
};

static const struct file_operations ferry_save_fops_nopoll = {
	.owner = THIS_MODULE,
	.read = ferry_save_read,
	.unlocked_ioctl = ferry_save_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.release = ferry_save_release,
};

/* Caller: state_mutex. */
struct file *ferry_save_start(struct ferry *f, bool precopy)
{
	struct ferry_image *img = &f->image;
	unsigned int pages = img->nr_pages;
	struct ferry_save *save;
	int ret = -ENOMEM;

	save = kzalloc(sizeof(*save), GFP_KERNEL_ACCOUNT);
	if (!save)
		return ERR_PTR(-ENOMEM);
	save->ready = kvcalloc(BITS_TO_LONGS(pages), sizeof(long), GFP_KERNEL_ACCOUNT);
	if (save->ready)
		ret = ferry_file_init(&save->file, f, ferry_knob(f, KNOB_POLLABLE) ?
				      &ferry_save_fops_poll : &ferry_save_fops_nopoll,
				      false);
	if (ret) {
		kvfree(save->ready);
		kfree(save);
		return ERR_PTR(ret);
	}

	INIT_WORK(&save->work, save_work);
	save->record_pages = pages_of(ferry_knob(f, KNOB_RECORD_BYTES), pages);
	save->chunk_pages = pages_of(ferry_knob(f, KNOB_SAVE_CHUNK_BYTES), pages);
	save->precopy_pages = pages_of(ferry_knob(f, KNOB_PRECOPY_BYTES), pages);
	if (precopy)
		save->initial_end = min_t(u64, ferry_knob(f, KNOB_INITIAL_BYTES),
					  ferry_bytes_between(img, 0, save->precopy_pages));
	else
		save->stream_bytes = ferry_stop_copy_bytes(f);
	save->final = !precopy;

	mutex_lock(&img->lock);
	bitmap_set(img->dirty, 0, pages);
	mutex_unlock(&img->lock);

	mutex_lock(&save->file.lock);
	ferry_make_header(save);
	start_save(save);
	refresh(save);
	mutex_unlock(&save->file.lock);
	f->save = save;
	return save->file.filp;
}

/* PRE_COPY[_P2P] -> STOP_COPY. Caller: state_mutex. */
int ferry_save_finish(struct ferry_save *save)
{
	int ret = 0;

	mutex_lock(&save->file.lock);
	if (save->file.avail == AVAIL_DEAD) {
		ret = -ENODEV;
	} else {
		save->final = true;
		start_save(save);
		refresh(save);
	}
	mutex_unlock(&save->file.lock);
	return ret;
}

/*
 * The first bytes change and are initial data once more. Drivers do this only
 * for users that opted in to hear of it; here initial_bytes rises for all, and
 * the opt-in adds the flag.
 */
int ferry_save_reinit(struct ferry *f, u64 bytes)
{
	int ret = -EINVAL;

	ferry_state_lock(f);
	if (ferry_in_precopy(f)) {
		ret = ferry_image_rewrite(f, bytes);
		mutex_lock(&f->save->file.lock);
		f->save->reinit = true;
		mutex_unlock(&f->save->file.lock);
	}
	ferry_state_unlock(f);
	return ret;
}
