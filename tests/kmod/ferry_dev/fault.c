// SPDX-License-Identifier: GPL-2.0-only
/*
 * Faults on demand: each armed once, each firing once, at a place a test names.
 *
 *	fault  := action "@" point [ "=" where ] [ "," milliseconds ]
 *
 *	read, write		where: stream offset (K, M, G), or "end". Calls are cut
 *				short at it; the call that starts at or after it is hit.
 *	before, step, after	where: FROM-TO, state names or "*". before: nothing
 *				has happened yet, no lock held. step: before one arc of the
 *				path. after: all steps done, still under state_mutex.
 *	get_state, data_size, precopy_info, reset
 *				where: the how-manieth call from now on (1).
 *
 * A reset in a place that holds state_mutex is a deferred one, applied when the
 * holder leaves: at "after" the fd is dead on arrival, at "get_state" the state
 * is stale, at "precopy_info" the ioctl still succeeds, at "write" the write that
 * reaches the offset still succeeds. At "before" it is applied at once.
 */
#include <linux/delay.h>
#include <linux/slab.h>
#include <linux/string.h>

#include "ferry_dev.h"

enum ferry_action { ACT_RESET, ACT_ERROR, ACT_SAVEFAIL, ACT_BLOCK, ACT_STALL, ACT_ERRNO };
enum ferry_where { WHERE_OFFSET, WHERE_ARC, WHERE_NTH };

static const struct {
	const char *name;
	enum ferry_where where;
	bool held;			/* state_mutex is held there */
} points[FERRY_POINTS] = {
	[AT_READ] = { "read", WHERE_OFFSET, false },
	[AT_WRITE] = { "write", WHERE_OFFSET, false },	/* reset, error: under it, after the write */
	[AT_BEFORE] = { "before", WHERE_ARC, false },
	[AT_STEP] = { "step", WHERE_ARC, true },
	[AT_AFTER] = { "after", WHERE_ARC, true },
	[AT_GET_STATE] = { "get_state", WHERE_NTH, true },
	[AT_DATA_SIZE] = { "data_size", WHERE_NTH, true },
	[AT_PRECOPY_INFO] = { "precopy_info", WHERE_NTH, true },
	[AT_RESET] = { "reset", WHERE_NTH, false },
};

#define ALL_POINTS (BIT(FERRY_POINTS) - 1)
#define FILE_POINTS (BIT(AT_READ) | BIT(AT_WRITE) | BIT(AT_PRECOPY_INFO))
#define RESET_POINTS (ALL_POINTS & ~BIT(AT_RESET))

static const struct {
	const char *name;
	enum ferry_action action;
	int err;
	unsigned long points;
} actions[] = {
	{ "reset", ACT_RESET, 0, RESET_POINTS },
	{ "error", ACT_ERROR, 0, RESET_POINTS },
	{ "savefail", ACT_SAVEFAIL, ENODEV, FILE_POINTS },
	{ "block", ACT_BLOCK, 0, ALL_POINTS },
	{ "stall", ACT_STALL, 0, ALL_POINTS },
	{ "eagain", ACT_ERRNO, EAGAIN, ALL_POINTS },
	{ "ebusy", ACT_ERRNO, EBUSY, ALL_POINTS },
	{ "efault", ACT_ERRNO, EFAULT, ALL_POINTS },
	{ "eintr", ACT_ERRNO, EINTR, ALL_POINTS },
	{ "einval", ACT_ERRNO, EINVAL, ALL_POINTS },
	{ "eio", ACT_ERRNO, EIO, ALL_POINTS },
	{ "enodev", ACT_ERRNO, ENODEV, ALL_POINTS },
	{ "enomem", ACT_ERRNO, ENOMEM, ALL_POINTS },
	{ "enomsg", ACT_ERRNO, ENOMSG, ALL_POINTS },
	{ "enotconn", ACT_ERRNO, ENOTCONN, ALL_POINTS },
	{ "eopnotsupp", ACT_ERRNO, EOPNOTSUPP, ALL_POINTS },
	{ "etimedout", ACT_ERRNO, ETIMEDOUT, ALL_POINTS },
};

#define ANY_STATE (-1)
#define STALL_MS_DEFAULT 1000
#define FAULTS_MAX 64

struct ferry_fault {
	struct list_head list;
	unsigned int action;		/* index in actions */
	enum ferry_point point;
	u64 where;			/* offset (FERRY_NO_FAULT: end), or the number of the call */
	int from, to;
	unsigned int ms;
};

