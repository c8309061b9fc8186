// SPDX-License-Identifier: GPL-2.0-only
/*
 * Knobs, statistics and actions of one device, under its own folder in sysfs:
 *
 *	knobs/   numbers (K, M, G accepted) and choices, read at every use; those
 *		 that make the image are refused (EBUSY) while it is in use
 *	stats/   what happened
 *	control/ what to make happen
 *
 * README.md lists them all.
 */
#include <linux/device.h>
#include <linux/string.h>
#include <linux/sysfs.h>

#include "ferry_dev.h"

struct knob_attr {
	struct device_attribute attr;
	enum ferry_knob knob;
	const char *const *names;	/* a choice; else a number */
	u64 initial, min, max;
	bool image;			/* the image is made from it */
};

static const char *const content_names[] = { "structured", "zero", "random", NULL };
static const char *const drained_names[] = { "enomsg", "zero", NULL };
static const char *const reset_names[] = { "deferred", "plain", NULL };

static ssize_t knob_show(struct device *dev, struct device_attribute *attr, char *buf)
{
	struct knob_attr *knob = container_of(attr, struct knob_attr, attr);
	u64 value = ferry_knob(dev_get_drvdata(dev), knob->knob);

	if (knob->names)
		return sysfs_emit(buf, "%s\n", knob->names[value]);
	return sysfs_emit(buf, "%llu\n", value);
}

static int parse_number(const char *buf, u64 *value)
{
	char *end;

	*value = memparse(buf, &end);
	return end == buf || *skip_spaces(end) ? -EINVAL : 0;
}

static int remake_image(struct ferry *f, enum ferry_knob knob, u64 value)
{
	u64 old;
	int ret = -EBUSY;

	ferry_state_lock(f);
	if (!f->save && !f->resume) {
		old = f->knob[knob];
		WRITE_ONCE(f->knob[knob], value);
		ret = ferry_image_configure(f);
		if (ret)
			WRITE_ONCE(f->knob[knob], old);
	}
	ferry_state_unlock(f);
	return ret;
}

static ssize_t knob_store(struct device *dev, struct device_attribute *attr,
			  const char *buf, size_t len)
{
	struct knob_attr *knob = container_of(attr, struct knob_attr, attr);
	struct ferry *f = dev_get_drvdata(dev);
	u64 value;
	int ret;

	if (knob->names) {
		ret = __sysfs_match_string(knob->names, -1, buf);
		if (ret < 0)
			return ret;
		value = ret;
	} else if (parse_number(buf, &value) || value < knob->min || value > knob->max) {
		return -EINVAL;
	}

	if (knob->image) {
		ret = remake_image(f, knob->knob, value);
		if (ret)
			return ret;
	} else {
		WRITE_ONCE(f->knob[knob->knob], value);
	}
	return len;
}

#define KNOB(_name, _knob, _names, _initial, _min, _max, _image)		\
	{									\
		.attr = __ATTR(_name, 0644, knob_show, knob_store),		\
		.knob = _knob, .names = _names, .initial = _initial,		\
		.min = _min, .max = _max, .image = _image,			\
	}
#define NUMBER(_name, _knob, _initial, _max) \
	KNOB(_name, _knob, NULL, _initial, 0, _max, false)
#define CHOICE(_name, _knob, _names) KNOB(_name, _knob, _names, 0, 0, 0, false)

#define BYTES_MAX (64ULL << 30)
#define RATE_MAX (1ULL << 40)
/* Under the hung task detector's two minutes. */
#define US_MAX (100ULL * USEC_PER_SEC)

