/* SPDX-License-Identifier: GPL-2.0-only */
/* A saving session: save.c decides what is ready, encode.c makes the stream of it. */
#ifndef FERRY_SAVE_H
#define FERRY_SAVE_H

#include "ferry_dev.h"

struct ferry_save {
	struct ferry_file file;		/* first: the file's private_data */
	struct work_struct work;
	/* fixed for the session */
	unsigned int record_pages;
	unsigned int chunk_pages;
	unsigned int precopy_pages;
	u64 stream_bytes;		/* 0 if begun in PRE_COPY */
	/* under file.lock */
	unsigned long *ready;
	unsigned int nr_ready;
	unsigned int record_next, record_end;
	u64 initial_end;		/* stream position where initial bytes end */
	bool saving, saved, final, complete, end_made;
	bool reinit;			/* asked for, not yet told */
	unsigned int seg_at, seg_len;
	u8 seg[FERRY_PAGE];
};

/* Anything to read before the next SAVE, END apart. */
static inline bool ferry_has_data(struct ferry_save *save)
{
	return save->seg_at < save->seg_len ||
	       save->record_next < save->record_end || save->nr_ready;
}

/* Bytes of the state in pages [from, to). */
static inline u64 ferry_bytes_between(struct ferry_image *img, u64 from, u64 to)
{
	return min(to * FERRY_PAGE, img->bytes) - from * FERRY_PAGE;
}

/* encode.c; callers hold file.lock */
void ferry_make_header(struct ferry_save *save);
bool ferry_make_segment(struct ferry_save *save);

#endif