static int parse_state(const char *name, int *state)
{
	if (!strcmp(name, "*")) {
		*state = ANY_STATE;
		return 0;
	}
	*state = match_string(ferry_state_names, -1, name);
	return *state < 0 ? -EINVAL : 0;
}

static int parse_where(struct ferry_fault *fault, char *where)
{
	char *end;

	switch (points[fault->point].where) {
	case WHERE_ARC:
		end = where ? strchr(where, '-') : NULL;
		if (!end)
			return -EINVAL;
		*end++ = '\0';
		return parse_state(where, &fault->from) ?: parse_state(end, &fault->to);
	case WHERE_OFFSET:
		if (!where)
			return -EINVAL;
		if (!strcmp(where, "end")) {
			fault->where = FERRY_NO_FAULT;
			return 0;
		}
		break;
	case WHERE_NTH:
		fault->where = 1;
		if (!where)
			return 0;
		break;
	}
	fault->where = memparse(where, &end);
	return *end || end == where ? -EINVAL : 0;
}

/* "action@point=where,ms"; line is consumed. */
static int parse_fault(struct ferry_fault *fault, char *line)
{
	char *action = strsep(&line, "@");
	char *point = strsep(&line, ",");
	char *where = point;
	unsigned int i;

	if (!point)
		return -EINVAL;
	point = strsep(&where, "=");
	fault->ms = STALL_MS_DEFAULT;
	if (line && kstrtouint(line, 10, &fault->ms))
		return -EINVAL;

	for (i = 0; i < FERRY_POINTS && strcmp(points[i].name, point); i++)
		;
	if (i == FERRY_POINTS)
		return -EINVAL;
	fault->point = i;

	for (i = 0; i < ARRAY_SIZE(actions) && strcmp(actions[i].name, action); i++)
		;
	if (i == ARRAY_SIZE(actions) || !(actions[i].points & BIT(fault->point)))
		return -EINVAL;
	fault->action = i;
	return parse_where(fault, where);
}

int ferry_fault_arm(struct ferry *f, const char *line)
{
	struct ferry_fault *fault = kzalloc(sizeof(*fault), GFP_KERNEL);
	char *copy = kstrdup(line, GFP_KERNEL);
	int ret = -ENOMEM;

	if (fault && copy)
		ret = parse_fault(fault, copy);
	kfree(copy);
	if (!ret) {
		spin_lock(&f->fault_lock);
		if (points[fault->point].where == WHERE_NTH)
			fault->where += f->calls[fault->point];
		if (list_count_nodes(&f->faults) < FAULTS_MAX)
			list_add_tail(&fault->list, &f->faults);
		else
			ret = -ENOSPC;
		spin_unlock(&f->fault_lock);
	}
	if (ret)
		kfree(fault);
	return ret;
}

void ferry_fault_clear(struct ferry *f)
{
	struct ferry_fault *fault, *tmp;
	LIST_HEAD(gone);

	spin_lock(&f->fault_lock);
	list_splice_init(&f->faults, &gone);
	spin_unlock(&f->fault_lock);
	list_for_each_entry_safe(fault, tmp, &gone, list)
		kfree(fault);
}

static const char *state_name(int state)
{
	return state == ANY_STATE ? "*" : ferry_state_names[state];
}

ssize_t ferry_fault_show(struct ferry *f, char *buf)
{
	struct ferry_fault *fault;
	int at = 0;

	spin_lock(&f->fault_lock);
	list_for_each_entry(fault, &f->faults, list) {
		at += sysfs_emit_at(buf, at, "%s@%s=", actions[fault->action].name,
				    points[fault->point].name);
		if (points[fault->point].where == WHERE_ARC)
			at += sysfs_emit_at(buf, at, "%s-%s", state_name(fault->from),
					    state_name(fault->to));
		else if (fault->where == FERRY_NO_FAULT)
			at += sysfs_emit_at(buf, at, "end");
		else
			at += sysfs_emit_at(buf, at, "%llu",
					    fault->where - f->calls[fault->point]);
		if (actions[fault->action].action == ACT_STALL)
			at += sysfs_emit_at(buf, at, ",%u", fault->ms);
		at += sysfs_emit_at(buf, at, "\n");
	}
	spin_unlock(&f->fault_lock);
	return at;
}

