// SPDX-License-Identifier: GPL-2.0-only
/*
 * The resume file: what a target writes.
 *
 * Pages are staged apart from the device's contents and taken over in one step
 * at RESUMING -> STOP, so a load that is refused changes nothing. It is refused
 * with -EINVAL until END has come, its digest matches, and every page was sent
 * at least once; the state stays RESUMING, and writing the rest then works.
 *
 *	header that is not ours		-EFAULT, then and from then on
 *	record that makes no sense	-EFAULT, the same
 *	unknown tag			-EOPNOTSUPP, the same
 *	past the end of the image	-ENOMEM; before -ENODEV is looked at, unless
 *					oversize_first is 0
 */
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "ferry_dev.h"

enum ferry_parse { PARSE_HEADER, PARSE_RECORD, PARSE_PAGE, PARSE_END, PARSE_DONE };

struct ferry_resume {
	struct ferry_file file;		/* first: the file's private_data */
	/* under file.lock */
	struct xarray *pages;
	unsigned int nr_pages;
	u64 stream_bytes;		/* from the header; 0 if open-ended */
	enum ferry_parse parse;
	size_t have, need;		/* of buf */
	u64 offset, left;		/* of the record's data */
	bool digest_ok;
	u8 buf[FERRY_PAGE];
};

struct ferry_file *ferry_resume_file(struct ferry_resume *res)
{
	return &res->file;
}

static void expect(struct ferry_resume *res, enum ferry_parse parse, size_t need)
{
	res->parse = parse;
	res->need = need;
	res->have = 0;
}

static void expect_data(struct ferry_resume *res)
{
	if (res->left)
		expect(res, PARSE_PAGE, min_t(u64, res->left, FERRY_PAGE));
	else
		expect(res, PARSE_RECORD, sizeof(struct ferry_stream_record));
}

static int parse_header(struct ferry_resume *res)
{
	const struct ferry_stream_header *header = (void *)res->buf;

	if (le64_to_cpu(header->magic) != FERRY_STREAM_MAGIC ||
	    le32_to_cpu(header->version) != FERRY_STREAM_VERSION || header->flags ||
	    le64_to_cpu(header->state_bytes) != res->file.ferry->image.bytes)
		return -EFAULT;
	WRITE_ONCE(res->stream_bytes, le64_to_cpu(header->stream_bytes));
	expect_data(res);
	return 0;
}

static int parse_record(struct ferry_resume *res)
{
	const struct ferry_stream_record *record = (void *)res->buf;
	u64 state_bytes = res->file.ferry->image.bytes;
	u64 offset = le64_to_cpu(record->offset);
	u64 bytes = le64_to_cpu(record->bytes);

	if (record->flags)
		return -EFAULT;
	switch (le32_to_cpu(record->tag)) {
	case FERRY_RECORD_PAGES:
		if (offset > state_bytes || bytes > state_bytes - offset)
			return -ENOMEM;
		if (!bytes || offset % FERRY_PAGE ||
		    (bytes % FERRY_PAGE && offset + bytes != state_bytes))
			return -EFAULT;
		res->offset = offset;
		res->left = bytes;
		expect_data(res);
		return 0;
	case FERRY_RECORD_END:
		if (offset || bytes != sizeof(__le64))
			return -EFAULT;
		expect(res, PARSE_END, sizeof(__le64));
		return 0;
	default:
		return -EOPNOTSUPP;
	}
}

static int parse_page(struct ferry_resume *res)
{
	int ret;

	memset(res->buf + res->need, 0, FERRY_PAGE - res->need);
	ret = ferry_pages_put(res->pages, res->offset / FERRY_PAGE, res->buf);
	if (ret < 0)
		return ret;
	res->nr_pages += ret;
	res->offset += res->need;
	res->left -= res->need;
	expect_data(res);
	return 0;
}

static int parse(struct ferry_resume *res)
{
	if (res->parse != PARSE_END)
		xxh64_update(&res->file.hash, res->buf, res->need);

	switch (res->parse) {
	case PARSE_HEADER:
		return parse_header(res);
	case PARSE_RECORD:
		return parse_record(res);
	case PARSE_PAGE:
		return parse_page(res);
	case PARSE_END:
		res->digest_ok = le64_to_cpup((__le64 *)res->buf) ==
				 xxh64_digest(&res->file.hash);
		WRITE_ONCE(res->parse, PARSE_DONE);
		return 0;
	case PARSE_DONE:
		break;
	}
	return -ENOMEM;
}