static struct knob_attr knobs[] = {
	KNOB(state_bytes, KNOB_STATE_BYTES, NULL, 1 << 20, 1, BYTES_MAX, true),
	KNOB(seed, KNOB_SEED, NULL, 0, 0, U64_MAX, true),
	KNOB(content, KNOB_CONTENT, content_names, CONTENT_STRUCTURED, 0, 0, true),
	NUMBER(dirty_rate, KNOB_DIRTY_RATE, 0, RATE_MAX),
	NUMBER(dirty_span, KNOB_DIRTY_SPAN, 0, BYTES_MAX),
	NUMBER(initial_bytes, KNOB_INITIAL_BYTES, 64 << 10, BYTES_MAX),
	NUMBER(precopy_bytes, KNOB_PRECOPY_BYTES, 0, BYTES_MAX),
	NUMBER(record_bytes, KNOB_RECORD_BYTES, 1 << 20, BYTES_MAX),
	NUMBER(save_chunk_bytes, KNOB_SAVE_CHUNK_BYTES, 0, BYTES_MAX),
	NUMBER(save_latency_us, KNOB_SAVE_LATENCY_US, 0, US_MAX),
	NUMBER(read_rate, KNOB_READ_RATE, 0, RATE_MAX),
	NUMBER(write_rate, KNOB_WRITE_RATE, 0, RATE_MAX),
	NUMBER(read_latency_us, KNOB_READ_LATENCY_US, 0, US_MAX),
	NUMBER(write_latency_us, KNOB_WRITE_LATENCY_US, 0, US_MAX),
	NUMBER(short_read_max, KNOB_SHORT_READ_MAX, 0, BYTES_MAX),
	NUMBER(short_write_max, KNOB_SHORT_WRITE_MAX, 0, BYTES_MAX),
	NUMBER(pollable, KNOB_POLLABLE, 1, 1),
	NUMBER(nonblock, KNOB_NONBLOCK, 1, 1),
	CHOICE(drained, KNOB_DRAINED, drained_names),
	NUMBER(precopy_needs_ioctl, KNOB_PRECOPY_NEEDS_IOCTL, 1, 1),
	CHOICE(reset_kind, KNOB_RESET_KIND, reset_names),
	NUMBER(sleep_locked, KNOB_SLEEP_LOCKED, 0, 1),
	NUMBER(oversize_first, KNOB_OVERSIZE_FIRST, 1, 1),
};
static_assert(ARRAY_SIZE(knobs) == FERRY_KNOBS);

void ferry_knobs_init(struct ferry *f, u64 seed)
{
	int i;

	for (i = 0; i < FERRY_KNOBS; i++)
		f->knob[knobs[i].knob] = knobs[i].initial;
	f->knob[KNOB_SEED] = seed;
}

struct stat_attr {
	struct device_attribute attr;
	enum ferry_stat stat;
};

static ssize_t stat_show(struct device *dev, struct device_attribute *attr, char *buf)
{
	struct stat_attr *stat = container_of(attr, struct stat_attr, attr);
	struct ferry *f = dev_get_drvdata(dev);

	return sysfs_emit(buf, "%lld\n", atomic64_read(&f->stat[stat->stat]));
}

#define STAT(_name, _stat) { __ATTR(_name, 0444, stat_show, NULL), _stat }

static struct stat_attr stats[] = {
	STAT(sessions, STAT_SESSIONS),
	STAT(saves, STAT_SAVES),
	STAT(loads, STAT_LOADS),
	STAT(resets, STAT_RESETS),
	STAT(resets_applied, STAT_RESETS_APPLIED),
	STAT(resets_deferred, STAT_RESETS_DEFERRED),
	STAT(dead_on_arrival, STAT_DEAD_ON_ARRIVAL),
	STAT(open_data_fds, STAT_OPEN_DATA_FDS),
	STAT(concurrent_reads, STAT_CONCURRENT_READS),
	STAT(concurrent_writes, STAT_CONCURRENT_WRITES),
	STAT(bytes_read, STAT_BYTES_READ),
	STAT(bytes_written, STAT_BYTES_WRITTEN),
	STAT(faults_fired, STAT_FAULTS_FIRED),
	STAT(blocked, STAT_BLOCKED),
	STAT(stopped_ns, STAT_STOPPED_NS),
	STAT(ran_ns, STAT_RAN_NS),
};
static_assert(ARRAY_SIZE(stats) == FERRY_STATS);

/* Without state_mutex: it must answer when the device's own GET_STATE cannot. */
static ssize_t state_show(struct device *dev, struct device_attribute *attr, char *buf)
{
	struct ferry *f = dev_get_drvdata(dev);

	return sysfs_emit(buf, "%s\n", ferry_state_names[READ_ONCE(f->state)]);
}
static DEVICE_ATTR_RO(state);

static ssize_t state_crc_show(struct device *dev, struct device_attribute *attr,
			      char *buf)
{
	return sysfs_emit(buf, "%016llx\n", ferry_image_digest(dev_get_drvdata(dev)));
}
static DEVICE_ATTR_RO(state_crc);

static ssize_t generation_show(struct device *dev, struct device_attribute *attr,
			       char *buf)
{
	struct ferry *f = dev_get_drvdata(dev);

	return sysfs_emit(buf, "%llu\n", READ_ONCE(f->image.generation));
}
static DEVICE_ATTR_RO(generation);