/* The nearest armed offset of a stream, where a call has to be cut short. */
u64 ferry_fault_next(struct ferry *f, enum ferry_point point)
{
	struct ferry_fault *fault;
	u64 next = FERRY_NO_FAULT;

	spin_lock(&f->fault_lock);
	list_for_each_entry(fault, &f->faults, list)
		if (fault->point == point)
			next = min(next, fault->where);
	spin_unlock(&f->fault_lock);
	return next;
}

static bool ends_session(const struct ferry_fault *fault)
{
	return actions[fault->action].action == ACT_RESET ||
	       actions[fault->action].action == ACT_ERROR;
}

struct ferry_match {
	enum ferry_point point;
	u64 pos;			/* in the stream, or the number of the call */
	bool end;
	bool written;			/* AT_WRITE: after a write, not before it */
	int from, to;			/* arcs */
};

static bool matches(struct ferry_fault *fault, const struct ferry_match *m)
{
	if (fault->point != m->point)
		return false;
	switch (points[m->point].where) {
	case WHERE_OFFSET:
		if (m->point == AT_WRITE && ends_session(fault) != m->written)
			return false;
		return fault->where == FERRY_NO_FAULT ? m->end : m->pos >= fault->where;
	case WHERE_ARC:
		return (fault->from == ANY_STATE || fault->from == m->from) &&
		       (fault->to == ANY_STATE || fault->to == m->to);
	case WHERE_NTH:
		return m->pos >= fault->where;
	}
	return false;
}

static struct ferry_fault *take(struct ferry *f, const struct ferry_match *m)
{
	struct ferry_fault *fault, *taken = NULL;

	spin_lock(&f->fault_lock);
	list_for_each_entry(fault, &f->faults, list) {
		if (matches(fault, m)) {
			list_del(&fault->list);
			taken = fault;
			break;
		}
	}
	spin_unlock(&f->fault_lock);
	return taken;
}

static void end_session(struct ferry *f, bool held, enum vfio_device_mig_state to)
{
	if (held)
		ferry_reset_held(f, to);
	else
		ferry_reset(f, to);
}

static int strike(struct ferry *f, struct ferry_file *file,
		  const struct ferry_fault *fault, bool held)
{
	int err = -actions[fault->action].err;

	switch (actions[fault->action].action) {
	case ACT_RESET:
		end_session(f, held, VFIO_DEVICE_STATE_RUNNING);
		return 0;
	case ACT_ERROR:
		end_session(f, held, VFIO_DEVICE_STATE_ERROR);
		return 0;
	case ACT_SAVEFAIL:
		ferry_file_break(file, err);
		return err;
	case ACT_BLOCK:
		/* Where state_mutex is held already, it is held on to. */
		return ferry_file_block(f, held ? NULL : file);
	case ACT_STALL:
		ferry_count(f, STAT_BLOCKED, 1);
		msleep(fault->ms);
		ferry_count(f, STAT_BLOCKED, -1);
		return 0;
	case ACT_ERRNO:
		return err;
	}
	return 0;
}

/* All that match, in the order of arming, until one fails the call. */
static int strike_all(struct ferry *f, struct ferry_file *file,
		      const struct ferry_match *m, bool held)
{
	struct ferry_fault *fault;
	int ret = 0;

	while (!ret && (fault = take(f, m))) {
		ferry_count(f, STAT_FAULTS_FIRED, 1);
		ret = strike(f, file, fault, held);
		kfree(fault);
	}
	return ret;
}

/* At the start of a read or write. No lock held. */
int ferry_fault_stream(struct ferry_file *file, enum ferry_point point, bool end)
{
	struct ferry_match m = {
		.point = point, .pos = READ_ONCE(file->pos), .end = end,
	};

	return strike_all(file->ferry, file, &m, false);
}

/* At the end of a write that went well, under state_mutex: a reset comes late. */
void ferry_fault_written(struct ferry_file *file, bool end)
{
	struct ferry_match m = {
		.point = AT_WRITE, .pos = file->pos, .end = end, .written = true,
	};

	strike_all(file->ferry, file, &m, true);
}

int ferry_fault_arc(struct ferry *f, enum ferry_point point,
		    enum vfio_device_mig_state from, enum vfio_device_mig_state to)
{
	struct ferry_match m = { .point = point, .from = from, .to = to };

	return strike_all(f, NULL, &m, points[point].held);
}

int ferry_fault_call(struct ferry *f, enum ferry_point point, struct ferry_file *file)
{
	struct ferry_match m = { .point = point };

	spin_lock(&f->fault_lock);
	m.pos = ++f->calls[point];
	spin_unlock(&f->fault_lock);
	return strike_all(f, file, &m, points[point].held);
}