static ssize_t consume(struct ferry_resume *res, const char __user *buf, size_t len)
{
	struct ferry_file *file = &res->file;
	ssize_t done = 0;

	while (done < len) {
		size_t n = min(len - done, res->need - res->have);
		int ret;

		if (res->parse == PARSE_DONE)
			return done ? done : -ENOMEM;
		if (copy_from_user(res->buf + res->have, buf + done, n))
			return done ? done : -EFAULT;
		res->have += n;
		file->pos += n;
		done += n;
		if (res->have < res->need)
			break;
		ret = parse(res);
		if (ret) {
			file->broken = ret;
			return ret;
		}
	}
	return done;
}

/* Lockless, as in the drivers that have this race. */
static bool oversized(struct ferry_resume *res, size_t len)
{
	u64 bytes = READ_ONCE(res->stream_bytes);

	return len && (READ_ONCE(res->parse) == PARSE_DONE ||
		       (bytes && READ_ONCE(res->file.pos) + len > bytes));
}

/* Caller: state_mutex, file.lock. */
static ssize_t write_locked(struct ferry_resume *res, const char __user *buf, size_t len)
{
	struct ferry_file *file = &res->file;
	struct ferry *f = file->ferry;
	u64 fault_at;
	ssize_t done;

	if (file->avail == AVAIL_DEAD)
		return file->broken ? file->broken : -ENODEV;
	if (file->broken)
		return file->broken;
	if (oversized(res, len))
		return -ENOMEM;

	len = ferry_file_shorten(file, len, ferry_knob(f, KNOB_SHORT_WRITE_MAX));
	fault_at = ferry_fault_next(f, AT_WRITE);
	if (fault_at > file->pos)
		len = min_t(u64, len, fault_at - file->pos);
	done = consume(res, buf, len);
	if (done > 0) {
		ferry_count(f, STAT_BYTES_WRITTEN, done);
		ferry_file_spend(file, done, ferry_knob(f, KNOB_WRITE_RATE));
		ferry_fault_written(file, res->parse == PARSE_DONE);
	}
	return done;
}

static ssize_t ferry_resume_write(struct file *filp, const char __user *buf,
				  size_t len, loff_t *ppos)
{
	struct ferry_resume *res = filp->private_data;
	struct ferry_file *file = &res->file;
	struct ferry *f = file->ferry;
	ssize_t ret;

	if (ppos)
		return -ESPIPE;

	ferry_file_enter(file);
	ret = -ENOMEM;
	if (ferry_knob(f, KNOB_OVERSIZE_FIRST) && oversized(res, len))
		goto leave;
	ret = ferry_fault_stream(file, AT_WRITE, false);
	if (!ret)
		ret = ferry_file_pace(file, false);
	if (!ret)
		ret = ferry_file_sleep(file, ferry_knob(f, KNOB_WRITE_LATENCY_US));
	if (ret)
		goto leave;

	ferry_state_lock(f);
	mutex_lock(&file->lock);
	ret = write_locked(res, buf, len);
	mutex_unlock(&file->lock);
	ferry_state_unlock(f);
leave:
	ferry_file_leave(file);
	return ret;
}

static int ferry_resume_release(struct inode *inode, struct file *filp)
{
	struct ferry_resume *res = filp->private_data;

	ferry_pages_free(res->pages);
	ferry_file_release(&res->file);
	kfree(res);
	return 0;
}

/* No ->unlocked_ioctl: every ioctl is -ENOTTY. */
static const struct file_operations ferry_resume_fops = {
	.owner = THIS_MODULE,
	.write = ferry_resume_write,
	.release = ferry_resume_release,
};

/* Caller: state_mutex. */
struct file *ferry_resume_start(struct ferry *f)
{
	struct ferry_resume *res = kzalloc(sizeof(*res), GFP_KERNEL_ACCOUNT);
	int ret = -ENOMEM;

	if (!res)
		return ERR_PTR(-ENOMEM);
	res->pages = ferry_pages_new();
	if (res->pages)
		ret = ferry_file_init(&res->file, f, &ferry_resume_fops, true);
	if (ret) {
		ferry_pages_free(res->pages);
		kfree(res);
		return ERR_PTR(ret);
	}
	expect(res, PARSE_HEADER, sizeof(struct ferry_stream_header));
	f->resume = res;
	return res->file.filp;
}

/* RESUMING -> STOP. Caller: state_mutex. */
int ferry_resume_load(struct ferry_resume *res)
{
	struct ferry *f = res->file.ferry;
	struct xarray *empty = ferry_pages_new();
	int ret = -EINVAL;

	if (!empty)
		return -ENOMEM;
	mutex_lock(&res->file.lock);
	if (!res->file.broken && res->parse == PARSE_DONE && res->digest_ok &&
	    res->nr_pages == f->image.nr_pages) {
		swap(res->pages, empty);
		ferry_image_adopt(f, empty);
		empty = NULL;
		ferry_count(f, STAT_LOADS, 1);
		ret = 0;
	}
	mutex_unlock(&res->file.lock);
	ferry_pages_free(empty);
	return ret;
}