static ssize_t fault_show(struct device *dev, struct device_attribute *attr, char *buf)
{
	return ferry_fault_show(dev_get_drvdata(dev), buf);
}

/* One fault a line; "clear" disarms all. */
static ssize_t fault_store(struct device *dev, struct device_attribute *attr,
			   const char *buf, size_t len)
{
	struct ferry *f = dev_get_drvdata(dev);
	char *copy = kstrndup(buf, len, GFP_KERNEL);
	char *at = copy, *line;
	int ret = 0;

	if (!copy)
		return -ENOMEM;
	while (!ret && (line = strsep(&at, "\n"))) {
		line = strim(line);
		if (!strcmp(line, "clear"))
			ferry_fault_clear(f);
		else if (*line)
			ret = ferry_fault_arm(f, line);
	}
	kfree(copy);
	return ret ? ret : len;
}
static DEVICE_ATTR_RW(fault);

static ssize_t unblock_store(struct device *dev, struct device_attribute *attr,
			     const char *buf, size_t len)
{
	struct ferry *f = dev_get_drvdata(dev);

	WRITE_ONCE(f->unblocks, f->unblocks + 1);
	wake_up_all(&f->unblock_wait);
	return len;
}
static DEVICE_ATTR_WO(unblock);

static ssize_t hold_state_show(struct device *dev, struct device_attribute *attr,
			       char *buf)
{
	struct ferry *f = dev_get_drvdata(dev);

	return sysfs_emit(buf, "%d\n", READ_ONCE(f->hold));
}

static ssize_t hold_state_store(struct device *dev, struct device_attribute *attr,
				const char *buf, size_t len)
{
	struct ferry *f = dev_get_drvdata(dev);
	bool hold;

	if (kstrtobool(buf, &hold))
		return -EINVAL;
	if (hold == READ_ONCE(f->hold))
		return len;
	WRITE_ONCE(f->hold, hold);
	if (hold) {
		reinit_completion(&f->held);
		queue_work(ferry_wq, &f->hold_work);
		return wait_for_completion_killable(&f->held) ?: len;
	}
	wake_up_all(&f->unblock_wait);
	flush_work(&f->hold_work);
	return len;
}
static DEVICE_ATTR_RW(hold_state);

static ssize_t reinit_store(struct device *dev, struct device_attribute *attr,
			    const char *buf, size_t len)
{
	u64 bytes;
	int ret;

	if (parse_number(buf, &bytes) || !bytes)
		return -EINVAL;
	ret = ferry_save_reinit(dev_get_drvdata(dev), bytes);
	return ret ? ret : len;
}
static DEVICE_ATTR_WO(reinit);

/* A reset from elsewhere: AER, a hot reset, another function's. */
static ssize_t reset_store(struct device *dev, struct device_attribute *attr,
			   const char *buf, size_t len)
{
	ferry_reset(dev_get_drvdata(dev), VFIO_DEVICE_STATE_RUNNING);
	return len;
}
static DEVICE_ATTR_WO(reset);

static struct attribute *knob_attrs[ARRAY_SIZE(knobs) + 1];
static struct attribute *stat_attrs[ARRAY_SIZE(stats) + 4];
static struct attribute *control_attrs[] = {
	&dev_attr_fault.attr,
	&dev_attr_unblock.attr,
	&dev_attr_hold_state.attr,
	&dev_attr_reinit.attr,
	&dev_attr_reset.attr,
	NULL
};

static const struct attribute_group knob_group = { .name = "knobs", .attrs = knob_attrs };
static const struct attribute_group stat_group = { .name = "stats", .attrs = stat_attrs };
static const struct attribute_group control_group = {
	.name = "control", .attrs = control_attrs,
};

const struct attribute_group *ferry_groups[] = {
	&knob_group, &stat_group, &control_group, NULL
};

/* From the tables above, once, before the driver that publishes them. */
void __init ferry_sysfs_init(void)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(knobs); i++)
		knob_attrs[i] = &knobs[i].attr.attr;
	for (i = 0; i < ARRAY_SIZE(stats); i++)
		stat_attrs[i] = &stats[i].attr.attr;
	stat_attrs[i++] = &dev_attr_state.attr;
	stat_attrs[i++] = &dev_attr_state_crc.attr;
	stat_attrs[i++] = &dev_attr_generation.attr;
}
